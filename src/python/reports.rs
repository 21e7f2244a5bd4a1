//! `ImportReport`, `MaintenanceReport` and `DeliveryReport`: the results of work on a ledger.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict as _, PyDict};

use super::convert::{self, Record};
use crate::delivery::{DeliveryReport, PlannedDelivery, RowFailure};
use crate::ledger::{ImportFailure, ImportReport, JobLedger, LedgerRow, MaintenanceReport, TableMaintenance};

/// Failures that a notebook shows at most. Notebooks store their output, so a folder of broken files must not fill it.
const SHOWN: usize = 50;

/// The result of an import of legacy JSON files.
#[pyclass(module = "jobrota", name = "ImportReport", frozen, get_all)]
pub(super) struct PyImportReport {
    /// The folder, with links in its path resolved.
    folder: PathBuf,
    /// Files that were read.
    files: u64,
    /// Files from which rows were imported.
    imported: u64,
    /// Files with nothing new and nothing wrong in them.
    known: u64,
    /// Files with something wrong in them. Their correct records are imported, so a file can be in `imported` as well.
    bad: u64,
    /// Rows that were written to `job_notifications`.
    rows: u64,
    /// Records that are not rows, with those beyond the limit of `failures`.
    bad_records: u64,
    /// Rows with a local time that occurs twice, because clocks are set back. The first one is used.
    ambiguous_times: u64,
    /// How many entries of the folder were not read, by the reason.
    ignored: BTreeMap<&'static str, u64>,
    /// The failures: dicts of file, line, record (both None when the failure concerns the whole file) and reason; at most 20
    /// of a file.
    failures: Vec<Record<ImportFailure>>,
}

impl From<ImportReport> for PyImportReport {
    fn from(report: ImportReport) -> Self {
        let ImportReport { folder, files, imported, known, bad, rows, bad_records, ambiguous_times, ignored, failures } =
            report;
        let failures = failures.into_iter().map(Record).collect();
        Self { folder, files, imported, known, bad, rows, bad_records, ambiguous_times, ignored, failures }
    }
}

#[pymethods]
impl PyImportReport {
    /// All properties as one dict.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let files = ["folder", "files", "imported", "known", "bad"];
        let dict = convert::properties(
            slf,
            &[&files[..], &["rows", "bad_records", "ambiguous_times", "ignored", "failures"]].concat(),
        )?;
        dict.set_item("folder", slf.get().folder.to_string_lossy())?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        let Self { files, imported, known, bad, rows, .. } = self;
        format!("ImportReport(files={files}, imported={imported}, known={known}, bad={bad}, rows={rows})")
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        let data = Self::to_dict(slf)?;
        let failures = &slf.get().failures;
        data.set_item("failures", &failures[..failures.len().min(SHOWN)])?;
        if failures.len() > SHOWN {
            data.set_item("failures_not_shown", failures.len() - SHOWN)?;
        }
        convert::repr_html(slf.py(), "import_report", data)
    }
}

/// The result of `JobLedger.maintain`, by table and in total.
#[pyclass(module = "jobrota", name = "MaintenanceReport", frozen, get_all)]
pub(super) struct PyMaintenanceReport {
    /// The root of the ledger.
    root: String,
    /// Small files that were replaced by larger ones.
    files_compacted: u64,
    /// Files that were written in their place.
    files_written: u64,
    /// Files deleted that no version within the retention needs.
    files_vacuumed: u64,
    /// Bytes in the files vacuumed.
    bytes_freed: u64,
    /// Files of the tables' logs that were deleted.
    log_entries_removed: u64,
    /// What could not be done, each with its table. The rest was done.
    problems: Vec<String>,
    /// One dict per table: table, version, files_before, files_after, files_compacted, files_written, rows_compacted,
    /// checkpoint (the version), files_vacuumed, bytes_freed, log_entries_removed, notes, problems.
    tables: Vec<Record<TableMaintenance>>,
}

impl From<MaintenanceReport> for PyMaintenanceReport {
    fn from(report: MaintenanceReport) -> Self {
        Self {
            files_compacted: report.total(|table| table.files_compacted),
            files_written: report.total(|table| table.files_written),
            files_vacuumed: report.total(|table| table.files_vacuumed),
            bytes_freed: report.total(|table| table.bytes_freed),
            log_entries_removed: report.total(|table| table.log_entries_removed),
            problems: report.problems(),
            root: report.root,
            tables: report.tables.into_iter().map(Record).collect(),
        }
    }
}

/// Warns, once per ledger and table, when a read shows that maintenance is overdue.
pub(super) fn warn_when_overdue(py: Python<'_>, ledger: &JobLedger) -> PyResult<()> {
    for (table, files) in ledger.overdue() {
        let text = format!(
            "{table} has {files} small files, which makes every call slower than necessary; call maintain() on the ledger \
             regularly"
        );
        let category = py.import("jobrota.errors")?.getattr("MaintenanceWarning")?;
        PyErr::warn(py, &category, &CString::new(text)?, 1)?;
    }
    Ok(())
}

#[pymethods]
impl PyMaintenanceReport {
    /// All properties as one dict.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let totals = ["root", "files_compacted", "files_written", "files_vacuumed", "bytes_freed"];
        convert::properties(slf, &[&totals[..], &["log_entries_removed", "problems", "tables"]].concat())
    }

    fn __repr__(&self) -> String {
        format!(
            "MaintenanceReport(tables={}, files_compacted={}, files_vacuumed={}, log_entries_removed={}, problems={})",
            self.tables.len(),
            self.files_compacted,
            self.files_vacuumed,
            self.log_entries_removed,
            self.problems.len()
        )
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (py, report, data) = (slf.py(), slf.get(), Self::to_dict(slf)?);
        if report.problems.is_empty() {
            data.del_item("problems")?;
        }
        let tables = report.tables.iter().map(|table| {
            let shown = table.into_pyobject(py)?;
            // The list of problems above names the table of each.
            shown.del_item("problems")?;
            shown.set_item("notes", table.0.done.notes.join("; "))?;
            Ok(shown)
        });
        data.set_item("tables", tables.collect::<PyResult<Vec<_>>>()?)?;
        convert::repr_html(py, "maintenance", data)
    }
}

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
    let dict = texts.into_py_dict(py)?;
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
        let Self { delivered, failed, superseded, parked, expired, unknown, settled, pending, waiting, .. } = self;
        // Why rows are pending, if that is not the usual.
        let mut why = if *waiting > 0 { format!(", waiting={waiting}") } else { String::new() };
        for (name, is_so) in [("dry_run", self.dry_run), ("stopped", self.stopped)] {
            why += &if is_so { format!(", {name}=True") } else { String::new() };
        }
        why += &self.lease_held_by.as_ref().map(|owner| format!(", lease_held_by={owner:?}")).unwrap_or_default();
        why += &self.snoozed_until.map(|until| format!(", snoozed_until={until:?}")).unwrap_or_default();
        format!(
            "DeliveryReport(delivered={delivered}, failed={failed}, superseded={superseded}, parked={parked}, \
             expired={expired}, unknown={unknown}, settled={settled}, pending={pending}{why})"
        )
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        convert::repr_html(slf.py(), "delivery_report", Self::to_dict(slf)?)
    }
}
