//! The retry state of pending rows, which each delivery cycle saves in the table `autosys_retries`. With it, a cycle reads
//! only the pending rows and the attempts since the last cycle. It can be computed again from the attempts.

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, filter_record_batch, kernels::cmp, not};
use chrono::{DateTime, Utc};

use crate::columns::{integer, text, time};
use crate::delta::{ConditionalWrite, SnapshotView};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::columns::{integers, new_batch, texts, times, value};
use crate::ledger::rows::{named_rows, row_columns};
use crate::ledger::tables::{RETRIES, ROW_TIMESTAMP, equal};
use crate::ledger::{JobLedger, LedgerRow, LedgerTable, if_exists};

/// What is to happen with a pending row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowState {
    /// It is to be sent.
    Open,
    /// It was given up.
    Parked,
    /// An identical row was delivered or settled.
    Finished,
}

impl RowState {
    const WORDS: [(Self, &str); 3] = [(Self::Open, "open"), (Self::Parked, "parked"), (Self::Finished, "finished")];

    fn word(self) -> Option<&'static str> {
        Self::WORDS.into_iter().find(|(state, _)| *state == self).map(|(_, word)| word)
    }

    fn parse(word: &str) -> Result<Self> {
        let state = Self::WORDS.into_iter().find(|(_, known)| *known == word).map(|(state, _)| state);
        let unknown = || format!("{} has the state {word:?}, which this version does not know", RETRIES.name);
        state.ok_or_else(|| Error::new(ErrorKind::Unsupported, unknown()))
    }
}

/// The result of the attempts of one row so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RowProgress {
    pub(super) state: RowState,
    /// The number of its next attempt.
    pub(super) next_attempt: i64,
    /// How many attempts failed, or can have failed.
    pub(super) failures: u64,
    /// The number of the last attempt of which it is in doubt whether it arrived.
    pub(super) in_doubt: Option<i64>,
}

impl RowProgress {
    /// A row without attempts after number `last`.
    pub(super) fn after(last: i64) -> Self {
        Self { state: RowState::Open, next_attempt: last.max(0).saturating_add(1), failures: 0, in_doubt: None }
    }
}

/// The retry state of one pending row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RetryState {
    pub(super) row: LedgerRow,
    pub(super) progress: RowProgress,
    pub(super) last_try: Option<DateTime<Utc>>,
    /// The row is not tried before this time. None: the next cycle tries it.
    pub(super) next_try: Option<DateTime<Utc>>,
}

/// The saved retry state of one table's rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct SavedRetryState {
    /// All rows that were pending, but for those with an attempt that has no outcome.
    pub(super) rows: Vec<RetryState>,
    /// The version of the attempts table up to which it includes the attempts.
    pub(super) version: u64,
    /// The latest timestamp of a row with an attempt, in microseconds since 1970 UTC. No later row was tried before.
    pub(super) latest: Option<i64>,
}

/// The ids of the transactions that hold `version` and `latest`.
fn version_key(table: LedgerTable) -> String {
    format!("jobrota.attempts/{}", table.name())
}

fn latest_key(table: LedgerTable) -> String {
    format!("jobrota.latest/{}", table.name())
}

impl JobLedger {
    /// The retry state that the last cycle saved for the pending rows of `table`. None if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store failed; [`ErrorKind::Unsupported`] for a table of a later version.
    pub(super) fn retry_state(&self, table: LedgerTable) -> Result<Option<SavedRetryState>> {
        let Some(retries) = self.opened(&RETRIES)? else { return Ok(None) };
        // The table can be deleted at any time.
        let state = if_exists(retries.read_snapshot(|view| read(view, table)))?;
        Ok(state.flatten())
    }

    /// Saves the retry state of the pending rows of `table`, in one commit.
    ///
    /// # Errors
    /// As [`JobLedger::retry_state`]; [`ErrorKind::Conflict`] (retryable) when other writers won until the timeout. Then
    /// nothing is lost, because it can be computed from the attempts.
    pub(super) fn save_retry_state(&self, table: LedgerTable, state: &SavedRetryState) -> Result<()> {
        let retries = self.created(&RETRIES)?;
        let ours = to_batch(table, &state.rows)?;
        let version = i64::try_from(state.version).unwrap_or(i64::MAX);
        let broken =
            |e| Error::new(ErrorKind::Internal, format!("cannot build rows of {}", RETRIES.name)).with_source(e);
        let committed = retries.replace(&mut |rows| {
            let is_ours = cmp::eq(texts(rows, "table_name")?, &arrow::array::StringArray::new_scalar(table.name()));
            let others = filter_record_batch(rows, &is_ours.and_then(|ours| not(&ours)).map_err(broken)?);
            let others = others.map_err(broken)?;
            let ours = ours.clone().with_schema(others.schema()).map_err(broken)?;
            let batch = concat_batches(&others.schema(), [&others, &ours]).map_err(broken)?;
            let mut transactions = vec![(version_key(table), version)];
            transactions.extend(state.latest.map(|latest| (latest_key(table), latest)));
            Ok(Some(ConditionalWrite { batch, transactions }))
        })?;
        retries.maintain_in_background(committed, |_| {});
        Ok(())
    }
}

fn read(view: &SnapshotView<'_>, table: LedgerTable) -> Result<Option<SavedRetryState>> {
    let Some(version) = view.transaction(&version_key(table))? else { return Ok(None) };
    let rows = from_batch(&view.scan(&equal("table_name", table.name()))?)?;
    let latest = view.transaction(&latest_key(table))?;
    Ok(Some(SavedRetryState { rows, version: u64::try_from(version).unwrap_or_default(), latest }))
}

fn to_batch(table: LedgerTable, states: &[RetryState]) -> Result<RecordBatch> {
    let [file, job, status, at] = row_columns(states.iter().map(|state| &state.row));
    let micros = |at: Option<DateTime<Utc>>| at.map(|at| at.timestamp_micros());
    let columns = vec![
        text(states, |_| Some(table.name())),
        file,
        job,
        status,
        at,
        text(states, |state| state.progress.state.word()),
        integer(states, |state| Some(state.progress.next_attempt)),
        integer(states, |state| i64::try_from(state.progress.failures).ok()),
        integer(states, |state| state.progress.in_doubt),
        time(states, |state| micros(state.last_try)),
        time(states, |state| micros(state.next_try)),
    ];
    new_batch(&RETRIES, columns)
}

fn from_batch(batch: &RecordBatch) -> Result<Vec<RetryState>> {
    let states = texts(batch, "state")?;
    let (next, failures, in_doubt) =
        (integers(batch, "next_attempt")?, integers(batch, "failures")?, integers(batch, "in_doubt")?);
    let (last_tries, next_tries) = (times(batch, "last_attempted_at")?, times(batch, "next_attempt_at")?);
    let instant = |column, at| value(column, at).and_then(DateTime::from_timestamp_micros);
    let state = |(at, row)| {
        let progress = RowProgress {
            state: RowState::parse(states.value(at))?,
            next_attempt: value(next, at).unwrap_or(1).max(1),
            failures: value(failures, at).and_then(|count| u64::try_from(count).ok()).unwrap_or_default(),
            in_doubt: value(in_doubt, at),
        };
        Ok(RetryState { row, progress, last_try: instant(last_tries, at), next_try: instant(next_tries, at) })
    };
    named_rows(batch, ROW_TIMESTAMP)?.into_iter().enumerate().map(state).collect()
}
