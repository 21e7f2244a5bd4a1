//! One job of the result JSON.

use serde_json::{Value, json};

use super::stamp;
use crate::comparison::record::{ArmRecord, JobRecord};
use crate::viya::jobs::Job;
use crate::viya::orchestrator::Entry;

/// The job as users know it, with server-side phases and client-side time kept apart.
pub(super) fn job(arm: &ArmRecord, record: &JobRecord) -> Value {
    let entry = record.entry.as_ref();
    // SAS: the job service notices the end up to three seconds after the orchestrator.
    let finish_lag =
        record.ended().zip(entry.and_then(Entry::ended)).map(|(noticed, ended)| (noticed - ended).as_seconds_f64());
    let metrics = metrics(record, entry);
    json!({
        "name": record.config.name,
        "definition_id": record.config.definition_id,
        "sequence_number": record.sequence,
        "unique_job_name": record.unique_name,
        "job_instance_id": record.job.as_ref().map(Job::id),
        // Nothing measures the session itself.
        "session_metrics": {},
        "session_id": record.job.as_ref().and_then(|job| job.result("COMPUTE_SESSION")).and_then(|text| text.split_whitespace().next()),
        "status": record.status,
        "error": record.error,
        "start_time": stamp(record.created()),
        "end_time": stamp(record.ended()),
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
    let files: Vec<&str> = job
        .results()
        .map(|results| {
            results
                .iter()
                .filter(|(_, uri)| uri.as_str().is_some_and(|uri| uri.starts_with("/files/")))
                .map(|(name, _)| name.as_str())
                .collect()
        })
        .unwrap_or_default();
    json!({
        "job_id": job.id(),
        "job_name": job.name().unwrap_or(&record.unique_name),
        "state": job.text("state"),
        "state_details": job.text("stateDetails"),
        "submission_time": job.text("creationTimeStamp"),
        "completion_time": job.text("endTimeStamp"),
        "elapsed_time_ms": record.elapsed_ms().and_then(whole),
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
        // No samples are taken while a job runs: the orchestrator's own measurements are below `orchestrator_data`.
        "resource_samples": [],
        "avg_resource_usage": {},
        "orchestrator_data": orchestrator_data,
    })
}

/// A number that is one by nature, such as milliseconds or a count, without a decimal point.
fn whole(number: f64) -> Option<i64> {
    let rounded = number.round();
    (rounded.abs() < 2_f64.powi(53)).then_some(rounded as i64)
}

fn metrics(record: &JobRecord, entry: Option<&Entry>) -> Value {
    let Some(entry) = entry else {
        return json!({"actual_hostname": null, "correlation": record.correlation.as_str(), "orchestrator_timing": null,
                      "orchestrator_resources": null, "orchestrator_context": null, "orchestrator_data": null});
    };
    let span = entry.started().zip(entry.ended()).map(|(start, end)| (end - start).as_seconds_f64());
    let execution = span.or_else(|| Some(record.starting()? + record.running()?));
    let total = entry.submitted().zip(entry.ended()).map(|(submit, end)| (end - submit).as_seconds_f64());
    let (cores, memory) = (entry.reserved("cores"), entry.reserved("memory"));
    json!({
        "actual_hostname": entry.host(),
        "correlation": record.correlation.as_str(),
        "orchestrator_timing": {"queue_wait_seconds": record.pending(), "execution_seconds": execution, "total_seconds": total},
        "orchestrator_resources": {"cpu_cores": cores, "memory_mb": memory},
        "orchestrator_context": {"queue_name": entry.queue(),
            "context_type": entry.queue().map(|queue| if queue == "default" { "synchronous" } else { "asynchronous" })},
        "orchestrator_data": {
            "correlation": record.correlation.as_str(),
            "orchestrator_job_id": entry.id(),
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
            "requeue_count": entry.number("requeueCount").and_then(whole),
            // SAS: what was reserved; the same for every job whatever it used. The names are the known ones.
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
