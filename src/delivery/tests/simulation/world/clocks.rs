//! The clocks of the processes, their random numbers, and what waits for a time.

use std::task::Waker;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use rand::RngExt as _;

use super::World;
use crate::delivery::tests::simulation::threads::Actor;

/// How much later the clocks of a process that is cleared away seem, so that it waits for nothing.
const AGES: Duration = Duration::from_secs(400 * 24 * 3600);

impl World {
    pub(in super::super) fn now(&self) -> Duration {
        self.state().now
    }

    /// The clock of the store, and of the world.
    pub(in super::super) fn time(&self, at: Duration) -> DateTime<Utc> {
        self.epoch + TimeDelta::from_std(at).expect("a short time")
    }

    pub(in super::super) fn utc(&self, actor: Actor) -> DateTime<Utc> {
        let state = self.state();
        let process = &state.processes[actor];
        self.time(state.now.mul_f64(process.rate)) + process.skew
    }

    pub(in super::super) fn since_boot(&self, actor: Actor) -> Duration {
        let state = self.state();
        let process = &state.processes[actor];
        process.boot + state.now.mul_f64(process.rate) + if process.is_buried { AGES } else { Duration::ZERO }
    }

    pub(in super::super) fn instant(&self, actor: Actor) -> Instant {
        self.base + self.since_boot(actor)
    }

    /// When `duration` by the clocks of a process has passed.
    pub(in super::super) fn after_by(&self, actor: Actor, duration: Duration) -> Duration {
        let state = self.state();
        let passed = Duration::try_from_secs_f64(duration.as_secs_f64() / state.processes[actor].rate);
        state.now.saturating_add(passed.unwrap_or(Duration::MAX)).saturating_add(Duration::from_micros(1))
    }

    pub(in super::super) fn random(&self) -> u128 {
        self.state().random.random()
    }

    /// A random number below `limit`.
    pub(in super::super) fn below(&self, limit: u64) -> u64 {
        self.state().random.random_range(0..limit)
    }

    pub(in super::super) fn has_come(&self, actor: Actor, at: Duration) -> bool {
        let mut state = self.state();
        if state.processes[actor].is_buried {
            state.now = state.now.max(at);
        }
        state.now >= at
    }

    pub(in super::super) fn add_timer(&self, at: Duration, waker: Waker) -> u64 {
        let mut state = self.state();
        let number = state.next();
        state.timers.insert((at, number), waker);
        number
    }

    pub(in super::super) fn remove_timer(&self, at: Duration, number: u64) {
        let removed = self.state().timers.remove(&(at, number));
        drop(removed);
    }
}
