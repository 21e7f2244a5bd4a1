//! `LedgerSummary`: what a ledger holds, in counts.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;
use crate::ledger::{LedgerSummary, TableSummary};

/// What a ledger holds: counts by table, by flag and of the attempts to deliver.
#[pyclass(module = "jobrota", name = "LedgerSummary", frozen)]
pub(super) struct PyLedgerSummary {
    summary: LedgerSummary,
}

impl From<LedgerSummary> for PyLedgerSummary {
    fn from(summary: LedgerSummary) -> Self {
        Self { summary }
    }
}

fn table_dict<'py>(py: Python<'py>, table: &TableSummary) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("rows", table.rows)?;
    dict.set_item("pending", table.pending)?;
    dict.set_item("acknowledged", table.acknowledged)?;
    dict.set_item("other_flags", table.other_flags)?;
    dict.set_item("pending_by_status", pairs(py, &table.pending_by_status)?)?;
    dict.set_item("oldest_pending", table.oldest_pending.and_then(chrono::DateTime::from_timestamp_micros))?;
    Ok(dict)
}

fn pairs<'py>(py: Python<'py>, counts: &[(String, u64)]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, count) in counts {
        dict.set_item(name, count)?;
    }
    Ok(dict)
}

pub(super) fn summary_dict<'py>(py: Python<'py>, summary: &LedgerSummary) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("root", &summary.root)?;
    dict.set_item("executions", table_dict(py, &summary.executions)?)?;
    dict.set_item("notifications", table_dict(py, &summary.notifications)?)?;
    dict.set_item("attempts", pairs(py, &summary.attempts)?)?;
    Ok(dict)
}

#[pymethods]
impl PyLedgerSummary {
    /// The root of the ledger.
    #[getter]
    fn root(&self) -> &str {
        &self.summary.root
    }

    /// Counts of `autosys_job_log`: rows, pending, acknowledged, other_flags, pending_by_status, oldest_pending.
    #[getter]
    fn executions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        table_dict(py, &self.summary.executions)
    }

    /// Counts of `job_notifications`, as `executions`.
    #[getter]
    fn notifications<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        table_dict(py, &self.summary.notifications)
    }

    /// Attempts to deliver by outcome.
    #[getter]
    fn attempts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        pairs(py, &self.summary.attempts)
    }

    /// Everything as one dict.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        summary_dict(py, &self.summary)
    }

    fn __repr__(&self) -> String {
        let (e, n) = (&self.summary.executions, &self.summary.notifications);
        format!(
            "LedgerSummary(executions={} ({} pending), notifications={} ({} pending))",
            e.rows, e.pending, n.rows, n.pending
        )
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        convert::repr_html(py, "ledger_summary", summary_dict(py, &self.summary)?)
    }
}
