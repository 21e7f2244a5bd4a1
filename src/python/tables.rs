//! Rows of the core as Arrow tables.

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};

use crate::columns::{count, flag, known_flag, number, table, text, time};
use crate::delivery::ParkedRow;
use crate::error::Result;
use crate::ledger::LedgerTable;
use crate::selection::{CheckRow, DistributionRow, StateRow};

fn microseconds(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

/// vm, ip_address, nic_name, reachable, probe, rtt_ms, reason.
pub(super) fn check(rows: &[CheckRow]) -> Result<RecordBatch> {
    table([
        ("vm", text(rows, |row| Some(&row.vm))),
        ("ip_address", text(rows, |row| row.ip_address.as_deref())),
        ("nic_name", text(rows, |row| row.nic_name.as_deref())),
        ("reachable", flag(rows, |row| row.reachable)),
        ("probe", text(rows, |row| row.probe.as_deref())),
        ("rtt_ms", number(rows, |row| row.rtt_ms)),
        ("reason", text(rows, |row| row.reason.as_deref())),
    ])
}

/// vm, selections, share, last_selected.
pub(super) fn distribution(rows: &[DistributionRow]) -> Result<RecordBatch> {
    table([
        ("vm", text(rows, |row| Some(&row.vm))),
        ("selections", count(rows, |row| row.selections)),
        ("share", number(rows, |row| Some(row.share))),
        ("last_selected", time(rows, |row| row.last_selected.map(microseconds))),
    ])
}

/// vm, weight, drained, healthy, in_flight.
pub(super) fn state(rows: &[StateRow]) -> Result<RecordBatch> {
    table([
        ("vm", text(rows, |row| Some(&row.vm))),
        ("weight", count(rows, |row| row.weight)),
        ("drained", flag(rows, |row| row.drained)),
        ("healthy", known_flag(rows, |row| row.healthy)),
        ("in_flight", count(rows, |row| row.in_flight)),
    ])
}

/// The columns that make a row of the table, and attempts, reason, parked_at, transport.
pub(super) fn parked(table_of_rows: LedgerTable, rows: &[ParkedRow]) -> Result<RecordBatch> {
    table([
        ("file_name", text(rows, |parked| parked.row.file_name.as_deref())),
        ("job_id", text(rows, |parked| parked.row.job_id.as_deref())),
        ("status", text(rows, |parked| parked.row.status.as_deref())),
        (table_of_rows.timestamp_column(), time(rows, |parked| parked.row.timestamp)),
        ("attempts", count(rows, |parked| parked.attempts)),
        ("reason", text(rows, |parked| parked.reason.as_deref())),
        ("parked_at", time(rows, |parked| Some(microseconds(parked.parked_at)))),
        ("transport", text(rows, |parked| Some(&parked.transport))),
    ])
}
