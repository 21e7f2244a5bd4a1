//! What a `_delta_log` on a local disk was seen to hold, so that looking for new commits costs by what is new.
//!
//! Reading the names of a directory costs by all that ever was written to it. Commits have numbers, so the next ones can
//! be asked for by name; checkpoints are announced in `_last_checkpoint`. Everything else that may lie in a log only
//! spares work, and is found when the directory is read again, after [`REMEMBERED`] at the latest.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, Result};

use super::listing::directory;

/// How long a listing is added to before the directory is read again.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Logs whose listings are remembered.
const LOGS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct LogMemory(Mutex<HashMap<Path, Remembered>>);

#[derive(Debug)]
struct Remembered {
    read: Instant,
    announced: Announced,
    offset: Path,
    /// All files after `offset`, sorted.
    files: Vec<ObjectMeta>,
}

/// What tells one `_last_checkpoint` from another.
type Announced = Option<(SystemTime, u64)>;

impl LogMemory {
    /// The files of the log `prefix` after `offset`, sorted, as `read` lists them; from memory as far as that is sure.
    /// `None` if `read` says so.
    pub(super) fn list(
        &self,
        local: &LocalFileSystem,
        prefix: &Path,
        offset: &Path,
        read: impl FnOnce() -> Result<Option<Vec<ObjectMeta>>>,
    ) -> Result<Option<Vec<ObjectMeta>>> {
        if prefix.filename() != Some("_delta_log") {
            return read();
        }
        let directory = directory(local, prefix)?;
        // Looked at before the directory is read: what is announced meanwhile is then noticed the next time.
        let announced = fs::metadata(directory.join("_last_checkpoint")).ok().and_then(|found| identity(&found));
        if let Some(known) = self.lock().get_mut(prefix)
            && known.read.elapsed() < REMEMBERED
            && known.announced == announced
            && known.offset <= *offset
            && known.add_new(prefix, &directory)
        {
            let first = known.files.partition_point(|file| file.location <= *offset);
            return Ok(known.files.get(first..).map(<[ObjectMeta]>::to_vec));
        }
        let started = Instant::now();
        let Some(files) = read()? else { return Ok(None) };
        let mut logs = self.lock();
        if logs.len() >= LOGS {
            logs.clear();
        }
        let seen = Remembered { read: started, announced, offset: offset.clone(), files: files.clone() };
        logs.insert(prefix.clone(), seen);
        Ok(Some(files))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Path, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    /// Takes in the commits after the last one known. `false` when there is none to count from.
    fn add_new(&mut self, prefix: &Path, directory: &std::path::Path) -> bool {
        let last = self.files.iter().rposition(|file| version(&file.location).is_some());
        let Some((at, mut number)) = last.and_then(|at| Some((at, version(&self.files.get(at)?.location)?))) else {
            return false;
        };
        let mut at = at + 1;
        loop {
            number += 1;
            let name = format!("{number:020}.json");
            let Some(found) = look(&directory.join(&name)) else { return true };
            let (last_modified, size) = found;
            let location = prefix.clone().join(name);
            let new = ObjectMeta { location, last_modified: last_modified.into(), size, e_tag: None, version: None };
            self.files.insert(at, new);
            at += 1;
        }
    }
}

/// The number of the commit that a file is, if it is one.
pub(super) fn version(location: &Path) -> Option<u64> {
    let (number, extension) = location.filename()?.split_once('.')?;
    (number.len() == 20 && extension == "json").then(|| number.parse().ok()).flatten()
}

fn identity(found: &Metadata) -> Option<(SystemTime, u64)> {
    Some((found.modified().ok()?, found.len()))
}

fn look(file: &PathBuf) -> Option<(SystemTime, u64)> {
    fs::metadata(file).ok().filter(Metadata::is_file).as_ref().and_then(identity)
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::PutPayload;

    use super::super::listing::list;
    use super::*;
    use crate::runtime;

    /// Names listed after `offset`, and whether the directory was read for it.
    fn names(memory: &LogMemory, local: &LocalFileSystem, log: &Path, offset: &str) -> (Vec<String>, bool) {
        let mut was_read = false;
        let offset = log.clone().join(offset);
        let files = memory.list(local, log, &offset, || {
            was_read = true;
            list(local, log.clone(), &offset)
        });
        let files = files.unwrap().unwrap();
        (files.iter().map(|file| file.location.filename().unwrap().to_owned()).collect(), was_read)
    }

    #[test]
    fn new_commits_are_seen_without_reading_the_directory_and_new_checkpoints_by_their_announcement() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalFileSystem::new();
        let log = Path::from_filesystem_path(dir.path()).unwrap().join("_delta_log");
        let put = |name: &str, text: &str| {
            let (payload, file) = (PutPayload::from(text.to_owned()), log.clone().join(name));
            runtime::handle().unwrap().block_on(local.put(&file, payload)).unwrap();
        };
        let commit = |number: u64| format!("{number:020}.json");
        let memory = LogMemory::default();
        for number in 0..3 {
            put(&commit(number), "{}");
        }
        let after = format!("{:020}", 1);
        assert_eq!(names(&memory, &local, &log, &after), (vec![commit(1), commit(2)], true));
        put(&commit(3), "{}");
        put(&commit(4), "{}");
        assert_eq!(names(&memory, &local, &log, &after), (vec![commit(1), commit(2), commit(3), commit(4)], false));
        assert_eq!(names(&memory, &local, &log, &commit(3)), (vec![commit(4)], false));
        // From further back than what was listed.
        assert!(names(&memory, &local, &log, &format!("{:020}", 0)).1);
        let checkpoint = format!("{:020}.checkpoint.parquet", 4);
        put(&checkpoint, "x");
        put("_last_checkpoint", "{}");
        let (seen, was_read) = names(&memory, &local, &log, &after);
        assert!(was_read && seen.contains(&checkpoint), "{seen:?}");
        put(&commit(5), "{}");
        let (seen, was_read) = names(&memory, &local, &log, &after);
        assert!(!was_read && seen.contains(&checkpoint) && seen.contains(&commit(5)), "{seen:?}");
    }
}
