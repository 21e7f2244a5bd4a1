//! Syncs the files of a table's log that a row needs besides its own entry: a reader replays all entries since the last
//! checkpoint.
//!
//! Writers that do not sync write to the same table. A power cut can remove an entry of theirs below ours, or leave it
//! empty, and then no reader can read ours. So before an entry gets its name, this process syncs the entries below that it
//! has not synced yet, with the data files that they name and the checkpoints. Before its first entry in a table, it
//! syncs the whole file system, because the name of a checkpoint does not tell which files the checkpoint names.
//!
//! A `_last_checkpoint` of another writer is never synced. Without it, a reader only takes longer. If it is on the disk
//! without its checkpoint, readers refuse the table.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use object_store::Result;
use serde::Deserialize;
use url::Url;

use super::{SyncTracker, failed};
use crate::runtime::lock;
use crate::storage::file_names::{
    LAST_CHECKPOINT, LOG_DIRECTORY, Stamp, entry_version, last_checkpoint_stamp, version,
};

const SIDECARS: &str = "_sidecars";

/// A file that is written into a log.
pub(super) struct LogFile<'a> {
    log: &'a Path,
    /// None unless the file is a log entry.
    version: Option<u64>,
    is_last_checkpoint: bool,
}

/// The part of a log that is on the disk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SyncedLog {
    /// With all that a reader of this version needs.
    version: Option<u64>,
    last_checkpoint: Option<Stamp>,
}

/// The log that the file at `path` is in.
pub(super) fn directory_of(path: &Path) -> Option<&Path> {
    path.parent().filter(|directory| directory.file_name().is_some_and(|name| name == LOG_DIRECTORY))
}

impl<'a> LogFile<'a> {
    /// None if the file at `path` is not in a log.
    pub(super) fn of(path: &'a Path) -> Option<Self> {
        let log = directory_of(path)?;
        let name = path.file_name()?.to_str()?;
        Some(Self { log, version: entry_version(name), is_last_checkpoint: name == LAST_CHECKPOINT })
    }
}

impl SyncTracker {
    fn synced(&self, log: &Path) -> SyncedLog {
        lock(&self.logs).get(log).copied().unwrap_or_default()
    }

    /// Syncs what a reader of `file` needs below it. The caller syncs the bytes and the name of `file` itself, and then
    /// passes the result to [`SyncTracker::remember`].
    pub(super) fn sync_below(&self, file: &LogFile<'_>, create: bool) -> Result<SyncedLog> {
        let synced = self.synced(file.log);
        let last_checkpoint = last_checkpoint_stamp(file.log);
        let Some(version) = file.version.filter(|_| create) else { return Ok(SyncedLog { last_checkpoint, ..synced }) };
        if let Some(below) = version.checked_sub(1) {
            let is_complete = |last| last >= below && last_checkpoint == synced.last_checkpoint;
            if !synced.version.is_some_and(is_complete) {
                match synced.version {
                    Some(last) => self.sync_between(file.log, last, version)?,
                    None => self.sync_table(file.log)?,
                }
                // If another writer takes the version, these need no second sync. The next sync of the directory
                // includes their names.
                self.update(file.log, SyncedLog { version: Some(below), last_checkpoint });
            }
        }
        Ok(SyncedLog { version: Some(version), last_checkpoint })
    }

    /// Notes that `file` and everything below it are on the disk.
    pub(super) fn remember(&self, file: &LogFile<'_>, below: SyncedLog) {
        if file.version.is_some() {
            self.update(file.log, below);
        } else if file.is_last_checkpoint && below.last_checkpoint == self.synced(file.log).last_checkpoint {
            // This process replaced the file that it knew: there is no new checkpoint of another writer.
            self.update(file.log, SyncedLog { last_checkpoint: last_checkpoint_stamp(file.log), ..below });
        }
    }

    fn update(&self, log: &Path, synced: SyncedLog) {
        let mut logs = lock(&self.logs);
        let known = logs.entry(log.to_owned()).or_default();
        if synced.version >= known.version {
            *known = synced;
        }
    }

    /// Syncs everything that a reader of the log can need now.
    pub(super) fn sync_table(&self, log: &Path) -> Result<()> {
        let table = log.parent().unwrap_or(log);
        self.disk.sync_file_system(table).map_err(|e| failed("syncing", table, e))
    }

    /// Syncs the entries above `synced` and below `end` with the files that they name, and the newest checkpoints.
    fn sync_between(&self, log: &Path, synced: u64, end: u64) -> Result<()> {
        let cannot = |e| failed("reading the directory", log, e);
        let mut names = Vec::new();
        for entry in fs::read_dir(log).map_err(cannot)? {
            if let Ok(name) = entry.map_err(cannot)?.file_name().into_string() {
                names.extend(version(&name).filter(|version| *version < end).map(|version| (version, name)));
            }
        }
        let is_checkpoint = |name: &str| name.get(20..) == Some(".checkpoint.parquet");
        let newest = names.iter().filter(|(_, name)| is_checkpoint(name)).map(|(version, _)| *version).max();
        let (entries, others): (Vec<_>, Vec<_>) = names.iter().partition(|(_, name)| entry_version(name).is_some());
        let entries: Vec<PathBuf> =
            entries.into_iter().filter(|(version, _)| *version > synced).map(|(_, name)| log.join(name)).collect();
        // Before an entry, the files that it names.
        self.sync_files_named(log, &entries)?;
        for entry in entries {
            self.sync(&entry)?;
        }
        // Checkpoints, their parts and checksums.
        for (_, name) in others.into_iter().filter(|(version, _)| newest.is_none_or(|newest| *version >= newest)) {
            self.sync(&log.join(name))?;
        }
        self.sync_sidecars(&log.join(SIDECARS))
    }

    /// Syncs the data files that the log's `entries` add, and their names. Files that no longer exist are skipped.
    fn sync_files_named(&self, log: &Path, entries: &[PathBuf]) -> Result<()> {
        let Some(table) = log.parent().and_then(|table| Url::from_directory_path(table).ok()) else { return Ok(()) };
        let mut directories = BTreeSet::new();
        for entry in entries {
            let file = match File::open(entry) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed("reading", entry, e)),
            };
            for named in files_named(file, &table) {
                if self.sync(&named)? {
                    directories.extend(named.parent().map(Path::to_owned));
                }
            }
        }
        for directory in directories {
            let synced = self.create_directory(&directory).and_then(|()| self.disk.sync_directory(&directory));
            synced.map_err(|e| failed("syncing", &directory, e))?;
        }
        Ok(())
    }

    /// Syncs the parts of V2 checkpoints, which are few and in a directory of their own.
    fn sync_sidecars(&self, sidecars: &Path) -> Result<()> {
        let cannot = |e| failed("reading the directory", sidecars, e);
        let entries = match fs::read_dir(sidecars) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(cannot(e)),
        };
        for entry in entries {
            self.sync(&entry.map_err(cannot)?.path())?;
        }
        self.disk.sync_directory(sidecars).map_err(|e| failed("syncing", sidecars, e))
    }
}

#[derive(Deserialize)]
struct Action {
    add: Option<LoggedAdd>,
}

/// A data file that a log entry adds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoggedAdd {
    pub(super) path: String,
    deletion_vector: Option<DeletionVectorDescriptor>,
}

/// The data files that the log entry `entry` adds.
pub(super) fn adds(entry: impl BufRead) -> impl Iterator<Item = LoggedAdd> {
    let actions = entry.lines().map_while(io::Result::ok);
    actions.filter_map(|line| serde_json::from_str::<Action>(&line).ok()?.add)
}

/// The files on this disk that the log entry `entry` adds to `table`.
fn files_named(entry: File, table: &Url) -> Vec<PathBuf> {
    adds(BufReader::new(entry))
        .flat_map(|add| {
            let vector = add.deletion_vector.and_then(|vector| vector.absolute_path(table).ok().flatten());
            [table.join(&add.path).ok(), vector].into_iter().flatten()
        })
        .filter_map(|url| url.to_file_path().ok())
        .collect()
}
