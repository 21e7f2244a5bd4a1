//! The result of a run: the JSON that users know with what is new beside it, its file, and the same as tables.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::analysis::observation::microseconds;
use super::analysis::{Analysis, Run, analyse, recorded};
use super::arms::Mode;
use super::plan::JobConfig;
use super::record::ArmRecord;
use super::warnings::Warning;
use super::{observed, options, statistics, table};
use crate::error::{Error, ErrorKind, Result};

mod document;
mod file;
mod job;
mod load;

use document::Document;
pub(super) use file::ResultFile;

/// The code of the warning that the result is not in the folder that was asked for.
const RESULT_MOVED: &str = "result_moved";

/// A comparison. All durations are seconds of the server; `metadata.speed` says how many of them passed in one real second.
#[derive(Debug, Clone)]
pub struct ComparisonResult {
    /// The result file; none while it was not written.
    pub path: Option<PathBuf>,
    /// What the run shows.
    pub analysis: Analysis,
    /// Where a conclusion would be unsafe.
    pub warnings: Vec<Warning>,
    /// The jobs and arms behind it.
    pub run: Run,
    /// Which run it was; none of one that was recorded elsewhere.
    pub origin: Option<Origin>,
    document: Source,
}

/// Which run a result is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Identifies the run.
    pub run_id: String,
    /// When it began.
    pub began: DateTime<Utc>,
    /// The server.
    pub base_url: String,
}

/// Where the JSON document is. That of thousands of jobs is tens of megabytes, which are not held beside the file.
#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    Text(Arc<str>),
}

/// What is known of a run beside its jobs.
pub(super) struct RunFacts {
    pub began: DateTime<Utc>,
    pub base_url: String,
    pub speed: f64,
    pub mode: Mode,
    /// Jobs in flight at most, in whichever arm has most of them.
    pub max_concurrent: usize,
    /// Rounds that were asked for.
    pub repeat: u32,
    /// How often the run was resumed after it had been interrupted.
    pub resumed: u32,
    /// Identifies the run.
    pub run_id: String,
    /// Where its journal is.
    pub journal: PathBuf,
    /// What an hour of a host costs.
    pub host_price: Option<f64>,
    pub correlation_timeout: f64,
    pub broke_off: Option<String>,
    pub orchestrator_problem: Option<String>,
    /// Unique names that several orchestrator entries have.
    pub submitted_twice: Vec<String>,
}

impl ComparisonResult {
    /// Builds the result and writes it.
    pub(super) fn build(
        facts: RunFacts,
        jobs: &[Arc<JobConfig>],
        records: Vec<ArmRecord>,
        file: ResultFile,
    ) -> Result<Self> {
        let run = Run {
            host_price: facts.host_price,
            broke_off: facts.broke_off.clone(),
            orchestrator_problem: facts.orchestrator_problem.clone(),
            submitted_twice: facts.submitted_twice.iter().cloned().collect(),
            resumed: facts.resumed,
            ..observed::run(&records)
        };
        let (analysis, mut warnings) = analyse(&run);
        let before = Document {
            facts: Some(&facts),
            jobs,
            records: &records,
            run: &run,
            analysis: &analysis,
            warnings: &warnings,
        };
        let (path, moved) = file.write(facts.began, &|sink| before.write_to(sink))?;
        let document = match moved {
            None => Source::File(path.clone()),
            Some(why) => {
                let mut told = warnings.clone();
                told.push(Warning { code: RESULT_MOVED.into(), text: why });
                let after = Document { warnings: &told, ..before }.write()?;
                warnings = told;
                Source::Text(after.into())
            }
        };
        let origin = Some(Origin { run_id: facts.run_id, began: facts.began, base_url: facts.base_url });
        Ok(Self { path: Some(path), analysis, warnings, run, origin, document })
    }

    /// The same analysis of a run that was recorded elsewhere: see [`recorded::read`] for what the table has to have.
    /// `host_price` is what an hour of a host cost.
    ///
    /// # Errors
    /// Those of [`recorded::read`], and [`ErrorKind::InvalidInput`] for a price that is none.
    pub fn from_table(batches: &[RecordBatch], host_price: Option<f64>) -> Result<Self> {
        options::check_price(host_price)?;
        Self::of_run(Run { host_price, ..recorded::read(batches)? }, None)
    }

    /// Reads a result file, of this or of the first job execution client, and analyses it anew.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] or [`ErrorKind::InvalidInput`] when it is no result; no retry helps.
    pub fn load(path: &Path) -> Result<Self> {
        let load::Loaded { run, origin, document } = load::read(path)?;
        let mut result = Self::of_run(run, origin)?;
        result.path = Some(path.to_owned());
        if let Some(document) = document {
            result.renew(document)?;
        }
        Ok(result)
    }

    fn of_run(run: Run, origin: Option<Origin>) -> Result<Self> {
        let (analysis, warnings) = analyse(&run);
        let document =
            Document { facts: None, jobs: &[], records: &[], run: &run, analysis: &analysis, warnings: &warnings };
        let document = Source::Text(document.write()?.into());
        Ok(Self { path: None, analysis, warnings, run, origin, document })
    }

    /// Takes `document` for its own, with the analysis of today in place of the one that was written with it.
    fn renew(&mut self, mut document: Value) -> Result<()> {
        let written = document.get("warnings").and_then(Value::as_array).into_iter().flatten();
        // What only writing the file can tell.
        let moved = written.filter_map(load::warning).filter(|warning| warning.code == RESULT_MOVED);
        self.warnings.extend(moved);
        if document.get("arms").is_none() {
            // What the first client wrote, with what is new beside it.
            document["arms"] = self.to_value()?["arms"].take();
        }
        document["analysis"] = document::analysis(&self.analysis).map_err(broken)?;
        document["warnings"] = document::warnings(&self.warnings);
        let text = serde_json::to_string_pretty(&document).map_err(broken)?;
        self.document = Source::Text(text.into());
        Ok(())
    }

    /// The JSON document.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the result file is not there any more.
    pub fn to_value(&self) -> Result<Value> {
        serde_json::from_str(&self.document()?).map_err(|e| {
            Error::new(ErrorKind::Storage, "the result file was changed: it is not JSON any more").with_source(e)
        })
    }

    /// The JSON document as text.
    ///
    /// # Errors
    /// Those of [`ComparisonResult::to_value`].
    pub fn document(&self) -> Result<Arc<str>> {
        match &self.document {
            Source::Text(text) => Ok(Arc::clone(text)),
            Source::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(text.into()),
                Err(e) => {
                    let text = format!("the result file {} cannot be read any more", path.display());
                    Err(Error::new(ErrorKind::NotFound, text).with_source(e))
                }
            },
        }
    }

    /// The analysis and the jobs as JSON, of what is known without the result file.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] only.
    pub fn summary(&self) -> Result<Value> {
        let (run, analysis, warnings) = (&self.run, &self.analysis, &self.warnings[..]);
        serde_json::to_value(Document { facts: None, jobs: &[], records: &[], run, analysis, warnings }).map_err(broken)
    }

    /// The analysis as JSON, with every digit.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] only.
    pub fn analysis_value(&self) -> Result<Value> {
        serde_json::to_value(&self.analysis).map_err(broken)
    }

    /// Writes the JSON document to `path`, in place of what is there.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when it cannot be written there; those of [`ComparisonResult::document`].
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.document()?.as_bytes()).map_err(|e| {
            Error::new(ErrorKind::Storage, format!("the result cannot be written to {}", path.display())).with_source(e)
        })
    }

    /// Jobs that did not end well, over all arms.
    pub fn failed_jobs(&self) -> usize {
        self.analysis.arms.iter().map(|arm| arm.failed).sum()
    }

    /// One row per job and round, with the columns of a recorded run and more.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] only.
    pub fn jobs_batch(&self) -> Result<RecordBatch> {
        table::jobs(&self.run)
    }

    /// One row per arm and host.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] only.
    pub fn hosts(&self) -> Result<RecordBatch> {
        table::hosts(&self.analysis)
    }

    /// One row per arm.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] only.
    pub fn arms(&self) -> Result<RecordBatch> {
        table::arms(&self.run, &self.analysis)
    }

    /// One row per arm and phase.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] only.
    pub fn phases(&self) -> Result<RecordBatch> {
        table::phases(&self.analysis)
    }
}

fn broken(e: serde_json::Error) -> Error {
    Error::new(ErrorKind::Internal, "the result could not be written as JSON").with_source(e)
}

/// A time stamp as SAS writes them.
fn stamp(at: Option<DateTime<Utc>>) -> Value {
    at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)).into()
}

/// Rounds every number to microseconds.
fn tidy(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => json!(microseconds(float)),
            None => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(tidy).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, tidy(value))).collect(),
        other => other,
    }
}

/// One arm that was to run `planned` jobs, without its jobs; a run that broke off has fewer.
fn execution(record: &ArmRecord, planned: usize) -> Value {
    let values =
        |of: fn(&super::record::JobRecord) -> Option<f64>| record.jobs.iter().filter_map(of).collect::<Vec<f64>>();
    let spread = |of: fn(&super::record::JobRecord) -> Option<f64>| {
        let values = values(of);
        json!({"median": statistics::quantile(&values, 0.5), "p90": statistics::quantile(&values, 0.9),
               "max": statistics::quantile(&values, 1.0), "mean": statistics::mean(&values), "sum": values.iter().sum::<f64>()})
    };
    use super::record::JobRecord as Job;
    json!({
        "execution_mode": record.arm.mode.as_str(),
        "max_concurrent": record.arm.in_flight(planned),
        "context_name": record.arm.context,
        "queue_name": record.context.queue,
        "observed_queues": record.queues(),
        "start_time": stamp(record.start()),
        "end_time": stamp(record.end()),
        "total_duration": record.makespan(),
        "rounds": record.rounds.iter().map(|round| json!({
            "round": round.number, "order": round.order, "interrupted": round.interrupted,
            "total_duration": record.round_makespan(round.number),
        })).collect::<Vec<_>>(),
        "successful_jobs": record.successful(),
        "failed_jobs": record.failed(),
        "hosts": record.hosts(),
        "phases": {"pending_s": spread(Job::pending), "starting_s": spread(Job::starting), "running_s": spread(Job::running)},
        "client": {"observe_lag_s": spread(Job::observe_lag)},
    })
}

fn comparison(sequential: &ArmRecord, parallel: &ArmRecord) -> Value {
    let (before, after) = (sequential.makespan(), parallel.makespan());
    let saved = before.zip(after).map(|(before, after)| before - after);
    // Percent of the sequential time; nothing can be a share of no time.
    let gain = saved.zip(before).filter(|(_, before)| *before > 0.0).map(|(saved, before)| 100.0 * saved / before);
    let rate = |record: &ArmRecord| {
        (!record.jobs.is_empty()).then(|| 100.0 * record.successful() as f64 / record.jobs.len() as f64)
    };
    let average = |record: &ArmRecord| {
        statistics::mean(&record.jobs.iter().filter_map(super::record::JobRecord::duration).collect::<Vec<_>>())
    };
    let (first, second) = (sequential.hosts(), parallel.hosts());
    let new_hosts: Vec<&String> = second.keys().filter(|host| !first.contains_key(*host)).collect();
    let several: std::collections::BTreeMap<_, _> = second.iter().filter(|(_, jobs)| **jobs > 1).collect();
    let scaling = match second.len().cmp(&first.len()) {
        _ if first.is_empty() || second.is_empty() => None,
        std::cmp::Ordering::Greater => Some("scale_out"),
        std::cmp::Ordering::Equal => Some("no_scaling"),
        std::cmp::Ordering::Less => Some("consolidation"),
    };
    json!({
        "time_saved": saved,
        "efficiency_gain": gain,
        "execution_time": {"sequential_total": before, "async_total": after, "time_saved": saved, "efficiency_gain": gain},
        "job_performance": {
            "sequential_success_rate": rate(sequential), "async_success_rate": rate(parallel),
            "sequential_avg_job_time": average(sequential), "async_avg_job_time": average(parallel),
        },
        "resource_utilization": {
            "sequential_context": sequential.arm.context, "async_context": parallel.arm.context,
            "concurrent_execution": parallel.arm.in_flight(parallel.jobs.len()) > 1,
        },
        "node_analysis": {
            "sequential_nodes": first, "async_nodes": second,
            "autoscaling_behavior": {
                "sequential_vs_async_nodes": {"sequential": first.len(), "async": second.len()},
                "new_nodes": new_hosts,
                "concurrent_job_distribution": second.len(),
                "nodes_with_multiple_jobs": several,
                "scaling_observed": scaling.map(|scaling| scaling == "scale_out"),
                "scaling_type": scaling,
            },
        },
    })
}

#[cfg(test)]
mod tests;
