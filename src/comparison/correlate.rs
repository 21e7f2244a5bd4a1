//! Finds each job's Workload Orchestrator entry: one listing for the whole run, exact names first. Nothing is invented:
//! a job without an entry says so.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use super::halt::Halt;
use crate::error::{Error, ErrorKind};
use crate::viya::ViyaClient;
use crate::viya::orchestrator::{self, Entry};

/// What entries are called whose names were not passed on.
const DEFAULT_PREFIX: &str = "sas-compute-server";

/// How a job's orchestrator entry was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correlation {
    /// By its name, `<unique name>-<uuid>`.
    Exact,
    /// The only entry of the same time (within 3 s), queue and user: where the server does not pass the name on.
    Time,
    /// Not found.
    None,
}

impl Correlation {
    /// `exact`, `time` or `none`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Time => "time",
            Self::None => "none",
        }
    }
}

/// What is known of a job whose entry is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The unique name it was submitted under.
    pub name: String,
    /// When the server took it.
    pub created: Option<DateTime<Utc>>,
    /// Whether it has ended: then the entry is complete only with its end.
    pub ended: bool,
    /// The queue of its context, where known.
    pub queue: Option<String>,
    /// Who submitted it, where known.
    pub user: Option<String>,
}

/// The unique name in an orchestrator name: what stands before `-<uuid>`.
pub fn prefix(name: &str) -> Option<&str> {
    let cut = name.len().checked_sub(37)?;
    let (prefix, tail) = (name.get(..cut)?, name.get(cut..)?);
    let uuid = tail.strip_prefix('-')?;
    let shaped = uuid.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    (shaped && !prefix.is_empty()).then_some(prefix)
}

/// Matches `wanted` with `entries`, in the order of `wanted`. `by_time` allows the fallback.
pub fn matches(wanted: &[Wanted], entries: &[Entry], by_time: bool) -> Vec<(Correlation, Option<Entry>)> {
    let mut named: HashMap<String, &Entry> = HashMap::new();
    for entry in entries {
        if let Some(prefix) = entry.name().and_then(prefix) {
            let kept = named.entry(prefix.to_ascii_lowercase()).or_insert(entry);
            // A name that was started again has a newer entry, which is the one that ended.
            if entry.id() > kept.id() {
                *kept = entry;
            }
        }
    }
    let mut found: Vec<(Correlation, Option<Entry>)> = wanted
        .iter()
        .map(|job| match named.get(&job.name.to_ascii_lowercase()) {
            Some(entry) => (Correlation::Exact, Some((*entry).clone())),
            None => (Correlation::None, None),
        })
        .collect();
    if by_time {
        let names: HashSet<String> = wanted.iter().map(|job| job.name.to_ascii_lowercase()).collect();
        // Where any name was passed on all are: what has another name is somebody else's then, however near it is.
        let passed_on = found.iter().any(|(correlation, _)| *correlation == Correlation::Exact);
        let may_be_ours = |entry: &Entry| match entry.name().and_then(prefix).map(str::to_ascii_lowercase) {
            Some(prefix) => !names.contains(&prefix) && (!passed_on || prefix == DEFAULT_PREFIX),
            None => true,
        };
        let free: Vec<&Entry> = entries.iter().filter(|entry| may_be_ours(entry)).collect();
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
    }
    found
}

fn is_candidate(job: &Wanted, entry: &Entry) -> bool {
    let near =
        job.created.zip(entry.submitted()).is_some_and(|(ours, theirs)| (theirs - ours).abs() <= TimeDelta::seconds(3));
    let same_user =
        job.user.as_deref().zip(entry.user()).is_none_or(|(ours, theirs)| ours.eq_ignore_ascii_case(theirs));
    near && same_user && job.queue.is_some() && job.queue.as_deref() == entry.queue()
}

/// The names of `wanted` that several jobs of the orchestrator have: the server was given the job more than once, or a
/// client of the server was.
fn entered_twice(wanted: &[Wanted], entries: &[Entry]) -> Vec<String> {
    let mut ids: HashMap<String, HashSet<Option<i64>>> = HashMap::new();
    for entry in entries {
        if let Some(prefix) = entry.name().and_then(prefix) {
            ids.entry(prefix.to_ascii_lowercase()).or_default().insert(entry.id());
        }
    }
    let twice = |job: &&Wanted| ids.get(&job.name.to_ascii_lowercase()).is_some_and(|ids| ids.len() > 1);
    wanted.iter().filter(twice).map(|job| job.name.clone()).collect()
}

/// What the orchestrator knows of the jobs.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// In the order of the jobs.
    pub found: Vec<(Correlation, Option<Entry>)>,
    /// Names that more than one entry has.
    pub twice: Vec<String>,
    /// Why it could not be read, if so.
    pub problem: Option<Error>,
}

/// Lists until every entry is found and complete, or `timeout` server seconds have passed; the reason is told where the
/// orchestrator could not be read, and what was found before is kept. SAS: the orchestrator's times are those of the
/// server, so the listing reaches back to a minute before the first job of ours by the server's clock, and to `oldest`
/// where the server does not tell when it took a job.
pub(super) async fn correlate(
    client: &ViyaClient,
    wanted: &[Wanted],
    oldest: DateTime<Utc>,
    timeout: f64,
    halt: &Halt,
) -> Account {
    if wanted.is_empty() {
        return Account::default();
    }
    let first = wanted.iter().map(|job| job.created).min().flatten();
    let since = first.map_or(oldest, |first| first - TimeDelta::seconds(60));
    let (started, mut pause, mut entries) = (Instant::now(), 1.0, Vec::new());
    // By name, as the pages come in: once every job has its entry, and the entry its end, no further page is asked for.
    let names: HashMap<String, bool> = wanted.iter().map(|job| (job.name.to_ascii_lowercase(), job.ended)).collect();
    loop {
        let (mut read, mut done) = (0, HashSet::new());
        let enough = |entries: &[Entry]| {
            for entry in &entries[read..] {
                if let Some(name) = entry.name().and_then(prefix).map(str::to_ascii_lowercase)
                    && names.get(&name).is_some_and(|ended| !ended || entry.ended().is_some())
                {
                    done.insert(name);
                }
            }
            read = entries.len();
            done.len() == names.len()
        };
        let listed = halt.in_grace(client.clock(), orchestrator::list_since(client, since, enough)).await;
        let problem = match listed {
            Some(Ok(listed)) => {
                entries = listed;
                None
            }
            Some(Err(e)) => Some(e),
            None => Some(Error::new(ErrorKind::Conflict, "the run was stopped before the orchestrator had answered")),
        };
        let whole = problem.is_none() && done.len() == names.len();
        // A proxy's page in place of an answer passes like an outage; what this user may not read stays so.
        let passes = |e: &Error| e.may_pass() || e.kind() == ErrorKind::Server;
        let left = timeout - client.clock().since(started);
        if whole || left <= 0.0 || halt.stopped() || problem.as_ref().is_some_and(|e| !passes(e)) {
            let (found, twice) = (matches(wanted, &entries, !whole), entered_twice(wanted, &entries));
            return Account { found, twice, problem };
        }
        halt.pause(client.clock(), left.min(pause)).await;
        pause = (pause * 1.5_f64).min(10.0);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const UUID: &str = "dd17f83c-887c-4e9c-8505-6296c0329891";

    fn entry(id: i64, name: &str, second: u32) -> Entry {
        Entry::new(&json!({"id": id, "request": {"name": name, "queue": "q", "user": "u"},
            "processingInfo": {"submitTime": format!("2025-09-15T20:45:{second:02}Z"), "executionHost": format!("h{id}")}}))
    }

    fn wanted(name: &str, second: u32) -> Wanted {
        let created = crate::viya::json::parse_time(&format!("2025-09-15T20:45:{second:02}.400Z"));
        Wanted { name: name.into(), created, ended: true, queue: Some("q".into()), user: Some("u".into()) }
    }

    fn ids(found: &[(Correlation, Option<Entry>)]) -> Vec<(Correlation, Option<i64>)> {
        found.iter().map(|(how, entry)| (*how, entry.as_ref().and_then(Entry::id))).collect()
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
        // A page that came twice is no second entry.
        let again = [&entries[..], &entries[..2]].concat();
        assert_eq!(entered_twice(&jobs, &again), ["cmasync11757"]);
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
        // Where names are passed on, an entry of another name is somebody else's.
        let (ours, near) = (entry(1, &format!("a-{UUID}"), 10), entry(3, &format!("nightly-{UUID}"), 30));
        let both = [wanted("a", 10), wanted("b", 30)];
        use Correlation::Exact;
        assert_eq!(ids(&matches(&both, &[ours.clone(), near], true)), [(Exact, Some(1)), (No, None)]);
        assert_eq!(ids(&matches(&both, &[ours, server(4, 30)], true)), [(Exact, Some(1)), (Time, Some(4))]);
        let elsewhere = [
            Wanted { queue: Some("other".into()), ..wanted("a", 11) },
            Wanted { user: Some("x".into()), ..wanted("a", 11) },
        ];
        assert!(ids(&matches(&elsewhere, &entries, true)).iter().all(|(how, _)| *how == No));
    }
}
