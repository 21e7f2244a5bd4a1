//! Where tokens are kept.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{cli_profile, store};
use crate::error::{Error, ErrorKind, Result};

/// Is given every renewed SASLogon response, and keeps it. It may block.
pub type PersistHook = Arc<dyn Fn(&Map<String, Value>) -> Result<()> + Send + Sync>;

/// Where tokens are kept.
pub(super) enum Place {
    /// A SASLogon response in a file.
    File(PathBuf),
    /// A profile of SAS's own command line.
    Cli { path: PathBuf, profile: String },
    /// Nowhere, or wherever the hook puts them.
    Memory { name: String, persist: Option<PersistHook> },
}

/// A place that is ready to take new tokens.
pub(super) enum Ready {
    File(store::Replacement),
    Cli { replacement: store::Replacement, path: PathBuf, profile: String },
    Memory(Option<PersistHook>),
}

impl Place {
    /// What people call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Cli { path, profile } => format!("profile {profile} of {}", path.display()),
            Self::Memory { name, .. } => name.clone(),
        }
    }

    /// What a user does to get new tokens there.
    pub(super) fn how_to_log_in(&self) -> &'static str {
        match self {
            Self::File(_) => "jobrota viya login, or write the SASLogon response to this file",
            Self::Cli { .. } => "sas-viya auth login",
            Self::Memory { .. } => "give new tokens",
        }
    }

    /// The SASLogon response that is there; nothing is kept in memory that is not known already.
    pub(super) fn read(&self) -> Result<Map<String, Value>> {
        match self {
            Self::File(path) => store::read(path),
            Self::Cli { path, profile } => cli_profile::read(path, profile),
            Self::Memory { name, .. } => Err(Error::new(ErrorKind::NotFound, format!("{name} keeps no tokens"))),
        }
    }

    /// Whether renewed tokens outlive this process.
    pub(super) fn keeps(&self) -> bool {
        !matches!(self, Self::Memory { persist: None, .. })
    }

    pub(super) fn may_rotate(&self) -> Result<()> {
        match self {
            Self::File(path) | Self::Cli { path, .. } => store::may_rotate(path),
            Self::Memory { .. } => Ok(()),
        }
    }

    pub(super) async fn lock(&self) -> Result<Option<store::Lock>> {
        match self {
            Self::File(path) | Self::Cli { path, .. } => store::lock(path).await.map(Some),
            Self::Memory { .. } => Ok(None),
        }
    }

    pub(super) fn prepare(&self) -> Result<Ready> {
        Ok(match self {
            Self::File(path) => Ready::File(store::Replacement::prepare(path)?),
            Self::Cli { path, profile } => Ready::Cli {
                replacement: store::Replacement::prepare(path)?,
                path: path.clone(),
                profile: profile.clone(),
            },
            Self::Memory { persist, .. } => Ready::Memory(persist.clone()),
        })
    }
}

impl Ready {
    /// Keeps `response`.
    pub(super) async fn finish(self, response: &Map<String, Value>) -> Result<()> {
        match self {
            Self::File(replacement) => replacement.finish(response),
            Self::Cli { replacement, path, profile } => {
                replacement.finish(&cli_profile::updated(&path, &profile, response)?)
            }
            Self::Memory(None) => Ok(()),
            Self::Memory(Some(hook)) => {
                let response = response.clone();
                let kept = tokio::task::spawn_blocking(move || hook(&response)).await;
                kept.map_err(|e| Error::new(ErrorKind::Internal, "the persist hook broke down").with_source(e))?
            }
        }
    }
}
