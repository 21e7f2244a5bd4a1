//! Checks each setting, its value and its source, and collects the values that the other checks need.

use std::path::Path;

use super::DoctorOptions;
use super::environment::EnvironmentVariables;
use super::report::{Area, Check};
use crate::http::address::without_userinfo;
use crate::inventory::Inventory;
use crate::selection::Probe;
use crate::settings::{self, NAMES, Source};

/// The values that other checks need.
#[derive(Debug, Clone, Default)]
pub(super) struct SettingValues {
    pub(super) ledger: Option<String>,
    pub(super) probe: Option<String>,
    pub(super) transport: Option<String>,
    pub(super) base_url: Option<String>,
    pub(super) tokens: Option<String>,
}

pub(super) fn examine(options: &DoctorOptions, variables: &EnvironmentVariables) -> (Vec<Check>, SettingValues) {
    let mut known = SettingValues { tokens: options.tokens.clone(), ..SettingValues::default() };
    let mut checks = Vec::new();
    let mut is_broken = false;
    for name in NAMES {
        let argument = options.ledger.as_deref().filter(|_| name == "ledger");
        let configured = options.configured.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str());
        let found = match settings::find(name, argument.or(configured)) {
            Ok(found) => found,
            Err(error) => {
                // A broken file breaks every setting, but is reported once.
                if !is_broken {
                    let advice = "repair the file, or name another one with JOBROTA_CONFIG";
                    checks.push(Area::SETTINGS.failed("settings file", error.full_message(), advice).needed());
                }
                is_broken = true;
                continue;
            }
        };
        let sas = variables.get("SAS_BASE_URL").filter(|_| name == "base_url");
        let found = found.or_else(|| sas.map(|url| (url.to_owned(), Source::Variable("SAS_BASE_URL".to_owned()))));
        let Some((value, source)) = found else {
            checks.push(Area::SETTINGS.note(name, "not set"));
            continue;
        };
        let source = match source {
            Source::Argument if argument.is_some() => "argument".to_owned(),
            Source::Argument => "jobrota.configure".to_owned(),
            Source::Variable(variable) => variable,
            Source::File(path) => path.display().to_string(),
        };
        // Also a base URL without a scheme can contain a password.
        let text = if name == "base_url" { without_userinfo(&value) } else { shown(&value) };
        checks.push(check_value(name, &value, Area::SETTINGS.ok(name, format!("{text} (from {source})"))));
        match name {
            "ledger" => known.ledger = Some(value),
            "probe" => known.probe = Some(value),
            // Else it is no program, but another kind of transport.
            "transport" if !value.contains([':', '=']) && value != "ssh" && value != "run-command" => {
                known.transport = Some(value);
            }
            "base_url" => known.base_url = Some(value),
            _ => {}
        }
    }
    if !is_broken {
        checks.push(match settings::file() {
            Some(path) => settings_file(&path),
            None => Area::SETTINGS.note("settings file", "there is no jobrota.toml in the working directory"),
        });
    }
    (checks, known)
}

/// Warns of keys that no part of jobrota reads, such as a misspelt name.
fn settings_file(path: &Path) -> Check {
    let check = Area::SETTINGS.ok("settings file", path.display().to_string());
    match settings::unknown_keys(path) {
        Ok(unknown) if !unknown.is_empty() => {
            let detail = format!("{}: no such setting: {}", check.detail, unknown.join(", "));
            Check { detail, ..check }.warn(&format!("remove or correct them; the settings are {}", NAMES.join(", ")))
        }
        _ => check,
    }
}

/// Makes the check of a setting with an invalid value a warning.
fn check_value(name: &str, value: &str, check: Check) -> Check {
    match name {
        "probe" if value.parse::<Probe>().is_err() => {
            check.warn("set probe to \"auto\", \"icmp\", \"tcp:22\" or \"http://{ip}:8080/health\"")
        }
        "inventory" => match Inventory::from_file(value) {
            Ok(inventory) => Check { detail: format!("{}: {} VMs", check.detail, inventory.len()), ..check },
            Err(error) => {
                let check = check.warn("repair the inventory file, or name another one");
                Check { detail: error.full_message(), ..check }
            }
        },
        "mapping" if !matches!(value, "CHANGE_STATUS" | "STARTJOB") => {
            check.warn("set mapping to CHANGE_STATUS or STARTJOB")
        }
        "source" if !matches!(value, "job_notifications" | "autosys_job_log") => {
            check.warn("set source to job_notifications or autosys_job_log")
        }
        _ => check,
    }
}

/// The value for display: of a URL without user, password and query. The container of an Azure URI is in the place of a
/// user, and is kept.
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
    fn arguments_override_settings_of_the_program() {
        let options = DoctorOptions {
            ledger: Some("/argument".to_owned()),
            configured: vec![
                ("ledger".to_owned(), "/configured".to_owned()),
                ("probe".to_owned(), "nonsense".to_owned()),
                ("base_url".to_owned(), "u:secret@viya".to_owned()),
            ],
            ..DoctorOptions::default()
        };
        let (checks, known) = examine(&options, &EnvironmentVariables::default());
        let of = |name: &str| checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(of("ledger").detail, "/argument (from argument)");
        assert_eq!(of("probe").status, Status::Warning);
        assert_eq!(of("base_url").detail, "viya (from jobrota.configure)");
        assert_eq!(known.ledger.as_deref(), Some("/argument"));
        assert_eq!(known.base_url.as_deref(), Some("u:secret@viya"));
    }
}
