//! Runs a comparison, or goes on with one that was interrupted, and writes what was done, also when the run breaks off.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::aftermath;
use super::arms::Arm;
use super::durations;
use super::halt::Halt;
use super::history;
use super::journal::{ArmEntry, Event, Header, Journal, Replay};
use super::names;
use super::options::{JobOrder, RunnerOptions};
use super::plan::{self, JobConfig};
use super::progress::Progress;
use super::record::ArmRecord;
use super::result::{ComparisonResult, ResultFile, RunFacts};
use super::rounds::Rounds;
use crate::error::{Error, ErrorKind, Result};
use crate::stop::Stop;
use crate::viya::ViyaClient;
use crate::viya::contexts;

/// Runs the same jobs in every arm, in every round, and compares.
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
        options.check()?;
        let arms = options.planned_arms()?;
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
        line("tokens", options.tokens.describe());
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
    /// stopped), what was done is written all the same, and the error names the file and the journal to go on from.
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
        let jobs = self.in_order(plan::load_jobs(&options.jobs, options.limit_jobs)?)?;
        if jobs.is_empty() {
            return Err(Error::invalid(
                "limit_jobs is 0, so there is nothing to run: leave it out, or ask for the description",
            ));
        }
        let (client, file) = self.prepare()?;
        let records = records(&client, self.arms.clone(), stop).await?;
        let began = Utc::now();
        let header = Header {
            run_id: uuid::Uuid::new_v4().to_string(),
            began,
            tag: names::run_tag(began.timestamp()),
            base_url: base_url(&client),
            arms: self.arms.iter().map(ArmEntry::from).collect(),
            jobs: jobs.iter().map(|job| job.entry.clone()).collect(),
            repeat: options.repeat,
            pause: options.pause,
            mode: options.mode.as_str().to_owned(),
        };
        let journal = Journal::create(&options.results_dir, &stem(began), options.journal)?;
        journal.write(&Event::Run(Box::new(header.clone()))).await?;
        let replay = Replay::new(header);
        self.go(Going { client, file, journal, replay, jobs, records }, progress.as_ref(), stop).await
    }

    /// Goes on with an interrupted run from its journal: no job that has ended runs again, jobs that were running are followed
    /// on, and one that may or may not have been submitted is looked for by its name first. Arms, jobs and rounds are those
    /// of the journal; server, tokens, folders and limits those of this runner. Of a run that is done the result is read.
    ///
    /// # Errors
    /// Those of [`ViyaComparisonRunner::run`]; [`crate::ErrorKind::NotFound`] and [`crate::ErrorKind::InvalidInput`] for what
    /// is no journal or one of another server, [`crate::ErrorKind::Conflict`] when another process works with it.
    pub async fn resume(&self, journal: &Path, progress: Option<Progress>) -> Result<ComparisonResult> {
        self.resume_until(journal, progress, &Stop::default()).await
    }

    /// [`ViyaComparisonRunner::resume`] that can be stopped.
    ///
    /// # Errors
    /// Those of [`ViyaComparisonRunner::resume`].
    pub async fn resume_until(
        &self,
        journal: &Path,
        progress: Option<Progress>,
        stop: &Stop,
    ) -> Result<ComparisonResult> {
        let (journal, mut replay) = Journal::reopen(journal)?;
        let (client, file) = self.prepare()?;
        if replay.header.base_url != base_url(&client) {
            return Err(Error::invalid(format!(
                "the run of {} was on {}, and base_url is {}: jobs of one server cannot be followed on another",
                journal.path().display(),
                replay.header.base_url,
                base_url(&client)
            )));
        }
        if let Some(path) = replay.result.as_ref().filter(|path| path.exists()) {
            // Nothing is left to be done.
            return ComparisonResult::load(path);
        }
        let jobs = plan::parse(&replay.header.jobs, &journal.path().display().to_string())?;
        let arms = replay.header.arms.iter().map(ArmEntry::arm).collect::<Result<Vec<Arm>>>()?;
        let records = records(&client, arms, stop).await?;
        journal.write(&Event::Resumed { at: Utc::now() }).await?;
        replay.resume();
        self.go(Going { client, file, journal, replay, jobs, records }, progress.as_ref(), stop).await
    }

    fn prepare(&self) -> Result<(ViyaClient, ResultFile)> {
        let options = &self.options;
        let tokens = options.tokens.open(&options.base_url)?;
        let file = ResultFile::prepare(&options.results_dir)?;
        Ok((ViyaClient::new(&options.base_url, tokens, &options.client)?, file))
    }

    /// The jobs in the order in which they are let in.
    fn in_order(&self, mut jobs: Vec<Arc<JobConfig>>) -> Result<Vec<Arc<JobConfig>>> {
        if let JobOrder::LongestFirst(known) = &self.options.order {
            let known = match known {
                Some(known) => known.clone(),
                None => durations::read(&durations::newest(&self.options.results_dir)?)?,
            };
            let seconds = |job: &JobConfig| known.get(&job.name).copied().unwrap_or(f64::INFINITY);
            jobs.sort_by(|one, other| seconds(other).total_cmp(&seconds(one)));
        }
        Ok(jobs)
    }

    /// Adds the run to the table of all runs. The result file is there already, should that fail.
    async fn keep(&self, result: &ComparisonResult) -> Result<()> {
        let Some((root, options)) = self.options.results_table.clone() else { return Ok(()) };
        let (kept, shown) = (result.clone(), root.clone());
        let added = tokio::task::spawn_blocking(move || history::append(&kept, &root, &options)).await;
        let added =
            added.map_err(|e| Error::new(ErrorKind::Internal, "the results table broke down").with_source(e))?;
        added.map(drop).map_err(|e| {
            let file = result.path.clone().unwrap_or_default();
            Error::new(
                e.kind(),
                format!(
                    "the run is done and its result is in {}, but the table below {shown} did not take it: {e}; add it with \
                     ComparisonResult.load(…).append_to(…)",
                    file.display()
                ),
            )
            .with_retryable(e.is_retryable())
            .with_source(e)
        })
    }

    async fn go(&self, going: Going, progress: Option<&Progress>, stop: &Stop) -> Result<ComparisonResult> {
        let Going { client, file, journal, replay, jobs, mut records } = going;
        let options = &self.options;
        let halt = Halt::new(stop.subscribe());
        Rounds { client: &client, journal: &journal, replay: &replay, jobs: &jobs, halt: &halt, options, progress }
            .run(&mut records)
            .await;
        records.retain(|record| !record.rounds.is_empty());
        // What is stopped from here on is the waiting for evidence: all jobs have ended.
        let halted = halt.reason();
        let oldest = replay.header.began - TimeDelta::hours(1);
        let (submitted_twice, problem) =
            aftermath::correlate_all(&client, &mut records, oldest, options.correlation_timeout, &halt).await;
        let logs = options.results_dir.join(format!("{}.logs", stem(replay.header.began)));
        let fetched = halt.in_grace(client.clock(), aftermath::fetch_logs(&client, &mut records, &logs)).await;
        if fetched.is_none() {
            tracing::warn!("not all logs of failed jobs were fetched, as the run was stopped");
        }
        let facts = RunFacts {
            began: replay.header.began,
            base_url: replay.header.base_url.clone(),
            speed: client.clock().time_scale(),
            mode: replay.header.mode.parse()?,
            max_concurrent: records.iter().map(|record| record.arm.in_flight(jobs.len())).max().unwrap_or(0),
            repeat: replay.header.repeat,
            resumed: replay.resumed,
            run_id: replay.header.run_id.clone(),
            journal: journal.path().to_owned(),
            host_price: options.host_price,
            correlation_timeout: options.correlation_timeout,
            broke_off: halted.as_ref().map(Error::full_message),
            orchestrator_problem: problem.map(|e| e.full_message()),
            submitted_twice,
        };
        if options.cleanup && halted.is_none() {
            aftermath::delete_jobs(&client, &records).await;
        }
        let result = ComparisonResult::build(facts, &jobs, records, file)?;
        let path = result.path.clone().unwrap_or_default();
        // A run that is resumed is kept when it is whole, once.
        let kept = if halted.is_none() { self.keep(&result).await } else { Ok(()) };
        if let Err(e) = journal.write(&Event::Result { path: path.clone() }).await {
            tracing::warn!("the journal does not say where the result is: {}", e.full_message());
        }
        match halted {
            None if halt.stopped() => {
                kept?;
                let text = format!("the run was stopped once all jobs had ended: its result is in {}", path.display());
                Err(Error::new(ErrorKind::Conflict, text))
            }
            None => kept.map(|()| result),
            Some(e) => Err(Error::new(
                e.kind(),
                format!(
                    "the comparison broke off: {e}. What was done until then is in {}; to go on, resume it from {}",
                    path.display(),
                    journal.path().display()
                ),
            )
            .with_retryable(e.is_retryable())
            .with_source(e)),
        }
    }
}

/// A run that is ready to go, or to go on.
struct Going {
    client: ViyaClient,
    file: ResultFile,
    journal: Journal,
    replay: Replay,
    jobs: Vec<Arc<JobConfig>>,
    records: Vec<ArmRecord>,
}

/// The arms with their contexts: all before the first job, as a typing error in the second must not cost the first arm's
/// hours.
async fn records(client: &ViyaClient, arms: Vec<Arm>, stop: &Stop) -> Result<Vec<ArmRecord>> {
    let mut records = Vec::new();
    for arm in arms {
        let Some(context) = stop.unless(contexts::find(client, &arm.context)).await else {
            return Err(Error::new(ErrorKind::Conflict, "the run was stopped before a job was submitted"));
        };
        records.push(ArmRecord { arm, context: context?, rounds: Vec::new(), jobs: Vec::new() });
    }
    Ok(records)
}

fn base_url(client: &ViyaClient) -> String {
    client.base_url().as_str().trim_end_matches('/').to_owned()
}

/// What the names of a run's files begin with.
fn stem(began: DateTime<Utc>) -> String {
    format!("pooled_jobs_comparison_{}", began.format("%Y%m%d_%H%M%S"))
}
