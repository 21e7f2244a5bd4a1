//! Jobs of the Job Execution Service: read, list, cancel and delete.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Map, Value};

use super::client::{COLLECTION, ViyaClient, ViyaRequest, quoted};
use super::json::{error_text, is_id, parse_time, text};
use crate::error::{Error, ErrorKind, Result};
use crate::http::Response;

pub(super) const JOB: &str = "application/vnd.sas.job.execution.job+json";

/// The state of a job, whose text is the present spelling of SAS. SAS: it is `running` also while the Workload Orchestrator has the job pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "camelCase", ascii_case_insensitive)]
pub enum JobState {
    /// Accepted.
    Pending,
    /// Handed to the Compute service.
    Running,
    /// Canceled by a user.
    Canceled,
    /// Ended without an error, perhaps with warnings.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by the server, because of silence or a time limit.
    TimedOut,
}

impl JobState {
    /// Parses a state. SAS wrote `timed out` before 2024-07 and `timedOut` since.
    pub fn parse(text: &str) -> Option<Self> {
        text.trim().to_ascii_lowercase().replace("timed out", "timedout").replace("cancelled", "canceled").parse().ok()
    }

    /// Whether no other state follows.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// The fields of a job that are stored. The rest, such as its program and its links, would use memory for thousands of jobs.
const STORED_FIELDS: [&str; 13] = [
    "id",
    "state",
    "stateDetails",
    "creationTimeStamp",
    "endTimeStamp",
    "expirationTimeStamp",
    "elapsedTime",
    "createdBy",
    "submittedByApplication",
    "logLocation",
    "results",
    "error",
    "name",
];

/// A job as the server described it.
#[derive(Debug, Clone)]
pub struct Job(Value);

impl Job {
    /// The job in a response of the server, or in [`Job::raw`].
    ///
    /// # Errors
    /// [`ErrorKind::Server`] when it has no id.
    pub fn parse(mut value: Value) -> Result<Self> {
        if !text(&value, "id").is_some_and(is_id) {
            let text = "SAS Viya answered with a job that has no valid id: check that base_url is a SAS Viya 4";
            return Err(Error::new(ErrorKind::Server, text));
        }
        let name = value.pointer_mut("/jobRequest/name").map(Value::take);
        let mut fields: Map<String, Value> =
            STORED_FIELDS.iter().filter_map(|key| Some(((*key).to_owned(), value.get_mut(*key)?.take()))).collect();
        fields.extend(name.map(|name| ("name".to_owned(), name)));
        Ok(Self(fields.into()))
    }

    /// Its stored fields, as JSON.
    pub fn raw(&self) -> &Value {
        &self.0
    }

    /// The id of the job.
    pub fn id(&self) -> &str {
        self.text("id").unwrap_or_default()
    }

    /// The name that it was submitted with.
    pub fn name(&self) -> Option<&str> {
        self.text("name")
    }

    /// Its state, if the state is known.
    pub fn state(&self) -> Option<JobState> {
        self.text("state").and_then(JobState::parse)
    }

    /// `creationTimeStamp`: when the server accepted the job.
    pub fn created(&self) -> Option<DateTime<Utc>> {
        parse_time(self.text("creationTimeStamp")?)
    }

    /// `endTimeStamp`.
    pub fn ended(&self) -> Option<DateTime<Utc>> {
        parse_time(self.text("endTimeStamp")?)
    }

    /// `elapsedTime`, milliseconds. SAS: from creation to end, so it includes queue wait and start of the pod.
    pub fn elapsed_ms(&self) -> Option<f64> {
        self.0.get("elapsedTime")?.as_f64()
    }

    /// The server's error text; empty without an error.
    pub fn error(&self) -> String {
        self.0.get("error").map(error_text).unwrap_or_default()
    }

    /// An entry of the job's `results`, such as `COMPUTE_CONTEXT`.
    pub fn result(&self, key: &str) -> Option<&str> {
        text(self.0.get("results")?, key)
    }

    /// All `results`.
    pub fn results(&self) -> Option<&Map<String, Value>> {
        self.0.get("results")?.as_object()
    }

    /// A top-level text, such as `createdBy`.
    pub fn text(&self, key: &str) -> Option<&str> {
        text(&self.0, key)
    }
}

/// The state of a job.
///
/// # Errors
/// [`ErrorKind::NotFound`] when the job was deleted; [`ErrorKind::Server`], retryable, for a page of a proxy; those of any
/// call.
pub async fn state(client: &ViyaClient, id: &str) -> Result<JobState> {
    let path = format!("/jobExecution/jobs/{id}/state");
    read_state(&client.send(&ViyaRequest::get(&path, "text/plain")).await?, id)
}

fn read_state(response: &Response, id: &str) -> Result<JobState> {
    let body = std::str::from_utf8(&response.body).unwrap_or_default().trim().trim_matches('"');
    let is_word = body.len() <= 40 && !body.contains(['<', '\n', '{']) && body.contains(char::is_alphabetic);
    let word = Some(body).filter(|_| is_word).ok_or_else(|| {
        Error::new(ErrorKind::Server, format!("the response about job {id} has no state in it")).with_retryable(true)
    })?;
    Ok(JobState::parse(word).unwrap_or_else(|| {
        // A state that SAS does not document, such as a suspension, is not final.
        tracing::debug!("job {id} has the unknown state {word:?}");
        JobState::Running
    }))
}

/// [`state`], for which a server that supports `wait` waits until the state changes, or for `seconds` of its own time.
/// Source: SAS's own JavaScript client asks this way. No SAS document says which releases support it, so the caller has to
/// measure how long the response took.
///
/// # Errors
/// Those of [`state`].
pub async fn wait_for_state_change(client: &ViyaClient, id: &str, seconds: u32) -> Result<JobState> {
    let path = format!("/jobExecution/jobs/{id}/state");
    let call = ViyaRequest::get(&path, "text/plain").query("_action", "wait").query("wait", seconds.to_string());
    read_state(&client.send(&call).await?, id)
}

/// How jobs that have ended are selected in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedFilter {
    /// Those of the given ids that are not running: the shortest response.
    NotRunningIds,
    /// Those of the given ids.
    Ids,
    /// The newest jobs of all users.
    Newest,
}

/// Most ids in one filter: an id has 43 characters, and proxies accept about 8,000 in a URL.
pub const IDS_PER_FILTER: usize = 100;

/// Jobs that a list shows as ended.
#[derive(Debug, Default)]
pub struct EndedJobs {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Whether the server applied the filter: the list has no other jobs, and with [`EndedFilter::Newest`] the page has
    /// nearly all of the jobs.
    pub matches_filter: bool,
}

/// Those of the jobs `ids` that have ended, as far as one page shows them; at most [`IDS_PER_FILTER`] ids, and any number
/// of them with [`EndedFilter::Newest`].
///
/// # Errors
/// [`ErrorKind::Server`] or `InvalidInput` where the server does not support the filter; those of any call.
pub async fn list_ended(client: &ViyaClient, filter: EndedFilter, ids: &[String]) -> Result<EndedJobs> {
    let chosen = || format!("in(id,{})", ids.iter().map(|id| quoted(id)).collect::<Vec<_>>().join(","));
    let request = ViyaRequest::get("/jobExecution/jobs", COLLECTION).query("start", "0");
    let request = match filter {
        EndedFilter::NotRunningIds => request
            .query("limit", IDS_PER_FILTER.to_string())
            .query("filter", format!("and({},ne(state,'running'))", chosen())),
        EndedFilter::Ids => request.query("limit", IDS_PER_FILTER.to_string()).query("filter", chosen()),
        EndedFilter::Newest => request.query("limit", "1000").query("sortBy", "creationTimeStamp:descending"),
    };
    let page = client.page(&request).await?;
    let asked: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let jobs: Vec<Job> = page.items.into_iter().filter_map(|item| Job::parse(item).ok()).collect();
    let matches_filter = match filter {
        EndedFilter::NotRunningIds => jobs
            .iter()
            .all(|job| asked.contains(job.id()) && job.state().is_none_or(|state| state != JobState::Running)),
        EndedFilter::Ids => jobs.iter().all(|job| asked.contains(job.id())),
        EndedFilter::Newest => {
            // A job that was deleted, or is too new, may be missing.
            let shown: HashSet<&str> = jobs.iter().map(Job::id).collect();
            asked.difference(&shown).count() * 10 <= asked.len() + 20
        }
    };
    let jobs = jobs.into_iter().filter(|job| job.state().is_some_and(JobState::is_final)).collect();
    Ok(EndedJobs { jobs, matches_filter })
}

/// Reads a job.
///
/// # Errors
/// [`ErrorKind::NotFound`] when it was deleted; those of any call.
pub async fn get(client: &ViyaClient, id: &str) -> Result<Job> {
    Job::parse(client.send_json(&ViyaRequest::get(&format!("/jobExecution/jobs/{id}"), JOB)).await?)
}

/// Cancels a job. A job that has ended is not changed.
///
/// # Errors
/// Those of any call.
pub async fn cancel(client: &ViyaClient, id: &str) -> Result<()> {
    let path = format!("/jobExecution/jobs/{id}/state");
    client.send(&ViyaRequest::new(Method::PUT, &path, "text/plain").query("value", "canceled")).await.map(drop)
}

/// Deletes a job with its log and results. A job that does not exist is no error.
///
/// # Errors
/// Those of any call.
pub async fn delete(client: &ViyaClient, id: &str) -> Result<()> {
    let path = format!("/jobExecution/jobs/{id}");
    match client.send(&ViyaRequest::new(Method::DELETE, &path, "application/json")).await {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
