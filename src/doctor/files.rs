//! Checks files that hold secrets: whether they exist, and whether other users can read them. The token file of SAS Viya is one.

use std::fs::{File, metadata};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use chrono::Utc;

use super::environment::EnvironmentVariables;
use super::report::{Area, Check, Status};
use super::settings::{self, SettingValues};
use crate::viya::auth::{Credentials, Login};

/// Checks the file at `path`, which holds a secret: absent (a note), readable by others (a warning), or private.
pub(super) fn check_private(name: &str, path: &Path, content: &str) -> Check {
    let area = Area::CREDENTIALS;
    let shown = path.display();
    let found = match metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => return area.note(name, format!("{shown} does not exist")),
        Err(e) => {
            let detail = format!("{shown} cannot be accessed: {e}");
            return area.warning(name, detail, "give this user permission, or name another file");
        }
    };
    if !found.is_file() {
        return area.warning(name, format!("{shown} is not a file"), &format!("name the file with {content}"));
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let detail = format!("{shown} can be read by other users (mode {mode:04o})");
        return area.warning(name, detail, &format!("chmod 600 '{shown}'"));
    }
    match File::open(path) {
        Ok(_) => area.ok(name, format!("{content} in {shown}")),
        Err(e) => area.warning(name, format!("{shown} cannot be read: {e}"), "let this user own the file"),
    }
}

pub(super) fn check_viya(variables: &EnvironmentVariables, known: &SettingValues) -> Vec<Check> {
    let mut checks =
        vec![tokens(Path::new(known.tokens.as_deref().unwrap_or(Credentials::DEFAULT_FILE)), known.base_url.is_some())];
    if let Some(name) = variables.first(&["SAS_CLIENT_ID", "SAS_CLIENT_SECRET"]) {
        checks.push(Area::CREDENTIALS.ok("SAS OAuth client", format!("from the environment ({name})")));
    }
    if let Some(url) = known.base_url.as_deref().filter(|url| url.starts_with("http://")) {
        let detail = format!("{} is not encrypted", settings::shown(url));
        checks.push(Area::CREDENTIALS.warning("SAS Viya", detail, "use https://: others could read the tokens"));
    }
    checks
}

fn tokens(path: &Path, is_wanted: bool) -> Check {
    let check = check_private("SAS Viya tokens", path, "SAS tokens");
    let log_in = "log in with jobrota viya login, and name this file with --output";
    match check.status {
        Status::Ok => {}
        Status::Note if is_wanted => return check.warn(log_in),
        // The mode of the file is more important than its content.
        _ => return check,
    }
    let shown = path.display();
    let validity = match Login::open(path) {
        Ok(file) => file.validity(),
        Err(error) => return Check { detail: error.full_message(), ..check.warn(log_in) },
    };
    let renewed = if validity.renewable { "renewed automatically" } else { "no refresh token" };
    let Some(at) = validity.expires else {
        return Check { detail: format!("{shown}, until an unknown time, {renewed}"), ..check };
    };
    let (is_expired, at) = (at <= Utc::now(), at.format("%Y-%m-%dT%H:%M:%SZ"));
    let expiry = if is_expired { format!(" expired at {at}") } else { format!(", until {at}") };
    let check = Check { detail: format!("{shown}{expiry}, {renewed}"), ..check };
    if is_expired && !validity.renewable { check.warn(log_in) } else { check }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_a_warning_with_the_command_to_repair_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert_eq!(check_private("key", &path, "a key").status, Status::Note);
        assert_eq!(check_private("key", directory.path(), "a key").status, Status::Warning);
        std::fs::write(&path, "x").unwrap();
        let with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            check_private("key", &path, "a key")
        };
        assert_eq!(with(0o600).status, Status::Ok);
        let open = with(0o644);
        assert_eq!(open.status, Status::Warning);
        assert!(open.detail.contains("0644") && open.advice.unwrap().starts_with("chmod 600"));
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    #[test]
    fn the_content_of_the_file_decides() {
        let cases = [
            (r#"{"access_token": "secret-a", "expires_at": "2099-01-01T00:00:00Z"}"#, Status::Ok, "2099-01-01"),
            (r#"{"access_token": "secret-a", "expires_at": "2020-01-01T00:00:00Z"}"#, Status::Warning, "no refresh"),
            (
                r#"{"access_token": "secret-a", "refresh_token": "secret-r", "expires_at": "2020-01-01T00:00:00Z"}"#,
                Status::Ok,
                "renewed automatically",
            ),
            (r#"{"access_token": "secret-a""#, Status::Warning, "not the JSON"),
            (r#"{"other": "secret-a"}"#, Status::Warning, "no access_token"),
        ];
        for (text, status, words) in cases {
            let check = tokens(file(text).path(), true);
            assert_eq!(check.status, status, "{text}");
            assert!(check.detail.contains(words) && !format!("{check:?}").contains("secret"), "{check:?}");
        }
    }

    #[test]
    fn a_missing_file_is_a_warning_only_if_it_is_wanted() {
        assert_eq!(tokens(Path::new("/nowhere/x"), true).status, Status::Warning);
        assert_eq!(tokens(Path::new("/nowhere/x"), false).status, Status::Note);
    }

    #[test]
    fn plain_http_is_a_warning() {
        let known = SettingValues { base_url: Some("http://u:secret@viya/".to_owned()), ..SettingValues::default() };
        let checks = check_viya(&EnvironmentVariables::of(&[("SAS_CLIENT_SECRET", "secret")]), &known);
        assert!(checks.iter().any(|check| check.name == "SAS Viya" && check.status == Status::Warning));
        assert!(!format!("{checks:?}").contains("secret@"));
    }
}
