//! Finds the Workload Orchestrator entry of each job: one listing for the whole run, exact names first. A job without an
//! entry has the correlation `none`.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use super::follow::RunContext;
use super::records::{ArmRecord, Correlation};
use crate::error::{Error, ErrorKind};
use crate::viya::jobs::Job;
use crate::viya::orchestrator::{self, OrchestratorEntry};

/// The name of entries if the server does not pass on the names of jobs.
const DEFAULT_PREFIX: &str = "sas-compute-server";

/// A job whose entry is wanted.
#[derive(Debug, Clone)]
pub struct JobToMatch {
    /// The unique name that it was submitted under.
    pub name: String,
    /// When the server accepted it.
    pub created: Option<DateTime<Utc>>,
    /// Whether it has ended. Its entry is then complete only with an end.
    pub ended: bool,
    /// The queue of its context, if known.
    pub queue: Option<String>,
    /// The user who submitted it, if known.
    pub user: Option<String>,
}

/// The unique name in the name of an entry: the part before `-<uuid>`.
pub fn prefix(name: &str) -> Option<&str> {
    let (prefix, tail) = name.split_at_checked(name.len().checked_sub(37)?)?;
    let has_uuid = uuid::Uuid::try_parse(tail.strip_prefix('-')?).is_ok();
    (has_uuid && !prefix.is_empty()).then_some(prefix)
}

fn unique_name(entry: &OrchestratorEntry) -> Option<String> {
    entry.name().and_then(prefix).map(str::to_ascii_lowercase)
}

/// Matches `wanted` with `entries`, in the order of `wanted`. `by_time` allows a match by time, queue and user.
pub fn matches(
    wanted: &[JobToMatch],
    entries: &[OrchestratorEntry],
    by_time: bool,
) -> Vec<(Correlation, Option<OrchestratorEntry>)> {
    let mut named: HashMap<String, &OrchestratorEntry> = HashMap::new();
    for entry in entries {
        if let Some(name) = unique_name(entry) {
            let newest = named.entry(name).or_insert(entry);
            // A job that the orchestrator started again has a newer entry, and this one has the end.
            if entry.id > newest.id {
                *newest = entry;
            }
        }
    }
    let mut found: Vec<(Correlation, Option<OrchestratorEntry>)> = wanted
        .iter()
        .map(|job| match named.get(&job.name.to_ascii_lowercase()) {
            Some(entry) => (Correlation::Exact, Some((*entry).clone())),
            None => (Correlation::None, None),
        })
        .collect();
    if !by_time {
        return found;
    }
    let names: HashSet<String> = wanted.iter().map(|job| job.name.to_ascii_lowercase()).collect();
    // If the server passed on any name, it passed on all: an entry with another name is then not from this run.
    let passed_on = found.iter().any(|(correlation, _)| *correlation == Correlation::Exact);
    let may_be_ours = |entry: &&OrchestratorEntry| {
        unique_name(entry).is_none_or(|name| !names.contains(&name) && (!passed_on || name == DEFAULT_PREFIX))
    };
    let free: Vec<&OrchestratorEntry> = entries.iter().filter(may_be_ours).collect();
    let candidates: Vec<Vec<usize>> = wanted
        .iter()
        .zip(&found)
        .map(|(job, (correlation, _))| match correlation {
            Correlation::None => (0..free.len()).filter(|at| is_candidate(job, free[*at])).collect(),
            _ => Vec::new(),
        })
        .collect();
    for (at, mine) in candidates.iter().enumerate() {
        if let [only] = mine[..]
            && candidates.iter().filter(|others| others.contains(&only)).count() == 1
        {
            found[at] = (Correlation::Time, Some(free[only].clone()));
        }
    }
    found
}

fn is_candidate(job: &JobToMatch, entry: &OrchestratorEntry) -> bool {
    let near =
        job.created.zip(entry.submitted()).is_some_and(|(ours, theirs)| (theirs - ours).abs() <= TimeDelta::seconds(3));
    let same_user =
        job.user.as_deref().zip(entry.user()).is_none_or(|(ours, theirs)| ours.eq_ignore_ascii_case(theirs));
    near && same_user && job.queue.is_some() && job.queue.as_deref() == entry.queue()
}

/// The names of `wanted` that more than one entry has: the server accepted the job more than once.
fn submitted_twice(wanted: &[JobToMatch], entries: &[OrchestratorEntry]) -> Vec<String> {
    let mut ids: HashMap<String, HashSet<Option<i64>>> = HashMap::new();
    for entry in entries {
        if let Some(name) = unique_name(entry) {
            ids.entry(name).or_default().insert(entry.id);
        }
    }
    let twice = |job: &&JobToMatch| ids.get(&job.name.to_ascii_lowercase()).is_some_and(|ids| ids.len() > 1);
    wanted.iter().filter(twice).map(|job| job.name.clone()).collect()
}

/// Adds the entries to the accepted jobs of a run. Returns the names that more than one entry has, and the error if the
/// orchestrator could not be read.
pub(super) async fn attach_entries(run: &RunContext<'_>, records: &mut [ArmRecord]) -> (Vec<String>, Option<Error>) {
    let mut wanted = Vec::new();
    for record in records.iter() {
        wanted.extend(record.jobs.iter().filter(|job| job.job.is_some()).map(|job| JobToMatch {
            name: job.unique_name.clone(),
            created: job.created(),
            ended: job.ended().is_some(),
            queue: record.context.queue.clone(),
            user: job.job.as_ref().and_then(|job: &Job| job.text("createdBy")).map(str::to_owned),
        }));
    }
    if wanted.is_empty() {
        return (Vec::new(), None);
    }
    let (entries, complete, problem) = list_entries(run, &wanted).await;
    let jobs = records.iter_mut().flat_map(|record| &mut record.jobs).filter(|job| job.job.is_some());
    for (job, (correlation, entry)) in jobs.zip(matches(&wanted, &entries, !complete)) {
        (job.correlation, job.entry) = (correlation, entry);
    }
    (submitted_twice(&wanted, &entries), problem)
}

/// Lists entries until every job has a complete one (the second value), or the correlation timeout has passed. The third
/// value is the last error of the orchestrator; the entries are then those of an earlier listing.
///
/// SAS: the times of the orchestrator are those of the server, so the listing starts one minute before the first job by the
/// clock of the server, or at the oldest possible time if the server does not return when it accepted a job.
async fn list_entries(run: &RunContext<'_>, wanted: &[JobToMatch]) -> (Vec<OrchestratorEntry>, bool, Option<Error>) {
    let (client, control) = (run.client, run.control);
    let first = wanted.iter().map(|job| job.created).min().flatten();
    let since = first.map_or_else(|| run.oldest(), |first| first - TimeDelta::seconds(60));
    let (started, mut pause, mut entries) = (Instant::now(), 1.0, Vec::new());
    // Whether the job has ended, by name. No further page is requested when every job has its entry, with an end.
    let names: HashMap<String, bool> = wanted.iter().map(|job| (job.name.to_ascii_lowercase(), job.ended)).collect();
    loop {
        let (mut read, mut done) = (0, HashSet::new());
        let enough = |entries: &[OrchestratorEntry]| {
            for entry in &entries[read..] {
                if let Some(name) = unique_name(entry)
                    && names.get(&name).is_some_and(|ended| !ended || entry.ended().is_some())
                {
                    done.insert(name);
                }
            }
            read = entries.len();
            done.len() == names.len()
        };
        let listed = control.with_grace(orchestrator::list_since(client, since, enough)).await;
        let problem = match listed {
            Some(Ok(listed)) => {
                entries = listed;
                None
            }
            Some(Err(e)) => Some(e),
            None => Some(Error::new(ErrorKind::Conflict, "the run was stopped before the orchestrator answered")),
        };
        let complete = problem.is_none() && done.len() == names.len();
        // An outage, or a page of a proxy in place of an answer, can pass. A missing permission does not.
        let permanent = problem.as_ref().is_some_and(|e| !e.can_recover() && e.kind() != ErrorKind::Server);
        let left = run.options.correlation_timeout - client.clock.since(started);
        if complete || permanent || left <= 0.0 || control.stop.is_stopped() {
            return (entries, complete, problem);
        }
        control.sleep(left.min(pause)).await;
        pause = (pause * 1.5_f64).min(10.0);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const UUID: &str = "dd17f83c-887c-4e9c-8505-6296c0329891";

    fn entry(id: i64, name: &str, second: u32) -> OrchestratorEntry {
        OrchestratorEntry::new(&json!({"id": id, "request": {"name": name, "queue": "q", "user": "u"},
            "processingInfo": {"submitTime": format!("2025-09-15T20:45:{second:02}Z"), "executionHost": format!("h{id}")}}))
    }

    fn wanted(name: &str, second: u32) -> JobToMatch {
        let created = crate::viya::json::parse_time(&format!("2025-09-15T20:45:{second:02}.400Z"));
        JobToMatch { name: name.into(), created, ended: true, queue: Some("q".into()), user: Some("u".into()) }
    }

    fn ids(found: &[(Correlation, Option<OrchestratorEntry>)]) -> Vec<(Correlation, Option<i64>)> {
        found.iter().map(|(how, entry)| (*how, entry.as_ref().and_then(|entry| entry.id))).collect()
    }

    #[test]
    fn names_that_begin_alike_do_not_collide() {
        let entries = [
            entry(1, &format!("cmasync11757-{UUID}"), 1),
            entry(2, &format!("cmasync111757-{UUID}"), 1),
            entry(3, &format!("CMASYNC21757-{UUID}"), 1),
            entry(4, "cmasync31757-not-a-uuid", 1),
            entry(5, &format!("cmasync11757-{UUID}"), 2),
        ];
        let jobs = ["cmasync11757", "cmasync111757", "cmasync21757", "cmasync31757"].map(|name| wanted(name, 30));
        use Correlation::{Exact, None as No};
        assert_eq!(
            ids(&matches(&jobs, &entries, true)),
            [(Exact, Some(5)), (Exact, Some(2)), (Exact, Some(3)), (No, None)]
        );
        assert_eq!(prefix("é"), None);
        assert_eq!(prefix(&format!("-{UUID}")), None);
        // A page that was listed twice adds no second entry.
        let again = [&entries[..], &entries[..2]].concat();
        assert_eq!(submitted_twice(&jobs, &again), ["cmasync11757"]);
    }

    #[test]
    fn time_takes_only_a_unique_candidate() {
        let server = |id, second| entry(id, &format!("sas-compute-server-{UUID}"), second);
        let entries = [server(1, 10), server(2, 30), server(3, 31), server(4, 50)];
        let jobs = [wanted("a", 11), wanted("b", 30), wanted("c", 50), wanted("d", 51), wanted("e", 20)];
        use Correlation::{None as No, Time};
        let found = ids(&matches(&jobs, &entries, true));
        assert_eq!(found, [(Time, Some(1)), (No, None), (No, None), (No, None), (No, None)]);
        assert!(ids(&matches(&jobs, &entries, false)).iter().all(|(how, _)| *how == No));
        // Where names are passed on, an entry of another name is not from this run.
        let (ours, near) = (entry(1, &format!("a-{UUID}"), 10), entry(3, &format!("nightly-{UUID}"), 30));
        let both = [wanted("a", 10), wanted("b", 30)];
        use Correlation::Exact;
        assert_eq!(ids(&matches(&both, &[ours.clone(), near], true)), [(Exact, Some(1)), (No, None)]);
        assert_eq!(ids(&matches(&both, &[ours, server(4, 30)], true)), [(Exact, Some(1)), (Time, Some(4))]);
        let elsewhere = [
            JobToMatch { queue: Some("other".into()), ..wanted("a", 11) },
            JobToMatch { user: Some("x".into()), ..wanted("a", 11) },
        ];
        assert!(ids(&matches(&elsewhere, &entries, true)).iter().all(|(how, _)| *how == No));
    }
}
