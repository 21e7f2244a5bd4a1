//! What a ledger holds, in counts.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};

use super::rows;
use super::tables::{FLAG, LedgerTable, NO, YES};
use crate::error::Result;

/// Counts of both tables and of the attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerSummary {
    /// The root as it was given.
    pub root: String,
    /// Counts of `autosys_job_log`.
    pub executions: TableSummary,
    /// Counts of `job_notifications`.
    pub notifications: TableSummary,
    /// Attempts by outcome.
    pub attempts: Vec<(String, u64)>,
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
    /// Timestamp of the oldest pending row, in microseconds since 1970 UTC.
    pub oldest_pending: Option<i64>,
}

/// The counts of `batch`, all rows of `table`.
pub(super) fn of_table(table: LedgerTable, batch: &RecordBatch) -> Result<TableSummary> {
    let flags = rows::strings(batch, FLAG)?;
    let mut summary = TableSummary::default();
    let mut by_status: BTreeMap<String, u64> = BTreeMap::new();
    for (number, row) in rows::from_batch(table, batch)?.into_iter().enumerate() {
        summary.rows += 1;
        match flags.is_valid(number).then(|| flags.value(number)) {
            Some(NO) => {
                summary.pending += 1;
                *by_status.entry(row.status.unwrap_or_else(|| "NULL".to_owned())).or_default() += 1;
                summary.oldest_pending = match (summary.oldest_pending, row.timestamp) {
                    (Some(oldest), Some(at)) => Some(oldest.min(at)),
                    (oldest, at) => oldest.or(at),
                };
            }
            Some(YES) => summary.acknowledged += 1,
            _ => summary.other_flags += 1,
        }
    }
    summary.pending_by_status = by_status.into_iter().collect();
    Ok(summary)
}

/// How often each outcome occurs in `outcomes`.
pub(super) fn count<'a>(outcomes: impl Iterator<Item = &'a str>) -> Vec<(String, u64)> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(outcome).or_default() += 1;
    }
    counts.into_iter().map(|(outcome, count)| (outcome.to_owned(), count)).collect()
}
