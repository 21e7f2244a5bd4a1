//! The plan of one delivery cycle: what happens with each pending row. A pure decision from the rows and their histories.

use std::collections::{HashMap, HashSet, VecDeque};

use chrono::{DateTime, Utc};

use super::backoff::NextTry;
use super::in_doubt::Waits;
use super::pending::PendingRows;
use crate::autosys::JobName;
use crate::autosys::transport::Delivery;
use crate::ledger::LedgerRow;

/// In which order pending rows are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The rows of a job are sent one by one in time order. While a row fails, the later rows of the job wait.
    #[default]
    PerJob,
    /// Only the newest row of a job is sent; the older ones are acknowledged with outcome `superseded`.
    Latest,
    /// Rows are sent in time order without waiting, so that rows of a job can overtake each other.
    None,
}

/// A row to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct QueuedRow {
    pub(super) row: LedgerRow,
    pub(super) delivery: Delivery,
    /// The number of this attempt; 1 for the first.
    pub(super) attempt: i64,
    /// How many attempts of this row failed before.
    pub(super) failures: u64,
    /// The number of the last attempt, if it is in doubt whether it arrived.
    pub(super) in_doubt: Option<i64>,
}

/// A row that gets an outcome without being sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct UnsentRow {
    pub(super) row: LedgerRow,
    pub(super) attempt: i64,
    pub(super) reason: String,
}

/// Rows to be sent. The rows of one queue are sent one after the other.
pub(super) type Queues = VecDeque<VecDeque<QueuedRow>>;

/// What happens with the pending rows in this cycle.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Delivered or settled by an earlier cycle that ended before it set the flag: only acknowledged.
    pub(super) recovered: Vec<LedgerRow>,
    /// Parked by an earlier cycle: skipped.
    pub(super) parked_before: u64,
    /// Parked now, because they can never be sent.
    pub(super) park: Vec<UnsentRow>,
    /// Acknowledged now without being sent, because a later row of the job is pending.
    pub(super) superseded: Vec<UnsentRow>,
    /// Acknowledged now without being sent, because they are too old.
    pub(super) expired: Vec<UnsentRow>,
    /// The rows of which an attempt is in doubt, with its number.
    pub(super) in_doubt: HashSet<(LedgerRow, i64)>,
    /// The number of rows whose next try is not due yet, and of the rows that wait for them.
    pub(super) waiting: u64,
    /// When the first of these is due.
    pub(super) next_try: Option<DateTime<Utc>>,
    /// Rows of the jobs that go first.
    pub(super) first: Queues,
    /// Whether rows of the jobs that go first cannot be sent in this cycle, so that the other rows have to wait.
    pub(super) first_is_blocked: bool,
    /// All other rows: those of priority jobs first, then in the order of their oldest rows.
    pub(super) queues: Queues,
}

/// What the plan depends on beside the rows.
pub(super) struct PlanRules<'a> {
    pub(super) order: Order,
    pub(super) max_attempts: Option<u64>,
    /// Jobs that must be delivered before any other.
    pub(super) first: &'a HashSet<String>,
    /// Jobs that are sent before others.
    pub(super) priority: &'a HashSet<String>,
    /// Rows from before this time are too old.
    pub(super) stale_before: Option<DateTime<Utc>>,
    pub(super) next_try: NextTry<'a>,
    pub(super) waits: &'a Waits,
    pub(super) now: DateTime<Utc>,
    /// Why the transport can never send a delivery.
    pub(super) check: &'a dyn Fn(&Delivery) -> Result<(), String>,
}

/// A row that can be sent.
struct SendableRow {
    queued: QueuedRow,
    /// Not before this time.
    due: Option<DateTime<Utc>>,
    /// Whether its event cannot arrive any more by a send of another process.
    settles: bool,
}

/// Plans a cycle.
pub(super) fn plan(pending: &PendingRows, rules: &PlanRules<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut sendable: Vec<SendableRow> = Vec::new();
    let identical = pending.identical().into_iter().map(|rows| {
        let open = rows.history.open_rows(rows.count - rows.recovered - rows.parked).into_iter();
        (rows.row, (rows.recovered, rows.parked, rows.history.last_try, open))
    });
    let mut identical: HashMap<&LedgerRow, _> = identical.collect();
    let goes_first = |row: &LedgerRow| row.job_id.as_ref().is_some_and(|job| rules.first.contains(job));
    for row in &pending.rows {
        let Some((recovered, parked, last_try, open)) = identical.get_mut(row) else { continue };
        let row = row.clone();
        if *recovered > 0 {
            *recovered -= 1;
            plan.recovered.push(row);
            continue;
        }
        if *parked > 0 {
            *parked -= 1;
            plan.parked_before += 1;
            plan.first_is_blocked |= goes_first(&row);
            continue;
        }
        let Some(progress) = open.next() else { continue };
        let (attempt, failures) = (progress.next_attempt, progress.failures);
        let wait = progress.in_doubt.and_then(|number| {
            let key = (row.clone(), number);
            let wait = rules.waits.get(&key).copied();
            plan.in_doubt.insert(key);
            wait
        });
        let doubt = describe_doubt(progress.in_doubt);
        // While its event can still arrive, the row is not settled: later rows of its job would overtake it.
        let settles = wait.is_none();
        if let Some(reason) = too_old(&row, rules).filter(|_| settles) {
            plan.expired.push(UnsentRow { row, attempt, reason: reason + &doubt });
            continue;
        }
        let checked = delivery(&row).and_then(|delivery| match rules.max_attempts {
            _ if !settles => Ok(delivery),
            Some(most) if failures >= most => {
                let attempts = if failures == 1 { "attempt" } else { "attempts" };
                Err(format!("not delivered in {failures} {attempts}{doubt}"))
            }
            _ => (rules.check)(&delivery).map(|()| delivery).map_err(|reason| reason + &doubt),
        });
        match checked {
            Ok(delivery) => {
                let last_try = last_try.filter(|_| failures > 0);
                let due = last_try.and_then(|at| (rules.next_try)(&row, failures, at)).filter(|due| *due > rules.now);
                let due = due.max(wait);
                let queued = QueuedRow { row, delivery, attempt, failures, in_doubt: progress.in_doubt };
                sendable.push(SendableRow { queued, due, settles });
            }
            Err(reason) => {
                plan.first_is_blocked |= goes_first(&row);
                plan.park.push(UnsentRow { row, attempt, reason });
            }
        }
    }
    queue(sendable, rules, &mut plan);
    plan
}

/// What a reason adds about an attempt that may have arrived.
pub(super) fn describe_doubt(in_doubt: Option<i64>) -> String {
    in_doubt.map(|number| format!("; whether attempt {number} arrived is unknown")).unwrap_or_default()
}

fn too_old(row: &LedgerRow, rules: &PlanRules<'_>) -> Option<String> {
    let limit = rules.stale_before?;
    let at = row.timestamp.and_then(DateTime::from_timestamp_micros)?;
    (at < limit).then(|| format!("not sent: it is of {}, and stale_after is over", at.format("%Y-%m-%dT%H:%M:%SZ")))
}

fn delivery(row: &LedgerRow) -> Result<Delivery, String> {
    let job_id = row.job_id.clone().ok_or("the row's job name is NULL")?;
    let status = row.status.clone().ok_or("the row's status is NULL")?;
    JobName::parse(&job_id).map_err(|e| e.to_string())?;
    Ok(Delivery { file_name: row.file_name.clone().unwrap_or_default(), job_id, status })
}

/// Arranges the rows in queues, as the order demands.
fn queue(sendable: Vec<SendableRow>, rules: &PlanRules<'_>, plan: &mut Plan) {
    let mut by_job: HashMap<String, usize> = HashMap::new();
    let mut queues: Vec<VecDeque<SendableRow>> = Vec::new();
    for row in sendable {
        let at = match rules.order {
            Order::None => queues.len(),
            Order::PerJob | Order::Latest => *by_job.entry(row.queued.delivery.job_id.clone()).or_insert(queues.len()),
        };
        if at == queues.len() {
            queues.push(VecDeque::new());
        }
        queues[at].push_back(row);
    }
    let mut last: Queues = VecDeque::new();
    for mut queue in queues {
        let is_latest = rules.order == Order::Latest;
        let can_arrive = queue.iter().any(|row| !row.settles);
        if is_latest && !can_arrive {
            let older = queue.len().saturating_sub(1);
            let reason = |doubt| format!("a later row of the same job is pending{}", describe_doubt(doubt));
            let unsent =
                |QueuedRow { row, attempt, in_doubt, .. }| UnsentRow { row, attempt, reason: reason(in_doubt) };
            plan.superseded.extend(queue.drain(..older).map(|row| unsent(row.queued)));
        }
        // The first row that is not due yet, and all rows behind it, wait. Where only the latest row is sent, all rows wait for an event
        // that can still arrive.
        let due = queue.iter().position(|row| row.due.is_some()).unwrap_or(queue.len());
        let waiting = queue.split_off(if is_latest && can_arrive { 0 } else { due });
        plan.waiting += waiting.len() as u64;
        plan.next_try = plan.next_try.into_iter().chain(waiting.iter().find_map(|row| row.due)).min();
        let Some(job) = queue.front().or(waiting.front()).map(|row| &row.queued.delivery.job_id) else { continue };
        let (goes_first, has_priority) = (rules.first.contains(job), rules.priority.contains(job));
        plan.first_is_blocked |= goes_first && !waiting.is_empty();
        if queue.is_empty() {
            continue;
        }
        let queue = queue.into_iter().map(|row| row.queued).collect();
        match (goes_first, has_priority) {
            (true, _) => plan.first.push_back(queue),
            (_, true) => plan.queues.push_back(queue),
            _ => last.push_back(queue),
        }
    }
    plan.queues.append(&mut last);
}

#[cfg(test)]
mod tests;
