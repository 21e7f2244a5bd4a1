//! At most so many events a second, evenly spread: bulk events without pauses can overwhelm AutoSys's event processor.

use std::time::{Duration, Instant};

/// When the next event may be sent.
#[derive(Debug)]
pub(super) struct Pace {
    /// The time of one event; zero for no limit.
    each: Duration,
    next: Option<Instant>,
}

impl Pace {
    /// `rate` events a second; no limit, if none.
    pub(super) fn new(rate: Option<f64>) -> Self {
        let each = rate.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok()).unwrap_or_default();
        Self { each, next: None }
    }

    /// Whether one may be sent at `now`.
    pub(super) fn may_go(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Notes that `count` are sent at `now`.
    pub(super) fn gone(&mut self, now: Instant, count: usize) {
        if self.each.is_zero() {
            return;
        }
        // Time that was not used is not made up for: no bursts.
        let begin = self.next.map_or(now, |next| next.max(now));
        self.next = begin.checked_add(self.each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    /// When the next one may be sent; None when at once.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_spread_evenly_and_unused_time_is_not_made_up_for() {
        let mut pace = Pace::new(Some(4.0));
        let begun = Instant::now();
        let mut now = begun;
        for _ in 0..9 {
            if !pace.may_go(now) {
                now = pace.next().unwrap();
            }
            pace.gone(now, 1);
        }
        assert_eq!(now - begun, Duration::from_secs(2));
        let later = now + Duration::from_secs(60);
        pace.gone(later, 2);
        assert!(!pace.may_go(later + Duration::from_millis(499)) && pace.may_go(later + Duration::from_millis(500)));
        let mut free = Pace::new(None);
        free.gone(now, 1000);
        assert!(free.may_go(now));
    }
}
