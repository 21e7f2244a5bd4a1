//! A local disk on which a file that a call has written survives a power cut.
//!
//! The bytes of a file are on the disk after a sync of the file, its name after a sync of its directory, and the name of
//! that directory after a sync of the directory above. [`LocalFileSystem`] can do this too (object_store 0.14,
//! `with_fsync`), but does not cover what a row needs besides its own file: the log entries of other writers below it
//! ([`log`]), and a directory that another process has just created ([`disk`]).
//!
//! A call writes each file under a temporary name, syncs it and then gives it its own name, so that a name never stands
//! for half a file. It syncs the directory before it returns. Data files are synced with the log entry that names them
//! ([`staged`]). A temporary file that a crash leaves behind does no harm,
//! and vacuum, or the clean-up of the log, deletes it once it is old.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, Error, GetOptions, GetResult, MultipartUpload, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

mod disk;
mod log;
mod staged;
mod upload;

pub(crate) use disk::{Disk, RealDisk};

use super::engine::blocking;
use super::file_names::temporary_name;
use super::forward::forward;
use crate::runtime::lock;

/// Syncs the files that it writes. Everything else is left to `inner`.
#[derive(Debug)]
pub(crate) struct FsyncStore {
    inner: Arc<DynObjectStore>,
    files: Arc<LocalFileSystem>,
    state: Arc<SyncTracker>,
}

/// What is on the disk for certain.
#[derive(Debug)]
struct SyncTracker {
    disk: Arc<dyn Disk>,
    /// Directories whose names are on the disk, up to the root.
    directories: Mutex<HashMap<PathBuf, disk::Identity>>,
    /// By log directory.
    logs: Mutex<HashMap<PathBuf, log::SyncedLog>>,
    /// Files whose name exists, but could not be synced. A reader must not rely on them until a sync succeeds.
    unsynced: Mutex<HashSet<PathBuf>>,
    staged: staged::UnsyncedFiles,
    /// The number of the next temporary file.
    next_number: AtomicU64,
}

impl FsyncStore {
    /// Wraps `inner`, which must be the file system `files` on this `disk`.
    pub(crate) fn with_disk(inner: Arc<DynObjectStore>, files: Arc<LocalFileSystem>, disk: Arc<dyn Disk>) -> Self {
        let state = SyncTracker {
            disk,
            directories: Mutex::default(),
            logs: Mutex::default(),
            unsynced: Mutex::default(),
            staged: Default::default(),
            next_number: AtomicU64::new(0),
        };
        Self { inner, files, state: Arc::new(state) }
    }
}

impl SyncTracker {
    /// Writes a file. Whenever the power fails, the file is complete or does not exist, and it is on the disk when this
    /// returns. For a data file, this holds once a log entry names it.
    fn put(&self, path: &FilePath, payload: &PutPayload, mode: &PutMode) -> Result<PutResult> {
        let create = *mode == PutMode::Create;
        if create && fs::symlink_metadata(path).is_ok() {
            return Err(already_exists(path, io::ErrorKind::AlreadyExists.into()));
        }
        let (mut file, temporary) = self.begin(path)?;
        let written =
            payload.iter().try_for_each(|chunk| file.write_all(chunk)).map_err(|e| failed("writing", path, e));
        let put = written.and_then(|()| match mode {
            PutMode::Create => {
                self.sync_entry(path, &file, &temporary, payload)?;
                self.publish(path, &temporary, create)
            }
            _ => self.replace(path, file, &temporary),
        });
        if create || put.is_err() {
            // A file that cannot be removed does no harm.
            _ = fs::remove_file(&temporary);
        }
        put
    }

    /// Creates the temporary file for `path`, in a directory that is on the disk.
    fn begin(&self, path: &FilePath) -> Result<(File, PathBuf)> {
        let directory = parent(path)?;
        self.create_directory(directory).map_err(|e| failed("making the directory of", path, e))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        loop {
            let number = self.next_number.fetch_add(1, Ordering::Relaxed);
            let temporary = directory.join(temporary_name(&name, std::process::id(), number));
            match File::options().read(true).write(true).create_new(true).open(&temporary) {
                Ok(file) => return Ok((file, temporary)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed("writing", path, e)),
            }
        }
    }

    /// Gives the written `file` its own name, also if another file has that name.
    fn replace(&self, path: &FilePath, file: File, temporary: &FilePath) -> Result<PutResult> {
        self.staged.forget(path);
        match self.staged.keep(path, file) {
            None => {
                let renamed = self.disk.rename(temporary, path);
                renamed.map(|()| written()).map_err(|e| {
                    self.staged.forget(path);
                    failed("renaming", path, e)
                })
            }
            Some(file) => {
                self.disk.sync_file(temporary, &file).map_err(|e| failed("syncing", path, e))?;
                self.publish(path, temporary, false)
            }
        }
    }

    /// Gives the synced file at `temporary` its own name. With `create`, only if the name is free.
    fn publish(&self, path: &FilePath, temporary: &FilePath, create: bool) -> Result<PutResult> {
        let log_file = log::LogFile::of(path);
        let below = log_file.as_ref().map(|log_file| self.sync_below(log_file, create)).transpose()?;
        if create {
            self.disk.link(temporary, path).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => already_exists(path, e),
                _ => failed("creating", path, e),
            })?;
        } else {
            self.disk.rename(temporary, path).map_err(|e| failed("renaming", path, e))?;
        }
        // From here on, others see the file. After an error it is unknown whether it stays.
        if let Err(e) = self.disk.sync_directory(parent(path)?) {
            lock(&self.unsynced).insert(path.to_owned());
            return Err(failed("syncing the directory of", path, e));
        }
        if let (Some(log_file), Some(below)) = (log_file, below) {
            self.remember(&log_file, below);
        }
        Ok(written())
    }

    /// Syncs a file whose name could not be synced, before it is read. Otherwise a call that returned an error would
    /// look like a success to a reader that finds its file.
    fn sync_before_read(&self, path: &FilePath) -> Result<()> {
        if !lock(&self.unsynced).contains(path) {
            return Ok(());
        }
        if self.sync(path)? {
            self.disk.sync_directory(parent(path)?).map_err(|e| failed("syncing", path, e))?;
        }
        lock(&self.unsynced).remove(path);
        Ok(())
    }

    /// Syncs the file at `path`. `false` if it does not exist, as after a clean-up.
    fn sync(&self, path: &FilePath) -> Result<bool> {
        let synced = match File::open(path) {
            Ok(file) => self.disk.sync_file(path, &file).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        };
        synced.map_err(|e| failed("syncing", path, e))
    }
}

fn written() -> PutResult {
    PutResult { e_tag: None, version: None, extensions: Default::default() }
}

fn parent(path: &FilePath) -> Result<&FilePath> {
    path.parent().ok_or_else(|| failed("writing", path, io::ErrorKind::IsADirectory.into()))
}

/// An operation that failed, and the file.
#[derive(Debug, thiserror::Error)]
#[error("{operation} '{}' failed", path.display())]
struct FileError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(operation: &'static str, path: &FilePath, source: io::Error) -> Error {
    Error::Generic {
        store: "LocalFileSystem",
        source: Box::new(FileError { operation, path: path.to_owned(), source }),
    }
}

fn already_exists(path: &FilePath, source: io::Error) -> Error {
    Error::AlreadyExists { path: path.display().to_string(), source: Box::new(source) }
}

forward!(Display for FsyncStore);

#[async_trait]
impl ObjectStore for FsyncStore {
    forward!(inner: list, list_with_offset, list_with_delimiter);

    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) || !opts.attributes.is_empty() {
            // The local file system has the error for these.
            return self.inner.put_opts(location, payload, opts).await;
        }
        let (state, path) = (Arc::clone(&self.state), self.files.path_to_filesystem(location)?);
        blocking(move || state.put(&path, &payload, &opts.mode)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if !opts.attributes.is_empty() {
            return self.inner.put_multipart_opts(location, opts).await;
        }
        let (state, path) = (Arc::clone(&self.state), self.files.path_to_filesystem(location)?);
        blocking(move || upload::begin(state, path)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let has_unsynced = !lock(&self.state.unsynced).is_empty();
        if has_unsynced {
            let (state, path) = (Arc::clone(&self.state), self.files.path_to_filesystem(location)?);
            blocking(move || state.sync_before_read(&path)).await?;
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (state, files) = (Arc::clone(&self.state), Arc::clone(&self.files));
        let synced_logs = Arc::new(Mutex::new(HashSet::new()));
        let synced = locations.then(move |location| {
            let (state, files, synced_logs) = (Arc::clone(&state), Arc::clone(&files), Arc::clone(&synced_logs));
            async move {
                let location = location?;
                let path = files.path_to_filesystem(&location)?;
                state.staged.forget(&path);
                // A log file is deleted when a checkpoint replaces it. The checkpoint must be on the disk before.
                let Some(log) = log::directory_of(&path).map(FilePath::to_owned) else { return Ok(location) };
                if lock(&synced_logs).insert(log.clone()) {
                    blocking(move || state.sync_table(&log)).await?;
                }
                Ok(location)
            }
        });
        self.inner.delete_stream(synced.boxed())
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (state, path) = (Arc::clone(&self.state), self.files.path_to_filesystem(to)?);
        let source = self.files.path_to_filesystem(from)?;
        // A copy is another name of the same bytes.
        let ready = move || {
            if !state.sync(&source)? {
                let missing = io::Error::from(io::ErrorKind::NotFound);
                return Err(Error::NotFound { path: source.display().to_string(), source: Box::new(missing) });
            }
            state.create_directory(parent(&path)?).map_err(|e| failed("making the directory of", &path, e))?;
            Ok((state, path))
        };
        let (state, path) = blocking(ready).await?;
        self.inner.copy_opts(from, to, options).await?;
        blocking(move || {
            state.disk.sync_directory(parent(&path)?).map_err(|e| failed("syncing the directory of", &path, e))
        })
        .await
    }
}

#[cfg(test)]
mod tests;
