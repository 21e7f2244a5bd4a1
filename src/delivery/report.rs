//! The report of one delivery cycle.

use chrono::{DateTime, Utc};

use super::attempts::AttemptOutcome;
use super::plan::{Plan, UnsentRow};
use crate::ledger::LedgerRow;

/// The result of one delivery cycle. The counts are rows of the source table if nothing else is said.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct DeliveryReport {
    /// Sent, accepted by AutoSys and acknowledged.
    pub delivered: u64,
    /// Sent and refused; the next cycle tries them again.
    pub failed: u64,
    /// Acknowledged without being sent, because a later row of the job was pending.
    pub superseded: u64,
    /// Given up, in this cycle or an earlier one: still `NO`, and skipped.
    pub parked: u64,
    /// Acknowledged without being sent, because they were too old.
    pub expired: u64,
    /// Sent without an answer that says whether they arrived; the next cycle sends them again.
    pub unknown: u64,
    /// Acknowledged without being sent, because an earlier cycle delivered them and then ended early.
    pub recovered: u64,
    /// Not tried, because their next try is not due yet or they wait behind such a row.
    pub waiting: u64,
    /// Not tried, because jobs that go first are not delivered.
    pub held_back: u64,
    /// Planned, but not sent in the end; it counts as no attempt.
    pub not_tried: u64,
    /// `NO` after the cycle: failed, waiting behind a failed row, parked, or logged meanwhile.
    pub pending: u64,
    /// Rows of `autosys_job_log` that were acknowledged with the delivered notifications.
    pub settled: u64,
    /// Who delivers from this table, if that kept this cycle from sending or stopped it.
    pub lease_held_by: Option<String>,
    /// When the first of the waiting rows is due.
    pub next_try: Option<DateTime<Utc>>,
    /// When the snooze window ends, if one is open.
    pub snoozed_until: Option<DateTime<Utc>>,
    /// Whether the cycle was only a dry run.
    pub dry_run: bool,
    /// Whether the cycle was stopped before its end. Rows that were not tried stay pending.
    pub stopped: bool,
    /// The rows that were not delivered in this cycle, with the reason.
    pub failures: Vec<RowFailure>,
    /// What a dry run would have sent; otherwise empty.
    pub planned: Vec<PlannedDelivery>,
}

impl DeliveryReport {
    /// Adds what the plan does without sending.
    pub(super) fn add_plan(&mut self, plan: &Plan) {
        self.recovered = plan.recovered.len() as u64;
        self.superseded = plan.superseded.len() as u64;
        self.expired = plan.expired.len() as u64;
        self.parked = plan.parked_before + plan.park.len() as u64;
        self.waiting = plan.waiting;
        self.next_try = plan.next_try;
        let outcome = AttemptOutcome::Parked;
        let failure =
            |UnsentRow { row, attempt, reason: detail }| RowFailure { row, attempt, outcome: outcome.clone(), detail };
        self.failures.extend(plan.park.iter().cloned().map(failure));
    }

    /// Logs one record for the whole cycle: a warning if rows failed or are held back.
    pub(super) fn log(&self) {
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    delivered = self.delivered,
                    failed = self.failed,
                    parked = self.parked,
                    unknown = self.unknown,
                    superseded = self.superseded,
                    expired = self.expired,
                    recovered = self.recovered,
                    waiting = self.waiting,
                    pending = self.pending,
                    stopped = self.stopped,
                    lease_held_by = self.lease_held_by,
                    "delivery cycle ended"
                )
            };
        }
        if self.failures.is_empty() && self.held_back == 0 { log!(info) } else { log!(warn) }
    }
}

/// A row that was not delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct RowFailure {
    /// The row.
    pub row: LedgerRow,
    /// The number of the attempt.
    pub attempt: i64,
    /// Failed, unknown or parked.
    pub outcome: AttemptOutcome,
    /// The reason.
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
