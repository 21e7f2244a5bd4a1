//! Runs the arms one after the other, correlates once, and writes what was done, also when the run breaks off.

use std::path::PathBuf;

use super::correlate::{Wanted, correlate};
use super::follow::{Following, Halt};
use super::plan::{self, Arm, Flow, JobConfig, Mode};
use super::progress::{Counter, Progress};
use super::record::ArmRecord;
use super::result::{ComparisonResult, ResultFile, RunFacts};
use crate::error::{Error, ErrorKind, Result};
use crate::stop::Stop;
use crate::viya::contexts;
use crate::viya::jobs::Job;
use crate::viya::{ClientOptions, TokenFile, ViyaClient};
use chrono::Utc;

/// What to compare, and how. Times are seconds of the server.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// The SAS Viya, e.g. `https://viya.example.com`.
    pub base_url: String,
    /// The token file.
    pub tokens: PathBuf,
    /// The job configs.
    pub jobs: PathBuf,
    /// How the asynchronous arm runs.
    pub mode: Mode,
    /// Jobs in a batch.
    pub concurrent: usize,
    /// Compute context of the sequential arm.
    pub sequential_context: String,
    /// Compute context of the asynchronous arm.
    pub async_context: String,
    /// Only the first so many jobs. With 0 there is nothing to run: see [`ViyaComparisonRunner::describe`].
    pub limit_jobs: Option<usize>,
    /// Only the sequential arm.
    pub sequential_only: bool,
    /// Only the asynchronous arm.
    pub async_only: bool,
    /// Folder of the result files.
    pub results_dir: PathBuf,
    /// How long orchestrator entries are waited for once the jobs have ended.
    pub correlation_timeout: f64,
    /// A job that takes longer is canceled and counts as failed.
    pub job_timeout: f64,
    /// Time between two looks at a job while few are in flight; up to ten times that for old jobs among many.
    pub poll_interval: f64,
    /// ISO 8601 duration after which the server deletes the jobs and their files; `None` keeps them for ever.
    pub expires_after: Option<String>,
    /// Limits of the HTTP client, in real seconds.
    pub client: ClientOptions,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            tokens: "data/sas_tokens.json".into(),
            jobs: "config/job_configs.json".into(),
            mode: Mode::Batch,
            concurrent: 5,
            sequential_context: "SAS Job Execution compute context".into(),
            async_context: "Autoscaling POC Context".into(),
            limit_jobs: None,
            sequential_only: false,
            async_only: false,
            results_dir: "results".into(),
            correlation_timeout: 60.0,
            job_timeout: 3600.0,
            poll_interval: 1.0,
            expires_after: Some("P7D".into()),
            client: ClientOptions::default(),
        }
    }
}

/// Compares a sequential and an asynchronous run of the same jobs.
#[derive(Debug)]
pub struct ViyaComparisonRunner {
    options: RunnerOptions,
}

impl ViyaComparisonRunner {
    /// Checks the options; no file is read and nothing is sent yet.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for options that can never work.
    pub fn new(options: RunnerOptions) -> Result<Self> {
        crate::viya::client::parse_base_url(&options.base_url)?;
        if options.sequential_only && options.async_only {
            return Err(Error::invalid(
                "sequential_only and async_only exclude each other: give one of them, or none for both arms",
            ));
        }
        if options.concurrent == 0 {
            return Err(Error::invalid("concurrent is 0: a batch needs one job at least"));
        }
        for (name, value) in [
            ("correlation_timeout", options.correlation_timeout),
            ("job_timeout", options.job_timeout),
            ("poll_interval", options.poll_interval),
        ] {
            if !(value.is_finite() && value >= 0.0) || (value == 0.0 && name != "correlation_timeout") {
                return Err(Error::invalid(format!("{name} is {value}: give a positive number of seconds")));
            }
        }
        for (name, value) in
            [("sequential_context", &options.sequential_context), ("async_context", &options.async_context)]
        {
            if value.trim().is_empty() {
                return Err(Error::invalid(format!("{name} is empty: name a compute context")));
            }
        }
        if options.expires_after.as_ref().is_some_and(|after| !after.starts_with('P')) {
            return Err(Error::invalid("expires_after is no ISO 8601 duration: it begins with P, as in P7D"));
        }
        Ok(Self { options })
    }

    /// The options.
    pub fn options(&self) -> &RunnerOptions {
        &self.options
    }

    /// The arms in the order they run.
    pub fn arms(&self) -> Vec<Arm> {
        let options = &self.options;
        let flow = match options.mode {
            Mode::Batch => Flow::Batch(options.concurrent),
            Mode::All => Flow::All,
        };
        let sequential = Arm {
            name: "sequential".into(),
            short: "seq".into(),
            context: options.sequential_context.clone(),
            flow: Flow::Sequential,
        };
        let parallel =
            Arm { name: "async".into(), short: "async".into(), context: options.async_context.clone(), flow };
        match (options.sequential_only, options.async_only) {
            (true, _) => vec![sequential],
            (_, true) => vec![parallel],
            _ => vec![sequential, parallel],
        }
    }

    /// Version and configuration as text, for `limit_jobs = 0`: reads the job configs, sends nothing, runs nothing.
    ///
    /// # Errors
    /// Those of [`plan::load_jobs`].
    pub fn describe(&self) -> Result<String> {
        let options = &self.options;
        let enabled = plan::load_jobs(&options.jobs, None)?.len();
        let chosen = options.limit_jobs.unwrap_or(enabled).min(enabled);
        let mut text = format!("jobrota {}\n", env!("CARGO_PKG_VERSION"));
        let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<20} {value}\n"));
        line("base_url", options.base_url.clone());
        line("tokens", options.tokens.display().to_string());
        line("jobs", format!("{} ({enabled} enabled, {chosen} to run)", options.jobs.display()));
        for arm in self.arms() {
            let flow = match arm.flow {
                Flow::Sequential => "one job at a time".to_owned(),
                Flow::Batch(size) => format!("batches of {size}"),
                Flow::All => "all at once".to_owned(),
            };
            line(&arm.name, format!("{:?}, {flow}", arm.context));
        }
        line("results_dir", options.results_dir.display().to_string());
        line("job_timeout", format!("{} s", options.job_timeout));
        line("correlation_timeout", format!("{} s", options.correlation_timeout));
        Ok(text)
    }

    /// Runs the comparison and writes its result file.
    ///
    /// A job that fails is a row of the result, not an error. When the run breaks off (credentials refused, server gone,
    /// stopped), what was done is written all the same and the error names the file.
    ///
    /// # Errors
    /// Before any job is submitted: bad files, contexts that do not exist, an unreachable server. Afterwards: what broke
    /// the run off, or [`crate::ErrorKind::Storage`] when the result cannot be written.
    pub async fn run(&self, progress: Option<Progress>) -> Result<ComparisonResult> {
        self.run_until(progress, &Stop::default()).await
    }

    /// [`ViyaComparisonRunner::run`] that can be stopped, e.g. on Ctrl-C: running jobs are canceled on the server, the result
    /// of what was done is written, and the error names it. Dropping the future instead would leave the jobs running.
    ///
    /// # Errors
    /// Those of [`ViyaComparisonRunner::run`]; [`crate::ErrorKind::Conflict`] when it was stopped.
    pub async fn run_until(&self, progress: Option<Progress>, stop: &Stop) -> Result<ComparisonResult> {
        let options = &self.options;
        let jobs = plan::load_jobs(&options.jobs, options.limit_jobs)?;
        if jobs.is_empty() {
            return Err(Error::invalid(
                "limit_jobs is 0, so there is nothing to run: leave it out, or ask for the description",
            ));
        }
        let tokens = TokenFile::open(&options.tokens)?;
        let file = ResultFile::prepare(&options.results_dir)?;
        let client = ViyaClient::new(&options.base_url, tokens, &options.client)?;
        // All contexts before the first job: a typing error in the second must not cost the first arm's hours.
        let mut arms = Vec::new();
        for arm in self.arms() {
            let Some(context) = stop.unless(contexts::find(&client, &arm.context)).await else {
                return Err(Error::new(ErrorKind::Conflict, "the run was stopped before a job was submitted"));
            };
            arms.push((arm, context?));
        }
        let (began, letters) = (Utc::now(), plan::run_letters());
        let halt = Halt::new(stop.subscribe());
        let mut records = Vec::new();
        for (arm, context) in arms {
            if !halt.reached() {
                let following = self.following(
                    &client,
                    &arm,
                    &halt,
                    (began.timestamp(), &letters),
                    (jobs.len(), progress.as_ref()),
                );
                let done = run_arm(&following, &jobs).await;
                drop(following);
                records.push(ArmRecord { arm, context, jobs: done });
            }
        }
        let problem = attach(&client, &mut records, options.correlation_timeout).await;
        let halted = halt.into_reason();
        let facts = RunFacts {
            began,
            base_url: client.base_url().as_str().trim_end_matches('/').to_owned(),
            speed: client.clock().speed(),
            mode: options.mode,
            max_concurrent: self.arms().iter().map(|arm| arm.flow.concurrent(jobs.len())).max().unwrap_or(0),
            correlation_timeout: options.correlation_timeout,
            broke_off: halted.as_ref().map(Error::full_message),
            orchestrator_problem: problem.map(|e| e.full_message()),
        };
        let result = ComparisonResult::build(facts, &jobs, records, file)?;
        match halted {
            None => Ok(result),
            Some(e) => Err(Error::new(
                e.kind(),
                format!("the comparison broke off: {e}. What was done until then is in {}", result.path.display()),
            )
            .with_retryable(e.is_retryable())
            .with_source(e)),
        }
    }

    fn following<'a>(
        &self,
        client: &'a ViyaClient,
        arm: &'a Arm,
        halt: &'a Halt,
        (unix, letters): (i64, &'a str),
        (total, progress): (usize, Option<&'a Progress>),
    ) -> Following<'a> {
        Following {
            client,
            arm,
            counter: Counter::new(&arm.name, total, progress),
            halt,
            job_timeout: self.options.job_timeout,
            poll_interval: self.options.poll_interval,
            expires_after: self.options.expires_after.clone(),
            unix,
            letters,
        }
    }
}

async fn run_arm(following: &Following<'_>, jobs: &[JobConfig]) -> Vec<super::record::JobRecord> {
    let size = following.arm.flow.concurrent(jobs.len());
    let mut done = Vec::with_capacity(jobs.len());
    for (batch, chunk) in jobs.chunks(size.max(1)).enumerate() {
        let running = chunk.iter().enumerate().map(|(at, job)| following.run(job, batch * size + at + 1));
        done.extend(futures::future::join_all(running).await.into_iter().flatten());
    }
    done
}

/// Gives every accepted job its orchestrator entry; returns why none could be read.
async fn attach(client: &ViyaClient, records: &mut [ArmRecord], timeout: f64) -> Option<Error> {
    let mut wanted = Vec::new();
    for record in records.iter() {
        wanted.extend(record.jobs.iter().filter(|job| job.job.is_some()).map(|job| Wanted {
            name: job.unique_name.clone(),
            created: job.created(),
            ended: job.ended().is_some(),
            queue: record.context.queue.clone(),
            user: job.job.as_ref().and_then(|job: &Job| job.text("createdBy")).map(str::to_owned),
        }));
    }
    let (found, problem) = correlate(client, &wanted, timeout).await;
    let jobs = records.iter_mut().flat_map(|record| &mut record.jobs).filter(|job| job.job.is_some());
    for (job, (correlation, entry)) in jobs.zip(found) {
        (job.correlation, job.entry) = (correlation, entry);
    }
    problem
}
