//! Renewals that are under way: a process that ends in the middle of one would lose the token that it was given.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

static UNDER_WAY: Mutex<usize> = Mutex::new(0);
static NOTHING_UNDER_WAY: Condvar = Condvar::new();

/// The process that counts: a forked one has none of its parent's renewals.
static COUNTED_IN: AtomicU32 = AtomicU32::new(0);

/// One renewal, while it lives.
pub(super) struct Renewal;

/// Counts a renewal in.
pub(super) fn begin() -> Renewal {
    let mut count = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let this = std::process::id();
    *count = if COUNTED_IN.swap(this, Ordering::AcqRel) == this { *count + 1 } else { 1 };
    Renewal
}

impl Drop for Renewal {
    fn drop(&mut self) {
        let mut count = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        if *count == 0 {
            NOTHING_UNDER_WAY.notify_all();
        }
    }
}

/// Waits until no renewal is under way, but not longer than `longest`; says whether that was reached.
pub fn drain(longest: Duration) -> bool {
    if COUNTED_IN.load(Ordering::Acquire) != std::process::id() {
        return true;
    }
    let count = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = NOTHING_UNDER_WAY.wait_timeout_while(count, longest, |count| *count > 0);
    !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}
