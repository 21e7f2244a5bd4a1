//! Selections in use: kept alive while their process lives, and given back when they are released or dropped.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::turns::microseconds;
use crate::delta::UnderWay;
use crate::error::Result;
use crate::runtime;
use crate::selection::cursor::{Cursor, Step, now};
use crate::selection::standing::{Changes, Entry, Standing};

/// How often a holder reports in the time after which it would count as gone.
const REPORTS: u32 = 3;

/// A selection in use. It counts towards `max_in_flight` until [`Hold::release`] is called or the last clone is dropped;
/// after its process died, until `hold_ttl` is over.
#[derive(Clone)]
pub struct Hold(Arc<Held>);

struct Held {
    key: Key,
    keeper: Arc<Keeper>,
}

/// A slot of a VM, and the time that it was first taken until: nobody else ever had it by this number.
type Key = (String, u32, i64);

/// Keeps the holds of one selector.
pub(super) struct Keeper {
    cursor: Cursor,
    ttl: Duration,
    live: Mutex<Live>,
    /// Held while slots are given back or prolonged, so that the number by which one knows one's slot is the true one.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Live {
    pid: u32,
    /// Until when each is ours at present.
    until: HashMap<Key, i64>,
    reporting: bool,
}

impl Hold {
    /// Gives the VM back. Once is enough; later calls do nothing.
    ///
    /// # Errors
    /// Those of writing to the shared cursor; the hold then ends by itself after `hold_ttl`.
    pub async fn release(&self) -> Result<()> {
        self.0.keeper.release(&self.0.key).await
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

impl Drop for Held {
    fn drop(&mut self) {
        if !self.keeper.lock().until.contains_key(&self.key) {
            return;
        }
        let (keeper, key, under_way) = (self.keeper.clone(), self.key.clone(), UnderWay::one());
        let work = async move {
            if let Err(error) = keeper.release(&key).await {
                tracing::warn!(vm = key.0, error = %error.full_message(), "a VM was not given back; it will be when hold_ttl is over");
            }
            drop(under_way);
        };
        if let Ok(runtime) = runtime::handle() {
            drop(runtime.spawn(work));
        }
    }
}

impl Keeper {
    pub(super) fn new(cursor: Cursor, ttl: Duration) -> Arc<Self> {
        Arc::new(Self { cursor, ttl, live: Mutex::default(), changing: tokio::sync::Mutex::default() })
    }

    /// Takes care of `slot` of `vm`, which was just taken `until` then.
    pub(super) fn keep(self: &Arc<Self>, vm: &str, slot: u32, until: i64) -> Hold {
        let key = (vm.to_owned(), slot, until);
        let mut live = self.lock();
        live.until.insert(key.clone(), until);
        if !live.reporting
            && let Ok(runtime) = runtime::handle()
        {
            live.reporting = true;
            drop(runtime.spawn(report(self.clone())));
        }
        Hold(Arc::new(Held { key, keeper: self.clone() }))
    }

    /// In a forked child, the parent's holds are not ours.
    fn lock(&self) -> MutexGuard<'_, Live> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = std::process::id();
        if live.pid != pid {
            *live = Live { pid, ..Live::default() };
        }
        live
    }

    async fn release(&self, key: &Key) -> Result<()> {
        let changing = self.changing.lock().await;
        let Some(until) = self.lock().until.remove(key) else { return Ok(()) };
        let (vm, slot) = (key.0.clone(), key.1);
        let freed = self.cursor.advance(move |standing| {
            let changes =
                if holds(standing, &vm, slot, until) { vec![(Entry::Hold(vm.clone(), slot), 0)] } else { vec![] };
            (Step { turns: Vec::new(), changes }, ())
        });
        let freed = freed.await;
        drop(changing);
        freed
    }

    /// Prolongs everything that is held. Whether anything is.
    async fn prolong(&self) -> Result<bool> {
        let changing = self.changing.lock().await;
        let held = {
            let mut live = self.lock();
            live.reporting = !live.until.is_empty();
            if !live.reporting {
                return Ok(false);
            }
            live.until.clone()
        };
        let looked_at: Vec<Key> = held.keys().cloned().collect();
        let ttl = microseconds(self.ttl);
        let prolonged = self.cursor.advance(move |standing| {
            let until = now().saturating_add(ttl);
            let ours = |(key, at): &(&Key, &i64)| holds(standing, &key.0, key.1, **at);
            let ours: Vec<Key> = held.iter().filter(ours).map(|(key, _)| key.clone()).collect();
            let changes: Changes = ours.iter().map(|(vm, slot, _)| (Entry::Hold(vm.clone(), *slot), until)).collect();
            (Step { turns: Vec::new(), changes }, (ours, until))
        });
        let (ours, until) = prolonged.await?;
        let mut live = self.lock();
        for key in looked_at {
            if ours.contains(&key) {
                live.until.insert(key, until);
            } else {
                tracing::warn!(
                    vm = key.0,
                    "a VM in use was given to others: this process was not heard of for hold_ttl"
                );
                live.until.remove(&key);
            }
        }
        drop(live);
        drop(changing);
        Ok(true)
    }
}

fn holds(standing: &Standing, vm: &str, slot: u32, until: i64) -> bool {
    standing.get(vm).and_then(|vm| vm.holds.get(&slot)) == Some(&until)
}

/// Reports that the process lives, as long as it holds anything.
async fn report(keeper: Arc<Keeper>) {
    loop {
        tokio::time::sleep(keeper.ttl / REPORTS).await;
        match keeper.prolong().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(error = %error.full_message(), "VMs in use could not be prolonged; trying again");
            }
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}
