//! Rows as values: what may be logged, and Arrow batches to rows and back.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_empty_array, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Utc};

use super::tables::{FLAG, LedgerTable, NO, timestamp};
use crate::error::{Error, ErrorKind, Result};

/// Longest file name that may be logged, in bytes (the longest path that Linux takes).
pub const MAX_FILE_NAME: usize = 4_096;
/// Longest job name that may be logged, in bytes. AutoSys takes 64; longer ones are kept and parked at delivery.
pub const MAX_JOB_NAME: usize = 1_024;
/// Longest flag that may be logged, in bytes. A flag names a directory, where a byte can take three, and file systems take
/// 255 for the name of one.
pub(super) const MAX_FLAG: usize = 64;

/// One row of either table, without its flag. NULLs from Spark are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LedgerRow {
    /// The file that was processed.
    pub file_name: Option<String>,
    /// The AutoSys job.
    pub job_id: Option<String>,
    /// How it ended.
    pub status: Option<String>,
    /// When, in microseconds since 1970 UTC.
    pub timestamp: Option<i64>,
}

/// Refuses names that may not be logged.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for an empty or over-long file or job name.
pub fn check_names(file_name: &str, job_id: &str) -> Result<()> {
    check_length("file_name", file_name, MAX_FILE_NAME)?;
    check_length("job_id", job_id, MAX_JOB_NAME)
}

pub(super) fn check_status(status: &str) -> Result<()> {
    if status.is_empty() {
        return Err(Error::invalid("status is empty; give what AutoSys is to be told, such as SUCCESS"));
    }
    Ok(())
}

fn check_length(what: &str, value: &str, limit: usize) -> Result<()> {
    if value.is_empty() {
        return Err(Error::invalid(format!("{what} is empty; nothing was logged")));
    }
    if value.len() > limit {
        return Err(Error::invalid(format!(
            "{what} has {} bytes, more than the {limit} that may be logged; nothing was logged: {}…",
            value.len(),
            value.chars().take(40).collect::<String>()
        )));
    }
    Ok(())
}

/// A row to be logged, as a batch of `table`; at this moment if there is no `timestamp`.
pub(super) fn new_row(
    table: LedgerTable,
    file_name: &str,
    job_id: &str,
    status: &str,
    at: Option<DateTime<Utc>>,
) -> Result<RecordBatch> {
    check_names(file_name, job_id)?;
    check_status(status)?;
    let row = LedgerRow {
        file_name: Some(file_name.to_owned()),
        job_id: Some(job_id.to_owned()),
        status: Some(status.to_owned()),
        timestamp: Some(at.unwrap_or_else(Utc::now).timestamp_micros()),
    };
    single(table, &row)
}

/// One row with the flag `NO`, as a batch of `table`.
pub(super) fn single(table: LedgerTable, row: &LedgerRow) -> Result<RecordBatch> {
    let text = |value: &Option<String>| Arc::new(StringArray::from(vec![value.clone()])) as ArrayRef;
    let at = Arc::new(TimestampMicrosecondArray::from(vec![row.timestamp]).with_timezone("UTC")) as ArrayRef;
    let flag = Arc::new(StringArray::from(vec![NO])) as ArrayRef;
    let (file, job, status) = (text(&row.file_name), text(&row.job_id), text(&row.status));
    let columns = match table {
        LedgerTable::Executions => vec![file, job, at, status, flag],
        LedgerTable::Notifications => vec![file, job, status, flag, at],
    };
    batch(table, columns)
}

fn batch(table: LedgerTable, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(table.schema(), columns).map_err(|e| {
        Error::new(ErrorKind::Internal, format!("rows of {} could not be built", table.name())).with_source(e)
    })
}

/// The rows of `data` in the shape of `table`, each value checked; the timestamp (`now`) and the flag (`NO`) may be left
/// out.
pub(super) fn checked(table: LedgerTable, data: &RecordBatch, now: DateTime<Utc>) -> Result<RecordBatch> {
    let schema = table.schema();
    check_columns(data)?;
    for field in data.schema().fields() {
        if schema.index_of(field.name()).is_err() {
            let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(Error::invalid(format!(
                "column \"{}\" is not one of {}: {}; nothing was logged",
                field.name(),
                table.name(),
                known.join(", ")
            )));
        }
    }
    let rows = data.num_rows();
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let given = data.column_by_name(field.name());
        let column = match (field.name().as_str(), given) {
            (name, Some(column)) if *field.data_type() == timestamp() => utc(name, column)?,
            (name, Some(column)) => text(name, column)?,
            (FLAG, None) => Arc::new(StringArray::from(vec![NO; rows])) as ArrayRef,
            (_, None) if *field.data_type() == timestamp() => {
                Arc::new(TimestampMicrosecondArray::from(vec![now.timestamp_micros(); rows]).with_timezone("UTC"))
            }
            (name, None) => {
                return Err(Error::invalid(format!("column \"{name}\" is missing; nothing was logged")));
            }
        };
        if let Some(row) = (0..rows).find(|row| column.is_null(*row)) {
            return Err(Error::invalid(format!(
                "column \"{}\" has no value in row {row}; nothing was logged",
                field.name()
            )));
        }
        columns.push(column);
    }
    let checked = batch(table, columns)?;
    for (number, row) in from_batch(table, &checked)?.iter().enumerate() {
        let value = |value: &Option<String>| value.clone().unwrap_or_default();
        check_names(&value(&row.file_name), &value(&row.job_id))
            .and_then(|()| check_status(&value(&row.status)))
            .map_err(|e| Error::invalid(format!("row {number}: {e}")))?;
    }
    let flags = strings(&checked, FLAG)?;
    if let Some(row) = (0..rows).find(|row| flags.value(*row).is_empty()) {
        return Err(Error::invalid(format!("{FLAG} is empty in row {row}; give NO or YES, or leave the column out")));
    }
    if let Some(row) = (0..rows).find(|row| flags.value(*row).len() > MAX_FLAG) {
        return Err(Error::invalid(format!(
            "{FLAG} has {} bytes in row {row}, more than the {MAX_FLAG} that may be logged; nothing was logged",
            flags.value(row).len()
        )));
    }
    Ok(checked)
}

/// Refuses data in which a name means two columns: which one counts is anybody's guess.
fn check_columns(data: &RecordBatch) -> Result<()> {
    let mut seen = HashSet::new();
    match data.schema_ref().fields().iter().find(|field| !seen.insert(field.name())) {
        Some(twice) => Err(Error::invalid(format!("the column \"{}\" is there twice; give it once", twice.name()))),
        None => Ok(()),
    }
}

fn text(name: &str, column: &ArrayRef) -> Result<ArrayRef> {
    let kind = match column.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => cast(name, column, &DataType::Utf8),
        // A column of nothing but NULLs: it gets the error about missing values, not one about its type.
        DataType::Null => Ok(Arc::new(StringArray::new_null(column.len()))),
        other => Err(Error::invalid(format!("column \"{name}\" must hold text, not {other}"))),
    }
}

fn utc(name: &str, column: &ArrayRef) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Timestamp(_, Some(_)) => cast(name, column, &timestamp()),
        // As with text: it has no values, whatever its type would have been.
        DataType::Null => Ok(new_null_array(&timestamp(), column.len())),
        DataType::Timestamp(_, None) => Err(Error::invalid(format!(
            "column \"{name}\" has timestamps without a timezone, so they could mean any hour; give them one, such as UTC"
        ))),
        other => Err(Error::invalid(format!("column \"{name}\" must hold timestamps with a timezone, not {other}"))),
    }
}

fn cast(name: &str, column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, to, &strict)
        .map_err(|e| Error::invalid(format!("column \"{name}\" cannot be read as {to}")).with_source(e))
}

/// `data` of a table with its timestamps as UTC. Spark's TIMESTAMP_NTZ, which some tables have, says no timezone: in these
/// tables it means UTC, as in all others.
pub(super) fn as_utc(data: RecordBatch) -> Result<RecordBatch> {
    with_timezone(data, Some("UTC"))
}

/// `data` in the spelling of a table with `schema`: without the timezone where its timestamps have none.
pub(super) fn as_stored(data: RecordBatch, schema: &Schema) -> Result<RecordBatch> {
    let naive = |field: &FieldRef| matches!(field.data_type(), DataType::Timestamp(_, None));
    if schema.fields().iter().any(naive) { with_timezone(data, None) } else { Ok(data) }
}

/// The same instants with another timezone, which is only how they are shown.
fn with_timezone(data: RecordBatch, timezone: Option<&str>) -> Result<RecordBatch> {
    let other = |kind: &DataType| matches!(kind, DataType::Timestamp(TimeUnit::Microsecond, zone) if zone.as_deref() != timezone);
    if !data.schema().fields().iter().any(|field| other(field.data_type())) {
        return Ok(data);
    }
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in data.schema().fields().iter().zip(data.columns()) {
        if other(field.data_type()) {
            let times = column.as_primitive::<TimestampMicrosecondType>().clone();
            let times = Arc::new(times.with_timezone_opt(timezone)) as ArrayRef;
            fields.push(Field::clone(field).with_data_type(times.data_type().clone()));
            columns.push(times);
        } else {
            fields.push(Field::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    let schema = Schema::new_with_metadata(fields, data.schema().metadata().clone());
    RecordBatch::try_new(Arc::new(schema), columns)
        .map_err(|e| Error::new(ErrorKind::Internal, "timestamps could not be read as UTC").with_source(e))
}

/// The rows of a batch that has the columns of `table` by name; its flag is not looked at.
pub(super) fn from_batch(table: LedgerTable, data: &RecordBatch) -> Result<Vec<LedgerRow>> {
    check_columns(data)?;
    let text_column = |name: &str| -> Result<ArrayRef> {
        let column = data.column_by_name(name).ok_or_else(|| missing(table, name))?;
        text(name, column)
    };
    let (files, jobs, statuses) = (text_column("file_name")?, text_column("job_id")?, text_column("status")?);
    let at = table.timestamp_column();
    let times = data.column_by_name(at).ok_or_else(|| missing(table, at))?;
    let times = if data.num_rows() == 0 { new_empty_array(&timestamp()) } else { utc(at, times)? };
    let (files, jobs, statuses) = (files.as_string::<i32>(), jobs.as_string::<i32>(), statuses.as_string::<i32>());
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let value = |column: &StringArray, row: usize| column.is_valid(row).then(|| column.value(row).to_owned());
    Ok((0..data.num_rows())
        .map(|row| LedgerRow {
            file_name: value(files, row),
            job_id: value(jobs, row),
            status: value(statuses, row),
            timestamp: times.is_valid(row).then(|| times.value(row)),
        })
        .collect())
}

fn missing(table: LedgerTable, name: &str) -> Error {
    Error::invalid(format!("the rows have no column \"{name}\", which rows of {} have", table.name()))
}

/// A text column of a batch that this crate scanned.
pub(super) fn strings<'a>(data: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    data.column_by_name(name).and_then(|column| column.as_string_opt::<i32>()).ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the table has no text column \"{name}\"; see whether it really is a table of the ledger"),
        )
    })
}
