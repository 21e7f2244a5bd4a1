//! The cursor of one selector, in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use super::{Decide, TurnCount, now};
use crate::error::{Error, Result};
use crate::runtime::lock;
use crate::selection::state::SelectionState;

/// Turns whose times are kept. Older turns are only counted.
const HISTORY: usize = 100_000;

/// The selection state, the counts and the times of the last turns.
#[derive(Debug, Default)]
pub(in crate::selection) struct ProcessCursor {
    inner: Mutex<ProcessState>,
}

#[derive(Debug, Default)]
struct ProcessState {
    state: SelectionState,
    counts: HashMap<String, TurnCount>,
    /// (when, VM), oldest first.
    history: VecDeque<(i64, String)>,
    /// The time of the newest turn that was removed from `history`.
    removed: Option<i64>,
}

impl ProcessCursor {
    pub(super) fn read<T>(&self, read: impl FnOnce(&SelectionState) -> T) -> T {
        read(&self.lock().state)
    }

    pub(super) fn advance<T>(&self, decide: &mut impl Decide<T>) -> T {
        let mut inner = self.lock();
        let (step, value) = decide(&inner.state);
        inner.state.apply(step.changes);
        let at = now();
        step.turns.iter().for_each(|turn| inner.count(&turn.vm, at));
        value
    }

    pub(super) fn counts(&self, since: Option<i64>) -> Result<HashMap<String, TurnCount>> {
        let inner = self.lock();
        let Some(since) = since else { return Ok(inner.counts.clone()) };
        if inner.removed.is_some_and(|removed| since <= removed) {
            return Err(Error::invalid(format!(
                "this process keeps the times of its last {HISTORY} selections, and \"since\" is before them: give a later time \
                 or none, or use a shared cursor, which keeps the times of all"
            )));
        }
        let mut counts: HashMap<String, TurnCount> = HashMap::new();
        for (at, vm) in inner.history.iter().filter(|(at, _)| *at >= since) {
            counts.entry(vm.clone()).or_default().add(Some(*at));
        }
        Ok(counts)
    }

    fn lock(&self) -> MutexGuard<'_, ProcessState> {
        lock(&self.inner)
    }
}

impl ProcessState {
    fn count(&mut self, vm: &str, at: i64) {
        self.counts.entry(vm.to_owned()).or_default().add(Some(at));
        self.history.push_back((at, vm.to_owned()));
        if self.history.len() > HISTORY
            && let Some((at, _)) = self.history.pop_front()
        {
            self.removed = self.removed.max(Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::Selection;
    use crate::selection::cursor::Step;

    #[test]
    fn old_times_are_removed_but_not_counts() {
        let cursor = ProcessCursor::default();
        let step = Step { turns: vec![Selection::example("a"); 1_001], ..Step::default() };
        for _ in 0..100 {
            cursor.advance(&mut |_: &SelectionState| (step.clone(), ()));
        }
        assert_eq!(cursor.counts(None).unwrap()["a"].selections, 100_100);
        assert!(cursor.counts(Some(0)).unwrap_err().to_string().contains("100000"));
        assert!(cursor.counts(Some(i64::MAX)).unwrap().is_empty());
    }
}
