//! `Selection`: one selected VM.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::convert;
use super::errors::PyOutcome;
use super::wait::{self, Born};
use crate::error::Result;
use crate::selection::{Hold, Selection};

/// One selected VM; unpacks as `vm, ip_address, nic_name`. With `max_in_flight` it is a context manager: the VM counts as
/// in use until the block ends, or the selection is released or dropped.
#[pyclass(module = "jobrota", name = "Selection", frozen)]
pub(super) struct PySelection {
    selection: Selection,
    born: Born,
}

impl From<Selection> for PySelection {
    fn from(selection: Selection) -> Self {
        Self { selection, born: Born::here() }
    }
}

impl PySelection {
    fn triple(&self) -> [&str; 3] {
        let selection = &self.selection;
        [&selection.vm, &selection.ip_address, selection.nic_name.as_deref().unwrap_or_default()]
    }

    fn hold(&self) -> Result<Option<Hold>> {
        if self.selection.hold.is_some() {
            self.born.check("Selection")?;
        }
        Ok(self.selection.hold.clone())
    }

    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let [vm, ip_address, nic_name] = self.triple();
        dict.set_item("vm", vm)?;
        dict.set_item("ip_address", ip_address)?;
        dict.set_item("nic_name", nic_name)?;
        dict.set_item("probe", &self.selection.probe)?;
        dict.set_item("rtt_ms", self.selection.rtt_ms)?;
        dict.set_item("skipped", self.skipped(py)?)?;
        Ok(dict)
    }
}

#[pymethods]
impl PySelection {
    /// Name of the VM.
    #[getter]
    fn vm(&self) -> &str {
        &self.selection.vm
    }

    /// The address that answered.
    #[getter]
    fn ip_address(&self) -> &str {
        &self.selection.ip_address
    }

    /// Name of the Azure NIC resource; empty while no inventory names it.
    #[getter]
    fn nic_name(&self) -> &str {
        self.selection.nic_name.as_deref().unwrap_or_default()
    }

    /// The kind of probe that was answered, such as `tcp:22` or `icmp-dgram`.
    #[getter]
    fn probe(&self) -> &str {
        &self.selection.probe
    }

    /// How long the answer took, in milliseconds.
    #[getter]
    fn rtt_ms(&self) -> f64 {
        self.selection.rtt_ms
    }

    /// VMs that were due earlier but did not answer, each with the reason.
    #[getter]
    fn skipped<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (vm, reason) in &self.selection.skipped {
            dict.set_item(vm, reason)?;
        }
        Ok(dict)
    }

    /// Gives the VM back before its time: with `max_in_flight`, it counts as in use no longer. Without, nothing happens.
    ///
    /// Raises:
    ///     JobrotaError: The shared cursor could not be written to; the VM is given back when `hold_ttl` is over.
    fn release(&self, py: Python<'_>) -> PyOutcome<()> {
        let Some(hold) = self.hold()? else { return Ok(()) };
        wait::future(py, async move { hold.release().await })
    }

    /// Like `release`, as a coroutine.
    fn release_async<'py>(&self, py: Python<'py>) -> PyOutcome<Bound<'py, PyAny>> {
        let hold = self.hold()?;
        let work = async move {
            match hold {
                Some(hold) => hold.release().await,
                None => Ok(()),
            }
        };
        wait::awaitable(py, work, |_, ()| Ok(()))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: Option<&Bound<'_, PyAny>>,
        exc_value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<bool> {
        let _ = (exc_type, exc_value, traceback);
        self.release(py)?;
        Ok(false)
    }

    fn __aenter__<'py>(slf: Py<Self>, py: Python<'py>) -> PyOutcome<Bound<'py, PyAny>> {
        wait::awaitable(py, async move { Ok(()) }, move |_, ()| Ok(slf))
    }

    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        exc_type: Option<&Bound<'_, PyAny>>,
        exc_value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let _ = (exc_type, exc_value, traceback);
        self.release_async(py)
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
        format!(
            "Selection(vm='{vm}', ip_address='{ip_address}', nic_name='{nic_name}', probe='{}')",
            self.selection.probe
        )
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        convert::repr_html(py, "selection", self.to_dict(py)?)
    }
}
