//! Batches of the ledger's tables, and their columns by name.

use std::sync::Arc;

use arrow::array::{Array, ArrayAccessor, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use crate::delta::TableSpec;
use crate::error::{Error, ErrorKind, Result};

/// A batch in the shape of `spec`.
pub(crate) fn new_batch(spec: &TableSpec, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(Arc::clone(&spec.schema), columns)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot build rows of {}", spec.name)).with_source(e))
}

/// The text column `name` of a batch that was read from a table of the ledger.
pub(crate) fn texts<'a>(data: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    typed(data, name, "text")
}

/// The column `name` of whole numbers, as [`texts`].
pub(crate) fn integers<'a>(data: &'a RecordBatch, name: &str) -> Result<&'a Int64Array> {
    typed(data, name, "whole numbers")
}

/// The column `name` of timestamps, as [`texts`].
pub(crate) fn times<'a>(data: &'a RecordBatch, name: &str) -> Result<&'a TimestampMicrosecondArray> {
    typed(data, name, "timestamps")
}

fn typed<'a, A: Array + 'static>(data: &'a RecordBatch, name: &str, kind: &str) -> Result<&'a A> {
    data.column_by_name(name).and_then(|column| column.as_any().downcast_ref()).ok_or_else(|| {
        let text = format!("the table has no column \"{name}\" of {kind}; check that it is a table of the ledger");
        Error::new(ErrorKind::Unsupported, text)
    })
}

/// The value of `column` in this row; None for NULL.
pub(crate) fn value<A: ArrayAccessor>(column: A, row: usize) -> Option<A::Item> {
    column.is_valid(row).then(|| column.value(row))
}
