//! Caches the listing of each `_delta_log` on a local disk, so that a look for new commits costs as much as there are new
//! commits.
//!
//! To read a directory costs as much as it has files. Log entries are numbered, so the cache asks for the next ones by
//! name. `_last_checkpoint` announces checkpoints. All other files in a log only save work: the cache finds them when it
//! reads the directory again, at the latest after [`EXPIRES_AFTER`].

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::path::Path as FilePath;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use object_store::path::Path;
use object_store::{ObjectMeta, Result};

use crate::runtime::lock;
use crate::storage::file_names::{LOG_DIRECTORY, Stamp, entry_name, entry_version, last_checkpoint_stamp, stamp};

/// How long the cache extends a listing before it reads the directory again.
const EXPIRES_AFTER: Duration = Duration::from_secs(10);

/// Logs whose listings are cached.
const MAX_LOGS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct LogCache(Mutex<HashMap<Path, CachedListing>>);

#[derive(Debug)]
struct CachedListing {
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
            && known.since.elapsed() < EXPIRES_AFTER
            && known.last_checkpoint == last_checkpoint
            && known.offset <= *offset
            && known.add_new_entries(prefix, directory)
        {
            let first = known.files.partition_point(|file| file.location <= *offset);
            return Ok(known.files.get(first..).map(<[ObjectMeta]>::to_vec));
        }
        let since = Instant::now();
        let Some(files) = read()? else { return Ok(None) };
        let mut logs = lock(&self.0);
        if logs.len() >= MAX_LOGS {
            logs.clear();
        }
        logs.insert(
            prefix.clone(),
            CachedListing { since, last_checkpoint, offset: offset.clone(), files: files.clone() },
        );
        Ok(Some(files))
    }
}

impl CachedListing {
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
