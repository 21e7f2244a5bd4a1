//! Tests against a small server that has one job, and fails on request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::*;
use crate::comparison::arms::SubmissionMode;
use crate::comparison::job_configs;
use crate::comparison::journal::Replay;
use crate::stop::Stop;
use crate::viya::tests::client_at;

/// How the server answers.
#[derive(Default)]
struct Server {
    /// It has the job.
    has_it: AtomicBool,
    /// The job runs until it is canceled.
    runs: bool,
    /// The job was canceled.
    canceled: AtomicBool,
    /// What canceling is answered with, without being done, where that is no 0.
    deaf: u16,
    /// So many of the next answers about jobs are 503.
    failing: AtomicUsize,
    /// What submitting a job says, after it was taken or not.
    takes: bool,
    says: u16,
}

impl Server {
    fn fails(&self) -> bool {
        self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    fn job(&self) -> Value {
        let state = match (self.canceled.load(Ordering::SeqCst), self.runs) {
            (true, _) => "canceled",
            (false, true) => "running",
            (false, false) => "completed",
        };
        let now = Utc::now().to_rfc3339();
        json!({"id": "one", "state": state, "creationTimeStamp": now, "endTimeStamp": now,
            "jobRequest": {"name": "jobfixeda0r1x1tag"}})
    }
}

fn status(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}

async fn job(Shared(server): Shared<Arc<Server>>) -> Response {
    match (server.fails(), server.has_it.load(Ordering::SeqCst)) {
        (true, _) => status(503),
        (false, false) => status(404),
        (false, true) => Json(server.job()).into_response(),
    }
}

async fn jobs(Shared(server): Shared<Arc<Server>>) -> Response {
    let items = if server.has_it.load(Ordering::SeqCst) { vec![server.job()] } else { Vec::new() };
    if server.fails() { status(503) } else { Json(json!({"items": items, "count": 1})).into_response() }
}

async fn submit(Shared(server): Shared<Arc<Server>>) -> Response {
    server.has_it.store(server.takes, Ordering::SeqCst);
    if server.says == 201 { (StatusCode::CREATED, Json(server.job())).into_response() } else { status(server.says) }
}

async fn state(Shared(server): Shared<Arc<Server>>) -> Response {
    let job = server.job();
    if server.fails() { status(503) } else { job["state"].as_str().unwrap_or_default().to_owned().into_response() }
}

async fn cancel(Shared(server): Shared<Arc<Server>>, Query(query): Query<HashMap<String, String>>) -> Response {
    assert_eq!(query["value"], "canceled");
    if server.deaf != 0 {
        return status(server.deaf);
    }
    server.canceled.store(true, Ordering::SeqCst);
    status(200)
}

/// Runs one job against `server`; returns its record and how a later run finds it in the journal.
async fn follow(
    server: &Arc<Server>,
    prior: Option<PriorState>,
    stopped: bool,
) -> (Option<JobRecord>, Option<PriorState>) {
    let app = Router::new()
        .route("/jobExecution/jobs", get(jobs).post(submit))
        .route("/jobExecution/jobs/one", get(job))
        .route("/jobExecution/jobs/one/state", put(cancel).get(state))
        .with_state(server.clone());
    let (_tokens, client) = client_at(app, 200.0).await;
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::create(folder.path(), "run", false).unwrap();
    let arm = Arm::new("fixed", "SAS Job Execution compute context", SubmissionMode::Window, 4).unwrap();
    let header = JournalHeader {
        run_id: "run".into(),
        began: Utc::now(),
        tag: "tag".into(),
        base_url: "http://127.0.0.1".into(),
        arms: vec![arm.clone()],
        jobs: vec![json!({"name": "job", "definition_id": "definition"})],
        repeat: 1,
        pause: 0.0,
        mode: SubmissionMode::Window,
    };
    let jobs = job_configs::parse(&header.jobs, "the test").unwrap();
    let key = JobKey { arm: 0, round: 1, sequence: 1 };
    journal.write(&JournalEvent::Run(Box::new(header.clone()))).await.unwrap();
    // What the interrupted run had written.
    if let Some(PriorState::Submitting(name) | PriorState::Submitted(name, ..)) = prior.clone() {
        journal.write(&JournalEvent::Submitting { key, name }).await.unwrap();
    }
    if let Some(PriorState::Submitted(_, id, latency)) = prior.clone() {
        journal.write(&JournalEvent::Submitted { key, id, latency }).await.unwrap();
    }
    let stop = Stop::default();
    if stopped {
        stop.stop();
    }
    let control = RunControl::new(&stop, &client.clock);
    let options =
        RunnerOptions { job_timeout: 600.0, poll_interval: 0.5, expires_after: None, ..RunnerOptions::default() };
    let run = RunContext::new(&client, &journal, &header, &options, &control);
    let counter = ProgressCounter::new("fixed", (1, 1), 1, None);
    let round = ArmRound { run: &run, arm: &arm, arm_number: 0, round: 1, counter };
    let record = tokio::select! {
        record = round.run_job(&jobs[0], 1, prior.as_ref()) => record,
        never = run.watch.run_lists() => match never {},
    };
    let path = journal.path.clone();
    drop(journal);
    let Replay { jobs, .. } = Journal::reopen(&path).unwrap().1;
    (record, jobs.get(&key).cloned())
}

fn known() -> Option<PriorState> {
    Some(PriorState::Submitted("jobfixeda0r1x1tag".into(), "one".into(), None))
}

fn having(failing: usize) -> Arc<Server> {
    Arc::new(Server { has_it: true.into(), failing: failing.into(), ..Server::default() })
}

#[tokio::test]
async fn a_job_that_cannot_be_read_for_a_while_is_read_later() {
    let (record, found) = follow(&having(20), known(), false).await;
    assert_eq!(record.unwrap().status, "completed");
    assert!(matches!(found, Some(PriorState::Ended(_, _, end)) if end.status == "completed"));
}

#[tokio::test]
async fn a_job_that_cannot_be_read_at_all_has_no_end() {
    let (record, found) = follow(&having(usize::MAX), known(), false).await;
    let record = record.unwrap();
    assert_eq!(record.status, "unknown");
    assert!(record.error.unwrap().contains("503"));
    // The next run looks again.
    assert!(matches!(found, Some(PriorState::Submitted(_, id, _)) if id == "one"));
}

#[tokio::test]
async fn a_job_that_was_deleted_is_canceled() {
    let (record, found) = follow(&Arc::new(Server::default()), known(), false).await;
    assert_eq!(record.unwrap().status, "canceled");
    assert!(matches!(found, Some(PriorState::Ended(_, _, end)) if end.status == "canceled"));
}

#[tokio::test]
async fn what_may_have_been_submitted_is_not_written_down_as_failed() {
    // The server accepts it, but no answer says so.
    let server = Arc::new(Server { takes: true, says: 503, failing: usize::MAX.into(), ..Server::default() });
    let (record, found) = follow(&server, None, false).await;
    assert_eq!(record.unwrap().status, "unknown");
    assert!(matches!(found, Some(PriorState::Submitting(name)) if name == "jobfixeda0r1x1tag"));
    // A refusal is an end.
    let (record, found) = follow(&Arc::new(Server { says: 400, ..Server::default() }), None, false).await;
    assert_eq!(record.unwrap().status, "failed");
    assert!(matches!(found, Some(PriorState::Ended(_, _, end)) if end.status == "failed"));
}

#[tokio::test]
async fn a_run_that_is_stopped_cancels_what_an_earlier_one_left() {
    for prior in [known(), Some(PriorState::Submitting("jobfixeda0r1x1tag".into()))] {
        let server = Arc::new(Server { has_it: true.into(), runs: true, ..Server::default() });
        let (record, found) = follow(&server, prior, true).await;
        assert_eq!(record.unwrap().status, "canceled");
        assert!(server.canceled.load(Ordering::SeqCst));
        assert!(matches!(found, Some(PriorState::Canceled(1))));
    }
    // Nothing new is begun.
    let server = Arc::new(Server { takes: true, says: 201, ..Server::default() });
    let (record, found) = follow(&server, None, true).await;
    assert!(record.is_none() && found.is_none() && !server.has_it.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_job_that_does_not_end_when_it_is_canceled_is_followed_by_the_next_run() {
    // The server takes it and does nothing, or fails at it.
    for deaf in [200, 503] {
        let server = Arc::new(Server { has_it: true.into(), runs: true, deaf, ..Server::default() });
        let (record, found) = follow(&server, known(), true).await;
        let record = record.unwrap();
        assert_eq!(record.status, "unknown", "{deaf}");
        assert!(record.error.unwrap().contains("may run there still"), "{deaf}");
        // Not to be submitted anew: it is there.
        assert!(matches!(found, Some(PriorState::Submitted(_, id, _)) if id == "one"), "{deaf}");
    }
}

#[tokio::test]
async fn a_job_that_ends_while_it_is_canceled_has_its_own_end() {
    let server = Arc::new(Server { has_it: true.into(), deaf: 409, ..Server::default() });
    let (record, found) =
        follow(&server, Some(PriorState::Submitted("jobfixeda0r1x1tag".into(), "one".into(), None)), true).await;
    assert_eq!(record.unwrap().status, "completed");
    assert!(matches!(found, Some(PriorState::Ended(_, _, end)) if end.status == "completed"));
}
