//! Sends rows through the transport, and reads a job's status back where it says more than the answer does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;

use super::attempts::{Attempt, AttemptOutcome};
use super::in_doubt::describe_limit;
use super::plan::QueuedRow;
use crate::autosys::is_set_by_autosys;
use crate::autosys::transport::{CALLABLE, Delivery, Gate, SendOutcome, SendResult, Transport};
use crate::ledger::LedgerRow;
use crate::runtime::environment::{environment, timeout};

/// Pauses between two reads of a status: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The transport, and what is read back. Clones share everything.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) transport: Arc<dyn Transport>,
    /// How long to wait until AutoSys shows an event; None does not wait.
    pub(super) confirm: Option<Duration>,
    /// What is known of the time before the attempts that are in doubt.
    pub(super) before: Arc<StatusesBefore>,
    /// The machine of this process, for the marks. Reading it takes two system calls.
    pub(super) machine: Option<Arc<str>>,
}

/// What is known of the time before the attempts in doubt, by row and number.
pub(super) type StatusesBefore = HashMap<(LedgerRow, i64), StatusBefore>;

/// What is known of the time before an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StatusBefore {
    /// The status that AutoSys showed.
    pub(super) shown: String,
    /// The ledger statuses of other rows of the job whose events can have arrived since, or arrive late.
    pub(super) others: HashSet<String>,
}

/// How the detail of a mark says which status AutoSys showed before. A crash leaves only the mark.
const SHOWED: &str = "AutoSys showed ";

/// How long a commit of marks waits for these statuses.
const READ_BEFORE: Duration = Duration::from_secs(10);

/// What is known of the time before the attempts in doubt of `queued`, all rows of the plan. `marks` are all marks of these
/// rows, `recent` those of other rows since a while before.
///
/// Nothing is known of identical rows, which cannot be told apart, and of a row whose mark does not say a status.
pub(super) fn statuses_before(queued: &[&QueuedRow], marks: &[Attempt], recent: &[Attempt]) -> StatusesBefore {
    let is_mark = |attempt: &&Attempt| attempt.outcome == AttemptOutcome::Sending;
    let mut rows_of_job: HashMap<&str, HashSet<&LedgerRow>> = HashMap::new();
    let mut identical: HashSet<&LedgerRow> = HashSet::new();
    for row in queued {
        if !rows_of_job.entry(&row.delivery.job_id).or_default().insert(&row.row) {
            identical.insert(&row.row);
        }
    }
    let mut details: HashMap<(&LedgerRow, i64), Option<&str>> = HashMap::new();
    for mark in marks.iter().filter(is_mark) {
        if details.insert((&mark.row, mark.attempt), mark.detail.as_deref()).is_some() {
            identical.insert(&mark.row);
        }
    }
    for mark in recent.iter().filter(is_mark) {
        if let Some(rows) = mark.row.job_id.as_deref().and_then(|job| rows_of_job.get_mut(job)) {
            rows.insert(&mark.row);
        }
    }
    let before = queued.iter().filter(|row| !identical.contains(&row.row)).filter_map(|row| {
        let number = row.in_doubt?;
        let detail = (*details.get(&(&row.row, number))?)?;
        let shown = detail.rsplit("; ").next()?.strip_prefix(SHOWED)?.to_owned();
        let others = rows_of_job.get(row.delivery.job_id.as_str())?.iter().filter(|other| ***other != row.row);
        let others = others.filter_map(|other| other.status.clone()).collect();
        Some(((row.row.clone(), number), StatusBefore { shown, others }))
    });
    before.collect()
}

/// The details that there are.
fn joined(details: [Option<String>; 2]) -> Option<String> {
    details.into_iter().flatten().reduce(|one, other| format!("{one}; {other}"))
}

impl Sender {
    /// What is known of the time before the attempt of `row` that is in doubt.
    fn before(&self, row: &QueuedRow) -> Option<&StatusBefore> {
        self.before.get(&(row.row.clone(), row.in_doubt?))
    }

    /// Adds to the marks among `attempts` which status AutoSys shows now. After a crash, it tells a status that the event led
    /// to from one that was there before. It is read only where statuses are read anyway, because each costs a process or a
    /// request.
    pub(super) async fn note_statuses(&self, attempts: &mut [Attempt], at_a_time: usize) {
        if self.confirm.is_none() || !self.transport.reads_status() {
            return;
        }
        let marks = attempts.iter_mut().filter(|attempt| attempt.outcome == AttemptOutcome::Sending);
        let noted = futures::stream::iter(marks).for_each_concurrent(at_a_time, |mark| async {
            let Some(job_id) = &mark.row.job_id else { return };
            if let Ok(shown) = self.transport.status(job_id).await {
                mark.detail = joined([mark.detail.take(), Some(format!("{SHOWED}{shown}"))]);
            }
        });
        // Without it, a row in doubt is sent again.
        let _ = timeout(READ_BEFORE, noted).await;
    }

    /// The detail of the `sending` mark of a row: whether its last attempt is in doubt, and how long this one can take.
    pub(super) fn mark(&self, row: &QueuedRow) -> Option<String> {
        let doubt = row.in_doubt.map(|number| {
            let is_read_back = self.transport.reads_status() && self.before(row).is_some();
            let what = if is_read_back { "read back, and sent again if it cannot be seen" } else { "sent again" };
            format!("{what}: whether attempt {number} arrived is unknown")
        });
        let machine = self.machine.as_deref().filter(|_| self.transport.name() == CALLABLE);
        let limit = self.transport.time_limit().map(|limit| describe_limit(limit, machine));
        joined([doubt, limit])
    }

    /// How many rows it sends in one call.
    pub(super) fn batch_size(&self) -> usize {
        self.transport.batch_size().max(1)
    }

    /// Sends `rows`, and returns what became of each, in their order.
    pub(super) async fn send(&self, rows: &[QueuedRow], gate: &Gate) -> Vec<SendResult> {
        let no_answer = || -> SendResult { SendOutcome::unknown("the transport did not answer for each row").into() };
        let arrived = join_all(rows.iter().map(|row| self.arrived_before(row))).await;
        let open = rows.iter().zip(&arrived).filter(|(_, arrived)| arrived.is_none());
        let deliveries: Vec<Delivery> = open.map(|(row, _)| row.delivery.clone()).collect();
        let sent = match deliveries.as_slice() {
            _ if deliveries.is_empty() => Vec::new(),
            _ if !gate.is_open() => deliveries.iter().map(|_| SendOutcome::NotTried.into()).collect(),
            [delivery] => vec![self.transport.send(delivery, gate).await],
            deliveries => self.transport.send_batch(deliveries, gate).await,
        };
        // With too few answers, it is not known which row has none.
        let is_complete = sent.len() == deliveries.len();
        let sent = if is_complete { sent } else { deliveries.iter().map(|_| no_answer()).collect() };
        let sent = join_all(deliveries.iter().zip(sent).map(|(delivery, sent)| self.confirmed(delivery, sent))).await;
        let mut sent = sent.into_iter();
        arrived.into_iter().map(|arrived| arrived.or_else(|| sent.next()).unwrap_or_else(no_answer)).collect()
    }

    /// The result of a row in doubt that arrived: AutoSys shows the status that it leads to, did not show it before the row
    /// was marked, does not get there by itself when the job runs, and no other row of the job leads there.
    async fn arrived_before(&self, row: &QueuedRow) -> Option<SendResult> {
        let number = row.in_doubt?;
        let before = self.before(row).filter(|_| self.transport.reads_status())?;
        let shown = self.transport.status(&row.delivery.job_id).await.ok()?;
        let leads_to = |status: &str, shown: &str| {
            self.transport.confirms(&Delivery { status: status.to_owned(), ..row.delivery.clone() }, shown)
        };
        let proves = leads_to(&row.delivery.status, &shown)
            && !leads_to(&row.delivery.status, &before.shown)
            && !is_set_by_autosys(&shown)
            && !before.others.iter().any(|status| leads_to(status, &shown));
        let before = &before.shown;
        let detail = format!("not sent again: attempt {number} arrived, as AutoSys shows {shown} after {before}");
        proves.then(|| SendOutcome::Delivered { detail: Some(detail) }.into())
    }

    /// Waits until AutoSys shows an accepted event, if it is to be confirmed.
    async fn confirmed(&self, delivery: &Delivery, sent: SendResult) -> SendResult {
        let (Some(within), SendOutcome::Delivered { detail }) = (self.confirm, &sent.outcome) else { return sent };
        let (begun, mut pause) = (environment().instant(), FIRST_PAUSE);
        loop {
            let left = within.saturating_sub(environment().instant() - begun);
            let status = timeout(left, self.transport.status(&delivery.job_id)).await;
            let status = status.unwrap_or_else(|| Err("the status was not read in time".to_owned()));
            match status {
                Ok(shown) if self.transport.confirms(delivery, &shown) => {
                    let detail = joined([detail.clone(), Some(format!("confirmed: AutoSys shows {shown}"))]);
                    return SendResult { outcome: SendOutcome::Delivered { detail }, vm: sent.vm };
                }
                status if environment().instant() - begun + pause >= within => {
                    let shows = match status {
                        Ok(shown) => format!("AutoSys shows {shown}"),
                        Err(reason) => reason,
                    };
                    let seconds = within.as_secs_f64();
                    let detail = format!("the event was taken, but is not confirmed after {seconds} s: {shows}");
                    return SendResult { outcome: SendOutcome::unknown(detail), vm: sent.vm };
                }
                _ => environment().sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests;
