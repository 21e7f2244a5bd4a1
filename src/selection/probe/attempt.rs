//! One probe of one address, and its time limit.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

/// The point in time until which a VM is probed, and the time limit that it comes from (for messages).
#[derive(Debug, Clone, Copy)]
pub(super) struct ProbeDeadline {
    at: Instant,
    pub(super) timeout: Duration,
}

impl ProbeDeadline {
    /// `timeout` from now.
    pub(super) fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }

    /// The end of the first half of the time.
    pub(super) fn first_half(&self) -> Self {
        Self { at: self.at - self.timeout / 2, timeout: self.timeout / 2 }
    }

    /// The same time limit, starting later: the VM did not cause the time that was lost before.
    pub(super) fn later_by(&self, lost: Duration) -> Self {
        Self { at: self.at + lost, timeout: self.timeout }
    }

    /// The time that is left.
    pub(super) fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Waits until the time is over.
    pub(super) async fn over(&self) {
        tokio::time::sleep_until(self.at).await;
    }

    /// The result of `work`, or None if it takes longer.
    pub(super) async fn limit<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.at, work).await.ok()
    }
}

impl fmt::Display for ProbeDeadline {
    /// The time limit, as in "1s" or "250ms".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.timeout)
    }
}

/// How long to wait for a file descriptor before asking for one again.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(10);

/// The outcome of probing one address.
pub(super) struct ProbeAttempt {
    /// The kind of the probe, as in [`super::ProbeOutcome::kind`].
    pub kind: String,
    /// How long the answer took, or why there was none.
    pub result: Result<Duration, String>,
}

/// Repeats an attempt while the process has no file descriptor for it. The VM did not cause that, so each attempt has the
/// whole time limit. Stops repeating when the limit has passed once.
pub(super) async fn with_descriptor<T, E, A: Future<Output = Result<T, E>>>(
    deadline: ProbeDeadline,
    attempt: impl Fn(ProbeDeadline) -> A,
    io_error: impl Fn(&E) -> Option<&io::Error>,
) -> Result<T, E> {
    let start = Instant::now();
    loop {
        let result = attempt(deadline.later_by(start.elapsed())).await;
        let none_left = result
            .as_ref()
            .err()
            .and_then(&io_error)
            .is_some_and(|e| matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)));
        if !none_left || deadline.remaining() < DESCRIPTOR_PAUSE {
            return result;
        }
        tokio::time::sleep(DESCRIPTOR_PAUSE).await;
    }
}

/// Describes why an address could not be reached.
pub(super) fn describe(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::ENETUNREACH) => "network unreachable: no route leads there",
        Some(libc::EHOSTUNREACH) => "host unreachable",
        Some(libc::EHOSTDOWN) => "host down",
        Some(libc::EPERM) => "this machine's own firewall forbids it",
        Some(libc::EACCES) => "it is administratively prohibited, or a broadcast address",
        Some(libc::EADDRNOTAVAIL) => "this machine has no address to send from",
        Some(libc::EINVAL) => "this machine's routes do not lead there",
        Some(libc::ENETDOWN) => "this machine's network is down",
        Some(libc::ENODEV | libc::ENXIO) => "this machine has no such network interface",
        Some(libc::ENOBUFS) => "this machine's send queue is full",
        Some(libc::EMFILE | libc::ENFILE) => {
            "not known whether it answers, as no file descriptor was free: raise the limit (ulimit -n)"
        }
        _ => return error.to_string(),
    };
    format!("{why} ({error})")
}
