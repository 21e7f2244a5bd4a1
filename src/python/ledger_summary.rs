//! `LedgerSummary`: what a ledger holds and how its deliveries go, in numbers.

use chrono::{DateTime, Utc};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict as _, PyDict};

use super::convert;
use crate::delivery::{AGES, LedgerSummary, TableSummary};

/// What a ledger holds and how its deliveries go: which rows are pending, for how long, and the success rate of recent
/// attempts.
///
/// The counts of rows are those of the table whose rows are delivered, `source`. `executions` and `notifications` have the
/// same counts for each table. A notebook shows it as a page for operators; `to_prometheus` is one for Prometheus.
#[pyclass(module = "jobrota", name = "LedgerSummary", frozen)]
pub(super) struct PyLedgerSummary(pub(super) LedgerSummary);

/// The properties that the summary of a table has.
fn table_dict<'py>(py: Python<'py>, table: &TableSummary) -> PyResult<Bound<'py, PyDict>> {
    let rows = [("rows", table.rows), ("pending", table.pending), ("acknowledged", table.acknowledged)];
    let dict = rows.into_py_dict(py)?;
    dict.set_item("other_flags", table.other_flags)?;
    dict.set_item("pending_by_status", table.pending_by_status.as_slice().into_py_dict(py)?)?;
    dict.set_item("pending_by_age", AGES.into_iter().zip(table.pending_by_age).into_py_dict(py)?)?;
    dict.set_item("oldest_pending", oldest(table))?;
    dict.set_item("parked", table.parked)?;
    dict.set_item("retrying", table.retrying)?;
    dict.set_item("next_retry", table.next_retry)?;
    Ok(dict)
}

fn oldest(table: &TableSummary) -> Option<DateTime<Utc>> {
    table.oldest_pending.and_then(DateTime::from_timestamp_micros)
}

#[pymethods]
impl PyLedgerSummary {
    /// The root of the ledger.
    #[getter]
    fn root(&self) -> &str {
        &self.0.root
    }

    /// When the summary was made.
    #[getter]
    fn made_at(&self) -> DateTime<Utc> {
        self.0.made_at
    }

    /// The table whose rows are delivered: `job_notifications`, or `autosys_job_log` while the former does not exist.
    #[getter]
    fn source(&self) -> &'static str {
        self.0.source.name()
    }

    /// Rows to deliver: their flag is exactly `NO`. Parked rows are among them.
    #[getter]
    fn pending(&self) -> u64 {
        self.0.delivered_table().pending
    }

    /// Pending rows by status; NULL as the text `NULL`.
    #[getter]
    fn pending_by_status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.0.delivered_table().pending_by_status.as_slice().into_py_dict(py)
    }

    /// Pending rows by how long they have been pending: `under_15m`, `15m_to_1h`, `1h_to_24h` and `over_24h`. Rows without a
    /// timestamp count as the oldest.
    #[getter]
    fn pending_by_age<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        AGES.into_iter().zip(self.0.delivered_table().pending_by_age).into_py_dict(py)
    }

    /// Timestamp of the oldest pending row.
    #[getter]
    fn oldest_pending(&self) -> Option<DateTime<Utc>> {
        oldest(self.0.delivered_table())
    }

    /// Pending rows that were parked: see `JobLedger.parked`.
    #[getter]
    fn parked(&self) -> u64 {
        self.0.delivered_table().parked
    }

    /// Pending rows that were tried, were not delivered, and are tried again.
    #[getter]
    fn retrying(&self) -> u64 {
        self.0.delivered_table().retrying
    }

    /// When the first of these may be tried again. None if that is with the next delivery, or if no row is to be tried again.
    #[getter]
    fn next_retry(&self) -> Option<DateTime<Utc>> {
        self.0.delivered_table().next_retry
    }

    /// Executions that have been pending for over an hour and have no notification: see
    /// `JobLedger.executions_without_notification`.
    #[getter]
    fn unnotified(&self) -> u64 {
        self.0.unnotified
    }

    /// The beginning of the time for which attempts are counted.
    #[getter]
    fn since(&self) -> DateTime<Utc> {
        self.0.since
    }

    /// Recent attempts to deliver, by outcome.
    #[getter]
    fn attempts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.0.attempts.as_slice().into_py_dict(py)
    }

    /// The share of the recent tries that delivered their row, from 0 to 1: the delivered ones among those that ended as
    /// delivered, failed, unknown or parked. None if there was no try.
    #[getter]
    fn success_rate(&self) -> Option<f64> {
        self.0.success_rate
    }

    /// Counts of `autosys_job_log`: rows, pending, acknowledged, other_flags, pending_by_status, pending_by_age,
    /// oldest_pending, parked, retrying and next_retry.
    #[getter]
    fn executions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        table_dict(py, &self.0.executions)
    }

    /// Counts of `job_notifications`, as `executions`.
    #[getter]
    fn notifications<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        table_dict(py, &self.0.notifications)
    }

    /// All properties as one dict.
    pub(super) fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let rows = ["root", "made_at", "source", "pending", "pending_by_status", "pending_by_age", "oldest_pending"];
        let deliveries = ["parked", "retrying", "next_retry", "unnotified", "since", "attempts", "success_rate"];
        convert::properties(slf, &[&rows[..], &deliveries, &["executions", "notifications"]].concat())
    }

    /// All counts in the text format of Prometheus (0.0.4), such as
    /// `jobrota_pending_rows{table="job_notifications",status="SUCCESS"} 3`. All metrics are gauges.
    fn to_prometheus(&self) -> String {
        self.0.to_prometheus()
    }

    fn __repr__(&self) -> String {
        let (e, n) = (&self.0.executions, &self.0.notifications);
        format!(
            "LedgerSummary(executions={} ({} pending), notifications={} ({} pending))",
            e.rows, e.pending, n.rows, n.pending
        )
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        convert::repr_html(slf.py(), "ledger_summary", Self::to_dict(slf)?)
    }
}
