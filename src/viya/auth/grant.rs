//! Asking SASLogon for tokens: the grants of OAuth that it takes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use url::Url;

use super::place::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::viya::client::error_text;

const TRIES: u32 = 4;

/// An OAuth client. Its `Debug` does not show the secret.
#[derive(Clone)]
pub struct OAuthClient {
    id: String,
    secret: String,
    named: bool,
}

impl fmt::Debug for OAuthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthClient").field("id", &self.id).finish_non_exhaustive()
    }
}

/// SAS's own public client, `sas.cli`, for those who name none: tokens that name another are renewed by that.
impl Default for OAuthClient {
    fn default() -> Self {
        Self { id: "sas.cli".to_owned(), secret: String::new(), named: false }
    }
}

impl OAuthClient {
    /// A client with a secret.
    pub fn new(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { id: id.into(), secret: secret.into(), named: true }
    }

    /// Whether nobody named it.
    pub(super) fn is_default(&self) -> bool {
        !self.named
    }

    /// A client without one, such as SAS's own `sas.cli`.
    pub fn public(id: &str) -> Self {
        Self::new(id, "")
    }

    /// `SAS_CLIENT_ID` and `SAS_CLIENT_SECRET`, else `VIYA_CLIENT_ID` and `VIYA_CLIENT_SECRET`, else SAS's public client
    /// `sas.cli`.
    pub fn from_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let given = ["SAS", "VIYA"].iter().find_map(|prefix| {
            let id = set(&format!("{prefix}_CLIENT_ID"))?;
            Some(Self::new(id, set(&format!("{prefix}_CLIENT_SECRET")).unwrap_or_default()))
        });
        given.unwrap_or_default()
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it has a secret.
    pub fn is_confidential(&self) -> bool {
        !self.secret.is_empty()
    }
}

/// Gives a SASLogon response, or just `{"access_token": …}`, whenever it is asked. It may block.
pub type TokenCall = Arc<dyn Fn() -> Result<Map<String, Value>> + Send + Sync>;

/// How tokens are had without a refresh token. Its `Debug` shows no secret.
#[derive(Clone)]
pub enum Grant {
    /// With the client's own id and secret.
    ClientCredentials,
    /// With a user's name and password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// From somebody who has them.
    Call(TokenCall),
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientCredentials => "ClientCredentials",
            Self::Password { .. } => "Password",
            Self::Call(_) => "Call",
        })
    }
}

impl Grant {
    /// New tokens.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`] with SASLogon's reason; [`ErrorKind::Network`] or [`ErrorKind::Server`], retryable, when
    /// it is not to be had.
    pub(super) async fn ask(
        &self,
        http: &reqwest::Client,
        base: &Url,
        client: &OAuthClient,
    ) -> Result<Map<String, Value>> {
        match self {
            Self::ClientCredentials => post(http, base, client, &[("grant_type", "client_credentials")]).await,
            Self::Password { user, password } => {
                let form = [("grant_type", "password"), ("username", user), ("password", password)];
                post(http, base, client, &form.map(|(name, value)| (name, value as &str))).await
            }
            Self::Call(call) => {
                let call = Arc::clone(call);
                let called = tokio::task::spawn_blocking(move || call()).await;
                called.map_err(|e| Error::new(ErrorKind::Internal, "the token callable broke down").with_source(e))?
            }
        }
    }
}

/// A new pair for a refresh token.
pub(super) async fn refresh(
    http: &reqwest::Client,
    base: &Url,
    client: &OAuthClient,
    refresh: &str,
    place: &Place,
) -> Result<Map<String, Value>> {
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
    post(http, base, client, &form).await.map_err(|e| {
        if e.kind() != ErrorKind::Authentication {
            return e;
        }
        let text = format!(
            "SAS Viya refused the refresh token in {} ({e}): log in again ({}) and repeat; if it belongs to another OAuth \
             client than {:?}, set SAS_CLIENT_ID and SAS_CLIENT_SECRET",
            place.name(),
            place.how_to_log_in(),
            client.id
        );
        Error::new(ErrorKind::Authentication, text)
    })
}

/// `POST /SASLogon/oauth/token`, repeated where SASLogon is not to be had.
pub(super) async fn post(
    http: &reqwest::Client,
    base: &Url,
    client: &OAuthClient,
    form: &[(&str, &str)],
) -> Result<Map<String, Value>> {
    let url = base
        .join("/SASLogon/oauth/token")
        .map_err(|e| Error::invalid(format!("{base} takes no path")).with_source(e))?;
    // An answer that was lost may have spent what can be used once.
    let (mut wait, mut lost) = (Duration::from_millis(250), false);
    for round in 1.. {
        let sent = http
            .post(url.clone())
            .header("Accept", "application/json")
            .basic_auth(&client.id, Some(&client.secret))
            .form(form)
            .send()
            .await;
        let error = match read(sent, &url).await {
            Answer::Tokens(tokens) => return Ok(tokens),
            Answer::Refused(why) if lost => {
                return Err(Error::new(
                    ErrorKind::Authentication,
                    format!(
                        "{why}; the answer to the try before broke off, so that the token was spent and the new one lost"
                    ),
                ));
            }
            Answer::Refused(why) => return Err(Error::new(ErrorKind::Authentication, why)),
            Answer::Nonsense(e) => return Err(e),
            Answer::Away(e) => e,
            Answer::Lost(e) => {
                lost = true;
                e
            }
        };
        if round >= TRIES {
            return Err(error);
        }
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        wait *= 2;
    }
    Err(Error::new(ErrorKind::Internal, "the token was never asked for"))
}

enum Answer {
    Tokens(Map<String, Value>),
    Refused(String),
    Nonsense(Error),
    /// Nothing was done.
    Away(Error),
    /// It may have been done.
    Lost(Error),
}

async fn read(sent: reqwest::Result<reqwest::Response>, url: &Url) -> Answer {
    let unreachable = |e: reqwest::Error| {
        Error::new(ErrorKind::Network, format!("{url} could not be reached to renew the token"))
            .with_retryable(true)
            .with_source(e.without_url())
    };
    let response = match sent {
        Ok(response) => response,
        Err(e) if e.is_connect() || e.is_builder() => return Answer::Away(unreachable(e)),
        Err(e) => return Answer::Lost(unreachable(e)),
    };
    let status = response.status();
    let body = match response.bytes().await {
        Ok(body) => body,
        Err(e) if status.is_success() => return Answer::Lost(unreachable(e)),
        Err(e) => return Answer::Away(unreachable(e)),
    };
    let value = serde_json::from_slice::<Value>(&body).ok();
    if status.is_success() {
        return match value {
            Some(Value::Object(map)) if map.get("access_token").is_some_and(Value::is_string) => Answer::Tokens(map),
            // A proxy's page; SASLogon may have answered behind it.
            None => Answer::Lost(
                Error::new(ErrorKind::Server, format!("{url} answered {status} with something that is no JSON"))
                    .with_retryable(true),
            ),
            Some(_) => Answer::Nonsense(Error::new(
                ErrorKind::Server,
                format!("{url} answered {status} without an access_token"),
            )),
        };
    }
    let said = value.as_ref().map(error_text).filter(|text| !text.is_empty());
    // Only what SASLogon says itself is a refusal: a proxy's page or a redirect tells nothing about the token.
    match said {
        Some(why) if status.is_client_error() && status.as_u16() != 429 => Answer::Refused(why),
        said => {
            let why = said.unwrap_or_else(|| format!("{status}, and not by SASLogon itself"));
            let text = format!("{url} could not renew the token: {why}; check base_url, and try again later");
            Answer::Away(Error::new(ErrorKind::Server, text).with_retryable(true))
        }
    }
}
