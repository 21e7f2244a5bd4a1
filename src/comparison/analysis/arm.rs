//! The figures of one arm, from server-side phases. Client-side figures are separate.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::concurrency::{ConcurrencyPoint, concurrency_points};
use super::hosts::{HostArrivals, HostFigures};
use super::run::{ArmPlan, JobRow, RunData};
use crate::comparison::statistics::{SummaryStats, counts};

/// One arm, over all its rounds. Seconds are those of the server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmFigures {
    /// The arm.
    pub arm: String,
    /// Complete rounds.
    pub rounds: usize,
    /// Jobs of all rounds.
    pub jobs: usize,
    /// Jobs that completed.
    pub completed: usize,
    /// Jobs that did not complete.
    pub failed: usize,
    /// Jobs that did not complete, by state.
    pub failures: BTreeMap<String, usize>,
    /// From the first creation to the last end, of complete rounds.
    pub makespan_s: Option<SummaryStats>,
    /// The makespan of each complete round.
    pub makespans_s: Vec<f64>,
    /// The same, with the number of the round.
    #[serde(skip)]
    pub makespans: Vec<(i64, f64)>,
    /// Completed jobs per hour of makespan, in complete rounds.
    pub throughput_per_hour: Option<f64>,
    /// The most jobs on hosts at the same time.
    pub peak_concurrency: Option<usize>,
    /// The mean number of jobs on hosts over the makespan, in complete rounds.
    pub mean_concurrency: Option<f64>,
    /// Time in the queue.
    pub pending_s: Option<SummaryStats>,
    /// Time in which pods started.
    pub starting_s: Option<SummaryStats>,
    /// Time in which jobs ran.
    pub running_s: Option<SummaryStats>,
    /// From the orchestrator's end to the Job Execution Service's.
    pub finish_lag_s: Option<SummaryStats>,
    /// Client side: from the end of a job until it was seen.
    pub observe_lag_s: Option<SummaryStats>,
    /// Starts that waited for an image.
    pub starting_cold_s: Option<SummaryStats>,
    /// All other starts.
    pub starting_warm_s: Option<SummaryStats>,
    /// The number of starts that waited for an image.
    pub cold_starts: usize,
    /// From the arm's first submission of a round to the first start on a new host; `None` if there was no new host.
    pub scale_up_s: Option<f64>,
    /// Hosts that no arm had used before. For the first arm of a run: hosts that were added while it ran.
    pub new_hosts: Vec<String>,
    /// The ratio of running seconds to CPU seconds of a job.
    pub running_to_cpu: Option<SummaryStats>,
    /// The sum of CPU seconds.
    pub cpu_s: Option<f64>,
    /// The sum of running seconds.
    pub running_s_sum: Option<f64>,
    /// Seconds that hosts were held: for each host and round, from the first start to the last end.
    pub host_seconds: Option<f64>,
    /// The share of `host_seconds` in which a job was on the host.
    pub busy_share: Option<f64>,
    /// Host-seconds per job.
    pub host_seconds_per_job: Option<f64>,
    /// The cost of `host_seconds`, if a price was given.
    pub cost: Option<f64>,
    /// The cost per job.
    pub cost_per_job: Option<f64>,
    /// Jain's index of the jobs' slowdowns, (pending + starting + running) / running: 1 if all jobs were slowed down equally.
    pub fairness: Option<f64>,
    /// How often the orchestrator restarted jobs.
    pub requeued: i64,
    /// Seconds that jobs were suspended.
    pub suspended_s: f64,
    /// The figures of each host.
    pub hosts: Vec<HostFigures>,
    /// Jobs on hosts and held hosts over time, round by round.
    pub concurrency: Vec<ConcurrencyPoint>,
}

impl ArmFigures {
    /// The figures of `plan`.
    pub fn of(run: &RunData, plan: &ArmPlan, arrivals: &HostArrivals) -> Self {
        let jobs: Vec<&JobRow> = run.of(&plan.name).collect();
        let spread = |of: fn(&JobRow) -> Option<f64>| SummaryStats::of(jobs.iter().filter_map(|job| of(job)));
        let sum = |of: fn(&JobRow) -> Option<f64>| jobs.iter().filter_map(|job| of(job)).reduce(|a, b| a + b);
        let starts = |cold: bool| {
            let those = jobs.iter().filter(move |job| arrivals.is_cold(job) == Some(cold));
            SummaryStats::of(those.filter_map(|job| job.starting_s))
        };
        let makespans = run.makespans(plan);
        let makespans_s: Vec<f64> = makespans.iter().map(|(_, seconds)| *seconds).collect();
        let total: f64 = makespans_s.iter().sum();
        // Figures relative to the makespan need the same rounds.
        let complete: BTreeSet<i64> = makespans.iter().map(|(round, _)| *round).collect();
        let in_complete = || jobs.iter().filter(|job| complete.contains(&job.round));
        let completed = jobs.iter().filter(|job| job.completed()).count();
        let concurrency = concurrency_points(&jobs);
        let hosts = arrivals.figures(&jobs);
        let held: f64 = hosts.iter().map(|host| host.held_s).sum();
        let new = arrivals.new_hosts(jobs.iter().copied());
        let scale_up = new.first().and_then(|(name, _)| hosts.iter().find(|host| host.host == *name)?.new_after_s);
        let known = !concurrency.is_empty();
        let cost = run.host_price.filter(|_| known).map(|price| held / 3600.0 * price);
        let per_job = |whole: f64| (!jobs.is_empty()).then(|| whole / jobs.len() as f64);
        Self {
            arm: plan.name.clone(),
            rounds: makespans.len(),
            jobs: jobs.len(),
            completed,
            failed: jobs.len() - completed,
            failures: counts(jobs.iter().filter(|job| !job.completed()).map(|job| job.state.clone())),
            makespan_s: SummaryStats::of(makespans_s.iter().copied()),
            throughput_per_hour: (total > 0.0)
                .then(|| in_complete().filter(|job| job.completed()).count() as f64 / total * 3600.0),
            peak_concurrency: concurrency.iter().map(|point| point.jobs).max(),
            mean_concurrency: (total > 0.0 && known).then(|| {
                in_complete().filter_map(|job| job.on_host()).map(|(start, end)| end - start).sum::<f64>() / total
            }),
            makespans_s,
            makespans,
            pending_s: spread(|job| job.pending_s),
            starting_s: spread(|job| job.starting_s),
            running_s: spread(|job| job.running_s),
            finish_lag_s: spread(JobRow::finish_lag),
            observe_lag_s: spread(|job| job.observe_lag_s),
            starting_cold_s: starts(true),
            starting_warm_s: starts(false),
            cold_starts: jobs.iter().filter(|job| arrivals.is_cold(job) == Some(true)).count(),
            scale_up_s: scale_up,
            new_hosts: new.into_iter().map(|(host, _)| host).collect(),
            running_to_cpu: spread(JobRow::running_to_cpu),
            cpu_s: sum(|job| job.max_cpu_s),
            running_s_sum: sum(|job| job.running_s),
            host_seconds: known.then_some(held),
            busy_share: (held > 0.0).then(|| hosts.iter().map(|host| host.busy_s).sum::<f64>() / held),
            host_seconds_per_job: per_job(held).filter(|_| known),
            cost,
            cost_per_job: cost.and_then(per_job),
            fairness: fairness(&jobs),
            requeued: jobs.iter().filter_map(|job| job.requeue_count).sum(),
            suspended_s: jobs.iter().filter_map(|job| job.suspended_s).sum(),
            hosts,
            concurrency,
        }
    }
}

/// Jain's index: (Σx)² / (n·Σx²).
fn fairness(jobs: &[&JobRow]) -> Option<f64> {
    let slowdowns: Vec<f64> = jobs
        .iter()
        .filter_map(|job| {
            let running = job.running_s.filter(|seconds| *seconds > 0.0)?;
            Some((job.pending_s? + job.starting_s? + running) / running)
        })
        .collect();
    let (sum, squares) = slowdowns.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    (squares > 0.0).then(|| sum * sum / (slowdowns.len() as f64 * squares))
}
