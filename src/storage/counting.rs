//! Counts the requests that go to the store. On a remote store, their number makes up most of what an operation costs.
//! On a local disk, the option `request_delay` delays each of them, to simulate a remote store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::forward::forward;
use crate::duration;
use crate::error::{Error, Result as CrateResult};
use crate::runtime::{environment, lock};

/// The storage option that sets the delay.
pub(super) const DELAY_OPTION: &str = "request_delay";

/// The longest delay.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Deletions that are delayed side by side, as the clients of object stores send them.
const CONCURRENT_DELETIONS: usize = 10;

/// Splits `options` into the delay of each request and the options of the store.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] when the delay is not a duration of at most a minute.
pub(super) fn take_delay(options: &HashMap<String, String>) -> CrateResult<(Duration, HashMap<String, String>)> {
    let mut rest = options.clone();
    let Some(text) = rest.remove(DELAY_OPTION) else { return Ok((Duration::ZERO, rest)) };
    match duration::parse(&text) {
        Ok(delay) if delay <= MAX_DELAY => Ok((delay, rest)),
        _ => Err(Error::invalid(format!(
            "the storage option {DELAY_OPTION} is '{text}'; give the time that each request waits, from 0 to 60 seconds, such as \
             0.05 or '50ms'"
        ))),
    }
}

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

/// The counter of a kind of request.
type Kind = fn(&mut Requests) -> &mut u64;

/// The counters of one store, shared with its [`CountingStore`], and the delay of each request.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestCounter {
    counts: Arc<Mutex<Requests>>,
    delay: Duration,
}

impl RequestCounter {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// The requests up to now.
    pub(super) fn read(&self) -> Requests {
        *lock(&self.counts)
    }

    fn count(&self, kind: Kind) {
        *kind(&mut lock(&self.counts)) += 1;
    }

    /// Counts a request, and delays it.
    async fn pass(&self, kind: Kind) {
        self.count(kind);
        if !self.delay.is_zero() {
            environment().sleep(self.delay).await;
        }
    }

    /// Counts a listing, and delays it.
    fn pass_list(&self, listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count(|requests| &mut requests.list);
        match self.delay {
            Duration::ZERO => listed,
            delay => async move { environment().sleep(delay).await }.map(|()| listed).flatten_stream().boxed(),
        }
    }
}

/// Counts each request before it is sent to `inner`, whatever the result is, and delays it. The `ThrottledStore` of
/// object_store panics when it reads a local file, does not delay the beginning and the end of an upload, and delays
/// deletions one after the other.
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
        self.counter.pass(|requests| &mut requests.put).await;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.counter.pass(|requests| &mut requests.put).await;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(CountingUpload { inner, counter: self.counter.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.counter
            .pass(if options.head { |requests| &mut requests.head } else { |requests| &mut requests.get })
            .await;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (counter, delay) = (self.counter.clone(), self.counter.delay);
        let counted = locations.inspect_ok(move |_| counter.count(|requests| &mut requests.delete));
        let later = move |path| environment().sleep(delay).map(|()| path);
        self.inner.delete_stream(match delay {
            Duration::ZERO => counted.boxed(),
            _ => counted.map(later).buffered(CONCURRENT_DELETIONS).boxed(),
        })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counter.pass_list(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counter.pass_list(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.counter.pass(|requests| &mut requests.list).await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.counter.pass(|requests| &mut requests.copy).await;
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
        self.counter.count(|requests| &mut requests.put);
        let part = self.inner.put_part(data);
        match self.counter.delay {
            Duration::ZERO => part,
            delay => environment().sleep(delay).then(|()| part).boxed(),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.counter.pass(|requests| &mut requests.put).await;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.counter.pass(|requests| &mut requests.delete).await;
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

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

    #[test]
    fn a_delay_is_seconds_and_anything_else_is_refused() {
        let parse_delay = |text: &str| {
            take_delay(&HashMap::from([(DELAY_OPTION.to_owned(), text.to_owned())])).map(|(delay, _)| delay)
        };
        assert_eq!(parse_delay("0.05").unwrap(), Duration::from_millis(50));
        assert_eq!(parse_delay(" 2 ").unwrap(), Duration::from_secs(2));
        assert_eq!(parse_delay("50ms").unwrap(), Duration::from_millis(50));
        assert_eq!(parse_delay("0").unwrap(), Duration::ZERO);
        for bad in ["", "fast", "-1", "NaN", "inf", "61", "0,05"] {
            let error = parse_delay(bad).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{bad}");
            assert!(error.to_string().contains("request_delay"), "{error}");
        }
    }

    #[tokio::test]
    async fn every_request_waits() {
        let delay = Duration::from_millis(20);
        let store = CountingStore::new(Arc::new(InMemory::new()), RequestCounter::new(delay));
        let (a, b) = (Path::from("a"), Path::from("b"));
        let mut begun = Instant::now();
        let mut waited = |what: &str| {
            let took = begun.elapsed();
            assert!(took >= delay, "{what} took {took:?} only");
            begun = Instant::now();
        };
        store.put(&a, "a".into()).await.unwrap();
        waited("put");
        assert_eq!(store.get(&a).await.unwrap().bytes().await.unwrap(), "a");
        waited("get");
        store.head(&a).await.unwrap();
        waited("head");
        assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
        waited("list");
        assert_eq!(store.list_with_offset(None, &a).try_collect::<Vec<_>>().await.unwrap().len(), 0);
        waited("list with offset");
        store.list_with_delimiter(None).await.unwrap();
        waited("list with delimiter");
        store.copy(&a, &b).await.unwrap();
        waited("copy");
        store.delete(&a).await.unwrap();
        waited("delete");
        let mut upload = store.put_multipart(&a).await.unwrap();
        waited("begin of an upload");
        upload.put_part("part".into()).await.unwrap();
        waited("part of an upload");
        upload.complete().await.unwrap();
        waited("end of an upload");
    }

    #[test]
    fn the_delay_is_taken_out_of_the_options() {
        let options =
            HashMap::from([("request_delay".to_owned(), "0.05".to_owned()), ("key".to_owned(), "1".to_owned())]);
        let (delay, rest) = take_delay(&options).unwrap();
        assert_eq!(delay, Duration::from_millis(50));
        assert_eq!(rest, HashMap::from([("key".to_owned(), "1".to_owned())]));
        let bad = HashMap::from([("request_delay".to_owned(), "soon".to_owned())]);
        assert_eq!(take_delay(&bad).unwrap_err().kind(), crate::ErrorKind::InvalidInput);
    }
}
