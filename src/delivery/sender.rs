//! Sends rows through the transport, and reads a job's status back where it says more than the answer does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::attempts::{Attempt, AttemptOutcome};
use super::plan::QueuedRow;
use crate::autosys::is_set_by_autosys;
use crate::autosys::transport::{Delivery, Gate, SendOutcome, SendResult, Transport};
use crate::ledger::LedgerRow;

/// Pauses between two reads of a status: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The transport, and what is read back. Clones share everything.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) transport: Arc<dyn Transport>,
    /// How long to wait until AutoSys shows an event; None does not wait.
    pub(super) confirm: Option<Duration>,
    /// For the attempts that are in doubt, the status that AutoSys showed before they were marked, if it was read.
    pub(super) before: Arc<StatusesBefore>,
}

/// The status before an attempt, by its row and number.
pub(super) type StatusesBefore = HashMap<(LedgerRow, i64), String>;

/// How the detail of a mark says which status AutoSys showed before. A crash leaves only the mark.
const SHOWED: &str = "AutoSys showed ";
/// How long a commit of marks waits for these statuses.
const READ_BEFORE: Duration = Duration::from_secs(10);

/// The statuses before the attempts that `marks` are of. One of identical rows whose mark does not say it leaves it out for
/// all of them: it is not known which of them is in doubt.
pub(super) fn statuses_before(marks: &[Attempt]) -> StatusesBefore {
    let mut read: HashMap<(LedgerRow, i64), Option<&str>> = HashMap::new();
    for mark in marks.iter().filter(|attempt| attempt.outcome == AttemptOutcome::Sending) {
        let status = mark.detail.as_deref().and_then(|detail| detail.rsplit("; ").next()?.strip_prefix(SHOWED));
        let known = read.entry((mark.row.clone(), mark.attempt)).or_insert(status);
        *known = known.filter(|known| Some(*known) == status);
    }
    read.into_iter().filter_map(|(attempt, status)| Some((attempt, status?.to_owned()))).collect()
}

impl Sender {
    /// The status before the attempt of `row` that is in doubt, if it was read.
    fn before(&self, row: &QueuedRow) -> Option<&str> {
        self.before.get(&(row.row.clone(), row.in_doubt?)).map(String::as_str)
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
                let details = mark.detail.take().into_iter().chain([format!("{SHOWED}{shown}")]);
                mark.detail = Some(details.collect::<Vec<_>>().join("; "));
            }
        });
        // Without it, a row in doubt is sent again.
        let _ = tokio::time::timeout(READ_BEFORE, noted).await;
    }

    /// The detail of the `sending` mark of a row whose last attempt is in doubt.
    pub(super) fn mark(&self, row: &QueuedRow) -> Option<String> {
        let number = row.in_doubt?;
        let is_read_back = self.transport.reads_status() && self.before(row).is_some();
        let what = if is_read_back { "read back, and sent again if it cannot be seen" } else { "sent again" };
        Some(format!("{what}: whether attempt {number} arrived is unknown"))
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
    /// was marked, and does not get there by itself when the job runs.
    async fn arrived_before(&self, row: &QueuedRow) -> Option<SendResult> {
        let number = row.in_doubt?;
        let before = self.before(row).filter(|_| self.transport.reads_status())?;
        let shown = self.transport.status(&row.delivery.job_id).await.ok()?;
        let confirms = |status| self.transport.confirms(&row.delivery, status);
        let proves = confirms(&shown) && !confirms(before) && !is_set_by_autosys(&shown);
        let detail = format!("not sent again: attempt {number} arrived, as AutoSys shows {shown} after {before}");
        proves.then(|| SendOutcome::Delivered { detail: Some(detail) }.into())
    }

    /// Waits until AutoSys shows an accepted event, if it is to be confirmed.
    async fn confirmed(&self, delivery: &Delivery, sent: SendResult) -> SendResult {
        let (Some(within), SendOutcome::Delivered { detail }) = (self.confirm, &sent.outcome) else { return sent };
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let left = within.saturating_sub(begun.elapsed());
            let status = tokio::time::timeout(left, self.transport.status(&delivery.job_id)).await;
            let status = status.unwrap_or_else(|_| Err("the status was not read in time".to_owned()));
            match status {
                Ok(shown) if self.transport.confirms(delivery, &shown) => {
                    let details = detail.iter().cloned().chain([format!("confirmed: AutoSys shows {shown}")]);
                    let detail = Some(details.collect::<Vec<_>>().join("; "));
                    return SendResult { outcome: SendOutcome::Delivered { detail }, vm: sent.vm };
                }
                status if begun.elapsed() + pause >= within => {
                    let shows = match status {
                        Ok(shown) => format!("AutoSys shows {shown}"),
                        Err(reason) => reason,
                    };
                    let seconds = within.as_secs_f64();
                    let detail = format!("the event was taken, but is not confirmed after {seconds} s: {shows}");
                    return SendResult { outcome: SendOutcome::unknown(detail), vm: sent.vm };
                }
                _ => sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests;
