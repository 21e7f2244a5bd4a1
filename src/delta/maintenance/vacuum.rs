//! Vacuum: deletes data files and deletion vectors that no version within the retention needs.

use std::error::Error as StdError;
use std::iter;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use delta_kernel::SnapshotRef;
use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use delta_kernel::engine::arrow_data::EngineDataArrowExt as _;
use serde::Deserialize;

use super::files;
use super::paths::{PathSet, reduce};
use super::{MIN_AGE_MS, MaintenanceOutcome, Retention};
use crate::delta::commit::{CommitAttempt, CommitKind};
use crate::delta::errors::from_kernel;
use crate::delta::state::TableState;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::file_names;

/// Deletes files that are not needed. Stops at the first file that the store does not delete.
pub(super) fn vacuum(
    table: &TableState,
    retention: Retention,
    now: i64,
    report: &mut MaintenanceOutcome,
) -> Result<()> {
    // The files are listed before the log is read, so that the log has what is committed in between.
    let found = files::data(table)?;
    let snapshot = table.refresh()?;
    let kept = snapshot.table_properties().deleted_file_retention_duration;
    let keep = retention.at_least(kept, "files", "delta.deletedFileRetentionDuration", report);
    let cutoff = now.saturating_sub(keep);
    let partitions = partitions(table, &snapshot)?;
    let log = Log::read(table, &snapshot, cutoff)?;
    for file in found.iter().filter(|file| may_delete(&file.name, &partitions)) {
        // A file that the log does not name may belong to an active writer.
        let oldest = if log.removed.contains(&file.name) { cutoff } else { cutoff.min(now.saturating_sub(MIN_AGE_MS)) };
        if file.modified <= oldest && !log.needed.contains(&file.name) && file.delete(table)? {
            report.files_vacuumed += 1;
            report.bytes_freed += file.size;
        }
    }
    Ok(())
}

/// The table's partition columns, reduced. Refuses tables that this version cannot write, as their writers may follow
/// rules for files that it does not know.
fn partitions(table: &TableState, snapshot: &SnapshotRef) -> Result<Vec<Vec<u8>>> {
    let transaction = CommitAttempt::new(table, &CommitKind::append(false), snapshot).transaction()?;
    Ok(transaction.logical_partition_columns().iter().filter_map(|column| reduce(&format!("{column}="))).collect())
}

/// Whether a vacuum may delete this file if it is not needed: a data file or a deletion vector, or an unfinished one, that
/// is not hidden. A name that begins with `_` or `.` is hidden, except for the directory of a partition column.
fn may_delete(name: &str, partitions: &[Vec<u8>]) -> bool {
    let (directories, file) = name.rsplit_once('/').unwrap_or(("", name));
    let hidden = |part: &str| part.starts_with(['_', '.']);
    let of_partition = |part: &str| {
        let part = reduce(part).unwrap_or_default();
        partitions.iter().any(|column| part.starts_with(column))
    };
    if directories.split('/').any(|part| hidden(part) && !of_partition(part)) {
        return false;
    }
    // Unfinished files of a process that was killed while it wrote on a local disk: `.name.1-2.tmp` or `name#1`.
    let name = file_names::without_staging_number(file).unwrap_or(file);
    let vector = name.starts_with("deletion_vector_") && name.ends_with(".bin");
    file_names::is_temporary(file) || !hidden(file) && (vector || name.ends_with(".parquet"))
}

/// What the log says about files.
struct Log {
    /// In the newest version, or removed within the retention.
    needed: PathSet,
    /// Removed at any time, as far as known.
    removed: PathSet,
}

impl Log {
    fn read(table: &TableState, snapshot: &SnapshotRef, cutoff: i64) -> Result<Self> {
        let mut log = Self { needed: PathSet::of(&table.url), removed: PathSet::of(&table.url) };
        let engine = table.storage.engine()?;
        let failed = |e| from_kernel(format!("reading the log of '{}'", table.url), e);
        let broken = |what: &str, e: Box<dyn StdError + Send + Sync>| {
            let text = format!("{what} of '{}' cannot be understood, so nothing is deleted", table.url);
            Error::new(ErrorKind::Storage, text).with_source(e)
        };
        let writer = Arc::clone(snapshot).create_checkpoint_writer(engine.as_ref()).map_err(failed)?;
        for batch in writer.checkpoint_data(engine.as_ref()).map_err(failed)? {
            let batch = batch.and_then(|batch| batch.apply_selection_vector()?.try_into_record_batch());
            let lines = to_json(&batch.map_err(failed)?).map_err(|e| broken("the log", e.into()))?;
            log.add(table, &lines, 0, cutoff).map_err(|e| broken("the log", e))?;
        }
        // A checkpoint drops files that were removed longer ago than the table's own property says.
        for file in files::log(table)?.0 {
            if file.modified >= cutoff && file_names::entry_version(&file.name).is_some() {
                let lines = file.read(table)?.unwrap_or_default();
                let broken = |e| broken(&format!("version '{}'", file.name), e);
                log.add(table, &lines, file.modified, cutoff).map_err(broken)?;
            }
        }
        Ok(log)
    }

    /// Adds the files of these actions, one a line, which are not older than `since`.
    fn add(
        &mut self,
        table: &TableState,
        actions: &[u8],
        since: i64,
        cutoff: i64,
    ) -> std::result::Result<(), Box<dyn StdError + Send + Sync>> {
        for line in actions.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let FileAction { add, remove } = serde_json::from_slice(line)?;
            let (is_removed, Some(file)) = (remove.is_some(), remove.or(add)) else { continue };
            let vector = file.deletion_vector.map(|vector| vector.absolute_path(&table.url)).transpose()?.flatten();
            let is_needed = !is_removed || file.deletion_timestamp.unwrap_or(0).max(since) > cutoff;
            for path in iter::once(file.path).chain(vector.map(String::from)) {
                if is_needed {
                    self.needed.insert(&path);
                }
                if is_removed {
                    self.removed.insert(&path);
                }
            }
        }
        Ok(())
    }
}

/// The actions that add or remove files, one a line, as log entries have them.
fn to_json(actions: &RecordBatch) -> std::result::Result<Vec<u8>, ArrowError> {
    let of_files = ["add", "remove"].map(|name| actions.schema_ref().index_of(name));
    let of_files = actions.project(&of_files.into_iter().collect::<std::result::Result<Vec<_>, _>>()?)?;
    let mut lines = LineDelimitedWriter::new(Vec::new());
    lines.write(&of_files)?;
    lines.finish()?;
    Ok(lines.into_inner())
}

/// An action of the log, as far as it adds or removes a file.
#[derive(Deserialize)]
struct FileAction {
    add: Option<LoggedFile>,
    remove: Option<LoggedFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoggedFile {
    path: String,
    deletion_timestamp: Option<i64>,
    deletion_vector: Option<DeletionVectorDescriptor>,
}
