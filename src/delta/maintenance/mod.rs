//! Maintenance: what keeps a table as quick after a year as on its first day. Small files are compacted, a checkpoint is
//! written, files that nobody needs are deleted, and so are log entries below a checkpoint. No step changes a row, and
//! each one is safe next to running readers and writers, ours and others', and next to itself.

mod clean;
mod compact;
mod files;
mod health;
mod paths;
mod vacuum;

use std::sync::Arc;
use std::time::Duration;

use delta_kernel::SnapshotRef;

pub(super) use health::Health;

use super::failure::from_kernel;
use super::scan::Scanner;
use super::shared::Inner;
use super::table::Predicate;
use crate::error::{Error, Result};

/// Nothing that may belong to a writer under way is deleted before it is this old, in milliseconds, whatever the caller
/// says: a staged data file, and a log entry on which a writer's position rests.
const FLOOR: i64 = 60 * 60 * 1000;

/// For how long what the table does not need any more is kept, so that readers of older versions find it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retention(Duration);

impl Retention {
    /// So many hours. With 0, readers of older versions may find files gone.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for a number that is negative, not finite or longer than 10,000 years.
    pub fn hours(hours: f64) -> Result<Self> {
        let refused = || Error::invalid(format!("the retention must be a number of hours from 0 up, not {hours}"));
        if !(0.0..=87_660_000.0).contains(&hours) {
            return Err(refused());
        }
        Duration::try_from_secs_f64(hours * 3600.0).map(Self).map_err(|_| refused())
    }

    /// The longer one of this and what the table's property asks for, in milliseconds.
    fn at_least(self, property: Option<Duration>) -> i64 {
        i64::try_from(self.0.max(property.unwrap_or_default()).as_millis()).unwrap_or(i64::MAX)
    }
}

/// What maintenance did to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maintained {
    /// The table's version afterwards.
    pub version: u64,
    /// Data files in the table before and after.
    pub files_before: u64,
    /// See `files_before`.
    pub files_after: u64,
    /// Small files that were replaced, by how many, and the rows in them.
    pub files_compacted: u64,
    /// See `files_compacted`.
    pub files_written: u64,
    /// See `files_compacted`.
    pub rows_compacted: u64,
    /// The version of the table's newest checkpoint, as far as known.
    pub checkpoint: Option<u64>,
    /// Files deleted that no version within the retention needs, and their bytes.
    pub files_vacuumed: u64,
    /// See `files_vacuumed`.
    pub bytes_freed: u64,
    /// Files of the log deleted: commits, checkpoints and what belongs to them.
    pub log_entries_removed: u64,
    /// What was done otherwise than asked for, because a property of the table says so.
    pub notes: Vec<String>,
    /// What could not be done; the rest was.
    pub problems: Vec<String>,
}

impl Maintained {
    /// Takes note of a step that failed.
    fn failed(&mut self, step: &str, error: &Error) {
        tracing::warn!(step, error = %error.full_message(), "maintenance could not do everything");
        self.problems.push(format!("{step}: {}", error.full_message()));
    }
}

/// See [`super::Table::maintain`].
pub(super) fn maintain(table: &Arc<Inner>, retention: Retention) -> Maintained {
    maintain_by(table, retention, &|| files::now(table))
}

/// Maintains the table by this clock, which gives milliseconds since 1970.
fn maintain_by(table: &Arc<Inner>, retention: Retention, clock: &dyn Fn() -> Result<i64>) -> Maintained {
    let mut report = Maintained { version: table.known().version(), ..Maintained::default() };
    match table.newest().and_then(|snapshot| live_files(table, &snapshot)) {
        Ok(count) => (report.files_before, report.files_after) = (count, count),
        Err(error) => {
            report.failed("looking at the table", &error);
            return report;
        }
    }
    if let Err(error) = compact::compact(table, &mut report) {
        report.failed("compacting", &error);
    }
    if let Err(error) = checkpoint(table, &mut report) {
        report.failed("writing a checkpoint", &error);
    }
    if let Err(error) = clock().and_then(|now| vacuum::vacuum(table, retention, now, &mut report)) {
        report.failed("deleting files that are not needed any more", &error);
    }
    if let Err(error) = clock().and_then(|now| clean::clean(table, retention, now, &mut report)) {
        report.failed("cleaning the log", &error);
    }
    match table.newest().and_then(|snapshot| Ok((snapshot.version(), live_files(table, &snapshot)?))) {
        Ok((version, files)) => (report.version, report.files_after) = (version, files),
        Err(error) => report.failed("looking at the table", &error),
    }
    report
}

fn live_files(table: &Inner, snapshot: &SnapshotRef) -> Result<u64> {
    let listings = Scanner::new(table.storage.engine()?, snapshot, &Predicate::default())?.files()?;
    table.health.listed(&listings);
    Ok(listings.iter().map(|listing| listing.rows.len() as u64).sum())
}

/// Writes a checkpoint of the newest version, if it has none and is more than the empty table.
fn checkpoint(table: &Inner, report: &mut Maintained) -> Result<()> {
    let snapshot = table.newest()?;
    if snapshot.version() == 0 {
        return Ok(());
    }
    let written = snapshot.checkpoint(table.storage.engine()?.as_ref(), None);
    let (_, checkpointed) = written
        .map_err(|e| from_kernel(format!("the checkpoint of version {} of '{}'", snapshot.version(), table.url), e))?;
    report.checkpoint = Some(checkpointed.version());
    table.exchange(&checkpointed);
    Ok(())
}

#[cfg(test)]
mod tests;
