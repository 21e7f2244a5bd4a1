//! Checks the credentials for SAS Viya: the token file.

use std::path::Path;

use chrono::Utc;

use super::environment::EnvironmentVariables;
use super::files;
use super::report::{Area, Check, Status};
use super::settings::{self, SettingValues};
use crate::viya::auth::Login;

/// The default token file of a comparison.
const TOKENS: &str = "data/sas_tokens.json";

pub(super) fn examine(variables: &EnvironmentVariables, known: &SettingValues) -> Vec<Check> {
    let mut checks = vec![tokens(Path::new(known.tokens.as_deref().unwrap_or(TOKENS)), known.base_url.is_some())];
    if let Some(name) = variables.first(&["SAS_CLIENT_ID", "SAS_CLIENT_SECRET"]) {
        checks.push(Area::Credentials.ok("SAS OAuth client", format!("from the environment ({name})")));
    }
    if let Some(url) = known.base_url.as_deref().filter(|url| url.starts_with("http://")) {
        let detail = format!("{} is not encrypted", settings::shown(url));
        checks.push(Area::Credentials.warning("SAS Viya", detail, "use https://: others could read the tokens"));
    }
    checks
}

fn tokens(path: &Path, is_wanted: bool) -> Check {
    let check = files::check_private("SAS Viya tokens", path, "SAS tokens");
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
    let (is_expired, at) = (at <= Utc::now(), at.format("%Y-%m-%d %H:%M:%S"));
    let expiry = if is_expired { format!(" expired at {at} UTC") } else { format!(", until {at} UTC") };
    let check = Check { detail: format!("{shown}{expiry}, {renewed}"), ..check };
    if is_expired && !validity.renewable { check.warn(log_in) } else { check }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

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
        let checks = examine(&EnvironmentVariables::of(&[("SAS_CLIENT_SECRET", "secret")]), &known);
        assert!(checks.iter().any(|check| check.name == "SAS Viya" && check.status == Status::Warning));
        assert!(!format!("{checks:?}").contains("secret@"));
    }
}
