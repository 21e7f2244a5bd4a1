//! AutoSys, and the transport of one process to it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Bug;
use super::threads::Actor;
use super::truth::Send;
use super::world::{Kind, Reply, SEND_LIMIT, World};
use crate::autosys::transport::{Delivery, Gate, SendOutcome, SendResult, Transport};

pub(super) struct SimulatedAutosys {
    pub(super) world: Arc<World>,
    pub(super) actor: Actor,
    /// AutoSys refuses so many of 100 events.
    pub(super) refuses: u64,
    pub(super) batch: usize,
    pub(super) reads_status: bool,
}

/// What AutoSys does with an event.
enum EventReception {
    Accepted,
    Refused {
        permanently: bool,
    },
    /// A batch ended before its turn, and the answer does not say so.
    Missing,
}

/// Lets AutoSys take an event, or refuse it. A later event of a job does not show before an earlier one.
fn take(world: &Arc<World>, number: usize, delivery: &Delivery, refuses: u64) -> EventReception {
    let is_calm = world.state().is_calm;
    if !is_calm && world.below(100) < refuses {
        return EventReception::Refused { permanently: world.below(3) == 0 };
    }
    let delay = if is_calm || world.below(3) > 0 { 0 } else { world.below(8000) };
    let now = world.now();
    let at = {
        let truth = &mut world.state().truth;
        truth.sends[number].has_arrived = true;
        truth.arrivals.push(number);
        let at = truth.shows_at.entry(delivery.job_id.clone()).or_default();
        *at = (*at).max(now + Duration::from_millis(delay));
        *at
    };
    let (job, status) = (delivery.job_id.clone(), delivery.status.clone());
    world.after(at - now, move |world| drop(world.state().truth.shown.insert(job, status)));
    EventReception::Accepted
}

#[async_trait]
impl Transport for SimulatedAutosys {
    fn name(&self) -> &str {
        "simulated"
    }

    fn time_limit(&self) -> Option<Duration> {
        Some(SEND_LIMIT)
    }

    fn batch_size(&self) -> usize {
        self.batch
    }

    async fn send(&self, delivery: &Delivery, gate: &Gate) -> SendResult {
        self.send_batch(std::slice::from_ref(delivery), gate).await.remove(0)
    }

    async fn send_batch(&self, deliveries: &[Delivery], _gate: &Gate) -> Vec<SendResult> {
        let mut label = "send".to_owned();
        let mut numbered = Vec::new();
        for delivery in deliveries {
            label += &format!(" {} {}", delivery.file_name, delivery.status);
            let truth = &mut self.world.state().truth;
            let (actor, marks) = (self.actor, truth.attempts_version);
            numbered.push((truth.sends.len(), delivery.clone()));
            truth.sends.push(Send { file: delivery.file_name.clone(), actor, marks, has_arrived: false });
        }
        let (world, refuses) = (Arc::clone(&self.world), self.refuses);
        let effect = move || -> Vec<EventReception> {
            let is_cut = numbered.len() > 1 && !world.state().is_calm && world.below(8) == 0;
            let whole = if is_cut { world.below(numbered.len() as u64) as usize } else { numbered.len() };
            let taken = |(at, (number, delivery)): (usize, &(usize, Delivery))| match at < whole {
                true => take(&world, *number, delivery, refuses),
                false => EventReception::Missing,
            };
            numbered.iter().enumerate().map(taken).collect()
        };
        let unknown = match self.world.bug {
            Some(Bug::TrustsNoAnswer) => SendOutcome::Delivered { detail: None },
            _ => SendOutcome::unknown("no answer"),
        };
        let outcome = |taken| match taken {
            EventReception::Accepted => SendOutcome::Delivered { detail: None },
            EventReception::Refused { permanently: true } => SendOutcome::permanent("the job is unknown"),
            EventReception::Refused { .. } => SendOutcome::transient("AutoSys is busy"),
            EventReception::Missing => unknown.clone(),
        };
        match self.world.request(self.actor, Kind::Send, label, effect).await {
            Reply::Done(taken) => taken.into_iter().map(|taken| outcome(taken).into()).collect(),
            _ => deliveries.iter().map(|_| unknown.clone().into()).collect(),
        }
    }

    fn reads_status(&self) -> bool {
        self.reads_status
    }

    async fn status(&self, job_id: &str) -> Result<String, String> {
        let (world, job) = (Arc::clone(&self.world), job_id.to_owned());
        let shown = move || world.state().truth.shown.get(&job).cloned();
        match self.world.request(self.actor, Kind::Read, format!("status of {job_id}"), shown).await {
            Reply::Done(shown) => Ok(shown.unwrap_or_else(|| "INACTIVE".to_owned())),
            _ => Err("no answer".to_owned()),
        }
    }
}
