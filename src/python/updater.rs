//! `AutosysUpdater`.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments;
use super::convert;
use super::delivery_report::PyDeliveryReport;
use super::errors::{PyOutcome, Raised};
use super::interrupt::Runs;
use super::ledger::PyJobLedger;
use super::run_command::PyRunCommand;
use super::sendevent::PySendEvent;
use super::wait::{self, Born};
use super::web_services::PyWebServices;
use crate::autosys::{self, Callable, Mapping, Order, Outcome, SendEvent, SendEventOptions, Transport, UpdaterOptions};
use crate::error::{Error, ErrorKind};
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
    Python::attach(|py| {
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
    if let Ok(command) = value.cast::<PyRunCommand>() {
        return command.get().core(value.py(), mapping, &runs);
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

/// Delivers pending rows of a ledger to AutoSys, one cycle at a time.
///
/// One cycle reads what is pending, records each try in `autosys_deliveries`, sends, and acknowledges exactly the rows
/// that AutoSys took, together with the executions that match them. What failed stays `NO`; the next cycle is the retry.
///
/// Args:
///     ledger: The `JobLedger`.
///     transport: `jobrota.autosys.SendEvent(…)`, or a callable `(file_name, job_id, status) -> bool`, sync or async.
///         `False` means refused; raising an `Exception` means failed.
///     source: The table whose rows are sent: `"job_notifications"`, or `"autosys_job_log"` for those who have no second
///         table. Never both: an event is sent once.
///     mapping: What a status becomes: `"CHANGE_STATUS"`, `"STARTJOB"`, or a dict such as
///         `{"SUCCESS": "STARTJOB", "FAILURE": "CHANGE_STATUS FAILURE"}`. Callables map for themselves.
///     max_attempts: Park a row after so many failed tries; never when not given.
///     order: `"per_job"`: a job's rows go one by one in time order, and later ones wait behind a failing one;
///         `"latest"`: only a job's newest row is sent; `"none"`: as they come.
///     concurrency: How many sends may be under way at once.
///     thread_safe: Whether a callable may be called from several threads at once.
///     dry_run: Send nothing, write nothing, and say what would be sent.
///
/// Raises:
///     InvalidInputError: An argument can never work.
///     UnsupportedError: `backoff`, `rate`, `stale_after` and `confirm` are not in this version.
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
                        stale_after = None, lease_ttl = None, confirm = false, dry_run = false))]
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
        rate: Option<&Bound<'_, PyAny>>,
        stale_after: Option<&Bound<'_, PyAny>>,
        lease_ttl: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::flag)] confirm: bool,
        #[pyo3(from_py_with = arguments::flag)] dry_run: bool,
    ) -> PyOutcome<Self> {
        let later = [
            ("backoff", backoff.is_some()),
            ("rate", rate.is_some()),
            ("stale_after", stale_after.is_some()),
            ("lease_ttl", lease_ttl.is_some()),
            ("confirm", confirm),
        ];
        if let Some((name, _)) = later.iter().find(|(_, given)| *given) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{name} is not in this version of AutosysUpdater; leave it out"),
            )
            .into());
        }
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
        let options = UpdaterOptions { source, max_attempts, order, concurrency, dry_run, ..UpdaterOptions::default() };
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
        convert::repr_html(py, "updater", data)
    }
}
