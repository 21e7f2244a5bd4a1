//! The rate limit: a maximum number of events per second, evenly spread. Bursts can overload AutoSys's event processor.

use std::time::{Duration, Instant};

/// When the next event can be sent.
#[derive(Debug)]
pub(super) struct RateLimiter {
    /// The time per event; zero for no limit.
    interval: Duration,
    /// When the next event can be sent; None: at once.
    pub(super) next: Option<Instant>,
}

impl RateLimiter {
    /// At most `rate` events a second; None is no limit.
    pub(super) fn new(rate: Option<f64>) -> Self {
        let interval = rate.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok()).unwrap_or_default();
        Self { interval, next: None }
    }

    /// Whether an event can be sent at `now`.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Records that `count` events are sent at `now`.
    pub(super) fn record(&mut self, now: Instant, count: usize) {
        if self.interval.is_zero() {
            return;
        }
        // Unused time is not made up for, so that there are no bursts.
        let begin = self.next.map_or(now, |next| next.max(now));
        self.next = begin.checked_add(self.interval.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_spread_evenly_and_unused_time_is_not_made_up_for() {
        let mut limiter = RateLimiter::new(Some(4.0));
        let begun = Instant::now();
        let mut now = begun;
        for _ in 0..9 {
            if !limiter.allows(now) {
                now = limiter.next.unwrap();
            }
            limiter.record(now, 1);
        }
        assert_eq!(now - begun, Duration::from_secs(2));
        let later = now + Duration::from_secs(60);
        limiter.record(later, 2);
        assert!(
            !limiter.allows(later + Duration::from_millis(499)) && limiter.allows(later + Duration::from_millis(500))
        );
        let mut free = RateLimiter::new(None);
        free.record(now, 1000);
        assert!(free.allows(now));
    }
}
