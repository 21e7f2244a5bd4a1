//! Random sequences of calls against the same rules on a list.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ledger::LedgerTable::{Executions, Notifications};

#[derive(Debug, Clone)]
enum Step {
    Log(u8, u8, i64),
    Execute(u8, u8, i64),
    Acknowledge(Vec<(u8, u8, i64)>),
    Settle(u8, u8, i64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    // Few values, so that rows are often identical or alike.
    let row = || (0..2u8, 0..2u8, 0..3i64);
    prop_oneof![
        3 => row().prop_map(|(job, status, at)| Step::Log(job, status, at)),
        3 => row().prop_map(|(job, status, at)| Step::Execute(job, status, at)),
        2 => vec(row(), 0..4).prop_map(Step::Acknowledge),
        1 => row().prop_map(|(job, status, at)| Step::Settle(job, status, at)),
        1 => Just(Step::Reopen),
    ]
}

fn event((job, status, at): (u8, u8, i64)) -> LedgerRow {
    row("f", &format!("J{job}"), if status == 0 { "SUCCESS" } else { "FAILURE" }, at)
}

fn log(ledger: &JobLedger, table: LedgerTable, row: &LedgerRow) {
    let text = |value: &Option<String>| value.clone().unwrap();
    let at = row.timestamp.and_then(DateTime::from_timestamp_micros);
    ledger.log(table, &text(&row.file_name), &text(&row.job_id), &text(&row.status), at).unwrap();
}

/// All rows with their flags, in an order that does not matter.
fn sorted(mut rows: Vec<(LedgerRow, String)>) -> Vec<(LedgerRow, String)> {
    rows.sort();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_does_what_a_list_would_do(steps in vec(step(), 1..14)) {
        let fixture = Fixture::new();
        let mut ledger = fixture.ledger.clone();
        let (mut notifications, mut executions): (Vec<(LedgerRow, String)>, Vec<_>) = Default::default();
        // Both tables exist from the start: what is missing has tests of its own.
        for (table, list) in [(Notifications, &mut notifications), (Executions, &mut executions)] {
            log(&ledger, table, &event((0, 0, 0)));
            list.push((event((0, 0, 0)), "NO".to_owned()));
        }
        for step in steps {
            match step {
                Step::Log(job, status, at) => {
                    log(&ledger, Notifications, &event((job, status, at)));
                    notifications.push((event((job, status, at)), "NO".to_owned()));
                }
                Step::Execute(job, status, at) => {
                    log(&ledger, Executions, &event((job, status, at)));
                    executions.push((event((job, status, at)), "NO".to_owned()));
                }
                Step::Acknowledge(rows) => {
                    let rows: Vec<LedgerRow> = rows.into_iter().map(event).collect();
                    let mut expected = 0;
                    for row in &rows {
                        if let Some(found) = notifications.iter_mut().find(|(other, flag)| other == row && flag == "NO") {
                            found.1 = "YES".to_owned();
                            expected += 1;
                        }
                    }
                    prop_assert_eq!(ledger.acknowledge(Notifications, &rows).unwrap(), expected);
                }
                Step::Settle(job, status, at) => {
                    let notified = event((job, status, at));
                    let mut expected = 0;
                    for (row, flag) in &mut executions {
                        let same = row.job_id == notified.job_id && row.status == notified.status;
                        if flag == "NO" && same && row.timestamp <= notified.timestamp {
                            *flag = "YES".to_owned();
                            expected += 1;
                        }
                    }
                    prop_assert_eq!(ledger.settle_executions(NO_CHECK, &[notified]).unwrap(), expected);
                }
                Step::Reopen => ledger = fixture.reopened(),
            }
        }
        prop_assert_eq!(sorted(flags(&ledger, Notifications)), sorted(notifications));
        prop_assert_eq!(sorted(flags(&ledger, Executions)), sorted(executions));
    }
}
