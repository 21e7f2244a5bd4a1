//! Vacuum: data files and deletion vectors that no version within the retention needs are deleted.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch, StructArray};
use arrow::datatypes::{Int32Type, Int64Type};
use delta_kernel::SnapshotRef;
use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use delta_kernel::engine::arrow_data::EngineDataArrowExt as _;
use delta_kernel::transaction::UpdateTableOperation;
use serde_json::Value;

use super::files::{self, Found, PROBE};
use super::paths::{Needed, reduce};
use super::{FLOOR, Maintained, Retention};
use crate::delta::commit::{Attempt, Kind};
use crate::delta::failure::from_kernel;
use crate::delta::shared::Inner;
use crate::error::{Error, ErrorKind, Result};

/// How a deletion vector's file is called.
const VECTOR: (&[u8], &[u8]) = (b"deletion_vector_", b".bin");

/// Deletes what is not needed. Stops at the first file that the store does not let go.
pub(super) fn vacuum(table: &Inner, retention: Retention, now: i64, report: &mut Maintained) -> Result<()> {
    // Files first and the log after them: what is committed in between is in the log.
    let found = files::data(table)?;
    let snapshot = table.newest()?;
    let keep = retention.at_least(snapshot.table_properties().deleted_file_retention_duration);
    if keep > retention.at_least(None) {
        report.notes.push(format!(
            "files are kept for {} hours, as the table's property delta.deletedFileRetentionDuration says",
            keep / 3_600_000
        ));
    }
    let cutoff = now.saturating_sub(keep);
    let partitions = partitions(table, &snapshot)?;
    let log = Log::read(table, &snapshot, cutoff)?;
    for file in found.iter().filter(|file| is_ours(&file.name, &partitions)) {
        // A file that the log does not name may be of a writer under way.
        let oldest = if log.removed.contains(&file.name) { cutoff } else { cutoff.min(now.saturating_sub(FLOOR)) };
        if file.modified <= oldest && !log.needed.contains(&file.name) && file.delete(table)? {
            report.files_vacuumed += 1;
            report.bytes_freed += file.size;
        }
    }
    Ok(())
}

/// The table's partition columns. Refuses tables that this version cannot write, as their writers may have rules for
/// files that it does not know.
fn partitions(table: &Inner, snapshot: &SnapshotRef) -> Result<Vec<Vec<u8>>> {
    let kind =
        Kind { operation: UpdateTableOperation::Optimize, blind: false, data_change: false, parameters: Vec::new() };
    let transaction = Attempt::ahead(table, &kind, snapshot).transaction()?;
    Ok(transaction.logical_partition_columns().iter().filter_map(|column| reduce(&format!("{column}="))).collect())
}

/// Whether a vacuum may look at this file at all: a data file or a deletion vector, or the leftover of one, that is not
/// hidden. A name that begins with `_` or `.` is hidden, except for the directory of a partition column.
fn is_ours(name: &str, partitions: &[Vec<u8>]) -> bool {
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
    // What is left behind when a process is killed while it writes a file on a local disk: `.name.1-2.tmp` or `name#1`.
    if crate::storage::is_temporary(file) {
        return true;
    }
    let whole = match file.rsplit_once('#') {
        Some((name, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => file,
    };
    let (prefix, suffix) = VECTOR;
    let vector = whole.as_bytes().starts_with(prefix) && whole.as_bytes().ends_with(suffix);
    !hidden(file) && (vector || whole.ends_with(".parquet"))
}

/// What the log says about files.
struct Log {
    /// In the newest version, or removed within the retention.
    needed: Needed,
    /// Removed at any time known.
    removed: Needed,
}

impl Log {
    fn read(table: &Inner, snapshot: &SnapshotRef, cutoff: i64) -> Result<Self> {
        let mut log = Self { needed: Needed::of(&table.url), removed: Needed::of(&table.url) };
        for (path, at) in log.read_state(table, snapshot)? {
            log.removed_at(&path, at, cutoff);
        }
        // A checkpoint drops what was removed longer ago than the table's own property says.
        for file in files::log(table)?.0 {
            if file.modified >= cutoff && is_commit(&file.name) {
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

    /// Takes in the newest version's files; gives back those removed before, and when.
    fn read_state(&mut self, table: &Inner, snapshot: &SnapshotRef) -> Result<HashMap<String, i64>> {
        let engine = table.storage.engine()?;
        let failed = |e| from_kernel(format!("reading the log of '{}'", table.url), e);
        let writer = Arc::clone(snapshot).create_checkpoint_writer(engine.as_ref()).map_err(failed)?;
        let mut removed = HashMap::new();
        for batch in writer.checkpoint_data(engine.as_ref()).map_err(failed)? {
            let batch = batch.and_then(|batch| batch.apply_selection_vector()).map_err(failed)?;
            let batch = batch.try_into_record_batch().map_err(failed)?;
            each(&batch, "add", snapshot, |path, _| self.needed.insert(path))?;
            each(&batch, "remove", snapshot, |path, at| _ = removed.insert(path.to_owned(), at))?;
        }
        Ok(removed)
    }

    fn read_commit(&mut self, table: &Inner, file: &Found, cutoff: i64) -> Result<()> {
        let Some(content) = file.read(table)? else { return Ok(()) };
        let broken = |e: Box<dyn std::error::Error + Send + Sync>| {
            let text =
                format!("version '{}' of '{}' cannot be understood, so nothing is deleted", file.name, table.url);
            Error::new(ErrorKind::Storage, text).with_source(e)
        };
        for line in content.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let action: Value = serde_json::from_slice(line).map_err(|e| broken(e.into()))?;
            let Some(remove) = action.get("remove") else { continue };
            let path =
                remove.get("path").and_then(Value::as_str).ok_or_else(|| broken("a remove without path".into()))?;
            let at = remove.get("deletionTimestamp").and_then(Value::as_i64).unwrap_or(0).max(file.modified);
            self.removed_at(path, at, cutoff);
            if let Some(vector) = remove.get("deletionVector").filter(|vector| !vector.is_null()) {
                let vector: DeletionVectorDescriptor =
                    serde_json::from_value(vector.clone()).map_err(|e| broken(e.into()))?;
                let url = vector.absolute_path(&table.url).map_err(|e| broken(e.into()))?;
                if let Some(url) = url {
                    self.removed_at(url.as_str(), at, cutoff);
                }
            }
        }
        Ok(())
    }
}

fn is_commit(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(|version| version.len() == 20 && version.bytes().all(|b| b.is_ascii_digit()))
}

/// The paths of the data files and deletion vectors in this column of actions, and when they were removed.
fn each(batch: &RecordBatch, action: &str, snapshot: &SnapshotRef, mut take: impl FnMut(&str, i64)) -> Result<()> {
    let broken = |what: &str| {
        let text = format!("the log of '{}' was read without '{what}', so nothing is deleted", snapshot.table_root());
        Error::new(ErrorKind::Internal, text)
    };
    let column = |of: &StructArray, name: &str| of.column_by_name(name).cloned().ok_or_else(|| broken(name));
    let actions = batch.column_by_name(action).ok_or_else(|| broken(action))?;
    let actions = actions.as_struct_opt().ok_or_else(|| broken(action))?;
    let paths = column(actions, "path")?;
    let paths = paths.as_string_opt::<i32>().ok_or_else(|| broken("path"))?;
    let times = actions.column_by_name("deletionTimestamp").and_then(|times| times.as_primitive_opt::<Int64Type>());
    let vectors = column(actions, "deletionVector")?;
    let vectors = vectors.as_struct_opt().ok_or_else(|| broken("deletionVector"))?;
    let (kinds, places) = (column(vectors, "storageType")?, column(vectors, "pathOrInlineDv")?);
    let kinds = kinds.as_string_opt::<i32>().ok_or_else(|| broken("storageType"))?;
    let places = places.as_string_opt::<i32>().ok_or_else(|| broken("pathOrInlineDv"))?;
    let offsets = column(vectors, "offset")?;
    let offsets = offsets.as_primitive_opt::<Int32Type>().ok_or_else(|| broken("offset"))?;
    for row in (0..batch.num_rows()).filter(|&row| actions.is_valid(row) && paths.is_valid(row)) {
        let at = times.filter(|times| times.is_valid(row)).map_or(0, |times| times.value(row));
        take(paths.value(row), at);
        if vectors.is_valid(row) && kinds.is_valid(row) && places.is_valid(row) {
            let failed = |e| from_kernel("reading where a deletion vector is", e);
            let kind = kinds.value(row).parse().map_err(failed)?;
            let offset = offsets.is_valid(row).then(|| offsets.value(row));
            let vector = DeletionVectorDescriptor::try_new(kind, places.value(row), offset, 0, 0).map_err(failed)?;
            if let Some(url) = vector.absolute_path(snapshot.table_root()).map_err(failed)? {
                take(url.as_str(), at);
            }
        }
    }
    Ok(())
}
