//! The web services: the calls of AEWS that report a status and read it back.
//!
//! Paths, bodies and 201 are those that clients of live installations use; error bodies and the fields of
//! `job-run-info` are not published, so that clients must not depend on them.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::spool::{Spool, valid_name};
use crate::autosys::event::CHANGE_STATUS_VALUES;
use crate::http::Secret;
use crate::runtime::blocking;

/// The routes below `/AEWS`, behind Basic authentication.
pub(super) fn router(spool: Spool, user: &str, password: &Secret) -> Router {
    let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.expose()));
    let expected = format!("Basic {token}");
    let routes = Router::new()
        .route("/event/change-status-job", post(|State(spool), body| take(spool, "CHANGE_STATUS", body)))
        .route("/event/start-job", post(|State(spool), body| take(spool, "STARTJOB", body)))
        .route("/event/force-start-job", post(|State(spool), body| take(spool, "FORCE_STARTJOB", body)))
        .route("/job-run-info/{name}", get(run_info))
        .route("/job/{name}", get(job))
        .with_state(spool);
    Router::new().nest("/AEWS", routes).layer(middleware::from_fn(move |request: Request, next: Next| {
        let value = request.headers().get(header::AUTHORIZATION);
        let allowed = value.is_some_and(|value| value.as_bytes() == expected.as_bytes());
        async move {
            if allowed {
                return next.run(request).await;
            }
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"AEWS\"")];
            (challenge, refusal(StatusCode::UNAUTHORIZED, "Authentication failed.")).into_response()
        }
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventBody {
    job_name: String,
    job_status: Option<String>,
    comment: Option<String>,
}

type Body = Result<Json<EventBody>, JsonRejection>;

async fn take(spool: Spool, event: &'static str, body: Body) -> Response {
    let body = match body {
        Ok(Json(body)) => body,
        Err(rejection) => return refusal(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    answer(move || {
        let status = match (event, &body.job_status) {
            ("CHANGE_STATUS", Some(status)) if CHANGE_STATUS_VALUES.contains(&status.as_str()) => status.as_str(),
            ("CHANGE_STATUS", Some(status)) => return Ok(bad(&format!("CAUAJM_E_50032 Invalid status: {status}"))),
            ("CHANGE_STATUS", None) => return Ok(bad("CAUAJM_E_50031 CHANGE_STATUS needs a jobStatus.")),
            (_, Some(_)) => return Ok(bad("CAUAJM_E_50033 jobStatus is only for change-status-job.")),
            (_, None) => "RUNNING",
        };
        let comment = body.comment.as_deref();
        if comment.is_some_and(|text| text.chars().count() > 255) {
            return Ok(bad("CAUAJM_E_50034 The comment is longer than 255 characters."));
        }
        let job = body.job_name.as_str();
        if let Some(refused) = unavailable(&spool, job) {
            return Ok(refused);
        }
        if spool.refuses(job) {
            let text = format!("CAUAJM_E_10029 The event server did not take the event for job {job}. Send it again.");
            return Ok((StatusCode::SERVICE_UNAVAILABLE, json!({ "error": text })));
        }
        spool.append("web", event, job, status, comment)?;
        Ok((StatusCode::CREATED, json!({ "jobName": job, "event": event })))
    })
    .await
}

async fn run_info(spool: State<Spool>, job: Path<String>) -> Response {
    about(spool, job, |job, status, at| json!({ "name": job, "status": status, "lastEvent": at })).await
}

async fn job(spool: State<Spool>, job: Path<String>) -> Response {
    about(spool, job, |job, status, _| json!({ "name": job, "jobType": "CMD", "status": status })).await
}

/// Answers with what `describe` makes of a job's name, its status, and when it got it.
async fn about(
    State(spool): State<Spool>,
    Path(job): Path<String>,
    describe: fn(&str, String, Option<DateTime<Utc>>) -> Value,
) -> Response {
    answer(move || {
        if let Some(refused) = unavailable(&spool, &job) {
            return Ok(refused);
        }
        let (status, at) = spool.status(&job)?;
        Ok((StatusCode::OK, describe(&job, status, at)))
    })
    .await
}

/// Runs file work beside the runtime's own threads.
async fn answer(work: impl FnOnce() -> crate::Result<(StatusCode, Value)> + Send + 'static) -> Response {
    match blocking(work).await {
        Ok((status, body)) => (status, Json(body)).into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.full_message()),
    }
}

fn unavailable(spool: &Spool, job: &str) -> Option<(StatusCode, Value)> {
    if !spool.is_up() {
        let text = "CAUAJM_E_10527 The event server is not available.";
        return Some((StatusCode::SERVICE_UNAVAILABLE, json!({ "error": text })));
    }
    let status = if valid_name(job) { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
    let refused = || (status, json!({ "error": format!("CAUAJM_E_50029 Invalid job name: {job}") }));
    (!spool.knows(job)).then(refused)
}

fn bad(text: &str) -> (StatusCode, Value) {
    (StatusCode::BAD_REQUEST, json!({ "error": text }))
}

fn refusal(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}
