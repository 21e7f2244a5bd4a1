//! Hosts: how many jobs they had at the same time, when they were added, and whether they were cold.

use std::collections::BTreeMap;

use serde::Serialize;

use super::concurrency::{busy, peak};
use super::run::{JobRow, RunData};
use crate::comparison::statistics::quantile;

/// A job that waited less, in seconds, did not wait for a host: the timestamps of the orchestrator have a resolution of a
/// second, and it reads its queue every few seconds.
const LEAST_WAIT: f64 = 5.0;
/// A start that took this many times the median pulled an image. Measured: 76 to 98 s against 6 to 10 s.
const COLD_FACTOR: f64 = 3.0;

/// A round and a time in it. Rounds follow one another, and each can be recorded with a different clock.
type RoundTime = (i64, f64);

/// What one arm did on one host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostFigures {
    /// The host.
    pub host: String,
    /// Jobs that the arm ran on it.
    pub jobs: usize,
    /// The most jobs at the same time, starting or running.
    pub peak_concurrency: usize,
    /// The first start.
    pub first_start_s: Option<f64>,
    /// The round of the first start.
    pub first_round: Option<i64>,
    /// The last end.
    pub last_end_s: Option<f64>,
    /// Seconds in which a job was on it.
    pub busy_s: f64,
    /// Seconds from the first start to the last end, summed over the rounds.
    pub held_s: f64,
    /// Whether no arm had used it before. In the first arm of a run: whether it was added while the arm ran.
    pub new: bool,
    /// Whether it was added while the arm ran: no arm had used it before, and its first job had waited.
    pub came: bool,
    /// For a new host: seconds from the arm's first submission of the round to the first start.
    pub new_after_s: Option<f64>,
    /// Whether a job of the arm waited for its image.
    pub cold: bool,
    /// The median ratio of running seconds to CPU seconds. Much above 1, jobs shared cores.
    pub running_to_cpu: Option<f64>,
    /// The longest start of a pod, seconds.
    pub starting_s: Option<f64>,
}

/// The hosts of all arms: when each was used first, and from when it was warm.
#[derive(Debug)]
pub struct HostArrivals {
    /// The first start on each host, and whether its job had waited, so that the host was added for it.
    first: BTreeMap<String, (RoundTime, bool)>,
    /// The arm that started first. Its new hosts are those that were added, because all hosts are unused before it.
    first_arm: Option<String>,
    /// When the first pod on each host had started.
    warm_from: BTreeMap<String, RoundTime>,
    /// The median start on a warm host, in seconds.
    usual_start: Option<f64>,
}

impl HostArrivals {
    /// The hosts of a run.
    pub fn of(run: &RunData) -> Self {
        let mut first: BTreeMap<String, (RoundTime, bool)> = BTreeMap::new();
        let mut warm_from: BTreeMap<String, RoundTime> = BTreeMap::new();
        let mut starts: Vec<(RoundTime, &String, &JobRow)> =
            run.job_rows.iter().filter_map(|job| Some((started(job)?, job.host.as_ref()?, job))).collect();
        starts.sort_by(|(one, ..), (other, ..)| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        let first_arm = starts.first().map(|(_, _, job)| job.arm.clone());
        for ((round, start), host, job) in starts {
            let came = job.waited().is_some_and(|waited| waited >= LEAST_WAIT);
            first.entry(host.clone()).or_insert(((round, start), came));
            if let Some(starting) = job.starting_s {
                let warm = warm_from.entry(host.clone()).or_insert((round, f64::INFINITY));
                if (round, start + starting) < *warm {
                    *warm = (round, start + starting);
                }
            }
        }
        // The median of starts on warm hosts, or of all starts if no host was warm.
        let warm = |job: &&JobRow| {
            let from = job.host.as_ref().and_then(|host| warm_from.get(host));
            from.zip(started(job)).is_some_and(|(from, start)| start >= *from)
        };
        let of = |jobs: &mut dyn Iterator<Item = &JobRow>| {
            quantile(&jobs.filter_map(|job| job.starting_s).collect::<Vec<_>>(), 0.5)
        };
        let usual_start = of(&mut run.job_rows.iter().filter(warm)).or_else(|| of(&mut run.job_rows.iter()));
        Self { first, first_arm, warm_from, usual_start }
    }

    /// Whether the pod of the job waited for an image: no pod had started on the host before the job was assigned to it,
    /// and the start took much longer than usual. `None` if this is not known.
    pub fn is_cold(&self, job: &JobRow) -> Option<bool> {
        let (starting, start, host) = (job.starting_s?, started(job)?, job.host.as_ref()?);
        let before_any = self.warm_from.get(host).is_none_or(|warm| start < *warm);
        Some(before_any && starting >= COLD_FACTOR * self.usual_start?.max(1.0))
    }

    /// New hosts, with the round and the time of their first start.
    pub fn new_hosts<'a>(&self, jobs: impl Iterator<Item = &'a JobRow>) -> Vec<(String, (i64, f64))> {
        let mut found: BTreeMap<&str, RoundTime> = BTreeMap::new();
        for job in jobs {
            let (Some(host), Some(start)) = (&job.host, started(job)) else { continue };
            let later = self.first_arm.as_ref() != Some(&job.arm);
            if self.first.get(host).is_some_and(|(first, came)| (*came || later) && start == *first) {
                found.insert(host, start);
            }
        }
        let mut found: Vec<(String, RoundTime)> = found.into_iter().map(|(host, at)| (host.to_owned(), at)).collect();
        found.sort_by(|(_, one), (_, other)| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        found
    }

    /// The figures of every host that the jobs of an arm ran on, by name.
    pub fn figures(&self, jobs: &[&JobRow]) -> Vec<HostFigures> {
        let all = jobs;
        let mut by_host: BTreeMap<&str, Vec<&JobRow>> = BTreeMap::new();
        for job in jobs {
            if let Some(host) = &job.host {
                by_host.entry(host).or_default().push(job);
            }
        }
        let new = self.new_hosts(jobs.iter().copied());
        let one = |(host, jobs): (&str, Vec<&JobRow>)| {
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

/// When a job was assigned to its host.
fn started(job: &JobRow) -> Option<RoundTime> {
    Some((job.round, job.wlo_start_s?))
}

/// Seconds from the first submission of the round to the time `at` in it.
fn since_submission(jobs: &[&JobRow], (round, at): RoundTime) -> Option<f64> {
    let of_round = jobs.iter().filter(|job| job.round == round);
    let first = of_round.filter_map(|job| job.jes_created_s.or(job.wlo_submit_s)).reduce(f64::min)?;
    Some(at - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(arm: &str, host: &str, start: f64, waited: f64, starting: f64) -> JobRow {
        JobRow {
            arm: arm.into(),
            host: Some(host.into()),
            wlo_start_s: Some(start),
            wlo_end_s: Some(start + starting + 10.0),
            pending_s: Some(waited),
            starting_s: Some(starting),
            running_s: Some(10.0),
            max_cpu_s: Some(5.0),
            round: 1,
            ..JobRow::default()
        }
    }

    #[test]
    fn a_host_came_when_jobs_had_waited_for_it_and_is_cold_until_a_pod_has_started() {
        let job_rows = vec![
            job("a", "h1", 0.0, 0.0, 6.0),
            job("a", "h2", 0.0, 0.0, 6.0),
            job("b", "h1", 100.0, 0.0, 7.0),
            job("b", "h3", 380.0, 280.0, 80.0),
            job("b", "h3", 381.0, 281.0, 90.0),
            job("b", "h3", 500.0, 400.0, 6.0),
        ];
        let run = RunData { job_rows, ..RunData::default() };
        let arrivals = HostArrivals::of(&run);
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
        let second = |job: JobRow| JobRow { round: 2, ..job };
        let job_rows = vec![
            second(job("b", "h2", 5.0, 0.0, 90.0)),
            second(job("a", "h1", 10.0, 0.0, 6.0)),
            job("a", "h1", 50.0, 0.0, 6.0),
            job("b", "h1", 100.0, 0.0, 6.0),
            job("b", "h2", 400.0, 300.0, 80.0),
        ];
        let run = RunData { job_rows, ..RunData::default() };
        let arrivals = HostArrivals::of(&run);
        assert_eq!(arrivals.new_hosts(run.of("b")), [("h2".to_owned(), (1, 400.0))]);
        // Its second pod started slowly, and not because the host was cold.
        let cold: Vec<_> = run.of("b").map(|job| arrivals.is_cold(job)).collect();
        assert_eq!(cold, [Some(false), Some(false), Some(true)]);
        let figures = arrivals.figures(&run.of("b").collect::<Vec<_>>());
        assert_eq!((figures[1].first_round, figures[1].first_start_s), (Some(1), Some(400.0)));
        assert_eq!(figures[1].new_after_s, None);
    }
}
