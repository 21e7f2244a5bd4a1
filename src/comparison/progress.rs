//! The progress of a run, as events for a listener.

use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::runtime::lock;

/// One change of one job.
#[derive(Debug, Clone, Serialize)]
pub struct ProgressEvent {
    /// The arm.
    pub arm: String,
    /// The round, from 1.
    pub round: u32,
    /// Rounds of the run.
    pub rounds: u32,
    /// Jobs of the arm's round that have ended.
    pub done: usize,
    /// Jobs of `done` that did not complete.
    pub failed: usize,
    /// Jobs that are submitted and have not ended.
    pub in_flight: usize,
    /// Jobs of the arm's round.
    pub total: usize,
    /// The job that changed.
    pub job: String,
    /// `submitted`, or how it ended: `completed`, `failed`, `canceled`, `timedOut`, `unknown`.
    pub state: String,
}

/// Receives events. The task of the run calls it, so it must return immediately.
pub type ProgressListener = Arc<dyn Fn(ProgressEvent) + Send + Sync>;

/// Counts the jobs of one arm's round, and reports every change.
pub(super) struct ProgressCounter<'a> {
    counts: Mutex<ProgressEvent>,
    listener: Option<&'a ProgressListener>,
}

impl<'a> ProgressCounter<'a> {
    /// A counter of the round `round.0` of `round.1`.
    pub(super) fn new(arm: &str, round: (u32, u32), total: usize, listener: Option<&'a ProgressListener>) -> Self {
        let (round, rounds) = round;
        let (arm, job, state) = (arm.to_owned(), String::new(), String::new());
        let counts = ProgressEvent { arm, round, rounds, done: 0, failed: 0, in_flight: 0, total, job, state };
        Self { counts: Mutex::new(counts), listener }
    }

    pub(super) fn submitted(&self, job: &str) {
        self.change(job, "submitted", |counts| counts.in_flight += 1);
    }

    pub(super) fn ended(&self, job: &str, state: &str, was_submitted: bool) {
        self.change(job, state, |counts| {
            counts.in_flight -= usize::from(was_submitted);
            counts.done += 1;
            counts.failed += usize::from(state != "completed");
        });
    }

    fn change(&self, job: &str, state: &str, update: impl FnOnce(&mut ProgressEvent)) {
        let event = {
            let mut counts = lock(&self.counts);
            update(&mut counts);
            ProgressEvent { job: job.to_owned(), state: state.to_owned(), ..counts.clone() }
        };
        if let Some(listener) = self.listener {
            listener(event);
        }
    }
}
