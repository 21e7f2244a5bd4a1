//! The compute contexts.

use serde_json::{Value, json};

use super::model::DEFAULT_QUEUE;
use super::reply::link;
use super::workload::MADE;

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

impl Context {
    /// The context as listings and answers show it.
    pub fn json(&self, full: bool) -> Value {
        let uri = format!("/compute/contexts/{}", self.id);
        let links = json!([link("GET", "self", &uri, "application/vnd.sas.compute.context")]);
        if !full {
            return json!({"version": 1, "id": self.id, "name": self.name, "description": self.description, "createdBy": "sandbox", "links": links});
        }
        json!({
            "version": 4, "id": self.id, "name": self.name, "description": self.description,
            "launchContext": {"contextId": self.id, "contextName": "SAS Compute Launcher Context"}, "launchType": "service",
            "attributes": self.attributes(), "environment": {"options": [], "autoExecLines": []}, "queueName": self.queue, "createdBy": "sandbox",
            "modifiedBy": "sandbox", "creationTimeStamp": MADE, "modifiedTimeStamp": MADE, "links": links,
        })
    }

    /// The fixed hosts' context keeps its servers for the next job; the autoscaling one starts a new one for each.
    fn attributes(&self) -> Value {
        if self.queue == DEFAULT_QUEUE {
            json!({"runServerAs": "sandbox", "reuseServerProcesses": "true", "serverInactiveTimeout": "600", "sessionInactiveTimeout": 900})
        } else {
            json!({"sessionInactiveTimeout": 900})
        }
    }
}
