//! The ledger's tables: names, columns in the order that today's positional `INSERT`s rely on, partitioning.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::delta::TableSpec;

/// The flag column of both row tables.
pub(super) const FLAG: &str = "autosys_update_flag";
/// Flag of a row that AutoSys has not been told of. Other spellings are not pending.
pub(super) const NO: &str = "NO";
/// Flag of a row that AutoSys took.
pub(super) const YES: &str = "YES";
/// Name of the attempts table.
pub(super) const DELIVERIES: &str = "autosys_deliveries";
/// Name of the table of what was imported from legacy files.
pub(super) const IMPORTS: &str = "autosys_imports";
/// The column by which attempts are read in time.
pub(super) const ATTEMPTED_AT: &str = "attempted_at";
/// How long the tables' logs are kept, so that readers of older versions find them.
const LOG_RETENTION: &str = "interval 7 days";

/// Which of the two row tables is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LedgerTable {
    /// `autosys_job_log`: job executions.
    Executions,
    /// `job_notifications`: what AutoSys is to be told.
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

    /// The table of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Executions, Self::Notifications].into_iter().find(|table| table.name() == name)
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

    pub(super) fn spec(self) -> &'static TableSpec {
        match self {
            Self::Executions => &EXECUTIONS,
            Self::Notifications => &NOTIFICATIONS,
        }
    }
}

pub(super) static DELIVERIES_SPEC: LazyLock<TableSpec> = LazyLock::new(|| TableSpec {
    name: DELIVERIES,
    schema: columns(&[
        ("table_name", DataType::Utf8),
        ("file_name", DataType::Utf8),
        ("job_id", DataType::Utf8),
        ("status", DataType::Utf8),
        ("row_timestamp", timestamp()),
        ("attempt", DataType::Int64),
        ("outcome", DataType::Utf8),
        ("detail", DataType::Utf8),
        ("transport", DataType::Utf8),
        ("vm", DataType::Utf8),
        ("delivered_by", DataType::Utf8),
        (ATTEMPTED_AT, timestamp()),
    ]),
    partition_by: &[],
    log_retention: LOG_RETENTION,
});

/// What was imported from legacy files: one row per file and batch. See `import/remember.rs` for what it means.
pub(super) static IMPORTS_SPEC: LazyLock<TableSpec> = LazyLock::new(|| TableSpec {
    name: IMPORTS,
    schema: columns(&[
        ("batch", DataType::Int64),
        ("previous", DataType::Int64),
        ("path", DataType::Utf8),
        ("stamp", DataType::Utf8),
        ("records", DataType::Utf8),
        ("imported", DataType::Int64),
        ("imported_at", timestamp()),
    ]),
    partition_by: &[],
    log_retention: LOG_RETENTION,
});

static EXECUTIONS: LazyLock<TableSpec> = LazyLock::new(|| TableSpec {
    name: LedgerTable::Executions.name(),
    schema: columns(&[
        ("file_name", DataType::Utf8),
        ("job_id", DataType::Utf8),
        ("execution_timestamp", timestamp()),
        ("status", DataType::Utf8),
        (FLAG, DataType::Utf8),
    ]),
    partition_by: &[FLAG],
    log_retention: LOG_RETENTION,
});

static NOTIFICATIONS: LazyLock<TableSpec> = LazyLock::new(|| TableSpec {
    name: LedgerTable::Notifications.name(),
    schema: columns(&[
        ("file_name", DataType::Utf8),
        ("job_id", DataType::Utf8),
        ("status", DataType::Utf8),
        (FLAG, DataType::Utf8),
        ("notification_timestamp", timestamp()),
    ]),
    partition_by: &[FLAG],
    log_retention: LOG_RETENTION,
});

/// The type of every timestamp in the ledger.
pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub(super) fn columns(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>()))
}
