//! Logging and reading back.

use proptest::prelude::*;

use super::*;
use crate::delivery::TableSummary;
use crate::ledger::LedgerTable::{Executions, Notifications};

const NASTY: &str = "'; DROP TABLE x; -- $(touch y) `z` \"q\" \\ \t\n é 🚀 %41 NULL";

#[test]
fn values_come_back_verbatim() {
    let fixture = Fixture::new();
    fixture.ledger.log_job_execution(NASTY, NASTY, NASTY, Some(at(0))).unwrap();
    fixture.ledger.log_job_completion(NASTY, NASTY, NASTY, Some(at(0))).unwrap();
    for table in [Executions, Notifications] {
        assert_eq!(fixture.reopened().pending(table).unwrap(), [row(NASTY, NASTY, NASTY, 0)]);
    }
}

#[test]
fn bad_values_are_refused_before_anything_is_written() {
    let fixture = Fixture::new();
    let (long_file, long_job) = ("f".repeat(MAX_FILE_NAME + 1), "j".repeat(MAX_LOGGED_JOB_NAME + 1));
    for (file, job, status) in
        [("", "J", "S"), ("f", "", "S"), ("f", "J", ""), (long_file.as_str(), "J", "S"), ("f", long_job.as_str(), "S")]
    {
        let error = fixture.ledger.log_job_execution(file, job, status, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(fixture.ledger.summary(None, None).unwrap_err().kind(), ErrorKind::NotFound);
    let longest = ("f".repeat(MAX_FILE_NAME), "j".repeat(MAX_LOGGED_JOB_NAME));
    fixture.ledger.log_job_execution(&longest.0, &longest.1, "S", None).unwrap();
}

#[test]
fn a_ledger_that_is_not_there_is_an_error_and_is_not_created_by_reading() {
    let fixture = Fixture::new();
    let ledger = &fixture.ledger;
    let errors = [
        ledger.rows(Executions, &RowFilter::default()).unwrap_err(),
        ledger.pending(Notifications).unwrap_err(),
        ledger.summary(None, None).unwrap_err(),
        ledger.deliveries(None, None).unwrap_err(),
        ledger.acknowledge(Notifications, &[row("a", "J", "S", 0)]).unwrap_err(),
        ledger.update_autosys_flag("a", "J").unwrap_err(),
        ledger.settle_executions(NO_CHECK, &[row("a", "J", "S", 0)]).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("there is no ledger at"), "{error}");
    }
    assert!(!fixture.directory.path().join("ledger").exists());
}

#[test]
fn of_two_tables_the_missing_one_reads_as_empty() {
    let fixture = Fixture::new();
    fixture.ledger.log_job_execution("a", "J", "SUCCESS", None).unwrap();
    let other = fixture.reopened();
    assert!(other.pending(Notifications).unwrap().is_empty());
    assert_eq!(other.deliveries(None, None).unwrap().num_rows(), 0);
    assert_eq!(other.rows(Notifications, &RowFilter::default()).unwrap().schema(), Notifications.schema());
}

#[test]
fn filters_limits_and_order() {
    let fixture = Fixture::new();
    for (job, status, seconds) in
        [("B", "SUCCESS", 30), ("A", "FAILURE", 10), ("A", "SUCCESS", 20), ("A", "SUCCESS", 0)]
    {
        fixture.ledger.log_job_execution("f", job, status, Some(at(seconds))).unwrap();
    }
    let read = |filter: RowFilter| -> Vec<i64> {
        let batch = fixture.ledger.rows(Executions, &filter).unwrap();
        let rows = rows::from_batch(Executions, &batch).unwrap();
        rows.iter().map(|row| (row.timestamp.unwrap() - at(0).timestamp_micros()) / 1_000_000).collect()
    };
    assert_eq!(read(RowFilter::default()), [0, 10, 20, 30]);
    assert_eq!(read(RowFilter { limit: Some(2), ..RowFilter::default() }), [0, 10]);
    assert_eq!(read(RowFilter { since: Some(at(10)), until: Some(at(30)), ..RowFilter::default() }), [10, 20]);
    assert_eq!(
        read(RowFilter { job_id: Some("A".into()), status: Some("SUCCESS".into()), ..RowFilter::default() }),
        [0, 20]
    );
    assert_eq!(read(RowFilter { flag: Some("YES".into()), ..RowFilter::default() }), [0i64; 0]);
}

#[test]
fn rows_of_the_same_time_stay_in_the_order_in_which_they_were_logged() {
    let fixture = Fixture::new();
    // Enough commits for a checkpoint, and file names that sort the other way round.
    let statuses: Vec<String> = (0..45).map(|number| format!("S{number}")).collect();
    for (number, status) in statuses.iter().enumerate() {
        fixture.ledger.log_job_completion(&format!("f{:02}", 99 - number), "J", status, Some(at(0))).unwrap();
    }
    for ledger in [fixture.ledger.clone(), fixture.reopened()] {
        let read: Vec<String> =
            ledger.pending(Notifications).unwrap().into_iter().map(|row| row.status.unwrap()).collect();
        assert_eq!(read, statuses);
    }
}

#[test]
fn the_summary_counts_other_spellings_apart() {
    let fixture = Fixture::new();
    let ledger = &fixture.ledger;
    ledger.log_job_completion("f", "J", "SUCCESS", Some(at(5))).unwrap();
    ledger.log_job_completion("f", "J", "FAILURE", Some(at(3))).unwrap();
    ledger.log_job_completion("g", "J", "FAILURE", Some(at(1))).unwrap();
    ledger.acknowledge(Notifications, &[row("g", "J", "FAILURE", 1)]).unwrap();
    let table = Table::open(&ledger.inner.storage, Notifications.name()).unwrap();
    for flag in ["No", "no"] {
        let one = single(Notifications, &row("h", "J", "S", 0)).unwrap();
        let mut columns = one.columns().to_vec();
        columns[3] = Arc::new(arrow::array::StringArray::from(vec![flag]));
        table.append(&RecordBatch::try_new(one.schema(), columns).unwrap()).unwrap();
    }
    let summary = fixture.reopened().summary(None, None).unwrap();
    let counts = &summary.notifications;
    assert_eq!((counts.rows, counts.pending, counts.acknowledged, counts.other_flags), (5, 2, 1, 2));
    assert_eq!(counts.pending_by_status, [("FAILURE".to_owned(), 1), ("SUCCESS".to_owned(), 1)]);
    assert_eq!(counts.oldest_pending, Some(at(3).timestamp_micros()));
    assert_eq!(summary.executions, TableSummary::default());
    assert_eq!(ledger.pending(Notifications).unwrap().len(), 2);
}

/// What Spark may leave in a table: a file with no time in it at all (so that its statistics have no bounds), no flag, no
/// anything.
#[test]
fn rows_of_nulls_are_read_counted_and_acknowledged() {
    let fixture = Fixture::new();
    fixture.ledger.log_job_execution("f", "J", "SUCCESS", Some(at(1))).unwrap();
    let table = Table::open(&fixture.ledger.inner.storage, Executions.name()).unwrap();
    let nothing = LedgerRow { file_name: None, job_id: None, status: None, timestamp: None };
    let timeless = LedgerRow { timestamp: None, ..row("f", "J", "S", 0) };
    for (row, flag) in [(&nothing, None), (&nothing, Some("NO")), (&timeless, Some("NO")), (&timeless, None)] {
        let mut columns = single(Executions, row).unwrap().columns().to_vec();
        columns[4] = Arc::new(arrow::array::StringArray::from(vec![flag]));
        table.append(&RecordBatch::try_new(Executions.schema(), columns).unwrap()).unwrap();
    }
    let ledger = fixture.reopened();
    let count = |filter: RowFilter| ledger.rows(Executions, &filter).unwrap().num_rows();
    assert_eq!(count(RowFilter::default()), 5);
    assert_eq!(count(RowFilter { job_id: Some("J".into()), ..RowFilter::default() }), 3);
    assert_eq!(count(RowFilter { flag: Some("NO".into()), ..RowFilter::default() }), 3);
    assert_eq!(count(RowFilter { since: Some(at(0)), ..RowFilter::default() }), 1, "no time is in no span of time");
    assert_eq!(count(RowFilter { until: Some(at(2)), ..RowFilter::default() }), 1);
    let counts = ledger.summary(None, None).unwrap().executions;
    assert_eq!((counts.rows, counts.pending, counts.acknowledged, counts.other_flags), (5, 3, 0, 2));
    assert_eq!(
        counts.pending_by_status,
        [("NULL", 1), ("S", 1), ("SUCCESS", 1)].map(|(status, n)| (status.to_owned(), n))
    );
    let pending = ledger.pending(Executions).unwrap();
    assert_eq!(pending[2], row("f", "J", "SUCCESS", 1), "those without a time come first");
    assert_eq!(ledger.acknowledge(Executions, &[nothing.clone(), nothing, timeless.clone(), timeless]).unwrap(), 2);
    assert_eq!(ledger.pending(Executions).unwrap(), [row("f", "J", "SUCCESS", 1)]);
    assert_eq!(ledger.summary(None, None).unwrap().executions.other_flags, 2, "what is not pending stays as it is");
}

#[test]
fn a_file_as_root_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = JobLedger::open(file.path().to_str().unwrap(), &HashMap::new(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_survives(file in ".{1,40}", job in "\\PC{1,20}", status in ".{1,10}") {
        let fixture = Fixture::new();
        fixture.ledger.log_job_execution(&file, &job, &status, Some(at(0))).unwrap();
        prop_assert_eq!(fixture.reopened().pending(Executions).unwrap(), vec![row(&file, &job, &status, 0)]);
    }
}
