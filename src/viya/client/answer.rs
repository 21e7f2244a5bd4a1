//! What a server answered, and what it means where it is not what was asked for.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::Value;
use url::Url;

use super::{Call, error_text};
use crate::error::{Error, ErrorKind, Result};

/// An answer of the server, of whatever status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// Whether the same call may be answered better later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.status.as_u16(), 429 | 502 | 503 | 504)
    }

    /// Seconds of the `Retry-After` header, at most two minutes: a number, or a date (RFC 9110).
    pub(crate) fn retry_after(&self) -> Option<f64> {
        let text = self.headers.get(RETRY_AFTER).map(HeaderValue::to_str)?.ok()?.trim();
        let seconds = match text.parse::<f64>() {
            Ok(seconds) => seconds,
            Err(_) => {
                // Counted from the server's own clock, where it says what that is.
                let date = |text: &str| DateTime::parse_from_rfc2822(text).ok();
                let now = self.headers.get(DATE).and_then(|now| date(now.to_str().ok()?));
                (date(text)?.to_utc() - now.map_or_else(Utc::now, |now| now.to_utc())).as_seconds_f64()
            }
        };
        Some(seconds.clamp(0.0, 120.0)).filter(|seconds| seconds.is_finite())
    }

    /// The body as JSON; a proxy's HTML page is an error of the server, never parsed.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let kind = self.content_type();
            Error::new(
                ErrorKind::Server,
                format!(
                    "{} answered {} with {kind} where JSON was expected: check that base_url is SAS Viya itself",
                    self.url, self.status
                ),
            )
            .with_source(e)
        })
    }

    /// The body as trimmed text, if it is short and one line, as a job's state is.
    pub(crate) fn word(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.body).ok()?.trim().trim_matches('"');
        (text.len() <= 40 && !text.contains(['<', '\n', '{'])).then_some(text)
    }

    fn content_type(&self) -> &str {
        self.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("no content type")
    }

    /// Whether a person was meant to read it: a page of a proxy or a login, and no answer of SAS's services.
    fn is_html(&self) -> bool {
        self.content_type().to_ascii_lowercase().contains("html")
    }

    /// The answer as an error that says what was asked, the status and the server's own reasons.
    pub(crate) fn into_error(self, call: &Call<'_>) -> Error {
        let reasons = match self.json() {
            Ok(value) => error_text(&value),
            Err(_) => String::new(),
        };
        let reasons = if !reasons.is_empty() {
            reasons
        } else if self.body.is_empty() {
            "no reason given".to_owned()
        } else {
            format!("the reason was {}, not a SAS error", self.content_type())
        };
        let (kind, advice) = match self.status.as_u16() {
            401 => (ErrorKind::Authentication, "; log in again"),
            403 => (ErrorKind::Forbidden, "; this user is not allowed to: ask a SAS administrator"),
            // A proxy that has lost its way to SAS says so too, and its page tells nothing about what was asked for.
            404 | 410 if self.is_html() => (ErrorKind::Server, "; try again later, and check base_url"),
            404 | 410 => (ErrorKind::NotFound, ""),
            409 | 412 | 428 => (ErrorKind::Conflict, ""),
            300..=399 => (ErrorKind::Server, "; it redirects elsewhere: check base_url"),
            429 | 500..=599 => (ErrorKind::Server, "; try again later"),
            _ => (ErrorKind::Server, ""),
        };
        let retryable =
            self.is_passing() || self.status.as_u16() == 500 || (kind == ErrorKind::Server && self.is_html());
        let (method, url, status) = (&call.method, &self.url, self.status);
        Error::new(kind, format!("{method} {url} was answered with {status}: {reasons}{advice}"))
            .with_retryable(retryable)
    }
}
