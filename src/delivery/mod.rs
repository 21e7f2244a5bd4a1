//! Delivery: attempts to deliver pending rows of the ledger to AutoSys, and their outcomes.
//!
//! | file | contents |
//! | --- | --- |
//! | `updater.rs` | [`AutosysUpdater`]: one delivery cycle, or one after the other |
//! | `options.rs`, `backoff.rs`, `snooze.rs`, `rate_limit.rs` | how and when it delivers |
//! | `lease.rs`, `epoch.rs` | the right to deliver, and what keeps an earlier holder of it from writing |
//! | `process.rs` | names a process, and tells whether it has ended |
//! | `pending.rs` | reads the pending rows and their histories |
//! | `attempts.rs`, `history.rs` | attempts and their outcomes; what they say about a row |
//! | `retry_state.rs` | saves what the next cycle needs |
//! | `in_doubt.rs` | until when a row waits whose process is gone |
//! | `plan.rs` | decides what happens with each pending row |
//! | `cycle.rs`, `sender.rs` | marks, sends, records and acknowledges rows |
//! | `report.rs` | what a cycle did |
//! | `operator.rs` | parked rows: list, redrive, settle |
//! | `summary.rs`, `prometheus.rs` | what is pending, and how deliveries go |

mod attempts;
mod backoff;
mod cycle;
mod epoch;
mod history;
mod in_doubt;
mod lease;
mod operator;
mod options;
mod pending;
mod plan;
mod process;
mod prometheus;
mod rate_limit;
mod report;
mod retry_state;
mod sender;
mod snooze;
mod summary;
#[cfg(test)]
mod tests;
mod updater;

pub use attempts::{Attempt, AttemptOutcome};
pub use backoff::{Backoff, NextTry};
pub use lease::Lease;
pub use operator::{AuditNote, ParkedRow, Settlement};
pub use options::{CONFIRM_WITHIN, UpdaterOptions};
pub use plan::Order;
pub use report::{DeliveryReport, PlannedDelivery, RowFailure};
pub use snooze::SnoozeWindow;
pub use summary::{AGES, LedgerSummary, TableSummary};
pub use updater::AutosysUpdater;
