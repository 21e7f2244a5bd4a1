//! `ComparisonResult` and its warnings.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;

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
    pub(super) fn durations(&self) -> comparison::durations::Durations {
        comparison::durations::of_result(self.result.to_value())
    }
}

#[pymethods]
impl PyComparisonResult {
    /// The result JSON.
    #[getter]
    fn path(&self) -> PathBuf {
        self.result.path.clone()
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
        convert::json(py, self.result.to_value())
    }

    /// One row per job and arm, with the columns of the recorded run.
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

    fn __repr__(&self) -> String {
        format!("ComparisonResult({:?}, failed_jobs={})", self.result.path, self.result.failed_jobs())
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        convert::repr_html(py, "comparison_result", convert::json(py, self.result.to_value())?)
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
