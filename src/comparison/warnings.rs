//! Where a conclusion would be unsafe, in plain words.

use super::correlate::Correlation;
use super::record::{ArmRecord, JobRecord};

/// A reason to be careful with a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A stable name, such as `parallelism_confounded`.
    pub code: String,
    /// What it means for this run.
    pub text: String,
}

/// The warnings of a run. `broke_off` and `orchestrator_problem` are texts of what went wrong.
pub fn warnings(records: &[ArmRecord], broke_off: Option<&str>, orchestrator_problem: Option<&str>) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |code: &str, text: String| found.push(Warning { code: code.into(), text });
    if let Some(why) = broke_off {
        warn("broke_off", format!("the run broke off and is incomplete: {why}"));
    }
    if let Some(why) = orchestrator_problem {
        warn(
            "orchestrator_unavailable",
            format!("the Workload Orchestrator could not be read, so phases and hosts are missing: {why}"),
        );
    }
    for record in records {
        about_arm(record, &mut warn);
    }
    if let [first, second] = records {
        about_pair(first, second, &mut warn);
    }
    found
}

fn about_arm(record: &ArmRecord, warn: &mut impl FnMut(&str, String)) {
    let arm = &record.arm.name;
    let accepted: Vec<&JobRecord> = record.jobs.iter().filter(|job| job.job.is_some()).collect();
    let listed = |jobs: &[&JobRecord]| {
        let names: Vec<&str> = jobs.iter().take(5).map(|job| job.config.name.as_str()).collect();
        if jobs.len() > 5 { format!("{}, …", names.join(", ")) } else { names.join(", ") }
    };
    let those =
        |test: &dyn Fn(&JobRecord) -> bool| accepted.iter().copied().filter(|job| test(job)).collect::<Vec<_>>();
    let missing = those(&|job| job.correlation == Correlation::None);
    if !missing.is_empty() {
        let (count, of) = (missing.len(), accepted.len());
        warn(
            "missing_correlation",
            format!(
                "{arm}: {count} of {of} jobs have no orchestrator entry ({}): their phases and hosts are not known",
                listed(&missing)
            ),
        );
    }
    let by_time = those(&|job| job.correlation == Correlation::Time);
    if !by_time.is_empty() {
        warn(
            "time_correlation",
            format!(
                "{arm}: {} jobs were matched with their orchestrator entry by time, queue and user only ({})",
                by_time.len(),
                listed(&by_time)
            ),
        );
    }
    let ran_in = |job: &JobRecord| job.job.as_ref().and_then(|job| job.result("COMPUTE_CONTEXT")).map(str::to_owned);
    let elsewhere = those(&|job| ran_in(job).is_some_and(|context| context != record.arm.context));
    if let Some(job) = elsewhere.first() {
        let context = ran_in(job).unwrap_or_default();
        warn(
            "wrong_context",
            format!(
                "{arm}: {} jobs did not run in {:?} but e.g. in {context:?} ({}): they tell nothing about it",
                elsewhere.len(),
                record.arm.context,
                listed(&elsewhere)
            ),
        );
    }
    if let Some(queue) = &record.context.queue {
        let wrong =
            those(&|job| job.entry.as_ref().and_then(|entry| entry.queue()).is_some_and(|found| found != queue));
        if !wrong.is_empty() {
            warn(
                "wrong_queue",
                format!(
                    "{arm}: {} jobs were not in queue {queue:?} of their context ({})",
                    wrong.len(),
                    listed(&wrong)
                ),
            );
        }
    }
}

fn about_pair(first: &ArmRecord, second: &ArmRecord, warn: &mut impl FnMut(&str, String)) {
    let (one, two) = (&first.arm.name, &second.arm.name);
    let contexts =
        if first.arm.context == second.arm.context { "the context is the same" } else { "the context differs too" };
    warn(
        "parallelism_confounded",
        format!(
            "{one} runs one job at a time and {two} several, and {contexts}: the time saved cannot be put down to the context; for that, run the same concurrency in both contexts"
        ),
    );
    let warmed = first.hosts();
    let shared: Vec<String> = second.hosts().into_keys().filter(|host| warmed.contains_key(host)).collect();
    if !shared.is_empty() {
        let hosts = shared.join(", ");
        warn(
            "hosts_shared",
            format!("{one} and {two} both ran on {hosts}: the contexts did not have hosts of their own"),
        );
        warn(
            "warm_start",
            format!("{two} found {hosts} warm, because {one} had just used it: it did not pay for the cold start"),
        );
    }
    if first.failed() != second.failed() {
        warn(
            "success_differs",
            format!(
                "{one} had {} failed jobs and {two} {}: jobs that failed make an arm look faster or slower than it is",
                first.failed(),
                second.failed()
            ),
        );
    }
}
