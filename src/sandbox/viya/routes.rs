//! The routes, and the steps that every request goes through.

use std::sync::Arc;

use axum::extract::{Form, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::routing::{get, post, put};
use axum::{Router, body};
use serde_json::json;

use super::reply::{self, Reply, link};
use super::server::{Failure, ViyaState};
use super::tokens::{Authorization, TokenRequest, USER};
use super::{definitions, jobs, orchestrator};
use crate::runtime::lock;

/// All routes of the simulated SAS Viya.
pub fn router(server: Arc<ViyaState>) -> Router {
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
        .layer(middleware::from_fn_with_state(server.clone(), process))
        .with_state(server)
}

async fn token(State(server): State<Arc<ViyaState>>, headers: HeaderMap, Form(request): Form<TokenRequest>) -> Reply {
    lock(&server.tokens).answer(&headers, &request)
}

async fn authorize(State(server): State<Arc<ViyaState>>, Query(request): Query<Authorization>) -> Reply {
    lock(&server.tokens).authorize(&request)
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

/// Closes the connection of the request that is being served: unwinding ends the task that serves it, and no other.
/// Nothing is printed, as no panic hook runs.
fn close_connection() -> ! {
    std::panic::resume_unwind(Box::new("the sandbox closed a connection, as it was asked to"))
}

/// Processes a request: failures on demand, authentication, and errors in SAS's own form.
async fn process(State(server): State<Arc<ViyaState>>, request: Request, next: Next) -> Reply {
    server.count(&request);
    let path = request.uri().path();
    // SASLogon does not fail at random: a lost refresh token is a different case than an unreliable job service.
    let logon = path.starts_with("/SASLogon/");
    let failure = match if logon { None } else { server.random_failure() } {
        Some(Failure::Refused(reply)) => return reply,
        Some(Failure::ClosedBefore) => close_connection(),
        failure => failure,
    };
    let refusal =
        server.fault(path).or_else(|| if logon { None } else { lock(&server.tokens).refusal(request.headers()) });
    let reply = match refusal {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let reply = match failure {
        Some(Failure::ClosedAfter) => close_connection(),
        Some(Failure::Misreported(misreported)) => misreported,
        _ => reply,
    };
    as_sas_error(reply).await
}

/// Gives the framework's own refusals (no such route, method or parameter), which are plain text, the form of SAS's errors.
async fn as_sas_error(reply: Reply) -> Reply {
    let json = reply.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"json"));
    if json || !(reply.status().is_client_error() || reply.status().is_server_error()) {
        return reply;
    }
    let status = reply.status();
    let (parts, content) = reply.into_parts();
    let content = body::to_bytes(content, 64 * 1024).await.unwrap_or_default();
    let reason = String::from_utf8_lossy(&content);
    let reason = Some(&*reason).filter(|text| !text.is_empty());
    let mut error = reply::error(status, status.canonical_reason().unwrap_or("Error"), reason);
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        error.headers_mut().insert(header::ALLOW, allow.clone());
    }
    error
}
