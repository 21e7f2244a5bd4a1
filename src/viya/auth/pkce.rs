//! Logging in with an authorization code and PKCE (RFC 7636, S256): SASLogon shows a code in the browser, the user pastes it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::grant::{self, OAuthClient};
use crate::error::{Error, ErrorKind, Result};

/// A login that was begun: where the user gets the code, and what redeems it.
pub struct Begun {
    /// What to open in a browser.
    pub url: Url,
    verifier: String,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Begun").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// Begins a login at the server `base`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when `base` takes no path.
pub fn begin(base: &Url, client: &OAuthClient) -> Result<Begun> {
    let bytes: [u8; 32] = rand::random();
    let verifier = URL_SAFE_NO_PAD.encode(bytes);
    let mut url = base
        .join("/SASLogon/oauth/authorize")
        .map_err(|e| Error::invalid(format!("{base} takes no path")).with_source(e))?;
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", client.id())
        .append_pair("code_challenge_method", "S256")
        .append_pair("code_challenge", &challenge(&verifier));
    Ok(Begun { url, verifier })
}

/// Redeems the `code` that the user pasted; returns the SASLogon response.
///
/// # Errors
/// [`ErrorKind::Authentication`] with SASLogon's reason, e.g. for a code that was mistyped or is too old.
pub async fn redeem(
    http: &reqwest::Client,
    base: &Url,
    client: &OAuthClient,
    begun: &Begun,
    code: &str,
) -> Result<Map<String, Value>> {
    let form =
        [("grant_type", "authorization_code"), ("code", code.trim()), ("code_verifier", begun.verifier.as_str())];
    grant::post(http, base, client, &form).await.map_err(|e| match e.kind() {
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
        let begun = begin(&base, &OAuthClient::public("vscode")).unwrap();
        assert!(begun.url.as_str().starts_with("https://viya.example.com/SASLogon/oauth/authorize?response_type=code"));
        assert!(!format!("{begun:?}").contains(&begun.verifier));
        assert!(begun.verifier.len() >= 43);
    }
}
