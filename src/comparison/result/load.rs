//! Reads result files: ours, and those of the first job execution client.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Origin;
use crate::comparison::analysis::{ArmPlan, Observation, Run, recorded};
use crate::comparison::warnings::Warning;
use crate::error::{Error, ErrorKind, Result};
use crate::viya::json::parse_time;
use crate::viya::orchestrator::Entry;

/// What a result file has.
pub(super) struct Loaded {
    pub run: Run,
    /// None where the file does not name the run.
    pub origin: Option<Origin>,
    /// The document, where it has all that a result has.
    pub document: Option<Value>,
}

/// Reads a result file.
pub(super) fn read(path: &Path) -> Result<Loaded> {
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Storage };
        Error::new(kind, format!("the result {file} cannot be read: name a file that exists")).with_source(e)
    })?;
    let refused = |why: &str| Error::invalid(format!("{file} is not the result of a comparison: {why}"));
    // Editors of Windows put a mark in front.
    let text = text.trim_start_matches('\u{feff}');
    let value: Value = serde_json::from_str(text).map_err(|e| refused("it is not JSON").with_source(e))?;
    match value.get("arms") {
        Some(Value::Array(arms)) => {
            let mut run = Run {
                host_price: value.pointer("/metadata/host_price").and_then(Value::as_f64),
                broke_off: text_at(&value, "/metadata/broke_off"),
                orchestrator_problem: text_at(&value, "/metadata/orchestrator_problem"),
                submitted_twice: texts_at(&value, "/metadata/submitted_twice").collect(),
                resumed: value.pointer("/metadata/resumed").and_then(Value::as_u64).unwrap_or(0) as u32,
                ..Run::default()
            };
            for arm in arms {
                let (plan, jobs) = ours(arm).map_err(|e| refused("an arm in it cannot be read").with_source(e))?;
                for (at, job) in jobs.iter().enumerate() {
                    recorded::sound(job, at + 1).map_err(|e| refused("a job in it cannot be").with_source(e))?;
                }
                run.arms.push(plan);
                run.observations.extend(jobs);
            }
            Ok(Loaded { run, origin: origin(&value), document: value.get("analysis").is_some().then_some(value) })
        }
        _ => {
            let run = first_client(&value).ok_or_else(|| refused("it has neither arms nor executions"))?;
            Ok(Loaded { run, origin: origin(&value), document: Some(value) })
        }
    }
}

/// A warning as it was written.
pub(super) fn warning(value: &Value) -> Option<Warning> {
    Some(Warning { code: text_at(value, "/code")?, text: text_at(value, "/text")? })
}

/// Which run it is. The first client gave runs no name: the moment and the server tell them apart.
fn origin(value: &Value) -> Option<Origin> {
    let unnamed = || {
        let (at, server) = (text_at(value, "/metadata/execution_timestamp")?, text_at(value, "/metadata/base_url")?);
        Some(format!("{at} {server}"))
    };
    Some(Origin {
        run_id: text_at(value, "/metadata/run_id").or_else(unnamed)?,
        began: parse_time(&text_at(value, "/metadata/execution_timestamp")?)?,
        base_url: text_at(value, "/metadata/base_url")?,
    })
}

fn text_at(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

fn texts_at(value: &Value, pointer: &str) -> impl Iterator<Item = String> {
    let texts = value.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    texts.filter_map(|text| text.as_str().map(str::to_owned))
}

fn ours(arm: &Value) -> std::result::Result<(ArmPlan, Vec<Observation>), Box<dyn std::error::Error + Send + Sync>> {
    let interrupted = |round: &Value| round.get("interrupted") == Some(&Value::Bool(true));
    let rounds = arm.get("rounds").and_then(Value::as_array).into_iter().flatten();
    let plan = ArmPlan {
        name: text_at(arm, "/name").ok_or("it has no name")?,
        context: text_at(arm, "/context"),
        queue: text_at(arm, "/queue"),
        mode: text_at(arm, "/mode").and_then(|mode| mode.parse().ok()),
        concurrent: arm.get("concurrent").and_then(Value::as_u64).map(|count| count as usize),
        interrupted: rounds
            .filter(|round| interrupted(round))
            .filter_map(|round| round.get("round")?.as_i64())
            .collect(),
    };
    let jobs = arm.get("jobs").and_then(Value::as_array).into_iter().flatten();
    let jobs =
        jobs.map(|job| serde_json::from_value(job.clone())).collect::<std::result::Result<Vec<Observation>, _>>()?;
    let named = |job: Observation| Observation { arm: plan.name.clone(), round: job.round.max(1), ..job };
    let jobs = jobs.into_iter().map(named).collect();
    Ok((plan, jobs))
}

/// What the first client wrote has each arm under a key of its own. SAS: its "cpu_cores" and "memory_mb" are what was
/// reserved.
fn first_client(value: &Value) -> Option<Run> {
    let known = ["sequential", "async", "async_regular", "async_autoscaling"];
    let mut found: Vec<(&str, &Value)> =
        known.iter().filter_map(|name| Some((*name, value.get(format!("{name}_execution"))?))).collect();
    found.retain(|(_, arm)| arm.get("jobs").is_some_and(Value::is_array));
    let list = |arm: &Value| arm.get("jobs").and_then(Value::as_array).cloned().unwrap_or_default();
    let created = |job: &Value| text_at(job, "/job_metrics/submission_time").or_else(|| text_at(job, "/start_time"));
    let zero = found.iter().flat_map(|(_, arm)| list(arm)).filter_map(|job| parse_time(&created(&job)?)).min()?;
    let since = |at: Option<String>| -> Option<f64> {
        let at: DateTime<Utc> = parse_time(&at?)?;
        Some((at - zero).as_seconds_f64())
    };
    let mut run = Run::default();
    for (name, arm) in found {
        for (at, job) in list(arm).iter().enumerate() {
            let text = |pointer: &str| text_at(job, pointer);
            let data = |key: &str| job.pointer(&format!("/metrics/orchestrator_data/{key}"));
            // Some have the orchestrator's own answer there, as it came.
            let entry = job
                .pointer("/metrics/orchestrator_data")
                .or_else(|| job.pointer("/job_metrics/orchestrator_data"))
                .filter(|data| data.get("processingInfo").is_some())
                .map(Entry::new);
            let entry = entry.as_ref();
            let number = |key: &str| data(key).and_then(Value::as_f64);
            let words = |key: &str| data(key).and_then(Value::as_str).map(str::to_owned);
            let stamp = |at: Option<DateTime<Utc>>| Some((at? - zero).as_seconds_f64());
            let timing =
                |key: &str| job.pointer(&format!("/metrics/orchestrator_timing/{key}")).and_then(Value::as_f64);
            run.observations.push(Observation {
                arm: name.to_owned(),
                sequence: job.get("sequence_number").and_then(Value::as_i64).unwrap_or(at as i64 + 1),
                job: text("/name").unwrap_or_default(),
                context: text("/job_metrics/compute_context").filter(|context| !context.is_empty()),
                queue: text("/metrics/orchestrator_context/queue_name")
                    .or_else(|| words("queue_name"))
                    .or_else(|| entry?.queue().map(str::to_owned)),
                host: text("/metrics/actual_hostname")
                    .or_else(|| words("execution_host"))
                    .or_else(|| entry?.host().map(str::to_owned)),
                state: text("/status").unwrap_or_else(|| "unknown".to_owned()),
                jes_created_s: since(created(job)),
                jes_end_s: since(text("/job_metrics/completion_time").or_else(|| text("/end_time"))),
                jes_elapsed_ms: job.pointer("/job_metrics/elapsed_time_ms").and_then(Value::as_i64),
                client_duration_s: job.get("duration").and_then(Value::as_f64),
                wlo_submit_s: since(words("submit_time")).or_else(|| stamp(entry?.submitted())),
                wlo_start_s: since(words("start_time")).or_else(|| stamp(entry?.started())),
                wlo_end_s: since(words("end_time")).or_else(|| stamp(entry?.ended())),
                pending_s: timing("queue_wait_seconds")
                    .or_else(|| number("queue_wait_seconds"))
                    .or_else(|| entry?.number("totalTimePending")),
                starting_s: number("starting_seconds").or_else(|| entry?.number("totalTimeStarting")),
                running_s: number("running_seconds").or_else(|| entry?.number("totalTimeRunning")),
                reserved_cores: job.pointer("/metrics/orchestrator_resources/cpu_cores").and_then(Value::as_f64),
                reserved_memory: job.pointer("/metrics/orchestrator_resources/memory_mb").and_then(Value::as_f64),
                max_cpu_s: job
                    .pointer("/metrics/orchestrator_data/measured/cpu_seconds")
                    .and_then(Value::as_f64)
                    .or_else(|| entry?.measured("maxCpuTime")),
                max_clock_s: entry.and_then(|entry| entry.measured("maxClockTime")),
                max_memory: entry.and_then(|entry| entry.measured("maxMemory")),
                round: 1,
                unique_name: text("/unique_job_name").filter(|name| !name.is_empty()),
                job_id: text("/job_instance_id"),
                ..Observation::default()
            });
        }
        run.arms.push(ArmPlan {
            name: name.to_owned(),
            context: text_at(arm, "/context_name"),
            queue: None,
            mode: (name == "sequential").then_some(crate::comparison::Mode::Sequential),
            concurrent: match (name, text_at(arm, "/execution_mode").as_deref()) {
                ("sequential", _) => Some(1),
                (_, Some("all")) => Some(list(arm).len()),
                _ => arm.get("max_concurrent").and_then(Value::as_u64).map(|count| count as usize),
            },
            interrupted: Vec::new(),
        });
    }
    (!run.observations.is_empty()).then_some(run)
}
