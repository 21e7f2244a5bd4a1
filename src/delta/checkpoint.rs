//! Checkpoints, so that opening a table reads tens of log entries and not thousands. Written in the background: no caller
//! waits for one.

use std::num::NonZero;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use delta_kernel::{Snapshot, SnapshotRef};

use super::group_commit::{self, UnderWay};
use super::legacy_protocol::LogReader;
use super::shared::Inner;
use crate::storage::KernelEngine;

/// Commits between checkpoints when the table does not say: Delta's default.
const DEFAULT_INTERVAL: u64 = 10;

/// After a checkpoint, none is written for so many times as long as it took, and at most so long: those who commit as fast
/// as they can shall not share the machine with one checkpoint after the other.
const REST: u32 = 10;
const LONGEST_REST: Duration = Duration::from_secs(2);

/// The checkpoint that is to be written next, and whether one is being written.
#[derive(Default)]
pub(super) struct Due {
    next: Option<SnapshotRef>,
    busy: bool,
}

/// Starts to write the checkpoint that falls due with the commit of `version`. While one is being written, only the
/// newest that falls due waits for its turn.
pub(super) fn when_due(table: &Arc<Inner>, version: u64) {
    let known = table.known();
    let interval = known.table_properties().checkpoint_interval.map_or(DEFAULT_INTERVAL, NonZero::get);
    if version == 0 || !version.is_multiple_of(interval) {
        return;
    }
    let mut due = table.due.lock().unwrap_or_else(PoisonError::into_inner);
    due.next = Some(known);
    if due.busy {
        return;
    }
    let (worker, under_way) = (Arc::clone(table), UnderWay::one());
    let work = move || {
        while let Some(snapshot) = next(&worker) {
            let started = Instant::now();
            in_background(&worker, snapshot);
            group_commit::pause(started.elapsed().saturating_mul(REST).min(LONGEST_REST));
        }
        drop(under_way);
    };
    // A thread that is none of a runtime's, see `group_commit`. Without one, the next checkpoint makes up for this.
    due.busy = thread::Builder::new().name("jobrota-checkpoint".to_owned()).spawn(work).is_ok();
}

fn next(table: &Inner) -> Option<SnapshotRef> {
    let mut due = table.due.lock().unwrap_or_else(PoisonError::into_inner);
    let next = due.next.take();
    due.busy = next.is_some();
    next
}

fn in_background(table: &Inner, snapshot: SnapshotRef) {
    let Ok(engine) = table.storage.engine() else { return };
    let checkpointed = write(engine, snapshot);
    // Commits went on meanwhile: what is known is exchanged for the same version, seen from the new checkpoint.
    if let Ok(current) = Snapshot::builder_from(checkpointed).build(&LogReader::new(engine)) {
        table.exchange(&current);
    }
}

/// Writes a checkpoint of `snapshot` unless there is one; gives back the snapshot to go on with.
///
/// Never fails: what is in the table is durable already, and the next checkpoint that falls due makes up for it.
pub(super) fn write(engine: &KernelEngine, snapshot: SnapshotRef) -> SnapshotRef {
    match snapshot.checkpoint(engine, None) {
        Ok((_, checkpointed)) => checkpointed,
        Err(error) => {
            let table = snapshot.table_root();
            let version = snapshot.version();
            tracing::warn!(%table, version, %error, "the checkpoint was not written; the table is complete without it");
            snapshot
        }
    }
}
