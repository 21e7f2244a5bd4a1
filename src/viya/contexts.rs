//! Compute contexts, found by their exact name. A name that does not exist is an error that lists the contexts, never a
//! default context.

use serde::Serialize;
use serde_json::{Map, Value};

use super::client::{COLLECTION, ViyaClient, ViyaRequest, is_filter_refused, quoted};
use super::json::{is_id, text};
use crate::error::{Error, ErrorKind, Result};

const CONTEXT: &str = "application/vnd.sas.compute.context+json";

/// A compute context, as far as the user may read it.
#[derive(Debug, Clone, Serialize)]
pub struct Context {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The Workload Orchestrator queue that its servers run in; `None` when the context names none or cannot be read.
    pub queue: Option<String>,
    /// Its attributes as the server returned them.
    pub attributes: Value,
    /// What else may differ between contexts: launch context, launch type, environment (options, lines of autoexec) and
    /// resources. Null where the user may only read a summary.
    pub details: Value,
}

/// The fields of a context in its details.
const DETAILS: [&str; 4] = ["launchContext", "launchType", "environment", "resources"];

/// The context with exactly this name.
///
/// # Errors
/// [`ErrorKind::NotFound`] that names the contexts that exist; those of any call to the server.
pub async fn find(client: &ViyaClient, name: &str) -> Result<Context> {
    let is_meant = |item: &Value| text(item, "name") == Some(name);
    let filtered = match client.items(list().query("filter", format!("eq(name,{})", quoted(name)))).await {
        Err(e) if is_filter_refused(&e) => Vec::new(),
        items => items?,
    };
    if let Some(item) = filtered.into_iter().find(is_meant) {
        return complete(client, item).await;
    }
    // The list without the filter names what exists. A server may also interpret a filter differently.
    let items = client.items(list()).await?;
    let mut names: Vec<&str> = items.iter().filter_map(|item| text(item, "name")).collect();
    names.sort_unstable();
    let there = match names.is_empty() {
        true => "this user sees none".to_owned(),
        false => format!("there are: {}", names.join(", ")),
    };
    let Some(item) = items.into_iter().find(is_meant) else {
        let server = client.base_url().as_str().trim_end_matches('/');
        let text = format!("{server} has no compute context named {name:?}; {there}. No job was submitted");
        return Err(Error::new(ErrorKind::NotFound, text));
    };
    complete(client, item).await
}

/// All contexts that the user sees, sorted by name, with their details where these may be read.
///
/// # Errors
/// Those of any call to the server.
pub async fn all(client: &ViyaClient) -> Result<Vec<Context>> {
    let mut found = Vec::new();
    for item in client.items(list()).await? {
        found.push(complete(client, item).await?);
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn list<'a>() -> ViyaRequest<'a> {
    let request = ViyaRequest::get("/compute/contexts", COLLECTION).query("limit", "100");
    ViyaRequest { accept_item: Some(CONTEXT), ..request }
}

async fn complete(client: &ViyaClient, mut item: Value) -> Result<Context> {
    let owned = |item: &Value, key: &str| text(item, key).map(str::to_owned);
    let id = owned(&item, "id").unwrap_or_default();
    if item.get("launchContext").is_none() && item.get("queueName").is_none() && is_id(&id) {
        // This is a summary. Some users may not read more, and then the queue is unknown.
        let path = format!("/compute/contexts/{id}");
        match client.send_json(&ViyaRequest::get(&path, CONTEXT)).await {
            Ok(full) => item = full,
            Err(e) if matches!(e.kind(), ErrorKind::Forbidden | ErrorKind::NotFound) => {
                tracing::debug!("the details of compute context {id} cannot be read: {e}");
            }
            Err(e) => return Err(e),
        }
    }
    let attributes = item.get("attributes").cloned().unwrap_or(Value::Null);
    let details: Map<String, Value> =
        DETAILS.iter().filter_map(|key| Some(((*key).to_owned(), item.get(*key)?.clone()))).collect();
    let details = if details.is_empty() { Value::Null } else { details.into() };
    let (name, queue) = (owned(&item, "name").unwrap_or_default(), owned(&item, "queueName"));
    Ok(Context { id, name, queue, attributes, details })
}
