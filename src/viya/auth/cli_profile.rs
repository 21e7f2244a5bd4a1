//! The files of SAS's own command line, `sas-viya`: `~/.sas/credentials.json` with its tokens by profile, and
//! `~/.sas/config.json` with its servers.
//!
//! Source: what others who read these files found in them. `SAS_CLI_PROFILE` names the profile (else `Default`),
//! `SAS_CLI_CONFIG` the folder that has `.sas`.

use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};

use super::place::Place;
use super::store;
use super::tokens::parse_local;
use crate::error::{Error, ErrorKind, Result};

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn file(name: &str) -> Option<PathBuf> {
    let parent = variable("SAS_CLI_CONFIG").map(PathBuf::from).or_else(std::env::home_dir)?;
    Some(parent.join(".sas").join(name))
}

fn profile_name(profile: Option<&str>) -> String {
    profile.map(str::to_owned).or_else(|| variable("SAS_CLI_PROFILE")).unwrap_or_else(|| "Default".to_owned())
}

/// Where the profile's tokens are.
///
/// # Errors
/// [`ErrorKind::NotFound`] when this user has no home.
pub(super) fn place(profile: Option<&str>) -> Result<Place> {
    let path = file("credentials.json").ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "this user has no home folder: set SAS_CLI_CONFIG to the folder that has .sas")
    })?;
    Ok(Place::Cli { path: store::real(&path), profile: profile_name(profile) })
}

/// The server of a profile, from `~/.sas/config.json`; none when that does not say.
pub fn endpoint(profile: Option<&str>) -> Option<String> {
    let text = std::fs::read_to_string(file("config.json")?).ok()?;
    let config: Value = serde_json::from_str(&text).ok()?;
    config.get(profile_name(profile))?.get("sas-endpoint")?.as_str().map(str::to_owned)
}

/// Refuses a server that is not the profile's own, where `~/.sas/config.json` says which that is.
pub(super) fn check_server(profile: Option<&str>, base_url: &str) -> Result<()> {
    // Endpoints are written without a scheme as well.
    let origin = |text: &str| {
        let text = text.trim();
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        url::Url::parse(&whole).ok().map(|url| url.origin())
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
    let all = store::read(path)?;
    let missing = || {
        let known: Vec<&str> = all.keys().map(String::as_str).collect();
        Error::new(
            ErrorKind::NotFound,
            format!(
                "{} has no profile {profile:?} (it has: {}): log in with sas-viya, or set SAS_CLI_PROFILE",
                path.display(),
                known.join(", ")
            ),
        )
    };
    let kept = all.get(profile).and_then(Value::as_object).ok_or_else(missing)?;
    let mut response = Map::new();
    for (theirs, ours) in [("access-token", "access_token"), ("refresh-token", "refresh_token")] {
        if let Some(text) = kept.get(theirs).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            response.insert(ours.to_owned(), text.into());
        }
    }
    // Written with Z, with an offset, with and without fractions.
    if let Some(expiry) = kept.get("expiry").and_then(Value::as_str).and_then(parse_local) {
        response.insert("expires_at".to_owned(), expiry.to_rfc3339_opts(SecondsFormat::Micros, true).into());
    }
    if response.contains_key("access_token") { Ok(response) } else { Err(missing()) }
}

/// The whole file with the profile's tokens replaced; everything else in it is kept.
pub(super) fn updated(path: &Path, profile: &str, response: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut all = store::read(path)?;
    let entry = all.entry(profile.to_owned()).or_insert_with(|| Value::Object(Map::new()));
    if let Some(entry) = entry.as_object_mut() {
        for (ours, theirs) in [("access_token", "access-token"), ("refresh_token", "refresh-token")] {
            if let Some(value) = response.get(ours) {
                entry.insert(theirs.to_owned(), value.clone());
            }
        }
        let expires = response.get("expires_at").and_then(Value::as_str).and_then(parse_local);
        let expires = expires.unwrap_or_else(|| Utc::now() + chrono::TimeDelta::hours(1));
        entry.insert("expiry".to_owned(), stamp(expires).into());
    }
    Ok(all)
}

fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
