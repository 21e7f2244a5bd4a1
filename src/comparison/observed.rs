//! The records of a finished run as an analysis takes them.

use chrono::{DateTime, Utc};

use super::analysis::{ArmPlan, Observation, Run};
use super::record::{ArmRecord, JobRecord};

/// The run: arms in their order, and every job of theirs. Moments are seconds since the first creation of a job.
pub(super) fn run(records: &[ArmRecord]) -> Run {
    let jobs = || records.iter().flat_map(|arm| &arm.jobs);
    let zero = jobs().filter_map(JobRecord::created).min();
    let first_id = jobs().filter_map(|job| job.entry.as_ref()?.id()).min();
    let arms = records.iter().map(|record| ArmPlan {
        name: record.arm.name.clone(),
        context: Some(record.arm.context.clone()),
        queue: record.context.queue.clone(),
        mode: Some(record.arm.mode),
        concurrent: Some(record.arm.in_flight(record.jobs.iter().map(|job| job.sequence).max().unwrap_or(0))),
        interrupted: record
            .rounds
            .iter()
            .filter(|round| round.interrupted)
            .map(|round| i64::from(round.number))
            .collect(),
    });
    let observe = |arm: &ArmRecord, job: &JobRecord| observation(arm, job, zero, first_id);
    let observations = records.iter().flat_map(|arm| arm.jobs.iter().map(move |job| observe(arm, job)));
    Run { arms: arms.collect(), observations: observations.collect(), ..Run::default() }
}

fn observation(arm: &ArmRecord, job: &JobRecord, zero: Option<DateTime<Utc>>, first_id: Option<i64>) -> Observation {
    let since = |at: Option<DateTime<Utc>>| Some((at? - zero?).as_seconds_f64());
    let (entry, server) = (job.entry.as_ref(), job.job.as_ref());
    let measured = |name: &str| entry?.measured(name);
    let reserved = |name: &str| entry?.reserved(name);
    let suspended = ["totalTimeSuspAdmin", "totalTimeSuspThresh", "totalTimeSuspPreempt"];
    Observation {
        arm: arm.arm.name.clone(),
        sequence: i64::try_from(job.sequence).unwrap_or(i64::MAX),
        job: job.config.name.clone(),
        // Where the server does not tell, it is not known: what was asked for is in the arm.
        context: server.and_then(|server| server.result("COMPUTE_CONTEXT")).map(str::to_owned),
        queue: entry.and_then(|entry| entry.queue()).map(str::to_owned),
        host: job.host().map(str::to_owned),
        state: job.status.clone(),
        jes_created_s: since(job.created()),
        jes_end_s: since(job.ended()),
        jes_elapsed_ms: job.elapsed_ms().map(|ms| ms.round() as i64),
        client_duration_s: job.observed_duration,
        wlo_id: entry.and_then(|entry| Some(entry.id()? - first_id?)),
        wlo_submit_s: since(entry.and_then(|entry| entry.submitted())),
        wlo_start_s: since(entry.and_then(|entry| entry.started())),
        wlo_end_s: since(entry.and_then(|entry| entry.ended())),
        pending_s: job.pending(),
        starting_s: job.starting(),
        running_s: job.running(),
        reserved_cores: reserved("cores"),
        reserved_memory: reserved("memory"),
        max_cpu_s: measured("maxCpuTime"),
        max_clock_s: measured("maxClockTime"),
        max_memory: measured("maxMemory"),
        max_io_total: measured("maxIoTotal"),
        max_io_rate: measured("maxIoRate"),
        max_page_rate: measured("maxPageRate"),
        round: i64::from(job.round),
        correlation: server.map(|_| job.correlation.as_str().to_owned()),
        submit_latency_s: job.submit_latency,
        observe_lag_s: job.observe_lag(),
        requeue_count: entry.and_then(|entry| entry.number("requeueCount")).map(|count| count as i64),
        suspended_s: entry.map(|entry| suspended.iter().filter_map(|name| entry.number(name)).sum()),
        error: job.error.clone(),
        unique_name: Some(job.unique_name.clone()),
        job_id: server.map(|server| server.id().to_owned()),
    }
    .rounded()
}
