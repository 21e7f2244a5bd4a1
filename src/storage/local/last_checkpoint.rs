//! A `_last_checkpoint` that names an empty checkpoint.
//!
//! A power cut can leave both files, but the checkpoint without its bytes: a writer that does not sync writes the
//! checkpoint first, but the disk need not. Readers skip an empty checkpoint and use an older one, but the kernel (0.30)
//! refuses a table whose `_last_checkpoint` names an empty one. Without that file it finds the older checkpoint.

use std::fs;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
struct LastCheckpoint {
    version: u64,
    parts: Option<u64>,
}

/// Whether the `_last_checkpoint` at `path` names a checkpoint that exists, but is empty.
pub(super) fn names_empty_checkpoint(path: &Path) -> bool {
    let Ok(text) = fs::read(path) else { return false };
    let Ok(LastCheckpoint { version, parts: None }) = serde_json::from_slice(&text) else { return false };
    let checkpoint = path.with_file_name(format!("{version:020}.checkpoint.parquet"));
    fs::metadata(checkpoint).is_ok_and(|found| found.len() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_checkpoint_makes_the_file_useless() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("_last_checkpoint");
        let is_useless = || names_empty_checkpoint(&path);
        assert!(!is_useless());
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("{\"version\":20,\"size\":3}");
        assert!(!is_useless(), "a power cut does not leave a missing checkpoint");
        let checkpoint = dir.path().join("00000000000000000020.checkpoint.parquet");
        fs::write(&checkpoint, "").unwrap();
        assert!(is_useless());
        write("not JSON");
        assert!(!is_useless(), "readers handle it");
        write("{\"version\":20,\"size\":3}");
        fs::write(&checkpoint, "checkpoint").unwrap();
        assert!(!is_useless());
    }
}
