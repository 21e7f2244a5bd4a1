//! The history of a row: how often it was tried, whether it can have arrived, whether it was given up. The delivery cycle,
//! the summary and the operator actions read the same history.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::attempts::{Attempt, AttemptOutcome};
use super::retry_state::{RetryState, RowProgress, RowState};
use crate::ledger::LedgerRow;

/// The attempts of one row, or of several identical rows. Identical rows are separate events that cannot be told apart:
/// each has its own attempts from number 1, so that several attempts can have the same number.
#[derive(Debug, Default, Clone)]
pub(super) struct AttemptHistory {
    /// The rows as the saved retry state has them.
    saved: Vec<RowProgress>,
    saved_finished: u64,
    /// The attempts since then, by number.
    by_number: BTreeMap<i64, AttemptCounts>,
    /// Attempts up to this number do not count, because the row was redriven after them.
    redriven: i64,
    /// When the row was last tried, if that try can have failed.
    pub(super) last_try: Option<DateTime<Utc>>,
    /// When the next try is due, as the retry state has it. None after a later attempt.
    pub(super) next_try: Option<DateTime<Utc>>,
    /// The attempts that parked a row.
    parked_attempts: Vec<Attempt>,
}

/// The attempts with one number.
#[derive(Debug, Default, Clone)]
struct AttemptCounts {
    sending: u64,
    not_sent: u64,
    failed: u64,
    unknown: u64,
    parked: u64,
    finished: u64,
}

impl AttemptCounts {
    fn answered(&self) -> u64 {
        self.failed + self.unknown + self.parked + self.finished
    }

    fn sent(&self) -> u64 {
        self.sending.saturating_sub(self.not_sent)
    }

    fn was_tried(&self) -> bool {
        self.sent() + self.failed + self.unknown > 0
    }

    /// How many rows were sent, or got an outcome without being sent.
    fn rows(&self) -> u64 {
        self.sent().max(self.answered())
    }

    /// How many attempts can have arrived or not.
    fn in_doubt(&self) -> u64 {
        self.unknown + self.sent().saturating_sub(self.answered())
    }
}

impl AttemptHistory {
    /// The histories by row, from the saved retry state and the attempts since.
    pub(super) fn by_row(
        saved: &[RetryState],
        attempts: impl IntoIterator<Item = Attempt>,
    ) -> HashMap<LedgerRow, Self> {
        let mut histories: HashMap<LedgerRow, Self> = HashMap::new();
        saved.iter().for_each(|state| histories.entry(state.row.clone()).or_default().add_saved(state));
        attempts.into_iter().for_each(|attempt| histories.entry(attempt.row.clone()).or_default().add(&attempt));
        histories
    }

    fn add_saved(&mut self, saved: &RetryState) {
        self.last_try = self.last_try.max(saved.last_try);
        self.next_try = self.next_try.or(saved.next_try);
        match saved.progress.state {
            RowState::Finished => self.saved_finished += 1,
            RowState::Open | RowState::Parked => self.saved.push(saved.progress),
        }
    }

    /// Adds one attempt. The order in which attempts are added does not matter.
    pub(super) fn add(&mut self, attempt: &Attempt) {
        if attempt.outcome == AttemptOutcome::Redriven {
            self.redriven = self.redriven.max(attempt.attempt);
            self.next_try = None;
            return;
        }
        let round = self.by_number.entry(attempt.attempt).or_default();
        let (count, was_tried) = match attempt.outcome {
            _ if attempt.outcome.is_not_sent(attempt.detail.as_deref()) => (&mut round.not_sent, false),
            AttemptOutcome::Sending => (&mut round.sending, true),
            AttemptOutcome::Failed => (&mut round.failed, true),
            AttemptOutcome::Parked => (&mut round.parked, false),
            AttemptOutcome::Delivered
            | AttemptOutcome::Superseded
            | AttemptOutcome::Expired
            | AttemptOutcome::ByHand => (&mut round.finished, false),
            // An outcome that only a later version knows: whether the attempt arrived is in doubt.
            AttemptOutcome::Unknown | AttemptOutcome::Other(_) | AttemptOutcome::Redriven => (&mut round.unknown, true),
        };
        *count += 1;
        if was_tried {
            self.last_try = self.last_try.max(Some(attempt.attempted_at));
            self.next_try = None;
        }
        if attempt.outcome == AttemptOutcome::Parked {
            self.parked_attempts.push(attempt.clone());
        }
    }

    /// How many identical rows were delivered or settled.
    pub(super) fn finished(&self) -> u64 {
        self.saved_finished + self.by_number.values().map(|round| round.finished).sum::<u64>()
    }

    /// The highest number of an attempt; 0 if there is none.
    pub(super) fn last_attempt(&self) -> i64 {
        let last = self.by_number.keys().last().copied().unwrap_or_default().max(self.redriven);
        self.saved.iter().map(|row| row.next_attempt - 1).fold(last, i64::max)
    }

    fn since_redriven(&self) -> impl Iterator<Item = (i64, &AttemptCounts)> {
        self.by_number.iter().map(|(number, round)| (*number, round)).filter(|(number, _)| *number > self.redriven)
    }

    /// How many rows are parked.
    pub(super) fn parked(&self) -> u64 {
        let saved = self.saved().filter(|row| row.state == RowState::Parked).count() as u64;
        saved + self.since_redriven().map(|(_, round)| round.parked).sum::<u64>()
    }

    /// The attempts that parked the `count` rows that were parked last, the newest first. Only a history that was read
    /// without the retry state has all of them.
    pub(super) fn parked_attempts(&self, count: u64) -> impl Iterator<Item = &Attempt> {
        let mut attempts: Vec<_> =
            self.parked_attempts.iter().filter(|attempt| attempt.attempt > self.redriven).collect();
        attempts.sort_by_key(|attempt| attempt.attempted_at);
        attempts.into_iter().rev().take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// How often the row was tried since it was redriven; of identical rows, the one that was tried most often. As
    /// [`Self::parked_attempts`], without what the retry state counts.
    pub(super) fn tries(&self) -> u64 {
        self.since_redriven().filter(|(_, round)| round.was_tried()).count() as u64
    }

    /// Whether an attempt has no outcome. Its process can still record one.
    pub(super) fn is_unanswered(&self) -> bool {
        self.by_number.values().any(|counts| counts.sent() > counts.answered())
    }

    /// The highest number, up to `most`, of an attempt that can have arrived or not.
    fn last_doubt(&self, most: i64) -> Option<i64> {
        let saved = self.saved.iter().filter_map(|row| row.in_doubt);
        let attempts = self.by_number.range(..=most).filter(|(_, counts)| counts.in_doubt() > 0);
        attempts.map(|(number, _)| *number).chain(saved.filter(|number| *number <= most)).max()
    }

    /// A row without attempts, or one that was redriven, which stays in doubt.
    fn fresh(&self) -> RowProgress {
        RowProgress { in_doubt: self.last_doubt(self.redriven), ..RowProgress::after(self.redriven) }
    }

    /// The rows before these attempts. Rows that were redriven since then start anew.
    fn saved(&self) -> impl Iterator<Item = RowProgress> {
        let (redriven, fresh) = (self.redriven, self.fresh());
        self.saved.iter().map(move |row| if row.next_attempt - 1 <= redriven && redriven > 0 { fresh } else { *row })
    }

    /// The progress of `open` identical rows that are neither finished nor parked, those that were tried most often first.
    pub(super) fn open_rows(&self, open: u64) -> Vec<RowProgress> {
        let gone: u64 = self.since_redriven().map(|(_, round)| round.parked + round.finished).sum();
        let fresh = self.fresh();
        let all = usize::try_from(open + gone).unwrap_or(usize::MAX);
        let mut rows: Vec<RowProgress> = self.saved().filter(|row| row.state == RowState::Open).collect();
        rows.sort_by_key(|row| Reverse((row.failures, row.in_doubt)));
        rows.resize(all, fresh);
        for (number, round) in self.since_redriven() {
            // First the rows that have this number next; then others, if another writer counted differently. Which of identical rows is
            // in doubt cannot be told: those that ended were not, so that none is sent twice without a mark that says so.
            rows.sort_by_key(|row| (row.next_attempt != number, Reverse(row.failures), row.in_doubt));
            let tried = usize::try_from(round.rows()).unwrap_or(usize::MAX).min(rows.len());
            let left = rows.split_off(tried);
            let remaining = round.failed + round.in_doubt();
            rows.truncate(usize::try_from(remaining).unwrap_or(usize::MAX));
            for (at, row) in (0..).zip(&mut rows) {
                row.next_attempt = number.saturating_add(1).max(1);
                row.failures += 1;
                // A later attempt that failed does not end the doubt.
                row.in_doubt = if at < round.in_doubt() { Some(number) } else { row.in_doubt };
            }
            rows.extend(left);
        }
        rows.sort_by_key(|row| Reverse((row.failures, row.in_doubt)));
        // If the attempts of another writer do not add up, every row still gets its progress.
        rows.resize(usize::try_from(open).unwrap_or(usize::MAX), fresh);
        rows
    }

    /// The retry state of `pending` identical rows. None while an attempt has no outcome: what its outcome changes depends
    /// on all attempts before it.
    pub(super) fn retry_state(&self, row: &LedgerRow, pending: u64) -> Vec<RetryState> {
        if self.is_unanswered() {
            return Vec::new();
        }
        let parked = self.parked().min(pending);
        // Parked at the highest number that exists: redriving this number returns the row.
        let (last, in_doubt) = (self.last_attempt(), self.last_doubt(i64::MAX));
        let given_up = RowProgress { state: RowState::Parked, in_doubt, ..RowProgress::after(last) };
        let finished = RowProgress { state: RowState::Finished, ..RowProgress::after(0) };
        let open = self.open_rows(pending - parked).into_iter();
        let rows = open.chain((0..parked).map(|_| given_up)).chain((0..self.finished()).map(|_| finished));
        rows.map(|progress| RetryState { row: row.clone(), progress, last_try: self.last_try, next_try: None })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::attempts::NOT_SENT;
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
            outcome: AttemptOutcome::parse(outcome),
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
        let history = &AttemptHistory::by_row(&[], attempts)[&row()];
        let written = history.retry_state(&row(), 1);
        assert_eq!((written.len(), written[0].progress.state), (1, RowState::Parked));
        let mut later = AttemptHistory::by_row(&written, []).remove(&row()).unwrap();
        assert_eq!((later.parked(), later.open_rows(0)), (1, vec![]));
        later.add(&attempt(2, "redriven", 9));
        assert_eq!((later.parked(), later.open_rows(1)), (0, vec![RowProgress::after(2)]));
    }

    #[test]
    fn what_was_saved_stands_until_the_row_is_redriven() {
        let progress = RowProgress { failures: 3, ..RowProgress::after(0) };
        let saved = [RetryState { row: row(), progress, last_try: None, next_try: None }];
        let mut history = AttemptHistory::by_row(&saved, []).remove(&row()).unwrap();
        assert_eq!(history.open_rows(1), [progress]);
        history.add(&attempt(1, "redriven", 1));
        assert_eq!(history.open_rows(1), [RowProgress::after(1)]);
    }

    #[test]
    fn an_answer_that_comes_after_the_state_was_saved_ends_the_doubt() {
        let mut history = AttemptHistory::by_row(&[], [attempt(1, "sending", 1)]).remove(&row()).unwrap();
        assert_eq!(history.open_rows(1), [RowProgress { failures: 1, in_doubt: Some(1), ..RowProgress::after(1) }]);
        assert_eq!(history.retry_state(&row(), 1), [], "all attempts are read again");
        history.add(&attempt(1, "failed", 2));
        assert_eq!(history.open_rows(1), [RowProgress { failures: 1, ..RowProgress::after(1) }]);
        assert_eq!(history.retry_state(&row(), 1)[0].progress, history.open_rows(1)[0]);
    }

    #[test]
    fn an_older_doubt_is_known_after_a_late_answer() {
        let before =
            [attempt(1, "sending", 1), attempt(2, "parked", 2), attempt(2, "redriven", 3), attempt(3, "sending", 4)];
        let mut history = AttemptHistory::by_row(&[], before).remove(&row()).unwrap();
        assert_eq!((history.retry_state(&row(), 1), history.open_rows(1)[0].in_doubt), (vec![], Some(3)));
        history.add(&attempt(3, "failed", 5));
        assert_eq!(history.open_rows(1), [RowProgress { failures: 1, in_doubt: Some(1), ..RowProgress::after(3) }]);
        history.add(&attempt(1, "failed", 6));
        assert_eq!(history.open_rows(1)[0].in_doubt, None);
    }

    #[test]
    fn each_number_with_a_mark_or_an_answer_is_a_try() {
        let tries = |outcomes: &[&str]| {
            let attempts = (1..).zip(outcomes).map(|(number, outcome)| attempt(number, outcome, number));
            AttemptHistory::by_row(&[], attempts).remove(&row()).unwrap().tries()
        };
        for tried in ["sending", "failed", "unknown"] {
            assert_eq!((tries(&[tried]), tries(&[tried, tried, "parked"])), (1, 2), "{tried}");
        }
        assert_eq!(tries(&["parked", "superseded"]), 0);
    }

    #[test]
    fn the_last_try_is_not_that_of_a_row_whose_turn_did_not_come() {
        let mut stopped = attempt(2, "failed", 9);
        stopped.detail = Some(NOT_SENT.to_owned());
        let history = &AttemptHistory::by_row(&[], [attempt(1, "failed", 5), stopped, attempt(2, "parked", 7)])[&row()];
        assert_eq!(history.last_try, DateTime::from_timestamp_micros(5));
    }

    #[test]
    fn the_highest_number_that_another_writer_can_give_is_no_error() {
        let last = i64::MAX;
        let attempts = [attempt(last, "sending", 1), attempt(last, "unknown", 2)];
        let history = &AttemptHistory::by_row(&[], attempts)[&row()];
        let saved = history.retry_state(&row(), 1);
        assert_eq!((history.last_attempt(), saved[0].progress.next_attempt), (last, last));
        let later = AttemptHistory::by_row(&saved, [attempt(last, "failed", 3)]).remove(&row()).unwrap();
        assert_eq!(later.open_rows(1).len(), 1);
    }

    #[test]
    fn of_identical_rows_the_one_that_is_left_can_be_the_one_in_doubt() {
        let attempts = [attempt(1, "failed", 1), attempt(1, "unknown", 2), attempt(2, "delivered", 3)];
        let history = &AttemptHistory::by_row(&[], attempts)[&row()];
        let left = history.open_rows(1);
        assert_eq!((left[0].next_attempt, left[0].in_doubt), (2, Some(1)));
    }

    #[test]
    fn the_order_of_attempts_does_not_matter() {
        let mut stopped = attempt(1, "failed", 2);
        stopped.detail = Some(NOT_SENT.to_owned());
        let history = &AttemptHistory::by_row(&[], [stopped, attempt(1, "sending", 1)])[&row()];
        assert_eq!(history.open_rows(1), [RowProgress::after(0)]);
    }

    proptest! {
        /// Saving the retry state between any two attempts, and for a single row also while it is being sent, changes no
        /// later result. All attempts of a row without a saved state are read.
        #[test]
        fn the_retry_state_stands_for_the_attempts_before_it(
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
            let whole = AttemptHistory::by_row(&[], attempts.clone()).remove(&row()).unwrap_or_default();
            let before = AttemptHistory::by_row(&[], attempts[..cut].to_vec()).remove(&row()).unwrap_or_default();
            let written = before.retry_state(&row(), pending_at(cut));
            let since = if before.is_unanswered() { 0 } else { cut };
            let split = AttemptHistory::by_row(&written, attempts[since..].to_vec()).remove(&row()).unwrap_or_default();
            prop_assert_eq!(split.finished(), whole.finished());
            prop_assert_eq!(split.last_try, whole.last_try);
            prop_assert_eq!(split.parked(), whole.parked(), "{:?}", attempts);
            let open = pending - whole.parked().min(pending);
            let (split, whole) = (split.open_rows(open), whole.open_rows(open));
            let numbers = |tries: &[RowProgress]| tries.iter().map(|row| (row.next_attempt, row.failures)).collect::<Vec<_>>();
            prop_assert_eq!(numbers(&split), numbers(&whole), "{:?}\nwritten {:?}", attempts, written);
            // Which of identical rows is in doubt cannot be told.
            prop_assert!(rows > 1 || split == whole, "{:?}\n{:?}", split, whole);
        }
    }
}
