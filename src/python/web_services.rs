//! `WebServices`: AutoSys's web services as the way to AutoSys.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;

use super::arguments;
use super::convert;
use super::errors::PyOutcome;
use crate::autosys::{EventNames, Mapping, Transport, WebCredentials, WebServices, WebServicesOptions};
use crate::error::{Error, Result};
use crate::http::address::without_userinfo;

/// AutoSys's web services (AEWS) as the way to AutoSys: one POST per event; `confirm=True` reads the status back.
///
/// The server's certificate is always verified. Redirects are not followed, and nothing is sent twice: what may have
/// arrived without an answer is unknown.
///
/// Args:
///     base_url: `https://host:9443`, with a path where the services are not below `/AEWS`. `http` is taken for this machine
///         alone.
///     user: For Basic authentication, together with `password`.
///     password: Its password.
///     token: A bearer token, instead of the two.
///     prefix: Where events are posted, below `base_url`: `"event"` in older releases, `"api/event"` in those with a Swagger
///         page. With a leading `/` it counts from the host.
///     events: Other names than `{"CHANGE_STATUS": "change-status-job", "STARTJOB": "start-job", "FORCE_STARTJOB":
///         "force-start-job"}`, for one of them or several.
///     comment: The comment of each event; `{file_name}` becomes the row's file name. Cut at 255 characters.
///     ca_file: A PEM file with authorities that are trusted beside the system's.
///     timeout: Seconds for an answer. Connecting before that may take as long, ten seconds at most.
///     status_path: Where the status of a job is read, like `prefix`; None: it is not read.
///     accepted: The HTTP statuses that prove that an event was stored. Another success, such as 200 with a page of a
///         proxy, is unknown.
///     allow_http: Whether credentials and events may cross a network in the clear.
///
/// Raises:
///     InvalidInputError: An argument can never work.
///     NotFoundError: There is no file `ca_file`.
///
/// Example:
///     >>> from jobrota.autosys import WebServices
///     >>> WebServices("https://autosys.example.com:9443", user="reporter", password="secret", prefix="api/event")
///     WebServices("https://autosys.example.com:9443")
#[pyclass(module = "jobrota", name = "WebServices", frozen)]
pub(super) struct PyWebServices {
    options: WebServicesOptions,
}

impl PyWebServices {
    /// The transport that sends what `mapping` says.
    pub(super) fn core(&self, mapping: Mapping) -> Result<Arc<dyn Transport>> {
        Ok(Arc::new(WebServices::new(WebServicesOptions { mapping, ..self.options.clone() })?))
    }
}

#[pymethods]
impl PyWebServices {
    #[new]
    #[pyo3(signature = (base_url, *, user = None, password = None, token = None, prefix = "event", events = None,
                        comment = None, ca_file = None, timeout = 30.0, status_path = Some("job-run-info/{job}".to_owned()),
                        accepted = None, allow_http = false),
           text_signature = "(base_url, *, user=None, password=None, token=None, prefix='event', events=None, comment=None, \
                             ca_file=None, timeout=30.0, status_path='job-run-info/{job}', accepted=None, allow_http=False)")]
    #[allow(clippy::too_many_arguments, reason = "one per keyword of the Python class")]
    fn new(
        #[pyo3(from_py_with = arguments::text)] base_url: &str,
        user: Option<&Bound<'_, PyAny>>,
        password: Option<&Bound<'_, PyAny>>,
        token: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::text)] prefix: &str,
        events: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_text)] comment: Option<String>,
        #[pyo3(from_py_with = arguments::optional_location)] ca_file: Option<String>,
        #[pyo3(from_py_with = arguments::number)] timeout: f64,
        #[pyo3(from_py_with = arguments::optional_text)] status_path: Option<String>,
        accepted: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::flag)] allow_http: bool,
    ) -> PyOutcome<Self> {
        // These say what type a wrong value has, and never the value.
        let user = convert::optional_text("user", user)?;
        let password = convert::optional_text("password", password)?;
        let credentials = match (user, password, convert::optional_text("token", token)?) {
            (None, None, None) => WebCredentials::None,
            (Some(user), Some(password), None) => WebCredentials::Basic { user, password: password.into() },
            (None, None, Some(token)) => WebCredentials::Bearer { token: token.into() },
            _ => return Err(Error::invalid("give user and password, or token, or none of them").into()),
        };
        let accepted = match accepted {
            None => vec![201],
            Some(value) => value
                .try_iter()
                .and_then(|items| items.map(|item| item?.extract()).collect())
                .map_err(|_: PyErr| Error::invalid("accepted must be a list of HTTP statuses, such as [201]"))?,
        };
        let options = WebServicesOptions {
            credentials,
            prefix: prefix.to_owned(),
            events: event_names(events)?,
            status_path,
            comment,
            ca_file: ca_file.map(PathBuf::from),
            timeout: convert::seconds("timeout", timeout)?,
            accepted,
            allow_http,
            ..WebServicesOptions::new(base_url)
        };
        // Made once here only to refuse bad options where they are given, not at the first delivery.
        WebServices::new(options.clone())?;
        Ok(Self { options })
    }

    /// The address of the services.
    #[getter]
    fn base_url(&self) -> String {
        without_userinfo(&self.options.base_url)
    }

    fn __repr__(&self) -> String {
        format!("WebServices({:?})", self.base_url())
    }
}

fn event_names(value: Option<&Bound<'_, PyAny>>) -> PyOutcome<EventNames> {
    let mut names = EventNames::default();
    for (event, name) in convert::text_pairs("events", value)? {
        let place = match event.as_str() {
            "CHANGE_STATUS" => &mut names.change_status,
            "STARTJOB" => &mut names.start,
            "FORCE_STARTJOB" => &mut names.force_start,
            other => {
                return Err(Error::invalid(format!(
                    "events has the unknown event {other:?}: known are CHANGE_STATUS, STARTJOB and FORCE_STARTJOB"
                ))
                .into());
            }
        };
        *place = name;
    }
    Ok(names)
}
