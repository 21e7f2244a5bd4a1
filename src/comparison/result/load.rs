//! Reads result files of this and of the first job execution client.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::RunIdentity;
use crate::comparison::analysis::{ArmPlan, JobRow, RunData, from_table};
use crate::comparison::arms::SubmissionMode;
use crate::comparison::files;
use crate::error::{Error, Result};
use crate::viya::json::parse_time;
use crate::viya::orchestrator::OrchestratorEntry;

/// Reads a result file: the run, what identifies it if the file says that, and the document if it is complete.
pub(super) fn read(path: &Path) -> Result<(RunData, Option<RunIdentity>, Option<Value>)> {
    let file = path.display();
    let text = files::read_text(path, format!("the result {file} cannot be read: name a result in JSON that exists"))?;
    let refused = |reason: &str| Error::invalid(format!("{file} is not the result of a comparison: {reason}"));
    let value: Value = serde_json::from_str(&text).map_err(|e| refused("it is not JSON").with_source(e))?;
    let identity = identity(&value);
    let Some(Value::Array(arms)) = value.get("arms") else {
        let run = first_client(&value).ok_or_else(|| refused("it has neither arms nor executions"))?;
        return Ok((run, identity, Some(value)));
    };
    let mut run = RunData {
        host_price: value.pointer("/metadata/host_price").and_then(Value::as_f64),
        broke_off: text_at(&value, "/metadata/broke_off"),
        orchestrator_problem: text_at(&value, "/metadata/orchestrator_problem"),
        submitted_twice: list_at(&value, "/metadata/submitted_twice").filter_map(|name| text_at(name, "")).collect(),
        resumed: value.pointer("/metadata/resumed").and_then(Value::as_u64).unwrap_or(0) as u32,
        ..RunData::default()
    };
    for arm in arms {
        let (plan, jobs) = read_arm(arm).map_err(|e| refused("an arm cannot be read").with_source(e))?;
        for (at, job) in jobs.iter().enumerate() {
            from_table::validate(job, at + 1).map_err(|e| refused("a job is not possible").with_source(e))?;
        }
        run.arms.push(plan);
        run.job_rows.extend(jobs);
    }
    let document = value.get("analysis").is_some().then_some(value);
    Ok((run, identity, document))
}

/// Identifies the run. The first client did not write ids: time and server replace them.
fn identity(value: &Value) -> Option<RunIdentity> {
    let at = text_at(value, "/metadata/execution_timestamp")?;
    let base_url = text_at(value, "/metadata/base_url")?;
    let run_id = text_at(value, "/metadata/run_id").unwrap_or_else(|| format!("{at} {base_url}"));
    Some(RunIdentity { run_id, began: parse_time(&at)?, base_url })
}

fn text_at(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

fn list_at<'a>(value: &'a Value, pointer: &str) -> std::slice::Iter<'a, Value> {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice).iter()
}

fn read_arm(arm: &Value) -> std::result::Result<(ArmPlan, Vec<JobRow>), Box<dyn std::error::Error + Send + Sync>> {
    let interrupted = list_at(arm, "/rounds").filter(|round| round.get("interrupted") == Some(&Value::Bool(true)));
    let plan = ArmPlan {
        name: text_at(arm, "/name").ok_or("it has no name")?,
        context: text_at(arm, "/context"),
        queue: text_at(arm, "/queue"),
        mode: text_at(arm, "/mode").and_then(|mode| mode.parse().ok()),
        concurrent: arm.get("concurrent").and_then(Value::as_u64).map(|count| count as usize),
        interrupted: interrupted.filter_map(|round| round.get("round")?.as_i64()).collect(),
    };
    let mut jobs = Vec::new();
    for job in list_at(arm, "/jobs") {
        let job: JobRow = serde_json::from_value(job.clone())?;
        jobs.push(JobRow { arm: plan.name.clone(), round: job.round.max(1), ..job });
    }
    Ok((plan, jobs))
}

/// The run in a result of the first client, which has a key for each arm. SAS: its "cpu_cores" and "memory_mb" are the
/// reserved values.
fn first_client(value: &Value) -> Option<RunData> {
    let known = ["sequential", "async", "async_regular", "async_autoscaling"];
    let mut found: Vec<(&str, &Value)> =
        known.iter().filter_map(|name| Some((*name, value.get(format!("{name}_execution"))?))).collect();
    found.retain(|(_, arm)| arm.get("jobs").is_some_and(Value::is_array));
    let created = |job: &Value| text_at(job, "/job_metrics/submission_time").or_else(|| text_at(job, "/start_time"));
    let zero =
        found.iter().flat_map(|(_, arm)| list_at(arm, "/jobs")).filter_map(|job| parse_time(&created(job)?)).min()?;
    let offset = |at: DateTime<Utc>| (at - zero).as_seconds_f64();
    let since = |at: Option<String>| parse_time(&at?).map(offset);
    let mut run = RunData::default();
    for (name, arm) in found {
        for (at, job) in list_at(arm, "/jobs").enumerate() {
            let text = |pointer: &str| text_at(job, pointer);
            let number = |pointer: &str| job.pointer(pointer).and_then(Value::as_f64);
            let data = |key: &str| text(&format!("/metrics/orchestrator_data/{key}"));
            let seconds = |key: &str| number(&format!("/metrics/orchestrator_data/{key}"));
            // Some results have the unchanged answer of the orchestrator as `orchestrator_data`.
            let entry = job
                .pointer("/metrics/orchestrator_data")
                .or_else(|| job.pointer("/job_metrics/orchestrator_data"))
                .filter(|data| data.get("processingInfo").is_some())
                .map(OrchestratorEntry::new);
            let entry = entry.as_ref();
            run.job_rows.push(JobRow {
                arm: name.to_owned(),
                sequence: job.get("sequence_number").and_then(Value::as_i64).unwrap_or(at as i64 + 1),
                job: text("/name").unwrap_or_default(),
                context: text("/job_metrics/compute_context").filter(|context| !context.is_empty()),
                queue: text("/metrics/orchestrator_context/queue_name")
                    .or_else(|| data("queue_name"))
                    .or_else(|| entry?.queue().map(str::to_owned)),
                host: text("/metrics/actual_hostname")
                    .or_else(|| data("execution_host"))
                    .or_else(|| entry?.host().map(str::to_owned)),
                state: text("/status").unwrap_or_else(|| "unknown".to_owned()),
                jes_created_s: since(created(job)),
                jes_end_s: since(text("/job_metrics/completion_time").or_else(|| text("/end_time"))),
                jes_elapsed_ms: job.pointer("/job_metrics/elapsed_time_ms").and_then(Value::as_i64),
                client_duration_s: number("/duration"),
                wlo_submit_s: since(data("submit_time")).or_else(|| entry?.submitted().map(offset)),
                wlo_start_s: since(data("start_time")).or_else(|| entry?.started().map(offset)),
                wlo_end_s: since(data("end_time")).or_else(|| entry?.ended().map(offset)),
                pending_s: number("/metrics/orchestrator_timing/queue_wait_seconds")
                    .or_else(|| seconds("queue_wait_seconds"))
                    .or_else(|| entry?.number("totalTimePending")),
                starting_s: seconds("starting_seconds").or_else(|| entry?.number("totalTimeStarting")),
                running_s: seconds("running_seconds").or_else(|| entry?.number("totalTimeRunning")),
                reserved_cores: number("/metrics/orchestrator_resources/cpu_cores"),
                reserved_memory: number("/metrics/orchestrator_resources/memory_mb"),
                max_cpu_s: seconds("measured/cpu_seconds").or_else(|| entry?.measured("maxCpuTime")),
                max_clock_s: entry.and_then(|entry| entry.measured("maxClockTime")),
                max_memory: entry.and_then(|entry| entry.measured("maxMemory")),
                round: 1,
                unique_name: text("/unique_job_name").filter(|name| !name.is_empty()),
                job_id: text("/job_instance_id"),
                ..JobRow::default()
            });
        }
        run.arms.push(ArmPlan {
            name: name.to_owned(),
            context: text_at(arm, "/context_name"),
            queue: None,
            mode: (name == "sequential").then_some(SubmissionMode::Sequential),
            concurrent: match (name, text_at(arm, "/execution_mode").as_deref()) {
                ("sequential", _) => Some(1),
                (_, Some("all")) => Some(list_at(arm, "/jobs").len()),
                _ => arm.get("max_concurrent").and_then(Value::as_u64).map(|count| count as usize),
            },
            interrupted: Vec::new(),
        });
    }
    (!run.job_rows.is_empty()).then_some(run)
}
