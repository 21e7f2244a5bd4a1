//! The one retry loop: every commit of this crate, whatever it writes, is made here.
//!
//! A commit is one file that is created atomically: the version after the snapshot's. Who finds it taken has lost the
//! race, looks at the newer snapshot and plans again. An error does not tell whether the file was created, so after
//! one the contested version is looked at before anything is tried again: each commit carries an id of its own.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use delta_kernel::committer::Committer;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::transaction::{CommitResult, Transaction, UpdateTableOperation};
use delta_kernel::{FilteredEngineData, KernelError, SnapshotRef};
use rand::RngExt as _;

use super::checkpoint;
use super::create::ENGINE_INFO;
use super::failure::{from_kernel, may_pass};
use super::legacy_protocol;
use super::log_entry::{COMMIT_ID, LogEntry};
use super::recording::{Recording, Seen};
use super::table::Inner;
use super::turn::Turn;
use crate::error::{Error, ErrorKind, Result};

/// How a commit reaches the table's log; the file system one unless a catalog manages the table.
pub(super) type SharedCommitter = Arc<dyn Committer + Send + Sync>;

/// How long the loop goes on before the caller is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// While the store answers with errors.
    pub(super) errors: Duration,
    /// While other writers win; `None`: until this one does.
    pub(super) races: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { errors: Duration::from_secs(60), races: None }
    }
}

/// A commit that took longer than this since the log was looked at, as when the process was stopped or the machine slept,
/// may have come back to a log whose entries were cleaned away meanwhile (never sooner than after an hour, see
/// `maintenance`): where nothing is in the way, nothing is known.
const PAUSE: Duration = Duration::from_secs(30 * 60);

/// Waits between attempts are drawn from zero to this, which doubles from the first one to the last.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(64);

/// How often a plan is made anew because files vanished while it was made.
pub(super) const MOST_VANISHED: u32 = 8;

/// What kind of commit it is. Fixed for the whole loop.
pub(super) struct Kind {
    pub(super) operation: UpdateTableOperation,
    /// It depends on nothing that is in the table, so that no other writer has to yield to it.
    pub(super) blind: bool,
    /// It changes what is in the table, and not only how that is stored.
    pub(super) data_change: bool,
    /// What the table's history says about it.
    pub(super) parameters: Vec<(&'static str, String)>,
}

/// What one attempt writes.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) adds: Vec<RecordBatch>,
    /// Scan metadata, and which of its rows are files to remove.
    pub(super) removes: Vec<(RecordBatch, Vec<bool>)>,
    pub(super) transactions: Vec<(String, i64)>,
}

/// What the caller plans an attempt with.
pub(super) struct Attempt<'a> {
    pub(super) snapshot: &'a SnapshotRef,
    /// Counts from 0.
    pub(super) number: u32,
    table: &'a Inner,
    kind: &'a Kind,
}

impl<'a> Attempt<'a> {
    /// What can be planned before the loop, on the newest snapshot known.
    pub(super) fn ahead(table: &'a Inner, kind: &'a Kind, snapshot: &'a SnapshotRef) -> Self {
        Self { snapshot, number: 0, table, kind }
    }

    /// A transaction to look things up in; the one that is committed is made anew.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the table has a feature that the kernel cannot write.
    pub(super) fn transaction(&self) -> Result<Transaction> {
        begin(self.table, self.kind, self.snapshot, &[], "", Recording::new(&self.table.committer).0)
    }
}

/// Whether threads of this process wait for each other, see [`super::turn::Turns`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// From the first attempt on: planning is quick.
    Always,
    /// Only after a lost race: planning may be slow, and must not starve either.
    AfterLosing,
}

enum Submitted {
    Committed(u64),
    /// Another writer has taken this version, with this entry.
    Lost((u64, LogEntry)),
}

/// Commits what `plan` makes of the newest snapshot (for a blind commit: of the newest one known), again and again
/// until a commit succeeds. `None` from `plan` ends it without a commit. The time limits count from `since`.
pub(super) fn commit(
    table: &Arc<Inner>,
    kind: &Kind,
    queue: Queue,
    since: Instant,
    plan: &mut dyn FnMut(&Attempt<'_>) -> Result<Option<Plan>>,
) -> Result<Option<u64>> {
    crate::runtime::own_randomness()?;
    let id = uuid::Uuid::new_v4().to_string();
    for number in 0.. {
        let turn = (queue == Queue::Always || number > 0).then(|| table.turns.take()).transpose()?;
        if turn.as_ref().is_some_and(|turn| turn.contended) {
            table.contended();
        }
        let current = if kind.blind && number == 0 { table.recent() } else { None };
        let snapshot = current.map_or_else(|| table.newest(), Ok)?;
        let plan = match plan(&Attempt { table, kind, snapshot: &snapshot, number }) {
            Ok(Some(plan)) => plan,
            Ok(None) => return Ok(None),
            // A file that the plan read may have been removed and vacuumed meanwhile: then the table has moved on.
            Err(error) if number < MOST_VANISHED && table.moved_on(&snapshot, &error) => continue,
            Err(error) => return Err(error),
        };
        match submit(table, kind, &snapshot, &plan, &id)? {
            Submitted::Committed(version) => {
                drop::<Option<Turn<'_>>>(turn);
                checkpoint::when_due(table, version);
                return Ok(Some(version));
            }
            Submitted::Lost(winner) => {
                table.contended();
                drop(turn);
                let deadline = table.limits.races.map(|limit| since + limit);
                if !wait(number, deadline) {
                    return Err(lost(table, &winner));
                }
            }
        }
    }
    Err(Error::new(ErrorKind::Internal, "the number of attempts to commit is exhausted"))
}

fn lost(table: &Inner, (version, winner): &(u64, LogEntry)) -> Error {
    let seconds = table.limits.races.unwrap_or_default().as_secs_f32();
    let text = format!(
        "other writers of '{}' won every race for {seconds} s, the last time with version {version} ({}); nothing was written, \
         try again",
        table.url, winner.described
    );
    Error::new(ErrorKind::Conflict, text).with_retryable(true)
}

/// Offers `plan` as the version after `snapshot`, until it is known who has that version.
fn submit(table: &Inner, kind: &Kind, snapshot: &SnapshotRef, plan: &Plan, id: &str) -> Result<Submitted> {
    let version = snapshot.version() + 1;
    let deadline = Some(Instant::now() + table.limits.errors);
    let mut on_its_way = false;
    for number in 0.. {
        let (committer, seen) = Recording::new(&table.committer);
        let mut transaction = begin(table, kind, snapshot, &plan.transactions, id, committer)?;
        for add in &plan.adds {
            transaction.add_files(Box::new(ArrowEngineData::new(add.clone())));
        }
        for (metadata, selected) in &plan.removes {
            let removes =
                FilteredEngineData::try_new(Box::new(ArrowEngineData::new(metadata.clone())), selected.clone());
            transaction.remove_files(removes.map_err(|e| from_kernel("removing files", e))?);
        }
        let error = match transaction.commit(table.storage.engine()?.as_ref()) {
            Ok(CommitResult::Committed(committed)) => {
                check_pause(table, version)?;
                match committed.post_commit_snapshot() {
                    Some(snapshot) => table.remember(snapshot),
                    None => drop(table.newest()),
                }
                return Ok(Submitted::Committed(committed.commit_version()));
            }
            Ok(CommitResult::Conflicted(_)) => None,
            Ok(CommitResult::Retryable(failed)) => Some(failed.error),
            Err(error) => Some(error),
        };
        match seen.get() {
            // Refused before the log was touched: no attempt can succeed.
            Seen::Nothing => {
                let error = error.unwrap_or_else(|| KernelError::generic("the commit was not attempted"));
                return Err(from_kernel(format!("committing to '{}'", table.url), error));
            }
            // The commit is durable; what failed came after it.
            Seen::Committed => {
                let error = error.map(|e| e.to_string());
                tracing::warn!(table = %table.url, version, error, "the commit succeeded, but not what follows it");
                return Ok(Submitted::Committed(version));
            }
            // Stores retry by themselves, so that even a conflict may be with an attempt of ours that got through.
            Seen::Conflict | Seen::Failed => {}
        }
        match LogEntry::read(table, version) {
            Ok(Some(entry)) if entry.id.as_deref() == Some(id) => {
                drop(table.newest());
                return Ok(Submitted::Committed(version));
            }
            Ok(Some(entry)) => return Ok(Submitted::Lost((version, entry))),
            Ok(None) => {
                let hopeless = error.as_ref().is_some_and(|e| !may_pass(e));
                // That the entry is not there yet does not say that it will not come: a remote store may still be
                // working on a request whose answer did not arrive in time.
                on_its_way |= error.is_none() || !hopeless && table.url.scheme() != "file";
                if hopeless || !wait(number, deadline) {
                    let error =
                        error.unwrap_or_else(|| KernelError::generic("the version is taken, but cannot be read"));
                    if on_its_way {
                        return Err(unknown(table, version, id).with_source(error));
                    }
                    return Err(from_kernel(
                        format!("committing version {version} to '{}': nothing was written, and that", table.url),
                        error,
                    ));
                }
            }
            // On S3, a writer that must not share the table with us has won.
            Err(refused) if refused.kind() == ErrorKind::Unsupported => return Err(refused),
            Err(unreadable) => {
                if !wait(number, deadline) {
                    return Err(unknown(table, version, id).with_source(unreadable));
                }
            }
        }
    }
    Err(Error::new(ErrorKind::Internal, "the number of attempts to commit is exhausted"))
}

fn unknown(table: &Inner, version: u64, id: &str) -> Error {
    Error::new(
        ErrorKind::Storage,
        format!(
            "it is not known whether version {version} of '{}' was written by this call (its id there would be '{id}'); look \
             before trying again, as the rows may be in the table already",
            table.url
        ),
    )
}

fn begin(
    table: &Inner,
    kind: &Kind,
    snapshot: &SnapshotRef,
    transactions: &[(String, i64)],
    id: &str,
    committer: Recording,
) -> Result<Transaction> {
    let parameters =
        kind.parameters.iter().map(|(key, value)| (*key, Some(value.as_str()))).chain([(COMMIT_ID, Some(id))]);
    let mut builder = Arc::clone(snapshot)
        .update_table(kind.operation.clone(), ENGINE_INFO, kind.data_change)
        .with_operation_parameters(parameters);
    if kind.blind {
        builder = builder.with_blind_append();
    }
    for (app, version) in transactions {
        builder = builder.with_transaction_id(app, *version);
    }
    if let Some((column, feature)) = legacy_protocol::unwritable_column(snapshot) {
        let error =
            KernelError::unsupported(format!("Feature '{feature}' is not supported (column '{column}' has it)"));
        return Err(from_kernel(format!("preparing a commit to '{}'", table.url), error));
    }
    let mut transaction = builder
        .build(table.storage.engine()?.as_ref(), Box::new(committer))
        .map_err(|e| from_kernel(format!("preparing a commit to '{}'", table.url), e))?;
    // Every column is always written, so that none is left to its default.
    transaction.ack_column_defaults();
    Ok(transaction)
}

/// After a long pause: that the version before ours is still in the log shows that ours was not cleaned away before it
/// was written, as clean-up takes the oldest entries first.
fn check_pause(table: &Inner, version: u64) -> Result<()> {
    if table.unseen_for() < PAUSE {
        return Ok(());
    }
    let before = LogEntry::read(table, version - 1);
    if let Ok(Some(_)) = before {
        return Ok(());
    }
    let error = Error::new(
        ErrorKind::Storage,
        format!(
            "this process was stopped for so long while it committed version {version} of '{}' that the log may have been cleaned \
             beneath it: it is not known whether the rows are in the table; look before trying again",
            table.url
        ),
    );
    Err(match before {
        Err(unreadable) => error.with_source(unreadable),
        Ok(_) => error,
    })
}

/// Waits a little, longer each time and never in step with others. `false` when the time is up.
fn wait(number: u32, deadline: Option<Instant>) -> bool {
    let longest = FIRST_WAIT.saturating_mul(1 << number.min(16)).min(LONGEST_WAIT);
    let wait = longest.mul_f64(rand::rng().random_range(0.0..1.0));
    if deadline.is_some_and(|deadline| Instant::now() + wait >= deadline) {
        return false;
    }
    thread::sleep(wait);
    true
}
