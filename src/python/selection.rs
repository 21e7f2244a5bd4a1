//! `Selection`: one selected VM.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::convert;
use crate::selection::Selection;

/// One selected VM; unpacks as `vm, ip_address, nic_name`.
#[pyclass(module = "jobrota", name = "Selection", frozen)]
pub(super) struct PySelection {
    selection: Selection,
}

impl From<Selection> for PySelection {
    fn from(selection: Selection) -> Self {
        Self { selection }
    }
}

impl PySelection {
    fn triple(&self) -> [&str; 3] {
        let selection = &self.selection;
        [&selection.vm, &selection.ip_address, selection.nic_name.as_deref().unwrap_or_default()]
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
