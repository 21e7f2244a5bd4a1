//! Whether the ledger's root is there, writable, atomic and durable, and how long its requests take.
//!
//! All of it happens in a directory of its own below the root, which is gone afterwards; tables are only read.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{DynObjectStore, Error as StoreError, ObjectStoreExt as _, PutMode};

use super::report::{Area, Check, note, ok};
use super::{filesystem, settings, tables};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::storage::{Storage, StoreKind};

/// How long the tries may take. Cleaning up after them comes on top.
const TRIES: Duration = Duration::from_secs(6);
const CLEANING: Duration = Duration::from_secs(2);

/// Creators of one name at a time, and how often they meet. A store that decides by looking first is caught with near
/// certainty; one that ignores the condition always is, by the second put of the same name.
const CREATORS: usize = 16;
const LOCAL_ROUNDS: usize = 20;
const REMOTE_ROUNDS: usize = 3;

/// Requests of each kind of which the median is told.
const SAMPLES: usize = 9;

/// A request to a store in the same region takes some 10 ms; a commit takes a handful of them.
const SLOW: Duration = Duration::from_millis(150);

pub(super) async fn examine(root: Option<String>, options: HashMap<String, String>) -> Vec<Check> {
    let Some(root) = root else {
        return vec![note(Area::Ledger, "root", "no ledger is configured").hint(
            "use --ledger ROOT, or set JOBROTA_LEDGER, or write ledger = \"…\" into jobrota.toml, where one is wanted",
        )];
    };
    let shown = settings::shown(&root);
    let opened = {
        let root = root.clone();
        // It resolves links, which can hang like any look at a file system.
        runtime::blocking(move || open(&root, &options)).await
    };
    let (storage, again) = match opened {
        Ok(both) => both,
        Err(error) => {
            return vec![ok(Area::Ledger, "root", "").failed(error.full_message(), refused(&error)).needed()];
        }
    };
    let local = (storage.kind() == StoreKind::Local).then(|| storage.root().to_file_path().ok()).flatten();
    let mut checks = vec![ok(Area::Ledger, "root", described(&shown, &storage, local.as_deref()))];
    if let Some(directory) = local.clone() {
        let looked = tokio::task::spawn_blocking(move || filesystem::examine(&directory)).await;
        checks.extend(looked.ok().flatten());
    }
    let stores = [Arc::clone(storage.store()), Arc::clone(again.store())];
    let written = try_out(stores, &storage, local).await;
    checks.extend(written);
    checks.extend(tables::examine(&storage, &root).await);
    checks
}

/// The root, twice: what was written through one is read through the other, so that nothing is answered from memory.
fn open(root: &str, options: &HashMap<String, String>) -> Result<(Storage, Storage)> {
    let storage = Storage::open(root, options)?;
    if storage.kind() == StoreKind::Local {
        return Ok((storage, Storage::open(root, options)?));
    }
    // A server that is not there shall be told of, and not be waited for.
    let mut impatient = options.clone();
    for (name, value) in [("max_retries", "1"), ("retry_timeout", "3s"), ("timeout", "3s"), ("connect_timeout", "2s")] {
        if !options.keys().any(|given| given.eq_ignore_ascii_case(name)) {
            impatient.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok((Storage::open(root, &impatient)?, Storage::open(root, &impatient)?))
}

fn described(shown: &str, storage: &Storage, local: Option<&std::path::Path>) -> String {
    match (storage.kind(), local) {
        (StoreKind::Local, Some(directory)) => {
            let there =
                if directory.is_dir() { "a local directory" } else { "a local directory that does not exist yet" };
            let directory = directory.display().to_string();
            let directory = directory.trim_end_matches('/');
            if directory == shown.trim_end_matches('/') {
                format!("{shown}: {there}")
            } else {
                format!("{shown}: {there}, {directory}")
            }
        }
        (StoreKind::Azure, _) => format!("{shown}: Azure storage"),
        (StoreKind::S3, _) => format!("{shown}: S3 or what speaks its protocol"),
        (StoreKind::Google, _) => format!("{shown}: Google Cloud Storage"),
        (StoreKind::Local, None) => shown.to_owned(),
    }
}

/// What to do about a root that cannot be opened.
fn refused(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Unsupported => {
            "use abfss://container@account.dfs.core.windows.net/path, s3://, gs:// or a directory on a local disk: jobrota \
             refuses this root everywhere"
        }
        ErrorKind::Storage => "give this user permission to look there, or use another root",
        _ => "set another root (--ledger, JOBROTA_LEDGER, jobrota.toml) or mend the storage options",
    }
}

/// Writes, races, lists and removes in a directory of its own.
async fn try_out(stores: [Arc<DynObjectStore>; 2], storage: &Storage, local: Option<PathBuf>) -> Vec<Check> {
    let name = format!("_jobrota_doctor_{}", uuid::Uuid::new_v4().simple());
    let prefix = Path::from_url_path(storage.root().path()).unwrap_or_default();
    let place = Path::from_iter(prefix.parts().chain([name.as_str().into()]));
    let missing = local.as_deref().map(missing_directories).unwrap_or_default();
    let mut checks = Vec::new();
    let rounds = if local.is_some() { LOCAL_ROUNDS } else { REMOTE_ROUNDS };
    let tries = async {
        let writable = writable(&stores, &place).await;
        let works = writable.status == super::Status::Ok;
        checks.push(writable);
        if !works {
            return;
        }
        checks.push(atomic(&stores, &place, rounds).await);
        checks.push(visible(&stores, &place).await);
        if let Some(root) = &local {
            checks.push(durable(root.join(&name)).await);
        }
        checks.push(latency(&stores[0], &place).await);
    };
    if tokio::time::timeout(TRIES, tries).await.is_err() {
        checks.push(
            ok(Area::Ledger, "in time", "")
                .failed(
                    format!("requests did not end within {} s", TRIES.as_secs()),
                    "look whether the disk or the way to the store hangs, then try again",
                )
                .needed(),
        );
    }
    let cleaned =
        tokio::time::timeout(CLEANING, clean(&stores[0], &place, local.map(|root| root.join(&name)), missing));
    if !matches!(cleaned.await, Ok(Ok(()))) {
        checks.push(ok(Area::Ledger, "cleaned up", "").warning(
            format!("{name} could not be removed"),
            format!("remove {name} below the root; nothing needs it"),
        ));
    }
    checks
}

/// The directories down to `root` that do not exist, the lowest first: they are created by writing, and to be removed.
fn missing_directories(root: &std::path::Path) -> Vec<PathBuf> {
    root.ancestors().take_while(|directory| !directory.exists()).map(std::path::Path::to_owned).collect()
}

/// Removes all that was written; of `missing` what is empty.
async fn clean(
    store: &Arc<DynObjectStore>,
    place: &Path,
    directory: Option<PathBuf>,
    missing: Vec<PathBuf>,
) -> object_store::Result<()> {
    let Some(directory) = directory else {
        let found: Vec<Path> = store.list(Some(place)).map_ok(|found| found.location).try_collect().await?;
        let removed = store.delete_stream(futures::stream::iter(found.into_iter().map(Ok)).boxed());
        return removed.map_ok(|_| ()).try_collect().await;
    };
    let removed = match tokio::fs::remove_dir_all(&directory).await {
        Err(error) if directory.exists() => Err(StoreError::Generic { store: "local", source: Box::new(error) }),
        _ => Ok(()),
    };
    for directory in missing {
        // One that is not empty is in use by another process meanwhile.
        _ = tokio::fs::remove_dir(directory).await;
    }
    removed
}

async fn writable(stores: &[Arc<DynObjectStore>; 2], place: &Path) -> Check {
    let check = ok(Area::Ledger, "writable", "a small object was written, read back and removed");
    let path = place.clone().join("writable");
    let tried = async {
        stores[0].put(&path, "jobrota".into()).await.map_err(|e| ("written", e))?;
        let read = stores[1].get(&path).await.map_err(|e| ("read back", e))?;
        let same = read.bytes().await.map_err(|e| ("read back", e))? == "jobrota";
        stores[1].delete(&path).await.map_err(|e| ("removed", e))?;
        Ok::<_, (&str, StoreError)>(same)
    };
    let mend = "give this identity permission to write, read, list and delete there, or use another root";
    match tried.await {
        Ok(true) => check.needed(),
        Ok(false) => check.failed("what was written came back changed", "do not keep a ledger there").needed(),
        Err((what, error)) => {
            check.failed(format!("a small object could not be {what}: {}", chain(&error)), mend).needed()
        }
    }
}

/// The message with those of the causes behind it, each once.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

/// How one creator of a name ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    Won,
    /// Somebody else was first.
    Lost,
    Broken(String),
}

async fn create(store: &Arc<DynObjectStore>, path: &Path, content: String) -> Ended {
    match store.put_opts(path, content.into(), PutMode::Create.into()).await {
        Ok(_) => Ended::Won,
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ended::Lost,
        Err(error) => Ended::Broken(chain(&error)),
    }
}

/// Lets many tasks on several threads create one name at the same moment, several times. A commit is such a creation: if
/// two of them win, rows are lost.
async fn atomic(stores: &[Arc<DynObjectStore>; 2], place: &Path, rounds: usize) -> Check {
    let check = ok(
        Area::Ledger,
        "atomic",
        format!("of {CREATORS} who created one name at once, exactly one won, {rounds} times; none could overwrite it"),
    )
    .needed();
    let lost = "do not keep a ledger there, rows would be lost: use a local disk, abfss://, s3:// or gs://";
    for round in 0..rounds {
        let path = place.clone().join(format!("race-{round}"));
        let start = Arc::new(tokio::sync::Barrier::new(CREATORS));
        let creators = (0..CREATORS).map(|number| {
            let (store, path, start) = (Arc::clone(&stores[number % 2]), path.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                create(&store, &path, number.to_string()).await
            })
        });
        let ended: Vec<Ended> = join_all(creators)
            .await
            .into_iter()
            .map(|ended| ended.unwrap_or_else(|e| Ended::Broken(e.to_string())))
            .collect();
        let winners: Vec<usize> =
            ended.iter().enumerate().filter(|(_, ended)| **ended == Ended::Won).map(|(number, _)| number).collect();
        if winners.len() > 1 {
            let detail =
                format!("{} of {CREATORS} who created one name at once were told that they won", winners.len());
            return check.failed(detail, lost);
        }
        let content = match stores[1].get(&path).await {
            Ok(found) => found.bytes().await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => Err(error),
        };
        let holds = content.as_ref().ok().and_then(|content| content.parse::<usize>().ok());
        match (winners.first(), holds) {
            (Some(winner), Some(holds)) if *winner == holds => {}
            (Some(winner), Some(holds)) => {
                return check.failed(
                    format!("creator {winner} was told that it won, but the object is that of creator {holds}"),
                    lost,
                );
            }
            // The winner's answer was lost on the way, and its client asked again.
            (None, Some(_)) if ended.contains(&Ended::Lost) => {}
            _ => {
                let broken = ended.iter().find_map(|ended| match ended {
                    Ended::Broken(why) => Some(why.clone()),
                    _ => None,
                });
                let why = broken.or_else(|| content.err().map(|e| chain(&e)));
                let why = why.unwrap_or_else(|| "nobody won, and nothing is there".to_owned());
                return check.failed(
                    format!("a name could not be created with the condition that it is new: {why}"),
                    "the store has to support conditional writes (If-None-Match: *): use one that does",
                );
            }
        }
        match create(&stores[0], &path, "again".to_owned()).await {
            Ended::Lost => {}
            Ended::Won => return check.failed("an object that exists was created again, and overwritten", lost),
            Ended::Broken(why) => {
                return check.warning(
                    format!("whether an object that exists can be created again is unknown: {why}"),
                    "try again; a store that does not say \"exists already\" cannot hold a ledger",
                );
            }
        }
    }
    check
}

/// Lists at once what was just written, and no longer what was just removed.
async fn visible(stores: &[Arc<DynObjectStore>; 2], place: &Path) -> Check {
    const OBJECTS: usize = 5;
    let check = ok(Area::Ledger, "listing", "what is written is listed at once, and what is removed is not").needed();
    let below = place.clone().join("list");
    let paths: HashSet<Path> = (0..OBJECTS).map(|number| below.clone().join(format!("{number}"))).collect();
    let tried = async {
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
    let late = "do not keep a ledger there: a commit that is not listed is not seen, and rows would be missed";
    match tried.await {
        Ok((full, empty)) if full == paths && empty.is_empty() => check,
        Ok((full, empty)) => check.failed(
            format!(
                "of {OBJECTS} objects just written {} were listed, and of those removed {}",
                full.len(),
                empty.len()
            ),
            late,
        ),
        Err(error) => {
            check.failed(format!("listing failed: {}", chain(&error)), "give this identity permission to list there")
        }
    }
}

/// Whether fsync(2) works on a file and its directory, as `durability="fsync"` needs it.
async fn durable(directory: PathBuf) -> Check {
    let check = ok(Area::Ledger, "durable", "");
    let synced = tokio::task::spawn_blocking(move || -> std::io::Result<Duration> {
        std::fs::create_dir_all(&directory)?;
        let path = directory.join("synced");
        let begun = Instant::now();
        let mut file = std::fs::File::create(&path)?;
        std::io::Write::write_all(&mut file, b"jobrota")?;
        file.sync_all()?;
        std::fs::File::open(&directory)?.sync_all()?;
        let took = begun.elapsed();
        std::fs::remove_file(path)?;
        Ok(took)
    });
    match synced.await.map_err(std::io::Error::other).and_then(|synced| synced) {
        Ok(took) => {
            let ms = took.as_secs_f64() * 1000.0;
            Check { detail: format!("fsync of a file and its directory works ({ms:.1} ms)"), ..check }
        }
        Err(error) => check.warning(
            format!("fsync failed: {error}"),
            "durability=\"fsync\" cannot be used there, and a power cut may take rows: use another disk",
        ),
    }
}

async fn latency(store: &Arc<DynObjectStore>, place: &Path) -> Check {
    let check = ok(Area::Ledger, "latency", "");
    let path = place.clone().join("latency");
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    let tried = async {
        for _ in 0..SAMPLES {
            let begun = Instant::now();
            store.put(&path, vec![b'x'; 1024].into()).await?;
            puts.push(begun.elapsed());
            let begun = Instant::now();
            store.get(&path).await?.bytes().await?;
            gets.push(begun.elapsed());
        }
        store.delete(&path).await
    };
    if let Err(error) = tried.await {
        return check
            .warning(format!("requests failed: {}", chain(&error)), "try again; see whether the store is well");
    }
    let (put, get) = (median(&mut puts), median(&mut gets));
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let detail = format!("p50 of {SAMPLES}: put {:.1} ms, get {:.1} ms (1 KiB)", ms(put), ms(get));
    if put.max(get) > SLOW {
        return check.warning(detail, "use a store in the same region: each commit takes several requests");
    }
    Check { detail, ..check }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
