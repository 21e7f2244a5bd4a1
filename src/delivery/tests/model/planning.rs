//! Calls the real functions that plan a cycle, with the rows and attempts of a state.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use chrono::DateTime;

use super::super::super::attempts::{Attempt, AttemptOutcome, NOT_SENT};
use super::super::super::history::AttemptHistory;
use super::super::super::in_doubt::Waits;
use super::super::super::pending::{Histories, PendingRows};
use super::super::super::plan::{Order, PlanRules, QueuedRow, plan};
use super::Protocol;
use super::state::{Counts, Item, KINDS, Recorded, Word};
use crate::ledger::{LedgerRow, LedgerTable};

/// What a process reads: pending rows, rows with the flag YES, attempts.
type Read = (Counts, Counts, Vec<Recorded>);

/// What the real functions say about the rows.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outline {
    pub(super) recovered: Counts,
    pub(super) parked: Counts,
    /// The highest number of an attempt.
    pub(super) last_attempt: Counts,
    /// Whether one of the attempts has a mark and no outcome.
    pub(super) is_unanswered: [bool; KINDS],
    /// The rows to send, by job.
    pub(super) queues: Vec<Vec<Item>>,
}

/// The plans that were made.
#[derive(Debug, Default)]
pub(super) struct Plans(Mutex<HashMap<Read, Arc<Outline>>>);

impl Plans {
    pub(super) fn get(&self, protocol: &Protocol, pending: Counts, yes: Counts, recorded: &[Recorded]) -> Arc<Outline> {
        let read = (pending, yes, recorded.to_vec());
        let mut plans = self.0.lock().unwrap();
        let outline = plans.entry(read).or_insert_with_key(|read| Arc::new(outline(protocol, read)));
        Arc::clone(outline)
    }
}

fn row(protocol: &Protocol, kind: usize) -> LedgerRow {
    LedgerRow {
        file_name: Some("f".to_owned()),
        job_id: Some(protocol.kinds[kind].job.to_owned()),
        status: Some("S".to_owned()),
        timestamp: i64::try_from(kind).ok(),
    }
}

fn attempt(protocol: &Protocol, (kind, number, word): Recorded) -> Attempt {
    let (outcome, detail) = match word {
        Word::Sending => (AttemptOutcome::Sending, None),
        Word::NotSent => (AttemptOutcome::Failed, Some(NOT_SENT.to_owned())),
        Word::Delivered => (AttemptOutcome::Delivered, None),
        Word::Failed => (AttemptOutcome::Failed, None),
        Word::Unknown => (AttemptOutcome::Unknown, None),
        Word::Parked => (AttemptOutcome::Parked, None),
        Word::Redriven => (AttemptOutcome::Redriven, None),
        Word::ByHand => (AttemptOutcome::ByHand, None),
    };
    Attempt {
        table: LedgerTable::Notifications,
        row: row(protocol, kind.into()),
        attempt: number.into(),
        outcome,
        detail,
        transport: "model".to_owned(),
        vm: None,
        delivered_by: "host:1".to_owned(),
        attempted_at: DateTime::UNIX_EPOCH,
    }
}

fn outline(protocol: &Protocol, (pending, yes, recorded): &Read) -> Outline {
    let kinds = 0..protocol.kinds.len();
    let rows = kinds.clone().flat_map(|kind| vec![row(protocol, kind); pending[kind].into()]).collect();
    let attempts = recorded.iter().map(|recorded| attempt(protocol, *recorded));
    let pending = PendingRows {
        rows,
        histories: Histories { by_row: AttemptHistory::by_row(&[], attempts), ..Histories::default() },
        acknowledged: kinds.map(|kind| (row(protocol, kind), yes[kind].into())).collect(),
        ..PendingRows::default()
    };
    let nothing = HashSet::new();
    let rules = PlanRules {
        order: Order::PerJob,
        max_attempts: None,
        first: &nothing,
        priority: &nothing,
        stale_before: None,
        next_try: &|_, _, _| None,
        waits: &Waits::new(),
        now: DateTime::UNIX_EPOCH,
        check: &|_| Ok(()),
    };
    let planned = plan(&pending, &rules);
    let kind = |row: &LedgerRow| row.timestamp.and_then(|kind| usize::try_from(kind).ok()).unwrap();
    let small = |number: i64| u8::try_from(number).unwrap();
    let mut outline = Outline::default();
    planned.recovered.iter().for_each(|row| outline.recovered[kind(row)] += 1);
    for rows in pending.identical() {
        outline.parked[kind(rows.row)] = u8::try_from(rows.parked).unwrap();
        outline.last_attempt[kind(rows.row)] = small(rows.history.last_attempt());
        assert_eq!(rows.recovered, u64::from(outline.recovered[kind(rows.row)]));
    }
    let items = planned.queues.iter().map(|queue| {
        let item = |queued: &QueuedRow| Item {
            kind: u8::try_from(kind(&queued.row)).unwrap(),
            attempt: small(queued.attempt),
            in_doubt: queued.in_doubt.is_some(),
        };
        queue.iter().map(item).collect()
    });
    outline.queues = items.collect();
    for (kind, number, _) in recorded {
        let of_attempt = recorded.iter().filter(|(of, it, _)| (of, it) == (kind, number));
        let sum: i32 = of_attempt.map(|(_, _, word)| if *word == Word::Sending { 1 } else { -1 }).sum();
        outline.is_unanswered[usize::from(*kind)] |= sum > 0;
    }
    outline
}
