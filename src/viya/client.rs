//! One client of one SAS Viya, with the token, bounded retries, errors as text, and pages.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use reqwest::{ClientBuilder, StatusCode};
use serde_json::Value;
use url::Url;

use super::auth::Login;
use super::clock::Clock;
use crate::error::Result;
use crate::http::address::{AddressRules, is_loopback};
use crate::http::retry::Retry;
use crate::http::{Client, RequestFailure, Response, Secret, SendState, tls, token};

mod request;

#[cfg(test)]
pub(super) use request::MOST_PAGES;
pub(crate) use request::{COLLECTION, Pages, ViyaRequest, is_filter_refused, is_transient, json, quoted, refusal};

/// Tries of one idempotent call, including the first.
const TRIES: u32 = 6;
/// The same, when the server has not answered before.
const UNREACHED_TRIES: u32 = 3;
/// Longest `Retry-After` that is respected.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

/// Limits of the client. They are real seconds, because they are about the network.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Time limit to open a connection.
    pub connect_timeout: Duration,
    /// Longest silence within a response. The limit of one call is twice that.
    pub read_timeout: Duration,
    /// A PEM file with certificates to trust beside those of the system; else the first of `JOBROTA_CA_BUNDLE`,
    /// `REQUESTS_CA_BUNDLE`, `SSLCALISTLOC` and `CAS_CLIENT_SSL_CA_LIST` that is set. (`SSL_CERT_FILE` is the system's own.)
    pub ca_bundle: Option<PathBuf>,
    /// A proxy for all calls, perhaps with a password; else that of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
    pub proxy: Option<Secret>,
    /// Whether the server's certificate is verified. No other setting turns this off.
    pub verify: bool,
    /// Seconds of the server that pass in a real second; see [`Clock::of`].
    pub time_scale: Option<f64>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            ca_bundle: None,
            proxy: None,
            verify: true,
            time_scale: None,
        }
    }
}

/// The client; all its calls share one connection pool.
#[derive(Debug)]
pub struct ViyaClient {
    http: Client,
    /// The login that its calls carry.
    pub login: Login,
    /// The server's clock.
    pub clock: Clock,
    answered: AtomicBool,
}

/// Checks a base URL: `http` or `https`, a host, and no user, path, query or fragment.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] that says what is wrong.
pub fn parse_base_url(text: &str) -> Result<Url> {
    let example = "https://viya.example.com, the address of SAS Viya";
    AddressRules { name: "base_url", example, credentials: "", https_only: None, with_path: false }.parse(text)
}

/// A connection pool for the SAS Viya at `base_url`, for calls without a token. Sends nothing.
///
/// # Errors
/// Those of [`ViyaClient::new`].
pub(super) fn connect(base_url: &str, options: &ClientOptions) -> Result<Client> {
    let base = parse_base_url(base_url)?;
    let certificates = tls::ca_bundle(options.ca_bundle.as_deref())?;
    let proxy = options.proxy.as_ref().map(|proxy| tls::proxy(proxy.expose())).transpose()?;
    const EXPOSED: &str = "others on the network can read tokens and change responses";
    if base.scheme() == "http" && !is_loopback(&base) {
        tracing::warn!("{base} is not https: {EXPOSED}");
    }
    if !options.verify {
        tracing::warn!("the certificate of {base} is NOT verified: {EXPOSED} (verify)");
    }
    let advice = "check base_url, the network and its proxy, then try again";
    let client = Client::new("SAS Viya", &base, advice, |builder| {
        let builder = builder
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.read_timeout)
            .tls_certs_merge(certificates)
            .tls_danger_accept_invalid_certs(!options.verify);
        proxy.into_iter().fold(builder, ClientBuilder::proxy)
    });
    Ok(client?.with_limit(options.read_timeout * 2))
}

impl ViyaClient {
    /// A client of the SAS Viya at `base_url`, for example `https://viya.example.com`. Sends nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] when `base_url` is not `http(s)://host[:port]`, or the CA bundle, the proxy or
    /// the time scale cannot be used.
    pub fn new(base_url: &str, login: Login, options: &ClientOptions) -> Result<Self> {
        let http = connect(base_url, options)?;
        let clock = Clock::of(&http.url, options.time_scale)?;
        Ok(Self { http, login, clock, answered: AtomicBool::new(false) })
    }

    /// A token to send now, renewed first when it is about to expire.
    ///
    /// # Errors
    /// Those of [`Login::bearer`].
    pub async fn token(&self) -> Result<String> {
        Ok(self.login.bearer(&self.http).await?.token().to_owned())
    }

    /// The server's URL.
    pub fn base_url(&self) -> &Url {
        &self.http.url
    }

    /// Sends an idempotent request until it succeeds or the tries are used up: 429, 502, 503, 504, resets and time-outs are
    /// repeated with jittered back-off, no sooner than `Retry-After` (120 s of it at most).
    pub(crate) async fn send(&self, request: &ViyaRequest<'_>) -> Result<Response> {
        let mut retry = self.retry();
        loop {
            let wait = match self.once(request).await {
                Ok(response) if response.status.is_success() => return Ok(response),
                Ok(response) => {
                    let error = refusal(request, &response);
                    if !is_transient(response.status) {
                        return Err(error);
                    }
                    retry.after(error, true, response.retry_after())?
                }
                Err(RequestFailure { error, state, .. }) if error.can_recover() => {
                    retry.after(error, matches!(state, SendState::Answered(_)), None)?
                }
                Err(failure) => return Err(failure.error),
            };
            self.wait(wait).await;
        }
    }

    /// [`ViyaClient::send`], read as JSON.
    pub(crate) async fn send_json(&self, request: &ViyaRequest<'_>) -> Result<Value> {
        json(&self.send(request).await?)
    }

    /// A new series of tries.
    pub(crate) fn retry(&self) -> Retry {
        let unreached = if self.answered.load(Ordering::Relaxed) { TRIES } else { UNREACHED_TRIES };
        Retry::new(TRIES, unreached).with_longest_asked(LONGEST_RETRY_AFTER)
    }

    /// Waits `wait` of the server's time.
    pub(crate) async fn wait(&self, wait: Duration) {
        tokio::time::sleep(self.clock.real(wait.as_secs_f64()).max(Duration::from_millis(5))).await;
    }

    /// Sends a request once. A 401 is repeated with a renewed token, because the server did nothing.
    pub(crate) async fn once(&self, request: &ViyaRequest<'_>) -> Result<Response, RequestFailure> {
        let bearer = self.login.bearer(&self.http).await?;
        let response = self.exchange(request, bearer.token(), "").await?;
        if response.status != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let renewed = self.login.renewed(&bearer, &self.http).await?;
        self.exchange(request, renewed.token(), bearer.token()).await
    }

    /// Sends a request with `token`. The server may repeat it, or the one that it `refused` before.
    async fn exchange(
        &self,
        request: &ViyaRequest<'_>,
        token: &str,
        refused: &str,
    ) -> Result<Response, RequestFailure> {
        let url = request.url(&self.http.url)?;
        let what = format!("{} {}", request.method, url.path());
        let mut sent = self
            .http
            .request(request.method.clone(), url)
            .header("Accept", request.accept)
            .header(AUTHORIZATION, token::authorization("Bearer", token)?);
        if let Some(item) = request.accept_item {
            sent = sent.header("Accept-Item", item);
        }
        if let Some((content_type, body)) = &request.body {
            sent = sent.header("Content-Type", *content_type).body(body.clone());
        }
        let response = self.http.send(sent, &what).await?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(response.complete()?.without(&[token, refused]))
    }
}
