//! What one delivery cycle does with each pending row: a pure decision from the rows and the attempts made so far.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::event::JobName;
use super::transport::Delivery;
use crate::ledger::{Attempt, LedgerRow};

/// In which order pending rows are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The rows of one job one by one in time order; while one fails, the later ones of that job wait.
    #[default]
    PerJob,
    /// Only the newest row of a job is sent; the older ones are acknowledged with outcome `superseded`.
    Latest,
    /// In time order, but without waiting: rows of one job may overtake each other.
    None,
}

/// One row to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) row: LedgerRow,
    pub(super) delivery: Delivery,
    /// The number of this attempt; 1 for the first.
    pub(super) attempt: i64,
    /// How many attempts of this row failed before.
    pub(super) failures: u64,
    /// The number of the last attempt if it may have arrived: this one may then be a repetition.
    pub(super) in_doubt: Option<i64>,
}

/// A row that gets an outcome without being sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unsent {
    pub(super) row: LedgerRow,
    pub(super) attempt: i64,
    pub(super) reason: String,
}

/// What becomes of the pending rows in this cycle.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Dealt with by an earlier cycle that broke off before it flipped the flag: only flipped.
    pub(super) recovered: Vec<LedgerRow>,
    /// Parked by an earlier cycle: left alone.
    pub(super) parked_before: u64,
    /// Parked now, as they can never be sent.
    pub(super) park: Vec<Unsent>,
    /// Acknowledged now without being sent.
    pub(super) superseded: Vec<Unsent>,
    /// Rows to be sent; those of one queue one after the other. In the order of their oldest rows.
    pub(super) queues: VecDeque<VecDeque<Item>>,
}

/// What the plan depends on beside the rows.
pub(super) struct Rules<'a> {
    pub(super) order: Order,
    pub(super) max_attempts: Option<u64>,
    /// Why a delivery can never be sent by the transport.
    pub(super) check: &'a dyn Fn(&Delivery) -> Result<(), String>,
}

/// The attempts of one row, or of several identical ones.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    /// The last outcome of each attempt, by its number.
    outcomes: BTreeMap<i64, String>,
    /// The number up to which attempts no longer count, because the row was redriven after them.
    redriven: i64,
}

/// Outcomes after which a row's flag is to be YES.
const FINAL: [&str; 4] = ["delivered", "superseded", "expired", "by_hand"];

impl History {
    /// The attempts by row.
    pub(super) fn of(mut attempts: Vec<Attempt>) -> HashMap<LedgerRow, Self> {
        attempts.sort_by_key(|attempt| attempt.attempted_at);
        let mut histories: HashMap<LedgerRow, Self> = HashMap::new();
        for attempt in attempts {
            let history = histories.entry(attempt.row).or_default();
            if attempt.outcome == "redriven" {
                history.redriven = history.redriven.max(attempt.attempt);
            }
            // `sending` and its outcome may bear the same microsecond: the outcome wins.
            let last = history.outcomes.entry(attempt.attempt).or_default();
            if last.is_empty() || attempt.outcome != "sending" {
                *last = attempt.outcome;
            }
        }
        histories
    }

    /// How many identical rows the attempts have dealt with for good.
    pub(super) fn finished(&self) -> u64 {
        self.count(i64::MIN, |outcome| FINAL.contains(&outcome))
    }

    fn parked(&self) -> u64 {
        self.count(self.redriven, |outcome| outcome == "parked")
    }

    fn failures(&self) -> u64 {
        self.count(self.redriven, |outcome| ["sending", "failed", "unknown"].contains(&outcome))
    }

    fn next(&self) -> i64 {
        self.outcomes.last_key_value().map_or(1, |(number, _)| number.saturating_add(1).max(1))
    }

    fn in_doubt(&self) -> Option<i64> {
        let (number, outcome) = self.outcomes.last_key_value()?;
        ["sending", "unknown"].contains(&outcome.as_str()).then_some(*number)
    }

    fn count(&self, after: i64, wanted: impl Fn(&str) -> bool) -> u64 {
        self.outcomes.iter().filter(|(number, outcome)| **number > after && wanted(outcome)).count() as u64
    }
}

/// Decides. `acknowledged` has the number of YES rows for each row with a final outcome that is pending too: with
/// identical rows, each a separate event, it tells which of them the outcome belongs to.
pub(super) fn plan(
    pending: Vec<LedgerRow>,
    histories: &HashMap<LedgerRow, History>,
    acknowledged: &HashMap<LedgerRow, u64>,
    rules: &Rules<'_>,
) -> Plan {
    let mut plan = Plan::default();
    let mut sendable: Vec<Item> = Vec::new();
    let mut open = open_rows(&pending, histories, acknowledged);
    for row in pending {
        let Some(state) = open.get_mut(&row) else { continue };
        if state.recovered > 0 {
            state.recovered -= 1;
            plan.recovered.push(row);
            continue;
        }
        if state.parked > 0 {
            state.parked -= 1;
            plan.parked_before += 1;
            continue;
        }
        let attempt = state.next;
        state.next += 1;
        let checked = delivery(&row).and_then(|delivery| (rules.check)(&delivery).map(|()| delivery));
        let checked = match rules.max_attempts {
            Some(most) if state.failures >= most => Err(format!("not delivered in {} attempts", state.failures)),
            _ => checked,
        };
        match checked {
            Ok(delivery) => {
                sendable.push(Item { row, delivery, attempt, failures: state.failures, in_doubt: state.in_doubt });
            }
            Err(reason) => plan.park.push(Unsent { row, attempt, reason }),
        }
    }
    arrange(sendable, rules.order, &mut plan);
    plan
}

/// What is left to do for the identical rows of one kind.
struct Open {
    recovered: u64,
    parked: u64,
    next: i64,
    failures: u64,
    in_doubt: Option<i64>,
}

fn open_rows(
    pending: &[LedgerRow],
    histories: &HashMap<LedgerRow, History>,
    acknowledged: &HashMap<LedgerRow, u64>,
) -> HashMap<LedgerRow, Open> {
    let mut counts: HashMap<&LedgerRow, u64> = HashMap::new();
    pending.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    counts
        .into_iter()
        .map(|(row, count)| {
            let none = History::default();
            let history = histories.get(row).unwrap_or(&none);
            let yes = acknowledged.get(row).copied().unwrap_or(0);
            let recovered = history.finished().saturating_sub(yes).min(count);
            let parked = history.parked().min(count - recovered);
            let active = count - recovered - parked;
            // Failures of identical rows cannot be told apart: they are shared out evenly.
            let failures = if active == 0 { 0 } else { history.failures().div_ceil(active) };
            let open = Open { recovered, parked, next: history.next(), failures, in_doubt: history.in_doubt() };
            (row.clone(), open)
        })
        .collect()
}

fn delivery(row: &LedgerRow) -> Result<Delivery, String> {
    let job_id = row.job_id.clone().ok_or("the row's job name is NULL")?;
    let status = row.status.clone().ok_or("the row's status is NULL")?;
    JobName::parse(&job_id).map_err(|e| e.to_string())?;
    Ok(Delivery { file_name: row.file_name.clone().unwrap_or_default(), job_id, status })
}

fn arrange(sendable: Vec<Item>, order: Order, plan: &mut Plan) {
    if order == Order::None {
        plan.queues = sendable.into_iter().map(|item| VecDeque::from([item])).collect();
        return;
    }
    let mut place: HashMap<String, usize> = HashMap::new();
    let mut queues: Vec<VecDeque<Item>> = Vec::new();
    for item in sendable {
        let at = *place.entry(item.delivery.job_id.clone()).or_insert(queues.len());
        if at == queues.len() {
            queues.push(VecDeque::new());
        }
        queues[at].push_back(item);
    }
    if order == Order::Latest {
        for queue in &mut queues {
            let older = queue.len().saturating_sub(1);
            plan.superseded.extend(queue.drain(..older).map(|item| Unsent {
                row: item.row,
                attempt: item.attempt,
                reason: "a later row of the same job is pending".to_owned(),
            }));
        }
    }
    plan.queues = queues.into();
}

#[cfg(test)]
mod tests;
