//! `JobLedger`.

use std::time::Duration;

use arrow::array::RecordBatch;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyTypeError, PyUserWarning};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict as _, PyDict};

use super::callables::HeldObjects;
use super::convert::arguments::{self, Limit, LocalPath, Location, Moment, Text, TextPairs};
use super::convert::{self, Rows};
use super::errors::{ForkGuard, PyOutcome, to_py};
use super::ledger_summary::PyLedgerSummary;
use super::reports::{PyImportReport, PyMaintenanceReport, warn_when_overdue};
use super::storage_options::StorageOptions;
use super::track::PyTrack;
use super::wait::{self, CallMode};
use crate::delivery::{AuditNote, Settlement};
use crate::error::Result;
use crate::ledger::{self, ImportOptions, LedgerTable, RowFilter};
use crate::runtime;
use crate::storage::{Durability, Requests};

/// Job executions and notifications in Delta tables, so that no AutoSys update is ever lost.
///
/// The first log call creates the tables. Reading a ledger that does not exist is an error. Many threads, processes and Spark
/// clusters can use a ledger at the same time.
///
/// Args:
///     root: The directory or URI that holds (or will hold) the tables: a path on a local disk (`~/` is the home directory),
///         `abfss://container@account.dfs.core.windows.net/path`, `az://container/path`, `s3://bucket/path` or
///         `gs://bucket/path`. The container or bucket must exist. Do not put credentials into it.
///     storage_options: Credentials and settings of the store behind `root`, by their names in object_store and deltalake:
///         `azure_storage_account_key`, `azure_client_id`, `aws_access_key_id`, `aws_endpoint`, `google_service_account`,
///         `allow_http`, `timeout` and so on (`docs/storage.md` lists all). Options that are not given come from the
///         environment (`AZURE_…`, `AWS_…`, `GOOGLE_…`). Unknown names are an error. Every store has the option
///         `request_delay`: how long each request waits before it is sent, from 0 to 60 seconds, to test on a local disk how
///         a remote store behaves. For credentials that expire: a function that returns such options and `expires_at`, or an
///         object with `get_token`, which are asked again in time (`docs/credentials.md`).
///     durability: What a row survives once the call has returned. `"store"`: the end of every process (SIGKILL), because the
///         store has acknowledged the row. `"fsync"`: on a local disk also a power cut, because the row is synced with all
///         that it takes to read it. The acknowledgement of an object store includes this, so both are the same there.
///     commit_timeout: How long a call keeps trying when other writers win every race for the next version, in seconds or as
///         text such as `"30s"`. When it is over, the call raises a retryable `ConflictError` that names the winner. Without
///         it, the call tries until it wins.
///
/// Raises:
///     InvalidInputError: `root` is empty, a file, or a URI with credentials in it; or a storage option does not exist, or
///         can never work.
///     AuthenticationError: The store refuses the credentials, or there are none.
///     NetworkError: The store cannot be reached; mostly retryable.
///     StorageError: The container or bucket does not exist, or the store failed.
///     UnsupportedError: `root` is on a file system without atomic creation (`/dbfs`, `/Volumes`, `/Workspace`) or of an
///         unknown scheme; a table there has a feature that cannot be written, which is named; or, on S3, Spark or
///         Databricks writes it.
///
/// Example:
///     >>> import tempfile
///     >>> from jobrota import JobLedger
///     >>> ledger = JobLedger(tempfile.mkdtemp())
///     >>> ledger.log_job_execution("ae.sas", "PROD.AE", "SUCCESS")
///     >>> ledger.pending_executions().num_rows
///     1
#[pyclass(module = "jobrota", name = "JobLedger", frozen)]
pub(super) struct PyJobLedger {
    ledger: ledger::JobLedger,
    held: HeldObjects,
    guard: ForkGuard,
}

impl PyJobLedger {
    pub(super) fn core(&self) -> Result<ledger::JobLedger> {
        self.guard.check("JobLedger")?;
        Ok(self.ledger.clone())
    }

    fn opened(py: Python<'_>, ledger: ledger::JobLedger, held: HeldObjects) -> PyOutcome<Self> {
        if ledger.is_lost_with_cluster() {
            let text = c"the ledger is kept on this cluster's local disk, and its rows are lost with the cluster: give a root \
                         that lasts, such as abfss://container@account.dfs.core.windows.net/path";
            PyErr::warn(py, &py.get_type::<PyUserWarning>(), text, 1)?;
        }
        Ok(Self { ledger, held, guard: ForkGuard::new() })
    }

    /// Reads a table in the given mode.
    fn read(
        &self,
        mode: CallMode<'_>,
        read: impl FnOnce(&ledger::JobLedger) -> Result<RecordBatch> + Send + 'static,
    ) -> PyOutcome {
        let ledger = self.core()?;
        let warned = ledger.clone();
        mode.run_on_ledger(ledger, read, move |py, batch| {
            warn_when_overdue(py, &warned)?;
            convert::table(py, batch)
        })
    }

    /// Writes rows in the given mode, and returns how many.
    fn write(
        &self,
        mode: CallMode<'_>,
        write: impl FnOnce(&ledger::JobLedger) -> Result<u64> + Send + 'static,
    ) -> PyOutcome {
        mode.run_on_ledger(self.core()?, write, |_, count| Ok(count))
    }

    fn log_rows(&self, mode: CallMode<'_>, table: LedgerTable, rows: Rows) -> PyOutcome {
        self.write(mode, move |ledger| ledger.log_batch(table, &rows.0))
    }

    fn log(
        &self,
        mode: CallMode<'_>,
        table: LedgerTable,
        [Text(file_name), Text(job_id), Text(status)]: [Text; 3],
        at: Option<Moment>,
    ) -> PyOutcome {
        let (ledger, at, done) = (self.core()?, at.map(|at| at.0), |py: Python<'_>, ()| Ok(py.None()));
        if let CallMode::Coroutine(_) = mode {
            let work = async move { ledger.log_async(table, &file_name, &job_id, &status, at).await };
            return mode.run(work, done);
        }
        mode.run_on_ledger(ledger, move |ledger| ledger.log(table, &file_name, &job_id, &status, at), done)
    }

    fn pending(&self, mode: CallMode<'_>, table: LedgerTable, limit: Option<Limit>, job_id: Option<Text>) -> PyOutcome {
        let (limit, job_id) = (limit.map(|limit| limit.0), job_id.map(|job| job.0));
        let filter = RowFilter { job_id, limit, ..RowFilter::pending() };
        self.read(mode, move |ledger| ledger.rows(table, &filter))
    }

    fn filtered(&self, mode: CallMode<'_>, table: LedgerTable, filter: Option<&Bound<'_, PyDict>>) -> PyOutcome {
        let filter = row_filter(filter)?;
        self.read(mode, move |ledger| ledger.rows(table, &filter))
    }

    fn without_notification(&self, mode: CallMode<'_>, older_than: Option<f64>) -> PyOutcome {
        let older_than = Duration::from_secs_f64(older_than.unwrap_or(3_600.0));
        self.read(mode, move |ledger| ledger.executions_without_notification(older_than))
    }

    fn acknowledge_in(&self, mode: CallMode<'_>, rows: Rows, table: LedgerTable) -> PyOutcome {
        self.write(mode, move |ledger| ledger.acknowledge(table, &ledger::JobLedger::rows_from_batch(table, &rows.0)?))
    }

    /// Lets an operator act on `rows` in the given mode.
    fn operate(
        &self,
        mode: CallMode<'_>,
        action: OperatorAction,
        rows: Option<Rows>,
        reason: Option<Text>,
        by: Option<Text>,
        table: LedgerTable,
    ) -> PyOutcome {
        let (CallMode::Wait(py) | CallMode::Coroutine(py)) = mode;
        let rows = rows.map(|rows| ledger::JobLedger::rows_from_batch(table, &rows.0)).transpose()?;
        let (reason, by) = (reason.map(|reason| reason.0), by.map_or_else(|| author(py), |by| Ok(by.0))?);
        self.write(mode, move |ledger| {
            let note = AuditNote { by: &by, reason: reason.as_deref() };
            match action {
                OperatorAction::Redrive(job_id) => {
                    let job_id = job_id.as_ref().map(|job| job.0.as_str());
                    ledger.redrive(table, rows.as_deref(), job_id, &note)
                }
                OperatorAction::Settle { delivered } => {
                    let settlement = if delivered { Settlement::Arrived } else { Settlement::NotToBeSent };
                    ledger.settle_by_hand(table, rows.as_deref().unwrap_or_default(), settlement, &note)
                }
            }
        })
    }

    fn summary_in(&self, mode: CallMode<'_>, since: Option<Moment>) -> PyOutcome {
        let since = since.map(|since| since.0);
        let work = move |ledger: &ledger::JobLedger| ledger.summary(since, None);
        mode.run_on_ledger(self.core()?, work, |_, summary| Ok(PyLedgerSummary(summary)))
    }

    fn maintain_in(&self, mode: CallMode<'_>, retain_hours: f64) -> PyOutcome {
        let ledger = self.core()?;
        let work = runtime::blocking(move || ledger.maintain(retain_hours));
        mode.run(work, |_, report| Ok(PyMaintenanceReport::from(report)))
    }
}

/// What an operator does with rows.
enum OperatorAction {
    /// Of these only the rows of this job.
    Redrive(Option<Text>),
    Settle {
        delivered: bool,
    },
}

/// The user of this process and its host.
fn author(py: Python<'_>) -> PyResult<String> {
    // A user without a name, as in containers, is in no user database.
    let user = py.import("getpass")?.call_method0("getuser").and_then(|user| user.extract::<String>());
    let user = user.unwrap_or_else(|_| "unknown".to_owned());
    Ok(format!("{user}@{}", gethostname::gethostname().to_string_lossy()))
}

/// The filter in keyword arguments.
fn row_filter(given: Option<&Bound<'_, PyDict>>) -> PyOutcome<RowFilter> {
    let mut filter = RowFilter::default();
    for (name, value) in given.map(|given| given.iter()).into_iter().flatten() {
        let (py, name) = (name.py(), name.extract::<String>()?);
        let time = || Ok::<_, PyErr>(arguments::named(py, &name, value.extract::<Option<Moment>>())?.map(|at| at.0));
        let text = || Ok::<_, PyErr>(arguments::named(py, &name, value.extract::<Option<Text>>())?.map(|text| text.0));
        match name.as_str() {
            "since" => filter.since = time()?,
            "until" => filter.until = time()?,
            "job_id" => filter.job_id = text()?,
            "status" => filter.status = text()?,
            "flag" => filter.flag = text()?,
            _ => Err(PyTypeError::new_err(format!("no keyword '{name}': give since, until, job_id, status or flag")))?,
        }
    }
    Ok(filter)
}

fn opening(
    root: Location,
    storage_options: Option<StorageOptions>,
    durability: Durability,
    commit_timeout: Option<f64>,
) -> (impl FnOnce() -> Result<ledger::JobLedger> + Send + 'static, HeldObjects) {
    let StorageOptions { options, held } = storage_options.unwrap_or_default();
    let timeout = commit_timeout.map(Duration::from_secs_f64);
    (move || ledger::JobLedger::open_with(&root.0, options, durability, timeout), held)
}

fn durability(value: &Bound<'_, PyAny>) -> PyResult<Durability> {
    arguments::choice(value, &[("store", Durability::Store), ("fsync", Durability::Fsync)])
}

fn import_options(fields: Option<TextPairs>, timezone: Option<&Bound<'_, PyAny>>) -> PyResult<ImportOptions> {
    // A zoneinfo.ZoneInfo has its name as `key`.
    let name = timezone.map(|zone| zone.getattr_opt("key")).transpose()?.flatten();
    let timezone = name.as_ref().or(timezone);
    Ok(ImportOptions {
        fields: fields.map(|fields| fields.0).unwrap_or_default(),
        timezone: timezone
            .map(|name| arguments::named(name.py(), "timezone", arguments::text(name)).map(str::to_owned))
            .transpose()?,
        ..ImportOptions::default()
    })
}

#[pymethods]
impl PyJobLedger {
    #[new]
    #[pyo3(signature = (root, *, storage_options = None, durability = Durability::Store, commit_timeout = None),
           text_signature = "(root, *, storage_options=None, durability='store', commit_timeout=None)")]
    fn new(
        py: Python<'_>,
        root: Location,
        storage_options: Option<StorageOptions>,
        #[pyo3(from_py_with = durability)] durability: Durability,
        #[pyo3(from_py_with = arguments::optional_seconds)] commit_timeout: Option<f64>,
    ) -> PyOutcome<Self> {
        let (opening, held) = opening(root, storage_options, durability, commit_timeout);
        Self::opened(py, wait::future(py, runtime::blocking(opening))?, held)
    }

    /// Like `JobLedger(...)`, as a coroutine. Opening a ledger reads the tables that are in the store, and creates none.
    ///
    /// Example:
    ///     >>> import asyncio, tempfile
    ///     >>> from jobrota import JobLedger
    ///     >>> async def pending():
    ///     ...     ledger = await JobLedger.open_async(tempfile.mkdtemp())
    ///     ...     return (await ledger.pending_executions_async()).num_rows
    ///     >>> asyncio.run(pending())
    ///     0
    #[staticmethod]
    #[pyo3(signature = (root, *, storage_options = None, durability = Durability::Store, commit_timeout = None),
           text_signature = "(root, *, storage_options=None, durability='store', commit_timeout=None)")]
    fn open_async(
        py: Python<'_>,
        root: Location,
        storage_options: Option<StorageOptions>,
        #[pyo3(from_py_with = durability)] durability: Durability,
        #[pyo3(from_py_with = arguments::optional_seconds)] commit_timeout: Option<f64>,
    ) -> PyOutcome {
        let (opening, held) = opening(root, storage_options, durability, commit_timeout);
        CallMode::Coroutine(py).run_blocking(opening, |py, ledger| Self::opened(py, ledger, held))
    }

    /// The root as it was given.
    #[getter]
    fn root(&self) -> &str {
        self.ledger.root()
    }

    /// How many requests went to the store since the ledger was opened. On a remote store, the number of requests mostly
    /// determines what a call costs. Reading this property sends no request. Checkpoints, which are written in the
    /// background, count too.
    ///
    /// Returns:
    ///     A new dict with the keys `get`, `put`, `list`, `head`, `delete` and `copy`. A listing counts once, however many
    ///     pages the store answers it in.
    ///
    /// Example:
    ///     >>> import tempfile
    ///     >>> from jobrota import JobLedger
    ///     >>> ledger = JobLedger(tempfile.mkdtemp())
    ///     >>> ledger.log_job_execution("ae.sas", "PROD.AE", "SUCCESS")
    ///     >>> before = ledger.requests["put"]
    ///     >>> ledger.log_job_execution("ae.sas", "PROD.AE", "SUCCESS")
    ///     >>> ledger.requests["put"] - before  # the rows, and the log entry that makes them part of the table
    ///     2
    #[getter]
    fn requests<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Requests { get, put, list, head, delete, copy } = self.ledger.storage().requests();
        let counts = [("get", get), ("put", put), ("list", list), ("head", head), ("delete", delete), ("copy", copy)];
        counts.into_py_dict(py)
    }

    /// Logs one job execution with the flag `NO`. The row is durable when the call returns.
    ///
    /// Args:
    ///     file_name: The file that was processed; any text of 1 to 4,096 bytes, kept verbatim.
    ///     job_id: The AutoSys job; any text of 1 to 1,024 bytes, kept verbatim.
    ///     status: How it ended; any text of 1 to 1,024 bytes, case matters.
    ///     execution_timestamp: When, with a timezone; now when not given.
    ///
    /// Raises:
    ///     InvalidInputError: A value is empty or too long, or the timestamp is naive. Nothing was written.
    ///     ConflictError: Other writers won until `commit_timeout` was over; trying again can help.
    #[pyo3(signature = (file_name, job_id, status, *, execution_timestamp = None))]
    fn log_job_execution(
        &self,
        py: Python<'_>,
        file_name: Text,
        job_id: Text,
        status: Text,
        execution_timestamp: Option<Moment>,
    ) -> PyOutcome {
        self.log(CallMode::Wait(py), LedgerTable::Executions, [file_name, job_id, status], execution_timestamp)
    }

    /// Like `log_job_execution`, as a coroutine.
    #[pyo3(signature = (file_name, job_id, status, *, execution_timestamp = None))]
    fn log_job_execution_async(
        &self,
        py: Python<'_>,
        file_name: Text,
        job_id: Text,
        status: Text,
        execution_timestamp: Option<Moment>,
    ) -> PyOutcome {
        self.log(CallMode::Coroutine(py), LedgerTable::Executions, [file_name, job_id, status], execution_timestamp)
    }

    /// Logs one notification for AutoSys with the flag `NO`. The row is durable when the call returns.
    ///
    /// Args:
    ///     file_name: The file that was processed; any text of 1 to 4,096 bytes, kept verbatim.
    ///     job_id: The AutoSys job; any text of 1 to 1,024 bytes, kept verbatim. A name that AutoSys would refuse is
    ///         kept here and parked at delivery.
    ///     status: How it ended; any text of 1 to 1,024 bytes, case matters.
    ///     notification_timestamp: When, with a timezone; now when not given.
    ///
    /// Raises:
    ///     InvalidInputError: A value is empty or too long, or the timestamp is naive. Nothing was written.
    ///     ConflictError: Other writers won until `commit_timeout` was over; trying again can help.
    #[pyo3(signature = (file_name, job_id, status, *, notification_timestamp = None))]
    fn log_job_completion(
        &self,
        py: Python<'_>,
        file_name: Text,
        job_id: Text,
        status: Text,
        notification_timestamp: Option<Moment>,
    ) -> PyOutcome {
        self.log(CallMode::Wait(py), LedgerTable::Notifications, [file_name, job_id, status], notification_timestamp)
    }

    /// Like `log_job_completion`, as a coroutine.
    #[pyo3(signature = (file_name, job_id, status, *, notification_timestamp = None))]
    fn log_job_completion_async(
        &self,
        py: Python<'_>,
        file_name: Text,
        job_id: Text,
        status: Text,
        notification_timestamp: Option<Moment>,
    ) -> PyOutcome {
        self.log(
            CallMode::Coroutine(py),
            LedgerTable::Notifications,
            [file_name, job_id, status],
            notification_timestamp,
        )
    }

    /// Logs many executions in one commit.
    ///
    /// Args:
    ///     rows: Arrow data with the columns `file_name`, `job_id`, `status` and optionally `execution_timestamp`
    ///         (with a timezone; default now) and `autosys_update_flag` (default `NO`).
    ///
    /// Returns:
    ///     How many rows were logged.
    ///
    /// Raises:
    ///     InvalidInputError: A column is missing, unknown or of the wrong type, or a value is refused. Nothing was
    ///         written.
    fn log_executions(&self, py: Python<'_>, rows: Rows) -> PyOutcome {
        self.log_rows(CallMode::Wait(py), LedgerTable::Executions, rows)
    }

    /// Like `log_executions`, as a coroutine.
    fn log_executions_async(&self, py: Python<'_>, rows: Rows) -> PyOutcome {
        self.log_rows(CallMode::Coroutine(py), LedgerTable::Executions, rows)
    }

    /// Logs many notifications in one commit; columns as `log_executions`, with `notification_timestamp`.
    ///
    /// Args:
    ///     rows: Arrow data with the columns `file_name`, `job_id`, `status` and optionally `notification_timestamp`
    ///         (with a timezone; default now) and `autosys_update_flag` (default `NO`).
    ///
    /// Returns:
    ///     How many rows were logged.
    fn log_notifications(&self, py: Python<'_>, rows: Rows) -> PyOutcome {
        self.log_rows(CallMode::Wait(py), LedgerTable::Notifications, rows)
    }

    /// Like `log_notifications`, as a coroutine.
    fn log_notifications_async(&self, py: Python<'_>, rows: Rows) -> PyOutcome {
        self.log_rows(CallMode::Coroutine(py), LedgerTable::Notifications, rows)
    }

    /// The executions that AutoSys does not have yet (flag exactly `NO`), oldest first.
    ///
    /// Args:
    ///     limit: At most this many rows.
    ///     job_id: Only rows of this job.
    ///
    /// Returns:
    ///     A `Table` with the columns of `autosys_job_log`.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn pending_executions(&self, py: Python<'_>, limit: Option<Limit>, job_id: Option<Text>) -> PyOutcome {
        self.pending(CallMode::Wait(py), LedgerTable::Executions, limit, job_id)
    }

    /// Like `pending_executions`, as a coroutine.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn pending_executions_async(&self, py: Python<'_>, limit: Option<Limit>, job_id: Option<Text>) -> PyOutcome {
        self.pending(CallMode::Coroutine(py), LedgerTable::Executions, limit, job_id)
    }

    /// Another name of `pending_executions`.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn fetch_unprocessed_updates(&self, py: Python<'_>, limit: Option<Limit>, job_id: Option<Text>) -> PyOutcome {
        self.pending_executions(py, limit, job_id)
    }

    /// Another name of `pending_executions_async`.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn fetch_unprocessed_updates_async(&self, py: Python<'_>, limit: Option<Limit>, job_id: Option<Text>) -> PyOutcome {
        self.pending_executions_async(py, limit, job_id)
    }

    /// The notifications that are still to be delivered (flag exactly `NO`), oldest first.
    ///
    /// Args:
    ///     limit: At most this many rows.
    ///     job_id: Only rows of this job.
    ///
    /// Returns:
    ///     A `Table` with the columns of `job_notifications`.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn pending_notifications(&self, py: Python<'_>, limit: Option<Limit>, job_id: Option<Text>) -> PyOutcome {
        self.pending(CallMode::Wait(py), LedgerTable::Notifications, limit, job_id)
    }

    /// Like `pending_notifications`, as a coroutine.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn pending_notifications_async(&self, py: Python<'_>, limit: Option<Limit>, job_id: Option<Text>) -> PyOutcome {
        self.pending(CallMode::Coroutine(py), LedgerTable::Notifications, limit, job_id)
    }

    /// Sets every pending execution of this file and job to `YES`, as the notebooks do.
    ///
    /// Prefer `acknowledge`, which sets exactly the rows that were delivered.
    ///
    /// Args:
    ///     file_name: The file.
    ///     job_id: The job.
    ///
    /// Returns:
    ///     How many rows were set.
    fn update_autosys_flag(&self, py: Python<'_>, file_name: Text, job_id: Text) -> PyOutcome {
        self.write(CallMode::Wait(py), move |ledger| ledger.update_autosys_flag(&file_name.0, &job_id.0))
    }

    /// Like `update_autosys_flag`, as a coroutine.
    fn update_autosys_flag_async(&self, py: Python<'_>, file_name: Text, job_id: Text) -> PyOutcome {
        self.write(CallMode::Coroutine(py), move |ledger| ledger.update_autosys_flag(&file_name.0, &job_id.0))
    }

    /// Sets exactly these rows from `NO` to `YES`: never an older or a later row of the same file and job.
    ///
    /// Identical rows are separate events: of n identical rows, k given sets at most k. Calling it again with the same
    /// rows sets nothing more.
    ///
    /// Args:
    ///     rows: Arrow data with the columns of the table, as the reading methods return them.
    ///     table: `"job_notifications"` or `"autosys_job_log"`.
    ///
    /// Returns:
    ///     How many rows were set.
    #[pyo3(signature = (rows, *, table = LedgerTable::Notifications),
           text_signature = "($self, rows, *, table='job_notifications')")]
    fn acknowledge(&self, py: Python<'_>, rows: Rows, table: LedgerTable) -> PyOutcome {
        self.acknowledge_in(CallMode::Wait(py), rows, table)
    }

    /// Like `acknowledge`, as a coroutine.
    #[pyo3(signature = (rows, *, table = LedgerTable::Notifications),
           text_signature = "($self, rows, *, table='job_notifications')")]
    fn acknowledge_async(&self, py: Python<'_>, rows: Rows, table: LedgerTable) -> PyOutcome {
        self.acknowledge_in(CallMode::Coroutine(py), rows, table)
    }

    /// Rows of `autosys_job_log`, oldest first.
    ///
    /// Args:
    ///     since: Only rows at or after this time (with a timezone).
    ///     until: Only rows before this time (with a timezone).
    ///     job_id: Only rows of this job.
    ///     status: Only rows of exactly this status.
    ///     flag: Only rows of exactly this flag.
    ///
    /// Returns:
    ///     A `Table`.
    #[pyo3(signature = (**filter), text_signature = "($self, *, since=None, until=None, job_id=None, status=None, flag=None)")]
    fn executions(&self, py: Python<'_>, filter: Option<&Bound<'_, PyDict>>) -> PyOutcome {
        self.filtered(CallMode::Wait(py), LedgerTable::Executions, filter)
    }

    /// Like `executions`, as a coroutine.
    #[pyo3(signature = (**filter), text_signature = "($self, *, since=None, until=None, job_id=None, status=None, flag=None)")]
    fn executions_async(&self, py: Python<'_>, filter: Option<&Bound<'_, PyDict>>) -> PyOutcome {
        self.filtered(CallMode::Coroutine(py), LedgerTable::Executions, filter)
    }

    /// Rows of `job_notifications`, oldest first; arguments as `executions`.
    ///
    /// Returns:
    ///     A `Table`.
    #[pyo3(signature = (**filter), text_signature = "($self, *, since=None, until=None, job_id=None, status=None, flag=None)")]
    fn notifications(&self, py: Python<'_>, filter: Option<&Bound<'_, PyDict>>) -> PyOutcome {
        self.filtered(CallMode::Wait(py), LedgerTable::Notifications, filter)
    }

    /// Like `notifications`, as a coroutine.
    #[pyo3(signature = (**filter), text_signature = "($self, *, since=None, until=None, job_id=None, status=None, flag=None)")]
    fn notifications_async(&self, py: Python<'_>, filter: Option<&Bound<'_, PyDict>>) -> PyOutcome {
        self.filtered(CallMode::Coroutine(py), LedgerTable::Notifications, filter)
    }

    /// The attempts to deliver: rows of `autosys_deliveries`, oldest first.
    ///
    /// Args:
    ///     since: Only attempts at or after this time (with a timezone).
    ///     until: Only attempts before this time (with a timezone).
    ///
    /// Returns:
    ///     A `Table`.
    #[pyo3(signature = (*, since = None, until = None))]
    fn deliveries(&self, py: Python<'_>, since: Option<Moment>, until: Option<Moment>) -> PyOutcome {
        self.read(CallMode::Wait(py), move |ledger| ledger.deliveries(since.map(|at| at.0), until.map(|at| at.0)))
    }

    /// Like `deliveries`, as a coroutine.
    #[pyo3(signature = (*, since = None, until = None))]
    fn deliveries_async(&self, py: Python<'_>, since: Option<Moment>, until: Option<Moment>) -> PyOutcome {
        self.read(CallMode::Coroutine(py), move |ledger| ledger.deliveries(since.map(|at| at.0), until.map(|at| at.0)))
    }

    /// Which rows are pending, for how long, and how deliveries go.
    ///
    /// The cost depends on the pending rows and on the attempts since `since`. Acknowledged rows are counted from the log of
    /// the table. They are read only where another writer made a table that is not partitioned by the flag.
    ///
    /// Args:
    ///     since: Counts the attempts since then (with a timezone); those of the last 24 hours when not given.
    ///
    /// Returns:
    ///     A `LedgerSummary`.
    ///
    /// Example:
    ///     >>> import tempfile
    ///     >>> from jobrota import JobLedger
    ///     >>> ledger = JobLedger(tempfile.mkdtemp())
    ///     >>> ledger.log_job_completion("ae.sas", "PROD.AE", "SUCCESS")
    ///     >>> ledger.summary().pending_by_status
    ///     {'SUCCESS': 1}
    #[pyo3(signature = (*, since = None))]
    fn summary(&self, py: Python<'_>, since: Option<Moment>) -> PyOutcome {
        self.summary_in(CallMode::Wait(py), since)
    }

    /// Like `summary`, as a coroutine.
    #[pyo3(signature = (*, since = None))]
    fn summary_async(&self, py: Python<'_>, since: Option<Moment>) -> PyOutcome {
        self.summary_in(CallMode::Coroutine(py), since)
    }

    /// The parked rows: refused permanently, or `max_attempts` times. They stay `NO` and are skipped until
    /// `redrive` returns them or `settle_by_hand` settles them. Oldest first; identical rows are separate.
    ///
    /// Args:
    ///     table: `"job_notifications"` or `"autosys_job_log"`.
    ///
    /// Returns:
    ///     A `Table` with the columns that make a row of `table`, and `attempts` (how often it was tried),
    ///     `reason`, `parked_at` and `transport`.
    #[pyo3(signature = (*, table = LedgerTable::Notifications), text_signature = "($self, *, table='job_notifications')")]
    fn parked(&self, py: Python<'_>, table: LedgerTable) -> PyOutcome {
        self.read(CallMode::Wait(py), move |ledger| convert::parked_table(table, &ledger.parked(table)?))
    }

    /// Like `parked`, as a coroutine.
    #[pyo3(signature = (*, table = LedgerTable::Notifications), text_signature = "($self, *, table='job_notifications')")]
    fn parked_async(&self, py: Python<'_>, table: LedgerTable) -> PyOutcome {
        self.read(CallMode::Coroutine(py), move |ledger| convert::parked_table(table, &ledger.parked(table)?))
    }

    /// Returns parked rows to delivery: the next delivery sends them again, and their attempts count from the beginning.
    ///
    /// Args:
    ///     rows: Arrow data with the columns of `table`, as `parked` returns it; all parked rows when not given. Of
    ///         identical rows, as many as are given.
    ///     job_id: Of these only the rows of this job.
    ///     reason: The reason; it is recorded with the operator's name as an attempt `redriven`.
    ///     by: The operator; the user of this process when not given.
    ///     table: `"job_notifications"` or `"autosys_job_log"`.
    ///
    /// Returns:
    ///     How many rows are no longer parked. Rows that are not parked do not change.
    ///
    /// Raises:
    ///     InvalidInputError: A value is empty or too long. Nothing was written.
    ///     LeaseHeldError: Rows of the table are being delivered; trying again when that is done helps.
    #[pyo3(signature = (rows = None, *, job_id = None, reason = None, by = None, table = LedgerTable::Notifications),
           text_signature = "($self, rows=None, *, job_id=None, reason=None, by=None, table='job_notifications')")]
    fn redrive(
        &self,
        py: Python<'_>,
        rows: Option<Rows>,
        job_id: Option<Text>,
        reason: Option<Text>,
        by: Option<Text>,
        table: LedgerTable,
    ) -> PyOutcome {
        self.operate(CallMode::Wait(py), OperatorAction::Redrive(job_id), rows, reason, by, table)
    }

    /// Like `redrive`, as a coroutine.
    #[pyo3(signature = (rows = None, *, job_id = None, reason = None, by = None, table = LedgerTable::Notifications),
           text_signature = "($self, rows=None, *, job_id=None, reason=None, by=None, table='job_notifications')")]
    fn redrive_async(
        &self,
        py: Python<'_>,
        rows: Option<Rows>,
        job_id: Option<Text>,
        reason: Option<Text>,
        by: Option<Text>,
        table: LedgerTable,
    ) -> PyOutcome {
        self.operate(CallMode::Coroutine(py), OperatorAction::Redrive(job_id), rows, reason, by, table)
    }

    /// Settles pending rows manually: sets exactly these rows to `YES`, parked or not, together with the executions that
    /// they belong to, and records the operator's decision and reason as attempts `by_hand`.
    ///
    /// Calling it again settles nothing more, and continues where it was interrupted. Of n identical rows, k given settles at
    /// most k, parked ones first.
    ///
    /// Args:
    ///     rows: Arrow data with the columns of `table`, as the reading methods return them.
    ///     reason: The reason.
    ///     delivered: True: AutoSys has the event. False: AutoSys is not to get it.
    ///     by: The operator; the user of this process when not given.
    ///     table: `"job_notifications"` or `"autosys_job_log"`.
    ///
    /// Returns:
    ///     How many rows were set. Rows that are not pending do not change.
    ///
    /// Raises:
    ///     InvalidInputError: A value is empty or too long, or a column is missing. Nothing was written.
    ///     LeaseHeldError: Rows of the table are being delivered; trying again when that is done helps.
    ///
    /// Example:
    ///     >>> import tempfile
    ///     >>> from jobrota import JobLedger
    ///     >>> ledger = JobLedger(tempfile.mkdtemp())
    ///     >>> ledger.log_job_completion("ae.sas", "PROD.AE", "SUCCESS")
    ///     >>> ledger.settle_by_hand(ledger.pending_notifications(), reason="autorep shows SU", delivered=True)
    ///     1
    ///     >>> ledger.pending_notifications().num_rows
    ///     0
    #[pyo3(signature = (rows, *, reason, delivered, by = None, table = LedgerTable::Notifications),
           text_signature = "($self, rows, *, reason, delivered, by=None, table='job_notifications')")]
    fn settle_by_hand(
        &self,
        py: Python<'_>,
        rows: Rows,
        reason: Text,
        #[pyo3(from_py_with = arguments::flag)] delivered: bool,
        by: Option<Text>,
        table: LedgerTable,
    ) -> PyOutcome {
        let action = OperatorAction::Settle { delivered };
        self.operate(CallMode::Wait(py), action, Some(rows), Some(reason), by, table)
    }

    /// Like `settle_by_hand`, as a coroutine.
    #[pyo3(signature = (rows, *, reason, delivered, by = None, table = LedgerTable::Notifications),
           text_signature = "($self, rows, *, reason, delivered, by=None, table='job_notifications')")]
    fn settle_by_hand_async(
        &self,
        py: Python<'_>,
        rows: Rows,
        reason: Text,
        #[pyo3(from_py_with = arguments::flag)] delivered: bool,
        by: Option<Text>,
        table: LedgerTable,
    ) -> PyOutcome {
        let action = OperatorAction::Settle { delivered };
        self.operate(CallMode::Coroutine(py), action, Some(rows), Some(reason), by, table)
    }

    /// The executions that have been pending for long and have no notification of the same file and job at or after them:
    /// their driver was cancelled between the two. AutoSys does not get their status unless the notification is logged.
    ///
    /// Args:
    ///     older_than: The shortest time for which a row is pending: seconds, text such as `"90s"`, `"15m"`, `"1h30m"` or
    ///         `"2d"`, or a timedelta.
    ///
    /// Returns:
    ///     A `Table` with the columns of `autosys_job_log`, oldest first.
    #[pyo3(signature = (*, older_than = None), text_signature = "($self, *, older_than='1h')")]
    fn executions_without_notification(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::optional_seconds)] older_than: Option<f64>,
    ) -> PyOutcome {
        self.without_notification(CallMode::Wait(py), older_than)
    }

    /// Like `executions_without_notification`, as a coroutine.
    #[pyo3(signature = (*, older_than = None), text_signature = "($self, *, older_than='1h')")]
    fn executions_without_notification_async(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::optional_seconds)] older_than: Option<f64>,
    ) -> PyOutcome {
        self.without_notification(CallMode::Coroutine(py), older_than)
    }

    /// Imports the legacy JSON files of a folder into `job_notifications`, each record once.
    ///
    /// Reads the files `*.json`, `*.jsonl` and `*.ndjson` of the folder, but not of the folders in it: one object, a list, or
    /// JSON lines, such as `{"file_name": "data_file_001.csv", "job_id": "JOB_A", "status": "SUCCESS", "timestamp":
    /// "2025-04-16T09:01:05"}`. The ledger stores what was imported together with the rows, so an import can run again at any
    /// time, at the same time as others, and after it was killed. Files need not be moved, and can grow. The report lists
    /// what is wrong in a file. The rest is imported, and the next import reads the file again.
    ///
    /// Args:
    ///     folder: A local or mounted folder.
    ///     fields: The names of the fields in the files, such as `{"job_id": "jobName", "timestamp": "time"}`; keys are
    ///         `file_name`, `job_id`, `status`, `timestamp` and `autosys_update_flag`.
    ///     timezone: IANA name (or `zoneinfo.ZoneInfo`) for times without an offset; without it they are bad records. If
    ///         a local time occurs twice, because clocks are set back, the first one is used. A local time that did not exist
    ///         is a bad record.
    ///
    /// Returns:
    ///     An `ImportReport`.
    ///
    /// Raises:
    ///     InvalidInputError: The folder cannot be listed, or `fields` or `timezone` is unknown. Nothing was written.
    ///     ConflictError: Other writers won until `commit_timeout` was over; trying again can help, and continues the import.
    ///
    /// Example:
    ///     >>> import pathlib, tempfile
    ///     >>> from jobrota import JobLedger
    ///     >>> folder = pathlib.Path(tempfile.mkdtemp())
    ///     >>> line = '{"file_name": "a.csv", "job": "A", "status": "SUCCESS", "timestamp": "2025-04-16T09:01:05"}'
    ///     >>> _ = (folder / "a.json").write_text(line)
    ///     >>> ledger = JobLedger(tempfile.mkdtemp())
    ///     >>> ledger.import_json(folder, fields={"job_id": "job"}, timezone="Europe/Berlin").rows
    ///     1
    ///     >>> ledger.import_json(folder, fields={"job_id": "job"}, timezone="Europe/Berlin").rows
    ///     0
    #[pyo3(signature = (folder, *, fields = None, timezone = None))]
    fn import_json(
        &self,
        py: Python<'_>,
        folder: LocalPath,
        fields: Option<TextPairs>,
        timezone: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<PyImportReport> {
        let (ledger, options) = (self.core()?, import_options(fields, timezone)?);
        let stop = options.stop.clone();
        let work = runtime::blocking(move || ledger.import_json(&folder.0, &options));
        // At Ctrl-C the records read so far are committed. The next import reads the rest.
        Ok(wait::stoppable(py, work, || stop.stop())?.into())
    }

    /// Like `import_json`, as a coroutine.
    #[pyo3(signature = (folder, *, fields = None, timezone = None))]
    fn import_json_async(
        &self,
        py: Python<'_>,
        folder: LocalPath,
        fields: Option<TextPairs>,
        timezone: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome {
        let (ledger, options) = (self.core()?, import_options(fields, timezone)?);
        let work = move || ledger.import_json(&folder.0, &options);
        CallMode::Coroutine(py).run_blocking(work, |_, report| Ok(PyImportReport::from(report)))
    }

    /// Compacts small files, writes checkpoints, and deletes data files and log entries that no version of the last
    /// `retain_hours` needs, so that calls stay fast. Call it regularly, such as once a day.
    ///
    /// No row changes. It is safe while others log, read or acknowledge, here, in Spark or with `deltalake`, and next to
    /// another `maintain`. The report's `problems` list what could not be done. The rest is done.
    ///
    /// Args:
    ///     retain_hours: How long files and log entries that a table no longer needs are kept for readers of an older
    ///         version: hours (168 is a week), or a duration with a unit such as `"7d"`. With 0, a query that runs in another
    ///         client can find a file missing; files and log entries that can belong to a running writer are kept for an hour
    ///         in any case. A longer duration in a table's own properties takes precedence, and the report says so.
    ///
    /// Returns:
    ///     A `MaintenanceReport`.
    ///
    /// Raises:
    ///     InvalidInputError: `retain_hours` is negative or not a number.
    ///     NotFoundError: There is no ledger at the root.
    ///
    /// Example:
    ///     >>> import tempfile
    ///     >>> from jobrota import JobLedger
    ///     >>> ledger = JobLedger(tempfile.mkdtemp())
    ///     >>> for number in range(3):
    ///     ...     ledger.log_job_execution(f"{number}.sas", "PROD.AE", "SUCCESS")
    ///     >>> ledger.maintain().files_compacted
    ///     3
    #[pyo3(signature = (*, retain_hours = 168.0))]
    fn maintain(&self, py: Python<'_>, #[pyo3(from_py_with = arguments::hours)] retain_hours: f64) -> PyOutcome {
        self.maintain_in(CallMode::Wait(py), retain_hours)
    }

    /// Like `maintain`, as a coroutine.
    #[pyo3(signature = (*, retain_hours = 168.0))]
    fn maintain_async(&self, py: Python<'_>, #[pyo3(from_py_with = arguments::hours)] retain_hours: f64) -> PyOutcome {
        self.maintain_in(CallMode::Coroutine(py), retain_hours)
    }

    /// A context manager that logs an execution and a notification when its body ends. `async with` works as well.
    ///
    /// `SUCCESS` when the body ends normally, `FAILURE` when it raises. The exception continues.
    ///
    /// Args:
    ///     file_name: The file that is processed.
    ///     job_id: The AutoSys job.
    ///
    /// Returns:
    ///     The context manager.
    ///
    /// Example:
    ///     >>> import tempfile
    ///     >>> from jobrota import JobLedger
    ///     >>> ledger = JobLedger(tempfile.mkdtemp())
    ///     >>> with ledger.track("ae.sas", "PROD.AE"):
    ///     ...     pass
    ///     >>> ledger.pending_notifications()["status"].to_pylist()
    ///     ['SUCCESS']
    fn track(&self, file_name: Text, job_id: Text) -> PyOutcome<PyTrack> {
        let ledger = self.core()?;
        ledger::check_names(&file_name.0, &job_id.0)?;
        Ok(PyTrack { ledger, guard: self.guard, file_name: file_name.0, job_id: job_id.0 })
    }

    fn __repr__(&self) -> String {
        format!("JobLedger({:?})", self.ledger.root())
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let data = PyDict::new(py);
        data.set_item("root", self.ledger.root())?;
        let ledger = self.core().map_err(|error| to_py(py, &error))?;
        match py.detach(|| ledger.summary(None, None)) {
            Ok(summary) => {
                let summary = Bound::new(py, PyLedgerSummary(summary))?;
                data.set_item("summary", PyLedgerSummary::to_dict(&summary)?)?;
            }
            // A notebook also shows a ledger without rows. Say why there are no counts.
            Err(error) => data.set_item("error", error.full_message())?,
        }
        convert::repr_html(py, "ledger", data)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.held.traverse(&visit, self.ledger.is_shared())
    }
}
