//! `Track`: the context manager behind `JobLedger.track`.

use pyo3::prelude::*;

use super::errors::PyOutcome;
use super::wait::{self, Born};
use crate::ledger::JobLedger;

/// Logs an execution and a notification when its body ends; made by `JobLedger.track`.
#[pyclass(module = "jobrota", name = "Track", frozen)]
pub(super) struct PyTrack {
    ledger: JobLedger,
    born: Born,
    file_name: String,
    job_id: String,
}

impl PyTrack {
    pub(super) fn new(ledger: JobLedger, born: Born, file_name: String, job_id: String) -> Self {
        Self { ledger, born, file_name, job_id }
    }
}

#[pymethods]
impl PyTrack {
    /// The file that is processed.
    #[getter]
    fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The AutoSys job.
    #[getter]
    fn job_id(&self) -> &str {
        &self.job_id
    }

    fn __repr__(&self) -> String {
        format!("Track({:?}, {:?})", self.file_name, self.job_id)
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: Option<&Bound<'_, PyAny>>,
        exc_value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<bool> {
        let _ = (exc_value, traceback);
        self.born.check("tracked job")?;
        let status = if exc_type.is_none() { "SUCCESS" } else { "FAILURE" };
        wait::blocking(py, || {
            self.ledger.log_job_execution(&self.file_name, &self.job_id, status, None)?;
            self.ledger.log_job_completion(&self.file_name, &self.job_id, status, None)
        })?;
        Ok(false)
    }
}
