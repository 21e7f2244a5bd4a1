use chrono::DateTime;
use proptest::prelude::*;

use super::super::attempts::{Attempt, AttemptOutcome, NOT_SENT};
use super::super::history::AttemptHistory;
use super::super::pending::Histories;
use super::*;
use crate::ledger::LedgerTable;

fn row(job: &str, status: &str, timestamp: i64) -> LedgerRow {
    LedgerRow {
        file_name: Some("f".into()),
        job_id: Some(job.into()),
        status: Some(status.into()),
        timestamp: Some(timestamp),
    }
}

fn attempt(row: &LedgerRow, number: i64, outcome: &str) -> Attempt {
    Attempt {
        table: LedgerTable::Notifications,
        row: row.clone(),
        attempt: number,
        outcome: AttemptOutcome::parse(outcome),
        detail: None,
        transport: "test".into(),
        vm: None,
        delivered_by: "host:1".into(),
        attempted_at: DateTime::from_timestamp_micros(number).unwrap(),
    }
}

fn planned(pending: Vec<LedgerRow>, attempts: Vec<Attempt>, order: Order, max_attempts: Option<u64>) -> Plan {
    planned_with(pending, attempts, order, max_attempts, HashMap::new())
}

fn planned_with(
    pending: Vec<LedgerRow>,
    attempts: Vec<Attempt>,
    order: Order,
    max_attempts: Option<u64>,
    yes: HashMap<LedgerRow, u64>,
) -> Plan {
    planned_by(pending, attempts, yes, &|rules| PlanRules { order, max_attempts, ..rules })
}

/// The plan by rules that `change` makes of the simplest ones.
fn planned_by(
    pending: Vec<LedgerRow>,
    attempts: Vec<Attempt>,
    yes: HashMap<LedgerRow, u64>,
    change: &dyn for<'a> Fn(PlanRules<'a>) -> PlanRules<'a>,
) -> Plan {
    let check = |delivery: &Delivery| match delivery.status.as_str() {
        "BAD" => Err("no mapping".to_owned()),
        _ => Ok(()),
    };
    let (first, priority, waits) = (HashSet::from(["first".to_owned()]), HashSet::new(), Waits::new());
    let rules = change(PlanRules {
        order: Order::PerJob,
        max_attempts: None,
        first: &first,
        priority: &priority,
        stale_before: None,
        next_try: &|_, _, _| None,
        waits: &waits,
        now: DateTime::UNIX_EPOCH,
        check: &check,
    });
    let histories = Histories { by_row: AttemptHistory::by_row(&[], attempts), ..Histories::default() };
    let pending = PendingRows { rows: pending, histories, acknowledged: yes, ..PendingRows::default() };
    plan(&pending, &rules)
}

fn queued(plan: &Plan) -> Vec<Vec<(&str, i64)>> {
    let item = |item: &QueuedRow| item.row.timestamp.unwrap();
    plan.queues.iter().map(|q| q.iter().map(|i| (i.delivery.job_id.as_str(), item(i))).collect()).collect()
}

#[test]
fn rows_of_one_job_stand_in_one_queue() {
    let rows = vec![row("a", "S", 1), row("b", "S", 2), row("a", "F", 3)];
    let plan = planned(rows.clone(), vec![], Order::PerJob, None);
    assert_eq!(queued(&plan), [vec![("a", 1), ("a", 3)], vec![("b", 2)]]);
    let plan = planned(rows, vec![], Order::None, None);
    assert_eq!(queued(&plan), [[("a", 1)], [("b", 2)], [("a", 3)]]);
}

#[test]
fn latest_supersedes_older_rows_but_not_by_one_that_cannot_be_sent() {
    let rows = vec![row("a", "S", 1), row("a", "F", 2), row("a", "BAD", 3), row("b", "S", 4)];
    let plan = planned(rows, vec![], Order::Latest, None);
    assert_eq!(queued(&plan), [[("a", 2)], [("b", 4)]]);
    assert_eq!(plan.superseded.iter().map(|u| u.row.timestamp).collect::<Vec<_>>(), [Some(1)]);
    assert_eq!(plan.park.iter().map(|u| u.row.timestamp).collect::<Vec<_>>(), [Some(3)]);
}

#[test]
fn names_autosys_refuses_nulls_and_unmapped_statuses_are_parked_unsent() {
    let null_job = LedgerRow { job_id: None, ..row("a", "S", 1) };
    let null_status = LedgerRow { status: None, ..row("a", "S", 2) };
    let rows = vec![null_job, null_status, row("a b; rm", "S", 3), row("a", "BAD", 4), row("a", "S", 5)];
    let plan = planned(rows, vec![], Order::PerJob, None);
    let reasons: Vec<_> = plan.park.iter().map(|u| u.reason.as_str()).collect();
    assert_eq!(reasons[0], "the row's job name is NULL");
    assert_eq!(reasons[1], "the row's status is NULL");
    assert!(reasons[2].starts_with("name AutoSys refuses"), "{}", reasons[2]);
    assert_eq!(reasons[3], "no mapping");
    assert_eq!(queued(&plan), [[("a", 5)]]);
}

#[test]
fn a_delivered_row_is_only_flipped() {
    let (done, open) = (row("a", "S", 1), row("a", "S", 2));
    let attempts = vec![attempt(&done, 1, "sending"), attempt(&done, 1, "delivered")];
    let plan = planned(vec![done.clone(), open], attempts, Order::PerJob, None);
    assert_eq!(plan.recovered, [done]);
    assert_eq!(queued(&plan), [[("a", 2)]]);
}

#[test]
fn an_outcome_wins_over_sending_of_the_same_instant() {
    let done = row("a", "S", 1);
    let attempts = vec![attempt(&done, 1, "delivered"), attempt(&done, 1, "sending")];
    assert_eq!(planned(vec![done.clone()], attempts, Order::PerJob, None).recovered, [done]);
}

#[test]
fn identical_rows_are_separate_events() {
    let twin = row("a", "S", 1);
    let attempts = vec![attempt(&twin, 1, "delivered"), attempt(&twin, 2, "failed")];
    // One of two was delivered and flipped: the other one is to be sent, as attempt 3.
    let yes = HashMap::from([(twin.clone(), 1)]);
    let plan = planned_with(vec![twin.clone()], attempts.clone(), Order::PerJob, None, yes);
    assert_eq!(plan.recovered, []);
    assert_eq!(plan.queues[0][0].attempt, 3);
    // One of two was delivered and not yet flipped: one is flipped, the other one sent.
    let plan = planned(vec![twin.clone(), twin.clone()], attempts, Order::PerJob, None);
    assert_eq!((plan.recovered.len(), plan.queues.len()), (1, 1));
}

#[test]
fn parked_rows_are_skipped_until_redriven() {
    let parked = row("a", "S", 1);
    let mut attempts = vec![attempt(&parked, 1, "failed"), attempt(&parked, 2, "parked")];
    let plan = planned(vec![parked.clone(), row("a", "S", 2)], attempts.clone(), Order::PerJob, Some(2));
    assert_eq!((plan.parked_before, queued(&plan)), (1, vec![vec![("a", 2)]]));
    attempts.push(attempt(&parked, 3, "redriven"));
    let plan = planned(vec![parked], attempts, Order::PerJob, Some(2));
    assert_eq!((plan.parked_before, plan.queues[0][0].attempt, plan.queues[0][0].failures), (0, 4, 0));
}

#[test]
fn a_row_is_parked_when_its_attempts_are_used_up() {
    let tried = row("a", "S", 1);
    let attempts = vec![attempt(&tried, 1, "failed"), attempt(&tried, 2, "unknown"), attempt(&tried, 3, "sending")];
    let plan = planned(vec![tried.clone()], attempts.clone(), Order::PerJob, Some(3));
    assert_eq!((plan.queues.len(), plan.park.len(), plan.park[0].attempt), (0, 1, 4));
    assert_eq!(plan.park[0].reason, "not delivered in 3 attempts; whether attempt 3 arrived is unknown");
    let plan = planned(vec![tried.clone()], attempts[..1].to_vec(), Order::PerJob, Some(1));
    assert_eq!(plan.park[0].reason, "not delivered in 1 attempt");
    let plan = planned(vec![tried], attempts, Order::PerJob, Some(4));
    assert_eq!((plan.queues[0][0].failures, plan.queues[0][0].in_doubt), (3, Some(3)));
}

#[test]
fn of_a_row_that_was_stopped_before_its_turn_no_attempt_counts() {
    let waiting = row("a", "S", 1);
    let mut stopped = attempt(&waiting, 2, "failed");
    stopped.detail = Some(NOT_SENT.to_owned());
    let attempts =
        vec![attempt(&waiting, 1, "sending"), attempt(&waiting, 1, "failed"), attempt(&waiting, 2, "sending"), stopped];
    let plan = planned(vec![waiting], attempts, Order::PerJob, Some(2));
    let item = &plan.queues[0][0];
    assert_eq!((item.attempt, item.failures, item.in_doubt), (2, 1, None));
}

#[test]
fn identical_rows_that_failed_once_each_have_one_attempt_each() {
    let twin = row("a", "S", 1);
    let rows = vec![twin.clone(), twin.clone(), twin.clone()];
    let numbers = |plan: &Plan| plan.queues.iter().flatten().map(|i| (i.attempt, i.failures)).collect::<Vec<_>>();
    let first = planned(rows.clone(), vec![], Order::None, Some(2));
    assert_eq!(numbers(&first), [(1, 0); 3]);
    let mut attempts: Vec<_> = (0..3).flat_map(|_| ["sending", "failed"].map(|word| attempt(&twin, 1, word))).collect();
    assert_eq!(numbers(&planned(rows, attempts.clone(), Order::None, Some(2))), [(2, 1); 3]);
    // The one that was delivered takes its own failures with it, and so does the one that was parked.
    attempts.extend(["sending", "delivered", "sending", "parked"].map(|word| attempt(&twin, 2, word)));
    let yes = HashMap::from([(twin.clone(), 1)]);
    let plan = planned_with(vec![twin.clone(), twin.clone()], attempts, Order::None, Some(2), yes);
    assert_eq!((plan.parked_before, plan.park.len(), numbers(&plan)), (1, 0, vec![(2, 1)]));
}

#[test]
fn rows_from_before_the_limit_are_expired_and_the_row_of_the_limit_is_sent() {
    let rows = vec![row("a", "S", 1), row("b", "S", 2), row("c", "S", 3)];
    let limit = DateTime::from_timestamp_micros(2);
    let plan = planned_by(rows, vec![], HashMap::new(), &|rules| PlanRules { stale_before: limit, ..rules });
    assert_eq!(plan.expired.iter().map(|unsent| unsent.row.timestamp).collect::<Vec<_>>(), [Some(1)]);
    assert_eq!(queued(&plan), [[("b", 2)], [("c", 3)]]);
}

#[test]
fn a_job_that_goes_first_blocks_the_others_while_a_row_of_it_cannot_be_sent() {
    let first = row("first", "S", 1);
    let plan = |rows: &[LedgerRow], attempts: &[(&LedgerRow, &str)]| {
        let attempts = attempts.iter().map(|(row, outcome)| attempt(row, 1, outcome)).collect();
        let plan = planned_by(rows.to_vec(), attempts, HashMap::new(), &|rules| PlanRules {
            next_try: &|_, _, at| Some(at + chrono::TimeDelta::hours(1)),
            ..rules
        });
        (plan.first.len(), plan.first_is_blocked)
    };
    let other = row("other", "S", 2);
    assert_eq!(plan(&[first.clone(), other.clone()], &[]), (1, false), "it is sent first");
    assert_eq!(plan(&[first.clone(), other.clone()], &[(&other, "failed")]), (1, false), "the other row waits");
    assert_eq!(plan(&[first.clone(), other.clone()], &[(&other, "parked")]), (1, false), "the other row is parked");
    assert_eq!(plan(std::slice::from_ref(&first), &[(&first, "failed")]), (0, true), "its next try is not due yet");
    assert_eq!(plan(std::slice::from_ref(&first), &[(&first, "parked")]), (0, true), "it was parked before");
    assert_eq!(plan(&[row("first", "BAD", 1)], &[]), (0, true), "it is parked now");
}

proptest! {
    /// However the sends of identical rows end, each of them has all its attempts before it is parked.
    #[test]
    fn identical_rows_are_parked_after_max_attempts_of_their_own(
        rows in 1..5usize,
        most in 1..4u64,
        order in 0..2u8,
        answers in proptest::collection::vec(0..4u8, 60),
    ) {
        let twin = row("a", "S", 1);
        let order = [Order::PerJob, Order::None][usize::from(order)];
        let (mut pending, mut yes, mut attempts, mut answers) = (rows, 0, vec![], answers.into_iter());
        let (mut tries, mut parked) = (0, 0);
        for _cycle in 0..rows * 5 {
            let acknowledged = HashMap::from([(twin.clone(), yes)]);
            let plan = planned_with(vec![twin.clone(); pending], attempts.clone(), order, Some(most), acknowledged);
            prop_assert_eq!((plan.recovered.len(), plan.parked_before), (0, parked));
            for unsent in &plan.park {
                prop_assert!(tries >= most, "parked unsent after {} tries of all {} rows", tries, rows);
                attempts.push(attempt(&twin, unsent.attempt, "parked"));
                parked += 1;
            }
            for queue in plan.queues {
                for item in queue {
                    prop_assert!(item.attempt as u64 == item.failures + 1 && item.failures < most, "{:?}", item);
                    attempts.push(attempt(&twin, item.attempt, "sending"));
                    tries += 1;
                    let last = item.failures + 1 == most;
                    let word = match answers.next() {
                        Some(0) => "delivered",
                        Some(1) => "unknown",
                        _ if last => "parked",
                        _ => "failed",
                    };
                    attempts.push(attempt(&twin, item.attempt, word));
                    match word {
                        "delivered" => (pending, yes) = (pending - 1, yes + 1),
                        "parked" => parked += 1,
                        _ => break,
                    }
                }
            }
        }
        prop_assert_eq!(pending as u64, parked, "everything has come to its end");
        let delivered = attempts.iter().filter(|a| a.outcome == AttemptOutcome::Delivered).count() as u64;
        prop_assert!(tries >= parked * most + delivered, "{} tries, {} parked, {} delivered", tries, parked, delivered);
        prop_assert!(tries <= rows as u64 * most);
    }

    /// Nothing is lost or doubled, and the rows of a job stay in time order, whatever the history.
    #[test]
    fn every_pending_row_is_planned_exactly_once(
        pending in proptest::collection::vec((0..4u8, 0..3u8, 0..5i64), 0..30),
        tried in proptest::collection::vec((0..4u8, 0..3u8, 0..5i64, 1..5i64, 0..7usize), 0..30),
        yes in 0..3u64,
        order in 0..3u8,
    ) {
        let outcomes = ["sending", "delivered", "failed", "unknown", "superseded", "parked", "redriven"];
        let make = |job: u8, status: u8, at: i64| {
            row(["a", "b", "c", "not a name"][usize::from(job)], ["S", "F", "BAD"][usize::from(status)], at)
        };
        let mut rows: Vec<_> = pending.into_iter().map(|(j, s, t)| make(j, s, t)).collect();
        rows.sort_by_key(|row| row.timestamp);
        let attempts = tried.into_iter().map(|(j, s, t, n, o)| attempt(&make(j, s, t), n, outcomes[o])).collect();
        let flipped = rows.iter().map(|row| (row.clone(), yes)).collect();
        let order = [Order::PerJob, Order::Latest, Order::None][usize::from(order)];
        let plan = planned_with(rows.clone(), attempts, order, Some(3), flipped);

        let sent: Vec<&QueuedRow> = plan.queues.iter().flatten().collect();
        let planned = plan.recovered.len() + plan.park.len() + plan.superseded.len() + sent.len();
        prop_assert_eq!(planned as u64 + plan.parked_before, rows.len() as u64);
        for queue in &plan.queues {
            prop_assert!(!queue.is_empty() && queue.iter().is_sorted_by_key(|item| item.row.timestamp));
        }
    }
}

#[test]
fn a_row_whose_event_can_still_arrive_is_not_settled_and_holds_back_its_job() {
    let rows = || vec![row("a", "S", 1), row("a", "F", 2), row("b", "S", 3)];
    let until = DateTime::from_timestamp_micros(9).unwrap();
    let waits: &'static Waits = Box::leak(Box::new(Waits::from([((row("a", "S", 1), 1), until)])));
    let check: &'static dyn Fn(&Delivery) -> Result<(), String> = &|_| Err("not mapped any more".to_owned());
    type Change = dyn for<'a> Fn(PlanRules<'a>) -> PlanRules<'a>;
    let changes: [&Change; 4] = [
        &|rules| PlanRules { order: Order::Latest, ..rules },
        &|rules| PlanRules { max_attempts: Some(1), ..rules },
        &|rules| PlanRules { stale_before: DateTime::from_timestamp_micros(2), ..rules },
        &|rules| rules,
    ];
    for change in changes {
        let marked = || vec![attempt(&row("a", "S", 1), 1, "sending")];
        let plan = planned_by(rows(), marked(), HashMap::new(), &|rules| PlanRules { waits, ..change(rules) });
        assert_eq!(queued(&plan), [[("b", 3)]]);
        assert_eq!((plan.waiting, plan.next_try), (2, Some(until)));
        let settled = [&plan.park, &plan.superseded, &plan.expired].map(Vec::len);
        assert_eq!(settled, [0; 3], "nothing of the job is settled");
        assert_eq!(plan.in_doubt, HashSet::from([(row("a", "S", 1), 1)]));
    }
    let marked = vec![attempt(&row("a", "S", 1), 1, "sending")];
    let plan = planned_by(rows(), marked, HashMap::new(), &|rules| PlanRules { waits, check, ..rules });
    assert_eq!(
        (plan.waiting, plan.park.len()),
        (1, 2),
        "what cannot be sent any more is parked, but for the row in doubt"
    );
}

#[test]
fn a_row_in_doubt_that_is_settled_unsent_says_so() {
    let (old, late) = (row("a", "S", 1), row("b", "S", 2));
    let attempts = || vec![attempt(&old, 1, "sending"), attempt(&late, 1, "unknown")];
    let rows = || vec![old.clone(), late.clone()];
    let stale_before = DateTime::from_timestamp_micros(2);
    let plan = planned_by(rows(), attempts(), HashMap::new(), &|rules| PlanRules {
        stale_before,
        max_attempts: Some(1),
        ..rules
    });
    assert_eq!(plan.park[0].reason, "not delivered in 1 attempt; whether attempt 1 arrived is unknown");
    assert!(plan.expired[0].reason.ends_with("is over; whether attempt 1 arrived is unknown"), "{:?}", plan.expired);
    let rows = vec![old.clone(), row("a", "F", 3)];
    let plan = planned(rows, attempts(), Order::Latest, None);
    let reason = "a later row of the same job is pending; whether attempt 1 arrived is unknown";
    assert_eq!(plan.superseded[0].reason, reason);
}

#[test]
fn a_row_in_doubt_that_was_redriven_stays_in_doubt() {
    let row = row("a", "S", 1);
    let attempts = vec![attempt(&row, 1, "sending"), attempt(&row, 2, "parked"), attempt(&row, 2, "redriven")];
    let unknown = [vec![attempt(&row, 1, "unknown")], attempts[..2].to_vec()].concat();
    let saved = AttemptHistory::by_row(&[], unknown).remove(&row).unwrap().retry_state(&row, 1);
    let plan = planned(vec![row.clone()], attempts.clone(), Order::PerJob, None);
    let sent = &plan.queues[0][0];
    assert_eq!((sent.attempt, sent.failures, sent.in_doubt), (3, 0, Some(1)));
    let later = AttemptHistory::by_row(&saved, attempts[2..].to_vec()).remove(&row).unwrap().open_rows(1);
    assert_eq!((later[0].next_attempt, later[0].failures, later[0].in_doubt), (3, 0, Some(1)), "from the retry state");
    let failed = [attempt(&row, 3, "sending"), attempt(&row, 3, "failed")];
    let plan = planned(vec![row.clone()], attempts.into_iter().chain(failed).collect(), Order::PerJob, None);
    assert_eq!(plan.queues[0][0].in_doubt, Some(1), "an attempt that failed does not end the doubt of another one");
}
