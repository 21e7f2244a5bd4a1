//! Logins to SAS Viya: tokens are renewed before they expire, and stored so that no rotation is lost.
//!
//! A SAS refresh token may work only once. So renewals are serialized, in this process by a mutex and between processes by a
//! lock file, and the new pair replaces the stored one in one rename before it is used.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::http::{Client, Secret};
use crate::runtime::InFlight;

mod credentials;
mod grant;
mod token_file;
mod token_pair;
mod token_storage;

pub use credentials::{Credentials, looks_like_token};
pub use grant::{Grant, OAuthClient, TokenCallback};
pub(super) use grant::{explained, post as request_tokens};
use token_pair::TokenPair;
pub use token_storage::{PersistHook, cli_endpoint};
use token_storage::{TokenStorage, check_server, credentials_file, profile_name};

/// An access token with the number of its renewal, so that the refusal of an older one is recognized.
#[derive(Debug, Clone)]
pub struct Bearer {
    token: Secret,
    generation: u64,
}

impl Bearer {
    /// The text behind `Bearer ` in the Authorization header.
    pub fn token(&self) -> &str {
        self.token.expose()
    }
}

/// A login: tokens, where they are stored, and how to get new ones. Clones are the same login. Its `Debug` shows no token.
#[derive(Clone)]
pub struct Login(Arc<LoginState>);

struct LoginState {
    storage: TokenStorage,
    client: OAuthClient,
    grant: Option<Grant>,
    tokens: Mutex<Option<TokenPair>>,
}

/// How long a token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// When it expires; `None` where neither the token nor the file says.
    pub expires: Option<DateTime<Utc>>,
    /// Whether a new one can be requested.
    pub renewable: bool,
}

impl Validity {
    /// Whether the token expires within a minute and cannot be renewed.
    pub fn is_over(&self) -> bool {
        !self.renewable && self.expires.is_some_and(|at| (at - Utc::now()).num_seconds() <= 60)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("storage", &self.0.storage.name())
            .field("client", &self.0.client.id())
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Reads a token file: the JSON of a SASLogon response, with `access_token`, usually `refresh_token` and `expires_in`,
    /// and perhaps `expires_at` (local time where it names no zone). The `exp` of a JWT takes precedence over `expires_at`.
    /// The OAuth client is that of the environment, else the one that the tokens name, else SAS's own `sas.cli`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with the path, [`ErrorKind::InvalidInput`] when it is not such JSON; a retry does not help.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_as(path, OAuthClient::from_environment())
    }

    /// [`Login::open`] with the OAuth client given.
    ///
    /// # Errors
    /// Those of [`Login::open`].
    pub fn open_as(path: impl AsRef<Path>, client: OAuthClient) -> Result<Self> {
        Self::read(TokenStorage::File(token_file::resolve(path.as_ref())), client)
    }

    /// The login of a profile of SAS's own command line, from `~/.sas/credentials.json`: see [`Credentials::Cli`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such profile: `sas-viya auth login` creates it. [`ErrorKind::InvalidInput`]
    /// when the profile belongs to another server than the one at `base_url`, which must not get its tokens.
    pub fn cli(profile: Option<&str>, base_url: &str) -> Result<Self> {
        check_server(profile, base_url)?;
        let (path, profile) = (credentials_file()?, profile_name(profile));
        // The default client renews a profile's tokens, unless they name another one.
        Self::read(TokenStorage::CliProfile { path, profile }, OAuthClient::default())
    }

    fn read(storage: TokenStorage, client: OAuthClient) -> Result<Self> {
        let tokens = TokenPair::from_stored(storage.read()?, &storage.name())?;
        Ok(Self::new(storage, client, None, Some(tokens)))
    }

    /// A login with tokens that are in no file, or with none yet. `grant` requests new ones, `tokens` is a SASLogon response,
    /// and `persist` gets every renewed one, for example to write it to a secret scope.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `tokens` has no access token.
    pub fn in_memory(
        name: &str,
        client: OAuthClient,
        grant: Option<Grant>,
        tokens: Option<Map<String, Value>>,
        persist: Option<PersistHook>,
    ) -> Result<Self> {
        let tokens = tokens.map(|raw| TokenPair::from_stored(raw, name)).transpose()?;
        Ok(Self::new(TokenStorage::Memory { name: name.to_owned(), persist }, client, grant, tokens))
    }

    fn new(storage: TokenStorage, client: OAuthClient, grant: Option<Grant>, tokens: Option<TokenPair>) -> Self {
        // The client that tokens were issued to renews them, unless the caller names another one.
        let named = tokens.as_ref().and_then(TokenPair::client).filter(|_| client.is_default);
        let client = named.map_or(client, |id| OAuthClient::new(id, ""));
        Self(Arc::new(LoginState { storage, client, grant, tokens: Mutex::new(tokens) }))
    }

    /// Until when the access token is valid, and whether it can be renewed. Sends nothing.
    pub fn validity(&self) -> Validity {
        match self.0.tokens.try_lock() {
            Ok(tokens) => Validity {
                expires: tokens.as_ref().and_then(|tokens| tokens.expires),
                renewable: self.0.is_renewable(tokens.as_ref()),
            },
            // It is being renewed.
            Err(_) => Validity { expires: None, renewable: true },
        }
    }

    /// The SASLogon response with the current token; `None` before there is one.
    pub async fn response(&self) -> Option<Map<String, Value>> {
        self.0.tokens.lock().await.as_ref().map(|tokens| tokens.raw.clone())
    }

    /// The OAuth client that renews the tokens.
    pub fn client(&self) -> &OAuthClient {
        &self.0.client
    }

    /// Where the tokens come from, for display.
    pub fn origin(&self) -> String {
        self.0.storage.name()
    }

    /// A token to send now, renewed first when it is about to expire.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`] when it expired and cannot be renewed: log in again. [`ErrorKind::Network`] or
    /// [`ErrorKind::Server`], retryable, when SASLogon is not available; [`ErrorKind::Storage`], retryable, when the renewed
    /// tokens could not be stored.
    pub(crate) async fn bearer(&self, http: &Client) -> Result<Bearer> {
        if let Some(tokens) = self.0.tokens.lock().await.as_ref().filter(|tokens| tokens.is_fresh()) {
            return Ok(tokens.bearer());
        }
        self.renew_detached(http, None).await
    }

    /// Another token, after the server refused `refused` with 401.
    ///
    /// # Errors
    /// Those of [`Login::bearer`].
    pub(crate) async fn renewed(&self, refused: &Bearer, http: &Client) -> Result<Bearer> {
        self.renew_detached(http, Some(refused.clone())).await
    }

    /// Renews in a task of its own, which completes when the caller stops waiting: the refresh token is spent by then, and
    /// the new one has to be stored.
    async fn renew_detached(&self, http: &Client, refused: Option<Bearer>) -> Result<Bearer> {
        let (login, http, in_flight) = (Arc::clone(&self.0), http.clone(), InFlight::begin());
        let renewal = tokio::spawn(async move {
            let _in_flight = in_flight;
            login.bearer(&http, refused).await
        });
        renewal.await.map_err(|e| Error::new(ErrorKind::Internal, "renewing the token panicked").with_source(e))?
    }
}

impl LoginState {
    /// A token to send now, other than the one that was `refused`.
    async fn bearer(&self, http: &Client, refused: Option<Bearer>) -> Result<Bearer> {
        let mut slot = self.tokens.lock().await;
        let Some(tokens) = slot.as_mut() else { return self.renew(&mut slot, http).await };
        if let Some(refused) = refused {
            return match tokens.generation == refused.generation {
                true => self.renew(&mut slot, http).await,
                false => Ok(tokens.bearer()),
            };
        }
        if tokens.unsaved {
            self.save(tokens).await?;
        }
        if tokens.expires_within(tokens.margin()) {
            let expired = tokens.expires_within(0.0);
            let may_renew = expired || (self.storage.check_rotation().is_ok() && tokens.may_renew_early());
            if may_renew && self.is_renewable(Some(tokens)) {
                let bearer = tokens.bearer();
                return match self.renew(&mut slot, http).await {
                    // The token is still valid, whatever SASLogon or a proxy answered.
                    Err(e) if !expired => {
                        tracing::warn!("renewing the SAS token failed and is tried again: {}", e.full_message());
                        if let Some(tokens) = slot.as_mut() {
                            tokens.early_renewal_failed = Some(Instant::now());
                        }
                        Ok(bearer)
                    }
                    renewed => renewed,
                };
            } else if expired {
                return Err(self.expired(Some(tokens)));
            }
        }
        Ok(tokens.bearer())
    }

    fn is_renewable(&self, tokens: Option<&TokenPair>) -> bool {
        self.grant.is_some() || tokens.is_some_and(|tokens| tokens.refresh.is_some())
    }

    /// Stores renewed tokens that could not be stored before.
    async fn save(&self, tokens: &mut TokenPair) -> Result<()> {
        let _lock = self.storage.lock().await?;
        let prepared = self.storage.prepare_write()?;
        self.storage.write(prepared, &tokens.raw).await.map_err(not_stored)?;
        tokens.unsaved = false;
        Ok(())
    }

    fn expired(&self, tokens: Option<&TokenPair>) -> Error {
        let when = tokens
            .and_then(|tokens| tokens.expires)
            .map_or_else(String::new, |at| format!(" (it expired at {})", at.format("%Y-%m-%dT%H:%M:%SZ")));
        let text = format!(
            "the access token in {} is not accepted{when} and there is no refresh_token: log in to SAS Viya again ({}) and repeat",
            self.storage.name(),
            self.storage.how_to_log_in()
        );
        Error::new(ErrorKind::Authentication, text)
    }

    async fn renew(&self, slot: &mut Option<TokenPair>, http: &Client) -> Result<Bearer> {
        let _lock = self.storage.lock().await?;
        let name = self.storage.name();
        let generation = slot.as_ref().map_or(0, |tokens| tokens.generation) + 1;
        // Another process may have renewed the tokens, and then our refresh token is spent.
        if let Some(mine) = slot.as_ref()
            && let Ok(stored) = self.storage.read().and_then(|raw| TokenPair::from_stored(raw, &name))
            && stored.access != mine.access
        {
            let stored = slot.insert(TokenPair { generation, ..stored });
            if !stored.expires_within(stored.margin()) {
                return Ok(stored.bearer());
            }
        }
        let is_callback = matches!(self.grant, Some(Grant::Callback(_)));
        let refresh_token = slot.as_ref().and_then(|tokens| tokens.refresh.clone());
        // A callback returns the same refresh token again, which would be spent if the new one is not stored.
        let refresh_token = refresh_token.filter(|_| !is_callback || self.storage.is_persistent());
        if refresh_token.is_none() && self.grant.is_none() {
            return Err(self.expired(slot.as_ref()));
        }
        if refresh_token.is_some() {
            self.storage.check_rotation()?;
        }
        let known = slot.as_ref().map(|tokens| (tokens.access.clone(), tokens.refresh.clone()));
        let (access, refresh) = known.unwrap_or_default();
        let known = [access.as_str(), refresh.as_deref().unwrap_or_default()];
        // Prepared before the refresh token is spent: a folder that cannot be written to must not cost the login.
        let prepared = self.storage.prepare_write()?;
        let refreshed = match refresh_token {
            Some(token) => match grant::refresh(http, &self.client, &token, &self.storage, &known).await {
                Err(e) if e.kind() == ErrorKind::Authentication && self.grant.is_some() => None,
                response => Some(response?),
            },
            None => None,
        };
        let from_callback = refreshed.is_none() && is_callback;
        let response = match (refreshed, &self.grant) {
            (Some(response), _) => response,
            (None, Some(grant)) => grant.request(http, &self.client, &known).await?,
            (None, None) => return Err(self.expired(slot.as_ref())),
        };
        // The old tokens stay until the new ones are known to be readable.
        let mut raw = slot.as_ref().map(|tokens| tokens.raw.clone()).unwrap_or_default();
        raw.shift_remove("refresh_expires_at");
        if from_callback {
            // A token from a callback may have been issued long ago.
            raw.shift_remove("expires_at");
        }
        raw.extend(response);
        let parse = if from_callback { TokenPair::from_stored } else { TokenPair::from_response };
        let mut renewed = parse(raw, &name)?;
        renewed.generation = generation;
        let stored = self.storage.write(prepared, &renewed.raw).await.map_err(not_stored);
        let bearer = renewed.bearer();
        // Used also where storing failed, because the old pair may be void. Storing is tried again before the next call.
        renewed.unsaved = stored.is_err();
        *slot = Some(renewed);
        stored.map(|()| bearer)
    }
}

fn not_stored(e: Error) -> Error {
    let text = format!("the renewed token is not stored yet, which is tried again before the next call: {e}");
    Error::new(e.kind(), text).with_retryable(true).with_source(e)
}

/// Writes a SASLogon response as a token file, mode 0600, with the OAuth client that it was issued to. Replaces the file.
///
/// # Errors
/// [`ErrorKind::Unsupported`] on Databricks volumes and workspace files, [`ErrorKind::Storage`] where it cannot be written.
pub fn write_new(path: &Path, mut response: Map<String, Value>, client: &str) -> Result<()> {
    let path = &token_file::resolve(path);
    token_file::check_rotation(path)?;
    response.insert("client_id".to_owned(), client.into());
    let tokens = TokenPair::from_response(response, &path.display().to_string())?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| {
            Error::new(ErrorKind::Storage, format!("the folder {} cannot be created", folder.display())).with_source(e)
        })?;
    }
    token_file::Replacement::prepare(path)?.finish(&tokens.raw)
}

#[cfg(test)]
mod tests;
