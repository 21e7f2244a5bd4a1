//! Waits for the core without holding the GIL: blocking calls, calls that Ctrl-C interrupts, and coroutines.
//!
//! A method with an `_async` twin passes its work to [`CallMode`], so that the body of both is written once.

use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pyo3::IntoPyObjectExt as _;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::runtime::Handle;

use super::attach::{LateCall, attached};
use super::callables::{Call, Calls};
use super::errors::{ForkGuard, PyOutcome, Raised, to_py};
use super::logging;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::JobLedger;
use crate::runtime::{self, lock};
use crate::stop::Stop;

/// Whether a method waits for its result, or returns a coroutine for it.
#[derive(Clone, Copy)]
pub(super) enum CallMode<'py> {
    Wait(Python<'py>),
    Coroutine(Python<'py>),
}

impl CallMode<'_> {
    /// Runs blocking core work. `finish` makes the Python value of its result.
    pub(super) fn run_blocking<T: Send + 'static, R: for<'a> IntoPyObject<'a>>(
        self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
        finish: impl FnOnce(Python<'_>, T) -> PyOutcome<R> + Send + 'static,
    ) -> PyOutcome {
        match self {
            Self::Wait(py) => Ok(finish(py, blocking(py, work)?)?.into_py_any(py)?),
            Self::Coroutine(_) => self.run(runtime::blocking(work), finish),
        }
    }

    /// Runs blocking work on a ledger. Where its store can hang, Ctrl-C ends the wait, and the work goes on without the caller: it
    /// may have been done or not.
    pub(super) fn run_on_ledger<T: Send + 'static, R: for<'a> IntoPyObject<'a>>(
        self,
        ledger: JobLedger,
        work: impl FnOnce(&JobLedger) -> Result<T> + Send + 'static,
        finish: impl FnOnce(Python<'_>, T) -> PyOutcome<R> + Send + 'static,
    ) -> PyOutcome {
        match self {
            // Another thread would cost as much as a local request itself.
            Self::Wait(_) if ledger.storage().is_immediate() => self.run_blocking(move || work(&ledger), finish),
            _ => self.run(runtime::blocking(move || work(&ledger)), finish),
        }
    }

    /// Runs a future. It is dropped at Ctrl-C, and when the coroutine is canceled.
    pub(super) fn run<T: Send + 'static, R: for<'a> IntoPyObject<'a>>(
        self,
        work: impl Future<Output = Result<T>> + Send + 'static,
        finish: impl FnOnce(Python<'_>, T) -> PyOutcome<R> + Send + 'static,
    ) -> PyOutcome {
        self.run_to_outcome(work, |py, outcome| finish(py, outcome?))
    }

    /// As [`CallMode::run`], for an object whose callables can interrupt the call.
    pub(super) fn run_interruptible<T: Send + 'static, R: for<'a> IntoPyObject<'a>>(
        self,
        calls: &Calls,
        work: impl Future<Output = Result<T>> + Send + 'static,
        finish: impl FnOnce(Python<'_>, T) -> PyOutcome<R> + Send + 'static,
    ) -> PyOutcome {
        let call = calls.begin();
        let stop = call.stop();
        let interrupted = || Error::new(ErrorKind::Internal, "interrupted by the callable");
        let work = async move { stop.unless(work).await.unwrap_or_else(|| Err(interrupted())) };
        self.run_to_outcome(work, move |py, outcome| finish(py, call.outcome(outcome)?))
    }

    /// Runs a future that ends in order when the call is stopped. Ctrl-C, and canceling the coroutine, stop the call and
    /// wait for the end. A second Ctrl-C drops the future. Canceling the coroutine again leaves the future running.
    pub(super) fn run_stoppable<T: Send + 'static, R: for<'a> IntoPyObject<'a>>(
        self,
        call: Arc<Call>,
        work: impl Future<Output = Result<T>> + Send + 'static,
        finish: impl FnOnce(Python<'_>, PyOutcome<T>) -> PyOutcome<R> + Send + 'static,
    ) -> PyOutcome {
        static WAIT_IN_ORDER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let stop = call.stop();
        match self {
            Self::Wait(py) => Ok(finish(py, stoppable(py, work, || stop.stop()))?.into_py_any(py)?),
            Self::Coroutine(py) => {
                let begin = move |py: Python<'_>, event_loop: &Bound<'_, PyAny>| {
                    call.set_event_loop(event_loop);
                    let task = runtime::handle()?.spawn(work);
                    let work = async move {
                        // The transports find the event loop while the call exists.
                        let _call = call;
                        task.await.map_err(ended_early)?
                    };
                    asyncio_future(py, event_loop, work, finish)
                };
                let wait = WAIT_IN_ORDER.import(py, "jobrota.awaiting", "wait_in_order")?;
                Ok(wait.call1((PendingWork { begin: Mutex::new(Some(Box::new(begin))), stop },))?.unbind())
            }
        }
    }

    fn run_to_outcome<T: Send + 'static, R: for<'a> IntoPyObject<'a>>(
        self,
        work: impl Future<Output = Result<T>> + Send + 'static,
        finish: impl FnOnce(Python<'_>, PyOutcome<T>) -> PyOutcome<R> + Send + 'static,
    ) -> PyOutcome {
        static WAIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        match self {
            Self::Wait(py) => Ok(finish(py, future(py, work))?.into_py_any(py)?),
            Self::Coroutine(py) => {
                let begin =
                    |py: Python<'_>, event_loop: &Bound<'_, PyAny>| asyncio_future(py, event_loop, work, finish);
                let wait = WAIT.import(py, "jobrota.awaiting", "wait")?;
                Ok(wait
                    .call1((PendingWork { begin: Mutex::new(Some(Box::new(begin))), stop: Stop::default() },))?
                    .unbind())
            }
        }
    }
}

/// Runs blocking core work without the GIL.
pub(super) fn blocking<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyOutcome<T> {
    let _late = LateCall::begin(py);
    logging::deliver(py)?;
    let outcome = py.detach(work);
    logging::deliver(py)?;
    Ok(outcome?)
}

/// How often a waiting thread looks for signals such as Ctrl-C.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);

/// Runs a future without the GIL and looks for signals meanwhile. Ctrl-C drops the future and raises. A future that is ready
/// at once, such as a selection with a cursor of this process, runs in this thread: another thread would take longer.
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
    spawned(py, &runtime, future, None)
}

/// As [`future`], but Ctrl-C calls `stop` and waits for the future to end in order. A second Ctrl-C drops the future.
pub(super) fn stoppable<T: Send + 'static>(
    py: Python<'_>,
    future: impl Future<Output = Result<T>> + Send + 'static,
    stop: impl Fn(),
) -> PyOutcome<T> {
    let _late = LateCall::begin(py);
    logging::deliver(py)?;
    spawned(py, &runtime::handle()?, future, Some(&stop))
}

/// Runs `work` inside a context manager. `work` gets what the context manager returns.
pub(super) fn in_context<T>(manager: &Bound<'_, PyAny>, work: impl FnOnce(Py<PyAny>) -> PyOutcome<T>) -> PyOutcome<T> {
    let entered = manager.call_method0("__enter__")?.unbind();
    let outcome = work(entered);
    let none = manager.py().None();
    manager.call_method1("__exit__", (&none, &none, &none))?;
    outcome
}

fn ended_early(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "a background task of jobrota ended early").with_source(error)
}

/// Runs a future on the runtime, and looks for signals until it ends. Ctrl-C drops the future and raises. With `stop`, the
/// first Ctrl-C calls it instead, and is raised once the future has ended.
fn spawned<T: Send + 'static>(
    py: Python<'_>,
    runtime: &Handle,
    future: impl Future<Output = Result<T>> + Send + 'static,
    stop: Option<&dyn Fn()>,
) -> PyOutcome<T> {
    let (sender, receiver) = sync_channel(1);
    let task = runtime.spawn(async move {
        // Without a receiver, Ctrl-C ended the wait.
        let _ = sender.send(future.await);
    });
    // A wait without the GIL needs a receiver that threads can share. Only this one uses it.
    let receiver = Mutex::new(receiver);
    let mut interrupted: Option<PyErr> = None;
    loop {
        let waited = py.detach(|| lock(&receiver).recv_timeout(SIGNAL_CHECK));
        if let Err(RecvTimeoutError::Disconnected) = waited {
            return Err(Error::new(ErrorKind::Internal, "a background task of jobrota ended early").into());
        }
        let signal = logging::deliver(py).and_then(|()| py.check_signals()).err();
        if let Ok(outcome) = waited {
            let Some(interrupt) = interrupted.or(signal) else { return Ok(outcome?) };
            if stop.is_some() {
                interrupt.set_cause(py, outcome.err().map(|error| to_py(py, &error)));
            }
            return Err(interrupt.into());
        }
        match (signal, stop) {
            (None, _) => {}
            (Some(signal), Some(stop)) if interrupted.is_none() => {
                stop();
                interrupted = Some(signal);
            }
            (Some(signal), _) => {
                task.abort();
                return Err(signal.into());
            }
        }
    }
}

type StartWork = Box<dyn FnOnce(Python<'_>, &Bound<'_, PyAny>) -> PyOutcome + Send>;

/// The work of a coroutine of `jobrota.awaiting`. It does not start before the coroutine is awaited.
#[pyclass(module = "jobrota", frozen)]
struct PendingWork {
    /// None once the work has begun.
    begin: Mutex<Option<StartWork>>,
    stop: Stop,
}

#[pymethods]
impl PendingWork {
    /// Starts the work on the runtime, and returns an asyncio future of the running event loop.
    fn begin(&self, py: Python<'_>) -> PyOutcome {
        static RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let begin = lock(&self.begin).take();
        let begin = begin.ok_or_else(|| Error::new(ErrorKind::Internal, "a coroutine of jobrota was started twice"))?;
        let event_loop = RUNNING_LOOP.import(py, "asyncio", "get_running_loop")?.call0()?;
        begin(py, &event_loop)
    }

    /// Asks the work to end in order.
    fn stop(&self) {
        self.stop.stop();
    }
}

/// Starts a future on the runtime, and returns an asyncio future for it. Canceling that drops the future.
fn asyncio_future<T: Send + 'static, R: for<'a> IntoPyObject<'a>>(
    py: Python<'_>,
    event_loop: &Bound<'_, PyAny>,
    future: impl Future<Output = Result<T>> + Send + 'static,
    finish: impl FnOnce(Python<'_>, PyOutcome<T>) -> PyOutcome<R> + Send + 'static,
) -> PyOutcome {
    static PROCESS: OnceLock<ForkGuard> = OnceLock::new();
    static SETTLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    PROCESS.get_or_init(ForkGuard::new).check("asyncio bridge")?;
    logging::deliver(py)?;
    let settle = SETTLE.import(py, "jobrota.awaiting", "settle")?.clone().unbind();
    let pending = event_loop.call_method0("create_future")?;
    let runtime = runtime::handle()?;
    let task = runtime.spawn(future);
    pending.call_method1("add_done_callback", (Abort(task.abort_handle()),))?;
    let (event_loop, awaited) = (event_loop.clone().unbind(), pending.clone().unbind());
    runtime.spawn(async move {
        let outcome = match task.await {
            Ok(outcome) => outcome,
            Err(canceled) if canceled.is_cancelled() => return,
            Err(error) => Err(ended_early(error)),
        };
        attached(|py| {
            let made = || -> PyResult<Py<PyAny>> {
                logging::deliver(py)?;
                finish(py, outcome.map_err(Raised::from))?.into_py_any(py)
            };
            let (value, error) = match made() {
                Ok(value) => (value, None),
                Err(error) => (py.None(), Some(error.into_value(py))),
            };
            // An event loop that was closed meanwhile has no coroutine that waits.
            let _ = event_loop.call_method1(py, "call_soon_threadsafe", (settle, awaited, value, error));
        });
    });
    Ok(pending.unbind())
}

/// Ends the task of an asyncio future that was canceled. For one that has a result, there is no task left to end.
#[pyclass(module = "jobrota", frozen)]
struct Abort(tokio::task::AbortHandle);

#[pymethods]
impl Abort {
    fn __call__(&self, _future: &Bound<'_, PyAny>) {
        self.0.abort();
    }
}
