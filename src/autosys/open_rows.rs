//! What is pending and what is known of it, read at a cost that goes by what is pending and what is new.

use std::collections::{HashMap, HashSet};

use chrono::DateTime;

use super::history::History;
use crate::error::{ErrorKind, Result};
use crate::ledger::{Attempt, JobLedger, LedgerRow, LedgerTable, RowFilter, Standings};

/// Rows that are farther apart than this, in microseconds, have their attempts looked for separately.
const APART: i64 = 3_600_000_000;
/// The most separate looks.
const MOST_SPANS: usize = 16;
/// How often both looks are repeated because something was recorded between them.
const MOST_LOOKS: usize = 5;

/// What is pending, and what is known of it.
#[derive(Debug, Default)]
pub(super) struct OpenRows {
    pub(super) pending: Vec<LedgerRow>,
    pub(super) histories: HashMap<LedgerRow, History>,
    /// How many `YES` rows there are of each pending row that attempts have dealt with.
    pub(super) acknowledged: HashMap<LedgerRow, u64>,
    /// The version of the attempts table up to which attempts are in `histories`.
    pub(super) version: u64,
    /// The latest timestamp of a row that was ever tried.
    pub(super) latest: Option<i64>,
    /// Whether what was written down says the same.
    pub(super) as_written: bool,
    /// The version of the source table that `pending` is of at least.
    source_version: Option<u64>,
}

impl OpenRows {
    /// Reads them.
    pub(super) fn read(ledger: &JobLedger, source: LedgerTable) -> Result<Self> {
        let source_version = ledger.version(source)?;
        let pending = ledger.pending(source)?;
        let written = match ledger.standings(source) {
            // Somebody else's table, or a later version's: the attempts say it all.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                tracing::warn!(error = error.full_message(), "where the rows stand is not read from there");
                None
            }
            written => written?,
        };
        let mut looks = 0;
        let (histories, version, latest, as_written) = loop {
            looks += 1;
            if let Some(known) = known(ledger, source, &pending, written.as_ref(), looks >= MOST_LOOKS)? {
                break known;
            }
        };
        let acknowledged = acknowledged(ledger, source, &pending, &histories)?;
        Ok(Self { pending, histories, acknowledged, version, latest, as_written, source_version })
    }

    /// The rows of which there are several.
    pub(super) fn twins(&self) -> HashSet<LedgerRow> {
        let mut seen = HashSet::with_capacity(self.pending.len());
        self.pending.iter().filter(|row| !seen.insert(*row)).cloned().collect()
    }

    /// These, or newer ones if anything was written since they were read.
    pub(super) fn or_newer(self, ledger: &JobLedger, source: LedgerTable) -> Result<Self> {
        let same = ledger.version(source)? == self.source_version && ledger.attempts_version()? == self.version;
        if same { Ok(self) } else { Self::read(ledger, source) }
    }

    /// How many rows are pending after `flipped` of these were flipped in `commits` commits. Reads the table only if others
    /// have written to it as well.
    pub(super) fn left(&self, ledger: &JobLedger, source: LedgerTable, flipped: u64, commits: u64) -> Result<u64> {
        match (ledger.version(source)?, self.source_version) {
            (Some(now), Some(then)) if now == then + commits => Ok((self.pending.len() as u64).saturating_sub(flipped)),
            (None, None) => Ok(0),
            _ => ledger.count_pending(source),
        }
    }
}

type Known = (HashMap<LedgerRow, History>, u64, Option<i64>, bool);

/// The histories; None when something was recorded meanwhile, unless that has to be lived with.
fn known(
    ledger: &JobLedger,
    source: LedgerTable,
    pending: &[LedgerRow],
    written: Option<&Standings>,
    anyway: bool,
) -> Result<Option<Known>> {
    let news = match written {
        Some(written) => ledger.attempts_since(source, written.version, &|_| false)?.map(|news| (written, news)),
        None => None,
    };
    let Some((written, (news, version))) = news else {
        // Nothing was written down, or nobody knows what came after it.
        let (attempts, version) = ledger.attempts_about(source, &spans(pending))?;
        let latest = ledger.latest_attempted(source)?;
        return Ok(Some((
            History::of(&[], of_rows(attempts, &pending.iter().collect(), true)),
            version,
            latest,
            false,
        )));
    };
    let latest = news.iter().filter_map(|attempt| attempt.row.timestamp).fold(written.latest, |a, b| a.max(Some(b)));
    let standing: HashSet<&LedgerRow> = written.rows.iter().map(|standing| &standing.row).collect();
    // A row that is later than any that was tried by then was not tried by then.
    let is_new = |row: &LedgerRow| row.timestamp.is_some_and(|at| written.latest.is_none_or(|latest| at > latest));
    let unknown: HashSet<&LedgerRow> = pending.iter().filter(|row| !standing.contains(row) && !is_new(row)).collect();
    let as_written = news.is_empty() && unknown.is_empty();
    let mut attempts = of_rows(news, &unknown, false);
    if !unknown.is_empty() {
        let rows: Vec<LedgerRow> = unknown.iter().map(|row| (*row).clone()).collect();
        let (older, seen) = ledger.attempts_about(source, &spans(&rows))?;
        if seen != version && !anyway {
            return Ok(None);
        }
        attempts.extend(of_rows(older, &unknown, true));
    }
    Ok(Some((History::of(&written.rows, attempts), version, latest, as_written)))
}

/// The attempts that are, or are not, about one of `rows`.
fn of_rows(mut attempts: Vec<Attempt>, rows: &HashSet<&LedgerRow>, are: bool) -> Vec<Attempt> {
    attempts.retain(|attempt| rows.contains(&attempt.row) == are);
    attempts
}

/// A few spans of time in which all of `rows` are, both ends included; None where a row has no time.
fn spans(rows: &[LedgerRow]) -> Option<Vec<(i64, i64)>> {
    let mut times: Vec<i64> = rows.iter().map(|row| row.timestamp).collect::<Option<_>>()?;
    times.sort_unstable();
    let mut spans: Vec<(i64, i64)> = Vec::new();
    let mut gaps: Vec<i64> = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    gaps.sort_unstable_by_key(|gap| std::cmp::Reverse(*gap));
    let apart = gaps.get(MOST_SPANS - 1).map_or(APART, |gap| APART.max(*gap));
    for at in times {
        match spans.last_mut() {
            Some((_, until)) if at.saturating_sub(*until) <= apart => *until = at,
            _ => spans.push((at, at)),
        }
    }
    Some(spans)
}

/// How many `YES` rows there are of each pending row that attempts have dealt with: rarely any, as these are only left
/// by a crash or by identical rows of which some were delivered.
fn acknowledged(
    ledger: &JobLedger,
    source: LedgerTable,
    pending: &[LedgerRow],
    histories: &HashMap<LedgerRow, History>,
) -> Result<HashMap<LedgerRow, u64>> {
    let finished = |row: &LedgerRow| histories.get(row).is_some_and(|history| history.finished() > 0);
    let rows: HashSet<&LedgerRow> = pending.iter().filter(|row| finished(row)).collect();
    let mut counts: HashMap<LedgerRow, u64> = HashMap::new();
    let owned: Vec<LedgerRow> = rows.iter().map(|row| (*row).clone()).collect();
    let spans = if rows.is_empty() { Some(Vec::new()) } else { self::spans(&owned) };
    let spans = match spans {
        Some(spans) => spans.into_iter().map(|(since, until)| (Some(since), Some(until.saturating_add(1)))).collect(),
        None => vec![(None, None)],
    };
    for (since, until) in spans {
        let filter = RowFilter {
            flag: Some("YES".to_owned()),
            since: since.and_then(DateTime::from_timestamp_micros),
            until: until.and_then(DateTime::from_timestamp_micros),
            ..RowFilter::default()
        };
        for row in JobLedger::rows_from_batch(source, &ledger.rows(source, &filter)?)? {
            if rows.contains(&row) {
                *counts.entry(row).or_default() += 1;
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(timestamp: Option<i64>) -> LedgerRow {
        LedgerRow { file_name: None, job_id: Some("a".to_owned()), status: None, timestamp }
    }

    #[test]
    fn rows_far_apart_are_looked_for_separately() {
        let rows = |times: &[i64]| times.iter().map(|at| row(Some(*at))).collect::<Vec<_>>();
        assert_eq!(spans(&rows(&[])), Some(vec![]));
        assert_eq!(spans(&rows(&[9, 5, 7])), Some(vec![(5, 9)]));
        let year = 365 * 24 * APART;
        assert_eq!(spans(&rows(&[year, 5, year + 2])), Some(vec![(5, 5), (year, year + 2)]));
        assert_eq!(spans(&[row(Some(5)), row(None)]), None);
        let many = spans(&rows(&(0..100).map(|day| day * (24 * APART + day)).collect::<Vec<_>>())).unwrap();
        assert!((2..=MOST_SPANS).contains(&many.len()), "{many:?}");
        assert_eq!((many[0].0, many[many.len() - 1].1), (0, 99 * (24 * APART + 99)));
    }
}
