//! Tables that Spark made with TIMESTAMP_NTZ: their timestamps are UTC like all others.

use arrow::datatypes::DataType;
use serde_json::json;

use super::*;
use crate::ledger::LedgerTable::{Executions, Notifications};

/// Both tables as Spark makes them of TIMESTAMP_NTZ columns: unpartitioned, with the table feature that the type needs.
fn spark_tables(directory: &std::path::Path) {
    for table in [Executions, Notifications] {
        let column = |field: &arrow::datatypes::FieldRef| {
            let kind = if field.data_type() == &DataType::Utf8 { "string" } else { "timestamp_ntz" };
            json!({"name": field.name(), "type": kind, "nullable": true, "metadata": {}})
        };
        let fields: Vec<_> = table.schema().fields().iter().map(column).collect();
        let actions = [
            json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7,
                                "readerFeatures": ["timestampNtz"], "writerFeatures": ["timestampNtz"]}}),
            json!({"metaData": {"id": uuid::Uuid::new_v4().to_string(), "format": {"provider": "parquet", "options": {}},
                                "schemaString": json!({"type": "struct", "fields": fields}).to_string(),
                                "partitionColumns": [], "configuration": {}, "createdTime": 0}}),
        ];
        let log = directory.join("ledger").join(table.name()).join("_delta_log");
        std::fs::create_dir_all(&log).unwrap();
        let text: String = actions.iter().map(|action| format!("{action}\n")).collect();
        std::fs::write(log.join("00000000000000000000.json"), text).unwrap();
    }
}

#[test]
fn rows_are_logged_read_and_acknowledged_exactly() {
    let directory = TempDir::new().unwrap();
    spark_tables(directory.path());
    let ledger = open(&directory);
    let rows = [row("a", "J", "SUCCESS", 0), row("a", "J", "SUCCESS", 10), row("a", "J", "SUCCESS", 10)];
    for row in &rows {
        let at = row.timestamp.and_then(DateTime::from_timestamp_micros);
        ledger.log_job_completion("a", "J", "SUCCESS", at).unwrap();
        ledger.log_job_execution("a", "J", "SUCCESS", at).unwrap();
    }
    let stored = ledger.existing(Notifications).unwrap().unwrap().scan(&Predicate::default()).unwrap();
    let kind = stored.column_by_name("notification_timestamp").unwrap().data_type().clone();
    assert!(matches!(kind, DataType::Timestamp(_, None)), "the table keeps its own type: {kind}");

    assert_eq!(ledger.pending(Notifications).unwrap(), rows);
    let since = RowFilter { since: Some(at(5)), ..RowFilter::default() };
    let late = ledger.rows(Notifications, &since).unwrap();
    assert_eq!(late.schema(), Notifications.schema(), "read as any other table");
    let one = JobLedger::rows_from_batch(Notifications, &late.slice(0, 1)).unwrap();
    assert_eq!(ledger.acknowledge(Notifications, &one).unwrap(), 1);
    assert_eq!(ledger.settle_executions(NO_CHECK, &rows[..1]).unwrap(), 1);
    assert_eq!(open(&directory).pending(Notifications).unwrap(), [rows[0].clone(), rows[1].clone()]);
    let summary = open(&directory).summary(None, None).unwrap();
    assert_eq!((summary.notifications.pending, summary.notifications.acknowledged), (2, 1));
    assert_eq!((summary.executions.pending, summary.executions.oldest_pending), (2, rows[1].timestamp));

    let batch = ledger.rows(Notifications, &RowFilter::default()).unwrap();
    assert_eq!(ledger.log_batch(Notifications, &batch.slice(0, 1)).unwrap(), 1);
    let naive = rows::as_stored(batch, &stored.schema()).unwrap();
    let error = ledger.log_batch(Notifications, &naive).unwrap_err();
    assert!(error.to_string().contains("without a timezone"), "what a caller gives has to say what it means: {error}");
}

#[test]
fn legacy_files_are_imported_into_them() {
    let directory = TempDir::new().unwrap();
    spark_tables(directory.path());
    let folder = directory.path().join("legacy");
    std::fs::create_dir(&folder).unwrap();
    let line = r#"{"file_name": "a", "job_id": "J", "status": "SUCCESS", "timestamp": "2025-04-16T09:01:05+02:00"}"#;
    std::fs::write(folder.join("a.json"), line).unwrap();
    for expected in [1, 0] {
        assert_eq!(open(&directory).import_json(&folder, &ImportOptions::default()).unwrap().rows, expected);
    }
    let pending = open(&directory).pending(Notifications).unwrap();
    let moment = "2025-04-16T07:01:05Z".parse::<DateTime<Utc>>().unwrap();
    assert_eq!(pending[0].timestamp, Some(moment.timestamp_micros()));
}
