//! Where a conclusion would be unsafe, in plain words and with the numbers of the run.

use std::collections::BTreeMap;

use super::analysis::interval::LEAST_ROUNDS;
use super::analysis::{ArmFigures, ArmPlan, Gain, HostFigures, Kind, Observation, Run};

/// A host is packed when its jobs ran so many times as long for each CPU second as those of the host that was least so.
const PACKED: f64 = 2.0;
/// Running seconds for each CPU second that a job on a host of its own has at most, where no such host is there to tell.
/// Recorded: 1.24.
const UNPACKED: f64 = 1.5;

/// A reason to be careful with a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A stable name, such as `parallelism_confounded`.
    pub code: String,
    /// What it means for this run.
    pub text: String,
}

/// The warnings of a run, the weightiest first.
pub fn warnings(run: &Run, arms: &[ArmFigures], gains: &[Gain]) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |code: &str, text: String| found.push(Warning { code: code.into(), text });
    if let Some(why) = &run.broke_off {
        warn("broke_off", format!("the run broke off and is incomplete: {why}"));
    }
    if let Some(why) = &run.orchestrator_problem {
        warn(
            "orchestrator_unavailable",
            format!("the Workload Orchestrator could not be read, so phases and hosts are missing: {why}"),
        );
    }
    twice(run, &mut warn);
    for plan in &run.arms {
        treatment(run, plan, &mut warn);
    }
    confounded(gains, &mut warn);
    rounds(run, gains, &mut warn);
    different_jobs(run, gains, &mut warn);
    scaled(run, arms, &mut warn);
    shared(run, arms, &mut warn);
    packed(run, arms, &mut warn);
    for plan in &run.arms {
        evidence(run, plan, &mut warn);
    }
    outcome(arms, &mut warn);
    if run.resumed > 0 {
        let times = if run.resumed == 1 { "once".to_owned() } else { format!("{} times", run.resumed) };
        warn(
            "resumed",
            format!("the run was interrupted and resumed {times}: rounds that were done in two parts are not compared"),
        );
    }
    found
}

type Warn<'a> = dyn FnMut(&str, String) + 'a;

/// The first few names, and that there are more.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown}, …") } else { shown }
}

fn jobs_listed(jobs: &[&Observation]) -> String {
    listed(jobs.iter().map(|job| job.job.as_str()))
}

/// Jobs that the orchestrator has more than once, whatever a server or a proxy did with a submission.
fn twice(run: &Run, warn: &mut Warn<'_>) {
    let jobs: Vec<&Observation> = run.observations.iter().filter(|job| run.is_submitted_twice(job)).collect();
    if !jobs.is_empty() {
        warn(
            "submitted_twice",
            format!(
                "jobs with more than one orchestrator entry: {} ({}): SAS Viya took each of them more than once, its figures \
                 are those of the newest entry, and what it writes may have been written twice",
                jobs.len(),
                jobs_listed(&jobs)
            ),
        );
    }
}

/// Whether the jobs ran where they were meant to.
fn treatment(run: &Run, plan: &ArmPlan, warn: &mut Warn<'_>) {
    let arm = &plan.name;
    if let Some(context) = &plan.context {
        let elsewhere: Vec<&Observation> =
            run.of(arm).filter(|job| job.context.as_ref().is_some_and(|found| found != context)).collect();
        if let Some(found) = elsewhere.first().and_then(|job| job.context.as_ref()) {
            warn(
                "wrong_context",
                format!(
                    "{arm}: {} jobs did not run in {context:?} but e.g. in {found:?} ({}): they tell nothing about it",
                    elsewhere.len(),
                    jobs_listed(&elsewhere)
                ),
            );
        }
    }
    if let Some(queue) = &plan.queue {
        let elsewhere: Vec<&Observation> =
            run.of(arm).filter(|job| job.queue.as_ref().is_some_and(|found| found != queue)).collect();
        if let Some(found) = elsewhere.first().and_then(|job| job.queue.as_ref()) {
            warn(
                "wrong_queue",
                format!(
                    "{arm}: {} jobs were not in queue {queue:?} of their context but e.g. in {found:?} ({}): they waited for \
                     other hosts than they should have",
                    elsewhere.len(),
                    jobs_listed(&elsewhere)
                ),
            );
        }
    }
}

fn confounded(gains: &[Gain], warn: &mut Warn<'_>) {
    for gain in gains.iter().filter(|gain| gain.kind == Kind::Mixed) {
        let (one, other) = (&gain.baseline, &gain.treatment);
        warn(
            "parallelism_confounded",
            format!(
                "{one} and {other} differ in concurrency and in context, so that what was gained cannot be put down to the \
                 context: run a third arm with the concurrency of {other} in the context of {one} (arms = \"three_way\")"
            ),
        );
    }
}

fn rounds(run: &Run, gains: &[Gain], warn: &mut Warn<'_>) {
    if run.arms.len() < 2 {
        return;
    }
    let fewest = gains.iter().map(|gain| gain.ratio.map_or(0, |ratio| ratio.rounds)).min().unwrap_or(0);
    if fewest < LEAST_ROUNDS {
        let had = match fewest {
            0 => "no round was done to its end by all arms".to_owned(),
            1 => "there was one round only".to_owned(),
            more => format!("there were {more} rounds only"),
        };
        warn(
            "single_repeat",
            format!(
                "{had}: how much of a difference is chance cannot be told below {LEAST_ROUNDS} rounds (repeat = {LEAST_ROUNDS} \
                 or more)"
            ),
        );
    }
}

/// Arms that were meant to run on a fixed set of hosts, and did not.
fn scaled(run: &Run, arms: &[ArmFigures], warn: &mut Warn<'_>) {
    let Some(fixed) = run.fixed_context() else { return };
    for (plan, figures) in run.arms.iter().zip(arms) {
        let came: Vec<&HostFigures> = figures.hosts.iter().filter(|host| host.came).collect();
        if plan.context.as_deref() != Some(fixed) || came.is_empty() {
            continue;
        }
        let hosts = listed(came.iter().map(|host| host.host.as_str()));
        let after =
            came.iter().filter_map(|host| host.new_after_s).reduce(f64::min).map_or_else(String::new, |seconds| {
                format!(
                    " {} min {:02.0} s after its first submission",
                    (seconds / 60.0).floor(),
                    (seconds % 60.0).floor()
                )
            });
        warn(
            "fixed_arm_scaled",
            format!(
                "{} ran in {fixed:?}, which is meant not to scale, but {hosts} came while it ran{after}: it is no measure of \
                 a fixed set of hosts",
                plan.name
            ),
        );
    }
}

/// Hosts that more than one arm used, and who found them warm.
fn shared(run: &Run, arms: &[ArmFigures], warn: &mut Warn<'_>) {
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
        warn(
            "shared_host",
            format!(
                "{} all ran jobs on {}: the arms did not have hosts of their own",
                arms.join(" and "),
                listed(hosts.into_iter())
            ),
        );
    }
    let first = |host: &HostFigures| host.first_round.zip(host.first_start_s).unwrap_or((i64::MAX, f64::INFINITY));
    let sequence = run.arms.iter().zip(arms);
    for (plan, figures) in sequence {
        let mut warmed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for host in &figures.hosts {
            for before in arms.iter().filter(|other| other.arm != plan.name) {
                if before.hosts.iter().any(|other| other.host == host.host && first(other) < first(host)) {
                    warmed.entry(&host.host).or_default().push(&before.arm);
                }
            }
        }
        if warmed.is_empty() {
            continue;
        }
        let by = listed(warmed.values().flatten().copied().collect::<std::collections::BTreeSet<_>>().into_iter());
        warn(
            "warm_host",
            format!(
                "{} began on {} when {by} had used it already: it did not have to pay for the host's coming and cold start",
                plan.name,
                listed(warmed.keys().copied())
            ),
        );
    }
}

/// Hosts that had more jobs than they had cores for.
fn packed(run: &Run, arms: &[ArmFigures], warn: &mut Warn<'_>) {
    let hosts = || arms.iter().flat_map(|figures| figures.hosts.iter().map(move |host| (figures.arm.as_str(), host)));
    let least = |hosts: &mut dyn Iterator<Item = (&str, &HostFigures)>| {
        hosts.filter_map(|(_, host)| host.running_to_cpu).reduce(f64::min).map(|ratio| ratio.max(1.0))
    };
    // A host with one job at a time says what these jobs need; where there is none, the least busy does, if it is not busy.
    let alone = least(&mut hosts().filter(|(_, host)| host.peak_concurrency == 1));
    let usual = alone.or_else(|| least(&mut hosts()).map(|ratio| ratio.min(UNPACKED)));
    // Without CPU times: how long the same jobs ran elsewhere.
    let mut quickest: BTreeMap<&str, f64> = BTreeMap::new();
    for job in &run.observations {
        if let Some(running) = job.running_s.filter(|seconds| *seconds > 0.0) {
            let known = quickest.entry(&job.job).or_insert(running);
            *known = known.min(running);
        }
    }
    for (arm, host) in hosts().filter(|(_, host)| host.peak_concurrency > 1) {
        let found = match (host.running_to_cpu, usual) {
            (Some(ratio), Some(usual)) => (ratio >= PACKED * usual).then(|| {
                format!("they ran {ratio:.1} s for each CPU second, against {usual:.1} on a host that is not busy")
            }),
            _ => {
                let slower: Vec<f64> = run
                    .of(arm)
                    .filter(|job| job.host.as_deref() == Some(&host.host))
                    .filter_map(|job| Some(job.running_s? / quickest.get(job.job.as_str())?))
                    .collect();
                super::statistics::quantile(&slower, 0.5)
                    .filter(|median| *median >= PACKED)
                    .map(|median| format!("they ran {median:.1} times as long as the same jobs at their quickest"))
            }
        };
        if let Some(found) = found {
            warn(
                "packed_host",
                format!(
                    "{arm}: {} had {} jobs at once, and {found}: its jobs waited for a core, so the arm's time tells of packing \
                     as well",
                    host.host, host.peak_concurrency
                ),
            );
        }
    }
}

/// Rounds in which two arms did not run the same jobs.
fn different_jobs(run: &Run, gains: &[Gain], warn: &mut Warn<'_>) {
    let mut by_arm: BTreeMap<&str, BTreeMap<i64, Vec<&str>>> = BTreeMap::new();
    for job in &run.observations {
        by_arm.entry(&job.arm).or_default().entry(job.round).or_default().push(&job.job);
    }
    by_arm.values_mut().flat_map(BTreeMap::values_mut).for_each(|jobs| jobs.sort_unstable());
    for gain in gains.iter().filter(|gain| gain.ratio.is_some()) {
        let Some((one, other)) = by_arm.get(gain.baseline.as_str()).zip(by_arm.get(gain.treatment.as_str())) else {
            continue;
        };
        let differ: Vec<i64> = one
            .iter()
            .filter(|(round, jobs)| other.get(round).is_some_and(|others| others != *jobs))
            .map(|(round, _)| *round)
            .collect();
        if let Some(round) = differ.first() {
            let count = |jobs: &BTreeMap<i64, Vec<&str>>| jobs.get(round).map_or(0, Vec::len);
            warn(
                "jobs_differ",
                format!(
                    "{} and {} did not run the same jobs in {} rounds (in round {round} {} and {} jobs): their times are of \
                     different work",
                    gain.baseline,
                    gain.treatment,
                    differ.len(),
                    count(one),
                    count(other)
                ),
            );
        }
    }
}

/// Jobs of which the orchestrator's account is missing or not certain.
fn evidence(run: &Run, plan: &ArmPlan, warn: &mut Warn<'_>) {
    let arm = &plan.name;
    // What was never accepted cannot have an entry.
    let accepted: Vec<&Observation> =
        run.of(arm).filter(|job| job.jes_created_s.is_some() || job.job_id.is_some()).collect();
    let nothing = |job: &Observation| {
        job.correlation.as_deref() == Some("none")
            || job.wlo_id.is_none() && job.wlo_submit_s.is_none() && job.wlo_start_s.is_none() && job.host.is_none()
    };
    let missing: Vec<&Observation> = accepted.iter().copied().filter(|job| nothing(job)).collect();
    if !missing.is_empty() {
        warn(
            "missing_correlation",
            format!(
                "{arm}: {} of {} jobs have no orchestrator entry ({}): their phases and hosts are not known",
                missing.len(),
                accepted.len(),
                jobs_listed(&missing)
            ),
        );
    }
    let partly = |job: &Observation| job.completed() && (job.host.is_none() || job.on_host().is_none());
    let partly: Vec<&Observation> = accepted.iter().copied().filter(|job| !nothing(job) && partly(job)).collect();
    if !partly.is_empty() {
        warn(
            "missing_correlation",
            format!(
                "{arm}: of {} of {} jobs the orchestrator's entry has no host, or not when they were on it ({})",
                partly.len(),
                accepted.len(),
                jobs_listed(&partly)
            ),
        );
    }
    let by_time: Vec<&Observation> =
        accepted.iter().copied().filter(|job| job.correlation.as_deref() == Some("time")).collect();
    if !by_time.is_empty() {
        warn(
            "time_correlation",
            format!(
                "{arm}: {} jobs were matched with their orchestrator entry by time, queue and user only ({})",
                by_time.len(),
                jobs_listed(&by_time)
            ),
        );
    }
}

fn outcome(arms: &[ArmFigures], warn: &mut Warn<'_>) {
    let share = |arm: &ArmFigures| arm.failed as f64 / arm.jobs.max(1) as f64;
    let (Some(first), true) = (arms.first(), arms.len() > 1) else { return };
    if arms.iter().any(|arm| (share(arm) - share(first)).abs() > 1e-9) {
        let counts = arms.iter().map(|arm| format!("{} {} of {}", arm.arm, arm.failed, arm.jobs));
        warn(
            "success_differs",
            format!(
                "failed jobs: {}: jobs that failed make an arm look faster or slower than it is",
                counts.collect::<Vec<_>>().join(", ")
            ),
        );
    }
}
