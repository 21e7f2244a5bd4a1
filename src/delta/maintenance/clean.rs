//! Cleans the log up: deletes entries below a checkpoint if the entries and the checkpoint are older than the retention.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _};
use delta_kernel::engine::arrow_data::EngineDataArrowExt as _;
use delta_kernel::schema::{DataType, StructField, StructType};
use delta_kernel::{Engine as _, EngineData, FileMeta, KernelError, KernelResult, Snapshot};

use super::files::{self, StoredFile};
use super::paths::PathSet;
use super::{MIN_AGE_MS, MaintenanceOutcome, Retention};
use crate::delta::errors::{from_kernel, is_not_found};
use crate::delta::scan::Scanner;
use crate::delta::state::TableState;
use crate::delta::types::Predicate;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::file_names::{self, LAST_CHECKPOINT, LOG_DIRECTORY};

/// What a file of the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LogFileKind {
    Commit,
    /// A part of a checkpoint, by number, or the whole. One with a UUID in its name may have sidecars.
    Checkpoint {
        part: u64,
        parts: u64,
    },
    Checksum,
    /// Several commits in one file, up to this version.
    Compacted(u64),
    /// An unfinished file of a process that was killed while it wrote on a local disk.
    Temporary,
}

/// Deletes log entries that are no longer needed.
pub(super) fn clean(table: &TableState, retention: Retention, now: i64, report: &mut MaintenanceOutcome) -> Result<()> {
    let snapshot = table.refresh()?;
    let properties = snapshot.table_properties();
    if properties.enable_expired_log_cleanup == Some(false) {
        report
            .notes
            .push("the log is not cleaned, as the table's property delta.enableExpiredLogCleanup says".to_owned());
        return Ok(());
    }
    let keep =
        retention.at_least(properties.log_retention_duration, "log entries", "delta.logRetentionDuration", report);
    let cutoff = now.saturating_sub(keep.max(MIN_AGE_MS));
    let (files, sidecars) = files::log(table)?;
    let log: Vec<(u64, LogFileKind, StoredFile)> = files
        .iter()
        .filter_map(|file| kind_of(&file.name).map(|(version, kind)| (version, kind, file.clone())))
        .collect();
    for (.., file) in log.iter().filter(|(_, kind, file)| *kind == LogFileKind::Temporary && file.modified <= cutoff) {
        report.log_entries_removed += u64::from(file.delete(table)?);
    }
    let Some(newest) = newest_to_start_from(&log, cutoff) else { return Ok(()) };
    // Readers start at the latter.
    let start = table.last_checkpoint()?.map_or(newest, |hint| newest.min(hint));
    let mut expired: Vec<_> = log
        .iter()
        .filter(|(version, kind, file)| {
            let last = if let LogFileKind::Compacted(last) = kind { last } else { version };
            *kind != LogFileKind::Temporary && *last < start && file.modified <= cutoff
        })
        .collect();
    if expired.is_empty() {
        return Ok(());
    }
    check(table, &log, start, snapshot.version())?;
    // Oldest first and one by one, so that the rest of the log is always readable, and a writer that continues after a long
    // pause can tell by the entry before its own whether that was cleaned away.
    expired.sort_by_key(|(version, kind, _)| (*version, *kind == LogFileKind::Commit));
    for (at, (.., file)) in expired.into_iter().enumerate() {
        // The first one through the store: with `durability="fsync"`, that syncs the checkpoint that replaces them all.
        let deleted = if at == 0 { file.delete_through_store(table)? } else { file.delete(table)? };
        report.log_entries_removed += u64::from(deleted);
    }
    report.log_entries_removed += clean_sidecars(table, &log, &sidecars, start, cutoff)?;
    Ok(())
}

/// The newest version with a complete checkpoint, such that this and all commits up to it are old enough.
fn newest_to_start_from(log: &[(u64, LogFileKind, StoredFile)], cutoff: i64) -> Option<u64> {
    let young = log.iter().filter(|(_, kind, file)| *kind == LogFileKind::Commit && file.modified > cutoff);
    let first_young = young.map(|(version, ..)| *version).min().unwrap_or(u64::MAX);
    let mut parts: BTreeMap<(u64, u64), BTreeSet<u64>> = BTreeMap::new();
    for (version, kind, file) in log.iter().filter(|(version, ..)| *version < first_young) {
        if let LogFileKind::Checkpoint { part, parts: of } = kind
            && file.modified <= cutoff
        {
            parts.entry((*version, *of)).or_default().insert(*part);
        }
    }
    let complete = parts.iter().filter(|((_, of), found)| found.len() as u64 == *of);
    complete.map(|((version, _), _)| *version).max()
}

/// Makes sure that the table can be read from the checkpoint of version `start` on, without what is below it.
fn check(table: &TableState, log: &[(u64, LogFileKind, StoredFile)], start: u64, newest: u64) -> Result<()> {
    let commits: HashSet<u64> =
        log.iter().filter(|(_, kind, _)| *kind == LogFileKind::Commit).map(|(v, ..)| *v).collect();
    if let Some(missing) = (start + 1..=newest).find(|version| !commits.contains(version)) {
        // Committed after the log was listed, or lost. In both cases the log stays as it is.
        let text =
            format!("version {missing} of '{}' was not found in its log, so nothing of that is deleted", table.url);
        return Err(Error::new(ErrorKind::Storage, text).with_retryable(true));
    }
    let engine = table.storage.engine()?;
    let snapshot = Snapshot::builder_for(table.url.as_str()).at_version(start).build(engine.as_ref());
    let failed = |e| {
        from_kernel(format!("reading the checkpoint of version {start} of '{}': the log stays, and that", table.url), e)
    };
    Scanner::new(table, &snapshot.map_err(failed)?, &Predicate::default())?.list(None)?;
    Ok(())
}

/// Deletes old sidecars to which no remaining checkpoint refers.
fn clean_sidecars(
    table: &TableState,
    log: &[(u64, LogFileKind, StoredFile)],
    sidecars: &[StoredFile],
    start: u64,
    cutoff: i64,
) -> Result<u64> {
    if sidecars.is_empty() {
        return Ok(0);
    }
    let mut needed = PathSet::of(&table.url);
    // Checkpoints written after the log was listed have young sidecars.
    let left = log.iter().filter(|(version, kind, file)| {
        matches!(kind, LogFileKind::Checkpoint { .. }) && (*version >= start || file.modified > cutoff)
    });
    for (.., file) in left {
        let unreadable = |e| {
            let text = format!("the checkpoint '{}' of '{}' cannot be read; its sidecars stay", file.name, table.url);
            Error::new(ErrorKind::Storage, text).with_source(e)
        };
        let batches = match read_sidecars(table, file) {
            // A checkpoint that was deleted meanwhile needs no sidecars.
            Err(error) if is_not_found(&error) => continue,
            read => read.map_err(unreadable)?,
        };
        for path in batches.iter().flat_map(|paths| paths.as_string::<i32>()).flatten() {
            // A file in the directory for sidecars, by its name or an absolute path.
            needed.insert(path.rsplit('/').next().unwrap_or(path));
        }
    }
    let mut count = 0;
    for sidecar in sidecars {
        if sidecar.name.ends_with(".parquet") && sidecar.modified <= cutoff && !needed.contains(&sidecar.name) {
            count += u64::from(sidecar.delete(table)?);
        }
    }
    Ok(count)
}

/// The paths of the sidecars in a checkpoint.
fn read_sidecars(table: &TableState, checkpoint: &StoredFile) -> KernelResult<Vec<ArrayRef>> {
    let path = StructType::try_new([StructField::nullable("path", DataType::STRING)])?;
    let schema = Arc::new(StructType::try_new([StructField::nullable("sidecar", path)])?);
    let file = FileMeta {
        location: table.url.join(&format!("{LOG_DIRECTORY}/{}", checkpoint.name))?,
        last_modified: checkpoint.modified,
        size: checkpoint.size,
    };
    let engine = table.storage.engine().map_err(KernelError::generic_err)?;
    let read = match checkpoint.name.ends_with(".json") {
        true => engine.json_handler().read_json_files(&[file], schema, None),
        false => engine.parquet_handler().read_parquet_files(&[file], schema, None),
    };
    let paths = |batch: KernelResult<Box<dyn EngineData>>| {
        let batch = batch?.try_into_record_batch()?;
        let sidecars = batch.column_by_name("sidecar").and_then(|column| column.as_struct_opt());
        let sidecars = sidecars.ok_or_else(|| KernelError::generic("no sidecar column"))?;
        let paths = sidecars.column_by_name("path").ok_or_else(|| KernelError::generic("no sidecar path"))?;
        let missing = (0..sidecars.len()).any(|row| sidecars.is_valid(row) && paths.is_null(row));
        if missing { Err(KernelError::generic("a sidecar without a path")) } else { Ok(Arc::clone(paths)) }
    };
    read.and_then(|batches| batches.map(paths).collect())
}

/// The kind of the file of this name; `None` for files that must not be deleted.
fn kind_of(name: &str) -> Option<(u64, LogFileKind)> {
    let number = |text: &str, digits: usize| -> Option<u64> {
        (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
    };
    if file_names::is_temporary(name) {
        return Some((0, LogFileKind::Temporary));
    }
    if let Some(before) = file_names::without_staging_number(name) {
        let is_ours = before == LAST_CHECKPOINT || kind_of(before).is_some();
        return is_ours.then_some((0, LogFileKind::Temporary));
    }
    let parts: Vec<&str> = name.split('.').collect();
    let version = number(parts.first()?, 20)?;
    let kind = match parts.get(1..)? {
        ["json"] => LogFileKind::Commit,
        ["crc"] => LogFileKind::Checksum,
        ["checkpoint", "parquet"] => LogFileKind::Checkpoint { part: 1, parts: 1 },
        ["checkpoint", part, of, "parquet"] => {
            let (part, parts) = (number(part, 10)?, number(of, 10)?);
            LogFileKind::Checkpoint { part: (1..=parts).contains(&part).then_some(part)?, parts }
        }
        ["checkpoint", id, "parquet" | "json"] => {
            uuid::Uuid::try_parse(id).ok()?;
            LogFileKind::Checkpoint { part: 1, parts: 1 }
        }
        [last, "compacted", "json"] => LogFileKind::Compacted(number(last, 20)?),
        _ => return None,
    };
    Some((version, kind))
}
