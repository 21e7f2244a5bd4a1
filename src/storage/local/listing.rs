//! Reads the files of a directory in order, without gaps in the versions of a log.
//!
//! [`LogCache`] keeps the listing of each `_delta_log` on a local disk, so that a look for new commits costs as much as there are new
//! commits.
//!
//! To read a directory costs as much as it has files. Log entries are numbered, so the cache asks for the next ones by
//! name. `_last_checkpoint` announces checkpoints. All other files in a log only save work: the cache finds them when it
//! reads the directory again, at the latest after [`EXPIRES_AFTER`].

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use object_store::path::Path;
use object_store::{Error, ObjectMeta, Result};

use crate::runtime::{environment, lock};
use crate::storage::file_names::{
    LOG_DIRECTORY, Stamp, entry_name, entry_version, is_temporary, last_checkpoint_stamp, stamp, without_staging_number,
};

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
            // A writer has not completed the file.
            let is_incomplete = is_temporary(name) || without_staging_number(name).is_some();
            if is_incomplete || after.is_some_and(|after| name <= after) {
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

fn unreadable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: path.to_string(), source: Box::new(error) },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path: path.to_string(), source: Box::new(error) },
        _ => Error::Generic { store: "LocalFileSystem", source: Box::new(error) },
    }
}

/// How long the cache extends a listing before it reads the directory again.
const EXPIRES_AFTER: Duration = Duration::from_secs(10);

/// Logs whose listings are cached.
const MAX_LOGS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct LogCache(Mutex<HashMap<Path, CachedLog>>);

#[derive(Debug)]
struct CachedLog {
    since: Instant,
    last_checkpoint: Option<Stamp>,
    offset: Path,
    /// All files after `offset`, sorted.
    files: Vec<ObjectMeta>,
}

impl LogCache {
    /// The files after `offset` of the log `prefix`, which is `directory`, sorted as `read` lists them. `None` if `read`
    /// returns it.
    pub(super) fn list(
        &self,
        prefix: &Path,
        directory: &FilePath,
        offset: &Path,
        read: impl FnOnce() -> Result<Option<Vec<ObjectMeta>>>,
    ) -> Result<Option<Vec<ObjectMeta>>> {
        if prefix.filename() != Some(LOG_DIRECTORY) {
            return read();
        }
        // Before the directory is read: the next call then notices a checkpoint that is announced meanwhile.
        let last_checkpoint = last_checkpoint_stamp(directory);
        if let Some(known) = lock(&self.0).get_mut(prefix)
            && environment().instant() - known.since < EXPIRES_AFTER
            && known.last_checkpoint == last_checkpoint
            && known.offset <= *offset
            && known.add_new_entries(prefix, directory)
        {
            let first = known.files.partition_point(|file| file.location <= *offset);
            return Ok(known.files.get(first..).map(<[ObjectMeta]>::to_vec));
        }
        let since = environment().instant();
        let Some(files) = read()? else { return Ok(None) };
        let mut logs = lock(&self.0);
        if logs.len() >= MAX_LOGS {
            logs.clear();
        }
        logs.insert(prefix.clone(), CachedLog { since, last_checkpoint, offset: offset.clone(), files: files.clone() });
        Ok(Some(files))
    }
}

impl CachedLog {
    /// Adds the log entries after the last known one. `false` if no entry is known, or if that one is another one now: the table was
    /// replaced.
    fn add_new_entries(&mut self, prefix: &Path, directory: &FilePath) -> bool {
        let entry = |(at, file): (usize, &ObjectMeta)| Some((at, entry_version(file.location.filename()?)?));
        let Some((last, mut version)) = self.files.iter().enumerate().rev().find_map(entry) else { return false };
        let name = self.files[last].location.filename().unwrap_or_default();
        let stored = fs::metadata(directory.join(name)).ok().as_ref().and_then(stamp);
        if stored.map(|(modified, size)| (modified.into(), size))
            != Some((self.files[last].last_modified, self.files[last].size))
        {
            return false;
        }
        for at in last + 1.. {
            version += 1;
            let name = entry_name(version);
            let found = fs::metadata(directory.join(&name)).ok().filter(Metadata::is_file);
            let Some((last_modified, size)) = found.as_ref().and_then(stamp) else { break };
            let location = prefix.clone().join(name);
            let new = ObjectMeta { location, last_modified: last_modified.into(), size, e_tag: None, version: None };
            self.files.insert(at, new);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::PutPayload;
    use object_store::local::LocalFileSystem;

    use super::super::listing::read;
    use super::*;
    use crate::runtime;

    /// Names listed after `offset`, and whether the directory was read for it.
    fn names(cache: &LogCache, directory: &FilePath, log: &Path, offset: &str) -> (Vec<String>, bool) {
        let mut was_read = false;
        let offset = log.clone().join(offset);
        let files = cache.list(log, directory, &offset, || {
            was_read = true;
            read(directory.to_owned(), log.clone(), &offset)
        });
        let files = files.unwrap().unwrap();
        (files.iter().map(|file| file.location.filename().unwrap().to_owned()).collect(), was_read)
    }

    #[test]
    fn new_commits_are_seen_without_reading_the_directory_and_new_checkpoints_by_their_announcement() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalFileSystem::new();
        let log = Path::from_filesystem_path(dir.path()).unwrap().join("_delta_log");
        let directory = dir.path().join("_delta_log");
        let put = |name: &str, text: &str| {
            let (payload, file) = (PutPayload::from(text.to_owned()), log.clone().join(name));
            runtime::handle().unwrap().block_on(local.put(&file, payload)).unwrap();
        };
        let commit = |number: u64| format!("{number:020}.json");
        let cache = LogCache::default();
        for number in 0..3 {
            put(&commit(number), "{}");
        }
        let after = format!("{:020}", 1);
        assert_eq!(names(&cache, &directory, &log, &after), (vec![commit(1), commit(2)], true));
        put(&commit(3), "{}");
        put(&commit(4), "{}");
        assert_eq!(names(&cache, &directory, &log, &after), (vec![commit(1), commit(2), commit(3), commit(4)], false));
        assert_eq!(names(&cache, &directory, &log, &commit(3)), (vec![commit(4)], false));
        // From further back than what was listed.
        assert!(names(&cache, &directory, &log, &format!("{:020}", 0)).1);
        let checkpoint = format!("{:020}.checkpoint.parquet", 4);
        put(&checkpoint, "x");
        put("_last_checkpoint", "{}");
        let (seen, was_read) = names(&cache, &directory, &log, &after);
        assert!(was_read && seen.contains(&checkpoint), "{seen:?}");
        put(&commit(5), "{}");
        let (seen, was_read) = names(&cache, &directory, &log, &after);
        assert!(!was_read && seen.contains(&checkpoint) && seen.contains(&commit(5)), "{seen:?}");
    }
}
