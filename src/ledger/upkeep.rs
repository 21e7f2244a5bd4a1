//! Keeps tables small that are written in every delivery cycle and hold a few rows, without anybody's having to think of it.

use std::thread;

use crate::delta::{Retention, Table, UnderWay};

/// How long the logs of these tables are kept: nobody reads their older versions.
pub(super) const LOG_RETENTION: &str = "interval 1 days";
/// Commits between two cleanings.
const CLEAN_EVERY: u64 = 250;
/// Hours for which files are kept for readers that have just begun.
const KEPT_HOURS: f64 = 24.0;

/// Starts what the commit of version `committed` makes due, in the background.
pub(super) fn when_due(table: &Table, committed: Option<u64>) {
    if !committed.is_some_and(|version| version.is_multiple_of(CLEAN_EVERY)) {
        return;
    }
    let (table, under_way) = (table.clone(), UnderWay::one());
    let work = move || {
        if let Ok(retention) = Retention::hours(KEPT_HOURS) {
            table.maintain(retention); // says itself what it could not do
        }
        drop(under_way);
    };
    // Without a thread, a later commit does it.
    let started = thread::Builder::new().name("jobrota-upkeep".to_owned()).spawn(work);
    drop(started);
}
