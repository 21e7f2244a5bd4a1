//! The summary: what a ledger has pending, and how its deliveries go, in numbers. Also the executions without a notification: their
//! driver was canceled between the two calls, so that AutoSys never gets their status unless an operator acts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use chrono::{DateTime, TimeDelta, Utc};

use super::attempts::AttemptOutcome;
use super::backoff::NextTry;
use super::in_doubt::Waits;
use super::pending::Histories;
use super::retry_state::RowProgress;
use crate::delta::{Predicate, ValueCounts};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::columns::{texts, times, value};
use crate::ledger::tables::{ATTEMPTED_AT, DELIVERIES, FLAG, NO, YES};
use crate::ledger::{JobLedger, LedgerRow, LedgerTable, RowFilter, rows, time_range};
use crate::runtime::environment;

/// The default age of the attempts that are counted.
const RECENT: TimeDelta = TimeDelta::hours(24);
/// A notification of an execution is missing if the execution is pending for longer than this.
const OVERDUE: Duration = Duration::from_secs(3600);

/// Groups of pending rows by age.
pub const AGES: [&str; 4] = ["under_15m", "15m_to_1h", "1h_to_24h", "over_24h"];
/// The age in minutes at which a pending row is in the next group of [`AGES`].
const AGE_LIMITS: [i64; 3] = [15, 60, 24 * 60];

/// Counts of both tables and of recent attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerSummary {
    /// The root as it was given.
    pub root: String,
    /// When the summary was made.
    pub made_at: DateTime<Utc>,
    /// The table whose rows are delivered: `job_notifications`, or `autosys_job_log` if that does not exist.
    pub source: LedgerTable,
    /// Counts of `autosys_job_log`.
    pub executions: TableSummary,
    /// Counts of `job_notifications`.
    pub notifications: TableSummary,
    /// Executions that are pending for over an hour and have no notification.
    pub unnotified: u64,
    /// Attempts since this time are counted.
    pub since: DateTime<Utc>,
    /// Attempts by outcome.
    pub attempts: Vec<(String, u64)>,
    /// The share of the tries that delivered their row, from 0 to 1; None if there was no try.
    pub success_rate: Option<f64>,
}

impl LedgerSummary {
    /// Counts of the table whose rows are delivered.
    pub fn delivered_table(&self) -> &TableSummary {
        match self.source {
            LedgerTable::Executions => &self.executions,
            LedgerTable::Notifications => &self.notifications,
        }
    }
}

/// Counts of one table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableSummary {
    /// All rows.
    pub rows: u64,
    /// Rows whose flag is exactly `NO`.
    pub pending: u64,
    /// Rows whose flag is exactly `YES`.
    pub acknowledged: u64,
    /// Rows with any other flag, including NULL. They are not delivered until their flag is corrected.
    pub other_flags: u64,
    /// Pending rows by status; NULL as the text `NULL`.
    pub pending_by_status: Vec<(String, u64)>,
    /// Pending rows by the groups of [`AGES`]. A row without a timestamp is in the oldest group.
    pub pending_by_age: [u64; AGES.len()],
    /// Timestamp of the oldest pending row, in microseconds since 1970 UTC.
    pub oldest_pending: Option<i64>,
    /// Pending rows that were given up.
    pub parked: u64,
    /// Pending rows that were tried, failed or can have failed, and are tried again.
    pub retrying: u64,
    /// When the first of these can be tried again; None if the next delivery tries it.
    pub next_retry: Option<DateTime<Utc>>,
}

impl JobLedger {
    /// Counts both tables, and the attempts since `since` (of the last 24 hours if None).
    ///
    /// Reads the pending rows and their attempts, and the attempts since `since`. Acknowledged rows are counted from the
    /// log of a table that is partitioned by the flag, and read from a table that is not. The time of the next try is the
    /// one that the last cycle saved, unless `next_try` returns another one.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn summary(&self, since: Option<DateTime<Utc>>, next_try: Option<NextTry<'_>>) -> Result<LedgerSummary> {
        let made_at = environment().utc();
        let since = since.unwrap_or(made_at - RECENT);
        let (executions, pending_executions) = self.table_summary(LedgerTable::Executions, made_at, next_try)?;
        let (notifications, pending_notifications) =
            self.table_summary(LedgerTable::Notifications, made_at, next_try)?;
        let unnotified = match pending_executions {
            Some(pending) => self.without_notification(&pending, before(made_at, OVERDUE))?.num_rows() as u64,
            None => 0,
        };
        let source = match pending_notifications {
            Some(_) => LedgerTable::Notifications,
            None => LedgerTable::Executions,
        };
        let (attempts, success_rate) = match self.opened(&DELIVERIES)? {
            Some(deliveries) => {
                let recent = Predicate { equals: Vec::new(), time: time_range(ATTEMPTED_AT, Some(since), None) };
                outcomes(&deliveries.scan_columns(&recent, &["outcome", "detail", ATTEMPTED_AT])?)?
            }
            None => (Vec::new(), None),
        };
        let root = self.root().to_owned();
        Ok(LedgerSummary {
            root,
            made_at,
            source,
            executions,
            notifications,
            unnotified,
            since,
            attempts,
            success_rate,
        })
    }

    /// The counts of one table, and its pending rows if it exists.
    fn table_summary(
        &self,
        table: LedgerTable,
        now: DateTime<Utc>,
        next_try: Option<NextTry<'_>>,
    ) -> Result<(TableSummary, Option<RecordBatch>)> {
        let Some(found) = self.existing(table)? else { return Ok((TableSummary::default(), None)) };
        let ValueCounts { counts, rows: pending } = found.count_values(FLAG, NO)?;
        let pending = rows::as_utc(pending)?;
        let rows = rows::from_batch(table, &pending)?;
        let count = |flag: &str| counts.get(&Some(flag.to_owned())).copied().unwrap_or_default();
        let all = counts.values().sum();
        let mut summary = TableSummary {
            rows: all,
            pending: rows.len() as u64,
            acknowledged: count(YES),
            other_flags: all - count(YES) - count(NO),
            oldest_pending: rows.iter().filter_map(|row| row.timestamp).min(),
            ..TableSummary::default()
        };
        let mut by_status: BTreeMap<&str, u64> = BTreeMap::new();
        for row in &rows {
            *by_status.entry(row.status.as_deref().unwrap_or("NULL")).or_default() += 1;
            summary.pending_by_age[age(row.timestamp, now)] += 1;
        }
        summary.pending_by_status = by_status.into_iter().map(|(status, count)| (status.to_owned(), count)).collect();
        self.add_attempts(table, &rows, now, next_try, &mut summary)?;
        Ok((summary, Some(pending)))
    }

    /// Adds what the attempts say about the pending rows.
    fn add_attempts(
        &self,
        table: LedgerTable,
        pending: &[LedgerRow],
        now: DateTime<Utc>,
        next_try: Option<NextTry<'_>>,
        summary: &mut TableSummary,
    ) -> Result<()> {
        let histories = Histories::read(self, table, pending)?.by_row;
        let mut retrying = Vec::new();
        for (row, count) in rows::counted(pending.iter().filter(|row| histories.contains_key(row))) {
            let Some(history) = histories.get(row) else { continue };
            let parked = history.parked().min(count);
            summary.parked += parked;
            let open = history.open_rows(count - parked).into_iter().filter(|progress| progress.failures > 0);
            retrying.extend(open.map(|progress| (row, history, progress)));
        }
        summary.retrying = retrying.len() as u64;
        let key = |row: &LedgerRow, progress: &RowProgress| Some((row.clone(), progress.in_doubt?));
        let in_doubt: HashSet<_> = retrying.iter().filter_map(|(row, _, progress)| key(row, progress)).collect();
        let leases = if in_doubt.is_empty() { Vec::new() } else { self.unreleased_leases(table.name())? };
        let waits = if leases.is_empty() { Waits::new() } else { self.waits(table, &in_doubt, &leases, now)? };
        let times = retrying.into_iter().map(|(row, history, progress)| {
            let asked = next_try.zip(history.last_try);
            let asked = asked.and_then(|(next_try, last_try)| next_try(row, progress.failures, last_try));
            let wait = key(row, &progress).and_then(|key| waits.get(&key).copied());
            asked.or(history.next_try).max(wait)
        });
        // None, the next delivery, is the earliest.
        summary.next_retry = times.min().flatten();
        Ok(())
    }
}

/// The group of [`AGES`] of a row.
fn age(timestamp: Option<i64>, now: DateTime<Utc>) -> usize {
    let Some(timestamp) = timestamp else { return AGE_LIMITS.len() };
    let minutes = now.timestamp_micros().saturating_sub(timestamp) / 60_000_000;
    AGE_LIMITS.iter().filter(|limit| minutes >= **limit).count()
}

/// The number of attempts by outcome.
type OutcomeCounts = Vec<(String, u64)>;

/// The number of attempts by outcome, and the share of the tries that delivered their row.
fn outcomes(attempts: &RecordBatch) -> Result<(OutcomeCounts, Option<f64>)> {
    let (outcomes, details) = (texts(attempts, "outcome")?, texts(attempts, "detail")?);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut tries, mut delivered) = (0_u64, 0_u64);
    for (row, word) in outcomes.iter().enumerate() {
        let Some(word) = word else { continue };
        *counts.entry(word).or_default() += 1;
        let outcome = AttemptOutcome::parse(word);
        if outcome.counts_as_try(value(details, row)) {
            tries += 1;
            delivered += u64::from(outcome == AttemptOutcome::Delivered);
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "a share does not need all digits")]
    let rate = (tries > 0).then(|| delivered as f64 / tries as f64);
    Ok((counts.into_iter().map(|(outcome, count)| (outcome.to_owned(), count)).collect(), rate))
}

impl JobLedger {
    /// The executions that are pending for longer than `older_than` without a notification of the same file and job at or
    /// after them: rows of `autosys_job_log`, oldest first. The status and flag of the notification do not matter. A NULL
    /// timestamp is earlier than any other. Reads the notifications since the oldest of these executions.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn executions_without_notification(&self, older_than: Duration) -> Result<RecordBatch> {
        let pending = self.rows(LedgerTable::Executions, &RowFilter::pending())?;
        self.without_notification(&pending, before(environment().utc(), older_than))
    }

    /// The rows of `pending` executions that are from before `limit` and have no notification.
    pub(super) fn without_notification(
        &self,
        pending: &RecordBatch,
        limit: Option<DateTime<Utc>>,
    ) -> Result<RecordBatch> {
        let Some(limit) = limit.map(|limit| limit.timestamp_micros()) else { return Ok(pending.slice(0, 0)) };
        let (files, jobs) = (texts(pending, "file_name")?, texts(pending, "job_id")?);
        let executed = times(pending, LedgerTable::Executions.timestamp_column())?;
        // The numbers of the rows without a notification, by file and job.
        let mut open: HashMap<_, Vec<usize>> = HashMap::new();
        for row in (0..pending.num_rows()).filter(|row| value(executed, *row).is_none_or(|at| at < limit)) {
            open.entry((value(files, row), value(jobs, row))).or_default().push(row);
        }
        // Pending notifications cost little to read, and often are enough.
        for flag in [Some(NO), None] {
            let Some(oldest) = open.values().flatten().map(|row| value(executed, *row)).min() else { break };
            let Some(table) = self.existing(LedgerTable::Notifications)? else { break };
            let equals = flag.map(|flag| (FLAG.to_owned(), flag.to_owned())).into_iter().collect();
            let column = LedgerTable::Notifications.timestamp_column();
            let time = time_range(column, oldest.and_then(DateTime::from_timestamp_micros), None);
            let found = rows::as_utc(table.scan(&Predicate { equals, time })?)?;
            let (files, jobs) = (texts(&found, "file_name")?, texts(&found, "job_id")?);
            let notified = times(&found, column)?;
            let mut latest: HashMap<_, Option<i64>> = HashMap::new();
            for row in 0..found.num_rows() {
                let at = latest.entry((value(files, row), value(jobs, row))).or_default();
                *at = (*at).max(value(notified, row));
            }
            for (names, rows) in &mut open {
                if let Some(latest) = latest.get(names) {
                    rows.retain(|row| value(executed, *row) > *latest);
                }
            }
        }
        let mut keep = vec![false; pending.num_rows()];
        open.values().flatten().for_each(|row| keep[*row] = true);
        filter_record_batch(pending, &BooleanArray::from(keep))
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot select executions").with_source(e))
    }
}

/// The time `duration` before `now`; None if the calendar does not have it.
fn before(now: DateTime<Utc>, duration: Duration) -> Option<DateTime<Utc>> {
    now.checked_sub_signed(TimeDelta::from_std(duration).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_in_the_group_that_its_age_begins() {
        let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let ages = [-5, 0, 14, 15, 59, 60, 1439, 1440, 999_999];
        let groups = ages.map(|minutes| age(Some((now - TimeDelta::minutes(minutes)).timestamp_micros()), now));
        assert_eq!(groups, [0, 0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(AGES[age(None, now)], "over_24h");
        assert_eq!(AGES[age(Some(i64::MIN), now)], "over_24h");
    }
}
