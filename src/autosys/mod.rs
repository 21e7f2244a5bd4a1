//! AutoSys: turns pending ledger rows into events, and acknowledges the rows that AutoSys took.
//!
//! [`event`] says which event a status stands for, [`transport`] is the way an event takes, [`updater`] is one delivery
//! cycle over a ledger, and [`plan`] decides what that cycle does with each row.

pub mod backoff;
mod cycle;
pub mod event;
mod history;
mod lease;
mod open_rows;
mod pace;
pub mod plan;
pub mod report;
mod send;
pub mod snooze;
pub mod transport;
pub mod updater;

pub use backoff::Backoff;
pub use event::{Event, JobName, Mapping};
pub use plan::Order;
pub use report::{DeliveryReport, PlannedDelivery, RowFailure};
pub use snooze::Snooze;
pub use transport::callable::Callable;
pub use transport::rehearsal::Rehearsal;
pub use transport::run_command::{RunCommand, RunCommandOptions};
pub use transport::sendevent::{SendEvent, SendEventOptions};
#[cfg(feature = "ssh")]
pub use transport::ssh::{Ssh, SshOptions};
pub use transport::web_services::{EventNames, WebCredentials, WebServices, WebServicesOptions};
pub use transport::{Delivery, Gate, Outcome, Sent, Transport};
pub use updater::{AutosysUpdater, CONFIRM_WITHIN, UpdaterOptions};
