//! One job of a run: it is submitted once, followed to its end, and canceled if it takes too long or the run is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Semaphore;

use super::arms::Arm;
use super::job_configs::JobConfig;
use super::journal::{JobEnd, JobKey, Journal, JournalEvent, JournalHeader, PriorState, unique_name};
use super::options::RunnerOptions;
use super::records::{Correlation, JobRecord};
use super::run_control::{GRACE, ProgressCounter, RunControl};
use crate::error::{Error, ErrorKind, Result};
use crate::http::retry::backoff;
use crate::viya::ViyaClient;
use crate::viya::jobs::{self, Job, JobState};
use crate::viya::submission::{self, Submission};
use crate::viya::watch::{JobUpdate, Watch};

/// Calls that submit, read or cancel jobs at the same time. A proxy in front of a server refuses many more.
const CALLS: usize = 32;
/// How long the end of a canceled job is waited for, in seconds of the server.
const CANCEL_WAIT: f64 = 120.0;
/// How long a call is retried while the server cannot be reached or fails, in seconds of the server.
const RETRY_LIMIT: f64 = 900.0;
const DELETED: &str = "it was deleted on the server before its end was seen";

/// What all jobs of a run share.
pub(super) struct RunContext<'a> {
    pub client: &'a ViyaClient,
    pub journal: &'a Journal,
    pub header: &'a JournalHeader,
    pub options: &'a RunnerOptions,
    pub control: &'a RunControl,
    pub watch: Watch<'a>,
    calls: Semaphore,
}

impl<'a> RunContext<'a> {
    pub(super) fn new(
        client: &'a ViyaClient,
        journal: &'a Journal,
        header: &'a JournalHeader,
        options: &'a RunnerOptions,
        control: &'a RunControl,
    ) -> Self {
        let watch = Watch::new(client, options.poll_interval);
        Self { client, journal, header, options, control, watch, calls: Semaphore::new(CALLS) }
    }

    /// No job of the run is older, by any clock: clocks differ by minutes at most.
    pub(super) fn oldest(&self) -> DateTime<Utc> {
        self.header.began - TimeDelta::hours(1)
    }

    /// Writes to the journal. An error ends the run, because a job that is not in the journal could run twice.
    async fn write(&self, event: &JournalEvent) -> Result<()> {
        self.journal.write(event).await.inspect_err(|e| self.control.abort(e))
    }
}

/// One round of an arm.
pub(super) struct ArmRound<'a> {
    pub run: &'a RunContext<'a>,
    pub arm: &'a Arm,
    /// The number of the arm, from 0.
    pub arm_number: usize,
    /// The round, from 1.
    pub round: u32,
    pub counter: ProgressCounter<'a>,
}

impl ArmRound<'_> {
    /// Submits the job and follows it to its end, or continues from the state in which an interrupted run left it. `None`
    /// when the run ended before the job was submitted.
    pub(super) async fn run_job(
        &self,
        config: &Arc<JobConfig>,
        sequence: usize,
        prior: Option<&PriorState>,
    ) -> Option<JobRecord> {
        let control = self.run.control;
        let key = JobKey { arm: self.arm_number, round: self.round, sequence };
        let mut record = JobRecord {
            config: config.clone(),
            round: self.round,
            sequence,
            unique_name: unique_name(&config.name, &self.arm.short(), key, &self.run.header.tag),
            status: "failed".into(),
            error: None,
            job: None,
            submit_latency: None,
            observed_duration: None,
            entry: None,
            correlation: Correlation::None,
        };
        match prior {
            Some(PriorState::Ended(name, latency, end)) => {
                record.unique_name.clone_from(name);
                record.submit_latency = *latency;
                record.status.clone_from(&end.status);
                record.error.clone_from(&end.error);
                record.job = end.job.clone().and_then(|job| Job::parse(job).ok());
                record.observed_duration = end.observed;
                self.counter.ended(&config.name, &record.status, false);
                return Some(record);
            }
            Some(PriorState::Submitting(name) | PriorState::Submitted(name, ..)) => record.unique_name.clone_from(name),
            // The canceled job has the name itself.
            Some(PriorState::Canceled(times)) => record.unique_name.push_str(&format!("r{times}")),
            None => {}
        }
        // A job that an interrupted run left on the server is followed, and canceled, even if this run is stopped.
        let left = matches!(prior, Some(PriorState::Submitting(_) | PriorState::Submitted(..)));
        if control.is_ending() && !left {
            return None;
        }
        // Whether the server may have the job, and since when.
        let (in_doubt, mut start) = (AtomicBool::new(left), Instant::now());
        let accepted = match prior {
            Some(PriorState::Submitted(_, id, _)) => self.find_again(id).await.map(Some),
            _ => self.submit(&mut record, key, &in_doubt, &mut start).await,
        };
        // When another process submitted a job is known only from the journal.
        match prior {
            Some(PriorState::Submitted(_, _, latency)) => record.submit_latency = *latency,
            Some(PriorState::Submitting(_)) => record.submit_latency = None,
            _ => {}
        }
        let job = match accepted {
            Ok(job) => job?,
            Err(e) => {
                control.abort_if_fatal(&e);
                let submitted = matches!(prior, Some(PriorState::Submitted(..)));
                if submitted && e.kind() == ErrorKind::NotFound {
                    (record.status, record.error) = ("canceled".into(), Some(DELETED.into()));
                    self.write_end(key, &record).await;
                } else {
                    record.error = Some(e.full_message());
                    if in_doubt.into_inner() {
                        // Without an end in the journal, the resumed run looks for the job again.
                        record.status = "unknown".into();
                    } else if !control.is_ending() {
                        self.write_end(key, &record).await;
                    }
                }
                self.counter.ended(&config.name, &record.status, false);
                return Some(record);
            }
        };
        self.counter.submitted(&config.name);
        let watched = self.run.watch.count_in_flight();
        self.follow(&mut record, job, start, left).await;
        drop(watched);
        if record.status == "canceled" && control.stop.is_stopped() {
            // The resumed run submits the job anew. The journal aborts the run itself if it fails.
            let _ = self.run.write(&JournalEvent::Dropped { key }).await;
        } else if record.status != "unknown" {
            self.write_end(key, &record).await;
        }
        self.counter.ended(&config.name, &record.status, true);
        Some(record)
    }

    async fn write_end(&self, key: JobKey, record: &JobRecord) {
        let (status, error) = (record.status.clone(), record.error.clone());
        let job = record.job.as_ref().map(|job| job.raw().clone());
        let end = JobEnd { status, error, job, observed: record.observed_duration };
        let _ = self.run.write(&JournalEvent::Ended { key, end }).await;
    }

    /// Submits the job once, with as many attempts as that takes; `None` when the run ended before. `in_doubt` says, before
    /// and after, whether the server may have the job.
    async fn submit(
        &self,
        record: &mut JobRecord,
        key: JobKey,
        in_doubt: &AtomicBool,
        start: &mut Instant,
    ) -> Result<Option<Job>> {
        let RunContext { client, control, .. } = self.run;
        let _call = self.run.calls.acquire().await.map_err(closed)?;
        // The wait for a free call is not part of the time of the job.
        *start = Instant::now();
        if !in_doubt.load(Ordering::Relaxed) {
            if control.is_ending() {
                return Ok(None);
            }
            self.run.write(&JournalEvent::Submitting { key, name: record.unique_name.clone() }).await?;
        }
        let submission = Submission {
            name: record.unique_name.clone(),
            definition: record.config.definition_id.clone(),
            arguments: record.config.arguments.clone(),
            context: self.arm.context.clone(),
            expires_after: self.run.options.expires_after.clone(),
        };
        let unanswered = format!("answered whether it accepted {}", submission.name);
        let submitted = self.retried(&submission.name, &unanswered, || self.submit_or_find(&submission, in_doubt));
        let Some(job) = submitted.await? else { return Ok(None) };
        record.submit_latency = Some(client.clock.since(*start));
        let (id, latency) = (job.id().to_owned(), record.submit_latency);
        let _ = self.run.write(&JournalEvent::Submitted { key, id, latency }).await;
        Ok(Some(job))
    }

    /// One attempt; `None` when the run is ending and the server does not have the job.
    async fn submit_or_find(&self, submission: &Submission, in_doubt: &AtomicBool) -> Result<Option<Job>> {
        let RunContext { client, control, .. } = self.run;
        let oldest = self.run.oldest();
        if in_doubt.load(Ordering::Relaxed) {
            let found = submission::find_by_name(client, &submission.name, oldest).await?;
            if found.is_some() || control.is_ending() {
                return Ok(found);
            }
        }
        // The call can be dropped before the server answers.
        in_doubt.store(true, Ordering::Relaxed);
        let submitted = submission::submit(client, submission, oldest).await;
        in_doubt.store(submitted.as_ref().is_err_and(|failed| failed.in_doubt), Ordering::Relaxed);
        match submitted {
            // A run that is stopped cancels what it can find.
            Err(failed) if failed.in_doubt && control.stop.is_stopped() => {
                submission::find_by_name(client, &submission.name, oldest).await
            }
            submitted => submitted.map(Some).map_err(|failed| failed.error),
        }
    }

    /// Reads a job that an interrupted run submitted.
    async fn find_again(&self, id: &str) -> Result<Job> {
        let _call = self.run.calls.acquire().await.map_err(closed)?;
        let unanswered = format!("returned the state of job {id}: the job may run there still");
        self.retried(id, &unanswered, || jobs::get(self.run.client, id)).await
    }

    /// Makes a call about `job` until it succeeds, as long as its errors can pass. `unanswered` is what SAS Viya had not
    /// done when the run was stopped.
    async fn retried<T, F>(&self, job: &str, unanswered: &str, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let control = self.run.control;
        let began = Instant::now();
        for tried in 1.. {
            let e = match control.with_grace(call()).await {
                Some(Err(e)) if e.can_recover() && !control.is_ending() => e,
                Some(ended) => return ended,
                None => break,
            };
            if self.run.client.clock.since(began) >= RETRY_LIMIT {
                // A failure of this length concerns every job.
                control.abort(&e);
                return Err(e);
            }
            tracing::warn!("job {job} is tried again: {}", e.full_message());
            control.sleep(backoff(tried, None).as_secs_f64()).await;
        }
        let text = format!("the run was stopped before SAS Viya {unanswered}");
        Err(Error::new(ErrorKind::Conflict, text))
    }

    /// Waits for the end of the job, and cancels it if it takes too long or the run is stopped.
    async fn follow(&self, record: &mut JobRecord, job: Job, start: Instant, resumed: bool) {
        let RunContext { client, control, watch, options, .. } = self.run;
        let id = job.id().to_owned();
        let clock = &client.clock;
        let mut state = job.state().unwrap_or(JobState::Pending);
        record.job = Some(job);
        let limit = record.config.job_timeout.unwrap_or(options.job_timeout);
        let (mut failing_since, mut cancellation) = (None::<Instant>, None::<Cancellation>);
        let mut ended = None;
        while !state.is_final() {
            let elapsed = clock.since(start);
            if cancellation.is_none() && (elapsed > limit || control.stop.is_stopped()) {
                cancellation =
                    Some(Cancellation { stopped: control.stop.is_stopped(), since: elapsed, accepted: false });
            }
            let seen = match &mut cancellation {
                None => tokio::select! {
                    seen = watch.next_update(&id, state) => seen,
                    () = control.stop.stopped() => continue,
                    () = clock.sleep((limit - elapsed).max(0.0)) => continue,
                },
                Some(cancellation) => {
                    // A server that ignores the request, or fails, must not hold the run.
                    let patience =
                        if cancellation.accepted || control.stop.is_stopped() { CANCEL_WAIT } else { RETRY_LIMIT };
                    if elapsed > cancellation.since + patience {
                        record.status = "unknown".into();
                        record.error =
                            Some(format!("{}, and does not end: it may run there still", cancellation.reason(limit)));
                        return;
                    }
                    self.cancel(&id, cancellation, elapsed).await
                }
            };
            match seen {
                Ok(JobUpdate::State(now)) => (state, failing_since) = (now, None),
                Ok(JobUpdate::Ended(job)) => {
                    state = job.state().unwrap_or(JobState::Pending);
                    ended = job.ended().is_some().then_some(job);
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    (record.status, record.error) = ("canceled".into(), Some(DELETED.into()));
                    return;
                }
                Err(e) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if matches!(e.kind(), ErrorKind::Authentication | ErrorKind::Unsupported) {
                        control.abort(&e);
                    }
                    let patience = if control.is_ending() { GRACE } else { RETRY_LIMIT };
                    if clock.since(since) > patience {
                        // A failure of this length concerns every job.
                        if !control.is_ending() {
                            control.abort(&e);
                        }
                        record.status = "unknown".into();
                        record.error = Some(format!("its end was not seen: {}", e.full_message()));
                        return;
                    }
                    control.sleep(options.poll_interval.max(1.0)).await;
                }
            }
        }
        // The start of a job that another process submitted is not known.
        record.observed_duration = (!resumed).then(|| clock.since(start));
        match ended {
            Some(job) => record.job = Some(*job),
            None => self.fetch_ended(record, &id).await,
        }
        record.status = state.to_string();
        if state != JobState::Completed {
            let text = record.job.as_ref().map(Job::error).filter(|text| !text.is_empty());
            record.error = Some(text.unwrap_or_else(|| format!("it ended {state}")));
            if let Some(cancellation) = cancellation.filter(|cancellation| cancellation.accepted) {
                record.status = if cancellation.stopped { "canceled".into() } else { "timedOut".into() };
                record.error = Some(cancellation.reason(limit));
            }
        }
    }

    /// Asks the server to cancel a job until it accepts that, and reads the state of the job.
    async fn cancel(&self, id: &str, cancellation: &mut Cancellation, elapsed: f64) -> Result<JobUpdate> {
        let RunContext { client, control, calls, options, .. } = self.run;
        let call = async {
            let _call = calls.acquire().await.map_err(closed)?;
            if cancellation.accepted {
                client.clock.sleep(options.poll_interval).await;
            } else if let Err(e) = jobs::cancel(client, id).await {
                // The job can have ended at this moment: its state says so.
                tracing::debug!("job {id} could not be canceled: {}", e.full_message());
                client.clock.sleep(options.poll_interval).await;
            } else {
                (cancellation.accepted, cancellation.since) = (true, elapsed);
            }
            jobs::state(client, id).await
        };
        let state = control.with_grace(call).await.unwrap_or_else(|| {
            let text = format!("SAS Viya did not return the state of job {id}: it may run there still");
            Err(Error::new(ErrorKind::Network, text))
        });
        state.map(JobUpdate::State)
    }

    /// Fetches the ended job for its timestamps, which can follow its state by a moment.
    async fn fetch_ended(&self, record: &mut JobRecord, id: &str) {
        let RunContext { client, control, .. } = self.run;
        for attempt in 1..=5 {
            match jobs::get(client, id).await {
                Ok(job) => {
                    let ended = job.ended().is_some();
                    record.job = Some(job);
                    if ended {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                Err(e) => tracing::debug!("job {id} cannot be read: {e}"),
            }
            if attempt < 5 && !control.stop.is_stopped() {
                client.clock.sleep(1.0).await;
            }
        }
    }
}

/// The request to cancel a job.
struct Cancellation {
    /// The run was stopped; otherwise the job took too long.
    stopped: bool,
    /// Since when the end is waited for: seconds of the server after the submission.
    since: f64,
    /// The server accepted the request.
    accepted: bool,
}

impl Cancellation {
    fn reason(&self, limit: f64) -> String {
        let done = if self.accepted { "was canceled by jobrota" } else { "could not be canceled" };
        if self.stopped {
            format!("the run was stopped; the job {done}")
        } else {
            format!("it had not ended after {limit} s and {done}")
        }
    }
}

fn closed(_: tokio::sync::AcquireError) -> Error {
    Error::new(ErrorKind::Internal, "the run has ended already")
}

#[cfg(test)]
mod tests;
