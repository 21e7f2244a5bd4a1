//! One Delta table: open, create, append, scan, rewrite.
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::transaction::UpdateTableOperation;
use delta_kernel::{Snapshot, SnapshotRef};
use url::Url;

use super::commit::{self, Kind, Limits, Plan, Queue, SharedCommitter};
use super::failure::from_kernel;
use super::group_commit;
use super::legacy_protocol::LogReader;
use super::maintenance::{self, Maintained, Retention};
use super::shared::Inner;
use super::stage::{Part, Staged};
use super::tally::{self, Tally};
use super::{appended, create, foreign, replace, rewrite, scan, schema, transactions, writable};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// What a table looks like when this crate creates it (reader 1, writer 2, no features).
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Directory name below the storage root.
    pub name: &'static str,
    /// Columns in order: Utf8, Int64, Float64, Boolean and Timestamp(Microsecond, "UTC"), all nullable.
    pub schema: SchemaRef,
    /// Partition columns (Utf8), maybe none. Delta knows no empty text as a partition value: it reads back as NULL.
    pub partition_by: &'static [&'static str],
    /// For how long log entries are kept (`delta.logRetentionDuration`), as in `interval 7 days`.
    pub log_retention: &'static str,
}

/// A conjunction that prunes files by partition values and statistics and then filters rows exactly. NULL matches
/// nothing; the default matches all rows.
#[derive(Debug, Clone, Default)]
pub struct Predicate {
    /// Column equals text.
    pub equals: Vec<(String, String)>,
    /// Timestamp column in [since, until), microseconds UTC.
    pub time: Option<(String, Option<i64>, Option<i64>)>,
}

/// A snapshot that a guarded append decides on.
pub struct View<'a> {
    table: &'a Inner,
    snapshot: &'a SnapshotRef,
}

impl<'a> View<'a> {
    pub(super) fn new(table: &'a Inner, snapshot: &'a SnapshotRef) -> Self {
        Self { table, snapshot }
    }

    /// The table's version.
    pub fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// The last transaction id (`txn` action) of `app_id`, if any.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the table's log cannot be read.
    pub fn transaction(&self, app_id: &str) -> Result<Option<i64>> {
        self.snapshot
            .get_app_id_version(app_id, self.table.storage.engine()?.as_ref())
            .map_err(|e| from_kernel(format!("reading the transaction '{app_id}' of '{}'", self.table.url), e))
    }

    /// The last transaction ids (`txn` actions) of all application ids, from one look at the log.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the table's log cannot be read.
    pub fn transactions(&self) -> Result<HashMap<String, i64>> {
        transactions::all(self.table, self.snapshot)
    }

    /// The transaction ids that were written after version `known`, later ones last; `None` when a look at all of them is
    /// as quick, or nobody knows any more.
    ///
    /// # Errors
    /// As [`View::transactions`].
    pub fn transactions_since(&self, known: u64) -> Result<Option<Vec<(String, i64)>>> {
        transactions::since(self.table, known, self.snapshot)
    }

    /// Rows at this version.
    ///
    /// # Errors
    /// As [`Table::scan`].
    pub fn scan(&self, predicate: &Predicate) -> Result<RecordBatch> {
        let table = self.table;
        scan::rows(table.storage.engine()?, self.snapshot, predicate, &table.health, &table.read_files)
    }
}

/// Rows to append together with transaction ids, in one atomic commit. There need not be rows.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Rows with the table's whole schema.
    pub batch: RecordBatch,
    /// (app id, version) written as `txn` actions in the same commit.
    pub transactions: Vec<(String, i64)>,
}

/// What `rewrite` makes of the rows of one file.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// Rows (of the batch handed in) that are taken out of their file.
    pub remove: BooleanArray,
    /// Rows written instead (maybe in another partition), with the table's schema.
    pub add: RecordBatch,
}

/// A handle on one Delta table. Thread-safe; clones share the cached snapshot.
#[derive(Clone)]
pub struct Table {
    inner: Arc<Inner>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("url", &self.inner.url.as_str())
            .field("version", &self.inner.known().version())
            .finish()
    }
}

/// Whether this end of a commit says for sure that nothing was written, so that staged files are orphans.
pub(super) fn nothing_written<T>(ended: &Result<Option<T>>) -> bool {
    match ended {
        Ok(committed) => committed.is_none(),
        Err(error) => error.kind() == ErrorKind::Conflict,
    }
}

impl Table {
    /// Opens an existing table.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::Unsupported`] when it needs a reader feature that the
    /// kernel does not have, [`ErrorKind::Storage`] when its log cannot be read.
    pub fn open(storage: &Storage, name: &str) -> Result<Self> {
        Self::open_within(storage, name, None)
    }

    /// Like [`Table::open`]; a write that has lost races for `races` (from the call on) fails with a retryable
    /// [`ErrorKind::Conflict`]. Without a limit it goes on until it wins.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub fn open_within(storage: &Storage, name: &str, races: Option<Duration>) -> Result<Self> {
        Self::open_with(storage, name, Arc::new(FileSystemCommitter::new()), Limits { races, ..Limits::default() })
    }

    /// Opens a table whose commits go through `committer`.
    pub(super) fn open_with(storage: &Storage, name: &str, committer: SharedCommitter, limits: Limits) -> Result<Self> {
        let url = table_url(storage, name)?;
        let reader = LogReader::new(storage.engine()?);
        let build = || -> Result<_> { Ok(Snapshot::builder_for(url.as_str()).build(&reader)) };
        let snapshot = match build()? {
            Ok(snapshot) => snapshot,
            Err(_) if !create::exists(storage, &url)? => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("there is no Delta table '{name}' in '{}'", storage.root()),
                ));
            }
            // It may have been created between the two looks.
            Err(_) => build()?.map_err(|e| from_kernel(format!("opening the Delta table '{url}'"), e))?,
        };
        foreign::refuse_spark_on_s3(storage, &url, snapshot.version())?;
        let inner = Inner::new(storage, url, committer, limits, snapshot);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens the table, creating it first when there is none; safe when many processes do so at once.
    ///
    /// # Errors
    /// As [`Table::open`]; [`ErrorKind::Storage`] when it cannot be created.
    pub fn open_or_create(storage: &Storage, spec: &TableSpec) -> Result<Self> {
        Self::open_or_create_within(storage, spec, None)
    }

    /// Like [`Table::open_or_create`], with the limit of [`Table::open_within`].
    ///
    /// # Errors
    /// As [`Table::open_or_create`].
    pub fn open_or_create_within(storage: &Storage, spec: &TableSpec, races: Option<Duration>) -> Result<Self> {
        match Self::open_within(storage, spec.name, races) {
            Err(missing) if missing.kind() == ErrorKind::NotFound => {
                let created = create::create(storage, &table_url(storage, spec.name)?, spec)?;
                tracing::debug!(table = spec.name, created, "there was no such table");
                Self::open_within(storage, spec.name, races)
            }
            opened => opened,
        }
    }

    /// Refuses a table to which rows cannot be appended.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], which names the table feature and says what can be done.
    pub fn check_writable(&self) -> Result<()> {
        writable::check(&self.inner, false)
    }

    /// Refuses a table to which rows with the columns of `spec` cannot be written.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], which names the column.
    pub fn check_columns(&self, spec: &TableSpec) -> Result<()> {
        writable::check_columns(&self.inner, spec)
    }

    /// Refuses a table in which rows cannot be replaced.
    ///
    /// # Errors
    /// As [`Table::check_writable`].
    pub fn check_rewritable(&self) -> Result<()> {
        writable::check(&self.inner, true)
    }

    /// The table's Arrow schema, partition columns in their place.
    pub fn schema(&self) -> SchemaRef {
        // A schema that could be opened can be shown: the fallback only spares callers an error that cannot happen.
        schema::of(&self.inner.known()).unwrap_or_else(|_| Arc::new(arrow::datatypes::Schema::empty()))
    }

    /// The version that this handle has seen last.
    pub fn version(&self) -> u64 {
        self.inner.known().version()
    }

    /// Appends rows as a blind append; durable when it returns. Threads and tasks that append through handles of one
    /// table at the same moment share one commit. Retries conflicts itself. Returns the version committed (of no rows: the
    /// version known, without a commit).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for rows that do not fit the table, [`ErrorKind::Unsupported`] for a table that the
    /// kernel cannot write; retrying does not help. [`ErrorKind::Conflict`] (retryable) when the time limit set for lost
    /// races ran out. [`ErrorKind::Storage`] when the store failed: when it is retryable, nothing was written; when the
    /// outcome is unknown, the message says so and it is not.
    pub fn append(&self, batch: &RecordBatch) -> Result<u64> {
        if batch.num_rows() == 0 {
            return Ok(self.inner.known().version());
        }
        group_commit::append(&self.inner, batch)
    }

    /// Like [`Table::append`], without a thread that waits. When the future is dropped, the rows may be written or not.
    ///
    /// # Errors
    /// As [`Table::append`].
    pub async fn append_async(&self, batch: &RecordBatch) -> Result<u64> {
        if batch.num_rows() == 0 {
            return Ok(self.inner.known().version());
        }
        group_commit::append_async(&self.inner, batch).await
    }

    /// Appends what `decide` makes of the newest snapshot, guarded: when any other commit won in between, nothing is
    /// written and `decide` is asked again. `Ok(None)` from `decide` ends it without a commit. `decide` must not write
    /// to this table.
    ///
    /// # Errors
    /// Those of `decide`, and as [`Table::append`].
    pub fn append_guarded(&self, decide: &mut dyn FnMut(&View<'_>) -> Result<Option<Guard>>) -> Result<Option<u64>> {
        let inner = &self.inner;
        let kind = Kind {
            operation: UpdateTableOperation::Write,
            blind: false,
            data_change: true,
            parameters: vec![("mode", "Append".to_owned())],
        };
        let mut staged: Option<Staged> = None;
        let ended = commit::commit(inner, &kind, Queue::Always, Instant::now(), &mut |attempt| {
            let Some(Guard { batch, transactions }) = decide(&View::new(inner, attempt.snapshot))? else {
                return Ok(None);
            };
            let rows = schema::align(&batch, &schema::of(attempt.snapshot)?)?;
            let files = Staged::reuse_or_write(&inner.storage, attempt, staged.take(), vec![Part::new(rows)])?;
            let adds = files.adds.clone();
            staged = Some(files);
            Ok(Some(Plan { adds, transactions, ..Plan::default() }))
        });
        if let Some(orphans) = staged.filter(|_| nothing_written(&ended)) {
            orphans.discard(&inner.storage);
        }
        ended
    }

    /// Replaces all rows by what `decide` makes of those of the newest version, in one commit, for tables of a few rows.
    /// Everything else is as with [`Table::append_guarded`].
    ///
    /// # Errors
    /// As [`Table::append_guarded`].
    pub fn replace(&self, decide: &mut dyn FnMut(&RecordBatch) -> Result<Option<Guard>>) -> Result<Option<u64>> {
        replace::replace(&self.inner, decide)
    }

    /// What `look` sees at the newest version, all of it at the same one.
    ///
    /// # Errors
    /// Those of `look`; [`ErrorKind::Storage`] when the log cannot be read.
    pub fn look<T>(&self, mut look: impl FnMut(&View<'_>) -> Result<T>) -> Result<T> {
        let mut vanished = 0;
        loop {
            let snapshot = self.inner.newest()?;
            match look(&View::new(&self.inner, &snapshot)) {
                Err(error) if vanished < commit::MOST_VANISHED && self.inner.moved_on(&snapshot, &error) => {
                    vanished += 1;
                }
                ended => return ended,
            }
        }
    }

    /// The rows that were appended after version `known`, and the newest version, but for the rows of those versions of
    /// which `except` says so. None when nobody knows: a version's log entry is gone, or rows were taken away meanwhile.
    ///
    /// # Errors
    /// As [`Table::scan`].
    pub fn appended_since(&self, known: u64, except: &dyn Fn(u64) -> bool) -> Result<Option<(RecordBatch, u64)>> {
        let snapshot = self.inner.newest()?;
        let rows = appended::since(&self.inner, &snapshot, known, except)?;
        Ok(rows.map(|rows| (rows, snapshot.version())))
    }

    /// The newest version.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the log cannot be read.
    pub fn newest_version(&self) -> Result<u64> {
        Ok(self.inner.newest()?.version())
    }

    /// Rows of the newest version that match, in the order in which they were written.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a predicate on a column that the table does not have or that has another type;
    /// [`ErrorKind::Storage`] when the log or a data file cannot be read.
    pub fn scan(&self, predicate: &Predicate) -> Result<RecordBatch> {
        self.inner.rows(predicate)
    }

    /// As [`Table::scan`], with only the columns `names`, in that order; those of the predicate must be among them.
    ///
    /// # Errors
    /// As [`Table::scan`].
    pub fn scan_columns(&self, predicate: &Predicate, names: &[&str]) -> Result<RecordBatch> {
        self.inner.of_newest(&|snapshot| scan::columns(&self.inner, snapshot, predicate, names))
    }

    /// How many rows of the newest version have each value of the text column `column`, and the rows in which it is
    /// `wanted`. By a partition column this reads no file but those of that value: the log has the number of rows of the
    /// others. Files with deletion vectors or without statistics are read, and all files of a table that is not
    /// partitioned by it.
    ///
    /// # Errors
    /// As [`Table::scan`].
    pub fn tally(&self, column: &str, wanted: &str) -> Result<Tally> {
        tally::tally(&self.inner, column, wanted)
    }

    /// Reads the files that may hold rows matching `predicate`, hands each file's live rows (all of them, in the
    /// table's schema) to `decide` and replaces, in one commit, the files in which it removed rows. Re-decides from
    /// scratch after every lost race, `restart` being called first. Returns the number of rows removed. `decide` must
    /// not write to this table.
    ///
    /// # Errors
    /// Those of `decide`, and as [`Table::append`]; [`ErrorKind::Unsupported`] for append-only tables and those with a
    /// change data feed or row tracking, where the kernel cannot replace rows.
    pub fn rewrite(
        &self,
        predicate: &Predicate,
        decide: &mut dyn FnMut(&RecordBatch) -> Result<Option<Rewrite>>,
        restart: &mut dyn FnMut(),
    ) -> Result<u64> {
        rewrite::rewrite(&self.inner, predicate, decide, restart)
    }

    /// Compacts small files, writes a checkpoint, deletes files that no version within the retention needs and the log
    /// entries that nobody can need any more: next to running readers and writers, and never changing a row. What one step
    /// could not do is in the report, and the others go on.
    pub fn maintain(&self, retention: Retention) -> Maintained {
        maintenance::maintain(&self.inner, retention)
    }

    #[cfg(test)]
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// How many small files the last scan found in the table, if they are so many that maintenance is overdue.
    pub fn overdue(&self) -> Option<u64> {
        self.inner.health.overdue()
    }
}

/// Where the table `name` is. A name is one directory: it cannot lead out of the root.
fn table_url(storage: &Storage, name: &str) -> Result<Url> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
        return Err(Error::invalid(format!("'{name}' is not a table name; give the name of a directory")));
    }
    let mut url = storage.root().clone();
    url.path_segments_mut()
        .map_err(|()| Error::new(ErrorKind::Internal, format!("'{}' has no directories", storage.root())))?
        .pop_if_empty()
        .push(name)
        .push("");
    Ok(url)
}
