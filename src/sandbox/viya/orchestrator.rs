//! The Workload Orchestrator's job listing.
//!
//! SAS does not document this interface of Viya 4; fields, types and units are those of the recorded run. The names of
//! the states are not known: clients must not depend on the ones chosen here.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::filter::Filter;
use super::job::{Job, Jobs};
use super::model::{ModelJob, Phase};
use super::options::Orchestrator;
use super::reply::{self, ListQuery, ReplyResult};
use super::server::ViyaState;
use crate::comparison::analysis::run::microseconds;

const PATH: &str = "/workloadOrchestrator/jobs";
/// The first job's number: they are consecutive over all users of a deployment, so a run rarely begins at 1.
const FIRST_ID: usize = 35_001;
/// The reservation of every recorded job (cores, MB). Not what it used.
const RESERVED: (f64, u64) = (0.15, 250);
/// Medians of the recorded run: GB, and bytes per second.
const MEMORY_GB: f64 = 0.026_14;
const IO_RATE: f64 = 144_045_285.5;

/// `GET /workloadOrchestrator/jobs?limit&start&sortBy=submitTime:descending`.
pub async fn list(State(server): State<Arc<ViyaState>>, Query(listing): Query<ListQuery>) -> ReplyResult {
    let orchestrator = server.options.orchestrator;
    match orchestrator {
        Orchestrator::Missing => Err(reply::error(StatusCode::NOT_FOUND, "Not Found", Some("No such service.")))?,
        Orchestrator::Forbidden => {
            Err(reply::error(StatusCode::FORBIDDEN, "Forbidden", Some("The user is not allowed to list jobs.")))?;
        }
        Orchestrator::Normal | Orchestrator::Unnamed => {}
    }
    let filter = reply::filter(&listing).map_err(reply::bad_filter)?;
    let jobs = server.jobs();
    let describe = |job: &&Job| item(job, &jobs, orchestrator == Orchestrator::Normal);
    let passes = |job: &&Job| {
        jobs.model.job(job.number).submitted <= jobs.model.now
            && filter.as_ref().is_none_or(|filter| {
                let item = describe(job);
                filter.passes(&|path| Filter::member(&item, path))
            })
    };
    let mut found: Vec<&Job> = jobs.all.iter().filter(passes).collect();
    if reply::descending(&listing, "submitTime", true) {
        found.reverse();
    }
    let accept = "application/vnd.sas.workload.orchestrator.job";
    let page = reply::page(PATH, "jobs", accept, &listing, &found, describe);
    Ok(reply::body(StatusCode::OK, "application/json", &page))
}

fn item(job: &Job, jobs: &Jobs, with_name: bool) -> Value {
    let (definition, clock, now) = (&job.definition, &jobs.clock, jobs.model.now);
    let simulated = jobs.model.job(job.number);
    let host = simulated.host.map(|host| (host, &jobs.model.hosts[host]));
    let seconds = |at: f64| at.floor() as i64;
    let until = |at: Option<f64>| seconds(at.unwrap_or(now));
    let submit = seconds(simulated.submitted);
    let start = until(simulated.started.or(simulated.ended));
    let running = until(simulated.running.or(simulated.ended));
    let end = until(simulated.ended);
    let clock_time = simulated.started.map_or(0.0, |at| (simulated.ended.unwrap_or(now) - at - 2.0).max(0.0));
    let done = simulated.running.map_or(0.0, |at| ((simulated.ended.unwrap_or(now) - at) / definition.work).min(1.0));

    let mut processing = json!({
        "state": state(job, simulated), "submitTime": clock.stamp_s(simulated.submitted),
        "totalTimePending": start - submit, "totalTimeStarting": (running - start).max(0), "totalTimeRunning": end - running,
        "totalTimeSuspAdmin": 0, "totalTimeSuspThresh": 0, "totalTimeSuspPreempt": 0, "queuePriority": 10, "requeueCount": 0,
        "suspendFlags": 0, "executionHostAliases": [],
        "consumedResources": [{"name": "cores", "value": RESERVED.0}, {"name": "memory", "value": RESERVED.1}],
        "limitValues": [
            {"name": "maxMemory", "value": MEMORY_GB},
            {"name": "maxCpuTime", "value": microseconds(simulated.cpu * definition.cpu_share)},
            {"name": "maxClockTime", "value": microseconds(clock_time)},
            {"name": "maxIoTotal", "value": microseconds(definition.io_mb * done)},
            {"name": "maxIoRate", "value": IO_RATE},
            {"name": "maxPageRate", "value": 0.0},
        ],
    });
    if let Some((index, host)) = host {
        processing["executionHost"] = json!(host.name);
        processing["executionIP"] = json!(format!("10.244.{}.{}", index + 1, 2 + job.number % 250));
    }
    if let Some(at) = simulated.started {
        processing["startTime"] = json!(clock.stamp_s(at));
    }
    if let Some(at) = simulated.ended {
        processing["endTime"] = json!(clock.stamp_s(at));
        processing["exitCode"] = json!(i32::from(job.fails || simulated.phase == Phase::Canceled));
    }
    if simulated.phase == Phase::Pending {
        processing["pendingCause"] = json!("No host of the queue has a free job slot.");
    }
    // Lower case, without `_`, and with an id of its own: recorded for 162 of 162 jobs. Older releases do not pass the name on.
    let prefix = if with_name { job.name.replace('_', "").to_lowercase() } else { "sas-compute-server".to_owned() };
    json!({
        "id": FIRST_ID + job.number,
        "request": {"name": format!("{}-{}", prefix, job.pod), "queue": job.context.queue, "user": "sandbox",
            "tenant": "", "type": "", "project": "", "cmd": ""},
        "processingInfo": processing,
    })
}

fn state(job: &Job, simulated: &ModelJob) -> &'static str {
    match simulated.phase {
        Phase::Accepted | Phase::Pending => "PENDING",
        Phase::Starting => "STARTING",
        Phase::Running => "RUNNING",
        Phase::Ended if job.fails => "FAILED",
        Phase::Ended => "FINISHED",
        Phase::Canceled => "CANCELED",
    }
}
