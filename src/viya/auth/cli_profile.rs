//! The files of SAS's own command line, `sas-viya`: `~/.sas/credentials.json` with the tokens of each profile, and
//! `~/.sas/config.json` with the servers.
//!
//! The format is not documented; it is taken from other programs that read these files. `SAS_CLI_PROFILE` names the profile
//! (else `Default`), `SAS_CLI_CONFIG` the folder that contains `.sas`.

use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::token_file;
use super::token_pair::parse_local_time;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::environment;
use crate::viya::json::text;

fn file(name: &str) -> Option<PathBuf> {
    let parent = environment(&["SAS_CLI_CONFIG"]).map(PathBuf::from).or_else(crate::runtime::home_directory)?;
    Some(parent.join(".sas").join(name))
}

/// The name of the profile in use.
pub(super) fn profile_name(profile: Option<&str>) -> String {
    profile.map(str::to_owned).or_else(|| environment(&["SAS_CLI_PROFILE"])).unwrap_or_else(|| "Default".to_owned())
}

/// The file with the tokens of all profiles.
///
/// # Errors
/// [`ErrorKind::NotFound`] when this user has no home.
pub(super) fn credentials_file() -> Result<PathBuf> {
    file("credentials.json").map(|path| token_file::resolve(&path)).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "this user has no home folder: set SAS_CLI_CONFIG to the folder that has .sas")
    })
}

/// The server of a profile, from `~/.sas/config.json`; `None` when the file does not name one.
pub fn endpoint(profile: Option<&str>) -> Option<String> {
    let text = std::fs::read_to_string(file("config.json")?).ok()?;
    let config: Value = serde_json::from_str(&text).ok()?;
    config.get(profile_name(profile))?.get("sas-endpoint")?.as_str().map(str::to_owned)
}

/// Refuses a server other than the profile's own, where `~/.sas/config.json` names one.
pub(super) fn check_server(profile: Option<&str>, base_url: &str) -> Result<()> {
    // Endpoints are written without a scheme as well.
    let origin = |text: &str| {
        let text = text.trim();
        let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        url::Url::parse(&url).ok().map(|url| url.origin())
    };
    let Some(endpoint) = endpoint(profile) else { return Ok(()) };
    match (origin(&endpoint), origin(base_url)) {
        (Some(theirs), Some(asked)) if theirs != asked => Err(Error::invalid(format!(
            "profile {} of sas-viya is logged in to {}, and its tokens are not sent to {}: name that server (base_url), or \
             give tokens of this one",
            profile_name(profile),
            theirs.ascii_serialization(),
            asked.ascii_serialization()
        ))),
        _ => Ok(()),
    }
}

/// The profile as a SASLogon response.
pub(super) fn read(path: &Path, profile: &str) -> Result<Map<String, Value>> {
    let all = token_file::read(path)?;
    let missing = || {
        let known: Vec<&str> = all.keys().map(String::as_str).collect();
        let text = format!(
            "{} has no profile {profile:?} (it has: {}): log in with sas-viya, or set SAS_CLI_PROFILE",
            path.display(),
            known.join(", ")
        );
        Error::new(ErrorKind::NotFound, text)
    };
    let stored = all.get(profile).filter(|stored| stored.is_object()).ok_or_else(missing)?;
    let mut response = Map::new();
    for (theirs, ours) in [("access-token", "access_token"), ("refresh-token", "refresh_token")] {
        if let Some(text) = text(stored, theirs) {
            response.insert(ours.to_owned(), text.into());
        }
    }
    // It is written with Z or an offset, with and without fractions.
    if let Some(expiry) = text(stored, "expiry").and_then(parse_local_time) {
        response.insert("expires_at".to_owned(), expiry.to_rfc3339_opts(SecondsFormat::Micros, true).into());
    }
    if response.contains_key("access_token") { Ok(response) } else { Err(missing()) }
}

/// The content of the file with the profile's tokens replaced. Everything else in it stays.
pub(super) fn updated(path: &Path, profile: &str, response: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut all = token_file::read(path)?;
    let entry = all.entry(profile.to_owned()).or_insert_with(|| Value::Object(Map::new()));
    if let Some(entry) = entry.as_object_mut() {
        for (ours, theirs) in [("access_token", "access-token"), ("refresh_token", "refresh-token")] {
            if let Some(value) = response.get(ours) {
                entry.insert(theirs.to_owned(), value.clone());
            }
        }
        let expires = response.get("expires_at").and_then(Value::as_str).and_then(parse_local_time);
        let expires = expires.unwrap_or_else(|| Utc::now() + TimeDelta::hours(1));
        entry.insert("expiry".to_owned(), expires.to_rfc3339_opts(SecondsFormat::Secs, true).into());
    }
    Ok(all)
}
