//! The example jobs: their definitions from `config/job_configs.json`, their work from the recorded run.

use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::link;
use crate::error::{Error, ErrorKind, Result};

/// The 54 example jobs, as the sandbox hands them out.
pub const JOB_CONFIGS: &str = include_str!("../../../config/job_configs.json");

/// The recorded run, 162 jobs; `examples/data/README.md` says where it comes from and explains the columns.
pub const RECORDED_RUN: &str = include_str!("../../../examples/data/viya_recorded_run.csv");

/// When the sandbox's definitions and contexts say they were made.
pub const MADE: &str = "2025-09-09T23:35:28.729Z";

/// A job that the sandbox can run.
#[derive(Debug, Clone, PartialEq)]
pub struct JobDefinition {
    /// Its id in `/jobDefinitions/definitions/{id}`.
    pub id: String,
    /// Its name, such as `cm_pooled`.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Seconds its program runs alone on a fixed host.
    pub work: f64,
    /// CPU seconds per second of that, between 0 and 1.
    pub cpu_share: f64,
    /// Megabytes read and written.
    pub io_mb: f64,
}

impl JobDefinition {
    /// The definition as jobs and listings show it; items of listings come without the code.
    pub fn json(&self, with_code: bool) -> Value {
        let uri = format!("/jobDefinitions/definitions/{}", self.id);
        let mut value = json!({
            "version": 2, "id": self.id, "name": self.name, "description": self.description, "type": "Compute",
            "parameters": [], "properties": [], "createdBy": "sandbox", "modifiedBy": "sandbox", "creationTimeStamp": MADE,
            "modifiedTimeStamp": MADE, "links": [link("GET", "self", &uri, "application/vnd.sas.job.definition")],
        });
        if with_code {
            value["code"] = json!(format!("%put NOTE: {} in the sandbox;", self.name));
        }
        value
    }
}

/// One job of the recorded run: the columns that the sandbox uses. Seconds are since the first submission.
#[derive(Debug, Clone, Deserialize)]
pub struct RecordedJob {
    /// `sequential`, `async_regular` or `async_autoscaling`.
    pub arm: String,
    /// Name of its job definition.
    pub job: String,
    /// Workload Orchestrator queue.
    pub queue: String,
    /// Host it ran on.
    pub host: String,
    /// Creation, by the Job Execution Service.
    pub jes_created_s: f64,
    /// End, by the Job Execution Service.
    pub jes_end_s: f64,
    /// Orchestrator phase, whole seconds.
    pub pending_s: f64,
    /// Orchestrator phase, whole seconds.
    pub starting_s: f64,
    /// Orchestrator phase, whole seconds.
    pub running_s: f64,
    /// CPU seconds used.
    pub max_cpu_s: f64,
    /// Megabytes read and written.
    pub max_io_total: f64,
}

/// The recorded run, in the order it was recorded.
///
/// # Errors
/// [`ErrorKind::Internal`] when the embedded file is damaged; a retry does not help.
pub fn recorded_run() -> Result<Vec<RecordedJob>> {
    csv::Reader::from_reader(RECORDED_RUN.as_bytes()).deserialize().collect::<Result<_, _>>().map_err(damaged)
}

/// The definitions of the example jobs. A job's work is what the sequential arm of the recorded run took, nothing else.
///
/// # Errors
/// [`ErrorKind::Internal`] when an embedded file is damaged; a retry does not help.
pub fn example_definitions() -> Result<Vec<JobDefinition>> {
    #[derive(Deserialize)]
    struct Configs {
        jobs: Vec<Config>,
    }
    #[derive(Deserialize)]
    struct Config {
        definition_id: String,
        name: String,
        description: String,
    }
    let configs: Configs = serde_json::from_str(JOB_CONFIGS).map_err(damaged)?;
    let recorded = recorded_run()?;
    let definition = |config: Config| {
        let job = recorded.iter().find(|job| job.arm == "sequential" && job.job == config.name)?;
        Some(JobDefinition {
            id: config.definition_id,
            name: config.name,
            description: config.description,
            work: job.running_s,
            cpu_share: job.max_cpu_s / job.running_s,
            io_mb: job.max_io_total,
        })
    };
    Ok(configs.jobs.into_iter().filter_map(definition).collect())
}

fn damaged(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Internal, "the example data built into jobrota cannot be read; build it again")
        .with_source(cause)
}
