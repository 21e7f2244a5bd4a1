//! Warnings: reasons why a conclusion would be unsafe, with the numbers of the run.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::arm::ArmFigures;
use super::comparisons::{ArmComparison, Difference, LEAST_ROUNDS};
use super::hosts::HostFigures;
use super::run::{ArmPlan, JobRow, RunData};
use crate::comparison::statistics::quantile;

/// A host is packed if its jobs needed this many times the running seconds for each CPU second of the least busy host.
const PACKED: f64 = 2.0;
/// The most running seconds for each CPU second of a job that does not share its host, if the run has no such host to
/// measure. Measured: 1.24.
const UNPACKED: f64 = 1.5;

/// A reason to be careful with a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparisonWarning {
    /// A stable name, such as `parallelism_confounded`.
    pub code: String,
    /// The meaning for this run.
    pub text: String,
}

/// Adds a warning with a code and a text.
type AddWarning<'a> = dyn FnMut(&str, String) + 'a;

/// The warnings of a run, the most important first.
pub fn find_warnings(run: &RunData, arms: &[ArmFigures], comparisons: &[ArmComparison]) -> Vec<ComparisonWarning> {
    let mut found = Vec::new();
    let mut add = |code: &str, text: String| found.push(ComparisonWarning { code: code.into(), text });
    if let Some(reason) = &run.broke_off {
        add("broke_off", format!("the run ended early and is incomplete: {reason}"));
    }
    if let Some(reason) = &run.orchestrator_problem {
        let text = "the Workload Orchestrator could not be read, so phases and hosts are missing";
        add("orchestrator_unavailable", format!("{text}: {reason}"));
    }
    submitted_twice(run, &mut add);
    for plan in &run.arms {
        wrong_environment(run, plan, &mut add);
    }
    confounded(comparisons, &mut add);
    too_few_rounds(run, comparisons, &mut add);
    different_jobs(run, comparisons, &mut add);
    scaled(run, arms, &mut add);
    shared_hosts(arms, &mut add);
    warm_hosts(arms, &mut add);
    packed_hosts(run, arms, &mut add);
    for plan in &run.arms {
        correlation(run, plan, &mut add);
    }
    different_success(arms, &mut add);
    if run.resumed > 0 {
        let times = if run.resumed == 1 { "once".to_owned() } else { format!("{} times", run.resumed) };
        let text = format!("the run was interrupted and resumed {times}: interrupted rounds are not compared");
        add("resumed", text);
    }
    found
}

/// The first few names.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown}, …") } else { shown }
}

fn jobs_listed(jobs: &[&JobRow]) -> String {
    listed(jobs.iter().map(|job| job.job.as_str()))
}

/// Jobs that the orchestrator has more than once.
fn submitted_twice(run: &RunData, add: &mut AddWarning<'_>) {
    let jobs: Vec<&JobRow> = run.job_rows.iter().filter(|job| run.is_submitted_twice(job)).collect();
    if !jobs.is_empty() {
        let text = format!(
            "jobs with more than one orchestrator entry: {} ({}): SAS Viya accepted each of them more than once. Their figures \
             are those of the newest entry, and their output may have been written twice",
            jobs.len(),
            jobs_listed(&jobs)
        );
        add("submitted_twice", text);
    }
}

/// Jobs that ran in another context, or waited in another queue, than planned.
fn wrong_environment(run: &RunData, plan: &ArmPlan, add: &mut AddWarning<'_>) {
    let arm = &plan.name;
    type Value = fn(&JobRow) -> &Option<String>;
    let values: [(&str, &Option<String>, Value, &str, &str); 2] = [
        (
            "wrong_context",
            &plan.context,
            |job| &job.context,
            "context",
            "they say nothing about the context of the arm",
        ),
        ("wrong_queue", &plan.queue, |job| &job.queue, "queue", "they waited for other hosts than planned"),
    ];
    for (code, planned, of, kind, effect) in values {
        let Some(planned) = planned else { continue };
        let differs = |job: &&JobRow| of(job).as_ref().is_some_and(|found| found != planned);
        let jobs: Vec<&JobRow> = run.of(arm).filter(differs).collect();
        if let Some(found) = jobs.first().and_then(|job| of(job).as_ref()) {
            let (count, listed) = (jobs.len(), jobs_listed(&jobs));
            let text = format!(
                "{arm}: {count} jobs were not in {kind} {planned:?} but e.g. in {found:?} ({listed}): {effect}"
            );
            add(code, text);
        }
    }
}

fn confounded(comparisons: &[ArmComparison], add: &mut AddWarning<'_>) {
    for comparison in comparisons.iter().filter(|comparison| comparison.kind == Difference::Mixed) {
        let (one, other) = (&comparison.baseline, &comparison.treatment);
        let text = format!(
            "{one} and {other} differ in concurrency and in context, so their difference is not the effect of the context \
             alone: run a third arm with the concurrency of {other} in the context of {one} (arms = \"three_way\")"
        );
        add("parallelism_confounded", text);
    }
}

fn too_few_rounds(run: &RunData, comparisons: &[ArmComparison], add: &mut AddWarning<'_>) {
    let rounds = |comparison: &ArmComparison| comparison.ratio.map_or(0, |ratio| ratio.rounds);
    let fewest = comparisons.iter().map(rounds).min().unwrap_or(0);
    if run.arms.len() < 2 || fewest >= LEAST_ROUNDS {
        return;
    }
    let had = match fewest {
        0 => "no round was completed by all arms".to_owned(),
        1 => "there was only one round".to_owned(),
        more => format!("there were only {more} rounds"),
    };
    let text = format!(
        "{had}: with fewer than {LEAST_ROUNDS} rounds, a difference cannot be told from chance (repeat = {LEAST_ROUNDS} or more)"
    );
    add("single_repeat", text);
}

/// Rounds in which two arms did not run the same jobs.
fn different_jobs(run: &RunData, comparisons: &[ArmComparison], add: &mut AddWarning<'_>) {
    let mut by_arm: BTreeMap<&str, BTreeMap<i64, Vec<&str>>> = BTreeMap::new();
    for job in &run.job_rows {
        by_arm.entry(&job.arm).or_default().entry(job.round).or_default().push(&job.job);
    }
    by_arm.values_mut().flat_map(BTreeMap::values_mut).for_each(|jobs| jobs.sort_unstable());
    for comparison in comparisons.iter().filter(|comparison| comparison.ratio.is_some()) {
        let (one, other) = (comparison.baseline.as_str(), comparison.treatment.as_str());
        let Some((ours, theirs)) = by_arm.get(one).zip(by_arm.get(other)) else { continue };
        let pairs = ours.iter().filter_map(|(round, jobs)| Some((round, jobs, theirs.get(round)?)));
        let differ: Vec<_> = pairs.filter(|(_, jobs, others)| jobs != others).collect();
        if let Some((round, jobs, others)) = differ.first() {
            let text = format!(
                "{one} and {other} did not run the same jobs in {} rounds (in round {round} {} and {} jobs): their times are \
                 of different work",
                differ.len(),
                jobs.len(),
                others.len()
            );
            add("jobs_differ", text);
        }
    }
}

/// Hosts that were added while an arm ran in the context with a fixed set of hosts.
fn scaled(run: &RunData, arms: &[ArmFigures], add: &mut AddWarning<'_>) {
    let Some(fixed) = run.fixed_context() else { return };
    for (plan, figures) in run.arms.iter().zip(arms) {
        let came: Vec<&HostFigures> = figures.hosts.iter().filter(|host| host.came).collect();
        if plan.context.as_deref() != Some(fixed) || came.is_empty() {
            continue;
        }
        let hosts = listed(came.iter().map(|host| host.host.as_str()));
        let first = came.iter().filter_map(|host| host.new_after_s).reduce(f64::min);
        let after = first.map_or_else(String::new, |seconds| {
            let (minutes, rest) = ((seconds / 60.0).floor(), (seconds % 60.0).floor());
            format!(" {minutes} min {rest:02.0} s after its first submission")
        });
        let text = format!(
            "{} ran in {fixed:?}, which should not scale, but {hosts} came while it ran{after}: it does not measure a fixed \
             set of hosts",
            plan.name
        );
        add("fixed_arm_scaled", text);
    }
}

/// Hosts that more than one arm used.
fn shared_hosts(arms: &[ArmFigures], add: &mut AddWarning<'_>) {
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for figures in arms {
        for host in &figures.hosts {
            users.entry(&host.host).or_default().push(&figures.arm);
        }
    }
    let mut by_arms: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
    for (host, arms) in users.into_iter().filter(|(_, arms)| arms.len() > 1) {
        by_arms.entry(arms).or_default().push(host);
    }
    for (arms, hosts) in by_arms {
        let (arms, hosts) = (arms.join(" and "), listed(hosts));
        add("shared_host", format!("{arms} ran jobs on {hosts}: the arms did not have separate hosts"));
    }
}

/// Hosts that were warm when an arm began on them, because another arm had used them.
fn warm_hosts(arms: &[ArmFigures], add: &mut AddWarning<'_>) {
    let first = |host: &HostFigures| host.first_round.zip(host.first_start_s).unwrap_or((i64::MAX, f64::INFINITY));
    for figures in arms {
        let (mut hosts, mut by) = (BTreeSet::new(), BTreeSet::new());
        for host in &figures.hosts {
            let used = |other: &HostFigures| other.host == host.host && first(other) < first(host);
            for before in arms.iter().filter(|other| other.arm != figures.arm && other.hosts.iter().any(used)) {
                hosts.insert(host.host.as_str());
                by.insert(before.arm.as_str());
            }
        }
        if !hosts.is_empty() {
            let (arm, hosts, by) = (&figures.arm, listed(hosts), listed(by));
            let text = format!(
                "{arm} began on {hosts} when {by} had used it already: the time to add the host and its cold start are not \
                 part of its time"
            );
            add("warm_host", text);
        }
    }
}

/// Hosts that had more jobs than cores for them.
fn packed_hosts(run: &RunData, arms: &[ArmFigures], add: &mut AddWarning<'_>) {
    let hosts = || arms.iter().flat_map(|figures| figures.hosts.iter().map(move |host| (figures.arm.as_str(), host)));
    let least = |hosts: &mut dyn Iterator<Item = (&str, &HostFigures)>| {
        hosts.filter_map(|(_, host)| host.running_to_cpu).reduce(f64::min).map(|ratio| ratio.max(1.0))
    };
    // The usual ratio is that of hosts with one job at a time, or that of the least busy host if it is not busy.
    let alone = least(&mut hosts().filter(|(_, host)| host.peak_concurrency == 1));
    let usual = alone.or_else(|| least(&mut hosts()).map(|ratio| ratio.min(UNPACKED)));
    // Without CPU seconds, the shortest time of the same job.
    let mut shortest: BTreeMap<&str, f64> = BTreeMap::new();
    for job in &run.job_rows {
        if let Some(running) = job.running_s.filter(|seconds| *seconds > 0.0) {
            let known = shortest.entry(&job.job).or_insert(running);
            *known = known.min(running);
        }
    }
    for (arm, host) in hosts().filter(|(_, host)| host.peak_concurrency > 1) {
        let found = match (host.running_to_cpu, usual) {
            (Some(ratio), Some(usual)) => (ratio >= PACKED * usual).then(|| {
                format!("they ran {ratio:.1} s for each CPU second, against {usual:.1} on a host that is not busy")
            }),
            _ => {
                let on_host = run.of(arm).filter(|job| job.host.as_deref() == Some(&host.host));
                let slower: Vec<f64> =
                    on_host.filter_map(|job| Some(job.running_s? / shortest.get(job.job.as_str())?)).collect();
                quantile(&slower, 0.5)
                    .filter(|median| *median >= PACKED)
                    .map(|median| format!("they ran {median:.1} times as long as the same jobs in their shortest run"))
            }
        };
        if let Some(found) = found {
            let (name, jobs) = (&host.host, host.peak_concurrency);
            let text = format!(
                "{arm}: {name} had {jobs} jobs at once, and {found}: its jobs waited for a core, so packing is part of the \
                 time of the arm"
            );
            add("packed_host", text);
        }
    }
}

/// Jobs whose orchestrator entry is missing, incomplete or not certain.
fn correlation(run: &RunData, plan: &ArmPlan, add: &mut AddWarning<'_>) {
    let arm = &plan.name;
    // A job that was never accepted cannot have an entry.
    let accepted: Vec<&JobRow> =
        run.of(arm).filter(|job| job.jes_created_s.is_some() || job.job_id.is_some()).collect();
    let is_missing = |job: &JobRow| {
        job.correlation.as_deref() == Some("none")
            || job.wlo_id.is_none() && job.wlo_submit_s.is_none() && job.wlo_start_s.is_none() && job.host.is_none()
    };
    let is_partial =
        |job: &JobRow| !is_missing(job) && job.completed() && (job.host.is_none() || job.on_host().is_none());
    let by_time = |job: &JobRow| job.correlation.as_deref() == Some("time");
    type Problem<'a> = (&'a str, &'a dyn Fn(&JobRow) -> bool, &'a str);
    let problems: [Problem<'_>; 3] = [
        ("missing_correlation", &is_missing, "have no orchestrator entry, so their phases and hosts are not known"),
        ("missing_correlation", &is_partial, "have an orchestrator entry without a host, or without times on it"),
        ("time_correlation", &by_time, "were matched with their orchestrator entry only by time, queue and user"),
    ];
    for (code, of, problem) in problems {
        let jobs: Vec<&JobRow> = accepted.iter().copied().filter(|job| of(job)).collect();
        if !jobs.is_empty() {
            let (count, all, listed) = (jobs.len(), accepted.len(), jobs_listed(&jobs));
            add(code, format!("{arm}: {count} of {all} jobs {problem} ({listed})"));
        }
    }
}

fn different_success(arms: &[ArmFigures], add: &mut AddWarning<'_>) {
    let share = |arm: &ArmFigures| arm.failed as f64 / arm.jobs.max(1) as f64;
    let Some(first) = arms.first() else { return };
    if arms.iter().any(|arm| (share(arm) - share(first)).abs() > 1e-9) {
        let counts: Vec<String> =
            arms.iter().map(|arm| format!("{} {} of {}", arm.arm, arm.failed, arm.jobs)).collect();
        let counts = counts.join(", ");
        add(
            "success_differs",
            format!("failed jobs: {counts}: failed jobs make an arm look faster or slower than it is"),
        );
    }
}
