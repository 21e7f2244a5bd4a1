//! Compute contexts: found by their exact name, or an error that lists what there is. Never a default one.

use serde_json::{Map, Value};

use super::client::{COLLECTION, Call, Pages, ViyaClient, quoted};
use crate::error::{Error, ErrorKind, Result};

const CONTEXT: &str = "application/vnd.sas.compute.context+json";

/// A compute context as far as the user may read it.
#[derive(Debug, Clone)]
pub struct Context {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The Workload Orchestrator queue that its servers run in; `None` when the context names none or may not be read.
    pub queue: Option<String>,
    /// Its attributes as the server gave them.
    pub attributes: Value,
    /// What else may make two contexts differ, as the server gave it: its launch context, launch type, environment (options,
    /// lines of autoexec) and resources. Null where the user may read no more than a summary.
    pub details: Value,
}

/// The keys of a context that its details have.
const DETAILS: [&str; 4] = ["launchContext", "launchType", "environment", "resources"];

/// The context of exactly this name.
///
/// # Errors
/// [`ErrorKind::NotFound`] naming the contexts that exist; those of any call to the server.
pub async fn find(client: &ViyaClient, name: &str) -> Result<Context> {
    let narrow = list().query("filter", format!("eq(name,{})", quoted(name)));
    match search(client, narrow, name).await {
        Ok((Some(item), _)) => return complete(client, item).await,
        // Not there, or the server does not take the filter.
        Ok((None, _)) => {}
        Err(e) if !e.is_retryable() && matches!(e.kind(), ErrorKind::Server | ErrorKind::NotFound) => {}
        Err(e) => return Err(e),
    }
    // Listed without the filter too: to name what exists, and because a server may read a filter differently.
    let (item, mut names) = search(client, list(), name).await?;
    match item {
        Some(item) => complete(client, item).await,
        None => {
            names.sort_unstable();
            let there = if names.is_empty() {
                "this user sees none at all".to_owned()
            } else {
                format!("there are: {}", names.join(", "))
            };
            Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "{} has no compute context named {name:?}; {there}. No job was submitted",
                    client.base_url().as_str().trim_end_matches('/')
                ),
            ))
        }
    }
}

/// All contexts that the user sees, with their details where these may be read, by name.
///
/// # Errors
/// Those of any call to the server.
pub async fn all(client: &ViyaClient) -> Result<Vec<Context>> {
    let mut found = Vec::new();
    let mut pages = Pages::new(client, list());
    while let Some(items) = pages.next().await? {
        for item in items {
            found.push(complete(client, item).await?);
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn list<'a>() -> Call<'a> {
    let call = Call::get("/compute/contexts", COLLECTION).query("limit", "100");
    Call { accept_item: Some(CONTEXT), ..call }
}

async fn search(client: &ViyaClient, call: Call<'_>, name: &str) -> Result<(Option<Value>, Vec<String>)> {
    let mut names = Vec::new();
    let mut pages = Pages::new(client, call);
    while let Some(items) = pages.next().await? {
        for item in items {
            match item.get("name").and_then(Value::as_str) {
                Some(found) if found == name => return Ok((Some(item), names)),
                Some(found) => names.push(found.to_owned()),
                None => {}
            }
        }
    }
    Ok((None, names))
}

async fn complete(client: &ViyaClient, mut item: Value) -> Result<Context> {
    let text = |item: &Value, key: &str| {
        item.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let id = text(&item, "id").unwrap_or_default();
    if item.get("launchContext").is_none() && item.get("queueName").is_none() && !id.is_empty() {
        // A summary only. Plain users may not be allowed to read more, and the queue is then simply not known.
        let path = format!("/compute/contexts/{id}");
        match client.send_json(&Call::get(&path, CONTEXT)).await {
            Ok(full) => item = full,
            Err(e) if matches!(e.kind(), ErrorKind::Forbidden | ErrorKind::NotFound) => {
                tracing::debug!("the details of compute context {id} may not be read: {e}");
            }
            Err(e) => return Err(e),
        }
    }
    let attributes = item.get("attributes").cloned().unwrap_or(Value::Null);
    let details: Map<String, Value> =
        DETAILS.iter().filter_map(|key| Some(((*key).to_owned(), item.get(*key)?.clone()))).collect();
    let details = if details.is_empty() { Value::Null } else { details.into() };
    let (name, queue) = (text(&item, "name").unwrap_or_default(), text(&item, "queueName"));
    Ok(Context { id, name, queue, attributes, details })
}
