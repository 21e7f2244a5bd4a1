//! How many requests went to the store: what an operation costs on a remote store is mostly their number.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// Requests sent to a store, by kind. A listing counts once, however many pages the store answers it in, and each
/// deleted file counts once, even where the store takes many in one request. Retries within the store's own client are
/// not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Reads of a file or a part of one.
    pub get: u64,
    /// Writes of a file; of a large one, each part and its beginning and end.
    pub put: u64,
    /// Listings.
    pub list: u64,
    /// Questions about a file's size and time.
    pub head: u64,
    /// Deleted files.
    pub delete: u64,
    /// Copies within the store.
    pub copy: u64,
}

impl Requests {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.get + self.put + self.list + self.head + self.delete + self.copy
    }

    /// Those that came after `before`, an earlier count of the same storage.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            get: self.get.saturating_sub(before.get),
            put: self.put.saturating_sub(before.put),
            list: self.list.saturating_sub(before.list),
            head: self.head.saturating_sub(before.head),
            delete: self.delete.saturating_sub(before.delete),
            copy: self.copy.saturating_sub(before.copy),
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    get: AtomicU64,
    put: AtomicU64,
    list: AtomicU64,
    head: AtomicU64,
    delete: AtomicU64,
    copy: AtomicU64,
}

/// Counts of one store, shared with the [`Metered`] that counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<Counts>);

/// Nothing is ordered by these counts.
fn more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Meter {
    /// The counts up to now.
    pub(super) fn read(&self) -> Requests {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Requests {
            get: of(&self.0.get),
            put: of(&self.0.put),
            list: of(&self.0.list),
            head: of(&self.0.head),
            delete: of(&self.0.delete),
            copy: of(&self.0.copy),
        }
    }
}

/// Counts every request that reaches `inner`. Requests count when they are sent, whatever becomes of them.
///
/// `get_ranges` stays the trait's own: it makes one `get` of neighbouring ranges, and each of these counts.
#[derive(Debug)]
pub(super) struct Metered {
    inner: Arc<DynObjectStore>,
    meter: Meter,
}

impl Metered {
    pub(super) fn new(inner: Arc<DynObjectStore>, meter: Meter) -> Self {
        Self { inner, meter }
    }
}

impl fmt::Display for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Metered {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        more(&self.meter.0.put);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        more(&self.meter.0.put);
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(MeteredUpload { inner, meter: self.meter.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        more(if options.head { &self.meter.0.head } else { &self.meter.0.get });
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let meter = self.meter.clone();
        let counted = locations.inspect(move |location| {
            if location.is_ok() {
                more(&meter.0.delete);
            }
        });
        self.inner.delete_stream(counted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        more(&self.meter.0.list);
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        more(&self.meter.0.list);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        more(&self.meter.0.list);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        more(&self.meter.0.copy);
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct MeteredUpload {
    inner: Box<dyn MultipartUpload>,
    meter: Meter,
}

#[async_trait]
impl MultipartUpload for MeteredUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        more(&self.meter.0.put);
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        more(&self.meter.0.put);
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        more(&self.meter.0.delete);
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn every_kind_of_request_is_counted_once_even_when_it_fails() {
        let meter = Meter::default();
        let store = Metered::new(Arc::new(InMemory::new()), meter.clone());
        let (a, b) = (Path::from("a"), Path::from("b"));
        assert_eq!(meter.read(), Requests::default());
        store.put(&a, "0123456789".into()).await.unwrap();
        store.get(&a).await.unwrap();
        store.get(&b).await.unwrap_err();
        // Neighbouring ranges are one request.
        store.get_ranges(&a, &[0..2, 4..6]).await.unwrap();
        store.head(&a).await.unwrap();
        store.list(None).try_collect::<Vec<_>>().await.unwrap();
        store.list_with_offset(None, &a).try_collect::<Vec<_>>().await.unwrap();
        store.list_with_delimiter(None).await.unwrap();
        store.copy(&a, &b).await.unwrap();
        store.delete(&a).await.unwrap();
        let before = Requests { get: 3, put: 1, list: 3, head: 1, delete: 1, copy: 1 };
        assert_eq!(meter.read(), before);
        assert_eq!(before.total(), 10);
        let mut upload = store.put_multipart(&a).await.unwrap();
        upload.put_part("part".into()).await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(meter.read().since(&before), Requests { put: 3, ..Requests::default() });
    }
}
