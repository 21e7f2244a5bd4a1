//! Whose turn it is to commit: among the threads that share a table handle, and among the processes of one machine.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::error::{Error, ErrorKind, Result};

/// How long a process waits for the others before it tries its luck: whoever has the turn may be stopped or slow.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often it looks, in microseconds.
const LOOKS: std::ops::Range<u64> = 100..1_500;

/// Whoever commits queues up here, as it is cheaper to wait for a millisecond's commit than to lose a race to it. It is no
/// protection: writers on other machines and other Delta clients do not see it, and need not.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turn: Mutex<()>,
    holder: Mutex<Option<ThreadId>>,
    /// What the processes of this machine lock: the directory of the log itself, on a local disk.
    directory: Option<PathBuf>,
    opened: OnceLock<Option<File>>,
}

/// While it lives, nobody else who queues up commits to the table.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    _turn: MutexGuard<'a, ()>,
    locked: Option<&'a File>,
    /// Another process had the turn when this one asked for it.
    pub(super) contended: bool,
}

impl Turns {
    /// With the directory of the table's log, if it is on a local disk.
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, ..Self::default() }
    }

    /// Waits for the turn.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when this thread has it already, which would wait forever: a callback that decides
    /// about a commit must not write to the same table.
    pub(super) fn take(&self) -> Result<Turn<'_>> {
        if *self.holder.lock().unwrap_or_else(PoisonError::into_inner) == Some(thread::current().id()) {
            return Err(Error::new(
                ErrorKind::Internal,
                "a callback that decides about a commit tried to write to the same table",
            ));
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        *self.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current().id());
        let mut turn = Turn { turns: self, _turn: turn, locked: None, contended: false };
        turn.lock_among_processes();
        Ok(turn)
    }

    fn file(&self) -> Option<&File> {
        // Where the directory cannot be opened or locked, processes race each other, as they do on an object store.
        let open = || self.directory.as_ref().and_then(|directory| File::open(directory).ok());
        self.opened.get_or_init(open).as_ref()
    }
}

impl Turn<'_> {
    fn lock_among_processes(&mut self) {
        let Some(file) = self.turns.file() else { return };
        let patience = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    self.locked = Some(file);
                    return;
                }
                Err(std::fs::TryLockError::WouldBlock) if Instant::now() < patience => {
                    self.contended = true;
                    thread::sleep(Duration::from_micros(rand::rng().random_range(LOOKS)));
                }
                Err(_) => return,
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.locked {
            // Closing would not do: a forked child has the same file open.
            let unlocked = file.unlock();
            tracing::trace!(?unlocked, "the turn is over");
        }
        *self.turns.holder.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
