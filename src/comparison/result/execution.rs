//! The parts of the result that the first job execution client had: an arm as `…_execution` with its jobs, and `comparison`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::comparison::records::{ArmRecord, JobRecord};
use crate::comparison::statistics::{mean, quantile};
use crate::viya::jobs::Job;
use crate::viya::orchestrator::OrchestratorEntry;

/// A timestamp in the format of SAS.
pub(super) fn timestamp(at: Option<DateTime<Utc>>) -> Value {
    at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)).into()
}

/// One arm without its jobs. `planned` is the number of jobs in the plan; a run that ended early has fewer.
pub(super) fn execution(record: &ArmRecord, planned: usize) -> Value {
    let stats = |of: fn(&JobRecord) -> Option<f64>| {
        let values: Vec<f64> = record.jobs.iter().filter_map(of).collect();
        json!({"median": quantile(&values, 0.5), "p90": quantile(&values, 0.9), "max": quantile(&values, 1.0),
               "mean": mean(&values), "sum": values.iter().sum::<f64>()})
    };
    let rounds = record.rounds.iter().map(|round| {
        json!({"round": round.number, "order": round.order, "interrupted": round.interrupted,
               "total_duration": record.round_makespan(round.number)})
    });
    json!({
        "execution_mode": record.arm.mode,
        "max_concurrent": record.arm.in_flight(planned),
        "context_name": record.arm.context,
        "queue_name": record.context.queue,
        "observed_queues": record.queues(),
        "start_time": timestamp(record.jobs.iter().filter_map(JobRecord::created).min()),
        "end_time": timestamp(record.jobs.iter().filter_map(JobRecord::ended).max()),
        "total_duration": record.makespan(),
        "rounds": rounds.collect::<Vec<_>>(),
        "successful_jobs": record.successful(),
        "failed_jobs": record.jobs.len() - record.successful(),
        "hosts": record.hosts(),
        "phases": {"pending_s": stats(JobRecord::pending), "starting_s": stats(JobRecord::starting),
                   "running_s": stats(JobRecord::running)},
        "client": {"observe_lag_s": stats(JobRecord::observe_lag)},
    })
}

/// The comparison of the two arms that users know.
pub(super) fn comparison(sequential: &ArmRecord, parallel: &ArmRecord) -> Value {
    let (before, after) = (sequential.makespan(), parallel.makespan());
    let saved = before.zip(after).map(|(before, after)| before - after);
    // Percent of the sequential time, unless that is zero.
    let gain = saved.zip(before).filter(|(_, before)| *before > 0.0).map(|(saved, before)| 100.0 * saved / before);
    let rate = |record: &ArmRecord| {
        (!record.jobs.is_empty()).then(|| 100.0 * record.successful() as f64 / record.jobs.len() as f64)
    };
    let average = |record: &ArmRecord| mean(&record.jobs.iter().filter_map(JobRecord::duration).collect::<Vec<_>>());
    let (first, second) = (sequential.hosts(), parallel.hosts());
    let new_hosts: Vec<_> = second.keys().filter(|host| !first.contains_key(*host)).collect();
    let several: BTreeMap<_, _> = second.iter().filter(|(_, jobs)| **jobs > 1).collect();
    let scaling = match second.len().cmp(&first.len()) {
        _ if first.is_empty() || second.is_empty() => None,
        Ordering::Greater => Some("scale_out"),
        Ordering::Equal => Some("no_scaling"),
        Ordering::Less => Some("consolidation"),
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

/// One job, with server-side phases and client-side time in separate objects.
pub(super) fn job(arm: &ArmRecord, record: &JobRecord) -> Value {
    let entry = record.entry.as_ref();
    // SAS: the job service sees the end up to three seconds after the orchestrator.
    let finish_lag = record
        .ended()
        .zip(entry.and_then(OrchestratorEntry::ended))
        .map(|(seen, ended)| (seen - ended).as_seconds_f64());
    let metrics = metrics(record, entry);
    json!({
        "name": record.config.name,
        "definition_id": record.config.definition_id,
        "sequence_number": record.sequence,
        "unique_job_name": record.unique_name,
        "job_instance_id": record.job.as_ref().map(Job::id),
        // The session itself is not measured.
        "session_metrics": {},
        "session_id": record.job.as_ref().and_then(|job| job.result("COMPUTE_SESSION")).and_then(|text| text.split_whitespace().next()),
        "status": record.status,
        "error": record.error,
        "start_time": timestamp(record.created()),
        "end_time": timestamp(record.ended()),
        "duration": record.duration(),
        "phases": {
            "pending_s": record.pending(), "starting_s": record.starting(), "running_s": record.running(),
            "finish_lag_s": finish_lag,
        },
        "client": {
            "submit_latency": record.submit_latency, "observed_duration": record.observed_duration,
            "observe_lag": record.observe_lag(),
        },
        "job_metrics": record.job.as_ref().map(|job| job_metrics(arm, record, job, &metrics["orchestrator_data"])),
        "metrics": metrics,
    })
}

fn job_metrics(arm: &ArmRecord, record: &JobRecord, job: &Job, orchestrator_data: &Value) -> Value {
    let elapsed = record.duration();
    let results = job.results().into_iter().flatten();
    let files = results.filter(|(_, uri)| uri.as_str().is_some_and(|uri| uri.starts_with("/files/")));
    let files: Vec<&String> = files.map(|(name, _)| name).collect();
    json!({
        "job_id": job.id(),
        "job_name": job.name().unwrap_or(&record.unique_name),
        "state": job.text("state"),
        "state_details": job.text("stateDetails"),
        "submission_time": job.text("creationTimeStamp"),
        "completion_time": job.text("endTimeStamp"),
        "elapsed_time_ms": record.elapsed_ms().and_then(integer),
        "elapsed_time_seconds": elapsed,
        "total_duration_seconds": elapsed,
        "submitted_by": job.text("submittedByApplication"),
        "created_by": job.text("createdBy"),
        "job_type": "Compute",
        "context_name": arm.arm.context,
        "results_count": job.results().map_or(0, serde_json::Map::len),
        "has_log": job.text("logLocation").is_some(),
        "log_location": job.text("logLocation"),
        "compute_job_id": job.result("COMPUTE_JOB"),
        "result_files": files,
        "compute_session": job.result("COMPUTE_SESSION"),
        "compute_context": job.result("COMPUTE_CONTEXT"),
        // Running jobs are not sampled. The measurements of the orchestrator are below `orchestrator_data`.
        "resource_samples": [],
        "avg_resource_usage": {},
        "orchestrator_data": orchestrator_data,
    })
}

/// A number of milliseconds, or a count, without a decimal point.
fn integer(number: f64) -> Option<i64> {
    let rounded = number.round();
    (rounded.abs() < 2_f64.powi(53)).then_some(rounded as i64)
}

fn metrics(record: &JobRecord, entry: Option<&OrchestratorEntry>) -> Value {
    let Some(entry) = entry else {
        return json!({"actual_hostname": null, "correlation": record.correlation.to_string(), "orchestrator_timing": null,
                      "orchestrator_resources": null, "orchestrator_context": null, "orchestrator_data": null});
    };
    let span = entry.started().zip(entry.ended()).map(|(start, end)| (end - start).as_seconds_f64());
    let execution = span.or_else(|| Some(record.starting()? + record.running()?));
    let total = entry.submitted().zip(entry.ended()).map(|(submit, end)| (end - submit).as_seconds_f64());
    let (cores, memory) = (entry.reserved("cores"), entry.reserved("memory"));
    json!({
        "actual_hostname": entry.host(),
        "correlation": record.correlation.to_string(),
        "orchestrator_timing": {"queue_wait_seconds": record.pending(), "execution_seconds": execution, "total_seconds": total},
        "orchestrator_resources": {"cpu_cores": cores, "memory_mb": memory},
        "orchestrator_context": {"queue_name": entry.queue(),
            "context_type": entry.queue().map(|queue| if queue == "default" { "synchronous" } else { "asynchronous" })},
        "orchestrator_data": {
            "correlation": record.correlation.to_string(),
            "orchestrator_job_id": entry.id,
            "orchestrator_job_name": entry.name(),
            "state": entry.text("/processingInfo/state"),
            "user": entry.user(),
            "queue_name": entry.queue(),
            "execution_host": entry.host(),
            "execution_ip": entry.text("/processingInfo/executionIP"),
            "submit_time": entry.text("/processingInfo/submitTime"),
            "start_time": entry.text("/processingInfo/startTime"),
            "end_time": entry.text("/processingInfo/endTime"),
            "queue_wait_seconds": record.pending(),
            "starting_seconds": record.starting(),
            "running_seconds": record.running(),
            "execution_seconds": execution,
            "total_seconds": total,
            "requeue_count": entry.number("requeueCount").and_then(integer),
            // SAS: the reserved values, which are the same for every job. The names are those that users know.
            "cpu_cores": cores,
            "memory_mb": memory,
            "reserved_cores": cores,
            "reserved_memory_mb": memory,
            "measured": {
                "cpu_seconds": entry.measured("maxCpuTime"),
                "clock_seconds": entry.measured("maxClockTime"),
                "memory_gb": entry.measured("maxMemory"),
                "io_total_mb": entry.measured("maxIoTotal"),
                "io_rate_bytes_per_s": entry.measured("maxIoRate"),
                "page_rate_per_s": entry.measured("maxPageRate"),
            },
        },
    })
}
