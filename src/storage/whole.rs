//! Small data files in one request. A reader of Parquet asks for the length of the footer, then for the footer, then for
//! the columns: on a remote store three round trips for a file of two kilobytes, as those of pending rows are.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, DynObjectStore, Extensions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::written::is_data_file;

/// What a reader of Parquet asks for first: the last bytes of the file, which hold the length of the footer.
const LENGTH_OF_FOOTER: u64 = 8;

/// Files up to this size are read whole: on the way, 64 KiB cost no more than a few bytes.
const SMALL: u64 = 64 << 10;

/// Bytes kept at most, and for how long: until the other questions about the same file have come.
const MOST: usize = 16 << 20;
const KEPT: Duration = Duration::from_secs(10);

/// Asks `inner` for a small data file once. Data files have names of their own and are never changed.
#[derive(Debug)]
pub(super) struct Whole {
    inner: Arc<DynObjectStore>,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    kept: HashMap<Path, File>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct File {
    since: Instant,
    meta: ObjectMeta,
    bytes: Bytes,
}

impl Whole {
    pub(super) fn new(inner: Arc<DynObjectStore>) -> Self {
        Self { inner, files: Mutex::default() }
    }

    fn kept(&self, location: &Path) -> Option<File> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.kept.get(location).filter(|file| file.since.elapsed() < KEPT).cloned()
    }

    fn keep(&self, location: &Path, file: File) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.bytes + file.bytes.len() > MOST {
            files.kept.retain(|_, file| file.since.elapsed() < KEPT);
            files.bytes = files.kept.values().map(|file| file.bytes.len()).sum();
        }
        if files.bytes + file.bytes.len() <= MOST {
            files.bytes += file.bytes.len();
            if let Some(before) = files.kept.insert(location.clone(), file) {
                files.bytes -= before.bytes.len();
            }
        }
    }

    fn forget(&self, location: &Path) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = files.kept.remove(location) {
            files.bytes -= before.bytes.len();
        }
    }
}

impl File {
    fn answer(self, range: std::ops::Range<u64>) -> Option<GetResult> {
        let within = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
        if within.start >= within.end || within.end > self.bytes.len() {
            return None;
        }
        let part = self.bytes.slice(within);
        let payload = GetResultPayload::Stream(stream::iter([Ok(part)]).boxed());
        Some(GetResult {
            payload,
            meta: self.meta,
            range,
            attributes: Attributes::default(),
            extensions: Extensions::default(),
        })
    }
}

/// The part of a file that is asked for, if nothing else is.
fn plain_range(options: &GetOptions) -> Option<std::ops::Range<u64>> {
    let GetOptions { if_match, if_none_match, if_modified_since, if_unmodified_since, range, version, head, .. } =
        options;
    let conditions = if_match.is_some() || if_none_match.is_some() || version.is_some();
    let times = if_modified_since.is_some() || if_unmodified_since.is_some();
    match range {
        Some(GetRange::Bounded(range)) if !(*head || conditions || times) => Some(range.clone()),
        _ => None,
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Whole {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.forget(location);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.forget(location);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(range) = plain_range(&options).filter(|_| is_data_file(location)) else {
            return self.inner.get_opts(location, options).await;
        };
        if let Some(answer) = self.kept(location).and_then(|file| file.answer(range.clone())) {
            return Ok(answer);
        }
        if range.end.checked_sub(range.start) != Some(LENGTH_OF_FOOTER) || range.end > SMALL {
            return self.inner.get_opts(location, options).await;
        }
        let whole = self.inner.get_opts(location, GetOptions::new().with_range(Some(0..range.end))).await?;
        let (since, meta) = (Instant::now(), whole.meta.clone());
        let file = File { since, meta, bytes: whole.bytes().await? };
        self.keep(location, file.clone());
        match file.answer(range) {
            Some(answer) => Ok(answer),
            // Shorter than its reader thinks: the store has the words for it.
            None => self.inner.get_opts(location, options).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
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
        self.forget(to);
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::super::metered::{Meter, Metered};
    use super::*;

    fn store() -> (Whole, Meter) {
        let meter = Meter::default();
        (Whole::new(Arc::new(Metered::new(Arc::new(InMemory::new()), meter.clone()))), meter)
    }

    #[tokio::test]
    async fn a_small_data_file_is_asked_for_once() {
        let (store, meter) = store();
        let path = Path::from("t/x.parquet");
        let bytes: Vec<u8> = (0..200).collect();
        store.put(&path, bytes.clone().into()).await.unwrap();
        assert_eq!(store.get_range(&path, 192..200).await.unwrap(), bytes[192..]);
        assert_eq!(store.get_range(&path, 100..192).await.unwrap(), bytes[100..192]);
        assert_eq!(store.get_ranges(&path, &[4..40, 60..61]).await.unwrap(), [&bytes[4..40], &bytes[60..61]]);
        assert_eq!(meter.read().get, 1);
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), bytes);
        assert_eq!(meter.read().get, 2, "another kind of question");
        store.get_range(&path, 190..201).await.unwrap();
        assert_eq!(meter.read().get, 3, "beyond what is known");
    }

    #[tokio::test]
    async fn large_files_log_files_and_changed_ones_are_read_as_asked() {
        let (store, meter) = store();
        let large = Path::from("t/large.parquet");
        store.put(&large, vec![1; 100_000].into()).await.unwrap();
        let log = Path::from("t/_delta_log/00000000000000000010.checkpoint.parquet");
        store.put(&log, vec![1; 100].into()).await.unwrap();
        for (path, range) in [(&large, 99_992..100_000), (&large, 0..10), (&log, 92..100), (&log, 0..92)] {
            let before = meter.read().get;
            assert_eq!(store.get_range(path, range.clone()).await.unwrap().len() as u64, range.end - range.start);
            assert_eq!(meter.read().get, before + 1);
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
    async fn no_more_is_kept_than_allowed() {
        let (store, _) = store();
        for at in 0..300 {
            let path = Path::from(format!("t/{at}.parquet"));
            store.put(&path, vec![1; SMALL as usize].into()).await.unwrap();
            store.get_range(&path, SMALL - 8..SMALL).await.unwrap();
        }
        let total = |files: &Files| files.kept.values().map(|file| file.bytes.len()).sum::<usize>();
        let files = store.files.lock().unwrap();
        assert_eq!((files.bytes, total(&files)), (MOST, MOST));
    }
}
