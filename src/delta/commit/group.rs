//! Group commit: callers that append to a table at the same moment share one data file and one commit.
//!
//! There is no dedicated thread. A caller that finds no leader becomes the leader: it takes all waiting rows, writes them
//! to one file and commits it. As soon as it holds the table's lock, the next waiting caller gathers the next group, so
//! that one group's data file is written while the group before is committed. A caller returns when its own rows are
//! durable or have failed, so that no rows are left behind when a process ends.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use tokio::sync::{mpsc, oneshot};

use super::attempt::{CommitAttempt, CommitKind};
use super::staging::StagedFiles;
use super::{Proposal, commit};
use crate::delta::schema;
use crate::delta::state::append_queue::{Caller, QueuedAppend, Signal, kib};
use crate::delta::state::{Predecessor, TableState};
use crate::delta::table::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::InFlight;
use crate::runtime::environment::{environment, wait_for};

impl Table {
    /// Appends rows as a blind append; they are durable when the call returns. Threads and tasks that append through
    /// handles of one table at the same moment share one commit. Retries conflicts itself. Returns the version committed
    /// (without rows: the version known, and no commit is made).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for rows that do not fit the table, [`ErrorKind::Unsupported`] for a table that the
    /// kernel cannot write; a retry does not help. [`ErrorKind::Conflict`] (retryable) when the time limit for lost races
    /// is over. [`ErrorKind::Storage`] when the store failed: if it is retryable, nothing was written; if the outcome is
    /// unknown, the message says so and it is not retryable.
    pub fn append(&self, batch: &RecordBatch) -> Result<u64> {
        let table = &self.state;
        let Some(rows) = self.rows_to_append(batch)? else { return Ok(self.version()) };
        let (permits, room) = (kib(&rows), Arc::clone(&table.appends.room));
        let room = match Arc::clone(&room).try_acquire_many_owned(permits) {
            Ok(room) => room,
            Err(_) => table.storage.block_on(room.acquire_many_owned(permits))?.map_err(closed)?,
        };
        let (sender, mut signals) = mpsc::channel(2);
        if table.appends.enter(QueuedAppend::new(rows, Caller::Thread(sender), room)) {
            lead(table);
        }
        loop {
            match wait_for(signals.recv()) {
                Some(Signal::Lead) => lead(table),
                Some(Signal::Committed(outcome)) => return outcome,
                None => return Err(broken()),
            }
        }
    }

    /// Like [`Table::append`], without blocking a thread. If the future is dropped, the rows may be written or not.
    ///
    /// # Errors
    /// As [`Table::append`].
    pub async fn append_async(&self, batch: &RecordBatch) -> Result<u64> {
        let table = &self.state;
        let Some(rows) = self.rows_to_append(batch)? else { return Ok(self.version()) };
        let room = Arc::clone(&table.appends.room).acquire_many_owned(kib(&rows)).await.map_err(closed)?;
        let (sender, outcome) = oneshot::channel();
        let _in_flight = InFlight::begin();
        if table.appends.enter(QueuedAppend::new(rows, Caller::Task(sender), room)) {
            lead_in_background(table);
        }
        outcome.await.unwrap_or_else(|_| Err(broken()))
    }

    /// The rows of `batch` in the table's columns, or `None` if there are none. Refuses rows that do not fit, before they
    /// share a commit with others, and calls in a forked child, where the parent's leader does not exist.
    fn rows_to_append(&self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let table = &self.state;
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        table.storage.engine()?;
        schema::align(batch, &table.schema(&table.known())?).map(Some)
    }
}

fn closed(e: tokio::sync::AcquireError) -> Error {
    Error::new(ErrorKind::Internal, "the queue of rows to be written is closed").with_source(e)
}

fn broken() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the commit that these rows were part of ended early; look whether they are in the table before trying again",
    )
}

/// The leader's role. It passes to the next waiting caller when this is dropped, also after a panic.
struct Leadership<'a>(Option<&'a Arc<TableState>>);

impl Leadership<'_> {
    fn pass_on(&mut self) {
        if let Some(table) = self.0.take()
            && table.appends.pass_lead()
        {
            lead_in_background(table);
        }
    }
}

impl Drop for Leadership<'_> {
    fn drop(&mut self) {
        self.pass_on();
    }
}

/// Leads in a thread outside of any runtime: inside one, requests to a local disk would move between threads.
fn lead_in_background(table: &Arc<TableState>) {
    let leader = Arc::clone(table);
    if let Err(error) = environment().start(Some("jobrota-commit"), Box::new(move || lead(&leader))) {
        for append in table.appends.clear() {
            append.notify(Err(error.clone()));
        }
    }
}

/// Gathers one group, commits it and notifies its callers.
fn lead(table: &Arc<TableState>) {
    let mut leadership = Leadership(Some(table));
    let group = table.appends.gather();
    if group.is_empty() {
        return;
    }
    let started = environment().instant();
    let outcome = commit_group(table, &group, &mut leadership);
    table.appends.record(group.len(), environment().instant() - started);
    drop(leadership);
    // The rows of one caller may be the reason: each caller's rows are tried alone, so that the error reaches that caller.
    let one_by_one = group.len() > 1 && outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::InvalidInput);
    for append in group {
        let outcome = match one_by_one {
            true => commit_rows(table, &append.rows, append.since, &mut || {}),
            false => outcome.clone(),
        };
        append.notify(outcome);
    }
}

fn commit_group(table: &Arc<TableState>, group: &[QueuedAppend], leadership: &mut Leadership<'_>) -> Result<u64> {
    let Some(first) = group.first() else { return Ok(table.known().version()) };
    let since = group.iter().map(|append| append.since).min().unwrap_or(first.since);
    let schema = first.rows.schema_ref();
    if group.iter().any(|append| append.rows.schema_ref() != schema) {
        return Err(Error::invalid("the table's columns changed while these rows waited; log them again"));
    }
    let rows = schema::concat(schema, group.iter().map(|append| &append.rows))?;
    commit_rows(table, &rows, since, &mut || leadership.pass_on())
}

/// A look at the log entry of this version, which a blind commit is to follow. On a remote store, it takes a request, which is made
/// while the rows are uploaded; `None` on a local disk.
type EntryLook = Option<(u64, oneshot::Receiver<Result<Predecessor>>)>;

fn begin_look(table: &Arc<TableState>, version: u64) -> Result<EntryLook> {
    if table.is_local() {
        return Ok(None);
    }
    let (sender, receiver) = oneshot::channel();
    let table = Arc::clone(table);
    let work = move || {
        let known = table.known_entry(version).unwrap_or_default();
        // Without a receiver, the rows could not be uploaded.
        let _ = sender.send(table.look_at_entry(version, &known));
    };
    environment().start(None, Box::new(work))?;
    Ok(Some((version, receiver)))
}

/// Checks that the commit would follow the entry of `version` that this process knows.
///
/// # Errors
/// [`ErrorKind::Conflict`], retryable: nothing was written. Those of the store.
fn check_entry(look: EntryLook, table: &TableState, version: u64) -> Result<()> {
    let looked = match look {
        None => table.look_at_entry(version, &table.known_entry(version).unwrap_or_default()),
        Some((looked_at, receiver)) if looked_at == version => match wait_for(receiver) {
            Ok(looked) => looked,
            Err(_) => return Ok(()),
        },
        // This process has committed or read the log meanwhile.
        Some(_) => return Ok(()),
    };
    match looked {
        // One answer proves nothing: the entry can have been cleaned away. The log decides.
        Ok(Predecessor::Replaced | Predecessor::Missing) if table.was_replaced() => Err(table.not_committed(version)),
        // The loop starts again on the newer version.
        Ok(Predecessor::Replaced | Predecessor::Missing) if table.known().version() > version => {
            let text = format!("version {version} of the log of '{}' was cleaned away", table.url);
            Err(Error::new(ErrorKind::Storage, text))
        }
        // After an error, the commit itself finds out whether the store works.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Appends `rows` in a commit of their own. Calls `locked` as soon as this thread holds the table's lock. The time limits
/// count from `since`.
fn commit_rows(table: &Arc<TableState>, rows: &RecordBatch, since: Instant, locked: &mut dyn FnMut()) -> Result<u64> {
    let (kind, known) = (CommitKind::append(true), table.known());
    let look = begin_look(table, known.version())?;
    // Written before this thread has the lock, as others can commit meanwhile.
    let ahead = CommitAttempt::new(table, &kind, &known);
    let staged = StagedFiles::write(&ahead, ahead.rows(rows)?)?;
    let mut look = Some(look);
    let committed = commit(table, &kind, since, Some(staged), &mut |attempt| {
        locked();
        // A later attempt has read the log.
        if let Some(look) = look.take() {
            check_entry(look, table, attempt.snapshot.version())?;
        }
        Ok(Some(Proposal { rows: attempt.rows(rows)?, ..Proposal::default() }))
    });
    committed.map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};

    use super::*;
    use crate::delta::tests::{all, batch, row, spec, storage};

    /// The columns of the table can change while rows wait.
    #[test]
    fn of_rows_that_cannot_share_a_commit_each_caller_has_its_own_outcome() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open_or_create(&storage(&dir), &spec()).unwrap();
        let odd = RecordBatch::try_from_iter([("odd", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]).unwrap();
        let queue = &table.state.appends;
        let outcomes = [batch(&[row("a", 1, "NO")]), odd, batch(&[row("b", 1, "NO")])].map(|rows| {
            let (sender, outcome) = oneshot::channel();
            let room = Arc::clone(&queue.room).try_acquire_many_owned(kib(&rows)).unwrap();
            queue.enter(QueuedAppend::new(rows, Caller::Task(sender), room));
            outcome
        });
        lead(&table.state);
        let outcomes = outcomes.map(|mut outcome| outcome.try_recv().unwrap().map_err(|error| error.kind()));
        assert_eq!(outcomes, [Ok(1), Err(ErrorKind::InvalidInput), Ok(2)]);
        assert_eq!(all(&table), [row("a", 1, "NO"), row("b", 1, "NO")]);
    }
}
