//! The Job Execution Service: submit, follow and cancel jobs. No job is ever submitted twice.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Answer, COLLECTION, Call, Pages, ViyaClient, error_text, quoted};
use crate::error::{Error, ErrorKind, Result};

/// How long a job is looked for, seconds of the server, after a gateway gave up on submitting it: the server behind it may
/// be at it still.
const SLOW_DOUBT: f64 = 30.0;
/// The same, after the connection broke off or the server failed.
const QUICK_DOUBT: f64 = 8.0;
/// How often a submission is tried that the server answers with 500: some definitions always are.
const INTERNAL_TRIES: u32 = 3;
const REQUEST: &str = "application/vnd.sas.job.execution.job.request+json";
const JOB: &str = "application/vnd.sas.job.execution.job+json";

/// State of a job. SAS: `state` says `running` while the Workload Orchestrator still has the job pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Accepted.
    Pending,
    /// Handed to the Compute service.
    Running,
    /// Canceled by somebody.
    Canceled,
    /// Ended well, perhaps with warnings.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by the server for silence or its own time limit.
    TimedOut,
}

impl State {
    /// Reads a state; SAS wrote `timed out` before 2024-07 and `timedOut` since.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.trim().to_ascii_lowercase().as_str() {
            "pending" => Self::Pending,
            "running" => Self::Running,
            "canceled" | "cancelled" => Self::Canceled,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "timedout" | "timed out" => Self::TimedOut,
            _ => return None,
        })
    }

    /// As SAS spells it today.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Canceled => "canceled",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timedOut",
        }
    }

    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// What is kept of a job: the rest, such as its program and its links, would be held for each of thousands.
const KEPT: [&str; 13] = [
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

/// A job as the server described it last.
#[derive(Debug, Clone)]
pub struct Job(Value);

impl Job {
    /// Reads a job as the server gave it, or as [`Job::raw`] had it.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] when it has no id.
    pub fn of(mut value: Value) -> Result<Self> {
        if value.get("id").and_then(Value::as_str).is_some_and(|id| !id.is_empty()) {
            let name = value.pointer_mut("/jobRequest/name").map(Value::take);
            let Some(map) = value.as_object_mut() else { return Ok(Self(value)) };
            let kept = KEPT.iter().filter_map(|key| Some(((*key).to_owned(), map.remove(*key)?)));
            let mut kept: Map<String, Value> = kept.collect();
            kept.extend(name.map(|name| ("name".to_owned(), name)));
            return Ok(Self(kept.into()));
        }
        Err(Error::new(
            ErrorKind::Server,
            "SAS Viya answered with a job that has no id: is base_url a SAS Viya of today?",
        ))
    }

    /// What is kept of it, as JSON.
    pub fn raw(&self) -> &Value {
        &self.0
    }

    /// The id of the job.
    pub fn id(&self) -> &str {
        self.text("id").unwrap_or_default()
    }

    /// The name it was submitted under.
    pub fn name(&self) -> Option<&str> {
        self.text("name")
    }

    /// Its state, if it is one of the known ones.
    pub fn state(&self) -> Option<State> {
        self.text("state").and_then(State::parse)
    }

    /// `creationTimeStamp`: when the server took the job.
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

    /// What the server says went wrong; empty when nothing did.
    pub fn error(&self) -> String {
        self.0.get("error").map(error_text).unwrap_or_default()
    }

    /// An entry of the job's `results`, such as `COMPUTE_CONTEXT`.
    pub fn result(&self, key: &str) -> Option<&str> {
        self.results()?.get(key)?.as_str().filter(|text| !text.is_empty())
    }

    /// All `results`.
    pub fn results(&self) -> Option<&Map<String, Value>> {
        self.0.get("results")?.as_object()
    }

    /// A top-level text, such as `createdBy`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str().filter(|text| !text.is_empty())
    }
}

/// A job to submit.
#[derive(Debug, Clone)]
pub struct Submission {
    /// A name that no other job has; `[a-z0-9]` only, because the Workload Orchestrator drops the rest.
    pub name: String,
    /// Id or URI of the job definition.
    pub definition: String,
    /// Arguments, already text: SAS takes a map of string to string.
    pub arguments: Map<String, Value>,
    /// The compute context it must run in.
    pub context: String,
    /// ISO 8601 duration after which the server deletes the job and its files, e.g. `P7D`.
    pub expires_after: Option<String>,
}

/// Why a job was not submitted, as far as that is known.
#[derive(Debug)]
pub struct NotSubmitted {
    /// What happened.
    pub error: Error,
    /// Whether the server may have taken the job all the same: it has to be looked for by its name before it is sent again.
    pub in_doubt: bool,
}

/// Submits a job and returns it as accepted.
///
/// After a failure that leaves open whether the server took the job, the job is looked for by its name before it is sent
/// again, so that it never runs twice. `oldest` is as [`find_by_name`] has it.
///
/// # Errors
/// The server's refusal with its reasons, or that it cannot be found out whether the job runs.
pub async fn submit(client: &ViyaClient, job: &Submission, oldest: DateTime<Utc>) -> Result<Job, NotSubmitted> {
    let refused = |error: Error| NotSubmitted { error, in_doubt: false };
    let uri = if job.definition.starts_with('/') {
        job.definition.clone()
    } else {
        format!("/jobDefinitions/definitions/{}", job.definition)
    };
    let mut arguments = job.arguments.clone();
    arguments.insert("_contextName".into(), job.context.clone().into());
    let mut body = json!({"version": 3, "name": job.name, "jobDefinitionUri": uri, "arguments": arguments, "createdByApplication": "jobrota"});
    if let Some(expires) = &job.expires_after {
        body["expiresAfter"] = expires.clone().into();
    }
    let call = Call {
        body: Some((REQUEST, Bytes::from(body.to_string()))),
        ..Call::new(Method::POST, "/jobExecution/jobs", JOB)
    };
    for round in 1.. {
        let more = round < client.tries();
        let doubt = match client.once(&call).await {
            Ok(answer) if answer.status.is_success() => match answer.json().and_then(Job::of) {
                Ok(job) => return Ok(job),
                // It was taken, if a proxy did not make that up.
                Err(error) => Doubt { error, resend: false, open: true, seconds: SLOW_DOUBT, after: None },
            },
            // Refused before anything was done with it.
            Ok(answer) if answer.status.as_u16() == 429 && more => {
                client.back_off(round, answer.retry_after()).await;
                continue;
            }
            // Of a 408 it is not known either what became of the request.
            Ok(answer) if answer.status.is_server_error() || answer.status.as_u16() == 408 => {
                let status = answer.status.as_u16();
                let (passing, after) = (answer.is_passing() || status == 408, answer.retry_after());
                let seconds = if [408, 504].contains(&status) { SLOW_DOUBT } else { QUICK_DOUBT };
                let error = answer.into_error(&call).with_retryable(true);
                if passing {
                    Doubt { error, resend: true, open: true, seconds, after }
                } else {
                    // The server failed at this very job, and is not asked for ever.
                    let error = error.with_retryable(false);
                    Doubt { error, resend: round < INTERNAL_TRIES, open: false, seconds, after }
                }
            }
            Ok(answer) => return Err(refused(answer.into_error(&call))),
            Err(failure) if failure.error.kind() != ErrorKind::Network => return Err(refused(failure.error)),
            Err(failure) if !failure.sent && more => {
                client.back_off(round, None).await;
                continue;
            }
            Err(failure) if !failure.sent => return Err(refused(failure.error)),
            Err(failure) => {
                let seconds = if failure.timed_out { SLOW_DOUBT } else { QUICK_DOUBT };
                Doubt { error: failure.error, resend: true, open: true, seconds, after: None }
            }
        };
        match look_for(client, &job.name, oldest, doubt.seconds.max(doubt.after.unwrap_or(0.0))).await {
            Ok(Some(job)) => return Ok(job),
            Ok(None) if doubt.resend && more => {}
            Ok(None) => return Err(NotSubmitted { error: doubt.error, in_doubt: doubt.open }),
            Err(e) => {
                let text =
                    format!("it is not known whether SAS Viya took job {}: {e}; look for that name there", job.name);
                let error = Error::new(e.kind(), text).with_retryable(e.is_retryable()).with_source(doubt.error);
                return Err(NotSubmitted { error, in_doubt: true });
            }
        }
    }
    Err(refused(Error::new(ErrorKind::Internal, "the job was never sent")))
}

/// A submission of which it is not known whether the server took it.
struct Doubt {
    error: Error,
    /// Whether it is sent again where it is not found.
    resend: bool,
    /// Whether the server may take it even later.
    open: bool,
    /// How long it is looked for.
    seconds: f64,
    /// When the server wants to be asked again, seconds.
    after: Option<f64>,
}

/// [`find_by_name`], again and again for `seconds` of the server.
async fn look_for(client: &ViyaClient, name: &str, oldest: DateTime<Utc>, seconds: f64) -> Result<Option<Job>> {
    let (began, mut pause) = (Instant::now(), 0.5);
    loop {
        if let Some(job) = find_by_name(client, name, oldest).await? {
            return Ok(Some(job));
        }
        let left = seconds - client.clock().since(began);
        if left <= 0.0 {
            return Ok(None);
        }
        client.clock().sleep(left.min(pause)).await;
        pause *= 2.0;
    }
}

/// The job of exactly this name, among all since `oldest` by the server's clock; among all that there are where the server
/// does not list the newest first, or says no times.
///
/// # Errors
/// Those of any call to the server.
pub async fn find_by_name(client: &ViyaClient, name: &str, oldest: DateTime<Utc>) -> Result<Option<Job>> {
    let call = Call::get("/jobExecution/jobs", COLLECTION)
        .query("limit", "200")
        .query("sortBy", "creationTimeStamp:descending");
    let mut pages = Pages::new(client, call);
    while let Some(mut items) = pages.next().await? {
        let created = |item: &Value| parse_time(item.get("creationTimeStamp")?.as_str()?);
        let last = oldest_of_newest_first(items.iter().map(created));
        let named = |item: &&mut Value| item.pointer("/jobRequest/name").and_then(Value::as_str) == Some(name);
        for item in items.iter_mut().filter(named) {
            if let Ok(job) = Job::of(item.take()) {
                return Ok(Some(job));
            }
        }
        if last.is_some_and(|last| last < oldest) {
            break;
        }
    }
    Ok(None)
}

/// The last moment of a page that is sorted newest first; none of a page that is not, or that does not tell each of them.
pub(super) fn oldest_of_newest_first(moments: impl Iterator<Item = Option<DateTime<Utc>>>) -> Option<DateTime<Utc>> {
    let mut last: Option<DateTime<Utc>> = None;
    for moment in moments {
        let moment = moment?;
        if last.is_some_and(|last| last < moment) {
            return None;
        }
        last = Some(moment);
    }
    last
}

/// The state of a job: one short answer.
///
/// # Errors
/// [`ErrorKind::NotFound`] when the job was deleted; [`ErrorKind::Server`], retryable, for a page of a proxy; those of any
/// call.
pub async fn state(client: &ViyaClient, id: &str) -> Result<State> {
    let path = format!("/jobExecution/jobs/{id}/state");
    read_state(&client.send(&Call::get(&path, "text/plain")).await?, id)
}

fn read_state(answer: &Answer, id: &str) -> Result<State> {
    let word = answer.word().filter(|word| word.chars().any(char::is_alphabetic));
    let word = word.ok_or_else(|| {
        Error::new(ErrorKind::Server, format!("the answer about job {id} has no state in it")).with_retryable(true)
    })?;
    Ok(State::parse(word).unwrap_or_else(|| {
        // A state that SAS does not document, such as a suspension, is no end.
        tracing::debug!("job {id} has the unknown state {word:?}");
        State::Running
    }))
}

/// [`state`] that a server which honours `wait` answers only when the state changes, or after `seconds` of its own.
/// Source: SAS's own JavaScript client asks this way; no SAS document says which releases honour it, so whoever calls
/// this looks at how long the answer took.
///
/// # Errors
/// Those of [`state`].
pub async fn state_waiting(client: &ViyaClient, id: &str, seconds: u32) -> Result<State> {
    let path = format!("/jobExecution/jobs/{id}/state");
    let call = Call::get(&path, "text/plain").query("_action", "wait").query("wait", seconds.to_string());
    read_state(&client.send(&call).await?, id)
}

/// Which listing is asked for jobs that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Those of the given ids that do not run any more: the shortest answer.
    EndedOfIds,
    /// Those of the given ids.
    OfIds,
    /// The newest ones of everybody.
    Newest,
}

/// Most ids of one listing: 43 characters each, and proxies take some 8,000 in a URL.
pub const IDS_OF_A_LISTING: usize = 100;

/// What a listing told.
#[derive(Debug, Default)]
pub struct Listed {
    /// Those that have ended.
    pub ended: Vec<Job>,
    /// Whether the listing shows what it was asked for: no jobs that were not meant, and of [`Listing::Newest`] a page that
    /// has nearly all of them.
    pub honest: bool,
}

/// Those of the jobs `ids` that have ended, as far as one page of that listing shows them; at most
/// [`IDS_OF_A_LISTING`] ids, and any number of them with [`Listing::Newest`].
///
/// # Errors
/// [`ErrorKind::Server`] or `InvalidInput` where the server does not take the filter; those of any call.
pub async fn list_ended(client: &ViyaClient, listing: Listing, ids: &[String]) -> Result<Listed> {
    let chosen = || format!("in(id,{})", ids.iter().map(|id| quoted(id)).collect::<Vec<_>>().join(","));
    let call = Call::get("/jobExecution/jobs", COLLECTION).query("start", "0");
    let call = match listing {
        Listing::EndedOfIds => call
            .query("limit", IDS_OF_A_LISTING.to_string())
            .query("filter", format!("and({},ne(state,'running'))", chosen())),
        Listing::OfIds => call.query("limit", IDS_OF_A_LISTING.to_string()).query("filter", chosen()),
        Listing::Newest => call.query("limit", "1000").query("sortBy", "creationTimeStamp:descending"),
    };
    let page = client.page(&call, None).await?;
    let asked: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let jobs: Vec<Job> = page.items.into_iter().filter_map(|item| Job::of(item).ok()).collect();
    let honest = match listing {
        Listing::EndedOfIds => {
            jobs.iter().all(|job| asked.contains(job.id()) && job.state().is_none_or(|state| state != State::Running))
        }
        Listing::OfIds => jobs.iter().all(|job| asked.contains(job.id())),
        Listing::Newest => {
            // One that was deleted, or is too new, may be missing.
            let shown: HashSet<&str> = jobs.iter().map(Job::id).collect();
            asked.difference(&shown).count() * 10 <= asked.len() + 20
        }
    };
    let ended = jobs.into_iter().filter(|job| job.state().is_some_and(State::is_final)).collect();
    Ok(Listed { ended, honest })
}

/// A job as it is now.
///
/// # Errors
/// [`ErrorKind::NotFound`] when it was deleted; those of any call.
pub async fn get(client: &ViyaClient, id: &str) -> Result<Job> {
    Job::of(client.send_json(&Call::get(&format!("/jobExecution/jobs/{id}"), JOB)).await?)
}

/// Cancels a job; one that has ended already is left as it is.
///
/// # Errors
/// Those of any call.
pub async fn cancel(client: &ViyaClient, id: &str) -> Result<()> {
    let path = format!("/jobExecution/jobs/{id}/state");
    client.send(&Call::new(Method::PUT, &path, "text/plain").query("value", "canceled")).await.map(drop)
}

/// Deletes a job with its log and results; one that is not there any more is no error.
///
/// # Errors
/// Those of any call.
pub async fn delete(client: &ViyaClient, id: &str) -> Result<()> {
    let path = format!("/jobExecution/jobs/{id}");
    match client.send(&Call::new(Method::DELETE, &path, "application/json")).await {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A SAS time stamp: ISO 8601 with zone, which some services write without a colon.
pub(crate) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let at = DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"));
    at.ok().map(|at| at.to_utc())
}
