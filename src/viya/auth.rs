//! The token file: a SASLogon response on disk, renewed before it expires and stored so that no rotation is lost.
//!
//! SAS: refresh tokens may be single-use, so renewing is serialised (in this process by a mutex, between processes by
//! a lock file) and the new pair replaces the old file in one rename before it is used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Local, NaiveDateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use url::Url;

use super::client::error_text;
use crate::error::{Error, ErrorKind, Result};

mod store;

/// Renewing starts this long before the token expires (SAS samples use 5 minutes), or a tenth of a shorter lifetime.
const MARGIN_SECONDS: f64 = 300.0;
const REFRESH_TRIES: u32 = 4;

/// An access token with the number of the renewal it came from, so that a refusal of an older one is recognised.
#[derive(Clone)]
pub struct Bearer {
    token: String,
    generation: u64,
}

impl Bearer {
    /// The text behind `Bearer ` in the Authorization header.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// The tokens of one file. Its `Debug` shows no token.
pub struct TokenFile {
    path: PathBuf,
    client_id: String,
    client_secret: String,
    state: Mutex<Tokens>,
}

/// How long a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// None: neither the token nor the file says.
    pub expires: Option<DateTime<Utc>>,
    /// There is a refresh token.
    pub renewable: bool,
}

struct Tokens {
    raw: Map<String, Value>,
    access: String,
    refresh: Option<String>,
    expires: Option<DateTime<Utc>>,
    lifetime: Option<f64>,
    generation: u64,
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile")
            .field("path", &self.path)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl TokenFile {
    /// Reads the token file: the JSON that SASLogon answered, with `access_token`, usually `refresh_token` and
    /// `expires_in`, and perhaps `expires_at` (local time where it names no zone, as its users' scripts wrote it). A
    /// JWT's own `exp` is believed over `expires_at`. The OAuth client comes from `SAS_CLIENT_ID` and
    /// `SAS_CLIENT_SECRET`, else it is SAS's public client `sas.cli`, which has no secret.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with the path, [`ErrorKind::InvalidInput`] when it is no such JSON; no retry helps.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let set = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let client_id = set("SAS_CLIENT_ID").unwrap_or_else(|| "sas.cli".into());
        Self::open_as(path, client_id, set("SAS_CLIENT_SECRET").unwrap_or_default())
    }

    /// [`TokenFile::open`] with the OAuth client given.
    ///
    /// # Errors
    /// Those of [`TokenFile::open`].
    pub fn open_as(
        path: impl AsRef<Path>,
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
    ) -> Result<Self> {
        let tokens = Tokens::of_file(store::read(path.as_ref())?, path.as_ref())?;
        // The real place, so that a rotation replaces the file and not a link to it.
        let path = std::fs::canonicalize(path.as_ref()).unwrap_or_else(|_| path.as_ref().to_owned());
        Ok(Self { path, client_id: client_id.into(), client_secret: client_secret.into(), state: Mutex::new(tokens) })
    }

    /// Until when the access token is valid, and whether a new one can be had. Asks no server.
    pub fn validity(&self) -> Validity {
        match self.state.try_lock() {
            Ok(tokens) => Validity { expires: tokens.expires, renewable: tokens.refresh.is_some() },
            // It is being renewed.
            Err(_) => Validity { expires: None, renewable: true },
        }
    }

    /// Where the tokens are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A token to send now, renewed first when it is about to expire.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`] when it expired and cannot be renewed: log in again. [`ErrorKind::Network`] or
    /// [`ErrorKind::Server`], retryable, when SASLogon is not to be had; [`ErrorKind::Storage`] when the renewed tokens
    /// could not be stored.
    pub async fn bearer(&self, http: &reqwest::Client, base: &Url) -> Result<Bearer> {
        let mut tokens = self.state.lock().await;
        if tokens.expires_within(tokens.margin()) {
            let expired = tokens.expires_within(0.0);
            if tokens.refresh.is_some() && (expired || store::may_rotate(&self.path).is_ok()) {
                match self.renew(&mut tokens, http, base).await {
                    Err(e) if !expired && e.is_retryable() => {
                        tracing::warn!("renewing the SAS token failed and is tried again: {}", e.full_message());
                    }
                    renewed => renewed?,
                }
            } else if expired {
                return Err(self.expired(&tokens));
            }
        }
        Ok(tokens.bearer())
    }

    /// Another token after the server refused `refused` with 401.
    ///
    /// # Errors
    /// Those of [`TokenFile::bearer`].
    pub async fn renewed(&self, refused: &Bearer, http: &reqwest::Client, base: &Url) -> Result<Bearer> {
        let mut tokens = self.state.lock().await;
        if tokens.generation == refused.generation {
            self.renew(&mut tokens, http, base).await?;
        }
        Ok(tokens.bearer())
    }

    fn expired(&self, tokens: &Tokens) -> Error {
        let when = tokens
            .expires
            .map_or_else(String::new, |at| format!(" (it expired at {})", at.format("%Y-%m-%d %H:%M:%SZ")));
        Error::new(
            ErrorKind::Authentication,
            format!(
                "the access token in {} is not accepted{when} and the file has no refresh_token: log in to SAS Viya \
                 again, write the SASLogon response to this file and repeat",
                self.path.display()
            ),
        )
    }

    async fn renew(&self, tokens: &mut Tokens, http: &reqwest::Client, base: &Url) -> Result<()> {
        let _lock = store::lock(&self.path).await;
        // Another process may have renewed it meanwhile, and then our refresh token is spent.
        if let Ok(found) = store::read(&self.path).and_then(|raw| Tokens::of_file(raw, &self.path))
            && found.access != tokens.access
        {
            let generation = tokens.generation + 1;
            *tokens = Tokens { generation, ..found };
            if !tokens.expires_within(tokens.margin()) {
                return Ok(());
            }
        }
        let Some(refresh) = tokens.refresh.clone() else { return Err(self.expired(tokens)) };
        store::may_rotate(&self.path)?;
        // Made before the refresh token is spent: a folder that cannot be written to must not cost the login.
        let place = store::Replacement::prepare(&self.path)?;
        let answer = self.ask(http, base, &refresh).await?;
        let mut raw = tokens.raw.clone();
        raw.remove("refresh_expires_at");
        raw.extend(answer);
        let mut renewed = Tokens::of_response(raw, &self.path)?;
        renewed.generation = tokens.generation + 1;
        let stored = place.finish(&renewed.raw);
        // Kept in memory even where storing failed: the old pair may be void by now.
        *tokens = renewed;
        stored
    }

    async fn ask(&self, http: &reqwest::Client, base: &Url, refresh: &str) -> Result<Map<String, Value>> {
        let url = base
            .join("/SASLogon/oauth/token")
            .map_err(|e| Error::invalid(format!("{base} takes no path")).with_source(e))?;
        let mut wait = Duration::from_millis(250);
        for round in 1.. {
            let sent = http
                .post(url.clone())
                .header("Accept", "application/json")
                .basic_auth(&self.client_id, Some(&self.client_secret))
                .form(&[("grant_type", "refresh_token"), ("refresh_token", refresh)])
                .send()
                .await;
            let error = match sent {
                Ok(response) => {
                    let status = response.status();
                    let body = response.bytes().await.unwrap_or_default();
                    let value = serde_json::from_slice::<Value>(&body).ok();
                    if status.is_success() {
                        return match value {
                            Some(Value::Object(map)) if map.get("access_token").is_some_and(Value::is_string) => {
                                Ok(map)
                            }
                            _ => Err(Error::new(
                                ErrorKind::Server,
                                format!("{url} answered {status} without an access_token"),
                            )),
                        };
                    }
                    let why = value
                        .as_ref()
                        .map(error_text)
                        .filter(|text| !text.is_empty())
                        .unwrap_or_else(|| status.to_string());
                    if status.is_server_error() || status.as_u16() == 429 {
                        Error::new(
                            ErrorKind::Server,
                            format!("{url} could not renew the token: {why}; try again later"),
                        )
                        .with_retryable(true)
                    } else {
                        return Err(Error::new(
                            ErrorKind::Authentication,
                            format!(
                                "SAS Viya refused the refresh token in {} ({why}): log in again, write the SASLogon \
                                 response to this file and repeat; if it belongs to another OAuth client than {:?}, set \
                                 SAS_CLIENT_ID and SAS_CLIENT_SECRET",
                                self.path.display(),
                                self.client_id
                            ),
                        ));
                    }
                }
                Err(e) => Error::new(ErrorKind::Network, format!("{url} could not be reached to renew the token"))
                    .with_retryable(true)
                    .with_source(e.without_url()),
            };
            if round >= REFRESH_TRIES {
                return Err(error);
            }
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait *= 2;
        }
        Err(Error::new(ErrorKind::Internal, "the token was never asked for"))
    }
}

impl Tokens {
    fn of_file(raw: Map<String, Value>, path: &Path) -> Result<Self> {
        let mut tokens = Self::bare(raw, path)?;
        let written = tokens.raw.get("expires_at").and_then(Value::as_str).and_then(parse_local);
        tokens.expires = claim(&tokens.access, "exp").and_then(from_epoch).or(written);
        Ok(tokens)
    }

    fn of_response(raw: Map<String, Value>, path: &Path) -> Result<Self> {
        let mut tokens = Self::bare(raw, path)?;
        // A lifetime counted from now does not depend on the two clocks agreeing.
        let now = Utc::now();
        tokens.expires =
            tokens.lifetime.and_then(|seconds| now.checked_add_signed(TimeDelta::milliseconds((seconds * 1e3) as i64)));
        match tokens.expires {
            Some(at) => {
                let local = at.with_timezone(&Local).naive_local().format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
                tokens.raw.insert("expires_at".into(), local.into());
            }
            None => {
                tokens.raw.remove("expires_at");
            }
        }
        Ok(tokens)
    }

    fn bare(raw: Map<String, Value>, path: &Path) -> Result<Self> {
        let text =
            |name: &str| raw.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let Some(access) = text("access_token") else {
            return Err(Error::invalid(format!(
                "{} holds no access_token: write the SASLogon response of POST /SASLogon/oauth/token to it",
                path.display()
            )));
        };
        // RFC 6750 has a narrower alphabet, but servers decide; a header takes no more than this, and what it does not take
        // would look like a fault of the network.
        if access.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(Error::invalid(format!(
                "the access_token in {} has a line break, blank or other character that no HTTP header takes: write the \
                 SASLogon response of POST /SASLogon/oauth/token to it again, as it came",
                path.display()
            )));
        }
        let own = claim(&access, "exp")
            .zip(claim(&access, "iat"))
            .map(|(exp, iat)| exp - iat)
            .filter(|seconds| *seconds > 0.0);
        let lifetime = own
            .or_else(|| raw.get("expires_in").and_then(Value::as_f64))
            .filter(|seconds| (0.0..1e9).contains(seconds));
        Ok(Self { refresh: text("refresh_token"), access, raw, expires: None, lifetime, generation: 0 })
    }

    fn margin(&self) -> f64 {
        self.lifetime.map_or(MARGIN_SECONDS, |seconds| MARGIN_SECONDS.min(seconds / 10.0))
    }

    fn expires_within(&self, seconds: f64) -> bool {
        self.expires.is_some_and(|at| (at - Utc::now()).as_seconds_f64() <= seconds)
    }

    fn bearer(&self) -> Bearer {
        Bearer { token: self.access.clone(), generation: self.generation }
    }
}

/// A numeric claim of a JWT, unverified: it only tells when to renew. `None` for opaque tokens.
fn claim(token: &str, name: &str) -> Option<f64> {
    let payload = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<Value>(&bytes).ok()?.get(name)?.as_f64()
}

fn from_epoch(seconds: f64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis((seconds * 1e3) as i64)
}

fn parse_local(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.to_utc());
    }
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
    naive.and_local_timezone(Local).earliest().map(|at| at.to_utc())
}

#[cfg(test)]
mod tests;
