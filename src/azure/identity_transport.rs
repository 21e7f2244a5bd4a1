//! The HTTP client of `azure_identity`, so that the process has one HTTP and one TLS implementation.

use async_trait::async_trait;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Request};
use url::Url;

use crate::http::address;

/// Sends the requests of `azure_identity`, some of them to another address.
///
/// The crate accepts no login service without TLS, and no metadata service but the one of Azure's VMs. A route replaces
/// the address that the crate accepts: by the sandbox on this machine, or by the metadata service that
/// `AZURE_POD_IDENTITY_AUTHORITY_HOST` names.
#[derive(Debug)]
pub(super) struct IdentityTransport {
    http: reqwest::Client,
    routes: Vec<(Url, Url)>,
    /// The kind of error that the crate gets when the server cannot be reached. The crate repeats after a `Connection`
    /// error, for more than a minute at the metadata service, which answers immediately or does not exist.
    unreached: ErrorKind,
}

impl IdentityTransport {
    pub(super) fn login(http: reqwest::Client, routes: Vec<(Url, Url)>) -> Self {
        Self { http, routes, unreached: ErrorKind::Connection }
    }

    pub(super) fn metadata(http: reqwest::Client, routes: Vec<(Url, Url)>) -> Self {
        Self { http, routes, unreached: ErrorKind::Credential }
    }

    fn routed(&self, url: &Url) -> Url {
        let Some((_, to)) = self.routes.iter().find(|(from, _)| address::is_same_server(from, url)) else {
            return url.clone();
        };
        let mut routed = to.clone();
        routed.set_path(url.path());
        routed.set_query(url.query());
        routed
    }
}

#[async_trait]
impl HttpClient for IdentityTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let other = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::with_error(ErrorKind::Other, e, "the request could not be built")
        };
        let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes()).map_err(|e| other(e.into()))?;
        let mut sent = self.http.request(method, self.routed(request.url()));
        for (name, value) in request.headers().iter() {
            sent = sent.header(name.as_str(), value.as_str());
        }
        sent = match request.body() {
            Body::Bytes(bytes) => sent.body(bytes.clone()),
            Body::SeekableStream(_) => return Err(other("a request for a token is not a stream".into())),
        };
        // The caller's errors name the address. It holds a client id and no secret.
        let failed = |e: reqwest::Error| {
            let (kind, what) = match (e.is_connect(), e.is_timeout()) {
                (true, _) => (self.unreached.clone(), "it could not be reached"),
                (_, true) => (ErrorKind::Io, "it did not answer in time"),
                _ => (ErrorKind::Io, "the connection broke off"),
            };
            Error::with_error(kind, e.without_url(), what)
        };
        let response = sent.send().await.map_err(failed)?;
        let status = response.status().as_u16().into();
        let mut headers = Headers::new();
        for (name, value) in response.headers() {
            if let Ok(value) = value.to_str() {
                headers.insert(name.as_str().to_owned(), value.to_owned());
            }
        }
        let body = response.bytes().await.map_err(failed)?;
        Ok(AsyncRawResponse::from_bytes(status, headers, body))
    }
}
