//! What a ledger holds and how its deliveries go, in numbers.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use chrono::{DateTime, TimeDelta, Utc};

use super::rows::{self, LedgerRow};
use super::tables::{ATTEMPTED_AT, DELIVERIES_SPEC, FLAG, LedgerTable, NO, YES};
use super::tried::was_sent;
use super::{JobLedger, span, unnotified};
use crate::delta::{Predicate, Tally};
use crate::error::Result;

/// Of which attempts outcomes are counted unless it is said.
const RECENT: TimeDelta = TimeDelta::hours(24);
/// An execution that is pending for longer should have had its notification.
const OVERDUE: Duration = Duration::from_secs(3600);

/// What pending rows are told apart by: for how long they have been pending.
pub const AGES: [&str; 4] = ["under_15m", "15m_to_1h", "1h_to_24h", "over_24h"];
/// From how many minutes on a pending row is in the next group of [`AGES`].
const LIMITS: [i64; 3] = [15, 60, 24 * 60];

/// When a row may be tried again that failed so often, the last time then; None is with the next delivery.
pub type NextTry<'a> = &'a (dyn Fn(&LedgerRow, u64, DateTime<Utc>) -> Option<DateTime<Utc>> + Sync);

/// Counts of both tables and of recent attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerSummary {
    /// The root as it was given.
    pub root: String,
    /// When it was made.
    pub made_at: DateTime<Utc>,
    /// The table whose rows are delivered: `job_notifications`, or the other one while that does not exist.
    pub source: LedgerTable,
    /// Counts of `autosys_job_log`.
    pub executions: TableSummary,
    /// Counts of `job_notifications`.
    pub notifications: TableSummary,
    /// Executions that are pending for over an hour and have no notification.
    pub unnotified: u64,
    /// The attempts since then are counted.
    pub since: DateTime<Utc>,
    /// Attempts by outcome.
    pub attempts: Vec<(String, u64)>,
    /// Which share of the tries delivered their row, from 0 to 1; none if there was no try.
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
    /// Rows with any other flag, NULL included: nobody will deliver them until they are mended.
    pub other_flags: u64,
    /// Pending rows by status; NULL as the text `NULL`.
    pub pending_by_status: Vec<(String, u64)>,
    /// Pending rows by the groups of [`AGES`]. One without a timestamp is as old as can be.
    pub pending_by_age: [u64; AGES.len()],
    /// Timestamp of the oldest pending row, in microseconds since 1970 UTC.
    pub oldest_pending: Option<i64>,
    /// Pending rows that were given up.
    pub parked: u64,
    /// Pending rows that were tried and failed, or may have, and are tried again.
    pub retrying: u64,
    /// When the first of these may be tried again; none if that is with the next delivery.
    pub next_retry: Option<DateTime<Utc>>,
}

impl JobLedger {
    /// Counts of both tables and of the attempts since `since` (of the last 24 hours, if None).
    ///
    /// Reads the pending rows and their attempts, and the attempts since `since`. Acknowledged rows are counted from the
    /// log of tables that are partitioned by the flag, and read where a table is not. When rows that failed are
    /// tried again is as the last cycle wrote it down, unless `next_try` says otherwise.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn summary(&self, since: Option<DateTime<Utc>>, next_try: Option<NextTry<'_>>) -> Result<LedgerSummary> {
        let now = Utc::now();
        let since = since.unwrap_or(now - RECENT);
        let (executions, pending_executions) = self.counts(LedgerTable::Executions, now, next_try)?;
        let (notifications, pending_notifications) = self.counts(LedgerTable::Notifications, now, next_try)?;
        let unnotified = match pending_executions {
            Some(pending) => self.without_notification(&pending, unnotified::before(now, OVERDUE))?.num_rows() as u64,
            None => 0,
        };
        let source = match pending_notifications {
            Some(_) => LedgerTable::Notifications,
            None => LedgerTable::Executions,
        };
        let time = span(ATTEMPTED_AT, Some(since), None);
        let attempts = match self.opened(&DELIVERIES_SPEC)? {
            Some(deliveries) => {
                let predicate = Predicate { equals: Vec::new(), time };
                outcomes(&deliveries.scan_columns(&predicate, &["outcome", "detail", ATTEMPTED_AT])?)?
            }
            None => (Vec::new(), None),
        };
        let root = self.inner.root.clone();
        let (attempts, success_rate) = attempts;
        let made_at = now;
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
    fn counts(
        &self,
        table: LedgerTable,
        now: DateTime<Utc>,
        next_try: Option<NextTry<'_>>,
    ) -> Result<(TableSummary, Option<RecordBatch>)> {
        let Some(found) = self.existing(table)? else { return Ok((TableSummary::default(), None)) };
        let Tally { counts, rows: pending } = found.tally(FLAG, NO)?;
        let pending = rows::as_utc(pending)?;
        let rows = rows::from_batch(table, &pending)?;
        let mut summary = of_pending(&rows, now);
        let of = |flag: &str| counts.get(&Some(flag.to_owned())).copied().unwrap_or_default();
        summary.rows = counts.values().sum();
        summary.acknowledged = of(YES);
        summary.other_flags = summary.rows - of(YES) - of(NO);
        self.add_tried(table, &rows, next_try, &mut summary)?;
        Ok((summary, Some(pending)))
    }

    /// What the attempts say of the pending rows.
    fn add_tried(
        &self,
        table: LedgerTable,
        pending: &[LedgerRow],
        next_try: Option<NextTry<'_>>,
        summary: &mut TableSummary,
    ) -> Result<()> {
        let tried = self.tried_in_short(table, pending)?;
        if tried.is_empty() {
            return Ok(());
        }
        let mut counts: BTreeMap<&LedgerRow, u64> = BTreeMap::new();
        pending.iter().filter(|row| tried.contains_key(row)).for_each(|row| *counts.entry(row).or_default() += 1);
        let mut at_once = false;
        for (row, count) in counts {
            let Some(tried) = tried.get(row) else { continue };
            let parked = tried.parked().min(count);
            summary.parked += parked;
            let (failures, last_try) = (tried.failures(), tried.last_try);
            if parked == count || failures == 0 {
                continue;
            }
            summary.retrying += count - parked;
            let asked = next_try.zip(last_try).and_then(|(next_try, last_try)| next_try(row, failures, last_try));
            match asked.or(tried.next_try) {
                Some(at) => summary.next_retry = Some(summary.next_retry.map_or(at, |before| before.min(at))),
                None => at_once = true,
            }
        }
        if at_once {
            summary.next_retry = None;
        }
        Ok(())
    }
}

/// What can be said of pending rows without looking elsewhere.
fn of_pending(pending: &[LedgerRow], now: DateTime<Utc>) -> TableSummary {
    let mut summary = TableSummary { pending: pending.len() as u64, ..TableSummary::default() };
    let mut by_status: BTreeMap<&str, u64> = BTreeMap::new();
    for row in pending {
        *by_status.entry(row.status.as_deref().unwrap_or("NULL")).or_default() += 1;
        summary.pending_by_age[age(row.timestamp, now)] += 1;
    }
    summary.oldest_pending = pending.iter().filter_map(|row| row.timestamp).min();
    summary.pending_by_status = by_status.into_iter().map(|(status, count)| (status.to_owned(), count)).collect();
    summary
}

/// The group of [`AGES`] of a row.
fn age(timestamp: Option<i64>, now: DateTime<Utc>) -> usize {
    let Some(timestamp) = timestamp else { return LIMITS.len() };
    let minutes = now.timestamp_micros().saturating_sub(timestamp) / 60_000_000;
    LIMITS.iter().filter(|limit| minutes >= **limit).count()
}

/// Attempts by outcome, and the success rate.
type Outcomes = (Vec<(String, u64)>, Option<f64>);

/// How often each outcome occurs, and which share of the tries delivered their row.
fn outcomes(attempts: &RecordBatch) -> Result<Outcomes> {
    let (outcomes, details) = (rows::strings(attempts, "outcome")?, rows::strings(attempts, "detail")?);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut tries, mut delivered) = (0_u64, 0_u64);
    let ends: HashSet<&str> = ["delivered", "failed", "unknown", "parked"].into();
    for row in (0..attempts.num_rows()).filter(|row| outcomes.is_valid(*row)) {
        let outcome = outcomes.value(row);
        *counts.entry(outcome).or_default() += 1;
        let detail = details.is_valid(row).then(|| details.value(row));
        if ends.contains(outcome) && was_sent(outcome, detail) {
            tries += 1;
            delivered += u64::from(outcome == "delivered");
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "a share; nobody needs its sixteenth digit")]
    let rate = (tries > 0).then(|| delivered as f64 / tries as f64);
    Ok((counts.into_iter().map(|(outcome, count)| (outcome.to_owned(), count)).collect(), rate))
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
