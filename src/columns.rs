//! Arrow columns of rows: one value of each row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringBuilder, TimestampMicrosecondArray,
};

use crate::error::{Error, ErrorKind, Result};

pub(crate) fn text<I: IntoIterator, V: AsRef<str>>(rows: I, of: impl Fn(I::Item) -> Option<V>) -> ArrayRef {
    let values = rows.into_iter().map(of);
    // `collect` would reserve a kilobyte of text, which is most of what a single row in the queue of appends takes.
    let mut column = StringBuilder::with_capacity(values.size_hint().0, 0);
    column.extend(values);
    Arc::new(column.finish())
}

pub(crate) fn number<R>(rows: &[R], of: impl Fn(&R) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<Float64Array>())
}

pub(crate) fn integer<I: IntoIterator>(rows: I, of: impl Fn(I::Item) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.into_iter().map(of).collect::<Int64Array>())
}

/// A number from 0.
pub(crate) fn count<R, N: TryInto<i64>>(rows: &[R], of: impl Fn(&R) -> N) -> ArrayRef {
    integer(rows, |row| of(row).try_into().ok())
}

pub(crate) fn flag<R>(rows: &[R], of: impl Fn(&R) -> bool) -> ArrayRef {
    known_flag(rows, |row| Some(of(row)))
}

/// A flag that may not be known.
pub(crate) fn known_flag<R>(rows: &[R], of: impl Fn(&R) -> Option<bool>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<BooleanArray>())
}

/// Timestamps, given in microseconds since 1970 UTC.
pub(crate) fn time<I: IntoIterator>(rows: I, of: impl Fn(I::Item) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.into_iter().map(of).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// A table of nullable columns.
pub(crate) fn table<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .map_err(|error| Error::new(ErrorKind::Internal, "the columns of a table do not fit").with_source(error))
}
