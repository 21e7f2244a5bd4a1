//! The input of the analysis: a flat row for each job, and the plan of each arm.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::comparison::arms::SubmissionMode;
use crate::comparison::statistics::counts;

/// One job of one round of one arm, with the columns of a recorded run in their order. Times are seconds since the first
/// submission of the run. Unknown values are `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobRow {
    /// The arm.
    pub arm: String,
    /// Its position in the arm's round, from 1.
    pub sequence: i64,
    /// Its name.
    pub job: String,
    /// The compute context that it ran in.
    pub context: Option<String>,
    /// The queue of the orchestrator that it was in.
    pub queue: Option<String>,
    /// The host that it ran on.
    pub host: Option<String>,
    /// `completed`, `failed`, `canceled`, `timedOut` or `unknown`.
    pub state: String,
    /// Job Execution Service: when it accepted the job.
    pub jes_created_s: Option<f64>,
    /// Job Execution Service: when it saw the end of the job.
    pub jes_end_s: Option<f64>,
    /// Job Execution Service: milliseconds between the two.
    pub jes_elapsed_ms: Option<i64>,
    /// Client: seconds from the submission until its end was seen.
    pub client_duration_s: Option<f64>,
    /// Orchestrator: the id of the job, relative to the first of the run.
    pub wlo_id: Option<i64>,
    /// Orchestrator: when the job entered the queue.
    pub wlo_submit_s: Option<f64>,
    /// Orchestrator: when it was assigned to a host, before its pod started.
    pub wlo_start_s: Option<f64>,
    /// Orchestrator: when it ended.
    pub wlo_end_s: Option<f64>,
    /// Seconds in the queue.
    pub pending_s: Option<f64>,
    /// Seconds that its pod took to start.
    pub starting_s: Option<f64>,
    /// Seconds that it ran.
    pub running_s: Option<f64>,
    /// Reserved cores.
    pub reserved_cores: Option<f64>,
    /// Reserved memory, MB.
    pub reserved_memory: Option<f64>,
    /// Used CPU seconds.
    pub max_cpu_s: Option<f64>,
    /// Seconds that its process existed.
    pub max_clock_s: Option<f64>,
    /// Used memory, GB.
    pub max_memory: Option<f64>,
    /// Bytes read and written, MB.
    pub max_io_total: Option<f64>,
    /// The most bytes read and written per second.
    pub max_io_rate: Option<f64>,
    /// The most page faults per second.
    pub max_page_rate: Option<f64>,
    /// The round, from 1.
    pub round: i64,
    /// How its orchestrator entry was found: `exact`, `time` or `none`.
    pub correlation: Option<String>,
    /// Client: seconds until the server accepted it.
    pub submit_latency_s: Option<f64>,
    /// Client: seconds between its end and the moment when its end was seen.
    pub observe_lag_s: Option<f64>,
    /// How often the orchestrator restarted it.
    pub requeue_count: Option<i64>,
    /// Seconds that it was suspended.
    pub suspended_s: Option<f64>,
    /// Why it did not complete.
    pub error: Option<String>,
    /// The name that it was submitted under.
    pub unique_name: Option<String>,
    /// Its id in the Job Execution Service.
    pub job_id: Option<String>,
}

impl JobRow {
    /// The row with all numbers rounded to microseconds, as in a result file, so that a loaded result has the same figures.
    pub fn rounded(mut self) -> Self {
        macro_rules! round {
            ($($name:ident),* $(,)?) => { $(self.$name = self.$name.map(microseconds);)* };
        }
        round! {
            jes_created_s, jes_end_s, client_duration_s, wlo_submit_s, wlo_start_s, wlo_end_s, pending_s, starting_s,
            running_s, reserved_cores, reserved_memory, max_cpu_s, max_clock_s, max_memory, max_io_total, max_io_rate,
            max_page_rate, submit_latency_s, observe_lag_s, suspended_s,
        }
        self
    }

    /// Whether it completed.
    pub fn completed(&self) -> bool {
        self.state == "completed"
    }

    /// The times at which it was assigned to a host and left it.
    pub fn on_host(&self) -> Option<(f64, f64)> {
        let start = self.wlo_start_s?;
        let busy = || Some(start + self.starting_s? + self.running_s?);
        Some((start, self.wlo_end_s.or_else(busy)?.max(start)))
    }

    /// Seconds in the queue, as the orchestrator measured them, or from the submission to the start.
    pub fn waited(&self) -> Option<f64> {
        self.pending_s.or_else(|| Some((self.wlo_start_s? - self.wlo_submit_s.or(self.jes_created_s)?).max(0.0)))
    }

    /// Running seconds for each CPU second: slightly above 1 for a job that does not share its core.
    pub fn running_to_cpu(&self) -> Option<f64> {
        let cpu = self.max_cpu_s.filter(|cpu| *cpu > 0.0)?;
        Some(self.running_s? / cpu)
    }

    /// Seconds from the orchestrator's end to the Job Execution Service's.
    pub fn finish_lag(&self) -> Option<f64> {
        Some(self.jes_end_s? - self.wlo_end_s?)
    }
}

/// `value` rounded to microseconds, to remove the noise of binary fractions. Very large numbers stay as they are.
pub fn microseconds(value: f64) -> f64 {
    if value.abs() < 1e9 { (value * 1e6).round() / 1e6 } else { value }
}

/// The plan of an arm.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ArmPlan {
    /// Its name.
    pub name: String,
    /// The compute context for its jobs.
    pub context: Option<String>,
    /// The queue of that context.
    pub queue: Option<String>,
    /// How its jobs were submitted; `None` for a run that was recorded elsewhere.
    pub mode: Option<SubmissionMode>,
    /// The most jobs in flight.
    pub concurrent: Option<usize>,
    /// Interrupted rounds. Their makespans are not comparable.
    pub interrupted: Vec<i64>,
}

impl ArmPlan {
    /// Whether it runs one job at a time.
    pub fn is_sequential(&self) -> bool {
        self.mode == Some(SubmissionMode::Sequential) || self.concurrent == Some(1)
    }
}

/// A run: its arms, its jobs, and what went wrong.
#[derive(Debug, Clone, Default)]
pub struct RunData {
    /// The arms in the order of the first round.
    pub arms: Vec<ArmPlan>,
    /// The jobs, by arm, round and sequence.
    pub job_rows: Vec<JobRow>,
    /// The price of an hour of a host.
    pub host_price: Option<f64>,
    /// Why the run is incomplete, if it is.
    pub broke_off: Option<String>,
    /// Why the orchestrator could not be read, if it failed.
    pub orchestrator_problem: Option<String>,
    /// Unique names that more than one entry of the orchestrator has.
    pub submitted_twice: BTreeSet<String>,
    /// How often it was resumed.
    pub resumed: u32,
}

impl RunData {
    /// The jobs of an arm.
    pub fn of<'a>(&'a self, arm: &'a str) -> impl Iterator<Item = &'a JobRow> + Clone {
        self.job_rows.iter().filter(move |job| job.arm == arm)
    }

    /// Whether the orchestrator has more than one entry with the name of the job.
    pub fn is_submitted_twice(&self, job: &JobRow) -> bool {
        job.unique_name.as_ref().is_some_and(|name| self.submitted_twice.contains(name))
    }

    /// The complete rounds of an arm: number and makespan, by the timestamps of the Job Execution Service.
    pub fn makespans(&self, arm: &ArmPlan) -> Vec<(i64, f64)> {
        /// First creation, last end and number of jobs of a round.
        type RoundSpan = (f64, f64, usize);
        let mut rounds: BTreeMap<i64, RoundSpan> = BTreeMap::new();
        for job in self.of(&arm.name) {
            let (Some(start), Some(end)) = (job.jes_created_s, job.jes_end_s) else { continue };
            let span = rounds.entry(job.round).or_insert((start, end, 0));
            *span = (span.0.min(start), span.1.max(end), span.2 + 1);
        }
        // A round that lost jobs is shorter for that reason: complete rounds have the most frequent number of jobs.
        let counts = counts(rounds.values().map(|(.., jobs)| *jobs));
        let usual = counts.into_iter().max_by_key(|(jobs, rounds)| (*rounds, *jobs)).map_or(0, |(jobs, _)| jobs);
        let complete = |(round, span): &(i64, RoundSpan)| span.2 == usual && !arm.interrupted.contains(round);
        rounds.into_iter().filter(complete).map(|(round, (start, end, _))| (round, end - start)).collect()
    }

    /// The context with a fixed set of hosts: that of the first sequential arm, or, with more than one context, that of the
    /// first arm without "scaling" in its names.
    pub fn fixed_context(&self) -> Option<&str> {
        let scales = |arm: &ArmPlan| {
            let names = [Some(&arm.name), arm.context.as_ref(), arm.queue.as_ref()];
            names.into_iter().flatten().any(|name| name.to_ascii_lowercase().contains("scaling"))
        };
        let several = self.arms.windows(2).any(|two| two[0].context != two[1].context);
        let sequential = self.arms.iter().find(|arm| arm.is_sequential());
        sequential.or_else(|| self.arms.iter().find(|arm| several && !scales(arm)))?.context.as_deref()
    }
}
