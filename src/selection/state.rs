//! The selection state: for each VM its last turn, whether it is drained, its health, and the selections of it in use.
//!
//! Each value is an integer with a key of its own, so that one atomic commit changes any number of them. Keys contain the
//! name of the VM: callers may reorder and edit their lists, and use different ones, and every VM keeps its state.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// The state of all VMs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SelectionState {
    /// The number of the last turn.
    pub(super) last_ticket: i64,
    vms: HashMap<String, VmState>,
}

/// The state of one VM. The default is that of a VM that was never selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct VmState {
    /// The number of its last turn. The turns of all VMs have one numbering.
    pub(super) ticket: Option<i64>,
    /// The sum of its turns by weight, where weights differ; see [`super::schedule`]. None: it starts level with the others.
    pub(super) pass: Option<i64>,
    /// Whether it is taken out of rotation.
    pub(super) drained: bool,
    /// Its last probes, where they count beyond the selection that they were made for.
    pub(super) streak: Option<HealthStreak>,
    /// The selections in use: when each slot expires (microseconds since 1970). A holder identifies its slot by this number.
    pub(super) holds: BTreeMap<u32, i64>,
}

/// Consecutive probe results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HealthStreak {
    /// Seconds since 1970 of the last result.
    pub(super) at: i64,
    /// Whether the VM counted as up after it.
    pub(super) up: bool,
    /// How many results in a row indicated the opposite.
    pub(super) against: u32,
}

/// The key of one value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum StateKey {
    LastTicket,
    Ticket(String),
    Pass(String),
    Drained(String),
    Streak(String),
    Hold(String, u32),
}

/// New values, the latest last.
pub(super) type Changes = Vec<(StateKey, i64)>;

/// A key of a VM's value, from the VM's name.
type VmKey = fn(String) -> StateKey;

/// Means "no value" where 0 is a value.
const NONE: i64 = i64::MIN;

/// A streak is one number: seconds, then 1 bit, then 15 bits.
const STREAK_BITS: u32 = 16;
const MOST_AGAINST: i64 = (1 << (STREAK_BITS - 1)) - 1;

const LAST_TICKET: &str = "jobrota.cursor";
const TICKET: &str = "jobrota.vm/";
const PASS: &str = "jobrota.pass/";
const DRAINED: &str = "jobrota.drained/";
const STREAK: &str = "jobrota.health/";
const HOLD: &str = "jobrota.hold/";
const VM_KEYS: [(&str, VmKey); 4] =
    [(TICKET, StateKey::Ticket), (PASS, StateKey::Pass), (DRAINED, StateKey::Drained), (STREAK, StateKey::Streak)];

impl StateKey {
    /// The application id of the Delta transaction that stores the value.
    pub(super) fn key(&self) -> String {
        match self {
            Self::LastTicket => LAST_TICKET.to_owned(),
            Self::Ticket(vm) => format!("{TICKET}{vm}"),
            Self::Pass(vm) => format!("{PASS}{vm}"),
            Self::Drained(vm) => format!("{DRAINED}{vm}"),
            Self::Streak(vm) => format!("{STREAK}{vm}"),
            Self::Hold(vm, slot) => format!("{HOLD}{slot}/{vm}"),
        }
    }

    /// The key of this application id; None for ids that are not the cursor's.
    pub(super) fn of(id: &str) -> Option<Self> {
        if id == LAST_TICKET {
            return Some(Self::LastTicket);
        }
        if let Some((slot, vm)) = id.strip_prefix(HOLD).and_then(|rest| rest.split_once('/')) {
            return Some(Self::Hold(vm.to_owned(), slot.parse().ok()?));
        }
        VM_KEYS.iter().find_map(|(prefix, key)| id.strip_prefix(prefix).map(|vm| key(vm.to_owned())))
    }
}

impl SelectionState {
    /// The state of `vm`, if it has any.
    pub(super) fn get(&self, vm: &str) -> Option<&VmState> {
        self.vms.get(vm)
    }

    /// Applies changes.
    pub(super) fn apply(&mut self, changes: Changes) {
        for (key, value) in changes {
            match key {
                StateKey::LastTicket => self.last_ticket = value,
                StateKey::Ticket(vm) => self.vm(vm).ticket = Some(value),
                StateKey::Pass(vm) => self.vm(vm).pass = (value != NONE).then_some(value),
                StateKey::Drained(vm) => self.vm(vm).drained = value != 0,
                StateKey::Streak(vm) => self.vm(vm).streak = HealthStreak::of(value),
                StateKey::Hold(vm, slot) if value == 0 => drop(self.vm(vm).holds.remove(&slot)),
                StateKey::Hold(vm, slot) => drop(self.vm(vm).holds.insert(slot, value)),
            }
        }
    }

    fn vm(&mut self, name: String) -> &mut VmState {
        self.vms.entry(name).or_default()
    }
}

impl VmState {
    /// Adds the changes that lead from the state `before` to this one.
    pub(super) fn changes(&self, vm: &str, before: &Self, changes: &mut Changes) {
        for ((key, now), (_, then)) in self.values().into_iter().zip(before.values()) {
            if let Some(value) = now.filter(|_| now != then) {
                changes.push((key(vm.to_owned()), value));
            }
        }
        let slots = self.holds.keys().chain(before.holds.keys().filter(|slot| !self.holds.contains_key(slot)));
        for slot in slots {
            let (now, then) = (self.holds.get(slot), before.holds.get(slot));
            if now != then {
                changes.push((StateKey::Hold(vm.to_owned(), *slot), now.copied().unwrap_or(0)));
            }
        }
    }

    /// All values but those of the slots.
    fn values(&self) -> [(VmKey, Option<i64>); 4] {
        [
            (StateKey::Ticket, self.ticket),
            (StateKey::Pass, Some(self.pass.unwrap_or(NONE))),
            (StateKey::Drained, Some(self.drained.into())),
            (StateKey::Streak, Some(self.streak.map_or(0, HealthStreak::number))),
        ]
    }

    /// How many selections are in use at `now` (microseconds since 1970).
    pub(super) fn in_flight(&self, now: i64) -> u32 {
        let live = self.holds.values().filter(|until| **until > now).count();
        u32::try_from(live).unwrap_or(u32::MAX)
    }

    /// The first of `slots` slots that is free at `now`.
    pub(super) fn free_slot(&self, slots: u32, now: i64) -> Option<u32> {
        (0..slots).find(|slot| self.holds.get(slot).is_none_or(|until| *until <= now))
    }
}

impl HealthStreak {
    fn number(self) -> i64 {
        self.at << STREAK_BITS | i64::from(self.up) << (STREAK_BITS - 1) | i64::from(self.against).min(MOST_AGAINST)
    }

    fn of(number: i64) -> Option<Self> {
        (number != 0).then(|| Self {
            at: number >> STREAK_BITS,
            up: number >> (STREAK_BITS - 1) & 1 == 1,
            against: u32::try_from(number & MOST_AGAINST).unwrap_or(0),
        })
    }
}

/// When a VM counts as up, and how many selections of it may be in use.
#[derive(Debug, Clone, Copy)]
pub(super) struct SelectionRules {
    /// Answers in a row after which a VM that counts as down can be selected again.
    pub(super) rise: u32,
    /// Failures in a row after which a VM counts as down.
    pub(super) fall: u32,
    /// How long failures and answers count.
    pub(super) health_max_age: Duration,
    /// How many selections of a VM may be in use at the same time.
    pub(super) max_in_flight: Option<u32>,
    /// How long a selection stays in use after its holder has renewed it last.
    pub(super) hold_ttl: Duration,
}

impl SelectionRules {
    /// Whether earlier results count. Where one answer and one failure are enough, the last probe decides.
    pub(super) fn use_history(&self) -> bool {
        self.rise > 1 || self.fall > 1
    }

    /// The streak after another result, at `now` (microseconds since 1970). None: as if every probe had succeeded.
    pub(super) fn observe(&self, streak: Option<HealthStreak>, ok: bool, now: i64) -> Option<HealthStreak> {
        let streak = self.valid(streak, now);
        let (mut up, mut against) = streak.map_or((true, 0), |streak| (streak.up, streak.against));
        against = if ok == up { 0 } else { against.saturating_add(1) };
        if against >= if up { self.fall } else { self.rise } {
            (up, against) = (!up, 0);
        }
        (!up || against > 0).then_some(HealthStreak { at: now / 1_000_000, up, against })
    }

    /// How many answers a VM still needs before it can be selected, not counting the next one.
    pub(super) fn needs(&self, streak: Option<HealthStreak>, now: i64) -> u32 {
        match self.valid(streak, now) {
            Some(streak) if self.use_history() && !streak.up => self.rise.saturating_sub(streak.against),
            _ => 0,
        }
    }

    /// Why a VM cannot be selected because all its slots are in use.
    pub(super) fn full(&self, vm: &VmState, now: i64) -> Option<String> {
        let most = self.max_in_flight?;
        vm.free_slot(most, now).is_none().then(|| format!("{} of {most} selections in flight", vm.in_flight(now)))
    }

    fn valid(&self, streak: Option<HealthStreak>, now: i64) -> Option<HealthStreak> {
        let age = |streak: &HealthStreak| Duration::from_secs((now / 1_000_000 - streak.at).max(0).unsigned_abs());
        streak.filter(|streak| age(streak) <= self.health_max_age)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vm() -> impl Strategy<Value = VmState> {
        let streak = (0i64..1 << 40, any::<bool>(), 0u32..30_000).prop_map(|(at, up, against)| HealthStreak {
            at: at + 1,
            up,
            against,
        });
        let holds = prop::collection::btree_map(0u32..5, 1i64..i64::MAX, 0..5);
        (
            prop::option::of(0i64..),
            prop::option::of(-1_000_000i64..1_000_000),
            any::<bool>(),
            prop::option::of(streak),
            holds,
        )
            .prop_map(|(ticket, pass, drained, streak, holds)| VmState {
                ticket,
                pass,
                drained,
                streak,
                holds,
            })
    }

    proptest! {
        #[test]
        fn changes_lead_from_one_state_to_the_other(before in vm(), mut after in vm(), name in "[a-z/.0-9]{1,12}") {
            // A turn that was taken stays taken.
            after.ticket = after.ticket.or(before.ticket);
            let state = |vm: &VmState| {
                let mut changes = Vec::new();
                vm.changes(&name, &VmState::default(), &mut changes);
                let mut state = SelectionState::default();
                state.apply(changes);
                state
            };
            let mut changes = Vec::new();
            after.changes(&name, &before, &mut changes);
            let mut changed = state(&before);
            let keys = changes.iter().map(|(entry, value)| (StateKey::of(&entry.key()).unwrap(), *value));
            changed.apply(keys.collect());
            prop_assert_eq!(changed.get(&name).cloned().unwrap_or_default(), after);
        }
    }

    #[test]
    fn other_ids_are_ignored() {
        for key in ["", "jobrota.import", "jobrota.hold/x/vm1", "jobrota.hold/1", "other/key"] {
            assert_eq!(StateKey::of(key), None, "{key}");
        }
        assert_eq!(StateKey::of("jobrota.hold/3/a/b"), Some(StateKey::Hold("a/b".to_owned(), 3)));
    }

    #[test]
    fn slots_are_free_when_they_are_not_held_or_have_expired() {
        let vm = VmState { holds: BTreeMap::from([(0, 50), (1, 10)]), ..VmState::default() };
        assert_eq!((vm.in_flight(20), vm.free_slot(2, 20)), (1, Some(1)));
        assert_eq!((vm.in_flight(5), vm.free_slot(2, 5), vm.free_slot(3, 5)), (2, None, Some(2)));
    }

    const SECOND: i64 = 1_000_000;

    fn rules(rise: u32, fall: u32) -> SelectionRules {
        let hold_ttl = Duration::from_secs(60);
        SelectionRules { rise, fall, health_max_age: Duration::from_secs(100), max_in_flight: None, hold_ttl }
    }

    fn played(rules: SelectionRules, answers: &[(i64, bool)]) -> Option<HealthStreak> {
        answers.iter().fold(None, |streak, (at, ok)| rules.observe(streak, *ok, at * SECOND))
    }

    #[test]
    fn it_takes_fall_failures_in_a_row_and_then_rise_answers() {
        let rules = rules(2, 3);
        let up = |answers: &[(i64, bool)]| played(rules, answers).is_none_or(|streak| streak.up);
        assert!(up(&[(1, false), (2, false)]));
        assert!(up(&[(1, false), (2, false), (3, true), (4, false), (5, false)]));
        let down = [(1, false), (2, false), (3, false)];
        assert!(!up(&down));
        assert_eq!(rules.needs(played(rules, &down), 4 * SECOND), 2);
        let one = [down.as_slice(), &[(4, true)]].concat();
        assert_eq!((up(&one), rules.needs(played(rules, &one), 5 * SECOND)), (false, 1));
        let flapping = [one.as_slice(), &[(5, false), (6, true)]].concat();
        assert_eq!((up(&flapping), rules.needs(played(rules, &flapping), 6 * SECOND)), (false, 1));
        let two = [one.as_slice(), &[(5, true)]].concat();
        assert_eq!(played(rules, &two), None);
    }

    #[test]
    fn old_answers_do_not_count() {
        let rules = rules(3, 1);
        let down = played(rules, &[(1, false)]);
        assert_eq!(rules.needs(down, 101 * SECOND), 3);
        assert_eq!(rules.needs(down, 102 * SECOND), 0);
        assert_eq!(rules.observe(down, true, 102 * SECOND), None);
    }
}
