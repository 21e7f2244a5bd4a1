//! The cursor of one selector, in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Count, Decide, now};
use crate::error::{Error, Result};
use crate::selection::standing::Standing;

/// Turns whose time is remembered one by one; older ones are only counted.
const HISTORY: usize = 100_000;

/// The standing, counts and the times of the last turns.
#[derive(Debug, Default)]
pub(in crate::selection) struct ProcessCursor {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    standing: Standing,
    counts: HashMap<String, Count>,
    /// (when, VM), oldest first.
    history: VecDeque<(i64, String)>,
    /// When the newest turn was taken that fell out of `history`.
    forgotten: Option<i64>,
}

impl ProcessCursor {
    pub(super) fn look<T>(&self, look: impl FnOnce(&Standing) -> T) -> T {
        look(&self.lock().standing)
    }

    pub(super) fn advance<T>(&self, decide: &mut impl Decide<T>) -> T {
        let mut state = self.lock();
        let (step, told) = decide(&state.standing);
        state.standing.extend(step.changes);
        let at = now();
        for turn in &step.turns {
            state.count(&turn.vm, at);
        }
        told
    }

    pub(super) fn counts(&self, since: Option<i64>) -> Result<HashMap<String, Count>> {
        let state = self.lock();
        let Some(since) = since else { return Ok(state.counts.clone()) };
        if state.forgotten.is_some_and(|forgotten| since <= forgotten) {
            return Err(Error::invalid(format!(
                "this process remembers the times of its last {HISTORY} selections only, and \"since\" is before them: \
                 give a later time or none, or use a shared cursor, which keeps them all"
            )));
        }
        let mut counts: HashMap<String, Count> = HashMap::new();
        for (at, vm) in state.history.iter().filter(|(at, _)| *at >= since) {
            let count = counts.entry(vm.clone()).or_default();
            count.selections += 1;
            count.last_selected = count.last_selected.max(Some(*at));
        }
        Ok(counts)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&mut self, vm: &str, at: i64) {
        let count = self.counts.entry(vm.to_owned()).or_default();
        count.selections += 1;
        count.last_selected = count.last_selected.max(Some(at));
        self.history.push_back((at, vm.to_owned()));
        if self.history.len() > HISTORY
            && let Some((at, _)) = self.history.pop_front()
        {
            self.forgotten = self.forgotten.max(Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::Selection;
    use crate::selection::cursor::Step;

    #[test]
    fn times_are_forgotten_but_not_counts() {
        let cursor = ProcessCursor::default();
        let step = Step { turns: vec![Selection::example("a"); 1_001], ..Step::default() };
        for _ in 0..100 {
            cursor.advance(&mut |_: &Standing| (step.clone(), ()));
        }
        assert_eq!(cursor.counts(None).unwrap()["a"].selections, 100_100);
        assert!(cursor.counts(Some(0)).unwrap_err().to_string().contains("100000"));
        assert!(cursor.counts(Some(i64::MAX)).unwrap().is_empty());
    }
}
