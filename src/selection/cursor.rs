//! The cursor: stores the selection state and advances it in atomic steps. A step takes turns and changes other values.

mod shared;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use self::shared::SharedCursor;
use super::Selection;
use super::state::{Changes, SelectionState};
use crate::error::{Error, Result};
use crate::runtime::{self, lock};
use crate::storage::{Storage, StorageOptions};

/// Turns whose times are kept. Older turns are only counted.
const HISTORY: usize = 100_000;

/// One atomic step: turns, and the changes of the state that belong to them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Step {
    /// The turns, in order. Each is recorded.
    pub(super) turns: Vec<Selection>,
    /// New values of the state, the tickets of the turns among them.
    pub(super) changes: Changes,
}

/// A caller's decision on the state: the step to take (an empty one is not taken), and a value to return. It is called again
/// with the new state whenever another process was faster.
pub(super) trait Decide<T>: FnMut(&SelectionState) -> (Step, T) {}
impl<T, F: FnMut(&SelectionState) -> (Step, T)> Decide<T> for F {}

impl Step {
    /// A step without turns.
    pub(super) fn of(changes: Changes) -> Self {
        Self { turns: Vec::new(), changes }
    }

    fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.changes.is_empty()
    }
}

/// How often a VM was selected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TurnCount {
    /// Number of turns.
    pub(super) selections: u64,
    /// Its last turn, microseconds UTC.
    pub(super) last_selected: Option<i64>,
}

impl TurnCount {
    /// Counts a turn.
    fn add(&mut self, at: Option<i64>) {
        self.selections += 1;
        self.last_selected = self.last_selected.max(at);
    }
}

/// A cursor of either kind.
#[derive(Clone)]
pub(super) enum Cursor {
    /// Of one selector, in memory.
    Process(Arc<Mutex<ProcessCursor>>),
    /// In a Delta table, shared by all who name the same directory.
    Shared(Arc<SharedCursor>),
}

impl Cursor {
    /// A cursor in the table `vm_selections` below `root`. The table is created by the first turn.
    ///
    /// # Errors
    /// Those of [`Storage::open`].
    pub(super) fn shared(root: &str, options: &StorageOptions) -> Result<Self> {
        Storage::open(root, options.clone())?;
        Ok(Self::Shared(Arc::new(SharedCursor::new(root, options.clone()))))
    }

    /// Reads the state as far as this process knows it (others may have taken turns since), or the `newest` one. To read that
    /// does not create the table of a shared cursor that was never used.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        newest: bool,
        read: impl FnOnce(&SelectionState) -> T + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Process(cursor) => Ok(read(&lock(cursor).state)),
            Self::Shared(cursor) => on_thread(cursor, move |cursor| cursor.read(newest, read)).await,
        }
    }

    /// Takes the step that `decide` chooses on the newest state. Returns the value that `decide` returned.
    pub(super) async fn advance<T: Send + 'static>(&self, mut decide: impl Decide<T> + Send + 'static) -> Result<T> {
        match self {
            Self::Process(cursor) => Ok(lock(cursor).advance(&mut decide)),
            Self::Shared(cursor) => on_thread(cursor, move |cursor| cursor.advance(&mut decide)).await,
        }
    }

    /// How often each VM was selected at or after `since` (microseconds UTC), by all who share the cursor.
    pub(super) async fn counts(&self, since: Option<i64>) -> Result<HashMap<String, TurnCount>> {
        match self {
            Self::Process(cursor) => lock(cursor).counts(since),
            Self::Shared(cursor) => on_thread(cursor, move |cursor| cursor.counts(since)).await,
        }
    }
}

/// The cursor of one selector, in memory: the selection state, the counts and the times of the last turns.
#[derive(Debug, Default)]
pub(super) struct ProcessCursor {
    state: SelectionState,
    counts: HashMap<String, TurnCount>,
    /// (when, VM), oldest first.
    history: VecDeque<(i64, String)>,
    /// The time of the newest turn that was removed from `history`.
    removed: Option<i64>,
}

impl ProcessCursor {
    fn advance<T>(&mut self, decide: &mut impl Decide<T>) -> T {
        let (step, value) = decide(&self.state);
        self.state.apply(step.changes);
        let at = now();
        for Selection { vm, .. } in step.turns {
            self.counts.entry(vm.clone()).or_default().add(Some(at));
            self.history.push_back((at, vm));
            if self.history.len() > HISTORY
                && let Some((at, _)) = self.history.pop_front()
            {
                self.removed = self.removed.max(Some(at));
            }
        }
        value
    }

    fn counts(&self, since: Option<i64>) -> Result<HashMap<String, TurnCount>> {
        let Some(since) = since else { return Ok(self.counts.clone()) };
        if self.removed.is_some_and(|removed| since <= removed) {
            return Err(Error::invalid(format!(
                "this process keeps the times of its last {HISTORY} selections, and \"since\" is before them: give a later time \
                 or none, or use a shared cursor, which keeps the times of all"
            )));
        }
        let mut counts: HashMap<String, TurnCount> = HashMap::new();
        for (at, vm) in self.history.iter().filter(|(at, _)| *at >= since) {
            counts.entry(vm.clone()).or_default().add(Some(*at));
        }
        Ok(counts)
    }
}

/// Runs `work` on a thread that may block.
async fn on_thread<T: Send + 'static>(
    cursor: &Arc<SharedCursor>,
    work: impl FnOnce(&SharedCursor) -> Result<T> + Send + 'static,
) -> Result<T> {
    let cursor = cursor.clone();
    runtime::blocking(move || work(&cursor)).await
}

/// Now, in microseconds UTC.
pub(super) fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// The default directory of the shared cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultDir {
    /// The root below which the table `vm_selections` lies.
    pub root: String,
    /// Whether it outlives the job. Where it does not, the caller should be warned, and
    /// [`super::SelectorOptions::random_start`] be set; otherwise every job would start with the first VM.
    pub lasting: bool,
}

/// The default directory of the shared cursor: beside the configured ledger, else in the user's state directory
/// (`$XDG_STATE_HOME`, `~/.local/state`). On Databricks the latter is a cluster's local disk and does not outlast it.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] when there is no ledger, and the user has no home directory.
pub fn default_dir(ledger_root: Option<&str>) -> Result<DefaultDir> {
    let state = crate::settings::state_dir();
    choose(ledger_root, crate::settings::is_on_databricks(), state)
}

fn choose(ledger_root: Option<&str>, on_databricks: bool, state: Option<PathBuf>) -> Result<DefaultDir> {
    if let Some(root) = ledger_root {
        return Ok(DefaultDir { root: root.to_owned(), lasting: true });
    }
    let directory = state.ok_or_else(|| {
        Error::invalid(
            "there is no place for the shared cursor: no ledger is configured and this user has no home directory; \
             name a directory as the cursor, or \"process\"",
        )
    })?;
    let root = directory.join("jobrota").join("selection");
    let root = root.to_str().ok_or_else(|| {
        Error::invalid(format!("the state directory {} is not UTF-8: name a directory as the cursor", root.display()))
    })?;
    Ok(DefaultDir { root: root.to_owned(), lasting: !on_databricks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_comes_first_then_the_state_directory() {
        let state = || Some(PathBuf::from("/home/x/.local/state"));
        let beside = DefaultDir { root: "s3://bucket/ledger".to_owned(), lasting: true };
        assert_eq!(choose(Some("s3://bucket/ledger"), true, state()).unwrap(), beside);
        let root = "/home/x/.local/state/jobrota/selection".to_owned();
        assert_eq!(choose(None, false, state()).unwrap(), DefaultDir { root: root.clone(), lasting: true });
        assert_eq!(choose(None, true, state()).unwrap(), DefaultDir { root, lasting: false });
        assert!(choose(None, false, None).unwrap_err().to_string().contains("name a directory"));
    }

    #[test]
    fn old_times_are_removed_but_not_counts() {
        let mut cursor = ProcessCursor::default();
        let step = Step { turns: vec![Selection::example("a"); 1_001], ..Step::default() };
        for _ in 0..100 {
            cursor.advance(&mut |_: &SelectionState| (step.clone(), ()));
        }
        assert_eq!(cursor.counts(None).unwrap()["a"].selections, 100_100);
        assert!(cursor.counts(Some(0)).unwrap_err().to_string().contains("100000"));
        assert!(cursor.counts(Some(i64::MAX)).unwrap().is_empty());
    }
}
