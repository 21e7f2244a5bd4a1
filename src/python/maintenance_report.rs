//! `MaintenanceReport`: the result of the maintenance of a ledger.

use std::ffi::CString;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;
use crate::ledger::{JobLedger, MaintenanceReport, TableMaintenance};

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
    tables: Vec<TableMaintenance>,
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
            tables: report.tables,
        }
    }
}

impl<'py> IntoPyObject<'py> for &TableMaintenance {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        Ok(convert::record(py, self)?.into_bound(py))
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
            shown.set_item("notes", table.done.notes.join("; "))?;
            Ok(shown)
        });
        data.set_item("tables", tables.collect::<PyResult<Vec<_>>>()?)?;
        convert::repr_html(py, "maintenance", data)
    }
}
