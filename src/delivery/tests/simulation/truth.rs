//! What really happened, and whether the tables and AutoSys agree with it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;

use super::actors::Scenario;
use super::contents::Contents;
use super::threads::Actor;
use super::world::OBSERVER;
use crate::delivery::{Attempt, AttemptOutcome};
use crate::ledger::LedgerTable::Notifications;
use crate::ledger::tables::{DELIVERIES, RETRIES, YES};
use crate::ledger::{JobLedger, LedgerRow, LedgerTable, RowFilter};

pub(super) const LOST: &str = "no row is lost";
pub(super) const TWICE: &str = "no row is sent twice before a mark said that it is in doubt";
pub(super) const ORDER: &str = "the rows of a job arrive in their order";
pub(super) const STUCK: &str = "nothing is stuck";
pub(super) const LOG: &str = "each version follows the one before, and epochs rise";

/// What a call that logged a row said. Identical rows have one each.
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
    /// The status that AutoSys shows of a job, and when it shows the last event.
    pub(super) shown: HashMap<String, String>,
    pub(super) shows_at: HashMap<String, Duration>,
    /// The files that were deleted, because maintenance deletes files that earlier versions need.
    pub(super) deleted: HashMap<Path, Bytes>,
    pub(super) attempts_version: u64,
    pub(super) is_retry_state_deleted: bool,
    pub(super) is_drained: bool,
    /// Killed updaters whose successors are to be started.
    pub(super) to_replace: u32,
}

/// What is wrong with the logs.
fn check_logs(contents: &Contents<'_>, truth: &Truth, found: &mut Vec<String>) {
    let is_whole = |(table, _): &(&String, _)| !truth.is_retry_state_deleted || *table != RETRIES.name;
    for (table, entries) in contents.logs.iter().filter(is_whole) {
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

/// The flags of each row that is there, of identical ones together.
type Flags = BTreeMap<(&'static str, LedgerRow), Vec<String>>;

/// Whether the ledger reads what its tables contain.
fn check_reading(scenario: &Scenario, flags: &Flags, attempts: &[(u64, Attempt)], found: &mut Vec<String>) {
    let ledger = JobLedger::over(scenario.storage(OBSERVER)).expect("the ledger can be opened");
    let mut read: BTreeMap<(&'static str, LedgerRow), usize> = BTreeMap::new();
    for table in LedgerTable::ALL {
        let Ok(batch) = ledger.rows(table, &RowFilter::default()) else { continue };
        for row in JobLedger::rows_from_batch(table, &batch).expect("rows") {
            *read.entry((table.name(), row)).or_default() += 1;
        }
    }
    if read != flags.iter().map(|(row, flags)| (row.clone(), flags.len())).collect() {
        found.push(format!("{LOST}: the ledger reads {read:?}, but its tables have {flags:?}"));
    }
    let read = ledger.attempts(Notifications).expect("readable").len();
    if read != attempts.len() {
        found.push(format!("{LOST}: {read} attempts are read, but there are {}", attempts.len()));
    }
}

/// What is wrong at the end.
pub(super) fn check(scenario: &Scenario) -> Vec<String> {
    let mut found = Vec::new();
    let deleted = scenario.world.state().truth.deleted.clone();
    let contents = Contents::new(&scenario.memory, &deleted);
    let attempts = contents.attempts(DELIVERIES.name, Notifications);
    let mut flags = Flags::new();
    for table in LedgerTable::ALL {
        flags.extend(contents.flags(table).into_iter().map(|(row, flags)| ((table.name(), row), flags)));
    }
    if scenario.world.below(8) == 0 {
        check_reading(scenario, &flags, &attempts, &mut found);
    }
    let state = scenario.world.state();
    let truth = &state.truth;
    check_logs(&contents, truth, &mut found);
    if !truth.is_drained {
        found.push(format!("{STUCK}: rows are pending after the last updater"));
    }
    // How many of identical rows must be there, and can be.
    let mut logged: BTreeMap<(&'static str, LedgerRow), (usize, usize)> = BTreeMap::new();
    for promise in &truth.promises {
        let (least, most) = logged.entry((promise.table.name(), promise.row.clone())).or_default();
        *least += usize::from(promise.is_there == Some(true));
        *most += usize::from(promise.is_there != Some(false));
    }
    for ((table, row), (least, most)) in logged {
        let name = row.file_name.clone().unwrap_or_default();
        let its: Vec<&(u64, Attempt)> = attempts.iter().filter(|(_, attempt)| attempt.row == row).collect();
        let there = flags.remove(&(table, row)).unwrap_or_default();
        if !(least..=most).contains(&there.len()) {
            found.push(format!("{LOST}: {name} is {} times in {table}, not {least} to {most}", there.len()));
        }
        if table != Notifications.name() {
            continue;
        }
        let acknowledged = there.iter().filter(|flag| *flag == YES).count();
        let arrived = truth.sends.iter().filter(|send| send.file == name && send.has_arrived).count();
        let is_settled = |outcome: &AttemptOutcome| {
            matches!(outcome, AttemptOutcome::ByHand | AttemptOutcome::Superseded | AttemptOutcome::Expired)
        };
        let settled = its.iter().filter(|(_, attempt)| is_settled(&attempt.outcome)).count();
        if acknowledged > arrived + settled {
            found.push(format!("{LOST}: {name} has the flag YES {acknowledged} times, but arrived {arrived} times"));
        }
        check_sends(&name, there.len(), &its, truth, &mut found);
    }
    if let Some(((table, row), _)) = flags.into_iter().next() {
        found.push(format!("{LOST}: {table} has {row:?}, which no call logged"));
    }
    check_order(truth, &attempts, &mut found);
    found
}

/// Whether each send of `count` identical rows has a mark, and one more a mark that says that one before is in doubt.
fn check_sends(name: &str, count: usize, attempts: &[&(u64, Attempt)], truth: &Truth, found: &mut Vec<String>) {
    let mut arrived = 0;
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
        if arrived >= count && !says_doubt {
            found.push(format!("{TWICE}: {name} arrived before its {}. mark, which does not say so", before + 1));
        }
        let (mark, _) = marks.last().expect("there is one");
        let delivered = known.filter(|(version, a)| a.outcome == AttemptOutcome::Delivered && version < mark).count();
        if delivered >= count && !is_redriven {
            found.push(format!("{TWICE}: {name} is sent again after it was recorded as delivered"));
        }
        arrived += usize::from(send.has_arrived);
    }
}

/// Whether no row arrives before an earlier one of its job, and none again after a later one.
fn check_order(truth: &Truth, attempts: &[(u64, Attempt)], found: &mut Vec<String>) {
    // A row that an operator settled, or returned before it was sent, and one of which it is not known when it was logged.
    let is_excused = |send: &Send| {
        let file = Some(send.file.as_str());
        let its = attempts.iter().filter(|(_, a)| a.row.file_name.as_deref() == file);
        its.map(|(version, a)| (*version, &a.outcome)).any(|(version, outcome)| {
            *outcome == AttemptOutcome::ByHand || (*outcome == AttemptOutcome::Redriven && version <= send.marks)
        }) || truth.promises.iter().any(|p| p.row.file_name.as_deref() == file && p.is_there.is_none())
    };
    let arrived: Vec<&str> = truth.arrivals.iter().map(|number| truth.sends[*number].file.as_str()).collect();
    for (at, (file, number)) in arrived.iter().zip(&truth.arrivals).enumerate() {
        let (job, place) = file.split_once('-').expect("a job and a number");
        let later = arrived[..at]
            .iter()
            .find(|before| before.split_once('-').is_some_and(|(other, before)| other == job && before > place));
        if let Some(later) = later
            && !is_excused(&truth.sends[*number])
        {
            let again = if arrived[..at].contains(file) { "again " } else { "" };
            found.push(format!("{ORDER}: {file} arrives {again}after {later}"));
        }
    }
}
