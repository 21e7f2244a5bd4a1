//! One user at one SAS Viya: who that is, and what is there.

use serde_json::{Map, Value};

use super::auth::{self, Credentials, OAuthClient, pkce};
use super::client::{Call, ClientOptions, ViyaClient, parse_base_url};
use crate::error::{ErrorKind, Result};

/// Who a token belongs to, as far as it can be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    /// The user's id.
    pub user: Option<String>,
    /// The user's name.
    pub name: Option<String>,
    /// What the token allows.
    pub scopes: Vec<String>,
    /// Until when it is good.
    pub expires: Option<chrono::DateTime<chrono::Utc>>,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Where the login comes from.
    pub origin: String,
    /// Whether the server said who it is, and not the token alone.
    pub asked: bool,
}

/// Who `client` is. The Identities service is asked; where it is not to be had, the token's own claims have to do.
///
/// # Errors
/// [`ErrorKind::Authentication`] when the token is refused; those of any call but a missing service.
pub async fn whoami(client: &ViyaClient) -> Result<Identity> {
    let token = client.token().await?;
    let claims = auth::claims(&token).unwrap_or(Value::Null);
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let validity = client.login().validity();
    let mut identity = Identity {
        user: text(&claims, "user_name").or_else(|| text(&claims, "sub")),
        scopes: match claims.get("scope") {
            Some(Value::Array(scopes)) => scopes.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(scopes)) => scopes.split_whitespace().map(str::to_owned).collect(),
            _ => Vec::new(),
        },
        expires: validity.expires,
        renewable: validity.renewable,
        origin: client.login().origin(),
        ..Identity::default()
    };
    match client.send_json(&Call::get("/identities/users/@currentUser", "application/json")).await {
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

/// Begins a login with an authorization code: what to open in the browser, and what redeems the code.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a base URL that is none.
pub fn begin_login(base_url: &str, client: &OAuthClient) -> Result<pkce::Begun> {
    pkce::begin(&parse_base_url(base_url)?, client)
}

/// Redeems the code that the user pasted.
///
/// # Errors
/// [`ErrorKind::Authentication`] when it is refused; [`ErrorKind::Network`] when the server cannot be reached.
pub async fn finish_login(
    base_url: &str,
    options: &ClientOptions,
    client: &OAuthClient,
    begun: &pkce::Begun,
    code: &str,
) -> Result<Map<String, Value>> {
    // Nothing is sent with a token here: the pool and its TLS are what is wanted.
    let pool = ViyaClient::new(base_url, nobody(client)?, options)?;
    pkce::redeem(pool.http(), pool.base_url(), client, begun, code).await
}

/// Logs in with `credentials`; returns the SASLogon response and the id of the OAuth client it was given to.
///
/// # Errors
/// Those of [`auth::Login::bearer`].
pub async fn login(
    base_url: &str,
    options: &ClientOptions,
    credentials: &Credentials,
) -> Result<(Map<String, Value>, String)> {
    let pool = ViyaClient::new(base_url, credentials.open(base_url)?, options)?;
    pool.token().await?;
    Ok((pool.login().response().await.unwrap_or_default(), pool.login().client().id().to_owned()))
}

fn nobody(client: &OAuthClient) -> Result<auth::Login> {
    auth::Login::of("nobody", client.clone(), None, None, None)
}
