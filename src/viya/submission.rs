//! Submits jobs to the Job Execution Service. No job is ever submitted twice: where it is in doubt whether the server took
//! one, it is looked for by its name.

use std::time::Instant;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{COLLECTION, Call, Pages, ViyaClient};
use super::jobs::{JOB, Job, oldest_of_newest_first, parse_time};
use crate::error::{Error, ErrorKind, Result};

/// How long a job is looked for, seconds of the server, after a gateway gave up on submitting it: the server behind it may
/// be at it still.
const SLOW_DOUBT: f64 = 30.0;
/// The same, after the connection broke off or the server failed.
const QUICK_DOUBT: f64 = 8.0;
/// How often a submission is tried that the server answers with 500: some definitions always are.
const INTERNAL_TRIES: u32 = 3;
const REQUEST: &str = "application/vnd.sas.job.execution.job.request+json";

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
