//! What a run tells while it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One change of one job.
#[derive(Debug, Clone)]
pub struct ProgressEvent {
    /// The arm.
    pub arm: String,
    /// The round, from 1.
    pub round: u32,
    /// Rounds of the run.
    pub rounds: u32,
    /// Jobs of the arm's round that have ended, well or not.
    pub done: usize,
    /// Those of them that did not end well.
    pub failed: usize,
    /// Jobs submitted and not ended.
    pub in_flight: usize,
    /// Jobs of the arm's round.
    pub total: usize,
    /// The job that changed.
    pub job: String,
    /// `submitted`, or how it ended: `completed`, `failed`, `canceled`, `timedOut`, `unknown`.
    pub state: String,
}

/// Takes events; called from the run's own task, so it must return at once.
pub type Progress = Arc<dyn Fn(ProgressEvent) + Send + Sync>;

/// Counts the jobs of one arm and tells the listener.
pub(super) struct Counter<'a> {
    arm: &'a str,
    round: (u32, u32),
    total: usize,
    done: AtomicUsize,
    failed: AtomicUsize,
    in_flight: AtomicUsize,
    listener: Option<&'a Progress>,
}

impl<'a> Counter<'a> {
    /// Of the round `round.0` of `round.1`.
    pub(super) fn new(arm: &'a str, round: (u32, u32), total: usize, listener: Option<&'a Progress>) -> Self {
        let zero = AtomicUsize::default;
        Self { arm, round, total, done: zero(), failed: zero(), in_flight: zero(), listener }
    }

    pub(super) fn submitted(&self, job: &str) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.tell(job, "submitted");
    }

    pub(super) fn ended(&self, job: &str, state: &str, was_submitted: bool) {
        if was_submitted {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        if state != "completed" {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.tell(job, state);
    }

    /// A job that an interrupted run had seen to its end.
    pub(super) fn recalled(&self, job: &str, state: &str) {
        self.ended(job, state, false);
    }

    fn tell(&self, job: &str, state: &str) {
        if let Some(listener) = self.listener {
            let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
            listener(ProgressEvent {
                arm: self.arm.to_owned(),
                round: self.round.0,
                rounds: self.round.1,
                done: count(&self.done),
                failed: count(&self.failed),
                in_flight: count(&self.in_flight),
                total: self.total,
                job: job.to_owned(),
                state: state.to_owned(),
            });
        }
    }
}
