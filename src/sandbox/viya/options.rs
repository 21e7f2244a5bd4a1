//! What the simulated SAS Viya is like, with the numbers of its host model, and where each of them comes from.
//!
//! "Recorded" below means the run in `examples/data/viya_recorded_run.csv`. None of these numbers is a job's work: that
//! comes from the sequential arm alone (see [`super::workload`]).

use std::time::Duration;

use super::workload::JobDefinition;

/// What the simulated SAS Viya is like.
#[derive(Debug, Clone)]
pub struct ViyaOptions {
    /// Virtual seconds per real second: above 0 and at most 1,000,000.
    pub speed: f64,
    /// How long an access token is valid, in real time (SAS's default is 1 hour).
    pub token_lifetime: Duration,
    /// The jobs it knows; `None`: the 54 examples.
    pub definitions: Option<Vec<JobDefinition>>,
    /// Names of definitions whose jobs end as `failed`.
    pub fail_jobs: Vec<String>,
    /// Requests that fail.
    pub faults: Vec<Fault>,
    /// The host model's parameters.
    pub hosts: HostParameters,
    /// Whether it delays the state of a job until the job ends, when the client asks for that.
    pub long_poll: bool,
    /// Whether listings of jobs take filters.
    pub list_filters: bool,
    /// The orchestrator.
    pub orchestrator: Orchestrator,
    /// The share of requests that it answers with 429 or 503. Some of the latter take effect.
    pub fault_rate: f64,
    /// The share of requests whose connection it closes, before or after they take effect.
    pub reset_rate: f64,
    /// The seed that selects these requests.
    pub seed: u64,
}

impl Default for ViyaOptions {
    fn default() -> Self {
        Self {
            speed: 1.0,
            token_lifetime: Duration::from_secs(3600),
            definitions: None,
            fail_jobs: Vec::new(),
            faults: Vec::new(),
            hosts: HostParameters::default(),
            long_poll: true,
            list_filters: true,
            orchestrator: Orchestrator::Normal,
            fault_rate: 0.0,
            reset_rate: 0.0,
            seed: 1,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum Orchestrator {
    /// It lists jobs.
    Normal,
    /// It lists jobs, and does not pass their names on, as older releases.
    Unnamed,
    /// It does not exist.
    Missing,
    /// The user may not list jobs.
    Forbidden,
}

/// A kind of compute host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostClass {
    /// Most jobs at a time; the Workload Orchestrator's "maximum jobs allowed" of the host type.
    pub slots: usize,
    /// Cores that jobs share. More jobs than cores slow each other down in proportion.
    pub cores: f64,
    /// Work done per second by a job that is alone on the host; 1 is the host of the recorded sequential arm.
    pub speed: f64,
    /// How much CPU time a job's work grows by, per job beside it (caches, memory and disk shared).
    pub contention: f64,
}

impl HostClass {
    /// Work done per second by each running job, when jobs of the total weight `load` share the host.
    pub fn rate(&self, load: f64) -> f64 {
        let load = load.max(1.0);
        (self.cores / load).min(1.0) / self.inflation(load)
    }

    /// CPU seconds spent per unit of work at that load, 1 for a job alone on the recorded sequential host.
    pub fn inflation(&self, load: f64) -> f64 {
        (1.0 + self.contention * (load.max(1.0) - 1.0)) / self.speed
    }
}

/// All parameters of the host model. Times are virtual seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct HostParameters {
    /// The fixed hosts, which only the default queue uses.
    pub fixed: HostClass,
    /// How many fixed hosts there are; always there and always warm.
    pub fixed_hosts: usize,
    /// The hosts of the autoscaling node pool, which every queue may use. The default queue spills over to them.
    pub pool: HostClass,
    /// Most hosts in the autoscaling pool.
    pub pool_max: usize,
    /// Pool hosts that are there from the beginning, already warm, and never given back.
    pub pool_min: usize,
    /// From the first job that must wait to the new pool host taking jobs.
    pub scale_up_delay: f64,
    /// From one pool host's arrival to the next request for one.
    pub scale_up_cooldown: f64,
    /// Seconds without a job after which a pool host is given back.
    pub scale_down_after: f64,
    /// Pod start on a warm host that runs nothing else; grows with the host's load as work does.
    pub pod_start: f64,
    /// Pod start on a host that has not pulled the image yet; not CPU-bound.
    pub cold_start: f64,
    /// What a starting pod weighs in the host's load, a running job being 1.
    pub starting_weight: f64,
    /// From the Job Execution Service's creation stamp to the orchestrator's submit stamp.
    pub handover: f64,
}

impl Default for HostParameters {
    fn default() -> Self {
        Self {
            // Recorded: 14 at a time on the one old node; running/CPU 4.83, CPU 1.77 times the sequential arm's.
            fixed: HostClass { slots: 14, cores: 3.2, speed: 1.0, contention: 0.062 },
            fixed_hosts: 1,
            // Recorded: 4 at a time per new node; running/CPU 1.4, CPU 1.55 times the sequential arm's.
            pool: HostClass { slots: 4, cores: 3.2, speed: 0.88, contention: 0.12 },
            pool_max: 2,
            pool_min: 0,
            // Recorded: first job waited from 2857 s, the new node's first jobs were dispatched at 3132 s.
            scale_up_delay: 275.0,
            // Recorded: a third node took no job while there were waiting ones until 403 s after the second had come,
            // and was there, still cold, 656 s after. One request at a time with this pause gives 515 s.
            scale_up_cooldown: 240.0,
            // The Kubernetes cluster autoscaler's default (scale-down-unneeded-time); recorded: not within 215 s.
            scale_down_after: 600.0,
            // Recorded: 6.2 s on average in the sequential arm.
            pod_start: 6.2,
            // Recorded: 76 to 98 s for the first jobs of the two new nodes.
            cold_start: 86.0,
            starting_weight: 0.6,
            // Recorded: orchestrator's submit is the creation cut to seconds, in the median 0.17 s before it.
            handover: 0.3,
        }
    }
}
