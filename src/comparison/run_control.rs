//! What all jobs of a run share: whether it continues, as it ends early when it is stopped or when an error concerns every
//! job, and its progress, as events for a listener.

use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::runtime::lock;
use crate::stop::Stop;
use crate::viya::Clock;

/// How long calls that are under way may take after the run was stopped, in seconds of the server.
pub(super) const GRACE: f64 = 20.0;

/// Shared by all jobs of a run.
#[derive(Debug)]
pub(super) struct RunControl {
    error: Mutex<Option<Error>>,
    /// The request to end the run.
    pub(super) stop: Stop,
    clock: Clock,
}

impl RunControl {
    pub(super) fn new(stop: &Stop, clock: &Clock) -> Self {
        Self { error: Mutex::default(), stop: stop.clone(), clock: *clock }
    }

    /// Whether no further job may be submitted.
    pub(super) fn is_ending(&self) -> bool {
        self.stop.is_stopped() || lock(&self.error).is_some()
    }

    /// Waits `seconds` of the server, or until the run is stopped.
    pub(super) async fn sleep(&self, seconds: f64) {
        let _ = self.stop.unless(self.clock.sleep(seconds)).await;
    }

    /// The output of `work`; `None`, with `work` dropped, when it has not ended [`GRACE`] seconds after the run was stopped.
    pub(super) async fn with_grace<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let late = async {
            self.stop.stopped().await;
            self.clock.sleep(GRACE).await;
        };
        tokio::select! { biased; done = work => Some(done), () = late => None }
    }

    /// Why the run ended early, if it did.
    pub(super) fn reason(&self) -> Option<Error> {
        let error = lock(&self.error).clone();
        let stopped = || Error::new(ErrorKind::Conflict, "the run was stopped, and its running jobs were canceled");
        error.or_else(|| self.stop.is_stopped().then(stopped))
    }

    /// Ends the run early. The first error stays.
    pub(super) fn abort(&self, error: &Error) {
        let reason = || Error::new(error.kind(), error.full_message()).with_retryable(error.is_retryable());
        lock(&self.error).get_or_insert_with(reason);
    }

    /// Ends the run early if `error` concerns every job, such as refused credentials or a server that cannot be reached.
    /// A permission that is missing for one job does not.
    pub(super) fn abort_if_fatal(&self, error: &Error) {
        if matches!(error.kind(), ErrorKind::Authentication | ErrorKind::Unsupported | ErrorKind::Network) {
            self.abort(error);
        }
    }
}

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
