//! One Delta table: open, create, append, scan, rewrite.
use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::storage::Storage;

/// What a table looks like when this crate creates it (reader 1, writer 2, no features).
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Directory name below the storage root.
    pub name: &'static str,
    /// Columns in order: Utf8, Int64, Float64, Boolean and Timestamp(Microsecond, "UTC"), all nullable.
    pub schema: SchemaRef,
    /// Partition columns (Utf8), maybe none.
    pub partition_by: &'static [&'static str],
}

/// A conjunction that prunes files by partition values and statistics and then filters rows exactly.
#[derive(Debug, Clone, Default)]
pub struct Predicate {
    /// Column equals text.
    pub equals: Vec<(String, String)>,
    /// Timestamp column in [since, until), microseconds UTC.
    pub time: Option<(String, Option<i64>, Option<i64>)>,
}

/// A snapshot that a guarded append decides on.
pub struct View<'a> {
    _table: &'a Table,
}
impl View<'_> {
    /// The table's version.
    pub fn version(&self) -> u64 {
        todo!()
    }
    /// The last transaction id (`txn` action) of `app_id`, if any.
    pub fn transaction(&self, _app_id: &str) -> Result<Option<i64>> {
        todo!()
    }
    /// Rows at this version.
    pub fn scan(&self, _predicate: &Predicate) -> Result<RecordBatch> {
        todo!()
    }
}

/// Rows to append together with transaction ids, in one atomic commit.
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
#[derive(Clone, Debug)]
pub struct Table {
    _inner: std::sync::Arc<()>,
}

impl Table {
    /// Opens an existing table. [`crate::ErrorKind::NotFound`] when there is none.
    pub fn open(_storage: &Storage, _name: &str) -> Result<Self> {
        todo!()
    }
    /// Opens the table, creating it first when there is none; safe when many processes do so at once.
    pub fn open_or_create(_storage: &Storage, _spec: &TableSpec) -> Result<Self> {
        todo!()
    }
    /// The table's Arrow schema, partition columns in their place.
    pub fn schema(&self) -> SchemaRef {
        todo!()
    }
    /// Appends rows as a blind append; durable when it returns. Retries conflicts itself. Returns the version committed.
    pub fn append(&self, _batch: &RecordBatch) -> Result<u64> {
        todo!()
    }
    /// Appends what `decide` makes of the newest snapshot, guarded: when any other commit won in between, nothing is
    /// written and `decide` is asked again. `Ok(None)` from `decide` ends it without a commit.
    pub fn append_guarded(&self, _decide: &mut dyn FnMut(&View<'_>) -> Result<Option<Guard>>) -> Result<Option<u64>> {
        todo!()
    }
    /// Rows of the newest version that match.
    pub fn scan(&self, _predicate: &Predicate) -> Result<RecordBatch> {
        todo!()
    }
    /// Reads the files that may hold rows matching `predicate`, hands each file's live rows to `decide`
    /// and replaces, in one commit, the files in which it removed rows. Re-decides from scratch after every lost
    /// race. Returns the number of rows removed.
    pub fn rewrite(
        &self,
        _predicate: &Predicate,
        _decide: &mut dyn FnMut(&RecordBatch) -> Result<Option<Rewrite>>,
        _restart: &mut dyn FnMut(),
    ) -> Result<u64> {
        todo!()
    }
}
