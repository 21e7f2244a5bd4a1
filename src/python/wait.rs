//! Waiting for Rust without holding the GIL: blocking calls, futures that Ctrl-C interrupts, coroutines, and the guard
//! that keeps objects from being used in a forked child.

use std::future::Future;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pyo3::IntoPyObjectExt as _;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::runtime::Handle;

use super::attach::{LateCall, attached};
use super::errors::{PyOutcome, Raised};
use super::logging;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

/// The process in which an object was made. Its threads and locks do not survive a fork.
#[derive(Debug, Clone, Copy)]
pub(super) struct Born(u32);

impl Born {
    pub(super) fn here() -> Self {
        Self(std::process::id())
    }

    /// Refuses the use of an object in a forked child, where its background threads do not exist.
    pub(super) fn check(self, what: &str) -> Result<()> {
        if self.0 == std::process::id() {
            return Ok(());
        }
        Err(forked(what))
    }
}

fn forked(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!(
            "this {what} was made before the process forked, and its background threads do not exist in the child; make a new \
             one in the child process, or start processes with the 'spawn' method"
        ),
    )
}

/// Runs blocking core work without the GIL.
pub(super) fn blocking<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyOutcome<T> {
    let _late = LateCall::begin(py);
    logging::deliver(py)?;
    let outcome = py.detach(work);
    logging::deliver(py)?;
    Ok(outcome?)
}

/// How often a waiting call looks for Ctrl-C.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);

/// Runs `future` without the GIL and looks for signals meanwhile: Ctrl-C drops the future and raises. What is ready at once,
/// such as a turn of this process's own, is done on the caller's thread; handing it to another one would take longer.
pub(super) fn future<T: Send + 'static>(
    py: Python<'_>,
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> PyOutcome<T> {
    let _late = LateCall::begin(py);
    logging::deliver(py)?;
    let runtime = runtime::handle()?;
    let mut future = Box::pin(future);
    let at_once = py.detach(|| {
        let _entered = runtime.enter();
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    });
    if let Poll::Ready(outcome) = at_once {
        logging::deliver(py)?;
        return Ok(outcome?);
    }
    let task = Task::start(&runtime, future);
    loop {
        let outcome = task.wait(py)?;
        let signal = logging::deliver(py).and_then(|()| py.check_signals());
        if let Some(outcome) = outcome {
            signal?;
            return Ok(outcome?);
        }
        signal.inspect_err(|_| task.handle.abort())?;
    }
}

/// Like [`future`], but Ctrl-C calls `stop` and waits for the future to come to an orderly end; a second one drops it.
pub(super) fn stoppable<T: Send + 'static>(
    py: Python<'_>,
    future: impl Future<Output = Result<T>> + Send + 'static,
    stop: impl Fn(),
) -> PyOutcome<T> {
    let _late = LateCall::begin(py);
    logging::deliver(py)?;
    let task = Task::start(&runtime::handle()?, future);
    let mut interrupted: Option<PyErr> = None;
    loop {
        let outcome = task.wait(py)?;
        let signal = logging::deliver(py).and_then(|()| py.check_signals());
        if let Some(outcome) = outcome {
            return match (interrupted.or(signal.err()), outcome) {
                (None, outcome) => outcome.map_err(Raised::from),
                (Some(interrupt), outcome) => {
                    interrupt.set_cause(py, outcome.err().map(|error| super::errors::to_py(py, &error)));
                    Err(interrupt.into())
                }
            };
        }
        match (signal, &interrupted) {
            (Ok(()), _) => {}
            (Err(signal), None) => {
                stop();
                interrupted = Some(signal);
            }
            (Err(signal), Some(_)) => {
                task.handle.abort();
                return Err(signal.into());
            }
        }
    }
}

/// A future under way on the runtime.
struct Task<T> {
    handle: tokio::task::JoinHandle<()>,
    /// Waiting without the GIL needs a receiver that threads may share; only one thread ever uses it.
    outcome: Mutex<Receiver<Result<T>>>,
}

impl<T: Send + 'static> Task<T> {
    fn start(runtime: &Handle, future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(1);
        let handle = runtime.spawn(async move {
            // The receiver is gone only when Ctrl-C ended the wait: nobody is left to be told.
            let _ = sender.send(future.await);
        });
        Self { handle, outcome: Mutex::new(receiver) }
    }

    /// Waits without the GIL until it is time to look for signals. None: not done yet.
    fn wait(&self, py: Python<'_>) -> Result<Option<Result<T>>> {
        let outcome = || self.outcome.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(SIGNAL_CHECK);
        match py.detach(outcome) {
            Ok(outcome) => Ok(Some(outcome)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::new(ErrorKind::Internal, "a background task of jobrota broke off"))
            }
        }
    }
}

/// `future` as a Python coroutine: nothing starts before it is awaited, and canceling it drops the future. `finish` makes
/// the Python value of its outcome.
pub(super) fn awaitable<'py, T, R>(
    py: Python<'py>,
    future: impl Future<Output = Result<T>> + Send + 'static,
    finish: impl FnOnce(Python<'_>, T) -> PyOutcome<R> + Send + 'static,
) -> PyOutcome<Bound<'py, PyAny>>
where
    T: Send + 'static,
    R: for<'a> IntoPyObject<'a> + Send + 'static,
{
    static WAIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let work = Work { begin: Mutex::new(Some(Box::new(|py| bridge(py, future, finish)))), stop: None };
    Ok(WAIT.import(py, "jobrota.awaiting", "wait")?.call1((work,))?)
}

/// Like [`awaitable`], but canceling the coroutine calls `stop` and waits for the future to come to an orderly end, and
/// canceling it again leaves the future to itself; it is never dropped.
pub(super) fn stoppable_awaitable<'py, T, R>(
    py: Python<'py>,
    future: impl Future<Output = Result<T>> + Send + 'static,
    stop: impl Fn() + Send + Sync + 'static,
    finish: impl FnOnce(Python<'_>, T) -> PyOutcome<R> + Send + 'static,
) -> PyOutcome<Bound<'py, PyAny>>
where
    T: Send + 'static,
    R: for<'a> IntoPyObject<'a> + Send + 'static,
{
    static WAIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let begin = |py: Python<'_>| {
        let task = runtime::handle()?.spawn(future);
        let broke_off = |e| Error::new(ErrorKind::Internal, "a background task of jobrota broke off").with_source(e);
        bridge(py, async move { task.await.map_err(broke_off)? }, finish)
    };
    let work = Work { begin: Mutex::new(Some(Box::new(begin))), stop: Some(Box::new(stop)) };
    Ok(WAIT.import(py, "jobrota.awaiting", "wait_in_order")?.call1((work,))?)
}

type Begin = Box<dyn FnOnce(Python<'_>) -> PyOutcome<Py<PyAny>> + Send>;

/// What a coroutine of `jobrota.awaiting` does.
#[pyclass(module = "jobrota", frozen)]
struct Work {
    /// None once it has begun.
    begin: Mutex<Option<Begin>>,
    stop: Option<Box<dyn Fn() + Send + Sync>>,
}

#[pymethods]
impl Work {
    /// Starts it on the runtime and returns an asyncio future of the running event loop.
    fn begin(&self, py: Python<'_>) -> PyOutcome<Py<PyAny>> {
        let begin = self.begin.lock().unwrap_or_else(PoisonError::into_inner).take();
        begin.ok_or_else(|| Error::new(ErrorKind::Internal, "a coroutine of jobrota was started twice"))?(py)
    }

    /// Asks it to come to an orderly end.
    fn stop(&self) {
        if let Some(stop) = &self.stop {
            stop();
        }
    }
}

/// `future`, started on the runtime, as an asyncio future that drops it when it is canceled.
fn bridge<T, R>(
    py: Python<'_>,
    future: impl Future<Output = Result<T>> + Send + 'static,
    finish: impl FnOnce(Python<'_>, T) -> PyOutcome<R> + Send + 'static,
) -> PyOutcome<Py<PyAny>>
where
    T: Send + 'static,
    R: for<'a> IntoPyObject<'a> + Send + 'static,
{
    static PROCESS: OnceLock<Born> = OnceLock::new();
    static RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static SETTLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    PROCESS.get_or_init(Born::here).check("asyncio bridge")?;
    logging::deliver(py)?;
    let event_loop = RUNNING_LOOP.import(py, "asyncio", "get_running_loop")?.call0()?;
    let settle = SETTLE.import(py, "jobrota.awaiting", "settle")?.clone().unbind();
    let pending = event_loop.call_method0("create_future")?;
    let runtime = runtime::handle()?;
    let task = runtime.spawn(future);
    pending.call_method1("add_done_callback", (Abort(task.abort_handle()),))?;
    let (event_loop, awaited) = (event_loop.unbind(), pending.clone().unbind());
    runtime.spawn(async move {
        let outcome = match task.await {
            Ok(outcome) => outcome,
            Err(canceled) if canceled.is_cancelled() => return,
            Err(e) => Err(Error::new(ErrorKind::Internal, "a background task of jobrota broke off").with_source(e)),
        };
        attached(|py| {
            let made = || -> PyResult<Py<PyAny>> {
                logging::deliver(py)?;
                let value = finish(py, outcome.map_err(Raised::from)?)?;
                value.into_py_any(py)
            };
            let (value, error) = match made() {
                Ok(value) => (value, None),
                Err(error) => (py.None(), Some(error.into_value(py))),
            };
            // A loop that was closed meanwhile has nobody who waits.
            let _ = event_loop.call_method1(py, "call_soon_threadsafe", (settle, awaited, value, error));
        });
    });
    Ok(pending.unbind())
}

/// Ends the task of an asyncio future that is done: canceled, or settled, when there is nothing left to end.
#[pyclass(module = "jobrota", frozen)]
struct Abort(tokio::task::AbortHandle);

#[pymethods]
impl Abort {
    fn __call__(&self, future: &Bound<'_, PyAny>) {
        let _ = future;
        self.0.abort();
    }
}
