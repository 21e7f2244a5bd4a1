//! Acknowledging: exactly the rows meant.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::ledger::LedgerTable::{Executions, Notifications};

#[test]
fn older_and_later_rows_of_the_same_file_and_job_stay() {
    let fixture = Fixture::new();
    for seconds in [0, 10, 20] {
        fixture.ledger.log_job_completion("ae.sas", "AE", "SUCCESS", Some(at(seconds))).unwrap();
    }
    assert_eq!(fixture.ledger.acknowledge(Notifications, &[row("ae.sas", "AE", "SUCCESS", 10)]).unwrap(), 1);
    let left = fixture.reopened().pending(Notifications).unwrap();
    assert_eq!(left, [row("ae.sas", "AE", "SUCCESS", 0), row("ae.sas", "AE", "SUCCESS", 20)]);
}

#[test]
fn identical_rows_are_separate_events() {
    let fixture = Fixture::new();
    for _ in 0..3 {
        fixture.ledger.log_job_completion("ae.sas", "AE", "SUCCESS", Some(at(0))).unwrap();
    }
    let event = row("ae.sas", "AE", "SUCCESS", 0);
    assert_eq!(fixture.ledger.acknowledge(Notifications, &[event.clone(), event.clone()]).unwrap(), 2);
    assert_eq!(fixture.ledger.pending(Notifications).unwrap(), std::slice::from_ref(&event));
    let many = vec![event; 5];
    assert_eq!(fixture.ledger.acknowledge(Notifications, &many).unwrap(), 1);
    assert_eq!(fixture.ledger.acknowledge(Notifications, &many).unwrap(), 0);
    assert_eq!(flags(&fixture.ledger, Notifications).len(), 3);
}

#[test]
fn nothing_to_acknowledge_commits_nothing() {
    let fixture = Fixture::new();
    fixture.ledger.log_job_completion("ae.sas", "AE", "SUCCESS", Some(at(0))).unwrap();
    let version = || Table::open(&fixture.ledger.inner.storage, Notifications.name()).unwrap().version();
    let before = version();
    assert_eq!(fixture.ledger.acknowledge(Notifications, &[]).unwrap(), 0);
    assert_eq!(fixture.ledger.acknowledge(Notifications, &[row("other", "AE", "SUCCESS", 0)]).unwrap(), 0);
    assert_eq!(version(), before);
}

#[test]
fn what_another_writer_switched_on_is_found_before_rows_are_to_be_acknowledged() {
    let fixture = Fixture::new();
    let check = |table| fixture.ledger.check_acknowledging(table);
    fixture.ledger.log_job_completion("ae.sas", "AE", "SUCCESS", Some(at(0))).unwrap();
    check(Notifications).unwrap();
    check(Executions).unwrap();
    // As ALTER TABLE … SET TBLPROPERTIES of Spark does.
    let log = fixture.directory.path().join("ledger/job_notifications/_delta_log");
    let zero = std::fs::read_to_string(log.join("00000000000000000000.json")).unwrap();
    let metadata = zero.lines().find(|line| line.contains("\"metaData\"")).unwrap();
    let (old, new) = ("\"delta.enableDeletionVectors\":\"false\"", "\"delta.appendOnly\":\"true\"");
    assert!(metadata.contains(old));
    std::fs::write(log.join("00000000000000000002.json"), metadata.replace(old, new)).unwrap();
    let error = check(Notifications).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unsupported, false));
    assert!(error.to_string().contains("'delta.appendOnly' = 'false'"), "{error}");
}

#[test]
fn the_old_update_sets_every_pending_row_of_a_file_and_job() {
    let fixture = Fixture::new();
    for (file, job) in [("a", "J"), ("a", "J"), ("b", "J"), ("a", "K")] {
        fixture.ledger.log_job_execution(file, job, "SUCCESS", Some(at(0))).unwrap();
    }
    assert_eq!(fixture.ledger.update_autosys_flag("a", "J").unwrap(), 2);
    assert_eq!(fixture.ledger.pending(Executions).unwrap(), [row("b", "J", "SUCCESS", 0), row("a", "K", "SUCCESS", 0)]);
}

#[test]
fn a_notification_settles_what_is_not_later() {
    let fixture = Fixture::new();
    let ledger = &fixture.ledger;
    for (status, seconds) in [("SUCCESS", 0), ("SUCCESS", 10), ("SUCCESS", 11), ("FAILURE", 5)] {
        ledger.log_job_execution("a", "J", status, Some(at(seconds))).unwrap();
    }
    assert_eq!(ledger.settle_executions(NO_CHECK, &[row("a", "J", "SUCCESS", 10)]).unwrap(), 2);
    assert_eq!(ledger.pending(Executions).unwrap(), [row("a", "J", "FAILURE", 5), row("a", "J", "SUCCESS", 11)]);
    assert_eq!(ledger.settle_executions(NO_CHECK, &[row("a", "J", "SUCCESS", 10)]).unwrap(), 0);
}

#[test]
fn rows_logged_meanwhile_are_neither_flipped_nor_lost() {
    let fixture = Fixture::new();
    let (ledger, other) = (fixture.ledger.clone(), fixture.reopened());
    ledger.log_job_completion("warm", "UP", "SUCCESS", Some(at(-1))).unwrap();
    let logging = AtomicBool::new(true);
    let flipped = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let ledger = ledger.clone();
                scope.spawn(move || {
                    for number in 0..20 {
                        // Even rows are acknowledged below, odd ones never.
                        let job = format!("W{writer}");
                        ledger.log_job_completion(&number.to_string(), &job, "SUCCESS", Some(at(number))).unwrap();
                    }
                })
            })
            .collect();
        let acknowledging = scope.spawn(|| {
            let mut flipped = 0;
            loop {
                let last = !logging.load(Ordering::SeqCst);
                let even: Vec<LedgerRow> = other
                    .pending(Notifications)
                    .unwrap()
                    .into_iter()
                    .filter(|row| row.file_name.as_ref().is_some_and(|n| n.parse::<i64>().is_ok_and(|n| n % 2 == 0)))
                    .collect();
                flipped += other.acknowledge(Notifications, &even).unwrap();
                if last {
                    return flipped;
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        logging.store(false, Ordering::SeqCst);
        acknowledging.join().unwrap()
    });
    assert_eq!(flipped, 30);
    let all = flags(&fixture.reopened(), Notifications);
    assert_eq!(all.len(), 61);
    for (row, flag) in all {
        let even = row.file_name.unwrap().parse::<i64>().is_ok_and(|number| number % 2 == 0);
        assert_eq!(flag, if even { "YES" } else { "NO" });
    }
}

#[test]
fn a_table_of_somebody_else_without_partitions_is_acknowledged_too() {
    let fixture = Fixture::new();
    let spec = TableSpec { partition_by: &[], ..Notifications.spec().clone() };
    let table = Table::open_or_create(&fixture.ledger.inner.storage, &spec).unwrap();
    let batch = single(Notifications, &row("a", "J", "SUCCESS", 0)).unwrap();
    let nulls = LedgerRow { file_name: None, job_id: Some("J".into()), status: None, timestamp: None };
    table.append(&batch).unwrap();
    table.append(&single(Notifications, &nulls).unwrap()).unwrap();
    assert_eq!(fixture.ledger.acknowledge(Notifications, &[nulls]).unwrap(), 1);
    assert_eq!(fixture.ledger.pending(Notifications).unwrap(), [row("a", "J", "SUCCESS", 0)]);
}
