//! One user at one SAS Viya: who the user is, and logging in.

use serde_json::{Map, Value};

use super::auth::{Credentials, OAuthClient, pkce};
use super::client::{ClientOptions, ViyaClient, ViyaRequest, connect, parse_base_url};
use super::json;
use crate::error::{ErrorKind, Result};
use crate::http::token;

/// Who a token belongs to, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserIdentity {
    /// The user's id.
    pub user: Option<String>,
    /// The user's name.
    pub name: Option<String>,
    /// The scopes of the token.
    pub scopes: Vec<String>,
    /// When the token expires.
    pub expires: Option<chrono::DateTime<chrono::Utc>>,
    /// Whether the token can be renewed.
    pub renewable: bool,
    /// Where the login comes from.
    pub origin: String,
    /// Whether the server confirmed the user, and not only the token.
    pub asked: bool,
}

/// The user of `client`, from the Identities service, or from the token's own claims where that service is not available.
///
/// # Errors
/// [`ErrorKind::Authentication`] when the token is refused; those of any call but a missing service.
pub async fn whoami(client: &ViyaClient) -> Result<UserIdentity> {
    let bearer = client.token().await?;
    let claims = token::claims(&bearer).unwrap_or(Value::Null);
    let text = |value: &Value, key: &str| json::text(value, key).map(str::to_owned);
    let validity = client.login().validity();
    let mut identity = UserIdentity {
        user: text(&claims, "user_name").or_else(|| text(&claims, "sub")),
        scopes: match claims.get("scope") {
            Some(Value::Array(scopes)) => scopes.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(scopes)) => scopes.split_whitespace().map(str::to_owned).collect(),
            _ => Vec::new(),
        },
        expires: validity.expires,
        renewable: validity.renewable,
        origin: client.login().origin(),
        ..UserIdentity::default()
    };
    match client.send_json(&ViyaRequest::get("/identities/users/@currentUser", "application/json")).await {
        Ok(user) => {
            identity.user = text(&user, "id").or(identity.user);
            identity.name = text(&user, "name");
            identity.asked = true;
        }
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Forbidden) => {}
        Err(e) => return Err(e),
    }
    Ok(identity)
}

/// Starts a login with an authorization code.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a malformed base URL.
pub fn begin_login(base_url: &str, client: &OAuthClient) -> Result<pkce::AuthorizationRequest> {
    Ok(pkce::begin(&parse_base_url(base_url)?, client))
}

/// Redeems the code that the user pasted.
///
/// # Errors
/// [`ErrorKind::Authentication`] when it is refused; [`ErrorKind::Network`] when the server cannot be reached.
pub async fn finish_login(
    base_url: &str,
    options: &ClientOptions,
    client: &OAuthClient,
    login: &pkce::AuthorizationRequest,
    code: &str,
) -> Result<Map<String, Value>> {
    pkce::redeem(&connect(base_url, options)?, client, login, code).await
}

/// Logs in with `credentials`; returns the SASLogon response and the id of the OAuth client that it was issued to.
///
/// # Errors
/// Those of [`Credentials::open`] and of [`ViyaClient::token`].
pub async fn login(
    base_url: &str,
    options: &ClientOptions,
    credentials: &Credentials,
) -> Result<(Map<String, Value>, String)> {
    let client = ViyaClient::new(base_url, credentials.open(base_url)?, options)?;
    client.token().await?;
    Ok((client.login().response().await.unwrap_or_default(), client.login().client().id().to_owned()))
}
