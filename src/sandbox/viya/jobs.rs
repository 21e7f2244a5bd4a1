//! The Job Execution Service: submit, watch, cancel and delete jobs, and read their logs.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::definitions::{CONTEXTS, Context, DEFAULT_CONTEXT, definition_json, not_found};
use super::filter::Filter;
use super::model::{HostModel, ModelJob, Phase};
use super::reply::{self, Listing, Reply, link};
use super::server::{Clock, Server};
use super::workload::JobDefinition;

const JOB: &str = "application/vnd.sas.job.execution.job+json";
/// Seconds from the orchestrator's end to the Job Execution Service's: recorded 0.1 to 2.9, median 0.6.
pub const MEDIAN_END_LAG: f64 = 0.6;
/// A fixed sequence with that median, so that the same jobs end the same way each time.
const END_LAGS: [f64; 9] = [0.6, 0.3, 0.9, 0.2, 0.7, 0.5, 2.4, 0.4, 1.1];

/// Every job of the stand-in, and the host model that they run in.
#[derive(Debug)]
pub struct Jobs {
    pub model: HostModel,
    /// In order of submission: the orchestrator remembers jobs that were deleted from the Job Execution Service.
    pub all: Vec<Job>,
}

/// A job as the Job Execution Service knows it.
#[derive(Debug)]
pub struct Job {
    pub id: String,
    pub name: String,
    pub definition: usize,
    pub context: &'static Context,
    /// Its number in the host model.
    pub number: usize,
    /// Ends the orchestrator's name of the job; cannot be guessed from anything else.
    pub pod: String,
    pub fails: bool,
    pub deleted: bool,
    created: f64,
    end_lag: f64,
    request: Value,
    session: String,
    compute_job: String,
    log: String,
    text_log: String,
    submitter: String,
}

impl Job {
    /// State, and the moment of the end if it has come. A new job is `running` at once, also while the orchestrator
    /// has it pending: SAS's own behaviour, so that only the orchestrator can tell queueing.
    fn state(&self, model: &ModelJob, now: f64) -> (&'static str, Option<f64>) {
        match (model.phase, model.ended) {
            (Phase::Canceled, Some(at)) => ("canceled", Some(at)),
            (Phase::Ended, Some(at)) if at + self.end_lag <= now => {
                (if self.fails { "failed" } else { "completed" }, Some(at + self.end_lag))
            }
            _ => ("running", None),
        }
    }

    fn json(&self, model: &ModelJob, definition: &JobDefinition, clock: &Clock, now: f64) -> Value {
        let uri = format!("/jobExecution/jobs/{}", self.id);
        let (state, ended) = self.state(model, now);
        let created_ms = clock.millis(self.created);
        let mut request = self.request.clone();
        request["jobDefinition"] = definition_json(definition, true);
        let log = match ended {
            Some(_) => format!("/files/files/{}", self.log),
            None => format!("/compute/sessions/{}/jobs/{}/log", self.session, self.compute_job),
        };
        let mut job = json!({
            "creationTimeStamp": clock.stamp_ms(self.created), "modifiedTimeStamp": clock.stamp_ms(ended.unwrap_or(self.created)),
            "createdBy": "sandbox", "modifiedBy": "sandbox", "version": 4, "id": self.id, "jobRequest": request, "state": state,
            "heartbeatTimeStamp": clock.stamp_ms(ended.unwrap_or(now)), "heartbeatInterval": 600,
            "submittedByApplication": self.submitter, "logLocation": log,
        });
        // While it runs: so far. At the end: end minus creation to the millisecond, queue and pod start included.
        let end_ms = ended.map_or_else(|| clock.millis(now), |at| clock.millis(at));
        job["elapsedTime"] = json!(end_ms - created_ms);
        if let Some(at) = ended {
            job["endTimeStamp"] = json!(clock.stamp_ms(at));
            job["results"] = self.results(model);
        }
        if state == "failed" {
            job["error"] = json!({
                "version": 2, "httpStatusCode": 400, "errorCode": 5113, "message": "The job failed.", "details": [],
                "errors": [{"version": 2, "httpStatusCode": 400, "errorCode": 5113, "message": "The SAS program ended with errors.", "details": [], "errors": [], "links": []}],
                "links": [],
            });
        }
        job["links"] = json!([
            link("GET", "self", &uri, "application/vnd.sas.job.execution.job"),
            link("GET", "state", &format!("{uri}/state"), "text/plain"),
            link("DELETE", "delete", &uri, ""),
            link("PUT", "updateState", &format!("{uri}/state"), "text/plain"),
            link(
                "GET",
                "jobDefinition",
                &format!("/jobDefinitions/definitions/{}", definition.id),
                "application/vnd.sas.job.definition"
            ),
            link("GET", "log", &log, "application/vnd.sas.compute.log.line"),
        ]);
        job
    }

    /// A member for filters, without describing the whole job for the usual ones.
    fn member(&self, path: &str, jobs: &Jobs, server: &Server, now: f64) -> Option<Value> {
        let model = jobs.model.job(self.number);
        match path {
            "id" => Some(self.id.clone().into()),
            "state" => Some(self.state(model, now).0.into()),
            "jobRequest.name" | "name" => Some(self.name.clone().into()),
            "creationTimeStamp" => Some(server.clock.stamp_ms(self.created).into()),
            _ => Filter::member(&self.json(model, &server.definitions[self.definition], &server.clock, now), path),
        }
    }

    /// For tests: when it was created and when its end was noticed, virtual seconds.
    pub fn moments(&self, model: &ModelJob, now: f64) -> (f64, &'static str, Option<f64>) {
        let (state, ended) = self.state(model, now);
        (self.created, state, ended)
    }

    fn results(&self, model: &ModelJob) -> Value {
        let mut results = Map::new();
        results.insert("COMPUTE_CONTEXT".into(), json!(self.context.name));
        results.insert("COMPUTE_JOB".into(), json!(self.compute_job));
        if model.running.is_some() {
            results.insert(format!("{}.log.txt", self.compute_job), json!(format!("/files/files/{}", self.text_log)));
        }
        results.insert("COMPUTE_SESSION".into(), json!(format!("{}-ses0000 ended.", self.session)));
        results.into()
    }

    /// The SAS log so far: (type, line).
    fn log_lines(&self, model: &ModelJob, definition: &JobDefinition) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(running) = model.running {
            lines.push(("note", format!("NOTE: SAS sandbox session {}.", self.session)));
            lines.push(("source", format!("1    %put NOTE: {} in the sandbox;", definition.name)));
            lines.push(("note", format!("NOTE: {} in the sandbox", definition.name)));
            if let Some(ended) = model.ended.filter(|_| model.phase == Phase::Ended) {
                if self.fails {
                    lines.push(("error", "ERROR: The sandbox was asked to fail this job.".into()));
                }
                lines.push(("note", "NOTE: The SAS System used:".into()));
                lines.push(("note", format!("      real time           {:.2} seconds", ended - running)));
                lines.push((
                    "note",
                    format!("      cpu time            {:.2} seconds", model.cpu * definition.cpu_share),
                ));
            }
        }
        lines
    }
}

#[derive(Debug, Default, Deserialize)]
pub struct Submitter {
    submitter: Option<String>,
}

/// `POST /jobExecution/jobs`.
pub async fn submit(
    State(server): State<Arc<Server>>,
    Query(query): Query<Submitter>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    let refused = |status, reason: &str| reply::error(status, "The job could not be created.", Some(reason));
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !(kind.starts_with("application/vnd.sas.job.execution.job.request+json") || kind.starts_with("application/json"))
    {
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, &format!("The content type \"{kind}\" is not supported."));
    }
    let request: Value = match serde_json::from_slice(&body) {
        Ok(request @ Value::Object(_)) => request,
        _ => return refused(StatusCode::BAD_REQUEST, "The request body is not a JSON object."),
    };
    let no_arguments = Map::new();
    let arguments = match request.get("arguments") {
        None | Some(Value::Null) => &no_arguments,
        Some(Value::Object(arguments)) if arguments.values().all(Value::is_string) => arguments,
        Some(_) => return refused(StatusCode::BAD_REQUEST, "\"arguments\" must be a map of strings to strings."),
    };
    let context = match (arguments.get("_contextName"), arguments.get("_contextId")) {
        (None, None) => CONTEXTS.iter().find(|context| context.name == DEFAULT_CONTEXT),
        (Some(name), _) => CONTEXTS.iter().find(|context| name == context.name),
        (None, Some(id)) => CONTEXTS.iter().find(|context| id == context.id),
    };
    let Some(context) = context else {
        let asked =
            arguments.get("_contextName").or(arguments.get("_contextId")).and_then(Value::as_str).unwrap_or_default();
        return refused(StatusCode::BAD_REQUEST, &format!("The compute context \"{asked}\" could not be found."));
    };
    let Some(uri) = request.get("jobDefinitionUri").and_then(Value::as_str) else {
        return refused(StatusCode::BAD_REQUEST, "\"jobDefinitionUri\" is missing; the sandbox runs no inline code.");
    };
    let id = uri.strip_prefix("/jobDefinitions/definitions/").unwrap_or_default();
    let Some(definition) = server.definitions.iter().position(|definition| definition.id == id) else {
        return refused(StatusCode::NOT_FOUND, &format!("The job definition \"{uri}\" could not be found."));
    };
    let name = request.get("name").and_then(Value::as_str).unwrap_or(&server.definitions[definition].name).to_owned();

    let (mut jobs, now) = server.jobs();
    let number = jobs.model.submit(now, context.queue, server.definitions[definition].work);
    let job = Job {
        id: Uuid::new_v4().to_string(),
        definition,
        context,
        number,
        pod: Uuid::new_v4().to_string(),
        fails: server.fail_jobs.contains(&server.definitions[definition].name),
        deleted: false,
        created: now,
        end_lag: END_LAGS[number % END_LAGS.len()],
        session: Uuid::new_v4().to_string(),
        compute_job: Uuid::new_v4().to_string().to_uppercase(),
        log: Uuid::new_v4().to_string(),
        text_log: Uuid::new_v4().to_string(),
        submitter: query.submitter.unwrap_or_else(|| "jobExecution".into()),
        name,
        request,
    };
    let json = job.json(jobs.model.job(number), &server.definitions[definition], &server.clock, now);
    jobs.all.push(job);
    reply::body(StatusCode::CREATED, JOB, &json)
}

/// `GET /jobExecution/jobs`. Only the jobs of the page are described: of thousands, hundreds are listed each second.
pub async fn list(State(server): State<Arc<Server>>, Query(listing): Query<Listing>) -> Reply {
    let filter = match reply::filter(&listing) {
        Ok(Some(_)) if !server.behaviour.list_filters => {
            let reason = "Filters are not supported for this collection.";
            return reply::error(StatusCode::BAD_REQUEST, "The query parameter \"filter\" is not valid.", Some(reason));
        }
        Ok(filter) => filter,
        Err(refusal) => return *refusal,
    };
    let (jobs, now) = server.jobs();
    let passes = |job: &&Job| {
        !job.deleted
            && filter.as_ref().is_none_or(|filter| {
                filter.ids().is_none_or(|ids| ids.contains(&job.id))
                    && filter.passes(&|path| job.member(path, &jobs, &server, now))
            })
    };
    let mut found: Vec<&Job> = jobs.all.iter().filter(passes).collect();
    if reply::descending(&listing, "creationTimeStamp", true) {
        found.reverse();
    }
    let (start, limit) = listing.window();
    let describe =
        |job: &&Job| job.json(jobs.model.job(job.number), &server.definitions[job.definition], &server.clock, now);
    let items = found.iter().skip(start).take(limit).map(describe).collect();
    let accept = "application/vnd.sas.job.execution.job";
    let value = reply::envelope("/jobExecution/jobs", "jobs", accept, &listing, found.len(), items);
    reply::body(StatusCode::OK, "application/vnd.sas.collection+json", &value)
}

/// `GET /jobExecution/jobs/{id}`.
pub async fn get(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Reply {
    let (jobs, now) = server.jobs();
    match jobs.all.iter().find(|job| job.id == id && !job.deleted) {
        Some(job) => {
            let json = job.json(jobs.model.job(job.number), &server.definitions[job.definition], &server.clock, now);
            reply::body(StatusCode::OK, JOB, &json)
        }
        None => not_found("job", &id),
    }
}

/// What `GET …/state` may be asked for.
#[derive(Debug, Deserialize)]
pub struct Waiting {
    #[serde(rename = "_action")]
    action: Option<String>,
    wait: Option<f64>,
}

/// `GET /jobExecution/jobs/{id}/state`, with `_action=wait&wait=N` answered when the job has ended or N seconds are over.
/// Source: SAS's own JavaScript client asks this way; whether a server honours it is not documented, so a sandbox may do
/// either.
pub async fn state(State(server): State<Arc<Server>>, Path(id): Path<String>, Query(query): Query<Waiting>) -> Reply {
    let waits = server.behaviour.long_poll && query.action.as_deref() == Some("wait");
    let until = server.clock.now() + query.wait.filter(|_| waits).unwrap_or(0.0).clamp(0.0, 3600.0);
    loop {
        let next = {
            let (jobs, now) = server.jobs();
            let Some(job) = jobs.all.iter().find(|job| job.id == id && !job.deleted) else {
                return not_found("job", &id);
            };
            let model = jobs.model.job(job.number);
            let (state, ended) = job.state(model, now);
            if ended.is_some() || now >= until {
                return reply::text(StatusCode::OK, state);
            }
            // Nothing about it can change before the model's next event, or before its end is noticed.
            let event = match model.ended {
                Some(at) => Some(at + job.end_lag),
                None => jobs.model.next_event(),
            };
            (event.unwrap_or(until).min(until) - now).max(0.0)
        };
        let real = std::time::Duration::from_secs_f64(next / server.clock.speed());
        tokio::time::sleep(real.max(std::time::Duration::from_millis(1))).await;
    }
}

#[derive(Debug, Deserialize)]
pub struct NewState {
    value: String,
}

/// `PUT /jobExecution/jobs/{id}/state?value=canceled`. A job that has ended keeps its state, which is the answer.
pub async fn set_state(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    Query(new): Query<NewState>,
) -> Reply {
    if new.value != "canceled" {
        let reason = format!("The state \"{}\" cannot be set; only \"canceled\" can.", new.value);
        return reply::error(StatusCode::BAD_REQUEST, "The state could not be updated.", Some(&reason));
    }
    let (mut jobs, now) = server.jobs();
    let jobs = &mut *jobs;
    match jobs.all.iter().find(|job| job.id == id && !job.deleted) {
        Some(job) => {
            jobs.model.cancel(now, job.number);
            reply::text(StatusCode::OK, job.state(jobs.model.job(job.number), now).0)
        }
        None => not_found("job", &id),
    }
}

/// `PUT /jobExecution/jobs/@selection/state?value=canceled`: the same for every job of the selection, each with an answer of
/// its own.
pub async fn set_states(State(server): State<Arc<Server>>, Query(new): Query<NewState>, body: Bytes) -> Reply {
    #[derive(Deserialize)]
    struct Selection {
        resources: Vec<String>,
    }
    if new.value != "canceled" {
        let reason = format!("The state \"{}\" cannot be set; only \"canceled\" can.", new.value);
        return reply::error(StatusCode::BAD_REQUEST, "The state could not be updated.", Some(&reason));
    }
    let Ok(selection) = serde_json::from_slice::<Selection>(&body) else {
        return reply::error(StatusCode::BAD_REQUEST, "The request body is not a selection.", None);
    };
    let (mut jobs, now) = server.jobs();
    let jobs = &mut *jobs;
    let mut items = Vec::new();
    for uri in &selection.resources {
        let id = uri.rsplit('/').next().unwrap_or_default();
        items.push(match jobs.all.iter().find(|job| job.id == id && !job.deleted) {
            Some(job) => {
                jobs.model.cancel(now, job.number);
                json!({"version": 2, "id": id, "uri": uri, "name": job.name})
            }
            None => {
                json!({"version": 2, "httpStatusCode": 404, "errorCode": 0, "details": [uri], "errors": [], "links": [],
                "message": format!("The job \"{id}\" could not be found.")})
            }
        });
    }
    let value = json!({"version": 2, "name": "jobs", "start": 0, "limit": items.len(), "count": items.len(), "items": items, "links": []});
    reply::body(StatusCode::OK, "application/vnd.sas.collection+json", &value)
}

/// `DELETE /jobExecution/jobs/{id}`: ends it if need be, and forgets it. The orchestrator still remembers it.
pub async fn delete(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Reply {
    let (mut jobs, now) = server.jobs();
    let jobs = &mut *jobs;
    match jobs.all.iter_mut().find(|job| job.id == id && !job.deleted) {
        Some(job) => {
            jobs.model.cancel(now, job.number);
            job.deleted = true;
            reply::no_content()
        }
        None => not_found("job", &id),
    }
}

/// `GET /files/files/{id}/content`: the log of an ended job, as JSON lines or as text.
pub async fn file_content(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Reply {
    let (jobs, now) = server.jobs();
    let ended = |job: &&Job| job.state(jobs.model.job(job.number), now).1.is_some();
    let Some(job) = jobs.all.iter().filter(ended).find(|job| job.log == id || job.text_log == id) else {
        return not_found("file", &id);
    };
    let lines = job.log_lines(jobs.model.job(job.number), &server.definitions[job.definition]);
    if job.text_log == id {
        let text: String = lines.into_iter().map(|(_, line)| line + "\n").collect();
        return reply::text(StatusCode::OK, text);
    }
    log_reply(&lines, 0, lines.len())
}

#[derive(Debug, Deserialize)]
pub struct Window {
    start: Option<usize>,
    limit: Option<usize>,
}

/// The log of a job that still runs, from line `start`.
pub async fn session_log(
    State(server): State<Arc<Server>>,
    Path((session, compute_job)): Path<(String, String)>,
    Query(window): Query<Window>,
) -> Reply {
    let (jobs, _) = server.jobs();
    match jobs.all.iter().find(|job| job.session == session && job.compute_job == compute_job) {
        Some(job) => {
            let lines = job.log_lines(jobs.model.job(job.number), &server.definitions[job.definition]);
            log_reply(&lines, window.start.unwrap_or(0), window.limit.unwrap_or(lines.len()))
        }
        None => not_found("compute session job", &compute_job),
    }
}

fn log_reply(lines: &[(&str, String)], start: usize, limit: usize) -> Reply {
    let items: Vec<Value> = lines
        .iter()
        .skip(start)
        .take(limit)
        .map(|(kind, line)| json!({"version": 1, "type": kind, "line": line}))
        .collect();
    let value = json!({
        "version": 2, "name": "items", "accept": "application/vnd.sas.compute.log.line", "start": start, "count": lines.len(),
        "limit": limit, "items": items, "links": [],
    });
    reply::body(StatusCode::OK, "application/vnd.sas.collection+json", &value)
}
