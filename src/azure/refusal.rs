//! What an error response of Resource Manager means.

use reqwest::StatusCode;
use serde_json::Value;

use super::request::ArmRequest;
use crate::error::{Error, ErrorKind};
use crate::http::Response;
use crate::http::secret::one_line;

/// Longest text of the server that an error repeats, in characters.
const LONGEST_REASON: usize = 600;

/// Whether the same request may succeed later.
pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// A response other than a success as an error that says what was asked and what to do.
pub fn refusal(request: &ArmRequest, response: &Response) -> Error {
    let reason = match reason(&response.body) {
        reason if reason.is_empty() => reason,
        reason => format!(": {reason}"),
    };
    let (kind, advice) = match response.status.as_u16() {
        401 => (
            ErrorKind::Authentication,
            "; the credential's token was refused twice: check that it is for this tenant and cloud".to_owned(),
        ),
        403 => {
            let advice = request.permission.map_or_else(
                || "; the credential is not allowed to".to_owned(),
                |needed| {
                    let role = if needed.ends_with("/read") { "Reader" } else { "Virtual Machine Contributor" };
                    format!("; the credential needs the permission {needed} there, for example with the role {role}")
                },
            );
            (ErrorKind::Authentication, advice)
        }
        404 | 410 => {
            (ErrorKind::NotFound, "; check that the names are right, and that the credential may see them".to_owned())
        }
        409 | 412 => (ErrorKind::Conflict, String::new()),
        429 => {
            (ErrorKind::Server, "; Azure limits how often it is asked: try again later, or raise max_age".to_owned())
        }
        300..=399 => {
            (ErrorKind::Server, "; it redirects elsewhere: check that endpoint is Resource Manager itself".to_owned())
        }
        400 => (ErrorKind::InvalidInput, String::new()),
        _ => (ErrorKind::Server, String::new()),
    };
    let text = format!("{} was answered {}{reason}{advice}", request.shown(), response.status);
    Error::new(kind, text).with_retryable(is_transient(response.status))
}

/// Code and message of ARM's error body `{"error": {"code": …, "message": …}}`.
pub(super) fn reason(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let error = value.get("error").unwrap_or(&value);
    let part = |name: &str| error.get(name).and_then(Value::as_str).map(str::trim).filter(|part| !part.is_empty());
    let text = [part("code"), part("message")].into_iter().flatten().collect::<Vec<_>>().join(": ");
    one_line(&text, LONGEST_REASON)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, body: &str) -> Error {
        let request = ArmRequest::get("/subscriptions/s/providers/x", "2024-07-01")
            .needing("Microsoft.Compute/virtualMachines/read");
        refusal(&request, &Response::of(status, body))
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
    fn long_reasons_are_cut() {
        let long = format!(r#"{{"error": {{"code": "X", "message": "{}"}}}}"#, "y".repeat(5_000));
        assert!(error(500, &long).to_string().len() < 1_000);
    }
}
