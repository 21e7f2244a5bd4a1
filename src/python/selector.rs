//! `RoundRobinSelector`.

use std::sync::Arc;
use std::time::Duration;

use pyo3::PyTraverseError;
use pyo3::exceptions::PyUserWarning;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::callables::{self, Calls};
use super::convert;
use super::convert::arguments::{self, Moment, Names, Text};
use super::errors::{ForkGuard, PyOutcome};
use super::inventory::{self, PyInventory};
use super::ledger::PyJobLedger;
use super::selection::PySelection;
use super::storage_options::StorageOptions;
use super::wait::{self, CallMode};
use crate::error::Result;
use crate::selection::{self, CursorKind, SelectorOptions, default_dir};
use crate::{settings, storage};

/// Where the cursor is kept, and whether it begins at a random VM. If a ledger is given, `options` become its storage options
/// unless they are set.
fn cursor(
    py: Python<'_>,
    value: Option<&Bound<'_, PyAny>>,
    options: &mut Option<storage::StorageOptions>,
) -> PyOutcome<(CursorKind, bool)> {
    if let Some(ledger) = value.and_then(|value| value.cast::<PyJobLedger>().ok()) {
        let ledger = ledger.get().core()?;
        options.get_or_insert_with(|| ledger.storage().options().clone());
        return Ok((CursorKind::Shared(ledger.root().to_owned()), false));
    }
    let text = value.map(|value| arguments::named(py, "cursor", arguments::location(value))).transpose()?;
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
/// is skipped and keeps its position.
///
/// Args:
///     inventory: Names, a dict, a list of dicts, an `Inventory`, or the path of a .json, .yaml or .csv file.
///     cursor: A directory, URI or `JobLedger` (beside its tables): shared by all processes that name it; `"process"`: this process
///         only; `"auto"`: beside the configured ledger, else in the user's state directory.
///     probe: `"icmp"`, `"tcp:22"`, `"http://{ip}:8080/health"`, a callable `(vm) -> (ip_address, nic_name)`, or a list
///         of these, of which one must succeed. `"auto"` is ICMP, and TCP 22 as well where ICMP is forbidden or does
///         not answer within half of `timeout`.
///     timeout: Time for one VM, name resolution included. Times are seconds, text such as `"15m"`, or a timedelta.
///     health_ttl: How long this process uses the last answer of a VM without another probe.
///     rise: Answers in a row after which a VM that counts as down can be selected again, counted by all processes that
///         share the cursor.
///     fall: Failures in a row after which a VM counts as down. A VM that does not answer is never selected, however few
///         failures it has.
///     health_max_age: How long answers and failures count.
///     max_in_flight: How many selections of one VM may be in use at the same time, by all processes that share the cursor. A
///         selection is in use until its `with` block ends, it is released or dropped, or its process has died.
///     hold_ttl: How long the selections of a process that died count as in use. A live process reports three times in this
///         time.
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
    /// Where the cursor is kept: `process`, or the directory or URI of the shared one.
    #[pyo3(get)]
    cursor: String,
    calls: Arc<Calls>,
    guard: ForkGuard,
}

impl PyRoundRobinSelector {
    pub(super) fn core(&self) -> Result<Arc<selection::RoundRobinSelector>> {
        self.guard.check("RoundRobinSelector")?;
        Ok(Arc::clone(&self.selector))
    }

    fn select_in(&self, mode: CallMode<'_>, exclude: Option<Names>) -> PyOutcome {
        let (selector, exclude) = (self.core()?, exclude.map(|names| names.0).unwrap_or_default());
        let work = async move { selector.select(&exclude).await };
        mode.run_interruptible(&self.calls, work, |_, selection| Ok(PySelection::from(selection)))
    }

    fn select_many_in(&self, mode: CallMode<'_>, n: usize) -> PyOutcome {
        let selector = self.core()?;
        mode.run_interruptible(&self.calls, async move { selector.select_many(n).await }, |_, selections| {
            Ok(selections.into_iter().map(PySelection::from).collect::<Vec<_>>())
        })
    }

    fn state_in(&self, mode: CallMode<'_>) -> PyOutcome {
        let selector = self.core()?;
        mode.run(async move { convert::state_table(&selector.state().await?) }, convert::table)
    }

    fn check_in(&self, mode: CallMode<'_>) -> PyOutcome {
        let selector = self.core()?;
        let work = async move { convert::check_table(&selector.check().await?) };
        mode.run_interruptible(&self.calls, work, convert::table)
    }

    fn distribution_in(&self, mode: CallMode<'_>, since: Option<Moment>) -> PyOutcome {
        let (selector, since) = (self.core()?, since.map(|since| since.0));
        let work = async move { convert::distribution_table(&selector.distribution(since).await?) };
        mode.run(work, convert::table)
    }
}

/// A selector as the argument of a transport.
pub(super) fn selector_argument(value: &Bound<'_, PyAny>) -> PyResult<Py<PyRoundRobinSelector>> {
    let wrong = |_| arguments::invalid(format!("must be a RoundRobinSelector, not {}", arguments::type_name(value)));
    value.cast::<PyRoundRobinSelector>().map(|selector| selector.clone().unbind()).map_err(wrong)
}

#[pymethods]
impl PyRoundRobinSelector {
    #[new]
    #[pyo3(signature = (inventory, *, cursor = None, probe = None, timeout = 1.0, health_ttl = 0.0, rise = 1, fall = 1,
                        health_max_age = 3600.0, max_in_flight = None, hold_ttl = 60.0, storage_options = None))]
    fn new(
        py: Python<'_>,
        inventory: &Bound<'_, PyAny>,
        cursor: Option<&Bound<'_, PyAny>>,
        probe: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::seconds)] timeout: f64,
        #[pyo3(from_py_with = arguments::seconds)] health_ttl: f64,
        #[pyo3(from_py_with = arguments::whole)] rise: u32,
        #[pyo3(from_py_with = arguments::whole)] fall: u32,
        #[pyo3(from_py_with = arguments::seconds)] health_max_age: f64,
        #[pyo3(from_py_with = arguments::optional_whole)] max_in_flight: Option<u32>,
        #[pyo3(from_py_with = arguments::seconds)] hold_ttl: f64,
        storage_options: Option<StorageOptions>,
    ) -> PyOutcome<Self> {
        let inventory = inventory::inventory(inventory)?;
        let calls = Arc::<Calls>::default();
        let probe = callables::probe(probe, &calls)?;
        let mut storage_options = storage_options.map(|given| {
            calls.held.extend(given.held);
            given.options
        });
        let (cursor, random_start) = self::cursor(py, cursor, &mut storage_options)?;
        let name = match &cursor {
            CursorKind::Process => "process".to_owned(),
            CursorKind::Shared(root) => root.clone(),
        };
        let options = SelectorOptions {
            cursor,
            probe,
            timeout: Duration::from_secs_f64(timeout),
            health_ttl: Duration::from_secs_f64(health_ttl),
            rise,
            fall,
            health_max_age: Duration::from_secs_f64(health_max_age),
            max_in_flight,
            hold_ttl: Duration::from_secs_f64(hold_ttl),
            random_start,
            storage_options: storage_options.unwrap_or_default(),
        };
        let selector = selection::RoundRobinSelector::new(inventory, options)?;
        Ok(Self { selector: Arc::new(selector), cursor: name, calls, guard: ForkGuard::new() })
    }

    /// The VMs that may be selected.
    #[getter]
    fn inventory(&self) -> PyInventory {
        PyInventory { inventory: self.selector.inventory().clone() }
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
    ///         or has as many selections in use as it may.
    ///     InvalidInputError: `exclude` names every VM, or one that is not in the inventory.
    #[pyo3(signature = (*, exclude = None))]
    fn select(&self, py: Python<'_>, exclude: Option<Names>) -> PyOutcome {
        self.select_in(CallMode::Wait(py), exclude)
    }

    /// Like `select`, as a coroutine.
    #[pyo3(signature = (*, exclude = None))]
    fn select_async(&self, py: Python<'_>, exclude: Option<Names>) -> PyOutcome {
        self.select_in(CallMode::Coroutine(py), exclude)
    }

    /// Makes `n` selections in one commit.
    ///
    /// Args:
    ///     n: How many; if there are fewer VMs, they are selected several times, in turn.
    ///
    /// Returns:
    ///     A list of `n` selections.
    ///
    /// Raises:
    ///     NoReachableVmError: No VM can be selected, or `max_in_flight` leaves room for fewer than `n`; the cursor did not
    ///         move.
    fn select_many(&self, py: Python<'_>, #[pyo3(from_py_with = arguments::whole)] n: usize) -> PyOutcome {
        self.select_many_in(CallMode::Wait(py), n)
    }

    /// Like `select_many`, as a coroutine.
    fn select_many_async(&self, py: Python<'_>, #[pyo3(from_py_with = arguments::whole)] n: usize) -> PyOutcome {
        self.select_many_in(CallMode::Coroutine(py), n)
    }

    /// Counts the caller's experience with a VM as a probe.
    ///
    /// It counts towards `rise` and `fall` in every process that shares the cursor. With `health_ttl`, it is also the last
    /// answer of the VM in this process.
    ///
    /// Args:
    ///     vm: Name of the VM.
    ///     ok: Whether it worked.
    ///
    /// Raises:
    ///     InvalidInputError: The inventory has no such VM.
    fn report(&self, py: Python<'_>, vm: Text, #[pyo3(from_py_with = arguments::flag)] ok: bool) -> PyOutcome {
        let selector = self.core()?;
        CallMode::Wait(py).run(async move { selector.report(&vm.0, ok).await }, |py, ()| Ok(py.None()))
    }

    /// Like `report`, as a coroutine.
    fn report_async(&self, py: Python<'_>, vm: Text, #[pyo3(from_py_with = arguments::flag)] ok: bool) -> PyOutcome {
        let selector = self.core()?;
        CallMode::Coroutine(py).run(async move { selector.report(&vm.0, ok).await }, |py, ()| Ok(py.None()))
    }

    /// Takes a VM out of rotation in every process that shares the cursor, until it is restored.
    ///
    /// Once this returns, no process selects the VM. What it already works on continues. Draining it twice has the effect of
    /// once.
    ///
    /// Args:
    ///     vm: Name of the VM.
    ///
    /// Raises:
    ///     InvalidInputError: The inventory has no such VM.
    fn drain(&self, py: Python<'_>, vm: Text) -> PyOutcome {
        let selector = self.core()?;
        CallMode::Wait(py).run(async move { selector.drain(&vm.0).await }, |py, ()| Ok(py.None()))
    }

    /// Like `drain`, as a coroutine.
    fn drain_async(&self, py: Python<'_>, vm: Text) -> PyOutcome {
        let selector = self.core()?;
        CallMode::Coroutine(py).run(async move { selector.drain(&vm.0).await }, |py, ()| Ok(py.None()))
    }

    /// Puts a drained VM back into rotation, at its former position.
    ///
    /// Args:
    ///     vm: Name of the VM.
    ///
    /// Raises:
    ///     InvalidInputError: The inventory has no such VM.
    fn restore(&self, py: Python<'_>, vm: Text) -> PyOutcome {
        let selector = self.core()?;
        CallMode::Wait(py).run(async move { selector.restore(&vm.0).await }, |py, ()| Ok(py.None()))
    }

    /// Like `restore`, as a coroutine.
    fn restore_async(&self, py: Python<'_>, vm: Text) -> PyOutcome {
        let selector = self.core()?;
        CallMode::Coroutine(py).run(async move { selector.restore(&vm.0).await }, |py, ()| Ok(py.None()))
    }

    /// The state of the VMs that all processes with this cursor share. Sends no probe.
    ///
    /// Returns:
    ///     A `Table`: vm, weight, drained, healthy (by `rise` and `fall`), in_flight.
    fn state(&self, py: Python<'_>) -> PyOutcome {
        self.state_in(CallMode::Wait(py))
    }

    /// Like `state`, as a coroutine.
    fn state_async(&self, py: Python<'_>) -> PyOutcome {
        self.state_in(CallMode::Coroutine(py))
    }

    /// Probes every VM of the inventory at once. The cursor does not move.
    ///
    /// Returns:
    ///     A `Table`: vm, ip_address, nic_name, reachable, probe, rtt_ms, reason.
    fn check(&self, py: Python<'_>) -> PyOutcome {
        self.check_in(CallMode::Wait(py))
    }

    /// Like `check`, as a coroutine.
    fn check_async(&self, py: Python<'_>) -> PyOutcome {
        self.check_in(CallMode::Coroutine(py))
    }

    /// How often each VM was selected.
    ///
    /// Args:
    ///     since: Only selections at or after this time (with a timezone).
    ///
    /// Returns:
    ///     A `Table`: vm, selections, share, last_selected.
    #[pyo3(signature = (since = None))]
    fn distribution(&self, py: Python<'_>, since: Option<Moment>) -> PyOutcome {
        self.distribution_in(CallMode::Wait(py), since)
    }

    /// Like `distribution`, as a coroutine.
    #[pyo3(signature = (since = None))]
    fn distribution_async(&self, py: Python<'_>, since: Option<Moment>) -> PyOutcome {
        self.distribution_in(CallMode::Coroutine(py), since)
    }

    fn __repr__(&self) -> String {
        format!("RoundRobinSelector({} VMs, cursor='{}')", self.selector.inventory().len(), self.cursor)
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let data = PyDict::new(py);
        data.set_item("cursor", &self.cursor)?;
        data.set_item("vms", self.selector.inventory().len())?;
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

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.calls.held.traverse(&visit, Arc::strong_count(&self.selector) > 1)
    }

    fn __clear__(&self) {
        self.calls.held.clear();
    }
}
