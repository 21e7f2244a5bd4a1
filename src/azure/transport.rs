//! The HTTP client that `azure_identity` uses: ours, so that there is one HTTP and TLS implementation in the process.

use async_trait::async_trait;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Request};
use url::Url;

/// Sends what `azure_identity` asks for, some of it elsewhere.
///
/// The crate takes no login service without TLS and no metadata service but the one of Azure's VMs. A route leads from the
/// address that it does take to the one that is meant: the sandbox on this machine, or where
/// `AZURE_POD_IDENTITY_AUTHORITY_HOST` says that the metadata service is.
#[derive(Debug)]
pub(super) struct HttpTransport {
    http: reqwest::Client,
    routes: Vec<(Url, Url)>,
    /// What the crate is told when nobody listens: it asks again after a `Connection` error, for more than a minute where
    /// the metadata service is concerned, which is there at once or never.
    unreached: ErrorKind,
}

impl HttpTransport {
    pub(super) fn login(http: reqwest::Client, routes: Vec<(Url, Url)>) -> Self {
        Self { http, routes, unreached: ErrorKind::Connection }
    }

    pub(super) fn metadata(http: reqwest::Client, routes: Vec<(Url, Url)>) -> Self {
        Self { http, routes, unreached: ErrorKind::Credential }
    }

    fn routed(&self, url: &Url) -> Url {
        let Some((_, to)) = self.routes.iter().find(|(from, _)| from.origin() == url.origin()) else {
            return url.clone();
        };
        let mut routed = to.clone();
        routed.set_path(url.path());
        routed.set_query(url.query());
        routed
    }
}

#[async_trait]
impl HttpClient for HttpTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let other = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::with_error(ErrorKind::Other, e, "the request could not be put together")
        };
        let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes()).map_err(|e| other(e.into()))?;
        let mut sent = self.http.request(method, self.routed(request.url()));
        for (name, value) in request.headers().iter() {
            sent = sent.header(name.as_str(), value.as_str());
        }
        sent = match request.body() {
            Body::Bytes(bytes) => sent.body(bytes.clone()),
            Body::SeekableStream(_) => return Err(other("requests for tokens are no streams".into())),
        };
        // Addresses hold a client id, never a secret; they are left out all the same, because the caller names them.
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
