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

/// Detail of a row that was recorded as `sending`, but whose turn did not come before the delivery was stopped. It was
/// not tried: its next try bears the same number.
pub(super) const NOT_TRIED: &str = "not sent: the delivery was stopped before its turn";

/// Outcomes after which a row's flag is to be YES.
const FINAL: [&str; 4] = ["delivered", "superseded", "expired", "by_hand"];

/// The attempts of one row, or of several identical ones. Identical rows are separate events that nobody can tell apart:
/// each has attempts of its own from number 1, so a number occurs once for each of them that was tried so often.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    /// What became of the attempts with each number.
    rounds: BTreeMap<i64, Round>,
    /// The number up to which attempts no longer count, because the row was redriven after them.
    redriven: i64,
}

/// The attempts that bear one number.
#[derive(Debug, Default, Clone)]
struct Round {
    sending: u64,
    failed: u64,
    unknown: u64,
    parked: u64,
    finished: u64,
}

impl Round {
    fn answered(&self) -> u64 {
        self.failed + self.unknown + self.parked + self.finished
    }

    /// How many rows were tried, or given an outcome without being tried.
    fn rows(&self) -> u64 {
        self.sending.max(self.answered())
    }

    /// Attempts of which it is not known whether they arrived.
    fn in_doubt(&self) -> u64 {
        self.unknown + self.sending.saturating_sub(self.answered())
    }
}

impl History {
    /// The attempts by row.
    pub(super) fn of(attempts: Vec<Attempt>) -> HashMap<LedgerRow, Self> {
        let mut histories: HashMap<LedgerRow, Self> = HashMap::new();
        for attempt in attempts {
            let history = histories.entry(attempt.row).or_default();
            if attempt.outcome == "redriven" {
                history.redriven = history.redriven.max(attempt.attempt);
                continue;
            }
            let round = history.rounds.entry(attempt.attempt).or_default();
            match attempt.outcome.as_str() {
                "failed" if attempt.detail.as_deref() == Some(NOT_TRIED) => {
                    round.sending = round.sending.saturating_sub(1);
                }
                "sending" => round.sending += 1,
                "failed" => round.failed += 1,
                "parked" => round.parked += 1,
                outcome if FINAL.contains(&outcome) => round.finished += 1,
                // Also of a later version that has other words: whether it arrived is unknown here.
                _ => round.unknown += 1,
            }
        }
        histories
    }

    /// How many identical rows the attempts have dealt with for good.
    pub(super) fn finished(&self) -> u64 {
        self.rounds.values().map(|round| round.finished).sum()
    }

    fn since_redriven(&self) -> impl Iterator<Item = (i64, &Round)> {
        self.rounds.iter().map(|(number, round)| (*number, round)).filter(|(number, _)| *number > self.redriven)
    }

    fn parked(&self) -> u64 {
        self.since_redriven().map(|(_, round)| round.parked).sum()
    }

    /// Where `open` identical rows stand that are neither finished nor parked, those tried most often first.
    fn standings(&self, open: u64) -> Vec<Standing> {
        let gone: u64 = self.since_redriven().map(|(_, round)| round.parked + round.finished).sum();
        let fresh = Standing { next: self.redriven.max(0) + 1, failures: 0, in_doubt: None };
        let mut rows = vec![fresh; usize::try_from(open + gone).unwrap_or(usize::MAX)];
        for (number, round) in self.since_redriven() {
            // Those whose turn it was; any others where another writer counted differently.
            rows.sort_by_key(|row| (row.next != number, std::cmp::Reverse(row.failures)));
            let tried = usize::try_from(round.rows()).unwrap_or(usize::MAX).min(rows.len());
            let left = rows.split_off(tried);
            let going_on = round.failed + round.in_doubt();
            rows.truncate(usize::try_from(going_on).unwrap_or(usize::MAX));
            for (at, row) in (0..).zip(&mut rows) {
                row.next = number.saturating_add(1).max(1);
                row.failures += 1;
                row.in_doubt = (at < round.in_doubt()).then_some(number);
            }
            rows.extend(left);
        }
        rows.sort_by_key(|row| std::cmp::Reverse((row.failures, row.in_doubt)));
        // Should another writer's attempts not add up, no row may be without a standing.
        rows.resize(usize::try_from(open).unwrap_or(usize::MAX), fresh);
        rows
    }
}

/// Where one row stands.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Standing {
    /// The number of its next attempt.
    next: i64,
    /// How many attempts failed, or may have.
    failures: u64,
    /// The number of the last attempt if it may have arrived.
    in_doubt: Option<i64>,
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
        let Some(Standing { next: attempt, failures, in_doubt }) = state.standings.next() else { continue };
        let checked = delivery(&row).and_then(|delivery| (rules.check)(&delivery).map(|()| delivery));
        let checked = match rules.max_attempts {
            Some(most) if failures >= most => Err(format!("not delivered in {failures} attempts")),
            _ => checked,
        };
        match checked {
            Ok(delivery) => {
                sendable.push(Item { row, delivery, attempt, failures, in_doubt });
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
    standings: std::vec::IntoIter<Standing>,
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
            let standings = history.standings(count - recovered - parked).into_iter();
            (row.clone(), Open { recovered, parked, standings })
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
