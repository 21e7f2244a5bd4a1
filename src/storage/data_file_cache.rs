//! Reads a small data file, as those of pending rows are, in one request: the length of the footer, the footer and the
//! columns of a Parquet file are otherwise three round trips to a remote store.
//!
//! Data files have unique names and never change. A log file is never cached, because other writers can create the same
//! name.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, GetOptions, GetRange, GetResult, GetResultPayload, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::file_names::LOG_DIRECTORY;
use super::forward::forward;
use crate::runtime::{environment, lock};

/// Entries expire after this time. Related requests follow each other at once.
const EXPIRES_AFTER: Duration = Duration::from_secs(10);

/// Files up to this size are read whole. To transfer 64 KiB takes no longer than to transfer a few bytes.
const MAX_CACHED_FILE: u64 = 64 << 10;

/// Limit on the bytes of all cached files.
const MAX_BYTES: usize = 16 << 20;

/// A reader of Parquet first asks for the last bytes of the file, which hold the length of the footer.
const FOOTER_LENGTH_BYTES: u64 = 8;

/// Keeps the files that it read whole.
#[derive(Debug)]
pub(super) struct DataFileCache {
    inner: Arc<DynObjectStore>,
    files: Arc<Mutex<Cache>>,
}

/// Recent files by location.
#[derive(Debug, Default)]
struct Cache {
    files: HashMap<Path, CachedFile>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct CachedFile {
    since: Instant,
    meta: ObjectMeta,
    bytes: Bytes,
}

impl CachedFile {
    fn is_recent(&self) -> bool {
        environment().instant() - self.since < EXPIRES_AFTER
    }

    /// The part of the file in `range`, or none if the file is shorter.
    fn part(self, range: Range<u64>) -> Option<GetResult> {
        let within = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
        if within.start >= within.end || within.end > self.bytes.len() {
            return None;
        }
        let payload = GetResultPayload::Stream(stream::iter([Ok(self.bytes.slice(within))]).boxed());
        Some(GetResult {
            payload,
            meta: self.meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }
}

impl Cache {
    fn get(&self, location: &Path) -> Option<CachedFile> {
        self.files.get(location).filter(|file| file.is_recent()).cloned()
    }

    /// Removes a file that is written or deleted, if it is here.
    fn remove(&mut self, location: &Path) {
        if let Some(file) = self.files.remove(location) {
            self.bytes -= file.bytes.len();
        }
    }

    /// Adds `file`, unless there is no room even without expired files.
    fn insert(&mut self, location: &Path, file: CachedFile) {
        self.remove(location);
        let size = file.bytes.len();
        if self.bytes + size > MAX_BYTES {
            self.files.retain(|_, file| file.is_recent());
            self.bytes = self.files.values().map(|file| file.bytes.len()).sum();
        }
        if self.bytes + size <= MAX_BYTES {
            self.bytes += size;
            self.files.insert(location.clone(), file);
        }
    }
}

/// Whether the file has a unique name, as writers of data files give it.
fn is_data_file(location: &Path) -> bool {
    location.extension() == Some("parquet") && location.parts().all(|part| part.as_ref() != LOG_DIRECTORY)
}

fn is_unconditional(options: &GetOptions) -> bool {
    let GetOptions { if_match, if_none_match, if_modified_since, if_unmodified_since, version, .. } = options;
    let conditions = if_match.is_some() || if_none_match.is_some() || version.is_some();
    !(conditions || if_modified_since.is_some() || if_unmodified_since.is_some())
}

impl DataFileCache {
    pub(super) fn new(inner: Arc<DynObjectStore>) -> Self {
        Self { inner, files: Arc::default() }
    }

    /// Reads a part of a data file, and the rest of a small file with it.
    async fn read(&self, location: &Path, range: Range<u64>, options: GetOptions) -> Result<GetResult> {
        let cached = lock(&self.files).get(location);
        if let Some(part) = cached.and_then(|file| file.part(range.clone())) {
            return Ok(part);
        }
        if range.end.checked_sub(range.start) != Some(FOOTER_LENGTH_BYTES) || range.end > MAX_CACHED_FILE {
            return self.inner.get_opts(location, options).await;
        }
        let found = self.inner.get_opts(location, GetOptions::new().with_range(Some(0..range.end))).await?;
        let meta = found.meta.clone();
        let file = CachedFile { since: environment().instant(), meta, bytes: found.bytes().await? };
        lock(&self.files).insert(location, file.clone());
        match file.part(range) {
            Some(part) => Ok(part),
            // The file is shorter than its reader expects: the store has the error for it.
            None => self.inner.get_opts(location, options).await,
        }
    }
}

forward!(Display for DataFileCache);

#[async_trait]
impl ObjectStore for DataFileCache {
    forward!(inner: list, list_with_offset, list_with_delimiter);

    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        lock(&self.files).remove(location);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        lock(&self.files).remove(location);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match options.range.clone() {
            Some(GetRange::Bounded(range)) if !options.head && is_data_file(location) && is_unconditional(&options) => {
                self.read(location, range, options).await
            }
            _ => self.inner.get_opts(location, options).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let files = Arc::clone(&self.files);
        let removed = locations.inspect_ok(move |location| lock(&files).remove(location));
        self.inner.delete_stream(removed.boxed())
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        lock(&self.files).remove(to);
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::super::counting::{CountingStore, RequestCounter};
    use super::*;

    fn store() -> (Arc<InMemory>, DataFileCache, RequestCounter) {
        let (memory, counter) = (Arc::new(InMemory::new()), RequestCounter::default());
        let counting = CountingStore::new(Arc::clone(&memory) as _, counter.clone());
        (memory, DataFileCache::new(Arc::new(counting)), counter)
    }

    #[tokio::test]
    async fn a_small_data_file_is_read_in_one_request() {
        let (_, store, counter) = store();
        let path = Path::from("t/x.parquet");
        let bytes: Vec<u8> = (0..200).collect();
        store.put(&path, bytes.clone().into()).await.unwrap();
        assert_eq!(store.get_range(&path, 192..200).await.unwrap(), bytes[192..]);
        assert_eq!(store.get_range(&path, 100..192).await.unwrap(), bytes[100..192]);
        assert_eq!(store.get_ranges(&path, &[4..40, 60..61]).await.unwrap(), [&bytes[4..40], &bytes[60..61]]);
        assert_eq!(counter.read().get, 1);
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), bytes);
        assert_eq!(counter.read().get, 2, "another kind of request");
        store.get_range(&path, 190..201).await.unwrap();
        assert_eq!(counter.read().get, 3, "beyond what is known");
    }

    #[tokio::test]
    async fn large_files_log_files_and_changed_files_are_read_as_requested() {
        let (_, store, counter) = store();
        let large = Path::from("t/large.parquet");
        store.put(&large, vec![1; 100_000].into()).await.unwrap();
        let log = Path::from("t/_delta_log/00000000000000000010.checkpoint.parquet");
        store.put(&log, vec![1; 100].into()).await.unwrap();
        for (path, range) in [(&large, 99_992..100_000), (&large, 0..10), (&log, 92..100), (&log, 0..92)] {
            let before = counter.read().get;
            assert_eq!(store.get_range(path, range.clone()).await.unwrap().len() as u64, range.end - range.start);
            assert_eq!(counter.read().get, before + 1);
        }
        let path = Path::from("t/x.parquet");
        for text in ["the first text", "another text"] {
            store.put(&path, text.into()).await.unwrap();
            let end = text.len() as u64;
            assert_eq!(store.get_range(&path, end - 8..end).await.unwrap(), text[text.len() - 8..]);
        }
        store.get_range(&Path::from("t/missing.parquet"), 0..8).await.unwrap_err();
    }

    #[tokio::test]
    async fn no_more_bytes_are_kept_than_allowed() {
        let (_, store, _) = store();
        for at in 0..300 {
            let path = Path::from(format!("t/{at}.parquet"));
            store.put(&path, vec![1; MAX_CACHED_FILE as usize].into()).await.unwrap();
            store.get_range(&path, MAX_CACHED_FILE - 8..MAX_CACHED_FILE).await.unwrap();
        }
        let cache = lock(&store.files);
        let total: usize = cache.files.values().map(|file| file.bytes.len()).sum();
        assert_eq!((cache.bytes, total), (MAX_BYTES, MAX_BYTES));
    }

    #[tokio::test]
    async fn deleted_files_are_not_answered_from_memory() {
        let (_, store, _) = store();
        let (path, other) = (Path::from("t/x.parquet"), Path::from("t/y.parquet"));
        store.put(&path, "the first text".into()).await.unwrap();
        store.get_range(&path, 6..14).await.unwrap();
        store.put(&other, "another text!!".into()).await.unwrap();
        store.copy(&other, &path).await.unwrap();
        assert_eq!(store.get_range(&path, 6..14).await.unwrap(), "r text!!");
        store.delete(&path).await.unwrap();
        store.get_range(&path, 6..14).await.unwrap_err();
    }
}
