//! A view of one snapshot: its rows, and the transaction ids in its log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use delta_kernel::{Snapshot, SnapshotRef};

use super::read::rows;
use super::scanner::Scanner;
use crate::delta::errors::from_kernel;
use crate::delta::log::{LogEngine, log_reader};
use crate::delta::state::TableState;
use crate::delta::table::Table;
use crate::delta::types::Predicate;
use crate::error::Result;
use crate::runtime::lock;

/// Beyond this number of commits, reading the log from its checkpoint is as fast as reading the commits one by one.
const MOST_COMMITS: u64 = 16;

/// One snapshot of a table.
pub struct SnapshotView<'a> {
    table: &'a TableState,
    snapshot: &'a SnapshotRef,
}

/// Decides on the newest snapshot whether a commit may be made, and returns the transaction ids of the commit.
pub type CommitCheck<'a> = &'a dyn Fn(&SnapshotView<'_>) -> Result<Vec<(String, i64)>>;

/// Permits every commit.
pub const NO_CHECK: CommitCheck<'static> = &|_| Ok(Vec::new());

impl<'a> SnapshotView<'a> {
    pub(in crate::delta) fn new(table: &'a TableState, snapshot: &'a SnapshotRef) -> Self {
        Self { table, snapshot }
    }

    /// The table's version.
    pub fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// Changes when the table was replaced by another one: versions before and after have nothing to do with each other.
    pub fn incarnation(&self) -> u64 {
        self.table.incarnation()
    }

    /// The last version that `app_id` wrote in a transaction id (`txn` action), if any.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Storage`] when the table's log cannot be read.
    pub fn transaction(&self, app_id: &str) -> Result<Option<i64>> {
        self.snapshot
            .get_app_id_version(app_id, self.table.storage.engine()?.as_ref())
            .map_err(|e| from_kernel(format!("reading the transaction '{app_id}' of '{}'", self.table.url), e))
    }

    /// The last transaction ids (`txn` actions) of all application ids.
    ///
    /// The kernel returns one id per call, and each call replays the log. Asked for an id that does not exist, it replays
    /// all of the log, and this collects the ids on the way.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Storage`] when the table's log cannot be read.
    pub fn transactions(&self) -> Result<HashMap<String, i64>> {
        let failed = |e| from_kernel(format!("reading the transactions of '{}'", self.table.url), e);
        let engine = self.table.storage.engine()?;
        // `None` until the kernel has read anything.
        let found: Arc<Mutex<Option<HashMap<String, i64>>>> = Arc::default();
        let all = Arc::clone(&found);
        let collector = LogEngine::new(engine, move |batch| {
            let mut all = lock(&all);
            let all = all.get_or_insert_default();
            // Newest first.
            for (app, version) in transactions_in(&batch) {
                all.entry(app).or_insert(version);
            }
            Ok(batch)
        });
        let unused = uuid::Uuid::new_v4().to_string();
        self.snapshot.get_app_id_version(&unused, &collector).map_err(failed)?;
        if lock(&found).is_none() {
            // The snapshot knew the ids from a checksum. A snapshot without one has to read the log.
            let url = self.table.url.as_str();
            let snapshot = Snapshot::builder_for(url).at_version(self.version()).build(&log_reader(engine));
            snapshot.map_err(failed)?.get_app_id_version(&unused, &collector).map_err(failed)?;
        }
        Ok(lock(&found).take().unwrap_or_default())
    }

    /// The transaction ids that were written after version `known`, later ones last. `None` if reading all of them is as
    /// fast, or if a commit in between is no longer in the log.
    ///
    /// # Errors
    /// As [`SnapshotView::transactions`].
    pub fn transactions_since(&self, known: u64) -> Result<Option<Vec<(String, i64)>>> {
        let now = self.version();
        if now < known || now - known > MOST_COMMITS {
            return Ok(None);
        }
        let mut transactions = Vec::new();
        for version in known + 1..=now {
            let Some(entry) = self.table.log_entry(version)? else { return Ok(None) };
            transactions.extend(entry.transactions);
        }
        Ok(Some(transactions))
    }

    /// The rows of this version that match.
    ///
    /// # Errors
    /// As [`Table::scan`].
    pub fn scan(&self, predicate: &Predicate) -> Result<RecordBatch> {
        rows(&Scanner::new(self.table, self.snapshot, predicate)?, predicate)
    }
}

impl Table {
    /// Calls `read` with a view of the newest version.
    ///
    /// # Errors
    /// Those of `read`; [`crate::ErrorKind::Storage`] when the log cannot be read.
    pub fn read_snapshot<T>(&self, mut read: impl FnMut(&SnapshotView<'_>) -> Result<T>) -> Result<T> {
        self.state.read_newest(|snapshot| read(&SnapshotView::new(&self.state, snapshot)))
    }
}

fn transactions_in(batch: &RecordBatch) -> Vec<(String, i64)> {
    let read = || {
        let actions = batch.column_by_name("txn")?.as_struct_opt()?;
        let apps = actions.column_by_name("appId")?.as_string_opt::<i32>()?;
        let versions = actions.column_by_name("version")?.as_primitive_opt::<Int64Type>()?;
        let rows = (0..actions.len()).filter(|&row| actions.is_valid(row) && apps.is_valid(row));
        Some(rows.map(|row| (apps.value(row).to_owned(), versions.value(row))).collect())
    };
    read().unwrap_or_default()
}
