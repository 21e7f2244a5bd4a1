//! The files of jobs on the server: logs of failed jobs are fetched, and all jobs are deleted on request.

use std::path::Path;

use futures::{StreamExt as _, stream};

use super::files;
use super::records::{ArmRecord, JobRecord};
use crate::error::Result;
use crate::viya::{ViyaClient, jobs, logs};

/// Calls at the same time.
const CALLS: usize = 8;

/// Fetches the logs of failed jobs into `folder`, and adds their error lines to the records.
pub(super) async fn fetch_logs(client: &ViyaClient, records: &mut [ArmRecord], folder: &Path) {
    let failed = |job: &&mut JobRecord| job.job.is_some() && ["failed", "timedOut"].contains(&job.status.as_str());
    let jobs = records.iter_mut().flat_map(|record| &mut record.jobs).filter(failed);
    let calls: Vec<_> = jobs.map(|job| fetch_log(client, job, folder)).collect();
    stream::iter(calls).buffer_unordered(CALLS).collect::<Vec<()>>().await;
}

async fn fetch_log(client: &ViyaClient, record: &mut JobRecord, folder: &Path) {
    let Some(job) = record.job.as_ref() else { return };
    let found = match logs::fetch(client, job).await {
        Ok(None) => return,
        Ok(Some(log)) => {
            let path = folder.join(format!("{}.log", files::file_name(&record.unique_name)));
            let location = match std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, &log.text)) {
                Ok(()) => format!("its log is {}", path.display()),
                Err(e) => format!("its log cannot be written to {}: {e}", path.display()),
            };
            if log.errors.is_empty() { location } else { format!("{} ({location})", log.errors.join(" / ")) }
        }
        Err(e) => format!("its log cannot be read: {}", e.full_message()),
    };
    let known = record.error.take().map(|error| format!("{error}; ")).unwrap_or_default();
    record.error = Some(known + &found);
}

/// Deletes all jobs of the run from the server, with their logs and results.
pub(super) async fn delete_jobs(client: &ViyaClient, records: &[ArmRecord]) {
    let ids = records.iter().flat_map(|record| &record.jobs).filter_map(|job| Some(job.job.as_ref()?.id()));
    let calls: Vec<_> = ids.map(|id| jobs::delete(client, id)).collect();
    let deleted: Vec<_> = stream::iter(calls).buffer_unordered(CALLS).collect().await;
    let failed: Vec<_> = deleted.into_iter().filter_map(Result::err).collect();
    if let Some(e) = failed.first() {
        let (count, reason) = (failed.len(), e.full_message());
        tracing::warn!("{count} jobs could not be deleted from SAS Viya and stay until they expire there: {reason}");
    }
}
