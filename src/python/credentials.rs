//! `jobrota.viya.Credentials`, and what `tokens` may be.

use std::sync::Arc;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString};
use serde_json::{Map, Value};

use super::attach::attached;
use super::callables::HeldObjects;
use super::convert;
use super::convert::arguments::{self, Location, Secret, Text};
use super::errors::{PyOutcome, refuse};
use crate::error::{Error, ErrorKind, Result};
use crate::viya::Credentials;
use crate::viya::auth::{Grant, OAuthClient, PersistHook, looks_like_token};

/// The source of a login to SAS Viya. Its repr shows no secret.
///
/// Example:
///     >>> from jobrota.viya import Credentials
///     >>> Credentials.password("me", "secret")
///     Credentials(password of me)
#[pyclass(module = "jobrota.viya", name = "Credentials", frozen)]
pub(super) struct PyCredentials {
    credentials: Credentials,
    held: HeldObjects,
}

fn oauth(client_id: Option<Text>, client_secret: Option<Secret>) -> OAuthClient {
    match client_id {
        Some(id) => OAuthClient::new(id.0, client_secret.map(|secret| secret.0).unwrap_or_default()),
        None => OAuthClient::from_environment(),
    }
}

#[pymethods]
impl PyCredentials {
    /// A token file: the JSON answer of SASLogon. It is renewed in place, mode 0600.
    #[staticmethod]
    fn file(path: Location) -> Self {
        Self { credentials: Credentials::File(path.0.into()), held: HeldObjects::default() }
    }

    /// A profile of SAS's own command line, `sas-viya`.
    ///
    /// Args:
    ///     profile: Its name; else that of `SAS_CLI_PROFILE`, else `Default`.
    #[staticmethod]
    #[pyo3(signature = (profile = None))]
    fn cli(profile: Option<Text>) -> Self {
        Self { credentials: Credentials::Cli(profile.map(|profile| profile.0)), held: HeldObjects::default() }
    }

    /// The client's own id and secret.
    #[staticmethod]
    fn client_credentials(client_id: Text, client_secret: Secret) -> Self {
        let client = OAuthClient::new(client_id.0, client_secret.0);
        let credentials = Credentials::with_grant(client, Grant::ClientCredentials, None);
        Self { credentials, held: HeldObjects::default() }
    }

    /// A user's name and password.
    ///
    /// Args:
    ///     user: The user.
    ///     password: The password.
    ///     client_id: The OAuth client; else that of the environment, else SAS's own `sas.cli`.
    ///     client_secret: Its secret, if it has one.
    #[staticmethod]
    #[pyo3(signature = (user, password, *, client_id = None, client_secret = None))]
    fn password(user: Text, password: Secret, client_id: Option<Text>, client_secret: Option<Secret>) -> Self {
        let client = oauth(client_id, client_secret);
        let grant = Grant::Password { user: user.0, password: password.0.into() };
        Self { credentials: Credentials::with_grant(client, grant, None), held: HeldObjects::default() }
    }

    /// The login of the environment: `SAS_ACCESS_TOKEN`, `SAS_TOKEN_FILE`, `SAS_CLIENT_ID` with `SAS_CLIENT_SECRET`,
    /// `SAS_USERNAME` with `SAS_PASSWORD`, else the profile of SAS's own command line.
    #[staticmethod]
    fn environment() -> Self {
        Self { credentials: Credentials::Environment, held: HeldObjects::default() }
    }

    /// Tokens that are not in a file, such as those of a secret scope.
    ///
    /// Args:
    ///     source: A SASLogon response as a dict, an access token, or a callable that returns one of the two whenever a token is
    ///         needed.
    ///     persist: A callable that gets the whole response as a dict whenever tokens were renewed. SAS's refresh tokens can
    ///         work only once: without `persist`, a renewed one is lost with this process.
    ///     client_id: The OAuth client that renews them; else that of the environment, else SAS's own `sas.cli`.
    ///     client_secret: Its secret, if it has one.
    #[staticmethod]
    #[pyo3(signature = (source, persist = None, *, client_id = None, client_secret = None))]
    fn tokens(
        source: &Bound<'_, PyAny>,
        persist: Option<&Bound<'_, PyAny>>,
        client_id: Option<Text>,
        client_secret: Option<Secret>,
    ) -> PyOutcome<Self> {
        let client = oauth(client_id, client_secret);
        let held = HeldObjects::default();
        let persist = persist.map(|persist| hook(persist, &held)).transpose()?;
        let credentials = if source.is_callable() {
            Credentials::with_grant(client, callback(source, &held), persist)
        } else {
            Credentials::with_tokens(client, response(source)?, persist)
        };
        Ok(Self { credentials, held })
    }

    fn __repr__(&self) -> String {
        format!("Credentials({})", self.credentials.describe())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.held.traverse(&visit, false)
    }

    fn __clear__(&self) {
        self.held.clear();
    }
}

/// Converts `tokens`: a path, a callable, a SASLogon response or `Credentials`. None is the default file, else the environment. A
/// callable and `Credentials` are `held`.
pub(super) fn credentials(value: Option<&Bound<'_, PyAny>>, held: &HeldObjects) -> PyOutcome<Credentials> {
    let Some(value) = value else { return Ok(Credentials::default()) };
    if let Ok(given) = value.cast::<PyCredentials>() {
        held.hold(value);
        return Ok(given.get().credentials.clone());
    }
    let client = OAuthClient::from_environment();
    if value.cast::<PyString>().is_ok_and(|text| text.to_str().is_ok_and(looks_like_token)) {
        return refuse(
            "tokens is a token itself, where the path of a token file is expected: give Credentials.tokens(…) of it",
        );
    }
    if value.is_instance_of::<PyString>() || value.hasattr("__fspath__")? {
        let path = arguments::named(value.py(), "tokens", arguments::location(value))?;
        return Ok(Credentials::File(path.into()));
    }
    if value.is_callable() {
        return Ok(Credentials::with_grant(client, callback(value, held), None));
    }
    if value.cast::<PyMapping>().is_ok() {
        return Ok(Credentials::with_tokens(client, response(value)?, None));
    }
    refuse(format!(
        "tokens must be text or a path (of a token file), a callable that gives tokens, a SASLogon response, or one of \
         jobrota.viya.Credentials, not a value of type {}",
        arguments::type_name(value)
    ))
}

/// A SASLogon response, or just an access token; no error shows it.
fn response(value: &Bound<'_, PyAny>) -> PyOutcome<Map<String, Value>> {
    if value.is_instance_of::<PyString>() {
        let token = arguments::named(value.py(), "tokens", arguments::secret(value))?;
        return Ok(Map::from_iter([("access_token".to_owned(), Value::from(token))]));
    }
    let response = arguments::mapping(value)?.map(|dict| convert::json_value("tokens", &dict)).transpose()?;
    match response {
        Some(Value::Object(map)) if map.get("access_token").is_some_and(Value::is_string) => Ok(map),
        _ => {
            let kind = value.get_type();
            refuse(format!("tokens must be an access token or a SASLogon response with access_token, not a {kind}"))
        }
    }
}

fn callback(callable: &Bound<'_, PyAny>, held: &HeldObjects) -> Grant {
    let callable = held.hold(callable);
    Grant::Callback(Arc::new(move || -> Result<Map<String, Value>> {
        attached(|py| {
            let answer = callable.bind(py).and_then(|callable| callable.call0()).map_err(|error| {
                Error::new(ErrorKind::Authentication, format!("the token callable gave no token: {error}"))
            })?;
            response(&answer).map_err(|_| {
                Error::invalid(format!(
                    "the token callable must return an access token (text) or a SASLogon response (dict), and returned a {}",
                    arguments::type_name(&answer)
                ))
            })
        })
    }))
}

fn hook(callable: &Bound<'_, PyAny>, held: &HeldObjects) -> PyOutcome<PersistHook> {
    if !callable.is_callable() {
        return refuse("persist must be a callable that takes the renewed SASLogon response");
    }
    let callable = held.hold(callable);
    Ok(Arc::new(move |response: &Map<String, Value>| -> Result<()> {
        attached(|py| {
            let called = convert::record(py, response)
                .map_err(PyErr::from)
                .and_then(|response| callable.bind(py)?.call1((response,)).map(drop));
            called.map_err(|error| {
                // The text of the exception can hold a token.
                let kind = arguments::type_name(error.value(py));
                let text = format!("the persist hook did not keep the renewed tokens: it raised {kind}");
                Error::new(ErrorKind::Storage, text)
            })
        })
    }))
}
