//! The figures of one arm, from server-side phases; what the client saw is kept apart.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::hosts::{Arrivals, HostFigures};
use super::moments::{Moment, moments};
use super::observation::{ArmPlan, Observation, Run};
use super::spread::Spread;

/// One arm, over all its rounds. Seconds are the server's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmFigures {
    /// The arm.
    pub arm: String,
    /// Rounds that it did to their end.
    pub rounds: usize,
    /// Jobs, over all rounds.
    pub jobs: usize,
    /// Those that ended well.
    pub completed: usize,
    /// Those that did not.
    pub failed: usize,
    /// Those, by how they ended.
    pub failures: BTreeMap<String, usize>,
    /// From the first creation to the last end of a round.
    pub makespan_s: Option<Spread>,
    /// The same, of each round.
    pub makespans_s: Vec<f64>,
    /// The same with the round's number.
    #[serde(skip)]
    pub makespans: Vec<(i64, f64)>,
    /// Jobs that ended well per hour of makespan, of the rounds that were done to their end.
    pub throughput_per_hour: Option<f64>,
    /// Most jobs on hosts at a time, in whichever round.
    pub peak_concurrency: Option<usize>,
    /// Jobs on hosts on average over the makespan, of the rounds that were done to their end.
    pub mean_concurrency: Option<f64>,
    /// In the queue.
    pub pending_s: Option<Spread>,
    /// Start of pods.
    pub starting_s: Option<Spread>,
    /// Running.
    pub running_s: Option<Spread>,
    /// From the orchestrator's end to the Job Execution Service's.
    pub finish_lag_s: Option<Spread>,
    /// Client side: by how much ends were seen late.
    pub observe_lag_s: Option<Spread>,
    /// Starts that had to wait for an image.
    pub starting_cold_s: Option<Spread>,
    /// The other starts.
    pub starting_warm_s: Option<Spread>,
    /// How many had to wait for an image.
    pub cold_starts: usize,
    /// From the arm's first submission of a round to the first start on a host that had not been seen before; none when
    /// there was no such host.
    pub scale_up_s: Option<f64>,
    /// Hosts that no arm had used before; of the run's first arm, those that came while it ran.
    pub new_hosts: Vec<String>,
    /// Running over CPU seconds, of each job.
    pub running_to_cpu: Option<Spread>,
    /// CPU seconds.
    pub cpu_s: Option<f64>,
    /// Seconds of running.
    pub running_s_sum: Option<f64>,
    /// Seconds that hosts were held: of each host and round from the first start to the last end.
    pub host_seconds: Option<f64>,
    /// The share of these in which a job was there.
    pub busy_share: Option<f64>,
    /// Host-seconds per job.
    pub host_seconds_per_job: Option<f64>,
    /// What the host-seconds cost, where a price was given.
    pub cost: Option<f64>,
    /// The same per job.
    pub cost_per_job: Option<f64>,
    /// Jain's index of the jobs' slowdowns, (pending + starting + running) / running: 1 when all were slowed down alike.
    pub fairness: Option<f64>,
    /// How often the orchestrator started jobs again.
    pub requeued: i64,
    /// Seconds that jobs were suspended.
    pub suspended_s: f64,
    /// By host.
    pub hosts: Vec<HostFigures>,
    /// Jobs on hosts, and hosts that are held, over time: round by round the moments of change, with the numbers from then on.
    pub concurrency: Vec<Moment>,
}

impl ArmFigures {
    /// The figures of `plan`.
    pub fn of(run: &Run, plan: &ArmPlan, arrivals: &Arrivals) -> Self {
        let jobs: Vec<&Observation> = run.of(&plan.name).collect();
        let spread = |of: fn(&Observation) -> Option<f64>| Spread::of(jobs.iter().filter_map(|job| of(job)));
        let sum = |of: fn(&Observation) -> Option<f64>| jobs.iter().filter_map(|job| of(job)).reduce(|a, b| a + b);
        let starts = |cold: bool| {
            let those = jobs.iter().filter(move |job| arrivals.is_cold(job) == Some(cold));
            Spread::of(those.filter_map(|job| job.starting_s))
        };
        let makespans = run.makespans(plan);
        let makespans_s: Vec<f64> = makespans.iter().map(|(_, seconds)| *seconds).collect();
        let total: f64 = makespans_s.iter().sum();
        // What is measured against the makespan has to be of the same rounds.
        let whole: BTreeSet<i64> = makespans.iter().map(|(round, _)| *round).collect();
        let in_whole = || jobs.iter().filter(|job| whole.contains(&job.round));
        let completed = jobs.iter().filter(|job| job.completed()).count();
        let mut failures = BTreeMap::new();
        for job in jobs.iter().filter(|job| !job.completed()) {
            *failures.entry(job.state.clone()).or_insert(0) += 1;
        }
        let concurrency = moments(&jobs);
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
            failures,
            makespan_s: Spread::of(makespans_s.iter().copied()),
            throughput_per_hour: (total > 0.0)
                .then(|| in_whole().filter(|job| job.completed()).count() as f64 / total * 3600.0),
            peak_concurrency: concurrency.iter().map(|moment| moment.jobs).max(),
            mean_concurrency: (total > 0.0 && known).then(|| {
                in_whole().filter_map(|job| job.on_host()).map(|(start, end)| end - start).sum::<f64>() / total
            }),
            makespans_s,
            makespans,
            pending_s: spread(|job| job.pending_s),
            starting_s: spread(|job| job.starting_s),
            running_s: spread(|job| job.running_s),
            finish_lag_s: spread(Observation::finish_lag),
            observe_lag_s: spread(|job| job.observe_lag_s),
            starting_cold_s: starts(true),
            starting_warm_s: starts(false),
            cold_starts: jobs.iter().filter(|job| arrivals.is_cold(job) == Some(true)).count(),
            scale_up_s: scale_up,
            new_hosts: new.into_iter().map(|(host, _)| host).collect(),
            running_to_cpu: spread(Observation::running_to_cpu),
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
fn fairness(jobs: &[&Observation]) -> Option<f64> {
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
