//! A local disk on which what a call has written survives a power cut.
//!
//! A file's bytes are on the disk when the file was synced, its name when its directory was, and the directory's name
//! when the directory above was. [`LocalFileSystem`] (object_store 0.13) syncs none of them. Here every file is written
//! under another name and synced before it gets its own, so that a name which survives never stands for half a file,
//! and the directory is synced before the call returns. A row also needs the log entries below its own to be read:
//! [`log`] sees to these.
//!
//! The other name of `name` is `.name.<process>-<number>.tmp`. Readers of Delta tables skip it, as they do all names
//! that begin with a dot; one that a crash left behind is in nobody's way, and vacuum may delete it once it is old.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, Error, Extensions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

mod directory;
mod disk;
mod log;
mod upload;

#[cfg(test)]
pub(crate) use disk::Disk;
#[cfg(not(test))]
use disk::Disk;
use disk::Real;

use super::executor::blocking;

/// Whether `name` is the one under which a file is written before it gets its own.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.strip_prefix('.')
        .and_then(|name| name.strip_suffix(".tmp"))
        .and_then(|name| name.rsplit_once('.'))
        .is_some_and(|(name, made)| {
            let numbers = made.split_once('-').map(|(process, number)| [process, number]);
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            !name.is_empty() && numbers.is_some_and(|numbers| numbers.into_iter().all(digits))
        })
}

/// Writes through to the disk; everything else is `inner`'s.
#[derive(Debug)]
pub(crate) struct Synced {
    inner: Arc<DynObjectStore>,
    files: Arc<LocalFileSystem>,
    synced: Arc<State>,
}

/// What is known to be on the disk, shared by the calls under way.
#[derive(Debug)]
struct State {
    disk: Arc<dyn Disk>,
    /// Directories whose names, up to the root, are on the disk; with what tells whether they are still the same ones.
    directories: Mutex<HashMap<PathBuf, directory::Identity>>,
    /// By log directory.
    logs: Mutex<HashMap<PathBuf, log::Known>>,
    /// Files that have their name, but the syncing of it failed: not to be believed until it succeeds.
    doubtful: Mutex<HashSet<PathBuf>>,
    number: AtomicU64,
}

impl Synced {
    /// Around `inner`, which must be the file system `files`.
    pub(super) fn new(inner: Arc<DynObjectStore>, files: Arc<LocalFileSystem>) -> Self {
        Self::on(inner, files, Arc::new(Real))
    }

    /// As [`Synced::new`], on a disk of one's own.
    pub(crate) fn on(inner: Arc<DynObjectStore>, files: Arc<LocalFileSystem>, disk: Arc<dyn Disk>) -> Self {
        let synced = State {
            disk,
            directories: Mutex::default(),
            logs: Mutex::default(),
            doubtful: Mutex::default(),
            number: AtomicU64::new(0),
        };
        Self { inner, files, synced: Arc::new(synced) }
    }
}

impl State {
    /// Writes a file so that it is there, whole, or not at all, whenever the power fails; on the disk when it returns.
    fn put(&self, path: &FilePath, payload: &PutPayload, mode: &PutMode) -> Result<PutResult> {
        let create = *mode == PutMode::Create;
        if create && fs::symlink_metadata(path).is_ok() {
            return Err(taken(path, io::ErrorKind::AlreadyExists.into()));
        }
        let (mut file, unfinished) = self.begin(path)?;
        let written =
            payload.iter().try_for_each(|chunk| file.write_all(chunk)).map_err(|e| failed("writing", path, e));
        let put = written.and_then(|()| self.finish(path, &file, &unfinished, create));
        if create || put.is_err() {
            // What remains is harmless.
            _ = fs::remove_file(&unfinished);
        }
        put
    }

    /// A new file to be written instead of `path`, beside it, in a directory that is on the disk.
    fn begin(&self, path: &FilePath) -> Result<(File, PathBuf)> {
        let directory = parent(path)?;
        self.keep_directory(directory).map_err(|e| failed("making the directory of", path, e))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        loop {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let unfinished = directory.join(format!(".{name}.{}-{number}.tmp", std::process::id()));
            match File::options().read(true).write(true).create_new(true).open(&unfinished) {
                Ok(file) => return Ok((file, unfinished)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed("writing", path, e)),
            }
        }
    }

    /// Gives the written `file` its own name. With `create`, only if nobody has the name.
    fn finish(&self, path: &FilePath, file: &File, unfinished: &FilePath, create: bool) -> Result<PutResult> {
        self.disk.sync_file(unfinished, file).map_err(|e| failed("syncing", path, e))?;
        let entry = log::Entry::of(path);
        let settled = entry.as_ref().map(|entry| self.settle(entry, create)).transpose()?;
        if create {
            self.disk.link(unfinished, path).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => taken(path, e),
                _ => failed("creating", path, e),
            })?;
        } else {
            self.disk.rename(unfinished, path).map_err(|e| failed("renaming", path, e))?;
        }
        // From here on others see the file: an error leaves open whether it stays.
        if let Err(e) = self.disk.sync_directory(parent(path)?) {
            self.doubtful.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
            return Err(failed("syncing the directory of", path, e));
        }
        if let (Some(entry), Some(settled)) = (entry, settled) {
            self.remember(&entry, settled);
        }
        Ok(PutResult { e_tag: None, version: None, extensions: Extensions::default() })
    }

    /// An error of a call must not turn into a success because the file is there when it is looked for: reading a file
    /// whose name could not be synced first syncs it.
    fn resolve_doubt(&self, path: &FilePath) -> Result<()> {
        let doubtful = |doubts: &HashSet<PathBuf>| doubts.contains(path);
        if !doubtful(&self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        match File::open(path) {
            Ok(file) => {
                let again = self.disk.sync_file(path, &file);
                again
                    .and_then(|()| self.disk.sync_directory(path.parent().unwrap_or(path)))
                    .map_err(|e| failed("syncing", path, e))?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("syncing", path, e)),
        }
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
        Ok(())
    }

    fn is_doubtful(&self) -> bool {
        !self.doubtful.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

fn parent(path: &FilePath) -> Result<&FilePath> {
    path.parent().ok_or_else(|| failed("writing", path, io::ErrorKind::IsADirectory.into()))
}

/// What could not be done to which file.
#[derive(Debug, thiserror::Error)]
#[error("{doing} '{}' failed", path.display())]
struct Failure {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(doing: &'static str, path: &FilePath, source: io::Error) -> Error {
    Error::Generic { store: "LocalFileSystem", source: Box::new(Failure { doing, path: path.to_owned(), source }) }
}

fn taken(path: &FilePath, source: io::Error) -> Error {
    Error::AlreadyExists { path: path.display().to_string(), source: Box::new(source) }
}

impl fmt::Display for Synced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Synced {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) || !opts.attributes.is_empty() {
            // Refused there.
            return self.inner.put_opts(location, payload, opts).await;
        }
        let (state, path) = (Arc::clone(&self.synced), self.files.path_to_filesystem(location)?);
        blocking(move || state.put(&path, &payload, &opts.mode)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if !opts.attributes.is_empty() {
            return self.inner.put_multipart_opts(location, opts).await;
        }
        let (state, path) = (Arc::clone(&self.synced), self.files.path_to_filesystem(location)?);
        blocking(move || upload::begin(state, path)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if self.synced.is_doubtful() {
            let (state, path) = (Arc::clone(&self.synced), self.files.path_to_filesystem(location)?);
            blocking(move || state.resolve_doubt(&path)).await?;
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (state, files) = (Arc::clone(&self.synced), Arc::clone(&self.files));
        let settled = Arc::new(Mutex::new(HashSet::new()));
        let safe = locations.then(move |location| {
            let (state, files, settled) = (Arc::clone(&state), Arc::clone(&files), Arc::clone(&settled));
            async move {
                let location = location?;
                let path = files.path_to_filesystem(&location)?;
                // A log file goes when a checkpoint stands in for it, which must be on the disk before.
                let Some(log) = log::directory_of(&path).map(FilePath::to_owned) else { return Ok(location) };
                if settled.lock().unwrap_or_else(PoisonError::into_inner).insert(log.clone()) {
                    blocking(move || state.everything(&log)).await?;
                }
                Ok(location)
            }
        });
        self.inner.delete_stream(safe.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (state, path) = (Arc::clone(&self.synced), self.files.path_to_filesystem(to)?);
        let source = self.files.path_to_filesystem(from)?;
        // Copies are further names of the same bytes.
        let ready = move || {
            let file = File::open(&source).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => Error::NotFound { path: source.display().to_string(), source: Box::new(e) },
                _ => failed("reading", &source, e),
            })?;
            state.disk.sync_file(&source, &file).map_err(|e| failed("syncing", &source, e))?;
            state.keep_directory(parent(&path)?).map_err(|e| failed("making the directory of", &path, e))?;
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
