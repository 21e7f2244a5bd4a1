//! The options for retries: how often and how long the client of a store repeats a request.

use std::time::Duration;

use object_store::{BackoffConfig, RetryConfig};

use crate::duration;
use crate::error::{Error, Result};

/// The time after the beginning of a request in which it is repeated. With the time limit of the last attempt, a request
/// takes less than a minute.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_RETRIES: usize = 6;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// The names that delta-rs has for these options.
pub(super) const NAMES: [&str; 5] = [
    "max_retries",
    "retry_timeout",
    "backoff_config.init_backoff",
    "backoff_config.max_backoff",
    "backoff_config.base",
];

/// The retries without options.
pub(super) fn default() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: FIRST_BACKOFF, max_backoff: LONGEST_BACKOFF, base: 2.0 },
        max_retries: MAX_RETRIES,
        retry_timeout: RETRY_TIMEOUT,
    }
}

/// Sets the option `lower`, which the caller wrote as `name`.
pub(super) fn set(retry: &mut RetryConfig, name: &str, lower: &str, value: &str) -> Result<()> {
    let wrong = |expected: &str| Error::invalid(format!("the storage option '{name}' must be {expected}"));
    let time = || duration::parse(value).map_err(|_| wrong("a time such as '500ms', '10s' or '1m'"));
    match lower {
        "max_retries" => retry.max_retries = value.parse().map_err(|_| wrong("a whole number"))?,
        "retry_timeout" => retry.retry_timeout = time()?,
        "backoff_config.init_backoff" => retry.backoff.init_backoff = time()?.max(Duration::from_millis(1)),
        "backoff_config.max_backoff" => retry.backoff.max_backoff = time()?.max(Duration::from_millis(1)),
        _ => {
            retry.backoff.base = value
                .parse()
                .ok()
                .filter(|base: &f64| *base > 1.0 && *base <= 100.0)
                .ok_or_else(|| wrong("a number above 1 and up to 100"))?;
        }
    }
    // The client chooses each wait at random between these, so the interval must not be empty.
    retry.backoff.max_backoff = retry.backoff.max_backoff.max(retry.backoff.init_backoff);
    Ok(())
}
