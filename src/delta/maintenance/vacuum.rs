//! Vacuum: deletes data files and deletion vectors that no version within the retention needs.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch, StructArray};
use arrow::datatypes::{Int32Type, Int64Type};
use delta_kernel::SnapshotRef;
use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use delta_kernel::engine::arrow_data::EngineDataArrowExt as _;
use serde::Deserialize;

use super::files::{self, PROBE, StoredFile};
use super::paths::{PathSet, reduce};
use super::{MIN_AGE_MS, MaintenanceOutcome, Retention};
use crate::delta::commit::{CommitAttempt, CommitKind};
use crate::delta::errors::from_kernel;
use crate::delta::state::TableState;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::file_names;

/// Prefix and suffix of a deletion vector's file name.
const VECTOR: (&str, &str) = ("deletion_vector_", ".bin");

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
    if directories.is_empty() && file.starts_with(PROBE) {
        return true;
    }
    // Unfinished files of a process that was killed while it wrote on a local disk: `.name.1-2.tmp` or `name#1`.
    if file_names::is_temporary(file) {
        return true;
    }
    let name = file_names::without_staging_number(file).unwrap_or(file);
    let (prefix, suffix) = VECTOR;
    let vector = name.starts_with(prefix) && name.ends_with(suffix);
    !hidden(file) && (vector || name.ends_with(".parquet"))
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
        for (path, at) in log.read_state(table, snapshot)? {
            log.removed_at(&path, at, cutoff);
        }
        // A checkpoint drops files that were removed longer ago than the table's own property says.
        for file in files::log(table)?.0 {
            if file.modified >= cutoff && file_names::entry_version(&file.name).is_some() {
                log.read_commit(table, &file, cutoff)?;
            }
        }
        Ok(log)
    }

    fn removed_at(&mut self, path: &str, at: i64, cutoff: i64) {
        self.removed.insert(path);
        if at > cutoff {
            self.needed.insert(path);
        }
    }

    /// Adds the newest version's files. Returns those removed before, and when.
    fn read_state(&mut self, table: &TableState, snapshot: &SnapshotRef) -> Result<HashMap<String, i64>> {
        let engine = table.storage.engine()?;
        let failed = |e| from_kernel(format!("reading the log of '{}'", table.url), e);
        let writer = Arc::clone(snapshot).create_checkpoint_writer(engine.as_ref()).map_err(failed)?;
        let mut removed = HashMap::new();
        for batch in writer.checkpoint_data(engine.as_ref()).map_err(failed)? {
            let batch = batch.and_then(|batch| batch.apply_selection_vector()).map_err(failed)?;
            let batch = batch.try_into_record_batch().map_err(failed)?;
            visit_files(&batch, "add", snapshot, |path, _| self.needed.insert(path))?;
            visit_files(&batch, "remove", snapshot, |path, at| _ = removed.insert(path.to_owned(), at))?;
        }
        Ok(removed)
    }

    fn read_commit(&mut self, table: &TableState, file: &StoredFile, cutoff: i64) -> Result<()> {
        let Some(content) = file.read(table)? else { return Ok(()) };
        let broken = || {
            let text =
                format!("version '{}' of '{}' cannot be understood, so nothing is deleted", file.name, table.url);
            Error::new(ErrorKind::Storage, text)
        };
        for line in content.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let action: LoggedRemove = serde_json::from_slice(line).map_err(|e| broken().with_source(e))?;
            let Some(remove) = action.remove else { continue };
            let at = remove.deletion_timestamp.unwrap_or(0).max(file.modified);
            self.removed_at(&remove.path, at, cutoff);
            let url = remove.deletion_vector.map(|vector| vector.absolute_path(&table.url)).transpose();
            if let Some(url) = url.map_err(|e| broken().with_source(e))?.flatten() {
                self.removed_at(url.as_str(), at, cutoff);
            }
        }
        Ok(())
    }
}

/// An action of a log entry, as far as it removes a file.
#[derive(Deserialize)]
struct LoggedRemove {
    remove: Option<Remove>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Remove {
    path: String,
    deletion_timestamp: Option<i64>,
    deletion_vector: Option<DeletionVectorDescriptor>,
}

/// Calls `take` with the paths of the data files and deletion vectors in this column of actions, and when they were
/// removed.
fn visit_files(
    batch: &RecordBatch,
    action: &str,
    snapshot: &SnapshotRef,
    mut take: impl FnMut(&str, i64),
) -> Result<()> {
    let broken = |what: &str| {
        let text = format!("the log of '{}' was read without '{what}', so nothing is deleted", snapshot.table_root());
        Error::new(ErrorKind::Internal, text)
    };
    let root = snapshot.table_root();
    let actions = batch.column_by_name(action).and_then(|actions| actions.as_struct_opt());
    let actions = actions.ok_or_else(|| broken(action))?;
    let vectors = actions.column_by_name("deletionVector").and_then(|vectors| vectors.as_struct_opt());
    let vectors = vectors.ok_or_else(|| broken("deletionVector"))?;
    let texts = |of: &'_ StructArray, name: &str| {
        let column = of.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.cloned().ok_or_else(|| broken(name))
    };
    let paths = texts(actions, "path")?;
    let (kinds, places) = (texts(vectors, "storageType")?, texts(vectors, "pathOrInlineDv")?);
    let offsets = vectors.column_by_name("offset").and_then(|offsets| offsets.as_primitive_opt::<Int32Type>());
    let offsets = offsets.ok_or_else(|| broken("offset"))?;
    let times = actions.column_by_name("deletionTimestamp").and_then(|times| times.as_primitive_opt::<Int64Type>());
    for row in (0..batch.num_rows()).filter(|&row| actions.is_valid(row) && paths.is_valid(row)) {
        let at = times.filter(|times| times.is_valid(row)).map_or(0, |times| times.value(row));
        take(paths.value(row), at);
        if vectors.is_valid(row) && kinds.is_valid(row) && places.is_valid(row) {
            let offset = offsets.is_valid(row).then(|| offsets.value(row));
            let kind = kinds.value(row).parse();
            let vector = kind.and_then(|kind| DeletionVectorDescriptor::try_new(kind, places.value(row), offset, 0, 0));
            let url = vector.and_then(|vector| vector.absolute_path(root));
            if let Some(url) = url.map_err(|e| from_kernel("reading where a deletion vector is", e))? {
                take(url.as_str(), at);
            }
        }
    }
    Ok(())
}
