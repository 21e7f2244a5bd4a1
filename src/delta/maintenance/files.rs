//! The files in a table's directory, and their age by the store's own clock.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use delta_kernel::{KernelError, KernelResult};
use futures::StreamExt as _;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use url::Url;

use crate::delta::errors::{from_kernel, is_not_found};
use crate::delta::log::store_path;
use crate::delta::state::TableState;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::environment;
use crate::storage::file_names::LOG_DIRECTORY;

/// A file in the store.
#[derive(Debug, Clone)]
pub(super) struct StoredFile {
    /// Its path below the directory that was listed.
    pub(super) name: String,
    /// In milliseconds since 1970.
    pub(super) modified: i64,
    pub(super) size: u64,
    location: FileLocation,
}

#[derive(Debug, Clone)]
enum FileLocation {
    Local(PathBuf),
    Store(Path),
}

/// The time by the store's clock or by this machine's, whichever is earlier: a fast clock makes young files look old.
pub(super) fn now(table: &TableState) -> Result<i64> {
    Ok(environment().utc().min(table.storage.time()?.latest).timestamp_millis())
}

/// All files of the table, except those of its log and of other tables in directories below it. Does not follow links.
pub(super) fn data(table: &TableState) -> Result<Vec<StoredFile>> {
    list(table, "", true)
}

/// The files in the log's directory, and in its directory for sidecars of checkpoints.
pub(super) fn log(table: &TableState) -> Result<(Vec<StoredFile>, Vec<StoredFile>)> {
    let (log, sidecars) = (format!("{LOG_DIRECTORY}/"), format!("{LOG_DIRECTORY}/_sidecars/"));
    Ok((list(table, &log, false)?, list(table, &sidecars, false)?))
}

fn list(table: &TableState, below: &str, deep: bool) -> Result<Vec<StoredFile>> {
    let failed = |e: KernelError| from_kernel(format!("listing the files of '{}'", table.url), e);
    let url = table.url.join(below).map_err(|e| no_place(below).with_source(e))?;
    match url.to_file_path().ok().filter(|_| url.scheme() == "file") {
        Some(directory) => {
            let mut found = Vec::new();
            walk(&directory, "", deep, &mut found).map_err(|e| failed(KernelError::IOError(e)))?;
            Ok(found)
        }
        None => {
            let (store, prefix) = (Arc::clone(table.storage.store()), store_path(&url)?);
            let base = prefix.clone();
            let listed = table.storage.block_on(async move {
                if deep {
                    return store.list(Some(&prefix)).collect::<Vec<_>>().await.into_iter().collect();
                }
                store.list_with_delimiter(Some(&prefix)).await.map(|listed| listed.objects)
            })?;
            let listed: Vec<object_store::ObjectMeta> = listed.map_err(|e| failed(KernelError::from(e)))?;
            let mut found: Vec<StoredFile> = listed
                .into_iter()
                .filter_map(|meta| {
                    let name = meta.location.as_ref().strip_prefix(base.as_ref())?.strip_prefix('/')?.to_owned();
                    let modified = meta.last_modified.timestamp_millis();
                    Some(StoredFile { name, modified, size: meta.size, location: FileLocation::Store(meta.location) })
                })
                .collect();
            if deep {
                leave_out_tables(&mut found);
            }
            Ok(found)
        }
    }
}

/// Removes the files of the table's log, and of directories that have a log: these are other tables.
fn leave_out_tables(found: &mut Vec<StoredFile>) {
    let logs: Vec<String> = found
        .iter()
        .filter_map(|file| file.name.find(&format!("/{LOG_DIRECTORY}/")).and_then(|at| file.name.get(..=at)))
        .map(str::to_owned)
        .collect();
    let own = format!("{LOG_DIRECTORY}/");
    found.retain(|file| !file.name.starts_with(&own) && !logs.iter().any(|table| file.name.starts_with(table)));
}

/// Collects files below `directory`, except links, files that vanish meanwhile and names that are not UTF-8.
fn walk(directory: &std::path::Path, prefix: &str, deep: bool, found: &mut Vec<StoredFile>) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let (mut below, before) = (Vec::new(), found.len());
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (kind, path) = (entry.file_type()?, entry.path());
        if deep && name == LOG_DIRECTORY {
            if !prefix.is_empty() {
                // Another table.
                found.truncate(before);
                return Ok(());
            }
        } else if deep && kind.is_dir() {
            below.push((path, format!("{prefix}{name}/")));
        } else if kind.is_file() {
            let meta = match entry.metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                meta => meta?,
            };
            let since = meta.modified()?.duration_since(UNIX_EPOCH);
            let modified = since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
            let (name, location) = (format!("{prefix}{name}"), FileLocation::Local(path));
            found.push(StoredFile { name, modified, size: meta.len(), location });
        }
    }
    for (path, prefix) in below {
        walk(&path, &prefix, deep, found)?;
    }
    Ok(())
}

fn no_place(name: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("'{name}' is not a path in a table"))
}

impl StoredFile {
    /// Deletes the file. Returns false if it did not exist any more.
    pub(super) fn delete(&self, table: &TableState) -> Result<bool> {
        match &self.location {
            FileLocation::Local(path) => {
                let deleted = std::fs::remove_file(path).map_err(KernelError::IOError);
                Ok(self.if_found("deleting", table, deleted)?.is_some())
            }
            FileLocation::Store(_) => self.delete_through_store(table),
        }
    }

    /// As [`StoredFile::delete`], but by a request to the store also on a local disk.
    pub(super) fn delete_through_store(&self, table: &TableState) -> Result<bool> {
        let path = self.path()?;
        let store = Arc::clone(table.storage.store());
        let deleted = table.storage.block_on(async move { store.delete(&path).await })?.map_err(KernelError::from);
        Ok(self.if_found("deleting", table, deleted)?.is_some())
    }

    /// The file's content, or `None` if it does not exist any more.
    pub(super) fn read(&self, table: &TableState) -> Result<Option<Bytes>> {
        let (store, path) = (Arc::clone(table.storage.store()), self.path()?);
        let read =
            table.storage.block_on(async move { store.get(&path).await?.bytes().await })?.map_err(KernelError::from);
        self.if_found("reading", table, read)
    }

    /// The path of the file in the store.
    fn path(&self) -> Result<Path> {
        match &self.location {
            FileLocation::Local(path) => store_path(&Url::from_file_path(path).map_err(|()| no_place(&self.name))?),
            FileLocation::Store(path) => Ok(path.clone()),
        }
    }

    fn if_found<T>(&self, doing: &str, table: &TableState, done: KernelResult<T>) -> Result<Option<T>> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(e) if is_not_found(&e) => Ok(None),
            Err(e) => Err(from_kernel(format!("{doing} '{}' of '{}'", self.name, table.url), e)),
        }
    }
}
