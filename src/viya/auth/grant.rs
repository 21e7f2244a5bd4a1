//! Asks SASLogon for tokens, with the OAuth grants that it supports.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Map, Value};

use super::token_storage::TokenStorage;
use crate::error::{Error, ErrorKind, Result};
use crate::http::retry::Retry;
use crate::http::{Client, RequestFailure, Response, Secret, SendState};
use crate::runtime;
use crate::settings::environment;
use crate::viya::json::error_text;

/// How often SASLogon is asked.
const TRIES: u32 = 4;

/// An OAuth client. Its `Debug` does not show the secret.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    id: String,
    secret: Secret,
    /// Whether no client was named.
    pub(super) is_default: bool,
}

/// SAS's own public client, `sas.cli`. Tokens that name another client are renewed by that one.
impl Default for OAuthClient {
    fn default() -> Self {
        Self { id: "sas.cli".to_owned(), secret: Secret::default(), is_default: true }
    }
}

impl OAuthClient {
    /// A client with a secret.
    pub fn new(id: impl Into<String>, secret: impl Into<Secret>) -> Self {
        Self { id: id.into(), secret: secret.into(), is_default: false }
    }

    /// `SAS_CLIENT_ID` and `SAS_CLIENT_SECRET`, else `VIYA_CLIENT_ID` and `VIYA_CLIENT_SECRET`, else SAS's public client
    /// `sas.cli`.
    pub fn from_environment() -> Self {
        let given = ["SAS", "VIYA"].iter().find_map(|prefix| {
            let id = environment(&[&format!("{prefix}_CLIENT_ID")])?;
            Some(Self::new(id, environment(&[&format!("{prefix}_CLIENT_SECRET")]).unwrap_or_default()))
        });
        given.unwrap_or_default()
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it has a secret.
    pub fn is_confidential(&self) -> bool {
        !self.secret.expose().is_empty()
    }
}

/// Returns a SASLogon response, or just `{"access_token": …}`. It may block.
pub type TokenCallback = Arc<dyn Fn() -> Result<Map<String, Value>> + Send + Sync>;

/// How to get tokens without a refresh token.
#[derive(Clone)]
pub enum Grant {
    /// With the client's own id and secret.
    ClientCredentials,
    /// With a user's name and password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// From the caller.
    Callback(TokenCallback),
}

impl Grant {
    /// Requests new tokens. No error shows the `known` ones.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`] with SASLogon's reason; [`ErrorKind::Network`] or [`ErrorKind::Server`], retryable, when
    /// SASLogon is not available.
    pub(super) async fn request(
        &self,
        http: &Client,
        client: &OAuthClient,
        known: &[&str],
    ) -> Result<Map<String, Value>> {
        match self {
            Self::ClientCredentials => post(http, client, &[("grant_type", "client_credentials")], known).await,
            Self::Password { user, password } => {
                let form = [("grant_type", "password"), ("username", user), ("password", password.expose())];
                post(http, client, &form, &[known, &[password.expose()]].concat()).await
            }
            Self::Callback(callback) => {
                let callback = Arc::clone(callback);
                runtime::blocking(move || callback()).await
            }
        }
    }
}

/// Requests a new token pair for a refresh token. No error shows the `known` tokens.
pub(super) async fn refresh(
    http: &Client,
    client: &OAuthClient,
    refresh_token: &str,
    storage: &TokenStorage,
    known: &[&str],
) -> Result<Map<String, Value>> {
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
    let refused = |why: &Error| {
        format!(
            "SAS Viya refused the refresh token in {} ({why}): log in again ({}) and repeat; if it belongs to another \
             OAuth client than {:?}, set SAS_CLIENT_ID and SAS_CLIENT_SECRET",
            storage.name(),
            storage.how_to_log_in(),
            client.id
        )
    };
    let response = post(http, client, &form, &[known, &[refresh_token]].concat()).await;
    response.map_err(|e| explained(e, refused))
}

/// A refusal of SASLogon as what `explain` makes of it; any other error as it is.
pub(in crate::viya) fn explained(error: Error, explain: impl FnOnce(&Error) -> String) -> Error {
    match error.kind() {
        ErrorKind::Authentication => Error::new(ErrorKind::Authentication, explain(&error)),
        _ => error,
    }
}

/// `POST /SASLogon/oauth/token` with `form`, repeated while SASLogon is not available. No error shows the client's secret
/// or one of `secrets`.
pub(in crate::viya) async fn post(
    http: &Client,
    client: &OAuthClient,
    form: &[(&str, &str)],
    secrets: &[&str],
) -> Result<Map<String, Value>> {
    // As it is in the Authorization header.
    let login = format!("{}:{}", client.id, client.secret.expose());
    let secrets = [secrets, &[client.secret.expose(), &login]].concat();
    let mut url = http.url.clone();
    url.set_path("/SASLogon/oauth/token");
    let mut retry = Retry::new(TRIES, TRIES);
    let mut response_lost = false;
    loop {
        let request = http
            .request(Method::POST, url.clone())
            .header("Accept", "application/json")
            .basic_auth(&client.id, Some(client.secret.expose()))
            .form(form);
        let sent = http.send(request, "POST /SASLogon/oauth/token").await.and_then(Response::complete);
        let (error, may_be_issued) = match read(sent, &secrets) {
            Ok(tokens) => return Ok(tokens),
            Err(failure) => failure,
        };
        // The same request would fail again.
        if !error.can_recover() {
            // The lost response may have spent a refresh token that works once.
            let lost = "the response to the previous try was lost, so that what was sent may be spent";
            return Err(match response_lost && error.kind() == ErrorKind::Authentication {
                true => Error::new(ErrorKind::Authentication, format!("{error}; {lost}")),
                false => error,
            });
        }
        response_lost |= may_be_issued;
        tokio::time::sleep(retry.after(error, true, None)?).await;
    }
}

/// The tokens in a response, or why SASLogon gave none, and whether it may have issued tokens that did not arrive.
fn read(sent: Result<Response, RequestFailure>, secrets: &[&str]) -> Result<Map<String, Value>, (Error, bool)> {
    let response = sent.map_err(|RequestFailure { error, state, .. }| match state {
        SendState::NotSent => (error, false),
        SendState::MaybeSent => (error, true),
        SendState::Answered(status) => (error, status.is_success()),
    })?;
    // A new response may have the same refresh token again.
    let response = if response.status.is_success() { response } else { response.without(secrets) };
    let (status, url) = (response.status, &response.url);
    let failed = |kind: ErrorKind, text: String, is_final: bool, may_be_issued: bool| {
        Err((Error::new(kind, text).with_retryable(!is_final), may_be_issued))
    };
    let value = serde_json::from_slice::<Value>(&response.body).ok();
    if status.is_success() {
        return match value {
            Some(Value::Object(map)) if map.get("access_token").is_some_and(Value::is_string) => Ok(map),
            // The page of a proxy; SASLogon may have answered behind it.
            None => failed(ErrorKind::Server, format!("{url} answered {status} without JSON"), false, true),
            Some(_) => {
                failed(ErrorKind::Server, format!("{url} answered {status} without an access_token"), true, false)
            }
        };
    }
    // Only a text of SASLogon itself is a refusal. The page of a proxy or a redirect says nothing about the token.
    match value.as_ref().map(error_text).filter(|text| !text.is_empty()) {
        Some(why) if status.is_client_error() && status.as_u16() != 429 => {
            failed(ErrorKind::Authentication, why, true, false)
        }
        said => {
            let why = said.unwrap_or_else(|| format!("{status}, and not by SASLogon itself"));
            let text = format!("{url} could not renew the token: {why}; check base_url, and try again later");
            failed(ErrorKind::Server, text, false, false)
        }
    }
}
