//! `JobLedger`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::arguments;
use super::by_hand::{self, ByHand};
use super::convert;
use super::errors::{PyOutcome, Raised};
use super::import_report::{self, PyImportReport};
use super::ledger_summary::{PyLedgerSummary, summary_dict};
use super::maintenance_report::{PyMaintenanceReport, warn_when_overdue};
use super::track::PyTrack;
use super::wait::{self, Born};
use crate::error::{Error, Result};
use crate::ledger::{self, LedgerTable, RowFilter};
use crate::runtime;
use crate::storage::{Durability, Requests};

/// Job executions and notifications in Delta tables, so that no AutoSys update is ever lost.
///
/// The first log call creates the tables; reading a ledger that does not exist is an error. A ledger may be used from
/// many threads, processes and Spark clusters at once.
///
/// Args:
///     root: The directory or URI that holds (or will hold) the tables: a path on a local disk (`~/` is the home directory),
///         `abfss://container@account.dfs.core.windows.net/path`, `az://container/path`, `s3://bucket/path` or
///         `gs://bucket/path`. The container or bucket must exist. Credentials do not belong in it.
///     storage_options: Credentials and settings of the store behind `root`, by the names that object_store and deltalake
///         have for them: `azure_storage_account_key`, `azure_client_id`, `aws_access_key_id`, `aws_endpoint`,
///         `google_service_account`, `allow_http`, `timeout` and so on (all of them are in `docs/storage.md`). What they
///         leave open comes from the environment (`AZURE_…`, `AWS_…`, `GOOGLE_…`). Unknown names are an error.
///         `request_delay` is one for every store: the seconds (0 to 60) that each request waits before it is sent, to
///         try out on a local disk how a remote store feels.
///     durability: What a row survives whose call returned. `"store"`: the end of every process (SIGKILL), as the store
///         has acknowledged it. `"fsync"`: on a local disk a power cut too, as it is synced with all that it takes to read
///         it; an object store's acknowledgement says as much, so that there both are the same.
///     commit_timeout: How many seconds a call goes on when other writers win every race for the next version. Without
///         it, it goes on until it wins; with it, it raises a retryable `ConflictError` that names the winner.
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
///     >>> ledger.fetch_unprocessed_updates().num_rows
///     1
#[pyclass(module = "jobrota", name = "JobLedger", frozen)]
pub(super) struct PyJobLedger {
    pub(super) ledger: ledger::JobLedger,
    born: Born,
}

impl PyJobLedger {
    pub(super) fn core(&self) -> Result<ledger::JobLedger> {
        self.born.check("JobLedger")?;
        Ok(self.ledger.clone())
    }

    fn read(
        &self,
        py: Python<'_>,
        read: impl FnOnce(&ledger::JobLedger) -> Result<RecordBatch> + Send,
    ) -> PyOutcome<Py<PyAny>> {
        let ledger = self.core()?;
        let batch = wait::blocking(py, || read(&ledger))?;
        warn_when_overdue(py, &ledger)?;
        convert::table(py, batch)
    }

    fn read_async<'py>(
        &self,
        py: Python<'py>,
        read: impl FnOnce(&ledger::JobLedger) -> Result<RecordBatch> + Send + 'static,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let ledger = self.core()?;
        let reading = ledger.clone();
        wait::awaitable(py, runtime::blocking(move || read(&reading)), move |py, batch| {
            warn_when_overdue(py, &ledger)?;
            convert::table(py, batch)
        })
    }
}

pub(super) fn table_named(name: &str) -> Result<LedgerTable> {
    match name {
        "job_notifications" => Ok(LedgerTable::Notifications),
        "autosys_job_log" => Ok(LedgerTable::Executions),
        other => {
            Err(Error::invalid(format!("table must be \"job_notifications\" or \"autosys_job_log\", not \"{other}\"")))
        }
    }
}

/// For how long an execution may be without its notification, unless it is said.
const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

/// What both log calls are about.
fn values<'a>(
    file_name: &'a Bound<'_, PyAny>,
    job_id: &'a Bound<'_, PyAny>,
    status: &'a Bound<'_, PyAny>,
) -> PyOutcome<(&'a str, &'a str, &'a str)> {
    let (file_name, job_id) = names(file_name, job_id)?;
    Ok((file_name, job_id, convert::text_argument("status", status)?))
}

fn names<'a>(file_name: &'a Bound<'_, PyAny>, job_id: &'a Bound<'_, PyAny>) -> PyOutcome<(&'a str, &'a str)> {
    Ok((convert::text_argument("file_name", file_name)?, convert::text_argument("job_id", job_id)?))
}

fn table_argument(value: &Bound<'_, PyAny>) -> PyResult<&'static str> {
    Ok(convert::choice("table", value, &["job_notifications", "autosys_job_log"])?)
}

fn durability_argument(value: &Bound<'_, PyAny>) -> PyResult<Durability> {
    let text = value.cast::<PyString>().ok().and_then(|text| text.to_str().ok());
    match text {
        Some("store") => Ok(Durability::Store),
        Some("fsync") => Ok(Durability::Fsync),
        _ => {
            let given = value.repr().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
            // The argument's name is put in front of it.
            Err(Raised::from(Error::invalid(format!("must be \"store\" or \"fsync\", not {given}"))).into())
        }
    }
}

fn pending_filter(limit: Option<&Bound<'_, PyAny>>, job_id: Option<&Bound<'_, PyAny>>) -> PyOutcome<RowFilter> {
    let (limit, job_id) = (convert::limit("limit", limit)?, convert::optional_text("job_id", job_id)?);
    Ok(RowFilter { job_id, limit, flag: Some("NO".into()), ..RowFilter::default() })
}

fn row_filter(
    since: Option<&Bound<'_, PyAny>>,
    until: Option<&Bound<'_, PyAny>>,
    job_id: Option<&Bound<'_, PyAny>>,
    status: Option<&Bound<'_, PyAny>>,
    flag: Option<&Bound<'_, PyAny>>,
) -> PyOutcome<RowFilter> {
    Ok(RowFilter {
        since: convert::utc("since", since)?,
        until: convert::utc("until", until)?,
        job_id: convert::optional_text("job_id", job_id)?,
        status: convert::optional_text("status", status)?,
        flag: convert::optional_text("flag", flag)?,
        limit: None,
    })
}

#[pymethods]
impl PyJobLedger {
    #[new]
    #[pyo3(signature = (root, *, storage_options = None, durability = Durability::Store, commit_timeout = None),
           text_signature = "(root, *, storage_options=None, durability='store', commit_timeout=None)")]
    fn new(
        py: Python<'_>,
        root: &Bound<'_, PyAny>,
        storage_options: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = durability_argument)] durability: Durability,
        commit_timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Self> {
        let root = convert::path_text(root)?;
        let commit_timeout = convert::seconds_argument("commit_timeout", commit_timeout)?;
        let options = convert::storage_options(storage_options)?.unwrap_or_default();
        let ledger = wait::blocking(py, || ledger::JobLedger::open_with(&root, &options, durability, commit_timeout))?;
        Ok(Self { ledger, born: Born::here() })
    }

    /// The root as it was given.
    #[getter]
    fn root(&self) -> &str {
        self.ledger.root()
    }

    /// How many requests went to the store since the ledger was opened: what a call costs on a remote store is mostly
    /// their number. Reading this asks the store for nothing. Checkpoints, written in the background, count too.
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
        let Requests { get, put, list, head, delete, copy } = self.ledger.requests();
        let counts = PyDict::new(py);
        for (kind, count) in
            [("get", get), ("put", put), ("list", list), ("head", head), ("delete", delete), ("copy", copy)]
        {
            counts.set_item(kind, count)?;
        }
        Ok(counts)
    }

    /// Logs one job execution with the flag `NO`. The row is durable when the call returns.
    ///
    /// Args:
    ///     file_name: The file that was processed; any text of 1 to 4,096 bytes, kept verbatim.
    ///     job_id: The AutoSys job; any text of 1 to 1,024 bytes, kept verbatim.
    ///     status: How it ended; any non-empty text, case matters.
    ///     execution_timestamp: When, with a timezone; now when not given.
    ///
    /// Raises:
    ///     InvalidInputError: A value is empty or too long, or the timestamp is naive. Nothing was written.
    ///     ConflictError: Other writers won until `commit_timeout` was over; trying again can help.
    #[pyo3(signature = (file_name, job_id, status, *, execution_timestamp = None))]
    fn log_job_execution(
        &self,
        py: Python<'_>,
        file_name: &Bound<'_, PyAny>,
        job_id: &Bound<'_, PyAny>,
        status: &Bound<'_, PyAny>,
        execution_timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<()> {
        let (file_name, job_id, status) = values(file_name, job_id, status)?;
        let at = convert::utc("execution_timestamp", execution_timestamp)?;
        let ledger = self.core()?;
        wait::blocking(py, || ledger.log_job_execution(file_name, job_id, status, at))
    }

    /// Like `log_job_execution`, as a coroutine.
    #[pyo3(signature = (file_name, job_id, status, *, execution_timestamp = None))]
    fn log_job_execution_async<'py>(
        &self,
        py: Python<'py>,
        file_name: &Bound<'_, PyAny>,
        job_id: &Bound<'_, PyAny>,
        status: &Bound<'_, PyAny>,
        execution_timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let (file_name, job_id, status) = values(file_name, job_id, status)?;
        let (file_name, job_id, status) = (file_name.to_owned(), job_id.to_owned(), status.to_owned());
        let at = convert::utc("execution_timestamp", execution_timestamp)?;
        let ledger = self.core()?;
        let work = async move { ledger.log_async(LedgerTable::Executions, &file_name, &job_id, &status, at).await };
        wait::awaitable(py, work, |_, ()| Ok(()))
    }

    /// Logs one notification for AutoSys with the flag `NO`. The row is durable when the call returns.
    ///
    /// Args:
    ///     file_name: The file that was processed; any text of 1 to 4,096 bytes, kept verbatim.
    ///     job_id: The AutoSys job; any text of 1 to 1,024 bytes, kept verbatim. A name that AutoSys would refuse is
    ///         kept here and parked at delivery.
    ///     status: How it ended; any non-empty text, case matters.
    ///     notification_timestamp: When, with a timezone; now when not given.
    ///
    /// Raises:
    ///     InvalidInputError: A value is empty or too long, or the timestamp is naive. Nothing was written.
    ///     ConflictError: Other writers won until `commit_timeout` was over; trying again can help.
    #[pyo3(signature = (file_name, job_id, status, *, notification_timestamp = None))]
    fn log_job_completion(
        &self,
        py: Python<'_>,
        file_name: &Bound<'_, PyAny>,
        job_id: &Bound<'_, PyAny>,
        status: &Bound<'_, PyAny>,
        notification_timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<()> {
        let (file_name, job_id, status) = values(file_name, job_id, status)?;
        let at = convert::utc("notification_timestamp", notification_timestamp)?;
        let ledger = self.core()?;
        wait::blocking(py, || ledger.log_job_completion(file_name, job_id, status, at))
    }

    /// Like `log_job_completion`, as a coroutine.
    #[pyo3(signature = (file_name, job_id, status, *, notification_timestamp = None))]
    fn log_job_completion_async<'py>(
        &self,
        py: Python<'py>,
        file_name: &Bound<'_, PyAny>,
        job_id: &Bound<'_, PyAny>,
        status: &Bound<'_, PyAny>,
        notification_timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let (file_name, job_id, status) = values(file_name, job_id, status)?;
        let (file_name, job_id, status) = (file_name.to_owned(), job_id.to_owned(), status.to_owned());
        let at = convert::utc("notification_timestamp", notification_timestamp)?;
        let ledger = self.core()?;
        let work = async move { ledger.log_async(LedgerTable::Notifications, &file_name, &job_id, &status, at).await };
        wait::awaitable(py, work, |_, ()| Ok(()))
    }

    /// Logs many executions in one commit.
    ///
    /// Args:
    ///     rows: Arrow data with the columns `file_name`, `job_id`, `status` and, if wanted, `execution_timestamp`
    ///         (with a timezone; now) and `autosys_update_flag` (`NO`).
    ///
    /// Returns:
    ///     How many rows were logged.
    ///
    /// Raises:
    ///     InvalidInputError: A column is missing, unknown or of the wrong type, or a value is refused. Nothing was
    ///         written.
    fn log_executions(&self, py: Python<'_>, rows: &Bound<'_, PyAny>) -> PyOutcome<u64> {
        let (ledger, batch) = (self.core()?, convert::batch("rows", rows)?);
        wait::blocking(py, || ledger.log_batch(LedgerTable::Executions, &batch))
    }

    /// Logs many notifications in one commit; columns as `log_executions`, with `notification_timestamp`.
    ///
    /// Args:
    ///     rows: Arrow data with the columns `file_name`, `job_id`, `status` and, if wanted, `notification_timestamp`
    ///         (with a timezone; now) and `autosys_update_flag` (`NO`).
    ///
    /// Returns:
    ///     How many rows were logged.
    fn log_notifications(&self, py: Python<'_>, rows: &Bound<'_, PyAny>) -> PyOutcome<u64> {
        let (ledger, batch) = (self.core()?, convert::batch("rows", rows)?);
        wait::blocking(py, || ledger.log_batch(LedgerTable::Notifications, &batch))
    }

    /// The executions that AutoSys has not been told of (flag exactly `NO`), oldest first.
    ///
    /// Args:
    ///     limit: At most so many rows.
    ///     job_id: Only those of this job.
    ///
    /// Returns:
    ///     An `arro3.core.Table` with the columns of `autosys_job_log`.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn fetch_unprocessed_updates(
        &self,
        py: Python<'_>,
        limit: Option<&Bound<'_, PyAny>>,
        job_id: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Py<PyAny>> {
        let filter = pending_filter(limit, job_id)?;
        self.read(py, |ledger| ledger.rows(LedgerTable::Executions, &filter))
    }

    /// Like `fetch_unprocessed_updates`, as a coroutine.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn fetch_unprocessed_updates_async<'py>(
        &self,
        py: Python<'py>,
        limit: Option<&Bound<'_, PyAny>>,
        job_id: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let filter = pending_filter(limit, job_id)?;
        self.read_async(py, move |ledger| ledger.rows(LedgerTable::Executions, &filter))
    }

    /// The notifications that still have to be delivered (flag exactly `NO`), oldest first.
    ///
    /// Args:
    ///     limit: At most so many rows.
    ///     job_id: Only those of this job.
    ///
    /// Returns:
    ///     An `arro3.core.Table` with the columns of `job_notifications`.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn pending_notifications(
        &self,
        py: Python<'_>,
        limit: Option<&Bound<'_, PyAny>>,
        job_id: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Py<PyAny>> {
        let filter = pending_filter(limit, job_id)?;
        self.read(py, |ledger| ledger.rows(LedgerTable::Notifications, &filter))
    }

    /// Like `pending_notifications`, as a coroutine.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn pending_notifications_async<'py>(
        &self,
        py: Python<'py>,
        limit: Option<&Bound<'_, PyAny>>,
        job_id: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let filter = pending_filter(limit, job_id)?;
        self.read_async(py, move |ledger| ledger.rows(LedgerTable::Notifications, &filter))
    }

    /// Sets every pending execution of this file and job to `YES`, as today's notebooks do.
    ///
    /// Prefer `acknowledge`, which sets exactly the rows that were delivered.
    ///
    /// Args:
    ///     file_name: The file.
    ///     job_id: The job.
    ///
    /// Returns:
    ///     How many rows were set.
    fn update_autosys_flag(
        &self,
        py: Python<'_>,
        file_name: &Bound<'_, PyAny>,
        job_id: &Bound<'_, PyAny>,
    ) -> PyOutcome<u64> {
        let (file_name, job_id) = names(file_name, job_id)?;
        let ledger = self.core()?;
        wait::blocking(py, || ledger.update_autosys_flag(file_name, job_id))
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
    #[pyo3(signature = (rows, *, table = "job_notifications"))]
    fn acknowledge(
        &self,
        py: Python<'_>,
        rows: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = table_argument)] table: &'static str,
    ) -> PyOutcome<u64> {
        let (ledger, table, batch) = (self.core()?, table_named(table)?, convert::batch("rows", rows)?);
        wait::blocking(py, || ledger.acknowledge(table, &ledger::JobLedger::rows_from_batch(table, &batch)?))
    }

    /// Like `acknowledge`, as a coroutine.
    #[pyo3(signature = (rows, *, table = "job_notifications"))]
    fn acknowledge_async<'py>(
        &self,
        py: Python<'py>,
        rows: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = table_argument)] table: &'static str,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let (ledger, table, batch) = (self.core()?, table_named(table)?, convert::batch("rows", rows)?);
        let work =
            runtime::blocking(move || ledger.acknowledge(table, &ledger::JobLedger::rows_from_batch(table, &batch)?));
        wait::awaitable(py, work, |_, count| Ok(count))
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
    ///     An `arro3.core.Table`.
    #[pyo3(signature = (*, since = None, until = None, job_id = None, status = None, flag = None))]
    #[allow(clippy::too_many_arguments, reason = "one per keyword of the Python method")]
    fn executions(
        &self,
        py: Python<'_>,
        since: Option<&Bound<'_, PyAny>>,
        until: Option<&Bound<'_, PyAny>>,
        job_id: Option<&Bound<'_, PyAny>>,
        status: Option<&Bound<'_, PyAny>>,
        flag: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Py<PyAny>> {
        let filter = row_filter(since, until, job_id, status, flag)?;
        self.read(py, |ledger| ledger.rows(LedgerTable::Executions, &filter))
    }

    /// Rows of `job_notifications`, oldest first; arguments as `executions`.
    ///
    /// Returns:
    ///     An `arro3.core.Table`.
    #[pyo3(signature = (*, since = None, until = None, job_id = None, status = None, flag = None))]
    #[allow(clippy::too_many_arguments, reason = "one per keyword of the Python method")]
    fn notifications(
        &self,
        py: Python<'_>,
        since: Option<&Bound<'_, PyAny>>,
        until: Option<&Bound<'_, PyAny>>,
        job_id: Option<&Bound<'_, PyAny>>,
        status: Option<&Bound<'_, PyAny>>,
        flag: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Py<PyAny>> {
        let filter = row_filter(since, until, job_id, status, flag)?;
        self.read(py, |ledger| ledger.rows(LedgerTable::Notifications, &filter))
    }

    /// The attempts to deliver: rows of `autosys_deliveries`, oldest first.
    ///
    /// Args:
    ///     since: Only attempts at or after this time (with a timezone).
    ///     until: Only attempts before this time (with a timezone).
    ///
    /// Returns:
    ///     An `arro3.core.Table`.
    #[pyo3(signature = (*, since = None, until = None))]
    fn deliveries(
        &self,
        py: Python<'_>,
        since: Option<&Bound<'_, PyAny>>,
        until: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Py<PyAny>> {
        let (since, until) = (convert::utc("since", since)?, convert::utc("until", until)?);
        self.read(py, |ledger| ledger.deliveries(since, until))
    }

    /// What is pending, for how long, and how deliveries go.
    ///
    /// Costs by what is pending and by the attempts since `since`. Rows that are acknowledged are counted from the table's
    /// log; they are read only where a table (of somebody else) is not partitioned by the flag.
    ///
    /// Args:
    ///     since: Attempts since then are counted (with a timezone); those of the last 24 hours when not given.
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
    fn summary(&self, py: Python<'_>, since: Option<&Bound<'_, PyAny>>) -> PyOutcome<PyLedgerSummary> {
        let (ledger, since) = (self.core()?, convert::utc("since", since)?);
        Ok(PyLedgerSummary::from(wait::blocking(py, || ledger.summary(since, None))?))
    }

    /// Like `summary`, as a coroutine.
    #[pyo3(signature = (*, since = None))]
    fn summary_async<'py>(&self, py: Python<'py>, since: Option<&Bound<'_, PyAny>>) -> PyOutcome<Bound<'py, PyAny>> {
        let (ledger, since) = (self.core()?, convert::utc("since", since)?);
        let work = runtime::blocking(move || ledger.summary(since, None));
        wait::awaitable(py, work, |_, summary| Ok(PyLedgerSummary::from(summary)))
    }

    /// The pending rows that were given up: refused for good, or `max_attempts` times. They stay `NO` and are skipped until
    /// `redrive` returns them or `settle_by_hand` settles them. Oldest first; identical rows are separate.
    ///
    /// Args:
    ///     table: `"job_notifications"` or `"autosys_job_log"`.
    ///
    /// Returns:
    ///     An `arro3.core.Table` with the columns that make a row of `table`, and `attempts` (how often it was tried),
    ///     `reason`, `parked_at` and `transport`.
    #[pyo3(signature = (*, table = "job_notifications"))]
    fn parked(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = table_argument)] table: &'static str,
    ) -> PyOutcome<Py<PyAny>> {
        let table = table_named(table)?;
        self.read(py, |ledger| by_hand::parked(table, &ledger.parked(table)?))
    }

    /// Like `parked`, as a coroutine.
    #[pyo3(signature = (*, table = "job_notifications"))]
    fn parked_async<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = table_argument)] table: &'static str,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let table = table_named(table)?;
        self.read_async(py, move |ledger| by_hand::parked(table, &ledger.parked(table)?))
    }

    /// Returns rows that were given up: the next delivery sends them again, and their attempts count from the beginning.
    ///
    /// Args:
    ///     rows: Arrow data with the columns of `table`, as `parked` returns it; all parked rows when not given. Of
    ///         identical rows, as many as are given.
    ///     job_id: Of these only the rows of this job.
    ///     reason: Why; it is recorded with who did it as an attempt `redriven`.
    ///     by: Who does it; the user of this process when not given.
    ///     table: `"job_notifications"` or `"autosys_job_log"`.
    ///
    /// Returns:
    ///     How many rows are parked no more. Rows that are not parked are left as they are.
    ///
    /// Raises:
    ///     InvalidInputError: A value is empty or too long. Nothing was written.
    ///     LeaseHeldError: Rows of the table are being delivered; trying again when that is done helps.
    #[pyo3(signature = (rows = None, *, job_id = None, reason = None, by = None, table = "job_notifications"))]
    #[allow(clippy::too_many_arguments, reason = "one per argument of the Python method")]
    fn redrive(
        &self,
        py: Python<'_>,
        rows: Option<&Bound<'_, PyAny>>,
        job_id: Option<&Bound<'_, PyAny>>,
        reason: Option<&Bound<'_, PyAny>>,
        by: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = table_argument)] table: &'static str,
    ) -> PyOutcome<u64> {
        let (ledger, act) = (self.core()?, ByHand::redriving(py, rows, job_id, reason, by, table)?);
        wait::blocking(py, || act.redrive(&ledger))
    }

    /// Like `redrive`, as a coroutine.
    #[pyo3(signature = (rows = None, *, job_id = None, reason = None, by = None, table = "job_notifications"))]
    #[allow(clippy::too_many_arguments, reason = "one per argument of the Python method")]
    fn redrive_async<'py>(
        &self,
        py: Python<'py>,
        rows: Option<&Bound<'_, PyAny>>,
        job_id: Option<&Bound<'_, PyAny>>,
        reason: Option<&Bound<'_, PyAny>>,
        by: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = table_argument)] table: &'static str,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let (ledger, act) = (self.core()?, ByHand::redriving(py, rows, job_id, reason, by, table)?);
        wait::awaitable(py, runtime::blocking(move || act.redrive(&ledger)), |_, count| Ok(count))
    }

    /// Settles pending rows by hand: sets exactly these rows to `YES`, parked or not, together with the executions that
    /// they speak of, and records who decided so and why as attempts `by_hand`.
    ///
    /// Calling it again settles nothing more, and goes on where it was interrupted. Of n identical rows, k given settles at
    /// most k, parked ones first.
    ///
    /// Args:
    ///     rows: Arrow data with the columns of `table`, as the reading methods return them.
    ///     reason: Why.
    ///     delivered: True: AutoSys is known to have the event. False: it is not to get it.
    ///     by: Who decided so; the user of this process when not given.
    ///     table: `"job_notifications"` or `"autosys_job_log"`.
    ///
    /// Returns:
    ///     How many rows were set. Rows that are not pending are left as they are.
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
    #[pyo3(signature = (rows, *, reason, delivered, by = None, table = "job_notifications"))]
    #[allow(clippy::too_many_arguments, reason = "one per argument of the Python method")]
    fn settle_by_hand(
        &self,
        py: Python<'_>,
        rows: &Bound<'_, PyAny>,
        reason: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = arguments::flag)] delivered: bool,
        by: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = table_argument)] table: &'static str,
    ) -> PyOutcome<u64> {
        let (ledger, act) = (self.core()?, ByHand::settling(py, rows, reason, by, table)?);
        wait::blocking(py, || act.settle(&ledger, delivered))
    }

    /// Like `settle_by_hand`, as a coroutine.
    #[pyo3(signature = (rows, *, reason, delivered, by = None, table = "job_notifications"))]
    #[allow(clippy::too_many_arguments, reason = "one per argument of the Python method")]
    fn settle_by_hand_async<'py>(
        &self,
        py: Python<'py>,
        rows: &Bound<'_, PyAny>,
        reason: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = arguments::flag)] delivered: bool,
        by: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = table_argument)] table: &'static str,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let (ledger, act) = (self.core()?, ByHand::settling(py, rows, reason, by, table)?);
        wait::awaitable(py, runtime::blocking(move || act.settle(&ledger, delivered)), |_, count| Ok(count))
    }

    /// The executions that are pending for long and have no notification of the same file and job at or after them: their
    /// driver was cancelled between the two. AutoSys will not hear of them unless somebody logs the notification.
    ///
    /// Args:
    ///     older_than: For how long at least: seconds, or text such as `"90s"`, `"15m"`, `"1h"` or `"2d"`.
    ///
    /// Returns:
    ///     An `arro3.core.Table` with the columns of `autosys_job_log`, oldest first.
    #[pyo3(signature = (*, older_than = None), text_signature = "($self, *, older_than='1h')")]
    fn executions_without_notification(
        &self,
        py: Python<'_>,
        older_than: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Py<PyAny>> {
        let older_than = older_than.map_or(Ok(HOUR), |value| convert::duration("older_than", value))?;
        self.read(py, |ledger| ledger.executions_without_notification(older_than))
    }

    /// Like `executions_without_notification`, as a coroutine.
    #[pyo3(signature = (*, older_than = None), text_signature = "($self, *, older_than='1h')")]
    fn executions_without_notification_async<'py>(
        &self,
        py: Python<'py>,
        older_than: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let older_than = older_than.map_or(Ok(HOUR), |value| convert::duration("older_than", value))?;
        self.read_async(py, move |ledger| ledger.executions_without_notification(older_than))
    }

    /// Imports the legacy JSON files of a folder into `job_notifications`, each record once.
    ///
    /// The files `*.json`, `*.jsonl` and `*.ndjson` of the folder, not of the folders in it: one object, a list, or JSON
    /// lines, such as `{"file_name": "data_file_001.csv", "job_id": "JOB_A", "status": "SUCCESS", "timestamp":
    /// "2025-04-16T09:01:05"}`. What was imported is remembered in the ledger together with the rows, so that an import
    /// can run again at any time, at once with others, and after having been killed; files need not be moved. A file may
    /// grow. What is wrong in a file is reported and stops nothing else; it is looked at again by the next import.
    ///
    /// Args:
    ///     folder: A local or mounted folder.
    ///     fields: What the files call our fields, such as `{"job_id": "jobName", "timestamp": "time"}`; keys are
    ///         `file_name`, `job_id`, `status`, `timestamp` and `autosys_update_flag`.
    ///     timezone: IANA name (or `zoneinfo.ZoneInfo`) for times without an offset; without it they are bad records. Of
    ///         a local time that came twice, as clocks were put back, the first one is taken; one that never was is bad.
    ///
    /// Returns:
    ///     An `ImportReport`.
    ///
    /// Raises:
    ///     InvalidInputError: The folder cannot be listed, or `fields` or `timezone` is unknown. Nothing was written.
    ///     ConflictError: Other writers won until `commit_timeout` was over; trying again can help, and goes on.
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
        folder: &Bound<'_, PyAny>,
        fields: Option<&Bound<'_, PyAny>>,
        timezone: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<PyImportReport> {
        let (ledger, folder) = (self.core()?, convert::local_path("folder", folder)?);
        let options = import_report::options(fields, timezone)?;
        let stop = Arc::clone(&options.stop);
        let work = runtime::blocking(move || ledger.import_json(&folder, &options));
        // Ctrl-C: what was read so far is committed, the rest is for the next import.
        Ok(wait::stoppable(py, work, || stop.store(true, Ordering::Relaxed))?.into())
    }

    /// Like `import_json`, as an awaitable.
    #[pyo3(signature = (folder, *, fields = None, timezone = None))]
    fn import_json_async<'py>(
        &self,
        py: Python<'py>,
        folder: &Bound<'_, PyAny>,
        fields: Option<&Bound<'_, PyAny>>,
        timezone: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let (ledger, folder) = (self.core()?, convert::local_path("folder", folder)?);
        let options = import_report::options(fields, timezone)?;
        let work = runtime::blocking(move || ledger.import_json(&folder, &options));
        wait::awaitable(py, work, |_, report| Ok(PyImportReport::from(report)))
    }

    /// Keeps the ledger as quick as it was on its first day; to be called regularly, such as once a day.
    ///
    /// Compacts small files, writes checkpoints, and deletes data files and log entries that no version of the last
    /// `retain_hours` needs. No row is changed. Safe next to everyone who logs, reads or acknowledges, here, in Spark or
    /// with `deltalake`, and next to another `maintain`. What cannot be done is in the report's `problems`; the rest is.
    ///
    /// Args:
    ///     retain_hours: For how many hours what a table does not need any more is kept, for those who read an older version
    ///         (168 is a week). With 0, a query that is under way in another client may find a file gone; files and log
    ///         entries that may belong to a writer under way are kept for an hour all the same. A longer duration that a
    ///         table's own properties ask for wins, and the report says so.
    ///
    /// Returns:
    ///     A `MaintenanceReport`.
    ///
    /// Raises:
    ///     InvalidInputError: `retain_hours` is negative or no number.
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
    fn maintain(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::number)] retain_hours: f64,
    ) -> PyOutcome<PyMaintenanceReport> {
        let ledger = self.core()?;
        Ok(wait::future(py, runtime::blocking(move || ledger.maintain(retain_hours)))?.into())
    }

    /// Like `maintain`, as an awaitable.
    #[pyo3(signature = (*, retain_hours = 168.0))]
    fn maintain_async<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::number)] retain_hours: f64,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let ledger = self.core()?;
        let work = runtime::blocking(move || ledger.maintain(retain_hours));
        wait::awaitable(py, work, |_, report| Ok(PyMaintenanceReport::from(report)))
    }

    /// A context manager that logs an execution and a notification when its body ends.
    ///
    /// `SUCCESS` when the body ends normally, `FAILURE` when it raises; the exception goes on.
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
    fn track(&self, file_name: &Bound<'_, PyAny>, job_id: &Bound<'_, PyAny>) -> PyOutcome<PyTrack> {
        let ledger = self.core()?;
        let (file_name, job_id) = names(file_name, job_id)?;
        ledger::check_names(file_name, job_id)?;
        Ok(PyTrack::new(ledger, self.born, file_name.to_owned(), job_id.to_owned()))
    }

    fn __repr__(&self) -> String {
        format!("JobLedger({:?})", self.ledger.root())
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let data = PyDict::new(py);
        data.set_item("root", self.ledger.root())?;
        let ledger = self.core().map_err(|e| super::errors::to_py(py, &e))?;
        match py.detach(|| ledger.summary(None, None)) {
            Ok(summary) => data.set_item("summary", summary_dict(py, &summary)?)?,
            // A notebook shows an object before its first row is logged, too: say why there is nothing to show.
            Err(error) => data.set_item("error", error.full_message())?,
        }
        convert::repr_html(py, "ledger", data)
    }
}
