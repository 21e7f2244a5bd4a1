//! Names of the files in a Delta log on a local disk, and of files that are not complete yet.

use std::fs::{self, Metadata};
use std::path::Path;
use std::time::SystemTime;

/// The directory of a table's log.
pub(crate) const LOG_DIRECTORY: &str = "_delta_log";

/// The file in a log that names the newest checkpoint.
pub(crate) const LAST_CHECKPOINT: &str = "_last_checkpoint";

/// Distinguishes one `_last_checkpoint` from the next: each writer of a checkpoint replaces the file.
pub(crate) type Stamp = (SystemTime, u64);

/// The version in the name of a log file, which is its first 20 characters.
pub(crate) fn version(name: &str) -> Option<u64> {
    let (digits, rest) = name.split_at_checked(20)?;
    let is_version = rest.starts_with('.') && digits.bytes().all(|b| b.is_ascii_digit());
    is_version.then(|| digits.parse().ok()).flatten()
}

/// The version of the log entry with this name. Other files of a log have no such version.
pub(crate) fn entry_version(name: &str) -> Option<u64> {
    version(name).filter(|_| name.get(20..) == Some(".json"))
}

/// The name of the log entry of this version.
pub(crate) fn entry_name(version: u64) -> String {
    format!("{version:020}.json")
}

pub(crate) fn stamp(metadata: &Metadata) -> Option<Stamp> {
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The stamp of the `_last_checkpoint` in the directory `log`.
pub(crate) fn last_checkpoint_stamp(log: &Path) -> Option<Stamp> {
    stamp(&fs::metadata(log.join(LAST_CHECKPOINT)).ok()?)
}

/// The name under which process `process` writes its file number `number` before the file gets its own `name`. Readers
/// of Delta tables skip names that begin with a dot.
pub(crate) fn temporary_name(name: &str, process: u32, number: u64) -> String {
    format!(".{name}.{process}-{number}.tmp")
}

/// Whether `name` is one of [`temporary_name`].
pub(crate) fn is_temporary(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts = || {
        let (name, numbers) = name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?;
        let (process, number) = numbers.split_once('-')?;
        Some(!name.is_empty() && is_number(process) && is_number(number))
    };
    parts().unwrap_or(false)
}

/// The name of the file that [`object_store::local::LocalFileSystem`] writes under `name`, which is that name with a `#`
/// and a number.
pub(crate) fn without_staging_number(name: &str) -> Option<&str> {
    let (before, number) = name.rsplit_once('#')?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_have_names_that_nothing_else_has() {
        assert!(is_temporary(&temporary_name("00000000000000000001.json", 4711, 0)));
        assert!(is_temporary(".00000000000000000001.json.4711-0.tmp"));
        assert!(is_temporary(".x.parquet.1-22.tmp"));
        for name in [
            "x.parquet",
            ".x.parquet.1-22",
            ".x.tmp",
            "x.parquet.1-22.tmp",
            ".x.parquet.a-2.tmp",
            ".1-2.tmp",
            ".x.-1.tmp",
        ] {
            assert!(!is_temporary(name), "{name}");
        }
    }

    #[test]
    fn only_log_entries_have_an_entry_version() {
        assert_eq!(entry_version(&entry_name(7)), Some(7));
        let checkpoint = "00000000000000000010.checkpoint.parquet";
        assert_eq!((version(checkpoint), entry_version(checkpoint)), (Some(10), None));
        for name in [LAST_CHECKPOINT, "7.json", "+0000000000000000007.json", "00000000000000000007"] {
            assert_eq!((version(name), entry_version(name)), (None, None), "{name}");
        }
    }
}
