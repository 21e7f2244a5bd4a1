//! What the handles on one table share: the snapshot known and when it was last looked at, whose turn it is to commit,
//! and the rows that wait.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use delta_kernel::transaction::UpdateTableOperation;
use delta_kernel::{Snapshot, SnapshotRef};
use url::Url;

use super::checkpoint::Due;
use super::commit::{self, Attempt, Kind, Limits, Plan, Queue, SharedCommitter};
use super::failure::{from_kernel, may_pass};
use super::group_commit::Group;
use super::legacy_protocol::LogReader;
use super::maintenance::Health;
use super::read_files::ReadFiles;
use super::stage::{Part, Staged};
use super::table::{Predicate, nothing_written};
use super::turn::Turns;
use super::{scan, schema};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// What the handles on one table share.
pub(super) struct Inner {
    pub(super) storage: Storage,
    pub(super) url: Url,
    pub(super) committer: SharedCommitter,
    pub(super) turns: Turns,
    pub(super) group: Group,
    pub(super) limits: Limits,
    pub(super) due: Mutex<Due>,
    pub(super) health: Health,
    pub(super) read_files: ReadFiles,
    snapshot: RwLock<SnapshotRef>,
    contact: Mutex<Contact>,
}

/// When this handle last looked at the log, or committed to it.
struct Contact {
    /// By both clocks: the first one stands still while a machine sleeps, the second one can be set.
    at: (Instant, SystemTime),
    /// Other processes commit at this time: what is known is out of date at once.
    contended_until: Option<Instant>,
}

/// What is known for longer than this is looked at again before anything is committed on it: its successor's log entry
/// could have been cleaned away, and a commit in its place would be lost.
const RECENT: Duration = Duration::from_secs(120);

/// After a lost race, so long the log is looked at before each commit: a lost attempt costs more than a look.
const CONTENTION: Duration = Duration::from_secs(1);

impl Inner {
    /// The table at `url`, of which `snapshot` is known.
    pub(super) fn new(
        storage: &Storage,
        url: Url,
        committer: SharedCommitter,
        limits: Limits,
        snapshot: SnapshotRef,
    ) -> Self {
        let log = url.join("_delta_log/").ok().filter(|log| log.scheme() == "file");
        Self {
            storage: storage.clone(),
            committer,
            turns: Turns::new(log.and_then(|log| log.to_file_path().ok())),
            group: Group::default(),
            limits,
            due: Mutex::default(),
            health: Health::default(),
            read_files: ReadFiles::default(),
            snapshot: RwLock::new(snapshot),
            contact: Mutex::new(Contact::now()),
            url,
        }
    }

    /// The newest snapshot that this handle has seen.
    pub(super) fn known(&self) -> SnapshotRef {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The snapshot known, if it may be committed on without another look at the log.
    pub(super) fn recent(&self) -> Option<SnapshotRef> {
        let contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        let contended = contact.contended_until.is_some_and(|until| Instant::now() < until);
        (!contended && contact.elapsed() < RECENT).then(|| self.known())
    }

    /// Notes that another writer won a race.
    pub(super) fn contended(&self) {
        let mut contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        contact.contended_until = Some(Instant::now() + CONTENTION);
    }

    /// How long ago this handle last looked at the log.
    pub(super) fn unseen_for(&self) -> Duration {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// As if this handle had not looked at the log for so long.
    #[cfg(test)]
    pub(super) fn unseen(&self, since: Duration) {
        let mut contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        contact.at.1 = SystemTime::now() - since;
    }

    /// The newest snapshot that the store has.
    pub(super) fn newest(&self) -> Result<SnapshotRef> {
        let reader = LogReader::new(self.storage.engine()?);
        let engine = &reader;
        let snapshot = match Snapshot::builder_from(self.known()).build(engine) {
            // What is known may rest on log entries that were cleaned away: then the log is read from its newest checkpoint.
            Err(error) if !may_pass(&error) => Snapshot::builder_for(self.url.as_str()).build(engine),
            built => built,
        };
        let snapshot = snapshot.map_err(|e| from_kernel(format!("reading the log of '{}'", self.url), e))?;
        self.remember(&snapshot);
        Ok(snapshot)
    }

    /// Whether `error` may be due to files of `snapshot` that were removed from the table and vacuumed since, so that
    /// reading the newest snapshot instead can succeed.
    pub(super) fn moved_on(&self, snapshot: &SnapshotRef, error: &Error) -> bool {
        error.kind() == ErrorKind::Storage
            && !error.is_retryable()
            && self.newest().is_ok_and(|newest| newest.version() > snapshot.version())
    }

    /// The rows of the newest snapshot that match.
    pub(super) fn rows(&self, predicate: &Predicate) -> Result<RecordBatch> {
        self.of_newest(&|snapshot| {
            scan::rows(self.storage.engine()?, snapshot, predicate, &self.health, &self.read_files)
        })
    }

    /// What `read` finds in the newest snapshot; a newer one, if files of that were removed meanwhile.
    pub(super) fn of_newest<T>(&self, read: &dyn Fn(&SnapshotRef) -> Result<T>) -> Result<T> {
        let mut vanished = 0;
        loop {
            let snapshot = self.newest()?;
            match read(&snapshot) {
                Err(error) if vanished < commit::MOST_VANISHED && self.moved_on(&snapshot, &error) => vanished += 1,
                ended => return ended,
            }
        }
    }

    /// The table's columns as far as known.
    pub(super) fn schema(&self) -> Result<SchemaRef> {
        schema::of(&self.known())
    }

    /// Keeps `snapshot` for the next call, unless something newer is known.
    pub(super) fn remember(&self, snapshot: &SnapshotRef) {
        let mut known = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        if snapshot.version() > known.version() {
            *known = Arc::clone(snapshot);
        }
        drop(known);
        let mut contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        contact.at = Contact::now().at;
    }

    /// Puts `snapshot` in the place of one of the same version, or of an older one.
    pub(super) fn exchange(&self, snapshot: &SnapshotRef) {
        let mut known = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        if snapshot.version() >= known.version() {
            *known = Arc::clone(snapshot);
        }
    }

    /// Appends `rows` (of the table's schema) in a commit of their own. `at_turn` is called as soon as it is this
    /// thread's turn to commit. Time limits count from `since`.
    pub(super) fn append_now(
        self: &Arc<Self>,
        rows: &RecordBatch,
        since: Instant,
        at_turn: &mut dyn FnMut(),
    ) -> Result<u64> {
        let kind = Kind {
            operation: UpdateTableOperation::Write,
            blind: true,
            data_change: true,
            parameters: vec![("mode", "Append".to_owned())],
        };
        let known = self.known();
        let parts = |snapshot: &SnapshotRef| Ok(vec![Part::new(schema::align(rows, &schema::of(snapshot)?)?)]);
        // Written before it is this thread's turn, as others can commit meanwhile.
        let ahead = Attempt::ahead(self, &kind, &known);
        let mut staged = Some(Staged::reuse_or_write(&self.storage, &ahead, None, parts(&known)?)?);
        let ended = commit::commit(self, &kind, Queue::Always, since, &mut |attempt| {
            at_turn();
            let files = Staged::reuse_or_write(&self.storage, attempt, staged.take(), parts(attempt.snapshot)?)?;
            let adds = files.adds.clone();
            staged = Some(files);
            Ok(Some(Plan { adds, ..Plan::default() }))
        });
        if let Some(orphans) = staged.filter(|_| nothing_written(&ended)) {
            orphans.discard(&self.storage);
        }
        ended.map(Option::unwrap_or_default)
    }
}

impl Contact {
    fn now() -> Self {
        Self { at: (Instant::now(), SystemTime::now()), contended_until: None }
    }

    fn elapsed(&self) -> Duration {
        self.at.0.elapsed().max(self.at.1.elapsed().unwrap_or_default())
    }
}
