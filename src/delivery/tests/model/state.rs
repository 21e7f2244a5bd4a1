//! The state of the model: the three tables, the processes, the events on their way, and what really happened.

use super::{LIMIT, Protocol, TTL};

/// How many kinds of rows there are at most. Identical rows are of one kind.
pub(super) const KINDS: usize = 3;
/// Two updaters and one operator.
pub(super) const PROCESSES: usize = 3;
/// The process that is the operator.
pub(super) const OPERATOR: usize = 2;
/// A time that is over for so long that it makes no difference how long.
pub(super) const LONG_AGO: i8 = -(LIMIT + 1);

/// One number for each kind of rows.
pub(super) type Counts = [u8; KINDS];

/// The word of an attempt that is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Word {
    Sending,
    NotSent,
    Delivered,
    Failed,
    Unknown,
    Parked,
    Redriven,
    ByHand,
}

/// An attempt in the attempts table: the kind of row, the number of the attempt, the outcome.
pub(super) type Recorded = (u8, u8, Word);

/// The row of the lease. All times count down to 0; below 0 they are over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lease {
    /// The process whose cycle holds it, if that cycle has not ended.
    pub(super) holder: Option<u8>,
    pub(super) is_released: bool,
    /// The time of the store until `expires_at`.
    pub(super) expires_in: i8,
    /// Grows with each holder, if epochs are numbers of leases.
    pub(super) number: u8,
}

impl Lease {
    pub(super) fn taken(&mut self, by: usize) {
        (self.holder, self.is_released, self.expires_in) = (u8::try_from(by).ok(), false, TTL);
    }
}

/// What the next version of a table adds, if a request that is still on its way creates it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum LateCommit {
    Attempts { by: Option<u8>, epoch: u8, recorded: Vec<Recorded> },
    Flags { epoch: u8, flags: Counts },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Task {
    Deliver,
    Settle(u8),
    Redrive(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Idle,
    ClaimAttempts,
    ClaimSource,
    ReadPending,
    ReadAttempts,
    Work,
}

/// How far the row is that a queue is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Marked,
    /// The gate was open, and the event has not begun to leave. Only with long pauses.
    Passed,
    Sending,
    Answered(Word),
}

/// A row that the plan sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Item {
    pub(super) kind: u8,
    pub(super) attempt: u8,
    /// Whether an earlier attempt is in doubt. The mark says so.
    pub(super) in_doubt: bool,
}

/// The rows of one job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Queue {
    pub(super) active: Option<(Item, Stage)>,
    pub(super) rest: Vec<Item>,
}

/// A process, and the cycle or action that it runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) task: Task,
    pub(super) step: Step,
    /// How long its lease is valid by its own clock, in time of the store.
    pub(super) valid_for: i8,
    /// The time until `expires_at` of the lapsed lease that it took over.
    pub(super) lapsed: Option<i8>,
    /// The epoch that it has claimed, or will claim with its first commit.
    pub(super) epoch: u8,
    pub(super) has_claimed: bool,
    /// Whether it has claimed its epoch also in the source table, after a lapse.
    pub(super) has_claimed_source: bool,
    /// Whether others recorded attempts since it read them, before its first commit.
    pub(super) is_outdated: bool,
    /// The pending rows that it read.
    pub(super) pending: Counts,
    /// Delivered before, and to be acknowledged before anything is sent.
    pub(super) recovered: Counts,
    pub(super) queues: Vec<Queue>,
    /// What an operator records.
    pub(super) notes: Vec<Recorded>,
    /// Recorded as delivered or settled, and to be acknowledged.
    pub(super) delivered: Counts,
    /// Another holder has passed it over.
    pub(super) is_lost: bool,
    /// The store failed: the cycle ends.
    pub(super) has_failed: bool,
    /// The outcome of one of its commits is unknown to it.
    pub(super) has_unknown_commit: bool,
}

impl Process {
    pub(super) const IDLE: Self = Self {
        task: Task::Deliver,
        step: Step::Idle,
        valid_for: 0,
        lapsed: None,
        epoch: 0,
        has_claimed: false,
        has_claimed_source: false,
        is_outdated: false,
        pending: [0; KINDS],
        recovered: [0; KINDS],
        queues: Vec::new(),
        notes: Vec::new(),
        delivered: [0; KINDS],
        is_lost: false,
        has_failed: false,
        has_unknown_commit: false,
    };

    pub(super) fn is_stopping(&self) -> bool {
        self.is_lost || self.has_failed
    }

    /// The rows to acknowledge next.
    pub(super) fn flags(&self) -> Counts {
        if self.recovered == [0; KINDS] { self.delivered } else { self.recovered }
    }

    /// Drops what came of a plan.
    pub(super) fn forget_plan(&mut self) {
        self.queues.clear();
        self.notes.clear();
        self.recovered = [0; KINDS];
    }
}

/// An event that left a process and has neither arrived nor got lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Flight {
    /// Who waits for the answer.
    pub(super) sender: Option<u8>,
    pub(super) kind: u8,
    pub(super) attempt: u8,
    /// How long it can still be on its way.
    pub(super) left: i8,
}

/// What really happened. No process knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Truth {
    /// How many events arrived at AutoSys.
    pub(super) arrived: Counts,
    /// How many rows an operator settled.
    pub(super) settled: Counts,
    /// The first attempt whose mark said that an earlier one is in doubt.
    pub(super) first_in_doubt: [Option<u8>; KINDS],
    /// Rows that were parked or settled: later rows of the job do not wait for them.
    pub(super) was_set_aside: [bool; KINDS],
    pub(super) sent_twice: bool,
    pub(super) out_of_order: bool,
    pub(super) marked_without_lease: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) lease: Lease,
    /// The last epoch in the attempts table.
    pub(super) attempts_epoch: u8,
    /// Sorted: the order of attempts does not matter.
    pub(super) recorded: Vec<Recorded>,
    /// The last epoch in the source table.
    pub(super) source_epoch: u8,
    /// How many rows have the flag YES.
    pub(super) yes: Counts,
    pub(super) late: Option<LateCommit>,
    pub(super) processes: [Process; PROCESSES],
    pub(super) flights: Vec<Flight>,
    /// How many more faults there can be.
    pub(super) faults: u8,
    /// How many more actions of the operator there can be.
    pub(super) actions: u8,
    /// The first cycle is that of the first updater: the two are alike.
    pub(super) has_begun: bool,
    pub(super) truth: Truth,
}

impl State {
    pub(super) fn new(protocol: &Protocol) -> Self {
        Self {
            lease: Lease { holder: None, is_released: true, expires_in: LONG_AGO, number: 0 },
            attempts_epoch: 0,
            recorded: Vec::new(),
            source_epoch: 0,
            yes: [0; KINDS],
            late: None,
            processes: [Process::IDLE; PROCESSES],
            flights: Vec::new(),
            faults: protocol.faults,
            actions: protocol.actions,
            has_begun: false,
            truth: Truth {
                arrived: [0; KINDS],
                settled: [0; KINDS],
                first_in_doubt: [None; KINDS],
                was_set_aside: [false; KINDS],
                sent_twice: false,
                out_of_order: false,
                marked_without_lease: false,
            },
        }
    }

    /// Brings states together that differ only in what can make no difference any more.
    pub(super) fn simplify(&mut self, protocol: &Protocol) {
        // Attempts of rows that are no longer pending are not read.
        self.recorded.retain(|(kind, _, _)| self.yes[usize::from(*kind)] < protocol.kind(*kind).count);
        self.drop_not_sent();
        self.recorded.sort_unstable();
        self.flights.sort_unstable();
        for (at, process) in (0..).zip(&mut self.processes) {
            if process.is_stopping() && self.lease.holder != Some(at) {
                (process.lapsed, process.has_unknown_commit) = (None, false);
            }
        }
        self.rank_epochs();
    }

    /// Drops marks that were recorded as not sent: both together do not count.
    fn drop_not_sent(&mut self) {
        while let Some(not_sent) = self.recorded.iter().position(|(_, _, word)| *word == Word::NotSent) {
            let (kind, number, _) = self.recorded[not_sent];
            let mark = (kind, number, Word::Sending);
            let Some(mark) = self.recorded.iter().position(|recorded| *recorded == mark) else { return };
            self.recorded.remove(not_sent.max(mark));
            self.recorded.remove(not_sent.min(mark));
        }
    }

    /// Counts epochs from 0 without gaps: only their order matters, and which one is next.
    fn rank_epochs(&mut self) {
        let processes = self.processes.iter_mut().filter(|process| process.step != Step::Idle);
        let late = self.late.iter_mut().map(|late| match late {
            LateCommit::Attempts { epoch, .. } | LateCommit::Flags { epoch, .. } => epoch,
        });
        let tables = [&mut self.attempts_epoch, &mut self.source_epoch, &mut self.lease.number];
        let mut epochs: Vec<&mut u8> = processes.map(|it| &mut it.epoch).chain(late).chain(tables).collect();
        epochs.sort_unstable();
        let (mut rank, mut last) = (0, None);
        for epoch in epochs {
            if last.is_some_and(|last| last < *epoch) {
                rank += 1;
            }
            last = Some(*epoch);
            *epoch = rank;
        }
    }
}
