//! Selections in use: renewed while their process lives, and released when they are no longer needed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::error::Result;
use crate::runtime::{self, InFlight, lock};
use crate::selection::cursor::{Cursor, Step, now};
use crate::selection::schedule::microseconds;
use crate::selection::state::{Changes, SelectionState, StateKey};

/// How often a holder renews its slots before they would expire.
const RENEWALS: u32 = 3;

/// A selection in use. It counts towards `max_in_flight` until [`Hold::release`] is called or the last clone is dropped;
/// after its process died, until `hold_ttl` is over.
#[derive(Clone)]
pub struct Hold(Arc<HoldGuard>);

/// Releases the slot when it is dropped.
struct HoldGuard {
    key: HoldKey,
    registry: Arc<HoldRegistry>,
}

/// The VM, the slot, and when the slot would first have expired. No other holder had the slot with this number.
type HoldKey = (String, u32, i64);

/// The holds of one selector.
pub(super) struct HoldRegistry {
    cursor: Cursor,
    ttl: Duration,
    live: Mutex<LiveHolds>,
    /// Locked while slots are released or renewed, so that the number that identifies a slot is the newest.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct LiveHolds {
    pid: u32,
    /// When each expires now.
    until: HashMap<HoldKey, i64>,
    renewing: bool,
}

impl Hold {
    /// Releases the VM. Later calls do nothing.
    ///
    /// # Errors
    /// Those of writing to the shared cursor; the hold then expires after `hold_ttl`.
    pub async fn release(&self) -> Result<()> {
        self.0.registry.release(&self.0.key).await
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vm, slot, _) = &self.0.key;
        f.debug_struct("Hold").field("vm", vm).field("slot", slot).finish_non_exhaustive()
    }
}

impl PartialEq for Hold {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Drop for HoldGuard {
    fn drop(&mut self) {
        if !self.registry.lock().until.contains_key(&self.key) {
            return;
        }
        let (registry, key, in_flight) = (self.registry.clone(), self.key.clone(), InFlight::begin());
        let work = async move {
            if let Err(error) = registry.release(&key).await {
                tracing::warn!(vm = key.0, error = %error.full_message(), "a VM was not released: it counts as in use until hold_ttl is over");
            }
            drop(in_flight);
        };
        if let Ok(runtime) = runtime::handle() {
            drop(runtime.spawn(work));
        }
    }
}

impl HoldRegistry {
    pub(super) fn new(cursor: Cursor, ttl: Duration) -> Arc<Self> {
        Arc::new(Self { cursor, ttl, live: Mutex::default(), changing: tokio::sync::Mutex::default() })
    }

    /// Adds `slot` of `vm`, which expires at `until`.
    pub(super) fn add(self: &Arc<Self>, vm: &str, slot: u32, until: i64) -> Hold {
        let key = (vm.to_owned(), slot, until);
        let mut live = self.lock();
        live.until.insert(key.clone(), until);
        if !live.renewing
            && let Ok(runtime) = runtime::handle()
        {
            live.renewing = true;
            drop(runtime.spawn(renew_all(self.clone())));
        }
        Hold(Arc::new(HoldGuard { key, registry: self.clone() }))
    }

    /// The live holds. A forked child does not own those of its parent.
    fn lock(&self) -> MutexGuard<'_, LiveHolds> {
        let mut live = lock(&self.live);
        let pid = std::process::id();
        if live.pid != pid {
            *live = LiveHolds { pid, ..LiveHolds::default() };
        }
        live
    }

    async fn release(&self, key: &HoldKey) -> Result<()> {
        let _changing = self.changing.lock().await;
        let Some(until) = self.lock().until.remove(key) else { return Ok(()) };
        let (vm, slot) = (key.0.clone(), key.1);
        let released = self.cursor.advance(move |state| {
            let change = holds(state, &vm, slot, until).then(|| (StateKey::Hold(vm.clone(), slot), 0));
            (Step::of(change.into_iter().collect()), ())
        });
        released.await
    }

    /// Renews all live holds. Returns whether there are any.
    async fn renew(&self) -> Result<bool> {
        let _changing = self.changing.lock().await;
        let held = {
            let mut live = self.lock();
            live.renewing = !live.until.is_empty();
            if !live.renewing {
                return Ok(false);
            }
            live.until.clone()
        };
        let looked_at: Vec<HoldKey> = held.keys().cloned().collect();
        let ttl = microseconds(self.ttl);
        let renewed = self.cursor.advance(move |state| {
            let until = now().saturating_add(ttl);
            let ours = |(key, at): &(&HoldKey, &i64)| holds(state, &key.0, key.1, **at);
            let ours: Vec<HoldKey> = held.iter().filter(ours).map(|(key, _)| key.clone()).collect();
            let changes: Changes =
                ours.iter().map(|(vm, slot, _)| (StateKey::Hold(vm.clone(), *slot), until)).collect();
            (Step::of(changes), (ours, until))
        });
        let (ours, until) = renewed.await?;
        let mut live = self.lock();
        for key in looked_at {
            if ours.contains(&key) {
                live.until.insert(key, until);
            } else {
                tracing::warn!(
                    vm = key.0,
                    "a VM in use may have been selected again: this process did not renew it within hold_ttl"
                );
                live.until.remove(&key);
            }
        }
        Ok(true)
    }
}

fn holds(state: &SelectionState, vm: &str, slot: u32, until: i64) -> bool {
    state.get(vm).and_then(|vm| vm.holds.get(&slot)) == Some(&until)
}

/// Renews the holds of a registry for as long as there are any.
async fn renew_all(registry: Arc<HoldRegistry>) {
    loop {
        tokio::time::sleep(registry.ttl / RENEWALS).await;
        match registry.renew().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(error = %error.full_message(), "VMs in use could not be renewed; trying again")
            }
        }
    }
}
