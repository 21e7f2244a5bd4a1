//! Hosts: how many jobs they had at a time, when they came, and whether they were cold.

use std::collections::BTreeMap;

use serde::Serialize;

use super::moments::{busy, peak};
use super::observation::{Observation, Run};
use crate::comparison::statistics::quantile;

/// A job that waited less did not wait for a host: the orchestrator's stamps have a resolution of a second, and it looks
/// at its queue every few.
const HARDLY_WAITED: f64 = 5.0;
/// A start that took so many times the median of the others pulled an image. Recorded: 76 to 98 s against 6 to 10 s.
const COLD: f64 = 3.0;

/// A round and a moment in it: rounds follow one another, and each may have been recorded with a clock of its own.
type When = (i64, f64);

/// What one arm did on one host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostFigures {
    /// The host.
    pub host: String,
    /// Jobs that the arm ran there.
    pub jobs: usize,
    /// Most of them at a time, starting or running.
    pub peak_concurrency: usize,
    /// The first start.
    pub first_start_s: Option<f64>,
    /// The round that was in.
    pub first_round: Option<i64>,
    /// The last end.
    pub last_end_s: Option<f64>,
    /// Seconds in which a job was there.
    pub busy_s: f64,
    /// Seconds from the first start to the last end, round by round.
    pub held_s: f64,
    /// Whether no arm had used it before; in the run's first arm, whether it came while that ran.
    pub new: bool,
    /// Whether it came while the arm ran: no arm had used it before, and its first job had had to wait.
    pub came: bool,
    /// Where it is new: from the arm's first submission of the round to its first start, seconds.
    pub new_after_s: Option<f64>,
    /// Whether a job of the arm had to wait for its image.
    pub cold: bool,
    /// Median of running over CPU seconds; much above 1, its cores were shared.
    pub running_to_cpu: Option<f64>,
    /// The longest start of a pod, seconds.
    pub starting_s: Option<f64>,
}

/// What has to be known of all arms to judge one.
#[derive(Debug)]
pub struct Arrivals {
    /// The first start on each host, and whether its job had had to wait, so that the host came for it.
    first: BTreeMap<String, (When, bool)>,
    /// The arm that started first. To begin with all hosts are unseen: of its hosts those are new that came.
    first_arm: Option<String>,
    /// On each host, when the first pod had started.
    warm_from: BTreeMap<String, When>,
    /// Median start on a warm host, seconds.
    usual_start: Option<f64>,
}

impl Arrivals {
    /// Of a run.
    pub fn of(run: &Run) -> Self {
        let mut first: BTreeMap<String, (When, bool)> = BTreeMap::new();
        let mut warm_from: BTreeMap<String, When> = BTreeMap::new();
        let mut starts: Vec<(When, &String, &Observation)> =
            run.observations.iter().filter_map(|job| Some((started(job)?, job.host.as_ref()?, job))).collect();
        starts.sort_by(|(one, ..), (other, ..)| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        let first_arm = starts.first().map(|(_, _, job)| job.arm.clone());
        for ((round, start), host, job) in starts {
            let came = job.waited().is_some_and(|waited| waited >= HARDLY_WAITED);
            first.entry(host.clone()).or_insert(((round, start), came));
            if let Some(starting) = job.starting_s {
                let warm = warm_from.entry(host.clone()).or_insert((round, f64::INFINITY));
                if (round, start + starting) < *warm {
                    *warm = (round, start + starting);
                }
            }
        }
        // What a start takes on a host that has had one; of all, where no host has had two.
        let warm = |job: &&Observation| {
            let from = job.host.as_ref().and_then(|host| warm_from.get(host));
            from.zip(started(job)).is_some_and(|(from, start)| start >= *from)
        };
        let of = |jobs: &mut dyn Iterator<Item = &Observation>| {
            quantile(&jobs.filter_map(|job| job.starting_s).collect::<Vec<_>>(), 0.5)
        };
        let usual_start = of(&mut run.observations.iter().filter(warm)).or_else(|| of(&mut run.observations.iter()));
        Self { first, first_arm, warm_from, usual_start }
    }

    /// Whether the job's pod had to wait for an image: nothing had started on its host before it was given to it, and its
    /// start took much longer than usual. None where that is not known.
    pub fn is_cold(&self, job: &Observation) -> Option<bool> {
        let (starting, start, host) = (job.starting_s?, started(job)?, job.host.as_ref()?);
        let before_any = self.warm_from.get(host).is_none_or(|warm| start < *warm);
        Some(before_any && starting >= COLD * self.usual_start?.max(1.0))
    }

    /// Hosts that had not been seen before, with the round and the moment of their first start.
    pub fn new_hosts<'a>(&self, jobs: impl Iterator<Item = &'a Observation>) -> Vec<(String, (i64, f64))> {
        let mut found: BTreeMap<&str, When> = BTreeMap::new();
        for job in jobs {
            let (Some(host), Some(start)) = (&job.host, started(job)) else { continue };
            let later = self.first_arm.as_ref() != Some(&job.arm);
            if self.first.get(host).is_some_and(|(first, came)| (*came || later) && start == *first) {
                found.insert(host, start);
            }
        }
        let mut found: Vec<(String, When)> = found.into_iter().map(|(host, at)| (host.to_owned(), at)).collect();
        found.sort_by(|(_, one), (_, other)| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        found
    }

    /// The figures of every host that the jobs of an arm ran on, in order of their names.
    pub fn figures(&self, jobs: &[&Observation]) -> Vec<HostFigures> {
        let all = jobs;
        let mut by_host: BTreeMap<&str, Vec<&Observation>> = BTreeMap::new();
        for job in jobs {
            if let Some(host) = &job.host {
                by_host.entry(host).or_default().push(job);
            }
        }
        let new = self.new_hosts(jobs.iter().copied());
        let one = |(host, jobs): (&str, Vec<&Observation>)| {
            let mut rounds: BTreeMap<i64, Vec<(f64, f64)>> = BTreeMap::new();
            for job in &jobs {
                rounds.entry(job.round).or_default().extend(job.on_host());
            }
            let first = |spans: &[(f64, f64)]| spans.iter().map(|span| span.0).reduce(f64::min);
            let last = |spans: &[(f64, f64)]| spans.iter().map(|span| span.1).reduce(f64::max);
            let held = |spans: &Vec<(f64, f64)>| Some(last(spans)? - first(spans)?);
            let first_start = rounds.iter().find_map(|(round, spans)| Some((*round, first(spans)?)));
            let new = new.iter().find(|(name, _)| name == host).map(|(_, at)| *at);
            let ratios: Vec<f64> = jobs.iter().filter_map(|job| job.running_to_cpu()).collect();
            HostFigures {
                host: host.to_owned(),
                jobs: jobs.len(),
                peak_concurrency: rounds.values().map(|spans| peak(spans)).max().unwrap_or(0),
                first_start_s: first_start.map(|(_, start)| start),
                first_round: first_start.map(|(round, _)| round),
                last_end_s: rounds.values().rev().find_map(|spans| last(spans)),
                busy_s: rounds.values().map(|spans| busy(spans)).sum(),
                held_s: rounds.values().filter_map(held).sum(),
                new: new.is_some(),
                new_after_s: new.and_then(|at| since_submission(all, at)),
                came: new.is_some() && self.first.get(host).is_some_and(|first| first.1),
                cold: jobs.iter().any(|job| self.is_cold(job) == Some(true)),
                running_to_cpu: quantile(&ratios, 0.5),
                starting_s: jobs.iter().filter_map(|job| job.starting_s).reduce(f64::max),
            }
        };
        by_host.into_iter().map(one).collect()
    }
}

/// When a job was given to its host.
fn started(job: &Observation) -> Option<When> {
    Some((job.round, job.wlo_start_s?))
}

/// Seconds from the first submission of the round to the moment `at` in it.
fn since_submission(jobs: &[&Observation], (round, at): When) -> Option<f64> {
    let of_round = jobs.iter().filter(|job| job.round == round);
    let first = of_round.filter_map(|job| job.jes_created_s.or(job.wlo_submit_s)).reduce(f64::min)?;
    Some(at - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(arm: &str, host: &str, start: f64, waited: f64, starting: f64) -> Observation {
        Observation {
            arm: arm.into(),
            host: Some(host.into()),
            wlo_start_s: Some(start),
            wlo_end_s: Some(start + starting + 10.0),
            pending_s: Some(waited),
            starting_s: Some(starting),
            running_s: Some(10.0),
            max_cpu_s: Some(5.0),
            round: 1,
            ..Observation::default()
        }
    }

    #[test]
    fn a_host_came_when_jobs_had_waited_for_it_and_is_cold_until_a_pod_has_started() {
        let observations = vec![
            job("a", "h1", 0.0, 0.0, 6.0),
            job("a", "h2", 0.0, 0.0, 6.0),
            job("b", "h1", 100.0, 0.0, 7.0),
            job("b", "h3", 380.0, 280.0, 80.0),
            job("b", "h3", 381.0, 281.0, 90.0),
            job("b", "h3", 500.0, 400.0, 6.0),
        ];
        let run = Run { observations, ..Run::default() };
        let arrivals = Arrivals::of(&run);
        assert!(arrivals.new_hosts(run.of("a")).is_empty());
        assert_eq!(arrivals.new_hosts(run.of("b")), [("h3".to_owned(), (1, 380.0))]);
        let cold: Vec<_> = run.of("b").map(|job| arrivals.is_cold(job)).collect();
        assert_eq!(cold, [Some(false), Some(true), Some(true), Some(false)]);
        let figures = arrivals.figures(&run.of("b").collect::<Vec<_>>());
        let h3 = &figures[1];
        assert_eq!((h3.jobs, h3.peak_concurrency, h3.new && h3.came, h3.cold), (3, 2, true, true));
        assert_eq!((h3.first_start_s, h3.last_end_s, h3.held_s), (Some(380.0), Some(516.0), 136.0));
        assert_eq!((h3.busy_s, h3.running_to_cpu, h3.starting_s), (101.0 + 16.0, Some(2.0), Some(90.0)));
    }

    #[test]
    fn a_later_round_is_later_whatever_its_own_clock_shows() {
        let second = |job: Observation| Observation { round: 2, ..job };
        let observations = vec![
            second(job("b", "h2", 5.0, 0.0, 90.0)),
            second(job("a", "h1", 10.0, 0.0, 6.0)),
            job("a", "h1", 50.0, 0.0, 6.0),
            job("b", "h1", 100.0, 0.0, 6.0),
            job("b", "h2", 400.0, 300.0, 80.0),
        ];
        let run = Run { observations, ..Run::default() };
        let arrivals = Arrivals::of(&run);
        assert_eq!(arrivals.new_hosts(run.of("b")), [("h2".to_owned(), (1, 400.0))]);
        // Its second pod started slowly, and not because the host was cold.
        let cold: Vec<_> = run.of("b").map(|job| arrivals.is_cold(job)).collect();
        assert_eq!(cold, [Some(false), Some(false), Some(true)]);
        let figures = arrivals.figures(&run.of("b").collect::<Vec<_>>());
        assert_eq!((figures[1].first_round, figures[1].first_start_s), (Some(1), Some(400.0)));
        assert_eq!(figures[1].new_after_s, None);
    }
}
