//! `DeliveryReport`: what one delivery cycle did.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;
use crate::autosys::DeliveryReport;
use crate::ledger::LedgerRow;

/// What one delivery cycle did.
#[pyclass(module = "jobrota", name = "DeliveryReport", frozen)]
pub(super) struct PyDeliveryReport {
    report: DeliveryReport,
}

impl From<DeliveryReport> for PyDeliveryReport {
    fn from(report: DeliveryReport) -> Self {
        Self { report }
    }
}

/// A row of either table as a dict.
fn row_dict<'py>(py: Python<'py>, row: &LedgerRow) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("file_name", &row.file_name)?;
    dict.set_item("job_id", &row.job_id)?;
    dict.set_item("status", &row.status)?;
    dict.set_item("timestamp", row.timestamp.and_then(chrono::DateTime::from_timestamp_micros))?;
    Ok(dict)
}

#[pymethods]
impl PyDeliveryReport {
    /// Rows that AutoSys took and that were acknowledged.
    #[getter]
    fn delivered(&self) -> u64 {
        self.report.delivered
    }

    /// Rows that were refused; the next cycle tries them again.
    #[getter]
    fn failed(&self) -> u64 {
        self.report.failed
    }

    /// Rows acknowledged without being sent, because a later one of their job was pending.
    #[getter]
    fn superseded(&self) -> u64 {
        self.report.superseded
    }

    /// Rows given up: still `NO`, and skipped.
    #[getter]
    fn parked(&self) -> u64 {
        self.report.parked
    }

    /// Rows acknowledged without being sent, because they came too late.
    #[getter]
    fn expired(&self) -> u64 {
        self.report.expired
    }

    /// Rows sent without an answer that says whether they arrived.
    #[getter]
    fn unknown(&self) -> u64 {
        self.report.unknown
    }

    /// Rows that an earlier cycle delivered before it broke off; acknowledged now, not sent again.
    #[getter]
    fn recovered(&self) -> u64 {
        self.report.recovered
    }

    /// Executions that were settled together with the delivered notifications.
    #[getter]
    fn settled(&self) -> u64 {
        self.report.settled
    }

    /// Rows of the source table that are still `NO`.
    #[getter]
    fn pending(&self) -> u64 {
        self.report.pending
    }

    /// Rows that were not tried, because their next try is not due yet or they wait behind such a row.
    #[getter]
    fn waiting(&self) -> u64 {
        self.report.waiting
    }

    /// Rows that were not tried, because jobs that go first are not delivered.
    #[getter]
    fn held_back(&self) -> u64 {
        self.report.held_back
    }

    /// Rows that were to be sent, but for which nothing was sent in the end; it counts as no attempt.
    #[getter]
    fn not_tried(&self) -> u64 {
        self.report.not_tried
    }

    /// When the first of the waiting rows is due.
    #[getter]
    fn next_try(&self) -> Option<chrono::DateTime<chrono::Utc>> {
        self.report.next_try
    }

    /// Until when nothing is sent, if a snooze window is open.
    #[getter]
    fn snoozed_until(&self) -> Option<chrono::DateTime<chrono::Utc>> {
        self.report.snoozed_until
    }

    /// Whether the cycle was stopped before it was through.
    #[getter]
    fn stopped(&self) -> bool {
        self.report.stopped
    }

    /// Who delivers from this table right now, if that kept this cycle from sending or made it stop.
    #[getter]
    fn lease_held_by(&self) -> Option<&str> {
        self.report.lease_held_by.as_deref()
    }

    /// The rows that were not delivered: dicts of file_name, job_id, status, timestamp, attempt, outcome and detail.
    #[getter]
    fn failures<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.report
            .failures
            .iter()
            .map(|failure| {
                let dict = row_dict(py, &failure.row)?;
                dict.set_item("attempt", failure.attempt)?;
                dict.set_item("outcome", failure.outcome)?;
                dict.set_item("detail", &failure.detail)?;
                Ok(dict)
            })
            .collect()
    }

    /// What a dry run would have sent: dicts of file_name, job_id, status, timestamp and action.
    #[getter]
    fn planned<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.report
            .planned
            .iter()
            .map(|planned| {
                let dict = row_dict(py, &planned.row)?;
                dict.set_item("action", &planned.action)?;
                Ok(dict)
            })
            .collect()
    }

    /// Everything as one dict.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("delivered", self.report.delivered)?;
        dict.set_item("failed", self.report.failed)?;
        dict.set_item("superseded", self.report.superseded)?;
        dict.set_item("parked", self.report.parked)?;
        dict.set_item("expired", self.report.expired)?;
        dict.set_item("unknown", self.report.unknown)?;
        dict.set_item("recovered", self.report.recovered)?;
        dict.set_item("settled", self.report.settled)?;
        dict.set_item("pending", self.report.pending)?;
        dict.set_item("waiting", self.report.waiting)?;
        dict.set_item("held_back", self.report.held_back)?;
        dict.set_item("not_tried", self.report.not_tried)?;
        dict.set_item("next_try", self.report.next_try)?;
        dict.set_item("snoozed_until", self.report.snoozed_until)?;
        dict.set_item("stopped", self.report.stopped)?;
        dict.set_item("lease_held_by", self.lease_held_by())?;
        dict.set_item("dry_run", self.report.dry_run)?;
        dict.set_item("failures", self.failures(py)?)?;
        dict.set_item("planned", self.planned(py)?)?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        let report = &self.report;
        format!(
            "DeliveryReport(delivered={}, failed={}, superseded={}, parked={}, expired={}, unknown={}, settled={}, pending={})",
            report.delivered,
            report.failed,
            report.superseded,
            report.parked,
            report.expired,
            report.unknown,
            report.settled,
            report.pending
        )
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        convert::repr_html(py, "delivery_report", self.to_dict(py)?)
    }
}
