//! Whether the log still is the one that this process follows. A table can be deleted, dropped and created again, or restored
//! from a backup while handles on it are open. A commit that follows an entry of another log loses its rows, and makes a log
//! with a gap that no one can read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use delta_kernel::{Snapshot, SnapshotRef};
use futures::TryStreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::TableState;
use crate::delta::errors::from_kernel;
use crate::delta::log::{EntryFile, if_found, log_path, log_reader, table_exists};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{environment, lock};
use crate::storage::file_names::{LAST_CHECKPOINT, entry_name, entry_version};

/// What tells one log entry from another one of the same version, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::delta) struct EntryIdentity {
    /// The id of the commit, if it is this process's own.
    commit: Option<String>,
    /// Its time and size in the store.
    stored: Option<EntryFile>,
}

/// What became of the log entry that a commit follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delta) enum Predecessor {
    /// It is there.
    Same,
    /// There is another one.
    Replaced,
    /// There is none.
    Missing,
}

impl TableState {
    /// How often this handle found another table in the place of its own. Keep it with what is kept by version.
    pub(in crate::delta) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// Whether the last look found no table.
    pub(in crate::delta) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The identity of the log entry of `version`, if that is the newest entry known.
    pub(in crate::delta) fn known_entry(&self, version: u64) -> Option<EntryIdentity> {
        let known = lock(&self.newest_entry);
        known.as_ref().filter(|(newest, _)| *newest == version).map(|(_, identity)| identity.clone())
    }

    fn note_entry(&self, version: u64, identity: EntryIdentity) {
        let mut newest = lock(&self.newest_entry);
        if newest.as_ref().is_none_or(|(newest, _)| *newest <= version) {
            *newest = Some((version, identity));
        }
    }

    /// Records the newest entry that a listing has.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store failed.
    pub(in crate::delta) fn note_listed(&self, newest: Option<(u64, EntryFile)>) -> Result<()> {
        let Some((version, listed)) = newest else { return Ok(()) };
        let known = self.known_entry(version).unwrap_or_default();
        if known.stored.is_none() {
            let stored = if self.is_local() { self.stored_entry(version)? } else { Some(listed) };
            self.note_entry(version, EntryIdentity { stored, ..known });
        }
        Ok(())
    }

    /// Whether the log entry of `version`, which a listing shows as `listed`, is the one that is known.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store failed.
    pub(super) fn is_same_entry(&self, version: u64, listed: &EntryFile) -> Result<bool> {
        let Some(known) = self.known_entry(version) else { return Ok(true) };
        match &known.stored {
            Some(stored) if !self.is_local() && stored.is_same_object(listed) => Ok(true),
            None if !self.is_local() => Ok(true),
            // A file server can give a file its time later: then its content decides.
            _ => Ok(self.look_at_entry(version, &known)? == Predecessor::Same),
        }
    }

    /// Looks at the log entry of `version` in the store, which is to be the `known` one.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store failed.
    pub(in crate::delta) fn look_at_entry(&self, version: u64, known: &EntryIdentity) -> Result<Predecessor> {
        // One request tells: what a commit of this process wrote, or time and size.
        if let EntryIdentity { commit: Some(id), stored: None } = known {
            return Ok(match self.log_entry(version)? {
                Some(entry) if entry.id.as_ref() == Some(id) => Predecessor::Same,
                Some(_) => Predecessor::Replaced,
                None => Predecessor::Missing,
            });
        }
        let agree = |one: &EntryFile, other| if self.is_local() { one == other } else { one.is_same_object(other) };
        match self.stored_entry(version)? {
            None => Ok(Predecessor::Missing),
            Some(stored) if known.stored.as_ref().is_none_or(|known| agree(known, &stored)) => Ok(Predecessor::Same),
            Some(stored) => match &known.commit {
                // A file server can give a file its time later. Another file has come with other data files.
                Some(commit) if known.stored.as_ref().is_none_or(|known| known.inode == stored.inode) => {
                    self.look_at_entry(version, &EntryIdentity { commit: Some(commit.clone()), stored: None })
                }
                _ => Ok(Predecessor::Replaced),
            },
        }
    }

    /// Whether looking at a log entry takes no request.
    pub(in crate::delta) fn is_local(&self) -> bool {
        self.log_directory.is_some()
    }

    /// Records the commit `id` of this process as `version`, and looks whether its predecessor, of which `before` is known, still
    /// is there. Between the look before the commit and this one, the table can have been replaced.
    ///
    /// On a remote store, the look does not delay the call: what it finds is logged, and the table is read anew.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`], retryable, when the table was deleted: then nothing was written. [`ErrorKind::Storage`] with an
    /// unknown outcome when another table is there.
    pub(in crate::delta) fn committed(
        self: &Arc<Self>,
        version: u64,
        id: &str,
        before: Option<EntryIdentity>,
    ) -> Result<()> {
        let stored = if self.is_local() { self.stored_entry(version)? } else { None };
        self.note_entry(version, EntryIdentity { commit: Some(id.to_owned()), stored });
        let Some(predecessor) = version.checked_sub(1) else { return Ok(()) };
        let before = before.unwrap_or_default();
        if self.is_local() {
            return self.check_predecessor(predecessor, &before, id);
        }
        let (table, id) = (Arc::clone(self), id.to_owned());
        let check = move || {
            if let Err(error) = table.check_predecessor(predecessor, &before, &id) {
                let error = error.full_message();
                tracing::error!(table = %table.url, version, error, "the rows of a commit that was reported as successful are lost");
            }
        };
        environment().start(None, Box::new(check))
    }

    /// Reads the log, and returns whether it turned out to be another one than this handle followed.
    pub(in crate::delta) fn was_replaced(&self) -> bool {
        let before = self.incarnation();
        let _ = self.refresh();
        self.incarnation() != before || self.is_gone()
    }

    /// See [`TableState::committed`].
    fn check_predecessor(&self, predecessor: u64, before: &EntryIdentity, id: &str) -> Result<()> {
        let version = predecessor + 1;
        let is_missing = match self.look_at_entry(predecessor, before) {
            Err(_) | Ok(Predecessor::Same) => return Ok(()),
            Ok(Predecessor::Missing) => true,
            Ok(Predecessor::Replaced) => false,
        };
        let log = self.versions_from(predecessor)?;
        // A single answer of a remote store proves nothing. Clean-up deletes an entry only after a checkpoint has it.
        if is_missing && (log.contains(&predecessor) || self.last_checkpoint()? >= Some(predecessor)) {
            return Ok(());
        }
        let is_last = log.last().is_none_or(|last| *last <= version);
        // Its data files went with the old table, and alone behind a gap it would make the log unreadable for everyone.
        if is_last && self.log_entry(version)?.is_some_and(|entry| entry.id.as_deref() == Some(id)) {
            let (path, store) = (log_path(&self.url, &entry_name(version))?, self.storage.store().clone());
            match self.storage.block_on(async move { store.delete(&path).await })? {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(self.is_broken(version).with_source(e)),
            }
        } else if is_missing || log.contains(&version) {
            return Err(self.is_broken(version));
        }
        self.was_replaced();
        Err(self.not_committed(predecessor))
    }

    /// The error for a commit to a table that was replaced meanwhile, and that could not be taken back. The handle is of no use: who
    /// opens the table again, sees whether it can be read.
    fn is_broken(&self, version: u64) -> Error {
        self.gone.store(true, Ordering::Release);
        let text = format!(
            "the table '{}' was deleted or replaced while version {version} of its log was committed: its rows may be lost, and if \
             the table cannot be read, its log has a gap before this version. Look at it before trying again",
            self.url
        );
        Error::new(ErrorKind::Storage, text).with_unknown_outcome()
    }

    /// The versions in the log from `version` on.
    fn versions_from(&self, version: u64) -> Result<BTreeSet<u64>> {
        if self.is_local() {
            let stored = |version| Ok(self.stored_entry(version)?.map(|_| version));
            return (version..=version.saturating_add(2)).filter_map(|version| stored(version).transpose()).collect();
        }
        let (log, offset) = (log_path(&self.url, "")?, log_path(&self.url, &format!("{version:020}"))?);
        let listed = self.storage.store().list_with_offset(Some(&log), &offset);
        let versions =
            listed.try_filter_map(|file| std::future::ready(Ok(file.location.filename().and_then(entry_version))));
        let versions = self.storage.block_on(versions.try_collect::<BTreeSet<u64>>())?;
        versions.map_err(|e| from_kernel(format!("listing the log of '{}'", self.url), e.into()))
    }

    /// The version of the checkpoint that `_last_checkpoint` names, where readers start. They ignore a file that they cannot parse.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store failed.
    pub(in crate::delta) fn last_checkpoint(&self) -> Result<Option<u64>> {
        let (path, store) = (log_path(&self.url, LAST_CHECKPOINT)?, self.storage.store().clone());
        let read = self.storage.block_on(async move { store.get(&path).await?.bytes().await })?;
        let text = if_found(read, || format!("looking for a checkpoint of '{}'", self.url))?;
        let hint: Option<serde_json::Value> = text.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(hint.and_then(|hint| hint.get("version")?.as_u64()))
    }

    /// Time and size of the log entry of `version`; `None` if there is none.
    fn stored_entry(&self, version: u64) -> Result<Option<EntryFile>> {
        if let Some(log) = &self.log_directory {
            return Ok(std::fs::metadata(log.join(entry_name(version))).ok().and_then(|file| EntryFile::of(&file)));
        }
        let (path, store) = (log_path(&self.url, &entry_name(version))?, self.storage.store().clone());
        let found = self.storage.block_on(async move { store.head(&path).await })?;
        let found = if_found(found, || format!("looking for version {version} of '{}'", self.url))?;
        Ok(found.as_ref().map(EntryFile::from))
    }

    /// Reads the table anew, in the place of the one that this handle followed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], retryable, when there is no table any more: the handle is of no use then.
    pub(in crate::delta) fn reopen(&self) -> Result<SnapshotRef> {
        let reader = log_reader(self.storage.engine()?, None);
        match Snapshot::builder_for(self.url.as_str()).build(&reader) {
            Ok(snapshot) => {
                let version = snapshot.version();
                tracing::warn!(table = %self.url, version, "the log is another one than this process followed, and is read anew");
                self.gone.store(false, Ordering::Release);
                *lock(&self.newest_entry) = None;
                self.note_listed(reader.newest_entry().filter(|(newest, _)| *newest == version))?;
                *lock(&self.listing) = None;
                // Before the snapshot: a commit on it must not use data files of the table before.
                self.incarnation.fetch_add(1, Ordering::AcqRel);
                self.start_again(&snapshot);
                Ok(snapshot)
            }
            Err(_) if !table_exists(&self.storage, &self.url)? => {
                self.gone.store(true, Ordering::Release);
                let text = format!(
                    "the Delta table '{}' was deleted since it was opened: try again, which takes it for one that does not exist",
                    self.url
                );
                Err(Error::new(ErrorKind::NotFound, text).with_retryable(true))
            }
            Err(error) => Err(from_kernel(format!("reading the log of '{}'", self.url), error)),
        }
    }

    /// The error for a commit that was not made, because its predecessor is not the one that this handle followed.
    pub(in crate::delta) fn not_committed(&self, version: u64) -> Error {
        let text = format!(
            "the table '{}' was deleted or replaced since it was opened: version {version} of its log is not the one that this \
             handle follows. Nothing was written; try again, which uses the table as it is then",
            self.url
        );
        Error::new(ErrorKind::Conflict, text).with_retryable(true)
    }
}
