//! What the handles on one table share: the newest snapshot known, the lock, the caches and the queue of appends.

pub(super) mod append_queue;
mod identity;
mod listing;
mod lock;
mod row_cache;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use delta_kernel::committer::Committer;
use delta_kernel::schema::SchemaRef as KernelSchemaRef;
use delta_kernel::transaction::{Transaction, WriteState};
use delta_kernel::{Snapshot, SnapshotRef};
use url::Url;

use self::append_queue::AppendQueue;
pub(super) use self::identity::{EntryIdentity, Predecessor};
pub(super) use self::listing::{FileBatch, Listing, select};
use self::lock::AdvisoryLock;
pub(super) use self::row_cache::RowCache;
use super::errors::{from_kernel, is_transient};
use super::log::{LogEntry, log_reader};
use super::schema;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{self, environment};
use crate::storage::Storage;
use crate::storage::file_names::LOG_DIRECTORY;

/// Creates log entries. A catalog has its own for the tables that it manages.
pub(super) type SharedCommitter = Arc<dyn Committer + Send + Sync>;

/// How long a commit is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimits {
    /// While the store answers with errors.
    pub(super) on_errors: Duration,
    /// While other writers win; `None`: without a limit.
    pub(super) on_races: Option<Duration>,
}

/// What the handles on one table share.
pub(super) struct TableState {
    pub(super) storage: Storage,
    pub(super) url: Url,
    pub(super) committer: SharedCommitter,
    pub(super) limits: TimeLimits,
    pub(super) lock: AdvisoryLock,
    pub(super) appends: AppendQueue,
    pub(super) checkpoints: Mutex<CheckpointQueue>,
    pub(super) row_cache: RowCache,
    /// The files that the last scan of the newest version listed.
    pub(super) listing: Mutex<Option<Arc<Listing>>>,
    /// How many fragments it found.
    pub(super) fragments: AtomicU64,
    snapshot: RwLock<SnapshotRef>,
    schema: Mutex<Option<(KernelSchemaRef, SchemaRef)>>,
    write_layout: Mutex<Option<WriteLayout>>,
    log_access: Mutex<LogAccess>,
    /// The log's directory, if it is on a local disk.
    log_directory: Option<PathBuf>,
    /// The newest log entry that this process has seen or written, and its version.
    newest_entry: Mutex<Option<(u64, EntryIdentity)>>,
    /// How often another table was found in the place of this one.
    incarnation: AtomicU64,
    /// Whether there was no table at the last look.
    gone: AtomicBool,
}

/// The checkpoint to write next, and whether a thread is writing checkpoints.
#[derive(Default)]
pub(super) struct CheckpointQueue {
    pub(super) next: Option<SnapshotRef>,
    pub(super) busy: bool,
}

/// How data files of a table are written.
#[derive(Clone)]
pub(super) struct WriteLayout {
    /// The columns. Snapshots share them until a commit changes the table's columns, properties or protocol.
    of: KernelSchemaRef,
    pub(super) state: Arc<WriteState>,
    pub(super) partitions: Arc<[String]>,
}

/// A moment by both clocks: the first stands still while a machine sleeps, the second can be set.
pub(super) type BothClocks = (Instant, DateTime<Utc>);

pub(super) fn now() -> BothClocks {
    (environment().instant(), environment().utc())
}

pub(super) fn elapsed((instant, time): BothClocks) -> Duration {
    (environment().instant() - instant).max((environment().utc() - time).to_std().unwrap_or_default())
}

#[derive(Clone, Copy)]
struct LogAccess {
    /// When this process last read the log or committed to it.
    at: BothClocks,
    /// Until then, other processes are assumed to commit all the time.
    contended_until: Option<Instant>,
    /// The newest version when this process last looked for new checkpoints, and when that was.
    looked_for_checkpoints: (u64, BothClocks),
}

/// A snapshot that was confirmed longer ago than this is refreshed before a commit: if the log entry that follows it were
/// cleaned away, a commit in the place of that entry would be lost.
const FRESH: Duration = Duration::from_secs(120);

/// How long after a lost race the log is read before each commit. A lost attempt costs more than reading the log.
const CONTENTION: Duration = Duration::from_secs(1);

/// A blind commit looks for new checkpoints after so many commits or so much time. To look for them means to list all log
/// entries since the checkpoint known, and not only the new ones.
const CHECKPOINTS_EVERY: u64 = 32;
const CHECKPOINTS_AFTER: Duration = Duration::from_secs(10);

/// How often an operation starts again because files vanished while it read them.
pub(super) const MAX_VANISHED: u32 = 8;

impl TableState {
    pub(super) fn new(
        storage: &Storage,
        url: Url,
        committer: SharedCommitter,
        limits: TimeLimits,
        snapshot: SnapshotRef,
    ) -> Self {
        let log = url.join(LOG_DIRECTORY).ok().filter(|log| log.scheme() == "file");
        let log_directory = log.and_then(|log| log.to_file_path().ok());
        Self {
            storage: storage.clone(),
            committer,
            limits,
            lock: AdvisoryLock::new(log_directory.clone()),
            appends: AppendQueue::default(),
            checkpoints: Mutex::default(),
            row_cache: RowCache::of_small_files(),
            listing: Mutex::default(),
            fragments: AtomicU64::default(),
            schema: Mutex::default(),
            write_layout: Mutex::default(),
            log_access: Mutex::new(LogAccess {
                at: now(),
                contended_until: None,
                looked_for_checkpoints: (snapshot.version(), now()),
            }),
            log_directory,
            newest_entry: Mutex::default(),
            incarnation: AtomicU64::default(),
            gone: AtomicBool::default(),
            snapshot: RwLock::new(snapshot),
            url,
        }
    }

    /// The newest snapshot that this process has seen.
    pub(super) fn known(&self) -> SnapshotRef {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The snapshot that a blind commit builds on: the one known, if that `may_be_known` and the log need not be read first.
    pub(super) fn snapshot_for_blind_commit(&self, may_be_known: bool) -> Result<SnapshotRef> {
        let (known, access) = (self.known(), *runtime::lock(&self.log_access));
        let contended = access.contended_until.is_some_and(|until| environment().instant() < until);
        if may_be_known && !contended && elapsed(access.at) < FRESH {
            return Ok(known);
        }
        let (version, at) = access.looked_for_checkpoints;
        let looks = known.version() >= version + CHECKPOINTS_EVERY || elapsed(at) >= CHECKPOINTS_AFTER;
        self.build(&known, looks)
    }

    /// Records that another writer won a race.
    pub(super) fn note_contention(&self) {
        runtime::lock(&self.log_access).contended_until = Some(environment().instant() + CONTENTION);
    }

    /// How long ago this process last read the log or committed to it.
    pub(super) fn since_log_access(&self) -> Duration {
        elapsed(runtime::lock(&self.log_access).at)
    }

    /// Pretends that this process last read the log this long ago.
    #[cfg(test)]
    pub(super) fn set_since_log_access(&self, since: Duration) {
        runtime::lock(&self.log_access).at.1 = environment().utc() - since;
    }

    /// Reads the newest snapshot from the store.
    pub(super) fn refresh(&self) -> Result<SnapshotRef> {
        self.build(&self.known(), true)
    }

    /// Builds the newest snapshot on the one `known`, and `looks` for new checkpoints. If the log is another one, as the table was
    /// replaced, reads it anew.
    fn build(&self, known: &SnapshotRef, looks: bool) -> Result<SnapshotRef> {
        let reader = log_reader(self.storage.engine()?, Some(known.version()));
        let builder = Snapshot::builder_from(Arc::clone(known));
        let built = if looks { builder.build(&reader) } else { builder.skip_new_checkpoints().build(&reader) };
        let snapshot = match built {
            // The snapshot known may rest on log entries that were cleaned away: then the newest checkpoint is read.
            Err(error) if !is_transient(&error) => match Snapshot::builder_for(self.url.as_str()).build(&reader) {
                Ok(snapshot) if snapshot.version() >= known.version() => snapshot,
                _ => return self.reopen(),
            },
            built => {
                let built = built.map_err(|e| from_kernel(format!("reading the log of '{}'", self.url), e))?;
                let follows = match reader.watched() {
                    Some(listed) => self.is_same_entry(known.version(), &listed)?,
                    // Clean-up deletes an entry only after there is a later checkpoint, which the kernel has read then. Of a
                    // table that was opened at a checkpoint without the entry, nothing is known.
                    None => built.version() > known.version() || self.known_entry(known.version()).is_none(),
                };
                if !follows {
                    return self.reopen();
                }
                built
            }
        };
        self.note_listed(reader.newest_entry().filter(|(version, _)| *version == snapshot.version()))?;
        if looks {
            runtime::lock(&self.log_access).looked_for_checkpoints = (snapshot.version(), now());
        }
        self.remember(&snapshot);
        Ok(snapshot)
    }

    /// Whether `error` may come from files of `snapshot` that were removed and vacuumed since, so that the operation can
    /// succeed on a newer snapshot.
    pub(super) fn is_outdated(&self, snapshot: &SnapshotRef, error: &Error) -> bool {
        error.kind() == ErrorKind::Storage
            && !error.is_retryable()
            && self.refresh().is_ok_and(|newest| newest.version() > snapshot.version())
    }

    /// Calls `read` with the newest snapshot, and again with a newer one if files of that snapshot were removed meanwhile.
    pub(super) fn read_newest<T>(&self, mut read: impl FnMut(&SnapshotRef) -> Result<T>) -> Result<T> {
        let mut vanished = 0;
        loop {
            let snapshot = self.refresh()?;
            match read(&snapshot) {
                Err(error) if vanished < MAX_VANISHED && self.is_outdated(&snapshot, &error) => vanished += 1,
                ended => return ended,
            }
        }
    }

    /// The table's Arrow schema at `snapshot`. As long as the columns stay the same, all calls return the same schema.
    pub(super) fn schema(&self, snapshot: &SnapshotRef) -> Result<SchemaRef> {
        let columns = snapshot.schema();
        let mut known = runtime::lock(&self.schema);
        match &*known {
            Some((of, schema)) if *of == columns => Ok(SchemaRef::clone(schema)),
            _ => {
                let schema = schema::of(snapshot)?;
                *known = Some((columns, SchemaRef::clone(&schema)));
                Ok(schema)
            }
        }
    }

    /// How data files are written at `snapshot`. `transaction` makes a transaction on it, if this is not known.
    pub(super) fn write_layout(
        &self,
        snapshot: &SnapshotRef,
        transaction: impl FnOnce() -> Result<Transaction>,
    ) -> Result<WriteLayout> {
        let of = snapshot.schema();
        if let Some(known) = runtime::lock(&self.write_layout).as_ref().filter(|known| Arc::ptr_eq(&known.of, &of)) {
            return Ok(known.clone());
        }
        let transaction = transaction()?;
        let state = transaction.write_state();
        let state = state.map_err(|e| from_kernel(format!("preparing to write rows to '{}'", self.url), e))?;
        let partitions = transaction.logical_partition_columns().into();
        let layout = WriteLayout { of, state, partitions };
        *runtime::lock(&self.write_layout) = Some(layout.clone());
        Ok(layout)
    }

    /// Keeps `snapshot` for later calls, unless a newer one is known.
    pub(super) fn remember(&self, snapshot: &SnapshotRef) {
        let mut known = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        if snapshot.version() > known.version() {
            *known = Arc::clone(snapshot);
        }
        drop(known);
        runtime::lock(&self.log_access).at = now();
    }

    /// Keeps `snapshot` for later calls, whatever was known.
    fn start_again(&self, snapshot: &SnapshotRef) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(snapshot);
        let mut access = runtime::lock(&self.log_access);
        (access.at, access.looked_for_checkpoints) = (now(), (snapshot.version(), now()));
    }

    /// Replaces a known snapshot of the same or an older version by `snapshot`.
    pub(super) fn replace(&self, snapshot: &SnapshotRef) {
        let mut known = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        if snapshot.version() >= known.version() {
            *known = Arc::clone(snapshot);
        }
    }

    /// The log entry of `version`, or `None` if it was not written yet or was cleaned away.
    ///
    /// # Errors
    /// Those of the store; [`ErrorKind::Unsupported`] as in [`super::log::refuse_spark_on_s3`].
    pub(super) fn log_entry(&self, version: u64) -> Result<Option<LogEntry>> {
        LogEntry::read(&self.storage, &self.url, version)
    }

    /// The log entries of `versions`. `None` if one is not `wanted`, or is not in the log.
    pub(super) fn log_entries(
        &self,
        versions: impl Iterator<Item = u64>,
        wanted: impl Fn(&LogEntry) -> bool,
    ) -> Result<Option<Vec<LogEntry>>> {
        versions.map(|version| Ok(self.log_entry(version)?.filter(&wanted))).collect()
    }

    /// The files that the commits after `version` up to `newest` removed, as the log spells them. `None` if one of these
    /// commits redefines the table or cannot be read.
    pub(super) fn removed_since(&self, version: u64, newest: u64) -> Result<Option<HashSet<String>>> {
        let entries = self.log_entries(version + 1..=newest, |entry| !entry.redefines)?;
        Ok(entries.map(|entries| entries.into_iter().flat_map(|entry| entry.removed).collect()))
    }
}
