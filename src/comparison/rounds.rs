//! The rounds of a run. In each round every arm runs all jobs.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::arms::SubmissionMode;
use super::follow::{ArmRound, RunContext};
use super::job_configs::JobConfig;
use super::journal::{JobKey, Replay};
use super::records::{ArmRecord, JobRecord, RoundRecord};
use super::run_control::{ProgressCounter, ProgressListener};

/// Runs the rounds that the journal has not seen to their end, and adds the jobs to `records`. Ends early with the run.
pub(super) async fn run_rounds(
    run: &RunContext<'_>,
    replay: &Replay,
    jobs: &[Arc<JobConfig>],
    progress: Option<&ProgressListener>,
    records: &mut [ArmRecord],
) {
    let rounds = async {
        let repeat = run.header.repeat;
        for round in 1..=repeat {
            for (position, at) in arm_order(round, records.len()).into_iter().enumerate() {
                let prior = |sequence: usize| replay.jobs.get(&JobKey { arm: at, round, sequence });
                let begun = (1..=jobs.len()).filter(|sequence| prior(*sequence).is_some()).count();
                let first = (round, position) == (1, 0);
                if run.header.pause > 0.0 && !first && begun == 0 && !run.control.is_ending() {
                    run.control.sleep(run.header.pause).await;
                }
                // The jobs of an interrupted run are reported even if the run ends.
                if run.control.is_ending() && begun == 0 {
                    continue;
                }
                let record = &mut records[at];
                let counter = ProgressCounter::new(&record.arm.name, (round, repeat), jobs.len(), progress);
                let arm = ArmRound { run, arm: &record.arm, arm_number: at, round, counter };
                let done = run_jobs(&arm, jobs, replay).await;
                let interrupted = replay.split_rounds.contains(&(at, round))
                    || done.len() < jobs.len()
                    || run.control.is_ending() && begun < jobs.len();
                record.rounds.push(RoundRecord { number: round, order: position as u32 + 1, interrupted });
                record.jobs.extend(done);
            }
        }
    };
    tokio::select! {
        () = rounds => {}
        never = run.watch.run_lists() => match never {}
    }
}

/// Submits the jobs as the mode of the arm says. The records are in the order of the jobs.
async fn run_jobs(arm: &ArmRound<'_>, jobs: &[Arc<JobConfig>], replay: &Replay) -> Vec<JobRecord> {
    let size = arm.arm.in_flight(jobs.len()).max(1);
    let mut done = Vec::with_capacity(jobs.len());
    // Only a batch waits for its slowest job before the next job is submitted.
    let chunk = if arm.arm.mode == SubmissionMode::Batch { size } else { jobs.len().max(1) };
    for (number, jobs) in jobs.chunks(chunk).enumerate() {
        let mut waiting = jobs.iter().zip(number * chunk + 1..);
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < size {
                let Some((job, sequence)) = waiting.next() else { break };
                let prior = replay.jobs.get(&JobKey { arm: arm.arm_number, round: arm.round, sequence });
                running.push(arm.run_job(job, sequence, prior));
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

/// The order of the arms in a round. An early or late position, and with it a cold or warm host, must fall to every arm
/// equally often: the second of two rounds reverses the first, and the next two start with the next arm.
fn arm_order(round: u32, arms: usize) -> Vec<usize> {
    let shift = (round.saturating_sub(1) / 2) as usize;
    let mut order: Vec<usize> = (0..arms).map(|position| (position + shift) % arms.max(1)).collect();
    if round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arm_has_each_position_equally_often() {
        assert_eq!((arm_order(1, 3), arm_order(2, 3), arm_order(3, 3)), (vec![0, 1, 2], vec![2, 1, 0], vec![1, 2, 0]));
        let pair: Vec<_> = (1..=4).map(|round| arm_order(round, 2)).collect();
        assert_eq!(pair, [[0, 1], [1, 0], [1, 0], [0, 1]]);
        for arms in 1..6 {
            for position in 0..arms {
                let mut there: Vec<usize> =
                    (1..=2 * arms as u32).map(|round| arm_order(round, arms)[position]).collect();
                there.sort_unstable();
                assert_eq!(there, (0..arms).flat_map(|arm| [arm, arm]).collect::<Vec<_>>());
            }
        }
    }
}
