//! Where a login comes from, as users configure it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use super::Login;
use super::grant::{Grant, OAuthClient};
use super::token_storage::PersistHook;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::environment;

/// Where a login comes from. Its `Debug` shows no secret.
#[derive(Clone)]
pub enum Credentials {
    /// A token file: see [`Login::open`].
    File(PathBuf),
    /// This token file if it exists, else the environment, else SAS's own command line.
    FileOrEnvironment(PathBuf),
    /// A profile of SAS's own command line, `sas-viya`; without a name that of `SAS_CLI_PROFILE`, else `Default`.
    Cli(Option<String>),
    /// Tokens that are in no file, and how to get new ones.
    Memory {
        /// The OAuth client that renews the tokens.
        client: OAuthClient,
        /// Requests new tokens.
        grant: Option<Grant>,
        /// A SASLogon response.
        tokens: Option<Map<String, Value>>,
        /// Gets renewed tokens.
        persist: Option<PersistHook>,
        /// The login, once it was opened, so that later calls use renewed tokens.
        login: Arc<OnceLock<Login>>,
    },
    /// The login of the environment: see [`Credentials::open`].
    Environment,
}

/// The file `data/sas_tokens.json` if it exists, else the environment.
impl Default for Credentials {
    fn default() -> Self {
        Self::FileOrEnvironment(Self::DEFAULT_FILE.into())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Credentials {
    /// The token file that is used when a call names none.
    pub const DEFAULT_FILE: &str = "data/sas_tokens.json";

    /// Tokens that `grant` requests, with a hook that stores renewed ones.
    pub fn with_grant(client: OAuthClient, grant: Grant, persist: Option<PersistHook>) -> Self {
        Self::Memory { client, grant: Some(grant), tokens: None, persist, login: Arc::default() }
    }

    /// Tokens of a SASLogon response, with a hook that stores renewed ones.
    pub fn with_tokens(client: OAuthClient, tokens: Map<String, Value>, persist: Option<PersistHook>) -> Self {
        Self::Memory { client, grant: None, tokens: Some(tokens), persist, login: Arc::default() }
    }

    /// A description without a secret.
    pub fn describe(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::FileOrEnvironment(path) => format!("{}, else the environment", path.display()),
            Self::Cli(profile) => format!("profile {} of sas-viya", profile.as_deref().unwrap_or("in use")),
            Self::Memory { client, grant, .. } => match grant {
                Some(Grant::ClientCredentials) => format!("client credentials of {}", client.id()),
                Some(Grant::Password { user, .. }) => format!("password of {user}"),
                Some(Grant::Callback(_)) => "a callable".to_owned(),
                None => "tokens that were given".to_owned(),
            },
            Self::Environment => "the environment".to_owned(),
        }
    }

    /// The login to the server at `base_url`. The environment is searched in this order: `SAS_ACCESS_TOKEN` or
    /// `VIYA_ACCESS_TOKEN` (with `SAS_REFRESH_TOKEN`), `SAS_TOKEN_FILE`, `SAS_CLIENT_ID` with `SAS_CLIENT_SECRET`,
    /// `SAS_USERNAME` with `SAS_PASSWORD` (each also as `VIYA_…`), and last the profile of SAS's own command line. A token file
    /// that has expired and cannot be renewed is ignored when the environment has a login.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no login, [`ErrorKind::InvalidInput`] when it is malformed, or is a profile of
    /// another server; a retry does not help.
    pub fn open(&self, base_url: &str) -> Result<Login> {
        match self {
            Self::File(path) => Login::open(path),
            Self::FileOrEnvironment(path) => match Login::open(path) {
                Err(e) if e.kind() == ErrorKind::NotFound => match login_of_environment(base_url)? {
                    Some(login) => Ok(login),
                    None => Err(e),
                },
                Ok(login) if login.validity().is_over() => match login_of_environment(base_url)? {
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
            Self::Memory { client, grant, tokens, persist, login } => {
                let (name, client, persist) = (self.describe(), client.clone(), persist.clone());
                let open = || Login::in_memory(&name, client, grant.clone(), tokens.clone(), persist);
                match (grant, login.get()) {
                    // These request tokens of their own for each server.
                    (Some(Grant::ClientCredentials | Grant::Password { .. }), _) => open(),
                    (_, Some(login)) => Ok(login.clone()),
                    (_, None) => open().map(|opened| login.get_or_init(|| opened).clone()),
                }
            }
            Self::Environment => login_of_environment(base_url)?.ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    "the environment has no login to SAS Viya: set SAS_ACCESS_TOKEN, SAS_TOKEN_FILE, SAS_CLIENT_ID and \
                     SAS_CLIENT_SECRET, or SAS_USERNAME and SAS_PASSWORD, or log in with sas-viya or jobrota viya login",
                )
            }),
        }
    }
}

/// A text of so many bytes without a folder and an extension is hardly the name of a token file.
const SHORTEST_TOKEN: usize = 20;

/// Whether a text is a JWT or an opaque token, and not the name of a file. Errors show paths, and must not show a token.
pub fn looks_like_token(text: &str) -> bool {
    let is_jwt = text.starts_with("ey") && text.matches('.').count() == 2;
    let is_opaque = !text.contains('.') && !Path::new(text).exists();
    text.len() >= SHORTEST_TOKEN && !text.contains(['/', '\\']) && (is_jwt || is_opaque)
}

fn login_of_environment(base_url: &str) -> Result<Option<Login>> {
    let client = OAuthClient::from_environment();
    let user = environment(&["SAS_USERNAME", "VIYA_USERNAME"]);
    if let Some(access) = environment(&["SAS_ACCESS_TOKEN", "VIYA_ACCESS_TOKEN"]) {
        let refresh = environment(&["SAS_REFRESH_TOKEN", "VIYA_REFRESH_TOKEN"]).map(|token| ("refresh_token", token));
        let expires = environment(&["SAS_TOKEN_EXPIRES_AT"]).map(|at| ("expires_at", at));
        let fields = [("access_token", access)].into_iter().chain(refresh).chain(expires);
        let tokens = fields.map(|(name, value)| (name.to_owned(), value.into())).collect();
        return Login::in_memory("SAS_ACCESS_TOKEN", client, None, Some(tokens), None).map(Some);
    }
    if let Some(path) = environment(&["SAS_TOKEN_FILE"]) {
        return Login::open_as(path, client).map(Some);
    }
    if client.is_confidential() && user.is_none() {
        return Login::in_memory("SAS_CLIENT_ID", client, Some(Grant::ClientCredentials), None, None).map(Some);
    }
    if let Some((user, password)) = user.zip(environment(&["SAS_PASSWORD", "VIYA_PASSWORD"])) {
        let grant = Grant::Password { user, password: password.into() };
        return Login::in_memory("SAS_USERNAME", client, Some(grant), None, None).map(Some);
    }
    // The login of the command line is used only while it is valid.
    match Login::cli(None, base_url) {
        Ok(login) => Ok((!login.validity().is_over()).then_some(login)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
