//! `ComparisonResult` and its warnings.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments;
use super::convert;
use super::errors::PyOutcome;
use crate::comparison::{self, ComparisonResult};

/// What a comparison found.
#[pyclass(module = "jobrota", name = "ComparisonResult", frozen)]
pub(super) struct PyComparisonResult {
    result: Arc<ComparisonResult>,
}

impl From<ComparisonResult> for PyComparisonResult {
    fn from(result: ComparisonResult) -> Self {
        Self { result: Arc::new(result) }
    }
}

impl PyComparisonResult {
    /// Seconds that each job occupied a host.
    pub(super) fn durations(&self) -> crate::error::Result<comparison::durations::Durations> {
        Ok(comparison::durations::of_result(&self.result.to_value()?))
    }
}

#[pymethods]
impl PyComparisonResult {
    /// The same analysis of a run that was recorded elsewhere.
    ///
    /// Args:
    ///     table: Anything Arrow with a row per job and the columns that `jobs()` has: `arm`, `job`, `jes_created_s` and
    ///         `jes_end_s` at least (seconds, from any moment on); without `round` there was one round. What is missing is
    ///         not known, and said in the warnings.
    ///     host_price: What an hour of a compute host cost, for the cost of jobs.
    ///
    /// Returns:
    ///     A `ComparisonResult` that is not written yet: its `path` is None.
    ///
    /// Raises:
    ///     InvalidInputError: The table is no run.
    ///
    /// Example:
    ///     >>> from arro3.core import Array, DataType, Table
    ///     >>> from jobrota import ComparisonResult
    ///     >>> text, number = DataType.utf8(), DataType.float64()
    ///     >>> result = ComparisonResult.from_table(Table.from_pydict({
    ///     ...     "arm": Array(["one", "two"], text), "job": Array(["j", "j"], text),
    ///     ...     "jes_created_s": Array([0, 10], number), "jes_end_s": Array([10, 15], number),
    ///     ... }))
    ///     >>> result.to_dict()["analysis"]["verdict"]["code"]
    ///     'too_few_rounds'
    #[staticmethod]
    #[pyo3(signature = (table, *, host_price = None))]
    fn from_table(
        py: Python<'_>,
        table: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = arguments::optional_number)] host_price: Option<f64>,
    ) -> PyOutcome<Self> {
        let batch = convert::batch("table", table)?;
        Ok(super::wait::blocking(py, move || ComparisonResult::from_table(&[batch], host_price))?.into())
    }

    /// Reads a result file, of this or of the first job execution client, and analyses it.
    ///
    /// Args:
    ///     path: The JSON.
    ///
    /// Raises:
    ///     NotFoundError: There is no such file.
    ///     InvalidInputError: It is no result of a comparison.
    #[staticmethod]
    fn load(py: Python<'_>, #[pyo3(from_py_with = arguments::location)] path: String) -> PyOutcome<Self> {
        Ok(super::wait::blocking(py, move || ComparisonResult::load(&PathBuf::from(path)))?.into())
    }

    /// The result JSON; None while the result was not written.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.result.path.clone()
    }

    /// Writes the result JSON.
    ///
    /// Args:
    ///     path: The file; what is there is replaced.
    ///
    /// Returns:
    ///     The path.
    fn save(&self, py: Python<'_>, #[pyo3(from_py_with = arguments::location)] path: String) -> PyOutcome<PathBuf> {
        let (result, path) = (Arc::clone(&self.result), PathBuf::from(path));
        super::wait::blocking(py, move || result.save(&path).map(|()| path))
    }

    /// Writes an Excel workbook: summary, warnings, arms, phases, hosts, jobs and concurrency, with charts.
    ///
    /// Args:
    ///     path: The file. An existing file is replaced.
    ///
    /// Returns:
    ///     The path.
    ///
    /// Raises:
    ///     StorageError: The file cannot be written.
    ///     UnsupportedError: The extra is missing: `pip install 'jobrota[report]'`.
    fn to_excel<'py>(
        slf: &Bound<'py, Self>,
        #[pyo3(from_py_with = arguments::location)] path: String,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let py = slf.py();
        let analysis = convert::json(py, &slf.get().result.analysis_value()?)?;
        Ok(py.import("jobrota.report.workbook")?.getattr("write")?.call1((slf, analysis, path))?)
    }

    /// Appends the jobs of this run to the Delta table `viya_comparison_jobs`, once: a run that is there adds nothing.
    ///
    /// Args:
    ///     root: Directory or URI that holds the table, such as that of the ledger.
    ///     storage_options: Credentials and the like of the store.
    ///
    /// Returns:
    ///     How many rows were added.
    #[pyo3(signature = (root, storage_options = None))]
    fn append_to(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::location)] root: String,
        storage_options: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<usize> {
        let options = convert::storage_options(storage_options)?.unwrap_or_default();
        let result = Arc::clone(&self.result);
        super::wait::blocking(py, move || comparison::history::append(&result, &root, &options))
    }

    /// Writes the report: one HTML file that works offline.
    ///
    /// Args:
    ///     path: The file; beside the result JSON if not given.
    ///     options: As `jobrota.report.write` has them.
    ///
    /// Returns:
    ///     The path.
    ///
    /// Raises:
    ///     ImportError: The extra is missing: `pip install jobrota[report]`.
    #[pyo3(signature = (path = None, **options))]
    fn report<'py>(
        slf: &Bound<'py, Self>,
        path: Option<&Bound<'py, PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("jobrota.report")?.getattr("write")?.call((slf, path), options)
    }

    /// What makes the comparison less than it seems, each with a code and a text.
    #[getter]
    fn warnings(&self) -> Vec<PyComparisonWarning> {
        let warnings = self.result.warnings.iter();
        warnings.map(|warning| PyComparisonWarning { code: warning.code.clone(), text: warning.text.clone() }).collect()
    }

    /// Jobs of all arms that did not complete.
    #[getter]
    fn failed_jobs(&self) -> usize {
        self.result.failed_jobs()
    }

    /// What the result JSON holds.
    fn to_dict(&self, py: Python<'_>) -> PyOutcome<Py<PyAny>> {
        convert::json(py, &self.result.to_value()?)
    }

    /// One row per job, arm and round: the columns of a recorded run, and more after these.
    fn jobs(&self, py: Python<'_>) -> PyOutcome<Py<PyAny>> {
        convert::table(py, self.result.jobs_batch()?)
    }

    /// One row per arm and host.
    fn hosts(&self, py: Python<'_>) -> PyOutcome<Py<PyAny>> {
        convert::table(py, self.result.hosts()?)
    }

    /// One row per arm.
    fn arms(&self, py: Python<'_>) -> PyOutcome<Py<PyAny>> {
        convert::table(py, self.result.arms()?)
    }

    /// One row per arm and phase: how its seconds are spread.
    fn phases(&self, py: Python<'_>) -> PyOutcome<Py<PyAny>> {
        convert::table(py, self.result.phases()?)
    }

    fn __repr__(&self) -> String {
        let place = self.result.path.as_ref().map_or_else(|| "not written".to_owned(), |path| format!("{path:?}"));
        format!("ComparisonResult({place}, failed_jobs={})", self.result.failed_jobs())
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyOutcome<String> {
        // A notebook that is shown again may have outlived the file.
        let document = self.result.to_value().or_else(|_| self.result.summary())?;
        let document = convert::json(py, &document)?;
        Ok(convert::repr_html(py, "comparison_result", document)?)
    }
}

/// Something that makes a comparison less than it seems.
#[pyclass(module = "jobrota", name = "ComparisonWarning", frozen)]
pub(super) struct PyComparisonWarning {
    code: String,
    text: String,
}

#[pymethods]
impl PyComparisonWarning {
    /// A short name for programs, such as `parallelism_confounded`.
    #[getter]
    fn code(&self) -> &str {
        &self.code
    }

    /// What it means, for people.
    #[getter]
    fn text(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        format!("ComparisonWarning(code='{}', text={:?})", self.code, self.text)
    }
}

/// Runs of months beside each other: one row per run and arm that `ComparisonResult.append_to` put there, oldest first.
///
/// Args:
///     root: Directory or URI that holds the table.
///     since: Only runs from then on.
///     storage_options: Credentials and the like of the store.
///
/// Raises:
///     NotFoundError: There is no such table.
#[pyfunction]
#[pyo3(signature = (root, *, since = None, storage_options = None))]
pub(super) fn comparison_history(
    py: Python<'_>,
    #[pyo3(from_py_with = arguments::location)] root: String,
    since: Option<&Bound<'_, PyAny>>,
    storage_options: Option<&Bound<'_, PyAny>>,
) -> PyOutcome<Py<PyAny>> {
    let since = convert::utc("since", since)?;
    let options = convert::storage_options(storage_options)?.unwrap_or_default();
    let batch = super::wait::blocking(py, move || comparison::history::read(&root, &options, since))?;
    convert::table(py, batch)
}
