//! Names and text of the files that a comparison reads and writes.

use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::error::{Error, ErrorKind, Result};

/// The start of the name of every file that a run writes.
pub(super) const PREFIX: &str = "pooled_jobs_comparison_";

/// The name of a run's files without suffix and extension.
pub(super) fn stem(began: DateTime<Utc>) -> String {
    format!("{PREFIX}{}", began.format("%Y%m%d_%H%M%S"))
}

/// A new name for a temporary file in `folder`.
pub(super) fn temporary(folder: &Path) -> PathBuf {
    folder.join(format!(".jobrota-{}.tmp", uuid::Uuid::new_v4().simple()))
}

/// Calls `create` with the suffixes "", `_2`, `_3` and so on, until the name with this suffix does not exist yet.
pub(super) fn create_numbered<T>(create: impl Fn(&str) -> std::io::Result<T>) -> std::io::Result<T> {
    for number in 1..10_000 {
        let suffix = if number == 1 { String::new() } else { format!("_{number}") };
        match create(&suffix) {
            Err(e) if e.kind() == IoKind::AlreadyExists => {}
            done => return done,
        }
    }
    Err(std::io::Error::new(IoKind::AlreadyExists, "10,000 files of one second exist already"))
}

/// Reads a text file, without the byte order mark that some editors write. `failed` is the text of the error.
///
/// # Errors
/// [`ErrorKind::NotFound`] and [`ErrorKind::Storage`].
pub(super) fn read_text(path: &Path, failed: String) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(e) => {
            let kind = if e.kind() == IoKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Storage };
            Err(Error::new(kind, failed).with_source(e))
        }
    }
}
