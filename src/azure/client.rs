//! The client of Azure Resource Manager: tokens, bounded retries, pages.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use serde_json::Value;
use url::Url;

use super::cloud::Cloud;
use super::credential::{AccessToken, Credential, CredentialVariables};
use super::request::{ArmRequest, is_transient, refusal};
use super::token_fetcher::TokenFetcher;
use crate::error::{Error, ErrorKind, Result};
use crate::http::retry::Retry;
use crate::http::{Client, Deadline, RequestFailure, Response, address, token};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest silence within a response.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// How long an unused connection is kept. It is short, because a POST on a connection that the server is closing may or
/// may not arrive.
const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// How often a request is tried in a row when the server cannot be reached.
const UNREACHED_TRIES: u32 = 3;
/// More pages than a subscription can have.
const MOST_PAGES: usize = 10_000;
/// What errors advise to check when a response is not one of Resource Manager.
pub(super) const CHECK_ENDPOINT: &str = "endpoint is Resource Manager itself";

/// The client; all its calls share one connection pool and one token.
#[derive(Debug)]
pub struct ArmClient {
    pub(super) http: Client,
    tokens: TokenFetcher,
}

impl ArmClient {
    /// A client of `cloud` with the rights of `credential`. Sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the machine has no working TLS.
    pub fn new(cloud: &Cloud, credential: Credential, variables: CredentialVariables) -> Result<Self> {
        let http = Client::new("Resource Manager", cloud.arm(), "check the network and its proxy", |builder| {
            builder.connect_timeout(CONNECT_LIMIT).read_timeout(READ_LIMIT).pool_idle_timeout(IDLE_LIMIT)
        })?;
        let tokens = TokenFetcher::new(credential, variables, cloud.clone())?;
        Ok(Self { http, tokens })
    }

    /// Sends `request` until it succeeds, cannot succeed, or `deadline` is reached. 408, 429, 500, 502, 503, 504 and broken
    /// connections are repeated with jittered back-off, no sooner than `Retry-After`; a 401 once, with a new token.
    ///
    /// # Errors
    /// Those of the credential; [`ErrorKind::Network`] and [`ErrorKind::Server`], retryable, when the time was not enough;
    /// [`ErrorKind::Authentication`] for 401 and 403, [`ErrorKind::NotFound`] for 404.
    pub async fn send(&self, request: &ArmRequest, deadline: Deadline) -> Result<Response> {
        self.send_to(&request.url(&self.http.url), request, deadline).await
    }

    /// [`ArmClient::send`], read as JSON.
    ///
    /// # Errors
    /// Those of [`ArmClient::send`] and of [`Response::json`].
    pub async fn value(&self, request: &ArmRequest, deadline: Deadline) -> Result<Value> {
        self.send(request, deadline).await?.json(&request.shown(), CHECK_ENDPOINT)
    }

    /// All items of a listing, from all its pages.
    ///
    /// # Errors
    /// Those of [`ArmClient::value`]; [`ErrorKind::Server`] when the `nextLink` of a page leads to another host, which would
    /// get the token, or to a page that was read before.
    pub async fn list(&self, request: &ArmRequest, deadline: Deadline) -> Result<Vec<Value>> {
        let wrong = |why: &str| Error::new(ErrorKind::Server, format!("{} {why}", request.shown()));
        let mut items = Vec::new();
        let mut url = request.url(&self.http.url);
        let mut seen = HashSet::from([url.to_string()]);
        loop {
            let mut page = self.send_to(&url, request, deadline).await?.json(&request.shown(), CHECK_ENDPOINT)?;
            match page.get_mut("value").map(Value::take) {
                Some(Value::Array(more)) => items.extend(more),
                _ => return Err(wrong(&format!("was answered without a list: check that {CHECK_ENDPOINT}"))),
            }
            let link = page.get("nextLink").and_then(Value::as_str).filter(|link| !link.is_empty());
            let Some(link) = link else { return Ok(items) };
            url = self.own_link(link)?;
            if !seen.insert(url.to_string()) || seen.len() > MOST_PAGES {
                return Err(wrong("has pages that do not come to an end"));
            }
        }
    }

    /// A link that the server gave, if it leads to the same server.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] when it does not.
    pub fn own_link(&self, link: &str) -> Result<Url> {
        let elsewhere = |host: &str| {
            let server = &self.http.shown;
            let text = format!("{server} gave a link to {host}, which is not followed, because it would get the token");
            Error::new(ErrorKind::Server, text)
        };
        let url = self.http.url.join(link).map_err(|_| elsewhere("something that is not an address"))?;
        match address::is_same_server(&self.http.url, &url) {
            true => Ok(url),
            false => Err(elsewhere(url.host_str().unwrap_or("no host"))),
        }
    }

    /// Sends `request` once; again only with a new token after a 401, which did nothing. Asks `may_send` directly before.
    ///
    /// The response has whatever status, and its body may have been lost: status and headers say what was taken and where
    /// to ask about it.
    ///
    /// # Errors
    /// A [`RequestFailure`] when no response came. A closed gate is [`SendState::NotSent`](crate::http::SendState::NotSent), not retryable.
    pub(crate) async fn post_once(
        &self,
        request: &ArmRequest,
        deadline: Deadline,
        may_send: &(dyn Fn() -> bool + Sync),
    ) -> Result<Response, RequestFailure> {
        self.send_once(&request.url(&self.http.url), request, deadline, may_send).await?
    }

    /// [`ArmClient::send`] to an address that the server gave.
    pub(super) async fn send_to(&self, url: &Url, request: &ArmRequest, deadline: Deadline) -> Result<Response> {
        let mut retry = Retry::new(u32::MAX, UNREACHED_TRIES).until(deadline);
        let may_repeat = request.method == reqwest::Method::GET;
        loop {
            let sent = match self.send_once(url, request, deadline, &|| true).await? {
                Ok(response) if response.status.is_success() => response.complete(),
                sent => sent,
            };
            let wait = match sent {
                Ok(response) if response.status.is_success() => return Ok(response),
                Ok(response) => {
                    let status = response.status;
                    let error = refusal(request, &response);
                    if !is_transient(status) || !(may_repeat || status == StatusCode::TOO_MANY_REQUESTS) {
                        return Err(error);
                    }
                    retry.after(error, true, response.retry_after())?
                }
                Err(RequestFailure { error, .. })
                    if !may_repeat || error.kind() != ErrorKind::Network || deadline.is_over() =>
                {
                    return Err(error);
                }
                Err(RequestFailure { error, .. }) => retry.after(error, false, None)?,
            };
            tracing::debug!(request = request.shown(), ?wait, "Resource Manager is asked again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends a request once, or twice after a 401. Returns the response, without the token if it repeats that, or why no
    /// response came.
    ///
    /// # Errors
    /// Those of the credential, and a closed gate: nothing was sent, and a repetition would not help.
    async fn send_once(
        &self,
        url: &Url,
        request: &ArmRequest,
        deadline: Deadline,
        may_send: &(dyn Fn() -> bool + Sync),
    ) -> Result<Result<Response, RequestFailure>> {
        let mut token = self.token(deadline, None).await?;
        let first = Arc::clone(&token);
        for is_renewed in [false, true] {
            if !may_send() {
                return Err(Error::new(ErrorKind::Conflict, "the delivery was stopped before its turn"));
            }
            let mut sent = self
                .http
                .request(request.method.clone(), url.clone())
                .header("Accept", "application/json")
                .header(AUTHORIZATION, token::authorization("Bearer", token.text())?);
            if let Some(body) = &request.body {
                sent = sent.json(body);
            }
            match self.http.send_until(sent, &request.shown(), deadline).await {
                Ok(response) if response.status == StatusCode::UNAUTHORIZED && !is_renewed => {
                    token = self.token(deadline, Some(&token)).await?;
                }
                sent => return Ok(sent.map(|response| response.without(&[token.text(), first.text()]))),
            }
        }
        Err(Error::new(ErrorKind::Internal, "a request was never sent"))
    }

    /// The current token, or another one than `refused`.
    async fn token(&self, deadline: Deadline, refused: Option<&AccessToken>) -> Result<Arc<AccessToken>> {
        tokio::time::timeout_at(deadline.at, self.tokens.token(refused)).await.unwrap_or_else(|_| {
            let seconds = deadline.seconds();
            let text = format!("the credential gave no token within the limit of {seconds} seconds for all requests");
            Err(Error::new(ErrorKind::Authentication, text).with_retryable(true))
        })
    }
}
