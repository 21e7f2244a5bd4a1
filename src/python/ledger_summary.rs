//! `LedgerSummary`: what a ledger holds and how its deliveries go, in numbers.

use chrono::{DateTime, Utc};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;
use crate::ledger::{AGES, LedgerSummary, TableSummary};

/// What a ledger holds and how its deliveries go: what is pending, for how long, since when, and which share of the recent
/// tries delivered their row.
///
/// The properties of rows speak of the table whose rows are delivered, `source`; `executions` and `notifications` have
/// the same of each table. Shown in a notebook, it is a page for operators; `to_prometheus` is one for Prometheus.
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
    dict.set_item("pending_by_age", ages(py, table)?)?;
    dict.set_item("oldest_pending", oldest(table))?;
    dict.set_item("parked", table.parked)?;
    dict.set_item("retrying", table.retrying)?;
    dict.set_item("next_retry", table.next_retry)?;
    Ok(dict)
}

fn ages<'py>(py: Python<'py>, table: &TableSummary) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (age, count) in AGES.iter().zip(table.pending_by_age) {
        dict.set_item(age, count)?;
    }
    Ok(dict)
}

fn oldest(table: &TableSummary) -> Option<DateTime<Utc>> {
    table.oldest_pending.and_then(DateTime::from_timestamp_micros)
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
    let source = summary.delivered_table();
    dict.set_item("root", &summary.root)?;
    dict.set_item("made_at", summary.made_at)?;
    dict.set_item("source", summary.source.name())?;
    dict.set_item("pending", source.pending)?;
    dict.set_item("pending_by_status", pairs(py, &source.pending_by_status)?)?;
    dict.set_item("pending_by_age", ages(py, source)?)?;
    dict.set_item("oldest_pending", oldest(source))?;
    dict.set_item("parked", source.parked)?;
    dict.set_item("retrying", source.retrying)?;
    dict.set_item("next_retry", source.next_retry)?;
    dict.set_item("unnotified", summary.unnotified)?;
    dict.set_item("since", summary.since)?;
    dict.set_item("attempts", pairs(py, &summary.attempts)?)?;
    dict.set_item("success_rate", summary.success_rate)?;
    dict.set_item("executions", table_dict(py, &summary.executions)?)?;
    dict.set_item("notifications", table_dict(py, &summary.notifications)?)?;
    Ok(dict)
}

#[pymethods]
impl PyLedgerSummary {
    /// The root of the ledger.
    #[getter]
    fn root(&self) -> &str {
        &self.summary.root
    }

    /// When it was made.
    #[getter]
    fn made_at(&self) -> DateTime<Utc> {
        self.summary.made_at
    }

    /// The table whose rows are delivered: `job_notifications`, or `autosys_job_log` while the former does not exist.
    #[getter]
    fn source(&self) -> &'static str {
        self.summary.source.name()
    }

    /// Rows that are to be delivered: their flag is exactly `NO`. Parked ones are among them.
    #[getter]
    fn pending(&self) -> u64 {
        self.summary.delivered_table().pending
    }

    /// Pending rows by status; NULL as the text `NULL`.
    #[getter]
    fn pending_by_status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        pairs(py, &self.summary.delivered_table().pending_by_status)
    }

    /// Pending rows by how long they have been pending: `under_15m`, `15m_to_1h`, `1h_to_24h` and `over_24h`. A row without
    /// a timestamp is as old as can be.
    #[getter]
    fn pending_by_age<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        ages(py, self.summary.delivered_table())
    }

    /// Timestamp of the oldest pending row.
    #[getter]
    fn oldest_pending(&self) -> Option<DateTime<Utc>> {
        oldest(self.summary.delivered_table())
    }

    /// Pending rows that were given up: see `JobLedger.parked`.
    #[getter]
    fn parked(&self) -> u64 {
        self.summary.delivered_table().parked
    }

    /// Pending rows that were tried, were not delivered, and are tried again.
    #[getter]
    fn retrying(&self) -> u64 {
        self.summary.delivered_table().retrying
    }

    /// When the first of these may be tried again; None if that is with the next delivery, or none is to be.
    #[getter]
    fn next_retry(&self) -> Option<DateTime<Utc>> {
        self.summary.delivered_table().next_retry
    }

    /// Executions that are pending for over an hour and have no notification: see
    /// `JobLedger.executions_without_notification`.
    #[getter]
    fn unnotified(&self) -> u64 {
        self.summary.unnotified
    }

    /// The attempts since then are counted.
    #[getter]
    fn since(&self) -> DateTime<Utc> {
        self.summary.since
    }

    /// Recent attempts to deliver by outcome.
    #[getter]
    fn attempts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        pairs(py, &self.summary.attempts)
    }

    /// Which share of the recent tries delivered their row, from 0 to 1: delivered ones among those that ended as delivered,
    /// failed, unknown or parked. None if there was none.
    #[getter]
    fn success_rate(&self) -> Option<f64> {
        self.summary.success_rate
    }

    /// Counts of `autosys_job_log`: rows, pending, acknowledged, other_flags, pending_by_status, pending_by_age,
    /// oldest_pending, parked, retrying and next_retry.
    #[getter]
    fn executions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        table_dict(py, &self.summary.executions)
    }

    /// Counts of `job_notifications`, as `executions`.
    #[getter]
    fn notifications<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        table_dict(py, &self.summary.notifications)
    }

    /// Everything as one dict.
    pub(super) fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        summary_dict(py, &self.summary)
    }

    /// Everything as text that Prometheus takes (text format 0.0.4), such as
    /// `jobrota_pending_rows{table="job_notifications",status="SUCCESS"} 3`. All metrics are gauges.
    fn to_prometheus(&self) -> String {
        self.summary.to_prometheus()
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
