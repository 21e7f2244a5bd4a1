//! The result's JSON. Jobs are written one by one: of thousands of them no second copy is made.

use std::sync::Arc;

use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{RunFacts, broken, comparison, execution, job, stamp, tidy};
use crate::comparison::analysis::{Analysis, ArmPlan, Run};
use crate::comparison::arms::Mode;
use crate::comparison::plan::JobConfig;
use crate::comparison::record::{ArmRecord, Round};
use crate::comparison::table;
use crate::comparison::warnings::Warning;
use crate::error::Result;

/// All that goes into a result file. Of a run that was recorded elsewhere there are no facts, jobs and records.
pub(super) struct Document<'a> {
    pub facts: Option<&'a RunFacts>,
    pub jobs: &'a [Arc<JobConfig>],
    pub records: &'a [ArmRecord],
    pub run: &'a Run,
    pub analysis: &'a Analysis,
    pub warnings: &'a [Warning],
}

impl Document<'_> {
    /// The text.
    pub(super) fn write(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(broken)
    }

    /// The same into a file, without holding it.
    pub(super) fn write_to(&self, sink: &mut dyn std::io::Write) -> std::io::Result<()> {
        Ok(serde_json::to_writer_pretty(sink, self)?)
    }

    fn metadata(&self) -> Value {
        let Some(facts) = self.facts else {
            return json!({"execution_timestamp": null, "base_url": null, "version": env!("CARGO_PKG_VERSION"),
                "run_id": null, "source": "table", "speed": 1.0,
                "host_price": self.run.host_price, "repeat": self.run.observations.iter().map(|job| job.round).max(),
                "durations": "seconds of the server"});
        };
        json!({
            "execution_timestamp": stamp(Some(facts.began)),
            "base_url": facts.base_url,
            "speed": facts.speed,
            "version": env!("CARGO_PKG_VERSION"),
            "run_id": facts.run_id,
            "source": "run",
            "mode": facts.mode.as_str(),
            "max_concurrent": facts.max_concurrent,
            "repeat": facts.repeat,
            "resumed": facts.resumed,
            "journal": facts.journal,
            "host_price": facts.host_price,
            "total_jobs": self.jobs.len(),
            "correlation_timeout": facts.correlation_timeout,
            "broke_off": facts.broke_off,
            "orchestrator_problem": facts.orchestrator_problem,
            "submitted_twice": facts.submitted_twice,
            "durations": "seconds of the server",
        })
    }

    fn execution<'b>(&'b self, record: Option<&'b ArmRecord>) -> Option<Execution<'b>> {
        record.map(|record| Execution { record, planned: self.jobs.len() })
    }
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let arm = |name: &str| self.records.iter().find(|record| record.arm.name == name);
        // By their known names first: the asynchronous arm may run one job at a time too.
        let alone = |record: &&ArmRecord| record.arm.mode == Mode::Sequential;
        let sequential = arm("sequential").or_else(|| self.records.iter().find(alone));
        let parallel = arm("async").or_else(|| self.records.iter().rev().find(|record| !alone(record)));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("metadata", &self.metadata())?;
        map.serialize_entry("jobs", &Each(|| self.jobs.iter().map(|job| &job.entry)))?;
        map.serialize_entry("sequential_execution", &self.execution(sequential))?;
        map.serialize_entry("async_execution", &self.execution(parallel))?;
        // The names of the three-way comparison that users know.
        for name in ["async_regular", "async_autoscaling"] {
            if let Some(record) = arm(name) {
                map.serialize_entry(&format!("{name}_execution"), &self.execution(Some(record)))?;
            }
        }
        let compared = sequential.zip(parallel).map(|(sequential, parallel)| tidy(comparison(sequential, parallel)));
        map.serialize_entry("comparison", &compared)?;
        map.serialize_entry("arms", &Each(|| self.run.arms.iter().map(|plan| ArmEntry { document: self, plan })))?;
        map.serialize_entry("analysis", &analysis(self.analysis).map_err(S::Error::custom)?)?;
        map.serialize_entry("warnings", &warnings(self.warnings))?;
        map.end()
    }
}

/// An analysis as results have it.
pub(super) fn analysis(analysis: &Analysis) -> serde_json::Result<Value> {
    serde_json::to_value(analysis).map(tidy)
}

/// Warnings as results have them.
pub(super) fn warnings(warnings: &[Warning]) -> Value {
    warnings.iter().map(|warning| json!({"code": warning.code, "text": warning.text})).collect()
}

/// A list whose items are made while it is written.
struct Each<F>(F);

impl<F: Fn() -> I, I: IntoIterator<Item = T>, T: Serialize> Serialize for Each<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// An arm as users know it.
struct Execution<'a> {
    record: &'a ArmRecord,
    planned: usize,
}

impl Serialize for Execution<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Value::Object(head) = tidy(execution(self.record, self.planned)) {
            for (key, value) in &head {
                map.serialize_entry(key, value)?;
            }
        }
        map.serialize_entry("jobs", &Each(|| self.record.jobs.iter().map(|job| tidy(job::job(self.record, job)))))?;
        map.end()
    }
}

/// An arm of any comparison, with its jobs as flat rows.
struct ArmEntry<'a> {
    document: &'a Document<'a>,
    plan: &'a ArmPlan,
}

impl ArmEntry<'_> {
    fn rounds(&self) -> Vec<Value> {
        let (run, plan) = (self.document.run, self.plan);
        let record = self.document.records.iter().find(|record| record.arm.name == plan.name);
        let figures = self.document.analysis.arms.iter().find(|figures| figures.arm == plan.name);
        let makespan = |number: i64| {
            figures
                .and_then(|figures| figures.makespans.iter().find(|(round, _)| *round == number))
                .map(|found| found.1)
        };
        let mut numbers: Vec<i64> = run.of(&plan.name).map(|job| job.round).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let describe = |number: i64| {
            let jobs = || run.of(&plan.name).filter(move |job| job.round == number);
            let known: Option<&Round> =
                record.and_then(|record| record.rounds.iter().find(|round| i64::from(round.number) == number));
            let of_round =
                || record.into_iter().flat_map(|record| &record.jobs).filter(|job| i64::from(job.round) == number);
            json!({
                "round": number,
                "order": known.map(|round| round.order),
                "start_s": jobs().filter_map(|job| job.jes_created_s).reduce(f64::min),
                "end_s": jobs().filter_map(|job| job.jes_end_s).reduce(f64::max),
                "start_time": stamp(of_round().filter_map(|job| job.created()).min()),
                "end_time": stamp(of_round().filter_map(|job| job.ended()).max()),
                "makespan_s": makespan(number),
                "interrupted": plan.interrupted.contains(&number),
            })
        };
        numbers.into_iter().map(describe).map(tidy).collect()
    }
}

impl Serialize for ArmEntry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let plan = self.plan;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &plan.name)?;
        map.serialize_entry("context", &plan.context)?;
        map.serialize_entry("queue", &plan.queue)?;
        map.serialize_entry("mode", &plan.mode.map(Mode::as_str))?;
        map.serialize_entry("concurrent", &plan.concurrent)?;
        map.serialize_entry("rounds", &self.rounds())?;
        let jobs = || self.document.run.of(&plan.name).map(|job| tidy(table::row(job)));
        map.serialize_entry("jobs", &Each(jobs))?;
        map.end()
    }
}
