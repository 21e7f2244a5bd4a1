//! `ViyaSession`: what `jobrota viya` and notebooks ask a SAS Viya.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments;
use super::convert;
use super::credentials::credentials;
use super::errors::PyOutcome;
use super::wait::{self, Born};
use crate::error::Error;
use crate::viya::auth::{self, OAuthClient, pkce};
use crate::viya::{ClientOptions, Credentials, ViyaClient, contexts, definitions, server, session};

/// Limits of the HTTP client from the keywords that several classes share.
pub(super) fn client_options(
    py: Python<'_>,
    ca_bundle: Option<String>,
    proxy: Option<String>,
    verify: bool,
    connect_timeout: f64,
    read_timeout: f64,
) -> PyOutcome<ClientOptions> {
    if !verify {
        let text = c"SAS Viya's certificate is not checked: whoever is between can read tokens and change answers (verify=False)";
        PyErr::warn(py, &py.get_type::<pyo3::exceptions::PyUserWarning>(), text, 2)?;
    }
    let positive = |name: &str, value: f64| match convert::seconds(name, value)? {
        zero if zero.is_zero() => Err(Error::invalid(format!("{name} is 0: give a positive number of seconds")).into()),
        span => PyOutcome::Ok(span),
    };
    Ok(ClientOptions {
        ca_bundle: ca_bundle.map(PathBuf::from),
        proxy: proxy.map(Into::into),
        verify,
        connect_timeout: positive("connect_timeout", connect_timeout)?,
        read_timeout: positive("read_timeout", read_timeout)?,
        ..ClientOptions::default()
    })
}

/// One user at one SAS Viya: who that is, and what is there.
///
/// Args:
///     base_url: The server, such as `https://viya.example.com`; else as `ViyaComparisonRunner` has it.
///     tokens: A token file, a callable or `Credentials`; else `data/sas_tokens.json`, else what the environment has.
///     ca_bundle: A PEM file with certificates to trust beside the system's.
///     proxy: A proxy for all calls; else what `HTTPS_PROXY` and `NO_PROXY` say.
///     verify: False does not check the server's certificate, and says so loudly.
///     connect_timeout: Seconds to open a connection.
///     read_timeout: Longest silence within an answer, seconds.
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
    born: Born,
}

impl PyViyaSession {
    fn client(&self) -> PyOutcome<Arc<ViyaClient>> {
        self.born.check("ViyaSession")?;
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = client.as_ref() {
            return Ok(Arc::clone(client));
        }
        let made = Arc::new(ViyaClient::new(&self.base_url, self.credentials.open(&self.base_url)?, &self.options)?);
        Ok(Arc::clone(client.insert(made)))
    }
}

#[pymethods]
impl PyViyaSession {
    #[new]
    #[pyo3(signature = (base_url = None, *, tokens = None, ca_bundle = None, proxy = None, verify = true, connect_timeout = 10.0,
                        read_timeout = 60.0))]
    #[allow(clippy::too_many_arguments, reason = "one per keyword of the Python class")]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::optional_text)] base_url: Option<String>,
        tokens: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_location)] ca_bundle: Option<String>,
        #[pyo3(from_py_with = arguments::optional_secret)] proxy: Option<String>,
        #[pyo3(from_py_with = arguments::flag)] verify: bool,
        #[pyo3(from_py_with = arguments::number)] connect_timeout: f64,
        #[pyo3(from_py_with = arguments::number)] read_timeout: f64,
    ) -> PyOutcome<Self> {
        let base_url = server::require(base_url.as_deref())?;
        crate::viya::client::parse_base_url(&base_url)?;
        Ok(Self {
            base_url,
            credentials: credentials(tokens)?,
            options: client_options(py, ca_bundle, proxy, verify, connect_timeout, read_timeout)?,
            client: Mutex::new(None),
            born: Born::here(),
        })
    }

    /// A valid access token, renewed first when it is about to expire.
    fn token(&self, py: Python<'_>) -> PyOutcome<String> {
        let client = self.client()?;
        wait::future(py, async move { client.token().await })
    }

    /// Who the token belongs to: a dict of user, name, scopes, expires, renewable, origin and asked.
    fn whoami<'py>(&self, py: Python<'py>) -> PyOutcome<Bound<'py, PyDict>> {
        let client = self.client()?;
        let identity = wait::future(py, async move { session::whoami(&client).await })?;
        let dict = PyDict::new(py);
        dict.set_item("user", identity.user)?;
        dict.set_item("name", identity.name)?;
        dict.set_item("scopes", identity.scopes)?;
        dict.set_item("expires", identity.expires)?;
        dict.set_item("renewable", identity.renewable)?;
        dict.set_item("origin", identity.origin)?;
        dict.set_item("asked", identity.asked)?;
        Ok(dict)
    }

    /// The job definitions whose names match a pattern such as `*_pooled`: dicts of id, name, description and type.
    fn definitions<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::text)] pattern: &str,
    ) -> PyOutcome<Vec<Bound<'py, PyDict>>> {
        let (client, pattern) = (self.client()?, pattern.to_owned());
        let found = wait::future(py, async move { definitions::find(&client, &pattern).await })?;
        let dicts = found.into_iter().map(|definition| {
            let dict = PyDict::new(py);
            dict.set_item("id", definition.id)?;
            dict.set_item("name", definition.name)?;
            dict.set_item("description", definition.description)?;
            dict.set_item("type", definition.kind)?;
            Ok(dict)
        });
        Ok(dicts.collect::<PyResult<_>>()?)
    }

    /// The compute contexts: dicts of id, name, queue, attributes and details (launch context, environment and resources; None
    /// where the user may not read them).
    ///
    /// Args:
    ///     names: Only these; a name that does not exist is an error that lists those that do.
    #[pyo3(signature = (names = None))]
    fn contexts<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::optional_names)] names: Option<Vec<String>>,
    ) -> PyOutcome<Vec<Bound<'py, PyDict>>> {
        let client = self.client()?;
        let look = async move {
            match names {
                None => contexts::all(&client).await,
                Some(names) => {
                    let mut found = Vec::new();
                    for name in names {
                        found.push(contexts::find(&client, &name).await?);
                    }
                    Ok(found)
                }
            }
        };
        let found = wait::future(py, look)?;
        let dicts = found.into_iter().map(|context| {
            let dict = PyDict::new(py);
            dict.set_item("id", context.id)?;
            dict.set_item("name", context.name)?;
            dict.set_item("queue", context.queue)?;
            dict.set_item("attributes", convert::json(py, &context.attributes).map_err(PyErr::from)?)?;
            dict.set_item("details", convert::json(py, &context.details).map_err(PyErr::from)?)?;
            Ok(dict)
        });
        Ok(dicts.collect::<PyResult<_>>()?)
    }

    /// Logs in with this session's credentials and writes the tokens to a file, mode 0600.
    fn save_login(&self, py: Python<'_>, #[pyo3(from_py_with = arguments::location)] path: String) -> PyOutcome<()> {
        self.born.check("ViyaSession")?;
        let (base, options, credentials) = (self.base_url.clone(), self.options.clone(), self.credentials.clone());
        let work = async move {
            let (response, client) = session::login(&base, &options, &credentials).await?;
            auth::write_new(&PathBuf::from(path), response, &client)
        };
        wait::future(py, work)
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
    fn begin_login(
        &self,
        #[pyo3(from_py_with = arguments::optional_text)] client_id: Option<String>,
        #[pyo3(from_py_with = arguments::optional_secret)] client_secret: Option<String>,
    ) -> PyOutcome<PyCodeLogin> {
        let client =
            OAuthClient::new(client_id.unwrap_or_else(|| "vscode".to_owned()), client_secret.unwrap_or_default());
        let login = Arc::new(session::begin_login(&self.base_url, &client)?);
        Ok(PyCodeLogin { base_url: self.base_url.clone(), options: self.options.clone(), client, login })
    }

    fn __repr__(&self) -> String {
        format!("ViyaSession({:?}, tokens={})", self.base_url, self.credentials.describe())
    }
}

/// A login that waits for its code.
#[pyclass(module = "jobrota.viya", name = "CodeLogin", frozen)]
pub(super) struct PyCodeLogin {
    base_url: String,
    options: ClientOptions,
    client: OAuthClient,
    login: Arc<pkce::AuthorizationRequest>,
}

#[pymethods]
impl PyCodeLogin {
    /// What to open in a browser.
    #[getter]
    fn url(&self) -> &str {
        self.login.url.as_str()
    }

    /// Redeems the code and writes the tokens to a file, mode 0600.
    ///
    /// Args:
    ///     code: As the browser showed it.
    ///     path: The token file; what is there is replaced.
    fn finish(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::secret)] code: &str,
        #[pyo3(from_py_with = arguments::location)] path: String,
    ) -> PyOutcome<()> {
        let (base, options, client) = (self.base_url.clone(), self.options.clone(), self.client.clone());
        let (login, code) = (Arc::clone(&self.login), code.to_owned());
        let work = async move {
            let response = session::finish_login(&base, &options, &client, &login, &code).await?;
            auth::write_new(&PathBuf::from(path), response, client.id())
        };
        wait::future(py, work)
    }

    fn __repr__(&self) -> String {
        format!("CodeLogin(url={:?})", self.login.url.as_str())
    }
}
