//! `SendEvent`, `WebServices` and `Rehearsal`: the transports that need no VM.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use super::convert::arguments::{self, Location, Secret, Text, TextPairs};
use super::errors::{PyOutcome, refuse};
use crate::autosys::{
    EventNames, Mapping, Rehearsal, SendEvent, SendEventOptions, Transport, WebCredentials, WebServices,
    WebServicesOptions,
};
use crate::error::{Error, Result};
use crate::http::address::without_userinfo;

/// The transport that runs the local `sendevent` program.
///
/// The program gets an argument vector, not a shell line, so no character of a value is interpreted. Its standard input is
/// closed. An AutoSys error message in its output is a failure even with exit code 0.
///
/// Args:
///     program: A path, or a name that is looked up in `PATH`.
///     timeout: Time for one call: seconds, text such as `"90s"`, or a timedelta. Then the program is killed and the outcome
///         is unknown.
///     env: Variables for the program, such as `AUTOSERV`, in addition to those of this process.
///     env_file: A shell file that sets up AutoSys's variables, such as `autosys.sh.<host>`: sourced once, and every call
///         gets what it exports.
///     autostatus: The program that reads a job's status; by default the one in the directory of `program`, if it exists.
///     comment: Text for `-C`; `{file_name}` becomes the row's file name. Starts with a letter or digit.
///
/// Raises:
///     InvalidInputError: An argument can never work.
///
/// Example:
///     >>> from jobrota.autosys import SendEvent
///     >>> SendEvent("/opt/autosys/bin/sendevent", env={"AUTOSERV": "ACE"}).program
///     '/opt/autosys/bin/sendevent'
#[pyclass(module = "jobrota", name = "SendEvent", frozen)]
pub(super) struct PySendEvent {
    pub(super) options: SendEventOptions,
}

#[pymethods]
impl PySendEvent {
    #[new]
    #[pyo3(signature = (program = None, *, timeout = 60.0, env = None, env_file = None, autostatus = None, comment = None))]
    fn new(
        program: Option<Location>,
        #[pyo3(from_py_with = arguments::seconds)] timeout: f64,
        env: Option<TextPairs>,
        env_file: Option<Location>,
        autostatus: Option<Location>,
        comment: Option<Text>,
    ) -> PyOutcome<Self> {
        let options = SendEventOptions {
            program: program.map_or_else(|| "sendevent".into(), |program| PathBuf::from(program.0)),
            environment: env.into_iter().flat_map(|env| env.0).map(|(name, value)| (name, value.into())).collect(),
            env_file: env_file.map(|file| PathBuf::from(file.0)),
            autostatus: autostatus.map(|program| PathBuf::from(program.0)),
            mapping: Mapping::change_status(),
            timeout: Duration::from_secs_f64(timeout),
            comment: comment.map(|comment| comment.0),
        };
        // Refuses bad options here, and not at the first delivery.
        SendEvent::new(options.clone())?;
        Ok(Self { options })
    }

    /// The program that is run.
    #[getter]
    fn program(&self) -> String {
        self.options.program.display().to_string()
    }

    fn __repr__(&self) -> String {
        format!("SendEvent({:?})", self.options.program.display().to_string())
    }
}

/// The transport that posts to AutoSys's web services (AEWS), one POST per event. `confirm=True` reads the status back.
///
/// The server's certificate is always verified. Redirects are not followed, and no event is sent twice: the outcome of an
/// event that can have arrived without an answer is unknown.
///
/// Args:
///     base_url: `https://host:9443`, with a path where the services are not below `/AEWS`. `http` is accepted only for
///         this machine.
///     user: For Basic authentication, together with `password`.
///     password: Its password.
///     token: A bearer token, instead of the two.
///     prefix: Where events are posted, below `base_url`: `"event"` in older releases, `"api/event"` in those with a Swagger
///         page. With a leading `/` it counts from the host.
///     events: Names other than `{"CHANGE_STATUS": "change-status-job", "STARTJOB": "start-job", "FORCE_STARTJOB":
///         "force-start-job"}`, for one of them or several.
///     comment: The comment of each event; `{file_name}` becomes the row's file name. Cut at 255 characters.
///     ca_file: A PEM file with authorities that are trusted in addition to the system's.
///     timeout: Time for an answer: seconds, text such as `"30s"`, or a timedelta. Connecting before that can take as long,
///         ten seconds at most.
///     status_path: Where the status of a job is read, like `prefix`; None: it is not read.
///     accepted: The HTTP statuses that prove that an event was stored. Another success, such as 200 with a page of a
///         proxy, is unknown.
///     allow_http: Whether credentials and events may cross a network unencrypted.
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
    /// The transport that sends events by `mapping`.
    pub(super) fn core(&self, mapping: Mapping) -> Result<Arc<dyn Transport>> {
        Ok(Arc::new(WebServices::new(WebServicesOptions { mapping, ..self.options.clone() })?))
    }
}

#[pymethods]
impl PyWebServices {
    #[new]
    #[pyo3(signature = (base_url, *, user = None, password = None, token = None, prefix = "event", events = None,
                        comment = None, ca_file = None, timeout = 30.0, status_path = Some(Text("job-run-info/{job}".to_owned())),
                        accepted = None, allow_http = false),
           text_signature = "(base_url, *, user=None, password=None, token=None, prefix='event', events=None, comment=None, \
                             ca_file=None, timeout=30.0, status_path='job-run-info/{job}', accepted=None, allow_http=False)")]
    fn new(
        #[pyo3(from_py_with = arguments::text)] base_url: &str,
        user: Option<Secret>,
        password: Option<Secret>,
        token: Option<Secret>,
        #[pyo3(from_py_with = arguments::text)] prefix: &str,
        events: Option<TextPairs>,
        comment: Option<Text>,
        ca_file: Option<Location>,
        #[pyo3(from_py_with = arguments::seconds)] timeout: f64,
        status_path: Option<Text>,
        accepted: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::flag)] allow_http: bool,
    ) -> PyOutcome<Self> {
        let credentials = match (user, password, token) {
            (None, None, None) => WebCredentials::None,
            (Some(user), Some(password), None) => WebCredentials::Basic { user: user.0, password: password.0.into() },
            (None, None, Some(token)) => WebCredentials::Bearer { token: token.0.into() },
            _ => return refuse("give user and password, or token, or none of them"),
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
            status_path: status_path.map(|path| path.0),
            comment: comment.map(|comment| comment.0),
            ca_file: ca_file.map(|file| PathBuf::from(file.0)),
            timeout: Duration::from_secs_f64(timeout),
            accepted,
            allow_http,
            ..WebServicesOptions::new(base_url)
        };
        // Refuses bad options here, and not at the first delivery.
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

fn event_names(given: Option<TextPairs>) -> Result<EventNames> {
    let mut names = EventNames::default();
    for (event, name) in given.map(|given| given.0).unwrap_or_default() {
        let known = match event.as_str() {
            "CHANGE_STATUS" => &mut names.change_status,
            "STARTJOB" => &mut names.start,
            "FORCE_STARTJOB" => &mut names.force_start,
            other => {
                return Err(Error::invalid(format!(
                    "events has the unknown event {other:?}: known are CHANGE_STATUS, STARTJOB and FORCE_STARTJOB"
                )));
            }
        };
        *known = name;
    }
    Ok(names)
}

/// A transport that sends nothing and answers that AutoSys took everything.
///
/// It shows how a ledger, its store and the updater's settings perform. Rows are acknowledged as if AutoSys had taken them:
/// use it on a copy of a ledger.
///
/// Args:
///     answer_after: Time until each answer: seconds, text such as `"5ms"`, or a timedelta.
///
/// Example:
///     >>> from jobrota.autosys import Rehearsal
///     >>> Rehearsal(answer_after=0.005)
///     Rehearsal(answer_after=0.005)
#[pyclass(module = "jobrota", name = "Rehearsal", frozen)]
pub(super) struct PyRehearsal {
    pub(super) transport: Rehearsal,
    answer_after: Duration,
}

#[pymethods]
impl PyRehearsal {
    #[new]
    #[pyo3(signature = (*, answer_after = Duration::ZERO), text_signature = "(*, answer_after=0)")]
    fn new(#[pyo3(from_py_with = arguments::duration)] answer_after: Duration) -> Self {
        Self { transport: Rehearsal::new(answer_after), answer_after }
    }

    fn __repr__(&self) -> String {
        format!("Rehearsal(answer_after={})", self.answer_after.as_secs_f64())
    }
}
