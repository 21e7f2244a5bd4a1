//! A login with an authorization code and PKCE (RFC 7636, S256): SASLogon shows a code in the browser, and the user pastes it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::grant::{self, OAuthClient};
use crate::error::{Error, ErrorKind, Result};
use crate::http::{Client, Secret};

/// A login that was started: where the user gets the code, and the verifier that redeems it.
#[derive(Debug)]
pub struct AuthorizationRequest {
    /// The address to open in a browser.
    pub url: Url,
    verifier: Secret,
}

/// Starts a login at the server `base`.
pub fn begin(base: &Url, client: &OAuthClient) -> AuthorizationRequest {
    let verifier = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let mut url = base.clone();
    url.set_path("/SASLogon/oauth/authorize");
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", client.id())
        .append_pair("code_challenge_method", "S256")
        .append_pair("code_challenge", &challenge(&verifier));
    AuthorizationRequest { url, verifier: verifier.into() }
}

/// Redeems the `code` that the user pasted; returns the SASLogon response.
///
/// # Errors
/// [`ErrorKind::Authentication`] with SASLogon's reason, for example for a code that was mistyped or is too old.
pub(crate) async fn redeem(
    http: &Client,
    client: &OAuthClient,
    login: &AuthorizationRequest,
    code: &str,
) -> Result<Map<String, Value>> {
    let verifier = login.verifier.expose();
    let form = [("grant_type", "authorization_code"), ("code", code.trim()), ("code_verifier", verifier)];
    grant::post(http, client, &form, &[code.trim(), verifier]).await.map_err(|e| match e.kind() {
        ErrorKind::Authentication => Error::new(
            ErrorKind::Authentication,
            format!("SAS Viya refused the authorization code ({e}): open the address again and paste the new code"),
        ),
        _ => e,
    })
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
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
        let base = Url::parse("https://viya.example.com/").unwrap();
        let login = begin(&base, &OAuthClient::public("vscode"));
        assert!(login.url.as_str().starts_with("https://viya.example.com/SASLogon/oauth/authorize?response_type=code"));
        assert!(!format!("{login:?}").contains(login.verifier.expose()));
        assert!(login.verifier.expose().len() >= 43);
    }
}
