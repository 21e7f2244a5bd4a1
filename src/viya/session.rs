//! One user at one SAS Viya: who the user is, and logging in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::auth::{Credentials, OAuthClient, explained, request_tokens};
use super::client::{ClientOptions, ViyaClient, ViyaRequest, connect, parse_base_url};
use super::json;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{Secret, token};

/// Who a token belongs to, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
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
    let validity = client.login.validity();
    let mut identity = UserIdentity {
        user: text(&claims, "user_name").or_else(|| text(&claims, "sub")),
        scopes: match claims.get("scope") {
            Some(Value::Array(scopes)) => scopes.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(scopes)) => scopes.split_whitespace().map(str::to_owned).collect(),
            _ => Vec::new(),
        },
        expires: validity.expires,
        renewable: validity.renewable,
        origin: client.login.origin(),
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

/// A login with an authorization code and PKCE (RFC 7636, S256) that was started: SASLogon shows a code in the browser, and the
/// user pastes it.
#[derive(Debug)]
pub struct AuthorizationRequest {
    /// The address to open in a browser.
    pub url: Url,
    /// What redeems the code.
    verifier: Secret,
}

/// Starts a login with an authorization code.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a malformed base URL.
pub fn begin_login(base_url: &str, client: &OAuthClient) -> Result<AuthorizationRequest> {
    let verifier = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let mut url = parse_base_url(base_url)?;
    url.set_path("/SASLogon/oauth/authorize");
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", client.id())
        .append_pair("code_challenge_method", "S256")
        .append_pair("code_challenge", &challenge(&verifier));
    Ok(AuthorizationRequest { url, verifier: verifier.into() })
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// Redeems the code that the user pasted; returns the SASLogon response.
///
/// # Errors
/// [`ErrorKind::Authentication`] with SASLogon's reason, for example for a code that was mistyped or is too old;
/// [`ErrorKind::Network`] when the server cannot be reached.
pub async fn finish_login(
    base_url: &str,
    options: &ClientOptions,
    client: &OAuthClient,
    login: &AuthorizationRequest,
    code: &str,
) -> Result<Map<String, Value>> {
    let (code, verifier) = (code.trim(), login.verifier.expose());
    let form = [("grant_type", "authorization_code"), ("code", code), ("code_verifier", verifier)];
    let response = request_tokens(&connect(base_url, options)?, client, &form, &[code, verifier]).await;
    let refused = |why: &Error| {
        format!("SAS Viya refused the authorization code ({why}): open the address again and paste the new code")
    };
    response.map_err(|e| explained(e, refused))
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
    Ok((client.login.response().await.unwrap_or_default(), client.login.client().id().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        // RFC 7636, appendix B.
        assert_eq!(
            challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
        let login = begin_login("https://viya.example.com/", &OAuthClient::new("vscode", "")).unwrap();
        assert!(login.url.as_str().starts_with("https://viya.example.com/SASLogon/oauth/authorize?response_type=code"));
        assert!(!format!("{login:?}").contains(login.verifier.expose()));
        assert!(login.verifier.expose().len() >= 43);
    }
}
