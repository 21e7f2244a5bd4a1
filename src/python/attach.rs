//! Calls Python from threads that Python did not start. A thread that asks for the GIL while the interpreter shuts down crashes
//! the process, so these threads are kept out then.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// The process whose interpreter shuts down; 0 before that. A forked child is another process.
static ENDING: AtomicU32 = AtomicU32::new(0);
/// How many threads of this process are in Python.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
static INSIDE_OF: AtomicU32 = AtomicU32::new(0);

/// How long the shutdown waits for threads that are in Python.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);

/// Counts a thread that is in Python.
struct ThreadInPython;

impl ThreadInPython {
    fn enter() -> Self {
        let pid = std::process::id();
        if INSIDE_OF.swap(pid, SeqCst) != pid {
            // The threads of the parent do not exist in a forked child.
            INSIDE.store(0, SeqCst);
        }
        loop {
            INSIDE.fetch_add(1, SeqCst);
            let inside = Self;
            if ENDING.load(SeqCst) != pid {
                return inside;
            }
            drop(inside);
            // Until the process has ended, or a late call lets threads in again.
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for ThreadInPython {
    fn drop(&mut self) {
        let _ = INSIDE.fetch_update(SeqCst, SeqCst, |count| Some(count.saturating_sub(1)));
    }
}

/// Runs `work` with the GIL on a thread that Python does not wait for. During the shutdown it does not return.
pub(super) fn attached<T>(work: impl FnOnce(Python<'_>) -> T) -> T {
    let _inside = ThreadInPython::enter();
    Python::attach(work)
}

/// Keeps further threads out of Python, and waits for those that are in. For the shutdown of the interpreter.
pub(super) fn end(py: Python<'_>) {
    let pid = std::process::id();
    ENDING.store(pid, SeqCst);
    if INSIDE_OF.load(SeqCst) != pid {
        return;
    }
    py.detach(|| {
        let begun = Instant::now();
        while INSIDE.load(SeqCst) > 0 && begun.elapsed() < SHUTDOWN_TIMEOUT {
            std::thread::sleep(PAUSE);
        }
    });
}

/// A call from Python during the shutdown, as from a function that was registered with `atexit`. Its threads can enter Python until it
/// returns.
pub(super) struct LateCall<'py>(Option<Python<'py>>);

impl<'py> LateCall<'py> {
    pub(super) fn begin(py: Python<'py>) -> Self {
        let late = ENDING.load(SeqCst) == std::process::id();
        if late {
            ENDING.store(0, SeqCst);
        }
        Self(late.then_some(py))
    }
}

impl Drop for LateCall<'_> {
    fn drop(&mut self) {
        if let Some(py) = self.0 {
            end(py);
        }
    }
}
