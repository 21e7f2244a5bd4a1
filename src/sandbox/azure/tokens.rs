//! The login service and the metadata service: tokens that expire.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Value, json};

/// The sandbox's directory.
pub const TENANT_ID: &str = "5a4db0c5-0000-4000-8000-00000000000a";
/// Its service principal, which is its workload identity too.
pub const CLIENT_ID: &str = "5a4db0c5-0000-4000-8000-00000000000b";
/// Client id of its user-assigned managed identity.
pub const IDENTITY_CLIENT_ID: &str = "5a4db0c5-0000-4000-8000-00000000000c";
const AUDIENCE: &str = "https://management.azure.com";

/// The body of `POST /{tenant}/oauth2/v2.0/token`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct LoginForm {
    grant_type: String,
    client_id: String,
    client_secret: Option<String>,
    client_assertion_type: String,
    client_assertion: Option<String>,
    scope: String,
}

/// The query of `GET /metadata/identity/oauth2/token`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct IdentityRequest {
    #[serde(rename = "api-version")]
    api_version: String,
    resource: String,
    client_id: Option<String>,
}

/// All issued tokens.
pub struct IssuedTokens {
    lifetime: Duration,
    pub secret: String,
    pub federated: String,
    pub valid_until: HashMap<String, Instant>,
    pub issued: usize,
}

impl fmt::Debug for IssuedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedTokens").field("issued", &self.issued).finish_non_exhaustive()
    }
}

impl IssuedTokens {
    pub fn new(lifetime: Duration) -> Self {
        let random = || uuid::Uuid::new_v4().simple().to_string();
        Self { lifetime, secret: random(), federated: random(), valid_until: HashMap::new(), issued: 0 }
    }

    /// A new token, and for how many seconds it is valid.
    pub fn issue(&mut self) -> (String, u64) {
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        self.valid_until.insert(token.clone(), Instant::now() + self.lifetime);
        self.issued += 1;
        (token, self.lifetime.as_secs())
    }

    /// Answers a request for a token with the client credentials flow.
    pub fn login(&mut self, tenant: &str, request: &LoginForm) -> (StatusCode, Json<Value>) {
        const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let known = match (&request.client_secret, &request.client_assertion) {
            (Some(secret), None) => *secret == self.secret,
            (None, Some(assertion)) => *assertion == self.federated && request.client_assertion_type == ASSERTION,
            _ => false,
        };
        let bad = StatusCode::BAD_REQUEST;
        let (status, error, code, text) = if !tenant.eq_ignore_ascii_case(TENANT_ID) {
            (bad, "invalid_request", 90_002, format!("Tenant '{tenant}' not found."))
        } else if request.grant_type != "client_credentials" {
            (bad, "unsupported_grant_type", 70_003, "The app requested an unsupported grant type.".to_owned())
        } else if request.client_id != CLIENT_ID {
            (bad, "unauthorized_client", 700_016, "Application was not found in the directory.".to_owned())
        } else if !known {
            (StatusCode::UNAUTHORIZED, "invalid_client", 7_000_215, "Invalid client secret provided.".to_owned())
        } else if request.scope != format!("{AUDIENCE}/.default") {
            let text = "The provided value for the input parameter 'scope' is not valid.";
            (bad, "invalid_scope", 70_011, text.to_owned())
        } else {
            let (token, seconds) = self.issue();
            let body = json!({"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token});
            return (StatusCode::OK, Json(body));
        };
        let description = format!("AADSTS{code}: {text} Trace ID: {}", uuid::Uuid::new_v4());
        (status, Json(json!({"error": error, "error_description": description, "error_codes": [code]})))
    }

    /// Answers a request for the managed identity's token.
    pub fn identity(&mut self, headers: &HeaderMap, request: &IdentityRequest) -> (StatusCode, Json<Value>) {
        let refused = |text: &str| {
            (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_request", "error_description": text})))
        };
        if headers.get("metadata").is_none_or(|value| !value.as_bytes().eq_ignore_ascii_case(b"true")) {
            return refused("Required metadata header not specified");
        }
        if headers.contains_key("x-forwarded-for") {
            return refused("The request came through a proxy");
        }
        if request.api_version.is_empty() || request.resource.trim_end_matches('/') != AUDIENCE {
            return refused("Required query variable 'api-version' or 'resource' is missing or wrong");
        }
        if request.client_id.as_deref().is_some_and(|id| id != IDENTITY_CLIENT_ID) {
            return refused("Identity not found");
        }
        let (token, seconds) = self.issue();
        // The metadata service gives numbers as text.
        let expires_on = (Utc::now().timestamp() + seconds as i64).to_string();
        let body = json!({
            "access_token": token, "expires_in": seconds.to_string(), "expires_on": expires_on, "resource": request.resource,
            "token_type": "Bearer",
        });
        (StatusCode::OK, Json(body))
    }

    /// Why a request to Resource Manager is not authenticated; `None` when it is.
    pub fn refusal(&self, headers: &HeaderMap) -> Option<(&'static str, &'static str)> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(token) = value.strip_prefix("Bearer ") else {
            return Some(("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."));
        };
        match self.valid_until.get(token) {
            Some(until) if Instant::now() < *until => None,
            Some(_) => Some((
                "ExpiredAuthenticationToken",
                "The access token expiry UTC time is earlier than current UTC time.",
            )),
            None => Some(("InvalidAuthenticationToken", "The access token is invalid.")),
        }
    }
}
