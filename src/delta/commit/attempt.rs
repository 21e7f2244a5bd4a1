//! One attempt to commit: its kind, its snapshot, the kernel's transaction for it, and what became of that.

use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use delta_kernel::committer::{CommitMetadata, CommitResponse, Committer, PublishMetadata};
use delta_kernel::transaction::{Transaction, UpdateTableOperation};
use delta_kernel::{Engine, FilteredEngineData, KernelError, KernelResult, KernelResultIterator, SnapshotRef};

use crate::delta::errors::from_kernel;
use crate::delta::log::{COMMIT_ID, ENGINE_INFO, unwritable_column};
use crate::delta::schema;
use crate::delta::state::{SharedCommitter, TableState, WriteLayout};
use crate::delta::types::Predicate;
use crate::error::Result;

/// What kind of commit it is. It stays the same for all attempts.
pub(in crate::delta) struct CommitKind {
    operation: UpdateTableOperation,
    /// It depends on nothing in the table, so that no other writer conflicts with it.
    pub(super) blind: bool,
    /// It changes the table's rows, and not only how they are stored.
    data_change: bool,
    /// Threads of this process wait for each other from the first attempt on, as planning is quick. Otherwise they do so
    /// only after a lost race: planning may be slow, but must not starve.
    pub(super) lock_first: bool,
    /// Details for the table's history.
    parameters: Vec<(&'static str, String)>,
}

impl CommitKind {
    /// Adds rows.
    pub(in crate::delta) fn append(blind: bool) -> Self {
        Self { blind, ..Self::write("Append") }
    }

    /// Adds rows, or replaces all of them; `mode` says which in the table's history.
    pub(super) fn write(mode: &str) -> Self {
        Self {
            operation: UpdateTableOperation::Write,
            blind: false,
            data_change: true,
            lock_first: true,
            parameters: vec![("mode", mode.to_owned())],
        }
    }

    /// Replaces the rows that match.
    pub(super) fn update(predicate: &Predicate) -> Self {
        Self {
            operation: UpdateTableOperation::Update,
            lock_first: false,
            parameters: vec![("predicate", predicate.to_sql())],
            ..Self::write("")
        }
    }

    /// Stores the same rows in other files, up to this size in bytes.
    pub(in crate::delta) fn optimize(target_size: i64) -> Self {
        Self {
            operation: UpdateTableOperation::Optimize,
            data_change: false,
            parameters: vec![("predicate", "[]".to_owned()), ("targetSize", target_size.to_string())],
            ..Self::write("")
        }
    }
}

/// Rows that share data files: one file per partition value.
#[derive(Debug, Clone)]
pub(in crate::delta) struct FileRows {
    /// With the table's schema.
    pub(in crate::delta) rows: RecordBatch,
    /// The files' modification time in the log, in milliseconds since 1970; `None`: now. Rows are read in this order, so
    /// rows that only move to another file keep their time.
    pub(in crate::delta) written_at: Option<i64>,
}

impl FileRows {
    pub(in crate::delta) fn new(rows: RecordBatch) -> Self {
        Self { rows, written_at: None }
    }
}

impl PartialEq for FileRows {
    /// Compares values only where the columns are not the same memory. After a lost race, they usually are, and the table
    /// is locked meanwhile.
    fn eq(&self, other: &Self) -> bool {
        let columns = self.rows.columns().iter().zip(other.rows.columns());
        self.written_at == other.written_at
            && self.rows.num_rows() == other.rows.num_rows()
            && self.rows.schema_ref() == other.rows.schema_ref()
            && columns.into_iter().all(|(one, two)| Arc::ptr_eq(one, two) || one == two)
    }
}

/// What the caller decides a commit on.
pub(in crate::delta) struct CommitAttempt<'a> {
    pub(in crate::delta) table: &'a TableState,
    pub(in crate::delta) snapshot: &'a SnapshotRef,
    pub(super) kind: &'a CommitKind,
    /// Counts from 0.
    pub(in crate::delta) number: u32,
}

impl<'a> CommitAttempt<'a> {
    /// The first attempt, on `snapshot`.
    pub(in crate::delta) fn new(table: &'a TableState, kind: &'a CommitKind, snapshot: &'a SnapshotRef) -> Self {
        Self { table, snapshot, kind, number: 0 }
    }

    /// The rows of `batch` in the table's columns, for data files of their own.
    ///
    /// # Errors
    /// As [`schema::align`].
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<Vec<FileRows>> {
        Ok(vec![FileRows::new(schema::align(batch, &self.table.schema(self.snapshot)?)?)])
    }

    /// How data files are written.
    ///
    /// # Errors
    /// Those of [`CommitAttempt::transaction`].
    pub(super) fn write_layout(&self) -> Result<WriteLayout> {
        self.table.write_layout(self.snapshot, || self.transaction())
    }

    /// A transaction to look things up in; it is never committed.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] when the table has a feature that the kernel cannot write.
    pub(in crate::delta) fn transaction(&self) -> Result<Transaction> {
        self.begin(&[], "", ObservedCommitter::new(&self.table.committer))
    }

    /// Begins a transaction that `committer` commits. The commit gets this id.
    pub(super) fn begin(
        &self,
        transactions: &[(String, i64)],
        id: &str,
        committer: ObservedCommitter,
    ) -> Result<Transaction> {
        let failed = |e| from_kernel(format!("preparing a commit to '{}'", self.table.url), e);
        if let Some((column, feature)) = unwritable_column(self.snapshot) {
            let text = format!("Feature '{feature}' is not supported (column '{column}' has it)");
            return Err(failed(KernelError::unsupported(text)));
        }
        let kind = self.kind;
        let parameters = kind.parameters.iter().map(|(key, value)| (*key, Some(value.as_str())));
        let mut builder = Arc::clone(self.snapshot)
            .update_table(kind.operation.clone(), ENGINE_INFO, kind.data_change)
            .with_operation_parameters(parameters.chain([(COMMIT_ID, Some(id))]));
        if kind.blind {
            builder = builder.with_blind_append();
        }
        for (app, version) in transactions {
            builder = builder.with_transaction_id(app, *version);
        }
        let engine = self.table.storage.engine()?;
        let mut transaction = builder.build(engine.as_ref(), Box::new(committer)).map_err(failed)?;
        // Every column is written, so no column takes its default.
        transaction.ack_column_defaults();
        Ok(transaction)
    }
}

/// Passes commits to a committer and observes its response. Whatever the kernel makes of it, the response says what became of
/// the log entry.
pub(super) struct ObservedCommitter {
    inner: SharedCommitter,
    /// Whether the committer created the log entry. Empty if it was not called.
    pub(super) observed: Arc<OnceLock<bool>>,
}

impl ObservedCommitter {
    pub(super) fn new(inner: &SharedCommitter) -> Self {
        Self { inner: Arc::clone(inner), observed: Arc::default() }
    }
}

impl Committer for ObservedCommitter {
    fn commit(
        &self,
        engine: &dyn Engine,
        actions: KernelResultIterator<'_, FilteredEngineData>,
        metadata: CommitMetadata,
    ) -> KernelResult<CommitResponse> {
        let response = self.inner.commit(engine, actions, metadata);
        self.observed.get_or_init(|| matches!(response, Ok(CommitResponse::Committed { .. })));
        response
    }

    fn is_catalog_committer(&self) -> bool {
        self.inner.is_catalog_committer()
    }

    fn publish(&self, engine: &dyn Engine, metadata: PublishMetadata) -> KernelResult<()> {
        self.inner.publish(engine, metadata)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    #[test]
    fn the_same_rows_are_equal_wherever_they_are_in_memory() {
        let rows = |text: &str| {
            let column = Arc::new(StringArray::from(vec![text])) as ArrayRef;
            FileRows::new(RecordBatch::try_from_iter([("name", column)]).unwrap())
        };
        let one = rows("a");
        assert_eq!(one, one.clone());
        assert_eq!(one, rows("a"));
        assert_ne!(one, rows("b"));
        assert_ne!(one, FileRows { written_at: Some(1), ..rows("a") });
    }
}
