//! The summary, and executions without a notification.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ledger::LedgerTable::{Executions, Notifications};

const HOUR: Duration = Duration::from_secs(3600);

fn attempt(row: &LedgerRow, number: i64, outcome: &str, detail: Option<&str>, when: DateTime<Utc>) -> Attempt {
    Attempt {
        table: Notifications,
        row: row.clone(),
        attempt: number,
        outcome: AttemptOutcome::parse(outcome),
        detail: detail.map(str::to_owned),
        transport: "sendevent".to_owned(),
        vm: None,
        delivered_by: "host:1".to_owned(),
        attempted_at: when,
    }
}

fn hours_ago(hours: i64) -> DateTime<Utc> {
    Utc::now() - TimeDelta::hours(hours)
}

#[test]
fn the_summary_says_how_deliveries_go() {
    let fixture = Fixture::new();
    let ledger = &fixture.ledger;
    let mut rows = Vec::new();
    for (job, hours) in [("A", 0), ("B", 2), ("C", 2), ("D", 30)] {
        let when = hours_ago(hours);
        ledger.log_job_completion("f", job, "SUCCESS", Some(when)).unwrap();
        rows.push(LedgerRow { timestamp: Some(when.timestamp_micros()), ..row("f", job, "SUCCESS", 0) });
    }
    let stopped = Some("not sent: the delivery was stopped before its turn");
    ledger
        .append_attempts(&[
            attempt(&rows[0], 1, "sending", None, hours_ago(0)),
            attempt(&rows[0], 1, "failed", stopped, hours_ago(0)),
            attempt(&rows[1], 1, "sending", None, hours_ago(1)),
            attempt(&rows[1], 1, "failed", Some("refused"), hours_ago(1)),
            attempt(&rows[2], 1, "parked", Some("no mapping"), hours_ago(1)),
            attempt(&rows[3], 1, "sending", None, hours_ago(25)),
            attempt(&rows[3], 1, "unknown", None, hours_ago(25)),
            attempt(&row("f", "E", "SUCCESS", 0), 1, "delivered", None, hours_ago(1)),
        ])
        .unwrap();
    let summary = ledger.summary(None, None).unwrap();
    let counts = summary.delivered_table();
    assert_eq!(summary.source, Notifications);
    assert_eq!(counts.pending_by_age, [1, 0, 2, 1]);
    assert_eq!(counts.oldest_pending, rows[3].timestamp);
    assert_eq!((counts.pending, counts.parked, counts.retrying), (4, 1, 2));
    assert_eq!(summary.success_rate, Some(1.0 / 3.0), "one delivered, one failed, one parked; one was not sent");
    assert_eq!(ledger.summary(Some(hours_ago(26)), None).unwrap().success_rate, Some(0.25));
    assert_eq!(ledger.summary(Some(Utc::now()), None).unwrap().success_rate, None);

    assert_eq!(counts.next_retry, None, "with the next delivery");
    let backoff = |_: &LedgerRow, failures: u64, last: DateTime<Utc>| {
        Some(last + TimeDelta::hours(2 * i64::try_from(failures).unwrap()))
    };
    let next = ledger.summary(None, Some(&backoff)).unwrap().notifications.next_retry.unwrap();
    assert!((next - hours_ago(23)).abs() < TimeDelta::minutes(1), "that of D, which was tried first: {next}");
    let some = |row: &LedgerRow, _: u64, last: DateTime<Utc>| (row.job_id.as_deref() == Some("D")).then_some(last);
    assert_eq!(ledger.summary(None, Some(&some)).unwrap().notifications.next_retry, None, "B is due at once");
}

/// The status page would otherwise promise the row to the next delivery, which lets it wait.
#[test]
fn the_summary_says_until_when_rows_in_doubt_wait() {
    let fixture = Fixture::new();
    let ledger = &fixture.ledger;
    let when = hours_ago(1);
    ledger.log_job_completion("f", "J", "SUCCESS", Some(when)).unwrap();
    let row = LedgerRow { timestamp: Some(when.timestamp_micros()), ..row("f", "J", "SUCCESS", 0) };
    ledger.append_attempts(&[attempt(&row, 1, "sending", Some("a send ends within 3600 s"), hours_ago(0))]).unwrap();
    let next_retry = || ledger.summary(None, None).unwrap().delivered_table().next_retry;
    assert_eq!(next_retry(), None, "no process holds a lease");
    let request = |owner: &str, ttl| ledger.request_lease(Notifications.name(), owner, ttl, false).unwrap().lease;
    let lease = request("host:1/0", Duration::from_millis(100));
    let until = (lease.expires_at + TimeDelta::hours(1)).timestamp_micros();
    let next_retry = || next_retry().map(|at| at.timestamp_micros());
    assert_eq!(next_retry(), Some(until), "its process may be gone");
    while Utc::now() <= lease.expires_at {
        std::thread::yield_now();
    }
    assert_eq!(next_retry(), Some(until), "the lease has lapsed");
    request("next:1/0", HOUR);
    assert_eq!(next_retry(), Some(until), "another process delivers");
    ledger.release_lease(Notifications.name(), "next:1/0").unwrap();
    assert_eq!(next_retry(), Some(until), "the row still waits");
}

#[test]
fn without_notifications_executions_are_what_is_delivered() {
    let fixture = Fixture::new();
    fixture.ledger.log_job_execution("f", "J", "SUCCESS", None).unwrap();
    let summary = fixture.ledger.summary(None, None).unwrap();
    assert_eq!((summary.source, summary.delivered_table().pending), (Executions, 1));
    assert_eq!(summary.unnotified, 0, "its notification may still come");
}

#[test]
fn acknowledged_rows_are_counted_without_reading_them() {
    let fixture = Fixture::new();
    for number in 0..3 {
        fixture.ledger.log_job_completion(&format!("f{number}"), "J", "SUCCESS", Some(at(number))).unwrap();
    }
    let rows = fixture.ledger.pending(Notifications).unwrap();
    fixture.ledger.acknowledge(Notifications, &rows[..2]).unwrap();
    // What is not read need not be there.
    let partition = fixture.directory.path().join("ledger/job_notifications").join(format!("{FLAG}=YES"));
    let files: Vec<_> = std::fs::read_dir(&partition).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let ledger = fixture.reopened();
    assert!(ledger.rows(Notifications, &RowFilter::default()).is_err(), "the files are gone");
    let counts = ledger.summary(None, None).unwrap().notifications;
    assert_eq!((counts.rows, counts.acknowledged, counts.pending), (3, 2, 1));
}

#[test]
fn an_execution_waits_for_its_notification_for_a_while() {
    let fixture = Fixture::new();
    let ledger = &fixture.ledger;
    for (job, hours) in [("old", 3), ("new", 0), ("notified", 3), ("other file", 3), ("earlier", 3)] {
        ledger.log_job_execution("f", job, "RUNNING", Some(hours_ago(hours))).unwrap();
    }
    let without = |older_than| {
        let rows = ledger.executions_without_notification(older_than).unwrap();
        rows::from_batch(Executions, &rows).unwrap().into_iter().map(|row| row.job_id.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(without(HOUR).len(), 4, "there is no table of notifications");
    ledger.log_job_completion("f", "notified", "SUCCESS", Some(hours_ago(2))).unwrap();
    ledger.log_job_completion("g", "other file", "SUCCESS", Some(hours_ago(2))).unwrap();
    ledger.log_job_completion("f", "earlier", "SUCCESS", Some(hours_ago(4))).unwrap();
    assert_eq!(without(HOUR), ["old", "other file", "earlier"]);
    assert_eq!(without(4 * HOUR), Vec::<String>::new());
    assert_eq!(without(Duration::ZERO).len(), 4);
    assert_eq!(without(Duration::MAX), Vec::<String>::new());
    let notified = ledger.pending(Notifications).unwrap();
    ledger.acknowledge(Notifications, &notified).unwrap();
    assert_eq!(without(HOUR), ["old", "other file", "earlier"], "a notification counts whatever its flag");
    assert_eq!(ledger.summary(None, None).unwrap().unnotified, 3);
    let rows = rows::from_batch(Executions, &ledger.executions_without_notification(HOUR).unwrap()).unwrap();
    ledger.acknowledge(Executions, &rows).unwrap();
    assert_eq!(ledger.summary(None, None).unwrap().unnotified, 0);
}

#[test]
fn attempts_come_back_as_they_were() {
    let fixture = Fixture::new();
    fixture.ledger.log_job_completion("f", "J", "S", Some(at(0))).unwrap();
    let attempt = |number: i64, outcome: &str| Attempt {
        table: Notifications,
        row: LedgerRow { file_name: None, ..row("f", "J", "S", 0) },
        attempt: number,
        outcome: AttemptOutcome::parse(outcome),
        detail: (number == 2).then(|| "'; DROP TABLE x; -- \u{1F680} \t NULL".to_owned()),
        transport: "callable".to_owned(),
        vm: None,
        delivered_by: "host:1".to_owned(),
        attempted_at: at(number),
    };
    let attempts = [attempt(1, "failed"), attempt(2, "delivered"), attempt(3, "of a later build")];
    fixture.ledger.append_attempts(&attempts).unwrap();
    fixture.ledger.append_attempts(&[]).unwrap();
    assert_eq!(fixture.reopened().attempts(Notifications).unwrap(), attempts);
    assert!(fixture.ledger.attempts(Executions).unwrap().is_empty());
    assert_eq!(fixture.ledger.deliveries(Some(at(2)), None).unwrap().num_rows(), 2);
    assert_eq!(
        fixture.ledger.summary(Some(at(0)), None).unwrap().attempts,
        ["delivered", "failed", "of a later build"].map(|word| (word.to_owned(), 1))
    );
}

type Event = (u8, u8, Option<i64>, bool);

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn executions_without_notification_are_those_of_the_definition(
        executions in vec((0..2u8, 0..2u8, prop::option::of(-5..5i64), any::<bool>()), 1..8),
        notifications in vec((0..2u8, 0..2u8, prop::option::of(-5..5i64), any::<bool>()), 0..8),
    ) {
        let fixture = Fixture::new();
        let row = |event: &Event| LedgerRow {
            timestamp: event.2.map(|hours| at(hours * 3600).timestamp_micros()),
            ..row(&format!("f{}", event.0), &format!("J{}", event.1), "S", 0)
        };
        for (table, events) in [(Executions, &executions), (Notifications, &notifications)] {
            for event in events {
                let stored = fixture.ledger.created(table.spec()).unwrap();
                stored.append(&rows::to_batch(table, [row(event)].iter(), [NO].into_iter()).unwrap()).unwrap();
                if event.3 {
                    fixture.ledger.acknowledge(table, &[row(event)]).unwrap();
                }
            }
        }
        let limit = at(0).timestamp_micros();
        let overdue = |event: &&Event| !event.3 && row(event).timestamp.is_none_or(|at| at < limit);
        let notified = |event: &Event| notifications.iter().any(|other| {
            (other.0, other.1) == (event.0, event.1) && row(other).timestamp >= row(event).timestamp
        });
        let mut expected: Vec<_> =
            executions.iter().filter(overdue).filter(|event| !notified(event)).map(row).collect();
        let filter = RowFilter { flag: Some(NO.to_owned()), ..RowFilter::default() };
        let pending = fixture.ledger.rows(Executions, &filter).unwrap();
        let found = fixture.ledger.without_notification(&pending, Some(at(0))).unwrap();
        let mut found = rows::from_batch(Executions, &found).unwrap();
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
    }
}
