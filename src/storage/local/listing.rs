//! Reads the files of a directory in order, without gaps in the versions of a log.

use std::fs;
use std::io;
use std::path::PathBuf;

use object_store::path::Path;
use object_store::{Error, ObjectMeta, Result};

use crate::storage::file_names::{entry_name, entry_version, is_temporary, without_staging_number};

/// The longest gap that is filled. Other writers do not create more entries than this while a directory is read.
const MAX_GAP: u64 = 1_000;

/// The files below `directory`, which is `prefix`, whose path is greater than `offset`, sorted. `None` where a link leads
/// to a directory: [`object_store::local::LocalFileSystem`] follows links and detects loops.
pub(super) fn read(directory: PathBuf, prefix: Path, offset: &Path) -> Result<Option<Vec<ObjectMeta>>> {
    let mut found: Vec<(Path, PathBuf)> = Vec::new();
    let mut directories = vec![(directory, prefix)];
    while let Some((directory, prefix)) = directories.pop() {
        let cannot = |error| unreadable(&prefix, error);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(cannot(e)),
        };
        let inside = if prefix.is_root() { String::new() } else { format!("{prefix}/") };
        // Names up to this one are not wanted. None if the offset is in another directory.
        let after = offset.as_ref().strip_prefix(&inside);
        for entry in entries {
            let entry = entry.map_err(cannot)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(cannot(e)),
            };
            if kind.is_dir() {
                if let Ok(path) = Path::parse(format!("{inside}{name}")) {
                    directories.push((entry.path(), path));
                }
                continue;
            }
            if kind.is_symlink() {
                match fs::metadata(entry.path()) {
                    Ok(target) if target.is_dir() => return Ok(None),
                    Ok(_) => {}
                    // The target of the link does not exist.
                    Err(_) => continue,
                }
            }
            if is_incomplete(name) || after.is_some_and(|after| name <= after) {
                continue;
            }
            let Ok(path) = Path::parse(format!("{inside}{name}")) else { continue };
            if path > *offset {
                found.push((path, entry.path()));
            }
        }
    }
    found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let found = without_gaps(found);
    let mut files = Vec::with_capacity(found.len());
    for (location, file) in found {
        match fs::metadata(&file) {
            Ok(metadata) if !metadata.is_file() => {}
            Ok(metadata) => {
                let last_modified = metadata.modified().map_err(|e| unreadable(&location, e))?.into();
                files.push(ObjectMeta { location, last_modified, size: metadata.len(), e_tag: None, version: None });
            }
            // Another process deleted it meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(unreadable(&location, e)),
        }
    }
    Ok(Some(files))
}

/// Adds the log entries that are missing between those in `found`, which is sorted: while other writers create entries,
/// the operating system can return a later one and not the one before it (readdir(3)).
pub(super) fn without_gaps(found: Vec<(Path, PathBuf)>) -> Vec<(Path, PathBuf)> {
    let mut all: Vec<(Path, PathBuf)> = Vec::with_capacity(found.len());
    let mut last: Option<(PathBuf, u64)> = None;
    for (path, file) in found {
        if let Some(version) = path.filename().and_then(entry_version) {
            let directory = file.parent().map(PathBuf::from).unwrap_or_default();
            // A clean-up removes the oldest entries, so nothing is missing before the first one of a directory.
            let first = last.filter(|(same, _)| *same == directory).map_or(version, |(_, last)| last + 1);
            for missing in first.max(version.saturating_sub(MAX_GAP))..version {
                let name = entry_name(missing);
                let prefix = path.as_ref().rsplit_once('/').map_or("", |(prefix, _)| prefix);
                if let Ok(path) = Path::parse(format!("{prefix}/{name}")) {
                    all.push((path, file.with_file_name(name)));
                }
            }
            last = Some((directory, version));
        }
        all.push((path, file));
    }
    all
}

/// Whether a writer has not completed the file of this name.
fn is_incomplete(name: &str) -> bool {
    is_temporary(name) || without_staging_number(name).is_some()
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: path.to_string(), source: Box::new(error) },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path: path.to_string(), source: Box::new(error) },
        _ => Error::Generic { store: "LocalFileSystem", source: Box::new(error) },
    }
}
