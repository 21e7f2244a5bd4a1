//! What an import did.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Failures that are listed per file; the rest of a file's are counted.
pub(super) const LISTED_PER_FILE: u64 = 20;

/// What an import did, file by file and row by row.
#[derive(Debug, Clone, Default)]
pub struct ImportReport {
    /// The folder, with links in its path resolved.
    pub folder: PathBuf,
    /// Files that were looked at.
    pub files: u64,
    /// Files that rows were taken from.
    pub imported: u64,
    /// Files with nothing new and nothing wrong in them.
    pub known: u64,
    /// Files with something wrong in them. What is right in them was taken, so that a file can be in `imported`, too.
    pub bad: u64,
    /// Rows that were written to `job_notifications`.
    pub rows: u64,
    /// Records that are not rows, with those that `failures` has no room for.
    pub bad_records: u64,
    /// Rows with a local time that came twice that day, as clocks were put back: the first one was taken.
    pub ambiguous_times: u64,
    /// Entries of the folder that were not looked at, by the reason.
    pub ignored: BTreeMap<&'static str, u64>,
    /// What was wrong: at most 20 of a file.
    pub failures: Vec<ImportFailure>,
}

/// Something in a folder that could not be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportFailure {
    /// The file's name in the folder; bytes that are not UTF-8 are shown as replacement characters.
    pub file: String,
    /// The line on which the record begins, from 1. None: it is the file as a whole.
    pub line: Option<u64>,
    /// The number of the record in the file, from 1. None: it is the file as a whole.
    pub record: Option<u64>,
    /// Why, and what to do.
    pub reason: String,
}
