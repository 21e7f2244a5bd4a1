//! The JSON document of a result. Jobs are written one by one, because a second copy of thousands of them would be large.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::execution::{self, timestamp};
use crate::comparison::analysis::run::microseconds;
use crate::comparison::analysis::{Analysis, ArmPlan, ComparisonWarning, RunData};
use crate::comparison::arms::SubmissionMode;
use crate::comparison::job_configs::JobConfig;
use crate::comparison::journal::JournalHeader;
use crate::comparison::records::{ArmRecord, RoundRecord};
use crate::error::{Error, ErrorKind, Result};

/// The facts of a run beside its arms and jobs.
pub(in crate::comparison) struct RunMetadata {
    pub header: JournalHeader,
    pub journal: PathBuf,
    /// Seconds of the server in a real second.
    pub speed: f64,
    pub correlation_timeout: f64,
}

/// The content of a result file. A run that was recorded elsewhere has no metadata, jobs and records.
pub(super) struct ResultDocument<'a> {
    pub metadata: Option<&'a RunMetadata>,
    pub jobs: &'a [Arc<JobConfig>],
    pub records: &'a [ArmRecord],
    pub run: &'a RunData,
    pub analysis: &'a Analysis,
    pub warnings: &'a [ComparisonWarning],
}

impl<'a> ResultDocument<'a> {
    /// The document of a run that was recorded elsewhere.
    pub(super) fn of_run(run: &'a RunData, analysis: &'a Analysis, warnings: &'a [ComparisonWarning]) -> Self {
        Self { metadata: None, jobs: &[], records: &[], run, analysis, warnings }
    }

    /// The text.
    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(json_error)
    }

    fn metadata(&self) -> Value {
        let run = self.run;
        let Some(RunMetadata { header, journal, speed, correlation_timeout }) = self.metadata else {
            return json!({"execution_timestamp": null, "base_url": null, "version": env!("CARGO_PKG_VERSION"),
                "run_id": null, "source": "table", "speed": 1.0,
                "host_price": run.host_price, "repeat": run.job_rows.iter().map(|job| job.round).max(),
                "durations": "seconds of the server"});
        };
        let in_flight = self.records.iter().map(|record| record.arm.in_flight(self.jobs.len()));
        json!({
            "execution_timestamp": timestamp(Some(header.began)),
            "base_url": header.base_url,
            "speed": speed,
            "version": env!("CARGO_PKG_VERSION"),
            "run_id": header.run_id,
            "source": "run",
            "mode": header.mode,
            "max_concurrent": in_flight.max().unwrap_or(0),
            "repeat": header.repeat,
            "resumed": run.resumed,
            "journal": journal,
            "host_price": run.host_price,
            "total_jobs": self.jobs.len(),
            "correlation_timeout": correlation_timeout,
            "broke_off": run.broke_off,
            "orchestrator_problem": run.orchestrator_problem,
            "submitted_twice": run.submitted_twice,
            "durations": "seconds of the server",
        })
    }

    /// An arm below its known key, such as `sequential_execution`.
    fn execution(&self, record: &ArmRecord) -> ArmDocument<impl Serialize> {
        let facts = rounded(execution::execution(record, self.jobs.len()));
        ArmDocument {
            facts,
            jobs: LazyList(move || record.jobs.iter().map(move |job| rounded(execution::job(record, job)))),
        }
    }

    /// An arm in the list `arms`, with its jobs as flat rows.
    fn arm<'s>(&'s self, plan: &'s ArmPlan) -> ArmDocument<impl Serialize> {
        let facts = json!({
            "name": plan.name,
            "context": plan.context,
            "queue": plan.queue,
            "mode": plan.mode,
            "concurrent": plan.concurrent,
            "rounds": self.rounds(plan),
        });
        let rows = move || self.run.of(&plan.name).map(|row| rounded(serde_json::to_value(row).unwrap_or_default()));
        ArmDocument { facts, jobs: LazyList(rows) }
    }

    fn rounds(&self, plan: &ArmPlan) -> Vec<Value> {
        let run = self.run;
        let record = self.records.iter().find(|record| record.arm.name == plan.name);
        let figures = self.analysis.arms.iter().find(|figures| figures.arm == plan.name);
        let makespan = |number: i64| {
            let mut makespans = figures?.makespans.iter();
            makespans.find(|(round, _)| *round == number).map(|(_, seconds)| *seconds)
        };
        let numbers: BTreeSet<i64> = run.of(&plan.name).map(|job| job.round).collect();
        let describe = |number: i64| {
            let rows = || run.of(&plan.name).filter(move |job| job.round == number);
            let of_number = |round: &&RoundRecord| i64::from(round.number) == number;
            let order = record.and_then(|record| record.rounds.iter().find(of_number)).map(|round| round.order);
            let jobs =
                || record.into_iter().flat_map(|record| &record.jobs).filter(|job| i64::from(job.round) == number);
            json!({
                "round": number,
                "order": order,
                "start_s": rows().filter_map(|job| job.jes_created_s).reduce(f64::min),
                "end_s": rows().filter_map(|job| job.jes_end_s).reduce(f64::max),
                "start_time": timestamp(jobs().filter_map(|job| job.created()).min()),
                "end_time": timestamp(jobs().filter_map(|job| job.ended()).max()),
                "makespan_s": makespan(number),
                "interrupted": plan.interrupted.contains(&number),
            })
        };
        numbers.into_iter().map(describe).map(rounded).collect()
    }
}

impl Serialize for ResultDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let arm = |name: &str| self.records.iter().find(|record| record.arm.name == name);
        // By their known names first, because the asynchronous arm can be sequential, too.
        let is_sequential = |record: &&ArmRecord| record.arm.mode == SubmissionMode::Sequential;
        let sequential = arm("sequential").or_else(|| self.records.iter().find(is_sequential));
        let parallel = arm("async").or_else(|| self.records.iter().rev().find(|record| !is_sequential(record)));
        let execution = |record| self.execution(record);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("metadata", &self.metadata())?;
        map.serialize_entry("jobs", &LazyList(|| self.jobs.iter().map(|job| &job.entry)))?;
        map.serialize_entry("sequential_execution", &sequential.map(execution))?;
        map.serialize_entry("async_execution", &parallel.map(execution))?;
        // The names of the three-way comparison that users know.
        for name in ["async_regular", "async_autoscaling"] {
            if let Some(record) = arm(name) {
                map.serialize_entry(&format!("{name}_execution"), &execution(record))?;
            }
        }
        let compared = sequential.zip(parallel).map(|(one, other)| rounded(execution::comparison(one, other)));
        map.serialize_entry("comparison", &compared)?;
        map.serialize_entry("arms", &LazyList(|| self.run.arms.iter().map(|plan| self.arm(plan))))?;
        map.serialize_entry("analysis", &analysis(self.analysis).map_err(S::Error::custom)?)?;
        map.serialize_entry("warnings", self.warnings)?;
        map.end()
    }
}

/// The JSON of an analysis.
pub(super) fn analysis(analysis: &Analysis) -> serde_json::Result<Value> {
    serde_json::to_value(analysis).map(rounded)
}

pub(super) fn json_error(e: serde_json::Error) -> Error {
    Error::new(ErrorKind::Internal, "the result could not be written as JSON").with_source(e)
}

/// Rounds every number to microseconds.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => json!(microseconds(float)),
            None => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(rounded).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, rounded(value))).collect(),
        other => other,
    }
}

/// A list whose items are made while it is written.
struct LazyList<F>(F);

impl<F: Fn() -> I, I: IntoIterator<Item = T>, T: Serialize> Serialize for LazyList<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// An arm: the facts about it, and its jobs.
#[derive(Serialize)]
struct ArmDocument<J> {
    #[serde(flatten)]
    facts: Value,
    jobs: J,
}
