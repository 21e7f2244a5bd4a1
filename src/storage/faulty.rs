//! A store that fails as real ones do, by a script that a seed makes repeatable.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// An error comes back, and nothing happened: a 503, a refused connection.
    Before,
    /// It took effect, but an error comes back: the answer was lost.
    After,
    /// An error comes back at once, and a write takes effect only later: the request is still on its way when the
    /// client gives up. Reads just fail.
    Late,
    /// A conditional write took effect, but the answer is that somebody else was first: the client lost the first
    /// answer and asked again by itself.
    OwnConflict,
    /// A read does not find what is there.
    NotFound,
    /// It takes its time.
    Slow,
}

use Fault::{After, Before, Late, None as Fine, NotFound, OwnConflict, Slow};

const SLOW: Duration = Duration::from_millis(2);

/// Decides about each request, and can be changed while the store is in use.
#[derive(Clone)]
pub(crate) struct Script(Arc<Mutex<Lines>>);

struct Lines {
    random: StdRng,
    /// Of 100 requests, so many fail.
    percent: u32,
    kinds: Vec<Fault>,
    /// Comes first, for writes that are conditional.
    commits: Vec<Fault>,
}

impl Script {
    /// No faults.
    pub(crate) fn calm() -> Self {
        Self::random(0, 0, &[])
    }

    /// Of 100 requests, `percent` have one of the faults `kinds`.
    pub(crate) fn random(seed: u64, percent: u32, kinds: &[Fault]) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(Lines { random, percent, kinds: kinds.to_vec(), commits: Vec::new() })))
    }

    /// From now on, `percent` of 100 requests fail.
    pub(crate) fn set(&self, percent: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).percent = percent;
    }

    /// The next conditional writes have these faults, one after the other.
    pub(crate) fn next_commits(&self, faults: &[Fault]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).commits = faults.iter().rev().copied().collect();
    }

    fn fault(&self, commit: bool) -> Fault {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if commit && let Some(fault) = lines.commits.pop() {
            return fault;
        }
        let Lines { random, percent, kinds, .. } = &mut *lines;
        match kinds.is_empty() || random.random_range(0..100) >= *percent {
            true => Fine,
            false => kinds[random.random_range(0..kinds.len())],
        }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

/// Does to each request what the script says, else what `inner` does.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<DynObjectStore>,
    script: Script,
    late: OnTheirWay,
}

/// Writes that have not arrived yet.
type OnTheirWay = Arc<Mutex<Vec<(Path, PutPayload, PutOptions)>>>;

impl Faulty {
    pub(crate) fn new(inner: Arc<DynObjectStore>, script: Script) -> Self {
        Self { inner, script, late: Arc::default() }
    }

    /// Lets the writes that are still on their way arrive.
    pub(crate) async fn arrive(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        for (path, payload, opts) in late {
            // Whoever sent it does not wait for the answer any more.
            _ = self.inner.put_opts(&path, payload, opts).await;
        }
    }

    /// The fault of a request that changes nothing.
    async fn reading(&self, path: &Path) -> Result<()> {
        match self.script.fault(false) {
            Fine | OwnConflict => Ok(()),
            Slow => {
                tokio::time::sleep(SLOW).await;
                Ok(())
            }
            NotFound => Err(Error::NotFound { path: path.to_string(), source: "a flicker".into() }),
            Before | After | Late => Err(broken()),
        }
    }
}

fn broken() -> Error {
    Error::Generic { store: "Faulty", source: "503 Service Unavailable".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let commit = opts.mode == PutMode::Create;
        match self.script.fault(commit) {
            Fine | NotFound => {}
            Slow => tokio::time::sleep(SLOW).await,
            Before => return Err(broken()),
            After => {
                self.inner.put_opts(location, payload, opts).await?;
                return Err(broken());
            }
            Late => {
                self.late.lock().unwrap_or_else(PoisonError::into_inner).push((location.clone(), payload, opts));
                return Err(broken());
            }
            OwnConflict => {
                let put = self.inner.put_opts(location, payload, opts).await?;
                if commit {
                    return Err(Error::AlreadyExists { path: location.to_string(), source: "asked again".into() });
                }
                return Ok(put);
            }
        }
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.reading(location).await?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reading(location).await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let script = self.script.clone();
        let inner = Arc::clone(&self.inner);
        locations
            .then(move |location| {
                let (script, inner) = (script.clone(), Arc::clone(&inner));
                async move {
                    let location = location?;
                    let fault = script.fault(false);
                    if matches!(fault, Before | Late) {
                        return Err(broken());
                    }
                    inner.delete_stream(stream::iter([Ok(location.clone())]).boxed()).next().await.transpose()?;
                    if fault == After { Err(broken()) } else { Ok(location) }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if matches!(self.script.fault(false), Before | After | Late) {
            return stream::iter([Err(broken())]).boxed();
        }
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let found = self.inner.list_with_offset(prefix, offset);
        match self.script.fault(false) {
            // An error on the second page: what was listed before it must not pass for the whole.
            Before | After | Late => found.take(1).chain(stream::iter([Err(broken())])).boxed(),
            Slow => tokio::time::sleep(SLOW).map(|()| found).flatten_stream().boxed(),
            Fine | NotFound | OwnConflict => found,
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.reading(from).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn faults_do_what_they_say() {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;
    let inner = Arc::new(InMemory::new());
    let script = Script::calm();
    let store = Faulty::new(Arc::clone(&inner) as _, script.clone());
    let create = |name: &str| {
        let (store, path) = (&store, Path::from(name));
        async move { store.put_opts(&path, "x".into(), PutMode::Create.into()).await }
    };
    let there = |name: &'static str| {
        let inner = Arc::clone(&inner);
        async move { inner.head(&Path::from(name)).await.is_ok() }
    };
    script.next_commits(&[Before, After, OwnConflict, Late]);
    assert!(matches!(create("before").await, Err(Error::Generic { .. })) && !there("before").await);
    assert!(matches!(create("after").await, Err(Error::Generic { .. })) && there("after").await);
    assert!(matches!(create("own").await, Err(Error::AlreadyExists { .. })) && there("own").await);
    assert!(matches!(create("late").await, Err(Error::Generic { .. })) && !there("late").await);
    store.arrive().await;
    assert!(there("late").await);
    create("fine").await.unwrap();
    let all = [Before, After, Late, OwnConflict, NotFound, Slow];
    let outcomes = |seed| {
        let script = Script::random(seed, 50, &all);
        (0..100).map(|_| script.fault(false)).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(7), outcomes(7), "a seed repeats itself");
    assert_ne!(outcomes(7), outcomes(8));
    assert!(all.iter().all(|fault| outcomes(7).contains(fault)));
}
