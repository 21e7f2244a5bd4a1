//! `AutosysUpdater`, its report, and the transports.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;
use super::errors::PyOutcome;
use super::ledger::PyJobLedger;
use super::wait::{self, Born};
use crate::autosys::{self, Callable, Mapping, Order, SendEvent, SendEventOptions, Transport, UpdaterOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::LedgerTable;

/// The local `sendevent` program as the way to AutoSys.
///
/// The program gets an argument vector, never a shell line: no character of a value is interpreted. Its standard input is
/// closed. An AutoSys error message in its output is a failure even with exit code 0.
///
/// Args:
///     program: A path, or a name that is looked up in `PATH`.
///     timeout: Seconds for one call; then the program is killed and the outcome is unknown.
///     env: Variables for the program, such as `AUTOSERV`, beside those of this process.
///     comment: Text for `-C`; `{file_name}` becomes the row's file name. Starts with a letter or digit.
///
/// Raises:
///     InvalidInputError: An argument can never work.
///
/// Example:
///     >>> from jobrota.autosys import SendEvent
///     >>> SendEvent("/opt/autosys/bin/sendevent", env={"AUTOSERV": "ACE"}).program
///     '/opt/autosys/bin/sendevent'
#[pyclass(module = "jobrota", name = "SendEvent", frozen)]
pub(super) struct PySendEvent {
    options: SendEventOptions,
}

#[pymethods]
impl PySendEvent {
    #[new]
    #[pyo3(signature = (program = None, *, timeout = 60.0, env = None, comment = None))]
    fn new(
        program: Option<&Bound<'_, PyAny>>,
        timeout: f64,
        env: Option<BTreeMap<String, String>>,
        comment: Option<String>,
    ) -> PyOutcome<Self> {
        let options = SendEventOptions {
            program: PathBuf::from(convert::optional_path(program)?.unwrap_or_else(|| "sendevent".into())),
            environment: env.unwrap_or_default(),
            mapping: Mapping::default(),
            timeout: convert::seconds("timeout", timeout)?,
            comment,
        };
        // Made once here only to refuse bad options where they are given, not at the first delivery.
        SendEvent::new(options.clone())?;
        Ok(Self { options })
    }

    /// The program that is run.
    #[getter]
    fn program(&self) -> String {
        self.options.program.display().to_string()
    }

    fn __repr__(&self) -> String {
        format!("SendEvent({:?})", self.options.program.display().to_string())
    }
}

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
fn call(function: &Py<PyAny>, file_name: &str, job_id: &str, status: &str) -> Result<bool, String> {
    Python::attach(|py| {
        let mut answer = function.bind(py).call1((file_name, job_id, status)).map_err(|e| e.to_string())?;
        if answer.hasattr("__await__").map_err(|e| e.to_string())? {
            let run = py.import("jobrota.awaiting").and_then(|module| module.getattr("run"));
            answer = run.and_then(|run| run.call1((answer,))).map_err(|e| e.to_string())?;
        }
        // None is what a function without a return statement gives: taking it for success would lose updates.
        answer.extract::<bool>().map_err(|_| {
            format!(
                "the callable returned {} where True (delivered) or False (refused) is needed",
                answer.repr().map(|text| text.to_string()).unwrap_or_else(|_| "something".into())
            )
        })
    })
}

fn transport(value: &Bound<'_, PyAny>, mapping: Mapping, thread_safe: bool) -> PyOutcome<Arc<dyn Transport>> {
    if let Ok(sendevent) = value.cast::<PySendEvent>() {
        return Ok(Arc::new(SendEvent::new(SendEventOptions { mapping, ..sendevent.get().options.clone() })?));
    }
    if value.is_callable() {
        let asynchronous: bool =
            value.py().import("inspect")?.call_method1("iscoroutinefunction", (value,))?.extract()?;
        let function = value.clone().unbind();
        return Ok(Arc::new(Callable::new(
            move |file_name, job_id, status| call(&function, file_name, job_id, status),
            thread_safe || asynchronous,
        )));
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
///         `False` means refused; raising means failed.
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
        ledger: PyRef<'_, PyJobLedger>,
        transport: &Bound<'_, PyAny>,
        source: &str,
        mapping: Option<&Bound<'_, PyAny>>,
        max_attempts: Option<i64>,
        order: &str,
        concurrency: usize,
        thread_safe: bool,
        backoff: Option<&Bound<'_, PyAny>>,
        rate: Option<&Bound<'_, PyAny>>,
        stale_after: Option<&Bound<'_, PyAny>>,
        lease_ttl: Option<&Bound<'_, PyAny>>,
        confirm: bool,
        dry_run: bool,
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
        let way = self::transport(transport, self::mapping(mapping)?, thread_safe)?;
        let name = way.name().to_owned();
        let core = ledger.core()?;
        let root = core.root().to_owned();
        let options = UpdaterOptions { source, max_attempts, order, concurrency, dry_run, ..UpdaterOptions::default() };
        Ok(Self {
            updater: Arc::new(autosys::AutosysUpdater::new(core, way, options)?),
            root,
            transport: name,
            source,
            born: Born::here(),
        })
    }

    /// One delivery cycle.
    ///
    /// Returns:
    ///     A `DeliveryReport`.
    ///
    /// Raises:
    ///     NotFoundError: There is no ledger yet.
    fn run(&self, py: Python<'_>) -> PyOutcome<PyDeliveryReport> {
        self.born.check("AutosysUpdater")?;
        let updater = Arc::clone(&self.updater);
        let report = wait::future(py, async move { updater.run().await })?;
        Ok(PyDeliveryReport { report })
    }

    /// Like `run`, as an awaitable.
    fn run_async<'py>(&self, py: Python<'py>) -> PyOutcome<Bound<'py, PyAny>> {
        self.born.check("AutosysUpdater")?;
        let updater = Arc::clone(&self.updater);
        wait::awaitable(py, async move { updater.run().await }, |_, report| Ok(PyDeliveryReport { report }))
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

/// What one delivery cycle did.
#[pyclass(module = "jobrota", name = "DeliveryReport", frozen)]
pub(super) struct PyDeliveryReport {
    report: autosys::DeliveryReport,
}

/// A row of either table as a dict.
fn row_dict<'py>(py: Python<'py>, row: &crate::ledger::LedgerRow) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("file_name", &row.file_name)?;
    dict.set_item("job_id", &row.job_id)?;
    dict.set_item("status", &row.status)?;
    dict.set_item("timestamp", row.timestamp.and_then(chrono::DateTime::from_timestamp_micros))?;
    Ok(dict)
}

#[pymethods]
impl PyDeliveryReport {
    /// Rows that AutoSys took and that were acknowledged.
    #[getter]
    fn delivered(&self) -> u64 {
        self.report.delivered
    }

    /// Rows that were refused; the next cycle tries them again.
    #[getter]
    fn failed(&self) -> u64 {
        self.report.failed
    }

    /// Rows acknowledged without being sent, because a later one of their job was pending.
    #[getter]
    fn superseded(&self) -> u64 {
        self.report.superseded
    }

    /// Rows given up: still `NO`, and skipped.
    #[getter]
    fn parked(&self) -> u64 {
        self.report.parked
    }

    /// Rows acknowledged without being sent, because they came too late.
    #[getter]
    fn expired(&self) -> u64 {
        self.report.expired
    }

    /// Rows sent without an answer that says whether they arrived.
    #[getter]
    fn unknown(&self) -> u64 {
        self.report.unknown
    }

    /// Rows that an earlier cycle delivered before it broke off; acknowledged now, not sent again.
    #[getter]
    fn recovered(&self) -> u64 {
        self.report.recovered
    }

    /// Executions that were settled together with the delivered notifications.
    #[getter]
    fn settled(&self) -> u64 {
        self.report.settled
    }

    /// Rows of the source table that are still `NO`.
    #[getter]
    fn pending(&self) -> u64 {
        self.report.pending
    }

    /// Who delivers from this ledger right now, if that kept this cycle from sending.
    #[getter]
    fn lease_held_by(&self) -> Option<&str> {
        self.report.lease_held_by.as_deref()
    }

    /// The rows that were not delivered: dicts of file_name, job_id, status, timestamp, attempt, outcome and detail.
    #[getter]
    fn failures<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.report
            .failures
            .iter()
            .map(|failure| {
                let dict = row_dict(py, &failure.row)?;
                dict.set_item("attempt", failure.attempt)?;
                dict.set_item("outcome", failure.outcome)?;
                dict.set_item("detail", &failure.detail)?;
                Ok(dict)
            })
            .collect()
    }

    /// What a dry run would have sent: dicts of file_name, job_id, status, timestamp and action.
    #[getter]
    fn planned<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.report
            .planned
            .iter()
            .map(|planned| {
                let dict = row_dict(py, &planned.row)?;
                dict.set_item("action", &planned.action)?;
                Ok(dict)
            })
            .collect()
    }

    /// Everything as one dict.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("delivered", self.report.delivered)?;
        dict.set_item("failed", self.report.failed)?;
        dict.set_item("superseded", self.report.superseded)?;
        dict.set_item("parked", self.report.parked)?;
        dict.set_item("expired", self.report.expired)?;
        dict.set_item("unknown", self.report.unknown)?;
        dict.set_item("recovered", self.report.recovered)?;
        dict.set_item("settled", self.report.settled)?;
        dict.set_item("pending", self.report.pending)?;
        dict.set_item("lease_held_by", self.lease_held_by())?;
        dict.set_item("dry_run", self.report.dry_run)?;
        dict.set_item("failures", self.failures(py)?)?;
        dict.set_item("planned", self.planned(py)?)?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        let report = &self.report;
        format!(
            "DeliveryReport(delivered={}, failed={}, superseded={}, parked={}, expired={}, unknown={}, settled={}, pending={})",
            report.delivered,
            report.failed,
            report.superseded,
            report.parked,
            report.expired,
            report.unknown,
            report.settled,
            report.pending
        )
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        convert::repr_html(py, "delivery_report", self.to_dict(py)?)
    }
}
