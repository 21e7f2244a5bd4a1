//! The one time limit that everything done for one VM shares.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// A point in time, and the time limit it came from (for messages).
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// `timeout` from now.
    pub(super) fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }

    /// When half of the time is over.
    pub(super) fn first_half(&self) -> Self {
        Self { at: self.at - self.timeout / 2, timeout: self.timeout / 2 }
    }

    /// The same time limit, counted from a later moment: what was lost before was not the VM's fault.
    pub(super) fn later_by(&self, lost: Duration) -> Self {
        Self { at: self.at + lost, timeout: self.timeout }
    }

    /// The time limit.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What is left of the time.
    pub(super) fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Waits until the time is over.
    pub(super) async fn over(&self) {
        tokio::time::sleep_until(self.at).await;
    }

    /// What `work` gives in time, or None.
    pub(super) async fn limit<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.at, work).await.ok()
    }
}

impl fmt::Display for Deadline {
    /// The time limit, as in "1s" or "250ms".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.timeout)
    }
}
