//! Finding VMs that answer, in the order of their turns.

use std::time::Duration;

use futures::stream::{FuturesOrdered, StreamExt};

use super::Inner;
use super::memory::{Known, Seen};

/// How long the VMs under way are waited for before the next in the order are probed as well. A healthy one answers sooner,
/// even across regions of a continent; behind dead ones, nobody should wait for the whole time limit again.
const STAGGER: Duration = Duration::from_millis(50);
/// Most probes at the same time.
const PROBED_AT_ONCE: usize = 256;

/// Probes VMs of `due` (with the answers that each needs before it can be selected) that are not `known` yet, until the first `wanted` that can be selected are known, or all are. The
/// first in the order wins, not the first to answer. The longer nobody answers, the more are probed: one after the first
/// wait, then twice as many after each.
pub(super) async fn probe(inner: &Inner, due: &[(String, u32)], wanted: usize, known: &mut Known) {
    let mut found = 0;
    let mut next = 1;
    let mut waiting = due.iter();
    let mut running = FuturesOrdered::new();
    loop {
        while found + running.len() < wanted && running.len() < PROBED_AT_ONCE {
            let Some(vm) = waiting.next() else { break };
            running.push_back(see(inner, vm, known));
        }
        if running.is_empty() {
            return;
        }
        let more = !waiting.as_slice().is_empty() && running.len() < PROBED_AT_ONCE;
        tokio::select! {
            biased;
            Some((name, selectable, seen)) = running.next() => {
                found += usize::from(selectable);
                known.insert(name, seen);
                if found >= wanted {
                    return;
                }
            }
            () = tokio::time::sleep(STAGGER), if more => {
                for vm in waiting.by_ref().take(next.min(PROBED_AT_ONCE - running.len())) {
                    running.push_back(see(inner, vm, known));
                }
                next *= 2;
            }
        }
    }
}

fn see<'a>(
    inner: &'a Inner,
    (name, needs): &(String, u32),
    known: &Known,
) -> impl Future<Output = (String, bool, Seen)> + use<'a> {
    let (name, needs) = (name.clone(), *needs);
    let known = known.get(&name).cloned();
    async move {
        let seen = match (known, inner.inventory.get(&name)) {
            (Some(seen), _) => seen,
            (None, Some(vm)) => {
                let answer = inner.probe.check(vm, inner.timeout).await;
                inner.memory.remember(&name, &answer);
                Seen { answer, fresh: true }
            }
            (None, None) => Seen { answer: Err("the inventory does not have it".to_owned()), fresh: false },
        };
        // A VM that was down may need another answer; one that is only remembered is none.
        let selectable = seen.answer.is_ok() && needs <= u32::from(seen.fresh);
        (name, selectable, seen)
    }
}
