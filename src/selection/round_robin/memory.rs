//! What this process remembers of probes, for as long as it is good for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::selection::probe::Answer;

/// What one selection knows of one VM.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) answer: Answer,
    /// Probed for this very selection, and so to be counted; not remembered.
    pub(super) fresh: bool,
}

/// Answers per VM that one selection goes by.
pub(super) type Known = HashMap<String, Seen>;

/// The last answer of each VM.
#[derive(Debug)]
pub(super) struct Memory {
    ttl: Duration,
    answers: Mutex<HashMap<String, (Instant, Answer)>>,
}

impl Memory {
    /// A memory in which answers are good for `ttl`; with 0 it keeps none.
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, answers: Mutex::default() }
    }

    /// The answers that are still good.
    pub(super) fn recall(&self) -> Known {
        if self.ttl.is_zero() {
            return Known::new();
        }
        let fresh = |at: &Instant| at.elapsed() < self.ttl;
        self.lock()
            .iter()
            .filter(|(_, (at, _))| fresh(at))
            .map(|(vm, (_, answer))| (vm.clone(), Seen { answer: answer.clone(), fresh: false }))
            .collect()
    }

    /// Keeps the answer of a probe.
    pub(super) fn remember(&self, vm: &str, answer: &Answer) {
        if !self.ttl.is_zero() {
            self.lock().insert(vm.to_owned(), (Instant::now(), answer.clone()));
        }
    }

    /// Keeps what a caller experienced. A VM that works, but of which no address is known, is simply probed next time.
    pub(super) fn report(&self, vm: &str, ok: bool) {
        if !ok {
            self.remember(vm, &Err("the caller reported it as failed".to_owned()));
            return;
        }
        let mut answers = self.lock();
        match answers.remove(vm) {
            Some((_, Ok(outcome))) => {
                answers.insert(vm.to_owned(), (Instant::now(), Ok(outcome)));
            }
            Some((_, Err(_))) | None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Instant, Answer)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
