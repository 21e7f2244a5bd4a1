//! One job from submission to its end, and what breaks a run off.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::arms::Arm;
use super::correlate::Correlation;
use super::names;
use super::plan::JobConfig;
use super::progress::Counter;
use super::record::JobRecord;
use crate::error::{Error, ErrorKind};
use crate::viya::ViyaClient;
use crate::viya::jobs::{self, Job, State, Submission};

/// Polls of one job that may fail in a row, each with the client's own retries behind it, before the job is given up.
const POLL_FAILURES: u32 = 10;
/// Submissions that may fail in a row for want of a network before the run breaks off.
const LOST_SUBMISSIONS: u32 = 3;
/// How long the end of a canceled job is waited for, in the server's seconds.
const CANCEL_WAIT: f64 = 120.0;
/// So few jobs in flight are asked after every `poll_interval`; more of them, the older they are the less often.
const FEW_IN_FLIGHT: usize = 5;

/// Why a run does not go on; shared by all its jobs.
#[derive(Debug)]
pub(super) struct Halt {
    reason: Mutex<Option<Error>>,
    lost: AtomicU32,
    stop: watch::Receiver<bool>,
}

impl Halt {
    pub(super) fn new(stop: watch::Receiver<bool>) -> Self {
        Self { reason: Mutex::new(None), lost: AtomicU32::new(0), stop }
    }

    /// Whether no further job may be submitted.
    pub(super) fn reached(&self) -> bool {
        *self.stop.borrow() || self.reason.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn into_reason(self) -> Option<Error> {
        let stopped = *self.stop.borrow();
        let reason = self.reason.into_inner().unwrap_or_else(PoisonError::into_inner);
        reason.or_else(|| {
            stopped.then(|| Error::new(ErrorKind::Conflict, "the run was stopped; its running jobs were canceled"))
        })
    }

    /// Notes what a failed call means for the run: refused credentials concern every job.
    fn note(&self, error: &Error) {
        let fatal = error.kind() == ErrorKind::Authentication || error.kind() == ErrorKind::Unsupported;
        let lost =
            error.kind() == ErrorKind::Network && self.lost.fetch_add(1, Ordering::Relaxed) + 1 >= LOST_SUBMISSIONS;
        if fatal || lost {
            let copy = Error::new(error.kind(), error.full_message()).with_retryable(error.is_retryable());
            self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(copy);
        }
    }
}

/// What every job of an arm shares.
pub(super) struct Following<'a> {
    pub client: &'a ViyaClient,
    pub arm: &'a Arm,
    pub counter: Counter<'a>,
    pub halt: &'a Halt,
    pub job_timeout: f64,
    pub poll_interval: f64,
    pub expires_after: Option<String>,
    /// The round, from 1.
    pub round: u32,
    /// The end of every unique name of the run.
    pub tag: &'a str,
}

impl Following<'_> {
    /// Submits the job and follows it to its end; `None` when the run broke off before it was submitted.
    pub(super) async fn run(&self, config: &Arc<JobConfig>, sequence: usize) -> Option<JobRecord> {
        if self.halt.reached() {
            return None;
        }
        let unique_name = names::unique_name(&config.name, &self.arm.short(), self.round, sequence, self.tag);
        let submission = Submission {
            name: unique_name.clone(),
            definition: config.definition_id.clone(),
            arguments: config.arguments.clone(),
            context: self.arm.context.clone(),
            expires_after: self.expires_after.clone(),
        };
        let mut record = JobRecord {
            config: config.clone(),
            round: self.round,
            sequence,
            unique_name,
            status: "failed".into(),
            error: None,
            job: None,
            submit_latency: None,
            observed_duration: None,
            entry: None,
            correlation: Correlation::None,
        };
        let start = Instant::now();
        match jobs::submit(self.client, &submission).await {
            Ok(job) => {
                self.halt.lost.store(0, Ordering::Relaxed);
                record.submit_latency = Some(self.client.clock().since(start));
                self.counter.submitted(&config.name);
                self.follow(&mut record, job, start).await;
                self.counter.ended(&config.name, &record.status, true);
            }
            Err(e) => {
                self.halt.note(&e);
                record.error = Some(e.full_message());
                self.counter.ended(&config.name, &record.status, false);
            }
        }
        Some(record)
    }

    async fn follow(&self, record: &mut JobRecord, job: Job, start: Instant) {
        let id = job.id().to_owned();
        let mut state = job.state().unwrap_or(State::Pending);
        record.job = Some(job);
        let (mut failures, mut over, mut canceled_at) = (0, None, f64::INFINITY);
        let mut stop = self.halt.stop.clone();
        while !state.is_final() {
            let elapsed = self.client.clock().since(start);
            if over.is_none() && (elapsed > record.config.job_timeout.unwrap_or(self.job_timeout) || *stop.borrow()) {
                over = Some(if *stop.borrow() {
                    ("canceled", "the run was stopped".to_owned())
                } else {
                    (
                        "timedOut",
                        format!(
                            "it had not ended after {} s and was canceled by jobrota",
                            record.config.job_timeout.unwrap_or(self.job_timeout)
                        ),
                    )
                });
                canceled_at = elapsed;
                if let Err(e) = jobs::cancel(self.client, &id).await {
                    record.error = Some(format!(
                        "{}; canceling it failed: {}",
                        over.take().map_or_else(String::new, |o| o.1),
                        e.full_message()
                    ));
                    record.status = "unknown".into();
                    return;
                }
            }
            // Canceling is quick where it works; a server that ignores it must not hold the run.
            if elapsed > canceled_at + CANCEL_WAIT {
                break;
            }
            if over.is_none() {
                let wait = self.client.clock().sleep(self.interval(elapsed));
                tokio::select! { () = wait => {}, _ = stop.changed(), if !*stop.borrow() => {} }
            } else {
                self.client.clock().sleep(self.poll_interval).await;
            }
            match jobs::state(self.client, &id).await {
                Ok(now) => (state, failures) = (now, 0),
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    record.status = "canceled".into();
                    record.error = Some("it was deleted on the server before it was seen to end".into());
                    return;
                }
                Err(e) => {
                    failures += 1;
                    let refused = matches!(e.kind(), ErrorKind::Authentication | ErrorKind::Unsupported);
                    if refused {
                        self.halt.note(&e);
                    }
                    if refused || failures >= POLL_FAILURES {
                        record.status = "unknown".into();
                        record.error = Some(format!("its end was not seen: {}", e.full_message()));
                        return;
                    }
                }
            }
        }
        record.observed_duration = Some(self.client.clock().since(start));
        self.finish(record, &id, state).await;
        if let Some((status, why)) = over
            && state != State::Completed
        {
            record.status = status.into();
            record.error = Some(why);
        }
    }

    /// Fetches the ended job for its time stamps, which may come a moment after its state.
    async fn finish(&self, record: &mut JobRecord, id: &str, state: State) {
        record.status = state.as_str().into();
        for round in 1..=5 {
            match jobs::get(self.client, id).await {
                Ok(job) => {
                    let ended = job.ended().is_some();
                    record.job = Some(job);
                    if ended || !state.is_final() {
                        break;
                    }
                }
                Err(e) => tracing::debug!("job {id} cannot be read: {e}"),
            }
            if round < 5 {
                self.client.clock().sleep(1.0).await;
            }
        }
        if state != State::Completed {
            let why = record.job.as_ref().map(Job::error).unwrap_or_default();
            record.error = Some(if why.is_empty() { format!("it ended {}", state.as_str()) } else { why });
        }
    }

    fn interval(&self, elapsed: f64) -> f64 {
        if self.counter.in_flight() <= FEW_IN_FLIGHT {
            return self.poll_interval;
        }
        (elapsed * 0.05).clamp(self.poll_interval, self.poll_interval * 10.0)
    }
}
