//! Counts the requests that go to the store. On a remote store, their number makes up most of what an operation costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::forward::forward;

/// Requests sent to a store, by kind. A listing counts once, even if the store returns it in pages. Each deleted file
/// counts once, even if the store deletes many files in one request. Retries of the store's own client do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Reads of a file or of a part of a file.
    pub get: u64,
    /// Writes of a file. For a large file, each part, the beginning and the end.
    pub put: u64,
    /// Listings.
    pub list: u64,
    /// Requests for a file's size and time.
    pub head: u64,
    /// Deleted files.
    pub delete: u64,
    /// Copies within the store.
    pub copy: u64,
}

/// A kind of request, as the position of its counter.
#[derive(Debug, Clone, Copy)]
enum RequestKind {
    Get,
    Put,
    List,
    Head,
    Delete,
    Copy,
}

/// The counters of one store, shared with its [`CountingStore`].
#[derive(Debug, Clone, Default)]
pub(super) struct RequestCounter(Arc<[AtomicU64; 6]>);

impl RequestCounter {
    /// The requests up to now.
    pub(super) fn read(&self) -> Requests {
        let [get, put, list, head, delete, copy] = self.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        Requests { get, put, list, head, delete, copy }
    }

    fn count(&self, kind: RequestKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts each request before it is sent to `inner`, whatever the result is.
///
/// The default `get_ranges` sends one `get` for neighbouring ranges, and each of these counts.
#[derive(Debug)]
pub(super) struct CountingStore {
    inner: Arc<DynObjectStore>,
    counter: RequestCounter,
}

impl CountingStore {
    pub(super) fn new(inner: Arc<DynObjectStore>, counter: RequestCounter) -> Self {
        Self { inner, counter }
    }
}

forward!(Display for CountingStore);

#[async_trait]
impl ObjectStore for CountingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.counter.count(RequestKind::Put);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.counter.count(RequestKind::Put);
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(CountingUpload { inner, counter: self.counter.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.counter.count(if options.head { RequestKind::Head } else { RequestKind::Get });
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let counter = self.counter.clone();
        let counted = locations.inspect_ok(move |_| counter.count(RequestKind::Delete));
        self.inner.delete_stream(counted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counter.count(RequestKind::List);
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counter.count(RequestKind::List);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.counter.count(RequestKind::List);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.counter.count(RequestKind::Copy);
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct CountingUpload {
    inner: Box<dyn MultipartUpload>,
    counter: RequestCounter,
}

#[async_trait]
impl MultipartUpload for CountingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.counter.count(RequestKind::Put);
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.counter.count(RequestKind::Put);
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.counter.count(RequestKind::Delete);
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::*;

    impl Requests {
        /// The number of all requests.
        pub(crate) fn total(&self) -> u64 {
            self.get + self.put + self.list + self.head + self.delete + self.copy
        }

        /// The requests after `before`, an earlier count of the same storage.
        pub(crate) fn since(&self, before: &Self) -> Self {
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

    #[tokio::test]
    async fn every_kind_of_request_is_counted_once_even_when_it_fails() {
        let counter = RequestCounter::default();
        let store = CountingStore::new(Arc::new(InMemory::new()), counter.clone());
        let (a, b) = (Path::from("a"), Path::from("b"));
        assert_eq!(counter.read(), Requests::default());
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
        assert_eq!(counter.read(), before);
        assert_eq!(before.total(), 10);
        let mut upload = store.put_multipart(&a).await.unwrap();
        upload.put_part("part".into()).await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(counter.read().since(&before), Requests { put: 3, ..Requests::default() });
    }
}
