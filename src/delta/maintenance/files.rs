//! The files that a table's directory really has, and how old they are by the store's own clock.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use delta_kernel::KernelError;
use futures::StreamExt as _;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;

use crate::delta::create::store_path;
use crate::delta::failure::from_kernel;
use crate::delta::shared::Inner;
use crate::error::{Error, ErrorKind, Result};

/// What a probe of the store's clock is called. It is hidden from Delta clients, and gone after a moment.
pub(super) const PROBE: &str = ".jobrota-clock-";

/// Clocks of file systems are coarse, in milliseconds.
const COARSE: i64 = 1000;

/// The log's directory.
const LOG: &str = "_delta_log";

/// A file, as the store has it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Its path below the directory that was listed.
    pub(super) name: String,
    /// In milliseconds since 1970.
    pub(super) modified: i64,
    pub(super) size: u64,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Local(PathBuf),
    Store(Path),
}

/// The time by the store's clock or by ours, whichever is behind: a clock that is ahead would make young files look old.
pub(super) fn now(table: &Inner) -> Result<i64> {
    let url = table.url.join(&format!("{PROBE}{}", uuid::Uuid::new_v4()));
    let path = store_path(&url.map_err(|e| Error::new(ErrorKind::Internal, "a path for a probe").with_source(e))?)?;
    let store = Arc::clone(table.storage.store());
    let probed = table.storage.block_on(async move {
        store.put(&path, Vec::new().into()).await?;
        let modified = store.head(&path).await.map(|meta| meta.last_modified.timestamp_millis());
        store.delete(&path).await?;
        modified
    })?;
    let probed = probed.map_err(|e| from_kernel(format!("writing to '{}'", table.url), KernelError::from(e)))?;
    Ok(chrono::Utc::now().timestamp_millis().min(probed + COARSE))
}

/// All files of the table but those of its log and of tables in directories below it. Links are not followed.
pub(super) fn data(table: &Inner) -> Result<Vec<Found>> {
    list(table, "", true)
}

/// The files of the log's directory, and of the one for sidecars of checkpoints in it.
pub(super) fn log(table: &Inner) -> Result<(Vec<Found>, Vec<Found>)> {
    Ok((list(table, "_delta_log/", false)?, list(table, "_delta_log/_sidecars/", false)?))
}

fn list(table: &Inner, below: &str, deep: bool) -> Result<Vec<Found>> {
    let failed = |e: KernelError| from_kernel(format!("listing the files of '{}'", table.url), e);
    let url = table.url.join(below).map_err(|e| Error::new(ErrorKind::Internal, "a directory").with_source(e))?;
    match local(&url) {
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
            let mut found: Vec<Found> = listed
                .into_iter()
                .filter_map(|meta| {
                    let name = meta.location.as_ref().strip_prefix(base.as_ref())?.strip_prefix('/')?.to_owned();
                    let modified = meta.last_modified.timestamp_millis();
                    Some(Found { name, modified, size: meta.size, place: Place::Store(meta.location) })
                })
                .collect();
            if deep {
                leave_out_tables(&mut found);
            }
            Ok(found)
        }
    }
}

fn local(url: &url::Url) -> Option<PathBuf> {
    (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten()
}

/// Directories that have a log are tables of their own; the log of the table itself is not data either.
fn leave_out_tables(found: &mut Vec<Found>) {
    let logs: Vec<String> = found
        .iter()
        .filter_map(|file| {
            let at = file.name.match_indices(LOG).map(|(at, _)| at);
            let whole = |at: &usize| file.name.get(at + LOG.len()..).is_some_and(|rest| rest.starts_with('/'));
            at.filter(|&at| at > 0 && file.name.get(..at).is_some_and(|before| before.ends_with('/')))
                .find(whole)
                .and_then(|at| file.name.get(..at).map(str::to_owned))
        })
        .collect();
    let own = format!("{LOG}/");
    found.retain(|file| !file.name.starts_with(&own) && !logs.iter().any(|table| file.name.starts_with(table)));
}

/// Files below `directory`; what vanishes meanwhile, is a link, or has a name that is no text is left out.
fn walk(directory: &std::path::Path, prefix: &str, deep: bool, found: &mut Vec<Found>) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let (mut below, before) = (Vec::new(), found.len());
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (kind, path) = (entry.file_type()?, entry.path());
        if deep && name == LOG {
            if !prefix.is_empty() {
                // A table of its own.
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
            let modified = millis(meta.modified()?);
            found.push(Found {
                name: format!("{prefix}{name}"),
                modified,
                size: meta.len(),
                place: Place::Local(path),
            });
        }
    }
    for (path, prefix) in below {
        walk(&path, &prefix, deep, found)?;
    }
    Ok(())
}

fn millis(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Found {
    /// Deletes the file. `false` when it was gone already.
    pub(super) fn delete(&self, table: &Inner) -> Result<bool> {
        let deleted = match &self.place {
            Place::Local(path) => std::fs::remove_file(path).map_err(KernelError::IOError),
            Place::Store(path) => {
                let (store, path) = (Arc::clone(table.storage.store()), path.clone());
                table.storage.block_on(async move { store.delete(&path).await })?.map_err(KernelError::from)
            }
        };
        match deleted {
            Ok(()) => Ok(true),
            Err(KernelError::IOError(e)) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(KernelError::ObjectStore(object_store::Error::NotFound { .. }) | KernelError::FileNotFound(_)) => {
                Ok(false)
            }
            Err(e) => Err(from_kernel(format!("deleting '{}' of '{}'", self.name, table.url), e)),
        }
    }

    /// What is in the file; `None` when it is gone.
    pub(super) fn read(&self, table: &Inner) -> Result<Option<bytes::Bytes>> {
        let read = match &self.place {
            Place::Local(path) => std::fs::read(path).map(bytes::Bytes::from).map_err(KernelError::IOError),
            Place::Store(path) => {
                let (store, path) = (Arc::clone(table.storage.store()), path.clone());
                let read = table.storage.block_on(async move { store.get(&path).await?.bytes().await })?;
                read.map_err(KernelError::from)
            }
        };
        match read {
            Ok(content) => Ok(Some(content)),
            Err(KernelError::IOError(e)) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(KernelError::ObjectStore(object_store::Error::NotFound { .. }) | KernelError::FileNotFound(_)) => {
                Ok(None)
            }
            Err(e) => Err(from_kernel(format!("reading '{}' of '{}'", self.name, table.url), e)),
        }
    }
}
