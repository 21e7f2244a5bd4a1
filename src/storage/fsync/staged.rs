//! Data files that have their name, but are not synced yet.
//!
//! No reader looks for a data file before a log entry names it. So a data file is synced with the first entry that names
//! it, before that entry gets its own name: the disk then writes both at the same time.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use object_store::{PutPayload, Result};

use super::log::adds;
use super::{SyncTracker, failed};
use crate::runtime::lock;
use crate::storage::file_names::LOG_DIRECTORY;

/// A process has fewer data files that no entry names yet. Files beyond this number are synced when they are written.
const MAX_FILES: usize = 256;

/// By file name, which is unique.
#[derive(Debug, Default)]
pub(super) struct UnsyncedFiles(Mutex<HashMap<OsString, StagedFile>>);

#[derive(Debug, Clone)]
struct StagedFile {
    path: PathBuf,
    /// None if a sync failed. A second sync can succeed without the bytes that the first one lost.
    file: Option<Arc<File>>,
}

impl UnsyncedFiles {
    /// Keeps `file`, which is at `path` and not synced. Gives it back if it has to be synced now.
    pub(super) fn keep(&self, path: &Path, file: File) -> Option<File> {
        let is_unique = path.extension().is_some_and(|extension| extension == "parquet")
            && path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| uuid::Uuid::try_parse(stem).is_ok());
        // No log entry names the parts of a checkpoint.
        let is_in_log = path.iter().any(|part| part == LOG_DIRECTORY);
        let (mut files, name) = (lock(&self.0), path.file_name());
        match name.filter(|_| is_unique && !is_in_log && files.len() < MAX_FILES) {
            Some(name) => {
                files.insert(name.to_owned(), StagedFile { path: path.to_owned(), file: Some(Arc::new(file)) });
                None
            }
            None => Some(file),
        }
    }

    /// Forgets the file at `path`, which is deleted or written again.
    pub(super) fn forget(&self, path: &Path) {
        if let Some(name) = path.file_name() {
            lock(&self.0).remove(name);
        }
    }

    /// The kept files that the log entry `entry` adds.
    fn named_by(&self, entry: &PutPayload) -> Vec<StagedFile> {
        let files = lock(&self.0);
        if files.is_empty() {
            return Vec::new();
        }
        let text: Vec<u8> = entry.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        let name = |path: &str| path.rsplit('/').next().map(OsString::from);
        adds(text.as_slice()).filter_map(|add| files.get(&name(&add.path)?).cloned()).collect()
    }

    fn fail(&self, staged: &[StagedFile]) {
        let mut files = lock(&self.0);
        for name in staged.iter().filter_map(|staged| staged.path.file_name()) {
            if let Some(staged) = files.get_mut(name) {
                staged.file = None;
            }
        }
    }
}

impl SyncTracker {
    /// Syncs `file`, which is at `temporary` and becomes the log entry at `path`, and the data files that `entry`, its
    /// content, adds.
    pub(super) fn sync_entry(&self, path: &Path, file: &File, temporary: &Path, entry: &PutPayload) -> Result<()> {
        let staged = self.staged.named_by(entry);
        let own = || self.disk.sync_file(temporary, file).map_err(|e| failed("syncing", path, e));
        if staged.is_empty() {
            return own();
        }
        thread::scope(|scope| {
            // On this thread if there is no other one.
            let data = thread::Builder::new().spawn_scoped(scope, || self.sync_staged(&staged));
            let own = own();
            match data {
                Ok(data) => data.join().unwrap_or_else(|_| {
                    Err(failed("syncing", path, io::Error::other("the thread that syncs ended early")))
                }),
                Err(_) => self.sync_staged(&staged),
            }
            .and(own)
        })
    }

    /// Syncs the files in `staged` and their names.
    fn sync_staged(&self, staged: &[StagedFile]) -> Result<()> {
        let sync = || {
            for StagedFile { path, file } in staged {
                // Not an error that goes away, and the kind says so.
                let lost = || io::Error::new(io::ErrorKind::NotFound, "an earlier sync failed, so bytes may be lost");
                let file = file.as_ref().ok_or_else(lost).map_err(|e| failed("syncing", path, e))?;
                self.disk.sync_file(path, file).map_err(|e| failed("syncing", path, e))?;
            }
            let directories: BTreeSet<&Path> = staged.iter().filter_map(|staged| staged.path.parent()).collect();
            for directory in directories {
                self.disk.sync_directory(directory).map_err(|e| failed("syncing", directory, e))?;
            }
            Ok(())
        };
        let synced = sync();
        match synced {
            Ok(()) => staged.iter().for_each(|staged| self.staged.forget(&staged.path)),
            Err(_) => self.staged.fail(staged),
        }
        synced
    }
}
