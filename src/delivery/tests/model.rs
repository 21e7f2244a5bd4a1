//! A model of the delivery protocol: lease, epochs, mark, send, record, acknowledge and operator actions, with faults. The
//! checker (stateright) visits every state that two updaters and an operator can reach.
//!
//! | real | in the model |
//! | --- | --- |
//! | a Delta table, written by compare-and-set | the table's content and last epoch; a commit is one step |
//! | a request that creates its version after its process gave it up | [`state::LateCommit`]: it can land until another commit to the table |
//! | reading pending rows, then attempts and `YES` rows | two steps; what others do in between is seen by the second only |
//! | what the rows and attempts mean | the real `AttemptHistory`, `PendingRows::identical()` and `plan()` |
//! | the clock of the store, known with an error | a few ticks. A process can be late with each step, which covers a time that it knows as later; the worst case for safety is that it knows the time exactly |
//! | a monotonic clock that drifts | a lease seems valid for [`DRIFT`] longer than it is; the gate keeps [`MARGIN`] |
//! | a pause, or renewals that fail | time passes without a step of the process. A pause in which a lease lapses is a fault |
//! | a kill, a failed store, a lost answer, a refusal | a fault; [`Protocol::faults`] is how many there can be |
//! | a send of at most its time limit | an event on its way for at most [`LIMIT`], also without its sender |
//! | a pause between the gate and the send | only with `long_pauses`; otherwise they are one step |
//! | an answer `unknown` while the event can still arrive | only with `late_events` |
//! | identical rows | one kind of rows with a count. Which one is in doubt cannot be told: sending twice is checked for single rows |
//! | window, concurrency, batches | one row of each job at a time |
//! | numbers of epochs and attempts tables without gaps; ids of commits | only what is compared |
//! | the retry state, back-off, reading a status back, executions; other orders, `max_attempts`, `stale_after` | left out; the simulation has them |
//!
//! The model has the rules that it showed to be necessary. Each can be left out, as a [`PlantedBug`], and is then found missing.

mod planning;
mod state;
mod steps;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;
use std::time::Instant;

use stateright::{Checker as _, HasDiscoveries, Model, Property};

use self::planning::Plans;
use self::state::{State, Task};
use self::steps::{Action, Answer};

/// The time of a lease, in ticks of the store's clock.
const TTL: i8 = 2;
/// How much longer a lease seems valid to its holder, because its clock is slow.
const DRIFT: i8 = 1;
/// Nothing is sent in the last part of a lease.
const MARGIN: i8 = 1;
/// How long an event can be on its way.
const LIMIT: i8 = 2;
/// How far the wall clock of a machine is ahead.
const SKEW: i8 = 2;
/// With at least this many states wanted, the larger configurations are checked, too.
const MANY_STATES: usize = 1_000_000;
/// About how many steps lead to one state.
const STEPS_TO_A_STATE: usize = 4;

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlantedBug {
    /// A contender compares with its wall clock. The rule: the store tells the time (`JobLedger::is_held`).
    ContenderTrustsItsClock,
    /// Flags are set without a look at the last epoch. The rule: each commit to the source table compares it.
    FlagsWithoutEpoch,
    /// The next row of a job is marked before the outcome of the one before is durable. The rule: `Cycle::committed` makes
    /// the rest of a queue ready.
    NextRowBeforeOutcome,
    /// The gate is not asked. The rule: each transport asks it right before it sends.
    GateNotAsked,
    /// A holder that was passed over marks rows. The rule: each commit with marks compares the last epoch.
    MarksAfterPassedOver,
    /// Rows are sent without a mark. The rule: `Cycle::send` sends rows of durable commits only.
    SendsWithoutMark,
    /// The holder after a lapsed lease reads without a claim. The rule: it claims its epoch in both tables first.
    NoClaimAfterLapse,
    /// Rows in doubt do not wait after a lapse. The rule: they wait for the time limit of a send.
    NoWaitForLimit,
    /// Only rows that are not delivered wait. The rule: a job waits while any attempt of a pending row has no outcome.
    OnlyOpenRowsWait,
    /// Rows in doubt wait without an end. The rule: the end depends on the lapsed lease, not on the time of the look.
    WaitsForEver,
    /// A release in order forgets that the lease before had lapsed. The rule: it restores `expires_at` of that lease until
    /// both tables are claimed and rows in doubt no longer wait.
    ReleaseForgetsLapse,
    /// A holder releases the lease although the outcome of a commit is unknown. The rule: it lets the lease lapse.
    ReleasesWithUnknownCommit,
    /// The first commit takes the epoch after the last one. The rule: it is refused if the last epoch is not the one from
    /// before the lease was taken.
    ClaimsAboveSuccessor,
    /// The last epoch is read together with the attempts. The rule: it is read before the lease is taken.
    EpochReadAfterLease,
    /// A holder whose first commit is one of flags claims nothing in the attempts table. The rule: it claims there first.
    ClaimsInSourceOnly,
    /// A renewal takes the lease again after another holder. The rule: it only extends a lease of the same owner.
    RenewalTakesAgain,
    /// Outcomes of a commit with an unknown outcome are recorded again. The rule: the transaction number tells.
    RecordsTwice,
}

/// Rows that are identical, of one job. A later kind of the same job is later in time.
#[derive(Clone, Copy, Debug)]
struct Kind {
    job: &'static str,
    count: u8,
}

/// The protocol, and the size of its model.
#[derive(Debug, Default)]
struct Protocol {
    kinds: Vec<Kind>,
    /// How many faults there can be.
    faults: u8,
    /// How many actions of the operator there can be.
    actions: u8,
    /// A process can pause between the gate and the send.
    long_pauses: bool,
    /// An event can arrive after the answer `unknown`.
    late_events: bool,
    /// With long pauses or late events: marked rows are not excused.
    is_strict: bool,
    /// The epoch of a holder is the number of its lease.
    epochs_of_lease: bool,
    /// The last epoch is read together with the attempts. Then the holder looks at its own clock: if its lease is still valid, no
    /// other one had it before. It is the rule of `AutosysUpdater`. Otherwise the last epoch is read before the lease is taken.
    clock_after_reads: bool,
    bug: Option<PlantedBug>,
    plans: Plans,
    /// States that are known to come to an end.
    finishing: Mutex<HashSet<u64>>,
}

const LOST: &str = "no row is lost";
const TWICE: &str = "no row is sent twice before a mark said that it is in doubt";
const ORDER: &str = "the rows of a job arrive in their order";
const HOLDER: &str = "only the holder of the lease marks rows";
const STUCK: &str = "nothing is stuck";

impl Protocol {
    /// Two rows of one job.
    fn two_rows() -> Self {
        Self { kinds: vec![Kind { job: "a", count: 1 }; 2], faults: 1, ..Self::default() }
    }

    /// Two identical rows.
    fn identical_rows() -> Self {
        Self { kinds: vec![Kind { job: "a", count: 2 }], faults: 1, ..Self::default() }
    }

    /// Two rows of two jobs.
    fn two_jobs() -> Self {
        Self { kinds: ["a", "b"].map(|job| Kind { job, count: 1 }).to_vec(), faults: 1, ..Self::default() }
    }

    /// Two rows of one job and one of another.
    fn three_rows() -> Self {
        Self { kinds: ["a", "a", "b"].map(|job| Kind { job, count: 1 }).to_vec(), faults: 1, ..Self::default() }
    }

    fn with_bug(self, bug: PlantedBug) -> Self {
        Self { bug: Some(bug), ..self }
    }

    fn kind(&self, kind: u8) -> &Kind {
        &self.kinds[usize::from(kind)]
    }

    /// Whether every row has the flag YES, or is parked and waits for an operator.
    fn is_finished(&self, state: &State) -> bool {
        let parked = self.outline(state).parked;
        (0..self.kinds.len()).all(|kind| state.yes[kind] + parked[kind] == self.kinds[kind].count)
    }

    /// The state after the next step if nothing fails any more: events arrive, processes end their work, time passes, and then
    /// the next cycle begins.
    fn calm_step(&self, state: &State) -> Option<State> {
        let mut actions = Vec::new();
        self.actions_of(state, &mut actions);
        let rank = |action: &Action| match action {
            Action::Answer(_, Answer::Delivered) => Some(0),
            Action::Record(_) => Some(2),
            Action::End(_) => Some(3),
            Action::Tick => Some(4),
            Action::Begin(_, Task::Redrive(_)) => Some(5),
            Action::Begin(_, Task::Deliver) => Some(6),
            Action::Begin(..) | Action::Renew(_) | Action::Land | Action::Answer(..) => None,
            _ => Some(1),
        };
        actions.retain(|action| rank(action).is_some() && !Self::is_fault(state, action));
        actions.sort_by_key(rank);
        actions.iter().find_map(|action| self.after(state, action))
    }

    /// Whether every row gets the flag YES if nothing fails any more. One sequence of steps that does it is enough. Each of its
    /// states can be reached, so that it is checked once for all that pass it.
    fn can_finish(&self, state: &State) -> bool {
        let key = |state: &State| {
            let mut hasher = DefaultHasher::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        let mut passed = HashSet::new();
        let mut now = state.clone();
        loop {
            let known = key(&now);
            if self.finishing.lock().unwrap().contains(&known) || self.is_finished(&now) {
                passed.insert(known);
                self.finishing.lock().unwrap().extend(passed);
                return true;
            }
            // A state for the second time: it goes round in circles.
            if !passed.insert(known) {
                return false;
            }
            match self.calm_step(&now) {
                Some(next) => now = next,
                None => return false,
            }
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.actions_of(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        self.after(last, &action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LOST, |model: &Self, state: &State| {
                let truth = &state.truth;
                (0..model.kinds.len()).all(|kind| state.yes[kind] <= truth.arrived[kind] + truth.settled[kind])
            }),
            Property::always(TWICE, |_, state: &State| !state.truth.sent_twice),
            Property::always(ORDER, |_, state: &State| !state.truth.out_of_order),
            Property::always(HOLDER, |_, state: &State| !state.truth.marked_without_lease),
            Property::always(STUCK, |model: &Self, state: &State| model.can_finish(state)),
        ]
    }
}

/// How many states are wanted.
fn wanted_states() -> usize {
    std::env::var("JOBROTA_MODEL_STATES").map_or(0, |states| states.parse().expect("JOBROTA_MODEL_STATES is a number"))
}

/// Checks `protocol`, and returns the violated properties.
fn violated(name: &str, protocol: Protocol) -> Vec<&'static str> {
    checked(name, protocol).0
}

/// Checks `protocol`, prints how much was checked and what violates a property, and returns the violated properties and the number of
/// unique states.
fn checked(name: &str, protocol: Protocol) -> (Vec<&'static str>, usize) {
    let begun = Instant::now();
    let most = wanted_states().max(MANY_STATES) * STEPS_TO_A_STATE;
    let checker = protocol.checker().threads(2).target_state_count(most).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let mut found = Vec::new();
    for (property, path) in checker.discoveries() {
        println!("{name}: violated: {property}");
        for (number, action) in (1..).zip(path.into_actions()) {
            println!("{number}. {action:?}");
        }
        found.push(property);
    }
    let (unique, depth, seconds) = (checker.unique_state_count(), checker.max_depth(), begun.elapsed().as_secs_f64());
    let extent = if checker.state_count() < most { "all" } else { "not all" };
    println!("{name}: {unique} unique states ({extent}), depth {depth}, {seconds:.1} s");
    found.sort_unstable();
    (found, unique)
}

#[test]
fn the_protocol_keeps_its_promises() {
    let small = [
        ("two rows", Protocol::two_rows()),
        ("two rows, an operator", Protocol { actions: 1, ..Protocol::two_rows() }),
        ("two rows, epochs of the lease", Protocol { epochs_of_lease: true, ..Protocol::two_rows() }),
        ("two rows, clock after reads", Protocol { clock_after_reads: true, ..Protocol::two_rows() }),
        ("identical rows, clock after reads", Protocol { clock_after_reads: true, ..Protocol::identical_rows() }),
        ("two jobs", Protocol::two_jobs()),
        ("identical rows, an operator", Protocol { actions: 1, ..Protocol::identical_rows() }),
        ("two rows, long pauses", Protocol { long_pauses: true, ..Protocol::two_rows() }),
        ("two rows, late events", Protocol { late_events: true, ..Protocol::two_rows() }),
    ];
    let large = [
        ("three rows", Protocol::three_rows()),
        ("two rows, two faults", Protocol { faults: 2, ..Protocol::two_rows() }),
        ("identical rows, two faults", Protocol { faults: 2, ..Protocol::identical_rows() }),
        (
            "identical rows, two faults, clock",
            Protocol { faults: 2, clock_after_reads: true, ..Protocol::identical_rows() },
        ),
        ("three rows, an operator", Protocol { actions: 1, ..Protocol::three_rows() }),
    ];
    let large = large.into_iter().filter(|_| wanted_states() >= MANY_STATES);
    let mut states = 0;
    for (name, protocol) in small.into_iter().chain(large) {
        let (found, unique) = checked(name, protocol);
        assert_eq!(found, [""; 0], "{name}");
        states += unique;
    }
    println!("{states} unique states in all");
    assert!(
        states >= wanted_states(),
        "JOBROTA_MODEL_STATES wants more: raise STEPS_TO_A_STATE, or add a configuration"
    );
}

/// The hole that docs/promises.md describes: the process pauses between the gate and the send.
#[test]
fn only_a_long_pause_or_a_late_event_breaks_the_order_of_marked_rows() {
    let paused = Protocol { long_pauses: true, is_strict: true, ..Protocol::two_rows() };
    assert_ne!(violated("long pauses, strict", paused), [""; 0]);
    let late = Protocol { late_events: true, is_strict: true, ..Protocol::two_rows() };
    assert_eq!(violated("late events, strict", late), [ORDER]);
}

#[test]
fn every_rule_that_is_left_out_is_found_missing() {
    use PlantedBug as Bug;
    let calm = || Protocol { faults: 0, ..Protocol::two_rows() };
    let (rows, identical) = (Protocol::two_rows, Protocol::identical_rows);
    let small = [
        (Bug::ContenderTrustsItsClock, ORDER, calm()),
        (Bug::FlagsWithoutEpoch, LOST, identical()),
        (Bug::FlagsWithoutEpoch, TWICE, rows()),
        (Bug::NextRowBeforeOutcome, ORDER, rows()),
        (Bug::GateNotAsked, TWICE, rows()),
        (Bug::MarksAfterPassedOver, HOLDER, rows()),
        (Bug::SendsWithoutMark, TWICE, rows()),
        (Bug::NoClaimAfterLapse, LOST, identical()),
        (Bug::NoClaimAfterLapse, TWICE, rows()),
        (Bug::NoWaitForLimit, ORDER, rows()),
        (Bug::WaitsForEver, STUCK, rows()),
        (Bug::ReleaseForgetsLapse, ORDER, rows()),
        (Bug::ReleasesWithUnknownCommit, LOST, identical()),
        (Bug::ReleasesWithUnknownCommit, TWICE, rows()),
        (Bug::ClaimsAboveSuccessor, LOST, identical()),
        (Bug::EpochReadAfterLease, LOST, identical()),
        (Bug::EpochReadAfterLease, TWICE, rows()),
        (Bug::ClaimsInSourceOnly, LOST, identical()),
        (Bug::RenewalTakesAgain, TWICE, rows()),
        (Bug::RecordsTwice, LOST, identical()),
    ];
    let large = [(Bug::OnlyOpenRowsWait, ORDER, Protocol { faults: 2, ..rows() })];
    let large = large.into_iter().filter(|_| wanted_states() >= MANY_STATES);
    for (bug, property, protocol) in small.into_iter().chain(large) {
        let found = violated(&format!("{bug:?}"), protocol.with_bug(bug));
        assert!(found.contains(&property), "{bug:?}: {found:?}");
    }
}
