//! The selector: probes the VMs whose turn it is and takes the turn for the first that answers.

mod hold;
mod memory;
mod options;
mod rules;
mod search;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt};

pub use self::hold::Hold;
use self::hold::Keeper;
use self::memory::{Known, Memory, Seen};
pub use self::options::{CursorKind, SelectorOptions};
use self::rules::Rules;
use self::turns::{Candidate, Decision};
use super::Selection;
use super::cursor::{Cursor, Step, now};
use super::probe::{Answer, Probe};
use super::standing::{Changes, Entry, Standing};
use crate::error::{Error, ErrorKind, Result};
use crate::inventory::{Inventory, Vm};

/// VMs that [`RoundRobinSelector::check`] probes at the same time.
const CHECKED_AT_ONCE: usize = 256;
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

/// What everyone who shares the cursor knows of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRow {
    /// Name of the VM.
    pub vm: String,
    /// Its weight in this selector's inventory.
    pub weight: u32,
    /// Whether somebody took it out of rotation.
    pub drained: bool,
    /// Whether it counts as up by `rise` and `fall`; always, where these are 1.
    pub healthy: bool,
    /// How many selections of it are in use.
    pub in_flight: u32,
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
    /// Names and weights in the order that decides among VMs selected equally long ago.
    candidates: Arc<[Candidate]>,
    cursor: Cursor,
    probe: Probe,
    timeout: Duration,
    rules: Rules,
    memory: Memory,
    keeper: Arc<Keeper>,
}

impl Inner {
    /// Probes `vm` for [`RoundRobinSelector::check`].
    async fn checked(&self, vm: Vm) -> CheckRow {
        let answer = self.probe.check(&vm, self.timeout).await;
        self.memory.remember(&vm.name, &answer);
        Self::row(vm, answer)
    }

    fn row(vm: Vm, answer: Answer) -> CheckRow {
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

    /// Counts answers and failures, by VM, for everyone who shares the cursor. Whether each VM counts as up now.
    async fn observe(&self, seen: Vec<(String, bool)>) -> Result<Vec<(String, bool)>> {
        let rules = self.rules;
        if !rules.count() {
            return Ok(seen);
        }
        let observed = self.cursor.advance(move |standing| {
            let at = now();
            let (mut changes, mut up) = (Changes::new(), Vec::with_capacity(seen.len()));
            for (vm, ok) in &seen {
                let before = standing.get(vm).cloned().unwrap_or_default();
                let mut after = before.clone();
                after.streak = rules.observe(before.streak, *ok, at);
                after.changes(vm, &before, &mut changes);
                up.push((vm.clone(), after.streak.is_none_or(|streak| streak.up)));
            }
            (Step { turns: Vec::new(), changes }, up)
        });
        observed.await
    }

    /// Takes `vm` out of rotation or puts it back.
    async fn set_drained(&self, vm: &str, drained: bool) -> Result<()> {
        let vm = vm.to_owned();
        let changed = self.cursor.advance(move |standing| {
            let already = standing.get(&vm).is_some_and(|vm| vm.drained);
            let change = (Entry::Drained(vm.clone()), i64::from(drained));
            let changes = if already == drained { Changes::new() } else { vec![change] };
            (Step { turns: Vec::new(), changes }, ())
        });
        changed.await
    }
}

impl RoundRobinSelector {
    /// A selector over `inventory`. Nothing is probed or written before the first selection.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a timeout of 0 or above an hour, for other options that cannot work, and for a root
    /// that is none; those of [`crate::storage::Storage::open`] for a shared cursor. A retry does not help.
    pub fn new(inventory: Inventory, options: SelectorOptions) -> Result<Self> {
        let rules = options.rules()?;
        let cursor = match &options.cursor {
            CursorKind::Process => Cursor::process(),
            CursorKind::Shared(root) => Cursor::shared(root, &options.storage_options)?,
        };
        let mut candidates: Vec<Candidate> = inventory.vms().iter().map(|vm| (vm.name.clone(), vm.weight)).collect();
        if options.random_start {
            crate::runtime::own_randomness()?;
            let start = rand::random_range(0..candidates.len());
            candidates.rotate_left(start);
        }
        let memory = Memory::new(options.health_ttl);
        let keeper = Keeper::new(cursor.clone(), options.hold_ttl);
        let (probe, timeout) = (options.probe, options.timeout);
        let candidates = candidates.into();
        let inner = Inner { inventory, candidates, cursor, probe, timeout, rules, memory, keeper };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The VMs that this selector chooses from.
    pub fn inventory(&self) -> &Inventory {
        &self.inner.inventory
    }

    /// Takes the next turn: the VM selected longest ago that answers, not counting those named in `exclude`. VMs that
    /// do not answer keep their place, and `skipped` says why. With a shared cursor, the turn is on record when this
    /// returns. With `max_in_flight`, the VM is in use for as long as the selection's `hold` lives.
    ///
    /// # Errors
    /// [`ErrorKind::NoReachableVm`], retryable, when no VM can be selected, with the reason per VM: it does not answer, is
    /// drained, or has as much work as it may have;
    /// [`ErrorKind::InvalidInput`] when `exclude` names every VM or one that is unknown; with a shared cursor also
    /// those of [`crate::delta::Table::open_or_create`] and [`crate::delta::Table::append_guarded`].
    pub async fn select(&self, exclude: &[String]) -> Result<Selection> {
        let mut turns = self.turns(1, exclude).await?;
        turns.pop().ok_or_else(|| Error::new(ErrorKind::Internal, "a turn was taken, but for no VM"))
    }

    /// Takes `n` turns in one step: with a shared cursor, one commit. VMs come up again once all that answer had
    /// their turn. No turns for 0, and none at all when `max_in_flight` leaves room for fewer than `n`.
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

    /// Tells what the caller experienced with a VM; it counts as a probe: towards `rise` and `fall`, for everyone who
    /// shares the cursor, and as the last answer for as long as this process remembers health (`health_ttl`). Where `rise`
    /// and `fall` are 1 and nothing is remembered, the next selection's own probe is all that counts.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the inventory has no such VM; with a shared cursor also those of writing to it.
    pub async fn report(&self, vm: &str, ok: bool) -> Result<()> {
        self.known_vm(vm)?;
        let up = self.inner.observe(vec![(vm.to_owned(), ok)]).await?;
        // Fewer failures than `fall` leave a VM up that is remembered to have answered.
        if ok || up.iter().any(|(_, up)| !up) {
            self.inner.memory.report(vm, ok);
        }
        Ok(())
    }

    /// Probes all VMs, many at a time, and takes no turn. One row per VM, in inventory order. The answers count towards
    /// `rise` and `fall`.
    ///
    /// # Errors
    /// With a shared cursor and a `rise` or `fall` above 1, those of writing to it.
    pub async fn check(&self) -> Result<Vec<CheckRow>> {
        // Everything is owned: a future that borrows through a closure cannot be sent to another thread.
        let rows = stream::iter(self.inner.inventory.vms().to_vec().into_iter().enumerate()).map(|(at, vm)| {
            let inner = self.inner.clone();
            async move { (at, inner.checked(vm).await) }
        });
        // In the order in which they answer: one that does not shall not keep the others from being probed.
        let mut rows: Vec<(usize, CheckRow)> = rows.buffer_unordered(CHECKED_AT_ONCE).collect().await;
        rows.sort_by_key(|(at, _)| *at);
        let rows: Vec<CheckRow> = rows.into_iter().map(|(_, row)| row).collect();
        self.inner.observe(rows.iter().map(|row| (row.vm.clone(), row.reachable)).collect()).await?;
        Ok(rows)
    }

    /// What everyone who shares the cursor knows of the VMs. One row per VM, in inventory order. Nothing is probed.
    ///
    /// # Errors
    /// Those of reading the shared cursor.
    pub async fn state(&self) -> Result<Vec<StateRow>> {
        let (rules, vms) = (self.inner.rules, self.inner.inventory.vms().to_vec());
        let look = move |standing: &Standing| {
            let at = now();
            let row = |vm: Vm| {
                let known = standing.get(&vm.name).cloned().unwrap_or_default();
                StateRow {
                    vm: vm.name,
                    weight: vm.weight,
                    drained: known.drained,
                    healthy: rules.needs(known.streak, at) == 0,
                    in_flight: known.in_flight(at),
                }
            };
            vms.into_iter().map(row).collect()
        };
        self.inner.cursor.look_now(look).await
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

    /// Takes a VM out of rotation for everyone who shares the cursor, until it is restored: from the moment that this
    /// returns, nobody selects it. What is in use stays so. Draining it twice is as good as once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the inventory has no such VM; with a shared cursor also those of writing to it.
    pub async fn drain(&self, vm: &str) -> Result<()> {
        self.known_vm(vm)?;
        self.inner.set_drained(vm, true).await
    }

    /// Puts a drained VM back into rotation, at the place that it had.
    ///
    /// # Errors
    /// Those of [`RoundRobinSelector::drain`].
    pub async fn restore(&self, vm: &str) -> Result<()> {
        self.known_vm(vm)?;
        self.inner.set_drained(vm, false).await
    }

    fn known_vm(&self, name: &str) -> Result<&Vm> {
        self.inner.inventory.get(name).ok_or_else(|| Error::invalid(format!("the inventory has no VM \"{name}\"")))
    }

    async fn turns(&self, n: usize, exclude: &[String]) -> Result<Vec<Selection>> {
        let inner = &self.inner;
        exclude.iter().try_for_each(|vm| self.known_vm(vm).map(drop))?;
        let candidates: Arc<[Candidate]> = match exclude {
            [] => inner.candidates.clone(),
            _ => inner.candidates.iter().filter(|(name, _)| !exclude.contains(name)).cloned().collect(),
        };
        if candidates.is_empty() {
            return Err(Error::invalid("every VM of the inventory is excluded: leave at least one to select"));
        }
        let rules = inner.rules;
        let weighted = candidates.windows(2).any(|pair| pair[0].1 != pair[1].1);
        let mut known: Known = inner.memory.recall();
        loop {
            let list = candidates.clone();
            let due = inner.cursor.look(move |standing| turns::due(&list, &rules, standing, now())).await?;
            search::probe(inner, &due, n.min(due.len()), &mut known).await;
            // Decided on the true standing: where another process was faster and a VM not probed yet comes first, go back
            // and probe it. Each time around more is known, so this ends.
            let (list, decided_on) = (candidates.clone(), known.clone());
            let remembered = known.values().any(|seen| !seen.fresh);
            let decision = inner.cursor.advance(move |standing| {
                let (step, decision) = turns::take(&list, &rules, &decided_on, n, standing, now());
                match decision {
                    // To be looked at again first.
                    Decision::Nobody(_) if remembered => (Step::default(), decision),
                    decision => (step, decision),
                }
            });
            match decision.await? {
                Decision::Taken(turns, holds) => return Ok(self.kept(turns, holds)),
                // Of different weights, who is due next also depends on who turned out to be dead, and the search does not
                // get to it.
                Decision::Unknown(vm) if weighted => search::probe(inner, &[(vm, 0)], 1, &mut known).await,
                Decision::Unknown(_) => {}
                // Before everything is given up, what is only remembered is looked at again.
                Decision::Nobody(_) if remembered => known.retain(|_, Seen { fresh, .. }| *fresh),
                Decision::Nobody(reasons) => return Err(no_reachable_vm(&inner.inventory, exclude, reasons)),
            }
        }
    }

    fn kept(&self, mut turns: Vec<Selection>, holds: Vec<Option<(u32, i64)>>) -> Vec<Selection> {
        for (turn, hold) in turns.iter_mut().zip(holds) {
            turn.hold = hold.map(|(slot, until)| self.inner.keeper.keep(&turn.vm, slot, until));
        }
        turns
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

fn no_reachable_vm(inventory: &Inventory, exclude: &[String], reasons: Vec<(String, String)>) -> Error {
    let reasons: HashMap<String, String> = reasons.into_iter().collect();
    let failures: Vec<(String, String)> = inventory
        .vms()
        .iter()
        .map(|vm| {
            let reason = match reasons.get(&vm.name) {
                Some(reason) if !exclude.contains(&vm.name) => reason.clone(),
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
