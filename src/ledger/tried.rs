//! What the attempts say about rows that are still pending, for those who look on: how often they were tried, and whether
//! they were given up.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::attempts::{self, Attempt};
use super::rows::LedgerRow;
use super::tables::{LedgerTable, YES};
use super::{JobLedger, RowFilter, Standing, StandingState};
use crate::delta::Predicate;
use crate::error::Result;

/// Rows that are farther apart than this, in microseconds, have their attempts looked for separately.
const APART: i64 = 3_600_000_000;
/// The most separate looks.
const MOST_LOOKS: usize = 16;
/// How the detail of a `failed` attempt begins whose row was not sent after all, because the delivery was stopped.
const NOT_SENT: &str = "not sent: ";

/// The attempts of one row, or of several identical ones, which nobody can tell apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Tried {
    /// The highest number of an attempt.
    pub(super) last: i64,
    /// How many rows were dealt with for good.
    pub(super) finished: u64,
    /// When it was last tried.
    pub(super) last_try: Option<DateTime<Utc>>,
    /// Before when it is not tried again, as was written down after its last try.
    pub(super) next_try: Option<DateTime<Utc>>,
    /// The number up to which attempts no longer count, because the row was redriven after them.
    redriven: i64,
    /// The attempts at which rows were given up, oldest first.
    parked: Vec<Attempt>,
    /// Rows that were given up before, by the number after which they were, as was written down.
    parked_before: Vec<i64>,
    /// How often it had been tried without success, and up to which number, as was written down.
    before: Option<(u64, i64)>,
    /// What speaks for a try of each number, less what says that it was not made after all.
    tries: BTreeMap<i64, i64>,
}

impl Tried {
    fn note(&mut self, attempt: Attempt) {
        self.last = self.last.max(attempt.attempt);
        match attempt.outcome.as_str() {
            "redriven" => {
                self.redriven = self.redriven.max(attempt.attempt);
                self.next_try = None;
            }
            "parked" => self.parked.push(attempt),
            "delivered" | "superseded" | "expired" | "by_hand" => self.finished += 1,
            outcome if !was_sent(outcome, attempt.detail.as_deref()) => {
                *self.tries.entry(attempt.attempt).or_default() -= 1;
            }
            _ => {
                *self.tries.entry(attempt.attempt).or_default() += 1;
                self.next_try = None;
                self.last_try = self.last_try.max(Some(attempt.attempted_at));
            }
        }
    }

    /// Takes in where a row stood.
    fn stand(&mut self, standing: &Standing) {
        self.last_try = self.last_try.max(standing.last_try);
        self.next_try = self.next_try.or(standing.next_try);
        let number = standing.next_attempt.saturating_sub(1);
        match standing.state {
            StandingState::Finished => self.finished += 1,
            StandingState::Parked => self.parked_before.push(number),
            StandingState::Open => self.before = self.before.max(Some((standing.failures, number))),
        }
    }

    fn is_redriven(&self, number: i64) -> bool {
        self.redriven > 0 && number <= self.redriven
    }

    /// How many rows are given up.
    pub(super) fn parked(&self) -> u64 {
        let before = self.parked_before.iter().filter(|number| !self.is_redriven(**number)).count();
        (before + self.given_up().count()) as u64
    }

    /// The attempts at which rows were given up that were not redriven since.
    pub(super) fn given_up(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.parked.iter().filter(|attempt| attempt.attempt > self.redriven)
    }

    /// How many tries failed, or may have, since the row was redriven. Of identical rows, those of the one tried most.
    pub(super) fn failures(&self) -> u64 {
        let before = self.before.filter(|(_, number)| !self.is_redriven(*number)).map_or(0, |(failures, _)| failures);
        let since = self.tries.iter().filter(|(number, tries)| **number > self.redriven && **tries > 0).count();
        before + since as u64
    }
}

/// Whether an attempt says that its row was sent, as far as it speaks of sending.
pub(super) fn was_sent(outcome: &str, detail: Option<&str>) -> bool {
    outcome != "failed" || !detail.is_some_and(|detail| detail.starts_with(NOT_SENT))
}

/// Identical pending rows, and what is known of them.
#[derive(Debug, Clone)]
pub(super) struct PendingRow {
    pub(super) row: LedgerRow,
    /// How many there are.
    pub(super) pending: u64,
    /// How many of them were dealt with for good by somebody who broke off before the flag was set.
    pub(super) recovered: u64,
    /// How many of them are given up.
    pub(super) parked: u64,
    pub(super) tried: Tried,
}

impl JobLedger {
    /// The pending rows of `table` (of those in `among`, if given), oldest first, identical ones as one.
    pub(super) fn pending_rows(
        &self,
        table: LedgerTable,
        among: Option<&HashSet<&LedgerRow>>,
    ) -> Result<Vec<PendingRow>> {
        let mut counts: HashMap<LedgerRow, u64> = HashMap::new();
        let mut order = Vec::new();
        for row in self.pending(table)? {
            if among.is_none_or(|among| among.contains(&row)) {
                let count = counts.entry(row.clone()).or_default();
                if *count == 0 {
                    order.push(row);
                }
                *count += 1;
            }
        }
        let mut tried = self.tried(table, &order)?;
        order
            .into_iter()
            .map(|row| {
                let pending = counts.get(&row).copied().unwrap_or_default();
                let tried = tried.remove(&row).unwrap_or_default();
                let recovered = match tried.finished {
                    0 => 0,
                    finished => finished.saturating_sub(self.acknowledged(table, &row)?).min(pending),
                };
                let parked = tried.parked().min(pending - recovered);
                Ok(PendingRow { row, pending, recovered, parked, tried })
            })
            .collect()
    }

    /// The attempts of each of `rows`, at a cost that goes by how long ago these are.
    pub(super) fn tried(&self, table: LedgerTable, rows: &[LedgerRow]) -> Result<HashMap<LedgerRow, Tried>> {
        let meant: HashSet<&LedgerRow> = rows.iter().collect();
        let mut tried: HashMap<LedgerRow, Tried> = HashMap::new();
        for time in spans(rows) {
            let time = time.map(|(first, last)| ("row_timestamp".to_owned(), Some(first), last.checked_add(1)));
            let equals = vec![("table_name".to_owned(), table.name().to_owned())];
            let found = attempts::from_batch(&self.deliveries_matching(&Predicate { equals, time })?)?;
            for attempt in found.into_iter().filter(|attempt| meant.contains(&attempt.row)) {
                match tried.get_mut(&attempt.row) {
                    Some(known) => known.note(attempt),
                    None => tried.entry(attempt.row.clone()).or_default().note(attempt),
                }
            }
        }
        Ok(tried)
    }

    /// As [`JobLedger::tried`], but from what the last delivery wrote down and the attempts since, as far as that goes: then
    /// the history costs nothing, and nobody knows any more why a row was given up.
    pub(super) fn tried_in_short(&self, table: LedgerTable, rows: &[LedgerRow]) -> Result<HashMap<LedgerRow, Tried>> {
        let Some(written) = self.standings(table)? else { return self.tried(table, rows) };
        let Some((news, _)) = self.attempts_since(table, written.version, &|_| false)? else {
            return self.tried(table, rows);
        };
        let standing: HashSet<&LedgerRow> = written.rows.iter().map(|standing| &standing.row).collect();
        // A row that is later than any that was tried by then was not tried by then.
        let is_new = |row: &LedgerRow| row.timestamp.is_some_and(|at| written.latest.is_none_or(|latest| at > latest));
        let (mut known, mut unknown) = (HashSet::new(), Vec::new());
        for row in rows {
            if standing.contains(row) || is_new(row) {
                known.insert(row);
            } else {
                unknown.push(row.clone());
            }
        }
        let mut tried = self.tried(table, &unknown)?;
        for standing in written.rows.iter().filter(|standing| known.contains(&standing.row)) {
            tried.entry(standing.row.clone()).or_default().stand(standing);
        }
        for attempt in news.into_iter().filter(|attempt| known.contains(&attempt.row)) {
            tried.entry(attempt.row.clone()).or_default().note(attempt);
        }
        Ok(tried)
    }

    /// How many acknowledged rows are identical to `row`.
    fn acknowledged(&self, table: LedgerTable, row: &LedgerRow) -> Result<u64> {
        let instant = row.timestamp.and_then(DateTime::from_timestamp_micros);
        let filter = RowFilter {
            flag: Some(YES.to_owned()),
            job_id: row.job_id.clone(),
            since: instant,
            until: instant.map(|at| at + TimeDelta::microseconds(1)),
            ..RowFilter::default()
        };
        let alike = Self::rows_from_batch(table, &self.rows(table, &filter)?)?;
        Ok(alike.iter().filter(|other| *other == row).count() as u64)
    }
}

/// The spans of time, ends included, in which the timestamps of `rows` lie, apart from each other; None for all of time,
/// as a row without a timestamp is found nowhere else.
fn spans(rows: &[LedgerRow]) -> Vec<Option<(i64, i64)>> {
    let mut times: Vec<Option<i64>> = rows.iter().map(|row| row.timestamp).collect();
    times.sort_unstable();
    if times.first() == Some(&None) {
        return vec![None];
    }
    let times: Vec<i64> = times.into_iter().flatten().collect();
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Vec::new() };
    let mut gaps: Vec<(i64, i64)> =
        times.windows(2).map(|pair| (pair[0], pair[1])).filter(|(a, b)| b.saturating_sub(*a) > APART).collect();
    // The widest ones save the most.
    gaps.sort_unstable_by_key(|(a, b)| std::cmp::Reverse(b.saturating_sub(*a)));
    gaps.truncate(MOST_LOOKS - 1);
    gaps.sort_unstable();
    let begins = std::iter::once(*first).chain(gaps.iter().map(|(_, after)| *after));
    let ends = gaps.iter().map(|(before, _)| *before).chain(std::iter::once(*last));
    begins.zip(ends).map(Some).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(timestamp: Option<i64>) -> LedgerRow {
        LedgerRow { file_name: None, job_id: None, status: None, timestamp }
    }

    #[test]
    fn a_row_without_a_timestamp_is_looked_for_everywhere() {
        assert_eq!(spans(&[row(Some(1)), row(None)]), [None]);
        assert_eq!(spans(&[]), []);
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_span_and_wide_gaps_are_in_none(
            hours in prop::collection::vec(0..2000i64, 1..40),
        ) {
            let rows: Vec<LedgerRow> = hours.iter().map(|hour| row(Some(hour * APART))).collect();
            let spans: Vec<(i64, i64)> = spans(&rows).into_iter().flatten().collect();
            prop_assert!(spans.len() <= MOST_LOOKS);
            for row in &rows {
                let inside = |(first, last): &&(i64, i64)| (*first..=*last).contains(&row.timestamp.unwrap());
                prop_assert_eq!(spans.iter().filter(inside).count(), 1);
            }
            prop_assert!(spans.windows(2).all(|pair| pair[1].0 - pair[0].1 > APART));
        }
    }
}
