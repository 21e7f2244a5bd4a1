//! The client of Azure Resource Manager: tokens, bounded retries, pages.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::answer::Answer;
use super::cloud::{Cloud, is_loopback};
use super::credential::{AccessToken, Credential, Variables};
use super::fetcher::Fetcher;
use super::resource_id::escaped;
use super::retry;
use super::token::Tokens;
use crate::error::{Error, ErrorKind, Result};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest silence within an answer.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// How long a connection that is not used is kept: a POST on one that the server is just closing may or may not have arrived.
const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// How often a server that cannot be reached is tried.
const TRIES_UNREACHED: u32 = 3;
/// More pages than a subscription can have; what goes on beyond that goes round in circles.
const MOST_PAGES: usize = 10_000;

/// When an operation of several requests has to be over.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    pub(super) fn at(self) -> Instant {
        self.at
    }
}

/// What to ask for.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    /// A path on Resource Manager's own host, escaped.
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    pub(super) needs: Option<&'static str>,
}

impl Call {
    /// A GET of `path`, with the version of the interface that is meant: ARM takes no request without one.
    pub fn get(path: impl Into<String>, api_version: &str) -> Self {
        let query = vec![("api-version", api_version.to_owned())];
        Self { method: Method::GET, path: path.into(), query, body: None, needs: None }
    }

    /// A POST of `body`. It is repeated only where the server says that it did nothing (401 and 429).
    pub fn post(path: impl Into<String>, api_version: &str, body: Value) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(path, api_version) }
    }

    /// A GET of where an operation is asked about, for what is said of it: its address, which holds a token of its own, is
    /// not shown.
    pub(super) fn operation() -> Self {
        Self { query: Vec::new(), ..Self::get("of the operation", "") }
    }

    /// With a query parameter more.
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// With the permission that the call needs, for the error when it is missing.
    pub fn needing(mut self, permission: &'static str) -> Self {
        self.needs = Some(permission);
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

    /// For people to read: without the query, where continuation tokens are.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn may_repeat(&self) -> bool {
        self.method == Method::GET
    }
}

/// The client; all its calls share one connection pool and one token.
#[derive(Debug)]
pub struct ArmClient {
    http: reqwest::Client,
    arm: Url,
    tokens: Tokens,
}

impl ArmClient {
    /// A client of `cloud` with the rights of `credential`; nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the machine has no working TLS.
    pub fn new(cloud: &Cloud, credential: Credential, variables: Variables) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("jobrota/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(READ_LIMIT)
            .pool_idle_timeout(IDLE_LIMIT)
            .retry(reqwest::retry::never())
            // Followed, a redirect would take the token along.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(cloud.arm()) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| {
            Error::new(ErrorKind::Internal, "the HTTP client could not be set up on this machine").with_source(e)
        })?;
        let tokens = Tokens::new(Fetcher::new(credential, variables, cloud.clone())?);
        Ok(Self { http, arm: cloud.arm().clone(), tokens })
    }

    /// Sends `call` until it succeeds, cannot, or the `deadline` is reached: 408, 429, 500, 502, 503, 504 and broken connections are
    /// repeated with jittered back-off, no sooner than `Retry-After`; a 401 once, with another token.
    ///
    /// # Errors
    /// Those of the credential; [`ErrorKind::Network`] and [`ErrorKind::Server`], retryable, when the time was not enough;
    /// [`ErrorKind::Authentication`] for 401 and 403, [`ErrorKind::NotFound`] for 404.
    pub async fn send(&self, call: &Call, deadline: Deadline) -> Result<Answer> {
        let url = self.url(call);
        self.send_to(&url, call, deadline).await
    }

    /// [`ArmClient::send`], read as JSON.
    ///
    /// # Errors
    /// Those of [`ArmClient::send`] and of [`Answer::json`].
    pub async fn value(&self, call: &Call, deadline: Deadline) -> Result<Value> {
        self.send(call, deadline).await?.json(&call.shown())
    }

    /// All items of a listing, over all its pages.
    ///
    /// # Errors
    /// Those of [`ArmClient::value`]; [`ErrorKind::Server`] when a page's `nextLink` leads to another host, where the token would
    /// go along, or to a page that was there before.
    pub async fn list(&self, call: &Call, deadline: Deadline) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut url = self.url(call);
        let mut seen = HashSet::from([url.to_string()]);
        loop {
            let mut page = self.send_to(&url, call, deadline).await?.json(&call.shown())?;
            match page.get_mut("value").map(Value::take) {
                Some(Value::Array(more)) => items.extend(more),
                _ => {
                    let text = format!(
                        "{} was answered without a list: see that endpoint is Resource Manager itself",
                        call.shown()
                    );
                    return Err(Error::new(ErrorKind::Server, text));
                }
            }
            let link = page.get("nextLink").and_then(Value::as_str).filter(|link| !link.is_empty());
            let Some(link) = link else { return Ok(items) };
            url = self.own_link(link)?;
            if !seen.insert(url.to_string()) || seen.len() > MOST_PAGES {
                let text = format!("the pages of {} do not come to an end", call.shown());
                return Err(Error::new(ErrorKind::Server, text));
            }
        }
    }

    /// A link that the server gave, if it leads to the same server.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] when it does not.
    pub fn own_link(&self, link: &str) -> Result<Url> {
        let elsewhere = |host: &str| {
            let text = format!(
                "Resource Manager at {} gave a link to {host}, which is not followed, because the token would go along",
                self.shown_arm()
            );
            Error::new(ErrorKind::Server, text)
        };
        let url = self.arm.join(link).map_err(|_| elsewhere("what is no address"))?;
        if url.origin() != self.arm.origin() || !url.username().is_empty() || url.password().is_some() {
            return Err(elsewhere(url.host_str().unwrap_or("nowhere")));
        }
        Ok(url)
    }

    pub(super) async fn send_to(&self, url: &Url, call: &Call, deadline: Deadline) -> Result<Answer> {
        let (mut tried, mut unreached, mut renewed) = (0, 0, false);
        let mut token = self.token(deadline, None).await?;
        loop {
            tried += 1;
            let sent = tokio::time::timeout_at(deadline.at, self.exchange(url, call, token.text())).await;
            let (failure, asked) = match sent {
                Ok(Ok(answer)) if answer.status.is_success() => return Ok(answer),
                Ok(Ok(answer)) if answer.status == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    token = self.token(deadline, Some(&token)).await?;
                    continue;
                }
                Ok(Ok(answer)) => {
                    let repeat =
                        answer.is_passing() && (call.may_repeat() || answer.status == StatusCode::TOO_MANY_REQUESTS);
                    let asked = answer.retry_after();
                    let error = answer.into_error(call, token.text());
                    if !repeat {
                        return Err(error);
                    }
                    unreached = 0;
                    (error, asked)
                }
                Ok(Err(error)) => {
                    unreached += 1;
                    if !call.may_repeat() || unreached >= TRIES_UNREACHED {
                        return Err(error);
                    }
                    (error, None)
                }
                Err(_) => return Err(self.late(call, deadline)),
            };
            let wait = retry::wait(tried, asked);
            if Instant::now() + wait >= deadline.at {
                let text = format!(
                    "{failure}; it was tried {tried} times, and the next try would be {:.0} seconds later, beyond the limit of {} seconds",
                    wait.as_secs_f64(),
                    deadline.limit.as_secs_f64()
                );
                return Err(Error::new(failure.kind(), text).with_retryable(true).with_source(failure));
            }
            tracing::debug!(call = call.shown(), ?wait, error = failure.to_string(), "Resource Manager is asked again");
            tokio::time::sleep(wait).await;
            token = self.token(deadline, None).await?;
        }
    }

    /// The current token, or another one than the `refused`.
    pub(super) async fn token(&self, deadline: Deadline, refused: Option<&AccessToken>) -> Result<Arc<AccessToken>> {
        let fetched = async {
            match refused {
                Some(refused) => self.tokens.renewed(refused).await,
                None => self.tokens.bearer().await,
            }
        };
        tokio::time::timeout_at(deadline.at, fetched).await.unwrap_or_else(|_| {
            let seconds = deadline.limit.as_secs_f64();
            let text = format!("the credential gave no token within the limit of {seconds} seconds for all requests");
            Err(Error::new(ErrorKind::Authentication, text).with_retryable(true))
        })
    }

    async fn exchange(&self, url: &Url, call: &Call, token: &str) -> Result<Answer> {
        let response = self.begin(url, call, token).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(|e| self.broken(call, e))?;
        Ok(Answer { status, headers, body })
    }

    /// Sends a request, and waits for the head of the answer.
    pub(super) async fn begin(&self, url: &Url, call: &Call, token: &str) -> Result<reqwest::Response> {
        let mut request = self.http.request(call.method.clone(), url.clone()).header("Accept", "application/json");
        // Added by hand: the error of a header that cannot be must not hold the token.
        let mut bearer = reqwest::header::HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Error::invalid("the credential's token has characters that no HTTP header can have"))?;
        bearer.set_sensitive(true);
        request = request.header(reqwest::header::AUTHORIZATION, bearer);
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        request.send().await.map_err(|e| self.broken(call, e))
    }

    fn broken(&self, call: &Call, e: reqwest::Error) -> Error {
        let arm = self.shown_arm();
        let text = if e.is_connect() {
            format!("Resource Manager at {arm} could not be reached: see the network and its proxy")
        } else if e.is_timeout() {
            format!("Resource Manager at {arm} did not answer {} in time", call.shown())
        } else {
            format!("the connection to Resource Manager at {arm} broke off during {}", call.shown())
        };
        Error::new(ErrorKind::Network, text).with_retryable(true).with_source(e.without_url())
    }

    pub(super) fn late(&self, call: &Call, deadline: Deadline) -> Error {
        let text = format!(
            "Resource Manager at {} did not answer {} within the limit of {} seconds for all requests",
            self.shown_arm(),
            call.shown(),
            deadline.limit.as_secs_f64()
        );
        Error::new(ErrorKind::Network, text).with_retryable(true)
    }

    fn shown_arm(&self) -> &str {
        self.arm.as_str().trim_end_matches('/')
    }

    pub(super) fn url(&self, call: &Call) -> Url {
        let mut url = self.arm.clone();
        url.set_path(&call.path);
        url.query_pairs_mut().extend_pairs(call.query.iter().map(|(name, value)| (*name, value.as_str())));
        url
    }
}
