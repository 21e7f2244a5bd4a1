//! Checks whether the ledger's root exists and is writable, atomic and durable, and how long its requests take.
//!
//! The checks write only in a new directory below the root, and remove it. They only read the tables.

use std::collections::HashSet;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{DynObjectStore, Error as StoreError, ObjectStoreExt as _, PutMode};

use super::report::{Area, Check, Status};
use super::{filesystem, settings, tables};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::storage::{Storage, StorageOptions, StoreKind};

/// The time limit of the trials, and of the clean-up after them.
const TRIAL_LIMIT: Duration = Duration::from_secs(6);
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(2);

/// Tasks that create the same name at the same time, and how often they do. A store that checks first and then writes
/// almost certainly fails. A store that ignores the condition always fails, by the second creation of a name.
const CREATORS: usize = 16;
const LOCAL_ROUNDS: usize = 20;
const REMOTE_ROUNDS: usize = 3;

/// Requests of each kind from which the median is computed.
const SAMPLES: usize = 9;

/// A request to a store in the same region takes about 10 ms, and a commit takes several requests.
const SLOW: Duration = Duration::from_millis(150);

pub(super) async fn examine(root: Option<String>, options: StorageOptions) -> Vec<Check> {
    let Some(root) = root else {
        return vec![Area::LEDGER.note("root", "no ledger is configured").advise(
            "to use a ledger, give --ledger ROOT, set JOBROTA_LEDGER, or write ledger = \"…\" into jobrota.toml",
        )];
    };
    let opened = {
        let root = root.clone();
        // It resolves links, which can hang.
        runtime::blocking(move || open(&root, &options)).await
    };
    let (storage, second) = match opened {
        Ok(both) => both,
        Err(error) => return vec![Area::LEDGER.failed("root", error.full_message(), advice_for(&error)).needed()],
    };
    let local = (storage.kind() == StoreKind::Local).then(|| storage.root().to_file_path().ok()).flatten();
    let mut checks = vec![Area::LEDGER.ok("root", describe(&settings::shown(&root), &storage, local.as_deref()))];
    if let Some(directory) = local.clone() {
        let found = tokio::task::spawn_blocking(move || filesystem::examine(&directory)).await;
        checks.extend(found.ok().flatten());
    }
    if storage.kind() == StoreKind::Local && crate::settings::is_on_databricks() {
        let detail = "the root is on this cluster's local disk, and its rows are lost with the cluster";
        let advice = "give a root that lasts, such as abfss://container@account.dfs.core.windows.net/path";
        checks.push(Area::LEDGER.failed("lasting", detail, advice).needed());
    }
    let stores = [Arc::clone(storage.store()), Arc::clone(second.store())];
    checks.extend(run_trials(stores, &storage, local.clone()).await);
    checks.extend(tables::examine(&storage, &root, local).await);
    checks
}

/// Opens the root twice. The trials write through one store and read through the other, so that no cache answers.
fn open(root: &str, options: &StorageOptions) -> Result<(Storage, Storage)> {
    let storage = Storage::open(root, options.clone())?;
    if storage.kind() == StoreKind::Local {
        return Ok((storage, Storage::open(root, options.clone())?));
    }
    // Short limits, so that a server that does not answer is reported in time.
    let mut limited = options.clone();
    for (name, value) in [("max_retries", "1"), ("retry_timeout", "3s"), ("timeout", "3s"), ("connect_timeout", "2s")] {
        if !options.fixed.keys().any(|given| given.eq_ignore_ascii_case(name)) {
            limited.fixed.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok((Storage::open(root, limited.clone())?, Storage::open(root, limited)?))
}

fn describe(shown: &str, storage: &Storage, local: Option<&FilePath>) -> String {
    let what = match (storage.kind(), local) {
        (StoreKind::Local, None) => return shown.to_owned(),
        (StoreKind::Local, Some(directory)) => {
            let what =
                if directory.is_dir() { "a local directory" } else { "a local directory that does not exist yet" };
            let directory = directory.display().to_string();
            match directory.trim_end_matches('/') {
                same if same == shown.trim_end_matches('/') => what.to_owned(),
                directory => format!("{what}, {directory}"),
            }
        }
        (StoreKind::Azure, _) => "Azure storage".to_owned(),
        (StoreKind::S3, _) => "S3 or a server with the same protocol".to_owned(),
        (StoreKind::Google, _) => "Google Cloud Storage".to_owned(),
    };
    format!("{shown}: {what}")
}

/// What to do about a root that cannot be opened.
fn advice_for(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Unsupported => {
            "use abfss://container@account.dfs.core.windows.net/path, s3://, gs:// or a directory on a local disk: jobrota \
             refuses this root on every machine"
        }
        ErrorKind::Storage => "give this user permission to read it, or use another root",
        _ => "set another root (--ledger, JOBROTA_LEDGER, jobrota.toml) or correct the storage options",
    }
}

/// Runs the trials in a new directory, and removes it.
async fn run_trials(stores: [Arc<DynObjectStore>; 2], storage: &Storage, local: Option<PathBuf>) -> Vec<Check> {
    let name = format!("_jobrota_doctor_{}", uuid::Uuid::new_v4().simple());
    let prefix = Path::from_url_path(storage.root().path()).unwrap_or_default();
    let directory = Path::from_iter(prefix.parts().chain([name.as_str().into()]));
    // The directories down to the root that do not exist, the lowest first. The trials create them.
    let missing = local.iter().flat_map(|root| root.ancestors()).take_while(|directory| !directory.exists());
    let missing: Vec<PathBuf> = missing.map(FilePath::to_owned).collect();
    let mut checks = Vec::new();
    let rounds = if local.is_some() { LOCAL_ROUNDS } else { REMOTE_ROUNDS };
    let trials = async {
        let writable = writable(&stores, &directory).await;
        let is_writable = writable.status == Status::Ok;
        checks.push(writable);
        if !is_writable {
            return;
        }
        checks.push(atomic(&stores, &directory, rounds).await);
        checks.push(listing(&stores, &directory).await);
        if let Some(root) = &local {
            checks.push(durable(root.join(&name)).await);
        }
        checks.push(latency(&stores[0], &directory).await);
    };
    if tokio::time::timeout(TRIAL_LIMIT, trials).await.is_err() {
        let detail = format!("requests did not end within {} s", TRIAL_LIMIT.as_secs());
        let advice = "check whether the disk or the network hangs, then try again";
        checks.push(Area::LEDGER.failed("in time", detail, advice).needed());
    }
    let cleaning = clean_up(&stores[0], &directory, local.map(|root| root.join(&name)), missing);
    if !matches!(tokio::time::timeout(CLEAN_UP_LIMIT, cleaning).await, Ok(Ok(()))) {
        let advice = format!("remove {name} below the root; nothing needs it");
        checks.push(Area::LEDGER.warning("cleaned up", format!("{name} could not be removed"), &advice));
    }
    checks
}

/// Removes all files of the trials, and the empty directories of `missing`.
async fn clean_up(
    store: &Arc<DynObjectStore>,
    location: &Path,
    directory: Option<PathBuf>,
    missing: Vec<PathBuf>,
) -> object_store::Result<()> {
    let Some(directory) = directory else {
        let found: Vec<Path> = store.list(Some(location)).map_ok(|found| found.location).try_collect().await?;
        let removed = store.delete_stream(futures::stream::iter(found.into_iter().map(Ok)).boxed());
        return removed.map_ok(|_| ()).try_collect().await;
    };
    let removed = match tokio::fs::remove_dir_all(&directory).await {
        Err(error) if directory.exists() => Err(StoreError::Generic { store: "local", source: Box::new(error) }),
        _ => Ok(()),
    };
    for directory in missing {
        // Fails if another process uses the directory meanwhile.
        _ = tokio::fs::remove_dir(directory).await;
    }
    removed
}

async fn writable(stores: &[Arc<DynObjectStore>; 2], directory: &Path) -> Check {
    let path = directory.clone().join("writable");
    let trial = async {
        stores[0].put(&path, "jobrota".into()).await.map_err(|e| ("written", e))?;
        let read = stores[1].get(&path).await.map_err(|e| ("read back", e))?;
        let is_same = read.bytes().await.map_err(|e| ("read back", e))? == "jobrota";
        stores[1].delete(&path).await.map_err(|e| ("removed", e))?;
        Ok::<_, (&str, StoreError)>(is_same)
    };
    let check = match trial.await {
        Ok(true) => Area::LEDGER.ok("writable", "a small object was written, read back and removed"),
        Ok(false) => Area::LEDGER.failed("writable", "the object that was read differs", "do not keep a ledger there"),
        Err((what, error)) => {
            let detail = format!("a small object could not be {what}: {}", chain(error));
            let advice = "give this identity permission to write, read, list and delete there, or use another root";
            Area::LEDGER.failed("writable", detail, advice)
        }
    };
    check.needed()
}

/// The message of the error and of its sources, each once.
fn chain(error: StoreError) -> String {
    Error::new(ErrorKind::Storage, error.to_string()).with_source(error).full_message()
}

/// The result of one creation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Creation {
    Won,
    /// The name existed.
    Lost,
    Failed(String),
}

async fn create(store: &Arc<DynObjectStore>, path: &Path, content: String) -> Creation {
    match store.put_opts(path, content.into(), PutMode::Create.into()).await {
        Ok(_) => Creation::Won,
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Creation::Lost,
        Err(error) => Creation::Failed(chain(error)),
    }
}

/// Lets many tasks on several threads create one name at the same time, several times. A commit is such a creation: if two
/// of them win, rows are lost.
async fn atomic(stores: &[Arc<DynObjectStore>; 2], directory: &Path, rounds: usize) -> Check {
    for round in 0..rounds {
        let path = directory.clone().join(format!("race-{round}"));
        if let Some(check) = race(stores, &path).await {
            return check.needed();
        }
    }
    let detail = format!(
        "of {CREATORS} tasks that created one name at once, exactly one won, {rounds} times; none could overwrite it"
    );
    Area::LEDGER.ok("atomic", detail).needed()
}

/// Lets many tasks create `path`. A check if not exactly one wins, or if the name can be created again.
async fn race(stores: &[Arc<DynObjectStore>; 2], path: &Path) -> Option<Check> {
    let start = Arc::new(tokio::sync::Barrier::new(CREATORS));
    let creators = (0..CREATORS).map(|number| {
        let (store, path, start) = (Arc::clone(&stores[number % 2]), path.clone(), Arc::clone(&start));
        tokio::spawn(async move {
            start.wait().await;
            create(&store, &path, number.to_string()).await
        })
    });
    let joined = join_all(creators).await.into_iter();
    let results: Vec<Creation> =
        joined.map(|result| result.unwrap_or_else(|e| Creation::Failed(e.to_string()))).collect();
    let won = |(number, result): (usize, &Creation)| (*result == Creation::Won).then_some(number);
    let winners: Vec<usize> = results.iter().enumerate().filter_map(won).collect();
    let content = match stores[1].get(path).await {
        Ok(found) => found.bytes().await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => Err(error),
    };
    let owner = content.as_ref().ok().and_then(|content| content.parse::<usize>().ok());
    let not_atomic = |detail: String| {
        let advice = "do not keep a ledger there, rows would be lost: use a local disk, abfss://, s3:// or gs://";
        Some(Area::LEDGER.failed("atomic", detail, advice))
    };
    match (winners.as_slice(), owner) {
        ([_, _, ..], _) => {
            let count = winners.len();
            return not_atomic(format!(
                "{count} of {CREATORS} tasks that created one name at once were told that they won"
            ));
        }
        ([winner], Some(owner)) if *winner == owner => {}
        ([winner], Some(owner)) => {
            let detail = format!("creator {winner} was told that it won, but the object is that of creator {owner}");
            return not_atomic(detail);
        }
        // The response to the winner was lost, and its client retried.
        ([], Some(_)) if results.contains(&Creation::Lost) => {}
        _ => {
            let failed = |result: &Creation| if let Creation::Failed(why) = result { Some(why.clone()) } else { None };
            let why = results.iter().find_map(failed).or_else(|| content.err().map(chain));
            let why = why.unwrap_or_else(|| "no task won, and the object does not exist".to_owned());
            let advice = "the store has to support conditional writes (If-None-Match: *): use one that does";
            let detail = format!("a name could not be created with the condition that it is new: {why}");
            return Some(Area::LEDGER.failed("atomic", detail, advice));
        }
    }
    match create(&stores[0], path, "again".to_owned()).await {
        Creation::Lost => None,
        Creation::Won => not_atomic("an object that exists was created again, and overwritten".to_owned()),
        Creation::Failed(why) => {
            let detail = format!("it is unknown whether an object that exists can be created again: {why}");
            let advice = "try again; a store that does not report that an object exists cannot hold a ledger";
            Some(Area::LEDGER.warning("atomic", detail, advice))
        }
    }
}

/// Lists objects directly after they are written, and after they are removed.
async fn listing(stores: &[Arc<DynObjectStore>; 2], directory: &Path) -> Check {
    const OBJECTS: usize = 5;
    let below = directory.clone().join("list");
    let paths: HashSet<Path> = (0..OBJECTS).map(|number| below.clone().join(format!("{number}"))).collect();
    let trial = async {
        let list = async || -> object_store::Result<HashSet<Path>> {
            stores[1].list(Some(&below)).map_ok(|found| found.location).try_collect().await
        };
        for path in &paths {
            stores[0].put(path, "x".into()).await?;
        }
        let full = list().await?;
        for path in &paths {
            stores[0].delete(path).await?;
        }
        Ok::<_, StoreError>((full, list().await?))
    };
    let check = match trial.await {
        Ok((full, empty)) if full == paths && empty.is_empty() => {
            Area::LEDGER.ok("listing", "written objects are listed at once, and removed ones are not")
        }
        Ok((full, empty)) => {
            let (full, empty) = (full.len(), empty.len());
            let detail = format!("of {OBJECTS} objects just written {full} were listed, and of those removed {empty}");
            let advice = "do not keep a ledger there: rows of a commit that is not listed would be missed";
            Area::LEDGER.failed("listing", detail, advice)
        }
        Err(error) => {
            let detail = format!("listing failed: {}", chain(error));
            Area::LEDGER.failed("listing", detail, "give this identity permission to list there")
        }
    };
    check.needed()
}

/// Checks fsync(2) of a file and its directory, which `durability="fsync"` needs.
async fn durable(directory: PathBuf) -> Check {
    let synced = tokio::task::spawn_blocking(move || -> std::io::Result<Duration> {
        std::fs::create_dir_all(&directory)?;
        let path = directory.join("synced");
        let started = Instant::now();
        let mut file = std::fs::File::create(&path)?;
        std::io::Write::write_all(&mut file, b"jobrota")?;
        file.sync_all()?;
        std::fs::File::open(&directory)?.sync_all()?;
        let elapsed = started.elapsed();
        std::fs::remove_file(path)?;
        Ok(elapsed)
    });
    match synced.await.map_err(std::io::Error::other).and_then(|synced| synced) {
        Ok(elapsed) => {
            Area::LEDGER.ok("durable", format!("fsync of a file and its directory works ({:.1} ms)", ms(elapsed)))
        }
        Err(error) => {
            let advice = "durability=\"fsync\" cannot be used there, and a power cut can remove rows: use another disk";
            Area::LEDGER.warning("durable", format!("fsync failed: {error}"), advice)
        }
    }
}

async fn latency(store: &Arc<DynObjectStore>, directory: &Path) -> Check {
    let path = directory.clone().join("latency");
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    let trial = async {
        for _ in 0..SAMPLES {
            let started = Instant::now();
            store.put(&path, vec![b'x'; 1024].into()).await?;
            puts.push(started.elapsed());
            let started = Instant::now();
            store.get(&path).await?.bytes().await?;
            gets.push(started.elapsed());
        }
        store.delete(&path).await
    };
    if let Err(error) = trial.await {
        let detail = format!("requests failed: {}", chain(error));
        return Area::LEDGER.warning("latency", detail, "try again; check the state of the store");
    }
    let (put, get) = (median(&mut puts), median(&mut gets));
    let detail = format!("p50 of {SAMPLES}: put {:.1} ms, get {:.1} ms (1 KiB)", ms(put), ms(get));
    if put.max(get) > SLOW {
        let advice = "use a store in the same region: each commit takes several requests";
        return Area::LEDGER.warning("latency", detail, advice);
    }
    Area::LEDGER.ok("latency", detail)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
