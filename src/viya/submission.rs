//! Submits jobs to the Job Execution Service. No job is submitted twice: when it is uncertain whether the server accepted a
//! job, the job is looked up by its name.

use std::time::Instant;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{COLLECTION, LONGEST_RETRY_AFTER, Pages, ViyaClient, ViyaRequest, is_transient, json, refusal};
use super::jobs::{JOB, Job};
use super::json::{oldest_of_newest_first, parse_time, text};
use crate::error::{Error, ErrorKind, Result};
use crate::http::SendState;

/// How long a job is looked for, in seconds of the server, after a gateway stopped waiting: the server behind it may still
/// work on the request.
const LOOKUP_AFTER_TIMEOUT: f64 = 30.0;
/// The same, after the connection broke off or the server failed.
const LOOKUP_AFTER_FAILURE: f64 = 8.0;
/// How often a submission is tried that the server answers with 500: some job definitions always fail.
const INTERNAL_TRIES: u32 = 3;
const REQUEST: &str = "application/vnd.sas.job.execution.job.request+json";

/// A job to submit.
#[derive(Debug, Clone)]
pub struct Submission {
    /// A name that no other job has; only `[a-z0-9]`, because the Workload Orchestrator drops other characters.
    pub name: String,
    /// Id or URI of the job definition.
    pub definition: String,
    /// Arguments as text: SAS expects a map of string to string.
    pub arguments: Map<String, Value>,
    /// The compute context that it must run in.
    pub context: String,
    /// ISO 8601 duration after which the server deletes the job and its files, for example `P7D`.
    pub expires_after: Option<String>,
}

/// Why a job was not submitted.
#[derive(Debug)]
pub struct NotSubmitted {
    /// What happened.
    pub error: Error,
    /// Whether the server may have accepted the job: it has to be looked up by its name before it is sent again.
    pub in_doubt: bool,
}

impl From<Error> for NotSubmitted {
    /// An error after which the server surely has no job.
    fn from(error: Error) -> Self {
        Self { error, in_doubt: false }
    }
}

/// Submits a job and returns it as accepted.
///
/// After a failure that leaves open whether the server accepted the job, the job is looked up by its name before it is sent
/// again, so that it never runs twice. `oldest` is that of [`find_by_name`].
///
/// # Errors
/// The server's refusal with its reasons, or that it is not known whether the job runs.
pub async fn submit(client: &ViyaClient, job: &Submission, oldest: DateTime<Utc>) -> Result<Job, NotSubmitted> {
    let uri = match job.definition.as_str() {
        uri if uri.starts_with('/') => uri.to_owned(),
        id => format!("/jobDefinitions/definitions/{id}"),
    };
    let mut arguments = job.arguments.clone();
    arguments.insert("_contextName".into(), job.context.clone().into());
    let mut body = json!({"version": 3, "name": job.name, "jobDefinitionUri": uri, "arguments": arguments, "createdByApplication": "jobrota"});
    if let Some(expires) = &job.expires_after {
        body["expiresAfter"] = expires.clone().into();
    }
    let request = ViyaRequest {
        body: Some((REQUEST, Bytes::from(body.to_string()))),
        ..ViyaRequest::new(Method::POST, "/jobExecution/jobs", JOB)
    };
    let mut retry = client.retry();
    loop {
        // Why the job is looked up, whether it is sent again if it is not found, and for how long it is looked for.
        let (failure, resend, seconds) = match client.once(&request).await {
            Ok(response) if response.status.is_success() => match json(&response).and_then(Job::parse) {
                Ok(job) => return Ok(job),
                // The server accepted it, unless a proxy made up the response.
                Err(error) => (NotSubmitted { error, in_doubt: true }, false, LOOKUP_AFTER_TIMEOUT),
            },
            Ok(response) => {
                let (status, asked) = (response.status, response.retry_after());
                let error = refusal(&request, &response);
                match status.as_u16() {
                    // The server did nothing.
                    429 => {
                        client.wait(retry.after(error, true, asked)?).await;
                        continue;
                    }
                    // A 408 says nothing about the request either.
                    408 | 500..=599 => {
                        let seconds = if [408, 504].contains(&status.as_u16()) {
                            LOOKUP_AFTER_TIMEOUT
                        } else {
                            LOOKUP_AFTER_FAILURE
                        };
                        let seconds =
                            seconds.max(asked.map_or(0.0, |asked| asked.min(LONGEST_RETRY_AFTER).as_secs_f64()));
                        let may_pass = is_transient(status) || status.as_u16() == 408;
                        let failure = NotSubmitted { error: error.with_retryable(may_pass), in_doubt: may_pass };
                        // Else the server failed at this job, and may do so each time.
                        (failure, may_pass || retry.tried + 1 < INTERNAL_TRIES, seconds)
                    }
                    _ => return Err(error.into()),
                }
            }
            Err(failure) if failure.error.kind() != ErrorKind::Network => return Err(failure.error.into()),
            Err(failure) if failure.state == SendState::NotSent => {
                client.wait(retry.after(failure.error, false, None)?).await;
                continue;
            }
            Err(failure) => {
                let seconds = if failure.timed_out { LOOKUP_AFTER_TIMEOUT } else { LOOKUP_AFTER_FAILURE };
                (NotSubmitted { error: failure.error, in_doubt: true }, true, seconds)
            }
        };
        let may_resend = retry.count(true) && resend;
        match look_up(client, &job.name, oldest, seconds).await {
            Ok(Some(job)) => return Ok(job),
            Ok(None) if may_resend => {}
            Ok(None) => return Err(failure),
            Err(e) => {
                let text = format!(
                    "it is not known whether SAS Viya accepted job {}: {e}; look for that name there",
                    job.name
                );
                let error = Error::new(e.kind(), text).with_retryable(e.is_retryable()).with_source(failure.error);
                return Err(NotSubmitted { error, in_doubt: true });
            }
        }
    }
}

/// Calls [`find_by_name`] again and again for `seconds` of the server.
async fn look_up(client: &ViyaClient, name: &str, oldest: DateTime<Utc>, seconds: f64) -> Result<Option<Job>> {
    let (began, mut pause) = (Instant::now(), 0.5);
    loop {
        if let Some(job) = find_by_name(client, name, oldest).await? {
            return Ok(Some(job));
        }
        let left = seconds - client.clock.since(began);
        if left <= 0.0 {
            return Ok(None);
        }
        client.clock.sleep(left.min(pause)).await;
        pause *= 2.0;
    }
}

/// The job with exactly this name, among all jobs since `oldest` by the server's clock, or among all jobs when the server
/// does not list the newest first or reports no times.
///
/// # Errors
/// Those of any call to the server.
pub async fn find_by_name(client: &ViyaClient, name: &str, oldest: DateTime<Utc>) -> Result<Option<Job>> {
    let request = ViyaRequest::get("/jobExecution/jobs", COLLECTION)
        .query("limit", "200")
        .query("sortBy", "creationTimeStamp:descending");
    let mut pages = Pages::new(client, request);
    while let Some(mut items) = pages.next().await? {
        let created = |item: &Value| parse_time(text(item, "creationTimeStamp")?);
        let last = oldest_of_newest_first(items.iter().map(created));
        let named = |item: &&mut Value| item.pointer("/jobRequest/name").and_then(Value::as_str) == Some(name);
        for item in items.iter_mut().filter(named) {
            if let Ok(job) = Job::parse(item.take()) {
                return Ok(Some(job));
            }
        }
        if last.is_some_and(|last| last < oldest) {
            break;
        }
    }
    Ok(None)
}
