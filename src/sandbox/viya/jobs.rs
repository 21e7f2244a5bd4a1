//! The Job Execution Service: submit, watch, cancel and delete jobs, and read their logs.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::contexts::{CONTEXTS, Context, DEFAULT_CONTEXT};
use super::job::{END_LAGS, Job};
use super::reply::{self, COLLECTION, ListQuery, Reply, ReplyResult, not_found};
use super::server::ViyaState;

const JOB: &str = "application/vnd.sas.job.execution.job+json";

#[derive(Debug, Default, Deserialize)]
pub struct SubmitQuery {
    submitter: Option<String>,
}

/// `POST /jobExecution/jobs`.
pub async fn submit(
    State(server): State<Arc<ViyaState>>,
    Query(query): Query<SubmitQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    let refused = |status, reason: &str| reply::error(status, "The job could not be created.", Some(reason));
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !(kind.starts_with("application/vnd.sas.job.execution.job.request+json") || kind.starts_with("application/json"))
    {
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, &format!("The content type \"{kind}\" is not supported."));
    }
    let Ok(request @ Value::Object(_)) = serde_json::from_slice(&body) else {
        return refused(StatusCode::BAD_REQUEST, "The request body is not a JSON object.");
    };
    let no_arguments = Map::new();
    let arguments = match request.get("arguments") {
        None | Some(Value::Null) => &no_arguments,
        Some(Value::Object(arguments)) if arguments.values().all(Value::is_string) => arguments,
        Some(_) => return refused(StatusCode::BAD_REQUEST, "\"arguments\" must be a map of strings to strings."),
    };
    let argument = |name: &str| arguments.get(name).and_then(Value::as_str);
    let (name, id) = (argument("_contextName"), argument("_contextId"));
    let name = name.or_else(|| id.is_none().then_some(DEFAULT_CONTEXT));
    let is_meant = |context: &&Context| name.map_or(Some(context.id) == id, |name| context.name == name);
    let Some(context) = CONTEXTS.iter().find(is_meant) else {
        let asked = name.or(id).unwrap_or_default();
        return refused(StatusCode::BAD_REQUEST, &format!("The compute context \"{asked}\" could not be found."));
    };
    let Some(uri) = request.get("jobDefinitionUri").and_then(Value::as_str) else {
        return refused(StatusCode::BAD_REQUEST, "\"jobDefinitionUri\" is missing; the sandbox runs no inline code.");
    };
    let id = uri.strip_prefix("/jobDefinitions/definitions/").unwrap_or_default();
    let Some(definition) = server.definitions.iter().find(|definition| definition.id == id).cloned() else {
        return refused(StatusCode::NOT_FOUND, &format!("The job definition \"{uri}\" could not be found."));
    };
    let name = request.get("name").and_then(Value::as_str).unwrap_or(&definition.name).to_owned();

    let mut jobs = server.jobs();
    let now = jobs.model.now;
    let number = jobs.model.submit(now, context.queue, definition.work);
    let job = Job {
        id: Uuid::new_v4().to_string(),
        fails: server.options.fail_jobs.contains(&definition.name),
        definition,
        context,
        number,
        pod: Uuid::new_v4().to_string(),
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
    let json = job.json(&jobs);
    jobs.all.push(job);
    reply::body(StatusCode::CREATED, JOB, &json)
}

/// `GET /jobExecution/jobs`. Only the jobs of the page are described: of thousands, hundreds are listed each second.
pub async fn list(State(server): State<Arc<ViyaState>>, Query(listing): Query<ListQuery>) -> ReplyResult {
    let filter = reply::filter(&listing).map_err(reply::bad_filter)?;
    if filter.is_some() && !server.options.list_filters {
        return Ok(reply::bad_filter("Filters are not supported for this collection.".to_owned()));
    }
    let jobs = server.jobs();
    let passes = |job: &&Job| {
        !job.deleted
            && filter.as_ref().is_none_or(|filter| {
                filter.ids().is_none_or(|ids| ids.contains(&job.id)) && filter.passes(&|path| job.member(path, &jobs))
            })
    };
    let mut found: Vec<&Job> = jobs.all.iter().filter(passes).collect();
    if reply::descending(&listing, "creationTimeStamp", true) {
        found.reverse();
    }
    let accept = "application/vnd.sas.job.execution.job";
    let value = reply::page("/jobExecution/jobs", "jobs", accept, &listing, &found, |job| job.json(&jobs));
    Ok(reply::body(StatusCode::OK, COLLECTION, &value))
}

/// `GET /jobExecution/jobs/{id}`.
pub async fn get(State(server): State<Arc<ViyaState>>, Path(id): Path<String>) -> Reply {
    let jobs = server.jobs();
    reply::one(JOB, "job", &id, jobs.find(&id).map(|job| job.json(&jobs)))
}

/// The query of `GET …/state`.
#[derive(Debug, Deserialize)]
pub struct StateQuery {
    #[serde(rename = "_action")]
    action: Option<String>,
    wait: Option<f64>,
}

/// `GET /jobExecution/jobs/{id}/state`. With `_action=wait&wait=N` it answers when the job has ended or N seconds are over.
/// Source: SAS's own JavaScript client. Whether a server honours it is not documented, so the sandbox can do either.
pub async fn state(
    State(server): State<Arc<ViyaState>>,
    Path(id): Path<String>,
    Query(query): Query<StateQuery>,
) -> ReplyResult {
    let waits = server.options.long_poll && query.action.as_deref() == Some("wait");
    let until = server.clock.now() + query.wait.filter(|_| waits).unwrap_or(0.0).clamp(0.0, 3600.0);
    loop {
        let next = {
            let jobs = server.jobs();
            let now = jobs.model.now;
            let job = jobs.find(&id).ok_or_else(|| not_found("job", &id))?;
            let (state, ended) = job.state(&jobs);
            if ended.is_some() || now >= until {
                return Ok(reply::text(StatusCode::OK, state));
            }
            // Nothing about it can change before the model's next event, or before its end is noticed.
            let noticed = jobs.model.job(job.number).ended.map(|at| at + job.end_lag);
            (noticed.or_else(|| jobs.model.next_event()).unwrap_or(until).min(until) - now).max(0.0)
        };
        let real = std::time::Duration::from_secs_f64(next / server.clock.speed);
        tokio::time::sleep(real.max(std::time::Duration::from_millis(1))).await;
    }
}

#[derive(Debug, Deserialize)]
pub struct SetStateQuery {
    value: String,
}

/// Refuses a state other than `canceled`.
fn refuse_state(new: &SetStateQuery) -> Option<Reply> {
    let reason = format!("The state \"{}\" cannot be set; only \"canceled\" can.", new.value);
    let refusal = || reply::error(StatusCode::BAD_REQUEST, "The state could not be updated.", Some(&reason));
    (new.value != "canceled").then(refusal)
}

/// `PUT /jobExecution/jobs/{id}/state?value=canceled`. A job that has ended keeps its state, which is the answer.
pub async fn set_state(
    State(server): State<Arc<ViyaState>>,
    Path(id): Path<String>,
    Query(new): Query<SetStateQuery>,
) -> ReplyResult {
    refuse_state(&new).map_or(Ok(()), Err)?;
    let mut jobs = server.jobs();
    jobs.cancel(&id);
    let job = jobs.find(&id).ok_or_else(|| not_found("job", &id))?;
    Ok(reply::text(StatusCode::OK, job.state(&jobs).0))
}

/// `PUT /jobExecution/jobs/@selection/state?value=canceled`: the same for every job of the selection, each with an answer of
/// its own.
pub async fn set_states(
    State(server): State<Arc<ViyaState>>,
    Query(new): Query<SetStateQuery>,
    body: Bytes,
) -> ReplyResult {
    #[derive(Deserialize)]
    struct JobSelection {
        resources: Vec<String>,
    }
    refuse_state(&new).map_or(Ok(()), Err)?;
    let no_selection = |_| reply::error(StatusCode::BAD_REQUEST, "The request body is not a selection.", None);
    let selection: JobSelection = serde_json::from_slice(&body).map_err(no_selection)?;
    let mut jobs = server.jobs();
    let mut cancel = |uri: &String| {
        let id = uri.rsplit('/').next().unwrap_or_default();
        match jobs.cancel(id) {
            Some(job) => json!({"version": 2, "id": id, "uri": uri, "name": job.name}),
            None => {
                json!({"version": 2, "httpStatusCode": 404, "errorCode": 0, "details": [uri], "errors": [], "links": [],
                "message": format!("The job \"{id}\" could not be found.")})
            }
        }
    };
    let items: Vec<Value> = selection.resources.iter().map(&mut cancel).collect();
    let value = json!({"version": 2, "name": "jobs", "start": 0, "limit": items.len(), "count": items.len(), "items": items, "links": []});
    Ok(reply::body(StatusCode::OK, COLLECTION, &value))
}

/// `DELETE /jobExecution/jobs/{id}`: cancels it if it has not ended, and removes it. The orchestrator still lists it.
pub async fn delete(
    State(server): State<Arc<ViyaState>>,
    Path(id): Path<String>,
) -> axum::response::Result<StatusCode> {
    server.jobs().cancel(&id).ok_or_else(|| not_found("job", &id))?.deleted = true;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /files/files/{id}/content`: the log of an ended job, as JSON lines or as text.
pub async fn file_content(State(server): State<Arc<ViyaState>>, Path(id): Path<String>) -> ReplyResult {
    let jobs = server.jobs();
    let ended = |job: &&Job| job.state(&jobs).1.is_some();
    let job = jobs.all.iter().filter(ended).find(|job| job.log == id || job.text_log == id);
    let job = job.ok_or_else(|| not_found("file", &id))?;
    let lines = job.log_lines(&jobs);
    Ok(match job.text_log == id {
        true => reply::text(StatusCode::OK, lines.into_iter().map(|(_, line)| line + "\n").collect::<String>()),
        false => log_reply(&lines, 0, lines.len()),
    })
}

#[derive(Debug, Deserialize)]
pub struct LogQuery {
    start: Option<usize>,
    limit: Option<usize>,
}

/// The log of a job that still runs, from line `start`.
pub async fn session_log(
    State(server): State<Arc<ViyaState>>,
    Path((session, compute_job)): Path<(String, String)>,
    Query(window): Query<LogQuery>,
) -> ReplyResult {
    let jobs = server.jobs();
    let job = jobs.all.iter().find(|job| job.session == session && job.compute_job == compute_job);
    let lines = job.ok_or_else(|| not_found("compute session job", &compute_job))?.log_lines(&jobs);
    Ok(log_reply(&lines, window.start.unwrap_or(0), window.limit.unwrap_or(lines.len())))
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
    reply::body(StatusCode::OK, COLLECTION, &value)
}
