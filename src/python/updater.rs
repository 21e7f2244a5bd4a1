//! `AutosysUpdater`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyCFunction, PyDict, PyString, PyTuple};
use pyo3::{IntoPyObjectExt as _, PyTraverseError};

use super::attach::attached;
use super::callables::{Call, Calls, HeldObject, is_canceled};
use super::convert;
use super::convert::arguments::{self, Names, TextPairs};
use super::errors::{ForkGuard, PyOutcome, Raised, refuse};
use super::ledger::PyJobLedger;
use super::ledger_summary::PyLedgerSummary;
use super::reports::PyDeliveryReport;
use super::run_command::PyRunCommand;
#[cfg(feature = "ssh")]
use super::ssh::PySsh;
use super::transports::{PyRehearsal, PySendEvent, PyWebServices};
use super::wait::{self, CallMode, in_context};
use crate::autosys::{
    Callable, Delivery, Gate, Mapping, SEND_TIMEOUT, SendEvent, SendEventOptions, SendOutcome, Transport,
};
use crate::delivery::{self, Backoff, CONFIRM_WITHIN, Order, SnoozeWindow, UpdaterOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::LedgerTable;
use crate::runtime::lock;

fn order_argument(value: &Bound<'_, PyAny>) -> PyResult<Order> {
    arguments::choice(value, &[("per_job", Order::PerJob), ("latest", Order::Latest), ("none", Order::None)])
}

fn mapping(value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Mapping> {
    let Some(value) = value else { return Ok(Mapping::change_status()) };
    if let Ok(name) = value.extract::<String>() {
        return match name.as_str() {
            "CHANGE_STATUS" => Ok(Mapping::change_status()),
            "STARTJOB" => Ok(Mapping::start_job()),
            _ => refuse(format!(
                "mapping must be \"CHANGE_STATUS\", \"STARTJOB\" or a dict of status and event, not \"{name}\""
            )),
        };
    }
    let expected = "mapping must be \"CHANGE_STATUS\", \"STARTJOB\" or a dict of status and event, both text";
    let pairs = arguments::mapping(value)?.and_then(|dict| dict.extract().ok());
    let TextPairs(pairs) = pairs.ok_or_else(|| Error::invalid(expected))?;
    Ok(Mapping::parse(pairs.iter().map(|(status, event)| (status.as_str(), event.as_str())))?)
}

/// Calls the caller's function with the GIL held. An `async def` function runs on the event loop that awaits the cycle, else on
/// one of this package.
fn call(function: &HeldObject, calls: &Calls, delivery: &Delivery, gate: &Gate) -> SendOutcome {
    attached(|py| {
        // The wait for the GIL can be long.
        if !gate.is_open() {
            return SendOutcome::NotTried;
        }
        let event_loop = calls.event_loop(py);
        let is_late = Arc::new(AtomicBool::new(false));
        let answer = || -> PyResult<Bound<'_, PyAny>> {
            let answer = function.bind(py)?.call1((&delivery.file_name, &delivery.job_id, &delivery.status))?;
            if !answer.hasattr("__await__")? {
                return Ok(answer);
            }
            let (gate, late) = (gate.clone(), Arc::clone(&is_late));
            let may_begin = move |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
                late.store(!gate.is_open(), Ordering::SeqCst);
                !late.load(Ordering::SeqCst)
            };
            let may_begin = PyCFunction::new_closure(py, None, None, may_begin)?;
            py.import("jobrota.awaiting")?.getattr("run")?.call1((answer, &event_loop, may_begin))
        };
        match answer() {
            Ok(_) if is_late.load(Ordering::SeqCst) => SendOutcome::NotTried,
            Ok(answer) => match is_taken(&answer) {
                Some(true) => SendOutcome::Delivered { detail: None },
                Some(false) => SendOutcome::transient("refused: the callable returned False"),
                None => {
                    let kind = arguments::type_name(&answer);
                    let why = format!("the callable returned a value of type {kind}, which is neither True nor False");
                    calls.fail(&|| arguments::invalid(format!(
                        "{why}: return True if AutoSys took the event and False if it did not. The row is in doubt, and no \
                         further row was sent"
                    )));
                    SendOutcome::unknown(why)
                }
            },
            // The event can have been sent before the exception.
            Err(error) if calls.interrupted_by(py, &error) => SendOutcome::unknown(format!("interrupted: {error}")),
            // At its end, asyncio cancels all that runs on the caller's loop.
            Err(error) if event_loop.is_some() && is_canceled(py, &error) => {
                SendOutcome::unknown(format!("canceled: {error}"))
            }
            Err(error) => SendOutcome::transient(error.to_string()),
        }
    })
}

/// What the answer of a callable says; None if it says nothing.
///
/// An object whose class has a truth value decides with it, such as a response of an HTTP client. A number does not: 1 is
/// success to some, and an exit code to others. None is what a function without a return statement returns.
fn is_taken(answer: &Bound<'_, PyAny>) -> Option<bool> {
    if let Ok(flag) = answer.extract::<bool>() {
        return Some(flag);
    }
    let number = answer.py().import("numbers").and_then(|numbers| numbers.getattr("Number")).ok()?;
    let has_truth = !answer.is_none()
        && !answer.is(answer.py().NotImplemented())
        && answer.get_type().hasattr("__bool__").unwrap_or(false)
        && !answer.is_instance(&number).unwrap_or(true);
    has_truth.then(|| answer.is_truthy().ok()).flatten()
}

fn transport(
    value: &Bound<'_, PyAny>,
    mapping: Mapping,
    thread_safe: bool,
    send_timeout: Option<Duration>,
    calls: Arc<Calls>,
) -> PyOutcome<Arc<dyn Transport>> {
    if send_timeout.is_some_and(|limit| limit.is_zero() || !value.is_callable()) {
        let text =
            "send_timeout must be more than 0, and is for a callable; a transport of jobrota.autosys has timeout=";
        return refuse(text);
    }
    // Also a transport of this package, which can hold a selector, and that a callable.
    let held = calls.held.hold(value);
    if let Ok(sendevent) = value.cast::<PySendEvent>() {
        return Ok(Arc::new(SendEvent::new(SendEventOptions { mapping, ..sendevent.get().options.clone() })?));
    }
    if let Ok(services) = value.cast::<PyWebServices>() {
        return Ok(services.get().core(mapping)?);
    }
    #[cfg(feature = "ssh")]
    if let Ok(ssh) = value.cast::<PySsh>() {
        return ssh.get().core(mapping);
    }
    if let Ok(command) = value.cast::<PyRunCommand>() {
        return command.get().core(value.py(), mapping, &calls);
    }
    if let Ok(rehearsal) = value.cast::<PyRehearsal>() {
        return Ok(Arc::new(rehearsal.get().transport.clone()));
    }
    if value.is_callable() {
        let asynchronous: bool =
            value.py().import("inspect")?.call_method1("iscoroutinefunction", (value,))?.extract()?;
        let send = move |delivery: &Delivery, gate: &Gate| call(&held, &calls, delivery, gate);
        let limit = send_timeout.unwrap_or(SEND_TIMEOUT);
        return Ok(Arc::new(Callable::new(Arc::new(send), thread_safe || asynchronous, limit)));
    }
    refuse(format!(
        "transport must be jobrota.autosys.SendEvent(…) or a callable (file_name, job_id, status) -> bool, not {}",
        value.get_type()
    ))
}

/// Converts `backoff`: None or False for none, True for the default, the duration of the first wait, or a dict.
fn backoff(value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Option<Backoff>> {
    let Some(value) = value else { return Ok(None) };
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(flag.is_true().then(Backoff::default));
    }
    let default = Backoff::default();
    let Some(dict) = arguments::mapping(value)? else {
        let first = arguments::named(value.py(), "backoff", arguments::duration(value))?;
        return Ok(Some(Backoff::new(first, default.factor, default.longest.max(first), default.jitter)?));
    };
    let (mut first, mut factor, mut longest, mut jitter) = (default.first, default.factor, None, default.jitter);
    for (key, value) in dict.iter() {
        let key = arguments::named(key.py(), "backoff", arguments::key(&key))?;
        match key.as_str() {
            "first" => first = arguments::item("backoff", &key, &value, arguments::duration)?,
            "longest" => longest = Some(arguments::item("backoff", &key, &value, arguments::duration)?),
            "factor" => factor = arguments::item("backoff", &key, &value, arguments::number)?,
            "jitter" => jitter = arguments::item("backoff", &key, &value, arguments::number)?,
            _ => return refuse(format!("backoff has no {key}; it has first, factor, longest, jitter")),
        }
    }
    let longest = longest.unwrap_or(default.longest.max(first));
    Ok(Some(Backoff::new(first, factor, longest, jitter)?))
}

/// Converts `confirm`: how long the status is read back, if at all.
fn confirm(value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Option<Duration>> {
    let Some(value) = value else { return Ok(None) };
    match value.cast::<PyBool>() {
        Ok(flag) => Ok(flag.is_true().then_some(CONFIRM_WITHIN)),
        // It is not clear whether a bare number is a flag or seconds.
        Err(_) if value.is_instance_of::<PyString>() || value.hasattr("total_seconds")? => {
            Ok(Some(arguments::named(value.py(), "confirm", arguments::duration(value))?))
        }
        Err(_) => refuse("confirm must be True, False or a duration such as \"30s\""),
    }
}

fn snooze(value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Vec<SnoozeWindow>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    if value.is_instance_of::<PyString>() {
        return Ok(vec![arguments::text(value)?.parse()?]);
    }
    Ok(value.extract::<Names>()?.0.iter().map(|window| window.parse()).collect::<Result<_>>()?)
}

/// Delivers pending rows of a ledger to AutoSys, one cycle at a time.
///
/// One cycle reads the pending rows, records each attempt in `autosys_deliveries`, sends, and acknowledges exactly the rows that
/// AutoSys took, together with the executions that match them. Rows that failed stay `NO`; the next cycle is the retry. Only one
/// cycle at a time delivers from a table. Another cycle sends nothing, and reports the process that delivers (`lease_held_by`).
///
/// Args:
///     ledger: The `JobLedger`.
///     transport: `jobrota.autosys.SendEvent(…)` or another class of that module, or a callable
///         `(file_name, job_id, status) -> bool`, sync or async. `False` means refused; raising an `Exception` means failed.
///     source: The table whose rows are sent: `"job_notifications"`, or `"autosys_job_log"` for sites without a second table.
///         Never both: an event is sent once.
///     mapping: The event of each status: `"CHANGE_STATUS"`, `"STARTJOB"`, or a dict such as
///         `{"SUCCESS": "STARTJOB", "FAILURE": "CHANGE_STATUS FAILURE"}`. A callable does its own mapping.
///     max_attempts: Park a row after this many failed attempts; never when not given.
///     order: `"per_job"`: a job's rows go one by one in time order, and later ones wait behind a failing one;
///         `"latest"`: only a job's newest row is sent; `"none"`: as they come.
///     concurrency: How many sends run at once.
///     thread_safe: Whether a callable may be called from several threads at once.
///     send_timeout: How long a callable can take, such as `"2m"`: ten minutes if not given. A call that takes longer goes on, and
///         its row is `unknown`. After a crash, rows that were being sent wait for so long before another process sends them again.
///     backoff: How long a row that failed waits before a cycle tries it again: True (a minute, then twice as long each time,
///         at most six hours), the first wait such as `"5m"`, or a dict of `first`, `factor`, `longest` and `jitter`. Not
///         given: every cycle tries it.
///     rate: At most this many events per second.
///     stale_after: Rows older than this, such as `"12h"`, are acknowledged without being sent (`expired`).
///     lease_ttl: Time after which another process takes over the lease of a process that died.
///     confirm: Read the job's status back until it matches the event: True (for 30 seconds at most) or a duration such as
///         `"2m"`. A row whose status does not match is `unknown`. The transport must be able to read a status.
///     first: Names of jobs whose rows must be delivered, and confirmed where the transport can, before any other is sent.
///     priority: Names of jobs whose rows are sent before others.
///     snooze: Windows of time in which nothing is sent, such as `"02:00-03:30"` or `["Sun 22:00-04:00 Europe/Berlin"]`; UTC unless
///         a timezone is given. They cost no attempt.
///     dry_run: Send and write nothing, and report what a cycle would send.
///
/// Raises:
///     InvalidInputError: An argument can never work.
///
/// Example:
///     >>> import tempfile
///     >>> from jobrota import AutosysUpdater, JobLedger
///     >>> ledger = JobLedger(tempfile.mkdtemp())
///     >>> ledger.log_job_completion("ae.sas", "PROD.AE", "SUCCESS")
///     >>> AutosysUpdater(ledger, lambda file_name, job_id, status: True).run().delivered
///     1
#[pyclass(module = "jobrota", name = "AutosysUpdater", frozen)]
pub(super) struct PyAutosysUpdater {
    updater: Arc<delivery::AutosysUpdater>,
    transport: String,
    calls: Arc<Calls>,
    guard: ForkGuard,
}

type LastReport = Arc<Mutex<Option<delivery::DeliveryReport>>>;

fn take_report(last: &LastReport) -> Option<PyDeliveryReport> {
    lock(last).take().map(PyDeliveryReport::from)
}

impl PyAutosysUpdater {
    fn run_in(&self, mode: CallMode<'_>) -> PyOutcome {
        self.guard.check("AutosysUpdater")?;
        let (updater, call) = (Arc::clone(&self.updater), self.calls.begin());
        let (ended, stop) = (Arc::clone(&call), call.stop());
        let work = async move { updater.run_until(&stop).await };
        mode.run_stoppable(call, work, move |_, report| Ok(PyDeliveryReport::from(ended.outcome(report)?)))
    }

    fn run_cycles(
        &self,
        mode: CallMode<'_>,
        every: Duration,
        on_report: Option<Py<PyAny>>,
        last: LastReport,
    ) -> PyOutcome {
        self.guard.check("AutosysUpdater")?;
        let (updater, call) = (Arc::clone(&self.updater), self.calls.begin());
        let (ended, stop, reporting) = (Arc::clone(&call), call.stop(), Arc::clone(&call));
        let newest = Arc::clone(&last);
        let work = async move {
            let mut failed = Ok(());
            let each = |outcome: Result<delivery::DeliveryReport>| match outcome {
                Ok(report) => {
                    *lock(&newest) = Some(report.clone());
                    pass_on(on_report.as_ref(), report, &reporting)
                }
                // Once there was a ledger, it can be back.
                Err(error)
                    if error.next_cycle_can_run() || error.kind() == ErrorKind::NotFound && lock(&newest).is_some() =>
                {
                    tracing::warn!(error = error.full_message(), "a delivery cycle failed; the next one tries again");
                    true
                }
                Err(error) => {
                    failed = Err(error);
                    false
                }
            };
            updater.run_forever(every, &stop, each).await;
            failed
        };
        mode.run_stoppable(call, work, move |_, outcome| {
            ended.outcome(outcome)?;
            Ok(take_report(&last))
        })
    }
}

#[pymethods]
impl PyAutosysUpdater {
    #[new]
    #[pyo3(signature = (ledger, transport, *, source = LedgerTable::Notifications, mapping = None,
                        max_attempts = None, order = Order::PerJob, concurrency = 8, thread_safe = false, send_timeout = None, backoff = None,
                        rate = None,
                        stale_after = None, lease_ttl = Duration::from_secs(30), confirm = None, first = None,
                        priority = None, snooze = None, dry_run = false),
           text_signature = "(ledger, transport, *, source='job_notifications', mapping=None, max_attempts=None, \
                             order='per_job', concurrency=8, thread_safe=False, send_timeout=None, backoff=None, rate=None, \
                             stale_after=None, lease_ttl=30, confirm=None, first=None, priority=None, snooze=None, \
                             dry_run=False)")]
    #[allow(clippy::too_many_arguments, reason = "one per keyword of the Python class")]
    fn new(
        ledger: &Bound<'_, PyAny>,
        transport: &Bound<'_, PyAny>,
        source: LedgerTable,
        mapping: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_whole)] max_attempts: Option<i64>,
        #[pyo3(from_py_with = order_argument)] order: Order,
        #[pyo3(from_py_with = arguments::whole)] concurrency: usize,
        #[pyo3(from_py_with = arguments::flag)] thread_safe: bool,
        #[pyo3(from_py_with = arguments::optional_duration)] send_timeout: Option<Duration>,
        backoff: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_number)] rate: Option<f64>,
        #[pyo3(from_py_with = arguments::optional_duration)] stale_after: Option<Duration>,
        #[pyo3(from_py_with = arguments::duration)] lease_ttl: Duration,
        confirm: Option<&Bound<'_, PyAny>>,
        first: Option<Names>,
        priority: Option<Names>,
        snooze: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::flag)] dry_run: bool,
    ) -> PyOutcome<Self> {
        let calls = Arc::<Calls>::default();
        let transport =
            self::transport(transport, self::mapping(mapping)?, thread_safe, send_timeout, Arc::clone(&calls))?;
        let name = transport.name().to_owned();
        let kind = arguments::type_name(ledger);
        let wrong = |_| format!("ledger must be a JobLedger, such as JobLedger(\"/data/ledger\"), not {kind}");
        let core = ledger.cast::<PyJobLedger>().map_err(wrong).map_err(Error::invalid)?.get().core()?;
        let options = UpdaterOptions {
            source,
            max_attempts,
            order,
            first: first.map(|jobs| jobs.0.into_iter().collect()).unwrap_or_default(),
            priority: priority.map(|jobs| jobs.0.into_iter().collect()).unwrap_or_default(),
            concurrency,
            backoff: self::backoff(backoff)?,
            rate,
            stale_after,
            snooze: self::snooze(snooze)?,
            lease_ttl,
            confirm: self::confirm(confirm)?,
            dry_run,
            ..UpdaterOptions::default()
        };
        Ok(Self {
            updater: Arc::new(delivery::AutosysUpdater::new(core, transport, options)?),
            transport: name,
            calls,
            guard: ForkGuard::new(),
        })
    }

    /// One delivery cycle.
    ///
    /// Ctrl-C, or an exception of a callable that is not an `Exception` (`KeyboardInterrupt`, `SystemExit`), ends the cycle in
    /// order: it sends no further row, waits for the answers to sends that have begun (half a minute at most), records and
    /// acknowledges what was delivered, and then raises the exception. A second Ctrl-C does not wait.
    ///
    /// Returns:
    ///     A `DeliveryReport`.
    ///
    /// Raises:
    ///     NotFoundError: There is no ledger yet.
    fn run(&self, py: Python<'_>) -> PyOutcome {
        self.run_in(CallMode::Wait(py))
    }

    /// Like `run`, as a coroutine. Canceling it (`asyncio.wait_for`, `Task.cancel`) ends the cycle in the same order. An
    /// `async def` transport runs on the event loop that awaits it.
    fn run_async(&self, py: Python<'_>) -> PyOutcome {
        self.run_in(CallMode::Coroutine(py))
    }

    /// Runs one cycle after the other, until SIGTERM, Ctrl-C or an error that a retry cannot solve.
    ///
    /// SIGTERM (in the main thread of a program without its own handler) ends it in order, as Ctrl-C does: sends that have
    /// begun are finished and acknowledged. After SIGTERM it returns; Ctrl-C raises `KeyboardInterrupt`. A cycle that failed
    /// because of the store or the network is logged. The next one starts after a second, then after twice as long each time,
    /// up to `every`, and continues with what is in the tables.
    ///
    /// Args:
    ///     every: Time from the beginning of one cycle to the beginning of the next: seconds, text such as `"15m"`, or a
    ///         timedelta. At least a millisecond.
    ///     on_report: Called with the `DeliveryReport` of each cycle.
    ///
    /// Returns:
    ///     The last `DeliveryReport`; None if no cycle completed.
    ///
    /// Raises:
    ///     InvalidInputError: `every` is shorter than a millisecond.
    ///     JobrotaError: A cycle failed with an error that a retry cannot solve.
    #[pyo3(signature = (every = Duration::from_secs(900), *, on_report = None),
           text_signature = "($self, every='15m', *, on_report=None)")]
    fn run_forever(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::interval)] every: Duration,
        on_report: Option<Py<PyAny>>,
    ) -> PyOutcome {
        let last = Arc::new(Mutex::new(None));
        let signals = py.import("jobrota.signals")?;
        let terminable = signals.call_method0("terminable")?;
        let ended =
            in_context(&terminable, |_| self.run_cycles(CallMode::Wait(py), every, on_report, Arc::clone(&last)));
        let terminated = signals.getattr("Terminated")?;
        match ended {
            Err(Raised::Python(error)) if error.is_instance(py, &terminated) => Ok(take_report(&last).into_py_any(py)?),
            ended => ended,
        }
    }

    /// Like `run_forever`, as a coroutine. Canceling it ends the current cycle in order. It has no handler for SIGTERM.
    #[pyo3(signature = (every = Duration::from_secs(900), *, on_report = None),
           text_signature = "($self, every='15m', *, on_report=None)")]
    fn run_forever_async(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::interval)] every: Duration,
        on_report: Option<Py<PyAny>>,
    ) -> PyOutcome {
        self.run_cycles(CallMode::Coroutine(py), every, on_report, Arc::default())
    }

    fn __repr__(&self) -> String {
        format!(
            "AutosysUpdater(ledger={:?}, transport={:?}, source={:?})",
            self.updater.ledger().root(),
            self.transport,
            self.updater.options().source.name()
        )
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let data = PyDict::new(py);
        data.set_item("ledger", self.updater.ledger().root())?;
        data.set_item("transport", &self.transport)?;
        data.set_item("source", self.updater.options().source.name())?;
        // The representation works without a ledger as well.
        let ledger = self.updater.ledger().clone();
        if self.guard.check("AutosysUpdater").is_ok()
            && let Ok(summary) = wait::blocking(py, || ledger.summary(None, None))
        {
            let summary = Bound::new(py, PyLedgerSummary(summary))?;
            data.set_item("summary", PyLedgerSummary::to_dict(&summary)?)?;
        }
        convert::repr_html(py, "updater", data)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.calls.held.traverse(&visit, Arc::strong_count(&self.updater) > 1)
    }

    fn __clear__(&self) {
        self.calls.held.clear();
    }
}

/// Passes a report to the caller's function. Returns whether to continue.
fn pass_on(on_report: Option<&Py<PyAny>>, report: delivery::DeliveryReport, call: &Call) -> bool {
    let Some(on_report) = on_report else { return true };
    attached(|py| match on_report.call1(py, (PyDeliveryReport::from(report),)) {
        Ok(_) => true,
        Err(error) => {
            call.fail(error);
            false
        }
    })
}
