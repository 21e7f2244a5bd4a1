//! The Python module: argument conversion, GIL release, exceptions. It holds no logic of its own.
//!
//! | file | what it does |
//! | --- | --- |
//! | `convert.rs`, `convert/` | converts values between Python and the core |
//! | `errors.rs` | converts errors to the exceptions of `jobrota.errors` |
//! | `wait.rs`, `attach.rs` | waits for the core without the GIL; calls Python from other threads |
//! | `callables.rs` | Python objects that the core calls |
//! | `logging.rs` | passes events of the core to Python's `logging` |
//! | `ledger.rs`, `track.rs`, `operator.rs`, `ledger_summary.rs`, `reports.rs` | `JobLedger`, and what its methods take and return |
//! | `updater.rs`, `transports.rs`, `ssh.rs`, `run_command.rs` | `AutosysUpdater` and the transports |
//! | `inventory.rs`, `selector.rs`, `selection.rs` | `Inventory`, `RoundRobinSelector` and `Selection` |
//! | `runner.rs`, `arm.rs`, `comparison_result.rs` | `ViyaComparisonRunner`, its arms and its result |
//! | `credentials.rs`, `viya_session.rs` | `Credentials` and `ViyaSession` |
//! | `doctor.rs` | the checks of this machine |
//! | `sandbox.rs`, `sandbox_viya.rs` | `Sandbox` and its options |

#![allow(clippy::too_many_arguments, reason = "one per keyword of a Python class or function")]

use std::time::Duration;

use pyo3::prelude::*;

mod arm;
mod attach;
mod callables;
mod comparison_result;
mod convert;
mod credentials;
mod doctor;
mod errors;
mod inventory;
mod ledger;
mod ledger_summary;
mod logging;
mod reports;
mod run_command;
mod runner;
#[cfg(feature = "sandbox")]
mod sandbox;
#[cfg(feature = "sandbox")]
mod sandbox_viya;
mod selection;
mod selector;
#[cfg(feature = "ssh")]
mod ssh;
mod storage_options;
mod track;
mod transports;
mod updater;
mod viya_session;
mod wait;
mod webhook;

use convert::arguments;

/// Waits until the work of asynchronous calls is written, for half a minute at most. Called when the interpreter shuts down,
/// because their coroutines are no longer awaited then.
#[pyfunction]
fn drain(py: Python<'_>) -> PyResult<bool> {
    let drained = py.detach(|| crate::runtime::drain(Duration::from_secs(30)));
    logging::deliver(py)?;
    attach::end(py);
    Ok(drained)
}

/// The native module behind the package `jobrota`.
#[pymodule]
mod _native {
    use std::path::Path;
    use std::time::Duration;

    use pyo3::prelude::*;

    #[cfg(feature = "sandbox")]
    #[pymodule_export]
    use super::sandbox::{PySandbox, sandbox_calibration};
    #[cfg(feature = "ssh")]
    #[pymodule_export]
    use super::ssh::PySsh;
    #[pymodule_export]
    use super::{
        arm::PyArm, comparison_result::PyComparisonResult, comparison_result::PyComparisonWarning,
        comparison_result::comparison_history, comparison_result::comparison_history_async, credentials::PyCredentials,
        doctor::doctor, inventory::PyInventory, ledger::PyJobLedger, ledger_summary::PyLedgerSummary,
        reports::PyDeliveryReport, reports::PyImportReport, reports::PyMaintenanceReport, run_command::PyRunCommand,
        runner::PyViyaComparisonRunner, selection::PySelection, selector::PyRoundRobinSelector, track::PyTrack,
        transports::PyRehearsal, transports::PySendEvent, transports::PyWebServices, updater::PyAutosysUpdater,
        viya_session::PyCodeLogin, viya_session::PyViyaSession, webhook::WebhookPost, webhook::webhook_host,
    };
    use super::{convert::arguments, errors::PyOutcome, logging};

    /// The seconds of a duration: a number of seconds, text such as `1h30m`, or a timedelta.
    #[pyfunction]
    fn duration_seconds(#[pyo3(from_py_with = arguments::duration)] duration: Duration) -> f64 {
        duration.as_secs_f64()
    }

    /// `text` without `secrets`, however they are written.
    #[pyfunction]
    fn scrubbed(text: &str, secrets: Vec<String>) -> String {
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        crate::http::secret::Scrubber::new(&secrets).scrub(text).into_owned()
    }

    /// The value of a setting: the environment variable `JOBROTA_<NAME>`, else `name` in `jobrota.toml`, else None.
    #[pyfunction]
    fn settings_lookup(name: &str) -> PyOutcome<Option<String>> {
        Ok(crate::settings::lookup(name, None)?)
    }

    /// The error for a setting that is needed and not set. `ways` says what is missing, and how to give it.
    #[pyfunction]
    fn setting_missing(py: Python<'_>, name: &str, ways: &str) -> PyErr {
        super::errors::to_py(py, &crate::settings::missing(name, ways))
    }

    /// The server that `given`, the settings, the environment or SAS's own command line name, else None.
    #[pyfunction]
    #[pyo3(signature = (given = None))]
    fn viya_base_url(given: Option<&str>) -> PyOutcome<Option<String>> {
        Ok(crate::viya::server::base_url(given)?)
    }

    /// The server on which the run of a journal continues: `given`, else the configured one, else that of the journal if it is on
    /// this machine.
    #[pyfunction]
    #[pyo3(signature = (path, given = None))]
    fn journal_base_url(path: &str, given: Option<&str>) -> PyOutcome<String> {
        Ok(crate::comparison::journal::base_url(Path::new(path), given)?)
    }

    /// `url` without user name, password and query, which must not be shown.
    #[pyfunction]
    fn shown_url(url: &str) -> String {
        crate::http::address::without_userinfo(url)
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        logging::install();
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        let drain = wrap_pyfunction!(super::drain, module)?;
        module.py().import("atexit")?.call_method1("register", (drain,))?;
        Ok(())
    }
}
