//! The back-off: how long a failed row waits before its next try.

use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use siphasher::sip::SipHasher13;

use crate::error::{Error, Result};
use crate::ledger::LedgerRow;

/// When a row can be tried again, from the number of its failures and the time of its last try; None: at once.
pub type NextTry<'a> = &'a dyn Fn(&LedgerRow, u64, DateTime<Utc>) -> Option<DateTime<Utc>>;

/// A waiting time that grows with each failure: `first`, then `factor` times as long each time, at most `longest`. Each time
/// is up to `jitter` of it shorter or longer.
///
/// The jitter depends only on the row and the number of its failures, so that every process computes the same time, and
/// rows that failed together are not tried together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    pub(crate) first: Duration,
    pub(crate) factor: f64,
    pub(crate) longest: Duration,
    pub(crate) jitter: f64,
}

impl Default for Backoff {
    /// A minute, twice as long each time, at most six hours, a tenth of it shorter or longer.
    fn default() -> Self {
        Self { first: Duration::from_secs(60), factor: 2.0, longest: Duration::from_secs(6 * 3600), jitter: 0.1 }
    }
}

impl Backoff {
    /// A back-off with these times.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for a factor below 1, a jitter that is not from 0 to 1, or a `longest` below
    /// `first`.
    pub fn new(first: Duration, factor: f64, longest: Duration, jitter: f64) -> Result<Self> {
        if !(factor >= 1.0 && factor.is_finite()) {
            return Err(Error::invalid(format!("the back-off's factor is {factor}; give at least 1")));
        }
        if !(0.0..=1.0).contains(&jitter) {
            return Err(Error::invalid(format!("the back-off's jitter is {jitter}; give 0 to 1, such as 0.1")));
        }
        if longest < first {
            return Err(Error::invalid(format!(
                "the back-off's longest waiting time, {} s, is below its first one, {} s",
                longest.as_secs_f64(),
                first.as_secs_f64()
            )));
        }
        Ok(Self { first, factor, longest, jitter })
    }

    /// When a row can be tried again that failed `failures` times, the last time at `last_try`.
    pub fn next_try(&self, row: &LedgerRow, failures: u64, last_try: DateTime<Utc>) -> DateTime<Utc> {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let wait = (self.first.as_secs_f64() * self.factor.powi(exponent)).min(self.longest.as_secs_f64());
        let wait = wait * (1.0 + self.jitter * (2.0 * draw(row, failures) - 1.0));
        let wait = Duration::try_from_secs_f64(wait).ok().and_then(|wait| TimeDelta::from_std(wait).ok());
        wait.and_then(|wait| last_try.checked_add_signed(wait)).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// A number from 0 to 1 that is the same in every process.
fn draw(row: &LedgerRow, failures: u64) -> f64 {
    let mut hasher = SipHasher13::new();
    row.hash(&mut hasher);
    failures.hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(job: &str) -> LedgerRow {
        LedgerRow { file_name: None, job_id: Some(job.to_owned()), status: None, timestamp: Some(1) }
    }

    fn waits(backoff: &Backoff, failures: u64) -> f64 {
        let now = Utc::now();
        (backoff.next_try(&row("a"), failures, now) - now).to_std().unwrap().as_secs_f64()
    }

    #[test]
    fn it_doubles_up_to_a_limit() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        let seconds: Vec<f64> = [1, 2, 3, 9, 10, 1000, u64::MAX].map(|failures| waits(&backoff, failures)).to_vec();
        assert_eq!(seconds, [60.0, 120.0, 240.0, 15360.0, 21600.0, 21600.0, 21600.0]);
    }

    #[test]
    fn rows_that_failed_together_come_back_apart() {
        let now = Utc::now();
        let at = |job: usize| Backoff::default().next_try(&row(&job.to_string()), 3, now);
        let times: std::collections::HashSet<_> = (0..100).map(at).collect();
        assert!(times.len() > 95, "{}", times.len());
        assert_eq!(at(1), at(1), "and every process says the same");
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let second = Duration::from_secs(1);
        for (factor, longest, jitter) in
            [(0.5, second, 0.1), (f64::NAN, second, 0.1), (2.0, Duration::ZERO, 0.1), (2.0, second, 1.5)]
        {
            assert!(Backoff::new(second, factor, longest, jitter).is_err(), "{factor} {longest:?} {jitter}");
        }
    }

    proptest! {
        #[test]
        fn it_is_never_off_by_more_than_the_jitter(failures in 1..60u64, jitter in 0.0..1.0f64, job in "[a-z]{1,8}") {
            let exact = Backoff { jitter: 0.0, ..Backoff::default() };
            let now = Utc::now();
            let wait = |backoff: &Backoff| (backoff.next_try(&row(&job), failures, now) - now).as_seconds_f64();
            let (without, with) = (wait(&exact), wait(&Backoff { jitter, ..exact }));
            prop_assert!((with - without).abs() <= without * jitter + 1e-6, "{without} {with}");
        }
    }
}
