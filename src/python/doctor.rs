//! `_native.doctor`: the checks of this machine, as plain values for `jobrota.checkup`.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert::arguments::{self, Location, Names};
use super::errors::PyOutcome;
use super::inventory::inventory as any_inventory;
use super::ledger::PyJobLedger;
use super::storage_options::StorageOptions;
use super::wait::CallMode;
use crate::doctor::{Check, DoctorOptions, examine};
use crate::storage;

/// The root of a ledger, from its location or from the ledger itself, which has storage options as well.
fn root(value: &Bound<'_, PyAny>) -> PyOutcome<(String, Option<storage::StorageOptions>)> {
    if let Ok(ledger) = value.cast::<PyJobLedger>() {
        let ledger = ledger.get().core()?;
        return Ok((ledger.root().to_owned(), Some(ledger.storage().options().clone())));
    }
    Ok((arguments::named(value.py(), "ledger", arguments::location(value))?, None))
}

/// Runs all checks at once. Returns whether no necessary check failed, and the checks.
#[pyfunction]
#[pyo3(signature = (
    *, ledger = None, storage_options = None, inventory = None, probes = Names(Vec::new()), timeout = 1.0, network = false,
    tokens = None, configured = None, asynchronous = false
))]
pub(super) fn doctor(
    py: Python<'_>,
    ledger: Option<&Bound<'_, PyAny>>,
    storage_options: Option<StorageOptions>,
    inventory: Option<&Bound<'_, PyAny>>,
    probes: Names,
    #[pyo3(from_py_with = arguments::seconds)] timeout: f64,
    #[pyo3(from_py_with = arguments::flag)] network: bool,
    tokens: Option<Location>,
    configured: Option<&Bound<'_, PyDict>>,
    #[pyo3(from_py_with = arguments::flag)] asynchronous: bool,
) -> PyOutcome {
    let platform = py.import("platform")?;
    let version: String = platform.call_method0("python_version")?.extract()?;
    let implementation: String = platform.call_method0("python_implementation")?.extract()?;
    let mut settings = Vec::new();
    let mut own_options = None;
    for (name, value) in configured.into_iter().flatten() {
        let (value, options) = root(&value)?;
        let name: String = name.extract()?;
        own_options = own_options.or(options.filter(|_| ledger.is_none() && name == "ledger"));
        settings.push((name, value));
    }
    let (ledger, of_ledger) = ledger.map(root).transpose()?.unzip();
    let own_options = of_ledger.flatten().or(own_options);
    let options = DoctorOptions {
        ledger,
        storage_options: storage_options.map(|given| given.options).or(own_options).unwrap_or_default(),
        inventory: inventory.map(any_inventory).transpose()?,
        probes: probes.0,
        timeout: Some(Duration::from_secs_f64(timeout)),
        network,
        tokens: tokens.map(|file| file.0),
        configured: settings,
        runtime: Some(format!("{implementation} {version}")),
    };
    let mode = if asynchronous { CallMode::Coroutine(py) } else { CallMode::Wait(py) };
    mode.run(examine(options), |_, report| {
        // A check as a tuple: area, name, status, detail, advice.
        let found = |Check { area, name, status, detail, advice, .. }: &Check| {
            (*area, name.clone(), <&'static str>::from(status), detail.clone(), advice.clone())
        };
        Ok((report.ok(), report.checks.iter().map(found).collect::<Vec<_>>()))
    })
}
