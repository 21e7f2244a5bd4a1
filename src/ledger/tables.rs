//! The ledger's tables: their names, and their columns in the order that positional `INSERT` statements rely on.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;

use crate::delta::{Predicate, TableSpec};

/// The flag column of both row tables.
pub(crate) const FLAG: &str = "autosys_update_flag";
/// Flag of a pending row. Other spellings are not pending.
pub(crate) const NO: &str = "NO";
/// Flag of an acknowledged row.
pub(crate) const YES: &str = "YES";
/// The column of the helper tables that has the timestamp of the row they are about.
pub(crate) const ROW_TIMESTAMP: &str = "row_timestamp";
/// The column by which the time range of attempts is read.
pub(crate) const ATTEMPTED_AT: &str = "attempted_at";
/// The table of the shared round-robin cursor, which can be in the same root: `crate::selection` has its columns.
pub(crate) const SELECTIONS: &str = "vm_selections";

/// How long the tables' logs are kept, so that readers of older versions find them.
const LOG_RETENTION: &str = "interval 7 days";
/// How long the logs of tables are kept whose older versions are never read.
const SHORT_LOG_RETENTION: &str = "interval 1 days";

/// One of the two tables that hold rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LedgerTable {
    /// `autosys_job_log`: job executions.
    Executions,
    /// `job_notifications`: the statuses to report.
    Notifications,
}

impl LedgerTable {
    /// Both tables.
    pub(crate) const ALL: [Self; 2] = [Self::Executions, Self::Notifications];

    /// The table's name in the store.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The table with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// The table's timestamp column.
    pub fn timestamp_column(self) -> &'static str {
        match self {
            Self::Executions => "execution_timestamp",
            Self::Notifications => "notification_timestamp",
        }
    }

    /// The table's columns in order.
    pub fn schema(self) -> SchemaRef {
        Arc::clone(&self.spec().schema)
    }

    pub(crate) fn spec(self) -> &'static TableSpec {
        match self {
            Self::Executions => &EXECUTIONS,
            Self::Notifications => &NOTIFICATIONS,
        }
    }
}

static EXECUTIONS: LazyLock<TableSpec> = LazyLock::new(|| {
    let columns = "file_name string, job_id string, execution_timestamp timestamp, status string, \
                   autosys_update_flag string";
    TableSpec::new("autosys_job_log", &[FLAG], LOG_RETENTION, columns)
});

static NOTIFICATIONS: LazyLock<TableSpec> = LazyLock::new(|| {
    let columns = "file_name string, job_id string, status string, autosys_update_flag string, \
                   notification_timestamp timestamp";
    TableSpec::new("job_notifications", &[FLAG], LOG_RETENTION, columns)
});

/// One row per attempt to deliver a row.
pub(crate) static DELIVERIES: LazyLock<TableSpec> = LazyLock::new(|| {
    let columns = "table_name string, file_name string, job_id string, status string, row_timestamp timestamp, \
                   attempt bigint, outcome string, detail string, transport string, vm string, delivered_by string, \
                   attempted_at timestamp";
    TableSpec::new("autosys_deliveries", &[], LOG_RETENTION, columns)
});

/// The retry state of pending rows.
pub(crate) static RETRIES: LazyLock<TableSpec> = LazyLock::new(|| {
    let columns = "table_name string, file_name string, job_id string, status string, row_timestamp timestamp, \
                   state string, next_attempt bigint, failures bigint, in_doubt bigint, last_attempted_at timestamp, \
                   next_attempt_at timestamp";
    TableSpec::new("autosys_retries", &[], SHORT_LOG_RETENTION, columns)
});

/// One row per lease.
pub(crate) static LEASES: LazyLock<TableSpec> = LazyLock::new(|| {
    TableSpec::new("autosys_leases", &[], SHORT_LOG_RETENTION, "name string, owner string, expires_at timestamp")
});

/// The imported legacy files: one row per file and batch. `import/import_log.rs` defines what the rows mean.
pub(crate) static IMPORTS: LazyLock<TableSpec> = LazyLock::new(|| {
    let columns = "batch bigint, previous bigint, path string, stamp string, records string, imported bigint, \
                   imported_at timestamp";
    TableSpec::new("autosys_imports", &[], LOG_RETENTION, columns)
});

/// Selects the rows whose text column `column` is `value`.
pub(crate) fn equal(column: &str, value: &str) -> Predicate {
    Predicate { equals: vec![(column.to_owned(), value.to_owned())], time: None }
}
