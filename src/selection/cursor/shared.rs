//! The cursor in a Delta table, shared by all who name the same directory.
//!
//! A step is one commit. It has a row for each turn, and a transaction id for each value of the state that changes. The first
//! process to commit has the turn; the others read the new state and decide again. The values are part of the table's
//! snapshot, so that finding whose turn it is does not read the history.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use arrow::array::{AsArray as _, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;

use super::{Decide, Step, TurnCount, now};
use crate::columns::{number, text, time};
use crate::delta::{ConditionalWrite, NO_CHECK, Predicate, Rewrite, SnapshotView, Table, TableSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::columns::new_batch;
use crate::ledger::if_exists;
use crate::ledger::tables::SELECTIONS;
use crate::runtime::{lock, this_process};
use crate::selection::state::{SelectionState, StateKey};
use crate::storage::{Storage, StorageOptions};

/// The column that has the time of a turn.
const SELECTED_AT: &str = "selected_at";

/// Commits between two checks of how long the history is.
const TRIM_EVERY: u64 = 10_000;
/// Selections that the history has after a check, if they are not older than [`LONGEST`]. Those that are made between two
/// checks are in addition to that.
const MOST_ROWS: usize = 1_000_000;
/// Microseconds for which selections are kept: 400 days.
const LONGEST: i64 = 400 * 24 * 3_600 * 1_000_000;
static SPEC: LazyLock<TableSpec> = LazyLock::new(|| {
    let columns = "vm string, ip_address string, nic_name string, probe string, rtt_ms double, selected_at timestamp, \
                   selected_by string";
    // Every turn is a commit, and old versions of a table that only grows are of no use.
    TableSpec::new(SELECTIONS, &[], "interval 1 days", columns)
});

/// A handle on the shared cursor. The table is opened at the first use, and again in a forked child.
pub(in crate::selection) struct SharedCursor {
    root: String,
    options: StorageOptions,
    opened: Mutex<Option<Opened>>,
}

struct Opened {
    pid: u32,
    table: Table,
    /// The version of the table that `state` is of, and which table that was; None before the first read.
    version: Option<Version>,
    state: SelectionState,
}

/// The table's incarnation and version.
type Version = (u64, u64);

fn version_of(view: &SnapshotView<'_>) -> Version {
    (view.incarnation(), view.version())
}

impl SharedCursor {
    pub(super) fn new(root: &str, options: StorageOptions) -> Self {
        Self { root: root.to_owned(), options, opened: Mutex::new(None) }
    }

    pub(super) fn read<T>(&self, newest: bool, read: impl FnOnce(&SelectionState) -> T) -> Result<T> {
        if newest && self.existing()?.is_none() {
            return Ok(read(&SelectionState::default()));
        }
        let mut opened = lock(&self.opened);
        let opened = self.open(&mut opened)?;
        if newest || opened.version.is_none() {
            let Opened { table, version, state, .. } = &mut *opened;
            // A guarded append that writes nothing reads the newest version.
            table.append_conditionally(&mut |view| self::read(view, version, state).map(|()| None))?;
        }
        Ok(read(&opened.state))
    }

    pub(super) fn advance<T>(&self, decide: &mut impl Decide<T>) -> Result<T> {
        // Locked while committing: threads of one process would only conflict with each other.
        let mut opened = lock(&self.opened);
        let Opened { table, version, state, .. } = self.open(&mut opened)?;
        let mut decided: Option<(Version, Step, T)> = None;
        let committed = table.append_conditionally(&mut |view| {
            read(view, version, state)?;
            let (step, value) = decide(state);
            let guard = (!step.is_empty()).then(|| guard(&step)).transpose();
            decided = Some((version_of(view), step, value));
            guard
        })?;
        let ((incarnation, decided_on), step, value) = decided
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the shared cursor was advanced without a decision"))?;
        if let Some(committed) = committed {
            if committed == decided_on + 1 {
                state.apply(step.changes);
                *version = Some((incarnation, committed));
            }
            // In the background: the selection does not wait for it.
            table.maintain_in_background(Some(committed), move |table| {
                if committed.is_multiple_of(TRIM_EVERY)
                    && let Err(error) = trim(table, now(), MOST_ROWS)
                {
                    tracing::warn!(error = %error.full_message(), "the history of selections was not shortened; a later selection tries again");
                }
            });
        }
        Ok(value)
    }

    pub(super) fn counts(&self, since: Option<i64>) -> Result<HashMap<String, TurnCount>> {
        let Some(table) = self.existing()? else { return Ok(HashMap::new()) };
        let time = since.map(|since| (SELECTED_AT.to_owned(), Some(since), None));
        let rows = table.scan(&Predicate { time, ..Predicate::default() })?;
        let vms = rows.column_by_name("vm").and_then(|vms| vms.as_string_opt::<i32>());
        let (vms, times) = vms.zip(times(&rows)).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the table {SELECTIONS} at {} has other columns than jobrota's: name another directory as the cursor",
                    self.root
                ),
            )
        })?;
        let mut counts: HashMap<String, TurnCount> = HashMap::new();
        for (vm, at) in vms.iter().zip(times) {
            let vm = vm.unwrap_or_default();
            match counts.get_mut(vm) {
                Some(count) => count.add(at),
                None => counts.entry(vm.to_owned()).or_default().add(at),
            }
        }
        Ok(counts)
    }

    /// The table, if there is one.
    fn existing(&self) -> Result<Option<Table>> {
        if let Some(opened) = lock(&self.opened).as_ref().filter(|opened| opened.is_usable()) {
            return Ok(Some(opened.table.clone()));
        }
        if_exists(Table::open(&Storage::open(&self.root, self.options.clone())?, SELECTIONS))
    }

    fn open<'a>(&self, opened: &'a mut Option<Opened>) -> Result<&'a mut Opened> {
        if let Some(current) = opened.take().filter(Opened::is_usable) {
            return Ok(opened.insert(current));
        }
        let table = Table::open_or_create(&Storage::open(&self.root, self.options.clone())?, &SPEC)?;
        Ok(opened.insert(Opened { pid: std::process::id(), table, version: None, state: SelectionState::default() }))
    }
}

impl Opened {
    /// Whether the table still is there. That of the parent uses the parent's threads, which a forked child does not have.
    fn is_usable(&self) -> bool {
        self.pid == std::process::id() && !self.table.is_gone()
    }
}

/// Brings `state`, which is that of `version`, up to date with `view`.
fn read(view: &SnapshotView<'_>, version: &mut Option<Version>, state: &mut SelectionState) -> Result<()> {
    let now = version_of(view);
    if *version == Some(now) {
        return Ok(());
    }
    let values = |(id, value): (String, i64)| Some((StateKey::of(&id)?, value));
    let known = version.take().filter(|(incarnation, _)| *incarnation == now.0);
    let transactions = match known.map(|(_, known)| view.transactions_since(known)).transpose()?.flatten() {
        Some(newer) => newer,
        None => {
            *state = SelectionState::default();
            view.transactions()?.into_iter().collect()
        }
    };
    state.apply(transactions.into_iter().filter_map(values).collect());
    *version = Some(now);
    Ok(())
}

/// The commit of `step`.
fn guard(step: &Step) -> Result<ConditionalWrite> {
    let turns = &step.turns;
    let now = now();
    let by = this_process();
    let columns = vec![
        text(turns, |turn| Some(&turn.vm)),
        text(turns, |turn| Some(&turn.ip_address)),
        text(turns, |turn| turn.nic_name.as_deref()),
        text(turns, |turn| Some(&turn.probe)),
        number(turns, |turn| Some(turn.rtt_ms)),
        time(turns, |_| Some(now)),
        text(turns, |_| Some(&by)),
    ];
    // The last value of each key: one commit may have an id only once.
    let last: HashMap<String, i64> = step.changes.iter().map(|(key, value)| (key.key(), *value)).collect();
    Ok(ConditionalWrite { batch: new_batch(&SPEC, columns)?, transactions: last.into_iter().collect() })
}

/// Removes selections that are older than [`LONGEST`] at `now`, and all but the newest `most`.
fn trim(table: &Table, now: i64, most: usize) -> Result<u64> {
    let mut oldest = now.saturating_sub(LONGEST);
    let rows = table.scan(&Predicate::default())?;
    if let Some(times) = times(&rows) {
        let mut times: Vec<i64> = times.iter().flatten().collect();
        if times.len() > most {
            let first_kept = times.len() - most;
            oldest = oldest.max(*times.select_nth_unstable(first_kept).1);
        }
    }
    let old = Predicate { time: Some((SELECTED_AT.to_owned(), None, Some(oldest))), ..Predicate::default() };
    let mut decide = |rows: &RecordBatch| {
        let remove: BooleanArray = match times(rows) {
            Some(times) => times.iter().map(|at| Some(at.is_some_and(|at| at < oldest))).collect(),
            None => return Ok(None),
        };
        Ok(Some(Rewrite { remove, add: rows.slice(0, 0) }))
    };
    table.rewrite(&old, NO_CHECK, &mut decide, &mut || {})
}

fn times(rows: &RecordBatch) -> Option<&TimestampMicrosecondArray> {
    rows.column_by_name(SELECTED_AT)?.as_primitive_opt::<TimestampMicrosecondType>()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::delta::Retention;
    use crate::selection::Selection;
    use crate::selection::cursor::Cursor;

    fn wait<T>(work: impl Future<Output = Result<T>>) -> T {
        crate::runtime::block_on(work).unwrap()
    }

    fn select(cursor: &Cursor, turn: i64) {
        let decide = move |_: &SelectionState| {
            let turns = vec![Selection::example(&format!("vm{turn}"))];
            (Step { turns, changes: vec![(StateKey::LastTicket, turn)] }, ())
        };
        wait(cursor.advance(decide));
    }

    #[test]
    fn the_history_is_compacted_as_it_grows_and_the_position_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        let cursor = Cursor::shared(root, &StorageOptions::default()).unwrap();
        for turn in 1..=600 {
            select(&cursor, turn);
        }
        // The last one that is due may be under way.
        assert!(crate::runtime::drain(std::time::Duration::from_secs(60)));
        let table = Table::open(&Storage::open(root, &HashMap::new()).unwrap(), "vm_selections").unwrap();
        assert_eq!(wait(cursor.counts(None)).len(), 600);
        let files = table.maintain(Retention::hours(24.0).unwrap()).files_before;
        assert!(files <= 350, "{files} files are left of 600");
        let again = Cursor::shared(root, &StorageOptions::default()).unwrap();
        assert_eq!(wait(again.read(false, |state| state.last_ticket)), 600);
    }

    #[test]
    fn old_and_surplus_selections_are_removed_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        let cursor = Cursor::shared(root, &StorageOptions::default()).unwrap();
        for turn in 1..=9 {
            select(&cursor, turn);
        }
        let table = Table::open(&Storage::open(root, &HashMap::new()).unwrap(), "vm_selections").unwrap();
        let left = || wait(cursor.counts(None)).into_keys().collect::<BTreeSet<String>>();
        assert_eq!(trim(&table, now(), 9).unwrap(), 0);
        assert_eq!(trim(&table, now(), 4).unwrap(), 5);
        assert_eq!(left().into_iter().collect::<Vec<_>>(), ["vm6", "vm7", "vm8", "vm9"]);
        assert_eq!(trim(&table, now() + LONGEST - 60_000_000, 4).unwrap(), 0);
        assert_eq!(trim(&table, now() + LONGEST + 1_000_000, 4).unwrap(), 4);
        assert!(left().is_empty());
        assert_eq!(wait(cursor.read(false, |state| state.last_ticket)), 9);
    }
}
