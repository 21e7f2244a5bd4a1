//! `ImportReport`: what an import of legacy JSON files did.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;
use super::errors::PyOutcome;
use crate::ledger::{ImportFailure, ImportOptions, ImportReport};

/// What an import of legacy JSON files did.
#[pyclass(module = "jobrota", name = "ImportReport", frozen)]
pub(super) struct PyImportReport {
    report: ImportReport,
}

impl From<ImportReport> for PyImportReport {
    fn from(report: ImportReport) -> Self {
        Self { report }
    }
}

/// The options of both import calls.
pub(super) fn options(
    fields: Option<&Bound<'_, PyAny>>,
    timezone: Option<&Bound<'_, PyAny>>,
) -> PyOutcome<ImportOptions> {
    // A zoneinfo.ZoneInfo knows its name as `key`.
    let name = timezone.map(|zone| zone.getattr_opt("key")).transpose()?.flatten();
    Ok(ImportOptions {
        fields: convert::text_pairs("fields", fields)?,
        timezone: convert::optional_text("timezone", name.as_ref().or(timezone))?,
        ..ImportOptions::default()
    })
}

fn failure_dict<'py>(py: Python<'py>, failure: &ImportFailure) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("file", &failure.file)?;
    dict.set_item("line", failure.line)?;
    dict.set_item("record", failure.record)?;
    dict.set_item("reason", &failure.reason)?;
    Ok(dict)
}

#[pymethods]
impl PyImportReport {
    /// The folder, with links in its path resolved.
    #[getter]
    fn folder(&self) -> &std::path::Path {
        &self.report.folder
    }

    /// Files that were looked at.
    #[getter]
    fn files(&self) -> u64 {
        self.report.files
    }

    /// Files that rows were taken from.
    #[getter]
    fn imported(&self) -> u64 {
        self.report.imported
    }

    /// Files with nothing new and nothing wrong in them.
    #[getter]
    fn known(&self) -> u64 {
        self.report.known
    }

    /// Files with something wrong in them. What is right in them was taken, so that a file can be in `imported`, too.
    #[getter]
    fn bad(&self) -> u64 {
        self.report.bad
    }

    /// Rows that were written to `job_notifications`.
    #[getter]
    fn rows(&self) -> u64 {
        self.report.rows
    }

    /// Records that are not rows, with those that `failures` has no room for.
    #[getter]
    fn bad_records(&self) -> u64 {
        self.report.bad_records
    }

    /// Rows with a local time that came twice that day, as clocks were put back: the first one was taken.
    #[getter]
    fn ambiguous_times(&self) -> u64 {
        self.report.ambiguous_times
    }

    /// How many entries of the folder were not looked at, by the reason.
    #[getter]
    fn ignored(&self) -> BTreeMap<&'static str, u64> {
        self.report.ignored.clone()
    }

    /// What was wrong: dicts of file, line, record (both None when it is the file as a whole) and reason; at most 20 of a
    /// file.
    #[getter]
    fn failures<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.report.failures.iter().map(|failure| failure_dict(py, failure)).collect()
    }

    /// Everything as one dict.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("folder", self.report.folder.to_string_lossy())?;
        dict.set_item("files", self.report.files)?;
        dict.set_item("imported", self.report.imported)?;
        dict.set_item("known", self.report.known)?;
        dict.set_item("bad", self.report.bad)?;
        dict.set_item("rows", self.report.rows)?;
        dict.set_item("bad_records", self.report.bad_records)?;
        dict.set_item("ambiguous_times", self.report.ambiguous_times)?;
        dict.set_item("ignored", self.ignored())?;
        dict.set_item("failures", self.failures(py)?)?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        let report = &self.report;
        format!(
            "ImportReport(files={}, imported={}, known={}, bad={}, rows={})",
            report.files, report.imported, report.known, report.bad, report.rows
        )
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let data = self.to_dict(py)?;
        // Notebooks keep what they show: a folder of broken files must not bury the rest.
        data.set_item("failures", self.failures(py)?.into_iter().take(50).collect::<Vec<_>>())?;
        let listed = self.report.failures.len();
        if listed > 50 {
            data.set_item("failures_not_shown", listed - 50)?;
        }
        convert::repr_html(py, "import_report", data)
    }
}
