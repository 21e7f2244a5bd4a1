//! The tables that a selector gives.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};

use crate::error::{Error, ErrorKind, Result};
use crate::selection::{CheckRow, DistributionRow, StateRow};

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(|e| Error::new(ErrorKind::Internal, "a table could not be put together").with_source(e))
}

/// vm, ip_address, nic_name, reachable, probe, rtt_ms, reason.
pub(super) fn check(rows: &[CheckRow]) -> Result<RecordBatch> {
    let text =
        |value: fn(&CheckRow) -> Option<&str>| Arc::new(rows.iter().map(value).collect::<StringArray>()) as ArrayRef;
    batch(vec![
        ("vm", text(|row| Some(&row.vm))),
        ("ip_address", text(|row| row.ip_address.as_deref())),
        ("nic_name", text(|row| row.nic_name.as_deref())),
        ("reachable", Arc::new(rows.iter().map(|row| Some(row.reachable)).collect::<BooleanArray>())),
        ("probe", text(|row| row.probe.as_deref())),
        ("rtt_ms", Arc::new(rows.iter().map(|row| row.rtt_ms).collect::<Float64Array>())),
        ("reason", text(|row| row.reason.as_deref())),
    ])
}

/// vm, selections, share, last_selected.
pub(super) fn distribution(rows: &[DistributionRow]) -> Result<RecordBatch> {
    let count = |row: &DistributionRow| i64::try_from(row.selections).ok();
    let last = |row: &DistributionRow| row.last_selected.map(|at| at.timestamp_micros());
    batch(vec![
        ("vm", Arc::new(rows.iter().map(|row| Some(row.vm.as_str())).collect::<StringArray>())),
        ("selections", Arc::new(rows.iter().map(count).collect::<Int64Array>())),
        ("share", Arc::new(rows.iter().map(|row| Some(row.share)).collect::<Float64Array>())),
        ("last_selected", Arc::new(rows.iter().map(last).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
    ])
}

/// vm, weight, drained, healthy, in_flight.
pub(super) fn state(rows: &[StateRow]) -> Result<RecordBatch> {
    let number = |value: fn(&StateRow) -> u32| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(i64::from(value(row)))).collect::<Int64Array>())
    };
    let flag = |value: fn(&StateRow) -> bool| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(value(row))).collect::<BooleanArray>())
    };
    batch(vec![
        ("vm", Arc::new(rows.iter().map(|row| Some(row.vm.as_str())).collect::<StringArray>())),
        ("weight", number(|row| row.weight)),
        ("drained", flag(|row| row.drained)),
        ("healthy", flag(|row| row.healthy)),
        ("in_flight", number(|row| row.in_flight)),
    ])
}
