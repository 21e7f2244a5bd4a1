//! Exceptions of a user's callable that are not about the callable: Ctrl-C, exit. They end what is under way and go on to
//! whoever started it; everything else that a callable raises is a failure of that one call.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::errors::{PyOutcome, Raised};
use super::wait;
use crate::error::{Error, ErrorKind, Result};
use crate::stop::Stop;

/// What is under way with one object, whose callable is called from other threads than those that wait.
#[derive(Debug, Default)]
pub(super) struct Runs(Mutex<Vec<Weak<Run>>>);

/// One call that may be ended so.
#[derive(Debug, Default)]
pub(super) struct Run {
    stop: Stop,
    raised: Mutex<Option<PyErr>>,
}

/// Whether `error` concerns more than the call that raised it. `asyncio.CancelledError` is no `Exception` either, but it is
/// about something that the callable itself awaited.
fn is_interrupt(py: Python<'_>, error: &PyErr) -> bool {
    let canceled = || py.import("asyncio")?.getattr("CancelledError");
    !error.is_instance_of::<PyException>(py) && !canceled().is_ok_and(|class| error.is_instance(py, &class))
}

impl Runs {
    /// A call that begins now.
    pub(super) fn begin(&self) -> Arc<Run> {
        let run = Arc::new(Run::default());
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runs.retain(|run| run.strong_count() > 0);
        runs.push(Arc::downgrade(&run));
        run
    }

    /// Ends everything that is under way, if `error` is about more than the call that raised it; says whether it is.
    pub(super) fn interrupted_by(&self, py: Python<'_>, error: &PyErr) -> bool {
        let interrupt = is_interrupt(py, error);
        if interrupt {
            let runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            runs.iter().filter_map(Weak::upgrade).for_each(|run| run.interrupt(error.clone_ref(py)));
        }
        interrupt
    }
}

impl Run {
    fn interrupt(&self, error: PyErr) {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.stop();
    }

    /// Ends it with `error`, whatever it is about.
    pub(super) fn fail(&self, error: PyErr) {
        self.interrupt(error);
    }

    /// Ends it, if `error` is about more than the call that raised it.
    pub(super) fn interrupted_by(&self, py: Python<'_>, error: &PyErr) {
        if is_interrupt(py, error) {
            self.interrupt(error.clone_ref(py));
        }
    }

    /// The request to end it.
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// What interrupted it, else `outcome`.
    pub(super) fn outcome<T>(&self, outcome: PyOutcome<T>) -> PyOutcome<T> {
        self.raised().map_or(outcome, |error| Err(error.into()))
    }

    /// What interrupted it, once.
    pub(super) fn raised(&self) -> Option<PyErr> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

async fn unless_stopped<T>(stop: Stop, work: impl Future<Output = Result<T>>) -> Result<T> {
    let interrupted = || Error::new(ErrorKind::Internal, "interrupted by the callable");
    stop.unless(work).await.unwrap_or_else(|| Err(interrupted()))
}

/// [`wait::future`] for work that leaves nothing to be done when it is interrupted.
pub(super) fn future<T: Send + 'static>(
    py: Python<'_>,
    runs: &Runs,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> PyOutcome<T> {
    let run = runs.begin();
    run.outcome(wait::future(py, unless_stopped(run.stop(), work)))
}

/// [`wait::awaitable`] for work that leaves nothing to be done when it is interrupted.
pub(super) fn awaitable<'py, T, R>(
    py: Python<'py>,
    runs: &Runs,
    work: impl Future<Output = Result<T>> + Send + 'static,
    finish: impl FnOnce(Python<'_>, T) -> PyOutcome<R> + Send + 'static,
) -> PyOutcome<Bound<'py, PyAny>>
where
    T: Send + 'static,
    R: for<'a> IntoPyObject<'a> + Send + 'static,
{
    let run = runs.begin();
    let work = unless_stopped(run.stop(), work);
    wait::awaitable(py, async move { Ok(work.await) }, move |py, outcome| {
        finish(py, run.outcome(outcome.map_err(Raised::from))?)
    })
}
