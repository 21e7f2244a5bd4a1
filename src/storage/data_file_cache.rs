//! Answers requests about data files from memory. Each saves a round trip to a remote store:
//!
//! | request | answered from |
//! | --- | --- |
//! | the HEAD with which the kernel's default engine (0.30) follows each PUT, to learn the size and the time | the PUT |
//! | the length of the footer, the footer and the columns of a small Parquet file, as those of pending rows are | one GET of the whole file |
//!
//! Data files have unique names and never change. A log file is never cached, because other writers can create the same
//! name.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, GetOptions, GetRange, GetResult, GetResultPayload, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::forward::forward;

/// Entries expire after this time. Related requests follow each other at once.
const EXPIRES_AFTER: Duration = Duration::from_secs(10);

/// Files that were put and wait for their HEAD. A process has fewer appends under way.
const MAX_WRITTEN_FILES: usize = 1024;

/// Files up to this size are read whole. To transfer 64 KiB takes no longer than to transfer a few bytes.
const SMALL_FILE: u64 = 64 << 10;
const MAX_SMALL_FILE_BYTES: usize = 16 << 20;

/// A reader of Parquet first asks for the last bytes of the file, which hold the length of the footer.
const FOOTER_LENGTH_BYTES: u64 = 8;

#[derive(Debug)]
pub(super) struct DataFileCache {
    inner: Arc<DynObjectStore>,
    /// Whether small files are read whole. A local disk answers faster without.
    reads_small_files: bool,
    files: Arc<Mutex<Files>>,
}

#[derive(Debug)]
struct Files {
    /// The answer to one HEAD of each file.
    written: Cache<ObjectMeta>,
    small: Cache<(ObjectMeta, Bytes)>,
}

/// Recent values by location, up to a total weight.
#[derive(Debug)]
struct Cache<V> {
    entries: HashMap<Path, Entry<V>>,
    weight: usize,
    max_weight: usize,
}

#[derive(Debug)]
struct Entry<V> {
    since: Instant,
    weight: usize,
    value: V,
}

impl<V> Entry<V> {
    fn is_recent(&self) -> bool {
        self.since.elapsed() < EXPIRES_AFTER
    }
}

impl<V: Clone> Cache<V> {
    fn new(max_weight: usize) -> Self {
        Self { entries: HashMap::new(), weight: 0, max_weight }
    }

    fn get(&self, location: &Path) -> Option<V> {
        self.entries.get(location).filter(|entry| entry.is_recent()).map(|entry| entry.value.clone())
    }

    fn remove(&mut self, location: &Path) -> Option<V> {
        let entry = self.entries.remove(location)?;
        self.weight -= entry.weight;
        entry.is_recent().then_some(entry.value)
    }

    /// Adds `value`, unless there is no room even without expired entries.
    fn insert(&mut self, location: &Path, value: V, weight: usize) {
        self.remove(location);
        if self.weight + weight > self.max_weight {
            self.entries.retain(|_, entry| entry.is_recent());
            self.weight = self.entries.values().map(|entry| entry.weight).sum();
        }
        if self.weight + weight <= self.max_weight {
            self.weight += weight;
            self.entries.insert(location.clone(), Entry { since: Instant::now(), weight, value });
        }
    }
}

fn lock(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the entries of a file that is written or deleted.
fn remove(files: &Mutex<Files>, location: &Path) {
    if is_data_file(location) {
        let mut files = lock(files);
        files.written.remove(location);
        files.small.remove(location);
    }
}

/// The part of a file in `range`, or none if the file is shorter.
fn part_of((meta, bytes): (ObjectMeta, Bytes), range: Range<u64>) -> Option<GetResult> {
    let within = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
    if within.start >= within.end || within.end > bytes.len() {
        return None;
    }
    Some(get_result(meta, range, stream::iter([Ok(bytes.slice(within))]).boxed()))
}

fn get_result(meta: ObjectMeta, range: Range<u64>, content: BoxStream<'static, Result<Bytes>>) -> GetResult {
    let payload = GetResultPayload::Stream(content);
    GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() }
}

/// Whether the file has a unique name, as writers of data files give it.
fn is_data_file(location: &Path) -> bool {
    location.extension() == Some("parquet") && location.parts().all(|part| part.as_ref() != "_delta_log")
}

fn is_unconditional(options: &GetOptions) -> bool {
    let GetOptions { if_match, if_none_match, if_modified_since, if_unmodified_since, version, .. } = options;
    let conditions = if_match.is_some() || if_none_match.is_some() || version.is_some();
    !(conditions || if_modified_since.is_some() || if_unmodified_since.is_some())
}

impl DataFileCache {
    pub(super) fn new(inner: Arc<DynObjectStore>, reads_small_files: bool) -> Self {
        let files = Files { written: Cache::new(MAX_WRITTEN_FILES), small: Cache::new(MAX_SMALL_FILE_BYTES) };
        Self { inner, reads_small_files, files: Arc::new(Mutex::new(files)) }
    }

    /// Reads a part of a data file, and the rest of a small file with it.
    async fn read(&self, location: &Path, range: Range<u64>, options: GetOptions) -> Result<GetResult> {
        let cached = lock(&self.files).small.get(location);
        if let Some(part) = cached.and_then(|file| part_of(file, range.clone())) {
            return Ok(part);
        }
        if range.end.checked_sub(range.start) != Some(FOOTER_LENGTH_BYTES) || range.end > SMALL_FILE {
            return self.inner.get_opts(location, options).await;
        }
        let found = self.inner.get_opts(location, GetOptions::new().with_range(Some(0..range.end))).await?;
        let file = (found.meta.clone(), found.bytes().await?);
        lock(&self.files).small.insert(location, file.clone(), file.1.len());
        match part_of(file, range) {
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
        let is_cached = opts.mode == PutMode::Overwrite && is_data_file(location);
        let size = payload.content_length() as u64;
        remove(&self.files, location);
        let put = self.inner.put_opts(location, payload, opts).await?;
        if is_cached {
            let (e_tag, version) = (put.e_tag.clone(), put.version.clone());
            let meta = ObjectMeta { location: location.clone(), last_modified: Utc::now(), size, e_tag, version };
            lock(&self.files).written.insert(location, meta, 1);
        }
        Ok(put)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        remove(&self.files, location);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if is_data_file(location) && is_unconditional(&options) {
            match (options.head, options.range.clone()) {
                (true, None) => {
                    let written = lock(&self.files).written.remove(location);
                    if let Some(meta) = written {
                        let size = meta.size;
                        return Ok(get_result(meta, 0..size, stream::empty().boxed()));
                    }
                }
                (false, Some(GetRange::Bounded(range))) if self.reads_small_files => {
                    return self.read(location, range, options).await;
                }
                _ => {}
            }
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let files = Arc::clone(&self.files);
        let removed = locations.inspect_ok(move |location| remove(&files, location));
        self.inner.delete_stream(removed.boxed())
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        remove(&self.files, to);
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::super::counting::{CountingStore, RequestCounter, Requests};
    use super::*;

    fn store() -> (Arc<InMemory>, DataFileCache, RequestCounter) {
        let (memory, counter) = (Arc::new(InMemory::new()), RequestCounter::default());
        let counting = CountingStore::new(Arc::clone(&memory) as _, counter.clone());
        (memory, DataFileCache::new(Arc::new(counting), true), counter)
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
            store.put(&path, vec![1; SMALL_FILE as usize].into()).await.unwrap();
            store.get_range(&path, SMALL_FILE - 8..SMALL_FILE).await.unwrap();
        }
        let files = lock(&store.files);
        let total: usize = files.small.entries.values().map(|entry| entry.value.1.len()).sum();
        assert_eq!((files.small.weight, total), (MAX_SMALL_FILE_BYTES, MAX_SMALL_FILE_BYTES));
    }

    #[tokio::test]
    async fn one_head_of_a_file_that_was_put_is_answered_from_memory() {
        let (_, store, counter) = store();
        let path = Path::from("t/flag=NO/x.parquet");
        let before = Utc::now();
        let put = store.put(&path, "data".into()).await.unwrap();
        let meta = store.head(&path).await.unwrap();
        assert_eq!((&meta.location, meta.size, &meta.e_tag), (&path, 4, &put.e_tag));
        assert!(meta.last_modified >= before && meta.last_modified <= Utc::now());
        assert_eq!(counter.read(), Requests { put: 1, ..Requests::default() });
        store.head(&path).await.unwrap();
        assert_eq!(counter.read().head, 1, "the second request goes to the store");
    }

    #[tokio::test]
    async fn log_files_created_files_and_files_of_others_are_not_answered_from_memory() {
        let (memory, store, counter) = store();
        let log = Path::from("t/_delta_log/00000000000000000010.checkpoint.parquet");
        let entry = Path::from("t/_delta_log/00000000000000000001.json");
        let (created, foreign) = (Path::from("t/created.parquet"), Path::from("t/foreign.parquet"));
        store.put(&log, "x".into()).await.unwrap();
        store.put_opts(&entry, "x".into(), PutMode::Create.into()).await.unwrap();
        store.put_opts(&created, "x".into(), PutMode::Create.into()).await.unwrap();
        memory.put(&foreign, "xyz".into()).await.unwrap();
        for (asked, path) in [&log, &entry, &created, &foreign].into_iter().enumerate() {
            store.head(path).await.unwrap();
            assert_eq!(counter.read().head, asked as u64 + 1, "{path}");
        }
    }

    #[tokio::test]
    async fn deleted_and_overwritten_files_are_not_answered_from_memory() {
        let (_, store, counter) = store();
        let path = Path::from("t/x.parquet");
        store.put(&path, "data".into()).await.unwrap();
        store.delete(&path).await.unwrap();
        store.head(&path).await.unwrap_err();
        assert_eq!(counter.read().head, 1);
        store.put(&path, "data".into()).await.unwrap();
        store
            .get_opts(&path, GetOptions { if_match: Some("other".into()), head: true, ..GetOptions::default() })
            .await
            .unwrap_err();
        assert_eq!(counter.read().head, 2, "a conditional request goes to the store");
        let other = Path::from("t/y.parquet");
        store.put(&other, "longer data".into()).await.unwrap();
        store.copy(&other, &path).await.unwrap();
        assert_eq!(store.head(&path).await.unwrap().size, 11);
        assert_eq!(counter.read().head, 3);
    }

    #[tokio::test]
    async fn no_more_answers_are_kept_than_allowed() {
        let (_, store, _) = store();
        for at in 0..MAX_WRITTEN_FILES + 10 {
            store.put(&Path::from(format!("t/{at}.parquet")), "x".into()).await.unwrap();
        }
        let kept = || lock(&store.files).written.entries.len();
        let take = |name: &str| lock(&store.files).written.remove(&Path::from(name));
        assert!(take("t/0.parquet").is_some());
        let earlier = Instant::now().checked_sub(EXPIRES_AFTER).expect("the clock counts from long ago");
        lock(&store.files).written.entries.values_mut().for_each(|entry| entry.since = earlier);
        assert!(take("t/1.parquet").is_none(), "too old");
        for name in ["t/a.parquet", "t/b.parquet"] {
            store.put(&Path::from(name), "x".into()).await.unwrap();
        }
        assert_eq!(kept(), MAX_WRITTEN_FILES);
        store.put(&Path::from("t/c.parquet"), "x".into()).await.unwrap();
        assert_eq!(kept(), 3, "expired entries made room");
    }
}
