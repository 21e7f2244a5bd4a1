//! A local SAS Viya over real HTTP: SASLogon, job definitions, compute contexts, job execution, workload orchestrator.
//!
//! Its time is virtual: real time since the start, multiplied by a speed. [`model`] simulates its hosts. Each request
//! advances the model to the present moment; between requests nothing runs.

mod calibration;
mod contexts;
mod definitions;
mod filter;
mod job;
mod jobs;
pub mod model;
mod options;
mod orchestrator;
mod reply;
mod routes;
mod server;
#[cfg(test)]
mod tests;
mod tokens;
mod virtual_clock;
pub mod workload;

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

pub use calibration::{CalibrationRow, calibration};
pub use options::{Fault, HostClass, HostParameters, Orchestrator, ViyaOptions};
pub use workload::JobDefinition;

use super::local_server::LocalServer;
use crate::error::Result;
use crate::runtime::lock;
use crate::viya::clock::{LocalTimeScale, check_time_scale};
use server::ViyaState;

/// A job that was submitted, for tests. Moments are virtual seconds since the start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubmittedJob {
    /// Its id.
    pub id: String,
    /// The name it was submitted under.
    pub name: String,
    /// Its state.
    pub state: &'static str,
    /// When it was created.
    pub created: f64,
    /// When its end was noticed.
    pub ended: Option<f64>,
}

/// A simulated SAS Viya on a port of 127.0.0.1. It stops when it is dropped.
#[derive(Debug)]
pub struct ViyaSandbox {
    server: Arc<ViyaState>,
    // Dropped before the server, whose port another sandbox may get.
    _time_scale: LocalTimeScale,
    http: LocalServer,
}

impl ViyaSandbox {
    /// Starts it on the process's runtime.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for a speed that is not above 0 and at most 1,000,000;
    /// [`crate::ErrorKind::Network`], retryable, when the system gives no port.
    pub fn start(options: ViyaOptions) -> Result<Self> {
        check_time_scale("speed", options.speed)?;
        let definitions = options.definitions.clone().map_or_else(workload::example_definitions, Ok)?;
        let server = Arc::new(ViyaState::new(definitions, options));
        let http = LocalServer::start("SAS Viya", routes::router(server.clone()))?;
        let time_scale = LocalTimeScale::declare(http.address, server.clock.speed);
        Ok(Self { server, http, _time_scale: time_scale })
    }

    /// Its base URL, such as `http://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        self.http.url()
    }

    /// A token pair in the shape of SASLogon's response, as if the sandbox's user had just logged on.
    pub fn issue_tokens(&self) -> Value {
        lock(&self.server.tokens).issue(None, true)
    }

    /// The job definitions it knows.
    pub fn definitions(&self) -> &[JobDefinition] {
        &self.server.definitions
    }

    /// How many requests came to each route.
    pub fn requests(&self) -> std::collections::BTreeMap<String, u64> {
        lock(&self.server.requests).clone()
    }

    /// Every job that was ever submitted, in order.
    pub fn jobs(&self) -> Vec<SubmittedJob> {
        let jobs = self.server.jobs();
        let describe = |job: &job::Job| {
            let (state, ended) = job.state(&jobs);
            SubmittedJob { id: job.id.clone(), name: job.name.clone(), state, created: job.created, ended }
        };
        jobs.all.iter().map(describe).collect()
    }
}
