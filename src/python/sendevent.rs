//! `SendEvent`: the transport that runs the local program.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;

use super::convert::arguments::{self, Location, Text, TextPairs};
use super::errors::PyOutcome;
use crate::autosys::{Mapping, SendEvent, SendEventOptions};

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
            mapping: Mapping::default(),
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
