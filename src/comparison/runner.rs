//! Runs a comparison, or resumes an interrupted one, and writes the result, also of a run that ends early.

use std::path::Path;
use std::sync::Arc;

use chrono::Utc;

use super::analysis::RunData;
use super::arms::{self, Arm};
use super::follow::RunContext;
use super::job_configs::{self, JobConfig};
use super::journal::{Journal, JournalEvent, JournalHeader, Replay, run_tag};
use super::options::{JobOrder, RunnerOptions};
use super::records::{ArmRecord, run_data};
use super::result::{ComparisonResult, RunMetadata, prepare_folder};
use super::run_control::{ProgressListener, RunControl};
use super::{correlate, files, history, job_durations, job_files, rounds};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::stop::Stop;
use crate::viya::{ViyaClient, contexts};

/// Runs the same jobs in every arm and round, and compares the arms.
#[derive(Debug)]
pub struct ViyaComparisonRunner {
    /// The options.
    pub options: RunnerOptions,
    arms: Vec<Arm>,
}

impl ViyaComparisonRunner {
    /// Checks the options. No file is read and nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for invalid options.
    pub fn new(options: RunnerOptions) -> Result<Self> {
        options.check()?;
        let arms = options.planned_arms()?;
        Ok(Self { options, arms })
    }

    /// Version and configuration as text, for `limit_jobs = 0`. Reads the job configs; sends and runs nothing.
    ///
    /// # Errors
    /// Those of [`job_configs::load`].
    pub fn describe(&self) -> Result<String> {
        let options = &self.options;
        let enabled = job_configs::load(&options.jobs, None)?.len();
        let chosen = options.limit_jobs.unwrap_or(enabled).min(enabled);
        let mut text = format!("jobrota {}\n", env!("CARGO_PKG_VERSION"));
        let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<20} {value}\n"));
        line("base_url", options.base_url.clone());
        line("tokens", options.tokens.describe());
        line("jobs", format!("{} ({enabled} enabled, {chosen} to run)", options.jobs.display()));
        for arm in &self.arms {
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
    /// A job that fails is a row of the result, not an error. When the run ends early (credentials refused, server gone,
    /// stopped), the result of the finished jobs is written, and the error names the file and the journal to resume from.
    /// Stopping cancels the running jobs on the server. A dropped future would leave them running.
    ///
    /// # Errors
    /// Before any job is submitted: bad files, contexts that do not exist, an unreachable server. Afterwards: why the run
    /// ended early ([`ErrorKind::Conflict`] when it was stopped), or [`ErrorKind::Storage`] when the result cannot be
    /// written.
    pub async fn run(&self, progress: Option<ProgressListener>, stop: &Stop) -> Result<ComparisonResult> {
        let options = &self.options;
        let jobs = self.in_order(job_configs::load(&options.jobs, options.limit_jobs)?)?;
        if jobs.is_empty() {
            return Err(Error::invalid(
                "limit_jobs is 0, so there is nothing to run: leave it out, or ask for the description",
            ));
        }
        let client = self.prepare()?;
        let records = find_contexts(&client, self.arms.clone(), stop).await?;
        let began = Utc::now();
        let header = JournalHeader {
            run_id: uuid::Uuid::new_v4().to_string(),
            began,
            tag: run_tag(began.timestamp()),
            base_url: base_url(&client),
            arms: self.arms.clone(),
            jobs: jobs.iter().map(|job| job.entry.clone()).collect(),
            repeat: options.repeat,
            pause: options.pause,
            mode: options.mode,
        };
        let journal = Journal::create(&options.results_dir, &files::stem(began), false)?;
        journal.write(&JournalEvent::Run(Box::new(header.clone()))).await?;
        let replay = Replay::new(header);
        self.execute(PreparedRun { client, journal, replay, jobs, records }, progress.as_ref(), stop).await
    }

    /// Resumes an interrupted run from its journal. No job that has ended runs again, running jobs are followed, and a job
    /// that may have been submitted is searched by its name first. Arms, jobs and rounds are those of the journal; server,
    /// tokens, folders and limits those of this runner. If the run is complete, its result is read.
    ///
    /// # Errors
    /// Those of [`ViyaComparisonRunner::run`]; [`ErrorKind::NotFound`]; [`ErrorKind::InvalidInput`] when it is not a
    /// journal, or that of another server; [`ErrorKind::Conflict`] when another process uses it.
    pub async fn resume(
        &self,
        journal: &Path,
        progress: Option<ProgressListener>,
        stop: &Stop,
    ) -> Result<ComparisonResult> {
        let (journal, mut replay) = Journal::reopen(journal)?;
        let client = self.prepare()?;
        if replay.header.base_url != base_url(&client) {
            return Err(Error::invalid(format!(
                "the run of {} was on {}, and base_url is {}: a run cannot continue on another server",
                journal.path.display(),
                replay.header.base_url,
                base_url(&client)
            )));
        }
        if let Some(path) = replay.result.as_ref().filter(|path| path.exists()) {
            return ComparisonResult::load(path);
        }
        let jobs = job_configs::parse(&replay.header.jobs, &journal.path.display().to_string())?;
        arms::check(&replay.header.arms)?;
        let records = find_contexts(&client, replay.header.arms.clone(), stop).await?;
        journal.write(&JournalEvent::Resumed { at: Utc::now() }).await?;
        replay.resume();
        self.execute(PreparedRun { client, journal, replay, jobs, records }, progress.as_ref(), stop).await
    }

    fn prepare(&self) -> Result<ViyaClient> {
        let options = &self.options;
        let tokens = options.tokens.open(&options.base_url)?;
        prepare_folder(&options.results_dir)?;
        ViyaClient::new(&options.base_url, tokens, &options.client)
    }

    /// The jobs in the order of submission.
    fn in_order(&self, mut jobs: Vec<Arc<JobConfig>>) -> Result<Vec<Arc<JobConfig>>> {
        if let JobOrder::LongestFirst(known) = &self.options.order {
            let known = match known {
                Some(known) => known.clone(),
                None => job_durations::read(&job_durations::newest(&self.options.results_dir)?)?,
            };
            let seconds = |job: &JobConfig| known.get(&job.name).copied().unwrap_or(f64::INFINITY);
            jobs.sort_by(|one, other| seconds(other).total_cmp(&seconds(one)));
        }
        Ok(jobs)
    }

    /// Appends the run to the table of all runs. The result file exists already.
    async fn append_to_table(&self, result: &ComparisonResult) -> Result<()> {
        let Some((root, options)) = self.options.results_table.clone() else { return Ok(()) };
        let (appended, shown) = (result.clone(), root.clone());
        let added = runtime::blocking(move || history::append(&appended, &root, options)).await;
        added.map(drop).map_err(|e| {
            let file = result.path.clone().unwrap_or_default();
            let text = format!(
                "the run is done and its result is in {}, but could not be appended to the table below {shown}: {e}; append \
                 it with ComparisonResult.load(…).append_to(…)",
                file.display()
            );
            Error::new(e.kind(), text).with_retryable(e.is_retryable()).with_source(e)
        })
    }

    async fn execute(
        &self,
        prepared: PreparedRun,
        progress: Option<&ProgressListener>,
        stop: &Stop,
    ) -> Result<ComparisonResult> {
        let PreparedRun { client, journal, replay, jobs, mut records } = prepared;
        let (options, header) = (&self.options, &replay.header);
        let control = RunControl::new(stop, &client.clock);
        let run = RunContext::new(&client, &journal, header, options, &control);
        rounds::run_rounds(&run, &replay, &jobs, progress, &mut records).await;
        records.retain(|record| !record.rounds.is_empty());
        // All jobs have ended: a later stop only ends the wait for orchestrator entries and logs.
        let ended_early = control.reason();
        let (submitted_twice, problem) = correlate::attach_entries(&run, &mut records).await;
        let logs = options.results_dir.join(format!("{}.logs", files::stem(header.began)));
        if control.with_grace(job_files::fetch_logs(&client, &mut records, &logs)).await.is_none() {
            tracing::warn!("not all logs of failed jobs were fetched, because the run was stopped");
        }
        if options.cleanup && ended_early.is_none() {
            job_files::delete_jobs(&client, &records).await;
        }
        let data = RunData {
            host_price: options.host_price,
            broke_off: ended_early.as_ref().map(Error::full_message),
            orchestrator_problem: problem.map(|e| e.full_message()),
            submitted_twice: submitted_twice.into_iter().collect(),
            resumed: replay.resumed,
            ..run_data(&records)
        };
        let metadata = RunMetadata {
            header: header.clone(),
            journal: journal.path.clone(),
            speed: client.clock.time_scale,
            correlation_timeout: options.correlation_timeout,
        };
        let result = ComparisonResult::build(metadata, data, &jobs, &records, &options.results_dir)?;
        let path = result.path.clone().unwrap_or_default();
        // A run that ends early is appended when it is complete.
        let appended = if ended_early.is_none() { self.append_to_table(&result).await } else { Ok(()) };
        if let Err(e) = journal.write(&JournalEvent::Result { path: path.clone() }).await {
            tracing::warn!("the journal does not name the result: {}", e.full_message());
        }
        if let Some(e) = ended_early {
            let text = format!(
                "the comparison ended early: {e}. The result of the finished jobs is in {}; to continue, resume the run from {}",
                path.display(),
                journal.path.display()
            );
            return Err(Error::new(e.kind(), text).with_retryable(e.is_retryable()).with_source(e));
        }
        appended?;
        if control.stop.is_stopped() {
            let text = format!("the run was stopped after all jobs had ended: its result is in {}", path.display());
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        Ok(result)
    }
}

/// A run that is ready to start or to continue.
struct PreparedRun {
    client: ViyaClient,
    journal: Journal,
    replay: Replay,
    jobs: Vec<Arc<JobConfig>>,
    records: Vec<ArmRecord>,
}

/// Finds the contexts of all arms before the first job, so that a wrong name is reported at once.
async fn find_contexts(client: &ViyaClient, arms: Vec<Arm>, stop: &Stop) -> Result<Vec<ArmRecord>> {
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
