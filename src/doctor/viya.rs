//! What it takes to log in to SAS Viya: the token file.

use std::path::Path;

use chrono::Utc;

use super::files;
use super::report::{Area, Check, Status, ok};
use super::settings::{self, Known};
use super::variables::Variables;
use crate::viya::auth::Login;

/// Where the comparison looks for the tokens unless it is told otherwise.
const TOKENS: &str = "data/sas_tokens.json";

pub(super) fn examine(variables: &Variables, known: &Known) -> Vec<Check> {
    let mut checks = vec![tokens(Path::new(known.tokens.as_deref().unwrap_or(TOKENS)), known.base_url.is_some())];
    if let Some(name) = variables.first(&["SAS_CLIENT_ID", "SAS_CLIENT_SECRET"]) {
        checks.push(ok(Area::Credentials, "SAS OAuth client", format!("from the environment ({name})")));
    }
    if let Some(url) = known.base_url.as_deref().filter(|url| url.starts_with("http://")) {
        checks.push(ok(Area::Credentials, "SAS Viya", "").warning(
            format!("{} is not encrypted", settings::shown(url)),
            "use https://: tokens would be sent for everybody on the way to read",
        ));
    }
    checks
}

fn tokens(path: &Path, wanted: bool) -> Check {
    let check = files::private("SAS Viya tokens", path, "SAS tokens");
    let log_in = "log in to SAS Viya and write the SASLogon response to this file (mode 600)";
    match check.status {
        Status::Note if wanted => {
            let detail = check.detail.clone();
            return check.warning(detail, log_in);
        }
        Status::Ok => {}
        // What the mode is, is worth more than what is in the file.
        _ => return check,
    }
    let shown = path.display();
    let validity = match Login::open(path) {
        Ok(file) => file.validity(),
        Err(error) => return check.warning(error.full_message(), log_in),
    };
    let renewed = if validity.renewable { "renewed by itself" } else { "no refresh token" };
    match validity.expires {
        Some(at) if at <= Utc::now() => {
            let detail = format!("{shown} expired at {} UTC, {renewed}", at.format("%Y-%m-%d %H:%M:%S"));
            match validity.renewable {
                true => Check { detail, ..check },
                false => check.warning(detail, log_in),
            }
        }
        Some(at) => {
            Check { detail: format!("{shown}, until {} UTC, {renewed}", at.format("%Y-%m-%d %H:%M:%S")), ..check }
        }
        None => Check { detail: format!("{shown}, until a time it does not name, {renewed}"), ..check },
    }
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
    fn what_is_in_the_file_decides() {
        let cases = [
            (r#"{"access_token": "secret-a", "expires_at": "2099-01-01T00:00:00Z"}"#, Status::Ok, "2099-01-01"),
            (r#"{"access_token": "secret-a", "expires_at": "2020-01-01T00:00:00Z"}"#, Status::Warning, "no refresh"),
            (
                r#"{"access_token": "secret-a", "refresh_token": "secret-r", "expires_at": "2020-01-01T00:00:00Z"}"#,
                Status::Ok,
                "renewed by itself",
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
    fn a_file_that_is_not_there_is_missed_only_by_those_who_want_it() {
        assert_eq!(tokens(Path::new("/nowhere/x"), true).status, Status::Warning);
        assert_eq!(tokens(Path::new("/nowhere/x"), false).status, Status::Note);
    }

    #[test]
    fn plain_http_is_a_warning() {
        let known = Known { base_url: Some("http://u:secret@viya/".to_owned()), ..Known::default() };
        let checks = examine(&Variables::of(&[("SAS_CLIENT_SECRET", "secret")]), &known);
        assert!(checks.iter().any(|check| check.name == "SAS Viya" && check.status == Status::Warning));
        assert!(!format!("{checks:?}").contains("secret@"));
    }
}
