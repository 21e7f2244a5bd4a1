//! The Workload Orchestrator's own account of jobs: queue, host, phases, reservation and measured use.
//!
//! SAS does not document this interface for Viya 4; names and units are those observed in real answers, read leniently.
//! Time stamps have a resolution of one second, `totalTime…` are whole seconds.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::client::{Call, ViyaClient};
use super::jobs::parse_time;
use crate::error::Result;

const PAGE: usize = 500;
const MAX_PAGES: usize = 200;

/// One entry of the orchestrator's job list.
#[derive(Debug, Clone)]
pub struct Entry(Value);

impl Entry {
    /// Wraps an item as the server gave it.
    pub fn new(item: Value) -> Self {
        Self(item)
    }

    /// The item itself.
    pub fn raw(&self) -> &Value {
        &self.0
    }

    /// Its number, which grows; text where a server sends text.
    pub fn id(&self) -> Option<i64> {
        let id = self.0.get("id")?;
        id.as_i64().or_else(|| id.as_str()?.parse().ok())
    }

    /// `request.name`: `<prefix>-<uuid>`.
    pub fn name(&self) -> Option<&str> {
        self.text("/request/name")
    }

    /// `request.queue`.
    pub fn queue(&self) -> Option<&str> {
        self.text("/request/queue")
    }

    /// `request.user`.
    pub fn user(&self) -> Option<&str> {
        self.text("/request/user")
    }

    /// The host it ran on.
    pub fn host(&self) -> Option<&str> {
        self.text("/processingInfo/executionHost")
    }

    /// A non-empty text at a JSON pointer.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.0.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
    }

    /// When it entered the queue.
    pub fn submitted(&self) -> Option<DateTime<Utc>> {
        parse_time(self.text("/processingInfo/submitTime")?)
    }

    /// When it was given to a host; its pod still has to start.
    pub fn started(&self) -> Option<DateTime<Utc>> {
        parse_time(self.text("/processingInfo/startTime")?)
    }

    /// When it ended.
    pub fn ended(&self) -> Option<DateTime<Utc>> {
        parse_time(self.text("/processingInfo/endTime")?)
    }

    /// A number of `processingInfo`, such as `totalTimePending` (seconds).
    pub fn number(&self, key: &str) -> Option<f64> {
        self.0.get("processingInfo")?.get(key)?.as_f64()
    }

    /// What was reserved, not used: `cores`, `memory` (MB).
    pub fn reserved(&self, name: &str) -> Option<f64> {
        self.named("consumedResources", name)
    }

    /// What was measured: `maxCpuTime`, `maxClockTime` (seconds), `maxMemory` (GB), `maxIoTotal` (MB), `maxIoRate`
    /// (bytes/s), `maxPageRate`.
    pub fn measured(&self, name: &str) -> Option<f64> {
        self.named("limitValues", name)
    }

    fn named(&self, list: &str, name: &str) -> Option<f64> {
        let values = self.0.get("processingInfo")?.get(list)?.as_array()?;
        values.iter().find(|value| value.get("name").and_then(Value::as_str) == Some(name))?.get("value")?.as_f64()
    }
}

/// All entries submitted since `oldest`, newest first, one request per 500.
///
/// # Errors
/// Those of any call: [`crate::ErrorKind::NotFound`] where there is no orchestrator, `Authentication` where the user may
/// not list its jobs.
pub async fn list_since(client: &ViyaClient, oldest: DateTime<Utc>) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut seen = HashSet::new();
    let mut next: Option<String> = None;
    let mut start = 0;
    for _ in 0..MAX_PAGES {
        let call = Call::get("/workloadOrchestrator/jobs", "application/json")
            .query("limit", PAGE.to_string())
            .query("start", start.to_string())
            .query("sortBy", "submitTime:descending");
        let page = client.page(&call, next.as_deref()).await?;
        let count = page.items.len();
        let page_entries: Vec<Entry> = page.items.into_iter().map(Entry).collect();
        let stamps: Vec<_> = page_entries.iter().filter_map(Entry::submitted).collect();
        let descending = stamps.first() >= stamps.last();
        let reached = descending && stamps.last().is_some_and(|last| *last < oldest);
        // New jobs push old ones onto the next page, where they come again.
        let before = entries.len();
        entries.extend(page_entries.into_iter().filter(|entry| match entry.id() {
            Some(id) => seen.insert(id),
            None => true,
        }));
        if count == 0 || reached || entries.len() == before {
            break;
        }
        start += count;
        next = page.next;
        // The links of this service are not documented: a full page without one is followed by its offset.
        if next.is_none() && count < PAGE {
            break;
        }
    }
    Ok(entries)
}
