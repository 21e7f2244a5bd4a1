//! What `JobLedger.redrive` and `JobLedger.settle_by_hand` are given, and what `JobLedger.parked` returns.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use pyo3::prelude::*;

use super::convert;
use super::errors::PyOutcome;
use super::ledger::table_named;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{self, JobLedger, LedgerRow, LedgerTable, ParkedRow, Settlement};

/// Something done by hand, as Python asks for it.
pub(super) struct ByHand {
    table: LedgerTable,
    rows: Option<Vec<LedgerRow>>,
    job_id: Option<String>,
    reason: Option<String>,
    by: String,
}

impl ByHand {
    pub(super) fn redriving(
        py: Python<'_>,
        rows: Option<&Bound<'_, PyAny>>,
        job_id: Option<&Bound<'_, PyAny>>,
        reason: Option<&Bound<'_, PyAny>>,
        by: Option<&Bound<'_, PyAny>>,
        table: &str,
    ) -> PyOutcome<Self> {
        let table = table_named(table)?;
        let rows = match rows {
            Some(rows) => Some(JobLedger::rows_from_batch(table, &convert::batch("rows", rows)?)?),
            None => None,
        };
        let (job_id, reason) = (convert::optional_text("job_id", job_id)?, convert::optional_text("reason", reason)?);
        Ok(Self { table, rows, job_id, reason, by: author(py, by)? })
    }

    pub(super) fn settling(
        py: Python<'_>,
        rows: &Bound<'_, PyAny>,
        reason: &Bound<'_, PyAny>,
        by: Option<&Bound<'_, PyAny>>,
        table: &str,
    ) -> PyOutcome<Self> {
        Self::redriving(py, Some(rows), None, Some(reason), by, table)
    }

    fn hand(&self) -> ledger::ByHand<'_> {
        ledger::ByHand { by: &self.by, reason: self.reason.as_deref() }
    }

    pub(super) fn redrive(&self, ledger: &JobLedger) -> Result<u64> {
        ledger.redrive(self.table, self.rows.as_deref(), self.job_id.as_deref(), &self.hand())
    }

    pub(super) fn settle(&self, ledger: &JobLedger, delivered: bool) -> Result<u64> {
        let settlement = if delivered { Settlement::Arrived } else { Settlement::NotToBeSent };
        ledger.settle_by_hand(self.table, self.rows.as_deref().unwrap_or_default(), settlement, &self.hand())
    }
}

/// Who does it: as said, else the user of this process and its host.
fn author(py: Python<'_>, by: Option<&Bound<'_, PyAny>>) -> PyOutcome<String> {
    if let Some(by) = convert::optional_text("by", by)? {
        return Ok(by);
    }
    // A user without a name, as containers have them, has no entry anywhere.
    let user = py.import("getpass")?.call_method0("getuser").and_then(|user| user.extract::<String>());
    let user = user.unwrap_or_else(|_| "somebody".to_owned());
    Ok(format!("{user}@{}", gethostname::gethostname().to_string_lossy()))
}

/// Parked rows as a table, with the columns that make a row first.
pub(super) fn parked(table: LedgerTable, rows: &[ParkedRow]) -> Result<RecordBatch> {
    let text =
        |value: fn(&ParkedRow) -> Option<&str>| Arc::new(rows.iter().map(value).collect::<StringArray>()) as ArrayRef;
    let times = |value: fn(&ParkedRow) -> Option<i64>| {
        let column: TimestampMicrosecondArray = rows.iter().map(value).collect();
        Arc::new(column.with_timezone("UTC")) as ArrayRef
    };
    let attempts = rows.iter().map(|parked| i64::try_from(parked.attempts).ok()).collect::<Int64Array>();
    RecordBatch::try_from_iter_with_nullable([
        ("file_name", text(|parked| parked.row.file_name.as_deref()), true),
        ("job_id", text(|parked| parked.row.job_id.as_deref()), true),
        ("status", text(|parked| parked.row.status.as_deref()), true),
        (table.timestamp_column(), times(|parked| parked.row.timestamp), true),
        ("attempts", Arc::new(attempts) as ArrayRef, true),
        ("reason", text(|parked| parked.reason.as_deref()), true),
        ("parked_at", times(|parked| Some(parked.parked_at.timestamp_micros())), true),
        ("transport", text(|parked| Some(&parked.transport)), true),
    ])
    .map_err(|e| Error::new(ErrorKind::Internal, "the parked rows could not be shown").with_source(e))
}
