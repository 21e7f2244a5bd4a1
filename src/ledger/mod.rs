//! The ledger: job executions and notifications as rows of Delta tables below one root.
//!
//! | file | contents |
//! | --- | --- |
//! | `mod.rs` | [`JobLedger`]: opening, logging, reading |
//! | `tables.rs` | names and columns of all tables |
//! | `rows.rs`, `columns.rs` | rows as values, and as Arrow columns |
//! | `acknowledge.rs` | sets flags from `NO` to `YES` |
//! | `import/` | imports legacy JSON files |
//! | `maintenance.rs` | maintains and inspects the tables |
//!
//! The ledger does not know how rows are delivered. `crate::delivery` adds the methods for attempts, leases and operators.

mod acknowledge;
pub(crate) mod columns;
mod import;
mod maintenance;
pub(crate) mod rows;
pub(crate) mod tables;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch};
use chrono::{DateTime, Utc};

pub use import::{ImportFailure, ImportOptions, ImportReport};
pub(crate) use maintenance::if_exists;
pub use maintenance::{MaintenanceReport, TableCheck, TableMaintenance, inspect};
pub use rows::{LedgerRow, MAX_FILE_NAME, MAX_LOGGED_JOB_NAME, MAX_STATUS, check_names};
pub use tables::LedgerTable;

use crate::delta::{Predicate, Table, TableSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{self, lock};
use crate::settings;
use crate::storage::{Durability, Storage, StorageOptions, StoreKind};
use tables::{DELIVERIES, FLAG, NO, equal};

/// Selects rows. All conditions must hold; the default selects all rows.
#[derive(Debug, Clone, Default)]
pub struct RowFilter {
    /// At or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
    /// With this job name.
    pub job_id: Option<String>,
    /// With exactly this status.
    pub status: Option<String>,
    /// With exactly this flag.
    pub flag: Option<String>,
    /// The maximum number of rows. The oldest rows are selected.
    pub limit: Option<usize>,
}

impl RowFilter {
    /// Selects the pending rows.
    pub(crate) fn pending() -> Self {
        Self { flag: Some(NO.to_owned()), ..Self::default() }
    }
}

/// Job executions and notifications in Delta tables below one root. Thread-safe; clones share everything.
#[derive(Clone, Debug)]
pub struct JobLedger {
    inner: Arc<LedgerState>,
}

#[derive(Debug)]
struct LedgerState {
    root: String,
    storage: Storage,
    commit_timeout: Option<Duration>,
    /// Tables that have been opened, by name.
    tables: Mutex<HashMap<&'static str, Table>>,
    /// Tables for which a warning about overdue maintenance was given.
    warned: Mutex<HashSet<&'static str>>,
}

impl JobLedger {
    /// Checks `root` and the tables that exist, and creates nothing. The first log call creates the tables. A write that
    /// loses races against other writers fails after `commit_timeout`; without a timeout it repeats until it wins.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty root or a root that is a file. [`ErrorKind::Unsupported`] for a file
    /// system that cannot create files atomically, an unknown scheme, or a table with a feature that this version cannot
    /// write. [`ErrorKind::Storage`] when the store failed.
    pub fn open(root: &str, options: impl Into<StorageOptions>, commit_timeout: Option<Duration>) -> Result<Self> {
        Self::open_with(root, options, Durability::Store, commit_timeout)
    }

    /// As [`JobLedger::open`]; `durability` says what a row survives after the call that logged or acknowledged it has
    /// returned.
    ///
    /// # Errors
    /// Those of [`JobLedger::open`].
    pub fn open_with(
        root: &str,
        options: impl Into<StorageOptions>,
        durability: Durability,
        commit_timeout: Option<Duration>,
    ) -> Result<Self> {
        let storage = Storage::open_with(root, options, durability)?;
        let (tables, warned) = (Mutex::default(), Mutex::default());
        let inner = LedgerState { root: root.to_owned(), storage, commit_timeout, tables, warned };
        let ledger = Self { inner: Arc::new(inner) };
        let [executions, notifications] = LedgerTable::ALL.map(LedgerTable::spec);
        let mut is_new = true;
        for spec in [executions, notifications, &*DELIVERIES] {
            if let Some(table) = ledger.opened(spec)? {
                is_new = false;
                maintenance::check(&table, spec)?;
            }
        }
        ledger.check_is_outside_tables(is_new)?;
        Ok(ledger)
    }

    /// Refuses a new ledger inside a table, and warns of one that is there. A remote store is asked for a new one only.
    fn check_is_outside_tables(&self, is_new: bool) -> Result<()> {
        let storage = &self.inner.storage;
        if !is_new && storage.kind() != StoreKind::Local {
            return Ok(());
        }
        let Some(table) = storage.enclosing_table()? else { return Ok(()) };
        let root = &self.inner.root;
        let why = format!(
            "the ledger {root} lies in the Delta table {table}, and VACUUM of that table deletes files that it does not know"
        );
        if is_new {
            return Err(Error::invalid(format!("{why}: give a directory outside of tables; nothing was written")));
        }
        tracing::warn!(
            root,
            table,
            "{why}: move the ledger to a directory outside of tables, and never vacuum that table"
        );
        Ok(())
    }

    /// The storage of the tables.
    pub fn storage(&self) -> &Storage {
        &self.inner.storage
    }

    /// Whether more than this handle, or a running call, uses the ledger or its provider of storage options.
    pub fn is_shared(&self) -> bool {
        let provider = self.storage().options().provider.as_ref();
        // One reference is that of the options, and one that of the store.
        Arc::strong_count(&self.inner) > 1 || provider.is_some_and(|provider| Arc::strong_count(provider) > 2)
    }

    /// The root as it was given.
    pub fn root(&self) -> &str {
        &self.inner.root
    }

    /// Whether the root is on the local disk of a Databricks cluster, so that its rows are lost with the cluster.
    pub fn is_lost_with_cluster(&self) -> bool {
        self.inner.storage.kind() == StoreKind::Local && settings::is_on_databricks()
    }

    /// Logs one execution or notification with the flag `NO`. The row is durable when the call returns. The default `timestamp` is
    /// now.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty or too long value: nothing was written. [`ErrorKind::Conflict`]
    /// (retryable) when other writers won until the timeout, [`ErrorKind::Storage`] when the store failed.
    pub fn log(
        &self,
        table: LedgerTable,
        file_name: &str,
        job_id: &str,
        status: &str,
        timestamp: Option<DateTime<Utc>>,
    ) -> Result<()> {
        self.append(table, rows::new_row(table, file_name, job_id, status, timestamp)?)
    }

    fn append(&self, table: LedgerTable, batch: RecordBatch) -> Result<()> {
        let table = self.created(table.spec())?;
        table.append(&rows::as_stored(batch, &table.schema())?)?;
        Ok(())
    }

    /// Like [`JobLedger::log`], without blocking a thread. Tasks that log at the same moment share a commit.
    ///
    /// # Errors
    /// As [`JobLedger::log`].
    pub async fn log_async(
        &self,
        table: LedgerTable,
        file_name: &str,
        job_id: &str,
        status: &str,
        timestamp: Option<DateTime<Utc>>,
    ) -> Result<()> {
        let row = rows::new_row(table, file_name, job_id, status, timestamp)?;
        let known = lock(&self.inner.tables).get(table.name()).filter(|table| !table.is_gone()).cloned();
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

    /// Logs many rows in one commit. Finds columns by name: `file_name`, `job_id` and `status` are required; the timestamp
    /// defaults to now, and the flag to `NO`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a missing or unknown column, a column of the wrong type, or an invalid value (the
    /// error names its row): nothing was written. Otherwise as [`JobLedger::log`].
    pub fn log_batch(&self, table: LedgerTable, data: &RecordBatch) -> Result<u64> {
        let checked = rows::checked(table, data)?;
        let count = checked.num_rows() as u64;
        if count > 0 {
            self.append(table, checked)?;
        }
        Ok(count)
    }

    /// Rows in the table's own column order, oldest first. With the flag `NO`, the cost depends on the number of pending
    /// rows. Timestamps are UTC. Timestamps without a time zone (Spark's TIMESTAMP_NTZ) are read as UTC.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no ledger at the root, [`ErrorKind::Storage`] when the store failed.
    pub fn rows(&self, table: LedgerTable, filter: &RowFilter) -> Result<RecordBatch> {
        let Some(found) = self.existing(table)? else {
            return Ok(RecordBatch::new_empty(table.schema()));
        };
        let equals = [(FLAG, &filter.flag), ("job_id", &filter.job_id), ("status", &filter.status)];
        let equals = equals.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect();
        let time = time_range(table.timestamp_column(), filter.since, filter.until);
        let batch = rows::as_utc(found.scan(&Predicate { equals, time })?)?;
        sorted(&batch, table.timestamp_column(), filter.limit)
    }

    /// The pending rows (flag exactly `NO`), oldest first. Identical rows are separate events.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn pending(&self, table: LedgerTable) -> Result<Vec<LedgerRow>> {
        rows::from_batch(table, &self.rows(table, &RowFilter::pending())?)
    }

    /// The newest version of `table`; None if the table does not exist.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn version(&self, table: LedgerTable) -> Result<Option<u64>> {
        self.existing(table)?.map(|table| table.newest_version()).transpose()
    }

    /// The number of pending rows.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn count_pending(&self, table: LedgerTable) -> Result<u64> {
        let Some(found) = self.existing(table)? else { return Ok(0) };
        Ok(found.scan(&equal(FLAG, NO))?.num_rows() as u64)
    }

    /// The rows of an Arrow batch that has the table's columns by name. The flag column is optional.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a column is missing or has the wrong type.
    pub fn rows_from_batch(table: LedgerTable, batch: &RecordBatch) -> Result<Vec<LedgerRow>> {
        rows::from_batch(table, batch)
    }

    /// The table. Creates it if it does not exist.
    pub(crate) fn created(&self, spec: &'static TableSpec) -> Result<Table> {
        self.cached(spec.name, || Table::open_or_create_within(&self.inner.storage, spec, self.inner.commit_timeout))
    }

    /// The table, if it exists.
    pub(crate) fn opened(&self, spec: &'static TableSpec) -> Result<Option<Table>> {
        let open = || Table::open_within(&self.inner.storage, spec.name, self.inner.commit_timeout);
        maintenance::if_exists(self.cached(spec.name, open))
    }

    /// The table, if it exists.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no ledger at the root.
    pub(crate) fn existing(&self, table: LedgerTable) -> Result<Option<Table>> {
        let found = self.opened(table.spec())?;
        if found.is_none() {
            self.require_ledger()?;
        }
        Ok(found)
    }

    pub(crate) fn require_ledger(&self) -> Result<()> {
        for table in LedgerTable::ALL {
            if self.opened(table.spec())?.is_some() {
                return Ok(());
            }
        }
        let root = &self.inner.root;
        let text = format!("there is no ledger at {root}; check the root, or log a row: the first log call creates it");
        Err(Error::new(ErrorKind::NotFound, text))
    }

    fn cached(&self, name: &'static str, open: impl FnOnce() -> Result<Table>) -> Result<Table> {
        if let Some(table) = lock(&self.inner.tables).get(name).filter(|table| !table.is_gone()) {
            return Ok(table.clone());
        }
        // Not under the lock, so that other tables do not wait for the store. If two threads open the same table, both
        // use the one that is inserted first, so that they share its snapshot.
        let table = open()?;
        let mut tables = lock(&self.inner.tables);
        tables.retain(|_, table| !table.is_gone());
        Ok(tables.entry(name).or_insert(table).clone())
    }
}

/// The time range of a [`Predicate`]: `since` is inclusive, `until` is exclusive.
pub(crate) fn time_range(
    column: &str,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
) -> Option<(String, Option<i64>, Option<i64>)> {
    let micros = |at: DateTime<Utc>| at.timestamp_micros();
    (since.is_some() || until.is_some()).then(|| (column.to_owned(), since.map(micros), until.map(micros)))
}

/// Sorts `batch` by the timestamps in the column `by`, NULLs first, and keeps the first `limit` rows. Rows with equal
/// timestamps stay in the order in which they were logged.
pub(crate) fn sorted(batch: &RecordBatch, by: &str, limit: Option<usize>) -> Result<RecordBatch> {
    let broken = |e| Error::new(ErrorKind::Internal, "cannot sort rows").with_source(e);
    let times = Arc::new(columns::times(batch, by)?.clone()) as ArrayRef;
    let ascending = Some(SortOptions { descending: false, nulls_first: true });
    let logged: ArrayRef = Arc::new((0..batch.num_rows() as u64).collect::<UInt64Array>());
    let columns = [times, logged].map(|values| SortColumn { values, options: ascending });
    let order = lexsort_to_indices(&columns, limit).map_err(broken)?;
    take_record_batch(batch, &order).map_err(broken)
}
