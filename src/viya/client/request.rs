//! One request to SAS Viya, and what an error response means.

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::http::Response;
use crate::viya::json::error_text;

/// Media type of every SAS collection.
pub(crate) const COLLECTION: &str = "application/vnd.sas.collection+json";

/// What SAS Viya is asked. Paths and links are always resolved on the client's own server, so that no response can send
/// the token to another one.
#[derive(Debug, Clone)]
pub(crate) struct ViyaRequest<'a> {
    pub method: Method,
    pub path: &'a str,
    pub query: Vec<(&'a str, String)>,
    pub accept: &'a str,
    pub accept_item: Option<&'a str>,
    pub body: Option<(&'a str, Bytes)>,
}

impl<'a> ViyaRequest<'a> {
    pub(crate) fn new(method: Method, path: &'a str, accept: &'a str) -> Self {
        Self { method, path, query: Vec::new(), accept, accept_item: None, body: None }
    }

    pub(crate) fn get(path: &'a str, accept: &'a str) -> Self {
        Self::new(Method::GET, path, accept)
    }

    pub(crate) fn query(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// The address of the request on the server `base`.
    pub(super) fn url(&self, base: &Url) -> Result<Url> {
        let found = base.join(self.path).map_err(|e| {
            let text = format!("SAS Viya gave a link that is not an address: {:?}", self.path);
            Error::new(ErrorKind::Server, text).with_source(e)
        })?;
        let mut url = base.clone();
        url.set_path(found.path());
        url.set_query(found.query());
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(self.query.iter().map(|(name, value)| (*name, value.as_str())));
        }
        Ok(url)
    }
}

/// A SAS filter literal: quotes are doubled.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether the server refuses a filter, so that the list is read without it.
pub(crate) fn is_filter_refused(e: &Error) -> bool {
    !e.is_retryable() && matches!(e.kind(), ErrorKind::Server | ErrorKind::NotFound)
}

/// Whether the same request may succeed later.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The body as JSON. The HTML page of a proxy is an error of the server, and is not parsed.
pub(crate) fn json(response: &Response) -> Result<Value> {
    response.json(response.url.as_str(), "base_url is SAS Viya itself")
}

/// An error response as an error that says what was asked, the status and the server's own reasons.
pub(crate) fn refusal(request: &ViyaRequest<'_>, response: &Response) -> Error {
    let kind = response.content_type();
    // The page of a proxy or a login, and not a response of a SAS service.
    let is_html = kind.to_ascii_lowercase().contains("html");
    let reasons = match json(response).map(|value| error_text(&value)).unwrap_or_default() {
        reasons if !reasons.is_empty() => reasons,
        _ if response.body.is_empty() => "no reason given".to_owned(),
        _ => format!("the reason was {kind}, not a SAS error"),
    };
    let (kind, advice) = match response.status.as_u16() {
        401 => (ErrorKind::Authentication, "; log in again"),
        403 => (ErrorKind::Forbidden, "; this user is not allowed to: ask a SAS administrator"),
        // A proxy that does not reach SAS answers so too, and its page says nothing about what was asked for.
        404 | 410 if is_html => (ErrorKind::Server, "; try again later, and check base_url"),
        404 | 410 => (ErrorKind::NotFound, ""),
        409 | 412 | 428 => (ErrorKind::Conflict, ""),
        300..=399 => (ErrorKind::Server, "; it redirects elsewhere: check base_url"),
        429 | 500..=599 => (ErrorKind::Server, "; try again later"),
        _ => (ErrorKind::Server, ""),
    };
    let (method, url, status) = (&request.method, &response.url, response.status);
    let retryable = is_transient(status) || status.as_u16() == 500 || (kind == ErrorKind::Server && is_html);
    Error::new(kind, format!("{method} {url} was answered with {status}: {reasons}{advice}")).with_retryable(retryable)
}
