//! Writing: every commit of this crate goes through the retry loop in this file.
//!
//! A commit creates one file atomically: the version after its snapshot. A writer that finds the version taken has lost
//! the race; it reads the newer snapshot and decides again. An error does not say whether the file was created, so after
//! an error the loop reads the contested version before it tries again: each commit has an id of its own.

mod attempt;
mod checkpoint;
mod conditional;
mod group;
mod staging;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::transaction::CommitResult;
use delta_kernel::{FilteredEngineData, KernelError};

use self::attempt::ObservedCommitter;
pub(super) use self::attempt::{CommitAttempt, CommitKind, FileRows};
pub(super) use self::staging::StagedFiles;
use self::staging::stage;
use super::errors::{from_kernel, is_disk_full, is_repeated, is_transient, is_unsent};
use super::log::LogEntry;
use super::state::{MAX_VANISHED, TableState};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::environment;
use crate::storage::file_names::{LOG_DIRECTORY, entry_name};

/// If more time than this has passed since the log was read (the process was stopped, the machine slept), log entries may
/// have been cleaned away meanwhile (never sooner than after an hour, see `maintenance`). Then a free version does not prove
/// that no entry was deleted.
const PAUSE: Duration = Duration::from_secs(30 * 60);

/// The pause between attempts is drawn from zero to this limit, which doubles from the first to the last.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(64);

/// What one attempt writes.
#[derive(Default, Clone)]
pub(super) struct Proposal {
    /// Rows for new data files.
    pub(super) rows: Vec<FileRows>,
    /// `add` actions of data files that are written already.
    pub(super) adds: Vec<RecordBatch>,
    /// Scan metadata of the files to remove.
    pub(super) removes: Vec<RecordBatch>,
    pub(super) transactions: Vec<(String, i64)>,
}

/// Commits what `propose` makes of the newest snapshot (for a blind commit: the newest one known), and starts again after
/// a lost race. `None` from `propose` ends the loop without a commit. The time limits count from `since`.
///
/// The loop writes the data files. It keeps those of a lost attempt, starting with `staged`, as long as the next attempt
/// proposes the same rows, and deletes them if nothing was committed.
pub(super) fn commit(
    table: &Arc<TableState>,
    kind: &CommitKind,
    since: Instant,
    mut staged: Option<StagedFiles>,
    propose: &mut dyn FnMut(&CommitAttempt<'_>) -> Result<Option<Proposal>>,
) -> Result<Option<u64>> {
    let ended = attempts(table, kind, since, &mut staged, propose);
    if let Some(orphans) = staged.filter(|_| nothing_written(&ended)) {
        orphans.discard(&table.storage);
    }
    ended
}

/// Whether a commit that ended like this certainly wrote nothing, so that no log entry names its data files.
pub(super) fn nothing_written(ended: &Result<Option<u64>>) -> bool {
    match ended {
        Ok(committed) => committed.is_none(),
        Err(error) => error.kind() == ErrorKind::Conflict || !error.is_outcome_unknown() && is_disk_full(error),
    }
}

fn attempts(
    table: &Arc<TableState>,
    kind: &CommitKind,
    since: Instant,
    staged: &mut Option<StagedFiles>,
    propose: &mut dyn FnMut(&CommitAttempt<'_>) -> Result<Option<Proposal>>,
) -> Result<Option<u64>> {
    crate::runtime::own_randomness()?;
    let id = environment().uuid().to_string();
    for number in 0.. {
        let lock = (kind.lock_first || number > 0).then(|| table.lock.acquire()).transpose()?;
        if lock.as_ref().is_some_and(|lock| lock.contended) {
            table.note_contention();
        }
        let snapshot = if kind.blind { table.snapshot_for_blind_commit(number == 0) } else { table.refresh() }?;
        // Before anything is written: another thread can find that the table was replaced, and open it anew.
        let before = table.known_entry(snapshot.version());
        let attempt = CommitAttempt { table, snapshot: &snapshot, kind, number };
        let staging = |proposal: Option<_>| proposal.map(|proposal| stage(&attempt, staged, proposal)).transpose();
        let proposal = match propose(&attempt).and_then(staging) {
            Ok(Some(proposal)) => proposal,
            Ok(None) => return Ok(None),
            // A file that the proposal read may have been removed and vacuumed meanwhile.
            Err(error) if number < MAX_VANISHED && table.is_outdated(&snapshot, &error) => continue,
            Err(error) => return Err(error),
        };
        let version = snapshot.version() + 1;
        match submit(&attempt, &proposal, &id)? {
            None => {
                table.committed(version, &id, before)?;
                drop(lock);
                checkpoint::write_when_due(table, version);
                return Ok(Some(version));
            }
            Some(winner) => {
                table.note_contention();
                drop(lock);
                if !wait(number, table.limits.on_races.map(|limit| since + limit)) {
                    let seconds = table.limits.on_races.unwrap_or_default().as_secs_f32();
                    let text = format!(
                        "other writers of '{}' won every race for {seconds} s, the last time with version {version} ({}); \
                         nothing was written, try again",
                        table.url, winner.description
                    );
                    return Err(Error::new(ErrorKind::Conflict, text).with_retryable(true));
                }
            }
        }
    }
    Err(exhausted())
}

/// Tries to commit `proposal` as the next version until the outcome is known. Returns the entry of another writer that took the
/// version.
fn submit(attempt: &CommitAttempt<'_>, proposal: &Proposal, id: &str) -> Result<Option<LogEntry>> {
    let table = attempt.table;
    let version = attempt.snapshot.version() + 1;
    let deadline = Some(environment().instant() + table.limits.on_errors);
    let mut in_doubt = false;
    for number in 0.. {
        let committer = ObservedCommitter::new(&table.committer);
        let observed = Arc::clone(&committer.observed);
        let mut transaction = attempt.begin(&proposal.transactions, id, committer)?;
        for add in &proposal.adds {
            transaction.add_files(Box::new(ArrowEngineData::new(add.clone())));
        }
        for files in &proposal.removes {
            let files = Box::new(ArrowEngineData::new(files.clone()));
            transaction.remove_files(FilteredEngineData::with_all_rows_selected(files));
        }
        let error = match transaction.commit(table.storage.engine()?.as_ref()) {
            Ok(CommitResult::Committed(committed)) => {
                check_pause(table, version)?;
                match committed.post_commit_snapshot() {
                    Some(snapshot) => table.remember(snapshot),
                    None => drop(table.refresh()),
                }
                return Ok(None);
            }
            Ok(CommitResult::Conflicted(_)) => None,
            Ok(CommitResult::Retryable(failed)) => Some(failed.error),
            Err(error) => Some(error),
        };
        match observed.get() {
            // The kernel refused before it touched the log: no attempt can succeed.
            None => {
                let error = error.unwrap_or_else(|| KernelError::generic("the commit was not attempted"));
                return Err(from_kernel(format!("committing to '{}'", table.url), error));
            }
            // The commit is durable; a later step failed.
            Some(true) => {
                let error = error.map(|e| e.to_string());
                tracing::warn!(table = %table.url, version, error, "the commit succeeded, but not what follows it");
                return Ok(None);
            }
            // Stores retry by themselves, so even a conflict may be with an earlier request of this commit.
            Some(false) => check_name(table, version)?,
        }
        let unreadable = match table.log_entry(version) {
            Ok(Some(entry)) if entry.id.as_deref() == Some(id) => {
                drop(table.refresh());
                return Ok(None);
            }
            Ok(Some(entry)) => return Ok(Some(entry)),
            Ok(None) => None,
            // On S3, a writer that must not share the table has won.
            Err(refused) if refused.kind() == ErrorKind::Unsupported => return Err(refused),
            Err(unreadable) => Some(unreadable),
        };
        let hopeless = error.as_ref().is_some_and(|e| !is_transient(e) || is_disk_full(e));
        let unsent = error.as_ref().is_some_and(is_unsent);
        // The entry may still come: a remote store may be working on a request whose response did not arrive in time.
        in_doubt |= error.as_ref().is_some_and(is_repeated);
        let may_come = error.is_none() || unreadable.is_some() || !hopeless && table.url.scheme() != "file";
        in_doubt |= may_come && !unsent;
        if unsent || hopeless && unreadable.is_none() || !wait(number, deadline) {
            let error = error.unwrap_or_else(|| KernelError::generic("the version is taken, but cannot be read"));
            let doing = format!("committing version {version} to '{}': nothing was written, and that", table.url);
            return Err(match unreadable {
                Some(unreadable) if in_doubt => unknown(table, version, id).with_source(unreadable),
                None if in_doubt => unknown(table, version, id).with_source(error),
                _ => from_kernel(doing, error),
            });
        }
    }
    Err(exhausted())
}

/// Checks that nothing but a file has the name of the log entry of `version`: a directory or a pipe there is no commit, and no
/// commit can take its place.
fn check_name(table: &TableState, version: u64) -> Result<()> {
    let entry = table.url.join(&format!("{LOG_DIRECTORY}/{}", entry_name(version)));
    let Some(path) = entry.ok().and_then(|url| url.to_file_path().ok()) else { return Ok(()) };
    if path.symlink_metadata().is_err() || path.metadata().is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    let text = format!("nothing was written, because {} is not a file: remove it, and try again", path.display());
    Err(Error::new(ErrorKind::Storage, text))
}

fn exhausted() -> Error {
    Error::new(ErrorKind::Internal, "the number of attempts to commit is exhausted")
}

fn unknown(table: &TableState, version: u64, id: &str) -> Error {
    Error::new(
        ErrorKind::Storage,
        format!(
            "it is not known whether version {version} of '{}' was written by this call (its id there would be '{id}'); look \
             before trying again, as the rows may be in the table already",
            table.url
        ),
    )
    .with_unknown_outcome()
}

/// After a long pause, makes sure that the entry before this commit's is still in the log. Clean-up deletes the oldest
/// entries first, so then this commit's version was not cleaned away before it was written.
fn check_pause(table: &TableState, version: u64) -> Result<()> {
    if table.since_log_access() < PAUSE {
        return Ok(());
    }
    let before = table.log_entry(version - 1);
    if let Ok(Some(_)) = before {
        return Ok(());
    }
    let error = Error::new(
        ErrorKind::Storage,
        format!(
            "this process was stopped for so long while it committed version {version} of '{}' that entries of its log \
             may have been deleted meanwhile: it is not known whether the rows are in the table; look before trying again",
            table.url
        ),
    )
    .with_unknown_outcome();
    Err(match before {
        Err(unreadable) => error.with_source(unreadable),
        Ok(_) => error,
    })
}

/// Waits for a random time, which grows with each attempt. Returns false if the time is up.
fn wait(number: u32, deadline: Option<Instant>) -> bool {
    let longest = FIRST_WAIT.saturating_mul(1 << number.min(16)).min(LONGEST_WAIT);
    let wait = longest.mul_f64(environment().fraction());
    if deadline.is_some_and(|deadline| environment().instant() + wait >= deadline) {
        return false;
    }
    environment().block(wait);
    true
}
