//! The records of a run: one for each job of a round, one for each arm. All seconds are those of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::analysis::{ArmPlan, JobRow, RunData};
use super::arms::Arm;
use super::job_configs::JobConfig;
use super::statistics::{counts, mean};
use crate::viya::contexts::Context;
use crate::viya::jobs::Job;
use crate::viya::orchestrator::OrchestratorEntry;

/// How the orchestrator entry of a job was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Correlation {
    /// By its name, `<unique name>-<uuid>`.
    Exact,
    /// The only entry of the same time (within 3 s), queue and user, on servers that do not pass on the name.
    Time,
    /// Not found.
    None,
}

/// One job of one round of one arm.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// Its configuration.
    pub config: Arc<JobConfig>,
    /// The round, from 1.
    pub round: u32,
    /// Its position in the arm's round, from 1.
    pub sequence: usize,
    /// The name that it was submitted under.
    pub unique_name: String,
    /// `completed`, `failed`, `canceled`, `timedOut` or `unknown`.
    pub status: String,
    /// Why it did not complete.
    pub error: Option<String>,
    /// The last description of the job by the server; `None` when it was never accepted.
    pub job: Option<Job>,
    /// Client side: seconds until the server accepted it.
    pub submit_latency: Option<f64>,
    /// Client side: seconds from the submission until its end was seen.
    pub observed_duration: Option<f64>,
    /// Its Workload Orchestrator entry.
    pub entry: Option<OrchestratorEntry>,
    /// How the entry was found.
    pub correlation: Correlation,
}

impl JobRecord {
    /// When the server accepted it.
    pub fn created(&self) -> Option<DateTime<Utc>> {
        self.job.as_ref()?.created()
    }

    /// When the job service saw its end.
    pub fn ended(&self) -> Option<DateTime<Utc>> {
        self.job.as_ref()?.ended()
    }

    /// Server side: milliseconds from creation to end.
    pub fn elapsed_ms(&self) -> Option<f64> {
        let ended = self.ended()?;
        self.job.as_ref()?.elapsed_ms().or_else(|| Some((ended - self.created()?).as_seconds_f64() * 1e3))
    }

    /// Server side: seconds from creation to end.
    pub fn duration(&self) -> Option<f64> {
        Some(self.elapsed_ms()? / 1e3)
    }

    /// Client side: seconds between its end and the moment when its end was seen.
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

    /// Seconds that its pod took to start.
    pub fn starting(&self) -> Option<f64> {
        self.entry.as_ref()?.number("totalTimeStarting")
    }

    /// Seconds that it ran.
    pub fn running(&self) -> Option<f64> {
        self.entry.as_ref()?.number("totalTimeRunning")
    }
}

/// One pass of an arm over its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundRecord {
    /// Its number, from 1.
    pub number: u32,
    /// The position of the arm in this round, from 1. Earlier arms find colder hosts.
    pub order: u32,
    /// Whether it ended early or was resumed later. Its makespan is then not comparable.
    pub interrupted: bool,
}

/// One arm.
#[derive(Debug, Clone)]
pub struct ArmRecord {
    /// Its plan.
    pub arm: Arm,
    /// Its context on the server.
    pub context: Context,
    /// Its rounds in order. A run that ended early has fewer.
    pub rounds: Vec<RoundRecord>,
    /// Its jobs by round and in order. A run that ended early has fewer.
    pub jobs: Vec<JobRecord>,
}

impl ArmRecord {
    /// Server side: seconds from the first creation to the last end of a round.
    pub fn round_makespan(&self, round: u32) -> Option<f64> {
        let jobs = || self.jobs.iter().filter(|job| job.round == round);
        let (start, end) = (jobs().filter_map(JobRecord::created).min()?, jobs().filter_map(JobRecord::ended).max()?);
        Some((end - start).as_seconds_f64())
    }

    /// Server side: seconds from the first creation to the last end, as the mean of the rounds that were not interrupted. In others,
    /// nothing ran for a part of the time.
    pub fn makespan(&self) -> Option<f64> {
        let rounds = self.rounds.iter().filter(|round| !round.interrupted);
        mean(&rounds.filter_map(|round| self.round_makespan(round.number)).collect::<Vec<_>>())
    }

    /// The number of jobs that completed.
    pub fn successful(&self) -> usize {
        self.jobs.iter().filter(|job| job.status == "completed").count()
    }

    /// The number of jobs by host.
    pub fn hosts(&self) -> BTreeMap<&str, usize> {
        counts(self.jobs.iter().filter_map(JobRecord::host))
    }

    /// The queues that its jobs were in; normally one.
    pub fn queues(&self) -> BTreeSet<&str> {
        self.jobs.iter().filter_map(|job| job.entry.as_ref()?.queue()).collect()
    }
}

/// The run as the analysis takes it: the arms in their order, and a row for each job. Times are seconds since the first
/// creation of a job.
pub(super) fn run_data(records: &[ArmRecord]) -> RunData {
    let jobs = || records.iter().flat_map(|arm| &arm.jobs);
    let zero = jobs().filter_map(JobRecord::created).min();
    let first_id = jobs().filter_map(|job| job.entry.as_ref()?.id).min();
    let plan = |record: &ArmRecord| ArmPlan {
        name: record.arm.name.clone(),
        context: Some(record.arm.context.clone()),
        queue: record.context.queue.clone(),
        mode: Some(record.arm.mode),
        concurrent: Some(record.arm.in_flight(record.jobs.iter().map(|job| job.sequence).max().unwrap_or(0))),
        interrupted: record.rounds.iter().filter(|round| round.interrupted).map(|round| round.number.into()).collect(),
    };
    let rows = records.iter().flat_map(|arm| arm.jobs.iter().map(move |job| job_row(arm, job, zero, first_id)));
    RunData { arms: records.iter().map(plan).collect(), job_rows: rows.collect(), ..RunData::default() }
}

fn job_row(arm: &ArmRecord, job: &JobRecord, zero: Option<DateTime<Utc>>, first_id: Option<i64>) -> JobRow {
    let since = |at: Option<DateTime<Utc>>| Some((at? - zero?).as_seconds_f64());
    let (entry, server) = (job.entry.as_ref(), job.job.as_ref());
    let measured = |name: &str| entry?.measured(name);
    let reserved = |name: &str| entry?.reserved(name);
    let suspended = ["totalTimeSuspAdmin", "totalTimeSuspThresh", "totalTimeSuspPreempt"];
    JobRow {
        arm: arm.arm.name.clone(),
        sequence: i64::try_from(job.sequence).unwrap_or(i64::MAX),
        job: job.config.name.clone(),
        // As the server returns it. The requested context is in the plan of the arm.
        context: server.and_then(|server| server.result("COMPUTE_CONTEXT")).map(str::to_owned),
        queue: entry.and_then(|entry| entry.queue()).map(str::to_owned),
        host: job.host().map(str::to_owned),
        state: job.status.clone(),
        jes_created_s: since(job.created()),
        jes_end_s: since(job.ended()),
        jes_elapsed_ms: job.elapsed_ms().map(|ms| ms.round() as i64),
        client_duration_s: job.observed_duration,
        wlo_id: entry.and_then(|entry| Some(entry.id? - first_id?)),
        wlo_submit_s: since(entry.and_then(|entry| entry.submitted())),
        wlo_start_s: since(entry.and_then(|entry| entry.started())),
        wlo_end_s: since(entry.and_then(|entry| entry.ended())),
        pending_s: job.pending(),
        starting_s: job.starting(),
        running_s: job.running(),
        reserved_cores: reserved("cores"),
        reserved_memory: reserved("memory"),
        max_cpu_s: measured("maxCpuTime"),
        max_clock_s: measured("maxClockTime"),
        max_memory: measured("maxMemory"),
        max_io_total: measured("maxIoTotal"),
        max_io_rate: measured("maxIoRate"),
        max_page_rate: measured("maxPageRate"),
        round: i64::from(job.round),
        correlation: server.map(|_| job.correlation.to_string()),
        submit_latency_s: job.submit_latency,
        observe_lag_s: job.observe_lag(),
        requeue_count: entry.and_then(|entry| entry.number("requeueCount")).map(|count| count as i64),
        suspended_s: entry.map(|entry| suspended.iter().filter_map(|name| entry.number(name)).sum()),
        error: job.error.clone(),
        unique_name: Some(job.unique_name.clone()),
        job_id: server.map(|server| server.id().to_owned()),
    }
    .rounded()
}
