use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use url::Url;

use super::super::report::Report;
use super::*;
use crate::storage::tests::fault_injecting::{Fault, FaultInjectingStore, FaultPlan};

/// A flaw because of which a store must not hold a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// The condition "only if it is new" is ignored.
    Overwrites,
    /// It checks first and then writes, so that two can win.
    ChecksFirst,
    /// Listings are out of date.
    ListsLate,
    /// It never answers.
    Hangs,
}

#[derive(Debug)]
struct Flawed(InMemory, Flaw);

impl fmt::Display for Flawed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flawed")
    }
}

#[async_trait]
impl ObjectStore for Flawed {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        if opts.mode == PutMode::Create {
            match self.1 {
                Flaw::Overwrites => opts.mode = PutMode::Overwrite,
                Flaw::ChecksFirst => {
                    if self.0.head(location).await.is_ok() {
                        return self.0.put_opts(location, payload, opts).await;
                    }
                    // Long enough for all others to check as well.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    opts.mode = PutMode::Overwrite;
                }
                Flaw::ListsLate | Flaw::Hangs => {}
            }
        }
        if self.1 == Flaw::Hangs {
            std::future::pending::<()>().await;
        }
        self.0.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.1 {
            Flaw::ListsLate => futures::stream::empty().boxed(),
            _ => self.0.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

fn of<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name} in {checks:?}"))
}

/// Runs on the runtime of the process, which has several threads.
fn checks_of(store: Arc<DynObjectStore>) -> Vec<Check> {
    let storage = Storage::over(Arc::clone(&store), Url::parse("s3://bucket/a%20b/ledger/").unwrap()).unwrap();
    runtime::block_on(async move { Ok(run_trials([Arc::clone(&store), store], &storage, None).await) }).unwrap()
}

fn left(store: &Arc<DynObjectStore>) -> Vec<Path> {
    let store = Arc::clone(store);
    runtime::block_on(async move { Ok(store.list(None).map_ok(|found| found.location).try_collect().await.unwrap()) })
        .unwrap()
}

#[test]
fn a_good_store_passes_and_is_left_as_it_was() {
    let store: Arc<DynObjectStore> = Arc::new(InMemory::new());
    let checks = checks_of(Arc::clone(&store));
    for name in ["writable", "atomic", "listing", "latency"] {
        assert_eq!(of(&checks, name).status, Status::Ok, "{checks:?}");
    }
    assert!(Report { checks }.ok());
    assert_eq!(left(&store), []);
}

#[test]
fn stores_that_are_not_atomic_are_recognised() {
    for (flaw, words) in [(Flaw::Overwrites, "were told that they won"), (Flaw::ChecksFirst, "were told that they won")]
    {
        let store: Arc<DynObjectStore> = Arc::new(Flawed(InMemory::new(), flaw));
        let checks = checks_of(Arc::clone(&store));
        let atomic = of(&checks, "atomic");
        assert_eq!(atomic.status, Status::Failed, "{flaw:?}");
        assert!(atomic.detail.contains(words), "{flaw:?}: {}", atomic.detail);
        assert!(!Report { checks }.ok());
        assert_eq!(left(&store), []);
    }
}

#[test]
fn a_second_put_that_overwrites_is_recognised_without_a_race() {
    let store: Arc<DynObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("x");
    let flawed: Arc<DynObjectStore> = Arc::new(Flawed(InMemory::new(), Flaw::Overwrites));
    runtime::block_on(async move {
        for (store, second) in [(store, Creation::Lost), (flawed, Creation::Won)] {
            assert_eq!(create(&store, &path, "1".to_owned()).await, Creation::Won);
            assert_eq!(create(&store, &path, "2".to_owned()).await, second);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn late_listings_are_recognised() {
    let store: Arc<DynObjectStore> = Arc::new(Flawed(InMemory::new(), Flaw::ListsLate));
    let checks = checks_of(store);
    assert_eq!(of(&checks, "atomic").status, Status::Ok);
    assert_eq!(of(&checks, "listing").status, Status::Failed);
    assert!(!Report { checks }.ok());
}

#[test]
fn a_store_that_hangs_is_abandoned() {
    let begun = Instant::now();
    let checks = checks_of(Arc::new(Flawed(InMemory::new(), Flaw::Hangs)));
    assert!(begun.elapsed() < TRIAL_LIMIT + CLEAN_UP_LIMIT + Duration::from_secs(1));
    assert!(of(&checks, "in time").status == Status::Failed && of(&checks, "in time").needed);
}

#[test]
fn a_store_that_refuses_is_not_writable() {
    let plan = FaultPlan::random(1, 100, &[Fault::Before]);
    let checks = checks_of(Arc::new(FaultInjectingStore::new(Arc::new(InMemory::new()), plan)));
    let writable = of(&checks, "writable");
    assert!(writable.status == Status::Failed && writable.detail.contains("503"), "{}", writable.detail);
    assert!(!checks.iter().any(|check| check.name == "atomic"));
}

#[test]
fn a_lost_response_to_the_winner_is_not_a_flaw() {
    let plan = FaultPlan::none();
    let store: Arc<DynObjectStore> = Arc::new(FaultInjectingStore::new(Arc::new(InMemory::new()), plan.clone()));
    // The first creator is told that the name exists.
    plan.next_commits(&[Fault::OwnConflict]);
    let check =
        runtime::block_on(async move { Ok(atomic(&[Arc::clone(&store), store], &Path::from("d"), 2).await) }).unwrap();
    assert_eq!(check.status, Status::Ok, "{}", check.detail);
}

fn at(root: &std::path::Path) -> Vec<Check> {
    let root = root.to_str().unwrap().to_owned();
    runtime::block_on(async move { Ok(examine(Some(root), StorageOptions::default()).await) }).unwrap()
}

#[test]
fn a_directory_is_examined_and_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("not/yet");
    for _ in 0..2 {
        let checks = at(&root);
        for name in ["root", "writable", "atomic", "listing", "durable", "latency"] {
            assert_eq!(of(&checks, name).status, Status::Ok, "{checks:?}");
        }
        assert!(of(&checks, "root").detail.contains("does not exist yet"));
        assert!(!directory.path().join("not").exists(), "what was created was removed");
    }
}

#[test]
fn impossible_roots_are_failures_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    for root in [file.as_path(), &file.join("below"), "/Volumes/a/b/c".as_ref(), "/dbfs/x".as_ref()] {
        let checks = at(root);
        let check = of(&checks, "root");
        assert!(check.status == Status::Failed && check.needed && check.advice.is_some(), "{checks:?}");
    }
    let checks = at("/proc/jobrota".as_ref());
    assert_eq!(of(&checks, "writable").status, Status::Failed, "{checks:?}");
}

#[test]
fn without_a_root_nothing_fails() {
    let checks = runtime::block_on(async { Ok(examine(None, StorageOptions::default()).await) }).unwrap();
    assert_eq!(checks[0].status, Status::Note);
    assert!(checks[0].advice.as_ref().unwrap().contains("JOBROTA_LEDGER"));
}
