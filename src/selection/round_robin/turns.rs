//! Which turns a selection takes, decided on the true standing.

use super::memory::{Known, Seen};
use super::milliseconds;
use super::rules::Rules;
use crate::selection::Selection;
use crate::selection::cursor::Step;
use crate::selection::rotation::Rotation;
use crate::selection::standing::{Changes, Entry, Standing};

/// A VM that may be selected: name and weight.
pub(super) type Candidate = (String, u32);

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// The turns, and the slot that each holds, if there are slots: its number, and until when.
    Taken(Vec<Selection>, Vec<Option<(u32, i64)>>),
    /// This VM comes up, and nothing is known of it.
    Unknown(String),
    /// Nobody can be selected: why, by VM.
    Nobody(Vec<(String, String)>),
}

/// The VMs to be probed, in the order in which they are due, and how many answers each needs before it can be selected.
pub(super) fn due(candidates: &[Candidate], rules: &Rules, standing: &Standing, now: i64) -> Vec<(String, u32)> {
    let mut rotation = rotation(candidates, standing);
    for place in &mut rotation.places {
        place.barred = place.barred.take().or_else(|| rules.full(&place.standing, now));
    }
    let places = &rotation.places;
    let due = rotation.order().into_iter();
    due.map(|at| (places[at].vm.to_owned(), rules.needs(places[at].standing.streak, now))).collect()
}

/// The `n` turns that are due, by what is `known` of the VMs: all of them or none.
pub(super) fn take(
    candidates: &[Candidate],
    rules: &Rules,
    known: &Known,
    n: usize,
    standing: &Standing,
    now: i64,
) -> (Step, Decision) {
    let mut rotation = rotation(candidates, standing);
    for place in rotation.places.iter_mut().filter(|_| rules.count()) {
        if let Some(Seen { answer, fresh: true }) = known.get(place.vm) {
            place.standing.streak = rules.observe(place.standing.streak, answer.is_ok(), now);
        }
    }
    let observed = changes(&rotation, standing);
    let mut order = rotation.order();
    let mut turns = Vec::with_capacity(n.min(1_024));
    let mut holds = Vec::with_capacity(n.min(1_024));
    while turns.len() < n {
        let (mut dead, mut passed_over) = (Vec::new(), Vec::new());
        let mut skipped: Vec<(String, String)> = Vec::new();
        let mut chosen = None;
        let mut position = 0;
        while let Some(at) = order.get(position).copied() {
            let place = &rotation.places[at];
            let full = rules.full(&place.standing, now);
            let probed = full.is_none();
            let reason = match (full, known.get(place.vm)) {
                (Some(full), _) => full,
                (None, None) => return (Step::default(), Decision::Unknown(place.vm.to_owned())),
                (None, Some(seen)) => match (&seen.answer, rules.needs(place.standing.streak, now)) {
                    (Ok(outcome), 0) => {
                        chosen = Some((at, outcome));
                        break;
                    }
                    (Ok(_), needs) => format!("answers again, but was down: {needs} more answers in a row are needed"),
                    (Err(reason), _) => reason.clone(),
                },
            };
            skipped.push((place.vm.to_owned(), reason));
            if probed {
                dead.push(at);
            }
            if rotation.is_weighted() {
                passed_over.push(at);
                order = rotation.order_without(&passed_over);
            } else {
                position += 1;
            }
        }
        let Some((at, outcome)) = chosen else {
            let barred = rotation.places.iter().filter_map(|place| Some((place.vm.to_owned(), place.barred.clone()?)));
            skipped.extend(barred);
            return (Step { turns: Vec::new(), changes: observed }, Decision::Nobody(skipped));
        };
        rotation.take(at, &dead);
        let place = &mut rotation.places[at];
        let slot = rules.max_in_flight.and_then(|most| place.standing.free_slot(most, now));
        let hold = slot.map(|slot| (slot, now.saturating_add(microseconds(rules.hold_ttl))));
        place.standing.holds.extend(hold);
        holds.push(hold);
        turns.push(Selection {
            vm: place.vm.to_owned(),
            ip_address: outcome.ip_address.clone(),
            nic_name: outcome.nic_name.clone(),
            probe: outcome.kind.clone(),
            rtt_ms: milliseconds(outcome.rtt),
            skipped,
            hold: None,
        });
        if rotation.is_weighted() {
            order = rotation.order();
        } else {
            order.remove(position);
            order.push(at);
        }
    }
    let mut changes = changes(&rotation, standing);
    changes.push((Entry::LastTicket, rotation.last_ticket()));
    (Step { turns: turns.clone(), changes }, Decision::Taken(turns, holds))
}

/// `duration` in the unit of the standing's times.
pub(super) fn microseconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn rotation<'a>(candidates: &'a [Candidate], standing: &Standing) -> Rotation<'a> {
    let mut rotation = Rotation::new(candidates.iter().map(|(vm, weight)| (vm.as_str(), *weight)), standing);
    for place in rotation.places.iter_mut().filter(|place| place.standing.drained) {
        place.barred = Some("drained: restore it to have it selected again".to_owned());
    }
    rotation
}

/// What of the rotation differs from the standing.
fn changes(rotation: &Rotation<'_>, standing: &Standing) -> Changes {
    let mut changes = Changes::new();
    for place in &rotation.places {
        match standing.get(place.vm) {
            Some(before) => place.standing.changes(place.vm, before, &mut changes),
            None => place.standing.changes(place.vm, &Default::default(), &mut changes),
        }
    }
    changes
}
