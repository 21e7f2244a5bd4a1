//! A local SAS Viya over real HTTP: SASLogon, job definitions, compute contexts, job execution, workload orchestrator.
//!
//! Time in it is virtual: real time since the start, multiplied by a speed. Its hosts are simulated by [`model`], which
//! is brought up to date when a request comes in; between requests nothing runs.

pub mod calibration;
pub mod definitions;
pub mod filter;
mod jobs;
pub mod model;
mod orchestrator;
pub mod parameters;
mod reply;
mod server;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod workload;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, mpsc};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

pub use calibration::{CalibrationRow, calibration};
pub use parameters::{HostClass, HostParameters};
pub use server::{Behaviour, Fault, Orchestrator, SPEED_HEADER};
pub use workload::JobDefinition;

use crate::error::{Error, ErrorKind, Result};
use server::{Clock, Server};

/// How long dropping waits for the port to be free.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What the stand-in is to be like.
#[derive(Debug, Clone)]
pub struct ViyaOptions {
    /// Virtual seconds per real second; more than 0.
    pub speed: f64,
    /// How long an access token is good, in real time (SAS's default is 1 hour).
    pub token_lifetime: Duration,
    /// How long a refresh token is good, in real time (SAS's default is 90 days).
    pub refresh_lifetime: Duration,
    /// The jobs it knows; `None`: the 54 examples.
    pub definitions: Option<Vec<JobDefinition>>,
    /// Names of definitions whose jobs end as `failed`.
    pub fail_jobs: Vec<String>,
    /// Answers to be replaced by errors.
    pub faults: Vec<Fault>,
    /// The host model's parameters.
    pub hosts: HostParameters,
    /// How it behaves where real servers differ, and on a bad day.
    pub behaviour: Behaviour,
}

/// A job as a test looks at it. Moments are virtual seconds since the start.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSeen {
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

impl Default for ViyaOptions {
    fn default() -> Self {
        Self {
            speed: 1.0,
            token_lifetime: Duration::from_secs(3600),
            refresh_lifetime: Duration::from_secs(90 * 24 * 3600),
            definitions: None,
            fail_jobs: Vec::new(),
            faults: Vec::new(),
            hosts: HostParameters::default(),
            behaviour: Behaviour::default(),
        }
    }
}

/// A running stand-in on a port of 127.0.0.1 that the system chose. It stops when dropped.
#[derive(Debug)]
pub struct ViyaSandbox {
    address: SocketAddr,
    server: Arc<Server>,
    stop: Option<oneshot::Sender<()>>,
    stopped: mpsc::Receiver<()>,
}

impl ViyaSandbox {
    /// Starts it on the process's runtime.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a speed that is not a positive number; [`ErrorKind::Network`], retryable, when no
    /// port of 127.0.0.1 can be had.
    pub fn start(options: ViyaOptions) -> Result<Self> {
        if !(options.speed.is_finite() && options.speed > 0.0) {
            let text = format!("the sandbox's speed must be a number above 0, not {}", options.speed);
            return Err(Error::invalid(text));
        }
        let definitions = match options.definitions {
            Some(definitions) => definitions,
            None => workload::example_definitions()?,
        };
        let server = Arc::new(Server::new(
            Clock::new(options.speed),
            definitions,
            options.fail_jobs,
            options.behaviour,
            tokens::Tokens::new(options.token_lifetime, options.refresh_lifetime),
            jobs::Jobs { model: model::HostModel::new(options.hosts), all: Vec::new() },
            options.faults,
        ));
        let unbound = |e| {
            let text = "no port of 127.0.0.1 could be opened for the sandbox's SAS Viya; see whether this process may listen there";
            Error::new(ErrorKind::Network, text).with_retryable(true).with_source(e)
        };
        let runtime = crate::runtime::handle()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(unbound)?;
        listener.set_nonblocking(true).map_err(unbound)?;
        let address = listener.local_addr().map_err(unbound)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(unbound)?
        };
        let (stop, stopping) = oneshot::channel::<()>();
        let (ended, stopped) = mpsc::sync_channel(1);
        let router = server::router(server.clone());
        runtime.spawn(async move {
            let signal = async move {
                // An error means that the sandbox is gone, which is the signal too.
                let _ = stopping.await;
            };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(signal).await {
                tracing::warn!(%error, "the sandbox's SAS Viya stopped");
            }
            let _ = ended.send(());
        });
        Ok(Self { address, server, stop: Some(stop), stopped })
    }

    /// Its base URL, such as `http://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A token pair in the shape of SASLogon's response, as if the sandbox's user had just logged on.
    pub fn issue_tokens(&self) -> Value {
        self.server.tokens.lock().unwrap_or_else(PoisonError::into_inner).issue(true)
    }

    /// The job definitions it knows.
    pub fn definitions(&self) -> &[JobDefinition] {
        &self.server.definitions
    }

    /// How many requests came to each route.
    pub fn requests(&self) -> std::collections::BTreeMap<String, u64> {
        self.server.requests()
    }

    /// Every job that was ever submitted, in order.
    pub fn jobs(&self) -> Vec<JobSeen> {
        let (jobs, now) = self.server.jobs();
        let seen = |job: &jobs::Job| {
            let (created, state, ended) = job.moments(jobs.model.job(job.number), now);
            JobSeen { id: job.id.clone(), name: job.name.clone(), state, created, ended }
        };
        jobs.all.iter().map(seen).collect()
    }

    /// Virtual seconds since the start.
    pub fn virtual_now(&self) -> f64 {
        self.server.clock.now()
    }
}

impl Drop for ViyaSandbox {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // A thread of the runtime must not block: there the server stops on its own a moment later.
        if tokio::runtime::Handle::try_current().is_err() {
            let _ = self.stopped.recv_timeout(STOP_PATIENCE);
        }
    }
}
