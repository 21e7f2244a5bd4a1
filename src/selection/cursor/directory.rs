//! Where the shared cursor is kept when nobody said where.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// Set on every Databricks cluster, to the version of its runtime.
const DATABRICKS: &str = "DATABRICKS_RUNTIME_VERSION";

/// Where the shared cursor is kept when nobody said where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultDir {
    /// The root below which the table `vm_selections` lies.
    pub root: String,
    /// Whether what is written there is still there for the next job. When not, the caller should be warned, and
    /// [`super::super::SelectorOptions::random_start`] be set: otherwise every job would begin with the first VM.
    pub lasting: bool,
}

/// The default place of the shared cursor: beside the configured ledger, else in the user's state directory
/// (`$XDG_STATE_HOME`, `~/.local/state`). On Databricks the latter is a cluster's local disk and does not outlast it.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] when there is no ledger, and the user has no home directory.
pub fn default_dir(ledger_root: Option<&str>) -> Result<DefaultDir> {
    let state = crate::settings::state_dir();
    choose(ledger_root, std::env::var_os(DATABRICKS).is_some(), state)
}

fn choose(ledger_root: Option<&str>, on_databricks: bool, state: Option<PathBuf>) -> Result<DefaultDir> {
    if let Some(root) = ledger_root {
        return Ok(DefaultDir { root: root.to_owned(), lasting: true });
    }
    let directory = state.ok_or_else(|| {
        Error::invalid(
            "there is no place for the shared cursor: no ledger is configured and this user has no home directory; \
             name a directory as the cursor, or \"process\"",
        )
    })?;
    let root = directory.join("jobrota").join("selection");
    let root = root.to_str().ok_or_else(|| {
        Error::invalid(format!("the state directory {} is not UTF-8: name a directory as the cursor", root.display()))
    })?;
    Ok(DefaultDir { root: root.to_owned(), lasting: !on_databricks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_comes_first_then_the_state_directory() {
        let state = || Some(PathBuf::from("/home/x/.local/state"));
        let beside = DefaultDir { root: "s3://bucket/ledger".to_owned(), lasting: true };
        assert_eq!(choose(Some("s3://bucket/ledger"), true, state()).unwrap(), beside);
        let root = "/home/x/.local/state/jobrota/selection".to_owned();
        assert_eq!(choose(None, false, state()).unwrap(), DefaultDir { root: root.clone(), lasting: true });
        assert_eq!(choose(None, true, state()).unwrap(), DefaultDir { root, lasting: false });
        assert!(choose(None, false, None).unwrap_err().to_string().contains("name a directory"));
    }
}
