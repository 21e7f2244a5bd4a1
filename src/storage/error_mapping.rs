//! Maps errors of object stores to errors of this crate: what the server answered, whose fault it is, and whether a retry
//! can help.
//!
//! The texts of object_store cannot be shown. They contain whole URLs and the whole response, which for S3 can repeat a
//! session token among the signed headers. This layer passes on the server's code and message, or the reason why there
//! was no response.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::error::{Error, ErrorKind, chain};

/// How object_store (0.14) begins the part of an error that holds the server's response. Its types are private.
const RESPONSE_PREFIXES: [&str; 2] = ["Server returned non-2xx status code: ", "Server returned error response: "];

/// What object_store (0.14) says of a request that it sent several times.
const REPEATED: &str = " retries, max_retries: ";

/// A store whose errors have a [`crate::error::Error`] as their source. The outcome of a request that was sent several times is
/// unknown.
pub(super) struct ErrorMappingStore {
    inner: Arc<DynObjectStore>,
    mapper: Arc<Mapper>,
}

/// What an error says about the store.
#[derive(Debug)]
struct Mapper {
    /// Such as `the container 'c' of the storage account 'a'`.
    store: String,
    /// The caller named no identity, so the store uses that of the machine.
    anonymous: bool,
}

impl ErrorMappingStore {
    pub(super) fn new(inner: Arc<DynObjectStore>, store: String, anonymous: bool) -> Self {
        Self { inner, mapper: Arc::new(Mapper { store, anonymous }) }
    }

    fn map_stream<T: 'static>(&self, results: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
        let mapper = Arc::clone(&self.mapper);
        results.map_err(move |error| mapper.map(error)).boxed()
    }
}

impl fmt::Debug for ErrorMappingStore {
    /// Without the inner store, whose output contains its credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorMappingStore").field("mapper", &self.mapper).finish_non_exhaustive()
    }
}

impl fmt::Display for ErrorMappingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mapper.store)
    }
}

#[async_trait]
impl ObjectStore for ErrorMappingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await.map_err(|e| self.mapper.map(e))
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await.map_err(|e| self.mapper.map(e))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await.map_err(|e| self.mapper.map(e))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.map_stream(self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.map_stream(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.map_stream(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await.map_err(|e| self.mapper.map(e))
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await.map_err(|e| self.mapper.map(e))
    }
}

/// A response of the server.
#[derive(Debug)]
struct StoreResponse {
    status: u16,
    code: String,
    /// The status, the code and the message.
    text: String,
}

/// Why a request failed.
enum Cause {
    Response(StoreResponse),
    NoResponse(HttpErrorKind, String),
    /// The client did not send the request, or did not understand the response.
    Other(String),
}

impl Cause {
    fn of(error: &StoreError) -> Self {
        for part in chain(error) {
            if let Some(failed) = part.downcast_ref::<HttpError>() {
                let reason = chain(failed).last().map(ToString::to_string).unwrap_or_default();
                return Self::NoResponse(failed.kind(), reason);
            }
            let text = part.to_string();
            if let Some(response) = RESPONSE_PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
                return Self::Response(parse(response));
            }
        }
        // The URL of the request, if the text contains it, is before the dash.
        let text = chain(error).last().map(ToString::to_string).unwrap_or_default();
        let text =
            if text.contains("Error performing ") { text.rsplit(" - ").next().unwrap_or_default() } else { &text };
        Self::Other(text.to_owned())
    }

    /// Whether Azure rejected the request with a 409 that says nothing about the object.
    fn is_busy(&self) -> bool {
        matches!(self, Self::Response(response) if matches!(
            response.code.as_str(),
            "ContainerBeingDeleted" | "ContainerBeingDisabled" | "ContainerDisabled" | "AccountBeingCreated" | "OperationTimedOut"
        ))
    }
}

/// Parses `403 Forbidden: <body>`, or a body alone, which is an error within a success.
fn parse(response: &str) -> StoreResponse {
    let status = response.get(..3).and_then(|digits| digits.parse().ok());
    let body = match status {
        Some(_) => response.split_once(": ").map_or("", |(_, body)| body),
        None => response,
    };
    let (code, message) = xml(body).or_else(|| json(body)).unwrap_or_default();
    // Azure appends lines with the id and the time of the request.
    let message = message.lines().next().unwrap_or_default().trim().trim_end_matches('.').chars().take(400).collect();
    let status = status.unwrap_or(200);
    let mut text = format!("HTTP status {status}");
    for (separator, part) in [(", ", &code), (": ", &message)] {
        if !part.is_empty() {
            text = text + separator + part;
        }
    }
    StoreResponse { status, code, text }
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

/// The token services of Microsoft and Google, and Google's storage, respond in JSON.
fn json(body: &str) -> Option<(String, String)> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    let text = |value: Option<&serde_json::Value>| match value {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    match body.get("error")? {
        serde_json::Value::String(code) => Some((code.clone(), text(body.get("error_description")))),
        error => Some((text(error.get("status").or_else(|| error.get("code"))), text(error.get("message")))),
    }
}

/// Whether the request was for a credential, not for the store.
fn is_about_credentials(error: &StoreError) -> bool {
    const SIGNS: &[&str] = &[
        "token request",
        "169.254.",
        "metadata.google.internal",
        "oauth2/token",
        "/latest/api/token",
        "security-credentials",
        "Error performing POST REDACTED",
    ];
    let text = error.to_string();
    SIGNS.iter().any(|sign| text.contains(sign))
}

const NO_IDENTITY: &str =
    "neither storage_options nor the environment hold credentials, so the identity of this machine was requested";

impl Mapper {
    fn map(&self, error: StoreError) -> StoreError {
        if matches!(
            error,
            StoreError::NotImplemented { .. }
                | StoreError::NotSupported { .. }
                | StoreError::InvalidPath { .. }
                | StoreError::JoinError { .. }
                | StoreError::UnknownConfigurationKey { .. }
        ) {
            return error;
        }
        let cause = Cause::of(&error);
        let mut explained = self.explain(is_about_credentials(&error), &cause);
        // An earlier request can have taken effect, also if its answer was an error or did not arrive.
        if chain(&error).any(|part| part.to_string().contains(REPEATED)) {
            explained = explained.with_unknown_outcome();
        }
        let source = || -> Box<dyn StdError + Send + Sync> {
            match &cause {
                Cause::Response(response) => format!("{} answered with {}", self.store, response.text).into(),
                Cause::NoResponse(_, text) | Cause::Other(text) => text.clone().into(),
            }
        };
        match error {
            StoreError::NotFound { path, .. } if explained.kind() == ErrorKind::Server => {
                StoreError::NotFound { path, source: source() }
            }
            StoreError::AlreadyExists { path, .. } if !cause.is_busy() => {
                StoreError::AlreadyExists { path, source: source() }
            }
            StoreError::Precondition { path, .. } => StoreError::Precondition { path, source: source() },
            StoreError::NotModified { path, .. } => StoreError::NotModified { path, source: source() },
            _ => StoreError::Generic { store: "object store", source: Box::new(explained) },
        }
    }

    fn explain(&self, about_credentials: bool, cause: &Cause) -> Error {
        let store = &self.store;
        let server = if about_credentials { format!("the credential service of {store}") } else { self.store.clone() };
        match cause {
            Cause::Response(response) => {
                let identity = if self.anonymous { format!(" ({NO_IDENTITY})") } else { String::new() };
                let (kind, retryable, advice) = classify(response, about_credentials);
                Error::new(kind, format!("{server} answered with {}{identity}; {advice}", response.text))
                    .with_retryable(retryable)
            }
            Cause::NoResponse(_, reason) if about_credentials && self.anonymous => Error::new(
                ErrorKind::Authentication,
                format!(
                    "there are no credentials for {store}: {NO_IDENTITY}, and the request got no answer ({reason}); give \
                     credentials in storage_options or the environment"
                ),
            ),
            Cause::NoResponse(kind, reason) => {
                let is_certificate = reason.contains("certificate");
                let (what, advice) = match kind {
                    _ if is_certificate => (
                        "cannot be trusted",
                        "its certificate must be valid for its name and come from an authority that this machine \
                         trusts; for your own authority, name its certificate file in the environment variable \
                         SSL_CERT_FILE",
                    ),
                    HttpErrorKind::Timeout => ("did not answer in time", "try again"),
                    HttpErrorKind::Connect => (
                        "cannot be reached",
                        "check the name of the account, the endpoint and the network, or try again",
                    ),
                    _ => ("closed the connection", "try again"),
                };
                Error::new(ErrorKind::Network, format!("{server} {what} ({reason}); {advice}"))
                    .with_retryable(!is_certificate)
            }
            Cause::Other(text) if about_credentials || text.contains("token") || text.contains("az account") => {
                Error::new(ErrorKind::Authentication, format!("there are no credentials for {store}: {text}"))
            }
            Cause::Other(text) if text.contains("redirect") => Error::new(
                ErrorKind::Storage,
                format!(
                    "{store} answered with a redirect; it is probably in another region: set aws_region in storage_options"
                ),
            ),
            Cause::Other(text) => {
                Error::new(ErrorKind::Storage, format!("{store} failed: {text}")).with_retryable(true)
            }
        }
    }
}

/// The kind of error, whether a retry can help, and what to do. [`ErrorKind::Server`] marks an object that does not
/// exist: [`Mapper::map`] passes that on as it is.
fn classify(response: &StoreResponse, about_credentials: bool) -> (ErrorKind, bool, &'static str) {
    use ErrorKind::{Authentication, Server, Storage};
    match (response.status, response.code.as_str()) {
        (_, "NoSuchBucket" | "ContainerNotFound" | "FilesystemNotFound") => {
            (Storage, false, "create it first, or check its name: a ledger creates tables, but no container or bucket")
        }
        (404, _) if !about_credentials => (Server, false, "the object does not exist"),
        (408 | 429, _) | (500.., _) => (Storage, true, "the server is overloaded or out of order; try again"),
        (409, _) => (Storage, true, "try again"),
        (401 | 403, _) => (Authentication, false, "check the credentials and their permissions"),
        _ if about_credentials => (Authentication, false, "check the credentials"),
        (400, "AuthenticationFailed" | "InvalidAuthenticationInfo" | "ExpiredToken" | "InvalidToken") => {
            (Authentication, false, "check the credentials, and whether they have expired")
        }
        (301 | 307, _) | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            (Storage, false, "it is probably in another region: set aws_region in storage_options")
        }
        (200, _) => (Storage, true, "try again"),
        _ => (Storage, false, "check the root and the storage options"),
    }
}

#[cfg(test)]
mod tests;
