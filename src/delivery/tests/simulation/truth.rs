//! What really happened, and whether the tables and AutoSys agree with it.

use std::collections::{BTreeMap, HashMap};

use futures::{FutureExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::actors::Scenario;
use super::threads::Actor;
use super::world::OBSERVER;
use crate::delivery::{Attempt, AttemptOutcome};
use crate::ledger::LedgerTable::Notifications;
use crate::ledger::tables::{DELIVERIES, FLAG};
use crate::ledger::{JobLedger, LedgerRow, LedgerTable, RowFilter, columns};
use crate::storage::file_names::entry_version;

pub(super) const LOST: &str = "no row is lost";
pub(super) const TWICE: &str = "no row is sent twice before a mark said that it is in doubt";
pub(super) const ORDER: &str = "the rows of a job arrive in their order";
pub(super) const STUCK: &str = "nothing is stuck";
pub(super) const LOG: &str = "each version follows the one before, and epochs rise";

/// What a call that logged a row said.
pub(super) struct Promise {
    pub(super) table: LedgerTable,
    pub(super) row: LedgerRow,
    /// None: it is not known whether it is there.
    pub(super) is_there: Option<bool>,
}

/// One event that a process sent. The file name tells the row.
pub(super) struct Send {
    pub(super) file: String,
    pub(super) actor: Actor,
    /// The version of the attempts table when it began.
    pub(super) marks: u64,
    pub(super) has_arrived: bool,
}

#[derive(Default)]
pub(super) struct Truth {
    pub(super) promises: Vec<Promise>,
    pub(super) sends: Vec<Send>,
    /// The sends whose events arrived, in this order.
    pub(super) arrivals: Vec<usize>,
    pub(super) attempts_version: u64,
    pub(super) is_drained: bool,
    /// Killed updaters whose successors are to be started.
    pub(super) to_replace: u32,
}

/// The log entries of each table, by version.
fn logs(memory: &InMemory) -> BTreeMap<String, BTreeMap<u64, Vec<serde_json::Value>>> {
    let files = memory.list(None).try_collect::<Vec<_>>().now_or_never().expect("at once").expect("listed");
    let mut logs: BTreeMap<String, BTreeMap<u64, Vec<serde_json::Value>>> = BTreeMap::new();
    for file in files {
        let path = file.location;
        let Some(version) = path.filename().and_then(entry_version) else { continue };
        let table = path.parts().nth(1).expect("a table").as_ref().to_owned();
        let read = async { memory.get(&path).await.expect("read").bytes().await.expect("read") };
        let bytes = read.now_or_never().expect("at once");
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let actions = lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect();
        logs.entry(table).or_default().insert(version, actions);
    }
    logs
}

/// What is wrong with the logs.
fn check_logs(logs: &BTreeMap<String, BTreeMap<u64, Vec<serde_json::Value>>>, found: &mut Vec<String>) {
    for (table, entries) in logs {
        if !entries.keys().copied().eq(0..entries.len() as u64) {
            found.push(format!("{LOG}: {table} has the versions {:?}", entries.keys()));
        }
        let mut last = HashMap::new();
        for transaction in entries.values().flatten().filter_map(|action| action.get("txn")) {
            if !transaction["appId"].as_str().is_some_and(|app| app.starts_with("jobrota.delivery/")) {
                continue;
            }
            let (app, version) = (transaction["appId"].to_string(), transaction["version"].as_i64().unwrap_or(-1));
            if last.insert(app.clone(), version).is_some_and(|before| before >= version) {
                found.push(format!("{LOG}: {table} has {app} {version} after a later one"));
            }
        }
    }
}

/// The attempts with the versions that have them, in their order.
fn attempts(ledger: &JobLedger, entries: Option<&BTreeMap<u64, Vec<serde_json::Value>>>) -> Vec<(u64, Attempt)> {
    let Some(entries) = entries else { return Vec::new() };
    let Some((attempts, _)) = ledger.attempts_since(Notifications, 0, &|_| false).expect("readable") else {
        return Vec::new();
    };
    let rows = |action: &serde_json::Value| -> Option<usize> {
        let stats: serde_json::Value = serde_json::from_str(action["add"]["stats"].as_str()?).ok()?;
        stats["numRecords"].as_u64().map(|rows| rows as usize)
    };
    let versions = entries.iter().flat_map(|(version, actions)| {
        let count: usize = actions.iter().filter_map(rows).sum();
        std::iter::repeat_n(*version, count)
    });
    let versions: Vec<u64> = versions.collect();
    assert_eq!(versions.len(), attempts.len(), "the attempts of all versions");
    versions.into_iter().zip(attempts).collect()
}

/// What is wrong at the end.
pub(super) fn check(scenario: &Scenario) -> Vec<String> {
    let mut found = Vec::new();
    let logs = logs(&scenario.memory);
    check_logs(&logs, &mut found);
    let ledger = JobLedger::over(scenario.storage(OBSERVER)).expect("the ledger can be opened");
    let attempts = attempts(&ledger, logs.get(DELIVERIES.name));
    let mut flags: HashMap<(LedgerTable, LedgerRow), Vec<String>> = HashMap::new();
    for table in LedgerTable::ALL {
        let Ok(batch) = ledger.rows(table, &RowFilter::default()) else { continue };
        let texts = columns::texts(&batch, FLAG).expect("flags");
        for (at, row) in JobLedger::rows_from_batch(table, &batch).expect("rows").into_iter().enumerate() {
            flags.entry((table, row)).or_default().push(texts.value(at).to_owned());
        }
    }
    let state = scenario.world.state();
    let truth = &state.truth;
    if !truth.is_drained {
        found.push(format!("{STUCK}: rows are pending after the last updater"));
    }
    for promise in &truth.promises {
        let there = flags.remove(&(promise.table, promise.row.clone())).unwrap_or_default();
        let name = promise.row.file_name.clone().unwrap_or_default();
        if match promise.is_there {
            Some(is_there) => there.len() != usize::from(is_there),
            None => there.len() > 1,
        } {
            found.push(format!("{LOST}: {name} is {} times in {:?}", there.len(), promise.table));
        }
        let of_row = |attempt: &&(u64, Attempt)| attempt.1.row == promise.row;
        let is_settled = attempts.iter().filter(of_row).any(|(_, a)| a.outcome == AttemptOutcome::ByHand);
        let has_arrived = truth.sends.iter().any(|send| send.file == name && send.has_arrived);
        let is_acknowledged = there.iter().any(|flag| flag == "YES");
        if promise.table == Notifications && is_acknowledged && !has_arrived && !is_settled {
            found.push(format!("{LOST}: {name} has the flag YES, but never arrived"));
        }
    }
    if let Some(((table, row), _)) = flags.into_iter().next() {
        found.push(format!("{LOST}: {table:?} has {row:?}, which no call logged"));
    }
    for promise in truth.promises.iter().filter(|promise| promise.table == Notifications) {
        let its: Vec<&(u64, Attempt)> = attempts.iter().filter(|(_, a)| a.row == promise.row).collect();
        check_sends(promise, &its, truth, &mut found);
    }
    check_order(truth, &attempts, &mut found);
    found
}

/// Whether each send of a row has a mark, and a second one a mark that says that the first is in doubt.
fn check_sends(promise: &Promise, attempts: &[&(u64, Attempt)], truth: &Truth, found: &mut Vec<String>) {
    let name = promise.row.file_name.clone().unwrap_or_default();
    let mut has_arrived = false;
    for (before, send) in truth.sends.iter().filter(|send| send.file == name).enumerate() {
        let known = attempts.iter().filter(|(version, _)| *version <= send.marks);
        let marks: Vec<_> = known.clone().filter(|(_, a)| a.outcome == AttemptOutcome::Sending).collect();
        if marks.len() <= before {
            let actor = send.actor;
            found.push(format!("{TWICE}: process {actor} sends {name} for the {}. time without a mark", before + 1));
            return;
        }
        // A later mark need not repeat it: the attempt before it may have failed for certain.
        let says_doubt = marks.iter().any(|(_, a)| a.detail.as_deref().is_some_and(|d| d.contains("unknown")));
        let is_redriven = known.clone().any(|(_, a)| a.outcome == AttemptOutcome::Redriven);
        if has_arrived && !says_doubt && !is_redriven {
            found.push(format!("{TWICE}: {name} arrived before its {}. mark, which does not say so", before + 1));
        }
        let (mark, _) = marks.last().expect("there is one");
        if known.clone().any(|(version, a)| a.outcome == AttemptOutcome::Delivered && version < mark) && !is_redriven {
            found.push(format!("{TWICE}: {name} is sent again after it was recorded as delivered"));
        }
        has_arrived |= send.has_arrived;
    }
}

/// Whether no row arrives before an earlier one of its job, and none again after a later one.
fn check_order(truth: &Truth, attempts: &[(u64, Attempt)], found: &mut Vec<String>) {
    let is_excused = |file: &str| {
        let its = attempts.iter().filter(|(_, a)| a.row.file_name.as_deref() == Some(file));
        let outcomes: Vec<&AttemptOutcome> = its.map(|(_, a)| &a.outcome).collect();
        outcomes.iter().any(|o| matches!(o, AttemptOutcome::Parked | AttemptOutcome::ByHand))
            || truth.promises.iter().any(|p| p.row.file_name.as_deref() == Some(file) && p.is_there.is_none())
    };
    let arrived: Vec<&str> = truth.arrivals.iter().map(|number| truth.sends[*number].file.as_str()).collect();
    for (at, file) in arrived.iter().enumerate() {
        let (job, number) = file.split_once('-').expect("a job and a number");
        let later = arrived[..at]
            .iter()
            .find(|before| before.split_once('-').is_some_and(|(other, before)| other == job && before > number));
        if let Some(later) = later
            && !is_excused(file)
        {
            let again = if arrived[..at].contains(file) { "again " } else { "" };
            found.push(format!("{ORDER}: {file} arrives {again}after {later}"));
        }
    }
}
