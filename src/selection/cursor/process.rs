//! The cursor of one selector, in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Count, Decide, now, ordered};
use crate::error::{Error, Result};
use crate::selection::Selection;

/// Turns whose time is remembered one by one; older ones are only counted.
const HISTORY: usize = 100_000;

/// Tickets, counts and the times of the last turns.
#[derive(Debug, Default)]
pub(in crate::selection) struct ProcessCursor {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_ticket: i64,
    tickets: HashMap<String, i64>,
    counts: HashMap<String, Count>,
    /// (when, VM), oldest first.
    history: VecDeque<(i64, String)>,
    /// When the newest turn was taken that fell out of `history`.
    forgotten: Option<i64>,
}

impl ProcessCursor {
    pub(super) fn order(&self, names: &[String]) -> Vec<String> {
        let state = self.lock();
        ordered(names, |name| state.tickets.get(name).copied())
    }

    pub(super) fn advance(&self, names: &[String], decide: &mut impl Decide) -> Result<Option<Vec<Selection>>> {
        let mut state = self.lock();
        let order = ordered(names, |name| state.tickets.get(name).copied());
        let Some(turns) = decide(&order) else { return Ok(None) };
        let at = now();
        for turn in &turns {
            state.take(&turn.vm, at);
        }
        Ok(Some(turns))
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
    fn take(&mut self, vm: &str, at: i64) {
        self.last_ticket += 1;
        self.tickets.insert(vm.to_owned(), self.last_ticket);
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
