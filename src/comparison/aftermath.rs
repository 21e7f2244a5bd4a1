//! What is done once the jobs have ended: their orchestrator entries, the logs of those that failed, and cleaning up.

use std::path::Path;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::correlate::{Account, Wanted, correlate};
use super::halt::Halt;
use super::record::{ArmRecord, JobRecord};
use crate::error::Error;
use crate::viya::jobs::Job;
use crate::viya::{ViyaClient, jobs, logs};

/// Calls at a time.
const CALLS: usize = 8;

/// Gives every accepted job its orchestrator entry; returns the names that several entries have, and why none could be read.
/// No job of the run is older than `oldest`.
pub(super) async fn correlate_all(
    client: &ViyaClient,
    records: &mut [ArmRecord],
    oldest: DateTime<Utc>,
    timeout: f64,
    halt: &Halt,
) -> (Vec<String>, Option<Error>) {
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
    let Account { found, twice, problem } = correlate(client, &wanted, oldest, timeout, halt).await;
    let jobs = records.iter_mut().flat_map(|record| &mut record.jobs).filter(|job| job.job.is_some());
    for (job, (correlation, entry)) in jobs.zip(found) {
        (job.correlation, job.entry) = (correlation, entry);
    }
    (twice, problem)
}

/// Fetches the logs of jobs that failed into `folder`, and quotes the errors in them.
pub(super) async fn fetch_logs(client: &ViyaClient, records: &mut [ArmRecord], folder: &Path) {
    let failed = |job: &&mut JobRecord| job.job.is_some() && ["failed", "timedOut"].contains(&job.status.as_str());
    let mut waiting = records.iter_mut().flat_map(|record| &mut record.jobs).filter(failed);
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < CALLS {
            let Some(job) = waiting.next() else { break };
            running.push(fetch_log(client, job, folder));
        }
        if running.next().await.is_none() {
            return;
        }
    }
}

async fn fetch_log(client: &ViyaClient, record: &mut JobRecord, folder: &Path) {
    let Some(job) = record.job.as_ref() else { return };
    let noted = match logs::fetch(client, job).await {
        Ok(None) => return,
        Ok(Some(log)) => {
            let path = folder.join(format!("{}.log", record.unique_name));
            let kept = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, &log.text));
            let place = match kept {
                Ok(()) => format!("its log is {}", path.display()),
                Err(e) => format!("its log cannot be written to {}: {e}", path.display()),
            };
            if log.errors.is_empty() { place } else { format!("{} ({place})", log.errors.join(" / ")) }
        }
        Err(e) => format!("its log cannot be read: {}", e.full_message()),
    };
    let said = record.error.take().map(|said| format!("{said}; ")).unwrap_or_default();
    record.error = Some(said + &noted);
}

/// Deletes all jobs of the run from the server, with their logs and results.
pub(super) async fn delete_jobs(client: &ViyaClient, records: &[ArmRecord]) {
    let ids = records.iter().flat_map(|record| &record.jobs).filter_map(|job| Some(job.job.as_ref()?.id()));
    let (mut waiting, mut running, mut left) = (ids, FuturesUnordered::new(), 0);
    loop {
        while running.len() < CALLS {
            let Some(id) = waiting.next() else { break };
            running.push(jobs::delete(client, id));
        }
        match running.next().await {
            Some(Ok(())) => {}
            Some(Err(e)) => {
                left += 1;
                tracing::debug!("a job could not be deleted: {}", e.full_message());
            }
            None => break,
        }
    }
    if left > 0 {
        tracing::warn!("{left} jobs could not be deleted from SAS Viya: they stay until they expire there");
    }
}
