//! What was observed: one record per job of a round, one per arm. All seconds are the server's.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::arms::Arm;
use super::correlate::Correlation;
use super::plan::JobConfig;
use crate::viya::contexts::Context;
use crate::viya::jobs::Job;
use crate::viya::orchestrator::Entry;

/// One job of one round of one arm.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// What was asked for.
    pub config: Arc<JobConfig>,
    /// The round, from 1.
    pub round: u32,
    /// Its place in the arm's round, from 1.
    pub sequence: usize,
    /// The name it was submitted under.
    pub unique_name: String,
    /// `completed`, `failed`, `canceled`, `timedOut`, or `unknown` when nobody could tell any more.
    pub status: String,
    /// Why it did not end well.
    pub error: Option<String>,
    /// The job as the server described it last; `None` when it was never accepted.
    pub job: Option<Job>,
    /// Client side: seconds until the server had accepted it.
    pub submit_latency: Option<f64>,
    /// Client side: seconds from submitting to seeing the end.
    pub observed_duration: Option<f64>,
    /// Its Workload Orchestrator entry.
    pub entry: Option<Entry>,
    /// How the entry was found.
    pub correlation: Correlation,
}

impl JobRecord {
    /// Whether it ended well.
    pub fn successful(&self) -> bool {
        self.status == "completed"
    }

    /// When the server took it.
    pub fn created(&self) -> Option<DateTime<Utc>> {
        self.job.as_ref()?.created()
    }

    /// When the server saw it end.
    pub fn ended(&self) -> Option<DateTime<Utc>> {
        self.job.as_ref()?.ended()
    }

    /// Server side: milliseconds from creation to end.
    pub fn elapsed_ms(&self) -> Option<f64> {
        let stamps = || Some((self.ended()? - self.created()?).as_seconds_f64() * 1e3);
        self.ended().and_then(|_| self.job.as_ref()?.elapsed_ms()).or_else(stamps)
    }

    /// Server side: seconds from creation to end.
    pub fn duration(&self) -> Option<f64> {
        Some(self.elapsed_ms()? / 1e3)
    }

    /// Client side: seconds by which the end was seen late.
    pub fn observe_lag(&self) -> Option<f64> {
        Some((self.observed_duration? - self.submit_latency.unwrap_or(0.0) - self.duration()?).max(0.0))
    }

    /// The host it ran on.
    pub fn host(&self) -> Option<&str> {
        self.entry.as_ref()?.host()
    }

    /// Seconds in the queue.
    pub fn pending(&self) -> Option<f64> {
        self.entry.as_ref()?.number("totalTimePending")
    }

    /// Seconds its pod took to start.
    pub fn starting(&self) -> Option<f64> {
        self.entry.as_ref()?.number("totalTimeStarting")
    }

    /// Seconds it ran.
    pub fn running(&self) -> Option<f64> {
        self.entry.as_ref()?.number("totalTimeRunning")
    }
}

/// One pass of an arm over its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Its number, from 1.
    pub number: u32,
    /// The arm's place among those of this round, from 1: who runs first finds colder hosts.
    pub order: u32,
    /// It was interrupted (broken off, or resumed later), so that its makespan says nothing.
    pub interrupted: bool,
}

/// One arm.
#[derive(Debug, Clone)]
pub struct ArmRecord {
    /// What was asked for.
    pub arm: Arm,
    /// The context as found on the server.
    pub context: Context,
    /// Its rounds in order; a run that broke off has fewer.
    pub rounds: Vec<Round>,
    /// Its jobs by round and in order; a run that broke off has fewer.
    pub jobs: Vec<JobRecord>,
}

impl ArmRecord {
    /// First creation of a job.
    pub fn start(&self) -> Option<DateTime<Utc>> {
        self.jobs.iter().filter_map(JobRecord::created).min()
    }

    /// Last end of a job.
    pub fn end(&self) -> Option<DateTime<Utc>> {
        self.jobs.iter().filter_map(JobRecord::ended).max()
    }

    /// Server side: seconds from the first creation to the last end of a round.
    pub fn round_makespan(&self, round: u32) -> Option<f64> {
        let jobs = || self.jobs.iter().filter(|job| job.round == round);
        let (start, end) = (jobs().filter_map(JobRecord::created).min()?, jobs().filter_map(JobRecord::ended).max()?);
        Some((end - start).as_seconds_f64())
    }

    /// Server side: seconds from the first creation to the last end, on average over the rounds that were not interrupted,
    /// or over all where each was.
    pub fn makespan(&self) -> Option<f64> {
        let of = |interrupted: bool| {
            let rounds = self.rounds.iter().filter(|round| interrupted || !round.interrupted);
            super::statistics::mean(&rounds.filter_map(|round| self.round_makespan(round.number)).collect::<Vec<_>>())
        };
        of(false).or_else(|| of(true))
    }

    /// Jobs that ended well.
    pub fn successful(&self) -> usize {
        self.jobs.iter().filter(|job| job.successful()).count()
    }

    /// Jobs that did not.
    pub fn failed(&self) -> usize {
        self.jobs.len() - self.successful()
    }

    /// Jobs per host, in order of host.
    pub fn hosts(&self) -> std::collections::BTreeMap<String, usize> {
        let mut hosts = std::collections::BTreeMap::new();
        for host in self.jobs.iter().filter_map(JobRecord::host) {
            *hosts.entry(host.to_owned()).or_insert(0) += 1;
        }
        hosts
    }

    /// The queues its jobs were in; normally one.
    pub fn queues(&self) -> Vec<String> {
        let mut queues: Vec<String> =
            self.jobs.iter().filter_map(|job| job.entry.as_ref()?.queue()).map(str::to_owned).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }
}
