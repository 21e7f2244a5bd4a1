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
}

/// What AutoSys does with an event.
enum Taken {
    Yes,
    No { permanently: bool },
}

#[async_trait]
impl Transport for SimulatedAutosys {
    fn name(&self) -> &str {
        "simulated"
    }

    fn time_limit(&self) -> Option<Duration> {
        Some(SEND_LIMIT)
    }

    async fn send(&self, delivery: &Delivery, _gate: &Gate) -> SendResult {
        let label = format!("send {} {} {}", delivery.job_id, delivery.file_name, delivery.status);
        let number = {
            let truth = &mut self.world.state().truth;
            let (actor, marks) = (self.actor, truth.attempts_version);
            truth.sends.push(Send { file: delivery.file_name.clone(), actor, marks, has_arrived: false });
            truth.sends.len() - 1
        };
        let (world, refuses) = (Arc::clone(&self.world), self.refuses);
        let effect = move || {
            if !world.state().is_calm && world.below(100) < refuses {
                return Taken::No { permanently: world.below(3) == 0 };
            }
            let truth = &mut world.state().truth;
            truth.sends[number].has_arrived = true;
            truth.arrivals.push(number);
            Taken::Yes
        };
        let outcome = match self.world.request(self.actor, Kind::Send, label, effect).await {
            Reply::Done(Taken::Yes) => SendOutcome::Delivered { detail: None },
            Reply::Done(Taken::No { permanently: true }) => SendOutcome::permanent("the job is unknown"),
            Reply::Done(Taken::No { .. }) => SendOutcome::transient("AutoSys is busy"),
            _ if self.world.bug == Some(Bug::TrustsNoAnswer) => SendOutcome::Delivered { detail: None },
            _ => SendOutcome::unknown("no answer"),
        };
        outcome.into()
    }
}
