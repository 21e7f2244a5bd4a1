//! What callers pass to a table and get back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// The layout of a table that this crate creates (reader version 1, writer version 2, no table features).
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Directory name below the storage root.
    pub name: &'static str,
    /// Columns in order: Utf8, Int64, Float64, Boolean and Timestamp(Microsecond, "UTC"), all nullable.
    pub schema: SchemaRef,
    /// Partition columns (Utf8), possibly none. In Delta, an empty string as a partition value reads back as NULL.
    pub partition_by: &'static [&'static str],
    /// How long log entries are kept (`delta.logRetentionDuration`), for example `interval 7 days`.
    pub log_retention: &'static str,
}

impl TableSpec {
    /// A table with these `columns`, written as in `CREATE TABLE`.
    pub(crate) fn new(
        name: &'static str,
        partition_by: &'static [&'static str],
        log_retention: &'static str,
        columns: &str,
    ) -> Self {
        let field = |column: &str| {
            let (name, kind) = column.split_once(' ').unwrap_or((column, "string"));
            let kind = match kind {
                "timestamp" => timestamp(),
                "bigint" => DataType::Int64,
                "double" => DataType::Float64,
                _ => DataType::Utf8,
            };
            Field::new(name, kind, true)
        };
        let schema = Arc::new(Schema::new(columns.split(", ").map(field).collect::<Vec<_>>()));
        Self { name, schema, partition_by, log_retention }
    }
}

/// The type of every timestamp in the tables that this crate creates.
pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A conjunction of conditions on rows. It skips files by partition values and statistics and then filters the rows.
/// NULL matches no condition. The default matches all rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predicate {
    /// The column equals the text.
    pub equals: Vec<(String, String)>,
    /// The timestamp column is in [since, until), in microseconds UTC.
    pub time: Option<(String, Option<i64>, Option<i64>)>,
}

impl Predicate {
    /// The predicate as SQL text, for the table's history.
    pub(super) fn to_sql(&self) -> String {
        let text = |(name, text): &(String, String)| format!("`{name}` = '{}'", text.replace('\'', "''"));
        let mut parts: Vec<String> = self.equals.iter().map(text).collect();
        if let Some((name, since, until)) = &self.time {
            parts.extend(since.map(|at| format!("`{name}` >= timestamp_micros({at})")));
            parts.extend(until.map(|at| format!("`{name}` < timestamp_micros({at})")));
        }
        if parts.is_empty() { "true".to_owned() } else { parts.join(" AND ") }
    }
}

/// Rows and transaction ids that one atomic commit writes, on the condition that no other commit comes first. Either may
/// be empty.
#[derive(Debug, Clone)]
pub struct ConditionalWrite {
    /// Rows with the table's whole schema.
    pub batch: RecordBatch,
    /// (application id, version), written as `txn` actions.
    pub transactions: Vec<(String, i64)>,
}

/// How [`super::Table::rewrite`] changes some of the rows.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// Which of the given rows go.
    pub remove: BooleanArray,
    /// Rows to write instead, possibly in another partition, with the table's schema.
    pub add: RecordBatch,
}

/// The result of [`super::Table::count_values`].
#[derive(Debug, Clone)]
pub struct ValueCounts {
    /// The number of rows per value; `None` stands for NULL.
    pub counts: BTreeMap<Option<String>, u64>,
    /// The rows that have the requested value, in the order in which they were written.
    pub rows: RecordBatch,
}
