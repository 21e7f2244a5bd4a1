//! `JobLedger`.

use arrow::array::RecordBatch;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert::{self, Options};
use super::errors::PyOutcome;
use super::ledger_summary::{PyLedgerSummary, summary_dict};
use super::track::PyTrack;
use super::wait::{self, Born};
use crate::error::{Error, Result};
use crate::ledger::{self, LedgerTable, RowFilter};
use crate::runtime;

/// Job executions and notifications in Delta tables, so that no AutoSys update is ever lost.
///
/// The first log call creates the tables; reading a ledger that does not exist is an error. A ledger may be used from
/// many threads, processes and Spark clusters at once.
///
/// Args:
///     root: The directory that holds (or will hold) the tables.
///     storage_options: Options for the store behind `root`; none are needed for local directories.
///     durability: `"store"`: a row whose call returned is acknowledged by the store and survives SIGKILL.
///     commit_timeout: How many seconds a call goes on when other writers win every race for the next version. Without
///         it, it goes on until it wins; with it, it raises a retryable `ConflictError` that names the winner.
///
/// Raises:
///     InvalidInputError: `root` is empty or a file.
///     UnsupportedError: `root` is on a file system without atomic creation (`/dbfs`, `/Volumes`, `/Workspace`), or of a
///         scheme that this version does not have; or a table there has a feature that cannot be written, which is named.
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
        convert::table(py, wait::blocking(py, || read(&ledger))?)
    }

    fn read_async<'py>(
        &self,
        py: Python<'py>,
        read: impl FnOnce(&ledger::JobLedger) -> Result<RecordBatch> + Send + 'static,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let ledger = self.core()?;
        wait::awaitable(py, runtime::blocking(move || read(&ledger)), convert::table)
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

fn pending_filter(limit: Option<usize>, job_id: Option<String>) -> RowFilter {
    RowFilter { job_id, limit, flag: Some("NO".into()), ..RowFilter::default() }
}

fn row_filter(
    since: Option<&Bound<'_, PyAny>>,
    until: Option<&Bound<'_, PyAny>>,
    job_id: Option<String>,
    status: Option<String>,
    flag: Option<String>,
) -> PyOutcome<RowFilter> {
    Ok(RowFilter {
        since: convert::utc("since", since)?,
        until: convert::utc("until", until)?,
        job_id,
        status,
        flag,
        limit: None,
    })
}

#[pymethods]
impl PyJobLedger {
    #[new]
    #[pyo3(signature = (root, *, storage_options = None, durability = "store", commit_timeout = None))]
    fn new(
        py: Python<'_>,
        root: &Bound<'_, PyAny>,
        storage_options: Option<Options>,
        durability: &str,
        commit_timeout: Option<f64>,
    ) -> PyOutcome<Self> {
        match durability {
            "store" => {}
            "fsync" => {
                return Err(Error::new(
                    crate::ErrorKind::Unsupported,
                    "durability=\"fsync\" is not in this version; use \"store\", with which a logged row survives SIGKILL",
                )
                .into());
            }
            other => return Err(Error::invalid(format!("durability must be \"store\", not \"{other}\"")).into()),
        }
        let root = convert::path_text(root)?;
        let commit_timeout = commit_timeout.map(|seconds| convert::seconds("commit_timeout", seconds)).transpose()?;
        let options = convert::options(storage_options);
        let ledger = wait::blocking(py, || ledger::JobLedger::open(&root, &options, commit_timeout))?;
        Ok(Self { ledger, born: Born::here() })
    }

    /// The root as it was given.
    #[getter]
    fn root(&self) -> &str {
        self.ledger.root()
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
        file_name: &str,
        job_id: &str,
        status: &str,
        execution_timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<()> {
        let at = convert::utc("execution_timestamp", execution_timestamp)?;
        let ledger = self.core()?;
        wait::blocking(py, || ledger.log_job_execution(file_name, job_id, status, at))
    }

    /// Like `log_job_execution`, as a coroutine.
    #[pyo3(signature = (file_name, job_id, status, *, execution_timestamp = None))]
    fn log_job_execution_async<'py>(
        &self,
        py: Python<'py>,
        file_name: String,
        job_id: String,
        status: String,
        execution_timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
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
        file_name: &str,
        job_id: &str,
        status: &str,
        notification_timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<()> {
        let at = convert::utc("notification_timestamp", notification_timestamp)?;
        let ledger = self.core()?;
        wait::blocking(py, || ledger.log_job_completion(file_name, job_id, status, at))
    }

    /// Like `log_job_completion`, as a coroutine.
    #[pyo3(signature = (file_name, job_id, status, *, notification_timestamp = None))]
    fn log_job_completion_async<'py>(
        &self,
        py: Python<'py>,
        file_name: String,
        job_id: String,
        status: String,
        notification_timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
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
        limit: Option<usize>,
        job_id: Option<String>,
    ) -> PyOutcome<Py<PyAny>> {
        let filter = pending_filter(limit, job_id);
        self.read(py, |ledger| ledger.rows(LedgerTable::Executions, &filter))
    }

    /// Like `fetch_unprocessed_updates`, as a coroutine.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn fetch_unprocessed_updates_async<'py>(
        &self,
        py: Python<'py>,
        limit: Option<usize>,
        job_id: Option<String>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let filter = pending_filter(limit, job_id);
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
        limit: Option<usize>,
        job_id: Option<String>,
    ) -> PyOutcome<Py<PyAny>> {
        let filter = pending_filter(limit, job_id);
        self.read(py, |ledger| ledger.rows(LedgerTable::Notifications, &filter))
    }

    /// Like `pending_notifications`, as a coroutine.
    #[pyo3(signature = (*, limit = None, job_id = None))]
    fn pending_notifications_async<'py>(
        &self,
        py: Python<'py>,
        limit: Option<usize>,
        job_id: Option<String>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let filter = pending_filter(limit, job_id);
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
    fn update_autosys_flag(&self, py: Python<'_>, file_name: &str, job_id: &str) -> PyOutcome<u64> {
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
    fn acknowledge(&self, py: Python<'_>, rows: &Bound<'_, PyAny>, table: &str) -> PyOutcome<u64> {
        let (ledger, table, batch) = (self.core()?, table_named(table)?, convert::batch("rows", rows)?);
        wait::blocking(py, || ledger.acknowledge(table, &ledger::JobLedger::rows_from_batch(table, &batch)?))
    }

    /// Like `acknowledge`, as a coroutine.
    #[pyo3(signature = (rows, *, table = "job_notifications"))]
    fn acknowledge_async<'py>(
        &self,
        py: Python<'py>,
        rows: &Bound<'_, PyAny>,
        table: &str,
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
        job_id: Option<String>,
        status: Option<String>,
        flag: Option<String>,
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
        job_id: Option<String>,
        status: Option<String>,
        flag: Option<String>,
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

    /// Counts of both tables and of the attempts.
    ///
    /// Returns:
    ///     A `LedgerSummary`.
    fn summary(&self, py: Python<'_>) -> PyOutcome<PyLedgerSummary> {
        let ledger = self.core()?;
        Ok(PyLedgerSummary::from(wait::blocking(py, || ledger.summary())?))
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
    fn track(&self, file_name: String, job_id: String) -> PyOutcome<PyTrack> {
        let ledger = self.core()?;
        ledger::check_names(&file_name, &job_id)?;
        Ok(PyTrack::new(ledger, self.born, file_name, job_id))
    }

    fn __repr__(&self) -> String {
        format!("JobLedger({:?})", self.ledger.root())
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let data = PyDict::new(py);
        data.set_item("root", self.ledger.root())?;
        let ledger = self.core().map_err(|e| super::errors::to_py(py, &e))?;
        match py.detach(|| ledger.summary()) {
            Ok(summary) => data.set_item("summary", summary_dict(py, &summary)?)?,
            // A notebook shows an object before its first row is logged, too: say why there is nothing to show.
            Err(error) => data.set_item("error", error.full_message())?,
        }
        convert::repr_html(py, "ledger", data)
    }
}
