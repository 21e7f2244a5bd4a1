//! `DeliveryReport`: the result of one delivery cycle.

use chrono::{DateTime, Utc};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;
use crate::delivery::{DeliveryReport, PlannedDelivery, RowFailure};
use crate::ledger::LedgerRow;

/// The result of one delivery cycle.
#[pyclass(module = "jobrota", name = "DeliveryReport", frozen, get_all)]
pub(super) struct PyDeliveryReport {
    /// Rows that AutoSys took and that were acknowledged.
    delivered: u64,
    /// Rows that were refused. The next cycle sends them again.
    failed: u64,
    /// Rows acknowledged without being sent, because a later row of their job was pending.
    superseded: u64,
    /// Rows that are parked, in this cycle or in an earlier one. They stay `NO` and are not sent.
    parked: u64,
    /// Rows acknowledged without being sent, because they are older than `stale_after`.
    expired: u64,
    /// Rows sent without an answer that says whether they arrived.
    unknown: u64,
    /// Rows that an earlier cycle delivered before it ended early. They are acknowledged now, and not sent again.
    recovered: u64,
    /// Executions that were settled together with the delivered notifications.
    settled: u64,
    /// Rows of the source table that are still `NO`.
    pending: u64,
    /// Rows that were not tried, because their next try is not due yet or they wait behind such a row.
    waiting: u64,
    /// Rows that were not tried, because jobs that go first are not delivered.
    held_back: u64,
    /// Rows that were about to be sent, but for which nothing was sent. It counts as no attempt.
    not_tried: u64,
    /// When the first of the waiting rows is due.
    next_try: Option<DateTime<Utc>>,
    /// Until when nothing is sent, if a snooze window is open.
    snoozed_until: Option<DateTime<Utc>>,
    /// Whether the cycle was stopped before its end.
    stopped: bool,
    /// The process that delivers from this table now, if it kept this cycle from sending or made it stop.
    lease_held_by: Option<String>,
    /// Whether the cycle was a dry run, which sends nothing.
    dry_run: bool,
    /// The rows that were not delivered: dicts of file_name, job_id, status, timestamp, attempt, outcome and detail.
    failures: Vec<RowFailure>,
    /// The rows that a dry run would have sent: dicts of file_name, job_id, status, timestamp and action.
    planned: Vec<PlannedDelivery>,
}

impl From<DeliveryReport> for PyDeliveryReport {
    fn from(report: DeliveryReport) -> Self {
        Self {
            delivered: report.delivered,
            failed: report.failed,
            superseded: report.superseded,
            parked: report.parked,
            expired: report.expired,
            unknown: report.unknown,
            recovered: report.recovered,
            settled: report.settled,
            pending: report.pending,
            waiting: report.waiting,
            held_back: report.held_back,
            not_tried: report.not_tried,
            next_try: report.next_try,
            snoozed_until: report.snoozed_until,
            stopped: report.stopped,
            lease_held_by: report.lease_held_by,
            dry_run: report.dry_run,
            failures: report.failures,
            planned: report.planned,
        }
    }
}

/// A row of either table as a dict.
fn row_dict<'py>(py: Python<'py>, row: &LedgerRow) -> PyResult<Bound<'py, PyDict>> {
    let texts = [("file_name", &row.file_name), ("job_id", &row.job_id), ("status", &row.status)];
    let dict = convert::dict(py, texts)?;
    dict.set_item("timestamp", row.timestamp.and_then(DateTime::from_timestamp_micros))?;
    Ok(dict)
}

impl<'py> IntoPyObject<'py> for &RowFailure {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let dict = row_dict(py, &self.row)?;
        dict.set_item("attempt", self.attempt)?;
        dict.set_item("outcome", self.outcome.as_str())?;
        dict.set_item("detail", &self.detail)?;
        Ok(dict)
    }
}

impl<'py> IntoPyObject<'py> for &PlannedDelivery {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let dict = row_dict(py, &self.row)?;
        dict.set_item("action", &self.action)?;
        Ok(dict)
    }
}

#[pymethods]
impl PyDeliveryReport {
    /// All properties as one dict.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let counts = ["delivered", "failed", "superseded", "parked", "expired", "unknown", "recovered", "settled"];
        let more = ["pending", "waiting", "held_back", "not_tried", "next_try", "snoozed_until", "stopped"];
        let rest = ["lease_held_by", "dry_run", "failures", "planned"];
        convert::properties(slf, &[&counts[..], &more, &rest].concat())
    }

    fn __repr__(&self) -> String {
        let Self { delivered, failed, superseded, parked, expired, unknown, settled, pending, .. } = self;
        format!(
            "DeliveryReport(delivered={delivered}, failed={failed}, superseded={superseded}, parked={parked}, \
             expired={expired}, unknown={unknown}, settled={settled}, pending={pending})"
        )
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        convert::repr_html(slf.py(), "delivery_report", Self::to_dict(slf)?)
    }
}
