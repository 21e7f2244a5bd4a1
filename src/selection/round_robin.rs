//! The selector: probes the VMs whose turn it is and takes the turn for the first that answers.

mod health;
mod options;
mod search;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt};

use self::health::{Health, Known};
pub use self::options::{CursorKind, SelectorOptions};
use super::Selection;
use super::cursor::Cursor;
use super::probe::Probe;
use crate::error::{Error, ErrorKind, Result};
use crate::inventory::{Inventory, Vm};

/// VMs that [`RoundRobinSelector::check`] probes at the same time.
const CHECKED_AT_ONCE: usize = 64;
/// Most turns that one commit takes.
const MAX_TURNS: usize = 100_000;
/// Reasons that the text of an error repeats; the error itself has them all.
const REASONS_IN_TEXT: usize = 10;

/// What [`RoundRobinSelector::check`] found out about one VM.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckRow {
    /// Name of the VM.
    pub vm: String,
    /// The address that answered, else the inventory's; None while only the VM's name is known.
    pub ip_address: Option<String>,
    /// The Azure network interface, where known.
    pub nic_name: Option<String>,
    /// Whether it answered.
    pub reachable: bool,
    /// The kind of probe that was answered.
    pub probe: Option<String>,
    /// How long the answer took, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Why it counts as unreachable.
    pub reason: Option<String>,
}

/// How often one VM was selected.
#[derive(Debug, Clone, PartialEq)]
pub struct DistributionRow {
    /// Name of the VM.
    pub vm: String,
    /// Its number of turns.
    pub selections: u64,
    /// Its part of all turns of this inventory's VMs, 0 to 1; 0 when there were none.
    pub share: f64,
    /// Its last turn.
    pub last_selected: Option<DateTime<Utc>>,
}

/// Selects reachable VMs in round-robin order: always the one that was selected longest ago and answers its probe.
/// Cheap to clone; clones share cursor and health. Safe to use from many threads and tasks at once.
#[derive(Debug, Clone)]
pub struct RoundRobinSelector {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    inventory: Inventory,
    /// Names in the order that decides among VMs selected equally long ago.
    names: Vec<String>,
    cursor: Cursor,
    probe: Probe,
    timeout: Duration,
    health: Health,
}

impl Inner {
    /// Probes `vm` for [`RoundRobinSelector::check`].
    async fn checked(&self, vm: Vm) -> CheckRow {
        let answer = self.probe.check(&vm, self.timeout).await;
        self.health.remember(&vm.name, &answer);
        match answer {
            Ok(outcome) => CheckRow {
                vm: vm.name,
                ip_address: Some(outcome.ip_address),
                nic_name: outcome.nic_name,
                reachable: true,
                probe: Some(outcome.kind),
                rtt_ms: Some(milliseconds(outcome.rtt)),
                reason: None,
            },
            Err(reason) => CheckRow {
                ip_address: known_address(&vm),
                vm: vm.name,
                nic_name: vm.nic_name,
                reachable: false,
                probe: None,
                rtt_ms: None,
                reason: Some(reason),
            },
        }
    }
}

impl RoundRobinSelector {
    /// A selector over `inventory`. Nothing is probed or written before the first selection.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a timeout of 0 or above an hour and for a root that is none;
    /// [`ErrorKind::Unsupported`] for weights other than 1, which this version does not have; those of [`crate::storage::Storage::open`] for a shared cursor. A retry does not help.
    pub fn new(inventory: Inventory, options: SelectorOptions) -> Result<Self> {
        options.check(&inventory)?;
        let cursor = match &options.cursor {
            CursorKind::Process => Cursor::process(),
            CursorKind::Shared(root) => Cursor::shared(root, &options.storage_options)?,
        };
        let mut names: Vec<String> = inventory.vms().iter().map(|vm| vm.name.clone()).collect();
        if options.random_start {
            let start = rand::random_range(0..names.len());
            names.rotate_left(start);
        }
        let health = Health::new(options.health_ttl);
        Ok(Self {
            inner: Arc::new(Inner { inventory, names, cursor, probe: options.probe, timeout: options.timeout, health }),
        })
    }

    /// The VMs that this selector chooses from.
    pub fn inventory(&self) -> &Inventory {
        &self.inner.inventory
    }

    /// Takes the next turn: the VM selected longest ago that answers, not counting those named in `exclude`. VMs that
    /// do not answer keep their place, and `skipped` says why. With a shared cursor, the turn is on record when this
    /// returns.
    ///
    /// # Errors
    /// [`ErrorKind::NoReachableVm`], retryable, when no VM answered, with the reason per VM;
    /// [`ErrorKind::InvalidInput`] when `exclude` names every VM or one that is unknown; with a shared cursor also
    /// those of [`crate::delta::Table::open_or_create`] and [`crate::delta::Table::append_guarded`].
    pub async fn select(&self, exclude: &[String]) -> Result<Selection> {
        let mut turns = self.turns(1, exclude).await?;
        turns.pop().ok_or_else(|| Error::new(ErrorKind::Internal, "a turn was taken, but for no VM"))
    }

    /// Takes `n` turns in one step: with a shared cursor, one commit. VMs come up again once all that answer had
    /// their turn. No turns for 0.
    ///
    /// # Errors
    /// Those of [`RoundRobinSelector::select`], and [`ErrorKind::InvalidInput`] for more than 100,000 turns.
    pub async fn select_many(&self, n: usize) -> Result<Vec<Selection>> {
        if n > MAX_TURNS {
            return Err(Error::invalid(format!(
                "{n} turns are too many for one step: take at most {MAX_TURNS} at a time"
            )));
        }
        if n == 0 {
            return Ok(Vec::new());
        }
        self.turns(n, &[]).await
    }

    /// Tells what the caller experienced with a VM; it counts as a probe, and so for as long as health is remembered
    /// (`health_ttl`; not at all when that is 0, as every selection then probes anew).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the inventory has no such VM.
    pub fn report(&self, vm: &str, ok: bool) -> Result<()> {
        self.known_vm(vm)?;
        self.inner.health.report(vm, ok);
        Ok(())
    }

    /// Probes all VMs, many at a time, and takes no turn. One row per VM, in inventory order.
    pub async fn check(&self) -> Vec<CheckRow> {
        // Everything is owned: a future that borrows through a closure cannot be sent to another thread.
        let rows = stream::iter(self.inner.inventory.vms().to_vec()).map(|vm| {
            let inner = self.inner.clone();
            async move { inner.checked(vm).await }
        });
        rows.buffered(CHECKED_AT_ONCE).collect().await
    }

    /// How often each VM of the inventory was selected at or after `since` (None: ever), by everyone
    /// who shares the cursor. One row per VM, in inventory order.
    ///
    /// # Errors
    /// Those of reading the shared table; without one, [`ErrorKind::InvalidInput`] for a `since` before the last
    /// 100,000 turns, which are all that is remembered.
    pub async fn distribution(&self, since: Option<DateTime<Utc>>) -> Result<Vec<DistributionRow>> {
        let counts = self.inner.cursor.counts(since.map(|since| since.timestamp_micros())).await?;
        let count = |vm: &Vm| counts.get(&vm.name).cloned().unwrap_or_default();
        let vms = self.inner.inventory.vms();
        let total: u64 = vms.iter().map(|vm| count(vm).selections).sum();
        Ok(vms
            .iter()
            .map(|vm| {
                let count = count(vm);
                let share = if total == 0 { 0.0 } else { count.selections as f64 / total as f64 };
                DistributionRow {
                    vm: vm.name.clone(),
                    selections: count.selections,
                    share,
                    last_selected: count.last_selected.and_then(DateTime::from_timestamp_micros),
                }
            })
            .collect())
    }

    /// Taking a VM out of rotation for everyone who shares the cursor is not there yet.
    ///
    /// # Errors
    /// Always [`ErrorKind::Unsupported`], or [`ErrorKind::InvalidInput`] when the inventory has no such VM.
    pub fn drain(&self, vm: &str) -> Result<()> {
        self.known_vm(vm)?;
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "this version of jobrota cannot drain VM \"{vm}\": leave it out of the inventory, or name it in exclude"
            ),
        ))
    }

    /// The opposite of [`RoundRobinSelector::drain`], and not there yet either.
    ///
    /// # Errors
    /// Always [`ErrorKind::Unsupported`], or [`ErrorKind::InvalidInput`] when the inventory has no such VM.
    pub fn restore(&self, vm: &str) -> Result<()> {
        self.known_vm(vm)?;
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "this version of jobrota cannot drain VMs, and so not restore VM \"{vm}\": it is selected as long as the inventory has it"
            ),
        ))
    }

    fn known_vm(&self, name: &str) -> Result<&Vm> {
        self.inner.inventory.get(name).ok_or_else(|| Error::invalid(format!("the inventory has no VM \"{name}\"")))
    }

    async fn turns(&self, n: usize, exclude: &[String]) -> Result<Vec<Selection>> {
        let inner = &self.inner;
        exclude.iter().try_for_each(|vm| self.known_vm(vm).map(drop))?;
        let names: Arc<[String]> = inner.names.iter().filter(|name| !exclude.contains(*name)).cloned().collect();
        if names.is_empty() {
            return Err(Error::invalid("every VM of the inventory is excluded: leave at least one to select"));
        }
        let mut known: Known = inner.health.recall();
        let mut recalled = !known.is_empty();
        loop {
            let order = inner.cursor.order(&names).await?;
            search::probe(inner, &order, n, &mut known).await;
            if names.iter().all(|name| matches!(known.get(name), Some(Err(_)))) {
                if recalled {
                    // Before everything is given up, what is only remembered is looked at again.
                    known.clear();
                    recalled = false;
                    continue;
                }
                return Err(no_reachable_vm(&inner.inventory, exclude, &known));
            }
            // Decided on the true order: where another process was faster and a VM not probed yet comes first, go back
            // and probe it. Each time around more is known, so this ends.
            let decided_on = known.clone();
            let turns = inner.cursor.advance(&names, move |order| search::turns(order, n, &decided_on)).await?;
            if let Some(turns) = turns {
                return Ok(turns);
            }
        }
    }
}

/// Whether `vm` answers: its address and network interface, or None. A name that the inventory does not have, or any
/// name without an inventory, is probed as a host name or IP address.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for an empty name or a timeout of 0. A VM that does not answer is no error.
pub async fn ping_test(
    vm: &str,
    inventory: Option<&Inventory>,
    probe: &Probe,
    timeout: Duration,
) -> Result<Option<(String, Option<String>)>> {
    options::check_timeout(timeout)?;
    let vm = match inventory.and_then(|inventory| inventory.get(vm)) {
        Some(known) => known.clone(),
        None => Inventory::from_names(&[vm])?.vms()[0].clone(),
    };
    Ok(probe.check(&vm, timeout).await.ok().map(|outcome| (outcome.ip_address, outcome.nic_name)))
}

fn no_reachable_vm(inventory: &Inventory, exclude: &[String], known: &Known) -> Error {
    let failures: Vec<(String, String)> = inventory
        .vms()
        .iter()
        .map(|vm| {
            let reason = match known.get(&vm.name) {
                Some(Err(reason)) if !exclude.contains(&vm.name) => reason.clone(),
                _ => "excluded by the caller".to_owned(),
            };
            (vm.name.clone(), reason)
        })
        .collect();
    let mut text = "No reachable VM found.".to_owned();
    for (index, (vm, reason)) in failures.iter().take(REASONS_IN_TEXT).enumerate() {
        text.push_str(if index == 0 { " " } else { "; " });
        text.push_str(&format!("{vm}: {reason}"));
    }
    if failures.len() > REASONS_IN_TEXT {
        text.push_str(&format!("; and {} more", failures.len() - REASONS_IN_TEXT));
    }
    Error::new(ErrorKind::NoReachableVm, text).with_retryable(true).with_failures(failures)
}

/// The inventory's address of `vm`, where it has one besides the name.
fn known_address(vm: &Vm) -> Option<String> {
    (vm.ip_address != vm.name || vm.name.parse::<IpAddr>().is_ok()).then(|| vm.ip_address.clone())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
