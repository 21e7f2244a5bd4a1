//! Checkpoints, so that opening a table reads tens of log entries instead of thousands. A background thread writes them:
//! no caller waits for one.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use delta_kernel::{Snapshot, SnapshotRef};

use crate::delta::log::log_reader;
use crate::delta::state::TableState;
use crate::runtime::{InFlight, environment, lock, sleep_unless_exiting};

/// Commits between checkpoints if the table does not say: Delta's default.
const DEFAULT_INTERVAL: u64 = 10;

/// The pause after a checkpoint is this many times as long as it took. Writers that commit as fast as they can must not share
/// the machine with one checkpoint after the other.
const REST_FACTOR: u32 = 10;
/// Limit on this pause.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// Starts to write the checkpoint that the commit of `version` makes due. While one is being written, only the newest
/// checkpoint that is due waits.
pub(super) fn write_when_due(table: &Arc<TableState>, version: u64) {
    let known = table.known();
    let interval = known.table_properties().checkpoint_interval.map_or(DEFAULT_INTERVAL, NonZero::get);
    if version == 0 || !version.is_multiple_of(interval) {
        return;
    }
    let mut queue = lock(&table.checkpoints);
    queue.next = Some(known);
    if queue.busy {
        return;
    }
    let (worker, in_flight) = (CheckpointWorker(Arc::clone(table)), InFlight::begin());
    let work = move || {
        while let Some(snapshot) = worker.next() {
            let started = environment().instant();
            write(&worker.0, &snapshot);
            sleep_unless_exiting((environment().instant() - started).saturating_mul(REST_FACTOR).min(LONGEST_REST));
        }
        drop(in_flight);
    };
    // If there is no thread, the next checkpoint makes up for it.
    queue.busy = environment().start(Some("jobrota-checkpoint"), Box::new(work)).is_ok();
}

/// Writes the checkpoints of one table, one at a time.
struct CheckpointWorker(Arc<TableState>);

impl CheckpointWorker {
    fn next(&self) -> Option<SnapshotRef> {
        let mut queue = lock(&self.0.checkpoints);
        let next = queue.next.take();
        queue.busy = next.is_some();
        next
    }
}

impl Drop for CheckpointWorker {
    fn drop(&mut self) {
        // Without this, a checkpoint that panicked would be the last one of this process.
        if thread::panicking() {
            lock(&self.0.checkpoints).busy = false;
        }
    }
}

fn write(table: &TableState, snapshot: &SnapshotRef) {
    let (Ok(engine), Ok(runtime)) = (table.storage.engine(), crate::runtime::handle()) else { return };
    // A large checkpoint is uploaded in parts, each in a task of its own.
    let _context = runtime.enter();
    let checkpointed = match snapshot.checkpoint(engine.as_ref(), None) {
        Ok((_, checkpointed)) => checkpointed,
        Err(error) => {
            let (table, version) = (&table.url, snapshot.version());
            tracing::warn!(%table, version, %error, "the checkpoint was not written; the table is complete without it");
            Arc::clone(snapshot)
        }
    };
    // Commits went on meanwhile: the snapshot known is replaced by the same version, read from the new checkpoint.
    if let Ok(current) = Snapshot::builder_from(checkpointed).build(&log_reader(engine, None)) {
        table.replace(&current);
    }
}
