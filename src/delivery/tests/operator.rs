//! Parked rows and operator actions. Dry runs of the updater tell what an action leads to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::autosys::Callable;
use crate::delivery::epoch::Epoch;
use crate::ledger::LedgerTable::{Executions, Notifications};

const ALICE: AuditNote<'static> = AuditNote { by: "alice@host", reason: Some("checked in AutoSys") };

/// What a delivery would send now, and how many rows it finds parked.
fn next_delivery(ledger: &JobLedger) -> (BTreeMap<LedgerRow, u64>, u64) {
    let options = UpdaterOptions { dry_run: true, order: Order::None, ..UpdaterOptions::default() };
    let never = Callable::answering(|_, _, _| Err("a dry run sends nothing".to_owned()), true);
    let updater = AutosysUpdater::new(ledger.clone(), Arc::new(never), options).unwrap();
    let report = crate::runtime::block_on(async move { updater.run().await }).unwrap();
    let mut planned = BTreeMap::new();
    report.planned.into_iter().for_each(|item| *planned.entry(item.row).or_default() += 1);
    (planned, report.parked)
}

/// A cycle in which AutoSys takes nothing: rows that are open stay so, and the updater writes down where they stand.
fn refused_delivery(ledger: &JobLedger) {
    let options = UpdaterOptions { order: Order::None, ..UpdaterOptions::default() };
    let never = Callable::answering(|_, _, _| Ok(false), true);
    let updater = AutosysUpdater::new(ledger.clone(), Arc::new(never), options).unwrap();
    crate::runtime::block_on(async move { updater.run().await }).unwrap();
}

fn log(ledger: &JobLedger, row: &LedgerRow) {
    ledger.log_job_completion("f", row.job_id.as_ref().unwrap(), "SUCCESS", time(row)).unwrap();
}

fn time(row: &LedgerRow) -> Option<DateTime<Utc>> {
    row.timestamp.and_then(DateTime::from_timestamp_micros)
}

fn tried(row: &LedgerRow, number: i64, outcome: &str) -> Attempt {
    Attempt {
        table: Notifications,
        row: row.clone(),
        attempt: number,
        outcome: AttemptOutcome::parse(outcome),
        detail: Some("no such job".to_owned()),
        transport: "sendevent".to_owned(),
        vm: None,
        delivered_by: "host:1".to_owned(),
        attempted_at: at(number),
    }
}

/// As an updater does it whose `number`th try fails for good.
fn park(ledger: &JobLedger, row: &LedgerRow, number: i64) {
    ledger.append_attempts(&[tried(row, number, "sending")]).unwrap();
    ledger.append_attempts(&[tried(row, number, "parked")]).unwrap();
}

fn by_hand(ledger: &JobLedger) -> Vec<String> {
    let attempts = ledger.attempts(Notifications).unwrap();
    attempts.into_iter().filter(|a| a.outcome == AttemptOutcome::ByHand).map(|a| a.detail.unwrap()).collect()
}

#[test]
fn a_parked_row_is_listed_with_its_reason_and_sent_again_when_redriven() {
    let fixture = Fixture::new();
    let (ledger, row) = (&fixture.ledger, row("f", "J", "SUCCESS", 0));
    log(ledger, &row);
    assert_eq!(ledger.parked(Notifications).unwrap(), []);
    ledger.append_attempts(&[tried(&row, 1, "sending"), tried(&row, 1, "failed")]).unwrap();
    park(ledger, &row, 2);
    let parked = fixture.reopened().parked(Notifications).unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((&parked[0].row, parked[0].attempts, parked[0].parked_at), (&row, 2, at(2)));
    assert_eq!((parked[0].reason.as_deref(), parked[0].transport.as_str()), (Some("no such job"), "sendevent"));
    assert_eq!(next_delivery(ledger), (BTreeMap::new(), 1));

    let absent = [super::row("f", "other", "SUCCESS", 0)];
    let silent = AuditNote { reason: None, ..ALICE };
    assert_eq!(ledger.redrive(Notifications, Some(&absent), None, &silent).unwrap(), 0);
    assert_eq!(ledger.redrive(Notifications, None, Some("other"), &silent).unwrap(), 0);
    assert_eq!(ledger.redrive(Notifications, None, Some("J"), &silent).unwrap(), 1);
    assert_eq!(ledger.redrive(Notifications, None, None, &silent).unwrap(), 0, "it is not parked any more");
    assert_eq!(ledger.parked(Notifications).unwrap(), []);
    assert_eq!(next_delivery(ledger), (BTreeMap::from([(row.clone(), 1)]), 0));
    let redriven = ledger.attempts(Notifications).unwrap().pop().unwrap();
    assert_eq!((redriven.outcome.as_str(), redriven.detail.as_deref()), ("redriven", Some("redriven by alice@host")));
    park(ledger, &row, 3);
    assert_eq!(ledger.parked(Notifications).unwrap()[0].attempts, 1, "they count from the redriving");
}

#[test]
fn a_row_settled_by_hand_takes_its_executions_along_and_says_who_and_why() {
    for (settlement, word) in [(Settlement::Arrived, "acknowledged"), (Settlement::NotToBeSent, "skipped")] {
        let fixture = Fixture::new();
        let (ledger, row) = (&fixture.ledger, row("f", "J", "SUCCESS", 5));
        ledger.log_job_execution("f", "J", "SUCCESS", Some(at(4))).unwrap();
        ledger.log_job_execution("f", "J", "SUCCESS", Some(at(6))).unwrap();
        log(ledger, &row);
        log(ledger, &super::row("f", "J", "SUCCESS", 6));
        assert_eq!(ledger.settle_by_hand(Notifications, &[row], settlement, &ALICE).unwrap(), 1);
        let row = [super::row("f", "J", "SUCCESS", 5)];
        assert_eq!(ledger.settle_by_hand(Notifications, &row, settlement, &ALICE).unwrap(), 0);
        assert_eq!(ledger.pending(Notifications).unwrap(), [super::row("f", "J", "SUCCESS", 6)]);
        assert_eq!(ledger.pending(Executions).unwrap(), [super::row("f", "J", "SUCCESS", 6)]);
        assert_eq!(by_hand(ledger), [format!("{word} by alice@host: checked in AutoSys")]);
    }
}

#[test]
fn a_row_of_the_other_table_is_settled_alone() {
    let fixture = Fixture::new();
    let ledger = &fixture.ledger;
    ledger.log_job_execution("f", "J", "SUCCESS", Some(at(0))).unwrap();
    log(ledger, &row("f", "J", "SUCCESS", 0));
    let rows = [row("f", "J", "SUCCESS", 0)];
    assert_eq!(ledger.settle_by_hand(Executions, &rows, Settlement::NotToBeSent, &ALICE).unwrap(), 1);
    assert_eq!((ledger.pending(Executions).unwrap().len(), ledger.pending(Notifications).unwrap().len()), (0, 1));
    assert_eq!(ledger.attempts(Executions).unwrap().len(), 1);
}

#[test]
fn what_is_done_by_hand_has_an_author_and_a_reason() {
    let fixture = Fixture::new();
    let (ledger, row) = (&fixture.ledger, row("f", "J", "SUCCESS", 0));
    log(ledger, &row);
    let long = "x".repeat(1001);
    for (by, reason) in [("", Some("r")), (" ", Some("r")), ("a", None), ("a", Some(" ")), ("a", Some(&*long))] {
        let hand = AuditNote { by, reason };
        let rows = [row.clone()];
        let error = ledger.settle_by_hand(Notifications, &rows, Settlement::Arrived, &hand).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(ledger.attempts(Notifications).unwrap().is_empty());
    }
}

#[test]
fn nothing_is_done_by_hand_while_rows_are_delivered() {
    let fixture = Fixture::new();
    let (ledger, row) = (&fixture.ledger, row("f", "J", "SUCCESS", 0));
    log(ledger, &row);
    park(ledger, &row, 1);
    let minute = std::time::Duration::from_secs(60);
    ledger.take_lease(Notifications.name(), "updater", minute).unwrap();
    let rows = [row];
    let errors = [
        ledger.redrive(Notifications, None, None, &ALICE).unwrap_err(),
        ledger.settle_by_hand(Notifications, &rows, Settlement::Arrived, &ALICE).unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::LeaseHeld, true));
        assert!(error.to_string().starts_with("updater is delivering rows of job_notifications"), "{error}");
        let until = error.to_string().split_once("its lease ends at ").unwrap().1[..20].parse::<DateTime<Utc>>();
        assert!(until.unwrap() > Utc::now(), "{error}");
    }
    assert_eq!(ledger.attempts(Notifications).unwrap().len(), 2);
    ledger.release_lease(Notifications.name(), "updater").unwrap();
    assert_eq!(ledger.settle_by_hand(Notifications, &rows, Settlement::Arrived, &ALICE).unwrap(), 1);
    assert!(!ledger.is_held(&ledger.lease(Notifications.name()).unwrap().unwrap()).unwrap(), "given back");
}

/// A guard that says no at its `last`th question and all later ones.
fn until(asked: &AtomicUsize, last: usize) -> impl Fn() -> Result<()> + Sync {
    move || match asked.fetch_add(1, Ordering::SeqCst) + 1 < last {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::LeaseHeld, "the lease is gone").with_retryable(true)),
    }
}

/// Interrupted at any moment, doing it again ends as if nothing had happened, and no delivery in between sends the row.
#[test]
fn an_interrupted_settling_is_done_again_without_counting_twice() {
    for (parked, last) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
        let fixture = Fixture::new();
        let (ledger, row) = (&fixture.ledger, row("f", "J", "SUCCESS", 0));
        // Two identical ones, of which one is settled.
        log(ledger, &row);
        log(ledger, &row);
        if parked {
            park(ledger, &row, 1);
        }
        let rows = [row.clone()];
        let settle = || ledger.settle_by_hand(Notifications, &rows, Settlement::Arrived, &ALICE);
        let (asked, epoch) = (AtomicUsize::new(0), Epoch::new(ledger, Notifications, false));
        let lost = ledger.settle(Notifications, &rows, Settlement::Arrived, &ALICE, &epoch, &until(&asked, last));
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::LeaseHeld);
        assert_eq!(ledger.pending(Notifications).unwrap().len(), 2);
        let decided = usize::from(last == 2);
        assert_eq!(by_hand(ledger).len(), decided);
        let still_parked = u64::from(parked && last < 2);
        let open = 2 - decided as u64 - still_parked;
        assert_eq!(next_delivery(ledger), (BTreeMap::from([(row.clone(), open)]), still_parked));

        assert_eq!(settle().unwrap(), 1);
        assert_eq!(by_hand(ledger).len(), 1, "parked {parked}, interrupted at {last}");
        assert_eq!(next_delivery(ledger), (BTreeMap::from([(row.clone(), 1)]), 0));
        assert_eq!(settle().unwrap(), 1, "the other one");
        assert_eq!(next_delivery(ledger), (BTreeMap::new(), 0));
        // One that is logged afterwards is an event of its own.
        log(ledger, &row);
        assert_eq!(next_delivery(ledger), (BTreeMap::from([(row.clone(), 1)]), 0));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Log(usize),
    Park(usize),
    Redrive(Vec<usize>),
    RedriveAll,
    Settle(Vec<usize>),
    Deliver(usize),
    Cycle,
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly one kind, so that rows are often identical.
    let kind = prop_oneof![5 => Just(0), 1 => 1..3usize];
    prop_oneof![
        4 => kind.clone().prop_map(Step::Log),
        4 => kind.clone().prop_map(Step::Park),
        2 => prop::collection::vec(kind.clone(), 1..3).prop_map(Step::Redrive),
        1 => Just(Step::RedriveAll),
        3 => prop::collection::vec(kind.clone(), 1..3).prop_map(Step::Settle),
        1 => kind.prop_map(Step::Deliver),
        1 => Just(Step::Cycle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against pairs of numbers: how many identical rows are open, and how many are parked.
    #[test]
    fn parking_redriving_and_settling_are_by_count(steps in prop::collection::vec(step(), 8..20)) {
        let fixture = Fixture::new();
        let ledger = &fixture.ledger;
        let kinds = [row("f", "A", "SUCCESS", 0), row("f", "A", "SUCCESS", 1), row("f", "B", "SUCCESS", 100_000)];
        let (mut open, mut parked) = ([0_u64; 3], [0_u64; 3]);
        log(ledger, &kinds[0]);
        open[0] += 1;
        for step in &steps {
            match step {
                Step::Log(kind) => {
                    log(ledger, &kinds[*kind]);
                    open[*kind] += 1;
                }
                Step::Park(kind) if open[*kind] > 0 => {
                    let last = ledger.attempts(Notifications).unwrap().iter().map(|a| a.attempt).max().unwrap_or(0);
                    park(ledger, &kinds[*kind], last + 1);
                    (open[*kind], parked[*kind]) = (open[*kind] - 1, parked[*kind] + 1);
                }
                Step::Deliver(kind) if open[*kind] > 0 => {
                    let last = ledger.attempts(Notifications).unwrap().iter().map(|a| a.attempt).max().unwrap_or(0);
                    ledger.append_attempts(&[tried(&kinds[*kind], last + 1, "sending")]).unwrap();
                    ledger.append_attempts(&[tried(&kinds[*kind], last + 1, "delivered")]).unwrap();
                    ledger.acknowledge(Notifications, &[kinds[*kind].clone()]).unwrap();
                    open[*kind] -= 1;
                }
                Step::Cycle => refused_delivery(ledger),
                Step::Park(_) | Step::Deliver(_) => {}
                Step::Redrive(given) => {
                    let rows: Vec<_> = given.iter().map(|kind| kinds[*kind].clone()).collect();
                    let mut expected = 0;
                    for kind in given.iter().filter(|kind| parked[**kind] > 0).copied().collect::<Vec<_>>() {
                        if parked[kind] > 0 {
                            (open[kind], parked[kind], expected) = (open[kind] + 1, parked[kind] - 1, expected + 1);
                        }
                    }
                    prop_assert_eq!(ledger.redrive(Notifications, Some(&rows), None, &ALICE).unwrap(), expected);
                }
                Step::RedriveAll => {
                    let expected: u64 = parked.iter().sum();
                    prop_assert_eq!(ledger.redrive(Notifications, None, None, &ALICE).unwrap(), expected);
                    (0..3).for_each(|kind| (open[kind], parked[kind]) = (open[kind] + parked[kind], 0));
                }
                Step::Settle(given) => {
                    let rows: Vec<_> = given.iter().map(|kind| kinds[*kind].clone()).collect();
                    let mut expected = 0;
                    for kind in given {
                        let from = if parked[*kind] > 0 { &mut parked[*kind] } else { &mut open[*kind] };
                        if *from > 0 {
                            (*from, expected) = (*from - 1, expected + 1);
                        }
                    }
                    let settled = ledger.settle_by_hand(Notifications, &rows, Settlement::Arrived, &ALICE).unwrap();
                    prop_assert_eq!(settled, expected);
                }
            }
            let mut listed = [0; 3];
            for row in ledger.parked(Notifications).unwrap() {
                listed[kinds.iter().position(|kind| *kind == row.row).unwrap()] += 1;
            }
            prop_assert_eq!(listed, parked, "{:?} of {:?}", step, steps);
            let planned = kinds.iter().cloned().zip(open).filter(|(_, count)| *count > 0).collect();
            prop_assert_eq!(next_delivery(ledger), (planned, parked.iter().sum()), "{:?} of {:?}", step, steps);
            let summary = ledger.summary(None, None).unwrap().notifications;
            prop_assert_eq!(
                (summary.pending, summary.parked),
                (open.iter().chain(&parked).sum(), parked.iter().sum()),
                "{:?} of {:?}", step, steps
            );
        }
    }
}
