//! When to try again: `Retry-After` as seconds or as a date, and jittered back-off.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

/// First wait; doubled from try to try.
const FIRST: Duration = Duration::from_millis(500);
/// Longest wait of our own; what a server asks for may be longer.
const LONGEST: Duration = Duration::from_secs(20);
/// Shortest wait between two questions about an operation, also where the server says 0.
const SHORTEST_POLL: Duration = Duration::from_millis(100);
/// Longest wait between two questions about an operation, where the server does not say.
const LONGEST_POLL: Duration = Duration::from_secs(10);

/// How long the server asks to wait, seen from `now`: `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER).map(HeaderValue::to_str)?.ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = DateTime::parse_from_rfc2822(text).ok()?;
    Some((at.with_timezone(&Utc) - now).to_std().unwrap_or(Duration::ZERO))
}

/// The wait before try `tried + 1`: half a second, doubled from try to try up to 20, of which between half and all is
/// taken; never less than the server `asked` for, and then up to a tenth more, so that those it told the same moment do not
/// all come at once.
pub(crate) fn wait(tried: u32, asked: Option<Duration>) -> Duration {
    let own = (FIRST * 2_u32.saturating_pow(tried.clamp(1, 8) - 1)).min(LONGEST).mul_f64(rand::random_range(0.5..=1.0));
    asked.map_or(own, |asked| asked.mul_f64(rand::random_range(1.0..=1.1)).max(own))
}

/// The wait before an operation is asked about for the `asked`-th time: what the server wants, else like [`wait`], between
/// a tenth of a second and ten.
pub(super) fn poll(asked: u32, wanted: Option<Duration>) -> Duration {
    let wait = wanted
        .map_or_else(|| wait(asked, None).min(LONGEST_POLL), |wanted| wanted.mul_f64(rand::random_range(1.0..=1.1)));
    wait.max(SHORTEST_POLL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())])
    }

    #[test]
    fn servers_say_seconds_or_a_date() {
        let now = "2015-10-21T07:27:00Z".parse().unwrap();
        let seconds = |value: &str| retry_after(&headers(value), now).map(|wait| wait.as_secs());
        assert_eq!(seconds("7"), Some(7));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(60));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:00:00 GMT"), Some(0), "a date that has passed");
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-3"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn waits_grow_and_respect_the_server() {
        for tried in 1..40 {
            let own = wait(tried, None);
            assert!(own >= FIRST / 2 && own <= LONGEST, "{own:?} after {tried}");
            let asked = wait(tried, Some(Duration::from_secs(30)));
            assert!(asked >= Duration::from_secs(30) && asked <= Duration::from_secs(33), "{asked:?}");
        }
        assert!(wait(5, None) >= Duration::from_secs(4));
    }

    #[test]
    fn operations_are_asked_about_as_the_server_wants_it() {
        for asked in 1..40 {
            let own = poll(asked, None);
            assert!(own >= FIRST / 2 && own <= LONGEST_POLL, "{own:?} after {asked}");
            let wanted = poll(asked, Some(Duration::from_secs(30)));
            assert!(wanted >= Duration::from_secs(30) && wanted <= Duration::from_secs(33), "{wanted:?}");
        }
        assert_eq!(poll(1, Some(Duration::ZERO)), SHORTEST_POLL);
    }
}
