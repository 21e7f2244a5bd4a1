//! Logging Arrow data of many shapes.

use arrow::array::{
    ArrayRef, DictionaryArray, LargeStringArray, NullArray, StringArray, StringViewArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::datatypes::{Field, Int32Type, Schema};

use super::*;
use crate::ledger::LedgerTable::{Executions, Notifications};
use crate::ledger::rows::MAX_FLAG;

fn text(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Two rows without a time and a flag.
fn good() -> Vec<(&'static str, ArrayRef)> {
    vec![("file_name", text(&["f", "g"])), ("job_id", text(&["J", "J"])), ("status", text(&["S", "S"]))]
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
    let with = |name, column: ArrayRef| {
        let mut columns: Vec<(&str, ArrayRef)> = good().into_iter().filter(|(other, _)| *other != name).collect();
        columns.push((name, column));
        columns
    };
    let holes: ArrayRef = Arc::new(StringArray::from(vec![Some("S"), None]));
    let naive: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 0]));
    let long = "j".repeat(MAX_LOGGED_JOB_NAME + 1);
    let cases: Vec<(Vec<(&str, ArrayRef)>, &str)> = vec![
        (good()[..2].to_vec(), "\"status\" is missing"),
        (with("comment", text(&["x", "y"])), "\"comment\" is not one of"),
        (with("status", holes), "\"status\" has no value in row 1"),
        (with("status", text(&["S", ""])), "row 1: status is empty"),
        (with("job_id", text(&[&long, "J"])), "row 0: job_id has 1025 bytes"),
        (with("status", text(&["S", &long])), "row 1: status has 1025 bytes"),
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

/// Flags name directories: `/`, quotes, control characters and the like must not lead anywhere else.
#[test]
fn odd_flags_are_kept_verbatim() {
    let longest = "%".repeat(MAX_FLAG);
    for flag in [
        "a/b",
        "../../x",
        "%",
        "100%25",
        "it's \"quoted\"",
        "tab\tnew\nline\u{7f}\u{1}\0",
        "ü🚀",
        " ",
        "a=b:c*?#",
        "..",
        "\\",
        "{}[]^",
        "no",
        "__HIVE_DEFAULT_PARTITION__",
        &longest,
    ] {
        let fixture = Fixture::new();
        let mut columns = good();
        columns.push((FLAG, text(&[flag, "NO"])));
        assert_eq!(fixture.ledger.log_batch(Notifications, &batch(columns)).unwrap(), 2);
        let read: Vec<String> = flags(&fixture.reopened(), Notifications).into_iter().map(|(_, flag)| flag).collect();
        assert_eq!(read, [flag, "NO"]);
        let with = RowFilter { flag: Some(flag.to_owned()), ..RowFilter::default() };
        assert_eq!(fixture.reopened().rows(Notifications, &with).unwrap().num_rows(), 1, "{flag:?}");
        let pending = fixture.ledger.pending(Notifications).unwrap();
        assert_eq!(fixture.ledger.acknowledge(Notifications, &pending).unwrap(), 1);
        let beside = std::fs::read_dir(fixture.directory.path()).unwrap().count();
        assert_eq!(beside, 1, "{flag:?} made something beside the ledger");
    }
}

#[test]
fn a_flag_that_no_directory_can_be_named_after_is_refused() {
    let fixture = Fixture::new();
    let mut columns = good();
    columns.push((FLAG, text(&["NO", &"x".repeat(MAX_FLAG + 1)])));
    let error = fixture.ledger.log_batch(Notifications, &batch(columns)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("65 bytes in row 1"), "{error}");
    assert!(!fixture.directory.path().join("ledger").exists());
}

#[test]
fn a_column_that_is_there_twice_is_refused() {
    let fixture = Fixture::new();
    let two = |columns: Vec<(&str, ArrayRef)>| {
        let fields: Vec<Field> =
            columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    };
    let mut columns = good();
    columns.push(("status", text(&["other", "other"])));
    for error in [
        fixture.ledger.log_batch(Executions, &two(columns.clone())).unwrap_err(),
        JobLedger::rows_from_batch(Executions, &two(columns)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("\"status\" is there twice"), "{error}");
    }
}

#[test]
fn columns_of_nothing_but_nulls() {
    let fixture = Fixture::new();
    let nulls: ArrayRef = Arc::new(NullArray::new(2));
    let no_times: ArrayRef = Arc::new(TimestampMicrosecondArray::new_null(2).with_timezone("UTC"));
    let no_flags: ArrayRef = Arc::new(StringArray::new_null(2));
    for (name, column) in [
        ("execution_timestamp", Arc::clone(&nulls)),
        ("execution_timestamp", no_times.clone()),
        (FLAG, Arc::clone(&nulls)),
        (FLAG, no_flags),
    ] {
        let mut columns = good();
        columns.push((name, column));
        let error = fixture.ledger.log_batch(Executions, &batch(columns)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!("\"{name}\" has no value in row 0")), "{error}");
    }
    // Rows that Spark wrote may have no time; given back to be acknowledged, the column may have lost its type.
    for times in [nulls, no_times] {
        let mut columns = good();
        columns.push(("execution_timestamp", times));
        let rows = JobLedger::rows_from_batch(Executions, &batch(columns)).unwrap();
        assert!(rows.iter().all(|row| row.timestamp.is_none()));
    }
}
