//! What this storage has just written need not be asked for: the kernel's default engine (0.30) follows each PUT of a
//! data file with a HEAD of it, to learn a size and a time that are known already. On a remote store that is a third of
//! what an append costs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::Utc;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, DynObjectStore, Extensions, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// How long an answer is kept: the question follows the PUT at once, or never.
const KEPT: Duration = Duration::from_secs(10);

/// Answers kept at most. More only than a process has appends under way.
const MOST: usize = 1024;

/// Answers one HEAD of each data file that was put through it. Never one of a log file, whose name is not ours alone,
/// nor of a file that somebody else wrote.
#[derive(Debug)]
pub(super) struct Written {
    inner: Arc<DynObjectStore>,
    answers: Answers,
}

/// What is known of each file just written, and since when.
#[derive(Debug, Clone, Default)]
struct Answers(Arc<Mutex<HashMap<Path, (Instant, ObjectMeta)>>>);

impl Answers {
    fn keep(&self, meta: ObjectMeta) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST {
            answers.retain(|_, (at, _)| at.elapsed() < KEPT);
        }
        if answers.len() < MOST {
            answers.insert(meta.location.clone(), (Instant::now(), meta));
        }
    }

    /// The answer for `location`, which is given once.
    fn take(&self, location: &Path) -> Option<ObjectMeta> {
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(location);
        answer.filter(|(at, _)| at.elapsed() < KEPT).map(|(_, meta)| meta)
    }
}

impl Written {
    pub(super) fn new(inner: Arc<DynObjectStore>) -> Self {
        Self { inner, answers: Answers::default() }
    }
}

/// Whether only writers of data files name files so: each takes a name of its own, which no one writes twice.
pub(super) fn is_data_file(location: &Path) -> bool {
    location.extension() == Some("parquet") && location.parts().all(|part| part.as_ref() != "_delta_log")
}

/// Whether nothing is asked but what the file's size and time are.
fn is_plain_head(options: &GetOptions) -> bool {
    let GetOptions { if_match, if_none_match, if_modified_since, if_unmodified_since, range, version, head, .. } =
        options;
    *head
        && if_match.is_none()
        && if_none_match.is_none()
        && if_modified_since.is_none()
        && if_unmodified_since.is_none()
        && range.is_none()
        && version.is_none()
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Written {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let known = opts.mode == PutMode::Overwrite && is_data_file(location);
        let size = payload.content_length() as u64;
        self.answers.take(location);
        let put = self.inner.put_opts(location, payload, opts).await?;
        if known {
            self.answers.keep(ObjectMeta {
                location: location.clone(),
                last_modified: Utc::now(),
                size,
                e_tag: put.e_tag.clone(),
                version: put.version.clone(),
            });
        }
        Ok(put)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.answers.take(location);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match is_plain_head(&options).then(|| self.answers.take(location)).flatten() {
            Some(meta) => Ok(GetResult {
                payload: GetResultPayload::Stream(stream::empty().boxed()),
                range: 0..meta.size,
                meta,
                attributes: Attributes::default(),
                extensions: Extensions::default(),
            }),
            None => self.inner.get_opts(location, options).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let answers = self.answers.clone();
        let forgotten = locations.inspect(move |location| {
            if let Ok(location) = location {
                answers.take(location);
            }
        });
        self.inner.delete_stream(forgotten.boxed())
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
        self.answers.take(to);
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::super::metered::{Meter, Metered, Requests};
    use super::*;

    fn store() -> (Arc<InMemory>, Written, Meter) {
        let (memory, meter) = (Arc::new(InMemory::new()), Meter::default());
        let written = Written::new(Arc::new(Metered::new(Arc::clone(&memory) as _, meter.clone())));
        (memory, written, meter)
    }

    #[tokio::test]
    async fn one_head_of_a_file_just_put_is_answered_from_memory() {
        let (_, store, meter) = store();
        let path = Path::from("t/flag=NO/x.parquet");
        let before = Utc::now();
        let put = store.put(&path, "data".into()).await.unwrap();
        let meta = store.head(&path).await.unwrap();
        assert_eq!((&meta.location, meta.size, &meta.e_tag), (&path, 4, &put.e_tag));
        assert!(meta.last_modified >= before && meta.last_modified <= Utc::now());
        assert_eq!(meter.read(), Requests { put: 1, ..Requests::default() });
        store.head(&path).await.unwrap();
        assert_eq!(meter.read().head, 1, "the second question goes to the store");
    }

    #[tokio::test]
    async fn log_files_created_files_and_files_of_others_are_asked_for() {
        let (memory, store, meter) = store();
        let log = Path::from("t/_delta_log/00000000000000000010.checkpoint.parquet");
        let entry = Path::from("t/_delta_log/00000000000000000001.json");
        let (created, foreign) = (Path::from("t/created.parquet"), Path::from("t/foreign.parquet"));
        store.put(&log, "x".into()).await.unwrap();
        store.put_opts(&entry, "x".into(), PutMode::Create.into()).await.unwrap();
        store.put_opts(&created, "x".into(), PutMode::Create.into()).await.unwrap();
        memory.put(&foreign, "xyz".into()).await.unwrap();
        for (asked, path) in [&log, &entry, &created, &foreign].into_iter().enumerate() {
            store.head(path).await.unwrap();
            assert_eq!(meter.read().head, asked as u64 + 1, "{path}");
        }
    }

    #[tokio::test]
    async fn what_failed_was_deleted_or_was_overwritten_is_asked_for() {
        let (_, store, meter) = store();
        let path = Path::from("t/x.parquet");
        store.put(&path, "data".into()).await.unwrap();
        store.delete(&path).await.unwrap();
        store.head(&path).await.unwrap_err();
        assert_eq!(meter.read().head, 1);
        store.put(&path, "data".into()).await.unwrap();
        store
            .get_opts(&path, GetOptions { if_match: Some("other".into()), head: true, ..GetOptions::default() })
            .await
            .unwrap_err();
        assert_eq!(meter.read().head, 2, "a conditional question is the store's");
        let other = Path::from("t/y.parquet");
        store.put(&other, "longer data".into()).await.unwrap();
        store.copy(&other, &path).await.unwrap();
        assert_eq!(store.head(&path).await.unwrap().size, 11);
        assert_eq!(meter.read().head, 3);
    }

    #[tokio::test]
    async fn no_more_answers_are_kept_than_allowed() {
        let (_, store, _) = store();
        for at in 0..MOST + 10 {
            store.put(&Path::from(format!("t/{at}.parquet")), "x".into()).await.unwrap();
        }
        let kept = || store.answers.0.lock().unwrap().len();
        assert!(store.answers.take(&Path::from("t/0.parquet")).is_some());
        let earlier = Instant::now().checked_sub(KEPT).expect("the clock counts from long ago");
        store.answers.0.lock().unwrap().values_mut().for_each(|(at, _)| *at = earlier);
        assert!(store.answers.take(&Path::from("t/1.parquet")).is_none(), "too old");
        for name in ["t/a.parquet", "t/b.parquet"] {
            store.put(&Path::from(name), "x".into()).await.unwrap();
        }
        assert_eq!(kept(), MOST);
        store.put(&Path::from("t/c.parquet"), "x".into()).await.unwrap();
        assert_eq!(kept(), 3, "the old ones made room");
    }
}
