//! The number of jobs on hosts, and of held hosts, over time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::run::{JobRow, microseconds};

/// A time at which a number changed, and the numbers from then on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ConcurrencyPoint {
    /// The round.
    pub round: i64,
    /// Seconds since the first submission of the run.
    pub at_s: f64,
    /// Jobs on hosts, starting or running.
    pub jobs: usize,
    /// Held hosts. A host is held from its first start to its last end in the round.
    pub hosts: usize,
}

/// The points of `jobs`, round by round, because rounds can be recorded with different clocks.
pub fn concurrency_points(jobs: &[&JobRow]) -> Vec<ConcurrencyPoint> {
    /// The spans of the jobs of a round, and of each known host.
    #[derive(Default)]
    struct RoundSpans<'a>(Vec<(f64, f64)>, BTreeMap<&'a str, (f64, f64)>);
    let mut rounds: BTreeMap<i64, RoundSpans<'_>> = BTreeMap::new();
    for job in jobs {
        let Some((start, end)) = job.on_host() else { continue };
        let RoundSpans(spans, hosts) = rounds.entry(job.round).or_default();
        spans.push((start, end));
        if let Some(host) = &job.host {
            let held = hosts.entry(host).or_insert((start, end));
            *held = (held.0.min(start), held.1.max(end));
        }
    }
    let mut points = Vec::new();
    for (round, RoundSpans(spans, hosts)) in rounds {
        let held: Vec<(f64, f64)> = hosts.into_values().collect();
        // The number of hosts changes only when a job starts or ends.
        let (mut held, mut count) = (steps(&held).into_iter().peekable(), 0);
        for (at_s, jobs) in steps(&spans) {
            while let Some((_, now)) = held.next_if(|(at, _)| *at <= at_s) {
                count = now;
            }
            points.push(ConcurrencyPoint { round, at_s, jobs, hosts: count });
        }
    }
    points
}

/// The number of overlapping `spans` over time: each time of a change, and the number from then on. A span that begins at
/// the end of another does not overlap it.
fn steps(spans: &[(f64, f64)]) -> Vec<(f64, usize)> {
    // To the microsecond: the rounding error of a sum of seconds must not count as an overlap.
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

/// The most `spans` at the same time.
pub fn peak(spans: &[(f64, f64)]) -> usize {
    steps(spans).into_iter().map(|(_, count)| count).max().unwrap_or(0)
}

/// Seconds in at least one of `spans`.
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
        let job = |round, host: Option<&str>, start, end| JobRow {
            round,
            host: host.map(str::to_owned),
            wlo_start_s: Some(start),
            wlo_end_s: Some(end),
            ..JobRow::default()
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
        let found: Vec<_> = concurrency_points(&jobs.iter().collect::<Vec<_>>())
            .into_iter()
            .map(|point| (point.round, point.at_s, point.jobs, point.hosts))
            .collect();
        let first = [(1, 0.0, 1, 1), (1, 2.0, 2, 1), (1, 4.0, 1, 1), (1, 4.5, 2, 1), (1, 5.0, 0, 1), (1, 6.0, 0, 0)];
        assert_eq!(found[..6], first);
        assert_eq!(found[6..], [(2, 0.0, 1, 1), (2, 4.0, 0, 0)]);
    }
}
