//! A `_last_checkpoint` that outlived its checkpoint.
//!
//! A power cut can leave both names, but an empty checkpoint: writers that do not sync write it first, but the disk need
//! not. Readers pass over empty checkpoints for older ones, but the kernel (0.30) refuses a table whose
//! `_last_checkpoint` names one. Without the hint it finds its way.

use std::fs;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use serde::Deserialize;

#[derive(Deserialize)]
struct Hint {
    version: u64,
    parts: Option<u64>,
}

/// Whether the file at `location` names a checkpoint that is there, but empty.
pub(super) fn names_an_empty_checkpoint(files: &LocalFileSystem, location: &Path) -> bool {
    let Ok(path) = files.path_to_filesystem(location) else { return false };
    let Ok(text) = fs::read(&path) else { return false };
    let Ok(Hint { version, parts: None }) = serde_json::from_slice(&text) else { return false };
    let checkpoint = path.with_file_name(format!("{version:020}.checkpoint.parquet"));
    fs::metadata(checkpoint).is_ok_and(|found| found.len() == 0)
}

/// Whether `location` is that of a hint.
pub(super) fn is_hint(location: &Path) -> bool {
    location.filename() == Some("_last_checkpoint")
}

#[test]
fn only_an_empty_checkpoint_makes_a_hint_worthless() {
    let dir = tempfile::tempdir().unwrap();
    let location = Path::from_filesystem_path(dir.path()).unwrap().join("_last_checkpoint");
    let worthless = || names_an_empty_checkpoint(&LocalFileSystem::new(), &location);
    assert!(is_hint(&location) && !worthless());
    let hint = |text: &str| fs::write(dir.path().join("_last_checkpoint"), text).unwrap();
    hint("{\"version\":20,\"size\":3}");
    assert!(!worthless(), "what is missing altogether was not left by a power cut");
    let checkpoint = dir.path().join("00000000000000000020.checkpoint.parquet");
    fs::write(&checkpoint, "").unwrap();
    assert!(worthless());
    hint("not JSON");
    assert!(!worthless(), "readers know what to do with it");
    hint("{\"version\":20,\"size\":3}");
    fs::write(&checkpoint, "checkpoint").unwrap();
    assert!(!worthless());
}
