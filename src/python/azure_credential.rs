//! Converts Azure credentials that a caller gives: a dict, a callable, or an object of `azure.identity`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::attach::attached;
use super::callables::{Calls, HeldObject};
use super::convert::arguments::{self, Moment};
use super::errors::{PyOutcome, refuse};
use crate::azure::{AccessToken, Credential, TokenSource};
use crate::error::{Error, ErrorKind, Result};

const KEYS: [&str; 4] = ["tenant_id", "client_id", "client_secret", "authority_host"];

/// Returns the credential, and the login service if `value` names one. No error shows a value.
pub(super) fn credential(
    value: Option<&Bound<'_, PyAny>>,
    calls: &Arc<Calls>,
) -> PyOutcome<(Credential, Option<String>)> {
    let Some(value) = value else { return Ok((Credential::Environment, None)) };
    if let Some(dict) = arguments::mapping(value)? {
        return from_dict(&dict);
    }
    let has_get_token = value.hasattr("get_token")?;
    if !has_get_token && !value.is_callable() {
        return refuse(format!(
            "credential must be None, a dict of tenant_id, client_id and client_secret, a callable that returns a token, or an \
             object with get_token(scope), not a value of type {}",
            arguments::type_name(value)
        ));
    }
    let source = PythonSource { object: calls.held.hold(value), has_get_token, calls: Arc::clone(calls) };
    Ok((Credential::Source(Arc::new(source)), None))
}

fn from_dict(dict: &Bound<'_, PyDict>) -> PyOutcome<(Credential, Option<String>)> {
    let mut found: [Option<String>; 4] = Default::default();
    for (key, value) in dict.iter() {
        let key = arguments::named(dict.py(), "a key of credential", arguments::secret(&key))?.to_owned();
        let unknown = || format!("credential has the unknown key {key:?}: known are {}", KEYS.join(", "));
        let index = KEYS.iter().position(|known| *known == key);
        let index = index.ok_or_else(unknown).map_err(Error::invalid)?;
        if value.is_none() {
            continue;
        }
        let name = format!("credential[{key:?}]");
        let text = arguments::named(dict.py(), &name, arguments::secret(&value))?.trim();
        if text.is_empty() {
            return refuse(format!("{name} is empty"));
        }
        found[index] = Some(text.to_owned());
    }
    let [tenant_id, client_id, client_secret, authority_host] = found;
    let credential = match (tenant_id, client_id, client_secret) {
        (Some(tenant), Some(client), Some(secret)) => Credential::service_principal(&tenant, &client, secret),
        (None, Some(client), None) => Credential::ManagedIdentity { client_id: Some(client) },
        _ => {
            return refuse(
                "credential must have tenant_id, client_id and client_secret for a service principal, or client_id alone for a \
                 user-assigned managed identity",
            );
        }
    };
    Ok((credential, authority_host))
}

struct PythonSource {
    object: HeldObject,
    /// Calls `object.get_token(scope)` instead of `object()`.
    has_get_token: bool,
    calls: Arc<Calls>,
}

impl TokenSource for PythonSource {
    fn token(&self, scope: &str) -> Result<AccessToken> {
        attached(|py| {
            let object = self.object.bind(py);
            let answer = match self.has_get_token {
                true => object.and_then(|object| object.call_method1("get_token", (scope,))),
                false => object.and_then(|object| object.call0()),
            };
            let answer = answer.map_err(|error| {
                self.calls.interrupted_by(py, &error);
                Error::new(ErrorKind::Authentication, format!("the credential gave no token: {error}"))
            })?;
            token(&answer)
        })
    }
}

/// The token in the answer of a credential. No error shows it.
fn token(answer: &Bound<'_, PyAny>) -> Result<AccessToken> {
    let wrong = || {
        let kind = arguments::type_name(answer);
        Error::invalid(format!(
            "the credential must return a token (text), (token, expires_on) or an object with .token and .expires_on, and it returned \
             a value of type {kind}"
        ))
    };
    if answer.hasattr("__await__").unwrap_or(false) {
        // Without close(), Python warns that the coroutine was never awaited.
        let _ = answer.call_method0("close");
        return Err(Error::invalid(
            "the credential is asynchronous: give the synchronous one, as of azure.identity, not azure.identity.aio",
        ));
    }
    let (text, expires) = if answer.is_instance_of::<PyString>() {
        (answer.clone(), None)
    } else if answer.is_exact_instance_of::<PyTuple>()
        && let Ok((text, expires)) = answer.extract()
    {
        (text, Some(expires))
    } else {
        (answer.getattr("token").map_err(|_| wrong())?, answer.getattr("expires_on").ok())
    };
    let text: String = text.extract().map_err(|_| wrong())?;
    let expires = expires.filter(|value| !value.is_none()).map(|value| expiry(&value)).transpose()?;
    Ok(AccessToken::new(text, expires))
}

/// Seconds since 1970, or a time with a timezone.
fn expiry(value: &Bound<'_, PyAny>) -> Result<DateTime<Utc>> {
    let seconds = value.extract::<f64>().ok().filter(|seconds| seconds.is_finite());
    let from_seconds = seconds.and_then(|seconds| DateTime::from_timestamp(seconds as i64, 0));
    from_seconds.or_else(|| value.extract::<Moment>().ok().map(|moment| moment.0)).ok_or_else(|| {
        Error::invalid("the credential's expires_on must be seconds since 1970 or a datetime with a timezone")
    })
}
