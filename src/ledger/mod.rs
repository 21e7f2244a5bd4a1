//! `JobLedger`: job executions and notifications as rows of Delta tables below one root.

mod acknowledge;
mod attempts;
mod by_hand;
mod import;
mod inspect;
mod leases;
mod maintain;
mod prometheus;
mod rows;
mod standings;
mod summary;
mod tables;
#[cfg(test)]
mod tests;
mod tried;
mod unnotified;
mod upkeep;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch};
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};

pub use attempts::Attempt;
pub use by_hand::{ByHand, ParkedRow, Settlement};
pub use import::{ImportFailure, ImportOptions, ImportReport};
pub use inspect::{TableState, inspect};
pub use leases::Lease;
pub use maintain::{MaintenanceReport, TableMaintenance};
pub use rows::{LedgerRow, MAX_FILE_NAME, MAX_JOB_NAME, check_names};
pub use standings::{Standing, StandingState, Standings};
pub use summary::{AGES, LedgerSummary, NextTry, TableSummary};
pub use tables::LedgerTable;

use crate::delta::{Guard, Predicate, Table, TableSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::storage::{Durability, Requests, Storage};
use tables::{ATTEMPTED_AT, DELIVERIES_SPEC, FLAG, NO};

/// Which rows to read. All conditions must hold; the default reads all rows.
#[derive(Debug, Clone, Default)]
pub struct RowFilter {
    /// At or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
    /// Of this job.
    pub job_id: Option<String>,
    /// Of exactly this status.
    pub status: Option<String>,
    /// With exactly this flag.
    pub flag: Option<String>,
    /// At most so many rows, the oldest ones.
    pub limit: Option<usize>,
}

/// Job executions and notifications in Delta tables below one root. Thread-safe; clones share everything.
#[derive(Clone, Debug)]
pub struct JobLedger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: String,
    storage: Storage,
    commit_timeout: Option<Duration>,
    /// Tables that have been opened, by name.
    tables: Mutex<HashMap<&'static str, Table>>,
    /// Tables of which it was said that maintenance is overdue.
    warned: Mutex<HashSet<&'static str>>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, Table>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobLedger {
    /// Checks `root` and the tables that are there, and creates nothing: the first log call creates the tables. A write
    /// that loses races against other writers for `commit_timeout` fails; without a limit it goes on until it wins.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty root or one that is a file, [`ErrorKind::Unsupported`] for a place that
    /// cannot create files atomically, a scheme that this version does not have, or a table with a feature that it cannot
    /// write: a retry does not help. [`ErrorKind::Storage`] when the store failed.
    pub fn open(root: &str, options: &HashMap<String, String>, commit_timeout: Option<Duration>) -> Result<Self> {
        Self::open_with(root, options, Durability::Store, commit_timeout)
    }

    /// As [`JobLedger::open`], with rows that survive what `durability` says once the call that logged or acknowledged
    /// them has returned.
    ///
    /// # Errors
    /// Those of [`JobLedger::open`].
    pub fn open_with(
        root: &str,
        options: &HashMap<String, String>,
        durability: Durability,
        commit_timeout: Option<Duration>,
    ) -> Result<Self> {
        let storage = Storage::open_with(root, options, durability)?;
        let inner = Inner {
            root: root.to_owned(),
            storage,
            commit_timeout,
            tables: Mutex::default(),
            warned: Mutex::default(),
        };
        let ledger = Self { inner: Arc::new(inner) };
        for table in [LedgerTable::Executions, LedgerTable::Notifications] {
            if let Some(found) = ledger.opened(table.spec())? {
                found.check_rewritable()?;
                found.check_columns(table.spec())?;
            }
        }
        if let Some(found) = ledger.opened(&DELIVERIES_SPEC)? {
            found.check_writable()?;
            found.check_columns(&DELIVERIES_SPEC)?;
        }
        Ok(ledger)
    }

    /// How many requests went to the store since the ledger was opened, by kind.
    pub fn requests(&self) -> Requests {
        self.inner.storage.requests()
    }

    /// The root as it was given.
    pub fn root(&self) -> &str {
        &self.inner.root
    }

    /// The options that it was opened with; they may hold credentials.
    pub fn storage_options(&self) -> &HashMap<String, String> {
        self.inner.storage.options()
    }

    /// Logs one execution with the flag `NO`; durable when it returns. Without a `timestamp`, it is now.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty or over-long value: nothing was written. [`ErrorKind::Conflict`]
    /// (retryable) when other writers won until the time limit ran out, [`ErrorKind::Storage`] when the store failed.
    pub fn log_job_execution(
        &self,
        file_name: &str,
        job_id: &str,
        status: &str,
        timestamp: Option<DateTime<Utc>>,
    ) -> Result<()> {
        self.log(LedgerTable::Executions, file_name, job_id, status, timestamp)
    }

    /// Logs one notification with the flag `NO`; durable when it returns. Without a `timestamp`, it is now.
    ///
    /// # Errors
    /// As [`JobLedger::log_job_execution`].
    pub fn log_job_completion(
        &self,
        file_name: &str,
        job_id: &str,
        status: &str,
        timestamp: Option<DateTime<Utc>>,
    ) -> Result<()> {
        self.log(LedgerTable::Notifications, file_name, job_id, status, timestamp)
    }

    fn log(
        &self,
        table: LedgerTable,
        file_name: &str,
        job_id: &str,
        status: &str,
        timestamp: Option<DateTime<Utc>>,
    ) -> Result<()> {
        let row = rows::new_row(table, file_name, job_id, status, timestamp)?;
        let table = self.created(table.spec())?;
        table.append(&rows::as_stored(row, &table.schema())?)?;
        Ok(())
    }

    /// Like [`JobLedger::log_job_execution`] and [`JobLedger::log_job_completion`], without a thread that waits: any number
    /// of tasks may log at once, and those of one moment share a commit.
    ///
    /// # Errors
    /// As [`JobLedger::log_job_execution`].
    pub async fn log_async(
        &self,
        table: LedgerTable,
        file_name: &str,
        job_id: &str,
        status: &str,
        timestamp: Option<DateTime<Utc>>,
    ) -> Result<()> {
        let row = rows::new_row(table, file_name, job_id, status, timestamp)?;
        let known = self.inner.lock().get(table.name()).cloned();
        let table = match known {
            Some(table) => table,
            None => {
                let ledger = self.clone();
                runtime::blocking(move || ledger.created(table.spec())).await?
            }
        };
        table.append_async(&rows::as_stored(row, &table.schema())?).await?;
        Ok(())
    }

    /// Logs many rows in one commit. Columns are found by name: `file_name`, `job_id` and `status`; the timestamp (now)
    /// and the flag (`NO`) may be left out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a missing, unknown or unfit column or a value that may not be logged, with its
    /// row: nothing was written. Otherwise as [`JobLedger::log_job_execution`].
    pub fn log_batch(&self, table: LedgerTable, data: &RecordBatch) -> Result<u64> {
        let checked = rows::checked(table, data, Utc::now())?;
        let count = checked.num_rows() as u64;
        if count > 0 {
            let table = self.created(table.spec())?;
            table.append(&rows::as_stored(checked, &table.schema())?)?;
        }
        Ok(count)
    }

    /// Rows in the table's own column order, oldest first. With the flag `NO` this costs by what is pending. Timestamps are
    /// UTC, also of tables that Spark made with TIMESTAMP_NTZ: such a timestamp is taken to be UTC, here and everywhere.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no ledger at the root, [`ErrorKind::Storage`] when the store failed.
    pub fn rows(&self, table: LedgerTable, filter: &RowFilter) -> Result<RecordBatch> {
        let Some(found) = self.existing(table)? else {
            return Ok(RecordBatch::new_empty(table.schema()));
        };
        let equals = [(FLAG, &filter.flag), ("job_id", &filter.job_id), ("status", &filter.status)];
        let equals = equals.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect();
        let time = span(table.timestamp_column(), filter.since, filter.until);
        let batch = rows::as_utc(found.scan(&Predicate { equals, time })?)?;
        sorted(&batch, table.timestamp_column(), filter.limit)
    }

    /// The pending rows (flag exactly `NO`), oldest first. Identical rows are separate events and stay so.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn pending(&self, table: LedgerTable) -> Result<Vec<LedgerRow>> {
        let filter = RowFilter { flag: Some(NO.to_owned()), ..RowFilter::default() };
        rows::from_batch(table, &self.rows(table, &filter)?)
    }

    /// The newest version of `table`; None while there is none.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn version(&self, table: LedgerTable) -> Result<Option<u64>> {
        self.existing(table)?.map(|table| table.newest_version()).transpose()
    }

    /// How many rows are pending.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn count_pending(&self, table: LedgerTable) -> Result<u64> {
        let Some(found) = self.existing(table)? else { return Ok(0) };
        let pending = Predicate { equals: vec![(FLAG.to_owned(), NO.to_owned())], time: None };
        Ok(found.scan(&pending)?.num_rows() as u64)
    }

    /// Sets exactly these pending rows to `YES`, in one commit: of n identical rows, k given flips at most k. Doing it
    /// again flips nothing more.
    ///
    /// # Errors
    /// As [`JobLedger::rows`]; [`ErrorKind::Conflict`] (retryable) when other writers won until the time limit ran out.
    pub fn acknowledge(&self, table: LedgerTable, acknowledged: &[LedgerRow]) -> Result<u64> {
        let found = self.existing(table)?;
        match found {
            Some(found) if !acknowledged.is_empty() => acknowledge::rows_exactly(&found, table, acknowledged),
            _ => Ok(0),
        }
    }

    /// The rows of an Arrow batch that has the table's columns by name; the flag column may be missing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a column is missing or of a type that it cannot be.
    pub fn rows_from_batch(table: LedgerTable, batch: &RecordBatch) -> Result<Vec<LedgerRow>> {
        rows::from_batch(table, batch)
    }

    /// Today's `UPDATE`: sets every pending execution of this file and job to `YES`.
    ///
    /// # Errors
    /// As [`JobLedger::acknowledge`]; [`ErrorKind::InvalidInput`] for an empty or over-long name.
    pub fn update_autosys_flag(&self, file_name: &str, job_id: &str) -> Result<u64> {
        check_names(file_name, job_id)?;
        match self.existing(LedgerTable::Executions)? {
            Some(table) => acknowledge::file_and_job(&table, LedgerTable::Executions, file_name, job_id),
            None => Ok(0),
        }
    }

    /// Settles what `delivered` notifications speak of: flips the pending executions of the same file, job and status
    /// that are not later, in one commit. A NULL timestamp counts as earlier than any other.
    ///
    /// # Errors
    /// As [`JobLedger::acknowledge`].
    pub fn settle_executions(&self, delivered: &[LedgerRow]) -> Result<u64> {
        match self.existing(LedgerTable::Executions)? {
            Some(table) if !delivered.is_empty() => acknowledge::executions_of(&table, delivered),
            _ => Ok(0),
        }
    }

    /// Appends attempts in one commit of their own; the first one creates the attempts table. Returns the table's version
    /// that has them.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] (retryable) when other writers won until the time limit ran out, [`ErrorKind::Storage`] when the store
    /// failed.
    pub fn append_attempts(&self, attempts: &[Attempt]) -> Result<u64> {
        let deliveries = self.created(&DELIVERIES_SPEC)?;
        if attempts.is_empty() {
            return Ok(deliveries.version());
        }
        let batch = attempts::to_batch(attempts)?;
        let guard = Guard { batch, transactions: Vec::new() };
        let version = deliveries.append_guarded(&mut |_| Ok(Some(guard.clone())))?;
        Ok(version.unwrap_or_else(|| deliveries.version()))
    }

    /// The attempts to deliver rows of `table`, oldest first; none while there is no attempts table.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store failed.
    pub fn attempts(&self, table: LedgerTable) -> Result<Vec<Attempt>> {
        let equals = vec![("table_name".to_owned(), table.name().to_owned())];
        attempts::from_batch(&self.deliveries_matching(&Predicate { equals, time: None })?)
    }

    /// The status of the last row of each of `jobs` that was delivered. Reads all attempts.
    ///
    /// # Errors
    /// As [`JobLedger::attempts`].
    pub fn last_delivered(&self, table: LedgerTable, jobs: &HashSet<String>) -> Result<HashMap<String, String>> {
        let equals =
            vec![("table_name".to_owned(), table.name().to_owned()), ("outcome".to_owned(), "delivered".to_owned())];
        let delivered = self.deliveries_matching(&Predicate { equals, time: None })?;
        let (job_ids, statuses) = (rows::strings(&delivered, "job_id")?, rows::strings(&delivered, "status")?);
        let found = job_ids.iter().zip(statuses).filter_map(|(job, status)| Some((job?, status?)));
        // Oldest first: the last one stays.
        Ok(found
            .filter(|(job, _)| jobs.contains(*job))
            .map(|(job, status)| (job.to_owned(), status.to_owned()))
            .collect())
    }

    /// Rows of the attempts table, oldest first, `since` inclusive and `until` exclusive.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no ledger at the root, [`ErrorKind::Storage`] when the store failed.
    pub fn deliveries(&self, since: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Result<RecordBatch> {
        self.require_ledger()?;
        self.deliveries_matching(&Predicate { equals: Vec::new(), time: span(ATTEMPTED_AT, since, until) })
    }

    fn deliveries_matching(&self, predicate: &Predicate) -> Result<RecordBatch> {
        match self.opened(&DELIVERIES_SPEC)? {
            Some(table) => sorted(&table.scan(predicate)?, ATTEMPTED_AT, None),
            None => Ok(RecordBatch::new_empty(SchemaRef::clone(&DELIVERIES_SPEC.schema))),
        }
    }

    /// The table, created when there is none.
    fn created(&self, spec: &'static TableSpec) -> Result<Table> {
        self.cached(spec.name, || Table::open_or_create_within(&self.inner.storage, spec, self.inner.commit_timeout))
    }

    /// The table, if there is one.
    fn opened(&self, spec: &'static TableSpec) -> Result<Option<Table>> {
        match self.cached(spec.name, || Table::open_within(&self.inner.storage, spec.name, self.inner.commit_timeout)) {
            Err(missing) if missing.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// The table, if there is one in a ledger that exists.
    fn existing(&self, table: LedgerTable) -> Result<Option<Table>> {
        let found = self.opened(table.spec())?;
        if found.is_none() {
            self.require_ledger()?;
        }
        Ok(found)
    }

    fn require_ledger(&self) -> Result<()> {
        for table in [LedgerTable::Executions, LedgerTable::Notifications] {
            if self.opened(table.spec())?.is_some() {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "there is no ledger at {}; the first log call creates one, or see whether the root is right",
                self.inner.root
            ),
        ))
    }

    fn cached(&self, name: &'static str, open: impl FnOnce() -> Result<Table>) -> Result<Table> {
        if let Some(table) = self.inner.lock().get(name) {
            return Ok(table.clone());
        }
        // Opened without the lock: other tables must not wait for the store. Of two threads that open one table, the
        // first to be done wins, so that all share its snapshot.
        let table = open()?;
        Ok(self.inner.lock().entry(name).or_insert(table).clone())
    }
}

fn span(
    column: &str,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
) -> Option<(String, Option<i64>, Option<i64>)> {
    let micros = |at: DateTime<Utc>| at.timestamp_micros();
    (since.is_some() || until.is_some()).then(|| (column.to_owned(), since.map(micros), until.map(micros)))
}

/// `batch` by the time in the column `by`, NULLs first, cut at `limit` rows. Rows of the same time stay in the order in
/// which they were logged: of a job's statuses within one second, the last one logged is the last one.
fn sorted(batch: &RecordBatch, by: &str, limit: Option<usize>) -> Result<RecordBatch> {
    let broken = |e| Error::new(ErrorKind::Internal, "rows could not be sorted").with_source(e);
    let times = batch.column_by_name(by).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("the table has no column \"{by}\"; is it a table of the ledger?"))
    })?;
    let ascending = Some(SortOptions { descending: false, nulls_first: true });
    let logged: ArrayRef = Arc::new((0..batch.num_rows() as u64).collect::<UInt64Array>());
    let columns = [times.clone(), logged].map(|values| SortColumn { values, options: ascending });
    let order = lexsort_to_indices(&columns, limit).map_err(broken)?;
    take_record_batch(batch, &order).map_err(broken)
}
