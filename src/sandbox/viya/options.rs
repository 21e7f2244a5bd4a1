//! What the simulated SAS Viya is like.

use std::time::Duration;

use super::parameters::HostParameters;
use super::workload::JobDefinition;

/// What the simulated SAS Viya is like.
#[derive(Debug, Clone)]
pub struct ViyaOptions {
    /// Virtual seconds per real second: above 0 and at most 1,000,000.
    pub speed: f64,
    /// How long an access token is valid, in real time (SAS's default is 1 hour).
    pub token_lifetime: Duration,
    /// How long a refresh token is valid, in real time (SAS's default is 90 days).
    pub refresh_lifetime: Duration,
    /// The jobs it knows; `None`: the 54 examples.
    pub definitions: Option<Vec<JobDefinition>>,
    /// Names of definitions whose jobs end as `failed`.
    pub fail_jobs: Vec<String>,
    /// Requests that fail.
    pub faults: Vec<Fault>,
    /// The host model's parameters.
    pub hosts: HostParameters,
    /// How it behaves where real servers differ, and how unreliable it is.
    pub behaviour: Behaviour,
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

/// An error that replaces the real answer, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Only requests whose path begins with this count; empty: all.
    pub path: String,
    /// Which of them fails, from 1.
    pub nth: u64,
    /// The HTTP status, such as 429 or 503.
    pub status: u16,
    /// Seconds in the `Retry-After` header, if any.
    pub retry_after: Option<u64>,
}

/// How the Workload Orchestrator answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orchestrator {
    /// It lists jobs.
    #[default]
    Normal,
    /// It does not exist.
    Missing,
    /// The user may not list jobs.
    Forbidden,
}

/// How the server behaves where real servers differ, and how unreliable it is.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Whether it delays the state of a job until the job ends, when the client asks for that.
    pub long_poll: bool,
    /// Whether listings of jobs take filters.
    pub list_filters: bool,
    /// The orchestrator.
    pub orchestrator: Orchestrator,
    /// Whether the orchestrator passes the names of jobs on; older releases do not.
    pub orchestrator_names: bool,
    /// Virtual seconds until the orchestrator lists a job.
    pub orchestrator_delay: f64,
    /// The share of requests that it answers with 429 or 503. Some of the latter take effect.
    pub fault_rate: f64,
    /// The share of requests whose connection it closes, before or after they take effect.
    pub reset_rate: f64,
    /// The seed that selects these requests.
    pub seed: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            long_poll: true,
            list_filters: true,
            orchestrator: Orchestrator::Normal,
            orchestrator_names: true,
            orchestrator_delay: 0.0,
            fault_rate: 0.0,
            reset_rate: 0.0,
            seed: 1,
        }
    }
}
