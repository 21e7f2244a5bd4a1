//! `ImportReport`: the result of an import of legacy JSON files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;
use crate::ledger::{ImportFailure, ImportReport};

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
    failures: Vec<ImportFailure>,
}

impl From<ImportReport> for PyImportReport {
    fn from(report: ImportReport) -> Self {
        let ImportReport { folder, files, imported, known, bad, rows, bad_records, ambiguous_times, ignored, failures } =
            report;
        Self { folder, files, imported, known, bad, rows, bad_records, ambiguous_times, ignored, failures }
    }
}

impl<'py> IntoPyObject<'py> for &ImportFailure {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        Ok(convert::record(py, self)?.into_bound(py))
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
