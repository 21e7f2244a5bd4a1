//! A store that fails as real stores do. A seed makes the faults repeatable. For tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, Error, GetOptions, GetResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::forward::forward;
use crate::runtime::lock;

/// The fault of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The request fails without effect, as with a 503 or a refused connection.
    Before,
    /// There is no room for the object.
    DiskFull,
    /// The request takes effect, but the response is lost.
    After,
    /// A write fails and takes effect later: the request is still on its way when the client gives up. A read fails.
    Late,
    /// A conditional write takes effect, but reports that the object exists: the client lost the first response and
    /// retried.
    OwnConflict,
    /// A read does not find an object that exists.
    NotFound,
    /// The request is slow.
    Slow,
}

use Fault::{After, Before, DiskFull, Late, None as Fine, NotFound, OwnConflict, Slow};

const SLOW: Duration = Duration::from_millis(2);

/// Decides which fault each request has. It can be changed while the store is in use.
#[derive(Debug, Clone)]
pub(crate) struct FaultPlan(Arc<Mutex<FaultSettings>>);

#[derive(Debug)]
struct FaultSettings {
    random: StdRng,
    /// Of 100 requests, the number that fail.
    percent: u32,
    kinds: Vec<Fault>,
    /// The faults of the next conditional writes, the first one last.
    commits: Vec<Fault>,
}

impl FaultPlan {
    /// No faults.
    pub(crate) fn none() -> Self {
        Self::random(0, 0, &[])
    }

    /// Of 100 requests, `percent` have one of the faults in `kinds`.
    pub(crate) fn random(seed: u64, percent: u32, kinds: &[Fault]) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(FaultSettings { random, percent, kinds: kinds.to_vec(), commits: Vec::new() })))
    }

    /// From now on, `percent` of 100 requests fail.
    pub(crate) fn set_percent(&self, percent: u32) {
        lock(&self.0).percent = percent;
    }

    /// The next conditional writes have these faults, in this order.
    pub(crate) fn next_commits(&self, faults: &[Fault]) {
        lock(&self.0).commits = faults.iter().rev().copied().collect();
    }

    fn fault(&self, commit: bool) -> Fault {
        let mut plan = lock(&self.0);
        if commit && let Some(fault) = plan.commits.pop() {
            return fault;
        }
        let FaultSettings { random, percent, kinds, .. } = &mut *plan;
        match kinds.is_empty() || random.random_range(0..100) >= *percent {
            true => Fine,
            false => kinds[random.random_range(0..kinds.len())],
        }
    }
}

/// Injects the faults of a plan into the requests to `inner`.
#[derive(Debug)]
pub(crate) struct FaultInjectingStore {
    inner: Arc<DynObjectStore>,
    plan: FaultPlan,
    late_writes: Mutex<Vec<(Path, PutPayload, PutOptions)>>,
}

impl FaultInjectingStore {
    pub(crate) fn new(inner: Arc<DynObjectStore>, plan: FaultPlan) -> Self {
        Self { inner, plan, late_writes: Mutex::default() }
    }

    /// Sends the writes that are still on their way.
    pub(crate) async fn send_late_writes(&self) {
        let late = std::mem::take(&mut *lock(&self.late_writes));
        for (path, payload, opts) in late {
            // The sender no longer waits for the result.
            _ = self.inner.put_opts(&path, payload, opts).await;
        }
    }

    /// Injects the fault of a request that changes nothing.
    async fn inject(&self, path: &Path) -> Result<()> {
        match self.plan.fault(false) {
            Fine | OwnConflict => Ok(()),
            Slow => {
                tokio::time::sleep(SLOW).await;
                Ok(())
            }
            NotFound => Err(Error::NotFound { path: path.to_string(), source: "injected".into() }),
            Before | DiskFull | After | Late => Err(failure()),
        }
    }
}

fn failure() -> Error {
    Error::Generic { store: "FaultInjectingStore", source: "503 Service Unavailable".into() }
}

forward!(Display for FaultInjectingStore);

#[async_trait]
impl ObjectStore for FaultInjectingStore {
    forward!(inner: list_with_delimiter);

    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let commit = opts.mode == PutMode::Create;
        let fault = self.plan.fault(commit);
        match fault {
            Slow => tokio::time::sleep(SLOW).await,
            Before => return Err(failure()),
            DiskFull => {
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull).into();
                return Err(Error::Generic { store: "FaultInjectingStore", source });
            }
            Late => {
                lock(&self.late_writes).push((location.clone(), payload, opts));
                return Err(failure());
            }
            Fine | NotFound | After | OwnConflict => {}
        }
        let put = self.inner.put_opts(location, payload, opts).await?;
        match fault {
            After => Err(failure()),
            OwnConflict if commit => Err(Error::AlreadyExists { path: location.to_string(), source: "retried".into() }),
            _ => Ok(put),
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inject(location).await?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inject(location).await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (plan, inner) = (self.plan.clone(), Arc::clone(&self.inner));
        locations
            .then(move |location| {
                let (plan, inner) = (plan.clone(), Arc::clone(&inner));
                async move {
                    let location = location?;
                    let fault = plan.fault(false);
                    if matches!(fault, Before | Late) {
                        return Err(failure());
                    }
                    inner.delete_stream(stream::iter([Ok(location.clone())]).boxed()).next().await.transpose()?;
                    if fault == After { Err(failure()) } else { Ok(location) }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if matches!(self.plan.fault(false), Before | After | Late) {
            return stream::iter([Err(failure())]).boxed();
        }
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let found = self.inner.list_with_offset(prefix, offset);
        match self.plan.fault(false) {
            // An error on the second page. The first page must not pass for the whole listing.
            Before | DiskFull | After | Late => found.take(1).chain(stream::iter([Err(failure())])).boxed(),
            Slow => tokio::time::sleep(SLOW).map(|()| found).flatten_stream().boxed(),
            Fine | NotFound | OwnConflict => found,
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inject(from).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn faults_have_the_effects_that_they_describe() {
        let inner = Arc::new(InMemory::new());
        let plan = FaultPlan::none();
        let store = FaultInjectingStore::new(Arc::clone(&inner) as _, plan.clone());
        let create = |name: &str| {
            let (store, path) = (&store, Path::from(name));
            async move { store.put_opts(&path, "x".into(), PutMode::Create.into()).await }
        };
        let there = |name: &'static str| {
            let inner = Arc::clone(&inner);
            async move { inner.head(&Path::from(name)).await.is_ok() }
        };
        plan.next_commits(&[Before, After, OwnConflict, Late]);
        assert!(matches!(create("before").await, Err(Error::Generic { .. })) && !there("before").await);
        assert!(matches!(create("after").await, Err(Error::Generic { .. })) && there("after").await);
        assert!(matches!(create("own").await, Err(Error::AlreadyExists { .. })) && there("own").await);
        assert!(matches!(create("late").await, Err(Error::Generic { .. })) && !there("late").await);
        store.send_late_writes().await;
        assert!(there("late").await);
        create("fine").await.unwrap();
        let all = [Before, After, Late, OwnConflict, NotFound, Slow];
        let outcomes = |seed| {
            let plan = FaultPlan::random(seed, 50, &all);
            (0..100).map(|_| plan.fault(false)).collect::<Vec<_>>()
        };
        assert_eq!(outcomes(7), outcomes(7), "a seed repeats the faults");
        assert_ne!(outcomes(7), outcomes(8));
        assert!(all.iter().all(|fault| outcomes(7).contains(fault)));
    }
}
