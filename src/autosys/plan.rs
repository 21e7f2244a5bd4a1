//! What one delivery cycle does with each pending row: a pure decision from the rows and the attempts made so far.

use std::collections::{HashMap, HashSet, VecDeque};

use chrono::{DateTime, Utc};

use super::event::JobName;
use super::history::{History, Try};
use super::transport::Delivery;
use crate::ledger::LedgerRow;

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

/// Rows to be sent; those of one queue one after the other.
pub(super) type Queues = VecDeque<VecDeque<Item>>;

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
    /// Acknowledged now without being sent, as they come too late.
    pub(super) expired: Vec<Unsent>,
    /// Rows whose next try is not due yet, and those of the same job that wait behind them.
    pub(super) waiting: u64,
    /// When the first of them is due.
    pub(super) next_try: Option<DateTime<Utc>>,
    /// Rows of the jobs that go first.
    pub(super) first: Queues,
    /// Whether rows of the jobs that go first cannot be sent in this cycle, so that the others have to wait.
    pub(super) first_is_stuck: bool,
    /// All other rows, those of priority jobs first, then in the order of their oldest rows.
    pub(super) queues: Queues,
}

/// When a row that failed so often, the last time then, may be tried again; None: at once.
pub(super) type Due<'a> = &'a dyn Fn(&LedgerRow, u64, DateTime<Utc>) -> Option<DateTime<Utc>>;

/// What the plan depends on beside the rows.
pub(super) struct Rules<'a> {
    pub(super) order: Order,
    pub(super) max_attempts: Option<u64>,
    /// Jobs that must be delivered before any other.
    pub(super) first: &'a HashSet<String>,
    /// Jobs that are sent before others.
    pub(super) priority: &'a HashSet<String>,
    /// Rows of before this time come too late.
    pub(super) stale_before: Option<DateTime<Utc>>,
    /// When a row that failed may be tried again.
    pub(super) due: Due<'a>,
    pub(super) now: DateTime<Utc>,
    /// Why a delivery can never be sent by the transport.
    pub(super) check: &'a dyn Fn(&Delivery) -> Result<(), String>,
}

/// A row that could be sent.
struct Sendable {
    item: Item,
    /// Not before then.
    due: Option<DateTime<Utc>>,
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
    let mut sendable: Vec<Sendable> = Vec::new();
    let mut open = open_rows(&pending, histories, acknowledged);
    let goes_first = |row: &LedgerRow| row.job_id.as_ref().is_some_and(|job| rules.first.contains(job));
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
            plan.first_is_stuck |= goes_first(&row);
            continue;
        }
        let Some(Try { next: attempt, failures, in_doubt, .. }) = state.tries.next() else { continue };
        if let Some(reason) = too_late(&row, rules) {
            plan.expired.push(Unsent { row, attempt, reason });
            continue;
        }
        let checked = delivery(&row).and_then(|delivery| (rules.check)(&delivery).map(|()| delivery));
        let checked = match rules.max_attempts {
            Some(most) if failures >= most => Err(format!("not delivered in {failures} attempts")),
            _ => checked,
        };
        match checked {
            Ok(delivery) => {
                let last_try = state.last_try.filter(|_| failures > 0);
                let due = last_try.and_then(|at| (rules.due)(&row, failures, at)).filter(|due| *due > rules.now);
                sendable.push(Sendable { item: Item { row, delivery, attempt, failures, in_doubt }, due });
            }
            Err(reason) => {
                plan.first_is_stuck |= goes_first(&row);
                plan.park.push(Unsent { row, attempt, reason });
            }
        }
    }
    arrange(sendable, rules, &mut plan);
    plan
}

fn too_late(row: &LedgerRow, rules: &Rules<'_>) -> Option<String> {
    let limit = rules.stale_before?;
    let at = row.timestamp.and_then(DateTime::from_timestamp_micros)?;
    (at < limit).then(|| format!("not sent: it is of {}, and stale_after is over", at.format("%Y-%m-%d %H:%M:%S UTC")))
}

/// What is left to do for the identical rows of one kind.
struct Open {
    recovered: u64,
    parked: u64,
    last_try: Option<DateTime<Utc>>,
    tries: std::vec::IntoIter<Try>,
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
            let tries = history.tries(count - recovered - parked).into_iter();
            (row.clone(), Open { recovered, parked, last_try: history.last_try(), tries })
        })
        .collect()
}

fn delivery(row: &LedgerRow) -> Result<Delivery, String> {
    let job_id = row.job_id.clone().ok_or("the row's job name is NULL")?;
    let status = row.status.clone().ok_or("the row's status is NULL")?;
    JobName::parse(&job_id).map_err(|e| e.to_string())?;
    Ok(Delivery { file_name: row.file_name.clone().unwrap_or_default(), job_id, status })
}

fn arrange(sendable: Vec<Sendable>, rules: &Rules<'_>, plan: &mut Plan) {
    let mut place: HashMap<String, usize> = HashMap::new();
    let mut queues: Vec<VecDeque<Sendable>> = Vec::new();
    for row in sendable {
        let at = match rules.order {
            Order::None => queues.len(),
            Order::PerJob | Order::Latest => *place.entry(row.item.delivery.job_id.clone()).or_insert(queues.len()),
        };
        if at == queues.len() {
            queues.push(VecDeque::new());
        }
        queues[at].push_back(row);
    }
    let mut last: Queues = VecDeque::new();
    for mut queue in queues {
        if rules.order == Order::Latest {
            let older = queue.len().saturating_sub(1);
            plan.superseded.extend(queue.drain(..older).map(|row| Unsent {
                row: row.item.row,
                attempt: row.item.attempt,
                reason: "a later row of the same job is pending".to_owned(),
            }));
        }
        // From the first row on that is not due yet, all of the queue wait.
        let go = queue.iter().position(|row| row.due.is_some()).unwrap_or(queue.len());
        let wait = queue.split_off(go);
        plan.waiting += wait.len() as u64;
        let due = wait.front().and_then(|row| row.due);
        plan.next_try = plan.next_try.into_iter().chain(due).min();
        let job = queue.front().or(wait.front()).map(|row| row.item.delivery.job_id.clone()).unwrap_or_default();
        let goes_first = rules.first.contains(&job);
        plan.first_is_stuck |= goes_first && !wait.is_empty();
        if queue.is_empty() {
            continue;
        }
        let queue = queue.into_iter().map(|row| row.item).collect();
        match (goes_first, rules.priority.contains(&job)) {
            (true, _) => plan.first.push_back(queue),
            (_, true) => plan.queues.push_back(queue),
            _ => last.push_back(queue),
        }
    }
    plan.queues.append(&mut last);
}

#[cfg(test)]
mod tests;
