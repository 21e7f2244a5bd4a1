//! The Python face: argument conversion, GIL release, exceptions. No logic.

use pyo3::prelude::*;

mod autosys;
mod comparison;
mod convert;
mod errors;
mod inventory;
mod ledger;
mod sandbox;
mod selector;
mod wait;

/// The value of a setting: the environment variable `JOBROTA_<NAME>`, else `name` in `jobrota.toml`, else None.
#[pyfunction]
fn settings_lookup(name: &str) -> errors::PyOutcome<Option<String>> {
    Ok(crate::settings::lookup(name, None)?)
}

/// The native module behind the package `jobrota`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(settings_lookup, module)?)?;
    module.add_class::<inventory::PyInventory>()?;
    module.add_class::<selector::PySelection>()?;
    module.add_class::<selector::PyRoundRobinSelector>()?;
    module.add_class::<ledger::PyJobLedger>()?;
    module.add_class::<ledger::PyLedgerSummary>()?;
    module.add_class::<ledger::PyTrack>()?;
    module.add_class::<autosys::PySendEvent>()?;
    module.add_class::<autosys::PyAutosysUpdater>()?;
    module.add_class::<autosys::PyDeliveryReport>()?;
    module.add_class::<comparison::PyViyaComparisonRunner>()?;
    module.add_class::<comparison::PyComparisonResult>()?;
    module.add_class::<comparison::PyComparisonWarning>()?;
    module.add_class::<sandbox::PySandbox>()?;
    module.add_function(wrap_pyfunction!(sandbox::sandbox_calibration, module)?)?;
    Ok(())
}
