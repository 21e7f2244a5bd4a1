//! `Selection`: one selected VM.

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict as _, PyDict, PyTuple};

use super::convert;
use super::errors::{ForkGuard, PyOutcome};
use super::wait::CallMode;
use crate::selection::{Hold, Selection};

/// One selected VM; unpacks as `vm, ip_address, nic_name`. With `max_in_flight` it is a context manager: the VM counts as
/// in use until the block ends, or until the selection is released or dropped.
#[pyclass(module = "jobrota", name = "Selection", frozen)]
pub(super) struct PySelection {
    /// Name of the VM.
    #[pyo3(get)]
    vm: String,
    /// The address that answered.
    #[pyo3(get)]
    ip_address: String,
    /// Name of the Azure NIC resource; empty if no inventory has it.
    #[pyo3(get)]
    nic_name: String,
    /// The kind of probe that was answered, such as `tcp:22` or `icmp-dgram`.
    #[pyo3(get)]
    probe: String,
    /// The time until the answer, in milliseconds.
    #[pyo3(get)]
    rtt_ms: f64,
    skipped: Vec<(String, String)>,
    hold: Option<Hold>,
    guard: ForkGuard,
}

impl From<Selection> for PySelection {
    fn from(selection: Selection) -> Self {
        let Selection { vm, ip_address, nic_name, probe, rtt_ms, skipped, hold } = selection;
        let (nic_name, guard) = (nic_name.unwrap_or_default(), ForkGuard::new());
        Self { vm, ip_address, nic_name, probe, rtt_ms, skipped, hold, guard }
    }
}

impl PySelection {
    fn triple(&self) -> [&str; 3] {
        [&self.vm, &self.ip_address, &self.nic_name]
    }

    fn release_in(&self, mode: CallMode<'_>) -> PyOutcome {
        let hold = self.hold.clone();
        if hold.is_some() {
            self.guard.check("Selection")?;
        }
        let work = async move {
            match hold {
                Some(hold) => hold.release().await,
                None => Ok(()),
            }
        };
        mode.run(work, |py, ()| Ok(py.None()))
    }
}

#[pymethods]
impl PySelection {
    /// VMs that were due earlier but could not be selected, each with the reason.
    #[getter]
    fn skipped<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.skipped.as_slice().into_py_dict(py)
    }

    /// Ends the use of the VM early: with `max_in_flight`, it no longer counts as in use. Without, this does nothing.
    ///
    /// Raises:
    ///     JobrotaError: The shared cursor could not be written. The VM counts as in use until `hold_ttl` is over.
    fn release(&self, py: Python<'_>) -> PyOutcome {
        self.release_in(CallMode::Wait(py))
    }

    /// Like `release`, as a coroutine.
    fn release_async(&self, py: Python<'_>) -> PyOutcome {
        self.release_in(CallMode::Coroutine(py))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception), text_signature = "($self, exc_type, exc_value, traceback, /)")]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyOutcome<bool> {
        self.release_in(CallMode::Wait(py))?;
        Ok(false)
    }

    fn __aenter__(slf: Py<Self>, py: Python<'_>) -> PyOutcome {
        CallMode::Coroutine(py).run(async { Ok(()) }, move |_, ()| Ok(slf))
    }

    #[pyo3(signature = (*_exception), text_signature = "($self, exc_type, exc_value, traceback, /)")]
    fn __aexit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyOutcome {
        self.release_in(CallMode::Coroutine(py))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyTuple::new(py, self.triple())?.try_iter()?.into_any())
    }

    fn __len__(&self) -> usize {
        3
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: isize) -> PyResult<Bound<'py, PyAny>> {
        PyTuple::new(py, self.triple())?.into_any().get_item(index)
    }

    fn __repr__(&self) -> String {
        let [vm, ip_address, nic_name] = self.triple();
        format!("Selection(vm='{vm}', ip_address='{ip_address}', nic_name='{nic_name}', probe='{}')", self.probe)
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        let names = ["vm", "ip_address", "nic_name", "probe", "rtt_ms", "skipped"];
        convert::repr_html(slf.py(), "selection", convert::properties(slf, &names)?)
    }
}
