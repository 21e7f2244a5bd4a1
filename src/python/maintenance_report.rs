//! `MaintenanceReport`: what maintenance did to a ledger.

use std::ffi::CString;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;
use crate::delta::Maintained;
use crate::ledger::{JobLedger, MaintenanceReport};

/// What `JobLedger.maintain` did, by table and in total.
#[pyclass(module = "jobrota", name = "MaintenanceReport", frozen)]
pub(super) struct PyMaintenanceReport {
    report: MaintenanceReport,
}

impl From<MaintenanceReport> for PyMaintenanceReport {
    fn from(report: MaintenanceReport) -> Self {
        Self { report }
    }
}

fn table_dict<'py>(py: Python<'py>, name: &str, done: &Maintained) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("table", name)?;
    dict.set_item("version", done.version)?;
    dict.set_item("files_before", done.files_before)?;
    dict.set_item("files_after", done.files_after)?;
    dict.set_item("files_compacted", done.files_compacted)?;
    dict.set_item("files_written", done.files_written)?;
    dict.set_item("rows_compacted", done.rows_compacted)?;
    dict.set_item("checkpoint", done.checkpoint)?;
    dict.set_item("files_vacuumed", done.files_vacuumed)?;
    dict.set_item("bytes_freed", done.bytes_freed)?;
    dict.set_item("log_entries_removed", done.log_entries_removed)?;
    dict.set_item("notes", &done.notes)?;
    dict.set_item("problems", &done.problems)?;
    Ok(dict)
}

/// Warns, once per ledger and table, when what was read shows that maintenance is overdue.
pub(super) fn warn_when_overdue(py: Python<'_>, ledger: &JobLedger) -> PyResult<()> {
    for (table, files) in ledger.overdue() {
        let text = format!(
            "{table} has {files} small files, so that every call takes longer than it has to; call maintain() on the ledger, \
             regularly"
        );
        let category = py.import("jobrota.errors")?.getattr("MaintenanceWarning")?;
        PyErr::warn(py, &category, &CString::new(text)?, 1)?;
    }
    Ok(())
}

#[pymethods]
impl PyMaintenanceReport {
    /// The root of the ledger.
    #[getter]
    fn root(&self) -> &str {
        &self.report.root
    }

    /// One dict per table: table, version, files_before, files_after, files_compacted, files_written, rows_compacted,
    /// checkpoint (the version), files_vacuumed, bytes_freed, log_entries_removed, notes, problems.
    #[getter]
    fn tables<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.report.tables.iter().map(|table| table_dict(py, table.table, &table.done)).collect()
    }

    /// Small files that were replaced by larger ones.
    #[getter]
    fn files_compacted(&self) -> u64 {
        self.report.total(|table| table.files_compacted)
    }

    /// Files that were written in their place.
    #[getter]
    fn files_written(&self) -> u64 {
        self.report.total(|table| table.files_written)
    }

    /// Files deleted that no version within the retention needs.
    #[getter]
    fn files_vacuumed(&self) -> u64 {
        self.report.total(|table| table.files_vacuumed)
    }

    /// Bytes in the files vacuumed.
    #[getter]
    fn bytes_freed(&self) -> u64 {
        self.report.total(|table| table.bytes_freed)
    }

    /// Files of the tables' logs that were deleted.
    #[getter]
    fn log_entries_removed(&self) -> u64 {
        self.report.total(|table| table.log_entries_removed)
    }

    /// What could not be done, each with its table; the rest was done.
    #[getter]
    fn problems(&self) -> Vec<String> {
        self.report.problems()
    }

    /// Everything as one dict: root, the totals, problems and tables.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("root", self.root())?;
        dict.set_item("files_compacted", self.files_compacted())?;
        dict.set_item("files_written", self.files_written())?;
        dict.set_item("files_vacuumed", self.files_vacuumed())?;
        dict.set_item("bytes_freed", self.bytes_freed())?;
        dict.set_item("log_entries_removed", self.log_entries_removed())?;
        dict.set_item("problems", self.problems())?;
        dict.set_item("tables", self.tables(py)?)?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        format!(
            "MaintenanceReport(tables={}, files_compacted={}, files_vacuumed={}, log_entries_removed={}, problems={})",
            self.report.tables.len(),
            self.files_compacted(),
            self.files_vacuumed(),
            self.log_entries_removed(),
            self.problems().len()
        )
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let data = self.to_dict(py)?;
        if self.problems().is_empty() {
            data.del_item("problems")?;
        }
        let tables = self.tables(py)?;
        for table in &tables {
            // Problems are above, each with its table.
            table.del_item("problems")?;
            table.set_item(
                "notes",
                table
                    .get_item("notes")?
                    .map(|notes| notes.extract::<Vec<String>>())
                    .transpose()?
                    .unwrap_or_default()
                    .join("; "),
            )?;
        }
        data.set_item("tables", tables)?;
        convert::repr_html(py, "maintenance", data)
    }
}
