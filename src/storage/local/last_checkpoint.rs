//! A `_last_checkpoint` that names an empty checkpoint, or none.
//!
//! A power cut can leave both files, but the checkpoint without its bytes: a writer that does not sync writes the
//! checkpoint first, but the disk need not. Readers skip an empty checkpoint and use an older one, but the kernel (0.30)
//! refuses a table whose `_last_checkpoint` names an empty one. Without that file it finds the older checkpoint. A table that was
//! replaced while a checkpoint was written can have the file of the table before, whose checkpoint does not exist.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Deserialize)]
struct LastCheckpoint {
    version: u64,
    parts: Option<u64>,
    #[serde(rename = "v2Checkpoint")]
    v2: Option<IgnoredAny>,
}

/// Whether the `_last_checkpoint` at `path` names a checkpoint that is empty or does not exist.
pub(super) fn names_no_checkpoint(path: &Path) -> bool {
    let Ok(text) = fs::read(path) else { return false };
    let Ok(LastCheckpoint { version, parts: None, v2: None }) = serde_json::from_slice(&text) else { return false };
    let checkpoint = path.with_file_name(format!("{version:020}.checkpoint.parquet"));
    match fs::metadata(checkpoint) {
        Ok(found) => found.len() == 0,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_missing_checkpoint_makes_the_file_useless() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("_last_checkpoint");
        let is_useless = || names_no_checkpoint(&path);
        assert!(!is_useless());
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("{\"version\":20,\"size\":3}");
        assert!(is_useless());
        write(
            "{\"version\":20,\"size\":3,\"v2Checkpoint\":{\"path\":\"00000000000000000020.checkpoint.80a083e8.parquet\"}}",
        );
        assert!(!is_useless(), "it has another name");
        write("{\"version\":20,\"size\":3}");
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
