//! How many jobs were on hosts, and how many hosts were held, at any moment.

use std::collections::BTreeMap;

use serde::Serialize;

use super::observation::{Observation, microseconds};

/// A moment at which a number changed, with the numbers from then on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Moment {
    /// The round.
    pub round: i64,
    /// Seconds since the run's first submission.
    pub at_s: f64,
    /// Jobs on hosts, starting or running.
    pub jobs: usize,
    /// Hosts that are held, each from its first start to its last end in the round.
    pub hosts: usize,
}

/// The moments of every round of `jobs`, round by round: each round may have been recorded with a clock of its own.
pub fn moments(jobs: &[&Observation]) -> Vec<Moment> {
    /// What one round has: the spans of its jobs, and of each host that is known.
    #[derive(Default)]
    struct Spans<'a>(Vec<(f64, f64)>, BTreeMap<&'a str, (f64, f64)>);
    let mut rounds: BTreeMap<i64, Spans<'_>> = BTreeMap::new();
    for job in jobs {
        let Some((start, end)) = job.on_host() else { continue };
        let Spans(spans, hosts) = rounds.entry(job.round).or_default();
        spans.push((start, end));
        if let Some(host) = &job.host {
            let held = hosts.entry(host).or_insert((start, end));
            *held = (held.0.min(start), held.1.max(end));
        }
    }
    let mut moments = Vec::new();
    for (round, Spans(spans, hosts)) in rounds {
        let held: Vec<(f64, f64)> = hosts.into_values().collect();
        // Where a host comes or goes, a job does: every change of the second is a moment of the first.
        let (mut held, mut count) = (steps(&held).into_iter().peekable(), 0);
        for (at_s, jobs) in steps(&spans) {
            while let Some((_, now)) = held.next_if(|(at, _)| *at <= at_s) {
                count = now;
            }
            moments.push(Moment { round, at_s, jobs, hosts: count });
        }
    }
    moments
}

/// How many of `spans` overlap, over time: each moment of a change with the number from then on. One that begins as
/// another ends does not overlap it.
fn steps(spans: &[(f64, f64)]) -> Vec<(f64, usize)> {
    // To the microsecond: a sum of seconds misses the moment that it means by a hair, which is no overlap.
    let mut edges: Vec<(f64, i64)> =
        spans.iter().flat_map(|(start, end)| [(microseconds(*start), 1), (microseconds(*end), -1)]).collect();
    edges.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    let (mut now, mut steps): (i64, Vec<(f64, usize)>) = (0, Vec::new());
    for (at, step) in edges {
        now += step;
        let count = usize::try_from(now).unwrap_or_default();
        match steps.last_mut() {
            Some(last) if last.0 == at => last.1 = count,
            _ => steps.push((at, count)),
        }
    }
    steps
}

/// Most of `spans` at a time.
pub fn peak(spans: &[(f64, f64)]) -> usize {
    steps(spans).into_iter().map(|(_, count)| count).max().unwrap_or(0)
}

/// Seconds in which at least one of `spans` is under way.
pub fn busy(spans: &[(f64, f64)]) -> f64 {
    let steps = steps(spans);
    steps.windows(2).filter(|two| two[0].1 > 0).map(|two| two[1].0 - two[0].0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_counted() {
        assert_eq!(peak(&[]), 0);
        assert_eq!(peak(&[(0.0, 5.0), (5.0, 9.0)]), 1);
        let spans = [(0.0, 6.0), (5.0, 9.0), (1.0, 20.0), (30.0, 31.5)];
        assert_eq!(peak(&spans), 3);
        assert_eq!(busy(&spans), 21.5);
        assert_eq!(steps(&[(0.0, 2.0), (0.0, 2.0), (2.0, 3.0)]), [(0.0, 2), (2.0, 1), (3.0, 0)]);
    }

    #[test]
    fn jobs_and_hosts_are_counted_round_by_round() {
        let job = |round, host: Option<&str>, start, end| Observation {
            round,
            host: host.map(str::to_owned),
            wlo_start_s: Some(start),
            wlo_end_s: Some(end),
            ..Observation::default()
        };
        // The second round has a clock of its own, which shows the same seconds.
        let jobs = [
            job(2, Some("a"), 0.0, 4.0),
            job(1, Some("a"), 0.0, 4.0),
            job(1, Some("a"), 2.0, 4.0),
            job(1, Some("b"), 4.0, 5.0),
            job(1, None, 4.5, 5.0),
            job(1, Some("b"), 6.0, 6.0),
        ];
        let found: Vec<_> = moments(&jobs.iter().collect::<Vec<_>>())
            .into_iter()
            .map(|moment| (moment.round, moment.at_s, moment.jobs, moment.hosts))
            .collect();
        let first = [(1, 0.0, 1, 1), (1, 2.0, 2, 1), (1, 4.0, 1, 1), (1, 4.5, 2, 1), (1, 5.0, 0, 1), (1, 6.0, 0, 0)];
        assert_eq!(found[..6], first);
        assert_eq!(found[6..], [(2, 0.0, 1, 1), (2, 4.0, 0, 0)]);
    }
}
