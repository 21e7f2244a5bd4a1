//! Rows as values: validation, and conversion between rows and Arrow batches.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, new_empty_array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Utc};

use super::columns::{new_batch, texts, times, value};
use super::tables::{FLAG, LedgerTable, NO};
use crate::columns;
use crate::delta::timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::environment;

/// The maximum length of a file name, in bytes (the longest path on Linux).
pub const MAX_FILE_NAME: usize = 4_096;
/// The maximum length of a job name, in bytes. AutoSys accepts 64; longer names are logged, and parked at delivery.
pub const MAX_LOGGED_JOB_NAME: usize = 1_024;
/// The maximum length of a status, in bytes. It is copied into attempts, details and metrics.
pub const MAX_STATUS: usize = 1_024;
/// The maximum length of a flag, in bytes. A flag becomes the name of a directory, where each byte can take three, and
/// file systems accept 255 for a name.
pub(super) const MAX_FLAG: usize = 64;

/// One row of either table, without its flag. Rows that Spark wrote can have NULLs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LedgerRow {
    /// The file that was processed.
    pub file_name: Option<String>,
    /// The AutoSys job.
    pub job_id: Option<String>,
    /// The status of the job.
    pub status: Option<String>,
    /// The time, in microseconds since 1970 UTC.
    pub timestamp: Option<i64>,
}

/// How often each value occurs.
pub(crate) fn counted<T: Eq + Hash>(values: impl IntoIterator<Item = T>) -> HashMap<T, u64> {
    let mut counts = HashMap::new();
    values.into_iter().for_each(|value| *counts.entry(value).or_default() += 1);
    counts
}

/// Takes one of `value` out of `counts`. Returns whether there was one.
pub(crate) fn take_one<Q: Eq + Hash, T: Borrow<Q> + Eq + Hash>(counts: &mut HashMap<T, u64>, value: &Q) -> bool {
    let left = counts.get_mut(value).filter(|left| **left > 0);
    left.map(|left| *left -= 1).is_some()
}

/// Checks names that are to be logged.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for an empty or too long file or job name.
pub fn check_names(file_name: &str, job_id: &str) -> Result<()> {
    check_length("file_name", file_name, MAX_FILE_NAME)?;
    check_length("job_id", job_id, MAX_LOGGED_JOB_NAME)
}

pub(super) fn check_status(status: &str) -> Result<()> {
    if status.is_empty() {
        return Err(Error::invalid("status is empty; give the status to report, such as SUCCESS"));
    }
    check_length("status", status, MAX_STATUS)
}

/// The time of a row that is logged now, in microseconds since 1970 UTC: later than that of any other row that this process
/// has logged. If the clock is set back, the rows of a job keep their order.
pub(super) fn next_timestamp() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(i64::MIN);
    let now = environment().utc().timestamp_micros();
    let next = |last: i64| now.max(last.saturating_add(1));
    LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).map_or(now, next)
}

fn check_length(what: &str, value: &str, limit: usize) -> Result<()> {
    if value.is_empty() {
        return Err(Error::invalid(format!("{what} is empty; nothing was logged")));
    }
    if value.len() > limit {
        return Err(Error::invalid(format!(
            "{what} has {} bytes, more than the {limit} that can be logged; nothing was logged: {}…",
            value.len(),
            value.chars().take(40).collect::<String>()
        )));
    }
    Ok(())
}

/// A row to be logged, as a batch of `table`. The default time is now.
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
        timestamp: Some(at.map_or_else(next_timestamp, |at| at.timestamp_micros())),
    };
    to_batch(table, iter::once(&row), iter::once(NO))
}

/// `rows` as a batch of `table`, each with its flag.
pub(crate) fn to_batch<'a>(
    table: LedgerTable,
    rows: impl Iterator<Item = &'a LedgerRow> + Clone,
    flags: impl Iterator<Item = &'static str>,
) -> Result<RecordBatch> {
    let flag = columns::text(flags, Some);
    let [file, job, status, at] = row_columns(rows);
    let columns = match table {
        LedgerTable::Executions => vec![file, job, at, status, flag],
        LedgerTable::Notifications => vec![file, job, status, flag, at],
    };
    new_batch(table.spec(), columns)
}

/// The rows of `data` in the shape of `table`, with every value checked. The timestamp defaults to now, the flag to `NO`.
pub(super) fn checked(table: LedgerTable, data: &RecordBatch) -> Result<RecordBatch> {
    let schema = table.schema();
    check_columns(data)?;
    if let Some(unknown) = data.schema().fields().iter().find(|field| schema.index_of(field.name()).is_err()) {
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(Error::invalid(format!(
            "column \"{}\" is not one of {}: {}; nothing was logged",
            unknown.name(),
            table.name(),
            known.join(", ")
        )));
    }
    let (rows, now) = (data.num_rows(), next_timestamp());
    let column = |field: &FieldRef| -> Result<ArrayRef> {
        let (name, is_time) = (field.name().as_str(), *field.data_type() == timestamp());
        let column = match data.column_by_name(name) {
            Some(column) if is_time => utc(name, column)?,
            Some(column) => text(name, column)?,
            None if name == FLAG => columns::text(iter::repeat_n(NO, rows), Some),
            None if is_time => columns::time(iter::repeat_n(now, rows), Some),
            None => return Err(Error::invalid(format!("column \"{name}\" is missing; nothing was logged"))),
        };
        match (0..rows).find(|row| column.is_null(*row)) {
            Some(row) => {
                Err(Error::invalid(format!("column \"{name}\" has no value in row {row}; nothing was logged")))
            }
            None => Ok(column),
        }
    };
    let checked = new_batch(table.spec(), schema.fields().iter().map(column).collect::<Result<_>>()?)?;
    for (number, row) in from_batch(table, &checked)?.iter().enumerate() {
        let value = |value: &Option<String>| value.clone().unwrap_or_default();
        check_names(&value(&row.file_name), &value(&row.job_id))
            .and_then(|()| check_status(&value(&row.status)))
            .map_err(|e| Error::invalid(format!("row {number}: {e}")))?;
    }
    for (row, flag) in texts(&checked, FLAG)?.iter().flatten().enumerate() {
        if flag.is_empty() {
            let text = format!("{FLAG} is empty in row {row}; give NO or YES, or leave the column out");
            return Err(Error::invalid(text));
        }
        if flag.len() > MAX_FLAG {
            return Err(Error::invalid(format!(
                "{FLAG} has {} bytes in row {row}, more than the {MAX_FLAG} that can be logged; nothing was logged",
                flag.len()
            )));
        }
    }
    Ok(checked)
}

/// Refuses data with two columns of the same name.
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
        // A column of NULLs: the error is about the missing values, not about the type.
        DataType::Null => Ok(Arc::new(StringArray::new_null(column.len()))),
        other => Err(Error::invalid(format!("column \"{name}\" must hold text, not {other}"))),
    }
}

fn utc(name: &str, column: &ArrayRef) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Timestamp(_, Some(_)) => cast(name, column, &timestamp()),
        // As with text.
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

/// `data` of a table with its timestamps as UTC. Timestamps without a time zone (Spark's TIMESTAMP_NTZ) mean UTC in the
/// ledger's tables.
pub(crate) fn as_utc(data: RecordBatch) -> Result<RecordBatch> {
    with_timezone(data, Some("UTC"))
}

/// `data` with timestamps as a table with `schema` has them: without a time zone where the table has none.
pub(super) fn as_stored(data: RecordBatch, schema: &Schema) -> Result<RecordBatch> {
    let naive = |field: &FieldRef| matches!(field.data_type(), DataType::Timestamp(_, None));
    if schema.fields().iter().any(naive) { with_timezone(data, None) } else { Ok(data) }
}

/// The same instants with another time zone.
fn with_timezone(data: RecordBatch, timezone: Option<&str>) -> Result<RecordBatch> {
    let other = |kind: &DataType| matches!(kind, DataType::Timestamp(TimeUnit::Microsecond, zone) if zone.as_deref() != timezone);
    if !data.schema().fields().iter().any(|field| other(field.data_type())) {
        return Ok(data);
    }
    let schema = data.schema();
    let converted = schema.fields().iter().zip(data.columns()).map(|(field, column)| {
        if !other(field.data_type()) {
            return (Field::clone(field), Arc::clone(column));
        }
        let times = column.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(timezone);
        (Field::clone(field).with_data_type(times.data_type().clone()), Arc::new(times) as ArrayRef)
    });
    let (fields, columns): (Vec<_>, Vec<_>) = converted.unzip();
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    RecordBatch::try_new(Arc::new(schema), columns)
        .map_err(|e| Error::new(ErrorKind::Internal, "cannot read timestamps as UTC").with_source(e))
}

/// The rows of a batch that has the columns of `table` by name. The flag is ignored.
pub(crate) fn from_batch(table: LedgerTable, data: &RecordBatch) -> Result<Vec<LedgerRow>> {
    check_columns(data)?;
    let time = table.timestamp_column();
    let column = |name: &'static str| -> Result<(&str, ArrayRef)> {
        let column = data.column_by_name(name).ok_or_else(|| {
            let table = table.name();
            Error::invalid(format!("the rows have no column \"{name}\", which rows of {table} have"))
        })?;
        let column = match name == time {
            true if data.num_rows() == 0 => new_empty_array(&timestamp()),
            true => utc(name, column)?,
            false => text(name, column)?,
        };
        Ok((name, column))
    };
    let columns = ["file_name", "job_id", "status", time].map(column).into_iter().collect::<Result<Vec<_>>>()?;
    let rows = RecordBatch::try_from_iter(columns)
        .map_err(|e| Error::new(ErrorKind::Internal, "cannot read rows").with_source(e))?;
    named_rows(&rows, time)
}

/// File name, job, status and timestamp of `rows`.
pub(crate) fn row_columns<'a>(rows: impl Iterator<Item = &'a LedgerRow> + Clone) -> [ArrayRef; 4] {
    [
        columns::text(rows.clone(), |row| row.file_name.as_deref()),
        columns::text(rows.clone(), |row| row.job_id.as_deref()),
        columns::text(rows.clone(), |row| row.status.as_deref()),
        columns::time(rows, |row| row.timestamp),
    ]
}

/// The rows that `file_name`, `job_id`, `status` and the column `time` of a table of the ledger name.
pub(crate) fn named_rows(data: &RecordBatch, time: &str) -> Result<Vec<LedgerRow>> {
    let (files, jobs, statuses) = (texts(data, "file_name")?, texts(data, "job_id")?, texts(data, "status")?);
    let times = times(data, time)?;
    let text = |column, row| value::<&StringArray>(column, row).map(str::to_owned);
    let row = |row| LedgerRow {
        file_name: text(files, row),
        job_id: text(jobs, row),
        status: text(statuses, row),
        timestamp: value(times, row),
    };
    Ok((0..data.num_rows()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_a_process_never_go_back() {
        let logged = |_| (0..1_000).map(|_| next_timestamp()).collect::<Vec<_>>();
        let all: Vec<Vec<i64>> = std::thread::scope(|threads| {
            let running: Vec<_> = (0..4).map(|number| threads.spawn(move || logged(number))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|times| times.is_sorted()));
        assert_eq!(all.iter().flatten().collect::<HashSet<_>>().len(), 4_000, "and no two are the same");
    }
}
