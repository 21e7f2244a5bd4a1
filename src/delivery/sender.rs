//! Sends rows through the transport, and reads a job's status back where it says more than the answer does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::plan::QueuedRow;
use crate::autosys::transport::{Delivery, Gate, SendOutcome, SendResult, Transport};

/// Pauses between two reads of a status: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The transport, and what is read back. Clones share everything.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) transport: Arc<dyn Transport>,
    /// How long to wait until AutoSys shows an event; None does not wait.
    pub(super) confirm: Option<Duration>,
    /// For jobs with a row in doubt, the status of the last row that was delivered before.
    pub(super) before: Arc<HashMap<String, String>>,
}

impl Sender {
    /// The detail of the `sending` mark of a row whose last attempt is in doubt.
    pub(super) fn mark(&self, row: &QueuedRow) -> Option<String> {
        let number = row.in_doubt?;
        let what =
            if self.transport.reads_status() { "read back, and sent again if it cannot be seen" } else { "sent again" };
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

    /// The result of a row in doubt that arrived: AutoSys shows the status that it leads to, and the row before it does
    /// not lead to that status.
    async fn arrived_before(&self, row: &QueuedRow) -> Option<SendResult> {
        let number = row.in_doubt?;
        if !self.transport.reads_status() {
            return None;
        }
        let shown = self.transport.status(&row.delivery.job_id).await.ok()?;
        let before = self.before.get(&row.delivery.job_id);
        let before = before.map(|status| Delivery { status: status.clone(), ..row.delivery.clone() });
        let proves = self.transport.confirms(&row.delivery, &shown)
            && before.is_none_or(|before| !self.transport.confirms(&before, &shown));
        let detail = format!("not sent again: attempt {number} arrived, as AutoSys shows {shown}");
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
