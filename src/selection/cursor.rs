//! Where it is kept whose turn it is, and how turns are taken: in one atomic step, together with everything else that the
//! selectors who share a cursor know of the VMs.

mod directory;
mod process;
mod shared;
mod upkeep;

use std::collections::HashMap;
use std::sync::Arc;

pub use self::directory::{DefaultDir, default_dir};
use self::process::ProcessCursor;
use self::shared::SharedCursor;
use super::Selection;
use super::standing::{Changes, Standing};
use crate::error::Result;
use crate::runtime;
use crate::storage::Storage;

/// One atomic step: turns, and what else changes with them. There may be no turns in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Step {
    /// The turns, in order; each goes on record.
    pub(super) turns: Vec<Selection>,
    /// New numbers of the standing, the tickets of the turns among them.
    pub(super) changes: Changes,
}

/// What a caller makes of the standing: the step to take (one without turns and changes is none), and what to tell about
/// it. It is asked again, with the new standing, whenever another process was faster.
pub(super) trait Decide<T>: FnMut(&Standing) -> (Step, T) {}
impl<T, F: FnMut(&Standing) -> (Step, T)> Decide<T> for F {}

impl Step {
    fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.changes.is_empty()
    }
}

/// How often a VM was selected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Count {
    /// Number of turns.
    pub(super) selections: u64,
    /// Its last turn, microseconds UTC.
    pub(super) last_selected: Option<i64>,
}

/// A cursor of either kind.
#[derive(Debug, Clone)]
pub(super) enum Cursor {
    /// Of one selector, in memory.
    Process(Arc<ProcessCursor>),
    /// In a Delta table, shared by all who name the same directory.
    Shared(Arc<SharedCursor>),
}

impl Cursor {
    pub(super) fn process() -> Self {
        Self::Process(Arc::default())
    }

    /// A cursor in the table `vm_selections` below `root`. Nothing is created before the first turn.
    ///
    /// # Errors
    /// Those of [`Storage::open`].
    pub(super) fn shared(root: &str, options: &HashMap<String, String>) -> Result<Self> {
        Storage::open(root, options)?;
        Ok(Self::Shared(Arc::new(SharedCursor::new(root, options))))
    }

    /// What `look` makes of the standing as far as this process knows it: others may have taken turns since.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Standing) -> T + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Process(cursor) => Ok(cursor.look(look)),
            Self::Shared(cursor) => {
                let cursor = cursor.clone();
                runtime::blocking(move || cursor.look(look)).await
            }
        }
    }

    /// What `look` makes of the standing as it is now. A shared cursor that nobody has used yet is not created by it.
    pub(super) async fn look_now<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Standing) -> T + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Process(cursor) => Ok(cursor.look(look)),
            Self::Shared(cursor) => {
                let cursor = cursor.clone();
                runtime::blocking(move || cursor.look_now(look)).await
            }
        }
    }

    /// Takes the step that `decide` chooses from the true standing, and gives back what it told.
    pub(super) async fn advance<T: Send + 'static>(&self, mut decide: impl Decide<T> + Send + 'static) -> Result<T> {
        match self {
            Self::Process(cursor) => Ok(cursor.advance(&mut decide)),
            Self::Shared(cursor) => {
                let cursor = cursor.clone();
                runtime::blocking(move || cursor.advance(&mut decide)).await
            }
        }
    }

    /// How often each VM was selected at or after `since` (microseconds UTC), by anyone.
    pub(super) async fn counts(&self, since: Option<i64>) -> Result<HashMap<String, Count>> {
        match self {
            Self::Process(cursor) => cursor.counts(since),
            Self::Shared(cursor) => {
                let cursor = cursor.clone();
                runtime::blocking(move || cursor.counts(since)).await
            }
        }
    }
}

/// Now, in microseconds UTC.
pub(super) fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
