//! Compares the host model with the recorded run, given the same submissions.

use std::collections::BTreeSet;

use serde::Serialize;

use super::job::MEDIAN_END_LAG;
use super::model::{HostModel, ModelJob};
use super::options::HostParameters;
use super::workload::{RecordedJob, recorded_run};
use crate::comparison::statistics::{mean, quantile};
use crate::error::Result;

/// One line of the sandbox-against-recording table: one measure of one arm. Seconds, but for counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CalibrationRow {
    /// `sequential`, `async_regular` or `async_autoscaling`.
    pub arm: String,
    /// What was measured, such as `makespan_s`.
    pub measure: String,
    /// In the recorded run.
    pub recorded: f64,
    /// In the sandbox's host model, given the same submissions.
    pub sandbox: f64,
    /// The difference between the sandbox and the recording, in percent of the recorded value; `None` where that is 0.
    pub error_percent: Option<f64>,
}

/// Replays the recorded submissions (all three arms one after the other, as they were) through the host model with its
/// default parameters and compares makespan, phases, CPU use and hosts per arm.
///
/// The sequential arm is where the jobs' work comes from, so it checks the replay only. The two
/// asynchronous arms check the model.
///
/// # Errors
/// As [`recorded_run`].
pub fn calibration() -> Result<Vec<CalibrationRow>> {
    let recorded = recorded_run()?;
    let parameters = HostParameters::default();
    let handover = parameters.handover;
    let mut model = HostModel::new(parameters);
    // The job's run alone.
    let alone = |job: &RecordedJob| -> RecordedJob {
        recorded.iter().find(|other| other.arm == "sequential" && other.job == job.job).unwrap_or(job).clone()
    };
    let numbers: Vec<usize> =
        recorded.iter().map(|job| model.submit(job.jes_created_s, &job.queue, alone(job).running_s)).collect();
    model.finish();

    let mut rows = Vec::new();
    for arm in ["sequential", "async_regular", "async_autoscaling"] {
        let pairs: Vec<(&RecordedJob, &ModelJob)> = recorded
            .iter()
            .zip(&numbers)
            .filter(|(job, _)| job.arm == arm)
            .map(|(job, id)| (job, model.job(*id)))
            .collect();
        let moment = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let column = |of: &dyn Fn(&RecordedJob, &ModelJob) -> (f64, f64)| -> (Vec<f64>, Vec<f64>) {
            pairs.iter().map(|(job, simulated)| of(job, simulated)).unzip()
        };
        let created = column(&|job, simulated| (job.jes_created_s, simulated.submitted - handover));
        // A client sees the end later than the orchestrator.
        let ended = column(&|job, simulated| (job.jes_end_s, moment(simulated.ended) + MEDIAN_END_LAG));
        let pending = column(&|job, simulated| (job.pending_s, moment(simulated.started) - simulated.submitted));
        let starting =
            column(&|job, simulated| (job.starting_s, moment(simulated.running) - moment(simulated.started)));
        let running = column(&|job, simulated| (job.running_s, moment(simulated.ended) - moment(simulated.running)));
        let cpu = column(&|job, simulated| {
            let alone = alone(job);
            (job.max_cpu_s, simulated.cpu * alone.max_cpu_s / alone.running_s)
        });
        let recorded_hosts: BTreeSet<&str> = pairs.iter().map(|(job, _)| job.host.as_str()).collect();
        let hosts: BTreeSet<usize> = pairs.iter().filter_map(|(_, job)| job.host).collect();

        let mut row = |measure: &str, recorded: f64, sandbox: f64| {
            let error_percent = (recorded != 0.0).then(|| 100.0 * (sandbox / recorded - 1.0));
            rows.push(CalibrationRow { arm: arm.into(), measure: measure.into(), recorded, sandbox, error_percent });
        };
        let min = |values: &[f64]| quantile(values, 0.0).unwrap_or(f64::NAN);
        let median = |values: &[f64]| quantile(values, 0.5).unwrap_or(f64::NAN);
        let max = |values: &[f64]| quantile(values, 1.0).unwrap_or(f64::NAN);
        let mean = |values: &[f64]| mean(values).unwrap_or(f64::NAN);
        row("makespan_s", max(&ended.0) - min(&created.0), max(&ended.1) - min(&created.1));
        row("pending_median_s", median(&pending.0), median(&pending.1));
        row("pending_mean_s", mean(&pending.0), mean(&pending.1));
        row("starting_mean_s", mean(&starting.0), mean(&starting.1));
        row("starting_max_s", max(&starting.0), max(&starting.1));
        row("running_sum_s", running.0.iter().sum(), running.1.iter().sum());
        row("cpu_sum_s", cpu.0.iter().sum(), cpu.1.iter().sum());
        row("hosts", recorded_hosts.len() as f64, hosts.len() as f64);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(rows: &'a [CalibrationRow], arm: &str, measure: &str) -> &'a CalibrationRow {
        rows.iter().find(|row| row.arm == arm && row.measure == measure).unwrap()
    }

    #[test]
    fn the_sandbox_behaves_like_the_recording() {
        let rows = calibration().unwrap();
        for row in &rows {
            println!(
                "{:18} {:17} {:9.1} {:9.1} {:6.1} %",
                row.arm,
                row.measure,
                row.recorded,
                row.sandbox,
                row.error_percent.unwrap_or(0.0)
            );
        }
        for arm in ["async_regular", "async_autoscaling"] {
            assert!(row(&rows, arm, "makespan_s").error_percent.unwrap().abs() < 20.0, "{arm}");
            assert!(row(&rows, arm, "pending_median_s").error_percent.unwrap().abs() < 30.0, "{arm}");
            assert_eq!(row(&rows, arm, "hosts").recorded, row(&rows, arm, "hosts").sandbox, "{arm}");
        }
        assert!(row(&rows, "sequential", "makespan_s").error_percent.unwrap().abs() < 1.0);
        assert_eq!(row(&rows, "sequential", "pending_median_s").sandbox, 0.0);
    }

    /// All 54 jobs in batches of `size` (each waits for the batch before it), in one queue of a sandbox just started.
    fn batches(queue: &str, size: usize) -> f64 {
        let works: Vec<f64> = super::super::workload::example_definitions().unwrap().iter().map(|d| d.work).collect();
        assert_eq!(works.len(), 54);
        let mut model = HostModel::new(HostParameters::default());
        let mut now = 0.0;
        for batch in works.chunks(size) {
            for work in batch {
                model.submit(now, queue, *work);
            }
            now = model.finish();
        }
        now
    }

    #[test]
    fn other_loads_than_the_recorded_ones_come_out_sensibly() {
        use super::super::model::DEFAULT_QUEUE;
        let pool = "autoscaling-poc-queue";
        let one_by_one = batches(DEFAULT_QUEUE, 1);
        for (queue, size) in [(DEFAULT_QUEUE, 5), (DEFAULT_QUEUE, 54), (pool, 5), (pool, 54)] {
            let together = batches(queue, size);
            println!("{queue} in batches of {size}: {together:.0} s, one by one {one_by_one:.0} s");
            assert!(together < 0.8 * one_by_one && together > 0.2 * one_by_one, "{queue} {size}: {together}");
        }
        // Waiting for the pool's first hosts costs what the recorded arm did not have to pay.
        assert!(batches(pool, 54) > 608.0);
    }
}
