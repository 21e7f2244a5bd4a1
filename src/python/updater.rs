//! `AutosysUpdater`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};

use super::arguments;
use super::attach::attached;
use super::convert;
use super::delivery_report::PyDeliveryReport;
use super::errors::{PyOutcome, Raised};
use super::interrupt::Runs;
use super::ledger::PyJobLedger;
use super::ledger_summary::PyLedgerSummary;
use super::rehearsal::PyRehearsal;
use super::run_command::PyRunCommand;
use super::sendevent::PySendEvent;
#[cfg(feature = "ssh")]
use super::ssh::PySsh;
use super::wait::{self, Born};
use super::web_services::PyWebServices;
use crate::autosys::{
    self, Backoff, CONFIRM_WITHIN, Callable, Mapping, Order, Outcome, SendEvent, SendEventOptions, Snooze, Transport,
    UpdaterOptions,
};
use crate::error::Error;
use crate::ledger::LedgerTable;

fn mapping(value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Mapping> {
    let Some(value) = value else { return Ok(Mapping::change_status()) };
    if let Ok(name) = value.extract::<String>() {
        return match name.as_str() {
            "CHANGE_STATUS" => Ok(Mapping::change_status()),
            "STARTJOB" => Ok(Mapping::start_job()),
            _ => Err(Error::invalid(format!(
                "mapping must be \"CHANGE_STATUS\", \"STARTJOB\" or a dict of status and event, not \"{name}\""
            ))
            .into()),
        };
    }
    let pairs: HashMap<String, String> = value.extract().map_err(|_| {
        Error::invalid("mapping must be \"CHANGE_STATUS\", \"STARTJOB\" or a dict of status and event, both text")
    })?;
    Ok(Mapping::parse(pairs.iter().map(|(status, event)| (status.as_str(), event.as_str())))?)
}

/// Calls the user's function with the GIL held; an `async def` runs to its end on an event loop of its own.
fn call(function: &Py<PyAny>, runs: &Runs, file_name: &str, job_id: &str, status: &str) -> Outcome {
    attached(|py| {
        let ask = || -> PyResult<Bound<'_, PyAny>> {
            let answer = function.bind(py).call1((file_name, job_id, status))?;
            if answer.hasattr("__await__")? {
                return py.import("jobrota.awaiting")?.getattr("run")?.call1((answer,));
            }
            Ok(answer)
        };
        match ask() {
            // None is what a function without a return statement gives: taking it for success would lose updates.
            Ok(answer) => match answer.extract::<bool>() {
                Ok(true) => Outcome::Delivered { detail: None },
                Ok(false) => Outcome::transient("refused: the callable returned False"),
                Err(_) => Outcome::transient(format!(
                    "the callable returned {} where True (delivered) or False (refused) is needed",
                    answer.repr().map(|text| text.to_string()).unwrap_or_else(|_| "something".into())
                )),
            },
            // It may have been sent before that.
            Err(error) if runs.interrupted_by(py, &error) => Outcome::unknown(format!("interrupted: {error}")),
            Err(error) => Outcome::transient(error.to_string()),
        }
    })
}

fn transport(
    value: &Bound<'_, PyAny>,
    mapping: Mapping,
    thread_safe: bool,
    runs: Arc<Runs>,
) -> PyOutcome<Arc<dyn Transport>> {
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
        return command.get().core(value.py(), mapping, &runs);
    }
    if let Ok(rehearsal) = value.cast::<PyRehearsal>() {
        return Ok(Arc::new(rehearsal.get().transport.clone()));
    }
    if value.is_callable() {
        let asynchronous: bool =
            value.py().import("inspect")?.call_method1("iscoroutinefunction", (value,))?.extract()?;
        let function = value.clone().unbind();
        let send = move |file_name: &str, job_id: &str, status: &str| call(&function, &runs, file_name, job_id, status);
        return Ok(Arc::new(Callable::from_arc(Arc::new(send), thread_safe || asynchronous)));
    }
    Err(Error::invalid(format!(
        "transport must be jobrota.autosys.SendEvent(…) or a callable (file_name, job_id, status) -> bool, not {}",
        value.get_type()
    ))
    .into())
}

/// Back-off: None or False for none, True for the usual one, a span of time for the first waiting, or a dict.
fn backoff(value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Option<Backoff>> {
    let Some(value) = value else { return Ok(None) };
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(flag.is_true().then(Backoff::default));
    }
    let usual = Backoff::default();
    let Ok(dict) = value.cast::<PyDict>() else {
        let first = arguments::span(value)?;
        return Ok(Some(Backoff::new(first, usual.factor(), usual.longest().max(first), usual.jitter())?));
    };
    let known = ["first", "factor", "longest", "jitter"];
    for key in dict.keys() {
        if !key.extract::<String>().is_ok_and(|key| known.contains(&key.as_str())) {
            return Err(Error::invalid(format!("backoff has no {key}; it has {}", known.join(", "))).into());
        }
    }
    let span = |key: &str| dict.get_item(key)?.map(|value| arguments::span(&value)).transpose();
    let number = |key: &str| dict.get_item(key)?.map(|value| arguments::number(&value)).transpose();
    let first = span("first")?.unwrap_or(usual.first());
    let longest = span("longest")?.unwrap_or(usual.longest().max(first));
    let (factor, jitter) = (number("factor")?.unwrap_or(usual.factor()), number("jitter")?.unwrap_or(usual.jitter()));
    Ok(Some(Backoff::new(first, factor, longest, jitter)?))
}

/// Whether, and how long, AutoSys is asked whether it shows what it was told.
fn confirm(value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Option<Duration>> {
    let Some(value) = value else { return Ok(None) };
    match value.cast::<PyBool>() {
        Ok(flag) => Ok(flag.is_true().then_some(CONFIRM_WITHIN)),
        // A bare number could be meant for either.
        Err(_) if value.is_instance_of::<PyString>() || value.hasattr("total_seconds")? => {
            Ok(Some(arguments::span(value)?))
        }
        Err(_) => Err(Error::invalid("confirm must be True, False or a time such as \"30s\"").into()),
    }
}

fn snooze(value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Vec<Snooze>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    if value.is_instance_of::<PyString>() {
        return Ok(vec![arguments::text(value)?.parse()?]);
    }
    Ok(arguments::names(value)?.iter().map(|window| window.parse()).collect::<crate::error::Result<_>>()?)
}

/// Delivers pending rows of a ledger to AutoSys, one cycle at a time.
///
/// One cycle reads what is pending, records each try in `autosys_deliveries`, sends, and acknowledges exactly the rows
/// that AutoSys took, together with the executions that match them. What failed stays `NO`; the next cycle is the retry.
/// Only one cycle at a time delivers from a table; another one says who does (`lease_held_by`), and sends nothing.
///
/// Args:
///     ledger: The `JobLedger`.
///     transport: `jobrota.autosys.SendEvent(…)` or another class of that module, or a callable
///         `(file_name, job_id, status) -> bool`, sync or async. `False` means refused; raising an `Exception` means failed.
///     source: The table whose rows are sent: `"job_notifications"`, or `"autosys_job_log"` for those who have no second
///         table. Never both: an event is sent once.
///     mapping: What a status becomes: `"CHANGE_STATUS"`, `"STARTJOB"`, or a dict such as
///         `{"SUCCESS": "STARTJOB", "FAILURE": "CHANGE_STATUS FAILURE"}`. Callables map for themselves.
///     max_attempts: Park a row after so many failed tries; never when not given.
///     order: `"per_job"`: a job's rows go one by one in time order, and later ones wait behind a failing one;
///         `"latest"`: only a job's newest row is sent; `"none"`: as they come.
///     concurrency: How many sends may be under way at once.
///     thread_safe: Whether a callable may be called from several threads at once.
///     backoff: How long a row that failed waits for the cycle that tries it again: True (a minute, then twice as long each
///         time, at most six hours), the first waiting such as `"5m"`, or a dict of `first`, `factor`, `longest` and
///         `jitter`. Not given: every cycle tries it.
///     rate: At most so many events a second.
///     stale_after: Rows older than this, such as `"12h"`, are acknowledged without being sent (`expired`).
///     lease_ttl: Seconds after which the lease of a process that died is taken over.
///     confirm: Read the job's status back until it shows what was sent: True (for 30 seconds at most) or a time such as `"2m"`. A row that
///         does not show is `unknown`. The transport must be able to read a status.
///     first: Names of jobs whose rows must be delivered, and confirmed where the transport can, before any other is sent.
///     priority: Names of jobs whose rows are sent before others.
///     snooze: Times at which nothing is sent, such as `"02:00-03:30"` or `["Sun 22:00-04:00 Europe/Berlin"]`; UTC unless
///         said otherwise. It costs no attempt.
///     dry_run: Send nothing, write nothing, and say what would be sent.
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
    updater: Arc<autosys::AutosysUpdater>,
    root: String,
    transport: String,
    source: LedgerTable,
    runs: Arc<Runs>,
    born: Born,
}

#[pymethods]
impl PyAutosysUpdater {
    #[new]
    #[pyo3(signature = (ledger, transport, *, source = "job_notifications", mapping = None, max_attempts = None,
                        order = "per_job", concurrency = 8, thread_safe = false, backoff = None, rate = None,
                        stale_after = None, lease_ttl = Duration::from_secs(30), confirm = None, first = None,
                        priority = None, snooze = None, dry_run = false),
           text_signature = "(ledger, transport, *, source='job_notifications', mapping=None, max_attempts=None, \
                             order='per_job', concurrency=8, thread_safe=False, backoff=None, rate=None, \
                             stale_after=None, lease_ttl=30, confirm=None, first=None, priority=None, snooze=None, \
                             dry_run=False)")]
    #[allow(clippy::too_many_arguments, reason = "one per keyword of the Python class")]
    fn new(
        ledger: &Bound<'_, PyAny>,
        transport: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = arguments::text)] source: &str,
        mapping: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_whole)] max_attempts: Option<i64>,
        #[pyo3(from_py_with = arguments::text)] order: &str,
        #[pyo3(from_py_with = arguments::whole)] concurrency: usize,
        #[pyo3(from_py_with = arguments::flag)] thread_safe: bool,
        backoff: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_number)] rate: Option<f64>,
        #[pyo3(from_py_with = arguments::optional_span)] stale_after: Option<Duration>,
        #[pyo3(from_py_with = arguments::span)] lease_ttl: Duration,
        confirm: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_names)] first: Option<Vec<String>>,
        #[pyo3(from_py_with = arguments::optional_names)] priority: Option<Vec<String>>,
        snooze: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::flag)] dry_run: bool,
    ) -> PyOutcome<Self> {
        let order = match order {
            "per_job" => Order::PerJob,
            "latest" => Order::Latest,
            "none" => Order::None,
            other => {
                return Err(Error::invalid(format!(
                    "order must be \"per_job\", \"latest\" or \"none\", not \"{other}\""
                ))
                .into());
            }
        };
        let source = super::ledger::table_named(source)?;
        let runs = Arc::new(Runs::default());
        let way = self::transport(transport, self::mapping(mapping)?, thread_safe, Arc::clone(&runs))?;
        let name = way.name().to_owned();
        let core = match ledger.cast::<PyJobLedger>() {
            Ok(ledger) => ledger.get().core()?,
            Err(_) => {
                let kind = ledger.get_type();
                let text =
                    format!("ledger must be a JobLedger, such as JobLedger(\"/data/ledger\"), not {}", kind.name()?);
                return Err(Error::invalid(text).into());
            }
        };
        let root = core.root().to_owned();
        let options = UpdaterOptions {
            source,
            max_attempts,
            order,
            first: first.unwrap_or_default().into_iter().collect(),
            priority: priority.unwrap_or_default().into_iter().collect(),
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
            updater: Arc::new(autosys::AutosysUpdater::new(core, way, options)?),
            root,
            transport: name,
            source,
            runs,
            born: Born::here(),
        })
    }

    /// One delivery cycle.
    ///
    /// Ctrl-C, or an exception of a callable's that is no `Exception` (`KeyboardInterrupt`, `SystemExit`), ends it in order:
    /// no further row is sent, the answers to what is under way are waited for (half a minute at most), what was delivered is
    /// recorded and acknowledged, and then the exception goes on. A second Ctrl-C does not wait.
    ///
    /// Returns:
    ///     A `DeliveryReport`.
    ///
    /// Raises:
    ///     NotFoundError: There is no ledger yet.
    fn run(&self, py: Python<'_>) -> PyOutcome<PyDeliveryReport> {
        self.born.check("AutosysUpdater")?;
        let (updater, run) = (Arc::clone(&self.updater), self.runs.begin());
        let (stop, asked) = (run.stop(), run.stop());
        let report = wait::stoppable(py, async move { updater.run_until(&asked).await }, || stop.stop());
        Ok(PyDeliveryReport::from(run.outcome(report)?))
    }

    /// Like `run`, as a coroutine. Canceling it (`asyncio.wait_for`, `Task.cancel`) ends the cycle in the same order.
    fn run_async<'py>(&self, py: Python<'py>) -> PyOutcome<Bound<'py, PyAny>> {
        self.born.check("AutosysUpdater")?;
        let (updater, run) = (Arc::clone(&self.updater), self.runs.begin());
        let (stop, asked) = (run.stop(), run.stop());
        let work = async move { Ok(updater.run_until(&asked).await) };
        wait::stoppable_awaitable(
            py,
            work,
            move || stop.stop(),
            move |_, report| Ok(PyDeliveryReport::from(run.outcome(report.map_err(Raised::from))?)),
        )
    }

    /// One cycle after the other, until SIGTERM, Ctrl-C or an error that a retry cannot mend.
    ///
    /// SIGTERM (in the main thread, where the program has no handler of its own) ends it in order, as Ctrl-C does: what is
    /// under way is finished and acknowledged. After SIGTERM it returns; Ctrl-C goes on as `KeyboardInterrupt`. A cycle that
    /// failed in a way that may pass is logged, and the next one goes on.
    ///
    /// Args:
    ///     every: From the beginning of one cycle to that of the next: seconds, a text such as `"15m"`, or a timedelta.
    ///     on_report: Called with the `DeliveryReport` of each cycle.
    ///
    /// Returns:
    ///     The last `DeliveryReport`; None if no cycle came to its end.
    ///
    /// Raises:
    ///     JobrotaError: A cycle failed in a way that a retry cannot mend.
    #[pyo3(signature = (every = Duration::from_secs(900), *, on_report = None), text_signature = "($self, every='15m', *, on_report=None)")]
    fn run_forever(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::span)] every: Duration,
        on_report: Option<Py<PyAny>>,
    ) -> PyOutcome<Option<PyDeliveryReport>> {
        self.born.check("AutosysUpdater")?;
        let (updater, run) = (Arc::clone(&self.updater), self.runs.begin());
        let (stop, asked, told) = (run.stop(), run.stop(), Arc::clone(&run));
        let last = Arc::new(Mutex::new(None));
        let newest = Arc::clone(&last);
        let work = async move {
            let mut failed = Ok(());
            let each = |outcome: crate::error::Result<autosys::DeliveryReport>| match outcome {
                Ok(report) => {
                    *newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
                    tell(on_report.as_ref(), report, &told)
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(error = error.full_message(), "a delivery cycle failed; the next one tries again");
                    true
                }
                Err(error) => {
                    failed = Err(error);
                    false
                }
            };
            updater.run_forever(every, &asked, each).await;
            failed
        };
        let terminable = py.import("jobrota.signals")?.call_method0("terminable")?;
        terminable.call_method0("__enter__")?;
        let ended = run.outcome(wait::stoppable(py, work, || stop.stop()));
        terminable.call_method1("__exit__", (py.None(), py.None(), py.None()))?;
        match ended {
            Err(Raised::Python(error)) if is_terminated(py, &error)? => {}
            ended => ended?,
        }
        let last = last.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(last.map(PyDeliveryReport::from))
    }

    fn __repr__(&self) -> String {
        format!(
            "AutosysUpdater(ledger={:?}, transport={:?}, source={:?})",
            self.root,
            self.transport,
            self.source.name()
        )
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let data = PyDict::new(py);
        data.set_item("ledger", &self.root)?;
        data.set_item("transport", &self.transport)?;
        data.set_item("source", self.source.name())?;
        // A view must not fail where there is no ledger yet.
        let ledger = self.updater.ledger().clone();
        if self.born.check("AutosysUpdater").is_ok()
            && let Ok(summary) = wait::blocking(py, || ledger.summary(None, None))
        {
            data.set_item("summary", PyLedgerSummary::from(summary).to_dict(py)?)?;
        }
        convert::repr_html(py, "updater", data)
    }
}

fn is_terminated(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    Ok(error.is_instance(py, &py.import("jobrota.signals")?.getattr("Terminated")?))
}

/// Hands a report to the user's function; says whether to go on.
fn tell(on_report: Option<&Py<PyAny>>, report: autosys::DeliveryReport, run: &super::interrupt::Run) -> bool {
    let Some(on_report) = on_report else { return true };
    attached(|py| match on_report.call1(py, (PyDeliveryReport::from(report),)) {
        Ok(_) => true,
        Err(error) => {
            run.fail(error);
            false
        }
    })
}
