//! Every setting, its value and where it comes from; and what the other checks need of them.

use super::DoctorOptions;
use super::report::{Area, Check, note, ok};
use super::variables::Variables;
use crate::http::address::without_userinfo;
use crate::settings::{self, Source};

/// Every setting that there is, and what it is for.
const NAMES: [&str; 7] = ["ledger", "inventory", "probe", "transport", "mapping", "source", "base_url"];

/// The values that other checks look at.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) ledger: Option<String>,
    pub(super) probe: Option<String>,
    pub(super) transport: Option<String>,
    pub(super) base_url: Option<String>,
    pub(super) tokens: Option<String>,
}

pub(super) fn examine(options: &DoctorOptions, variables: &Variables) -> (Vec<Check>, Known) {
    let mut known = Known { tokens: options.tokens.clone(), ..Known::default() };
    let mut checks = Vec::new();
    let mut broken = false;
    for name in NAMES {
        let argument = if name == "ledger" { options.ledger.as_deref() } else { None };
        let configured = options.configured.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str());
        let found = match settings::find(name, argument.or(configured)) {
            Ok(found) => found,
            Err(error) => {
                // One broken file breaks every setting: it is told of once.
                if !broken {
                    let text = error.full_message();
                    checks.push(
                        ok(Area::Settings, "settings file", "")
                            .failed(text, "mend the file, or name another one with JOBROTA_CONFIG")
                            .needed(),
                    );
                }
                broken = true;
                continue;
            }
        };
        let sas = variables.get("SAS_BASE_URL").filter(|_| name == "base_url");
        let found = found.or_else(|| sas.map(|url| (url.to_owned(), Source::Variable("SAS_BASE_URL".to_owned()))));
        let Some((value, source)) = found else {
            checks.push(note(Area::Settings, name, "not set"));
            continue;
        };
        let from = match source {
            Source::Argument if argument.is_some() => "argument".to_owned(),
            Source::Argument => "jobrota.configure".to_owned(),
            Source::Variable(variable) => variable,
            Source::File(path) => path.display().to_string(),
        };
        // Without a scheme too, as a typing error must not show a password.
        let text = if name == "base_url" { without_userinfo(&value) } else { shown(&value) };
        checks.push(checked(name, &value, ok(Area::Settings, name, format!("{text} (from {from})"))));
        let kept = match name {
            "ledger" => &mut known.ledger,
            "probe" => &mut known.probe,
            "transport" => &mut known.transport,
            "base_url" => &mut known.base_url,
            _ => continue,
        };
        *kept = Some(value);
    }
    if !broken {
        checks.push(match settings::file() {
            Some(path) => ok(Area::Settings, "settings file", path.display().to_string()),
            None => note(Area::Settings, "settings file", "there is no jobrota.toml in the working directory"),
        });
    }
    (checks, known)
}

/// A value that its setting cannot have is a warning.
fn checked(name: &str, value: &str, check: Check) -> Check {
    let detail = check.detail.clone();
    match name {
        "probe" => match value.parse::<crate::selection::Probe>() {
            Ok(_) => check,
            Err(_) => {
                check.warning(detail, "set probe to \"auto\", \"icmp\", \"tcp:22\" or \"http://{ip}:8080/health\"")
            }
        },
        "inventory" => match crate::inventory::Inventory::from_file(value) {
            Ok(inventory) => Check { detail: format!("{detail}: {} VMs", inventory.len()), ..check },
            Err(error) => check.warning(error.full_message(), "mend the inventory file, or name another one"),
        },
        "mapping" if !matches!(value, "CHANGE_STATUS" | "STARTJOB") => {
            check.warning(detail, "set mapping to CHANGE_STATUS or STARTJOB")
        }
        "source" if !matches!(value, "job_notifications" | "autosys_job_log") => {
            check.warning(detail, "set source to job_notifications or autosys_job_log")
        }
        _ => check,
    }
}

/// A value for people to read: of a URL neither user and password nor query. An Azure container stands where a user would
/// stand, and stays.
pub(super) fn shown(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.to_owned() };
    let azure = matches!(scheme.to_ascii_lowercase().as_str(), "abfs" | "abfss" | "az" | "azure");
    let user = rest.rsplit_once('@').map(|(user, _)| user);
    if azure && user.is_some_and(|user| !user.contains([':', '/', '@', '?'])) {
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        return format!("{scheme}://{}", &rest[..end]);
    }
    without_userinfo(value)
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn urls_are_shown_without_passwords_and_paths_as_they_are() {
        for (value, expected) in [
            ("/data/a@b?c", "/data/a@b?c"),
            ("abfss://ledgers@account.dfs.core.windows.net/x", "abfss://ledgers@account.dfs.core.windows.net/x"),
            ("abfss://u:secret@account.dfs.core.windows.net/x", "abfss://account.dfs.core.windows.net/x"),
            ("abfss://c@account.dfs.core.windows.net/x?sig=secret", "abfss://c@account.dfs.core.windows.net/x"),
            ("s3://key:secret@bucket/x", "s3://bucket/x"),
            ("http://user:secret@{ip}:80/?t=secret", "http://{ip}:80/"),
        ] {
            assert_eq!(shown(value), expected);
        }
    }

    #[test]
    fn arguments_come_before_what_the_program_configured() {
        let options = DoctorOptions {
            ledger: Some("/argument".to_owned()),
            configured: vec![
                ("ledger".to_owned(), "/configured".to_owned()),
                ("probe".to_owned(), "nonsense".to_owned()),
                ("base_url".to_owned(), "u:secret@viya".to_owned()),
            ],
            ..DoctorOptions::default()
        };
        let (checks, known) = examine(&options, &Variables::default());
        let of = |name: &str| checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(of("ledger").detail, "/argument (from argument)");
        assert_eq!(of("probe").status, Status::Warning);
        assert_eq!(of("base_url").detail, "viya (from jobrota.configure)");
        assert_eq!(known.ledger.as_deref(), Some("/argument"));
        assert_eq!(known.base_url.as_deref(), Some("u:secret@viya"));
    }
}
