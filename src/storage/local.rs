//! The file system of this machine as an object store that lists a long `_delta_log` quickly.

use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetResult, ObjectMeta, ObjectStore, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::engine::blocking;
use super::file_names::LAST_CHECKPOINT;
use super::forward::forward;

mod listing;

use listing::LogCache;

/// A local file system with a faster [`ObjectStore::list_with_offset`]: it reads the names of a directory first and then
/// looks only at the files that it returns, sorted by name. [`LocalFileSystem`] makes a URL of each file in the directory
/// and returns files in any order.
///
/// It leaves out names that no Delta table has: not UTF-8, or with control characters.
#[derive(Debug)]
pub(super) struct LocalStore {
    inner: Arc<LocalFileSystem>,
    logs: Arc<LogCache>,
}

impl LocalStore {
    pub(super) fn new(inner: Arc<LocalFileSystem>) -> Self {
        Self { inner, logs: Arc::default() }
    }
}

forward!(Display for LocalStore);

#[async_trait]
impl ObjectStore for LocalStore {
    forward!(inner: put_opts, put_multipart_opts, delete_stream, list, list_with_delimiter, copy_opts);

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if location.filename() == Some(LAST_CHECKPOINT)
            && let Ok(path) = self.inner.path_to_filesystem(location)
            && blocking(move || Ok(is_checkpoint_missing(&path))).await?
        {
            let source = "the checkpoint that it names is empty or missing".into();
            return Err(Error::NotFound { path: location.to_string(), source });
        }
        self.inner.get_opts(location, options).await
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, logs) = (Arc::clone(&self.inner), Arc::clone(&self.logs));
        let (prefix, offset) = (prefix.cloned().unwrap_or_default(), offset.clone());
        async move {
            let listed = blocking({
                let (inner, prefix, offset) = (Arc::clone(&inner), prefix.clone(), offset.clone());
                move || {
                    let directory = directory(&inner, &prefix)?;
                    logs.list(&prefix, &directory, &offset, || {
                        listing::read(directory.clone(), prefix.clone(), &offset)
                    })
                }
            });
            match listed.await {
                Ok(Some(files)) => stream::iter(files.into_iter().map(Ok)).boxed(),
                Ok(None) => inner.list_with_offset(Some(&prefix), &offset),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        }
        .flatten_stream()
        .boxed()
    }
}

/// The directory that `prefix` names.
fn directory(files: &LocalFileSystem, prefix: &Path) -> Result<PathBuf> {
    // The store converts only names that a file can have. A directory can have others.
    let mut below = files.path_to_filesystem(&prefix.clone().join("below"))?;
    below.pop();
    Ok(below)
}

#[derive(Deserialize)]
struct LastCheckpoint {
    version: u64,
    parts: Option<u64>,
    #[serde(rename = "v2Checkpoint")]
    v2: Option<IgnoredAny>,
}

/// Whether the `_last_checkpoint` at `path` names a checkpoint that is empty or does not exist.
///
/// A power cut can leave both files, but the checkpoint without its bytes: a writer that does not sync writes the
/// checkpoint first, but the disk need not. Readers skip an empty checkpoint and use an older one, but the kernel (0.30)
/// refuses a table whose `_last_checkpoint` names an empty one. Without that file it finds the older checkpoint. A table that was
/// replaced while a checkpoint was written can have the file of the table before, whose checkpoint does not exist.
fn is_checkpoint_missing(path: &FilePath) -> bool {
    let Ok(text) = fs::read(path) else { return false };
    let Ok(LastCheckpoint { version, parts: None, v2: None }) = serde_json::from_slice(&text) else { return false };
    let checkpoint = path.with_file_name(format!("{version:020}.checkpoint.parquet"));
    match fs::metadata(checkpoint) {
        Ok(found) => found.len() == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests;
