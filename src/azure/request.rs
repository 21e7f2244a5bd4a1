//! One request to Resource Manager, and what an error response means.

use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::resource_id::escaped;
use crate::error::{Error, ErrorKind};
use crate::http::Response;
use crate::http::secret::one_line;

/// Longest text of the server that an error repeats, in characters.
const LONGEST_REASON: usize = 600;

/// What Resource Manager is asked.
#[derive(Debug, Clone)]
pub struct ArmRequest {
    pub(super) method: Method,
    /// A path on Resource Manager's own host, escaped.
    path: String,
    query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    pub(super) permission: Option<&'static str>,
}

impl ArmRequest {
    /// A GET of `path` with a version of the interface. ARM refuses a request without a version.
    pub fn get(path: impl Into<String>, api_version: &str) -> Self {
        let query = vec![("api-version", api_version.to_owned())];
        Self { method: Method::GET, path: path.into(), query, body: None, permission: None }
    }

    /// A POST of `body`. It is repeated only where the server says that it did nothing (401 and 429).
    pub fn post(path: impl Into<String>, api_version: &str, body: Value) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(path, api_version) }
    }

    /// A GET of the status of an operation, for errors. Its address is not shown, because it holds a token.
    pub(super) fn operation() -> Self {
        Self { query: Vec::new(), ..Self::get("of the operation", "") }
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Names the permission that the request needs, for the error when it is missing.
    pub fn needing(mut self, permission: &'static str) -> Self {
        self.permission = Some(permission);
        self
    }

    /// The path of a listing: `kind` of `provider` in the subscription, or in one of its resource groups.
    pub fn listing_path(subscription: &str, resource_group: Option<&str>, provider: &str, kind: &str) -> String {
        let mut segments = vec!["subscriptions", subscription];
        if let Some(group) = resource_group {
            segments.extend(["resourceGroups", group]);
        }
        segments.extend(["providers", provider, kind]);
        escaped(&segments)
    }

    /// The request for display, without the query, which may hold a continuation token.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The address of the request on the server `arm`.
    pub(super) fn url(&self, arm: &Url) -> Url {
        let mut url = arm.clone();
        url.set_path(&self.path);
        url.query_pairs_mut().extend_pairs(self.query.iter().map(|(name, value)| (*name, value.as_str())));
        url
    }
}

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
    let needed = request.permission.map(|needed| {
        let role = if needed.ends_with("/read") { "Reader" } else { "Virtual Machine Contributor" };
        format!("; the credential needs the permission {needed} there, for example with the role {role}")
    });
    let (kind, advice) = match response.status.as_u16() {
        401 => (
            ErrorKind::Authentication,
            "; the credential's token was refused twice: check that it is for this tenant and cloud",
        ),
        403 => (ErrorKind::Authentication, needed.as_deref().unwrap_or("; the credential is not allowed to")),
        404 | 410 => (ErrorKind::NotFound, "; check that the names are right, and that the credential may see them"),
        409 | 412 => (ErrorKind::Conflict, ""),
        429 => (ErrorKind::Server, "; Azure limits how often it is asked: try again later, or raise max_age"),
        300..=399 => (ErrorKind::Server, "; it redirects elsewhere: check that endpoint is Resource Manager itself"),
        400 => (ErrorKind::InvalidInput, ""),
        _ => (ErrorKind::Server, ""),
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
