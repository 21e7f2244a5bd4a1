//! What the Workload Orchestrator reports about jobs: queue, host, phases, reserved and measured resources.
//!
//! SAS does not document this interface for Viya 4. Names and units are those of observed responses, read leniently.
//! Time stamps have a resolution of one second, `totalTime…` are whole seconds.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::client::{Pages, ViyaClient, ViyaRequest};
use super::json::{oldest_of_newest_first, parse_time, text};
use crate::error::Result;

const PAGE: usize = 500;

/// Texts of an entry that are stored, as JSON pointers.
const TEXTS: [&str; 10] = [
    "/request/name",
    "/request/queue",
    "/request/user",
    "/processingInfo/state",
    "/processingInfo/submitTime",
    "/processingInfo/startTime",
    "/processingInfo/endTime",
    "/processingInfo/executionHost",
    "/processingInfo/executionIP",
    "/processingInfo/pendingCause",
];

/// One entry of the orchestrator's job list: its texts, numbers and measurements. The rest is dropped, because a run has
/// thousands of entries.
#[derive(Debug, Clone)]
pub struct OrchestratorEntry {
    /// Its number, which grows from job to job.
    pub id: Option<i64>,
    texts: Box<[(&'static str, Box<str>)]>,
    numbers: Box<[(Box<str>, f64)]>,
    reserved: Box<[(Box<str>, f64)]>,
    measured: Box<[(Box<str>, f64)]>,
}

impl OrchestratorEntry {
    /// The entry in an item of the list.
    pub fn new(item: &Value) -> Self {
        let id = item.get("id").and_then(|id| id.as_i64().or_else(|| id.as_str()?.parse().ok()));
        let stored_text = |pointer: &&'static str| {
            let text = item.pointer(pointer)?.as_str().filter(|text| !text.is_empty())?;
            Some((*pointer, text.into()))
        };
        let processing = item.get("processingInfo");
        let numbers = processing.and_then(Value::as_object).into_iter().flatten();
        // A number may come as text.
        let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        let named = |list: &str| {
            let values = processing.and_then(|info| info.get(list)?.as_array()).into_iter().flatten();
            values.filter_map(|value| Some((text(value, "name")?.into(), number(value.get("value")?)?))).collect()
        };
        Self {
            id,
            texts: TEXTS.iter().filter_map(stored_text).collect(),
            numbers: numbers.filter_map(|(key, value)| Some((key.as_str().into(), number(value)?))).collect(),
            reserved: named("consumedResources"),
            measured: named("limitValues"),
        }
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

    /// The host that it ran on.
    pub fn host(&self) -> Option<&str> {
        self.text("/processingInfo/executionHost")
    }

    /// The text at one of the stored JSON pointers: name, queue, user, state, the three time stamps, host and its address, and
    /// the reason why it is pending.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.texts.iter().find(|(stored, _)| *stored == pointer).map(|(_, text)| &**text)
    }

    /// When it entered the queue.
    pub fn submitted(&self) -> Option<DateTime<Utc>> {
        parse_time(self.text("/processingInfo/submitTime")?)
    }

    /// When it was assigned to a host. Its pod starts after that.
    pub fn started(&self) -> Option<DateTime<Utc>> {
        parse_time(self.text("/processingInfo/startTime")?)
    }

    /// When it ended.
    pub fn ended(&self) -> Option<DateTime<Utc>> {
        parse_time(self.text("/processingInfo/endTime")?)
    }

    /// A number of `processingInfo`, such as `totalTimePending` (seconds).
    pub fn number(&self, key: &str) -> Option<f64> {
        find(&self.numbers, key)
    }

    /// What was reserved (not used): `cores`, `memory` (MB).
    pub fn reserved(&self, name: &str) -> Option<f64> {
        find(&self.reserved, name)
    }

    /// What was measured: `maxCpuTime`, `maxClockTime` (seconds), `maxMemory` (GB), `maxIoTotal` (MB), `maxIoRate`
    /// (bytes/s), `maxPageRate`.
    pub fn measured(&self, name: &str) -> Option<f64> {
        find(&self.measured, name)
    }
}

fn find(list: &[(Box<str>, f64)], name: &str) -> Option<f64> {
    list.iter().find(|(known, _)| &**known == name).map(|(_, value)| *value)
}

/// All entries submitted since `oldest`, newest first, one request per page of up to 500. Stops after a page for which
/// `enough` is true.
///
/// # Errors
/// Those of any call: [`crate::ErrorKind::NotFound`] where there is no orchestrator, `Forbidden` where the user may
/// not list its jobs.
pub async fn list_since(
    client: &ViyaClient,
    oldest: DateTime<Utc>,
    mut enough: impl FnMut(&[OrchestratorEntry]) -> bool,
) -> Result<Vec<OrchestratorEntry>> {
    let mut entries: Vec<OrchestratorEntry> = Vec::new();
    let mut seen = HashSet::new();
    let request = ViyaRequest::get("/workloadOrchestrator/jobs", "application/json")
        .query("limit", PAGE.to_string())
        .query("sortBy", "submitTime:descending");
    let mut pages = Pages::new(client, request);
    while let Some(items) = pages.next().await? {
        let page: Vec<OrchestratorEntry> = items.iter().map(OrchestratorEntry::new).collect();
        drop(items);
        let reached =
            oldest_of_newest_first(page.iter().map(OrchestratorEntry::submitted)).is_some_and(|last| last < oldest);
        // New jobs push old ones onto the next page, where they are listed again.
        let before = entries.len();
        entries.extend(page.into_iter().filter(|entry| entry.id.is_none_or(|id| seen.insert(id))));
        if reached || entries.len() == before || enough(&entries) {
            break;
        }
    }
    Ok(entries)
}
