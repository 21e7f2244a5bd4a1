//! Where tokens are stored: in a file, in a profile of SAS's own command line, or in memory.
//!
//! The command line, `sas-viya`, has `~/.sas/credentials.json` with the tokens of each profile, and `~/.sas/config.json` with the
//! servers. Their format is not documented; it is taken from other programs that read these files. `SAS_CLI_PROFILE` names the
//! profile (else `Default`), `SAS_CLI_CONFIG` the folder that contains `.sas`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::token_file;
use super::token_pair::parse_local_time;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::settings::environment;
use crate::viya::json::text;

/// Gets every renewed SASLogon response, to store it. It may block.
pub type PersistHook = Arc<dyn Fn(&Map<String, Value>) -> Result<()> + Send + Sync>;

/// Where tokens are stored.
pub(super) enum TokenStorage {
    /// A SASLogon response in a file.
    File(PathBuf),
    /// A profile of SAS's own command line.
    CliProfile { path: PathBuf, profile: String },
    /// Only in memory, and wherever the hook stores them.
    Memory { name: String, persist: Option<PersistHook> },
}

impl TokenStorage {
    /// A name for display.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::CliProfile { path, profile } => format!("profile {profile} of {}", path.display()),
            Self::Memory { name, .. } => name.clone(),
        }
    }

    /// How a user gets new tokens there.
    pub(super) fn how_to_log_in(&self) -> &'static str {
        match self {
            Self::File(_) => "jobrota viya login, or write the SASLogon response to this file",
            Self::CliProfile { .. } => "sas-viya auth login",
            Self::Memory { .. } => "give new tokens",
        }
    }

    /// Reads the stored SASLogon response. Memory has none but the one that the login holds.
    pub(super) fn read(&self) -> Result<Map<String, Value>> {
        match self {
            Self::File(path) => token_file::read(path),
            Self::CliProfile { path, profile } => read_profile(path, profile),
            Self::Memory { name, .. } => Err(Error::new(ErrorKind::NotFound, format!("{name} stores no tokens"))),
        }
    }

    /// Whether renewed tokens are still there after this process ends.
    pub(super) fn is_persistent(&self) -> bool {
        !matches!(self, Self::Memory { persist: None, .. })
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::CliProfile { path, .. } => Some(path),
            Self::Memory { .. } => None,
        }
    }

    /// Checks that renewed tokens may be stored here.
    pub(super) fn check_rotation(&self) -> Result<()> {
        self.path().map_or(Ok(()), token_file::check_rotation)
    }

    pub(super) async fn lock(&self) -> Result<Option<token_file::TokenLocks>> {
        match self.path() {
            Some(path) => token_file::lock(path).await.map(Some),
            None => Ok(None),
        }
    }

    /// Prepares a write, so that it fails before a refresh token is spent. Memory needs none.
    pub(super) fn prepare_write(&self) -> Result<Option<token_file::Replacement>> {
        self.path().map(token_file::Replacement::prepare).transpose()
    }

    /// Stores `response` with the write that was prepared.
    pub(super) async fn write(
        &self,
        prepared: Option<token_file::Replacement>,
        response: &Map<String, Value>,
    ) -> Result<()> {
        match (self, prepared) {
            (Self::CliProfile { path, profile }, Some(file)) => file.finish(&updated_profile(path, profile, response)?),
            (Self::Memory { persist: Some(hook), .. }, _) => {
                let (hook, response) = (Arc::clone(hook), response.clone());
                runtime::blocking(move || hook(&response)).await
            }
            (_, Some(file)) => file.finish(response),
            (_, None) => Ok(()),
        }
    }
}

fn cli_file(name: &str) -> Option<PathBuf> {
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
    cli_file("credentials.json").map(|path| token_file::resolve(&path)).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "this user has no home folder: set SAS_CLI_CONFIG to the folder that has .sas")
    })
}

/// The server of a profile, from `~/.sas/config.json`; `None` when the file does not name one.
pub fn cli_endpoint(profile: Option<&str>) -> Option<String> {
    let text = std::fs::read_to_string(cli_file("config.json")?).ok()?;
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
    let Some(endpoint) = cli_endpoint(profile) else { return Ok(()) };
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
fn read_profile(path: &Path, profile: &str) -> Result<Map<String, Value>> {
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
fn updated_profile(path: &Path, profile: &str, response: &Map<String, Value>) -> Result<Map<String, Value>> {
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
