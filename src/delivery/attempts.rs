//! Attempts to deliver rows, and their outcomes: the rows of `autosys_deliveries`.

use arrow::array::RecordBatch;
use arrow::compute::max;
use chrono::{DateTime, Utc};

use crate::columns::{integer, text, time};
use crate::delta::{CommitCheck, ConditionalWrite, NO_CHECK, Predicate};
use crate::error::Result;
use crate::ledger::columns::{integers, new_batch, texts, times, value};
use crate::ledger::rows::{named_rows, row_columns};
use crate::ledger::tables::{ATTEMPTED_AT, DELIVERIES, ROW_TIMESTAMP, equal};
use crate::ledger::{JobLedger, LedgerRow, LedgerTable, sorted, time_range};
use crate::runtime::{environment, this_process};

/// Rows that are farther apart than this, in microseconds, have their attempts read separately.
const MIN_GAP: i64 = 3_600_000_000;
/// The maximum number of separate reads.
const MAX_SPANS: usize = 16;

/// Detail of an attempt that was recorded as `sending`, but not sent because the delivery was stopped. It does not count:
/// the next attempt has the same number.
pub(super) const NOT_SENT: &str = "not sent: the delivery was stopped before its turn";

/// A range of row timestamps, in microseconds since 1970 UTC, both ends included. None is all of time.
pub(super) type TimeSpan = Option<(i64, i64)>;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It is being sent. Without another outcome for the same number, it is in doubt whether it arrived.
    Sending,
    /// AutoSys accepted the event.
    Delivered,
    /// AutoSys did not accept the event, or the event was not sent.
    Failed,
    /// It is in doubt whether the event arrived.
    Unknown,
    /// Acknowledged without sending, because a later row of the job was pending.
    Superseded,
    /// Given up until an operator acts.
    Parked,
    /// An operator returned the parked row to delivery.
    Redriven,
    /// Acknowledged without sending, because the row was too old.
    Expired,
    /// An operator settled the row.
    ByHand,
    /// A word that this version does not know. Later versions can write it.
    Other(String),
}

impl AttemptOutcome {
    const WORDS: [(Self, &str); 9] = [
        (Self::Sending, "sending"),
        (Self::Delivered, "delivered"),
        (Self::Failed, "failed"),
        (Self::Unknown, "unknown"),
        (Self::Superseded, "superseded"),
        (Self::Parked, "parked"),
        (Self::Redriven, "redriven"),
        (Self::Expired, "expired"),
        (Self::ByHand, "by_hand"),
    ];

    /// The word in the table.
    pub fn as_str(&self) -> &str {
        let known = || Self::WORDS.iter().find(|(outcome, _)| outcome == self).map_or("", |(_, word)| word);
        if let Self::Other(word) = self { word } else { known() }
    }

    /// The outcome with this word.
    pub fn parse(word: &str) -> Self {
        let known = Self::WORDS.into_iter().find(|(_, known)| *known == word);
        known.map_or_else(|| Self::Other(word.to_owned()), |(outcome, _)| outcome)
    }

    /// Whether an attempt with this outcome and `detail` was recorded as `sending`, and then not sent.
    pub(super) fn is_not_sent(&self, detail: Option<&str>) -> bool {
        *self == Self::Failed && detail == Some(NOT_SENT)
    }

    /// Whether an attempt with this outcome and `detail` ended a try, successful or not.
    pub(super) fn counts_as_try(&self, detail: Option<&str>) -> bool {
        matches!(self, Self::Delivered | Self::Failed | Self::Unknown | Self::Parked) && !self.is_not_sent(detail)
    }
}

/// One attempt to deliver one row: a row of `autosys_deliveries`.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The table that has the row.
    pub table: LedgerTable,
    /// The row.
    pub row: LedgerRow,
    /// The number of the attempt; 1 for the first attempt of this row.
    pub attempt: i64,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// The answer of the transport; never a secret.
    pub detail: Option<String>,
    /// Name of the transport.
    pub transport: String,
    /// The VM that sent the event, if any.
    pub vm: Option<String>,
    /// host:pid of the delivering process.
    pub delivered_by: String,
    /// The time of the attempt.
    pub attempted_at: DateTime<Utc>,
}

impl Attempt {
    /// An attempt that this process makes now, without a VM.
    pub(super) fn new(
        table: LedgerTable,
        row: &LedgerRow,
        attempt: i64,
        outcome: AttemptOutcome,
        detail: Option<String>,
        transport: &str,
    ) -> Self {
        let (row, transport) = (row.clone(), transport.to_owned());
        let (delivered_by, attempted_at) = (this_process(), environment().utc());
        Self { table, row, attempt, outcome, detail, transport, vm: None, delivered_by, attempted_at }
    }
}

impl JobLedger {
    /// Appends attempts in one commit of their own. The first call creates the attempts table. Returns the version of the
    /// table that has the attempts.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] (retryable) when other writers won until the timeout, [`crate::ErrorKind::Storage`]
    /// when the store failed.
    pub fn append_attempts(&self, attempts: &[Attempt]) -> Result<u64> {
        match attempts {
            [] => Ok(self.created(&DELIVERIES)?.version()),
            attempts => self.append_attempts_if(NO_CHECK, attempts),
        }
    }

    /// [`JobLedger::append_attempts`], if `check` permits the commit. Without attempts, the commit has transaction ids only.
    ///
    /// # Errors
    /// Those of `check`, and as [`JobLedger::append_attempts`].
    pub(super) fn append_attempts_if(&self, check: CommitCheck<'_>, attempts: &[Attempt]) -> Result<u64> {
        let (deliveries, batch) = (self.created(&DELIVERIES)?, to_batch(attempts)?);
        let version = deliveries.append_conditionally(&mut |view| {
            let transactions = check(view)?;
            Ok(Some(ConditionalWrite { batch: batch.clone(), transactions }))
        })?;
        Ok(version.unwrap_or_else(|| deliveries.version()))
    }

    /// The attempts to deliver rows of `table`, oldest first; none if the attempts table does not exist.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Storage`] when the store failed.
    pub fn attempts(&self, table: LedgerTable) -> Result<Vec<Attempt>> {
        from_batch(&self.matching_attempts(&equal("table_name", table.name()))?)
    }

    /// The attempts to deliver rows of `table` that were made at or after `since`, oldest first.
    ///
    /// # Errors
    /// As [`JobLedger::attempts`].
    pub(super) fn attempts_made_since(&self, table: LedgerTable, since: DateTime<Utc>) -> Result<Vec<Attempt>> {
        let time = time_range(ATTEMPTED_AT, Some(since), None);
        from_batch(&self.matching_attempts(&Predicate { time, ..equal("table_name", table.name()) })?)
    }

    /// Rows of the attempts table, oldest first; `since` is inclusive, `until` is exclusive.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] when there is no ledger at the root, [`crate::ErrorKind::Storage`] when the store
    /// failed.
    pub fn deliveries(&self, since: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Result<RecordBatch> {
        self.require_ledger()?;
        self.matching_attempts(&Predicate { equals: Vec::new(), time: time_range(ATTEMPTED_AT, since, until) })
    }

    fn matching_attempts(&self, predicate: &Predicate) -> Result<RecordBatch> {
        match self.opened(&DELIVERIES)? {
            Some(table) => sorted(&table.scan(predicate)?, ATTEMPTED_AT, None),
            None => Ok(RecordBatch::new_empty(DELIVERIES.schema.clone())),
        }
    }

    /// The newest version of the attempts table; 0 if it does not exist.
    ///
    /// # Errors
    /// As [`JobLedger::attempts`].
    pub(super) fn attempts_version(&self) -> Result<u64> {
        self.opened(&DELIVERIES)?.map_or(Ok(0), |deliveries| deliveries.newest_version())
    }

    /// The attempts to deliver rows of `table` that were recorded after version `known` of the attempts table, except
    /// those of the versions that `except` selects, and the newest version. None when the log no longer has these versions.
    ///
    /// # Errors
    /// As [`JobLedger::attempts`].
    pub(super) fn attempts_since(
        &self,
        table: LedgerTable,
        known: u64,
        except: &dyn Fn(u64) -> bool,
    ) -> Result<Option<(Vec<Attempt>, u64)>> {
        let Some(deliveries) = self.opened(&DELIVERIES)? else { return Ok(None) };
        let Some((rows, version)) = deliveries.appended_since(known, except)? else { return Ok(None) };
        let mut attempts = from_batch(&rows)?;
        attempts.retain(|attempt| attempt.table == table);
        Ok(Some((attempts, version)))
    }

    /// The attempts to deliver rows of `table` with timestamps in one of `spans`, and the version of the attempts table
    /// that was read; 0 if it does not exist.
    ///
    /// # Errors
    /// As [`JobLedger::attempts`].
    pub(super) fn attempts_about(&self, table: LedgerTable, spans: &[TimeSpan]) -> Result<(Vec<Attempt>, u64)> {
        let Some(deliveries) = self.opened(&DELIVERIES)? else { return Ok((Vec::new(), 0)) };
        deliveries.read_snapshot(|view| {
            let mut attempts = Vec::new();
            for span in spans {
                let mut predicate = equal("table_name", table.name());
                predicate.time = span.map(|(first, last)| (ROW_TIMESTAMP.to_owned(), Some(first), last.checked_add(1)));
                attempts.extend(from_batch(&view.scan(&predicate)?)?);
            }
            Ok((attempts, view.version()))
        })
    }

    /// The latest timestamp of a row of `table` that has an attempt, in microseconds since 1970 UTC. Reads only the newest
    /// files, as far as their statistics allow.
    ///
    /// # Errors
    /// As [`JobLedger::attempts`].
    pub(super) fn latest_attempted(&self, table: LedgerTable) -> Result<Option<i64>> {
        let Some(deliveries) = self.opened(&DELIVERIES)? else { return Ok(None) };
        // Each step reads farther back: most rows are attempted soon after they are logged.
        let now = environment().utc().timestamp_micros();
        for hours in [Some(1), Some(24), Some(24 * 31), None] {
            let mut predicate = equal("table_name", table.name());
            predicate.time = hours.map(|hours| (ROW_TIMESTAMP.to_owned(), Some(now - hours * 3_600_000_000), None));
            let latest = max(times(&deliveries.scan(&predicate)?, ROW_TIMESTAMP)?);
            if latest.is_some() {
                return Ok(latest);
            }
        }
        Ok(None)
    }
}

/// `attempts` as a batch of `autosys_deliveries`.
fn to_batch(attempts: &[Attempt]) -> Result<RecordBatch> {
    let [file, job, status, at] = row_columns(attempts.iter().map(|attempt| &attempt.row));
    let columns = vec![
        text(attempts, |attempt| Some(attempt.table.name())),
        file,
        job,
        status,
        at,
        integer(attempts, |attempt| Some(attempt.attempt)),
        text(attempts, |attempt| Some(attempt.outcome.as_str())),
        text(attempts, |attempt| attempt.detail.as_deref()),
        text(attempts, |attempt| Some(&attempt.transport)),
        text(attempts, |attempt| attempt.vm.as_deref()),
        text(attempts, |attempt| Some(&attempt.delivered_by)),
        time(attempts, |attempt| Some(attempt.attempted_at.timestamp_micros())),
    ];
    new_batch(&DELIVERIES, columns)
}

/// The attempts in a batch of `autosys_deliveries`, without those of tables that this version does not know.
pub(super) fn from_batch(batch: &RecordBatch) -> Result<Vec<Attempt>> {
    let (tables, numbers, attempted) =
        (texts(batch, "table_name")?, integers(batch, "attempt")?, times(batch, ATTEMPTED_AT)?);
    let (outcomes, details, transports) =
        (texts(batch, "outcome")?, texts(batch, "detail")?, texts(batch, "transport")?);
    let (vms, deliverers) = (texts(batch, "vm")?, texts(batch, "delivered_by")?);
    let attempts = named_rows(batch, ROW_TIMESTAMP)?.into_iter().enumerate().filter_map(|(at, row)| {
        Some(Attempt {
            table: LedgerTable::named(tables.value(at))?,
            row,
            attempt: numbers.value(at),
            outcome: AttemptOutcome::parse(value(outcomes, at).unwrap_or_default()),
            detail: value(details, at).map(str::to_owned),
            transport: value(transports, at).unwrap_or_default().to_owned(),
            vm: value(vms, at).map(str::to_owned),
            delivered_by: value(deliverers, at).unwrap_or_default().to_owned(),
            attempted_at: DateTime::from_timestamp_micros(attempted.value(at)).unwrap_or_default(),
        })
    });
    Ok(attempts.collect())
}

/// A few time spans that contain the timestamps of all `rows`. Rows without a timestamp need all of time.
pub(super) fn spans(rows: &[LedgerRow]) -> Vec<TimeSpan> {
    let Some(mut times) = rows.iter().map(|row| row.timestamp).collect::<Option<Vec<i64>>>() else { return vec![None] };
    times.sort_unstable();
    let mut gaps: Vec<i64> = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    gaps.sort_unstable_by_key(|gap| std::cmp::Reverse(*gap));
    let min_gap = gaps.get(MAX_SPANS - 1).map_or(MIN_GAP, |gap| MIN_GAP.max(*gap));
    let chunks = times.chunk_by(|before, after| after.saturating_sub(*before) <= min_gap);
    chunks.map(|chunk| Some((*chunk.first()?, *chunk.last()?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(timestamp: Option<i64>) -> LedgerRow {
        LedgerRow { file_name: None, job_id: Some("a".to_owned()), status: None, timestamp }
    }

    #[test]
    fn every_outcome_has_a_word_and_an_unknown_word_is_kept() {
        let words = AttemptOutcome::WORDS.map(|(outcome, _)| outcome.as_str().to_owned());
        assert_eq!(
            words,
            ["sending", "delivered", "failed", "unknown", "superseded", "parked", "redriven", "expired", "by_hand"]
        );
        assert!(AttemptOutcome::WORDS.into_iter().all(|(outcome, word)| AttemptOutcome::parse(word) == outcome));
        assert_eq!(AttemptOutcome::parse("of a later build").as_str(), "of a later build");
    }

    #[test]
    fn rows_far_apart_are_looked_for_separately() {
        let rows = |times: &[i64]| times.iter().map(|at| row(Some(*at))).collect::<Vec<_>>();
        assert_eq!(spans(&rows(&[])), []);
        assert_eq!(spans(&rows(&[9, 5, 7])), [Some((5, 9))]);
        let year = 365 * 24 * MIN_GAP;
        assert_eq!(spans(&rows(&[year, 5, year + 2])), [Some((5, 5)), Some((year, year + 2))]);
        let many = spans(&rows(&(0..100).map(|day| day * (24 * MIN_GAP + day)).collect::<Vec<_>>()));
        let many: Vec<_> = many.into_iter().flatten().collect();
        assert!((2..=MAX_SPANS).contains(&many.len()), "{many:?}");
        assert_eq!((many[0].0, many[many.len() - 1].1), (0, 99 * (24 * MIN_GAP + 99)));
    }

    #[test]
    fn a_row_without_a_timestamp_is_looked_for_everywhere() {
        assert_eq!(spans(&[row(Some(5)), row(None)]), [None]);
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_span_and_wide_gaps_are_in_none(
            hours in prop::collection::vec(0..2000i64, 1..40),
        ) {
            let rows: Vec<LedgerRow> = hours.iter().map(|hour| row(Some(hour * MIN_GAP))).collect();
            let spans: Vec<(i64, i64)> = spans(&rows).into_iter().flatten().collect();
            prop_assert!(spans.len() <= MAX_SPANS);
            for row in &rows {
                let inside = |(first, last): &&(i64, i64)| (*first..=*last).contains(&row.timestamp.unwrap());
                prop_assert_eq!(spans.iter().filter(inside).count(), 1);
            }
            prop_assert!(spans.windows(2).all(|pair| pair[1].0 - pair[0].1 > MIN_GAP));
        }
    }
}
