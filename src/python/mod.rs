//! The Python module: argument conversion, GIL release, exceptions. It holds no logic of its own.

use pyo3::prelude::*;

mod arm;
mod attach;
mod azure_credential;
mod comparison_result;
mod convert;
mod credentials;
mod delivery_report;
mod doctor;
mod errors;
mod fork_guard;
mod held;
mod import_report;
mod interrupt;
mod inventory;
mod ledger;
mod ledger_summary;
mod logging;
mod maintenance_report;
mod operator;
mod probe;
mod rehearsal;
mod run_command;
mod runner;
#[cfg(feature = "sandbox")]
mod sandbox;
#[cfg(feature = "sandbox")]
mod sandbox_viya;
mod selection;
mod selector;
mod sendevent;
#[cfg(feature = "ssh")]
mod ssh;
mod tables;
mod track;
mod updater;
mod viya_session;
mod wait;
mod web_services;

use convert::arguments;

/// The seconds of a duration such as `1h30m`.
#[pyfunction]
fn duration_seconds(text: &str) -> errors::PyOutcome<f64> {
    Ok(crate::duration::parse(text)?.as_secs_f64())
}

/// The value of a setting: the environment variable `JOBROTA_<NAME>`, else `name` in `jobrota.toml`, else None.
#[pyfunction]
fn settings_lookup(name: &str) -> errors::PyOutcome<Option<String>> {
    Ok(crate::settings::lookup(name, None)?)
}

/// The server that `given`, the settings, the environment or SAS's own command line name, else None.
#[pyfunction]
#[pyo3(signature = (given = None))]
fn viya_base_url(given: Option<&str>) -> errors::PyOutcome<Option<String>> {
    Ok(crate::viya::server::base_url(given)?)
}

/// The server on which the run of a journal continues: `given`, else the configured one, else that of the journal if it is on
/// this machine.
#[pyfunction]
#[pyo3(signature = (path, given = None))]
fn journal_base_url(path: &str, given: Option<&str>) -> errors::PyOutcome<String> {
    Ok(crate::comparison::journal::base_url(std::path::Path::new(path), given)?)
}

/// `url` without user name, password and query, which must not be shown.
#[pyfunction]
fn shown_url(url: &str) -> String {
    crate::http::address::without_userinfo(url)
}

/// Waits until the work of asynchronous calls is written, for half a minute at most. Called when the interpreter shuts down,
/// because their coroutines are no longer awaited then.
#[pyfunction]
fn drain(py: Python<'_>) -> PyResult<bool> {
    let drained = py.detach(|| crate::runtime::drain(std::time::Duration::from_secs(30)));
    logging::deliver(py)?;
    attach::end(py);
    Ok(drained)
}

/// The native module behind the package `jobrota`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    logging::install();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(duration_seconds, module)?)?;
    module.add_function(wrap_pyfunction!(settings_lookup, module)?)?;
    module.add_function(wrap_pyfunction!(viya_base_url, module)?)?;
    module.add_function(wrap_pyfunction!(journal_base_url, module)?)?;
    module.add_function(wrap_pyfunction!(shown_url, module)?)?;
    module.add_function(wrap_pyfunction!(doctor::doctor, module)?)?;
    let drain = wrap_pyfunction!(drain, module)?;
    module.py().import("atexit")?.call_method1("register", (drain,))?;
    module.add_class::<inventory::PyInventory>()?;
    module.add_class::<selection::PySelection>()?;
    module.add_class::<selector::PyRoundRobinSelector>()?;
    module.add_class::<ledger::PyJobLedger>()?;
    module.add_class::<ledger_summary::PyLedgerSummary>()?;
    module.add_class::<import_report::PyImportReport>()?;
    module.add_class::<maintenance_report::PyMaintenanceReport>()?;
    module.add_class::<track::PyTrack>()?;
    module.add_class::<rehearsal::PyRehearsal>()?;
    module.add_class::<sendevent::PySendEvent>()?;
    module.add_class::<web_services::PyWebServices>()?;
    module.add_class::<run_command::PyRunCommand>()?;
    #[cfg(feature = "ssh")]
    module.add_class::<ssh::PySsh>()?;
    module.add_class::<updater::PyAutosysUpdater>()?;
    module.add_class::<delivery_report::PyDeliveryReport>()?;
    module.add_function(wrap_pyfunction!(comparison_result::comparison_history, module)?)?;
    module.add_function(wrap_pyfunction!(comparison_result::comparison_history_async, module)?)?;
    module.add_class::<arm::PyArm>()?;
    module.add_class::<credentials::PyCredentials>()?;
    module.add_class::<viya_session::PyViyaSession>()?;
    module.add_class::<viya_session::PyCodeLogin>()?;
    module.add_class::<runner::PyViyaComparisonRunner>()?;
    module.add_class::<comparison_result::PyComparisonResult>()?;
    module.add_class::<comparison_result::PyComparisonWarning>()?;
    #[cfg(feature = "sandbox")]
    {
        module.add_class::<sandbox::PySandbox>()?;
        module.add_function(wrap_pyfunction!(sandbox::sandbox_calibration, module)?)?;
    }
    Ok(())
}
