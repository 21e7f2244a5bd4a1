//! `ComparisonResult` and its warnings.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::value::RawValue;

use super::arguments::{self, Location, Moment};
use super::convert::{self, Rows};
use super::errors::PyOutcome;
use super::storage_options::StorageOptions;
use super::wait::{self, CallMode};
use crate::comparison::{self, ComparisonResult, table};

/// The result of a comparison.
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
    pub(super) fn durations(&self) -> crate::error::Result<comparison::job_durations::JobDurations> {
        Ok(comparison::job_durations::of_result(&self.result.to_value()?))
    }

    fn save_in(&self, mode: CallMode<'_>, path: Location) -> PyOutcome {
        let (result, path) = (Arc::clone(&self.result), PathBuf::from(path.0));
        mode.run_blocking(move || result.save(&path).map(|()| path), |_, path| Ok(path))
    }

    fn append_in(&self, mode: CallMode<'_>, root: Location, storage_options: Option<StorageOptions>) -> PyOutcome {
        let options = storage_options.unwrap_or_default().options;
        let result = Arc::clone(&self.result);
        let append = move || comparison::history::append(&result, &root.0, options);
        mode.run_blocking(append, |_, count| Ok(count))
    }
}

fn load_in(mode: CallMode<'_>, path: Location) -> PyOutcome {
    let load = move || ComparisonResult::load(&PathBuf::from(path.0));
    mode.run_blocking(load, |_, result| Ok(PyComparisonResult::from(result)))
}

#[pymethods]
impl PyComparisonResult {
    /// Analyses a run that was recorded elsewhere.
    ///
    /// Args:
    ///     table: Arrow data with a row per job and the columns of `jobs()`. Required are `arm`, `job`, `jes_created_s` and
    ///         `jes_end_s` (seconds since any time). Without `round` there is one round. The values of missing columns are
    ///         unknown, and the warnings say so.
    ///     host_price: The price of an hour of a compute host, for the cost of jobs.
    ///
    /// Returns:
    ///     A `ComparisonResult` without a file: its `path` is None.
    ///
    /// Raises:
    ///     InvalidInputError: The table is not a run.
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
        table: Rows,
        #[pyo3(from_py_with = arguments::optional_number)] host_price: Option<f64>,
    ) -> PyOutcome<Self> {
        Ok(wait::blocking(py, || ComparisonResult::from_table(&table.0, host_price))?.into())
    }

    /// Reads a result file, of this or of the first job execution client, and repeats the analysis.
    ///
    /// Args:
    ///     path: The JSON file.
    ///
    /// Raises:
    ///     NotFoundError: The file does not exist.
    ///     InvalidInputError: The file is not the result of a comparison.
    #[staticmethod]
    fn load(py: Python<'_>, path: Location) -> PyOutcome {
        load_in(CallMode::Wait(py), path)
    }

    /// Like `load`, as a coroutine.
    #[staticmethod]
    fn load_async(py: Python<'_>, path: Location) -> PyOutcome {
        load_in(CallMode::Coroutine(py), path)
    }

    /// The result JSON; None while the result is not written.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.result.path.clone()
    }

    /// Writes the result JSON.
    ///
    /// Args:
    ///     path: The file. An existing file is replaced.
    ///
    /// Returns:
    ///     The path.
    fn save(&self, py: Python<'_>, path: Location) -> PyOutcome {
        self.save_in(CallMode::Wait(py), path)
    }

    /// Like `save`, as a coroutine.
    fn save_async(&self, py: Python<'_>, path: Location) -> PyOutcome {
        self.save_in(CallMode::Coroutine(py), path)
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
    ///     UnsupportedError: XlsxWriter, of the extra `report`, is not installed.
    fn to_excel<'py>(slf: &Bound<'py, Self>, path: Location) -> PyOutcome<Bound<'py, PyAny>> {
        let analysis = convert::record(slf.py(), &slf.get().result.analysis)?;
        Ok(slf.py().import("jobrota.report.workbook")?.call_method1("write", (slf, analysis, path.0))?)
    }

    /// Like `to_excel`, as a coroutine, in a separate thread.
    fn to_excel_async<'py>(slf: &Bound<'py, Self>, path: Location) -> PyOutcome<Bound<'py, PyAny>> {
        Ok(slf.py().import("asyncio")?.call_method1("to_thread", (slf.getattr("to_excel")?, path.0))?)
    }

    /// Appends the jobs of this run to the Delta table `viya_comparison_jobs`, unless the table has the run already.
    ///
    /// Args:
    ///     root: The directory or URI of the table's parent, such as the root of the ledger.
    ///     storage_options: Credentials and other options of the store.
    ///
    /// Returns:
    ///     The number of added rows.
    #[pyo3(signature = (root, storage_options = None))]
    fn append_to(&self, py: Python<'_>, root: Location, storage_options: Option<StorageOptions>) -> PyOutcome {
        self.append_in(CallMode::Wait(py), root, storage_options)
    }

    /// Like `append_to`, as a coroutine.
    #[pyo3(signature = (root, storage_options = None))]
    fn append_to_async(&self, py: Python<'_>, root: Location, storage_options: Option<StorageOptions>) -> PyOutcome {
        self.append_in(CallMode::Coroutine(py), root, storage_options)
    }

    /// Writes the report: one HTML file that works offline.
    ///
    /// Args:
    ///     path: The file. By default it is beside the result JSON.
    ///     title: The title of the page.
    ///     images: A folder for images of the charts.
    ///     formats: The formats of the images: `"png"`, `"svg"`, or both.
    ///
    /// Returns:
    ///     The path.
    ///
    /// Raises:
    ///     ImportError: The packages of the extra `report` are not installed.
    ///     TypeError: A keyword is unknown. The error names those of `jobrota.report.write`.
    #[pyo3(signature = (path = None, **options),
           text_signature = "($self, path=None, *, title=None, images=None, formats=('png', 'svg'))")]
    fn report<'py>(
        slf: &Bound<'py, Self>,
        path: Option<&Bound<'py, PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("jobrota.report")?.getattr("write")?.call((slf, path), options)
    }

    /// Like `report`, as a coroutine, in a separate thread.
    #[pyo3(signature = (path = None, **options),
           text_signature = "($self, path=None, *, title=None, images=None, formats=('png', 'svg'))")]
    fn report_async<'py>(
        slf: &Bound<'py, Self>,
        path: Option<&Bound<'py, PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("asyncio")?.call_method("to_thread", (slf.getattr("report")?, path), options)
    }

    /// Reasons to be careful with the comparison, each with a code and a text.
    #[getter]
    fn warnings(&self) -> Vec<PyComparisonWarning> {
        let warnings = self.result.warnings.iter();
        warnings.map(|warning| PyComparisonWarning { code: warning.code.clone(), text: warning.text.clone() }).collect()
    }

    /// The number of jobs of all arms that did not complete.
    #[getter]
    fn failed_jobs(&self) -> usize {
        self.result.failed_jobs()
    }

    /// The content of the result JSON.
    fn to_dict(&self, py: Python<'_>) -> PyOutcome {
        convert::record(py, &self.result.parsed::<Box<RawValue>>()?)
    }

    /// One row per job, arm and round, with the columns of a recorded run and more.
    fn jobs(&self, py: Python<'_>) -> PyOutcome {
        convert::table(py, table::jobs(&self.result.run)?)
    }

    /// One row per arm and host.
    fn hosts(&self, py: Python<'_>) -> PyOutcome {
        convert::table(py, table::hosts(&self.result.analysis)?)
    }

    /// One row per arm.
    fn arms(&self, py: Python<'_>) -> PyOutcome {
        convert::table(py, table::arms(&self.result.run, &self.result.analysis)?)
    }

    /// One row per arm and phase, with statistics of its seconds.
    fn phases(&self, py: Python<'_>) -> PyOutcome {
        convert::table(py, table::phases(&self.result.analysis)?)
    }

    fn __repr__(&self) -> String {
        let path = self.result.path.as_ref().map_or_else(|| "not written".to_owned(), |path| format!("{path:?}"));
        format!("ComparisonResult({path}, failed_jobs={})", self.result.failed_jobs())
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyOutcome<String> {
        // The file can be gone when a notebook is shown again.
        let document = match self.result.parsed::<Box<RawValue>>() {
            Ok(document) => convert::record(py, &document)?,
            Err(_) => convert::record(py, &self.result.summary()?)?,
        };
        Ok(convert::repr_html(py, "comparison_result", document)?)
    }
}

/// A reason to be careful with a comparison.
#[pyclass(module = "jobrota", name = "ComparisonWarning", frozen, get_all)]
pub(super) struct PyComparisonWarning {
    /// A short name for programs, such as `parallelism_confounded`.
    code: String,
    /// The meaning for this run.
    text: String,
}

#[pymethods]
impl PyComparisonWarning {
    fn __repr__(&self) -> String {
        format!("ComparisonWarning(code='{}', text={:?})", self.code, self.text)
    }
}

/// Reads the runs that `ComparisonResult.append_to` stored: one row per run and arm, oldest first.
///
/// Args:
///     root: The directory or URI of the table's parent.
///     since: Only runs from this time on.
///     storage_options: Credentials and other options of the store.
///
/// Raises:
///     NotFoundError: The table does not exist.
#[pyfunction]
#[pyo3(signature = (root, *, since = None, storage_options = None))]
pub(super) fn comparison_history(
    py: Python<'_>,
    root: Location,
    since: Option<Moment>,
    storage_options: Option<StorageOptions>,
) -> PyOutcome {
    history_in(CallMode::Wait(py), root, since, storage_options)
}

/// Like `comparison_history`, as a coroutine.
#[pyfunction]
#[pyo3(signature = (root, *, since = None, storage_options = None))]
pub(super) fn comparison_history_async(
    py: Python<'_>,
    root: Location,
    since: Option<Moment>,
    storage_options: Option<StorageOptions>,
) -> PyOutcome {
    history_in(CallMode::Coroutine(py), root, since, storage_options)
}

fn history_in(
    mode: CallMode<'_>,
    root: Location,
    since: Option<Moment>,
    storage_options: Option<StorageOptions>,
) -> PyOutcome {
    let options = storage_options.unwrap_or_default().options;
    let read = move || comparison::history::read(&root.0, options, since.map(|since| since.0));
    mode.run_blocking(read, convert::table)
}
