//! The pending rows of a table and the histories of their attempts, read at a cost that depends on what is pending and on
//! what is new.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use chrono::DateTime;

use super::attempts::{Attempt, spans};
use super::history::AttemptHistory;
use super::retry_state::SavedRetryState;
use crate::error::Result;
use crate::ledger::rows::counted;
use crate::ledger::tables::YES;
use crate::ledger::{JobLedger, LedgerRow, LedgerTable, RowFilter};

/// How often the histories are read anew because another writer recorded attempts meanwhile.
const MAX_READS: usize = 5;

/// The histories of rows.
#[derive(Debug, Default)]
pub(super) struct Histories {
    pub(super) by_row: HashMap<LedgerRow, AttemptHistory>,
    /// The version of the attempts table up to which the histories include the attempts.
    pub(super) version: u64,
    /// The latest timestamp of a row with an attempt, if the saved retry state has it.
    pub(super) latest: Option<Option<i64>>,
    /// Whether the saved retry state already has all of this that it can have.
    pub(super) is_up_to_date: bool,
    /// Whether there is a saved retry state that does not fit the attempts table, which was replaced, compacted or cleaned since.
    pub(super) is_state_stale: bool,
}

impl Histories {
    /// Reads the histories of `rows` from the saved retry state and the attempts since; from all attempts where that is not
    /// enough.
    pub(super) fn read(ledger: &JobLedger, table: LedgerTable, rows: &[LedgerRow]) -> Result<Self> {
        let saved = match ledger.retry_state(table) {
            // The attempts have all of it.
            Err(error) if !error.is_retryable() => {
                tracing::warn!(
                    error = error.full_message(),
                    "the saved retry state cannot be read; reading the attempts. The table autosys_retries can be deleted"
                );
                None
            }
            saved => saved?,
        };
        let Some(saved) = saved else { return Self::from_all_attempts(ledger, table, rows) };
        let mut reads = 1;
        loop {
            if let Some(histories) = Self::since(ledger, table, rows, &saved, reads >= MAX_READS)? {
                return Ok(histories);
            }
            reads += 1;
        }
    }

    /// Reads the histories of `rows` from all attempts.
    pub(super) fn from_all_attempts(ledger: &JobLedger, table: LedgerTable, rows: &[LedgerRow]) -> Result<Self> {
        let (mut attempts, version) = ledger.attempts_about(table, &spans(rows))?;
        let rows: HashSet<&LedgerRow> = rows.iter().collect();
        attempts.retain(|attempt| rows.contains(&attempt.row));
        Ok(Self { by_row: AttemptHistory::by_row(&[], attempts), version, ..Self::default() })
    }

    /// Reads what came after `saved`. None if attempts were recorded while it read; `accept_newer` accepts them.
    fn since(
        ledger: &JobLedger,
        table: LedgerTable,
        rows: &[LedgerRow],
        saved: &SavedRetryState,
        accept_newer: bool,
    ) -> Result<Option<Self>> {
        let Some((new, version)) = ledger.attempts_since(table, saved.version, &|_| false)? else {
            let all = Self::from_all_attempts(ledger, table, rows)?;
            return Ok(Some(Self { is_state_stale: true, ..all }));
        };
        let latest = new.iter().map(|attempt| attempt.row.timestamp).fold(saved.latest, Option::max);
        let has_state: HashSet<&LedgerRow> = saved.rows.iter().map(|state| &state.row).collect();
        // A row that is later than every row tried by then was not tried by then.
        let is_new = |row: &LedgerRow| row.timestamp.is_some_and(|at| saved.latest.is_none_or(|latest| at > latest));
        let other: HashSet<&LedgerRow> = rows.iter().filter(|row| !has_state.contains(row) && !is_new(row)).collect();
        let nothing_is_new = new.is_empty();
        let mut attempts: Vec<Attempt> = new.into_iter().filter(|attempt| !other.contains(&attempt.row)).collect();
        if !other.is_empty() {
            let rows: Vec<LedgerRow> = other.iter().copied().cloned().collect();
            let (older, seen) = ledger.attempts_about(table, &spans(&rows))?;
            if seen != version && !accept_newer {
                return Ok(None);
            }
            attempts.extend(older.into_iter().filter(|attempt| other.contains(&attempt.row)));
        }
        let by_row = AttemptHistory::by_row(&saved.rows, attempts);
        let is_unanswered = |row: &&LedgerRow| by_row.get(*row).is_some_and(AttemptHistory::is_unanswered);
        let is_up_to_date = nothing_is_new && other.iter().all(is_unanswered);
        Ok(Some(Self { by_row, version, latest: Some(latest), is_up_to_date, ..Self::default() }))
    }
}

/// The pending rows of a table, and their histories.
#[derive(Debug, Default)]
pub(super) struct PendingRows {
    pub(super) rows: Vec<LedgerRow>,
    pub(super) histories: Histories,
    /// For each pending row with a finished history, the number of identical `YES` rows.
    pub(super) acknowledged: HashMap<LedgerRow, u64>,
    /// `rows` is of this version of the table, or of a later one.
    pub(super) table_version: Option<u64>,
}

/// Identical pending rows.
pub(super) struct IdenticalRows<'a> {
    pub(super) row: &'a LedgerRow,
    /// How many there are.
    pub(super) count: u64,
    /// How many of them were delivered or settled; only their flag is not set yet.
    pub(super) recovered: u64,
    /// How many of them are parked.
    pub(super) parked: u64,
    pub(super) history: &'a AttemptHistory,
}

static NO_ATTEMPTS: LazyLock<AttemptHistory> = LazyLock::new(AttemptHistory::default);

impl PendingRows {
    /// Reads the pending rows of `table`.
    pub(super) fn read(ledger: &JobLedger, table: LedgerTable) -> Result<Self> {
        let table_version = ledger.version(table)?;
        let rows = ledger.pending(table)?;
        let histories = Histories::read(ledger, table, &rows)?;
        let acknowledged = acknowledged(ledger, table, &rows, &histories)?;
        Ok(Self { rows, histories, acknowledged, table_version })
    }

    /// Reads the pending rows of `table`, only those in `among` if given, with all of their attempts.
    pub(super) fn read_with_all_attempts(
        ledger: &JobLedger,
        table: LedgerTable,
        among: Option<&HashMap<&LedgerRow, u64>>,
    ) -> Result<Self> {
        let mut rows = ledger.pending(table)?;
        rows.retain(|row| among.is_none_or(|among| among.contains_key(row)));
        let histories = Histories::from_all_attempts(ledger, table, &rows)?;
        let acknowledged = acknowledged(ledger, table, &rows, &histories)?;
        Ok(Self { rows, histories, acknowledged, table_version: None })
    }

    /// The pending rows, identical ones together, in the order of the rows.
    pub(super) fn identical(&self) -> Vec<IdenticalRows<'_>> {
        let counts = counted(&self.rows);
        let mut seen = HashSet::with_capacity(counts.len());
        let identical = self.rows.iter().filter(|row| seen.insert(*row)).map(|row| {
            let count = counts.get(row).copied().unwrap_or_default();
            let history = self.histories.by_row.get(row).unwrap_or(&NO_ATTEMPTS);
            let acknowledged = self.acknowledged.get(row).copied().unwrap_or_default();
            let recovered = history.finished().saturating_sub(acknowledged).min(count);
            IdenticalRows { row, count, recovered, parked: history.parked().min(count - recovered), history }
        });
        identical.collect()
    }

    /// The rows that occur more than once.
    pub(super) fn duplicates(&self) -> HashSet<LedgerRow> {
        counted(&self.rows).into_iter().filter(|(_, count)| *count > 1).map(|(row, _)| row.clone()).collect()
    }

    /// These rows, or newer ones if another process has written to a table since they were read.
    pub(super) fn refreshed(self, ledger: &JobLedger, table: LedgerTable) -> Result<Self> {
        let is_current =
            ledger.version(table)? == self.table_version && ledger.attempts_version()? == self.histories.version;
        if is_current { Ok(self) } else { Self::read(ledger, table) }
    }

    /// How many rows are pending after this cycle has acknowledged `acknowledged` rows in `commits` commits. Reads the
    /// table only if other processes have written to it, too.
    pub(super) fn count_left(
        &self,
        ledger: &JobLedger,
        table: LedgerTable,
        acknowledged: u64,
        commits: u64,
    ) -> Result<u64> {
        match (ledger.version(table)?, self.table_version) {
            (Some(now), Some(then)) if now == then + commits => {
                Ok((self.rows.len() as u64).saturating_sub(acknowledged))
            }
            (None, None) => Ok(0),
            _ => ledger.count_pending(table),
        }
    }
}

/// The number of `YES` rows for each of `rows` with a finished history. There are few such rows: a crash leaves them, or
/// identical rows of which some were delivered.
fn acknowledged(
    ledger: &JobLedger,
    table: LedgerTable,
    rows: &[LedgerRow],
    histories: &Histories,
) -> Result<HashMap<LedgerRow, u64>> {
    let is_finished = |row: &&LedgerRow| histories.by_row.get(row).is_some_and(|history| history.finished() > 0);
    let finished: Vec<LedgerRow> = rows.iter().filter(is_finished).cloned().collect();
    let wanted: HashSet<&LedgerRow> = finished.iter().collect();
    let mut counts: HashMap<LedgerRow, u64> = HashMap::new();
    for span in spans(&finished) {
        let filter = RowFilter {
            flag: Some(YES.to_owned()),
            since: span.and_then(|(first, _)| DateTime::from_timestamp_micros(first)),
            until: span.and_then(|(_, last)| DateTime::from_timestamp_micros(last.saturating_add(1))),
            ..RowFilter::default()
        };
        for row in JobLedger::rows_from_batch(table, &ledger.rows(table, &filter)?)? {
            if wanted.contains(&row) {
                *counts.entry(row).or_default() += 1;
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::super::attempts::AttemptOutcome;
    use super::*;
    use crate::ledger::LedgerTable::Notifications;

    fn ledger(dir: &tempfile::TempDir) -> JobLedger {
        JobLedger::open(dir.path().join("ledger").to_str().unwrap(), &HashMap::new(), None).unwrap()
    }

    #[test]
    fn attempts_that_the_retry_state_has_are_not_counted_again() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        ledger.log_job_completion("f", "a", "SUCCESS", DateTime::from_timestamp(1, 0)).unwrap();
        let rows = ledger.pending(Notifications).unwrap();
        let attempt = |outcome| Attempt::new(Notifications, &rows[0], 1, outcome, None, "test");
        ledger.append_attempts(&[AttemptOutcome::Sending, AttemptOutcome::Failed].map(attempt)).unwrap();
        let read = || {
            let mut histories = Histories::read(&ledger, Notifications, &rows).unwrap();
            (histories.by_row.remove(&rows[0]).unwrap(), histories.version, histories.is_up_to_date)
        };
        let (before, version, _) = read();
        let saved = SavedRetryState { rows: before.retry_state(&rows[0], 1), version, latest: rows[0].timestamp };
        ledger.save_retry_state(Notifications, &saved).unwrap();
        let (after, version, is_up_to_date) = read();
        assert_eq!((after.open_rows(1), before.open_rows(1)[0].failures), (before.open_rows(1), 1));
        assert_eq!((version, is_up_to_date), (saved.version, true));
        // There is something new, and all of it is about rows that the retry state has.
        ledger.append_attempts(&[attempt(AttemptOutcome::Sending)]).unwrap();
        assert!(!read().2);
    }

    #[test]
    fn a_store_that_fails_is_asked_for_the_retry_state_again() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        ledger.log_job_completion("f", "a", "SUCCESS", None).unwrap();
        let retries = dir.path().join("ledger/autosys_retries");
        std::fs::create_dir(&retries).unwrap();
        std::os::unix::fs::symlink("_delta_log", retries.join("_delta_log")).unwrap();
        let error = PendingRows::read(&ledger, Notifications).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (crate::ErrorKind::Storage, true), "{error}");
    }

    #[test]
    fn the_rows_that_are_left_are_counted_in_the_table_only_after_commits_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        let log = |job| ledger.log_job_completion("f", job, "SUCCESS", None).unwrap();
        ["a", "b", "c"].into_iter().for_each(log);
        let pending = PendingRows::read(&ledger, Notifications).unwrap();
        let left = |acknowledged, commits| pending.count_left(&ledger, Notifications, acknowledged, commits).unwrap();
        assert_eq!(left(0, 0), 3);
        // Of the next commit, the cycle knows what it did, if it made it.
        log("d");
        assert_eq!((left(2, 1), left(2, 0)), (1, 4));
    }
}
