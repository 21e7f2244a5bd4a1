//! Names and text of the files that a comparison reads and writes.

use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::error::{Error, ErrorKind, Result};

/// The longest name of a file without its extension. File systems accept 255 bytes.
const MAX_FILE_NAME: usize = 200;

/// The start of the name of every file that a run writes.
pub(super) const PREFIX: &str = "pooled_jobs_comparison_";

/// The name of a run's files without suffix and extension.
pub(super) fn stem(began: DateTime<Utc>) -> String {
    format!("{PREFIX}{}", began.format("%Y%m%d_%H%M%S"))
}

/// `name` as the name of a file in the folder where it is written. Names of a journal that another program wrote can have
/// slashes.
pub(super) fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = name.chars().map(safe).take(MAX_FILE_NAME).collect();
    if name.starts_with('.') { format!("_{name}") } else { name }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_its_folder() {
        for (name, expected) in [
            ("loadasyna1r1x3k9", "loadasyna1r1x3k9"),
            ("../../outside", "_.._.._outside"),
            ("..", "_.."),
            ("a/b\\c:\0\u{1b}é", "a_b_c____"),
        ] {
            assert_eq!(file_name(name), expected);
        }
        assert_eq!(file_name(&"x".repeat(999)).len(), MAX_FILE_NAME);
    }
}
