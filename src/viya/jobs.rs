//! The Job Execution Service: submit, follow and cancel jobs. No job is ever submitted twice.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Answer, COLLECTION, Call, ViyaClient, error_text, quoted};
use crate::error::{Error, ErrorKind, Result};

/// Pages of a listing at most: a server whose links go round in a circle must not hold us.
const MOST_PAGES: u32 = 5000;
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
/// again, so that it never runs twice.
///
/// # Errors
/// The server's refusal with its reasons, or that it cannot be found out whether the job runs.
pub async fn submit(client: &ViyaClient, job: &Submission) -> Result<Job, NotSubmitted> {
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
        let (error, resend, in_doubt) = match client.once(&call).await {
            Ok(answer) if answer.status.is_success() => match answer.json().and_then(Job::of) {
                Ok(job) => return Ok(job),
                // It was taken, if a proxy did not make that up.
                Err(e) => (e, false, true),
            },
            // Refused before anything was done with it.
            Ok(answer) if answer.status.as_u16() == 429 && more => {
                client.back_off(round, answer.retry_after()).await;
                continue;
            }
            Ok(answer) if answer.status.is_server_error() => {
                let (passing, after) = (answer.is_passing(), answer.retry_after());
                if let Some(seconds) = after {
                    client.clock().sleep(seconds).await;
                }
                (answer.into_error(&call), passing, passing)
            }
            Ok(answer) => return Err(refused(answer.into_error(&call))),
            Err(failure) if failure.error.kind() != ErrorKind::Network => return Err(refused(failure.error)),
            Err(failure) if !failure.sent && more => {
                client.back_off(round, None).await;
                continue;
            }
            Err(failure) if !failure.sent => return Err(refused(failure.error)),
            Err(failure) => (failure.error, true, true),
        };
        // Looked for twice: a request that broke off may still be on its way inside the server.
        for _ in 0..2 {
            match find_by_name(client, &job.name, None).await {
                Ok(Some(job)) => return Ok(job),
                Ok(None) => client.back_off(round, Some(1.0)).await,
                Err(e) => {
                    let text = format!(
                        "it is not known whether SAS Viya took job {}: {e}; look for that name there",
                        job.name
                    );
                    let error = Error::new(e.kind(), text).with_retryable(e.is_retryable()).with_source(error);
                    return Err(NotSubmitted { error, in_doubt: true });
                }
            }
        }
        if !(resend && more) {
            return Err(NotSubmitted { error, in_doubt });
        }
    }
    Err(refused(Error::new(ErrorKind::Internal, "the job was never sent")))
}

/// The newest job of exactly this name: among the latest thousand, or among all since `oldest` by the server's clock. SAS:
/// jobs are listed newest first.
///
/// # Errors
/// Those of any call to the server.
pub async fn find_by_name(client: &ViyaClient, name: &str, oldest: Option<DateTime<Utc>>) -> Result<Option<Job>> {
    let call = Call::get("/jobExecution/jobs", COLLECTION)
        .query("start", "0")
        .query("limit", "200")
        .query("sortBy", "creationTimeStamp:descending");
    let mut next: Option<String> = None;
    for pages in 1.. {
        let mut page = client.page(&call, next.as_deref()).await?;
        let last = page.items.last().and_then(|item| parse_time(item.get("creationTimeStamp")?.as_str()?));
        let named = |item: &&mut Value| item.pointer("/jobRequest/name").and_then(Value::as_str) == Some(name);
        for item in page.items.iter_mut().filter(named) {
            if let Ok(job) = Job::of(item.take()) {
                return Ok(Some(job));
            }
        }
        let enough = match oldest {
            Some(oldest) => last.is_none_or(|last| last < oldest),
            None => pages >= 5,
        };
        next = page.next.filter(|_| !enough && pages < MOST_PAGES);
        if next.is_none() {
            break;
        }
    }
    Ok(None)
}

/// The state of a job: one short answer.
///
/// # Errors
/// [`ErrorKind::NotFound`] when the job was deleted; [`ErrorKind::Server`], retryable, for a state that SAS does not
/// document or a page of a proxy; those of any call.
pub async fn state(client: &ViyaClient, id: &str) -> Result<State> {
    let path = format!("/jobExecution/jobs/{id}/state");
    read_state(&client.send(&Call::get(&path, "text/plain")).await?, id)
}

fn read_state(answer: &Answer, id: &str) -> Result<State> {
    answer.word().and_then(State::parse).ok_or_else(|| {
        let said = answer.word().map_or_else(|| "no state".to_owned(), |word| format!("the unknown state {word:?}"));
        Error::new(ErrorKind::Server, format!("job {id} has {said}")).with_retryable(true)
    })
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

/// Those of the jobs `ids` that have ended, as far as one page of that listing shows them; at most
/// [`IDS_OF_A_LISTING`] ids, and any number of them with [`Listing::Newest`].
///
/// # Errors
/// [`ErrorKind::Server`] or `InvalidInput` where the server does not take the filter; those of any call.
pub async fn list_ended(client: &ViyaClient, listing: Listing, ids: &[String]) -> Result<Vec<Job>> {
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
    let jobs = page.items.into_iter().filter_map(|item| Job::of(item).ok());
    Ok(jobs.filter(|job| job.state().is_some_and(State::is_final)).collect())
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

/// A SAS time stamp: ISO 8601 with zone.
pub(crate) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc())
}
