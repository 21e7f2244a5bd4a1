//! A run as Arrow tables. `jobs` has the columns of a recorded run: one row per job, seconds since the first submission.

use arrow::array::RecordBatch;

use super::analysis::{Analysis, ArmFigures, HostFigures, RunData};
use super::statistics::SummaryStats;
use crate::columns::{count, flag, integer, number, table, text};
use crate::error::Result;

/// One row per job of every arm and round.
///
/// # Errors
/// [`ErrorKind::Internal`] only.
pub fn jobs(run: &RunData) -> Result<RecordBatch> {
    let rows = &run.job_rows;
    macro_rules! columns {
        ($($name:ident: $kind:ident),* $(,)?) => {
            table([$((stringify!($name), columns!(@ $kind $name))),*])
        };
        (@ name $name:ident) => { text(rows, |row| Some(&row.$name)) };
        (@ text $name:ident) => { text(rows, |row| row.$name.as_deref()) };
        (@ number $name:ident) => { number(rows, |row| row.$name) };
        (@ integer $name:ident) => { integer(rows, |row| row.$name) };
        (@ index $name:ident) => { integer(rows, |row| Some(row.$name)) };
    }
    // The columns of a recorded run, in its order, and then those that it does not have.
    columns! {
        arm: name, sequence: index, job: name, context: text, queue: text, host: text, state: name,
        jes_created_s: number, jes_end_s: number, jes_elapsed_ms: integer, client_duration_s: number,
        wlo_id: integer, wlo_submit_s: number, wlo_start_s: number, wlo_end_s: number,
        pending_s: number, starting_s: number, running_s: number, reserved_cores: number, reserved_memory: number,
        max_cpu_s: number, max_clock_s: number, max_memory: number, max_io_total: number, max_io_rate: number,
        max_page_rate: number,
        round: index, correlation: text, submit_latency_s: number, observe_lag_s: number, requeue_count: integer,
        suspended_s: number, error: text, unique_name: text, job_id: text,
    }
}

/// One row per arm and host.
///
/// # Errors
/// [`ErrorKind::Internal`] only.
pub fn hosts(analysis: &Analysis) -> Result<RecordBatch> {
    let hosts = analysis.arms.iter().flat_map(|arm| arm.hosts.iter().map(|host| (arm.arm.as_str(), host)));
    let rows: Vec<(&str, &HostFigures)> = hosts.collect();
    let rows = &rows[..];
    table([
        ("arm", text(rows, |(arm, _)| Some(arm))),
        ("host", text(rows, |(_, host)| Some(&host.host))),
        ("jobs", count(rows, |(_, host)| host.jobs)),
        ("peak_concurrency", count(rows, |(_, host)| host.peak_concurrency)),
        ("first_start_s", number(rows, |(_, host)| host.first_start_s)),
        ("last_end_s", number(rows, |(_, host)| host.last_end_s)),
        ("held_s", number(rows, |(_, host)| Some(host.held_s))),
        ("busy_s", number(rows, |(_, host)| Some(host.busy_s))),
        ("new", flag(rows, |(_, host)| host.new)),
        ("came", flag(rows, |(_, host)| host.came)),
        ("cold", flag(rows, |(_, host)| host.cold)),
        ("running_to_cpu", number(rows, |(_, host)| host.running_to_cpu)),
        ("starting_max_s", number(rows, |(_, host)| host.starting_s)),
        ("first_round", integer(rows, |(_, host)| host.first_round)),
    ])
}

/// One row per arm.
///
/// # Errors
/// [`ErrorKind::Internal`] only.
pub fn arms(run: &RunData, analysis: &Analysis) -> Result<RecordBatch> {
    let (plans, rows) = (&run.arms[..], &analysis.arms[..]);
    let median = |of: fn(&ArmFigures) -> Option<SummaryStats>| number(rows, |arm| Some(of(arm)?.p50));
    table([
        ("arm", text(plans, |plan| Some(&plan.name))),
        ("context", text(plans, |plan| plan.context.as_deref())),
        ("queue", text(plans, |plan| plan.queue.as_deref())),
        ("mode", text(plans, |plan| plan.mode.map(<&str>::from))),
        ("concurrent", integer(plans, |plan| plan.concurrent.and_then(|count| count.try_into().ok()))),
        ("rounds", count(rows, |arm| arm.rounds)),
        ("jobs", count(rows, |arm| arm.jobs)),
        ("successful", count(rows, |arm| arm.completed)),
        ("failed", count(rows, |arm| arm.failed)),
        ("hosts", count(rows, |arm| arm.hosts.len())),
        ("total_duration_s", number(rows, |arm| Some(arm.makespan_s?.mean))),
        ("throughput_per_hour", number(rows, |arm| arm.throughput_per_hour)),
        ("peak_concurrency", integer(rows, |arm| arm.peak_concurrency.and_then(|count| count.try_into().ok()))),
        ("mean_concurrency", number(rows, |arm| arm.mean_concurrency)),
        ("pending_median_s", median(|arm| arm.pending_s)),
        ("starting_median_s", median(|arm| arm.starting_s)),
        ("running_median_s", median(|arm| arm.running_s)),
        ("running_sum_s", number(rows, |arm| arm.running_s_sum)),
        ("cpu_sum_s", number(rows, |arm| arm.cpu_s)),
        ("running_to_cpu_median", median(|arm| arm.running_to_cpu)),
        ("cold_starts", count(rows, |arm| arm.cold_starts)),
        ("scale_up_s", number(rows, |arm| arm.scale_up_s)),
        ("host_seconds", number(rows, |arm| arm.host_seconds)),
        ("busy_share", number(rows, |arm| arm.busy_share)),
        ("cost", number(rows, |arm| arm.cost)),
        ("fairness", number(rows, |arm| arm.fairness)),
        ("observe_lag_median_s", median(|arm| arm.observe_lag_s)),
    ])
}

/// One row per arm and phase.
///
/// # Errors
/// [`ErrorKind::Internal`] only.
pub fn phases(analysis: &Analysis) -> Result<RecordBatch> {
    let mut rows: Vec<(&str, &str, SummaryStats)> = Vec::new();
    for arm in &analysis.arms {
        for (phase, seconds) in [
            ("pending", arm.pending_s),
            ("starting", arm.starting_s),
            ("starting_cold", arm.starting_cold_s),
            ("starting_warm", arm.starting_warm_s),
            ("running", arm.running_s),
            ("finish_lag", arm.finish_lag_s),
            ("observe_lag", arm.observe_lag_s),
        ] {
            rows.extend(seconds.map(|seconds| (arm.arm.as_str(), phase, seconds)));
        }
    }
    let seconds = |of: fn(&SummaryStats) -> f64| number(&rows, |(.., seconds)| Some(of(seconds)));
    table([
        ("arm", text(&rows, |(arm, ..)| Some(arm))),
        ("phase", text(&rows, |(_, phase, _)| Some(phase))),
        ("jobs", count(&rows, |(.., seconds)| seconds.count)),
        ("mean_s", seconds(|stats| stats.mean)),
        ("min_s", seconds(|stats| stats.min)),
        ("p50_s", seconds(|stats| stats.p50)),
        ("p90_s", seconds(|stats| stats.p90)),
        ("p95_s", seconds(|stats| stats.p95)),
        ("max_s", seconds(|stats| stats.max)),
        ("sum_s", seconds(|stats| stats.sum)),
    ])
}
