//! Reads of a table's newest version: rows, counts of values, what was appended since a version, and a view of the rows and of
//! the transaction ids of one snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp;
use arrow::datatypes::Int64Type;
use delta_kernel::scan::state::ScanFile;
use delta_kernel::{Snapshot, SnapshotRef};

use super::scanner::{Scanner, filter, oldest_first};
use crate::delta::errors::{from_arrow, from_kernel};
use crate::delta::log::{LogEngine, LogEntry, log_reader};
use crate::delta::schema;
use crate::delta::state::TableState;
use crate::delta::table::Table;
use crate::delta::types::{Predicate, ValueCounts};
use crate::error::{Error, Result};
use crate::runtime::{environment, lock};

/// Beyond this number of commits, reading the whole table is as fast as reading the commits one by one.
const MOST_COMMITS: u64 = 5_000;

/// Beyond this number of commits, reading the log from its checkpoint is as fast as reading the commits one by one.
const MOST_COMMITS_FOR_IDS: u64 = 16;

/// Per value of a column, the number of rows.
type Counts<T> = BTreeMap<Option<T>, u64>;

impl Table {
    /// Calls `read` with a view of the newest version.
    ///
    /// # Errors
    /// Those of `read`; [`crate::ErrorKind::Storage`] when the log cannot be read.
    pub fn read_snapshot<T>(&self, mut read: impl FnMut(&SnapshotView<'_>) -> Result<T>) -> Result<T> {
        self.state.read_newest(|snapshot| read(&SnapshotView::new(&self.state, snapshot)))
    }

    /// The rows of the newest version that match, in the order in which they were written. Callers break ties by it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a predicate on a column that the table does not have or that has another type;
    /// [`ErrorKind::Storage`] when the log or a data file cannot be read.
    pub fn scan(&self, predicate: &Predicate) -> Result<RecordBatch> {
        self.state.read_newest(|snapshot| rows(&Scanner::new(&self.state, snapshot, predicate)?, predicate))
    }

    /// As [`Table::scan`], with only the columns `names`, in that order, which must include those of the predicate.
    ///
    /// # Errors
    /// As [`Table::scan`].
    pub fn scan_columns(&self, predicate: &Predicate, names: &[&str]) -> Result<RecordBatch> {
        self.state
            .read_newest(|snapshot| rows(&Scanner::uncached(&self.state, snapshot, predicate, Some(names))?, predicate))
    }

    /// The number of rows of the newest version per value of the text column `column`, and the rows in which the value is
    /// `wanted`. For a partition column, this reads only the files of that value: the log has the number of rows of the
    /// others. Files with deletion vectors or without statistics are read, and so are all files of a table that is not
    /// partitioned by the column.
    ///
    /// # Errors
    /// As [`Table::scan`].
    pub fn count_values(&self, column: &str, wanted: &str) -> Result<ValueCounts> {
        self.state.read_newest(|snapshot| {
            let scanner = Scanner::new(&self.state, snapshot, &Predicate::default())?;
            let listing = scanner.files()?;
            let mut counts: Counts<String> = BTreeMap::new();
            let mut unread = Vec::new();
            for (.., file) in oldest_first(&listing.batches) {
                match count_in_log(file, column).filter(|(value, _)| *value != wanted) {
                    Some((value, rows)) => *counts.entry(Some(value.to_owned())).or_default() += rows,
                    None => unread.push(file),
                }
            }
            let mut matching = Vec::with_capacity(unread.len());
            for (rows, found) in scanner.read_all(unread, |rows| count(&rows, column, wanted))? {
                for (value, count) in found {
                    *counts.entry(value).or_default() += count;
                }
                matching.push(rows);
            }
            Ok(ValueCounts { counts, rows: schema::concat(&scanner.schema, &matching)? })
        })
    }

    /// The rows that were appended after version `known`, and the newest version, without the rows of those versions for
    /// which `except` returns true. Takes as long as the new commits take to read, however long the table's history is.
    /// `None` if the rows cannot be known from these commits: one was cleaned away, or one removed rows.
    ///
    /// # Errors
    /// As [`Table::scan`].
    pub fn appended_since(&self, known: u64, except: &dyn Fn(u64) -> bool) -> Result<Option<(RecordBatch, u64)>> {
        let snapshot = self.state.refresh()?;
        let now = snapshot.version();
        if now < known || now - known > MOST_COMMITS {
            return Ok(None);
        }
        let versions = (known + 1..=now).filter(|version| !except(*version));
        let Some(entries) = self.state.log_entries(versions, LogEntry::only_appends)? else { return Ok(None) };
        let incomplete = entries.iter().any(|entry| entry.incomplete);
        let files: Vec<ScanFile> = entries.into_iter().flat_map(|entry| entry.added).collect();
        if files.is_empty() {
            return Ok(Some((RecordBatch::new_empty(self.state.schema(&snapshot)?), now)));
        }
        let scanner = Scanner::new(&self.state, &snapshot, &Predicate::default())?;
        if incomplete || !scanner.stores_logical_columns() {
            return Ok(None);
        }
        match scanner.read_all(&files, Ok) {
            Ok(batches) => Ok(Some((schema::concat(&scanner.schema, &batches)?, now))),
            // Compacted and vacuumed since: the rows are in other files. Reading those reports a damaged one.
            Err(error) if !error.is_retryable() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The rows that match, in the order in which they were written.
fn rows(scanner: &Scanner<'_>, predicate: &Predicate) -> Result<RecordBatch> {
    let listing = scanner.files()?;
    let files = oldest_first(&listing.batches).into_iter().map(|(.., file)| file);
    schema::concat(&scanner.schema, &scanner.read_all(files, |rows| filter(&rows, predicate))?)
}

/// The value that all rows of `file` have, and their number, if the log has both. It does not if the column is not a
/// partition column or the value is NULL. A file's statistics also count rows that a deletion vector hides.
fn count_in_log<'a>(file: &'a ScanFile, column: &str) -> Option<(&'a str, u64)> {
    let value = file.partition_values.get(column).filter(|value| !value.is_empty())?;
    let stats = file.stats.as_ref().filter(|_| !file.dv_info.has_vector())?;
    Some((value, stats.num_records))
}

/// The rows that have the value `wanted`, and the number of rows per value.
fn count(rows: &RecordBatch, column: &str, wanted: &str) -> Result<(RecordBatch, Counts<String>)> {
    let values = schema::column(rows, column)?
        .as_string_opt::<i32>()
        .ok_or_else(|| Error::invalid(format!("the column '{column}' holds no text, so its values are not counted")))?;
    let mut counts: Counts<&str> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let counts = counts.into_iter().map(|(value, count)| (value.map(str::to_owned), count)).collect();
    let failed = |e| from_arrow("filtering rows", e);
    let matching = cmp::eq(values, &StringArray::new_scalar(wanted)).map_err(failed)?;
    Ok((filter_record_batch(rows, &matching).map_err(failed)?, counts))
}

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
        let collector = LogEngine::new(engine, None, move |batch| {
            let mut all = lock(&all);
            let all = all.get_or_insert_default();
            // Newest first.
            for (app, version) in transactions_in(&batch) {
                all.entry(app).or_insert(version);
            }
            Ok(batch)
        });
        let unused = environment().uuid().to_string();
        self.snapshot.get_app_id_version(&unused, &collector).map_err(failed)?;
        if lock(&found).is_none() {
            // The snapshot knew the ids from a checksum. A snapshot without one has to read the log.
            let url = self.table.url.as_str();
            let snapshot = Snapshot::builder_for(url).at_version(self.version()).build(&log_reader(engine, None));
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
        if now < known || now - known > MOST_COMMITS_FOR_IDS {
            return Ok(None);
        }
        let entries = self.table.log_entries(known + 1..=now, |_| true)?;
        Ok(entries.map(|entries| entries.into_iter().flat_map(|entry| entry.transactions).collect()))
    }

    /// The rows of this version that match.
    ///
    /// # Errors
    /// As [`Table::scan`].
    pub fn scan(&self, predicate: &Predicate) -> Result<RecordBatch> {
        rows(&Scanner::new(self.table, self.snapshot, predicate)?, predicate)
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
