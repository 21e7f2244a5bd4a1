//! How a row gets to AutoSys: sent, and with that read back where its status tells more than the answer does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::plan::Item;
use super::transport::{Delivery, Gate, Outcome, Sent, Transport};

/// Pauses between looks at a status, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The transport, and what is read back. Clones share everything.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) transport: Arc<dyn Transport>,
    /// How long after an event its status is waited for, if at all.
    pub(super) confirm: Option<Duration>,
    /// The status of the last row of each job that was delivered before, for jobs with a row in doubt.
    pub(super) before: Arc<HashMap<String, String>>,
}

impl Way {
    pub(super) fn name(&self) -> &str {
        self.transport.name()
    }

    /// What the mark of an attempt says that may be a repetition.
    pub(super) fn mark(&self, item: &Item) -> Option<String> {
        let number = item.in_doubt?;
        let what =
            if self.transport.reads_status() { "read back, and sent again if it cannot be seen" } else { "sent again" };
        Some(format!("{what}: whether attempt {number} arrived is unknown"))
    }

    pub(super) fn at_once(&self) -> usize {
        self.transport.at_once()
    }

    pub(super) fn batch(&self) -> usize {
        self.transport.batch().max(1)
    }

    /// What became of each of `items`, in their order.
    pub(super) async fn send(&self, items: &[Item], gate: &Gate) -> Vec<Sent> {
        let silence = || -> Sent { Outcome::unknown("the transport did not answer for each row").into() };
        let arrived = join_all(items.iter().map(|item| self.arrived_before(item))).await;
        let open: Vec<&Item> =
            items.iter().zip(&arrived).filter(|(_, arrived)| arrived.is_none()).map(|(i, _)| i).collect();
        let deliveries: Vec<Delivery> = open.iter().map(|item| item.delivery.clone()).collect();
        let sent = match deliveries.as_slice() {
            _ if deliveries.is_empty() => Vec::new(),
            _ if !gate.is_open() => deliveries.iter().map(|_| Outcome::not_tried("it is to stop").into()).collect(),
            [delivery] => vec![self.transport.send(delivery, gate).await],
            deliveries => self.transport.send_batch(deliveries, gate).await,
        };
        // Which of them are missing nobody knows.
        let sent = if sent.len() == deliveries.len() { sent } else { deliveries.iter().map(|_| silence()).collect() };
        let sent = join_all(deliveries.iter().zip(sent).map(|(delivery, sent)| self.confirmed(delivery, sent))).await;
        let mut sent = sent.into_iter();
        arrived.into_iter().map(|arrived| arrived.or_else(|| sent.next()).unwrap_or_else(silence)).collect()
    }

    /// Whether a row that is in doubt is known to have arrived: AutoSys shows what it leads to, and did not do so because
    /// of the row before it.
    async fn arrived_before(&self, item: &Item) -> Option<Sent> {
        let number = item.in_doubt?;
        if !self.transport.reads_status() {
            return None;
        }
        let shown = self.transport.status(&item.delivery.job_id).await.ok()?;
        let before = self.before.get(&item.delivery.job_id);
        let before = before.map(|status| Delivery { status: status.clone(), ..item.delivery.clone() });
        let proves = self.transport.shows(&item.delivery, &shown)
            && before.is_none_or(|before| !self.transport.shows(&before, &shown));
        let detail = format!("not sent again: attempt {number} arrived, as AutoSys shows {shown}");
        proves.then(|| Outcome::Delivered { detail: Some(detail) }.into())
    }

    /// `sent`, and where it was taken, whether AutoSys has come to show it.
    async fn confirmed(&self, delivery: &Delivery, sent: Sent) -> Sent {
        let (Some(within), Outcome::Delivered { detail }) = (self.confirm, &sent.outcome) else { return sent };
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let look =
                tokio::time::timeout(within.saturating_sub(begun.elapsed()), self.transport.status(&delivery.job_id));
            let look = look.await.unwrap_or_else(|_| Err("its status was not told in time".to_owned()));
            match look {
                Ok(shown) if self.transport.shows(delivery, &shown) => {
                    let said = detail.iter().cloned().chain([format!("confirmed: AutoSys shows {shown}")]);
                    let detail = Some(said.collect::<Vec<_>>().join("; "));
                    return Sent { outcome: Outcome::Delivered { detail }, vm: sent.vm };
                }
                look if begun.elapsed() + pause >= within => {
                    let shows = match look {
                        Ok(shown) => format!("AutoSys shows {shown}"),
                        Err(reason) => reason,
                    };
                    let seconds = within.as_secs_f64();
                    let detail = format!("the event was taken, but is not confirmed after {seconds} s: {shows}");
                    return Sent { outcome: Outcome::unknown(detail), vm: sent.vm };
                }
                _ => sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests;
