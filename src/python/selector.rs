//! `RoundRobinSelector`.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::arguments;
use super::convert;
use super::errors::PyOutcome;
use super::interrupt::{self, Runs};
use super::inventory::{self, PyInventory};
use super::ledger::PyJobLedger;
use super::probe;
use super::selection::PySelection;
use super::selector_tables as tables;
use super::wait::{self, Born};
use crate::error::Result;
use crate::selection::{self, CursorKind, SelectorOptions, default_dir};
use crate::settings;

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
///     health_ttl: Seconds for which the last answer of a VM is gone by in this process, without another probe.
///     rise: Answers in a row that a VM which counts as down needs to be selected again, counted by all who share the
///         cursor.
///     fall: Failures in a row after which a VM counts as down. One that does not answer is never selected, however few
///         its failures are.
///     health_max_age: Seconds after which earlier answers and failures do not count any more.
///     max_in_flight: How many selections of one VM may be in use at the same time, by all who share the cursor. A
///         selection is in use until its `with` block ends, it is released or dropped, or its process has died.
///     hold_ttl: Seconds for which the selections of a process that died still count as in use; a live one reports three
///         times in this time.
///     storage_options: Options for the store behind `cursor`, as `JobLedger` takes them; those of the ledger when
///         `cursor` is one.
///
/// Raises:
///     InvalidInputError: An argument can never work: an empty inventory, a VM named twice, an unknown probe.
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
///     >>> selector.drain("vm1")
///     >>> [selector.select().vm for _ in range(2)]
///     ['vm2', 'vm2']
///     >>> selector.restore("vm1")
///     >>> limited = RoundRobinSelector(["vm1", "vm2"], cursor="process", probe=answers, max_in_flight=1)
///     >>> with limited.select() as first, limited.select() as second:
///     ...     first.vm, second.vm
///     ('vm1', 'vm2')
#[pyclass(module = "jobrota", name = "RoundRobinSelector", frozen)]
pub(super) struct PyRoundRobinSelector {
    selector: Arc<selection::RoundRobinSelector>,
    inventory: PyInventory,
    cursor: String,
    runs: Arc<Runs>,
    born: Born,
}

impl PyRoundRobinSelector {
    pub(super) fn core(&self) -> Result<Arc<selection::RoundRobinSelector>> {
        self.born.check("RoundRobinSelector")?;
        Ok(Arc::clone(&self.selector))
    }
}

#[pymethods]
impl PyRoundRobinSelector {
    #[new]
    #[pyo3(signature = (inventory, *, cursor = None, probe = None, timeout = 1.0, health_ttl = 0.0, rise = 1, fall = 1,
                        health_max_age = 3600.0, max_in_flight = None, hold_ttl = 60.0, storage_options = None))]
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
        #[pyo3(from_py_with = arguments::number)] health_max_age: f64,
        #[pyo3(from_py_with = arguments::optional_whole)] max_in_flight: Option<u32>,
        #[pyo3(from_py_with = arguments::number)] hold_ttl: f64,
        storage_options: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Self> {
        let inventory = inventory::inventory(inventory)?;
        let timeout = convert::seconds("timeout", timeout)?;
        let runs = Arc::new(Runs::default());
        let probe = probe::probe(probe, &runs)?;
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
            health_ttl: convert::seconds("health_ttl", health_ttl)?,
            rise,
            fall,
            health_max_age: convert::seconds("health_max_age", health_max_age)?,
            max_in_flight,
            hold_ttl: convert::seconds("hold_ttl", hold_ttl)?,
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
    /// With `max_in_flight`, use it as `with selector.select() as selection:`; the VM counts as in use until the block ends.
    ///
    /// Args:
    ///     exclude: Names of VMs that must not be selected this time.
    ///
    /// Returns:
    ///     A `Selection`, which unpacks as `vm, ip_address, nic_name`.
    ///
    /// Raises:
    ///     NoReachableVmError: No VM can be selected; `.failures` has the reason for each: it does not answer, is drained,
    ///         or has as much in flight as it may.
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
    ///     NoReachableVmError: No VM can be selected, or `max_in_flight` leaves room for fewer than `n`; no turn was taken.
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
    /// It counts towards `rise` and `fall`, for everyone who shares the cursor, and is the VM's last answer as long as this
    /// process goes by remembered ones (`health_ttl`).
    ///
    /// Args:
    ///     vm: Name of the VM.
    ///     ok: Whether it worked.
    ///
    /// Raises:
    ///     InvalidInputError: The inventory has no such VM.
    fn report(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::text)] vm: &str,
        #[pyo3(from_py_with = arguments::flag)] ok: bool,
    ) -> PyOutcome<()> {
        let (selector, vm) = (self.core()?, vm.to_owned());
        wait::future(py, async move { selector.report(&vm, ok).await })
    }

    /// Like `report`, as a coroutine.
    fn report_async<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::text)] vm: &str,
        #[pyo3(from_py_with = arguments::flag)] ok: bool,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let (selector, vm) = (self.core()?, vm.to_owned());
        wait::awaitable(py, async move { selector.report(&vm, ok).await }, |_, ()| Ok(()))
    }

    /// Takes a VM out of rotation for everyone who shares the cursor, until it is restored.
    ///
    /// Once this returns, nobody selects it any more; what it is already working on goes on. Draining it twice is as good as
    /// once.
    ///
    /// Args:
    ///     vm: Name of the VM.
    ///
    /// Raises:
    ///     InvalidInputError: The inventory has no such VM.
    fn drain(&self, py: Python<'_>, #[pyo3(from_py_with = arguments::text)] vm: &str) -> PyOutcome<()> {
        let (selector, vm) = (self.core()?, vm.to_owned());
        wait::future(py, async move { selector.drain(&vm).await })
    }

    /// Like `drain`, as a coroutine.
    fn drain_async<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::text)] vm: &str,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let (selector, vm) = (self.core()?, vm.to_owned());
        wait::awaitable(py, async move { selector.drain(&vm).await }, |_, ()| Ok(()))
    }

    /// Puts a drained VM back into rotation, at the place that it had.
    ///
    /// Args:
    ///     vm: Name of the VM.
    ///
    /// Raises:
    ///     InvalidInputError: The inventory has no such VM.
    fn restore(&self, py: Python<'_>, #[pyo3(from_py_with = arguments::text)] vm: &str) -> PyOutcome<()> {
        let (selector, vm) = (self.core()?, vm.to_owned());
        wait::future(py, async move { selector.restore(&vm).await })
    }

    /// Like `restore`, as a coroutine.
    fn restore_async<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::text)] vm: &str,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let (selector, vm) = (self.core()?, vm.to_owned());
        wait::awaitable(py, async move { selector.restore(&vm).await }, |_, ()| Ok(()))
    }

    /// What everyone who shares the cursor knows of the VMs. Nothing is probed.
    ///
    /// Returns:
    ///     An `arro3.core.Table`: vm, weight, drained, healthy (by `rise` and `fall`), in_flight.
    fn state(&self, py: Python<'_>) -> PyOutcome<Py<PyAny>> {
        let selector = self.core()?;
        let rows = wait::future(py, async move { selector.state().await })?;
        convert::table(py, tables::state(&rows)?)
    }

    /// Like `state`, as a coroutine.
    fn state_async<'py>(&self, py: Python<'py>) -> PyOutcome<Bound<'py, PyAny>> {
        let selector = self.core()?;
        wait::awaitable(py, async move { tables::state(&selector.state().await?) }, convert::table)
    }

    /// Probes every VM of the inventory at once. Nobody's turn changes.
    ///
    /// Returns:
    ///     An `arro3.core.Table`: vm, ip_address, nic_name, reachable, probe, rtt_ms, reason.
    fn check(&self, py: Python<'_>) -> PyOutcome<Py<PyAny>> {
        let selector = self.core()?;
        let rows = interrupt::future(py, &self.runs, async move { selector.check().await })?;
        convert::table(py, tables::check(&rows)?)
    }

    /// Like `check`, as a coroutine.
    fn check_async<'py>(&self, py: Python<'py>) -> PyOutcome<Bound<'py, PyAny>> {
        let selector = self.core()?;
        let work = async move { tables::check(&selector.check().await?) };
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
        convert::table(py, tables::distribution(&rows)?)
    }

    /// Like `distribution`, as a coroutine.
    #[pyo3(signature = (since = None))]
    fn distribution_async<'py>(
        &self,
        py: Python<'py>,
        since: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let (selector, since) = (self.core()?, convert::utc("since", since)?);
        let work = async move { tables::distribution(&selector.distribution(since).await?) };
        wait::awaitable(py, work, convert::table)
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
                list.append((row.vm, row.selections, row.share, row.last_selected))?;
            }
        }
        data.set_item("distribution", list)?;
        convert::repr_html(py, "selector", data)
    }
}
