//! Operations that go on after their answer: started once, and asked about until they are over.
//!
//! Resource Manager answers such a POST with 202 and says in `Azure-AsyncOperation` or `Location` where to ask
//! (Microsoft: "Track asynchronous Azure operations").

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::answer::Answer;
use super::client::{ArmClient, Call, Deadline};
use super::retry;
use crate::error::{Error, ErrorKind, Result};

/// What became of a request that is sent once.
#[derive(Debug)]
pub enum Posted {
    /// It was answered, with whatever status; for a success the body may have been lost.
    Answered(Answer),
    /// It was not sent.
    NotSent(Error),
    /// It was sent, and no answer came: whether it was taken is unknown.
    Lost(Error),
}

/// Where to ask about an operation that goes on.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Tells its status.
    status: Option<Url>,
    /// Tells its result, and before that that there is none yet.
    result: Option<Url>,
    retry_after: Option<Duration>,
}

/// How an operation ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Whether Resource Manager calls it succeeded.
    pub succeeded: bool,
    /// What it gave, in the shape of the operation's result; null where there is none.
    pub output: Value,
    /// Code and message of its error.
    pub error: Option<String>,
}

impl Operation {
    /// The operation that `answer` speaks of; `None` where it is over already.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] when it is to be asked about elsewhere, where the token would go along.
    pub fn of(arm: &ArmClient, answer: &Answer) -> Result<Option<Self>> {
        let link = |name: &str| -> Result<Option<Url>> {
            let text = answer.headers.get(name).and_then(|value| value.to_str().ok());
            text.filter(|text| !text.is_empty()).map(|text| arm.own_link(text)).transpose()
        };
        let (status, result) = (link("azure-asyncoperation")?, link("location")?);
        let goes_on = answer.status == StatusCode::ACCEPTED || status.is_some();
        if !goes_on {
            return Ok(None);
        }
        if status.is_none() && result.is_none() {
            let text = "Resource Manager took the operation and did not say where to ask about it";
            return Err(Error::new(ErrorKind::Server, text));
        }
        Ok(Some(Self { status, result, retry_after: answer.retry_after() }))
    }
}

impl ArmClient {
    /// Sends `call` once: again only with another token, after a 401, which did nothing. `may_send` is asked right before.
    ///
    /// # Errors
    /// None: each way it can go is a [`Posted`]. A closed gate is [`Posted::NotSent`], not retryable.
    pub async fn post_once(&self, call: &Call, deadline: Deadline, may_send: &(dyn Fn() -> bool + Sync)) -> Posted {
        let url = self.url(call);
        let mut refused = None;
        loop {
            let token = match self.token(deadline, refused.as_ref().map(AsRef::as_ref)).await {
                Ok(token) => token,
                Err(error) => return Posted::NotSent(error),
            };
            if !may_send() {
                return Posted::NotSent(Error::new(ErrorKind::Conflict, "the delivery was stopped before its turn"));
            }
            let response = match tokio::time::timeout_at(deadline.at(), self.begin(&url, call, token.text())).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) if never_sent(&error) => return Posted::NotSent(error),
                Ok(Err(error)) => return Posted::Lost(error),
                Err(_) => return Posted::Lost(self.late(call, deadline)),
            };
            let (status, headers) = (response.status(), response.headers().clone());
            if status == StatusCode::UNAUTHORIZED && refused.is_none() {
                refused = Some(token);
                continue;
            }
            // Status and headers say what was taken and where to ask about it, whatever becomes of the body.
            let body = tokio::time::timeout_at(deadline.at(), response.bytes()).await;
            let body = body.ok().and_then(std::result::Result::ok).unwrap_or_default();
            return Posted::Answered(Answer { status, headers, body });
        }
    }

    /// An answer other than a success as an error that says what to do.
    pub fn refusal(&self, call: &Call, answer: Answer) -> Error {
        answer.into_error(call, "")
    }

    /// Asks about `operation` until it is over, no more often than the server wants it. Errors that may pass are waited out.
    ///
    /// # Errors
    /// Those of [`ArmClient::send`] when the deadline is reached or Resource Manager does not know the operation; how it
    /// went is unknown then.
    pub async fn follow(&self, operation: Operation, deadline: Deadline) -> Result<Ended> {
        let call = Call::operation();
        let (mut asked, mut wanted) = (0, operation.retry_after);
        loop {
            asked += 1;
            let wait = retry::poll(asked, wanted);
            if Instant::now() + wait >= deadline.at() {
                return Err(self.late(&call, deadline));
            }
            tokio::time::sleep(wait).await;
            let Some(url) = operation.status.as_ref().or(operation.result.as_ref()) else {
                return Err(Error::new(ErrorKind::Internal, "an operation has nowhere to be asked about"));
            };
            let answer = match self.send_to(url, &call, deadline).await {
                Ok(answer) => answer,
                Err(error) if error.is_retryable() => {
                    tracing::debug!(error = error.to_string(), "the operation is asked about again");
                    wanted = None;
                    continue;
                }
                Err(error) => return Err(error),
            };
            wanted = answer.retry_after();
            if operation.status.is_none() {
                if answer.status == StatusCode::ACCEPTED {
                    continue;
                }
                return Ok(Ended { succeeded: true, output: answer.json(&call.shown())?, error: None });
            }
            let state = answer.json(&call.shown())?;
            let word = state.get("status").and_then(Value::as_str).unwrap_or_default();
            if !["succeeded", "failed", "canceled"].iter().any(|end| word.eq_ignore_ascii_case(end)) {
                continue;
            }
            let succeeded = word.eq_ignore_ascii_case("succeeded");
            let mut output = state.pointer("/properties/output").cloned().unwrap_or(Value::Null);
            if let (Value::Null, true, Some(result)) = (&output, succeeded, &operation.result) {
                output = self.send_to(result, &call, deadline).await?.json(&call.shown())?;
            }
            let error = (!succeeded).then(|| {
                let reason = super::answer::reason(&answer.body);
                if reason.is_empty() { format!("the operation ended as {word}") } else { reason }
            });
            return Ok(Ended { succeeded, output, error });
        }
    }
}

/// Whether the request surely did not leave this machine.
fn never_sent(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<reqwest::Error>());
    // Without a cause of the connection it was never put together.
    cause.is_none_or(|cause| cause.is_connect() || cause.is_builder())
}
