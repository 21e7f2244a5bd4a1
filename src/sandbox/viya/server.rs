//! The HTTP server: routes, the state behind them, and what every request goes through.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Form, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::routing::{get, post};
use axum::{Router, body};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;

use super::definitions;
use super::jobs::{self, Jobs};
use super::orchestrator;
use super::reply::{self, Reply, link};
use super::tokens::{TokenRequest, Tokens};
use super::workload::JobDefinition;

/// Every answer carries it: how many virtual seconds pass in a real one.
pub const SPEED_HEADER: &str = "x-jobrota-sandbox-speed";

/// An answer that the stand-in gives instead of the real one, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Only requests whose path begins with this count; empty: all.
    pub path: String,
    /// Which of them gets the fault, from 1.
    pub nth: u64,
    /// The HTTP status, such as 429 or 503.
    pub status: u16,
    /// Seconds in the `Retry-After` header, if any.
    pub retry_after: Option<u64>,
}

/// Virtual time: the moment of the start plus real time multiplied by the speed.
#[derive(Debug)]
pub struct Clock {
    began: Instant,
    epoch_ms: i64,
    speed: f64,
}

impl Clock {
    pub fn new(speed: f64) -> Self {
        // A whole second, so that the orchestrator's stamps are virtual seconds cut off.
        Self { began: Instant::now(), epoch_ms: Utc::now().timestamp() * 1000, speed }
    }

    /// Virtual seconds since the start.
    pub fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * self.speed
    }

    /// The moment `at` in whole milliseconds since 1970.
    pub fn millis(&self, at: f64) -> i64 {
        self.epoch_ms + (at * 1000.0).floor() as i64
    }

    /// A stamp of the Job Execution Service: ISO 8601, milliseconds, `Z`.
    pub fn stamp_ms(&self, at: f64) -> String {
        iso(self.millis(at), SecondsFormat::Millis)
    }

    /// A stamp of the Workload Orchestrator: ISO 8601, whole seconds (SAS: WLO stamps have 1 s resolution), `Z`.
    pub fn stamp_s(&self, at: f64) -> String {
        iso(self.millis(at), SecondsFormat::Secs)
    }
}

fn iso(millis: i64, format: SecondsFormat) -> String {
    DateTime::<Utc>::from_timestamp_millis(millis).unwrap_or_default().to_rfc3339_opts(format, true)
}

/// What all requests share.
#[derive(Debug)]
pub struct Server {
    pub clock: Clock,
    pub definitions: Vec<JobDefinition>,
    pub fail_jobs: Vec<String>,
    pub tokens: Mutex<Tokens>,
    jobs: Mutex<Jobs>,
    faults: Mutex<Vec<(Fault, u64)>>,
}

impl Server {
    pub fn new(
        clock: Clock,
        definitions: Vec<JobDefinition>,
        fail_jobs: Vec<String>,
        tokens: Tokens,
        jobs: Jobs,
        faults: Vec<Fault>,
    ) -> Self {
        let faults = faults.into_iter().map(|fault| (fault, 0)).collect();
        Self {
            clock,
            definitions,
            fail_jobs,
            tokens: Mutex::new(tokens),
            jobs: Mutex::new(jobs),
            faults: Mutex::new(faults),
        }
    }

    /// The jobs, with the host model advanced to the present moment, and that moment.
    pub fn jobs(&self) -> (MutexGuard<'_, Jobs>, f64) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now().max(jobs.model.now());
        jobs.model.advance(now);
        (jobs, now)
    }

    fn fault(&self, path: &str) -> Option<Reply> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = None;
        for (fault, seen) in faults.iter_mut().filter(|(fault, _)| path.starts_with(&fault.path)) {
            *seen += 1;
            if *seen == fault.nth {
                due = Some(fault.clone());
            }
        }
        let fault = due?;
        let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let mut reply = reply::error(status, "The sandbox was asked to fail this request.", None);
        if let Some(seconds) = fault.retry_after {
            reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        Some(reply)
    }
}

/// All routes of the stand-in.
pub fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/SASLogon/oauth/token", post(token))
        .route("/jobDefinitions/definitions", get(definitions::list_definitions))
        .route("/jobDefinitions/definitions/{id}", get(definitions::get_definition))
        .route("/compute/contexts", get(definitions::list_contexts))
        .route("/compute/contexts/{id}", get(definitions::get_context))
        .route("/compute/sessions/{session}/jobs/{job}/log/content", get(jobs::session_log))
        .route("/jobExecution", get(root))
        .route("/jobExecution/", get(root))
        .route("/jobExecution/jobs", get(jobs::list).post(jobs::submit))
        .route("/jobExecution/jobs/{id}", get(jobs::get).delete(jobs::delete))
        .route("/jobExecution/jobs/{id}/state", get(jobs::state).put(jobs::set_state))
        .route("/files/files/{id}/content", get(jobs::file_content))
        .route("/workloadOrchestrator/jobs", get(orchestrator::list))
        .layer(middleware::from_fn_with_state(server.clone(), around))
        .with_state(server)
}

async fn token(State(server): State<Arc<Server>>, headers: HeaderMap, Form(request): Form<TokenRequest>) -> Reply {
    server.tokens.lock().unwrap_or_else(PoisonError::into_inner).answer(&headers, &request)
}

async fn root() -> Reply {
    let links = json!([
        link("GET", "jobs", "/jobExecution/jobs", "application/vnd.sas.collection"),
        link("POST", "createJob", "/jobExecution/jobs", "application/vnd.sas.job.execution.job"),
    ]);
    reply::body(StatusCode::OK, "application/vnd.sas.api+json", &json!({"version": 1, "links": links}))
}

/// Goes around every request: faults, authentication, errors in SAS's own form, the speed header.
async fn around(State(server): State<Arc<Server>>, request: Request, next: Next) -> Reply {
    let path = request.uri().path();
    let refusal = server.fault(path).or_else(|| {
        let open = path.starts_with("/SASLogon/");
        if open {
            None
        } else {
            server.tokens.lock().unwrap_or_else(PoisonError::into_inner).refusal(request.headers())
        }
    });
    let reply = match refusal {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let mut reply = as_sas_error(reply).await;
    if let Ok(speed) = HeaderValue::from_str(&server.clock.speed.to_string()) {
        reply.headers_mut().insert(SPEED_HEADER, speed);
    }
    reply
}

/// The framework's own refusals (no such route, method or parameter) are plain text: SAS's are `vnd.sas.error`.
async fn as_sas_error(reply: Reply) -> Reply {
    let json = reply.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"json"));
    if json || !(reply.status().is_client_error() || reply.status().is_server_error()) {
        return reply;
    }
    let status = reply.status();
    let (parts, content) = reply.into_parts();
    let reason = read(content).await;
    let mut error = reply::error(
        status,
        status.canonical_reason().unwrap_or("Error"),
        Some(&reason).filter(|text| !text.is_empty()).map(String::as_str),
    );
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        error.headers_mut().insert(header::ALLOW, allow.clone());
    }
    error
}

async fn read(content: Body) -> String {
    match body::to_bytes(content, 64 * 1024).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}
