//! What one delivery cycle did.

use chrono::{DateTime, Utc};

use crate::ledger::LedgerRow;

/// The result of one delivery cycle, in rows of the source table unless said otherwise.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct DeliveryReport {
    /// Sent, taken by AutoSys and acknowledged.
    pub delivered: u64,
    /// Sent and refused; tried again in the next cycle.
    pub failed: u64,
    /// Acknowledged without being sent, because a later row of the job was pending.
    pub superseded: u64,
    /// Given up, in this cycle or an earlier one: still `NO`, and skipped.
    pub parked: u64,
    /// Acknowledged without being sent, because they came too late.
    pub expired: u64,
    /// Sent without an answer that says whether they arrived; sent again in the next cycle.
    pub unknown: u64,
    /// Acknowledged without being sent, because an earlier cycle had delivered them and then broken off.
    pub recovered: u64,
    /// Pending rows that were not tried, because their next try is not due yet or they wait behind such a row.
    pub waiting: u64,
    /// Pending rows that were not tried, because jobs that go first are not delivered.
    pub held_back: u64,
    /// Rows that were to be sent, but for which nothing was sent in the end; it counts as no attempt.
    pub not_tried: u64,
    /// Rows that are `NO` after the cycle: failed, waiting behind a failed one, parked, or logged meanwhile.
    pub pending: u64,
    /// Rows of `autosys_job_log` that were settled with the delivered notifications.
    pub settled: u64,
    /// Who delivers from this table right now, if that kept this cycle from sending or made it stop.
    pub lease_held_by: Option<String>,
    /// When the first of the waiting rows is due.
    pub next_try: Option<DateTime<Utc>>,
    /// Until when nothing is sent, if a window to leave AutoSys alone is open.
    pub snoozed_until: Option<DateTime<Utc>>,
    /// Whether the cycle was only shown, not done.
    pub dry_run: bool,
    /// Whether the cycle was stopped before it was through: rows that were not tried are pending as before.
    pub stopped: bool,
    /// The rows that were not delivered in this cycle, with the reason.
    pub failures: Vec<RowFailure>,
    /// What a dry run would have sent; otherwise empty.
    pub planned: Vec<PlannedDelivery>,
}

/// A row that was not delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct RowFailure {
    /// The row.
    pub row: LedgerRow,
    /// The attempt's number.
    pub attempt: i64,
    /// `failed`, `unknown` or `parked`.
    pub outcome: &'static str,
    /// Why.
    pub detail: String,
}

/// A row that a dry run would have sent.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedDelivery {
    /// The row.
    pub row: LedgerRow,
    /// What would have been done, such as the `sendevent` line.
    pub action: String,
}
