//! A run as Arrow tables. `jobs` has the columns of a recorded run: seconds since the first submission, one row per job.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};

use super::analysis::{Analysis, ArmFigures, HostFigures, Observation, Run, Spread};
use crate::error::{Error, ErrorKind, Result};

/// One row per job of every arm and round.
///
/// # Errors
/// [`ErrorKind::Internal`] only.
pub fn jobs(run: &Run) -> Result<RecordBatch> {
    let rows = &run.observations;
    macro_rules! columns {
        ($($name:ident: $kind:ident),* $(,)?) => {
            batch(vec![$((stringify!($name), columns!(@ $kind $name))),*])
        };
        (@ text $name:ident) => { Arc::new(rows.iter().map(|row| Some(row.$name.as_str())).collect::<StringArray>()) as ArrayRef };
        (@ maybe $name:ident) => { Arc::new(rows.iter().map(|row| row.$name.as_deref()).collect::<StringArray>()) as ArrayRef };
        (@ real $name:ident) => { Arc::new(rows.iter().map(|row| row.$name).collect::<Float64Array>()) as ArrayRef };
        (@ whole $name:ident) => { Arc::new(rows.iter().map(|row| row.$name).collect::<Int64Array>()) as ArrayRef };
        (@ count $name:ident) => { Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.$name))) as ArrayRef };
    }
    // In the order of a recorded run, and after these what it does not have.
    columns! {
        arm: text, sequence: count, job: text, context: maybe, queue: maybe, host: maybe, state: text,
        jes_created_s: real, jes_end_s: real, jes_elapsed_ms: whole, client_duration_s: real,
        wlo_id: whole, wlo_submit_s: real, wlo_start_s: real, wlo_end_s: real,
        pending_s: real, starting_s: real, running_s: real, reserved_cores: real, reserved_memory: real,
        max_cpu_s: real, max_clock_s: real, max_memory: real, max_io_total: real, max_io_rate: real, max_page_rate: real,
        round: count, correlation: maybe, submit_latency_s: real, observe_lag_s: real, requeue_count: whole,
        suspended_s: real, error: maybe, unique_name: maybe, job_id: maybe,
    }
}

/// One row per arm and host.
///
/// # Errors
/// [`ErrorKind::Internal`] only.
pub fn hosts(analysis: &Analysis) -> Result<RecordBatch> {
    let rows: Vec<(&str, &HostFigures)> =
        analysis.arms.iter().flat_map(|arm| arm.hosts.iter().map(|host| (arm.arm.as_str(), host))).collect();
    let real = |of: &dyn Fn(&HostFigures) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, host)| of(host)).collect::<Float64Array>())
    };
    let whole = |of: &dyn Fn(&HostFigures) -> usize| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, host)| of(host) as i64)))
    };
    let flag = |of: &dyn Fn(&HostFigures) -> bool| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, host)| Some(of(host))).collect::<BooleanArray>())
    };
    batch(vec![
        ("arm", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)))),
        ("host", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1.host.as_str())))),
        ("jobs", whole(&|host| host.jobs)),
        ("peak_concurrency", whole(&|host| host.peak_concurrency)),
        ("first_start_s", real(&|host| host.first_start_s)),
        ("last_end_s", real(&|host| host.last_end_s)),
        ("held_s", real(&|host| Some(host.held_s))),
        ("busy_s", real(&|host| Some(host.busy_s))),
        ("new", flag(&|host| host.new)),
        ("came", flag(&|host| host.came)),
        ("cold", flag(&|host| host.cold)),
        ("running_to_cpu", real(&|host| host.running_to_cpu)),
        ("starting_max_s", real(&|host| host.starting_s)),
        ("first_round", Arc::new(rows.iter().map(|(_, host)| host.first_round).collect::<Int64Array>())),
    ])
}

/// One row per arm.
///
/// # Errors
/// [`ErrorKind::Internal`] only.
pub fn arms(run: &Run, analysis: &Analysis) -> Result<RecordBatch> {
    let rows: Vec<_> = run.arms.iter().zip(&analysis.arms).collect();
    let text = |values: Vec<Option<String>>| -> ArrayRef { Arc::new(values.into_iter().collect::<StringArray>()) };
    let whole = |of: &dyn Fn(&ArmFigures) -> Option<usize>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, figures)| of(figures).map(|count| count as i64)).collect::<Int64Array>())
    };
    let real = |of: &dyn Fn(&ArmFigures) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, figures)| of(figures)).collect::<Float64Array>())
    };
    let median = |of: &dyn Fn(&ArmFigures) -> Option<Spread>| real(&|figures| of(figures).map(|spread| spread.p50));
    batch(vec![
        ("arm", text(rows.iter().map(|(plan, _)| Some(plan.name.clone())).collect())),
        ("context", text(rows.iter().map(|(plan, _)| plan.context.clone()).collect())),
        ("queue", text(rows.iter().map(|(plan, _)| plan.queue.clone()).collect())),
        ("mode", text(rows.iter().map(|(plan, _)| plan.mode.map(|mode| mode.as_str().to_owned())).collect())),
        (
            "concurrent",
            Arc::new(rows.iter().map(|(plan, _)| plan.concurrent.map(|count| count as i64)).collect::<Int64Array>()),
        ),
        ("rounds", whole(&|figures| Some(figures.rounds))),
        ("jobs", whole(&|figures| Some(figures.jobs))),
        ("successful", whole(&|figures| Some(figures.completed))),
        ("failed", whole(&|figures| Some(figures.failed))),
        ("hosts", whole(&|figures| Some(figures.hosts.len()))),
        ("total_duration_s", real(&|figures| figures.makespan_s.map(|spread| spread.mean))),
        ("throughput_per_hour", real(&|figures| figures.throughput_per_hour)),
        ("peak_concurrency", whole(&|figures| figures.peak_concurrency)),
        ("mean_concurrency", real(&|figures| figures.mean_concurrency)),
        ("pending_median_s", median(&|figures| figures.pending_s)),
        ("starting_median_s", median(&|figures| figures.starting_s)),
        ("running_median_s", median(&|figures| figures.running_s)),
        ("running_sum_s", real(&|figures| figures.running_s_sum)),
        ("cpu_sum_s", real(&|figures| figures.cpu_s)),
        ("running_to_cpu_median", median(&|figures| figures.running_to_cpu)),
        ("cold_starts", whole(&|figures| Some(figures.cold_starts))),
        ("scale_up_s", real(&|figures| figures.scale_up_s)),
        ("host_seconds", real(&|figures| figures.host_seconds)),
        ("busy_share", real(&|figures| figures.busy_share)),
        ("cost", real(&|figures| figures.cost)),
        ("fairness", real(&|figures| figures.fairness)),
        ("observe_lag_median_s", median(&|figures| figures.observe_lag_s)),
    ])
}

/// One row per arm and phase.
///
/// # Errors
/// [`ErrorKind::Internal`] only.
pub fn phases(analysis: &Analysis) -> Result<RecordBatch> {
    let mut rows: Vec<(&str, &str, Spread)> = Vec::new();
    for arm in &analysis.arms {
        for (phase, spread) in [
            ("pending", arm.pending_s),
            ("starting", arm.starting_s),
            ("starting_cold", arm.starting_cold_s),
            ("starting_warm", arm.starting_warm_s),
            ("running", arm.running_s),
            ("finish_lag", arm.finish_lag_s),
            ("observe_lag", arm.observe_lag_s),
        ] {
            rows.extend(spread.map(|spread| (arm.arm.as_str(), phase, spread)));
        }
    }
    let real = |of: fn(&Spread) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|(_, _, spread)| of(spread))))
    };
    batch(vec![
        ("arm", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)))),
        ("phase", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)))),
        ("jobs", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2.count as i64)))),
        ("mean_s", real(|spread| spread.mean)),
        ("min_s", real(|spread| spread.min)),
        ("p50_s", real(|spread| spread.p50)),
        ("p90_s", real(|spread| spread.p90)),
        ("p95_s", real(|spread| spread.p95)),
        ("max_s", real(|spread| spread.max)),
        ("sum_s", real(|spread| spread.sum)),
    ])
}

/// The rows of [`jobs`], one object each.
pub(super) fn row(job: &Observation) -> serde_json::Value {
    serde_json::to_value(job).unwrap_or_default()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(|e| Error::new(ErrorKind::Internal, "the tables of the comparison could not be built").with_source(e))
}
