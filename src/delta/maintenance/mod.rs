//! Maintenance keeps an old table as fast as a new one: it compacts small files, writes a checkpoint, and deletes data
//! files and log entries that are no longer needed. No step changes a row. Each step is safe next to running readers and
//! writers of any Delta client, and next to itself.

mod clean;
mod compact;
mod files;
mod paths;
mod vacuum;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::errors::from_kernel;
use super::scan::Scanner;
use super::state::TableState;
use super::table::Table;
use super::types::Predicate;
use crate::error::{Error, Result};
use crate::runtime::{InFlight, environment};

/// The minimum age, in milliseconds, of files to delete that may belong to an active writer, whatever the caller says: a
/// staged data file, and a log entry that a writer's snapshot rests on.
const MIN_AGE_MS: i64 = 60 * 60 * 1000;

/// Commits between two maintenance runs in the background. That many files are read in milliseconds, and compacting them takes
/// as long as a few commits.
const BACKGROUND_INTERVAL: u64 = 250;

/// How long maintenance in the background keeps files for running readers.
const BACKGROUND_RETENTION: Retention = Retention(Duration::from_secs(24 * 3_600));

/// How long files are kept that the newest version does not need, for readers of older versions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retention(Duration);

impl Retention {
    /// A retention in hours. With 0, readers of older versions may miss files.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for a number that is negative, not finite or longer than 10,000 years.
    pub fn hours(hours: f64) -> Result<Self> {
        let valid = Some(hours).filter(|hours| (0.0..=87_660_000.0).contains(hours));
        valid.and_then(|hours| Duration::try_from_secs_f64(hours * 3600.0).ok()).map(Self).ok_or_else(|| {
            Error::invalid(format!("the retention must be a number of hours from 0 to 87,660,000, not {hours}"))
        })
    }

    /// How long `what` is kept, in milliseconds: as long as this says, or as the table's property `name`, whichever is longer. The
    /// report says so if that is the property.
    fn at_least(self, property: Option<Duration>, what: &str, name: &str, report: &mut MaintenanceOutcome) -> i64 {
        let millis = |kept: Duration| i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        let keep = millis(self.0.max(property.unwrap_or_default()));
        if keep > millis(self.0) {
            let hours = keep / 3_600_000;
            report.notes.push(format!("{what} are kept for {hours} hours, as the table's property {name} says"));
        }
        keep
    }
}

/// What maintenance did to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MaintenanceOutcome {
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
    /// Differences from what was requested, because of a property of the table.
    pub notes: Vec<String>,
    /// Steps that failed; the others were done.
    pub problems: Vec<String>,
}

impl MaintenanceOutcome {
    /// The result of a step. Records it if it failed.
    fn check<T>(&mut self, step: &str, done: Result<T>) -> Option<T> {
        let error = match done {
            Ok(done) => return Some(done),
            Err(error) => error.full_message(),
        };
        tracing::warn!(step, error, "maintenance could not do everything");
        self.problems.push(format!("{step}: {error}"));
        None
    }
}

impl Table {
    /// Compacts small files, writes a checkpoint, and deletes data files that no version within the retention needs and log
    /// entries that are no longer needed: next to running readers and writers, and without changing a row. The report has
    /// what a step could not do; the other steps continue.
    pub fn maintain(&self, retention: Retention) -> MaintenanceOutcome {
        maintain_by(&self.state, retention, &|| files::now(&self.state))
    }

    /// Starts maintenance in the background, after `first`, if the commit of version `committed` makes it due. For tables to
    /// which a running service commits all the time.
    pub(crate) fn maintain_in_background(&self, committed: Option<u64>, first: impl FnOnce(&Self) + Send + 'static) {
        if !committed.is_some_and(|version| version.is_multiple_of(BACKGROUND_INTERVAL)) {
            return;
        }
        let (table, in_flight) = (self.clone(), InFlight::begin());
        let work = move || {
            first(&table);
            table.maintain(BACKGROUND_RETENTION); // logs its own problems
            drop(in_flight);
        };
        // If no thread can be started, a later commit starts it.
        drop(environment().start(Some("jobrota-maintenance"), Box::new(work)));
    }
}

/// Maintains the table by this clock, which returns milliseconds since 1970.
fn maintain_by(table: &Arc<TableState>, retention: Retention, clock: &dyn Fn() -> Result<i64>) -> MaintenanceOutcome {
    let mut report = MaintenanceOutcome { version: table.known().version(), ..MaintenanceOutcome::default() };
    let Some((_, files)) = report.check("reading the table", live_files(table)) else { return report };
    (report.files_before, report.files_after) = (files, files);
    let compacted = compact::compact(table, &mut report);
    report.check("compacting", compacted);
    let checkpointed = checkpoint(table, &mut report);
    report.check("writing a checkpoint", checkpointed);
    let vacuumed = clock().and_then(|now| vacuum::vacuum(table, retention, now, &mut report));
    report.check("deleting files that are not needed any more", vacuumed);
    let cleaned = clock().and_then(|now| clean::clean(table, retention, now, &mut report));
    report.check("cleaning the log", cleaned);
    if let Some(now) = report.check("reading the table", live_files(table)) {
        (report.version, report.files_after) = now;
    }
    report
}

/// The newest version, and the number of its files.
fn live_files(table: &TableState) -> Result<(u64, u64)> {
    let snapshot = table.refresh()?;
    let listing = Scanner::new(table, &snapshot, &Predicate::default())?.files()?;
    Ok((snapshot.version(), listing.batches.iter().map(|batch| batch.files.len() as u64).sum()))
}

/// Writes a checkpoint of the newest version, unless it has one or is the empty table.
fn checkpoint(table: &TableState, report: &mut MaintenanceOutcome) -> Result<()> {
    let snapshot = table.refresh()?;
    if snapshot.version() == 0 {
        return Ok(());
    }
    let written = snapshot.checkpoint(table.storage.engine()?.as_ref(), None);
    let (_, checkpointed) = written
        .map_err(|e| from_kernel(format!("the checkpoint of version {} of '{}'", snapshot.version(), table.url), e))?;
    report.checkpoint = Some(checkpointed.version());
    table.replace(&checkpointed);
    Ok(())
}

#[cfg(test)]
mod tests;
