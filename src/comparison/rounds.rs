//! The rounds of a run: in each, every arm runs all jobs, as its mode lets them in.

use std::sync::Arc;

use chrono::TimeDelta;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use super::arms::Mode;
use super::follow::Following;
use super::halt::Halt;
use super::journal::{Journal, Place, Prior, Replay};
use super::options::RunnerOptions;
use super::plan::JobConfig;
use super::progress::{Counter, Progress};
use super::record::{ArmRecord, JobRecord, Round};
use crate::viya::ViyaClient;
use crate::viya::watch::Watch;

/// Calls that submit, read or cancel jobs at a time; a proxy in front of a server refuses many more.
const CALLS: usize = 32;

/// What the rounds of a run share.
pub(super) struct Rounds<'a> {
    pub client: &'a ViyaClient,
    pub journal: &'a Journal,
    pub replay: &'a Replay,
    pub jobs: &'a [Arc<JobConfig>],
    pub halt: &'a Halt,
    pub options: &'a RunnerOptions,
    pub progress: Option<&'a Progress>,
}

impl Rounds<'_> {
    /// Runs them, and notes in `records` what was done; ends early when the run is to halt.
    pub(super) async fn run(&self, records: &mut [ArmRecord]) {
        let watch = Watch::new(self.client, self.options.poll_interval);
        tokio::select! {
            () = self.rounds(&watch, records) => {}
            never = watch.run_lists() => match never {}
        }
    }

    async fn rounds(&self, watch: &Watch<'_>, records: &mut [ArmRecord]) {
        let calls = Semaphore::new(CALLS);
        let header = &self.replay.header;
        for round in 1..=header.repeat {
            for (place, at) in order(round, records.len()).into_iter().enumerate() {
                let before = self.recalled(at, round);
                let first = (round, place) == (1, 0);
                if header.pause > 0.0 && !first && before == 0 && !self.halt.reached() {
                    self.halt.pause(self.client.clock(), header.pause).await;
                }
                // Those that an interrupted run had seen to their end are told even when nothing goes on any more.
                if self.halt.reached() && before == 0 {
                    continue;
                }
                let record = &mut records[at];
                let following = Following {
                    client: self.client,
                    watch,
                    journal: self.journal,
                    calls: &calls,
                    arm: &record.arm,
                    arm_number: at,
                    counter: Counter::new(&record.arm.name, (round, header.repeat), self.jobs.len(), self.progress),
                    halt: self.halt,
                    job_timeout: self.options.job_timeout,
                    poll_interval: self.options.poll_interval,
                    expires_after: self.options.expires_after.as_deref(),
                    round,
                    tag: &header.tag,
                    // Clocks differ by minutes at most, where a sandbox does not run at a speed of its own.
                    oldest: header.began - TimeDelta::hours(1),
                };
                let done = self.arm(&following).await;
                // A round that was done in two parts, or not to its end, took no time that means something.
                let torn = self.replay.torn.contains(&(at, round));
                let interrupted =
                    torn || done.len() < self.jobs.len() || self.halt.reached() && before < self.jobs.len();
                record.rounds.push(Round { number: round, order: (place + 1) as u32, interrupted });
                record.jobs.extend(done);
            }
        }
    }

    fn prior(&self, arm: usize, round: u32, sequence: usize) -> Option<&Prior> {
        self.replay.jobs.get(&Place { arm, round, sequence })
    }

    /// Jobs of the arm's round that had begun when the run was interrupted.
    fn recalled(&self, arm: usize, round: u32) -> usize {
        (1..=self.jobs.len()).filter(|sequence| self.prior(arm, round, *sequence).is_some()).count()
    }

    /// Lets the jobs in as the arm's mode has it. The records are in the order of the jobs.
    async fn arm(&self, following: &Following<'_>) -> Vec<JobRecord> {
        let size = following.arm.in_flight(self.jobs.len()).max(1);
        let mut done = Vec::with_capacity(self.jobs.len());
        // Only batches wait for the slowest of them before the next job is let in.
        let chunk = if following.arm.mode == Mode::Batch { size } else { self.jobs.len().max(1) };
        for (number, jobs) in self.jobs.chunks(chunk).enumerate() {
            let mut waiting = jobs.iter().zip(number * chunk + 1..);
            let mut running = FuturesUnordered::new();
            loop {
                while running.len() < size {
                    let Some((job, sequence)) = waiting.next() else { break };
                    running.push(following.run(
                        job,
                        sequence,
                        self.prior(following.arm_number, following.round, sequence),
                    ));
                }
                match running.next().await {
                    Some(record) => done.extend(record),
                    None => break,
                }
            }
        }
        done.sort_by_key(|record| record.sequence);
        done
    }
}

/// Whose turn it is in a round. Being early or late, and with it a host that is cold or warm, falls to every arm alike: the
/// second of two rounds goes back the way that the first came, and the next two begin with the next arm.
fn order(round: u32, arms: usize) -> Vec<usize> {
    let shift = (round.saturating_sub(1) / 2) as usize;
    let mut turns: Vec<usize> = (0..arms).map(|place| (place + shift) % arms.max(1)).collect();
    if round.is_multiple_of(2) {
        turns.reverse();
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_turned_round() {
        assert_eq!((order(1, 3), order(2, 3), order(3, 3)), (vec![0, 1, 2], vec![2, 1, 0], vec![1, 2, 0]));
        let pair: Vec<_> = (1..=4).map(|round| order(round, 2)).collect();
        assert_eq!(pair, [[0, 1], [1, 0], [1, 0], [0, 1]]);
        // Over twice as many rounds as there are arms, each arm has each place twice.
        for arms in 1..6 {
            for place in 0..arms {
                let mut there: Vec<usize> = (1..=2 * arms as u32).map(|round| order(round, arms)[place]).collect();
                there.sort_unstable();
                assert_eq!(there, (0..arms).flat_map(|arm| [arm, arm]).collect::<Vec<_>>());
            }
        }
    }
}
