//! What everyone who shares a cursor knows of the VMs, and how it is put into numbers that one atomic commit changes.
//!
//! Everything is kept per VM name, so a list may be edited, reordered or differ between callers without anybody losing a
//! place.

use std::collections::{BTreeMap, HashMap};

/// All that is known, by VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The ticket of the last turn of all.
    pub(super) last_ticket: i64,
    vms: HashMap<String, VmStanding>,
}

/// What is known of one VM. The default is that of a VM which nobody has heard of yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct VmStanding {
    /// The number of its last turn; turns are numbered through for all VMs.
    pub(super) ticket: Option<i64>,
    /// Its turns by its weight, where weights differ; see [`super::rotation`]. None: it begins with the others' next turn.
    pub(super) pass: Option<i64>,
    /// Taken out of rotation by somebody.
    pub(super) drained: bool,
    /// What its last probes were, where they count beyond the selection that they were made for.
    pub(super) streak: Option<Streak>,
    /// Who works on it: by slot, until when (microseconds since 1970). A holder knows its slot by exactly this number.
    pub(super) holds: BTreeMap<u32, i64>,
}

/// A row of answers of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streak {
    /// Seconds since 1970 of the last answer.
    pub(super) at: i64,
    /// Whether the VM counted as up after it.
    pub(super) up: bool,
    /// How many answers in a row spoke for the opposite.
    pub(super) against: u32,
}

/// One number of the standing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    LastTicket,
    Ticket(String),
    Pass(String),
    Drained(String),
    Streak(String),
    Hold(String, u32),
}

/// New numbers, later ones last.
pub(super) type Changes = Vec<(Entry, i64)>;

/// Stands for "nothing" where 0 is a number like any other.
const NONE: i64 = i64::MIN;

/// A streak in one number: seconds, then 1 bit, then 15 bits.
const STREAK_BITS: u32 = 16;
const MOST_AGAINST: i64 = (1 << (STREAK_BITS - 1)) - 1;

const LAST_TICKET: &str = "jobrota.cursor";
const TICKET: &str = "jobrota.vm/";
const PASS: &str = "jobrota.pass/";
const DRAINED: &str = "jobrota.drained/";
const STREAK: &str = "jobrota.health/";
const HOLD: &str = "jobrota.hold/";

impl Entry {
    /// The application id of the transaction that holds this number.
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

    /// The entry of this application id; None for ids that are not the cursor's.
    pub(super) fn of(key: &str) -> Option<Self> {
        if key == LAST_TICKET {
            return Some(Self::LastTicket);
        }
        let vm = |prefix: &str| key.strip_prefix(prefix).map(str::to_owned);
        vm(TICKET)
            .map(Self::Ticket)
            .or_else(|| vm(PASS).map(Self::Pass))
            .or_else(|| vm(DRAINED).map(Self::Drained))
            .or_else(|| vm(STREAK).map(Self::Streak))
            .or_else(|| {
                let (slot, vm) = key.strip_prefix(HOLD)?.split_once('/')?;
                Some(Self::Hold(vm.to_owned(), slot.parse().ok()?))
            })
    }
}

impl Standing {
    /// What is known of `vm`.
    pub(super) fn get(&self, vm: &str) -> Option<&VmStanding> {
        self.vms.get(vm)
    }

    pub(super) fn set(&mut self, entry: &Entry, value: i64) {
        match entry {
            Entry::LastTicket => self.last_ticket = value,
            Entry::Ticket(vm) => self.vm(vm).ticket = Some(value),
            Entry::Pass(vm) => self.vm(vm).pass = (value != NONE).then_some(value),
            Entry::Drained(vm) => self.vm(vm).drained = value != 0,
            Entry::Streak(vm) => self.vm(vm).streak = Streak::of(value),
            Entry::Hold(vm, slot) => {
                if value == 0 {
                    self.vm(vm).holds.remove(slot);
                } else {
                    self.vm(vm).holds.insert(*slot, value);
                }
            }
        }
    }

    fn vm(&mut self, name: &str) -> &mut VmStanding {
        if !self.vms.contains_key(name) {
            self.vms.insert(name.to_owned(), VmStanding::default());
        }
        self.vms.entry(name.to_owned()).or_default()
    }
}

impl FromIterator<(Entry, i64)> for Standing {
    fn from_iter<T: IntoIterator<Item = (Entry, i64)>>(entries: T) -> Self {
        let mut standing = Self::default();
        standing.extend(entries);
        standing
    }
}

impl Extend<(Entry, i64)> for Standing {
    fn extend<T: IntoIterator<Item = (Entry, i64)>>(&mut self, entries: T) {
        entries.into_iter().for_each(|(entry, value)| self.set(&entry, value));
    }
}

impl VmStanding {
    /// How this differs from what was known `before`, as changes of `vm`.
    pub(super) fn changes(&self, vm: &str, before: &Self, changes: &mut Changes) {
        let mut change = |entry: fn(String) -> Entry, value: i64| changes.push((entry(vm.to_owned()), value));
        if let Some(ticket) = self.ticket.filter(|_| self.ticket != before.ticket) {
            change(Entry::Ticket, ticket);
        }
        if self.pass != before.pass {
            change(Entry::Pass, self.pass.unwrap_or(NONE));
        }
        if self.drained != before.drained {
            change(Entry::Drained, self.drained.into());
        }
        if self.streak != before.streak {
            change(Entry::Streak, self.streak.map_or(0, Streak::number));
        }
        let slots = self.holds.keys().chain(before.holds.keys().filter(|slot| !self.holds.contains_key(slot)));
        for slot in slots {
            let (now, then) = (self.holds.get(slot), before.holds.get(slot));
            if now != then {
                changes.push((Entry::Hold(vm.to_owned(), *slot), now.copied().unwrap_or(0)));
            }
        }
    }

    /// How many work on it at `now` (microseconds since 1970).
    pub(super) fn in_flight(&self, now: i64) -> u32 {
        let live = self.holds.values().filter(|until| **until > now).count();
        u32::try_from(live).unwrap_or(u32::MAX)
    }

    /// The first slot of `slots` that nobody holds at `now`.
    pub(super) fn free_slot(&self, slots: u32, now: i64) -> Option<u32> {
        (0..slots).find(|slot| self.holds.get(slot).is_none_or(|until| *until <= now))
    }
}

impl Streak {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vm() -> impl Strategy<Value = VmStanding> {
        let streak = (0i64..1 << 40, any::<bool>(), 0u32..30_000).prop_map(|(at, up, against)| Streak {
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
            .prop_map(|(ticket, pass, drained, streak, holds)| VmStanding {
                ticket,
                pass,
                drained,
                streak,
                holds,
            })
    }

    proptest! {
        #[test]
        fn changes_lead_from_one_standing_to_the_other(before in vm(), mut after in vm(), name in "[a-z/.0-9]{1,12}") {
            // A turn that was taken stays taken.
            after.ticket = after.ticket.or(before.ticket);
            let standing = |vm: &VmStanding| {
                let mut changes = Vec::new();
                vm.changes(&name, &VmStanding::default(), &mut changes);
                changes.into_iter().collect::<Standing>()
            };
            let mut changes = Vec::new();
            after.changes(&name, &before, &mut changes);
            let mut changed = standing(&before);
            let keys = changes.iter().map(|(entry, value)| (Entry::of(&entry.key()).unwrap(), *value));
            changed.extend(keys.collect::<Vec<_>>());
            prop_assert_eq!(changed.get(&name).cloned().unwrap_or_default(), after);
        }
    }

    #[test]
    fn ids_of_others_are_left_alone() {
        for key in ["", "jobrota.import", "jobrota.hold/x/vm1", "jobrota.hold/1", "somebody/else"] {
            assert_eq!(Entry::of(key), None, "{key}");
        }
        assert_eq!(Entry::of("jobrota.hold/3/a/b"), Some(Entry::Hold("a/b".to_owned(), 3)));
    }

    #[test]
    fn slots_are_free_when_nobody_has_them_or_their_time_is_up() {
        let vm = VmStanding { holds: BTreeMap::from([(0, 50), (1, 10)]), ..VmStanding::default() };
        assert_eq!((vm.in_flight(20), vm.free_slot(2, 20)), (1, Some(1)));
        assert_eq!((vm.in_flight(5), vm.free_slot(2, 5), vm.free_slot(3, 5)), (2, None, Some(2)));
    }
}
