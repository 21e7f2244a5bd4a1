//! Logging Arrow data of many shapes.

use arrow::array::{
    ArrayRef, DictionaryArray, LargeStringArray, StringArray, StringViewArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::datatypes::Int32Type;

use super::*;
use crate::ledger::LedgerTable::{Executions, Notifications};

fn text(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

#[test]
fn columns_in_any_order_and_any_text_type() {
    let fixture = Fixture::new();
    let dictionary: DictionaryArray<Int32Type> = ["f1", "f2"].into_iter().collect();
    let nanoseconds = at(7).timestamp_nanos_opt().unwrap();
    let times = TimestampNanosecondArray::from(vec![nanoseconds, nanoseconds]).with_timezone("+02:00");
    let data = batch(vec![
        ("status", Arc::new(StringViewArray::from(vec!["SUCCESS", "FAILURE"]))),
        ("execution_timestamp", Arc::new(times)),
        ("job_id", Arc::new(LargeStringArray::from(vec!["J1", "J2"]))),
        ("file_name", Arc::new(dictionary)),
        (FLAG, text(&["NO", "YES"])),
    ]);
    assert_eq!(fixture.ledger.log_batch(Executions, &data).unwrap(), 2);
    let expected =
        [(row("f1", "J1", "SUCCESS", 7), "NO".to_owned()), (row("f2", "J2", "FAILURE", 7), "YES".to_owned())];
    assert_eq!(flags(&fixture.reopened(), Executions), expected);
}

#[test]
fn timestamp_and_flag_may_be_left_out() {
    let fixture = Fixture::new();
    let before = Utc::now().timestamp_micros();
    let data = batch(vec![("file_name", text(&["f"])), ("job_id", text(&["J"])), ("status", text(&["S"]))]);
    assert_eq!(fixture.ledger.log_batch(Notifications, &data).unwrap(), 1);
    let logged = fixture.ledger.pending(Notifications).unwrap();
    assert!((before..=Utc::now().timestamp_micros()).contains(&logged[0].timestamp.unwrap()));
    let seconds: ArrayRef = Arc::new(TimestampSecondArray::from(vec![at(1).timestamp()]).with_timezone("UTC"));
    let data = batch(vec![
        ("file_name", text(&["g"])),
        ("job_id", text(&["J"])),
        ("status", text(&["S"])),
        ("notification_timestamp", seconds),
    ]);
    fixture.ledger.log_batch(Notifications, &data).unwrap();
    assert_eq!(fixture.ledger.pending(Notifications).unwrap()[0], row("g", "J", "S", 1));
}

#[test]
fn bad_data_is_refused_with_its_column_and_row_and_nothing_is_written() {
    let fixture = Fixture::new();
    let good = || vec![("file_name", text(&["f", "g"])), ("job_id", text(&["J", "J"])), ("status", text(&["S", "S"]))];
    let with = |name, column: ArrayRef| {
        let mut columns: Vec<(&str, ArrayRef)> = good().into_iter().filter(|(other, _)| *other != name).collect();
        columns.push((name, column));
        columns
    };
    let holes: ArrayRef = Arc::new(StringArray::from(vec![Some("S"), None]));
    let naive: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 0]));
    let long = "j".repeat(MAX_JOB_NAME + 1);
    let cases: Vec<(Vec<(&str, ArrayRef)>, &str)> = vec![
        (good()[..2].to_vec(), "\"status\" is missing"),
        (with("comment", text(&["x", "y"])), "\"comment\" is not one of"),
        (with("status", holes), "\"status\" has no value in row 1"),
        (with("status", text(&["S", ""])), "row 1: status is empty"),
        (with("job_id", text(&[&long, "J"])), "row 0: job_id has 1025 bytes"),
        (with("status", Arc::new(arrow::array::Int64Array::from(vec![1, 2]))), "must hold text"),
        (with("execution_timestamp", naive), "without a timezone"),
        (with("execution_timestamp", text(&["x", "y"])), "must hold timestamps"),
        (with(FLAG, text(&["NO", ""])), "is empty in row 1"),
    ];
    for (columns, expected) in cases {
        let error = fixture.ledger.log_batch(Executions, &batch(columns)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(expected), "{error} does not say {expected}");
    }
    assert_eq!(fixture.ledger.pending(Executions).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn no_rows_are_no_commit() {
    let fixture = Fixture::new();
    let none: [&str; 0] = [];
    let data = batch(vec![("file_name", text(&none)), ("job_id", text(&none)), ("status", text(&none))]);
    assert_eq!(fixture.ledger.log_batch(Executions, &data).unwrap(), 0);
    assert!(!fixture.directory.path().join("ledger").exists());
}
