//! Arrow columns of rows: one value of each row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};

use crate::error::{Error, ErrorKind, Result};

pub(crate) fn text<'a, R>(rows: &'a [R], of: impl Fn(&'a R) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<StringArray>())
}

pub(crate) fn number<R>(rows: &[R], of: impl Fn(&R) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<Float64Array>())
}

pub(crate) fn integer<R>(rows: &[R], of: impl Fn(&R) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<Int64Array>())
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
pub(crate) fn time<R>(rows: &[R], of: impl Fn(&R) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// A table of nullable columns.
pub(crate) fn table<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .map_err(|error| Error::new(ErrorKind::Internal, "the columns of a table do not fit").with_source(error))
}
