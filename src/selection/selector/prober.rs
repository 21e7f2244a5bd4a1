//! Probes the VMs of a selector in the order of their turns, and caches the results.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::stream::{FuturesOrdered, StreamExt};
use tokio::time::Instant;

use crate::inventory::{Inventory, Vm};
use crate::runtime::lock;
use crate::selection::probe::{Probe, ProbeResult};
use crate::selection::schedule::{KnownResult, KnownResults};

/// How long a selection waits for the running probes before it probes the next VMs as well. A healthy VM answers sooner,
/// even across regions of a continent, so that dead VMs do not cost the whole time limit each.
const STAGGER: Duration = Duration::from_millis(50);
/// Most probes at the same time.
pub(super) const PROBED_AT_ONCE: usize = 256;

/// Probes VMs, and caches the results.
pub(super) struct Prober {
    pub(super) inventory: Inventory,
    probe: Probe,
    timeout: Duration,
    /// How long a result is valid; 0: none is kept.
    ttl: Duration,
    cache: Mutex<HashMap<String, (Instant, ProbeResult)>>,
}

impl Prober {
    pub(super) fn new(inventory: Inventory, probe: Probe, timeout: Duration, ttl: Duration) -> Self {
        Self { inventory, probe, timeout, ttl, cache: Mutex::default() }
    }

    /// The cached results that are still valid.
    pub(super) fn cached(&self) -> KnownResults {
        if self.ttl.is_zero() {
            return KnownResults::new();
        }
        let known = |result: &ProbeResult| KnownResult { result: result.clone(), fresh: false };
        let cache = lock(&self.cache);
        let valid = cache.iter().filter(|(_, (at, _))| at.elapsed() < self.ttl);
        valid.map(|(vm, (_, result))| (vm.clone(), known(result))).collect()
    }

    /// Probes `vm`.
    pub(super) async fn check(&self, vm: &Vm) -> ProbeResult {
        let result = self.probe.check(vm, self.timeout).await;
        self.store(&vm.name, &result);
        result
    }

    fn store(&self, vm: &str, result: &ProbeResult) {
        if !self.ttl.is_zero() {
            lock(&self.cache).insert(vm.to_owned(), (Instant::now(), result.clone()));
        }
    }

    /// Stores what a caller reported. A VM that works but whose address is not cached is probed by the next selection.
    pub(super) fn report(&self, vm: &str, ok: bool) {
        if !ok {
            self.store(vm, &Err("the caller reported it as failed".to_owned()));
            return;
        }
        let mut cache = lock(&self.cache);
        if let Some((_, Ok(outcome))) = cache.remove(vm) {
            cache.insert(vm.to_owned(), (Instant::now(), Ok(outcome)));
        }
    }

    /// Probes VMs of `due` that are not `known` yet, until the first `wanted` selectable ones are known, or all VMs are.
    /// `due` has the number of answers that each VM needs before it can be selected. The first in the order wins, not the
    /// first to answer. While none answers, more and more VMs are probed: one after the first wait, then twice as many
    /// after each.
    pub(super) async fn probe_due(&self, due: &[(String, u32)], wanted: usize, known: &mut KnownResults) {
        let mut found = 0;
        let mut next = 1;
        let mut waiting = due.iter();
        let mut running = FuturesOrdered::new();
        loop {
            while found + running.len() < wanted && running.len() < PROBED_AT_ONCE {
                let Some(vm) = waiting.next() else { break };
                running.push_back(self.known_or_probed(vm, known));
            }
            if running.is_empty() {
                return;
            }
            let more = !waiting.as_slice().is_empty() && running.len() < PROBED_AT_ONCE;
            tokio::select! {
                biased;
                Some((name, selectable, result)) = running.next() => {
                    found += usize::from(selectable);
                    known.insert(name, result);
                    if found >= wanted {
                        return;
                    }
                }
                () = tokio::time::sleep(STAGGER), if more => {
                    for vm in waiting.by_ref().take(next.min(PROBED_AT_ONCE - running.len())) {
                        running.push_back(self.known_or_probed(vm, known));
                    }
                    next *= 2;
                }
            }
        }
    }

    /// The result for a VM, and whether the VM can be selected.
    fn known_or_probed<'a>(
        &'a self,
        (name, needs): &(String, u32),
        known: &KnownResults,
    ) -> impl Future<Output = (String, bool, KnownResult)> + use<'a> {
        let (name, needs) = (name.clone(), *needs);
        let known = known.get(&name).cloned();
        async move {
            let known = match (known, self.inventory.get(&name)) {
                (Some(known), _) => known,
                (None, Some(vm)) => KnownResult { result: self.check(vm).await, fresh: true },
                (None, None) => KnownResult { result: Err("the inventory does not have it".to_owned()), fresh: false },
            };
            // A VM that was down may need another answer; a cached one does not count.
            let selectable = known.result.is_ok() && needs <= u32::from(known.fresh);
            (name, selectable, known)
        }
    }
}
