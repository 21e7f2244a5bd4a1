//! Clean-up of the log: entries below a checkpoint, when that and they are older than the retention.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use arrow::array::AsArray as _;
use bytes::Bytes;
use delta_kernel::Snapshot;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::files::{self, Found};
use super::paths::Needed;
use super::{FLOOR, Maintained, Retention};
use crate::delta::failure::from_kernel;
use crate::delta::scan::Scanner;
use crate::delta::shared::Inner;
use crate::delta::table::Predicate;
use crate::error::{Error, ErrorKind, Result};

/// What a file of the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Commit,
    /// One part of so many, by number, or the whole.
    Checkpoint {
        part: u64,
        parts: u64,
    },
    /// A checkpoint with a name of its own, which may have sidecars.
    Named,
    Checksum,
    /// Several commits in one file, up to this version.
    Compacted(u64),
    /// Left behind by a process that was killed while it wrote on a local disk.
    Leftover,
}

/// Deletes log entries that nobody can need any more.
pub(super) fn clean(table: &Inner, retention: Retention, now: i64, report: &mut Maintained) -> Result<()> {
    let snapshot = table.newest()?;
    let properties = snapshot.table_properties();
    if properties.enable_expired_log_cleanup == Some(false) {
        let text = "the log is not cleaned, as the table's property delta.enableExpiredLogCleanup says";
        report.notes.push(text.to_owned());
        return Ok(());
    }
    let keep = retention.at_least(properties.log_retention_duration);
    if keep > retention.at_least(None) {
        let hours = keep / 3_600_000;
        let text = "as the table's property delta.logRetentionDuration says";
        report.notes.push(format!("log entries are kept for {hours} hours, {text}"));
    }
    let cutoff = now.saturating_sub(keep.max(FLOOR));
    let (files, sidecars) = files::log(table)?;
    let log: Vec<(u64, Kind, Found)> = files
        .iter()
        .filter_map(|file| kind_of(&file.name).map(|(version, kind)| (version, kind, file.clone())))
        .collect();
    let leftovers = log.iter().filter(|(_, kind, file)| *kind == Kind::Leftover && file.modified <= cutoff);
    for (_, _, file) in leftovers {
        report.log_entries_removed += u64::from(file.delete(table)?);
    }
    let Some(newest) = newest_to_start_from(&log, cutoff) else { return Ok(()) };
    let start = hinted(table, &files)?.map_or(newest, |hint| newest.min(hint));
    let mut expired: Vec<&(u64, Kind, Found)> = log
        .iter()
        .filter(|(version, kind, file)| {
            let last = if let Kind::Compacted(last) = kind { last } else { version };
            *kind != Kind::Leftover && *last < start && file.modified <= cutoff
        })
        .collect();
    if expired.is_empty() {
        return Ok(());
    }
    check(table, &log, start, snapshot.version())?;
    // Oldest first, one after the other: what is left is always readable, and a writer that comes back after a long pause
    // can tell from the entry before its own whether that was cleaned away.
    expired.sort_by_key(|(version, kind, _)| (*version, *kind == Kind::Commit));
    for (_, _, file) in expired {
        report.log_entries_removed += u64::from(file.delete(table)?);
    }
    report.log_entries_removed += clean_sidecars(table, &log, &sidecars, start, cutoff)?;
    Ok(())
}

/// The newest version with a whole checkpoint that is old enough, all commits up to which are, too.
fn newest_to_start_from(log: &[(u64, Kind, Found)], cutoff: i64) -> Option<u64> {
    let young = log.iter().filter(|(_, kind, file)| *kind == Kind::Commit && file.modified > cutoff);
    let first_young = young.map(|(version, ..)| *version).min().unwrap_or(u64::MAX);
    let mut parts: BTreeMap<(u64, u64), BTreeSet<u64>> = BTreeMap::new();
    for (version, kind, file) in log.iter().filter(|(version, ..)| *version < first_young) {
        let (part, of) = match kind {
            Kind::Checkpoint { part, parts } => (*part, *parts),
            Kind::Named => (1, 1),
            _ => continue,
        };
        if file.modified <= cutoff {
            parts.entry((*version, of)).or_default().insert(part);
        }
    }
    let whole = parts.iter().filter(|((_, of), found)| found.len() as u64 == *of);
    whole.map(|((version, _), _)| *version).max()
}

/// The version that `_last_checkpoint` sends readers to: it must not be cleaned away.
fn hinted(table: &Inner, files: &[Found]) -> Result<Option<u64>> {
    let Some(file) = files.iter().find(|file| file.name == "_last_checkpoint") else { return Ok(None) };
    let content = file.read(table)?.unwrap_or_default();
    let hint = serde_json::from_slice::<Value>(&content).ok();
    // A hint that cannot be understood is passed over by readers.
    Ok(hint.and_then(|hint| hint.get("version").and_then(Value::as_u64)))
}

/// Makes sure that the table can be read from the checkpoint of version `start` on, without what is below it.
fn check(table: &Inner, log: &[(u64, Kind, Found)], start: u64, newest: u64) -> Result<()> {
    let commits: HashSet<u64> = log.iter().filter(|(_, kind, _)| *kind == Kind::Commit).map(|(v, ..)| *v).collect();
    if let Some(missing) = (start + 1..=newest).find(|version| !commits.contains(version)) {
        // Committed after the log was listed, or lost: either way the log stays as it is.
        let text =
            format!("version {missing} of '{}' was not found in its log, so nothing of that is deleted", table.url);
        return Err(Error::new(ErrorKind::Storage, text).with_retryable(true));
    }
    let engine = table.storage.engine()?;
    let snapshot = Snapshot::builder_for(table.url.as_str()).at_version(start).build(engine.as_ref());
    let failed = |e| {
        from_kernel(format!("reading the checkpoint of version {start} of '{}': the log stays, and that", table.url), e)
    };
    Scanner::new(engine, &snapshot.map_err(failed)?, &Predicate::default())?.files()?;
    Ok(())
}

/// Deletes old sidecars that no checkpoint that is left refers to.
fn clean_sidecars(
    table: &Inner,
    log: &[(u64, Kind, Found)],
    sidecars: &[Found],
    start: u64,
    cutoff: i64,
) -> Result<u64> {
    if sidecars.is_empty() {
        return Ok(0);
    }
    let mut needed = Needed::of(&table.url);
    // Those written after the log was listed have young sidecars.
    let left = log.iter().filter(|(version, kind, file)| {
        matches!(kind, Kind::Named | Kind::Checkpoint { .. }) && (*version >= start || file.modified > cutoff)
    });
    for (_, _, file) in left {
        let Some(content) = file.read(table)? else { continue };
        let read = if file.name.ends_with(".json") { in_json(&content) } else { in_parquet(content) };
        let unreadable = |e: Box<dyn std::error::Error + Send + Sync>| {
            let text = format!("the checkpoint '{}' of '{}' cannot be read; its sidecars stay", file.name, table.url);
            Error::new(ErrorKind::Storage, text).with_source(e)
        };
        for path in read.map_err(unreadable)? {
            // A file in the directory for sidecars, by its name or an absolute path.
            needed.insert(path.rsplit('/').next().unwrap_or(&path));
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

type Unreadable = Box<dyn std::error::Error + Send + Sync>;

fn in_json(content: &[u8]) -> Result<Vec<String>, Unreadable> {
    let mut paths = Vec::new();
    for line in content.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let action: Value = serde_json::from_slice(line)?;
        if let Some(sidecar) = action.get("sidecar").filter(|sidecar| !sidecar.is_null()) {
            let path = sidecar.get("path").and_then(Value::as_str).ok_or("a sidecar without a path")?;
            paths.push(path.to_owned());
        }
    }
    Ok(paths)
}

fn in_parquet(content: Bytes) -> Result<Vec<String>, Unreadable> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(content)?;
    let schema = builder.parquet_schema();
    let columns: Vec<usize> = (0..schema.num_columns())
        .filter(|&at| schema.column(at).path().parts().iter().map(String::as_str).eq(["sidecar", "path"]))
        .collect();
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let mask = ProjectionMask::leaves(schema, columns);
    let mut paths = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let sidecars = batch.column_by_name("sidecar").and_then(|column| column.as_struct_opt().cloned());
        let found = sidecars.as_ref().and_then(|sidecars| sidecars.column_by_name("path")).cloned();
        let found = found.ok_or("no sidecar column")?;
        let found = arrow::compute::cast(&found, &arrow::datatypes::DataType::Utf8)?;
        paths.extend(found.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    Ok(paths)
}

/// What the file of this name is; `None` for what is none of ours to delete.
fn kind_of(name: &str) -> Option<(u64, Kind)> {
    let number = |text: &str, digits: usize| -> Option<u64> {
        (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
    };
    if let Some((before, after)) = name.rsplit_once('#') {
        let counted = !after.is_empty() && after.bytes().all(|b| b.is_ascii_digit());
        let ours = before == "_last_checkpoint" || kind_of(before).is_some();
        return (counted && ours).then_some((0, Kind::Leftover));
    }
    let parts: Vec<&str> = name.split('.').collect();
    let version = number(parts.first()?, 20)?;
    let kind = match parts.get(1..)? {
        ["json"] => Kind::Commit,
        ["crc"] => Kind::Checksum,
        ["checkpoint", "parquet"] => Kind::Checkpoint { part: 1, parts: 1 },
        ["checkpoint", part, of, "parquet"] => {
            let (part, parts) = (number(part, 10)?, number(of, 10)?);
            Kind::Checkpoint { part: (1..=parts).contains(&part).then_some(part)?, parts }
        }
        ["checkpoint", id, "parquet" | "json"] => {
            uuid::Uuid::try_parse(id).ok()?;
            Kind::Named
        }
        [last, "compacted", "json"] => Kind::Compacted(number(last, 20)?),
        _ => return None,
    };
    Some((version, kind))
}
