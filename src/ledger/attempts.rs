//! Attempts: the tries to deliver rows, as rows of `autosys_deliveries`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use chrono::{DateTime, Utc};

use super::rows::{LedgerRow, strings};
use super::tables::{ATTEMPTED_AT, DELIVERIES, DELIVERIES_SPEC, LedgerTable};
use crate::error::{Error, ErrorKind, Result};

/// One try to deliver one row: a row of `autosys_deliveries`.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The table that the row is of.
    pub table: LedgerTable,
    /// The row.
    pub row: LedgerRow,
    /// 1 for the first try of this row.
    pub attempt: i64,
    /// sending, delivered, failed, unknown, superseded, parked, redriven, expired or by_hand.
    pub outcome: String,
    /// What the transport said; never a secret.
    pub detail: Option<String>,
    /// Name of the transport.
    pub transport: String,
    /// The VM that it went over, if any.
    pub vm: Option<String>,
    /// host:pid of the process that tried.
    pub delivered_by: String,
    /// When.
    pub attempted_at: DateTime<Utc>,
}

/// `attempts` as a batch of `autosys_deliveries`.
pub(super) fn to_batch(attempts: &[Attempt]) -> Result<RecordBatch> {
    let text = |value: fn(&Attempt) -> Option<&str>| {
        Arc::new(attempts.iter().map(value).collect::<StringArray>()) as ArrayRef
    };
    let times = |value: fn(&Attempt) -> Option<i64>| {
        let column: TimestampMicrosecondArray = attempts.iter().map(value).collect();
        Arc::new(column.with_timezone("UTC")) as ArrayRef
    };
    let columns = vec![
        text(|attempt| Some(attempt.table.name())),
        text(|attempt| attempt.row.file_name.as_deref()),
        text(|attempt| attempt.row.job_id.as_deref()),
        text(|attempt| attempt.row.status.as_deref()),
        times(|attempt| attempt.row.timestamp),
        Arc::new(attempts.iter().map(|attempt| Some(attempt.attempt)).collect::<Int64Array>()),
        text(|attempt| Some(&attempt.outcome)),
        text(|attempt| attempt.detail.as_deref()),
        text(|attempt| Some(&attempt.transport)),
        text(|attempt| attempt.vm.as_deref()),
        text(|attempt| Some(&attempt.delivered_by)),
        times(|attempt| Some(attempt.attempted_at.timestamp_micros())),
    ];
    RecordBatch::try_new(Arc::clone(&DELIVERIES_SPEC.schema), columns)
        .map_err(|e| Error::new(ErrorKind::Internal, "rows of autosys_deliveries could not be built").with_source(e))
}

/// The attempts in a batch of `autosys_deliveries`. Rows of tables that this version does not know are left out.
pub(super) fn from_batch(batch: &RecordBatch) -> Result<Vec<Attempt>> {
    let text = |name| strings(batch, name);
    let tables = text("table_name")?;
    let (files, jobs, statuses) = (text("file_name")?, text("job_id")?, text("status")?);
    let (outcomes, details, transports) = (text("outcome")?, text("detail")?, text("transport")?);
    let (vms, deliverers) = (text("vm")?, text("delivered_by")?);
    let unlike = |name: &str| {
        Error::new(ErrorKind::Unsupported, format!("column \"{name}\" of {DELIVERIES} is not of the type it should be"))
    };
    let times = |name: &'static str| {
        let column = batch.column_by_name(name);
        column.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>()).ok_or_else(|| unlike(name))
    };
    let (row_times, attempted) = (times("row_timestamp")?, times(ATTEMPTED_AT)?);
    let numbers = batch.column_by_name("attempt").and_then(|column| column.as_primitive_opt::<Int64Type>());
    let numbers = numbers.ok_or_else(|| unlike("attempt"))?;
    let optional = |column: &StringArray, row: usize| column.is_valid(row).then(|| column.value(row).to_owned());
    let required = |column: &StringArray, row: usize| optional(column, row).unwrap_or_default();
    Ok((0..batch.num_rows())
        .filter_map(|row| {
            Some(Attempt {
                table: LedgerTable::named(tables.value(row))?,
                row: LedgerRow {
                    file_name: optional(files, row),
                    job_id: optional(jobs, row),
                    status: optional(statuses, row),
                    timestamp: row_times.is_valid(row).then(|| row_times.value(row)),
                },
                attempt: numbers.value(row),
                outcome: required(outcomes, row),
                detail: optional(details, row),
                transport: required(transports, row),
                vm: optional(vms, row),
                delivered_by: required(deliverers, row),
                attempted_at: DateTime::from_timestamp_micros(attempted.value(row)).unwrap_or_default(),
            })
        })
        .collect())
}
