//! Where a login comes from, as users say it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use super::Login;
use super::grant::{Grant, OAuthClient, TokenCall};
use super::place::PersistHook;
use crate::error::{Error, ErrorKind, Result};

/// Where a login comes from. Its `Debug` shows no secret.
#[derive(Clone)]
pub enum Credentials {
    /// A token file: see [`Login::open`].
    File(PathBuf),
    /// This token file if it is there, else what the environment has, else SAS's own command line.
    FileOrEnvironment(PathBuf),
    /// A profile of SAS's own command line, `sas-viya`; none for that of `SAS_CLI_PROFILE`, else `Default`.
    Cli(Option<String>),
    /// The client's own id and secret.
    ClientCredentials(OAuthClient),
    /// A user's name and password.
    Password {
        /// The OAuth client.
        client: OAuthClient,
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// Tokens that somebody has, with a hook that keeps renewed ones.
    Tokens {
        /// The OAuth client that renews them.
        client: OAuthClient,
        /// A SASLogon response.
        tokens: Map<String, Value>,
        /// Is given renewed ones.
        persist: Option<PersistHook>,
        /// The login, once it was opened: whoever uses these again goes on with what was renewed.
        login: Shared,
    },
    /// Somebody who gives a token whenever one is needed.
    Call {
        /// The OAuth client that renews what it gives.
        client: OAuthClient,
        /// Gives tokens.
        call: TokenCall,
        /// Is given renewed ones.
        persist: Option<PersistHook>,
        /// The login, once it was opened.
        login: Shared,
    },
    /// What the environment has: see [`Credentials::open`].
    Environment,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl From<PathBuf> for Credentials {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

fn set(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

impl Credentials {
    /// The same in words, without a secret.
    pub fn describe(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::FileOrEnvironment(path) => format!("{}, else the environment", path.display()),
            Self::Cli(profile) => format!("profile {} of sas-viya", profile.as_deref().unwrap_or("in use")),
            Self::ClientCredentials(client) => format!("client credentials of {}", client.id()),
            Self::Password { user, .. } => format!("password of {user}"),
            Self::Tokens { .. } => "tokens that were given".to_owned(),
            Self::Call { .. } => "a callable".to_owned(),
            Self::Environment => "the environment".to_owned(),
        }
    }

    /// The login to the server at `base_url`. The environment is looked at in this order: `SAS_ACCESS_TOKEN` or
    /// `VIYA_ACCESS_TOKEN` (with `SAS_REFRESH_TOKEN`), `SAS_TOKEN_FILE`, `SAS_CLIENT_ID` with `SAS_CLIENT_SECRET`,
    /// `SAS_USERNAME` with `SAS_PASSWORD` (each also as `VIYA_…`), and last the profile of SAS's own command line. A token file
    /// that has expired and cannot be renewed does not stand in the environment's way.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::InvalidInput`] when it cannot be one, or is a profile of
    /// another server; no retry helps.
    pub fn open(&self, base_url: &str) -> Result<Login> {
        match self {
            Self::File(path) => Login::open(path),
            Self::FileOrEnvironment(path) => match Login::open(path) {
                Err(e) if e.kind() == ErrorKind::NotFound => match environment(base_url)? {
                    Some(login) => Ok(login),
                    None => Err(e),
                },
                Ok(login) if login.validity().is_over() => match environment(base_url)? {
                    Some(other) => {
                        let (file, used) = (login.origin(), other.origin());
                        tracing::warn!("{used} is used, as the token in {file} has expired and cannot be renewed");
                        Ok(other)
                    }
                    None => Ok(login),
                },
                opened => opened,
            },
            Self::Cli(profile) => Login::cli(profile.as_deref(), base_url),
            Self::ClientCredentials(client) => {
                Login::of(&self.describe(), client.clone(), Some(Grant::ClientCredentials), None, None)
            }
            Self::Password { client, user, password } => {
                let grant = Grant::Password { user: user.clone(), password: password.clone() };
                Login::of(&self.describe(), client.clone(), Some(grant), None, None)
            }
            Self::Tokens { client, tokens, persist, login } => shared(login, || {
                Login::of(&self.describe(), client.clone(), None, Some(tokens.clone()), persist.clone())
            }),
            Self::Call { client, call, persist, login } => shared(login, || {
                Login::of(&self.describe(), client.clone(), Some(Grant::Call(call.clone())), None, persist.clone())
            }),
            Self::Environment => environment(base_url)?.ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    "the environment has no login to SAS Viya: set SAS_ACCESS_TOKEN, SAS_TOKEN_FILE, SAS_CLIENT_ID and \
                     SAS_CLIENT_SECRET, or SAS_USERNAME and SAS_PASSWORD, or log in with sas-viya or jobrota viya login",
                )
            }),
        }
    }
}

/// The login of credentials whose tokens are in no file; clones of the credentials share it.
pub type Shared = Arc<OnceLock<Login>>;

fn shared(login: &Shared, open: impl FnOnce() -> Result<Login>) -> Result<Login> {
    if let Some(login) = login.get() {
        return Ok(login.clone());
    }
    let opened = open()?;
    Ok(login.get_or_init(|| opened).clone())
}

fn environment(base_url: &str) -> Result<Option<Login>> {
    let client = OAuthClient::from_environment();
    if let Some(access) = set(&["SAS_ACCESS_TOKEN", "VIYA_ACCESS_TOKEN"]) {
        let mut tokens = Map::from_iter([("access_token".to_owned(), json!(access))]);
        tokens.extend(
            set(&["SAS_REFRESH_TOKEN", "VIYA_REFRESH_TOKEN"])
                .map(|refresh| ("refresh_token".to_owned(), json!(refresh))),
        );
        tokens.extend(set(&["SAS_TOKEN_EXPIRES_AT"]).map(|at| ("expires_at".to_owned(), json!(at))));
        return Login::of("SAS_ACCESS_TOKEN", client, None, Some(tokens), None).map(Some);
    }
    if let Some(path) = set(&["SAS_TOKEN_FILE"]) {
        return Login::open_as(path, client).map(Some);
    }
    if client.is_confidential() && set(&["SAS_USERNAME", "VIYA_USERNAME"]).is_none() {
        return Login::of("SAS_CLIENT_ID", client, Some(Grant::ClientCredentials), None, None).map(Some);
    }
    if let Some((user, password)) = set(&["SAS_USERNAME", "VIYA_USERNAME"]).zip(set(&["SAS_PASSWORD", "VIYA_PASSWORD"]))
    {
        return Login::of("SAS_USERNAME", client, Some(Grant::Password { user, password }), None, None).map(Some);
    }
    // A stale login of the command line must not stand in for a missing one: it is taken only where it can be used.
    match Login::cli(None, base_url) {
        Ok(login) => Ok((!login.validity().is_over()).then_some(login)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
