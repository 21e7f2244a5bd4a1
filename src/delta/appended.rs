//! What was appended since a version, read from the log entries alone: its cost is that of the news, however long the
//! table's history is.

use arrow::array::RecordBatch;
use delta_kernel::SnapshotRef;
use delta_kernel::scan::state::{DvInfo, ScanFile};

use super::log_entry::LogEntry;
use super::scan::Scanner;
use super::schema;
use super::shared::Inner;
use super::table::Predicate;
use crate::error::{ErrorKind, Result};

/// Over more commits than this, reading the whole table is as quick as reading them one by one.
const MOST_COMMITS: u64 = 5_000;

/// The rows that the versions after `known` up to that of `snapshot` appended, but for those in `except`. None when that
/// is not known: a version is not there any more, changes what was there before, or is of a kind that this cannot read.
pub(super) fn since(
    table: &Inner,
    snapshot: &SnapshotRef,
    known: u64,
    except: &dyn Fn(u64) -> bool,
) -> Result<Option<RecordBatch>> {
    let now = snapshot.version();
    if now < known || now - known > MOST_COMMITS {
        return Ok(None);
    }
    let mut files = Vec::new();
    for version in (known + 1..=now).filter(|version| !except(*version)) {
        match LogEntry::read(table, version)? {
            Some(entry) if entry.only_appends() => files.extend(entry.added),
            _ => return Ok(None),
        }
    }
    let schema = schema::of(snapshot)?;
    if files.is_empty() {
        return Ok(Some(RecordBatch::new_empty(schema)));
    }
    let scanner = Scanner::new(table.storage.engine()?, snapshot, &Predicate::default())?.knowing(&table.read_files);
    if !scanner.reads_as_stored() || files.iter().any(|file| !file.plain) {
        return Ok(None);
    }
    let files: Vec<ScanFile> = files
        .into_iter()
        .map(|file| ScanFile {
            path: file.path,
            size: file.size,
            modification_time: file.modified,
            stats: None,
            dv_info: DvInfo::default(),
            transform: None,
            partition_values: Default::default(),
        })
        .collect();
    match scanner.read_all(&files, |_, rows| Ok(rows)) {
        Ok(batches) => schema::concat(&schema, &batches).map(Some),
        // Compacted and vacuumed meanwhile: the rows are elsewhere now.
        Err(error) if error.kind() == ErrorKind::NotFound || table.moved_on(snapshot, &error) => Ok(None),
        Err(error) => Err(error),
    }
}
