//! Runs the arms one after the other in every round, correlates once, and writes what was done, also when the run breaks off.

use std::path::PathBuf;
use std::sync::Arc;

use super::arms::{self, Arm, Arms, Mode};
use super::correlate::{Wanted, correlate};
use super::follow::{Following, Halt};
use super::names;
use super::plan::{self, JobConfig};
use super::progress::{Counter, Progress};
use super::record::{ArmRecord, JobRecord, Round};
use super::result::{ComparisonResult, ResultFile, RunFacts};
use crate::error::{Error, ErrorKind, Result};
use crate::stop::Stop;
use crate::viya::contexts;
use crate::viya::jobs::Job;
use crate::viya::{ClientOptions, TokenFile, ViyaClient};
use chrono::Utc;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

/// What to compare, and how. Times are seconds of the server.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// The SAS Viya, e.g. `https://viya.example.com`.
    pub base_url: String,
    /// The token file.
    pub tokens: PathBuf,
    /// The job configs.
    pub jobs: PathBuf,
    /// Which arms run.
    pub arms: Arms,
    /// How the asynchronous arms run, where `arms` are not given one by one.
    pub mode: Mode,
    /// Jobs of a batch, or in flight, of the asynchronous arms, where `arms` are not given one by one.
    pub concurrent: usize,
    /// How often all arms run: the order of the arms is turned round in every second round.
    pub repeat: u32,
    /// Pause between one arm and the next, so that hosts which are not needed can go.
    pub pause: f64,
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
            arms: Arms::Pair,
            mode: Mode::Batch,
            concurrent: 5,
            repeat: 1,
            pause: 0.0,
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
    arms: Vec<Arm>,
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
        for (name, value) in [
            ("correlation_timeout", options.correlation_timeout),
            ("job_timeout", options.job_timeout),
            ("poll_interval", options.poll_interval),
            ("pause", options.pause),
        ] {
            let may_be_none = ["correlation_timeout", "pause"].contains(&name);
            if !(value.is_finite() && value >= 0.0) || (value == 0.0 && !may_be_none) {
                return Err(Error::invalid(format!("{name} is {value}: give a positive number of seconds")));
            }
        }
        if options.expires_after.as_ref().is_some_and(|after| !after.starts_with('P')) {
            return Err(Error::invalid("expires_after is no ISO 8601 duration: it begins with P, as in P7D"));
        }
        if options.repeat == 0 {
            return Err(Error::invalid("repeat is 0: give the number of rounds, at least 1"));
        }
        let arms = planned(&options)?;
        Ok(Self { options, arms })
    }

    /// The options.
    pub fn options(&self) -> &RunnerOptions {
        &self.options
    }

    /// The arms in the order they run in the first round.
    pub fn arms(&self) -> &[Arm] {
        &self.arms
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
            line(&arm.name, format!("{:?}, {}", arm.context, arm.describe()));
        }
        line("repeat", format!("{} rounds", options.repeat));
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
        let mut records = Vec::new();
        for arm in &self.arms {
            let Some(context) = stop.unless(contexts::find(&client, &arm.context)).await else {
                return Err(Error::new(ErrorKind::Conflict, "the run was stopped before a job was submitted"));
            };
            records.push(ArmRecord { arm: arm.clone(), context: context?, rounds: Vec::new(), jobs: Vec::new() });
        }
        let began = Utc::now();
        let tag = names::run_tag(began.timestamp());
        let halt = Halt::new(stop.subscribe());
        'rounds: for round in 1..=options.repeat {
            for (place, at) in order(round, records.len()).into_iter().enumerate() {
                if halt.reached() {
                    break 'rounds;
                }
                if options.pause > 0.0 && (round, place) != (1, 0) {
                    stop.unless(client.clock().sleep(options.pause)).await;
                }
                let record = &mut records[at];
                let total = jobs.len();
                let following = self.following(&client, &record.arm, &halt, (round, &tag), (total, progress.as_ref()));
                let done = run_arm(&following, &jobs).await;
                drop(following);
                let interrupted = done.len() < total || halt.reached();
                record.rounds.push(Round { number: round, order: (place + 1) as u32, interrupted });
                record.jobs.extend(done);
            }
        }
        records.retain(|record| !record.rounds.is_empty());
        let problem = attach(&client, &mut records, options.correlation_timeout).await;
        let halted = halt.into_reason();
        let facts = RunFacts {
            began,
            base_url: client.base_url().as_str().trim_end_matches('/').to_owned(),
            speed: client.clock().speed(),
            mode: options.mode,
            max_concurrent: self.arms.iter().map(|arm| arm.in_flight(jobs.len())).max().unwrap_or(0),
            repeat: options.repeat,
            resumed: 0,
            run_id: uuid::Uuid::new_v4().to_string(),
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
        (round, tag): (u32, &'a str),
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
            round,
            tag,
        }
    }
}

/// The arms that `options` ask for, checked.
fn planned(options: &RunnerOptions) -> Result<Vec<Arm>> {
    let (one, other) = (&options.sequential_context, &options.async_context);
    let parallel = |name: &str, context: &str| Arm::new(name, context, options.mode, options.concurrent);
    let sequential = Arm::new("sequential", one, Mode::Sequential, 1);
    let arms = match &options.arms {
        Arms::Given(arms) => arms.clone(),
        Arms::ThreeWay => {
            vec![sequential?, parallel("async_regular", one)?, parallel("async_autoscaling", other)?]
        }
        Arms::Pair => vec![sequential?, parallel("async", other)?],
    };
    if (options.sequential_only || options.async_only) && options.arms != Arms::Pair {
        return Err(Error::invalid(
            "sequential_only and async_only choose between the two known arms: leave them out where arms are given",
        ));
    }
    let arms: Vec<Arm> = match (options.sequential_only, options.async_only) {
        (true, _) => arms.into_iter().take(1).collect(),
        (_, true) => arms.into_iter().skip(1).collect(),
        _ => arms,
    };
    arms::check(&arms)?;
    Ok(arms)
}

/// Whose turn it is in a round: forth in odd rounds and back in even ones, so that being first or last, and with it a
/// host that is cold or warm, falls to every arm alike.
fn order(round: u32, arms: usize) -> Vec<usize> {
    if round % 2 == 1 { (0..arms).collect() } else { (0..arms).rev().collect() }
}

/// Lets the jobs in as the arm's mode has it. The records are in the order of the jobs.
async fn run_arm(following: &Following<'_>, jobs: &[Arc<JobConfig>]) -> Vec<JobRecord> {
    let size = following.arm.in_flight(jobs.len()).max(1);
    let mut done = Vec::with_capacity(jobs.len());
    // Only batches wait for the slowest of them before the next job is let in.
    let chunk = if following.arm.mode == Mode::Batch { size } else { jobs.len().max(1) };
    for (number, chunk_jobs) in jobs.chunks(chunk).enumerate() {
        let mut waiting = chunk_jobs.iter().zip(number * chunk + 1..);
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < size {
                let Some((job, sequence)) = waiting.next() else { break };
                running.push(following.run(job, sequence));
            }
            match running.next().await {
                Some(record) => done.extend(record),
                None => break,
            }
        }
    }
    done.sort_by_key(|record| record.sequence);
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
