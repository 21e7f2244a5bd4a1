//! Limits the history of the shared cursor, of which each turn is a commit with a file of its own.

use std::thread;

use arrow::array::{AsArray as _, BooleanArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;

use super::{SELECTED_AT, now};
use crate::delta::{NO_CHECK, Predicate, Retention, Rewrite, Table};
use crate::error::Result;
use crate::runtime::InFlight;

/// Commits between two compactions. That many files are read in milliseconds, and compacting them takes as long as a few
/// turns.
const COMPACT_EVERY: u64 = 250;
/// Commits between two checks of how long the history is.
const TRIM_EVERY: u64 = 10_000;
/// Selections that the history has after a check, if they are not older than [`LONGEST`]. Those that are made between two
/// checks are in addition to that.
const MOST_ROWS: usize = 1_000_000;
/// Microseconds for which selections are kept: 400 days.
const LONGEST: i64 = 400 * 24 * 3_600 * 1_000_000;
/// Hours for which compacted files are kept, for readers that use them.
const KEPT_HOURS: f64 = 24.0;

/// Starts in the background what is due after the commit of `version`. The selection does not wait for it.
pub(super) fn when_due(table: &Table, version: u64) {
    if !version.is_multiple_of(COMPACT_EVERY) {
        return;
    }
    let (table, in_flight) = (table.clone(), InFlight::begin());
    let work = move || {
        if version.is_multiple_of(TRIM_EVERY)
            && let Err(error) = trim(&table, now(), MOST_ROWS)
        {
            tracing::warn!(error = %error.full_message(), "the history of selections was not shortened; a later selection tries again");
        }
        if let Ok(retention) = Retention::hours(KEPT_HOURS) {
            table.maintain(retention); // logs failures
        }
        drop(in_flight);
    };
    // Without a thread, a later selection does it.
    let started = thread::Builder::new().name("jobrota-upkeep".to_owned()).spawn(work);
    drop(started);
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

fn times(rows: &RecordBatch) -> Option<&arrow::array::TimestampMicrosecondArray> {
    rows.column_by_name(SELECTED_AT)?.as_primitive_opt::<TimestampMicrosecondType>()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;
    use crate::selection::Selection;
    use crate::selection::cursor::{Cursor, Step};
    use crate::selection::state::{SelectionState, StateKey};
    use crate::storage::Storage;

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
        let cursor = Cursor::shared(root, &HashMap::new()).unwrap();
        for turn in 1..=600 {
            select(&cursor, turn);
        }
        // The last one that is due may be under way.
        assert!(crate::runtime::drain(std::time::Duration::from_secs(60)));
        let table = Table::open(&Storage::open(root, &HashMap::new()).unwrap(), "vm_selections").unwrap();
        assert_eq!(wait(cursor.counts(None)).len(), 600);
        let files = table.maintain(Retention::hours(KEPT_HOURS).unwrap()).files_before;
        assert!(files <= 350, "{files} files are left of 600");
        let again = Cursor::shared(root, &HashMap::new()).unwrap();
        assert_eq!(wait(again.read(|state| state.last_ticket)), 600);
    }

    #[test]
    fn old_and_surplus_selections_are_removed_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        let cursor = Cursor::shared(root, &HashMap::new()).unwrap();
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
        assert_eq!(wait(cursor.read(|state| state.last_ticket)), 9);
    }
}
