//! `ViyaSession`: the requests of `jobrota viya` and of notebooks to SAS Viya.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::callables::HeldObjects;
use super::convert;
use super::convert::arguments::{self, Location, Names, Secret, Text};
use super::credentials::credentials;
use super::errors::{ForkGuard, PyOutcome};
use super::wait::CallMode;
use crate::error::Error;
use crate::runtime::lock;
use crate::viya::auth::{self, OAuthClient};
use crate::viya::{ClientOptions, Credentials, ViyaClient, contexts, definitions, server, session};

/// Options of the HTTP client from the keywords that several classes share.
pub(super) fn client_options(
    py: Python<'_>,
    ca_bundle: Option<Location>,
    proxy: Option<Secret>,
    verify: bool,
    connect_timeout: f64,
    read_timeout: f64,
) -> PyOutcome<ClientOptions> {
    if !verify {
        let text = c"SAS Viya's certificate is not checked: a third party on the network can read tokens and change answers (verify=False)";
        PyErr::warn(py, &py.get_type::<pyo3::exceptions::PyUserWarning>(), text, 2)?;
    }
    let positive = |name: &str, seconds: f64| match seconds {
        0.0 => Err(Error::invalid(format!("{name} is 0: give a positive number of seconds"))),
        seconds => Ok(Duration::from_secs_f64(seconds)),
    };
    Ok(ClientOptions {
        ca_bundle: ca_bundle.map(|file| PathBuf::from(file.0)),
        proxy: proxy.map(|proxy| proxy.0.into()),
        verify,
        connect_timeout: positive("connect_timeout", connect_timeout)?,
        read_timeout: positive("read_timeout", read_timeout)?,
        ..ClientOptions::default()
    })
}

/// One user of one SAS Viya: the user's identity, and the job definitions and compute contexts on the server.
///
/// Args:
///     base_url: The server, such as `https://viya.example.com`; else as `ViyaComparisonRunner` has it.
///     tokens: A token file, a callable or `Credentials`; else `data/sas_tokens.json`, else the login of the environment.
///     ca_bundle: A PEM file with certificates to trust in addition to the system's.
///     proxy: A proxy for all calls; else that of `HTTPS_PROXY` and `NO_PROXY`.
///     verify: False does not check the server's certificate, and warns about it.
///     connect_timeout: Time to open a connection: seconds, text such as `"90s"`, or a timedelta.
///     read_timeout: Longest time without data within an answer.
///
/// Raises:
///     InvalidInputError: An argument can never work.
///
/// Example:
///     >>> from jobrota import Sandbox
///     >>> from jobrota.viya import ViyaSession
///     >>> with Sandbox(autosys=False, vms=0, vms_down=0) as sandbox:
///     ...     session = ViyaSession(sandbox.viya_url, tokens=sandbox.tokens)
///     ...     session.definitions("cm_*")[0]["name"]
///     'cm_pooled'
#[pyclass(module = "jobrota.viya", name = "ViyaSession", frozen)]
pub(super) struct PyViyaSession {
    base_url: String,
    credentials: Credentials,
    options: ClientOptions,
    client: Mutex<Option<Arc<ViyaClient>>>,
    held: Arc<HeldObjects>,
    guard: ForkGuard,
}

impl PyViyaSession {
    fn client(&self) -> PyOutcome<Arc<ViyaClient>> {
        self.guard.check("ViyaSession")?;
        let mut client = lock(&self.client);
        if let Some(client) = client.as_ref() {
            return Ok(Arc::clone(client));
        }
        let made = Arc::new(ViyaClient::new(&self.base_url, self.credentials.open(&self.base_url)?, &self.options)?);
        Ok(Arc::clone(client.insert(made)))
    }

    fn token_in(&self, mode: CallMode<'_>) -> PyOutcome {
        let client = self.client()?;
        mode.run(async move { client.token().await }, |_, token| Ok(token))
    }

    fn whoami_in(&self, mode: CallMode<'_>) -> PyOutcome {
        let client = self.client()?;
        mode.run(async move { session::whoami(&client).await }, |py, identity| {
            let dict = convert::record(py, &identity)?;
            // JSON has no times.
            dict.bind(py).set_item("expires", identity.expires)?;
            Ok(dict)
        })
    }

    fn definitions_in(&self, mode: CallMode<'_>, pattern: Text) -> PyOutcome {
        let client = self.client()?;
        let work = async move { definitions::find(&client, &pattern.0).await };
        mode.run(work, |py, found| convert::record(py, &found))
    }

    fn contexts_in(&self, mode: CallMode<'_>, names: Option<Names>) -> PyOutcome {
        let client = self.client()?;
        let work = async move {
            let Some(Names(names)) = names else { return contexts::all(&client).await };
            let mut found = Vec::new();
            for name in names {
                found.push(contexts::find(&client, &name).await?);
            }
            Ok(found)
        };
        mode.run(work, |py, found| convert::record(py, &found))
    }

    fn save_login_in(&self, mode: CallMode<'_>, path: Location) -> PyOutcome {
        self.guard.check("ViyaSession")?;
        let (base, options, credentials) = (self.base_url.clone(), self.options.clone(), self.credentials.clone());
        let held = Arc::clone(&self.held);
        let work = async move {
            let _held = held;
            let (response, client) = session::login(&base, &options, &credentials).await?;
            auth::write_new(&PathBuf::from(path.0), response, &client)
        };
        mode.run(work, |py, ()| Ok(py.None()))
    }
}

#[pymethods]
impl PyViyaSession {
    #[new]
    #[pyo3(signature = (base_url = None, *, tokens = None, ca_bundle = None, proxy = None, verify = true, connect_timeout = 10.0,
                        read_timeout = 60.0))]
    fn new(
        py: Python<'_>,
        base_url: Option<Text>,
        tokens: Option<&Bound<'_, PyAny>>,
        ca_bundle: Option<Location>,
        proxy: Option<Secret>,
        #[pyo3(from_py_with = arguments::flag)] verify: bool,
        #[pyo3(from_py_with = arguments::seconds)] connect_timeout: f64,
        #[pyo3(from_py_with = arguments::seconds)] read_timeout: f64,
    ) -> PyOutcome<Self> {
        let base_url = server::require(base_url.as_ref().map(|url| url.0.as_str()))?;
        crate::viya::client::parse_base_url(&base_url)?;
        let held = Arc::<HeldObjects>::default();
        Ok(Self {
            base_url,
            credentials: credentials(tokens, &held)?,
            held,
            options: client_options(py, ca_bundle, proxy, verify, connect_timeout, read_timeout)?,
            client: Mutex::new(None),
            guard: ForkGuard::new(),
        })
    }

    /// A valid access token, renewed first when it is about to expire.
    fn token(&self, py: Python<'_>) -> PyOutcome {
        self.token_in(CallMode::Wait(py))
    }

    /// Like `token`, as a coroutine.
    fn token_async(&self, py: Python<'_>) -> PyOutcome {
        self.token_in(CallMode::Coroutine(py))
    }

    /// The user of the token: a dict of user, name, scopes, expires, renewable, origin and asked.
    fn whoami(&self, py: Python<'_>) -> PyOutcome {
        self.whoami_in(CallMode::Wait(py))
    }

    /// Like `whoami`, as a coroutine.
    fn whoami_async(&self, py: Python<'_>) -> PyOutcome {
        self.whoami_in(CallMode::Coroutine(py))
    }

    /// The job definitions whose names match a pattern such as `*_pooled`: dicts of id, name, description and type.
    fn definitions(&self, py: Python<'_>, pattern: Text) -> PyOutcome {
        self.definitions_in(CallMode::Wait(py), pattern)
    }

    /// Like `definitions`, as a coroutine.
    fn definitions_async(&self, py: Python<'_>, pattern: Text) -> PyOutcome {
        self.definitions_in(CallMode::Coroutine(py), pattern)
    }

    /// The compute contexts: dicts of id, name, queue, attributes and details (launch context, environment and resources; None
    /// where the user may not read them).
    ///
    /// Args:
    ///     names: Only these; a name that does not exist is an error that lists those that do.
    #[pyo3(signature = (names = None))]
    fn contexts(&self, py: Python<'_>, names: Option<Names>) -> PyOutcome {
        self.contexts_in(CallMode::Wait(py), names)
    }

    /// Like `contexts`, as a coroutine.
    #[pyo3(signature = (names = None))]
    fn contexts_async(&self, py: Python<'_>, names: Option<Names>) -> PyOutcome {
        self.contexts_in(CallMode::Coroutine(py), names)
    }

    /// Logs in with this session's credentials and writes the tokens to a file, mode 0600.
    fn save_login(&self, py: Python<'_>, path: Location) -> PyOutcome {
        self.save_login_in(CallMode::Wait(py), path)
    }

    /// Like `save_login`, as a coroutine.
    fn save_login_async(&self, py: Python<'_>, path: Location) -> PyOutcome {
        self.save_login_in(CallMode::Coroutine(py), path)
    }

    /// Begins a login with an authorization code (PKCE).
    ///
    /// Args:
    ///     client_id: The OAuth client; else SAS's own `vscode`, which shows the code.
    ///     client_secret: Its secret, if it has one.
    ///
    /// Returns:
    ///     A `CodeLogin`: open its `url` in a browser, and give the code shown there to `finish(code, path)`.
    #[pyo3(signature = (client_id = None, client_secret = None))]
    fn begin_login(&self, client_id: Option<Text>, client_secret: Option<Secret>) -> PyOutcome<PyCodeLogin> {
        let client_id = client_id.map_or_else(|| "vscode".to_owned(), |id| id.0);
        let client = OAuthClient::new(client_id, client_secret.map(|secret| secret.0).unwrap_or_default());
        let login = Arc::new(session::begin_login(&self.base_url, &client)?);
        Ok(PyCodeLogin { base_url: self.base_url.clone(), options: self.options.clone(), client, login })
    }

    fn __repr__(&self) -> String {
        format!("ViyaSession({:?}, tokens={})", self.base_url, self.credentials.describe())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Each running call has a client or the objects themselves. A locked client is about to be used.
        let has_client =
            |client: &Option<Arc<ViyaClient>>| client.as_ref().is_some_and(|client| Arc::strong_count(client) > 1);
        let is_running =
            Arc::strong_count(&self.held) > 1 || self.client.try_lock().map_or(true, |client| has_client(&client));
        self.held.traverse(&visit, is_running)
    }

    fn __clear__(&self) {
        self.held.clear();
    }
}

/// A login that waits for its code.
#[pyclass(module = "jobrota.viya", name = "CodeLogin", frozen)]
pub(super) struct PyCodeLogin {
    base_url: String,
    options: ClientOptions,
    client: OAuthClient,
    login: Arc<session::AuthorizationRequest>,
}

impl PyCodeLogin {
    fn finish_in(&self, mode: CallMode<'_>, code: Secret, path: Location) -> PyOutcome {
        let (base, options, client) = (self.base_url.clone(), self.options.clone(), self.client.clone());
        let login = Arc::clone(&self.login);
        let work = async move {
            let response = session::finish_login(&base, &options, &client, &login, &code.0).await?;
            auth::write_new(&PathBuf::from(path.0), response, client.id())
        };
        mode.run(work, |py, ()| Ok(py.None()))
    }
}

#[pymethods]
impl PyCodeLogin {
    /// The address to open in a browser.
    #[getter]
    fn url(&self) -> &str {
        self.login.url.as_str()
    }

    /// Redeems the code and writes the tokens to a file, mode 0600.
    ///
    /// Args:
    ///     code: The code that the browser showed.
    ///     path: The token file; an existing file is replaced.
    fn finish(&self, py: Python<'_>, code: Secret, path: Location) -> PyOutcome {
        self.finish_in(CallMode::Wait(py), code, path)
    }

    /// Like `finish`, as a coroutine.
    fn finish_async(&self, py: Python<'_>, code: Secret, path: Location) -> PyOutcome {
        self.finish_in(CallMode::Coroutine(py), code, path)
    }

    fn __repr__(&self) -> String {
        format!("CodeLogin(url={:?})", self.login.url.as_str())
    }
}
