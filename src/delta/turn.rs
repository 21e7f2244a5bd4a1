//! Whose turn it is to commit among the threads of one process that share a table handle.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use crate::error::{Error, ErrorKind, Result};

/// Threads that share a handle queue up here, as it is cheaper to wait for a millisecond's commit than to lose a race
/// to it. It is no protection: other processes and other handles do not see it, and need not.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turn: Mutex<()>,
    holder: Mutex<Option<ThreadId>>,
}

/// While it lives, no other thread commits through this handle.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    _turn: MutexGuard<'a, ()>,
}

impl Turns {
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
        Ok(Turn { turns: self, _turn: turn })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.turns.holder.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
