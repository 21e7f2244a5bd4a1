//! `RoundRobinSelector`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use super::arguments;
use super::convert;
use super::errors::PyOutcome;
use super::interrupt::{self, Runs};
use super::inventory::{self, PyInventory};
use super::ledger::PyJobLedger;
use super::selection::PySelection;
use super::wait::{self, Born};
use crate::error::{Error, ErrorKind, Result};
use crate::inventory::Vm;
use crate::selection::{
    self, CheckRow, CursorKind, DistributionRow, Probe, ProbeCallback, SelectorOptions, default_dir,
};
use crate::settings;

/// A Python function `(vm) -> (ip_address, nic_name)` as a probe.
struct PythonProbe {
    function: Py<PyAny>,
    runs: Arc<Runs>,
}

impl ProbeCallback for PythonProbe {
    fn probe(&self, vm: &Vm) -> Result<Option<(String, Option<String>)>, String> {
        Python::attach(|py| {
            let answer = self.function.bind(py).call1((&vm.name,)).map_err(|error| {
                self.runs.interrupted_by(py, &error);
                error.to_string()
            })?;
            let (ip_address, nic_name): (Option<String>, Option<String>) = answer.extract().map_err(|_| {
                format!("the probe callable must return (ip_address, nic_name) or (None, None), not {answer}")
            })?;
            Ok(ip_address.map(|ip_address| (ip_address, nic_name)))
        })
    }
}

fn probe(value: Option<&Bound<'_, PyAny>>, runs: &Arc<Runs>) -> PyOutcome<Probe> {
    let Some(value) = value else { return Ok(Probe::Auto) };
    if let Ok(text) = value.extract::<String>() {
        return Ok(text.parse()?);
    }
    if value.is_callable() {
        let function = value.clone().unbind();
        return Ok(Probe::Callback(Arc::new(PythonProbe { function, runs: Arc::clone(runs) })));
    }
    if let (false, Ok(items)) = (value.is_instance_of::<PyString>(), value.try_iter()) {
        let probes = items.map(|item| probe(Some(&item?), runs)).collect::<PyOutcome<Vec<_>>>()?;
        return Ok(Probe::any_of(probes)?);
    }
    Err(Error::invalid(format!(
        "probe must be \"auto\", \"icmp\", \"tcp:PORT\", an http:// address, a callable or a list of these, not {}",
        value.get_type()
    ))
    .into())
}

/// Where the turns are kept, and whether they begin with a VM picked at random; `options` become those of a ledger that is
/// given, unless there are some already.
fn cursor(
    py: Python<'_>,
    value: Option<&Bound<'_, PyAny>>,
    options: &mut Option<HashMap<String, String>>,
) -> PyOutcome<(CursorKind, bool)> {
    if let Some(ledger) = value.and_then(|value| value.cast::<PyJobLedger>().ok()) {
        let ledger = ledger.get().core()?;
        options.get_or_insert_with(|| ledger.storage_options().clone());
        return Ok((CursorKind::Shared(ledger.root().to_owned()), false));
    }
    let text = value.map(|value| arguments::named_location("cursor", value)).transpose()?;
    let text = text.unwrap_or_else(|| "auto".into());
    Ok(match text.as_str() {
        "process" => (CursorKind::Process, false),
        "auto" => {
            let directory = default_dir(settings::lookup("ledger", None)?.as_deref())?;
            if !directory.lasting {
                let text = c"the round-robin cursor is kept on this cluster's local disk and is lost with it, so the \
                             rotation starts at random; give cursor= a directory or URI that lasts, or configure a ledger";
                PyErr::warn(py, &py.get_type::<PyUserWarning>(), text, 2)?;
            }
            (CursorKind::Shared(directory.root), !directory.lasting)
        }
        _ => (CursorKind::Shared(text), false),
    })
}

/// Selects the next reachable VM in round-robin order, fairly across every process that shares the cursor.
///
/// Next is the VM of the inventory that was selected longest ago (inventory order among equals). A VM that does not answer
/// is skipped and keeps its place.
///
/// Args:
///     inventory: Names, a dict, a list of dicts, an `Inventory`, or the path of a .json, .yaml or .csv file.
///     cursor: A directory, URI or `JobLedger` (beside its tables): shared by all who name it; `"process"`: this process
///         only; `"auto"`: beside the configured ledger, else in the user's state directory.
///     probe: `"icmp"`, `"tcp:22"`, `"http://{ip}:8080/health"`, a callable `(vm) -> (ip_address, nic_name)`, or a list
///         of these, of which one must succeed. `"auto"` is ICMP, and TCP 22 as well where ICMP is forbidden or silent
///         for half the time.
///     timeout: Seconds for one VM, name resolution included.
///     health_ttl: Seconds for which a VM that answered is taken to be alive without another probe.
///     rise: Only 1 in this version.
///     fall: Only 1 in this version.
///     max_in_flight: Not in this version.
///     storage_options: Options for the store behind `cursor`, as `JobLedger` takes them; those of the ledger when
///         `cursor` is one.
///
/// Raises:
///     InvalidInputError: An argument can never work: an empty inventory, a VM named twice, an unknown probe.
///     UnsupportedError: Something that this version does not have.
///
/// Example:
///     >>> from jobrota import RoundRobinSelector
///     >>> def answers(vm):
///     ...     return {"vm1": ("10.0.0.4", "nic1"), "vm2": ("10.0.0.5", "nic2")}[vm]
///     >>> selector = RoundRobinSelector(["vm1", "vm2"], cursor="process", probe=answers)
///     >>> [selector.select().vm for _ in range(3)]
///     ['vm1', 'vm2', 'vm1']
///     >>> vm, ip_address, nic_name = selector.select()
///     >>> ip_address
///     '10.0.0.5'
#[pyclass(module = "jobrota", name = "RoundRobinSelector", frozen)]
pub(super) struct PyRoundRobinSelector {
    selector: Arc<selection::RoundRobinSelector>,
    inventory: PyInventory,
    cursor: String,
    runs: Arc<Runs>,
    born: Born,
}

impl PyRoundRobinSelector {
    fn core(&self) -> Result<Arc<selection::RoundRobinSelector>> {
        self.born.check("RoundRobinSelector")?;
        Ok(Arc::clone(&self.selector))
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(|e| Error::new(ErrorKind::Internal, "a table could not be put together").with_source(e))
}

fn check_batch(rows: &[CheckRow]) -> Result<RecordBatch> {
    let text =
        |value: fn(&CheckRow) -> Option<&str>| Arc::new(rows.iter().map(value).collect::<StringArray>()) as ArrayRef;
    batch(vec![
        ("vm", text(|row| Some(&row.vm))),
        ("ip_address", text(|row| row.ip_address.as_deref())),
        ("nic_name", text(|row| row.nic_name.as_deref())),
        ("reachable", Arc::new(rows.iter().map(|row| Some(row.reachable)).collect::<BooleanArray>())),
        ("probe", text(|row| row.probe.as_deref())),
        ("rtt_ms", Arc::new(rows.iter().map(|row| row.rtt_ms).collect::<Float64Array>())),
        ("reason", text(|row| row.reason.as_deref())),
    ])
}

fn distribution_batch(rows: &[DistributionRow]) -> Result<RecordBatch> {
    let count = |row: &DistributionRow| i64::try_from(row.selections).ok();
    let last = |row: &DistributionRow| row.last_selected.map(|at| at.timestamp_micros());
    batch(vec![
        ("vm", Arc::new(rows.iter().map(|row| Some(row.vm.as_str())).collect::<StringArray>())),
        ("selections", Arc::new(rows.iter().map(count).collect::<Int64Array>())),
        ("share", Arc::new(rows.iter().map(|row| Some(row.share)).collect::<Float64Array>())),
        ("last_selected", Arc::new(rows.iter().map(last).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
    ])
}

#[pymethods]
impl PyRoundRobinSelector {
    #[new]
    #[pyo3(signature = (inventory, *, cursor = None, probe = None, timeout = 1.0, health_ttl = 0.0, rise = 1, fall = 1,
                        max_in_flight = None, storage_options = None))]
    #[allow(clippy::too_many_arguments, reason = "one per keyword of the Python class")]
    fn new(
        py: Python<'_>,
        inventory: &Bound<'_, PyAny>,
        cursor: Option<&Bound<'_, PyAny>>,
        probe: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::number)] timeout: f64,
        #[pyo3(from_py_with = arguments::number)] health_ttl: f64,
        #[pyo3(from_py_with = arguments::whole)] rise: u32,
        #[pyo3(from_py_with = arguments::whole)] fall: u32,
        #[pyo3(from_py_with = arguments::optional_whole)] max_in_flight: Option<u32>,
        storage_options: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Self> {
        let later = [("rise", rise != 1), ("fall", fall != 1), ("max_in_flight", max_in_flight.is_some())];
        if let Some((name, _)) = later.iter().find(|(_, given)| *given) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{name} is not in this version of RoundRobinSelector; leave it out"),
            )
            .into());
        }
        let inventory = inventory::inventory(inventory)?;
        let timeout = convert::seconds("timeout", timeout)?;
        let health_ttl = convert::seconds("health_ttl", health_ttl)?;
        let runs = Arc::new(Runs::default());
        let probe = self::probe(probe, &runs)?;
        let mut storage_options = convert::storage_options(storage_options)?;
        let (cursor, random_start) = self::cursor(py, cursor, &mut storage_options)?;
        let name = match &cursor {
            CursorKind::Process => "process".to_owned(),
            CursorKind::Shared(root) => root.clone(),
        };
        let options = SelectorOptions {
            cursor,
            probe,
            timeout,
            health_ttl,
            random_start,
            storage_options: storage_options.unwrap_or_default(),
        };
        let selector = selection::RoundRobinSelector::new(inventory.clone(), options)?;
        Ok(Self {
            selector: Arc::new(selector),
            inventory: PyInventory { inventory },
            cursor: name,
            runs,
            born: Born::here(),
        })
    }

    /// The VMs that may be selected.
    #[getter]
    fn inventory(&self) -> PyInventory {
        self.inventory.clone()
    }

    /// Where the cursor is kept: `process`, or the directory or URI of the shared one.
    #[getter]
    fn cursor(&self) -> &str {
        &self.cursor
    }

    /// Selects the next VM that answers.
    ///
    /// Args:
    ///     exclude: Names of VMs that must not be selected this time.
    ///
    /// Returns:
    ///     A `Selection`, which unpacks as `vm, ip_address, nic_name`.
    ///
    /// Raises:
    ///     NoReachableVmError: No VM answered; `.failures` has the reason for each.
    ///     InvalidInputError: `exclude` names every VM, or one that is not in the inventory.
    #[pyo3(signature = (*, exclude = None))]
    fn select(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::optional_names)] exclude: Option<Vec<String>>,
    ) -> PyOutcome<PySelection> {
        let (selector, exclude) = (self.core()?, exclude.unwrap_or_default());
        Ok(PySelection::from(interrupt::future(py, &self.runs, async move { selector.select(&exclude).await })?))
    }

    /// Like `select`, as a coroutine.
    #[pyo3(signature = (*, exclude = None))]
    fn select_async<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::optional_names)] exclude: Option<Vec<String>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let (selector, exclude) = (self.core()?, exclude.unwrap_or_default());
        let work = async move { selector.select(&exclude).await };
        interrupt::awaitable(py, &self.runs, work, |_, selection| Ok(PySelection::from(selection)))
    }

    /// Takes `n` turns in one commit.
    ///
    /// Args:
    ///     n: How many; more than there are VMs goes round again.
    ///
    /// Returns:
    ///     A list of `n` selections.
    ///
    /// Raises:
    ///     NoReachableVmError: No VM answered; `.failures` has the reason for each.
    fn select_many(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::whole)] n: usize,
    ) -> PyOutcome<Vec<PySelection>> {
        let selector = self.core()?;
        let selections = interrupt::future(py, &self.runs, async move { selector.select_many(n).await })?;
        Ok(selections.into_iter().map(PySelection::from).collect())
    }

    /// Like `select_many`, as a coroutine.
    fn select_many_async<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::whole)] n: usize,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let selector = self.core()?;
        interrupt::awaitable(py, &self.runs, async move { selector.select_many(n).await }, |_, selections| {
            Ok(selections.into_iter().map(PySelection::from).collect::<Vec<_>>())
        })
    }

    /// Counts what the caller experienced with a VM as a probe.
    ///
    /// Args:
    ///     vm: Name of the VM.
    ///     ok: Whether it worked.
    fn report(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::text)] vm: &str,
        #[pyo3(from_py_with = arguments::flag)] ok: bool,
    ) -> PyOutcome<()> {
        let selector = self.core()?;
        wait::blocking(py, || selector.report(vm, ok))
    }

    /// Probes every VM of the inventory at once. Nobody's turn changes.
    ///
    /// Returns:
    ///     An `arro3.core.Table`: vm, ip_address, nic_name, reachable, probe, rtt_ms, reason.
    fn check(&self, py: Python<'_>) -> PyOutcome<Py<PyAny>> {
        let selector = self.core()?;
        let rows = interrupt::future(py, &self.runs, async move { Ok(selector.check().await) })?;
        convert::table(py, check_batch(&rows)?)
    }

    /// Like `check`, as a coroutine.
    fn check_async<'py>(&self, py: Python<'py>) -> PyOutcome<Bound<'py, PyAny>> {
        let selector = self.core()?;
        let work = async move { check_batch(&selector.check().await) };
        interrupt::awaitable(py, &self.runs, work, convert::table)
    }

    /// How often each VM was selected.
    ///
    /// Args:
    ///     since: Only selections at or after this time (with a timezone).
    ///
    /// Returns:
    ///     An `arro3.core.Table`: vm, selections, share, last_selected.
    #[pyo3(signature = (since = None))]
    fn distribution(&self, py: Python<'_>, since: Option<&Bound<'_, PyAny>>) -> PyOutcome<Py<PyAny>> {
        let (selector, since) = (self.core()?, convert::utc("since", since)?);
        let rows = wait::future(py, async move { selector.distribution(since).await })?;
        convert::table(py, distribution_batch(&rows)?)
    }

    fn __repr__(&self) -> String {
        format!("RoundRobinSelector({} VMs, cursor='{}')", self.inventory.inventory.len(), self.cursor)
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let data = PyDict::new(py);
        data.set_item("cursor", &self.cursor)?;
        data.set_item("vms", self.inventory.inventory.len())?;
        let list = PyList::empty(py);
        if let Ok(selector) = self.core()
            && let Ok(rows) = wait::future(py, async move { selector.distribution(None).await })
        {
            for row in rows {
                list.append((row.vm, row.selections, row.share))?;
            }
        }
        data.set_item("distribution", list)?;
        convert::repr_html(py, "selector", data)
    }
}
