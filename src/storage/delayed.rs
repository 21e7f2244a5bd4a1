//! A store that is slow on purpose, to try out on a local disk what a remote one will feel like.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use crate::duration;
use crate::error::{Error, Result as CrateResult};

/// The storage option that asks for it.
pub(super) const OPTION: &str = "request_delay";

/// The longest delay that the option accepts.
const LONGEST: Duration = Duration::from_secs(60);

/// Deletions that wait side by side, as object stores' clients send them.
const DELETIONS: usize = 10;

/// Reads the delay, such as `0.05` or `50ms`.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] when it is not a duration of at most a minute.
pub(super) fn parse(text: &str) -> CrateResult<Duration> {
    duration::parse(text).ok().filter(|delay| *delay <= LONGEST).ok_or_else(|| {
        Error::invalid(format!(
            "the storage option {OPTION} is '{text}'; give the time that each request waits, from 0 to 60 seconds, such as \
             0.05 or '50ms'"
        ))
    })
}

/// Waits before every request that it passes on to `inner`.
#[derive(Debug)]
pub(super) struct Delayed {
    inner: Arc<DynObjectStore>,
    delay: Duration,
}

impl Delayed {
    pub(super) fn new(inner: Arc<DynObjectStore>, delay: Duration) -> Self {
        Self { inner, delay }
    }

    async fn wait(&self) {
        tokio::time::sleep(self.delay).await;
    }

    fn later<T: Send + 'static>(&self, answers: BoxStream<'static, T>) -> BoxStream<'static, T> {
        tokio::time::sleep(self.delay).map(|()| answers).flatten_stream().boxed()
    }
}

impl fmt::Display for Delayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Delayed {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.wait().await;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.wait().await;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(DelayedUpload { inner, delay: self.delay }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.wait().await;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let delay = self.delay;
        let waited = locations.map(move |location| tokio::time::sleep(delay).map(|()| location)).buffered(DELETIONS);
        self.inner.delete_stream(waited.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.later(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.later(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.wait().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.wait().await;
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct DelayedUpload {
    inner: Box<dyn MultipartUpload>,
    delay: Duration,
}

#[async_trait]
impl MultipartUpload for DelayedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let part = self.inner.put_part(data);
        tokio::time::sleep(self.delay).then(|()| part).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        tokio::time::sleep(self.delay).await;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        tokio::time::sleep(self.delay).await;
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
        assert_eq!(parse("0").unwrap(), Duration::ZERO);
        for bad in ["", "fast", "-1", "NaN", "inf", "61", "50ms", "0,05"] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{bad}");
            assert!(error.to_string().contains("request_delay"), "{error}");
        }
    }

    #[tokio::test]
    async fn every_request_waits() {
        let delay = Duration::from_millis(20);
        let store = Delayed::new(Arc::new(InMemory::new()), delay);
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
