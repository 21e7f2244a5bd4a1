//! `/jobDefinitions/definitions` and `/compute/contexts`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::contexts::CONTEXTS;
use super::reply::{self, COLLECTION, ListQuery, Reply, ReplyResult};
use super::server::ViyaState;

const DEFINITION: &str = "application/vnd.sas.job.definition+json";
const CONTEXT: &str = "application/vnd.sas.compute.context+json";

pub async fn list_definitions(State(server): State<Arc<ViyaState>>, Query(listing): Query<ListQuery>) -> ReplyResult {
    let mut items: Vec<Value> = server.definitions.iter().map(|definition| definition.json(false)).collect();
    items.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    if reply::descending(&listing, "name", false) {
        items.reverse();
    }
    let items = reply::filtered(items, &listing).map_err(reply::bad_filter)?;
    Ok(page("/jobDefinitions/definitions", "definitions", "application/vnd.sas.job.definition", &items, &listing))
}

pub async fn get_definition(State(server): State<Arc<ViyaState>>, Path(id): Path<String>) -> Reply {
    let found = server.definitions.iter().find(|definition| definition.id == id);
    reply::one(DEFINITION, "job definition", &id, found.map(|definition| definition.json(true)))
}

pub async fn list_contexts(headers: HeaderMap, Query(listing): Query<ListQuery>) -> ReplyResult {
    // Default items are summaries; Accept-Item asks for whole ones. Source: SAS's compute service reference.
    let full = headers
        .get("accept-item")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("compute.context"));
    let items = CONTEXTS.iter().map(|context| context.json(full)).collect();
    let items = reply::filtered(items, &listing).map_err(reply::bad_filter)?;
    let accept =
        if full { "application/vnd.sas.compute.context" } else { "application/vnd.sas.compute.context.summary" };
    Ok(page("/compute/contexts", "contexts", accept, &items, &listing))
}

pub async fn get_context(Path(id): Path<String>) -> Reply {
    let found = CONTEXTS.iter().find(|context| context.id == id);
    reply::one(CONTEXT, "compute context", &id, found.map(|context| context.json(true)))
}

fn page(path: &str, name: &str, accept: &str, items: &[Value], listing: &ListQuery) -> Reply {
    reply::body(StatusCode::OK, COLLECTION, &reply::page(path, name, accept, listing, items, Value::clone))
}
