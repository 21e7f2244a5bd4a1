//! Delays each request, to simulate a remote store on a local disk.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{
    DynObjectStore, GetOptions, GetResult, MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload, PutResult,
    Result, UploadPart,
};
use tokio::time::sleep;

use super::forward::forward;
use crate::duration;
use crate::error::{Error, Result as CrateResult};

/// The storage option that sets the delay.
pub(super) const OPTION: &str = "request_delay";

/// The longest delay.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Deletions that are delayed side by side, as the clients of object stores send them.
const CONCURRENT_DELETIONS: usize = 10;

/// Parses the delay, such as `0.05` or `50ms`.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] when `text` is not a duration of at most a minute.
pub(super) fn parse(text: &str) -> CrateResult<Duration> {
    duration::parse(text).ok().filter(|delay| *delay <= MAX_DELAY).ok_or_else(|| {
        Error::invalid(format!(
            "the storage option {OPTION} is '{text}'; give the time that each request waits, from 0 to 60 seconds, such as \
             0.05 or '50ms'"
        ))
    })
}

/// Waits before each request to `inner`. Where it can, it leaves this to object_store's own [`ThrottledStore`]. That
/// store panics when it reads a local file, does not delay the beginning and the end of an upload, and delays deletions
/// one after the other.
#[derive(Debug)]
pub(super) struct Throttled {
    inner: Arc<DynObjectStore>,
    throttled: Box<ThrottledStore<Arc<DynObjectStore>>>,
    delay: Duration,
}

impl Throttled {
    pub(super) fn new(inner: Arc<DynObjectStore>, delay: Duration) -> Self {
        let config = ThrottleConfig {
            wait_list_per_call: delay,
            wait_list_with_delimiter_per_call: delay,
            wait_put_per_call: delay,
            ..ThrottleConfig::default()
        };
        Self { throttled: Box::new(ThrottledStore::new(Arc::clone(&inner), config)), inner, delay }
    }
}

forward!(Display for Throttled);

#[async_trait]
impl ObjectStore for Throttled {
    forward!(throttled: put_opts, list, list_with_offset, list_with_delimiter, copy_opts);

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        sleep(self.delay).await;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(ThrottledUpload { inner, delay: self.delay }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        sleep(self.delay).await;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let delay = self.delay;
        let delayed = locations.map(move |location| sleep(delay).map(|()| location)).buffered(CONCURRENT_DELETIONS);
        self.inner.delete_stream(delayed.boxed())
    }
}

#[derive(Debug)]
struct ThrottledUpload {
    inner: Box<dyn MultipartUpload>,
    delay: Duration,
}

#[async_trait]
impl MultipartUpload for ThrottledUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let part = self.inner.put_part(data);
        sleep(self.delay).then(|()| part).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        sleep(self.delay).await;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        sleep(self.delay).await;
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures::TryStreamExt as _;
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn a_delay_is_seconds_and_anything_else_is_refused() {
        assert_eq!(parse("0.05").unwrap(), Duration::from_millis(50));
        assert_eq!(parse(" 2 ").unwrap(), Duration::from_secs(2));
        assert_eq!(parse("50ms").unwrap(), Duration::from_millis(50));
        assert_eq!(parse("0").unwrap(), Duration::ZERO);
        for bad in ["", "fast", "-1", "NaN", "inf", "61", "0,05"] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{bad}");
            assert!(error.to_string().contains("request_delay"), "{error}");
        }
    }

    #[tokio::test]
    async fn every_request_waits() {
        let delay = Duration::from_millis(20);
        let store = Throttled::new(Arc::new(InMemory::new()), delay);
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
}
