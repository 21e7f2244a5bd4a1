//! Finding VMs that answer, in the order of their turns.

use std::time::Duration;

use futures::stream::{FuturesOrdered, StreamExt};

use super::health::Known;
use super::{Inner, milliseconds};
use crate::selection::Selection;

/// How long a VM is waited for before the next in the order is probed as well. A healthy one answers sooner, even
/// across regions of a continent; behind a dead one, nobody should wait for the whole time limit again.
const STAGGER: Duration = Duration::from_millis(50);
/// Most probes at the same time.
const PROBED_AT_ONCE: usize = 16;

/// Probes VMs of `order` that are not `known` yet, until the first `wanted` that answer are known, or all are. The
/// first in the order wins, not the first to answer.
pub(super) async fn probe(inner: &Inner, order: &[String], wanted: usize, known: &mut Known) {
    let mut healthy = 0;
    let mut waiting = order.iter();
    let mut running = FuturesOrdered::new();
    loop {
        while healthy + running.len() < wanted && running.len() < PROBED_AT_ONCE {
            let Some(name) = waiting.next() else { break };
            running.push_back(answer(inner, name, known));
        }
        if running.is_empty() {
            return;
        }
        let more = !waiting.as_slice().is_empty() && running.len() < PROBED_AT_ONCE;
        tokio::select! {
            biased;
            Some((name, answer)) = running.next() => {
                healthy += usize::from(answer.is_ok());
                known.insert(name, answer);
                if healthy >= wanted {
                    return;
                }
            }
            () = tokio::time::sleep(STAGGER), if more => {
                if let Some(name) = waiting.next() {
                    running.push_back(answer(inner, name, known));
                }
            }
        }
    }
}

fn answer<'a>(
    inner: &'a Inner,
    name: &str,
    known: &Known,
) -> impl Future<Output = (String, crate::selection::probe::Answer)> + use<'a> {
    let name = name.to_owned();
    let known = known.get(&name).cloned();
    async move {
        let answer = match (known, inner.inventory.get(&name)) {
            (Some(answer), _) => answer,
            (None, Some(vm)) => {
                let answer = inner.probe.check(vm, inner.timeout).await;
                inner.health.remember(&name, &answer);
                answer
            }
            (None, None) => Err("the inventory does not have it".to_owned()),
        };
        (name, answer)
    }
}

/// The `n` turns that `order` and `known` give: the VMs that answer, in order, again and again. None when a VM comes up
/// of which nothing is known, or when none answers.
pub(super) fn turns(order: &[String], n: usize, known: &Known) -> Option<Vec<Selection>> {
    let mut failed: Vec<(String, String)> = Vec::new();
    let mut round: Vec<Selection> = Vec::new();
    for name in order {
        match known.get(name)? {
            Err(reason) => failed.push((name.clone(), reason.clone())),
            Ok(outcome) => round.push(Selection {
                vm: name.clone(),
                ip_address: outcome.ip_address.clone(),
                nic_name: outcome.nic_name.clone(),
                probe: outcome.kind.clone(),
                rtt_ms: milliseconds(outcome.rtt),
                skipped: failed.clone(),
            }),
        }
        if round.len() == n {
            return Some(round);
        }
    }
    if round.is_empty() {
        return None;
    }
    let mut turns = round.clone();
    // From the second round on, everyone who does not answer was passed over.
    round.iter_mut().for_each(|turn| turn.skipped.clone_from(&failed));
    turns.extend(round.iter().cycle().take(n - turns.len()).cloned());
    Some(turns)
}
