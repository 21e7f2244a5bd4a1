//! `SendEvent`: the local program as the way to AutoSys.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pyo3::prelude::*;

use super::arguments;
use super::convert;
use super::errors::PyOutcome;
use crate::autosys::{Mapping, SendEvent, SendEventOptions};

/// The local `sendevent` program as the way to AutoSys.
///
/// The program gets an argument vector, never a shell line: no character of a value is interpreted. Its standard input is
/// closed. An AutoSys error message in its output is a failure even with exit code 0.
///
/// Args:
///     program: A path, or a name that is looked up in `PATH`.
///     timeout: Seconds for one call; then the program is killed and the outcome is unknown.
///     env: Variables for the program, such as `AUTOSERV`, beside those of this process.
///     env_file: A shell file that sets up AutoSys's variables, such as `autosys.sh.<host>`: sourced once, and what it exports
///         is given to every call.
///     autostatus: The program that tells a job's status; by default the one beside `program`, if there is one.
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
        #[pyo3(from_py_with = arguments::optional_location)] program: Option<String>,
        #[pyo3(from_py_with = arguments::number)] timeout: f64,
        #[pyo3(from_py_with = arguments::optional_text_map)] env: Option<BTreeMap<String, String>>,
        #[pyo3(from_py_with = arguments::optional_location)] env_file: Option<String>,
        #[pyo3(from_py_with = arguments::optional_location)] autostatus: Option<String>,
        #[pyo3(from_py_with = arguments::optional_text)] comment: Option<String>,
    ) -> PyOutcome<Self> {
        let options = SendEventOptions {
            program: PathBuf::from(program.unwrap_or_else(|| "sendevent".into())),
            environment: env.unwrap_or_default(),
            env_file: env_file.map(PathBuf::from),
            autostatus: autostatus.map(PathBuf::from),
            mapping: Mapping::default(),
            timeout: convert::seconds("timeout", timeout)?,
            comment,
        };
        // Made once here only to refuse bad options where they are given, not at the first delivery.
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
