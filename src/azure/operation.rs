//! Operations that continue after their response: their status is asked for until they are over.
//!
//! Resource Manager answers such a POST with 202, and names in `Azure-AsyncOperation` or `Location` the address of its
//! status (Microsoft: "Track asynchronous Azure operations").

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::client::{ArmClient, CHECK_ENDPOINT};
use super::request::{ArmRequest, reason};
use crate::error::{Error, ErrorKind, Result};
use crate::http::retry::backoff;
use crate::http::{Deadline, Response};

/// Shortest wait between two requests for a status, also where the server says 0.
const SHORTEST_POLL: Duration = Duration::from_millis(100);
/// Longest wait between two requests for a status, where the server does not name one.
const LONGEST_POLL: Duration = Duration::from_secs(10);

/// The addresses of an operation that continues.
#[derive(Debug, Clone)]
pub struct ArmOperation {
    /// The address that is polled: that of its status, else that of its result, where 202 means that the operation still runs.
    polled: Url,
    has_status: bool,
    /// The address of its result.
    result: Option<Url>,
    retry_after: Option<Duration>,
}

/// How an operation ended.
#[derive(Debug, Clone)]
pub struct OperationResult {
    /// The result of the operation; null where there is none.
    pub output: Value,
    /// Code and message of its error; None if it succeeded.
    pub error: Option<String>,
}

impl ArmOperation {
    /// The operation that `response` started; `None` where it is over already.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] when its address is on another server, which would get the token, or missing.
    pub fn started_by(arm: &ArmClient, response: &Response) -> Result<Option<Self>> {
        let link = |name: &str| -> Result<Option<Url>> {
            let text = response.headers.get(name).and_then(|value| value.to_str().ok());
            text.filter(|text| !text.is_empty()).map(|text| arm.own_link(text)).transpose()
        };
        let (status, result) = (link("azure-asyncoperation")?, link("location")?);
        if response.status != StatusCode::ACCEPTED && status.is_none() {
            return Ok(None);
        }
        let has_status = status.is_some();
        let Some(polled) = status.or_else(|| result.clone()) else {
            let text = "Resource Manager accepted the operation and did not name the address of its status";
            return Err(Error::new(ErrorKind::Server, text));
        };
        Ok(Some(Self { polled, has_status, result, retry_after: response.retry_after() }))
    }
}

impl ArmClient {
    /// Asks for the status of `operation` until it is over, no more often than the server allows. Retryable errors are
    /// waited out.
    ///
    /// # Errors
    /// Those of [`ArmClient::send`] when the deadline is reached or Resource Manager does not know the operation; its result
    /// is unknown then.
    pub async fn follow(&self, operation: ArmOperation, deadline: Deadline) -> Result<OperationResult> {
        let request = ArmRequest::operation();
        let json = |response: &Response| response.json(&request.shown(), CHECK_ENDPOINT);
        let (mut asked, mut wanted) = (0, operation.retry_after);
        loop {
            asked += 1;
            let wait = poll_wait(asked, wanted);
            if Instant::now() + wait >= deadline.at {
                return Err(self.http.too_late(&request.shown(), deadline));
            }
            tokio::time::sleep(wait).await;
            let response = match self.send_to(&operation.polled, &request, deadline).await {
                Ok(response) => response,
                Err(error) if error.is_retryable() => {
                    tracing::debug!(error = error.to_string(), "the status of the operation is asked for again");
                    wanted = None;
                    continue;
                }
                Err(error) => return Err(error),
            };
            wanted = response.retry_after();
            if !operation.has_status {
                if response.status == StatusCode::ACCEPTED {
                    continue;
                }
                return Ok(OperationResult { output: json(&response)?, error: None });
            }
            let state = json(&response)?;
            let word = state.get("status").and_then(Value::as_str).unwrap_or_default();
            if !["succeeded", "failed", "canceled"].iter().any(|end| word.eq_ignore_ascii_case(end)) {
                continue;
            }
            let succeeded = word.eq_ignore_ascii_case("succeeded");
            let mut output = state.pointer("/properties/output").cloned().unwrap_or(Value::Null);
            if let (Value::Null, true, Some(result)) = (&output, succeeded, &operation.result) {
                output = json(&self.send_to(result, &request, deadline).await?)?;
            }
            let error = (!succeeded).then(|| match reason(&response.body) {
                reason if reason.is_empty() => format!("the operation ended as {word}"),
                reason => reason,
            });
            return Ok(OperationResult { output, error });
        }
    }
}

/// The wait before the status is asked for the `asked`-th time: what the server `wanted`, else like [`backoff`], between a
/// tenth of a second and ten.
fn poll_wait(asked: u32, wanted: Option<Duration>) -> Duration {
    let wait = wanted
        .map_or_else(|| backoff(asked, None).min(LONGEST_POLL), |wanted| wanted.mul_f64(rand::random_range(1.0..=1.1)));
    wait.max(SHORTEST_POLL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_asked_for_as_the_server_wants_it() {
        for asked in 1..40 {
            let own = poll_wait(asked, None);
            assert!(own >= Duration::from_millis(250) && own <= LONGEST_POLL, "{own:?} after {asked}");
            let wanted = poll_wait(asked, Some(Duration::from_secs(30)));
            assert!(wanted >= Duration::from_secs(30) && wanted <= Duration::from_secs(33), "{wanted:?}");
        }
        assert_eq!(poll_wait(1, Some(Duration::ZERO)), SHORTEST_POLL);
    }
}
