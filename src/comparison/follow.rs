//! One job from submission to its end.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;

use super::arms::Arm;
use super::correlate::Correlation;
use super::halt::{GRACE, Halt};
use super::journal::{End, Event, Journal, Place, Prior};
use super::names;
use super::plan::JobConfig;
use super::progress::Counter;
use super::record::JobRecord;
use crate::error::{Error, ErrorKind, Result};
use crate::viya::ViyaClient;
use crate::viya::jobs::{self, Job, State};
use crate::viya::submission::{self, Submission};
use crate::viya::watch::{JobUpdate, Watch};

mod patience;

use patience::{PATIENCE, Patience};

/// How long the end of a canceled job is waited for, in the server's seconds.
const CANCEL_WAIT: f64 = 120.0;
/// What is said of a job that is not on the server any more.
const DELETED: &str = "it was deleted on the server before it was seen to end";

/// What every job of an arm's round shares.
pub(super) struct Following<'a> {
    pub client: &'a ViyaClient,
    pub watch: &'a Watch<'a>,
    pub journal: &'a Journal,
    /// How many jobs may be submitted, read or canceled at a time.
    pub calls: &'a Semaphore,
    pub arm: &'a Arm,
    /// The arm's number, from 0.
    pub arm_number: usize,
    pub counter: Counter<'a>,
    pub halt: &'a Halt,
    pub job_timeout: f64,
    pub poll_interval: f64,
    pub expires_after: Option<&'a str>,
    /// The round, from 1.
    pub round: u32,
    /// The end of every unique name of the run.
    pub tag: &'a str,
    /// No job of the run is older, by any clock.
    pub oldest: DateTime<Utc>,
}

impl Following<'_> {
    /// Submits the job and follows it to its end, or goes on where an interrupted run was; `None` when the run broke off
    /// before it was submitted.
    pub(super) async fn run(
        &self,
        config: &Arc<JobConfig>,
        sequence: usize,
        prior: Option<&Prior>,
    ) -> Option<JobRecord> {
        let place = Place { arm: self.arm_number, round: self.round, sequence };
        let mut record = self.record(config, place);
        if let Some(Prior::Ended(name, latency, end)) = prior {
            record.unique_name.clone_from(name);
            record.submit_latency = *latency;
            self.recall(&mut record, end);
            self.counter.recalled(&config.name, &record.status);
            return Some(record);
        }
        // What an interrupted run left on the server is followed, and canceled, by a run that is stopped as well.
        let left = matches!(prior, Some(Prior::Submitting(_) | Prior::Submitted(..)));
        if self.halt.reached() && !left {
            return None;
        }
        if let Some(Prior::Again(attempt)) = prior {
            // The name of the job that was canceled is taken.
            record.unique_name.push_str(&format!("r{attempt}"));
        }
        // Whether the server may have the job, and when that was first so.
        let (mut in_doubt, mut start) = (left, Instant::now());
        let accepted = match prior {
            Some(Prior::Submitted(name, id, latency)) => {
                record.unique_name.clone_from(name);
                record.submit_latency = *latency;
                self.find_again(id).await
            }
            prior => {
                if let Some(Prior::Submitting(name)) = prior {
                    record.unique_name.clone_from(name);
                }
                self.submit(&mut record, place, &mut in_doubt, &mut start).await
            }
        };
        let job = match accepted {
            Ok(Some(job)) => job,
            Ok(None) => return None,
            Err(e) => {
                self.halt.note(&e);
                record.error = Some(e.full_message());
                if matches!(prior, Some(Prior::Submitted(..))) && e.kind() == ErrorKind::NotFound {
                    self.settle(&mut record, place, "canceled", DELETED).await;
                } else if in_doubt {
                    // No end: it is looked for again when the run is resumed.
                    record.status = "unknown".into();
                } else if !self.halt.reached() {
                    self.settle(&mut record, place, "failed", &e.full_message()).await;
                }
                // Else it was to be run and could not be: it is submitted when the run is resumed.
                self.counter.ended(&config.name, &record.status, false);
                return Some(record);
            }
        };
        self.counter.submitted(&config.name);
        let inside = self.watch.count_in_flight();
        if left {
            // Another process submitted it: when, is not known here.
            record.submit_latency = record.submit_latency.filter(|_| matches!(prior, Some(Prior::Submitted(..))));
        }
        self.follow(&mut record, job, start, left).await;
        drop(inside);
        if record.status == "canceled" && self.halt.stopped() {
            // Not an end of its own: when the run is resumed it is submitted anew.
            self.write(&Event::Dropped { place }).await;
        } else if record.status != "unknown" {
            // What this run lost sight of is looked for again when it is resumed.
            let (status, error) = (record.status.clone(), record.error.clone());
            let job = record.job.as_ref().map(|job| job.raw().clone());
            self.write(&Event::Ended { place, end: End { status, error, job, observed: record.observed_duration } })
                .await;
        }
        self.counter.ended(&config.name, &record.status, true);
        Some(record)
    }

    fn record(&self, config: &Arc<JobConfig>, place: Place) -> JobRecord {
        JobRecord {
            config: config.clone(),
            round: place.round,
            sequence: place.sequence,
            unique_name: names::unique_name(&config.name, &self.arm.short(), place, self.tag),
            status: "failed".into(),
            error: None,
            job: None,
            submit_latency: None,
            observed_duration: None,
            entry: None,
            correlation: Correlation::None,
        }
    }

    fn recall(&self, record: &mut JobRecord, end: &End) {
        record.status.clone_from(&end.status);
        record.error.clone_from(&end.error);
        record.job = end.job.clone().and_then(|job| Job::parse(job).ok());
        record.observed_duration = end.observed;
    }

    /// The journal's refusal ends the run: what is not written there would run twice.
    async fn write(&self, event: &Event) {
        if let Err(e) = self.journal.write(event).await {
            self.halt.because(&e);
        }
    }

    async fn settle(&self, record: &mut JobRecord, place: Place, status: &str, error: &str) {
        record.status = status.to_owned();
        record.error = Some(error.to_owned());
        let (status, error) = (record.status.clone(), record.error.clone());
        self.write(&Event::Ended { place, end: End { status, error, job: None, observed: None } }).await;
    }

    /// Submits the job once, however long that takes; `None` when the run broke off before. `in_doubt` says before and
    /// after whether the server may have it.
    async fn submit(
        &self,
        record: &mut JobRecord,
        place: Place,
        in_doubt: &mut bool,
        start: &mut Instant,
    ) -> Result<Option<Job>> {
        let _call = self.calls.acquire().await.map_err(closed)?;
        // What was waited for its turn is no time of the job's.
        *start = Instant::now();
        if self.halt.reached() && !*in_doubt {
            return Ok(None);
        }
        if !*in_doubt {
            let name = record.unique_name.clone();
            let noted = self.journal.write(&Event::Submitting { place, name }).await;
            noted.inspect_err(|e| self.halt.because(e))?;
        }
        let submission = Submission {
            name: record.unique_name.clone(),
            definition: record.config.definition_id.clone(),
            arguments: record.config.arguments.clone(),
            context: self.arm.context.clone(),
            expires_after: self.expires_after.map(str::to_owned),
        };
        let mut patience = Patience::new(self);
        let job = loop {
            let tried = self.halt.in_grace(self.client.clock(), self.submit_or_find(&submission, in_doubt)).await;
            match tried {
                Some(Ok(Some(job))) => break job,
                Some(Ok(None)) => return Ok(None),
                Some(Err(e)) => patience.after(e, &submission.name).await?,
                None => {
                    *in_doubt = true;
                    let text =
                        format!("the run was stopped before SAS Viya had said whether it took {}", submission.name);
                    return Err(Error::new(ErrorKind::Conflict, text));
                }
            }
        };
        record.submit_latency = Some(self.client.clock().since(*start));
        let (id, latency) = (job.id().to_owned(), record.submit_latency);
        self.write(&Event::Submitted { place, id, latency }).await;
        Ok(Some(job))
    }

    /// One try; `None` when the run broke off and the job is not there.
    async fn submit_or_find(&self, submission: &Submission, in_doubt: &mut bool) -> Result<Option<Job>> {
        if *in_doubt {
            let found = submission::find_by_name(self.client, &submission.name, self.oldest).await?;
            if found.is_some() || self.halt.reached() {
                return Ok(found);
            }
        }
        let submitted = submission::submit(self.client, submission, self.oldest).await;
        *in_doubt = submitted.as_ref().is_err_and(|not| not.in_doubt);
        match submitted {
            // A run that is stopped leaves nothing behind that it can find.
            Err(_) if *in_doubt && self.halt.stopped() => {
                submission::find_by_name(self.client, &submission.name, self.oldest).await
            }
            submitted => submitted.map(Some).map_err(|not| not.error),
        }
    }

    /// A job that an interrupted run had submitted.
    async fn find_again(&self, id: &str) -> Result<Option<Job>> {
        let _call = self.calls.acquire().await.map_err(closed)?;
        let mut patience = Patience::new(self);
        loop {
            match self.halt.in_grace(self.client.clock(), jobs::get(self.client, id)).await {
                Some(Ok(job)) => return Ok(Some(job)),
                Some(Err(e)) => patience.after(e, id).await?,
                None => {
                    let text = format!(
                        "the run was stopped before SAS Viya had said what became of job {id}: it may run there still"
                    );
                    return Err(Error::new(ErrorKind::Conflict, text));
                }
            }
        }
    }

    async fn follow(&self, record: &mut JobRecord, job: Job, start: Instant, resumed: bool) {
        let id = job.id().to_owned();
        let clock = self.client.clock();
        let mut state = job.state().unwrap_or(State::Pending);
        record.job = Some(job);
        let limit = record.config.job_timeout.unwrap_or(self.job_timeout);
        let (mut failing, mut over) = (None::<Instant>, None::<Over>);
        let mut ended = None;
        while !state.is_final() {
            let elapsed = clock.since(start);
            if over.is_none() && (elapsed > limit || self.halt.stopped()) {
                over = Some(Over { stopped: self.halt.stopped(), since: elapsed, asked: false });
            }
            let seen = match &mut over {
                None => tokio::select! {
                    seen = self.watch.next_update(&id, state) => seen,
                    () = self.halt.when_stopped() => continue,
                    () = clock.sleep((limit - elapsed).max(0.0)) => continue,
                },
                Some(over) => {
                    // Canceling is quick where it works; a server that ignores it, or fails at it, must not hold the run.
                    let patience = if over.asked || self.halt.stopped() { CANCEL_WAIT } else { PATIENCE };
                    if elapsed > over.since + patience {
                        record.status = "unknown".into();
                        record.error = Some(format!("{}, and does not end: it may run there still", over.why(limit)));
                        return;
                    }
                    self.end(&id, over, elapsed).await
                }
            };
            match seen {
                Ok(JobUpdate::State(now)) => (state, failing) = (now, None),
                Ok(JobUpdate::Ended(job)) => {
                    state = job.state().unwrap_or(State::Pending);
                    ended = job.ended().is_some().then_some(job);
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    record.status = "canceled".into();
                    record.error = Some(DELETED.into());
                    return;
                }
                Err(e) => {
                    let since = *failing.get_or_insert_with(Instant::now);
                    if matches!(e.kind(), ErrorKind::Authentication | ErrorKind::Unsupported) {
                        self.halt.note(&e);
                    }
                    let patience = if self.halt.reached() { GRACE } else { PATIENCE };
                    if clock.since(since) > patience {
                        // Whatever ails the server for so long ails every job.
                        if !self.halt.reached() {
                            self.halt.because(&e);
                        }
                        record.status = "unknown".into();
                        record.error = Some(format!("its end was not seen: {}", e.full_message()));
                        return;
                    }
                    self.halt.pause(clock, self.poll_interval.max(1.0)).await;
                }
            }
        }
        // Of a job that another process submitted it is not known when.
        record.observed_duration = (!resumed).then(|| clock.since(start));
        match ended {
            Some(job) => {
                record.job = Some(*job);
                self.judge(record, state);
            }
            None => self.finish(record, &id, state).await,
        }
        if let Some(over) = over
            && over.asked
            && state != State::Completed
        {
            record.status = if over.stopped { "canceled".into() } else { "timedOut".into() };
            record.error = Some(over.why(limit));
        }
    }

    /// Asks the server to cancel a job until it has taken that, and says what has become of the job.
    async fn end(&self, id: &str, over: &mut Over, elapsed: f64) -> Result<JobUpdate> {
        let clock = self.client.clock();
        let call = async {
            let _call = self.calls.acquire().await.map_err(closed)?;
            if over.asked {
                clock.sleep(self.poll_interval).await;
            } else if let Err(e) = jobs::cancel(self.client, id).await {
                // It may have ended this very moment: its state tells.
                tracing::debug!("job {id} could not be canceled: {}", e.full_message());
                clock.sleep(self.poll_interval).await;
            } else {
                (over.asked, over.since) = (true, elapsed);
            }
            jobs::state(self.client, id).await
        };
        match self.halt.in_grace(clock, call).await {
            Some(state) => state.map(JobUpdate::State),
            None => {
                let text = format!("SAS Viya did not say what became of job {id}: it may run there still");
                Err(Error::new(ErrorKind::Network, text))
            }
        }
    }

    /// Fetches the ended job for its time stamps, which may come a moment after its state.
    async fn finish(&self, record: &mut JobRecord, id: &str, state: State) {
        for round in 1..=5 {
            match jobs::get(self.client, id).await {
                Ok(job) => {
                    let ended = job.ended().is_some();
                    record.job = Some(job);
                    if ended || !state.is_final() {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                Err(e) => tracing::debug!("job {id} cannot be read: {e}"),
            }
            if round < 5 && !self.halt.stopped() {
                self.client.clock().sleep(1.0).await;
            }
        }
        self.judge(record, state);
    }

    fn judge(&self, record: &mut JobRecord, state: State) {
        record.status = state.as_str().into();
        if state != State::Completed {
            let why = record.job.as_ref().map(Job::error).unwrap_or_default();
            record.error = Some(if why.is_empty() { format!("it ended {}", state.as_str()) } else { why });
        }
    }
}

/// A job that is not to go on.
struct Over {
    /// The run was stopped; else it took too long.
    stopped: bool,
    /// Since when it is waited for, seconds of the server since it was submitted.
    since: f64,
    /// The server was asked to cancel it, and took that.
    asked: bool,
}

impl Over {
    fn why(&self, limit: f64) -> String {
        let asked = if self.asked { "was canceled by jobrota" } else { "could not be canceled" };
        if self.stopped {
            format!("the run was stopped; it {asked}")
        } else {
            format!("it had not ended after {limit} s and {asked}")
        }
    }
}

fn closed(_: tokio::sync::AcquireError) -> Error {
    Error::new(ErrorKind::Internal, "the run has ended already")
}

#[cfg(test)]
mod tests;
