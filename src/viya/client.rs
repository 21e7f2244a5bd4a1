//! One HTTP connection pool to one SAS Viya, with the token, bounded retries, errors as text, and paging.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::auth::Login;
use super::clock::{Clock, SPEED_HEADER};
use crate::error::{Error, ErrorKind, Result};

mod address;
mod answer;
mod errors;
mod pages;
mod tls;

use address::is_loopback;
pub use address::{parse_base_url, without_userinfo};
pub(crate) use answer::Answer;
pub use errors::error_text;
pub(crate) use pages::Pages;

/// Media type of every SAS collection.
pub const COLLECTION: &str = "application/vnd.sas.collection+json";

/// Limits of the client, in real seconds: they concern the network, which no sandbox makes faster. Its `Debug` shows no
/// password of the proxy.
#[derive(Clone)]
pub struct ClientOptions {
    /// Time to open a connection.
    pub connect_timeout: Duration,
    /// Longest silence within an answer, and the limit of one whole call is twice that.
    pub read_timeout: Duration,
    /// Tries of one idempotent call, including the first; a server that never answered before gets three at most.
    pub max_tries: u32,
    /// A PEM file with certificates to trust beside those of the system; else the first of `JOBROTA_CA_BUNDLE`,
    /// `REQUESTS_CA_BUNDLE`, `SSLCALISTLOC` and `CAS_CLIENT_SSL_CA_LIST` that is set. (`SSL_CERT_FILE` is the system's own.)
    pub ca_bundle: Option<PathBuf>,
    /// A proxy for all calls; else what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.
    pub proxy: Option<String>,
    /// Whether the server's certificate is checked. Nothing but this turns it off.
    pub verify: bool,
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("connect_timeout", &self.connect_timeout)
            .field("read_timeout", &self.read_timeout)
            .field("max_tries", &self.max_tries)
            .field("ca_bundle", &self.ca_bundle)
            .field("proxy", &self.proxy.as_deref().map(without_userinfo))
            .field("verify", &self.verify)
            .finish()
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            max_tries: 6,
            ca_bundle: None,
            proxy: None,
            verify: true,
        }
    }
}

/// The client; all its calls share one connection pool.
#[derive(Debug)]
pub struct ViyaClient {
    http: reqwest::Client,
    base: Url,
    tokens: Login,
    clock: Clock,
    max_tries: u32,
    answered: AtomicBool,
}

/// What to ask for. Paths and links are always resolved on the client's own server, so that no answer can send the
/// token elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub method: Method,
    pub path: &'a str,
    pub query: Vec<(&'a str, String)>,
    pub accept: &'a str,
    pub accept_item: Option<&'a str>,
    pub body: Option<(&'a str, Bytes)>,
}

impl<'a> Call<'a> {
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
}

/// No answer came. `sent` says whether the server may have got the request.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    pub error: Error,
    pub sent: bool,
    /// The answer took too long: the server may be at it still.
    pub timed_out: bool,
}

impl From<Error> for NoAnswer {
    fn from(error: Error) -> Self {
        Self { error, sent: false, timed_out: false }
    }
}

/// One page of a SAS collection.
#[derive(Debug)]
pub(crate) struct Page {
    pub items: Vec<Value>,
    pub next: Option<String>,
    /// How many items there are in all, as the service has it; some say more than the user may see.
    pub count: Option<usize>,
}

impl ViyaClient {
    /// A client of the SAS Viya at `base_url`, e.g. `https://viya.example.com`; nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `base_url` is no plain `http(s)://host[:port]`.
    pub fn new(base_url: &str, tokens: Login, options: &ClientOptions) -> Result<Self> {
        let base = parse_base_url(base_url)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("jobrota/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.read_timeout)
            .timeout(options.read_timeout * 2)
            // Repeating is decided here, where it is known what may be repeated; a redirect leads to a login page.
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none());
        if let Some(file) = tls::ca_bundle(options.ca_bundle.as_deref()) {
            builder = builder.tls_certs_merge(tls::authorities(&file)?);
        }
        if base.scheme() == "http" && !is_loopback(&base) {
            tracing::warn!("{base} is not https: whoever is between can read tokens and change answers");
        }
        if !options.verify {
            tracing::warn!(
                "the certificate of {base} is NOT checked: whoever is between can read tokens and change answers (verify)"
            );
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        if let Some(proxy) = &options.proxy {
            builder = builder.proxy(tls::proxy(proxy)?);
        } else if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| {
            Error::new(ErrorKind::Internal, "the HTTP client could not be set up on this machine").with_source(e)
        })?;
        let max_tries = options.max_tries.max(1);
        Ok(Self { http, base, tokens, clock: Clock::new(), max_tries, answered: AtomicBool::new(false) })
    }

    /// The login that its calls carry.
    pub fn login(&self) -> &Login {
        &self.tokens
    }

    /// The connection pool, for what is asked without a token.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// A token to send now, renewed first when it is about to expire.
    ///
    /// # Errors
    /// Those of [`Login::bearer`].
    pub async fn token(&self) -> Result<String> {
        Ok(self.tokens.bearer(&self.http, &self.base).await?.token().to_owned())
    }

    /// The server's URL.
    pub fn base_url(&self) -> &Url {
        &self.base
    }

    /// The server's clock; its speed is known after the first answer.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sends an idempotent call until it succeeds or the tries are used up: 429, 502, 503, 504, resets and time-outs are
    /// repeated with jittered back-off, no sooner than `Retry-After` (120 s of it at most).
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Answer> {
        let mut round = 0;
        loop {
            round += 1;
            let more = round < self.tries();
            let after = match self.once(call).await {
                Ok(answer) if answer.status.is_success() => return Ok(answer),
                Ok(answer) if more && answer.is_passing() => answer.retry_after(),
                Ok(answer) => return Err(answer.into_error(call)),
                Err(failure) if more && failure.error.may_pass() => None,
                Err(failure) => return Err(failure.error),
            };
            self.back_off(round, after).await;
        }
    }

    /// [`ViyaClient::send`], read as JSON.
    pub(crate) async fn send_json(&self, call: &Call<'_>) -> Result<Value> {
        self.send(call).await?.json()
    }

    /// One page of a collection: `call`, or the `next` link of the page before.
    pub(crate) async fn page(&self, call: &Call<'_>, next: Option<&str>) -> Result<Page> {
        let answer = match next {
            Some(link) => self.send(&Call { path: link, query: Vec::new(), ..call.clone() }).await?,
            None => self.send(call).await?,
        };
        let mut value = answer.json()?;
        let next = value.get("links").and_then(Value::as_array).and_then(|links| {
            let link = links.iter().find(|link| link.get("rel").and_then(Value::as_str) == Some("next"))?;
            let link = link.get("href").or_else(|| link.get("uri")).and_then(Value::as_str)?;
            // One that is relative is so to its page.
            answer.url.join(link).ok().map(String::from)
        });
        let count = value.get("count").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        let items = match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        Ok(Page { items, next, count })
    }

    /// Waits before try `round + 1`: half a second doubling up to 30, jittered, and at least what the server asked for.
    pub(crate) async fn back_off(&self, round: u32, retry_after: Option<f64>) {
        let exponential = (0.5 * f64::from(2_u32.saturating_pow(round.min(8).saturating_sub(1)))).min(30.0);
        let seconds = (exponential * rand::random_range(0.5..1.0)).max(retry_after.unwrap_or(0.0));
        tokio::time::sleep(self.clock.real(seconds).max(Duration::from_millis(5))).await;
    }

    /// How often a call is tried.
    pub(crate) fn tries(&self) -> u32 {
        if self.answered.load(Ordering::Relaxed) { self.max_tries } else { self.max_tries.min(3) }
    }

    /// Sends a call once; a 401 is repeated with a renewed token, because it was not acted upon.
    pub(crate) async fn once(&self, call: &Call<'_>) -> Result<Answer, NoAnswer> {
        let bearer = self.tokens.bearer(&self.http, &self.base).await?;
        let answer = self.exchange(call, bearer.token()).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let bearer = self.tokens.renewed(&bearer, &self.http, &self.base).await?;
        self.exchange(call, bearer.token()).await
    }

    async fn exchange(&self, call: &Call<'_>, token: &str) -> Result<Answer, NoAnswer> {
        let url = self.resolve(call)?;
        let mut request =
            self.http.request(call.method.clone(), url.clone()).header("Accept", call.accept).bearer_auth(token);
        if let Some(item) = call.accept_item {
            request = request.header("Accept-Item", item);
        }
        if let Some((content_type, body)) = &call.body {
            request = request.header("Content-Type", *content_type).body(body.clone());
        }
        let broken = |e: reqwest::Error| {
            // A request that could not even be put together fails the same way every time.
            let error = if e.is_builder() {
                Error::invalid(format!("{} {} cannot be sent with the token and the arguments given", call.method, url))
            } else {
                Error::new(ErrorKind::Network, self.unreachable(&e, &call.method, &url)).with_retryable(true)
            };
            NoAnswer {
                sent: !e.is_connect() && !e.is_builder(),
                timed_out: e.is_timeout(),
                error: error.with_source(e.without_url()),
            }
        };
        let response = request.send().await.map_err(broken)?;
        let (status, headers) = (response.status(), response.headers().clone());
        if let Some(speed) = headers.get(SPEED_HEADER).and_then(|value| value.to_str().ok()) {
            self.clock.learn(speed);
        }
        self.answered.store(true, Ordering::Relaxed);
        let body = response.bytes().await.map_err(broken)?;
        Ok(Answer { status, url, headers, body })
    }

    fn unreachable(&self, e: &reqwest::Error, method: &Method, url: &Url) -> String {
        let address = self.base.as_str().trim_end_matches('/');
        if e.is_connect() {
            format!(
                "SAS Viya at {address} could not be reached: check base_url, the network and its proxy, then try again"
            )
        } else if e.is_timeout() {
            format!("SAS Viya at {address} did not answer {method} {} in time", url.path())
        } else {
            format!("the connection to SAS Viya at {address} broke off during {method} {}", url.path())
        }
    }

    fn resolve(&self, call: &Call<'_>) -> Result<Url> {
        let invalid = |e: url::ParseError| {
            Error::new(ErrorKind::Server, format!("SAS Viya gave a link that is none: {:?}", call.path)).with_source(e)
        };
        let found = self.base.join(call.path).map_err(invalid)?;
        let mut url = self.base.clone();
        url.set_path(found.path());
        url.set_query(found.query());
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query.iter().map(|(name, value)| (*name, value.as_str())));
        }
        Ok(url)
    }
}

/// A SAS filter literal: quotes are doubled.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
