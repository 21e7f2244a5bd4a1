//! Where tokens are stored: in a file, in a profile of SAS's own command line, or in memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{cli_profile, token_file};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

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
            Self::CliProfile { path, profile } => cli_profile::read(path, profile),
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

    pub(super) async fn lock(&self) -> Result<Option<File>> {
        match self.path() {
            Some(path) => token_file::lock(path).await,
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
            (Self::CliProfile { path, profile }, Some(file)) => {
                file.finish(&cli_profile::updated(path, profile, response)?)
            }
            (Self::Memory { persist: Some(hook), .. }, _) => {
                let (hook, response) = (Arc::clone(hook), response.clone());
                runtime::blocking(move || hook(&response)).await
            }
            (_, Some(file)) => file.finish(response),
            (_, None) => Ok(()),
        }
    }
}
