use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};
use tokio::sync::Semaphore;

use super::*;
use crate::storage::provider::Provided;

/// A provider of the key 1, 2, and so on, and a store that takes the keys from `valid` to `valid + accepted - 1`.
struct World {
    asked: AtomicUsize,
    valid: AtomicUsize,
    requests: AtomicUsize,
    refusals: AtomicUsize,
    stores: AtomicUsize,
    life: Mutex<Option<TimeDelta>>,
    fails: Mutex<Option<Error>>,
    /// One permit for each answer.
    gate: Semaphore,
    objects: Arc<InMemory>,
}

impl World {
    fn new(life: Option<TimeDelta>) -> Arc<Self> {
        Arc::new(Self {
            asked: AtomicUsize::new(0),
            valid: AtomicUsize::new(1),
            requests: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            stores: AtomicUsize::new(0),
            life: Mutex::new(life),
            fails: Mutex::default(),
            gate: Semaphore::new(1000),
            objects: Arc::default(),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn refuses_below(&self, key: usize) {
        self.valid.store(key, Ordering::SeqCst);
    }

    fn fails(&self, error: Option<Error>) {
        *lock(&self.fails) = error;
    }
}

/// A provider that calls `answer`.
fn provider<F>(name: &str, answer: impl Fn() -> F + Send + Sync + 'static) -> Arc<OptionsProvider>
where
    F: Future<Output = CrateResult<Provided>> + Send + 'static,
{
    Arc::new(OptionsProvider { name: name.to_owned(), provide: Box::new(move || Box::pin(answer())) })
}

async fn next_key(world: Arc<World>) -> CrateResult<Provided> {
    let key = world.asked.fetch_add(1, Ordering::SeqCst) + 1;
    world.gate.acquire().await.unwrap().forget();
    if let Some(error) = lock(&world.fails).clone() {
        return Err(error);
    }
    let options = HashMap::from([("key".to_owned(), key.to_string()), ("secret".to_owned(), "hidden-7".to_owned())]);
    Ok((options, lock(&world.life).map(|life| Utc::now() + life)))
}

/// A store that checks its key before each request.
#[derive(Debug)]
struct Checked {
    key: usize,
    world: Arc<World>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checked")
    }
}

impl Checked {
    fn check(&self) -> Result<&InMemory> {
        self.world.requests.fetch_add(1, Ordering::SeqCst);
        if self.key < self.world.valid.load(Ordering::SeqCst) {
            self.world.refusals.fetch_add(1, Ordering::SeqCst);
            let error = Error::new(ErrorKind::Authentication, "the store answered with HTTP status 403");
            return Err(StoreError::Generic { store: "checked", source: error.into() });
        }
        Ok(&self.world.objects)
    }
}

#[async_trait]
impl ObjectStore for Checked {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.check()?.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.check()?.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check()?.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.check() {
            Ok(store) => store.delete_stream(locations),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check() {
            Ok(store) => store.list(prefix),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check()?.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.check()?.copy_opts(from, to, options).await
    }
}

/// A clock that stands still until it is set.
#[derive(Clone, Default)]
struct ManualClock(Arc<Mutex<Duration>>);

impl ManualClock {
    fn set(&self, seconds: f64) {
        *lock(&self.0) = Duration::from_secs_f64(seconds);
    }
}

/// The new `store` with this clock.
fn by(clock: &ManualClock, store: RenewingStore) -> RenewingStore {
    let clock = clock.clone();
    let inner = Arc::into_inner(store.0).unwrap();
    RenewingStore(Arc::new(Inner { clock: Box::new(move || *lock(&clock.0)), ..inner }))
}

fn store(world: &Arc<World>) -> (RenewingStore, ManualClock) {
    let clock = ManualClock::default();
    let of = Arc::clone(world);
    let connect = move |options: HashMap<String, String>| {
        of.stores.fetch_add(1, Ordering::SeqCst);
        let key = options.get("key").ok_or_else(|| Error::invalid("there is no key"))?.parse().unwrap();
        Ok(Arc::new(Checked { key, world: Arc::clone(&of) }) as Arc<DynObjectStore>)
    };
    let of = Arc::clone(world);
    let keys = provider("keys", move || next_key(Arc::clone(&of)));
    (by(&clock, RenewingStore::new(keys, Box::new(connect))), clock)
}

fn told(error: &StoreError) -> Error {
    chain(error).find_map(|part| part.downcast_ref::<Error>()).unwrap().clone()
}

async fn put(store: &RenewingStore) -> Result<PutResult> {
    store.put(&Path::from("a"), "a".into()).await
}

fn minutes(count: i64) -> Option<TimeDelta> {
    Some(TimeDelta::minutes(count))
}

#[tokio::test]
async fn it_is_asked_ahead_of_the_expiry_and_makes_one_store_of_each_answer() {
    for (life, renewed) in [(60 * 60, 55 * 60), (600, 540), (20, 15), (8, 4)] {
        let world = World::new(Some(TimeDelta::seconds(life)));
        let (store, clock) = store(&world);
        assert_eq!(world.asked(), 0, "not before the first request");
        for _ in 0..3 {
            put(&store).await.unwrap();
        }
        clock.set(f64::from(renewed) - 0.5);
        put(&store).await.unwrap();
        assert_eq!(world.asked(), 1, "{life}");
        clock.set(f64::from(renewed) + 0.5);
        put(&store).await.unwrap();
        put(&store).await.unwrap();
        assert_eq!((world.asked(), world.stores.load(Ordering::SeqCst)), (2, 2), "{life}");
    }
}

#[tokio::test]
async fn without_an_expiry_it_is_asked_every_quarter_of_an_hour_and_never_runs_out() {
    let world = World::new(None);
    let (store, clock) = store(&world);
    put(&store).await.unwrap();
    clock.set(899.0);
    put(&store).await.unwrap();
    assert_eq!(world.asked(), 1);
    world.fails(Some(Error::new(ErrorKind::Authentication, "away")));
    clock.set(1e6);
    put(&store).await.unwrap();
    assert_eq!(world.asked(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_make_one_request_to_the_provider() {
    let world = World::new(minutes(60));
    let (store, clock) = store(&world);
    world.gate.forget_permits(1000);
    let call = || {
        let store = store.clone();
        tokio::spawn(async move { put(&store).await.map(drop) })
    };
    // Without an answer, all wait for the first one.
    let waiting: Vec<_> = (0..20).map(|_| call()).collect();
    world.gate.add_permits(1);
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    assert_eq!(world.asked(), 1);
    // While it is asked ahead of the expiry, the others go on.
    clock.set(56.0 * 60.0);
    let asking = call();
    while world.asked() == 1 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        call().await.unwrap().unwrap();
    }
    assert!(!asking.is_finished());
    world.gate.add_permits(1);
    asking.await.unwrap().unwrap();
    assert_eq!(world.asked(), 2);
    // After it, they wait again.
    clock.set(200.0 * 60.0);
    let waiting: Vec<_> = (0..20).map(|_| call()).collect();
    world.gate.add_permits(1);
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    assert_eq!((world.asked(), world.stores.load(Ordering::SeqCst)), (3, 3));
}

#[tokio::test]
async fn a_failure_counts_when_the_answer_has_run_out_and_not_before() {
    let world = World::new(minutes(60));
    let (store, clock) = store(&world);
    put(&store).await.unwrap();
    let away = Error::new(ErrorKind::Network, "no route").with_retryable(true);
    world.fails(Some(away));
    // Five minutes are left, so it is asked again after 30 seconds.
    for (at, asked) in [(55.5, 2), (55.8, 2), (56.1, 3), (59.9, 4), (59.91, 4)] {
        clock.set(at * 60.0);
        put(&store).await.unwrap();
        assert_eq!(world.asked(), asked, "{at}");
    }
    clock.set(3601.0);
    for _ in 0..5 {
        let error = told(&put(&store).await.unwrap_err());
        assert!(error.is_retryable() && error.kind() == ErrorKind::Network, "{error:?}");
        let text = error.full_message();
        assert!(text.contains("'keys'") && text.contains("no route"), "{text}");
    }
    assert_eq!(world.asked(), 5, "at most once a second");
    clock.set(3603.0);
    world.fails(Some(Error::invalid("never")));
    assert!(!told(&put(&store).await.unwrap_err()).is_retryable());
    clock.set(3605.0);
    world.fails(None);
    put(&store).await.unwrap();
    assert_eq!(world.asked(), 7);
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_is_a_failure_of_the_provider() {
    let world = World::new(Some(TimeDelta::seconds(-1)));
    let (store, clock) = store(&world);
    let error = told(&put(&store).await.unwrap_err());
    assert!(error.is_retryable() && error.full_message().contains("has expired already"), "{error:?}");
    clock.set(2.0);
    *lock(&world.life) = None;
    put(&store).await.unwrap();

    let empty = provider("empty", || async { Ok((HashMap::new(), None)) });
    let store = RenewingStore::new(empty, Box::new(|_| Err(Error::invalid("there is no key"))));
    let error = told(&put(&store).await.unwrap_err());
    assert!(!error.is_retryable() && error.full_message().contains("'empty'"), "{error:?}");
    assert!(error.full_message().contains("there is no key"), "{error:?}");
}

#[tokio::test]
async fn a_request_that_is_refused_early_is_sent_again_with_new_options() {
    let world = World::new(minutes(60));
    let (store, _) = store(&world);
    let (a, b) = (Path::from("a"), Path::from("b"));
    put(&store).await.unwrap();
    for key in 2..10 {
        world.refuses_below(key);
        match key {
            2 => drop(put(&store).await.unwrap()),
            3 => assert_eq!(store.get(&a).await.unwrap().bytes().await.unwrap(), "a"),
            4 => store.copy(&a, &b).await.unwrap(),
            5 => assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 2),
            6 => assert_eq!(store.list_with_delimiter(None).await.unwrap().objects.len(), 2),
            7 => store.delete(&b).await.unwrap(),
            8 => assert_eq!(store.list_with_offset(None, &a).try_collect::<Vec<_>>().await.unwrap().len(), 0),
            _ => drop(store.put_multipart(&b).await.unwrap()),
        }
        assert_eq!((world.asked(), world.refusals.load(Ordering::SeqCst)), (key, key - 1));
    }
}

#[tokio::test]
async fn a_store_that_refuses_new_options_too_is_believed_for_a_while() {
    let world = World::new(minutes(60));
    let (store, clock) = store(&world);
    world.refuses_below(1000);
    for _ in 0..5 {
        let error = told(&put(&store).await.unwrap_err());
        assert!(error.kind() == ErrorKind::Authentication && error.to_string().contains("403"), "{error:?}");
        assert!(error.to_string().contains("the provider 'keys' of storage_options gave these"), "{error}");
    }
    assert_eq!((world.asked(), world.requests.load(Ordering::SeqCst)), (2, 6));
    clock.set(31.0);
    world.refuses_below(3);
    put(&store).await.unwrap();
    assert_eq!(world.asked(), 3);
}

#[tokio::test]
async fn many_files_are_deleted_in_few_streams() {
    let world = World::new(minutes(60));
    let (store, _) = store(&world);
    let paths: Vec<Path> = (0..2500).map(|at| Path::from(at.to_string())).collect();
    for path in &paths {
        world.objects.put(path, "a".into()).await.unwrap();
    }
    let deleted = store.delete_stream(stream::iter(paths.clone()).map(Ok).boxed());
    assert_eq!(deleted.try_collect::<Vec<_>>().await.unwrap(), paths);
    assert_eq!(world.requests.load(Ordering::SeqCst), 3);
    assert!(world.objects.list(None).next().await.is_none());
}

#[tokio::test]
async fn nothing_that_is_shown_has_a_value() {
    let world = World::new(None);
    let (store, _) = store(&world);
    put(&store).await.unwrap();
    assert_eq!(format!("{store:?} {store}"), "RenewingStore(keys) RenewingStore(keys)");
}
