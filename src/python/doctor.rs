//! `_native.doctor`: what works here, as plain values for `jobrota.checkup`.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors::PyOutcome;
use super::inventory::inventory as any_inventory;
use super::ledger::PyJobLedger;
use super::{arguments, convert, wait};
use crate::doctor::{Check, DoctorOptions, examine};

/// A check as a tuple: area, name, status, detail, advice.
type Found = (&'static str, String, &'static str, String, Option<String>);

fn found(check: &Check) -> Found {
    (check.area, check.name.clone(), check.status.name(), check.detail.clone(), check.advice.clone())
}

/// A ledger's root, from its location or the ledger itself, which has storage options as well.
fn root(value: &Bound<'_, PyAny>) -> PyOutcome<(String, Option<HashMap<String, String>>)> {
    if let Ok(ledger) = value.cast::<PyJobLedger>() {
        let ledger = ledger.get().core()?;
        return Ok((ledger.root().to_owned(), Some(ledger.storage_options().clone())));
    }
    Ok((arguments::named_location("ledger", value)?, None))
}

/// Looks at everything at once; whether nothing failed that is needed, and the checks.
#[pyfunction]
#[pyo3(signature = (
    *, ledger = None, storage_options = None, inventory = None, probes = Vec::new(), timeout = 1.0, network = false,
    tokens = None, configured = None
))]
#[expect(clippy::too_many_arguments, reason = "each is a keyword of its own in Python")]
pub(super) fn doctor(
    py: Python<'_>,
    ledger: Option<&Bound<'_, PyAny>>,
    storage_options: Option<&Bound<'_, PyAny>>,
    inventory: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = arguments::names)] probes: Vec<String>,
    #[pyo3(from_py_with = arguments::number)] timeout: f64,
    #[pyo3(from_py_with = arguments::flag)] network: bool,
    #[pyo3(from_py_with = arguments::optional_location)] tokens: Option<String>,
    configured: Option<&Bound<'_, PyDict>>,
) -> PyOutcome<(bool, Vec<Found>)> {
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
        storage_options: convert::storage_options(storage_options)?.or(own_options).unwrap_or_default(),
        inventory: inventory.map(any_inventory).transpose()?,
        probes,
        timeout: Some(convert::seconds("timeout", timeout)?),
        network,
        tokens,
        configured: settings,
        runtime: Some(format!("{implementation} {version}")),
    };
    let report = wait::future(py, examine(options))?;
    Ok((report.ok(), report.checks().iter().map(found).collect()))
}
