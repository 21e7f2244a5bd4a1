//! A job as the Job Execution Service knows it.

use serde_json::{Map, Value, json};

use super::contexts::Context;
use super::filter::Filter;
use super::model::{HostModel, ModelJob, Phase};
use super::reply::link;
use super::virtual_clock::VirtualClock;
use super::workload::JobDefinition;

/// Seconds from the orchestrator's end to the Job Execution Service's: recorded 0.1 to 2.9, median 0.6.
pub const MEDIAN_END_LAG: f64 = 0.6;
/// A fixed sequence with that median, so that the same jobs end the same way each time.
pub const END_LAGS: [f64; 9] = [0.6, 0.3, 0.9, 0.2, 0.7, 0.5, 2.4, 0.4, 1.1];

/// All jobs, and the host model that they run in.
#[derive(Debug)]
pub struct Jobs {
    pub model: HostModel,
    pub clock: VirtualClock,
    /// In order of submission: the orchestrator remembers jobs that were deleted from the Job Execution Service.
    pub all: Vec<Job>,
}

impl Jobs {
    /// The job of this id, unless it was deleted.
    pub fn find(&self, id: &str) -> Option<&Job> {
        self.all.iter().find(|job| job.id == id && !job.deleted)
    }

    /// Cancels the job of this id. A job that has ended stays as it is.
    pub fn cancel(&mut self, id: &str) -> Option<&mut Job> {
        let job = self.all.iter_mut().find(|job| job.id == id && !job.deleted)?;
        self.model.cancel(self.model.now, job.number);
        Some(job)
    }
}

/// A job as the Job Execution Service knows it.
#[derive(Debug)]
pub struct Job {
    pub id: String,
    pub name: String,
    pub definition: JobDefinition,
    pub context: &'static Context,
    /// Its number in the host model.
    pub number: usize,
    /// Ends the orchestrator's name of the job; cannot be guessed from anything else.
    pub pod: String,
    pub fails: bool,
    pub deleted: bool,
    pub created: f64,
    pub end_lag: f64,
    pub request: Value,
    pub session: String,
    pub compute_job: String,
    pub log: String,
    pub text_log: String,
    pub submitter: String,
}

impl Job {
    /// State, and the moment of the end if it has come. A new job is `running` at once, also while the orchestrator
    /// has it pending: SAS's own behaviour, so that only the orchestrator can tell queueing.
    pub fn state(&self, jobs: &Jobs) -> (&'static str, Option<f64>) {
        let (model, now) = (self.model(jobs), jobs.model.now);
        match (model.phase, model.ended) {
            (Phase::Canceled, Some(at)) => ("canceled", Some(at)),
            (Phase::Ended, Some(at)) if at + self.end_lag <= now => {
                (if self.fails { "failed" } else { "completed" }, Some(at + self.end_lag))
            }
            _ => ("running", None),
        }
    }

    pub fn json(&self, jobs: &Jobs) -> Value {
        let (clock, now) = (&jobs.clock, jobs.model.now);
        let uri = format!("/jobExecution/jobs/{}", self.id);
        let (state, ended) = self.state(jobs);
        let created_ms = clock.millis(self.created);
        let mut request = self.request.clone();
        request["jobDefinition"] = self.definition.json(true);
        let log = match ended {
            Some(_) => format!("/files/files/{}", self.log),
            None => format!("/compute/sessions/{}/jobs/{}/log", self.session, self.compute_job),
        };
        let mut job = json!({
            "creationTimeStamp": clock.stamp_ms(self.created), "modifiedTimeStamp": clock.stamp_ms(ended.unwrap_or(self.created)),
            "createdBy": "sandbox", "modifiedBy": "sandbox", "version": 4, "id": self.id, "jobRequest": request, "state": state,
            "heartbeatTimeStamp": clock.stamp_ms(ended.unwrap_or(now)), "heartbeatInterval": 600,
            "submittedByApplication": self.submitter, "logLocation": log,
        });
        // While it runs: so far. At the end: end minus creation to the millisecond, queue and pod start included.
        let end_ms = ended.map_or_else(|| clock.millis(now), |at| clock.millis(at));
        job["elapsedTime"] = json!(end_ms - created_ms);
        if let Some(at) = ended {
            job["endTimeStamp"] = json!(clock.stamp_ms(at));
            job["results"] = self.results(jobs);
        }
        if state == "failed" {
            job["error"] = json!({
                "version": 2, "httpStatusCode": 400, "errorCode": 5113, "message": "The job failed.", "details": [],
                "errors": [{"version": 2, "httpStatusCode": 400, "errorCode": 5113, "message": "The SAS program ended with errors.", "details": [], "errors": [], "links": []}],
                "links": [],
            });
        }
        job["links"] = json!([
            link("GET", "self", &uri, "application/vnd.sas.job.execution.job"),
            link("GET", "state", &format!("{uri}/state"), "text/plain"),
            link("DELETE", "delete", &uri, ""),
            link("PUT", "updateState", &format!("{uri}/state"), "text/plain"),
            link(
                "GET",
                "jobDefinition",
                &format!("/jobDefinitions/definitions/{}", self.definition.id),
                "application/vnd.sas.job.definition"
            ),
            link("GET", "log", &log, "application/vnd.sas.compute.log.line"),
        ]);
        job
    }

    /// A member for filters, without describing the whole job for the usual ones.
    pub fn member(&self, path: &str, jobs: &Jobs) -> Option<Value> {
        match path {
            "id" => Some(self.id.clone().into()),
            "state" => Some(self.state(jobs).0.into()),
            "jobRequest.name" | "name" => Some(self.name.clone().into()),
            "creationTimeStamp" => Some(jobs.clock.stamp_ms(self.created).into()),
            _ => Filter::member(&self.json(jobs), path),
        }
    }

    fn model<'a>(&self, jobs: &'a Jobs) -> &'a ModelJob {
        jobs.model.job(self.number)
    }

    fn results(&self, jobs: &Jobs) -> Value {
        let mut results = Map::new();
        results.insert("COMPUTE_CONTEXT".into(), json!(self.context.name));
        results.insert("COMPUTE_JOB".into(), json!(self.compute_job));
        if self.model(jobs).running.is_some() {
            results.insert(format!("{}.log.txt", self.compute_job), json!(format!("/files/files/{}", self.text_log)));
        }
        results.insert("COMPUTE_SESSION".into(), json!(format!("{}-ses0000 ended.", self.session)));
        results.into()
    }

    /// The SAS log so far: (type, line).
    pub fn log_lines(&self, jobs: &Jobs) -> Vec<(&'static str, String)> {
        let (model, definition) = (self.model(jobs), &self.definition);
        let mut lines = Vec::new();
        if let Some(running) = model.running {
            lines.push(("note", format!("NOTE: SAS sandbox session {}.", self.session)));
            lines.push(("source", format!("1    %put NOTE: {} in the sandbox;", definition.name)));
            lines.push(("note", format!("NOTE: {} in the sandbox", definition.name)));
            if let Some(ended) = model.ended.filter(|_| model.phase == Phase::Ended) {
                if self.fails {
                    lines.push(("error", "ERROR: The sandbox was asked to fail this job.".into()));
                }
                lines.push(("note", "NOTE: The SAS System used:".into()));
                lines.push(("note", format!("      real time           {:.2} seconds", ended - running)));
                lines.push((
                    "note",
                    format!("      cpu time            {:.2} seconds", model.cpu * definition.cpu_share),
                ));
            }
        }
        lines
    }
}
