//! `Track`: the context manager of `JobLedger.track`.

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::errors::{ForkGuard, PyOutcome};
use super::wait::CallMode;
use crate::ledger::{JobLedger, LedgerTable};

/// Logs an execution and a notification when its body ends. `JobLedger.track` makes it.
#[pyclass(module = "jobrota", name = "Track", frozen)]
pub(super) struct PyTrack {
    pub(super) ledger: JobLedger,
    pub(super) guard: ForkGuard,
    /// The file that is processed.
    #[pyo3(get)]
    pub(super) file_name: String,
    /// The AutoSys job.
    #[pyo3(get)]
    pub(super) job_id: String,
}

/// The status of a body that ended with these arguments of `__exit__`. `sys.exit()` and `sys.exit(0)` end it successfully.
fn status(exception: &Bound<'_, PyTuple>) -> PyResult<&'static str> {
    let raised = exception.get_item(1)?;
    let is_success = if raised.is_instance_of::<PySystemExit>() {
        let code = raised.getattr("code")?;
        code.is_none() || code.eq(0)?
    } else {
        exception.get_item(0)?.is_none()
    };
    Ok(if is_success { "SUCCESS" } else { "FAILURE" })
}

#[pymethods]
impl PyTrack {
    fn __repr__(&self) -> String {
        format!("Track({:?}, {:?})", self.file_name, self.job_id)
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*exception), text_signature = "($self, exc_type, exc_value, traceback, /)")]
    fn __exit__(&self, py: Python<'_>, exception: &Bound<'_, PyTuple>) -> PyOutcome<bool> {
        self.guard.check("tracked job")?;
        let status = status(exception)?;
        let (file_name, job_id) = (self.file_name.clone(), self.job_id.clone());
        let work = move |ledger: &JobLedger| {
            let log = |table| ledger.log(table, &file_name, &job_id, status, None);
            log(LedgerTable::Executions).and_then(|()| log(LedgerTable::Notifications))
        };
        CallMode::Wait(py).run_on_ledger(self.ledger.clone(), work, |_, ()| Ok(()))?;
        Ok(false)
    }

    fn __aenter__(this: Py<Self>, py: Python<'_>) -> PyOutcome {
        CallMode::Coroutine(py).run(async { Ok(()) }, move |_, ()| Ok(this))
    }

    #[pyo3(signature = (*exception), text_signature = "($self, exc_type, exc_value, traceback, /)")]
    fn __aexit__(&self, py: Python<'_>, exception: &Bound<'_, PyTuple>) -> PyOutcome {
        self.guard.check("tracked job")?;
        let status = status(exception)?;
        let (ledger, file_name, job_id) = (self.ledger.clone(), self.file_name.clone(), self.job_id.clone());
        let work = async move {
            ledger.log_async(LedgerTable::Executions, &file_name, &job_id, status, None).await?;
            ledger.log_async(LedgerTable::Notifications, &file_name, &job_id, status, None).await
        };
        CallMode::Coroutine(py).run(work, |py, ()| Ok(py.None()))
    }
}
