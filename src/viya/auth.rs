//! Logging in to SAS Viya: tokens that are renewed before they expire, and kept so that no rotation is lost.
//!
//! SAS: refresh tokens may be single-use, so renewing is serialised (in this process by a mutex, between processes by a
//! lock file) and the new pair replaces the old one in one rename before it is used.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use url::Url;

use crate::delta::UnderWay;
use crate::error::{Error, ErrorKind, Result};

mod cli_profile;
mod credentials;
mod grant;
pub mod pkce;
mod place;
mod store;
mod tokens;

pub use cli_profile::endpoint as cli_endpoint;
pub use credentials::Credentials;
pub use grant::{Grant, OAuthClient, TokenCall};
pub use place::PersistHook;
use place::Place;
use tokens::Tokens;

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

/// A login: tokens, where they are kept, and how new ones are had. Clones are the same login. Its `Debug` shows no token.
#[derive(Clone)]
pub struct Login(Arc<Kept>);

/// What a login is.
struct Kept {
    place: Place,
    client: OAuthClient,
    grant: Option<Grant>,
    state: Mutex<Option<Tokens>>,
}

/// How long a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// None: neither the token nor the file says.
    pub expires: Option<DateTime<Utc>>,
    /// There is a refresh token.
    pub renewable: bool,
}

impl Validity {
    /// Whether the token is no use any more, or will be within a minute, and no other can be had.
    pub fn is_over(&self) -> bool {
        !self.renewable && self.expires.is_some_and(|at| (at - Utc::now()).num_seconds() <= 60)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("place", &self.0.place.name())
            .field("client", &self.0.client.id())
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Reads a token file: the JSON that SASLogon answered, with `access_token`, usually `refresh_token` and
    /// `expires_in`, and perhaps `expires_at` (local time where it names no zone, as its users' scripts wrote it). A
    /// JWT's own `exp` is believed over `expires_at`. The OAuth client is that of the environment, else the one that the
    /// tokens name, else SAS's own `sas.cli`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with the path, [`ErrorKind::InvalidInput`] when it is no such JSON; no retry helps.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_as(path, OAuthClient::from_environment())
    }

    /// [`Login::open`] with the OAuth client given.
    ///
    /// # Errors
    /// Those of [`Login::open`].
    pub fn open_as(path: impl AsRef<Path>, client: OAuthClient) -> Result<Self> {
        Self::read(Place::File(store::real(path.as_ref())), client)
    }

    /// The login of a profile of SAS's own command line, from `~/.sas/credentials.json`: see [`Credentials::Cli`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such profile: `sas-viya auth login` makes it. [`ErrorKind::InvalidInput`] when
    /// the profile is of another server than the one at `base_url`, which must not get its tokens.
    pub fn cli(profile: Option<&str>, base_url: &str) -> Result<Self> {
        cli_profile::check_server(profile, base_url)?;
        // The profile's tokens are those of this client, where they name no other, and nobody else can renew them.
        Self::read(cli_profile::place(profile)?, OAuthClient::default())
    }

    fn read(place: Place, client: OAuthClient) -> Result<Self> {
        let tokens = Tokens::of_file(place.read()?, &place.name())?;
        Ok(Self::new(place, client, None, Some(tokens)))
    }

    /// A login with tokens that are in no file, or with none yet: `grant` says how new ones are had, `tokens` is a
    /// SASLogon response, and `persist` is given every renewed one, e.g. for a secret scope.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `tokens` has no access token.
    pub fn of(
        name: &str,
        client: OAuthClient,
        grant: Option<Grant>,
        tokens: Option<Map<String, Value>>,
        persist: Option<PersistHook>,
    ) -> Result<Self> {
        let tokens = tokens.map(|raw| Tokens::of_file(raw, name)).transpose()?;
        Ok(Self::new(Place::Memory { name: name.to_owned(), persist }, client, grant, tokens))
    }

    fn new(place: Place, client: OAuthClient, grant: Option<Grant>, tokens: Option<Tokens>) -> Self {
        // Tokens are renewed by the client that they were given to, and they say which that is, unless somebody else does.
        let named = tokens.as_ref().and_then(Tokens::client).filter(|_| client.is_default());
        let client = named.map_or(client, |id| OAuthClient::public(&id));
        Self(Arc::new(Kept { place, client, grant, state: Mutex::new(tokens) }))
    }

    /// Until when the access token is valid, and whether a new one can be had. Asks no server.
    pub fn validity(&self) -> Validity {
        let Kept { state, grant, .. } = &*self.0;
        match state.try_lock() {
            Ok(tokens) => Validity {
                expires: tokens.as_ref().and_then(|tokens| tokens.expires),
                renewable: grant.is_some() || tokens.as_ref().is_some_and(|tokens| tokens.refresh.is_some()),
            },
            // It is being renewed.
            Err(_) => Validity { expires: None, renewable: true },
        }
    }

    /// The SASLogon response behind the present token, with the token; none before there was one.
    pub async fn response(&self) -> Option<Map<String, Value>> {
        self.0.state.lock().await.as_ref().map(|tokens| tokens.raw.clone())
    }

    /// The OAuth client that renews them.
    pub fn client(&self) -> &OAuthClient {
        &self.0.client
    }

    /// Where the tokens come from, in words.
    pub fn origin(&self) -> String {
        self.0.place.name()
    }

    /// A token to send now, renewed first when it is about to expire.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`] when it expired and cannot be renewed: log in again. [`ErrorKind::Network`] or
    /// [`ErrorKind::Server`], retryable, when SASLogon is not to be had; [`ErrorKind::Storage`], retryable, when the renewed
    /// tokens could not be stored.
    pub async fn bearer(&self, http: &reqwest::Client, base: &Url) -> Result<Bearer> {
        if let Some(tokens) = self.0.state.lock().await.as_ref().filter(|tokens| tokens.is_fresh()) {
            return Ok(tokens.bearer());
        }
        self.to_its_end(http, base, None).await
    }

    /// Another token after the server refused `refused` with 401.
    ///
    /// # Errors
    /// Those of [`Login::bearer`].
    pub async fn renewed(&self, refused: &Bearer, http: &reqwest::Client, base: &Url) -> Result<Bearer> {
        self.to_its_end(http, base, Some(refused.clone())).await
    }

    /// Renewing goes on to its end when whoever asked for it does not wait any more: a refresh token is spent by then, and
    /// the one that replaces it has to be kept.
    async fn to_its_end(&self, http: &reqwest::Client, base: &Url, refused: Option<Bearer>) -> Result<Bearer> {
        let (kept, http, base) = (Arc::clone(&self.0), http.clone(), base.clone());
        let under_way = UnderWay::one();
        let renewing = tokio::spawn(async move {
            let _under_way = under_way;
            match refused {
                None => kept.bearer(&http, &base).await,
                Some(refused) => kept.renewed(&refused, &http, &base).await,
            }
        });
        let broken = |e| Error::new(ErrorKind::Internal, "renewing the token broke down").with_source(e);
        renewing.await.map_err(broken)?
    }
}

impl Kept {
    async fn bearer(&self, http: &reqwest::Client, base: &Url) -> Result<Bearer> {
        let mut state = self.state.lock().await;
        let Some(tokens) = state.as_mut() else { return self.renew(&mut state, http, base).await };
        if tokens.unsaved {
            self.save(tokens).await?;
        }
        if tokens.expires_within(tokens.margin()) {
            let expired = tokens.expires_within(0.0);
            let renewable = self.grant.is_some() || tokens.refresh.is_some();
            if renewable && (expired || self.place.may_rotate().is_ok()) && (expired || tokens.may_be_tried()) {
                let bearer = tokens.bearer();
                return match self.renew(&mut state, http, base).await {
                    // It is good for a while yet, whatever SASLogon, or what answers in its place, has said.
                    Err(e) if !expired => {
                        tracing::warn!("renewing the SAS token failed and is tried again: {}", e.full_message());
                        if let Some(tokens) = state.as_mut() {
                            tokens.tried_at = Some(Instant::now());
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

    async fn renewed(&self, refused: &Bearer, http: &reqwest::Client, base: &Url) -> Result<Bearer> {
        let mut state = self.state.lock().await;
        match state.as_ref() {
            Some(tokens) if tokens.generation != refused.generation => Ok(tokens.bearer()),
            _ => self.renew(&mut state, http, base).await,
        }
    }

    /// Stores renewed tokens that could not be stored before.
    async fn save(&self, tokens: &mut Tokens) -> Result<()> {
        let _lock = self.place.lock().await?;
        self.place.prepare()?.finish(&tokens.raw).await.map_err(unkept)?;
        tokens.unsaved = false;
        Ok(())
    }

    fn expired(&self, tokens: Option<&Tokens>) -> Error {
        let when = tokens
            .and_then(|tokens| tokens.expires)
            .map_or_else(String::new, |at| format!(" (it expired at {})", at.format("%Y-%m-%d %H:%M:%SZ")));
        Error::new(
            ErrorKind::Authentication,
            format!(
                "the access token in {} is not accepted{when} and there is no refresh_token: log in to SAS Viya again \
                 ({}) and repeat",
                self.place.name(),
                self.place.how_to_log_in()
            ),
        )
    }

    async fn renew(&self, state: &mut Option<Tokens>, http: &reqwest::Client, base: &Url) -> Result<Bearer> {
        let _lock = self.place.lock().await?;
        let generation = state.as_ref().map_or(0, |tokens| tokens.generation) + 1;
        // Another process may have renewed it meanwhile, and then our refresh token is spent.
        if let Some(mine) = state.as_ref()
            && let Ok(found) = self.place.read().and_then(|raw| Tokens::of_file(raw, &self.place.name()))
            && found.access != mine.access
        {
            let found = Tokens { generation, ..found };
            let good = !found.expires_within(found.margin());
            let bearer = found.bearer();
            *state = Some(found);
            if good {
                return Ok(bearer);
            }
        }
        let refresh = state.as_ref().and_then(|tokens| tokens.refresh.clone());
        // Whoever gives tokens on demand and keeps none of ours would be left with one that is spent.
        let refresh = refresh.filter(|_| !matches!(self.grant, Some(Grant::Call(_))) || self.place.keeps());
        let answer = match (refresh, &self.grant) {
            (Some(refresh), grant) => {
                self.place.may_rotate()?;
                // Made before the refresh token is spent: a folder that cannot be written to must not cost the login.
                let ready = self.place.prepare()?;
                match grant::refresh(http, base, &self.client, &refresh, &self.place).await {
                    Err(e) if e.kind() == ErrorKind::Authentication && grant.is_some() => None,
                    answer => Some((answer?, ready)),
                }
            }
            (None, Some(_)) => None,
            (None, None) => return Err(self.expired(state.as_ref())),
        };
        let called = answer.is_none() && matches!(self.grant, Some(Grant::Call(_)));
        let (answer, ready) = match (answer, &self.grant) {
            (Some(done), _) => done,
            (None, Some(grant)) => {
                let ready = self.place.prepare()?;
                (grant.ask(http, base, &self.client).await?, ready)
            }
            (None, None) => return Err(self.expired(state.as_ref())),
        };
        // The old tokens stay until the new ones are known to be readable.
        let mut raw = state.as_ref().map(|tokens| tokens.raw.clone()).unwrap_or_default();
        raw.remove("refresh_expires_at");
        if called {
            // What somebody else keeps is as old as it is.
            raw.remove("expires_at");
        }
        raw.extend(answer);
        let name = self.place.name();
        let mut renewed = if called { Tokens::of_file(raw, &name)? } else { Tokens::of_response(raw, &name)? };
        renewed.generation = generation;
        let (stored, bearer) = (ready.finish(&renewed.raw).await.map_err(unkept), renewed.bearer());
        // Kept in memory even where storing failed: the old pair may be void by now. It is tried again before the next call.
        renewed.unsaved = stored.is_err();
        *state = Some(renewed);
        stored.map(|()| bearer)
    }
}

fn unkept(e: Error) -> Error {
    let text = format!("the renewed token is not kept yet, and that is tried again before the next call: {e}");
    Error::new(e.kind(), text).with_retryable(true).with_source(e)
}

/// A claim of a JWT, unverified: who the user is and until when it is good, for people to read. None for opaque tokens.
pub fn claims(token: &str) -> Option<Value> {
    tokens::claims(token)
}

/// Writes a SASLogon response as a token file, mode 0600, in place of what is there, with the OAuth client it was given to.
///
/// # Errors
/// [`ErrorKind::Unsupported`] on Databricks volumes and workspace files, [`ErrorKind::Storage`] where it cannot be written.
pub fn write_new(path: &Path, mut response: Map<String, Value>, client: &str) -> Result<()> {
    let path = &store::real(path);
    store::may_rotate(path)?;
    response.insert("client_id".to_owned(), client.into());
    let tokens = Tokens::of_response(response, &path.display().to_string())?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| {
            Error::new(ErrorKind::Storage, format!("the folder {} cannot be made", folder.display())).with_source(e)
        })?;
    }
    store::Replacement::prepare(path)?.finish(&tokens.raw)
}

#[cfg(test)]
mod tests;
