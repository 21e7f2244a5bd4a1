//! Whose turn it is.
//!
//! Where all weights are alike, it is the VM that was selected longest ago, and the order of the list decides among equals.
//! A VM that was skipped keeps its ticket and is first again when it is back, for exactly one turn.
//!
//! Where weights differ, turns are spread as nginx spreads them by its smooth weighted round robin: the turn goes to whom
//! the most is owed, so that weights of 5, 1 and 1 give a a b a c a a. What is owed is reckoned differently, though, as
//! nginx's way (with each turn everyone present gains its weight, and the chosen one gives up the weight of all) charges a
//! turn by who was thought to be there, and favours one VM over another when a third one comes and goes. Here each turn
//! costs the chosen VM one turn by its weight, its *pass*, whoever else is there; the sum of the passes by weight says
//! what the others are owed. For a list in which all answer, both are the same.

use std::cmp::Reverse;

use super::standing::{Standing, VmStanding};

/// The pass of one turn at weight 1: a multiple of all weights up to 24, for which the passes are exact.
const TURN: i64 = 5_354_228_880;

/// One VM of a list, and what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    pub(super) vm: &'a str,
    pub(super) weight: u32,
    pub(super) standing: VmStanding,
    /// Why it cannot be selected, whatever its probe says.
    pub(super) barred: Option<String>,
}

/// The VMs of a list. Positions in it are what the functions below give and take.
#[derive(Debug, Clone)]
pub(super) struct Rotation<'a> {
    pub(super) places: Vec<Place<'a>>,
    weighted: bool,
    last_ticket: i64,
}

impl<'a> Rotation<'a> {
    pub(super) fn new(list: impl IntoIterator<Item = (&'a str, u32)>, standing: &Standing) -> Self {
        let places: Vec<Place<'a>> = list
            .into_iter()
            .map(|(vm, weight)| {
                let standing = standing.get(vm).cloned().unwrap_or_default();
                Place { vm, weight, standing, barred: None }
            })
            .collect();
        let weighted = places.windows(2).any(|pair| pair[0].weight != pair[1].weight);
        Self { places, weighted, last_ticket: standing.last_ticket }
    }

    /// Who is due, first to last; without those that are barred.
    pub(super) fn order(&self) -> Vec<usize> {
        self.order_without(&[])
    }

    /// Who is due when those at `dead` do not answer: of different weights, it also matters who shares the turns.
    pub(super) fn order_without(&self, dead: &[usize]) -> Vec<usize> {
        let takes_part = |at: &usize| self.places[*at].barred.is_none() && !dead.contains(at);
        let mut order: Vec<usize> = (0..self.places.len()).filter(takes_part).collect();
        // The sorts are stable: the order of the list decides among equals.
        if self.weighted {
            let passes = self.passes();
            let weight = |at: usize| i128::from(self.places[at].weight);
            let pass = |at: usize| i128::from(passes[at]);
            let all: i128 = order.iter().map(|at| weight(*at)).sum();
            let had: i128 = order.iter().map(|at| weight(*at) * pass(*at)).sum();
            // What a VM is owed with the next turn, times the weight of all.
            order.sort_by_cached_key(|at| Reverse(weight(*at) * (had + i128::from(TURN) - all * pass(*at))));
        } else {
            order.sort_by_key(|at| self.places[*at].standing.ticket); // None, never selected, comes first
        }
        order
    }

    /// Gives the turn to the VM at `chosen`, when those at `dead` were due before it and do not answer. They are owed
    /// nothing any more.
    pub(super) fn take(&mut self, chosen: usize, dead: &[usize]) {
        if self.weighted {
            let passes = self.passes();
            for (at, place) in self.places.iter_mut().enumerate() {
                place.standing.pass = (!dead.contains(&at)).then(|| place.standing.pass.unwrap_or(passes[at]));
            }
            self.places[chosen].standing.pass = Some(passes[chosen].saturating_add(self.turn_of(chosen)));
        }
        self.last_ticket += 1;
        self.places[chosen].standing.ticket = Some(self.last_ticket);
    }

    /// Whether weights differ, so that each turn changes the order of all.
    pub(super) fn is_weighted(&self) -> bool {
        self.weighted
    }

    /// The number of the last turn.
    pub(super) fn last_ticket(&self) -> i64 {
        self.last_ticket
    }

    /// What one turn costs the VM at `at`.
    fn turn_of(&self, at: usize) -> i64 {
        TURN / i64::from(self.places[at].weight.max(1))
    }

    /// The passes to go by. Those who take part all the time are never further apart than one turn each; who was away is owed
    /// no more than that either, and who is new or was dead begins with the others: nobody has a burst of turns.
    fn passes(&self) -> Vec<i64> {
        let known = |at: usize| self.places[at].standing.pass;
        let ahead = (0..self.places.len()).filter_map(|at| Some(known(at)?.saturating_sub(self.turn_of(at)))).max();
        (0..self.places.len())
            .map(|at| match (known(at), ahead) {
                (Some(pass), Some(ahead)) => pass.max(ahead.saturating_sub(self.turn_of(at))),
                (None, Some(ahead)) => ahead,
                (_, None) => 0,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Takes `turns` turns over `list`, by the VMs that `up` says are up at that turn.
    fn play(
        list: &[(&str, u32)],
        standing: &mut Standing,
        turns: usize,
        up: impl Fn(usize, &str) -> bool,
    ) -> Vec<String> {
        let mut taken = Vec::new();
        for turn in 0..turns {
            let mut rotation = Rotation::new(list.iter().copied(), standing);
            let before = rotation.places.clone();
            let mut dead = Vec::new();
            while let Some(at) = rotation.order_without(&dead).first().copied() {
                if up(turn, list[at].0) {
                    rotation.take(at, &dead);
                    taken.push(list[at].0.to_owned());
                    break;
                }
                dead.push(at);
            }
            let mut changes = Vec::new();
            for (place, before) in rotation.places.iter().zip(&before) {
                place.standing.changes(place.vm, &before.standing, &mut changes);
            }
            standing.extend(changes);
            standing.last_ticket = rotation.last_ticket();
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
        let order = |list: &[(&str, u32)], turns| play(list, &mut Standing::default(), turns, |_, _| true).join("");
        assert_eq!(order(&[("a", 5), ("b", 1), ("c", 1)], 14), "aabacaaaabacaa");
        assert_eq!(order(&[("a", 3), ("b", 2), ("c", 1)], 6), "abacba");
        assert_eq!(order(&[("a", 1), ("b", 2)], 6), "babbab");
        assert_eq!(order(&[("a", 7), ("b", 7)], 4), "abab");
    }

    #[test]
    fn a_dead_vms_turns_are_shared_out_and_it_has_no_burst_when_it_is_back() {
        let list = [("a", 2), ("b", 1), ("c", 1)];
        let mut standing = Standing::default();
        let away = play(&list, &mut standing, 300, |_, vm| vm != "b");
        let away = counts(&away);
        assert!((199..=201).contains(&away["a"]) && (99..=101).contains(&away["c"]), "{away:?}");
        let back = play(&list, &mut standing, 8, |_, _| true);
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
            prop_assert_eq!(play(&list, &mut Standing::default(), expected.len(), |_, _| true), expected);
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
            let taken = play(&list, &mut Standing::default(), TURNS, up);
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
