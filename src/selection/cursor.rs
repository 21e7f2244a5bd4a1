//! Whose turn it is: the VM of the given list that was selected longest ago.
//!
//! Positions are kept per VM name, as the ticket number of its last turn. So a list may be edited, reordered or differ
//! between callers without anybody losing a place; a VM that was skipped keeps its old ticket and is first again when
//! it is back, for exactly one turn.

mod directory;
mod process;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

pub use self::directory::{DefaultDir, default_dir};
use self::process::ProcessCursor;
use self::shared::SharedCursor;
use super::Selection;
use crate::error::Result;
use crate::runtime;
use crate::storage::Storage;

/// What a caller makes of the order: the turns to take, or None when it cannot decide yet. It is asked again, with the
/// new order, whenever another process took a turn in between.
pub(super) trait Decide: FnMut(&[String]) -> Option<Vec<Selection>> {}
impl<F: FnMut(&[String]) -> Option<Vec<Selection>>> Decide for F {}

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

    /// `names` in the order of their turns, as far as this process knows: others may have taken turns since.
    pub(super) async fn order(&self, names: &Arc<[String]>) -> Result<Vec<String>> {
        match self {
            Self::Process(cursor) => Ok(cursor.order(names)),
            Self::Shared(cursor) => {
                let (cursor, names) = (cursor.clone(), names.clone());
                runtime::blocking(move || cursor.order(&names)).await
            }
        }
    }

    /// Takes the turns that `decide` chooses from the true order of `names`, all in one step.
    pub(super) async fn advance(
        &self,
        names: &Arc<[String]>,
        mut decide: impl Decide + Send + 'static,
    ) -> Result<Option<Vec<Selection>>> {
        match self {
            Self::Process(cursor) => cursor.advance(names, &mut decide),
            Self::Shared(cursor) => {
                let (cursor, names) = (cursor.clone(), names.clone());
                runtime::blocking(move || cursor.advance(&names, &mut decide)).await
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

/// The order rule: longest ago first, never selected before all others, and the order of the list among equals.
fn ordered(names: &[String], ticket: impl Fn(&str) -> Option<i64>) -> Vec<String> {
    let mut order: Vec<(Option<i64>, &String)> = names.iter().map(|name| (ticket(name), name)).collect();
    order.sort_by_key(|(ticket, _)| *ticket); // stable; None sorts first
    order.into_iter().map(|(_, name)| name.clone()).collect()
}

/// Now, in microseconds UTC.
fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
