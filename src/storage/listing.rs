//! Listing a long `_delta_log` on a local disk: a reader asks for what comes after a name, and gets it for the price of
//! reading the directory's names.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::executor::blocking;
use super::hint;
use super::log_memory::{self, LogMemory};

/// A local file system whose [`ObjectStore::list_with_offset`] looks at the names first, then only at the files that it
/// returns, which come sorted by name. [`LocalFileSystem`] makes a URL of each file that it meets and takes an
/// arbitrary order.
///
/// Names that no Delta table has (not UTF-8, control characters) are left out.
#[derive(Debug)]
pub(super) struct QuickListing(Arc<LocalFileSystem>, Arc<LogMemory>);

impl QuickListing {
    pub(super) fn new(files: Arc<LocalFileSystem>) -> Self {
        Self(files, Arc::default())
    }
}

impl fmt::Display for QuickListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for QuickListing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if hint::is_hint(location) {
            let (files, hint) = (Arc::clone(&self.0), location.clone());
            if blocking(move || Ok(hint::names_an_empty_checkpoint(&files, &hint))).await? {
                let source = "the checkpoint that it names is empty".into();
                return Err(Error::NotFound { path: location.to_string(), source });
            }
        }
        self.0.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (local, memory) = (Arc::clone(&self.0), Arc::clone(&self.1));
        let (prefix, offset) = (prefix.cloned().unwrap_or_default(), offset.clone());
        async move {
            let listed = blocking({
                let (local, prefix, offset) = (Arc::clone(&local), prefix.clone(), offset.clone());
                move || memory.list(&local, &prefix, &offset, || list(&local, prefix.clone(), &offset))
            });
            match listed.await {
                Ok(Some(files)) => stream::iter(files.into_iter().map(Ok)).boxed(),
                Ok(None) => local.list_with_offset(Some(&prefix), &offset),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        }
        .flatten_stream()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

/// The directory that `prefix` names.
pub(super) fn directory(local: &LocalFileSystem, prefix: &Path) -> Result<PathBuf> {
    // The store only converts names that a file may have, which a directory's need not be.
    let mut below = local.path_to_filesystem(&prefix.clone().join("below"))?;
    below.pop();
    Ok(below)
}

/// Commits that reading a directory may pass over at once: more have not been made while it was read.
const LONGEST_GAP: u64 = 1_000;

/// The files below `prefix` whose path is greater than `offset`, sorted. `None` where links lead to directories: the
/// store follows these and looks out for circles.
pub(super) fn list(local: &LocalFileSystem, prefix: Path, offset: &Path) -> Result<Option<Vec<ObjectMeta>>> {
    let mut found: Vec<(Path, PathBuf)> = Vec::new();
    let mut directories = vec![(directory(local, &prefix)?, prefix)];
    while let Some((directory, prefix)) = directories.pop() {
        let cannot = |error| unreadable(&prefix, error);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(cannot(e)),
        };
        let inside = if prefix.is_root() { String::new() } else { format!("{prefix}/") };
        // Names up to this one are not wanted, unless the offset is somewhere else altogether.
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
                    // A link to nowhere is no file.
                    Err(_) => continue,
                }
            }
            if is_unfinished(name) || after.is_some_and(|after| name <= after) {
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
            // Deleted since its name was read.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(unreadable(&location, e)),
        }
    }
    Ok(Some(files))
}

/// `found`, sorted, with the commits that reading the directory passed over: of files that are made meanwhile, the
/// operating system may show a later one and not the one before it (readdir(3)).
fn without_gaps(found: Vec<(Path, PathBuf)>) -> Vec<(Path, PathBuf)> {
    let mut whole: Vec<(Path, PathBuf)> = Vec::with_capacity(found.len());
    let mut before: Option<(PathBuf, u64)> = None;
    for (path, file) in found {
        if let Some(number) = log_memory::version(&path) {
            let directory = file.parent().map(PathBuf::from).unwrap_or_default();
            // A clean-up takes the first entries away: there is nothing to look for before the first one seen.
            let first = before.filter(|(same, _)| *same == directory).map_or(number, |(_, last)| last + 1);
            for missed in first.max(number.saturating_sub(LONGEST_GAP))..number {
                let name = format!("{missed:020}.json");
                let prefix = path.as_ref().rsplit_once('/').map_or("", |(prefix, _)| prefix);
                if let Ok(path) = Path::parse(format!("{prefix}/{name}")) {
                    whole.push((path, file.with_file_name(name)));
                }
            }
            before = Some((directory, number));
        }
        whole.push((path, file));
    }
    whole
}

/// Whether a file of this name is one that a writer has not finished: `name#1` is what [`LocalFileSystem`] calls it.
fn is_unfinished(name: &str) -> bool {
    super::synced::is_unfinished(name)
        || name.split_once('#').is_some_and(|(_, rest)| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: path.to_string(), source: Box::new(error) },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path: path.to_string(), source: Box::new(error) },
        _ => Error::Generic { store: "LocalFileSystem", source: Box::new(error) },
    }
}

#[cfg(test)]
mod tests;
