//! What of a table's log a row needs besides its own entry: a reader replays all entries from the last checkpoint on.
//!
//! Writers that do not sync write to the same table. An entry of theirs below ours could be lost by a power cut, or
//! survive as an empty file, and ours would be unreadable with it. So before an entry gets its name, those below that
//! this process has not synced yet are synced, with the data files that they name and the checkpoints. Before its first
//! entry in a table, a process syncs all that there is: what a checkpoint names is not to be told from its name.
//!
//! `_last_checkpoint` is never synced for somebody else: lost, it costs time; on the disk without its checkpoint, it
//! makes a table that readers refuse.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::SystemTime;

use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use object_store::Result;
use serde::Deserialize;
use url::Url;

use super::{State, failed};

const LOG: &str = "_delta_log";
const HINT: &str = "_last_checkpoint";
const SIDECARS: &str = "_sidecars";

/// A file that is written into a log: the entry of a version, or another one.
pub(super) struct Entry<'a> {
    log: &'a Path,
    version: Option<u64>,
    is_hint: bool,
}

/// What is on the disk of one log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// All that is needed to read this version.
    version: Option<u64>,
    hint: Option<Stamp>,
}

/// Tells one `_last_checkpoint` from the next: whoever writes a checkpoint replaces it.
type Stamp = (SystemTime, u64);

/// The log that the file at `path` is in.
pub(super) fn directory_of(path: &Path) -> Option<&Path> {
    path.parent().filter(|directory| directory.file_name().is_some_and(|name| name == LOG))
}

impl<'a> Entry<'a> {
    /// What the file at `path` is to a log; none if it is in none.
    pub(super) fn of(path: &'a Path) -> Option<Self> {
        let log = directory_of(path)?;
        let name = path.file_name()?.to_str()?;
        let version = version(name).filter(|_| is_entry(name));
        Some(Self { log, version, is_hint: name == HINT })
    }
}

/// The version in a log file's name: its first 20 characters.
fn version(name: &str) -> Option<u64> {
    let (digits, rest) = name.split_at_checked(20)?;
    let exactly = rest.starts_with('.') && digits.bytes().all(|b| b.is_ascii_digit());
    exactly.then(|| digits.parse().ok()).flatten()
}

fn is_entry(name: &str) -> bool {
    name.len() == 25 && name.ends_with(".json")
}

fn is_whole_checkpoint(name: &str) -> bool {
    name.get(20..) == Some(".checkpoint.parquet")
}

fn stamp(log: &Path) -> Option<Stamp> {
    let found = fs::metadata(log.join(HINT)).ok()?;
    Some((found.modified().ok()?, found.len()))
}

impl State {
    fn known(&self, log: &Path) -> Known {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).get(log).copied().unwrap_or_default()
    }

    /// Syncs what a reader of `entry` needs below it; its own bytes and name are the caller's. What is known then, once
    /// these are on the disk too.
    pub(super) fn settle(&self, entry: &Entry<'_>, create: bool) -> Result<Known> {
        let known = self.known(entry.log);
        let hint = stamp(entry.log);
        let Some(version) = entry.version.filter(|_| create) else { return Ok(Known { hint, ..known }) };
        match (known.version, version.checked_sub(1)) {
            (_, None) => {}
            (Some(synced), Some(below)) if synced >= below && hint == known.hint => {}
            (Some(synced), below) => {
                self.catch_up(entry.log, synced, version)?;
                // Should another writer take the version, these need not be synced again. Their names are on the disk
                // with the next one that is.
                self.note(entry.log, Known { version: below, hint });
            }
            (None, below) => {
                self.everything(entry.log)?;
                self.note(entry.log, Known { version: below, hint });
            }
        }
        Ok(Known { version: Some(version), hint })
    }

    /// Notes what is on the disk now that `entry` is.
    pub(super) fn remember(&self, entry: &Entry<'_>, settled: Known) {
        if entry.version.is_some() {
            self.note(entry.log, settled);
        } else if entry.is_hint && settled.hint == self.known(entry.log).hint {
            // Ours replaced the one that was known: no news.
            self.note(entry.log, Known { hint: stamp(entry.log), ..settled });
        }
    }

    fn note(&self, log: &Path, settled: Known) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = logs.entry(log.to_owned()).or_default();
        if settled.version >= known.version {
            *known = settled;
        }
    }

    /// Syncs all that a reader of the log may need now.
    pub(super) fn everything(&self, log: &Path) -> Result<()> {
        let table = log.parent().unwrap_or(log);
        self.disk.sync_everything(table).map_err(|e| failed("syncing", table, e))
    }

    /// Syncs the entries above `synced` and below `end` with the files that they name, and the newest checkpoints.
    fn catch_up(&self, log: &Path, synced: u64, end: u64) -> Result<()> {
        let cannot = |e| failed("reading the directory", log, e);
        let mut names = Vec::new();
        for entry in fs::read_dir(log).map_err(cannot)? {
            if let Ok(name) = entry.map_err(cannot)?.file_name().into_string() {
                names.extend(version(&name).map(|version| (version, name)));
            }
        }
        let below = || names.iter().filter(|(version, _)| *version < end);
        let newest = below().filter(|(_, name)| is_whole_checkpoint(name)).map(|(version, _)| *version).max();
        let (entries, others): (Vec<_>, Vec<_>) = below().partition(|(_, name)| is_entry(name));
        let entries: Vec<PathBuf> =
            entries.into_iter().filter(|(version, _)| *version > synced).map(|(_, name)| log.join(name)).collect();
        // An entry that is on the disk must not name files that are not.
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

    /// Syncs the data files that `entries` of the log add, as far as they are still there, and their names.
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
            self.keep_directory(&directory).map_err(|e| failed("syncing", &directory, e))?;
            self.disk.sync_directory(&directory).map_err(|e| failed("syncing", &directory, e))?;
        }
        Ok(())
    }

    /// Syncs the parts of checkpoints of the newer kind, which are few and in a directory of their own.
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

    /// Syncs the file at `path`. `false` if it is gone, as files that were cleaned up are.
    fn sync(&self, path: &Path) -> Result<bool> {
        match File::open(path) {
            Ok(file) => {
                self.disk.sync_file(path, &file).map_err(|e| failed("syncing", path, e))?;
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(failed("syncing", path, e)),
        }
    }
}

#[derive(Deserialize)]
struct Action {
    add: Option<Add>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Add {
    path: String,
    deletion_vector: Option<DeletionVectorDescriptor>,
}

/// The files that the log entry `entry` adds to `table`, as far as they are on this disk.
fn files_named(entry: File, table: &Url) -> Vec<PathBuf> {
    let actions = BufReader::new(entry).lines().map_while(io::Result::ok);
    let adds = actions.filter_map(|line| serde_json::from_str::<Action>(&line).ok()?.add);
    adds.flat_map(|add| {
        let vector = add.deletion_vector.and_then(|vector| vector.absolute_path(table).ok().flatten());
        [table.join(&add.path).ok(), vector].into_iter().flatten()
    })
    .filter_map(|url| url.to_file_path().ok())
    .collect()
}
