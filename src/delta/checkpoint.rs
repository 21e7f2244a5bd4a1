//! Checkpoints, so that opening a table reads tens of log entries and not thousands.

use delta_kernel::SnapshotRef;

use crate::storage::KernelEngine;

/// Commits between checkpoints when the table does not say: Delta's default.
const DEFAULT_INTERVAL: u64 = 10;

/// Writes the checkpoint that falls due with the commit that made `snapshot`; gives back the snapshot to go on with.
///
/// Never fails: the commit is durable already, and the next one that falls due makes up for it.
pub(super) fn when_due(engine: &KernelEngine, snapshot: SnapshotRef) -> SnapshotRef {
    let interval = snapshot.table_properties().checkpoint_interval.map_or(DEFAULT_INTERVAL, std::num::NonZero::get);
    if snapshot.version() == 0 || !snapshot.version().is_multiple_of(interval) {
        return snapshot;
    }
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
