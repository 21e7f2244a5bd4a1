//! When a request is tried again: `Retry-After`, jittered back-off, and the limits of a series of tries.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use tokio::time::Instant;

use crate::error::{Error, Result};

/// First wait without `Retry-After`. It doubles from try to try.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Longest wait that is chosen here. A server may ask for a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// A larger number of seconds in `Retry-After` counts as this one, so that adding it to a time cannot overflow.
const LONGEST_ASKED: f64 = u32::MAX as f64;

/// When an operation of several requests has to be over.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    pub(crate) at: Instant,
    limit: Duration,
}

impl Deadline {
    /// `limit` from now.
    pub fn after(limit: Duration) -> Self {
        // A longer limit would overflow the clock.
        Self { at: Instant::now() + limit.min(Duration::from_secs(u32::MAX.into())), limit }
    }

    pub(crate) fn is_over(self) -> bool {
        Instant::now() >= self.at
    }

    /// The seconds that were allowed in all.
    pub(crate) fn seconds(self) -> f64 {
        self.limit.as_secs_f64()
    }
}

/// How long the server asks to wait: `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3). A date is compared
/// with the server's own clock where the response has a `Date`.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = header_text(headers, RETRY_AFTER)?;
    if let Some(seconds) = text.parse::<f64>().ok().filter(|seconds| !seconds.is_nan()) {
        return Duration::try_from_secs_f64(seconds.min(LONGEST_ASKED)).ok();
    }
    let date = |text: &str| DateTime::parse_from_rfc2822(text).ok().map(|at| at.to_utc());
    let now = header_text(headers, DATE).and_then(date).unwrap_or_else(Utc::now);
    Some((date(text)? - now).to_std().unwrap_or(Duration::ZERO))
}

/// The value of `Retry-After` as the server wrote it, cut to 40 characters.
pub(crate) fn retry_after_text(headers: &HeaderMap) -> Option<String> {
    header_text(headers, RETRY_AFTER).map(|text| text.chars().take(40).collect())
}

fn header_text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::trim).filter(|text| !text.is_empty())
}

/// The wait before try `tried + 1`: half a second, doubled from try to try up to 20 seconds, of which a random part
/// between half and all is taken. It is not shorter than what the server `asked` for. Up to a tenth is added to that, so
/// that clients that were told the same moment do not all return at once.
pub(crate) fn backoff(tried: u32, asked: Option<Duration>) -> Duration {
    let doubled = FIRST_WAIT * 2_u32.saturating_pow(tried.clamp(1, 8) - 1);
    let own = doubled.min(LONGEST_WAIT).mul_f64(rand::random_range(0.5..=1.0));
    asked.map_or(own, |asked| asked.mul_f64(rand::random_range(1.0..=1.1)).max(own))
}

/// A series of tries of one request, and its limits.
#[derive(Debug)]
pub(crate) struct Retry {
    /// How many tries failed.
    pub(crate) tried: u32,
    unreached: u32,
    tries: u32,
    unreached_tries: u32,
    longest_asked: Duration,
    deadline: Option<Deadline>,
}

impl Retry {
    /// At most `tries` tries; at most `unreached_tries` in a row that get no response.
    pub(crate) fn new(tries: u32, unreached_tries: u32) -> Self {
        Self { tried: 0, unreached: 0, tries, unreached_tries, longest_asked: Duration::MAX, deadline: None }
    }

    /// Stops before `deadline`.
    pub(crate) fn until(self, deadline: Deadline) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// Waits at most this long where the server asks for more.
    pub(crate) fn with_longest_asked(self, longest_asked: Duration) -> Self {
        Self { longest_asked, ..self }
    }

    /// Counts a try that failed. Returns whether another one is allowed.
    pub(crate) fn count(&mut self, got_response: bool) -> bool {
        self.tried += 1;
        self.unreached = if got_response { 0 } else { self.unreached + 1 };
        self.tried < self.tries && self.unreached < self.unreached_tries
    }

    /// Counts a try that failed. Returns the wait before the next one; `asked` is what the server asked for.
    ///
    /// # Errors
    /// `failure`, when no other try is allowed.
    pub(crate) fn after(&mut self, failure: Error, got_response: bool, asked: Option<Duration>) -> Result<Duration> {
        if !self.count(got_response) {
            return Err(failure);
        }
        let wait = backoff(self.tried, asked.map(|asked| asked.min(self.longest_asked)));
        match self.deadline {
            Some(deadline) if Instant::now() + wait >= deadline.at => {
                let text = format!(
                    "{failure}; it was tried {} times, and the next try would be {:.0} seconds later, beyond the limit of {} seconds",
                    self.tried,
                    wait.as_secs_f64(),
                    deadline.seconds()
                );
                Err(Error::new(failure.kind(), text).with_retryable(true).with_source(failure))
            }
            _ => Ok(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn servers_say_seconds_or_a_date() {
        let seconds = |value: &str| {
            let headers = [(RETRY_AFTER, value), (DATE, "Wed, 21 Oct 2015 07:27:00 GMT")];
            let headers = HeaderMap::from_iter(headers.map(|(name, value)| (name, value.parse().unwrap())));
            retry_after(&headers).map(|wait| wait.as_secs_f64())
        };
        assert_eq!(seconds("7"), Some(7.0));
        assert_eq!(seconds("0.5"), Some(0.5));
        assert_eq!(seconds("1e300"), Some(LONGEST_ASKED));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(60.0));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:00:00 GMT"), Some(0.0), "a date in the past");
        for value in ["soon", "-3", "NaN", ""] {
            assert_eq!(seconds(value), None, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn waits_grow_and_respect_the_server() {
        for tried in 1..40 {
            let own = backoff(tried, None);
            assert!(own >= FIRST_WAIT / 2 && own <= LONGEST_WAIT, "{own:?} after {tried}");
            let asked = backoff(tried, Some(Duration::from_secs(30)));
            assert!(asked >= Duration::from_secs(30) && asked <= Duration::from_secs(33), "{asked:?}");
        }
        assert!(backoff(5, None) >= Duration::from_secs(4));
    }

    #[test]
    fn a_series_of_tries_ends_at_its_limits() {
        let failure = || Error::new(ErrorKind::Network, "away").with_retryable(true);
        let mut retry = Retry::new(3, 2).with_longest_asked(Duration::from_secs(1));
        assert!(retry.after(failure(), false, None).is_ok());
        assert!(retry.after(failure(), true, Some(Duration::from_secs(600))).unwrap() < Duration::from_secs(2));
        assert_eq!(retry.after(failure(), true, None).unwrap_err().to_string(), "away");
        let mut unreached = Retry::new(9, 2);
        assert!(unreached.count(false) && !unreached.count(false));
        let mut late = Retry::new(9, 9).until(Deadline::after(Duration::from_secs(5)));
        let error = late.after(failure(), true, Some(Duration::from_secs(60))).unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("beyond the limit of 5 seconds"), "{error}");
    }
}
