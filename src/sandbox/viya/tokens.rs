//! SASLogon: tokens that expire, refresh tokens that can be used once.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::reply::{self, Reply};

/// The sandbox's user and its password.
pub const USER: (&str, &str) = ("sandbox", "sandbox-password");
/// A confidential OAuth client and its secret.
pub const CLIENT: (&str, &str) = ("sandbox.client", "sandbox-secret");
/// The authorization code that SASLogon would show in the browser. It may be redeemed any number of times here.
pub const AUTHORIZATION_CODE: &str = "sandbox-code";
/// SAS Viya's own public clients, whose secret is empty.
const PUBLIC_CLIENTS: [&str; 4] = ["sas.cli", "sas.ec", "SASPy", "vscode"];
const SCOPE: &str = "openid uaa.user";

/// The body of `POST /SASLogon/oauth/token`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct TokenRequest {
    grant_type: String,
    username: String,
    password: String,
    code: String,
    code_verifier: String,
    refresh_token: String,
    client_id: String,
    client_secret: String,
}

/// The query of `GET /SASLogon/oauth/authorize`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Authorization {
    client_id: String,
    response_type: String,
    code_challenge: String,
    code_challenge_method: String,
}

/// All issued tokens. The lifetime is in real time, like the clients that refresh the tokens. Refresh tokens do not expire:
/// SAS's last 90 days.
pub struct IssuedTokens {
    lifetime: Duration,
    /// When each expires.
    access: HashMap<String, DateTime<Utc>>,
    /// The client that each was issued to, if any.
    refresh: HashMap<String, Option<String>>,
    /// Codes that were shown in the browser, with the challenge that their verifier must answer (RFC 7636).
    codes: HashMap<String, String>,
}

impl fmt::Debug for IssuedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedTokens").field("issued", &self.access.len()).finish_non_exhaustive()
    }
}

impl IssuedTokens {
    /// No tokens, for this lifetime.
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime, access: HashMap::new(), refresh: HashMap::new(), codes: HashMap::new() }
    }

    /// Answers `POST /SASLogon/oauth/token`. Its errors are OAuth's, not `vnd.sas.error`, as on SAS Viya.
    pub fn answer(&mut self, headers: &HeaderMap, request: &TokenRequest) -> Reply {
        match self.grant(headers, request) {
            Ok(tokens) => reply::body(StatusCode::OK, "application/json", &tokens),
            Err((status, error, description)) => {
                let body = json!({"error": error, "error_description": description});
                reply::body(status, "application/json", &body)
            }
        }
    }

    fn grant(
        &mut self,
        headers: &HeaderMap,
        request: &TokenRequest,
    ) -> Result<Value, (StatusCode, &'static str, String)> {
        let unauthorized = |error, text: &str| Err((StatusCode::UNAUTHORIZED, error, text.to_owned()));
        let bad = |error, text: &str| Err((StatusCode::BAD_REQUEST, error, text.to_owned()));
        let (client, secret) = client(headers, request);
        // The first client of this service sent the user's name and password as the client's.
        let known = (PUBLIC_CLIENTS.contains(&client.as_str()) && secret.is_empty())
            || (client.as_str(), secret.as_str()) == CLIENT
            || (client.as_str(), secret.as_str()) == USER;
        if !known {
            return unauthorized("unauthorized", "Bad credentials");
        }
        match request.grant_type.as_str() {
            "password" if (request.username.as_str(), request.password.as_str()) == USER => {}
            "password" => return unauthorized("unauthorized", "Bad credentials"),
            "client_credentials" if (client.as_str(), secret.as_str()) == CLIENT => return Ok(self.issue(None, false)),
            "client_credentials" => {
                return unauthorized("invalid_client", "Unauthorized grant type: client_credentials");
            }
            "authorization_code" if request.code == AUTHORIZATION_CODE => {}
            "authorization_code" => {
                // A code can be redeemed once, by the client that has its verifier.
                let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(request.code_verifier.as_bytes()));
                if self.codes.remove(&request.code).is_none_or(|expected| expected != challenge) {
                    return bad("invalid_grant", "Invalid authorization code: the code is not known");
                }
            }
            "refresh_token" => {
                // Removed whether or not it is valid: a refresh token can be used once.
                let found = self.refresh.remove(&request.refresh_token);
                if found.is_none_or(|owner| owner.is_some_and(|owner| owner != client)) {
                    return unauthorized("invalid_token", "Invalid refresh token: expired, revoked or used before");
                }
            }
            other => return bad("unsupported_grant_type", &format!("Unsupported grant type: {other}")),
        }
        Ok(self.issue(Some(&client), true))
    }

    /// Answers `GET /SASLogon/oauth/authorize`: the page that shows the code, as if the user had logged on in it.
    pub fn authorize(&mut self, request: &Authorization) -> Reply {
        let known = PUBLIC_CLIENTS.contains(&request.client_id.as_str()) || request.client_id == CLIENT.0;
        if !known || request.response_type != "code" || request.code_challenge_method != "S256" {
            let text = json!({"error": "invalid_request", "error_description": "client, response type or challenge"});
            return reply::body(StatusCode::BAD_REQUEST, "application/json", &text);
        }
        let code = uuid::Uuid::new_v4().simple().to_string();
        self.codes.insert(code.clone(), request.code_challenge.clone());
        let mut page =
            reply::text(StatusCode::OK, format!("<html><body>Your code: <b id=\"code\">{code}</b></body></html>"));
        page.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html"));
        page
    }

    /// A new token pair, as SASLogon's response shows it. No other OAuth client than `client` can renew it.
    pub fn issue(&mut self, client: Option<&str>, with_refresh: bool) -> Value {
        let now = Utc::now();
        let expires_at = now + self.lifetime;
        let jti = uuid::Uuid::new_v4().simple().to_string();
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let access = format!(
            "{}.{}.{}",
            part(json!({"alg": "HS256", "typ": "JWT"})),
            part(
                json!({"jti": jti, "client_id": client, "sub": USER.0, "user_name": USER.0, "scope": SCOPE.split(' ').collect::<Vec<_>>(), "iat": now.timestamp(), "exp": expires_at.timestamp()})
            ),
            // Not a signature: the sandbox compares tokens with those that it issued.
            URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes()),
        );
        self.access.insert(access.clone(), expires_at);
        let mut pair = json!({
            "access_token": access, "token_type": "bearer", "expires_in": self.lifetime.as_secs(), "scope": SCOPE, "jti": jti,
        });
        if with_refresh {
            let refresh = format!("{}-r", uuid::Uuid::new_v4().simple());
            self.refresh.insert(refresh.clone(), client.map(str::to_owned));
            pair["refresh_token"] = json!(refresh);
        }
        pair
    }

    /// The 401 for a request without a valid token; `None` for a valid one.
    pub fn refusal(&self, headers: &HeaderMap) -> Option<Reply> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let scheme = value.get(..7).unwrap_or_default();
        let token = if scheme.eq_ignore_ascii_case("bearer ") { value[7..].trim() } else { "" };
        let (error, reason) = match self.access.get(token) {
            Some(expires_at) if Utc::now() < *expires_at => return None,
            Some(expires_at) => {
                let when = expires_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
                ("invalid_token", format!("Access token expired: {when}"))
            }
            None if token.is_empty() => {
                ("unauthorized", "Full authentication is required to access this resource".to_owned())
            }
            None => ("invalid_token", "Cannot convert access token to JSON".to_owned()),
        };
        let mut reply = reply::error(StatusCode::UNAUTHORIZED, "Unauthorized", Some(&reason));
        let challenge = format!("Bearer realm=\"oauth\", error=\"{error}\", error_description=\"{reason}\"");
        if let Ok(value) = challenge.parse() {
            reply.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        Some(reply)
    }
}

/// OAuth client and secret: HTTP Basic, else the form.
fn client(headers: &HeaderMap, request: &TokenRequest) -> (String, String) {
    let basic = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let encoded = value.strip_prefix("Basic ")?;
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        decoded.split_once(':').map(|(client, secret)| (client.to_owned(), secret.to_owned()))
    });
    basic.unwrap_or_else(|| (request.client_id.clone(), request.client_secret.clone()))
}
