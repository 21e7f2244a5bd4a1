//! The one retry loop: every commit of this crate, whatever it writes, is made here.
//!
//! A commit is one file that is created atomically: the version after the snapshot's. Who finds it taken has lost the
//! race, looks at the newer snapshot and plans again. An error does not tell whether the file was created, so after
//! one the contested version is looked at before anything is tried again: each commit carries an id of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use delta_kernel::committer::{CommitMetadata, CommitResponse, Committer, PublishMetadata};
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::transaction::{CommitResult, Transaction, UpdateTableOperation};
use delta_kernel::{Engine, FilteredEngineData, KernelError, KernelResult, KernelResultIterator, SnapshotRef};
use object_store::ObjectStoreExt as _;
use rand::RngExt as _;

use super::create::{ENGINE_INFO, log_path};
use super::failure::{from_kernel, may_pass};
use super::table::Inner;
use super::turn::Turn;
use crate::error::{Error, ErrorKind, Result};

/// How a commit reaches the table's log; the file system one unless a catalog manages the table.
pub(super) type SharedCommitter = Arc<dyn Committer + Send + Sync>;

/// How long lost races and errors of the store are tried over before the caller is told.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits between attempts are drawn from zero to this, which doubles from the first one to the last.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(64);

/// The key of the commit's own id in `commitInfo.operationParameters`.
const COMMIT_ID: &str = "commitId";

/// What kind of commit it is. Fixed for the whole loop.
pub(super) struct Kind {
    pub(super) operation: UpdateTableOperation,
    /// It depends on nothing that is in the table, so that no other writer has to yield to it.
    pub(super) blind: bool,
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
    /// Another writer has taken this version.
    Lost(u64),
}

/// Commits what `plan` makes of the newest snapshot (for a blind commit: of the newest one known), again and again
/// until a commit succeeds. `None` from `plan` ends it without a commit.
pub(super) fn commit(
    table: &Inner,
    kind: &Kind,
    queue: Queue,
    plan: &mut dyn FnMut(&Attempt<'_>) -> Result<Option<Plan>>,
) -> Result<Option<u64>> {
    let deadline = Instant::now() + table.patience;
    crate::runtime::own_randomness()?;
    let id = uuid::Uuid::new_v4().to_string();
    let mut winner = None;
    for number in 0.. {
        let turn = (queue == Queue::Always || number > 0).then(|| table.turns.take()).transpose()?;
        let snapshot = if kind.blind && number == 0 { table.known() } else { table.newest()? };
        let Some(plan) = plan(&Attempt { table, kind, snapshot: &snapshot, number })? else { return Ok(None) };
        match submit(table, kind, &snapshot, &plan, &id, deadline)? {
            Submitted::Committed(version) => {
                drop::<Option<Turn<'_>>>(turn);
                table.checkpoint();
                return Ok(Some(version));
            }
            Submitted::Lost(version) => {
                winner = Some(version);
                drop(turn);
                if !wait(number, deadline) {
                    break;
                }
            }
        }
    }
    let version = winner.unwrap_or_default();
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "other writers of '{}' won every race for {} s, the last time with version {version}; nothing was written, try again",
            table.url,
            table.patience.as_secs_f32()
        ),
    )
    .with_retryable(true))
}

/// Offers `plan` as the version after `snapshot`, until it is known who has that version.
fn submit(
    table: &Inner,
    kind: &Kind,
    snapshot: &SnapshotRef,
    plan: &Plan,
    id: &str,
    deadline: Instant,
) -> Result<Submitted> {
    let version = snapshot.version() + 1;
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
        match author(table, version, id) {
            Ok(Author::Us) => {
                drop(table.newest());
                return Ok(Submitted::Committed(version));
            }
            Ok(Author::Another) => return Ok(Submitted::Lost(version)),
            Ok(Author::Nobody) => {
                let hopeless = error.as_ref().is_some_and(|e| !may_pass(e));
                if hopeless || !wait(number, deadline) {
                    let error =
                        error.unwrap_or_else(|| KernelError::generic("the version is taken, but cannot be read"));
                    return Err(from_kernel(
                        format!("committing version {version} to '{}': nothing was written, and that", table.url),
                        error,
                    ));
                }
            }
            Err(unreadable) => {
                if !wait(number, deadline) {
                    return Err(Error::new(
                        ErrorKind::Storage,
                        format!(
                            "it is not known whether version {version} of '{}' was written by this call (its id there would be '{id}'); \
                             look before trying again, as the rows may be in the table already",
                            table.url
                        ),
                    )
                    .with_source(unreadable));
                }
            }
        }
    }
    Err(Error::new(ErrorKind::Internal, "the number of attempts to commit is exhausted"))
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
        .update_table(kind.operation.clone(), ENGINE_INFO, true)
        .with_operation_parameters(parameters);
    if kind.blind {
        builder = builder.with_blind_append();
    }
    for (app, version) in transactions {
        builder = builder.with_transaction_id(app, *version);
    }
    builder
        .build(table.storage.engine()?.as_ref(), Box::new(committer))
        .map_err(|e| from_kernel(format!("preparing a commit to '{}'", table.url), e))
}

/// Waits a little, longer each time and never in step with others. `false` when the time is up.
fn wait(number: u32, deadline: Instant) -> bool {
    let longest = FIRST_WAIT.saturating_mul(1 << number.min(16)).min(LONGEST_WAIT);
    let wait = longest.mul_f64(rand::rng().random_range(0.0..1.0));
    if Instant::now() + wait >= deadline {
        return false;
    }
    thread::sleep(wait);
    true
}

enum Author {
    Us,
    Another,
    Nobody,
}

/// Who wrote `version`: the commit with our `id`, another one, or nobody yet.
fn author(table: &Inner, version: u64, id: &str) -> Result<Author> {
    let path = log_path(&table.url, &format!("{version:020}.json"))?;
    let store = Arc::clone(table.storage.store());
    let read = table.storage.block_on(async move { store.get(&path).await?.bytes().await })?;
    let text = match read {
        Ok(text) => text,
        Err(object_store::Error::NotFound { .. }) => return Ok(Author::Nobody),
        Err(e) => {
            return Err(from_kernel(format!("reading version {version} of '{}'", table.url), KernelError::from(e)));
        }
    };
    let ours = text
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .any(|action| {
            action.pointer(&format!("/commitInfo/operationParameters/{COMMIT_ID}")).and_then(serde_json::Value::as_str)
                == Some(id)
        });
    Ok(if ours { Author::Us } else { Author::Another })
}

/// What became of the attempt to create the log entry, whatever the kernel makes of it afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    Committed,
    Conflict,
    Failed,
}

#[derive(Clone)]
struct Notes(Arc<Mutex<Seen>>);

impl Notes {
    fn get(&self) -> Seen {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, seen: Seen) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

/// Takes notes of what the real committer answers.
struct Recording {
    inner: SharedCommitter,
    notes: Notes,
}

impl Recording {
    fn new(inner: &SharedCommitter) -> (Self, Notes) {
        let notes = Notes(Arc::new(Mutex::new(Seen::Nothing)));
        (Self { inner: Arc::clone(inner), notes: notes.clone() }, notes)
    }
}

impl Committer for Recording {
    fn commit(
        &self,
        engine: &dyn Engine,
        actions: KernelResultIterator<'_, FilteredEngineData>,
        metadata: CommitMetadata,
    ) -> KernelResult<CommitResponse> {
        let response = self.inner.commit(engine, actions, metadata);
        self.notes.set(match &response {
            Ok(CommitResponse::Committed { .. }) => Seen::Committed,
            Ok(CommitResponse::Conflict { .. }) => Seen::Conflict,
            Err(_) => Seen::Failed,
        });
        response
    }

    fn is_catalog_committer(&self) -> bool {
        self.inner.is_catalog_committer()
    }

    fn publish(&self, engine: &dyn Engine, metadata: PublishMetadata) -> KernelResult<()> {
        self.inner.publish(engine, metadata)
    }
}
