//! Error answers of Resource Manager.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

pub(super) fn refused(status: StatusCode, code: &str, text: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": text}}))).into_response()
}

pub(super) fn no_resource(path: &str) -> Response {
    refused(StatusCode::NOT_FOUND, "ResourceNotFound", &format!("The Resource '{path}' was not found."))
}
