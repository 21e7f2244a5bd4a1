//! The result of a run: the JSON that users know, its file, and the same as tables.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::arms::Mode;
use super::plan::JobConfig;
use super::record::ArmRecord;
use super::warnings::{Warning, warnings};
use super::{statistics, table};
use crate::error::Result;

mod file;
mod job;

pub(super) use file::ResultFile;

/// A finished comparison. All durations are seconds of the server; `metadata.speed` says how many of them passed in one
/// real second.
#[derive(Debug, Clone)]
pub struct ComparisonResult {
    /// The result file.
    pub path: PathBuf,
    /// What is in it.
    pub json: Value,
    /// Where a conclusion would be unsafe.
    pub warnings: Vec<Warning>,
    arms: Vec<ArmRecord>,
}

/// What is known of a run beside its jobs.
pub(super) struct RunFacts {
    pub began: DateTime<Utc>,
    pub base_url: String,
    pub speed: f64,
    pub mode: Mode,
    /// Jobs in flight at most, in whichever arm has most of them.
    pub max_concurrent: usize,
    /// Rounds that were asked for.
    pub repeat: u32,
    /// How often the run was resumed after it had been interrupted.
    pub resumed: u32,
    /// Identifies the run.
    pub run_id: String,
    /// Where its journal is.
    pub journal: PathBuf,
    /// What an hour of a host costs.
    pub host_price: Option<f64>,
    pub correlation_timeout: f64,
    pub broke_off: Option<String>,
    pub orchestrator_problem: Option<String>,
}

impl ComparisonResult {
    /// Builds the result and writes it.
    pub(super) fn build(
        facts: RunFacts,
        jobs: &[Arc<JobConfig>],
        arms: Vec<ArmRecord>,
        file: ResultFile,
    ) -> Result<Self> {
        let mut warnings = warnings(&arms, facts.broke_off.as_deref(), facts.orchestrator_problem.as_deref());
        let document = |warnings: &[Warning]| tidy(document(&facts, jobs, &arms, warnings));
        let mut json = document(&warnings);
        let (path, moved) = file.write(facts.began, &json)?;
        if let Some(why) = moved {
            warnings.push(Warning { code: "result_moved".into(), text: why });
            json = document(&warnings);
        }
        Ok(Self { path, json, warnings, arms })
    }

    /// The JSON document.
    pub fn to_value(&self) -> &Value {
        &self.json
    }

    /// Jobs that did not end well, over all arms.
    pub fn failed_jobs(&self) -> usize {
        self.arms.iter().map(ArmRecord::failed).sum()
    }

    /// One row per job, with the columns of a recorded run.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] only.
    pub fn jobs_batch(&self) -> Result<RecordBatch> {
        table::jobs(&self.arms)
    }

    /// One row per arm and host.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] only.
    pub fn hosts(&self) -> Result<RecordBatch> {
        table::hosts(&self.arms)
    }

    /// One row per arm.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] only.
    pub fn arms(&self) -> Result<RecordBatch> {
        table::arms(&self.arms)
    }
}

/// A time stamp as SAS writes them.
fn stamp(at: Option<DateTime<Utc>>) -> Value {
    at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)).into()
}

/// Rounds every number to microseconds: the rest is the noise of binary fractions.
fn tidy(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) if float.abs() < 1e9 => json!((float * 1e6).round() / 1e6),
            _ => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(tidy).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, tidy(value))).collect(),
        other => other,
    }
}

fn document(facts: &RunFacts, jobs: &[Arc<JobConfig>], arms: &[ArmRecord], warnings: &[Warning]) -> Value {
    let arm = |name: &str| arms.iter().find(|record| record.arm.name == name);
    let (sequential, parallel) = (arm("sequential"), arm("async"));
    json!({
        "metadata": {
            "execution_timestamp": stamp(Some(facts.began)),
            "base_url": facts.base_url,
            "speed": facts.speed,
            "version": env!("CARGO_PKG_VERSION"),
            "mode": facts.mode.as_str(),
            "max_concurrent": facts.max_concurrent,
            "repeat": facts.repeat,
            "resumed": facts.resumed,
            "run_id": facts.run_id,
            "source": "run",
            "journal": facts.journal,
            "host_price": facts.host_price,
            "total_jobs": jobs.len(),
            "correlation_timeout": facts.correlation_timeout,
            "broke_off": facts.broke_off,
            "durations": "seconds of the server",
        },
        "jobs": jobs.iter().map(|job| &job.entry).collect::<Vec<_>>(),
        "sequential_execution": sequential.map(|arm| execution(arm, jobs.len())),
        "async_execution": parallel.map(|arm| execution(arm, jobs.len())),
        "comparison": sequential.zip(parallel).map(|(sequential, parallel)| comparison(sequential, parallel)),
        "warnings": warnings.iter().map(|warning| json!({"code": warning.code, "text": warning.text})).collect::<Vec<_>>(),
    })
}

/// One arm that was to run `planned` jobs; a run that broke off has fewer.
fn execution(record: &ArmRecord, planned: usize) -> Value {
    let values =
        |of: fn(&super::record::JobRecord) -> Option<f64>| record.jobs.iter().filter_map(of).collect::<Vec<f64>>();
    let spread = |of: fn(&super::record::JobRecord) -> Option<f64>| {
        let values = values(of);
        json!({"median": statistics::quantile(&values, 0.5), "p90": statistics::quantile(&values, 0.9),
               "max": statistics::quantile(&values, 1.0), "mean": statistics::mean(&values), "sum": values.iter().sum::<f64>()})
    };
    use super::record::JobRecord as Job;
    json!({
        "execution_mode": record.arm.mode.as_str(),
        "max_concurrent": record.arm.in_flight(planned),
        "context_name": record.arm.context,
        "queue_name": record.context.queue,
        "observed_queues": record.queues(),
        "start_time": stamp(record.start()),
        "end_time": stamp(record.end()),
        "total_duration": record.makespan(),
        "successful_jobs": record.successful(),
        "failed_jobs": record.failed(),
        "hosts": record.hosts(),
        "phases": {"pending_s": spread(Job::pending), "starting_s": spread(Job::starting), "running_s": spread(Job::running)},
        "client": {"observe_lag_s": spread(Job::observe_lag)},
        "jobs": record.jobs.iter().map(|job| job::job(record, job)).collect::<Vec<_>>(),
    })
}

fn comparison(sequential: &ArmRecord, parallel: &ArmRecord) -> Value {
    let (before, after) = (sequential.makespan(), parallel.makespan());
    let saved = before.zip(after).map(|(before, after)| before - after);
    // Percent of the sequential time; nothing can be a share of no time.
    let gain = saved.zip(before).filter(|(_, before)| *before > 0.0).map(|(saved, before)| 100.0 * saved / before);
    let rate = |record: &ArmRecord| {
        (!record.jobs.is_empty()).then(|| 100.0 * record.successful() as f64 / record.jobs.len() as f64)
    };
    let average = |record: &ArmRecord| {
        statistics::mean(&record.jobs.iter().filter_map(super::record::JobRecord::duration).collect::<Vec<_>>())
    };
    let (first, second) = (sequential.hosts(), parallel.hosts());
    let new_hosts: Vec<&String> = second.keys().filter(|host| !first.contains_key(*host)).collect();
    let several: std::collections::BTreeMap<_, _> = second.iter().filter(|(_, jobs)| **jobs > 1).collect();
    let scaling = match second.len().cmp(&first.len()) {
        _ if first.is_empty() || second.is_empty() => None,
        std::cmp::Ordering::Greater => Some("scale_out"),
        std::cmp::Ordering::Equal => Some("no_scaling"),
        std::cmp::Ordering::Less => Some("consolidation"),
    };
    json!({
        "time_saved": saved,
        "efficiency_gain": gain,
        "execution_time": {"sequential_total": before, "async_total": after, "time_saved": saved, "efficiency_gain": gain},
        "job_performance": {
            "sequential_success_rate": rate(sequential), "async_success_rate": rate(parallel),
            "sequential_avg_job_time": average(sequential), "async_avg_job_time": average(parallel),
        },
        "resource_utilization": {
            "sequential_context": sequential.arm.context, "async_context": parallel.arm.context,
            "concurrent_execution": parallel.arm.in_flight(parallel.jobs.len()) > 1,
        },
        "node_analysis": {
            "sequential_nodes": first, "async_nodes": second,
            "autoscaling_behavior": {
                "sequential_vs_async_nodes": {"sequential": first.len(), "async": second.len()},
                "new_nodes": new_hosts,
                "concurrent_job_distribution": second.len(),
                "nodes_with_multiple_jobs": several,
                "scaling_observed": scaling.map(|scaling| scaling == "scale_out"),
                "scaling_type": scaling,
            },
        },
    })
}

#[cfg(test)]
mod tests;
