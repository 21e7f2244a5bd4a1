//! The HTTP server: routes, the state behind them, and what every request goes through.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Form, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::routing::{get, post, put};
use axum::{Router, body};
use chrono::{DateTime, SecondsFormat, Utc};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::definitions;
use super::jobs::{self, Jobs};
use super::orchestrator;
use super::reply::{self, Reply, link};
use super::tokens::{Authorization, TokenRequest, Tokens, USER};
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

/// What the Workload Orchestrator does when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orchestrator {
    /// It lists jobs.
    #[default]
    Normal,
    /// There is none.
    Missing,
    /// The user may not list jobs.
    Forbidden,
}

/// How the stand-in behaves where real servers differ, and on a bad day.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Whether the state of a job is waited for when asked to.
    pub long_poll: bool,
    /// Whether listings of jobs take filters.
    pub list_filters: bool,
    /// The orchestrator.
    pub orchestrator: Orchestrator,
    /// Whether the orchestrator passes the names of jobs on; older releases do not.
    pub orchestrator_names: bool,
    /// Virtual seconds until the orchestrator lists a job.
    pub orchestrator_delay: f64,
    /// The share of requests that are answered with 429 or 503, some of the latter after they took effect.
    pub fault_rate: f64,
    /// The share of requests whose connection breaks off, before or after they took effect.
    pub reset_rate: f64,
    /// Which requests these are.
    pub seed: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            long_poll: true,
            list_filters: true,
            orchestrator: Orchestrator::Normal,
            orchestrator_names: true,
            orchestrator_delay: 0.0,
            fault_rate: 0.0,
            reset_rate: 0.0,
            seed: 1,
        }
    }
}

/// What happens to a request on a bad day.
enum BadLuck {
    Refused(Reply),
    /// It takes effect, and the answer says that it did not.
    Misreported(Reply),
    BrokenBefore,
    BrokenAfter,
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

    /// Virtual seconds per real second.
    pub fn speed(&self) -> f64 {
        self.speed
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
    pub behaviour: Behaviour,
    pub tokens: Mutex<Tokens>,
    jobs: Mutex<Jobs>,
    faults: Mutex<Vec<(Fault, u64)>>,
    luck: Mutex<StdRng>,
    requests: Mutex<BTreeMap<String, u64>>,
}

impl Server {
    pub fn new(
        clock: Clock,
        definitions: Vec<JobDefinition>,
        fail_jobs: Vec<String>,
        behaviour: Behaviour,
        tokens: Tokens,
        jobs: Jobs,
        faults: Vec<Fault>,
    ) -> Self {
        let faults = faults.into_iter().map(|fault| (fault, 0)).collect();
        Self {
            clock,
            definitions,
            fail_jobs,
            luck: Mutex::new(StdRng::seed_from_u64(behaviour.seed)),
            requests: Mutex::default(),
            behaviour,
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

    /// How many requests came to each route, such as `GET /jobExecution/jobs/{id}/state`.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, request: &Request) {
        let shown = |part: &str| if uuid::Uuid::try_parse(part).is_ok() { "{id}".to_owned() } else { part.to_owned() };
        let path: Vec<String> = request.uri().path().split('/').map(shown).collect();
        let route = format!("{} {}", request.method(), path.join("/"));
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(route).or_insert(0) += 1;
    }

    fn bad_luck(&self) -> Option<BadLuck> {
        let Behaviour { fault_rate, reset_rate, .. } = self.behaviour;
        if fault_rate + reset_rate <= 0.0 {
            return None;
        }
        let (at, kind) = {
            let mut luck = self.luck.lock().unwrap_or_else(PoisonError::into_inner);
            (luck.random_range(0.0..1.0), luck.random_range(0..4))
        };
        let answer = |status, wait: Option<u64>| {
            let mut reply = reply::error(status, "The sandbox has a bad day.", None);
            if let Some(seconds) = wait {
                reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            reply
        };
        if at < fault_rate {
            return Some(match kind {
                0 => BadLuck::Refused(answer(StatusCode::TOO_MANY_REQUESTS, Some(1))),
                1 => BadLuck::Refused(answer(StatusCode::TOO_MANY_REQUESTS, None)),
                2 => BadLuck::Refused(answer(StatusCode::SERVICE_UNAVAILABLE, Some(1))),
                _ => BadLuck::Misreported(answer(StatusCode::SERVICE_UNAVAILABLE, None)),
            });
        }
        (at < fault_rate + reset_rate).then_some(if kind < 2 { BadLuck::BrokenBefore } else { BadLuck::BrokenAfter })
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
        .route("/SASLogon/oauth/authorize", get(authorize))
        .route("/SASLogon/oauth/token", post(token))
        .route("/identities/users/@currentUser", get(current_user))
        .route("/jobDefinitions/definitions", get(definitions::list_definitions))
        .route("/jobDefinitions/definitions/{id}", get(definitions::get_definition))
        .route("/compute/contexts", get(definitions::list_contexts))
        .route("/compute/contexts/{id}", get(definitions::get_context))
        .route("/compute/sessions/{session}/jobs/{job}/log/content", get(jobs::session_log))
        .route("/jobExecution", get(root))
        .route("/jobExecution/", get(root))
        .route("/jobExecution/jobs", get(jobs::list).post(jobs::submit))
        .route("/jobExecution/jobs/{id}", get(jobs::get).delete(jobs::delete))
        .route("/jobExecution/jobs/@selection/state", put(jobs::set_states))
        .route("/jobExecution/jobs/{id}/state", get(jobs::state).put(jobs::set_state))
        .route("/files/files/{id}/content", get(jobs::file_content))
        .route("/workloadOrchestrator/jobs", get(orchestrator::list))
        .layer(middleware::from_fn_with_state(server.clone(), around))
        .with_state(server)
}

async fn token(State(server): State<Arc<Server>>, headers: HeaderMap, Form(request): Form<TokenRequest>) -> Reply {
    server.tokens.lock().unwrap_or_else(PoisonError::into_inner).answer(&headers, &request)
}

async fn authorize(State(server): State<Arc<Server>>, Query(request): Query<Authorization>) -> Reply {
    server.tokens.lock().unwrap_or_else(PoisonError::into_inner).authorize(&request)
}

async fn current_user() -> Reply {
    let user = json!({"version": 2, "id": USER.0, "name": "Sandbox User", "title": "", "state": "active", "links": []});
    reply::body(StatusCode::OK, "application/vnd.sas.identity.user+json", &user)
}

async fn root() -> Reply {
    let links = json!([
        link("GET", "jobs", "/jobExecution/jobs", "application/vnd.sas.collection"),
        link("POST", "createJob", "/jobExecution/jobs", "application/vnd.sas.job.execution.job"),
    ]);
    reply::body(StatusCode::OK, "application/vnd.sas.api+json", &json!({"version": 1, "links": links}))
}

/// Breaks off the connection of the request that is being served: unwinding ends the task that serves it, and only that.
/// Nothing is printed, as no panic began.
fn break_off() -> ! {
    std::panic::resume_unwind(Box::new("the sandbox broke off a connection, as it was asked to"))
}

/// Goes around every request: faults, authentication, errors in SAS's own form, the speed header.
async fn around(State(server): State<Arc<Server>>, request: Request, next: Next) -> Reply {
    server.count(&request);
    let path = request.uri().path();
    // SASLogon has good days only: a token that is spent and lost is another matter than a bad day of the job service.
    let luck = if path.starts_with("/SASLogon/") { None } else { server.bad_luck() };
    let mut misreported = None;
    let mut broken = false;
    match luck {
        Some(BadLuck::Refused(reply)) => return reply,
        Some(BadLuck::BrokenBefore) => break_off(),
        Some(BadLuck::Misreported(reply)) => misreported = Some(reply),
        Some(BadLuck::BrokenAfter) => broken = true,
        None => {}
    }
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
    if broken {
        break_off();
    }
    let reply = misreported.unwrap_or(reply);
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
