//! Whose turn it is, and which turns a selection takes.
//!
//! Where all weights are alike, the turn goes to the VM that was selected longest ago; the order of the list decides among
//! equals. A VM that was skipped keeps its ticket, and is first again once it answers, for one turn.
//!
//! Where weights differ, turns are spread as in the smooth weighted round robin of nginx: weights of 5, 1 and 1 give
//! a a b a c a a. nginx adds to the credit of every present VM with each turn. This schedule charges the selected VM
//! alone: its *pass* grows by one turn divided by its weight, whichever other VMs are present. So a VM that comes and
//! goes does not favour one of the others. For a list in which all VMs answer, both give the same order.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use super::Selection;
use super::cursor::Step;
use super::probe::ProbeResult;
use super::state::{Changes, SelectionRules, SelectionState, StateKey, VmState};

/// The pass of one turn at weight 1: a multiple of all weights up to 24, for which the passes are exact.
const TURN: i64 = 5_354_228_880;

/// A VM that may be selected: name and weight.
pub(super) type Candidate = (String, u32);

/// A probe result that a selection uses.
#[derive(Debug, Clone)]
pub(super) struct KnownResult {
    pub(super) result: ProbeResult,
    /// Whether it was probed for this selection, so that it counts towards health; otherwise it comes from the cache.
    pub(super) fresh: bool,
}

/// The probe results that a selection uses, by VM.
pub(super) type KnownResults = HashMap<String, KnownResult>;

/// What a selection decides.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// The turns. With slots, also the number of each turn's slot and when it expires.
    Taken(Vec<Selection>, Vec<Option<(u32, i64)>>),
    /// This VM is due, and has no probe result yet.
    NeedsProbe(String),
    /// No VM can be selected: the reason for each.
    NoneSelectable(Vec<(String, String)>),
}

/// The VMs to probe, in the order in which they are due, and how many answers each needs before it can be selected.
pub(super) fn due(
    candidates: &[Candidate],
    rules: &SelectionRules,
    state: &SelectionState,
    now: i64,
) -> Vec<(String, u32)> {
    let mut schedule = Schedule::new(candidates, state);
    for vm in &mut schedule.vms {
        vm.barred = vm.barred.take().or_else(|| rules.full(&vm.state, now));
    }
    let due = schedule.order(&[]).into_iter().map(|at| &schedule.vms[at]);
    due.map(|vm| (vm.name.to_owned(), rules.needs(vm.state.streak, now))).collect()
}

/// The `n` turns that are due, given the probe results: all of them or none.
pub(super) fn take(
    candidates: &[Candidate],
    rules: &SelectionRules,
    known: &KnownResults,
    n: usize,
    state: &SelectionState,
    now: i64,
) -> (Step, Decision) {
    let mut schedule = Schedule::new(candidates, state);
    for vm in schedule.vms.iter_mut().filter(|_| rules.use_history()) {
        if let Some(KnownResult { result, fresh: true }) = known.get(vm.name) {
            vm.state.streak = rules.observe(vm.state.streak, result.is_ok(), now);
        }
    }
    let observed = schedule.changes(state);
    let mut order = schedule.order(&[]);
    let mut turns = Vec::with_capacity(n.min(1_024));
    let mut holds = Vec::with_capacity(n.min(1_024));
    while turns.len() < n {
        let (mut dead, mut passed_over) = (Vec::new(), Vec::new());
        let mut skipped: Vec<(String, String)> = Vec::new();
        let mut chosen = None;
        let mut position = 0;
        while let Some(at) = order.get(position).copied() {
            let vm = &schedule.vms[at];
            let full = rules.full(&vm.state, now);
            let probed = full.is_none();
            let reason = match (full, known.get(vm.name)) {
                (Some(full), _) => full,
                (None, None) => return (Step::default(), Decision::NeedsProbe(vm.name.to_owned())),
                (None, Some(known)) => match (&known.result, rules.needs(vm.state.streak, now)) {
                    (Ok(outcome), 0) => {
                        chosen = Some((at, outcome));
                        break;
                    }
                    (Ok(_), needs) => format!("answers again, but was down: {needs} more answers in a row are needed"),
                    (Err(reason), _) => reason.clone(),
                },
            };
            skipped.push((vm.name.to_owned(), reason));
            if probed {
                dead.push(at);
            }
            if schedule.weighted {
                passed_over.push(at);
                order = schedule.order(&passed_over);
            } else {
                position += 1;
            }
        }
        let Some((at, outcome)) = chosen else {
            let barred = schedule.vms.iter().filter_map(|vm| Some((vm.name.to_owned(), vm.barred.clone()?)));
            skipped.extend(barred);
            return (Step { turns: Vec::new(), changes: observed }, Decision::NoneSelectable(skipped));
        };
        schedule.take(at, &dead);
        let vm = &mut schedule.vms[at];
        let slot = rules.max_in_flight.and_then(|most| vm.state.free_slot(most, now));
        let hold = slot.map(|slot| (slot, now.saturating_add(microseconds(rules.hold_ttl))));
        vm.state.holds.extend(hold);
        holds.push(hold);
        turns.push(Selection {
            vm: vm.name.to_owned(),
            ip_address: outcome.ip_address.clone(),
            nic_name: outcome.nic_name.clone(),
            probe: outcome.kind.clone(),
            rtt_ms: outcome.rtt.as_secs_f64() * 1e3,
            skipped,
            hold: None,
        });
        if schedule.weighted {
            order = schedule.order(&[]);
        } else {
            order.remove(position);
            order.push(at);
        }
    }
    let mut changes = schedule.changes(state);
    changes.push((StateKey::LastTicket, schedule.last_ticket));
    (Step { turns: turns.clone(), changes }, Decision::Taken(turns, holds))
}

/// `duration` in the unit of the state's times.
pub(super) fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// One VM of a list, and its state.
#[derive(Debug, Clone)]
struct ScheduledVm<'a> {
    name: &'a str,
    weight: u32,
    state: VmState,
    /// Why it cannot be selected, whatever its probe finds.
    barred: Option<String>,
}

/// The VMs of a list. The functions below take and return positions in it.
#[derive(Debug, Clone)]
struct Schedule<'a> {
    vms: Vec<ScheduledVm<'a>>,
    /// Whether weights differ, so that each turn changes the order of all VMs.
    weighted: bool,
    last_ticket: i64,
}

impl<'a> Schedule<'a> {
    fn new(candidates: &'a [Candidate], state: &SelectionState) -> Self {
        let vm = |(name, weight): &'a Candidate| {
            let state = state.get(name).cloned().unwrap_or_default();
            let drained = || "drained: restore it to have it selected again".to_owned();
            ScheduledVm { name, weight: *weight, barred: state.drained.then(drained), state }
        };
        let vms: Vec<ScheduledVm<'a>> = candidates.iter().map(vm).collect();
        let weighted = vms.windows(2).any(|pair| pair[0].weight != pair[1].weight);
        Self { vms, weighted, last_ticket: state.last_ticket }
    }

    /// The VMs that are not barred, in the order in which they are due when those at `dead` do not answer. Where weights
    /// differ, it also depends on which VMs share the turns.
    fn order(&self, dead: &[usize]) -> Vec<usize> {
        let takes_part = |at: &usize| self.vms[*at].barred.is_none() && !dead.contains(at);
        let mut order: Vec<usize> = (0..self.vms.len()).filter(takes_part).collect();
        // The sorts are stable: the order of the list decides among equals.
        if self.weighted {
            let passes = self.passes();
            let weight = |at: usize| i128::from(self.vms[at].weight);
            let pass = |at: usize| i128::from(passes[at]);
            let all: i128 = order.iter().map(|at| weight(*at)).sum();
            let had: i128 = order.iter().map(|at| weight(*at) * pass(*at)).sum();
            // The credit of a VM with the next turn, times the sum of all weights.
            order.sort_by_cached_key(|at| Reverse(weight(*at) * (had + i128::from(TURN) - all * pass(*at))));
        } else {
            order.sort_by_key(|at| self.vms[*at].state.ticket); // None, never selected, comes first
        }
        order
    }

    /// Gives the turn to the VM at `chosen`, when those at `dead` were due before it and do not answer. These lose their
    /// credit.
    fn take(&mut self, chosen: usize, dead: &[usize]) {
        if self.weighted {
            let passes = self.passes();
            for (at, vm) in self.vms.iter_mut().enumerate() {
                vm.state.pass = (!dead.contains(&at)).then(|| vm.state.pass.unwrap_or(passes[at]));
            }
            self.vms[chosen].state.pass = Some(passes[chosen].saturating_add(self.turn_of(chosen)));
        }
        self.last_ticket += 1;
        self.vms[chosen].state.ticket = Some(self.last_ticket);
    }

    /// The pass of one turn of the VM at `at`.
    fn turn_of(&self, at: usize) -> i64 {
        TURN / i64::from(self.vms[at].weight.max(1))
    }

    /// The passes that decide. VMs that always take part are at most one turn each apart. A VM that was away has no more
    /// credit than that, and one that is new or was dead starts level with the others, so that no VM makes up for all the turns
    /// that it missed.
    fn passes(&self) -> Vec<i64> {
        let known = |at: usize| self.vms[at].state.pass;
        let ahead = (0..self.vms.len()).filter_map(|at| Some(known(at)?.saturating_sub(self.turn_of(at)))).max();
        (0..self.vms.len())
            .map(|at| match (known(at), ahead) {
                (Some(pass), Some(ahead)) => pass.max(ahead.saturating_sub(self.turn_of(at))),
                (None, Some(ahead)) => ahead,
                (_, None) => 0,
            })
            .collect()
    }

    /// How the schedule differs from `state`.
    fn changes(&self, state: &SelectionState) -> Changes {
        let (mut changes, unknown) = (Changes::new(), VmState::default());
        for vm in &self.vms {
            vm.state.changes(vm.name, state.get(vm.name).unwrap_or(&unknown), &mut changes);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes `turns` turns over `list`, by the VMs that `up` says are up at that turn.
    fn play(
        list: &[(&str, u32)],
        state: &mut SelectionState,
        turns: usize,
        up: impl Fn(usize, &str) -> bool,
    ) -> Vec<String> {
        let candidates: Vec<Candidate> = list.iter().map(|(vm, weight)| ((*vm).to_owned(), *weight)).collect();
        let mut taken = Vec::new();
        for turn in 0..turns {
            let mut schedule = Schedule::new(&candidates, state);
            let before = schedule.vms.clone();
            let mut dead = Vec::new();
            while let Some(at) = schedule.order(&dead).first().copied() {
                if up(turn, list[at].0) {
                    schedule.take(at, &dead);
                    taken.push(list[at].0.to_owned());
                    break;
                }
                dead.push(at);
            }
            let mut changes = Vec::new();
            for (vm, before) in schedule.vms.iter().zip(&before) {
                vm.state.changes(vm.name, &before.state, &mut changes);
            }
            state.apply(changes);
            state.last_ticket = schedule.last_ticket;
        }
        taken
    }

    fn counts(taken: &[String]) -> HashMap<&str, usize> {
        let mut counts = HashMap::new();
        taken.iter().for_each(|vm| *counts.entry(vm.as_str()).or_default() += 1);
        counts
    }

    #[test]
    fn weights_are_spread_as_nginx_spreads_them() {
        let order =
            |list: &[(&str, u32)], turns| play(list, &mut SelectionState::default(), turns, |_, _| true).join("");
        assert_eq!(order(&[("a", 5), ("b", 1), ("c", 1)], 14), "aabacaaaabacaa");
        assert_eq!(order(&[("a", 3), ("b", 2), ("c", 1)], 6), "abacba");
        assert_eq!(order(&[("a", 1), ("b", 2)], 6), "babbab");
        assert_eq!(order(&[("a", 7), ("b", 7)], 4), "abab");
    }

    #[test]
    fn a_dead_vms_turns_are_shared_out_and_it_has_no_burst_when_it_is_back() {
        let list = [("a", 2), ("b", 1), ("c", 1)];
        let mut state = SelectionState::default();
        let away = play(&list, &mut state, 300, |_, vm| vm != "b");
        let away = counts(&away);
        assert!((199..=201).contains(&away["a"]) && (99..=101).contains(&away["c"]), "{away:?}");
        let back = play(&list, &mut state, 8, |_, _| true);
        assert!((1..=3).contains(&counts(&back)["b"]), "{back:?}");
        assert!(!back.join("").contains("bb"), "{back:?}");
    }

    proptest! {
        #[test]
        fn a_list_of_constant_weights_is_nginxs(weights in prop::collection::vec(1u32..9, 2..6)) {
            prop_assume!(weights.windows(2).any(|pair| pair[0] != pair[1]));
            let names = ["a", "b", "c", "d", "e"];
            let list: Vec<(&str, u32)> = names.into_iter().zip(weights.iter().copied()).collect();
            let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
            let mut current = vec![0i64; weights.len()];
            let expected: Vec<String> = (0..2 * total).map(|_| {
                for (current, weight) in current.iter_mut().zip(&weights) {
                    *current += i64::from(*weight);
                }
                let most = *current.iter().max().unwrap();
                let best = current.iter().position(|value| *value == most).unwrap();
                current[best] -= total;
                names[best].to_owned()
            }).collect();
            prop_assert_eq!(play(&list, &mut SelectionState::default(), expected.len(), |_, _| true), expected);
        }

        #[test]
        fn shares_are_kept_while_vms_come_and_go(
            weights in prop::collection::vec(1u32..6, 3..6),
            flapping in 0usize..3,
            period in 1usize..40,
            seed in any::<u64>(),
        ) {
            prop_assume!(weights.windows(2).any(|pair| pair[0] != pair[1]));
            let names = ["a", "b", "c", "d", "e"];
            let list: Vec<(&str, u32)> = names.into_iter().zip(weights.iter().copied()).collect();
            let up = |turn: usize, vm: &str| {
                vm != names[flapping] || ((turn as u64 / period as u64) ^ seed).is_multiple_of(2)
            };
            const TURNS: usize = 1_000;
            let taken = play(&list, &mut SelectionState::default(), TURNS, up);
            let counts = counts(&taken);
            // The others share what the flapping one leaves by their weights.
            let rest: u32 = weights.iter().enumerate().filter(|(at, _)| *at != flapping).map(|(_, w)| *w).sum();
            let left = TURNS - counts.get(names[flapping]).copied().unwrap_or(0);
            for (at, (vm, weight)) in list.iter().enumerate().filter(|(at, _)| *at != flapping) {
                let due = left as f64 * f64::from(*weight) / f64::from(rest);
                let had = counts.get(vm).copied().unwrap_or(0) as f64;
                let slack = 3.0;
                prop_assert!((had - due).abs() <= slack, "{at} {vm}: {had} of {due}, {counts:?}");
            }
        }
    }
}
