//! Converts batches to a table's columns, their order and their types.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use delta_kernel::SnapshotRef;
use delta_kernel::engine::arrow_conversion::TryIntoArrow as _;

use super::errors::from_arrow;
use crate::error::{Error, Result};

/// The table's Arrow schema at `snapshot`: with the partition columns in their places, without field metadata.
pub(super) fn of(snapshot: &SnapshotRef) -> Result<SchemaRef> {
    let schema: Schema =
        snapshot.schema().as_ref().try_into_arrow().map_err(|e| from_arrow("reading the table's schema", e))?;
    let fields: Vec<Field> =
        schema.fields().iter().map(|f| Field::new(f.name(), f.data_type().clone(), f.is_nullable())).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// `batch` with the columns of `schema`, matched by name, in its order and types. Absent nullable columns become NULL.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for a column that the table does not have, one that is missing, one of another kind of
/// type, and a NULL where the table takes none.
pub(super) fn align(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    for field in batch.schema_ref().fields() {
        if schema.column_with_name(field.name()).is_none() {
            return Err(no_such_column(field.name(), schema));
        }
    }
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) if !field.is_nullable() && column.null_count() > 0 => {
                Err(Error::invalid(format!("the column '{}' has a NULL, which the table does not take", field.name())))
            }
            Some(column) => convert(column, field),
            None if field.is_nullable() => Ok(new_null_array(field.data_type(), batch.num_rows())),
            None => Err(Error::invalid(format!(
                "the column '{}' is missing, and the table takes no NULL there",
                field.name()
            ))),
        })
        .collect::<Result<_>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|e| Error::invalid("the rows do not fit the table's columns").with_source(e))
}

/// Converts a column that holds the table's type in another representation (Spark's timestamps, dictionaries, views).
pub(super) fn convert(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let (from, to) = (column.data_type(), field.data_type());
    if from == to {
        return Ok(Arc::clone(column));
    }
    if !same_kind(from, to) {
        return Err(Error::invalid(format!("the column '{}' is {from}, but the table's is {to}", field.name())));
    }
    // Not `safe`: a value that does not fit must be an error, not NULL.
    cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() }).map_err(|e| {
        Error::invalid(format!("a value of the column '{}' does not fit the table's {to}", field.name())).with_source(e)
    })
}

pub(super) fn same_kind(from: &DataType, to: &DataType) -> bool {
    let text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match (from, to) {
        (DataType::Null, _) => true,
        (DataType::Dictionary(_, value), to) => value.as_ref() == to || text(value) && text(to),
        // A time zone only says how an instant is displayed. Timestamps with and without one are different types, but this
        // crate takes the values of a column without one as UTC.
        (DataType::Timestamp(_, a), DataType::Timestamp(_, b)) => {
            a.is_some() == b.is_some() || a.as_deref() == Some("UTC") && b.is_none()
        }
        (from, to) if from.is_integer() => {
            to.is_integer() || to.is_floating() && from.primitive_width() < to.primitive_width()
        }
        (from, to) if from.is_floating() => to.is_floating(),
        (from, to) => from == to || text(from) && text(to),
    }
}

fn no_such_column(name: &str, schema: &Schema) -> Error {
    let names = schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    Error::invalid(format!("the table has no column '{name}'; its columns are {names}"))
}

/// The rows of all `batches`, which have this schema.
pub(super) fn concat<'a>(
    schema: &SchemaRef,
    batches: impl IntoIterator<Item = &'a RecordBatch>,
) -> Result<RecordBatch> {
    match batches.into_iter().collect::<Vec<_>>().as_slice() {
        [one] if one.schema_ref() == schema => Ok((*one).clone()),
        many => concat_batches(schema, many.iter().copied()).map_err(|e| from_arrow("concatenating rows", e)),
    }
}

/// The column `name`.
pub(super) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| no_such_column(name, batch.schema_ref()))
}
