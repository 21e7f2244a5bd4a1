//! A connection pool for one server, its responses, and what is known about a request that got no response.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{ClientBuilder, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::time::timeout_at;
use url::Url;

use super::address::is_loopback;
use super::retry::{self, Deadline};
use super::secret::{Scrubber, one_line};
use crate::error::{Error, ErrorKind, Result};

/// Longest body that is read where no other limit is given, in bytes. A longer one is an error, and fills no memory.
const MOST_BYTES: usize = 256 << 20;

/// A connection pool for one server. It repeats nothing by itself and follows no redirect, because a redirect would take
/// the credentials along. Clones share the pool.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pool: reqwest::Client,
    /// The server's address.
    pub(crate) url: Url,
    /// The server's name and address, for errors.
    pub(crate) shown: String,
    /// What errors advise when the server cannot be reached.
    advice: &'static str,
    longest_body: usize,
    /// Whether a longer body is cut. Else it is an error.
    cuts: bool,
    /// Time limit of one request.
    limit: Duration,
}

/// Whether the server has a request to which no complete response came. It decides whether an event or a job may be sent
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendState {
    /// The request did not leave this machine.
    NotSent,
    /// The request was sent, or part of it.
    MaybeSent,
    /// The server answered with this status. The body did not come to its end.
    Answered(StatusCode),
}

/// A request to which no complete response came.
#[derive(Debug)]
pub(crate) struct RequestFailure {
    pub error: Error,
    pub state: SendState,
    /// The response took too long: the server may still work on it.
    pub timed_out: bool,
}

impl From<Error> for RequestFailure {
    /// An error from before the request was sent.
    fn from(error: Error) -> Self {
        Self { error, state: SendState::NotSent, timed_out: false }
    }
}

/// A response, of whatever status.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: StatusCode,
    /// The address that was asked.
    pub url: Url,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as far as it came.
    pub body: Bytes,
    /// Why the body is not complete.
    incomplete: Option<RequestFailure>,
}

impl Client {
    /// A client of the server at `url`, which errors call `name`. Requests have no time limit yet: see
    /// [`Client::with_limit`]. This machine is reached without a proxy.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the machine has no working TLS.
    pub(crate) fn new(
        name: &str,
        url: &Url,
        advice: &'static str,
        configure: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Self> {
        let direct = |builder: ClientBuilder| if is_loopback(url) { builder.no_proxy() } else { builder };
        let pool = pool(|builder| configure(direct(builder)))?;
        let shown = format!("{name} at {}", url.as_str().trim_end_matches('/'));
        Ok(Self { pool, url: url.clone(), shown, advice, longest_body: MOST_BYTES, cuts: false, limit: Duration::MAX })
    }

    /// Gives each request this time limit, unless [`Client::send_until`] gets another one.
    pub(crate) fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Reads at most so many bytes of a body, and ignores the others.
    pub(crate) fn with_longest_body(self, longest_body: usize) -> Self {
        Self { longest_body, cuts: true, ..self }
    }

    /// A request to build on.
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.pool.request(method, url)
    }

    /// Sends `request` once and reads the response. Errors call the request `what`.
    ///
    /// A body that breaks off is in the response as far as it came: see [`Response::complete`].
    ///
    /// # Errors
    /// A [`RequestFailure`] when no status came; its error is [`ErrorKind::Network`] and retryable, or
    /// [`ErrorKind::InvalidInput`] for a request that cannot be built.
    pub(crate) async fn send(&self, request: RequestBuilder, what: &str) -> Result<Response, RequestFailure> {
        self.send_until(request, what, Deadline::after(self.limit)).await
    }

    /// [`Client::send`] with another time limit.
    ///
    /// # Errors
    /// Those of [`Client::send`].
    pub(crate) async fn send_until(
        &self,
        request: RequestBuilder,
        what: &str,
        deadline: Deadline,
    ) -> Result<Response, RequestFailure> {
        let late = |state| RequestFailure { error: self.too_late(what, deadline), state, timed_out: true };
        let sent = timeout_at(deadline.at, request.send()).await.map_err(|_| late(SendState::MaybeSent))?;
        let mut response = sent.map_err(|e| self.failure(e, None, what))?;
        let (status, url, headers) = (response.status(), response.url().clone(), response.headers().clone());
        let (mut body, mut incomplete) = (Vec::new(), None);
        while body.len() < self.longest_body && incomplete.is_none() {
            match timeout_at(deadline.at, response.chunk()).await {
                Ok(Ok(Some(piece))) if !self.cuts && body.len() + piece.len() > self.longest_body => {
                    let mebibytes = self.longest_body >> 20;
                    let text =
                        format!("{} answered {what} with more than {mebibytes} MiB, which is not read", self.shown);
                    let (error, state) = (Error::new(ErrorKind::Server, text), SendState::Answered(status));
                    incomplete = Some(RequestFailure { error, state, timed_out: false });
                }
                Ok(Ok(Some(piece))) => {
                    let room = piece.len().min(self.longest_body - body.len());
                    body.extend_from_slice(&piece[..room]);
                }
                Ok(Ok(None)) => break,
                Ok(Err(e)) => incomplete = Some(self.failure(e, Some(status), what)),
                Err(_) => incomplete = Some(late(SendState::Answered(status))),
            }
        }
        Ok(Response { status, url, headers, body: body.into(), incomplete })
    }

    fn failure(&self, e: reqwest::Error, answered: Option<StatusCode>, what: &str) -> RequestFailure {
        let (shown, timed_out) = (&self.shown, e.is_timeout());
        let state = match answered {
            Some(status) => SendState::Answered(status),
            None if e.is_connect() || e.is_builder() => SendState::NotSent,
            None => SendState::MaybeSent,
        };
        let error = if e.is_builder() {
            // It fails the same way each time.
            Error::invalid(format!("{what} cannot be sent to {shown} with the credentials and arguments given"))
        } else {
            let text = if e.is_connect() {
                format!("{shown} could not be reached: {}", self.advice)
            } else if timed_out {
                format!("{shown} did not answer {what} in time")
            } else {
                format!("{shown} closed the connection during {what}")
            };
            Error::new(ErrorKind::Network, text).with_retryable(true)
        };
        RequestFailure { error: error.with_source(e.without_url()), state, timed_out }
    }

    /// The error for `what`, which was not done before `deadline`.
    pub(crate) fn too_late(&self, what: &str, deadline: Deadline) -> Error {
        let seconds = deadline.seconds();
        let text = format!("{} did not answer {what} within the limit of {seconds} seconds", self.shown);
        Error::new(ErrorKind::Network, text).with_retryable(true)
    }
}

/// A connection pool that repeats nothing by itself and follows no redirect.
///
/// # Errors
/// [`ErrorKind::Internal`] when the machine has no working TLS.
pub(crate) fn pool(configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("jobrota/", env!("CARGO_PKG_VERSION")))
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none());
    configure(builder).build().map_err(|e| {
        Error::new(ErrorKind::Internal, "the HTTP client could not be set up: check that the machine has certificates")
            .with_source(e)
    })
}

impl Response {
    /// The response without `secrets`, in case the server repeats one.
    pub(crate) fn without(mut self, secrets: &[&str]) -> Self {
        let scrubber = Scrubber::new(secrets);
        let scrubbed = |bytes: &[u8]| match scrubber.scrub(&String::from_utf8_lossy(bytes)) {
            Cow::Owned(text) => Some(text),
            Cow::Borrowed(_) => None,
        };
        if let Some(text) = scrubbed(&self.body) {
            self.body = text.into();
        }
        // Errors repeat texts of a refusal, as they are after JSON was read.
        if !self.status.is_success()
            && let Ok(mut value) = serde_json::from_slice::<Value>(&self.body)
        {
            let received = value.clone();
            scrubber.scrub_json(&mut value);
            if value != received {
                self.body = value.to_string().into();
            }
        }
        for value in self.headers.values_mut() {
            if scrubbed(value.as_bytes()).is_some() {
                *value = HeaderValue::from_static("removed");
            }
        }
        self
    }

    /// The response, if all of its body came.
    ///
    /// # Errors
    /// The [`RequestFailure`] that cut the body off.
    pub(crate) fn complete(mut self) -> Result<Self, RequestFailure> {
        self.incomplete.take().map_or(Ok(self), Err)
    }

    /// Whether the time was up before all of the body came.
    pub(crate) fn timed_out(&self) -> bool {
        self.incomplete.as_ref().is_some_and(|failure| failure.timed_out)
    }

    /// The body as JSON. `what` was asked, and errors advise to check that `setting` is the address of the server itself.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] when the body is not JSON, for example the page of a proxy.
    pub fn json(&self, what: &str, setting: &str) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let (status, kind) = (self.status, self.content_type());
            let text =
                format!("{what} was answered {status} with {kind} where JSON was expected: check that {setting}");
            Error::new(ErrorKind::Server, text).with_source(e)
        })
    }

    /// The media type of the body without its parameters, or that there is none.
    pub(crate) fn content_type(&self) -> String {
        let value = self.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("no content type");
        one_line(value.split(';').next().unwrap_or_default(), 60)
    }

    /// How long the server asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        retry::retry_after(&self.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Response {
        pub(crate) fn of(status: u16, body: &str) -> Self {
            Self {
                status: StatusCode::from_u16(status).unwrap(),
                url: Url::parse("https://server.example/").unwrap(),
                headers: HeaderMap::new(),
                body: Bytes::copy_from_slice(body.as_bytes()),
                incomplete: None,
            }
        }
    }

    #[test]
    fn a_secret_that_a_server_repeats_is_removed() {
        let mut response = Response::of(401, "bad token the-token here");
        response.headers.insert("content-type", HeaderValue::from_static("text/plain; x=the-token"));
        response.headers.insert("retry-after", HeaderValue::from_static("5"));
        let response = response.without(&["another", "the-token"]);
        assert_eq!(response.body, "bad token … here");
        assert!(!format!("{response:?}").contains("the-token"));
        assert_eq!(response.retry_after(), Some(Duration::from_secs(5)));
        let untouched = Response::of(200, "\u{fffd}text").without(&["", "another, longer than the body"]);
        let escaped = Response::of(400, r#"{"message": "expired: the-t\u006fken"}"#).without(&["the-token"]);
        assert_eq!(escaped.body, r#"{"message":"expired: …"}"#);
        assert_eq!(untouched.body, "\u{fffd}text");
    }
}
