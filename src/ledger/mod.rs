//! `JobLedger`: job executions and notifications as rows of Delta tables.
use std::collections::HashMap;

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};

use crate::error::Result;

/// Which of the two row tables is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerTable {
    /// `autosys_job_log`
    Executions,
    /// `job_notifications`
    Notifications,
}

impl LedgerTable {
    /// The table's name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Executions => "autosys_job_log",
            Self::Notifications => "job_notifications",
        }
    }
}

/// One row of either table, without its flag. NULLs from Spark are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LedgerRow {
    pub file_name: Option<String>,
    pub job_id: Option<String>,
    pub status: Option<String>,
    /// UTC microseconds.
    pub timestamp: Option<i64>,
}

/// One try to deliver one row: a row of `autosys_deliveries`.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub table: LedgerTable,
    pub row: LedgerRow,
    /// 1 for the first try of this row.
    pub attempt: i64,
    /// sending, delivered, failed, unknown, superseded, parked, redriven, expired or by_hand.
    pub outcome: String,
    /// What the transport said; never a secret.
    pub detail: Option<String>,
    pub transport: String,
    pub vm: Option<String>,
    /// host:pid of the process that tried.
    pub delivered_by: String,
    pub attempted_at: DateTime<Utc>,
}

/// Which rows to read. All conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct RowFilter {
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
    pub job_id: Option<String>,
    pub status: Option<String>,
    pub flag: Option<String>,
    /// At most so many rows, oldest first.
    pub limit: Option<usize>,
}

/// Job executions and notifications in Delta tables below one root. Thread-safe; clones share everything.
#[derive(Clone, Debug)]
pub struct JobLedger {
    _inner: std::sync::Arc<()>,
}

impl JobLedger {
    /// Checks `root`; creates nothing. The first log call creates the tables; reads of a missing ledger are NotFound.
    pub fn open(_root: &str, _options: &HashMap<String, String>) -> Result<Self> {
        todo!()
    }
    /// The root as the user gave it.
    pub fn root(&self) -> &str {
        todo!()
    }
    /// Logs one execution with flag NO; durable when it returns. `timestamp` None = now.
    pub fn log_job_execution(
        &self,
        _file_name: &str,
        _job_id: &str,
        _status: &str,
        _timestamp: Option<DateTime<Utc>>,
    ) -> Result<()> {
        todo!()
    }
    /// Logs one notification with flag NO.
    pub fn log_job_completion(
        &self,
        _file_name: &str,
        _job_id: &str,
        _status: &str,
        _timestamp: Option<DateTime<Utc>>,
    ) -> Result<()> {
        todo!()
    }
    /// Logs many rows in one commit. Columns by name: file_name, job_id, status; optional timestamp (now) and flag (NO).
    pub fn log_batch(&self, _table: LedgerTable, _rows: &RecordBatch) -> Result<u64> {
        todo!()
    }
    /// Rows in the table's own column order, oldest first. `flag: Some("NO")` gives the pending ones, cheaply.
    pub fn rows(&self, _table: LedgerTable, _filter: &RowFilter) -> Result<RecordBatch> {
        todo!()
    }
    /// The pending rows (flag exactly NO), oldest first, each with duplicates kept.
    pub fn pending(&self, _table: LedgerTable) -> Result<Vec<LedgerRow>> {
        todo!()
    }
    /// Sets exactly these rows to YES (by count: of n identical rows, k given flips at most k). Idempotent. One commit.
    pub fn acknowledge(&self, _table: LedgerTable, _rows: &[LedgerRow]) -> Result<u64> {
        todo!()
    }
    /// Rows out of any Arrow batch that has the table's columns by name (the flag column is optional).
    pub fn rows_from_batch(_table: LedgerTable, _batch: &RecordBatch) -> Result<Vec<LedgerRow>> {
        todo!()
    }
    /// Today's UPDATE: sets every NO row of this file and job in `autosys_job_log` to YES.
    pub fn update_autosys_flag(&self, _file_name: &str, _job_id: &str) -> Result<u64> {
        todo!()
    }
    /// Settles executions: for each delivered notification, flips the NO executions of the same file, job and status
    /// that are not later than it. One commit. Missing table: 0.
    pub fn settle_executions(&self, _delivered: &[LedgerRow]) -> Result<u64> {
        todo!()
    }
    /// Appends attempts in one commit (creates `autosys_deliveries` when missing).
    pub fn append_attempts(&self, _attempts: &[Attempt]) -> Result<()> {
        todo!()
    }
    /// The attempts recorded for `table`, as values. Empty when the attempts table does not exist yet.
    pub fn attempts(&self, _table: LedgerTable) -> Result<Vec<Attempt>> {
        todo!()
    }
    /// The attempts table as Arrow, oldest first.
    pub fn deliveries(&self, _since: Option<DateTime<Utc>>, _until: Option<DateTime<Utc>>) -> Result<RecordBatch> {
        todo!()
    }
    /// Counts by table, flag and status.
    pub fn summary(&self) -> Result<LedgerSummary> {
        todo!()
    }
}

/// What `summary()` says.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerSummary {
    pub root: String,
    pub executions: TableSummary,
    pub notifications: TableSummary,
    /// Attempts by outcome.
    pub attempts: Vec<(String, u64)>,
}

/// Counts of one table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableSummary {
    pub rows: u64,
    /// Flag exactly NO.
    pub pending: u64,
    pub acknowledged: u64,
    /// Any flag that is neither YES nor NO, NULL included.
    pub other_flags: u64,
    pub pending_by_status: Vec<(String, u64)>,
    /// Timestamp of the oldest pending row, UTC microseconds.
    pub oldest_pending: Option<i64>,
}
