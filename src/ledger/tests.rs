//! Tests of the ledger on real Delta tables in a temporary directory.

mod batches;
mod exactness;
mod model;
mod reading;
mod without_timezone;

use std::collections::HashMap;

use arrow::array::Array;
use chrono::{DateTime, TimeDelta, Utc};
use tempfile::TempDir;

use super::*;
use crate::delta::NO_CHECK;

impl JobLedger {
    /// A ledger over a store of a test.
    pub(crate) fn over(storage: crate::storage::Storage) -> Result<Self> {
        let (tables, warned, root) = (Mutex::default(), Mutex::default(), storage.root().to_string());
        let ledger = Self { inner: Arc::new(LedgerState { root, storage, commit_timeout: None, tables, warned }) };
        for spec in [LedgerTable::Executions.spec(), LedgerTable::Notifications.spec(), &*DELIVERIES] {
            ledger.opened(spec)?;
        }
        Ok(ledger)
    }

    pub(crate) fn log_job_execution(
        &self,
        file: &str,
        job: &str,
        status: &str,
        at: Option<DateTime<Utc>>,
    ) -> Result<()> {
        self.log(LedgerTable::Executions, file, job, status, at)
    }

    pub(crate) fn log_job_completion(
        &self,
        file: &str,
        job: &str,
        status: &str,
        at: Option<DateTime<Utc>>,
    ) -> Result<()> {
        self.log(LedgerTable::Notifications, file, job, status, at)
    }
}

/// A ledger in its own temporary directory.
pub(crate) struct Fixture {
    pub(crate) ledger: JobLedger,
    pub(crate) directory: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        Self { ledger: open(&directory), directory }
    }

    /// A second handle, as another process has.
    pub(crate) fn reopened(&self) -> JobLedger {
        open(&self.directory)
    }
}

fn open(directory: &TempDir) -> JobLedger {
    JobLedger::open(directory.path().join("ledger").to_str().unwrap(), &HashMap::new(), None).unwrap()
}

/// A moment that is `seconds` after a fixed one.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap() + TimeDelta::seconds(seconds)
}

pub(crate) fn row(file: &str, job: &str, status: &str, seconds: i64) -> LedgerRow {
    LedgerRow {
        file_name: Some(file.to_owned()),
        job_id: Some(job.to_owned()),
        status: Some(status.to_owned()),
        timestamp: Some(at(seconds).timestamp_micros()),
    }
}

fn flags(ledger: &JobLedger, table: LedgerTable) -> Vec<(LedgerRow, String)> {
    let batch = ledger.rows(table, &RowFilter::default()).unwrap();
    let flags = columns::texts(&batch, FLAG).unwrap();
    let flag = |row: usize| if flags.is_valid(row) { flags.value(row).to_owned() } else { "NULL".to_owned() };
    rows::from_batch(table, &batch).unwrap().into_iter().enumerate().map(|(number, row)| (row, flag(number))).collect()
}

/// One row with the flag `NO`, as a batch of `table`.
fn single(table: LedgerTable, row: &LedgerRow) -> Result<RecordBatch> {
    rows::to_batch(table, std::iter::once(row), std::iter::once(NO))
}
