//! Errors of object stores in words: what the server said, whose fault it is and whether trying again can help.
//!
//! What object_store says is not fit to be shown: it holds whole URLs and the server's whole answer, which for S3 can
//! repeat a session token among the headers that were signed. What passes here is the server's code and message, or the
//! reason why there was no answer.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::error::{Error, ErrorKind};

/// How object_store (0.13) begins the part of an error that holds the server's answer; its types are private.
const ANSWERS: [&str; 2] = ["Server returned non-2xx status code: ", "Server returned error response: "];

/// A store whose errors carry a [`crate::error::Error`] as their source.
pub(super) struct ClearErrors {
    inner: Arc<DynObjectStore>,
    /// What the store is, such as `the container 'c' of the storage account 'a'`.
    place: String,
    /// Nobody named an identity, so that the one of the machine is asked for.
    anonymous: bool,
}

impl ClearErrors {
    pub(super) fn new(inner: Arc<DynObjectStore>, place: String, anonymous: bool) -> Self {
        Self { inner, place, anonymous }
    }

    fn clear(&self, error: StoreError) -> StoreError {
        clear(&self.place, self.anonymous, error)
    }
}

impl fmt::Debug for ClearErrors {
    /// Without the store: its credentials are part of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClearErrors").field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Display for ClearErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

/// What a server answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    status: u16,
    code: String,
    message: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP status {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, ", {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// What became of a request.
enum Cause {
    Answered(Answer),
    Unanswered(HttpErrorKind, String),
    /// It was never sent, or its answer not understood.
    Other(String),
}

/// Every error of this chain.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

fn cause(error: &StoreError) -> Cause {
    for part in chain(error) {
        if let Some(failed) = part.downcast_ref::<HttpError>() {
            let reason = chain(failed).last().map(ToString::to_string).unwrap_or_default();
            return Cause::Unanswered(failed.kind(), reason);
        }
        let text = part.to_string();
        if let Some(answer) = ANSWERS.iter().find_map(|begin| text.strip_prefix(begin)) {
            return Cause::Answered(parse(answer));
        }
    }
    // The URL of the request, if it is there, is before the dash.
    let text = chain(error).last().map(ToString::to_string).unwrap_or_default();
    let text = if text.contains("Error performing ") { text.rsplit(" - ").next().unwrap_or_default() } else { &text };
    Cause::Other(text.to_owned())
}

/// Reads `403 Forbidden: <body>`, or a body alone, which is an error within a success.
fn parse(answer: &str) -> Answer {
    let status = answer.get(..3).and_then(|digits| digits.parse().ok());
    let body = match status {
        Some(_) => answer.split_once(": ").map_or("", |(_, body)| body),
        None => answer,
    };
    let (code, message) = xml(body).or_else(|| json(body)).unwrap_or_default();
    // Azure appends the request's id and time in lines of their own.
    let message = message.lines().next().unwrap_or_default().trim().trim_end_matches('.').chars().take(400).collect();
    Answer { status: status.unwrap_or(200), code, message }
}

fn xml(body: &str) -> Option<(String, String)> {
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
        Some(text.replace("&amp;", "&"))
    };
    Some((element("Code")?, element("Message").unwrap_or_default()))
}

/// The token services of Microsoft and Google, and Google's storage, answer in JSON.
fn json(body: &str) -> Option<(String, String)> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    let error = body.get("error")?;
    let text = |value: Option<&serde_json::Value>| match value {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    match error {
        serde_json::Value::String(code) => Some((code.clone(), text(body.get("error_description")))),
        error => Some((text(error.get("status").or_else(|| error.get("code"))), text(error.get("message")))),
    }
}

/// Whether it was a credential that was asked for, not the store.
fn about_credentials(error: &StoreError) -> bool {
    let text = error.to_string();
    [
        "token request",
        "169.254.",
        "metadata.google.internal",
        "oauth2/token",
        "/latest/api/token",
        "security-credentials",
    ]
    .iter()
    .any(|sign| text.contains(sign))
        || text.contains("Error performing POST REDACTED")
}

fn clear(place: &str, anonymous: bool, error: StoreError) -> StoreError {
    match error {
        StoreError::NotImplemented { .. }
        | StoreError::NotSupported { .. }
        | StoreError::InvalidPath { .. }
        | StoreError::JoinError { .. }
        | StoreError::UnknownConfigurationKey { .. } => return error,
        _ => {}
    }
    let credentials = about_credentials(&error);
    let cause = cause(&error);
    let known = explain(place, anonymous, credentials, &cause);
    let source = || -> Box<dyn StdError + Send + Sync> {
        match &cause {
            Cause::Answered(answer) => format!("{place} answered with {answer}").into(),
            Cause::Unanswered(_, text) | Cause::Other(text) => text.clone().into(),
        }
    };
    match error {
        StoreError::NotFound { path, .. } if known.kind() == ErrorKind::Server => {
            StoreError::NotFound { path, source: source() }
        }
        // Azure says 409 of much that has nothing to do with the object being there.
        StoreError::AlreadyExists { path, .. } if !is_busy(&cause) => {
            StoreError::AlreadyExists { path, source: source() }
        }
        StoreError::Precondition { path, .. } => StoreError::Precondition { path, source: source() },
        StoreError::NotModified { path, .. } => StoreError::NotModified { path, source: source() },
        _ => StoreError::Generic { store: "object store", source: Box::new(known) },
    }
}

fn is_busy(cause: &Cause) -> bool {
    matches!(cause, Cause::Answered(answer) if matches!(
        answer.code.as_str(),
        "ContainerBeingDeleted" | "ContainerBeingDisabled" | "ContainerDisabled" | "AccountBeingCreated" | "OperationTimedOut"
    ))
}

const NO_IDENTITY: &str = "neither storage_options nor the environment hold credentials, so the identity of this machine \
     was asked for";

fn explain(place: &str, anonymous: bool, credentials: bool, cause: &Cause) -> Error {
    let identity = if anonymous { format!(" ({NO_IDENTITY})") } else { String::new() };
    match cause {
        Cause::Answered(answer) => {
            let (kind, retryable, advice) = verdict(answer, credentials);
            let who = if credentials { format!("what gives credentials for {place}") } else { place.to_owned() };
            Error::new(kind, format!("{who} answered with {answer}{identity}; {advice}")).with_retryable(retryable)
        }
        Cause::Unanswered(_, reason) if credentials && anonymous => Error::new(
            ErrorKind::Authentication,
            format!(
                "there are no credentials for {place}: {NO_IDENTITY}, and it did not answer ({reason}); give credentials in \
                 storage_options or the environment"
            ),
        ),
        Cause::Unanswered(kind, reason) => {
            let certificate = reason.contains("certificate");
            let (what, advice, retryable) = match kind {
                _ if certificate => (
                    "cannot be trusted",
                    "its certificate must be valid for its name and come from an authority that this machine trusts; for one of your own, name \
                     its certificate's file in the environment variable SSL_CERT_FILE",
                    false,
                ),
                HttpErrorKind::Timeout => ("did not answer in time", "try again", true),
                HttpErrorKind::Connect => (
                    "cannot be reached",
                    "check the name of the account, the endpoint and the network, or try again",
                    true,
                ),
                _ => ("broke off", "try again", true),
            };
            let who = if credentials { format!("what gives credentials for {place}") } else { place.to_owned() };
            Error::new(ErrorKind::Network, format!("{who} {what} ({reason}); {advice}")).with_retryable(retryable)
        }
        Cause::Other(text) if credentials || text.contains("token") || text.contains("az account") => {
            Error::new(ErrorKind::Authentication, format!("there are no credentials for {place}: {text}"))
        }
        Cause::Other(text) if text.contains("redirect") => Error::new(
            ErrorKind::Storage,
            format!(
                "{place} answered with a redirect; it is probably in another region: set aws_region in storage_options"
            ),
        ),
        Cause::Other(text) => Error::new(ErrorKind::Storage, format!("{place} failed: {text}")).with_retryable(true),
    }
}

/// Kind, whether a retry can help, and what to do. [`ErrorKind::Server`] marks an object that is not there, which
/// callers know how to deal with.
fn verdict(answer: &Answer, credentials: bool) -> (ErrorKind, bool, &'static str) {
    match (answer.status, answer.code.as_str()) {
        (_, "NoSuchBucket" | "ContainerNotFound" | "FilesystemNotFound") => (
            ErrorKind::Storage,
            false,
            "create it first, or check its name: a ledger creates tables, but no container or bucket",
        ),
        (404, _) if !credentials => (ErrorKind::Server, false, "it is not there"),
        (408 | 429, _) | (500.., _) => (ErrorKind::Storage, true, "it is overloaded or out of order; try again"),
        (409, _) => (ErrorKind::Storage, true, "try again"),
        (401 | 403, _) => {
            (ErrorKind::Authentication, false, "check the credentials and what they are allowed to do there")
        }
        _ if credentials => (ErrorKind::Authentication, false, "check the credentials"),
        (400, "AuthenticationFailed" | "InvalidAuthenticationInfo" | "ExpiredToken" | "InvalidToken") => {
            (ErrorKind::Authentication, false, "check the credentials, and whether they have expired")
        }
        (301 | 307, _) | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            (ErrorKind::Storage, false, "it is probably in another region: set aws_region in storage_options")
        }
        (200, _) => (ErrorKind::Storage, true, "try again"),
        _ => (ErrorKind::Storage, false, "check the root and the storage options"),
    }
}

#[async_trait]
impl ObjectStore for ClearErrors {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await.map_err(|e| self.clear(e))
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await.map_err(|e| self.clear(e))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await.map_err(|e| self.clear(e))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (place, anonymous) = (self.place.clone(), self.anonymous);
        self.inner.delete_stream(locations).map(move |done| done.map_err(|e| clear(&place, anonymous, e))).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (place, anonymous) = (self.place.clone(), self.anonymous);
        self.inner.list(prefix).map(move |found| found.map_err(|e| clear(&place, anonymous, e))).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (place, anonymous) = (self.place.clone(), self.anonymous);
        self.inner
            .list_with_offset(prefix, offset)
            .map(move |found| found.map_err(|e| clear(&place, anonymous, e)))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await.map_err(|e| self.clear(e))
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await.map_err(|e| self.clear(e))
    }
}

#[cfg(test)]
mod tests;
