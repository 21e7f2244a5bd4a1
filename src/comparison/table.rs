//! A run as Arrow tables. `jobs` has the columns of a recorded run: seconds since the first submission, one row per job.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use chrono::{DateTime, Utc};

use super::record::{ArmRecord, JobRecord};
use super::statistics::{peak, quantile};
use crate::error::{Error, ErrorKind, Result};

/// One row per job of every arm.
///
/// # Errors
/// [`ErrorKind::Internal`] only.
pub fn jobs(arms: &[ArmRecord]) -> Result<RecordBatch> {
    let rows: Vec<(&ArmRecord, &JobRecord)> =
        arms.iter().flat_map(|arm| arm.jobs.iter().map(move |job| (arm, job))).collect();
    let zero = rows.iter().filter_map(|(_, job)| job.created()).min();
    let first_id = rows.iter().filter_map(|(_, job)| job.entry.as_ref()?.id()).min().unwrap_or(0);
    let since = |at: Option<DateTime<Utc>>| Some((at? - zero?).as_seconds_f64());
    let text = |of: &dyn Fn(&ArmRecord, &JobRecord) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(|(arm, job)| of(arm, job)).collect::<StringArray>())
    };
    let real = |of: &dyn Fn(&JobRecord) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, job)| of(job)).collect::<Float64Array>())
    };
    let whole = |of: &dyn Fn(&JobRecord) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, job)| of(job)).collect::<Int64Array>())
    };
    let measured = |name: &'static str| real(&move |job| job.entry.as_ref()?.measured(name));
    let reserved = |name: &'static str| real(&move |job| job.entry.as_ref()?.reserved(name));
    batch(vec![
        ("arm", text(&|arm, _| Some(arm.arm.name.clone()))),
        ("sequence", whole(&|job| i64::try_from(job.sequence).ok())),
        ("job", text(&|_, job| Some(job.config.name.clone()))),
        (
            "context",
            text(&|arm, job| {
                Some(
                    job.job
                        .as_ref()
                        .and_then(|job| job.result("COMPUTE_CONTEXT"))
                        .unwrap_or(&arm.arm.context)
                        .to_owned(),
                )
            }),
        ),
        ("queue", text(&|_, job| job.entry.as_ref()?.queue().map(str::to_owned))),
        ("host", text(&|_, job| job.host().map(str::to_owned))),
        ("state", text(&|_, job| Some(job.status.clone()))),
        ("jes_created_s", real(&|job| since(job.created()))),
        ("jes_end_s", real(&|job| since(job.ended()))),
        ("jes_elapsed_ms", whole(&|job| job.elapsed_ms().map(|ms| ms.round() as i64))),
        ("client_duration_s", real(&|job| job.observed_duration)),
        ("wlo_id", whole(&|job| Some(job.entry.as_ref()?.id()? - first_id))),
        ("wlo_submit_s", real(&|job| since(job.entry.as_ref()?.submitted()))),
        ("wlo_start_s", real(&|job| since(job.entry.as_ref()?.started()))),
        ("wlo_end_s", real(&|job| since(job.entry.as_ref()?.ended()))),
        ("pending_s", real(&JobRecord::pending)),
        ("starting_s", real(&JobRecord::starting)),
        ("running_s", real(&JobRecord::running)),
        ("reserved_cores", reserved("cores")),
        ("reserved_memory", reserved("memory")),
        ("max_cpu_s", measured("maxCpuTime")),
        ("max_clock_s", measured("maxClockTime")),
        ("max_memory", measured("maxMemory")),
        ("max_io_total", measured("maxIoTotal")),
        ("max_io_rate", measured("maxIoRate")),
        ("max_page_rate", measured("maxPageRate")),
        ("unique_job_name", text(&|_, job| Some(job.unique_name.clone()))),
        ("correlation", text(&|_, job| Some(job.correlation.as_str().to_owned()))),
        ("error", text(&|_, job| job.error.clone())),
    ])
}

/// One row per arm and host.
///
/// # Errors
/// [`ErrorKind::Internal`] only.
pub fn hosts(arms: &[ArmRecord]) -> Result<RecordBatch> {
    let zero = arms.iter().filter_map(ArmRecord::start).min();
    let mut rows: Vec<(&str, &str, Vec<&JobRecord>)> = Vec::new();
    for arm in arms {
        let mut by_host: BTreeMap<&str, Vec<&JobRecord>> = BTreeMap::new();
        for job in &arm.jobs {
            if let Some(host) = job.host() {
                by_host.entry(host).or_default().push(job);
            }
        }
        rows.extend(by_host.into_iter().map(|(host, jobs)| (arm.arm.name.as_str(), host, jobs)));
    }
    let span = |job: &&JobRecord| job.entry.as_ref().and_then(|entry| entry.started().zip(entry.ended()));
    let spans: Vec<Vec<_>> = rows.iter().map(|(_, _, jobs)| jobs.iter().filter_map(span).collect()).collect();
    let since = |at: Option<&DateTime<Utc>>| Some((*at? - zero?).as_seconds_f64());
    let sum = |of: &dyn Fn(&JobRecord) -> Option<f64>| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(
            rows.iter().map(|(_, _, jobs)| jobs.iter().filter_map(|job| of(job)).sum::<f64>()),
        ))
    };
    batch(vec![
        ("arm", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)))),
        ("host", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)))),
        ("jobs", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2.len() as i64)))),
        ("peak_concurrent", Arc::new(Int64Array::from_iter_values(spans.iter().map(|spans| peak(spans) as i64)))),
        (
            "first_start_s",
            Arc::new(spans.iter().map(|spans| since(spans.iter().map(|span| &span.0).min())).collect::<Float64Array>()),
        ),
        (
            "last_end_s",
            Arc::new(spans.iter().map(|spans| since(spans.iter().map(|span| &span.1).max())).collect::<Float64Array>()),
        ),
        ("starting_s", sum(&JobRecord::starting)),
        ("running_s", sum(&JobRecord::running)),
        ("cpu_s", sum(&|job| job.entry.as_ref()?.measured("maxCpuTime"))),
    ])
}

/// One row per arm.
///
/// # Errors
/// [`ErrorKind::Internal`] only.
pub fn arms(arms: &[ArmRecord]) -> Result<RecordBatch> {
    let text = |of: &dyn Fn(&ArmRecord) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(arms.iter().map(of)))
    };
    let whole = |of: &dyn Fn(&ArmRecord) -> usize| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(arms.iter().map(|arm| of(arm) as i64)))
    };
    let real = |of: &dyn Fn(&ArmRecord) -> Option<f64>| -> ArrayRef {
        Arc::new(arms.iter().map(of).collect::<Float64Array>())
    };
    let median = |of: fn(&JobRecord) -> Option<f64>| {
        real(&move |arm| quantile(&arm.jobs.iter().filter_map(of).collect::<Vec<_>>(), 0.5))
    };
    batch(vec![
        ("arm", text(&|arm| arm.arm.name.clone())),
        ("context", text(&|arm| arm.arm.context.clone())),
        ("queue", text(&|arm| arm.queues().join(", "))),
        ("mode", text(&|arm| arm.arm.mode.as_str().to_owned())),
        ("concurrent", whole(&|arm| arm.arm.in_flight(arm.jobs.len()))),
        ("jobs", whole(&|arm| arm.jobs.len())),
        ("successful", whole(&ArmRecord::successful)),
        ("failed", whole(&ArmRecord::failed)),
        ("hosts", whole(&|arm| arm.hosts().len())),
        ("total_duration_s", real(&ArmRecord::makespan)),
        ("job_median_s", median(JobRecord::duration)),
        ("pending_median_s", median(JobRecord::pending)),
        ("starting_median_s", median(JobRecord::starting)),
        ("running_median_s", median(JobRecord::running)),
        ("running_sum_s", real(&|arm| Some(arm.jobs.iter().filter_map(JobRecord::running).sum()))),
        ("observe_lag_median_s", median(JobRecord::observe_lag)),
    ])
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(|e| Error::new(ErrorKind::Internal, "the tables of the comparison could not be built").with_source(e))
}
