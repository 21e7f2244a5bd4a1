//! One probe of one address.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::deadline::Deadline;

/// How long to wait for a file descriptor before asking for one again.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(10);

/// What came of probing one address.
pub(super) struct Attempt {
    /// The kind of probe that was used, as in [`super::ProbeOutcome::kind`].
    pub kind: String,
    /// How long the answer took, or why there was none.
    pub result: Result<Duration, String>,
}

/// Makes an attempt again for as long as the process has no file descriptor for it, which is not the VM's fault: each
/// time it is given the whole time limit anew. Gives up when the limit has passed once.
pub(super) async fn with_descriptor<T, E, A: Future<Output = Result<T, E>>>(
    deadline: Deadline,
    attempt: impl Fn(Deadline) -> A,
    io_error: impl Fn(&E) -> Option<&io::Error>,
) -> Result<T, E> {
    let start = Instant::now();
    loop {
        let result = attempt(deadline.later_by(start.elapsed())).await;
        let none_left = result.as_ref().err().and_then(&io_error).is_some_and(no_descriptor);
        if !none_left || deadline.remaining() < DESCRIPTOR_PAUSE {
            return result;
        }
        tokio::time::sleep(DESCRIPTOR_PAUSE).await;
    }
}

/// Whether the process or the machine has no file descriptor left.
fn no_descriptor(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Why nothing got to an address or was refused on the way, in words.
pub(super) fn in_words(error: &io::Error) -> String {
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
