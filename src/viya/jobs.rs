//! The Job Execution Service: read, list, cancel and delete jobs.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Map, Value};

use super::client::{Answer, COLLECTION, Call, ViyaClient, error_text, quoted};
use crate::error::{Error, ErrorKind, Result};

pub(super) const JOB: &str = "application/vnd.sas.job.execution.job+json";

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
