//! Rows of the core as Arrow tables.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use chrono::{DateTime, Utc};

use crate::delivery::ParkedRow;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::LedgerTable;
use crate::selection::{CheckRow, DistributionRow, StateRow};

fn table<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .map_err(|error| Error::new(ErrorKind::Internal, "the columns of a table do not fit").with_source(error))
}

fn texts<'a, R>(rows: &'a [R], value: impl Fn(&'a R) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<StringArray>())
}

fn wholes<R>(rows: &[R], value: impl Fn(&R) -> u64) -> ArrayRef {
    Arc::new(rows.iter().map(|row| i64::try_from(value(row)).ok()).collect::<Int64Array>())
}

fn numbers<R>(rows: &[R], value: impl Fn(&R) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<Float64Array>())
}

fn flags<R>(rows: &[R], value: impl Fn(&R) -> bool) -> ArrayRef {
    Arc::new(rows.iter().map(|row| Some(value(row))).collect::<BooleanArray>())
}

fn times<R>(rows: &[R], microseconds: impl Fn(&R) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(microseconds).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn microseconds(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

/// vm, ip_address, nic_name, reachable, probe, rtt_ms, reason.
pub(super) fn check(rows: &[CheckRow]) -> Result<RecordBatch> {
    table([
        ("vm", texts(rows, |row| Some(&row.vm))),
        ("ip_address", texts(rows, |row| row.ip_address.as_deref())),
        ("nic_name", texts(rows, |row| row.nic_name.as_deref())),
        ("reachable", flags(rows, |row| row.reachable)),
        ("probe", texts(rows, |row| row.probe.as_deref())),
        ("rtt_ms", numbers(rows, |row| row.rtt_ms)),
        ("reason", texts(rows, |row| row.reason.as_deref())),
    ])
}

/// vm, selections, share, last_selected.
pub(super) fn distribution(rows: &[DistributionRow]) -> Result<RecordBatch> {
    table([
        ("vm", texts(rows, |row| Some(&row.vm))),
        ("selections", wholes(rows, |row| row.selections)),
        ("share", numbers(rows, |row| Some(row.share))),
        ("last_selected", times(rows, |row| row.last_selected.map(microseconds))),
    ])
}

/// vm, weight, drained, healthy, in_flight.
pub(super) fn state(rows: &[StateRow]) -> Result<RecordBatch> {
    table([
        ("vm", texts(rows, |row| Some(&row.vm))),
        ("weight", wholes(rows, |row| row.weight.into())),
        ("drained", flags(rows, |row| row.drained)),
        ("healthy", flags(rows, |row| row.healthy)),
        ("in_flight", wholes(rows, |row| row.in_flight.into())),
    ])
}

/// The columns that make a row of the table, and attempts, reason, parked_at, transport.
pub(super) fn parked(table_of_rows: LedgerTable, rows: &[ParkedRow]) -> Result<RecordBatch> {
    table([
        ("file_name", texts(rows, |parked| parked.row.file_name.as_deref())),
        ("job_id", texts(rows, |parked| parked.row.job_id.as_deref())),
        ("status", texts(rows, |parked| parked.row.status.as_deref())),
        (table_of_rows.timestamp_column(), times(rows, |parked| parked.row.timestamp)),
        ("attempts", wholes(rows, |parked| parked.attempts)),
        ("reason", texts(rows, |parked| parked.reason.as_deref())),
        ("parked_at", times(rows, |parked| Some(microseconds(parked.parked_at)))),
        ("transport", texts(rows, |parked| Some(&parked.transport))),
    ])
}
