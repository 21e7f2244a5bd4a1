//! What an analysis begins with: jobs as they were observed, in flat rows, and the arms they belong to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::comparison::arms::Mode;

/// One job of one round of one arm, with the columns of a recorded run and in their order. Moments are seconds since the
/// run's first submission; what is not known is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// The arm.
    pub arm: String,
    /// Its place in the arm's round, from 1.
    pub sequence: i64,
    /// What people call it.
    pub job: String,
    /// The compute context it ran in.
    pub context: Option<String>,
    /// The orchestrator's queue it was in.
    pub queue: Option<String>,
    /// The host it ran on.
    pub host: Option<String>,
    /// `completed`, `failed`, `canceled`, `timedOut` or `unknown`.
    pub state: String,
    /// Job Execution Service: when it took the job.
    pub jes_created_s: Option<f64>,
    /// Job Execution Service: when it saw the job end.
    pub jes_end_s: Option<f64>,
    /// Job Execution Service: milliseconds from one to the other.
    pub jes_elapsed_ms: Option<i64>,
    /// Client: seconds from submitting to seeing the end.
    pub client_duration_s: Option<f64>,
    /// Orchestrator: the job's number, relative to the run's first.
    pub wlo_id: Option<i64>,
    /// Orchestrator: when the job entered the queue.
    pub wlo_submit_s: Option<f64>,
    /// Orchestrator: when it was given to a host; its pod still has to start.
    pub wlo_start_s: Option<f64>,
    /// Orchestrator: when it ended.
    pub wlo_end_s: Option<f64>,
    /// Seconds in the queue.
    pub pending_s: Option<f64>,
    /// Seconds its pod took to start.
    pub starting_s: Option<f64>,
    /// Seconds it ran.
    pub running_s: Option<f64>,
    /// Cores that were reserved, not used.
    pub reserved_cores: Option<f64>,
    /// Memory that was reserved, MB.
    pub reserved_memory: Option<f64>,
    /// CPU seconds it used.
    pub max_cpu_s: Option<f64>,
    /// Seconds of its process.
    pub max_clock_s: Option<f64>,
    /// Memory it used, GB.
    pub max_memory: Option<f64>,
    /// What it read and wrote, MB.
    pub max_io_total: Option<f64>,
    /// Bytes per second at most.
    pub max_io_rate: Option<f64>,
    /// Page faults per second at most.
    pub max_page_rate: Option<f64>,
    /// The round, from 1.
    pub round: i64,
    /// How its orchestrator entry was found: `exact`, `time` or `none`.
    pub correlation: Option<String>,
    /// Client: seconds until the server had accepted it.
    pub submit_latency_s: Option<f64>,
    /// Client: seconds by which the end was seen late.
    pub observe_lag_s: Option<f64>,
    /// How often the orchestrator started it again.
    pub requeue_count: Option<i64>,
    /// Seconds it was suspended.
    pub suspended_s: Option<f64>,
    /// Why it did not end well.
    pub error: Option<String>,
    /// The name it was submitted under.
    pub unique_name: Option<String>,
    /// The id that the Job Execution Service gave it.
    pub job_id: Option<String>,
}

impl Observation {
    /// The same with all numbers to the microsecond, which is what a result keeps of them: whoever reads it back finds the
    /// same figures.
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

    /// Whether it ended well.
    pub fn completed(&self) -> bool {
        self.state == "completed"
    }

    /// When it was given to a host and when it left it.
    pub fn on_host(&self) -> Option<(f64, f64)> {
        let start = self.wlo_start_s?;
        let busy = || Some(start + self.starting_s? + self.running_s?);
        Some((start, self.wlo_end_s.or_else(busy)?.max(start)))
    }

    /// Seconds in the queue: the orchestrator's, else from the submission to the start.
    pub fn waited(&self) -> Option<f64> {
        self.pending_s.or_else(|| Some((self.wlo_start_s? - self.wlo_submit_s.or(self.jes_created_s)?).max(0.0)))
    }

    /// How long it ran for each second of CPU: 1 and a little for a job that has a core of its own.
    pub fn running_to_cpu(&self) -> Option<f64> {
        let cpu = self.max_cpu_s.filter(|cpu| *cpu > 0.0)?;
        Some(self.running_s? / cpu)
    }

    /// Seconds from the orchestrator's end to the Job Execution Service's.
    pub fn finish_lag(&self) -> Option<f64> {
        Some(self.jes_end_s? - self.wlo_end_s?)
    }
}

/// `value` to the microsecond: the rest is the noise of binary fractions. Of very large numbers nothing is taken.
pub fn microseconds(value: f64) -> f64 {
    if value.abs() < 1e9 { (value * 1e6).round() / 1e6 } else { value }
}

/// What an arm was meant to be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ArmPlan {
    /// What people call it.
    pub name: String,
    /// The compute context its jobs were to run in.
    pub context: Option<String>,
    /// The queue of that context.
    pub queue: Option<String>,
    /// How its jobs were let in; of a run recorded elsewhere it is not known.
    pub mode: Option<Mode>,
    /// Jobs in flight at most.
    pub concurrent: Option<usize>,
    /// Rounds that were interrupted: their makespans say nothing.
    pub interrupted: Vec<i64>,
}

impl ArmPlan {
    /// Whether it runs one job at a time.
    pub fn is_sequential(&self) -> bool {
        match self.mode {
            Some(mode) => mode == Mode::Sequential || self.concurrent == Some(1),
            None => self.concurrent == Some(1),
        }
    }
}

/// All that is known of a run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The arms in the order of the first round.
    pub arms: Vec<ArmPlan>,
    /// The jobs, by arm, round and sequence.
    pub observations: Vec<Observation>,
    /// What an hour of a host costs.
    pub host_price: Option<f64>,
    /// Why the run is incomplete, if it is.
    pub broke_off: Option<String>,
    /// Why the orchestrator could not be read, if so.
    pub orchestrator_problem: Option<String>,
    /// Unique names that several entries of the orchestrator have.
    pub submitted_twice: BTreeSet<String>,
    /// How often it was interrupted and resumed.
    pub resumed: u32,
}

impl Run {
    /// The jobs of an arm.
    pub fn of<'a>(&'a self, arm: &'a str) -> impl Iterator<Item = &'a Observation> + Clone {
        self.observations.iter().filter(move |job| job.arm == arm)
    }

    /// Whether the orchestrator has several entries of the job's name.
    pub fn is_submitted_twice(&self, job: &Observation) -> bool {
        job.unique_name.as_ref().is_some_and(|name| self.submitted_twice.contains(name))
    }

    /// The rounds that an arm did to their end: number and makespan, by the stamps of the Job Execution Service.
    pub fn makespans(&self, arm: &ArmPlan) -> Vec<(i64, f64)> {
        let mut rounds: Vec<(i64, f64, f64, usize)> = Vec::new();
        for job in self.of(&arm.name) {
            let (Some(start), Some(end)) = (job.jes_created_s, job.jes_end_s) else { continue };
            match rounds.iter_mut().find(|round| round.0 == job.round) {
                Some(round) => (round.1, round.2, round.3) = (round.1.min(start), round.2.max(end), round.3 + 1),
                None => rounds.push((job.round, start, end, 1)),
            }
        }
        // A round that lost jobs was shorter for that reason alone: whole rounds have as many as most rounds do.
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for round in &rounds {
            *counts.entry(round.3).or_insert(0) += 1;
        }
        let usual = counts.into_iter().max_by_key(|(jobs, rounds)| (*rounds, *jobs)).map_or(0, |(jobs, _)| jobs);
        let whole = |round: &&(i64, f64, f64, usize)| round.3 == usual && !arm.interrupted.contains(&round.0);
        let mut whole: Vec<(i64, f64)> =
            rounds.iter().filter(whole).map(|round| (round.0, round.2 - round.1)).collect();
        whole.sort_by_key(|round| round.0);
        whole
    }

    /// The context that arms are meant to compare with: that of the first arm that runs one job at a time, else, where
    /// there are several, that of the first arm that is not called autoscaling.
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
