//! An advisory lock per table: among the threads that share its handles, and among the processes of one machine.
//!
//! Waiting for a commit of a millisecond is cheaper than losing a race to it. The lock only saves work: writers on other
//! machines and other Delta clients do not take it, and commits are correct without it.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{environment, lock};

/// How long a process waits for the lock before it commits without it. The process that has the lock may be stopped or
/// slow.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// The shortest and the longest pause between two attempts to lock.
const PAUSES: [Duration; 2] = [Duration::from_micros(50), Duration::from_micros(600)];

/// The lock of one table.
#[derive(Debug, Default)]
pub(in crate::delta) struct AdvisoryLock {
    threads: Mutex<()>,
    holder: Mutex<Option<ThreadId>>,
    /// The log's directory, which processes lock if it is on a local disk.
    directory: Option<PathBuf>,
    opened: OnceLock<Option<File>>,
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(in crate::delta) struct LockGuard<'a> {
    lock: &'a AdvisoryLock,
    _threads: MutexGuard<'a, ()>,
    locked: Option<&'a File>,
    /// Another process held the lock when this one asked for it.
    pub(in crate::delta) contended: bool,
}

impl AdvisoryLock {
    /// The lock of a table whose log is in `directory`, if that is on a local disk.
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, ..Self::default() }
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when this thread holds the lock already, because that would be a deadlock: a callback that
    /// decides about a commit must not write to the same table.
    pub(in crate::delta) fn acquire(&self) -> Result<LockGuard<'_>> {
        if *lock(&self.holder) == Some(thread::current().id()) {
            return Err(Error::new(
                ErrorKind::Internal,
                "a callback that decides about a commit tried to write to the same table",
            ));
        }
        let threads = lock(&self.threads);
        *lock(&self.holder) = Some(thread::current().id());
        let (locked, contended) = self.lock_among_processes();
        Ok(LockGuard { lock: self, _threads: threads, locked, contended })
    }

    /// The file that is locked now, if any, and whether another process held it.
    fn lock_among_processes(&self) -> (Option<&File>, bool) {
        // If the directory cannot be opened or locked, processes race each other, as they do on an object store.
        let open = || self.directory.as_ref().and_then(|directory| File::open(directory).ok());
        let Some(file) = self.opened.get_or_init(open) else { return (None, false) };
        let deadline = environment().instant() + LOCK_TIMEOUT;
        let mut contended = false;
        loop {
            match file.try_lock() {
                Ok(()) => return (Some(file), contended),
                Err(std::fs::TryLockError::WouldBlock) if environment().instant() < deadline => {
                    contended = true;
                    environment().block(PAUSES[0] + (PAUSES[1] - PAUSES[0]).mul_f64(environment().fraction()));
                }
                Err(_) => return (None, contended),
            }
        }
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.locked {
            // Closing the file is not enough: a forked child has the same file open.
            let unlocked = file.unlock();
            tracing::trace!(?unlocked, "the table's lock is released");
        }
        *lock(&self.lock.holder) = None;
    }
}
