//! `/jobDefinitions/definitions` and `/compute/contexts`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::model::DEFAULT_QUEUE;
use super::reply::{self, Listing, Reply, link};
use super::server::Server;
use super::workload::JobDefinition;

const DEFINITION: &str = "application/vnd.sas.job.definition+json";
const CONTEXT: &str = "application/vnd.sas.compute.context+json";
const COLLECTION: &str = "application/vnd.sas.collection+json";
/// When the sandbox's definitions and contexts say they were made.
const MADE: &str = "2025-09-09T23:35:28.729Z";

/// A compute context: a name, and the queue its servers run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Its id in `/compute/contexts/{id}`.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Workload Orchestrator queue.
    pub queue: &'static str,
    description: &'static str,
}

/// The context that a job without `_contextName` and `_contextId` runs in.
pub const DEFAULT_CONTEXT: &str = "SAS Job Execution compute context";

/// The sandbox's compute contexts.
pub const CONTEXTS: [Context; 3] = [
    Context {
        id: "5d1c3f0a-6b1e-4c57-9d43-1f0c6a2b7e01",
        name: DEFAULT_CONTEXT,
        queue: DEFAULT_QUEUE,
        description: "Fixed hosts, up to 14 jobs each",
    },
    Context {
        id: "5d1c3f0a-6b1e-4c57-9d43-1f0c6a2b7e02",
        name: "Autoscaling POC Context",
        queue: "autoscaling-poc-queue",
        description: "Autoscaling hosts, up to 4 jobs each",
    },
    Context {
        id: "5d1c3f0a-6b1e-4c57-9d43-1f0c6a2b7e03",
        name: "SAS Studio compute context",
        queue: DEFAULT_QUEUE,
        description: "Interactive work on the fixed hosts",
    },
];

pub async fn list_definitions(State(server): State<Arc<Server>>, Query(listing): Query<Listing>) -> Reply {
    let mut items: Vec<Value> =
        server.definitions.iter().map(|definition| definition_json(definition, false)).collect();
    items.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    if reply::descending(&listing, "name", false) {
        items.reverse();
    }
    page("/jobDefinitions/definitions", "definitions", "application/vnd.sas.job.definition", items, &listing)
}

pub async fn get_definition(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Reply {
    match server.definitions.iter().find(|definition| definition.id == id) {
        Some(definition) => reply::body(StatusCode::OK, DEFINITION, &definition_json(definition, true)),
        None => not_found("job definition", &id),
    }
}

pub async fn list_contexts(State(_): State<Arc<Server>>, headers: HeaderMap, Query(listing): Query<Listing>) -> Reply {
    // Default items are summaries; Accept-Item asks for whole ones. Source: SAS's compute service reference.
    let full = headers
        .get("accept-item")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("compute.context"));
    let items: Vec<Value> = CONTEXTS.iter().map(|context| context_json(context, full)).collect();
    let accept =
        if full { "application/vnd.sas.compute.context" } else { "application/vnd.sas.compute.context.summary" };
    page("/compute/contexts", "contexts", accept, items, &listing)
}

pub async fn get_context(Path(id): Path<String>) -> Reply {
    match CONTEXTS.iter().find(|context| context.id == id) {
        Some(context) => reply::body(StatusCode::OK, CONTEXT, &context_json(context, true)),
        None => not_found("compute context", &id),
    }
}

/// A job definition as jobs and listings show it; items of listings come without the code.
pub fn definition_json(definition: &JobDefinition, with_code: bool) -> Value {
    let uri = format!("/jobDefinitions/definitions/{}", definition.id);
    let mut value = json!({
        "version": 2, "id": definition.id, "name": definition.name, "description": definition.description, "type": "Compute",
        "parameters": [], "properties": [], "createdBy": "sandbox", "modifiedBy": "sandbox", "creationTimeStamp": MADE,
        "modifiedTimeStamp": MADE, "links": [link("GET", "self", &uri, "application/vnd.sas.job.definition")],
    });
    if with_code {
        value["code"] = json!(format!("%put NOTE: {} in the sandbox;", definition.name));
    }
    value
}

fn context_json(context: &Context, full: bool) -> Value {
    let uri = format!("/compute/contexts/{}", context.id);
    let links = json!([link("GET", "self", &uri, "application/vnd.sas.compute.context")]);
    if !full {
        return json!({"version": 1, "id": context.id, "name": context.name, "description": context.description, "createdBy": "sandbox", "links": links});
    }
    json!({
        "version": 4, "id": context.id, "name": context.name, "description": context.description,
        "launchContext": {"contextId": context.id, "contextName": "SAS Compute Launcher Context"}, "launchType": "service",
        "attributes": attributes(context), "environment": {"options": [], "autoExecLines": []}, "queueName": context.queue, "createdBy": "sandbox",
        "modifiedBy": "sandbox", "creationTimeStamp": MADE, "modifiedTimeStamp": MADE, "links": links,
    })
}

/// The fixed hosts' context keeps its servers for the next job; the autoscaling one starts a new one for each.
fn attributes(context: &Context) -> Value {
    if context.queue == DEFAULT_QUEUE {
        json!({"runServerAs": "sandbox", "reuseServerProcesses": "true", "serverInactiveTimeout": "600", "sessionInactiveTimeout": 900})
    } else {
        json!({"sessionInactiveTimeout": 900})
    }
}

pub fn page(path: &str, name: &str, accept: &str, items: Vec<Value>, listing: &Listing) -> Reply {
    match reply::filtered(items, listing) {
        Ok(items) => reply::body(StatusCode::OK, COLLECTION, &reply::collection(path, name, accept, listing, items)),
        Err(refusal) => *refusal,
    }
}

pub fn not_found(what: &str, id: &str) -> Reply {
    let reason = format!("The {what} \"{id}\" does not exist.");
    reply::error(StatusCode::NOT_FOUND, &format!("The {what} could not be found."), Some(&reason))
}
