//! What the attempts say about a row: how often it was tried, whether it may have arrived, whether it was given up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use crate::ledger::{Attempt, LedgerRow, Standing, StandingState};

/// Detail of a row that was recorded as `sending`, but whose turn did not come before the delivery was stopped. It was
/// not tried: its next try bears the same number.
pub(super) const NOT_TRIED: &str = "not sent: the delivery was stopped before its turn";

/// Outcomes after which a row's flag is to be YES.
pub(super) const FINAL: [&str; 4] = ["delivered", "superseded", "expired", "by_hand"];

/// The attempts of one row, or of several identical ones. Identical rows are separate events that nobody can tell apart:
/// each has attempts of its own from number 1, so a number occurs once for each of them that was tried so often.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    /// Where the rows stood when their standings were last written down.
    base: Vec<Try>,
    base_finished: u64,
    /// What became of the attempts since, by their number.
    rounds: BTreeMap<i64, Round>,
    /// The number up to which attempts no longer count, because the row was redriven after them.
    redriven: i64,
    /// When it was last tried.
    last_try: Option<DateTime<Utc>>,
}

/// The attempts that bear one number.
#[derive(Debug, Default, Clone)]
struct Round {
    sending: u64,
    failed: u64,
    unknown: u64,
    parked: u64,
    finished: u64,
}

impl Round {
    fn answered(&self) -> u64 {
        self.failed + self.unknown + self.parked + self.finished
    }

    /// How many rows were tried, or given an outcome without being tried.
    fn rows(&self) -> u64 {
        self.sending.max(self.answered())
    }

    /// Attempts of which it is not known whether they arrived.
    fn in_doubt(&self) -> u64 {
        self.unknown + self.sending.saturating_sub(self.answered())
    }
}

/// Where one row stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Try {
    /// The number of its next attempt.
    pub(super) next: i64,
    /// How many attempts failed, or may have.
    pub(super) failures: u64,
    /// The number of the last attempt if it may have arrived.
    pub(super) in_doubt: Option<i64>,
    /// It was given up.
    pub(super) parked: bool,
}

impl Try {
    fn first(after: i64) -> Self {
        Self { next: after.max(0) + 1, failures: 0, in_doubt: None, parked: false }
    }
}

impl History {
    /// The histories by row: `standings` as they were written down, and the attempts since.
    pub(super) fn of(standings: &[Standing], attempts: impl IntoIterator<Item = Attempt>) -> HashMap<LedgerRow, Self> {
        let mut histories: HashMap<LedgerRow, Self> = HashMap::new();
        for standing in standings {
            match histories.get_mut(&standing.row) {
                Some(history) => history.stand(standing),
                None => histories.entry(standing.row.clone()).or_default().stand(standing),
            }
        }
        for attempt in attempts {
            match histories.get_mut(&attempt.row) {
                Some(history) => history.note(&attempt),
                None => histories.entry(attempt.row.clone()).or_default().note(&attempt),
            }
        }
        histories
    }

    /// The history of a row that was tried once.
    pub(super) fn of_one(attempt: &Attempt) -> Self {
        let mut history = Self::default();
        history.note(attempt);
        history
    }

    fn stand(&mut self, standing: &Standing) {
        self.last_try = self.last_try.max(standing.last_try);
        let stands = Try {
            next: standing.next_attempt.max(1),
            failures: standing.failures,
            in_doubt: standing.in_doubt,
            parked: standing.state == StandingState::Parked,
        };
        match standing.state {
            StandingState::Finished => self.base_finished += 1,
            StandingState::Open | StandingState::Parked => self.base.push(stands),
        }
    }

    /// Takes in one attempt. The order in which they come does not matter.
    pub(super) fn note(&mut self, attempt: &Attempt) {
        if attempt.outcome == "redriven" {
            self.redriven = self.redriven.max(attempt.attempt);
            return;
        }
        let round = self.rounds.entry(attempt.attempt).or_default();
        let tried = match attempt.outcome.as_str() {
            "failed" if attempt.detail.as_deref() == Some(NOT_TRIED) => {
                round.sending = round.sending.saturating_sub(1);
                false
            }
            "sending" => {
                round.sending += 1;
                true
            }
            "failed" => {
                round.failed += 1;
                true
            }
            "parked" => {
                round.parked += 1;
                false
            }
            outcome if FINAL.contains(&outcome) => {
                round.finished += 1;
                false
            }
            // Also of a later version that has other words: whether it arrived is unknown here.
            _ => {
                round.unknown += 1;
                true
            }
        };
        if tried {
            self.last_try = self.last_try.max(Some(attempt.attempted_at));
        }
    }

    /// When it was last tried, as far as that may have failed.
    pub(super) fn last_try(&self) -> Option<DateTime<Utc>> {
        self.last_try
    }

    /// How many identical rows the attempts have dealt with for good.
    pub(super) fn finished(&self) -> u64 {
        self.base_finished + self.rounds.values().map(|round| round.finished).sum::<u64>()
    }

    fn since_redriven(&self) -> impl Iterator<Item = (i64, &Round)> {
        self.rounds.iter().map(|(number, round)| (*number, round)).filter(|(number, _)| *number > self.redriven)
    }

    /// How many rows are given up.
    pub(super) fn parked(&self) -> u64 {
        let before = self.base().filter(|row| row.parked).count() as u64;
        before + self.since_redriven().map(|(_, round)| round.parked).sum::<u64>()
    }

    /// Where the rows stood before the rounds, those that were redriven since at their beginning.
    fn base(&self) -> impl Iterator<Item = Try> {
        let redriven = self.redriven;
        self.base
            .iter()
            .map(move |row| if row.next - 1 <= redriven && redriven > 0 { Try::first(redriven) } else { *row })
    }

    /// Where `open` identical rows stand that are neither finished nor parked, those tried most often first.
    pub(super) fn tries(&self, open: u64) -> Vec<Try> {
        let gone: u64 = self.since_redriven().map(|(_, round)| round.parked + round.finished).sum();
        let fresh = Try::first(self.redriven);
        let all = usize::try_from(open + gone).unwrap_or(usize::MAX);
        let mut rows: Vec<Try> = self.base().filter(|row| !row.parked).collect();
        rows.sort_by_key(|row| Reverse((row.failures, row.in_doubt)));
        rows.resize(all, fresh);
        for (number, round) in self.since_redriven() {
            // Answers to attempts that were in doubt when the standings were written down.
            let late = usize::try_from(round.answered().saturating_sub(round.sending)).unwrap_or(usize::MAX);
            for row in rows.iter_mut().filter(|row| row.in_doubt == Some(number) && row.next == number + 1).take(late) {
                *row = Try { next: number, failures: row.failures.saturating_sub(1), in_doubt: None, parked: false };
            }
            // Those whose turn it was; any others where another writer counted differently.
            rows.sort_by_key(|row| (row.next != number, Reverse(row.failures)));
            let tried = usize::try_from(round.rows()).unwrap_or(usize::MAX).min(rows.len());
            let left = rows.split_off(tried);
            let going_on = round.failed + round.in_doubt();
            rows.truncate(usize::try_from(going_on).unwrap_or(usize::MAX));
            for (at, row) in (0..).zip(&mut rows) {
                row.next = number.saturating_add(1).max(1);
                row.failures += 1;
                row.in_doubt = (at < round.in_doubt()).then_some(number);
            }
            rows.extend(left);
        }
        rows.sort_by_key(|row| Reverse((row.failures, row.in_doubt)));
        // Should another writer's attempts not add up, no row may be without a standing.
        rows.resize(usize::try_from(open).unwrap_or(usize::MAX), fresh);
        rows
    }

    /// Where `pending` identical rows stand, to be written down.
    pub(super) fn standings(&self, row: &LedgerRow, pending: u64) -> Vec<Standing> {
        let standing = |state, Try { next, failures, in_doubt, .. }| Standing {
            row: row.clone(),
            state,
            next_attempt: next,
            failures,
            in_doubt,
            last_try: self.last_try,
            next_try: None,
        };
        let parked = self.parked().min(pending);
        // Given up at the last number there is: a redriving of that number brings it back.
        let last = self.rounds.keys().last().copied().unwrap_or_default();
        let last = self.base.iter().map(|row| row.next - 1).fold(last, i64::max);
        let given_up = Try { next: last.saturating_add(1), failures: 0, in_doubt: None, parked: true };
        let open = self.tries(pending - parked).into_iter().map(|row| standing(StandingState::Open, row));
        let parked = (0..parked).map(|_| standing(StandingState::Parked, given_up));
        let finished = (0..self.finished()).map(|_| standing(StandingState::Finished, Try::first(0)));
        open.chain(parked).chain(finished).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::LedgerTable;

    fn row() -> LedgerRow {
        LedgerRow {
            file_name: Some("f".into()),
            job_id: Some("a".into()),
            status: Some("S".into()),
            timestamp: Some(1),
        }
    }

    fn attempt(number: i64, outcome: &str, at: i64) -> Attempt {
        Attempt {
            table: LedgerTable::Notifications,
            row: row(),
            attempt: number,
            outcome: outcome.into(),
            detail: None,
            transport: "test".into(),
            vm: None,
            delivered_by: "host:1".into(),
            attempted_at: DateTime::from_timestamp_micros(at).unwrap(),
        }
    }

    #[test]
    fn a_parked_row_that_was_written_down_comes_back_when_it_is_redriven() {
        let attempts =
            [attempt(1, "sending", 1), attempt(1, "failed", 2), attempt(2, "sending", 3), attempt(2, "parked", 4)];
        let history = &History::of(&[], attempts)[&row()];
        let written = history.standings(&row(), 1);
        assert_eq!((written.len(), written[0].state), (1, StandingState::Parked));
        let mut later = History::of(&written, []).remove(&row()).unwrap();
        assert_eq!((later.parked(), later.tries(0)), (1, vec![]));
        later.note(&attempt(2, "redriven", 9));
        assert_eq!(
            (later.parked(), later.tries(1)),
            (0, vec![Try { next: 3, failures: 0, in_doubt: None, parked: false }])
        );
    }

    #[test]
    fn the_last_try_is_not_that_of_a_row_whose_turn_did_not_come() {
        let mut stopped = attempt(2, "failed", 9);
        stopped.detail = Some(NOT_TRIED.to_owned());
        let history = &History::of(&[], [attempt(1, "failed", 5), stopped, attempt(2, "parked", 7)])[&row()];
        assert_eq!(history.last_try(), DateTime::from_timestamp_micros(5));
    }

    proptest! {
        /// Writing down where the rows stand, between any two attempts and for a single row even while one is under way,
        /// changes nothing of what comes after.
        #[test]
        fn standings_stand_for_the_attempts_before_them(
            rows in 1..4usize,
            words in proptest::collection::vec(0..6usize, 1..40),
            redrive_at in proptest::option::of(0..40usize),
            cut in 0..40usize,
        ) {
            // The attempts as an updater makes them: rows in turn, each with numbers of its own.
            let mut tries = vec![(1i64, true); rows];
            let (mut attempts, mut flipped, mut boundaries) = (Vec::new(), Vec::new(), Vec::new());
            for (at, word) in words.iter().enumerate() {
                if redrive_at == Some(at) {
                    let last = tries.iter().map(|(next, _)| next - 1).max().unwrap_or_default();
                    attempts.push(attempt(last, "redriven", attempts.len() as i64));
                    tries.iter_mut().filter(|(_, open)| *open).for_each(|(next, _)| *next = last + 1);
                }
                boundaries.push(attempts.len());
                let Some((next, open)) = tries.iter_mut().filter(|(_, open)| *open).nth(at % rows) else { continue };
                attempts.push(attempt(*next, "sending", attempts.len() as i64));
                let word = ["delivered", "failed", "unknown", "parked", "sending", "failed"][*word];
                if word != "sending" {
                    attempts.push(attempt(*next, word, attempts.len() as i64));
                }
                *next += 1;
                *open = word != "delivered" && word != "parked";
                if word == "delivered" {
                    flipped.push(attempts.len());
                }
            }
            let cut = match rows {
                1 => cut.min(attempts.len()),
                _ => boundaries.get(cut).copied().unwrap_or(attempts.len()),
            };
            let pending_at = |count: usize| (rows - flipped.iter().filter(|at| **at <= count).count()) as u64;
            let pending = pending_at(attempts.len());
            let whole = History::of(&[], attempts.clone()).remove(&row()).unwrap_or_default();
            let before = History::of(&[], attempts[..cut].to_vec()).remove(&row()).unwrap_or_default();
            let written = before.standings(&row(), pending_at(cut));
            let split = History::of(&written, attempts[cut..].to_vec()).remove(&row()).unwrap_or_default();
            prop_assert_eq!(split.finished(), whole.finished());
            prop_assert_eq!(split.last_try(), whole.last_try());
            prop_assert_eq!(split.parked(), whole.parked(), "{:?}", attempts);
            let open = pending - whole.parked().min(pending);
            let (split, whole) = (split.tries(open), whole.tries(open));
            let numbers = |tries: &[Try]| tries.iter().map(|row| (row.next, row.failures)).collect::<Vec<_>>();
            prop_assert_eq!(numbers(&split), numbers(&whole), "{:?}\nwritten {:?}", attempts, written);
            // Of identical rows nobody can tell which of them is in doubt.
            prop_assert!(rows > 1 || split == whole, "{:?}\n{:?}", split, whole);
        }
    }
}
