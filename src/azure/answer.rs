//! An answer of Resource Manager, and what an error of it means.

use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::client::Call;
use super::retry;
use crate::error::{Error, ErrorKind, Result};

/// Longest text of the server that an error repeats, in characters.
const LONGEST_REASON: usize = 600;

/// An answer, of whatever status.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers; `Azure-AsyncOperation` is among them where an operation goes on.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] when it is none, as where a proxy answers with a page of its own.
    pub fn json(&self, what: &str) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let kind = self.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("no content type");
            let text = format!(
                "{what} was answered {} with {kind} where JSON was expected: see that endpoint is Resource Manager itself",
                self.status
            );
            Error::new(ErrorKind::Server, text).with_source(e)
        })
    }

    /// Whether the same call may be answered better later.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
    }

    /// How long the server asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        retry::retry_after(&self.headers, Utc::now())
    }

    /// The answer as an error that says what was asked and what to do. `token` is kept out of it, should the server have
    /// repeated it.
    pub(super) fn into_error(self, call: &Call, token: &str) -> Error {
        let what = call.shown();
        let mut reason = reason(&self.body);
        if !token.is_empty() {
            reason = reason.replace(token, "…");
        }
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let (kind, advice) = match self.status.as_u16() {
            401 => (
                ErrorKind::Authentication,
                "; the credential's token was refused twice: see that it is one for this tenant and cloud".to_owned(),
            ),
            403 => {
                let needed = call.needs.map_or_else(
                    || "; the credential is not allowed to".to_owned(),
                    |needed| {
                        let role = if needed.ends_with("/read") { "Reader" } else { "Virtual Machine Contributor" };
                        format!(
                            "; the credential needs the permission {needed} there, which the role {role} has, for one"
                        )
                    },
                );
                (ErrorKind::Authentication, needed)
            }
            404 | 410 => {
                (ErrorKind::NotFound, "; see that the names are right, and that the credential may see them".to_owned())
            }
            409 | 412 => (ErrorKind::Conflict, String::new()),
            429 => (
                ErrorKind::Server,
                "; Azure limits how often it is asked: try again later, or raise max_age".to_owned(),
            ),
            300..=399 => {
                (ErrorKind::Server, "; it redirects elsewhere: see that endpoint is Resource Manager itself".to_owned())
            }
            400 => (ErrorKind::InvalidInput, String::new()),
            _ => (ErrorKind::Server, String::new()),
        };
        let retryable = self.is_passing();
        Error::new(kind, format!("{what} was answered {}{reason}{advice}", self.status)).with_retryable(retryable)
    }
}

/// Code and message of ARM's error body `{"error": {"code": …, "message": …}}`.
pub(super) fn reason(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let error = value.get("error").unwrap_or(&value);
    let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    let text =
        [part("code"), part("message")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    let text = text.replace(['\r', '\n'], " ");
    match text.char_indices().nth(LONGEST_REASON) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, body: &str) -> Error {
        let call =
            Call::get("/subscriptions/s/providers/x", "2024-07-01").needing("Microsoft.Compute/virtualMachines/read");
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        answer.into_error(&call, "the-token")
    }

    #[test]
    fn an_error_says_what_is_missing() {
        let body = r#"{"error": {"code": "AuthorizationFailed", "message": "The client does not have authorization"}}"#;
        let forbidden = error(403, body);
        assert_eq!(forbidden.kind(), ErrorKind::Authentication);
        let text = forbidden.to_string();
        assert!(
            text.contains("AuthorizationFailed") && text.contains("Microsoft.Compute/virtualMachines/read"),
            "{text}"
        );
        assert!(!forbidden.is_retryable());
        assert_eq!(error(404, "").kind(), ErrorKind::NotFound);
        assert!(error(429, "").is_retryable() && error(503, "<html>").is_retryable());
        assert!(!error(400, "").is_retryable());
    }

    #[test]
    fn a_server_that_repeats_the_token_is_not_repeated() {
        let text = error(401, r#"{"error": {"code": "X", "message": "bad token the-token here"}}"#).to_string();
        assert!(!text.contains("the-token") && text.contains("bad token"), "{text}");
        let long = format!(r#"{{"error": {{"code": "X", "message": "{}"}}}}"#, "y".repeat(5_000));
        assert!(error(500, &long).to_string().len() < 1_000);
    }
}
