//! The options of a delivery.

use std::collections::HashSet;
use std::time::Duration;

use super::backoff::Backoff;
use super::plan::Order;
use super::snooze::SnoozeWindow;
use crate::autosys::transport::Transport;
use crate::error::{Error, Result};
use crate::ledger::LedgerTable;

/// How long to wait until AutoSys shows an event, if no other time is given.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
/// The shortest time of a lease. It is renewed three times in this time, by a commit each.
const MIN_LEASE_TTL: Duration = Duration::from_millis(500);

/// How an [`super::AutosysUpdater`] delivers. Start from the default, because later versions add options.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct UpdaterOptions {
    /// The table whose rows are sent.
    pub source: LedgerTable,
    /// Parks a row after this number of failed attempts, at least 1. None never does.
    pub max_attempts: Option<i64>,
    /// The order in which rows are sent.
    pub order: Order,
    /// Jobs that must be delivered, and confirmed where the transport can, before any other row is sent.
    pub first: HashSet<String>,
    /// Jobs that are sent before others.
    pub priority: HashSet<String>,
    /// How many calls of the transport run at a time. At least 1.
    pub concurrency: usize,
    /// How long failed rows wait before they are tried again. None: the next cycle tries them.
    pub backoff: Option<Backoff>,
    /// The maximum number of events a second.
    pub rate: Option<f64>,
    /// Acknowledges older rows without sending them, with outcome `expired`.
    pub stale_after: Option<Duration>,
    /// Times at which nothing is sent.
    pub snooze: Vec<SnoozeWindow>,
    /// How long the lease stays valid when it is not renewed.
    pub lease_ttl: Duration,
    /// How long to wait until AutoSys shows an event. None does not wait.
    pub confirm: Option<Duration>,
    /// Sends nothing and writes nothing. The report says what would be sent.
    pub dry_run: bool,
    /// How long a cycle that is to stop waits for answers. Without an answer, a row is in doubt.
    pub stop_grace: Duration,
}

impl Default for UpdaterOptions {
    fn default() -> Self {
        Self {
            source: LedgerTable::Notifications,
            max_attempts: None,
            order: Order::PerJob,
            first: HashSet::new(),
            priority: HashSet::new(),
            concurrency: 8,
            backoff: None,
            rate: None,
            stale_after: None,
            snooze: Vec::new(),
            lease_ttl: Duration::from_secs(30),
            confirm: None,
            dry_run: false,
            stop_grace: Duration::from_secs(30),
        }
    }
}

impl UpdaterOptions {
    /// Refuses options that can never work.
    pub(super) fn check(&self, transport: &dyn Transport) -> Result<()> {
        let problem = if self.concurrency == 0 {
            "concurrency is 0, so that nothing would be sent; give at least 1".to_owned()
        } else if let Some(most @ ..1) = self.max_attempts {
            format!("max_attempts is {most}; give at least 1, or leave it out for no limit")
        } else if let Some(rate) = self.rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
            format!("rate is {rate} events a second; give more than 0, or leave it out for no limit")
        } else if self.stale_after.is_some_and(|age| age.is_zero()) {
            "stale_after is 0, so that every row would be too old; give more than 0".to_owned()
        } else if self.lease_ttl < MIN_LEASE_TTL {
            format!("lease_ttl is {} s; give at least half a second", self.lease_ttl.as_secs_f64())
        } else if self.confirm.is_some() && !transport.reads_status() {
            let name = transport.name();
            format!("confirm needs a transport that reads statuses: set autostatus or status_path of {name}")
        } else {
            return Ok(());
        };
        Err(Error::invalid(problem))
    }
}
