//! The selector: probes the VMs whose turn it is, and takes the turn for the first that answers.

mod hold;
mod options;
mod prober;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt};

pub use self::hold::Hold;
use self::hold::HoldRegistry;
pub use self::options::{CursorKind, SelectorOptions};
use self::prober::{PROBED_AT_ONCE, Prober};
use super::Selection;
use super::cursor::{Cursor, Step, TurnCount, now};
use super::schedule::{self, Candidate, Decision, KnownResult};
use super::state::{Changes, SelectionRules, SelectionState, StateKey};
use crate::error::{Error, ErrorKind, Result};
use crate::inventory::{Inventory, Vm};

/// Most turns that one commit takes.
const MAX_TURNS: usize = 100_000;
/// Reasons that the text of an error repeats; the error itself has them all.
const REASONS_IN_TEXT: usize = 10;

/// What [`RoundRobinSelector::check`] found about one VM.
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

/// The state of one VM, which all who share the cursor have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRow {
    /// Name of the VM.
    pub vm: String,
    /// Its weight in this selector's inventory.
    pub weight: u32,
    /// Whether it is taken out of rotation.
    pub drained: bool,
    /// Whether it counts as up by `rise` and `fall`. `None` where both are 1: then each selection probes anew, and nothing is
    /// remembered.
    pub healthy: Option<bool>,
    /// How many selections of it are in use.
    pub in_flight: u32,
}

/// Selects reachable VMs in round-robin order: always the one that was selected longest ago and answers its probe.
/// Cheap to clone; clones share cursor and health. Safe to use from many threads and tasks at once.
#[derive(Clone)]
pub struct RoundRobinSelector {
    inner: Arc<SelectorCore>,
}

struct SelectorCore {
    /// Names and weights in the order that decides among VMs selected equally long ago.
    candidates: Arc<[Candidate]>,
    cursor: Cursor,
    rules: SelectionRules,
    prober: Prober,
    holds: Arc<HoldRegistry>,
}

impl SelectorCore {
    /// Probes `vm` for [`RoundRobinSelector::check`].
    async fn check(&self, vm: Vm) -> CheckRow {
        let result = self.prober.check(&vm).await;
        let outcome = result.as_ref().ok();
        CheckRow {
            ip_address: outcome.map(|outcome| outcome.ip_address.clone()).or_else(|| known_address(&vm)),
            nic_name: outcome.and_then(|outcome| outcome.nic_name.clone()).or(vm.nic_name),
            reachable: outcome.is_some(),
            probe: outcome.map(|outcome| outcome.kind.clone()),
            rtt_ms: outcome.map(|outcome| outcome.rtt.as_secs_f64() * 1e3),
            vm: vm.name,
            reason: result.err(),
        }
    }

    /// Counts probe results, by VM, for all who share the cursor. Returns whether each VM counts as up now.
    async fn observe(&self, results: Vec<(String, bool)>) -> Result<Vec<(String, bool)>> {
        let rules = self.rules;
        if !rules.use_history() {
            return Ok(results);
        }
        let observed = self.cursor.advance(move |state| {
            let at = now();
            let (mut changes, mut up) = (Changes::new(), Vec::with_capacity(results.len()));
            for (vm, ok) in &results {
                let before = state.get(vm).cloned().unwrap_or_default();
                let mut after = before.clone();
                after.streak = rules.observe(before.streak, *ok, at);
                after.changes(vm, &before, &mut changes);
                up.push((vm.clone(), after.streak.is_none_or(|streak| streak.up)));
            }
            (Step::of(changes), up)
        });
        observed.await
    }
}

impl fmt::Debug for RoundRobinSelector {
    /// Without the cursor, whose options may contain keys and tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoundRobinSelector").field("candidates", &self.inner.candidates).finish_non_exhaustive()
    }
}

impl RoundRobinSelector {
    /// A selector over `inventory`. Nothing is probed or written before the first selection.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a timeout of 0 or above an hour, for other options that cannot work, and for a root
    /// that is not valid; those of [`crate::storage::Storage::open`] for a shared cursor. A retry does not help.
    pub fn new(inventory: Inventory, options: SelectorOptions) -> Result<Self> {
        let rules = options.rules()?;
        let cursor = match &options.cursor {
            CursorKind::Process => Cursor::Process(Arc::default()),
            CursorKind::Shared(root) => Cursor::shared(root, &options.storage_options)?,
        };
        let mut candidates: Vec<Candidate> = inventory.vms().iter().map(|vm| (vm.name.clone(), vm.weight)).collect();
        if options.random_start {
            crate::runtime::own_randomness()?;
            let start = rand::random_range(0..candidates.len());
            candidates.rotate_left(start);
        }
        let holds = HoldRegistry::new(cursor.clone(), options.hold_ttl);
        let prober = Prober::new(inventory, options.probe, options.timeout, options.health_ttl);
        Ok(Self { inner: Arc::new(SelectorCore { candidates: candidates.into(), cursor, rules, prober, holds }) })
    }

    /// The VMs that this selector chooses from.
    pub fn inventory(&self) -> &Inventory {
        &self.inner.prober.inventory
    }

    /// Takes the next turn: the VM selected longest ago that answers, not counting those named in `exclude`. VMs that
    /// do not answer keep their turn, and `skipped` says why. With a shared cursor, the turn is recorded when this
    /// returns. With `max_in_flight`, the VM is in use for as long as the selection's `hold` lives.
    ///
    /// # Errors
    /// [`ErrorKind::NoReachableVm`], retryable, when no VM can be selected, with the reason per VM: it does not answer, is
    /// drained, or has as much work as it may have;
    /// [`ErrorKind::InvalidInput`] when `exclude` names every VM or one that is unknown; with a shared cursor also
    /// those of [`crate::delta::Table::open_or_create`] and [`crate::delta::Table::append_conditionally`].
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

    /// Reports whether a VM worked for the caller. It counts as a probe: towards `rise` and `fall`, for all who share the
    /// cursor, and as the cached result of this process (`health_ttl`). Where `rise` and `fall` are 1 and no result is
    /// cached, only the probe of the next selection counts.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the inventory has no such VM; with a shared cursor also those of writing to it.
    pub async fn report(&self, vm: &str, ok: bool) -> Result<()> {
        self.require_vm(vm)?;
        let up = self.inner.observe(vec![(vm.to_owned(), ok)]).await?;
        // Fewer failures than `fall` leave the cached answer of a VM valid.
        if ok || up.iter().any(|(_, up)| !up) {
            self.inner.prober.report(vm, ok);
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
        let rows = stream::iter(self.inventory().vms().to_vec().into_iter().enumerate()).map(|(at, vm)| {
            let inner = self.inner.clone();
            async move { (at, inner.check(vm).await) }
        });
        // In the order in which they answer, so that one that does not answer does not delay the probes of the others.
        let mut rows: Vec<(usize, CheckRow)> = rows.buffer_unordered(PROBED_AT_ONCE).collect().await;
        rows.sort_by_key(|(at, _)| *at);
        let rows: Vec<CheckRow> = rows.into_iter().map(|(_, row)| row).collect();
        self.inner.observe(rows.iter().map(|row| (row.vm.clone(), row.reachable)).collect()).await?;
        Ok(rows)
    }

    /// The state of the VMs, which all who share the cursor have in common. One row per VM, in inventory order. No VM is probed.
    ///
    /// # Errors
    /// Those of reading the shared cursor.
    pub async fn state(&self) -> Result<Vec<StateRow>> {
        let (rules, vms) = (self.inner.rules, self.inventory().vms().to_vec());
        let read = move |state: &SelectionState| {
            let at = now();
            let row = |vm: Vm| {
                let known = state.get(&vm.name).cloned().unwrap_or_default();
                StateRow {
                    vm: vm.name,
                    weight: vm.weight,
                    drained: known.drained,
                    healthy: rules.use_history().then(|| rules.needs(known.streak, at) == 0),
                    in_flight: known.in_flight(at),
                }
            };
            vms.into_iter().map(row).collect()
        };
        self.inner.cursor.read(true, read).await
    }

    /// How often each VM of the inventory was selected at or after `since` (None: ever), by all who share the cursor. One row per VM, in inventory order.
    ///
    /// # Errors
    /// Those of reading the shared table; without one, [`ErrorKind::InvalidInput`] for a `since` before the last
    /// 100,000 turns, whose times are kept.
    pub async fn distribution(&self, since: Option<DateTime<Utc>>) -> Result<Vec<DistributionRow>> {
        let counts = self.inner.cursor.counts(since.map(|since| since.timestamp_micros())).await?;
        let count = |vm: &Vm| counts.get(&vm.name).cloned().unwrap_or_default();
        let vms = self.inventory().vms();
        let total: u64 = vms.iter().map(|vm| count(vm).selections).sum();
        let row = |vm: &Vm| {
            let TurnCount { selections, last_selected } = count(vm);
            let share = if total == 0 { 0.0 } else { selections as f64 / total as f64 };
            let last_selected = last_selected.and_then(DateTime::from_timestamp_micros);
            DistributionRow { vm: vm.name.clone(), selections, share, last_selected }
        };
        Ok(vms.iter().map(row).collect())
    }

    /// Takes a VM out of rotation for all who share the cursor, until it is restored. Once this returns, no selector selects
    /// it. Selections in use stay in use. Draining it again changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the inventory has no such VM; with a shared cursor also those of writing to it.
    pub async fn drain(&self, vm: &str) -> Result<()> {
        self.set_drained(vm, true).await
    }

    /// Puts a drained VM back into rotation. Its last turn counts as before.
    ///
    /// # Errors
    /// Those of [`RoundRobinSelector::drain`].
    pub async fn restore(&self, vm: &str) -> Result<()> {
        self.set_drained(vm, false).await
    }

    async fn set_drained(&self, vm: &str, drained: bool) -> Result<()> {
        self.require_vm(vm)?;
        let vm = vm.to_owned();
        let changed = self.inner.cursor.advance(move |state| {
            let already = state.get(&vm).is_some_and(|vm| vm.drained);
            let change = (StateKey::Drained(vm.clone()), i64::from(drained));
            (Step::of(if already == drained { Changes::new() } else { vec![change] }), ())
        });
        changed.await
    }

    fn require_vm(&self, name: &str) -> Result<&Vm> {
        self.inventory().get(name).ok_or_else(|| Error::invalid(format!("the inventory has no VM \"{name}\"")))
    }

    async fn turns(&self, n: usize, exclude: &[String]) -> Result<Vec<Selection>> {
        let inner = &self.inner;
        exclude.iter().try_for_each(|vm| self.require_vm(vm).map(drop))?;
        let candidates: Arc<[Candidate]> = match exclude {
            [] => inner.candidates.clone(),
            _ => inner.candidates.iter().filter(|(name, _)| !exclude.contains(name)).cloned().collect(),
        };
        if candidates.is_empty() {
            return Err(Error::invalid("every VM of the inventory is excluded: leave at least one to select"));
        }
        let rules = inner.rules;
        let weighted = candidates.windows(2).any(|pair| pair[0].1 != pair[1].1);
        let mut known = inner.prober.cached();
        loop {
            let list = candidates.clone();
            let due = inner.cursor.read(false, move |state| schedule::due(&list, &rules, state, now())).await?;
            inner.prober.probe_due(&due, n.min(due.len()), &mut known).await;
            // The decision is made on the newest state. Where another process was faster, and a VM without a result is due
            // first, go back and probe it. Each round adds results, so the loop ends.
            let (list, results) = (candidates.clone(), known.clone());
            let any_cached = known.values().any(|known| !known.fresh);
            let decision = inner.cursor.advance(move |state| {
                let (step, decision) = schedule::take(&list, &rules, &results, n, state, now());
                match decision {
                    Decision::NoneSelectable(_) if any_cached => (Step::default(), decision),
                    decision => (step, decision),
                }
            });
            match decision.await? {
                Decision::Taken(mut turns, holds) => {
                    for (turn, hold) in turns.iter_mut().zip(holds) {
                        turn.hold = hold.map(|(slot, until)| inner.holds.add(&turn.vm, slot, until));
                    }
                    return Ok(turns);
                }
                // Where weights differ, the VM that is due next also depends on the dead VMs, so that the prober may not
                // reach it.
                Decision::NeedsProbe(vm) if weighted => inner.prober.probe_due(&[(vm, 0)], 1, &mut known).await,
                Decision::NeedsProbe(_) => {}
                // Before the selection fails, VMs with cached results are probed.
                Decision::NoneSelectable(_) if any_cached => known.retain(|_, KnownResult { fresh, .. }| *fresh),
                Decision::NoneSelectable(reasons) => {
                    return Err(no_reachable_vm(self.inventory(), exclude, reasons));
                }
            }
        }
    }
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
    let mut reasons: Vec<String> =
        failures.iter().take(REASONS_IN_TEXT).map(|(vm, reason)| format!("{vm}: {reason}")).collect();
    if failures.len() > REASONS_IN_TEXT {
        reasons.push(format!("and {} more", failures.len() - REASONS_IN_TEXT));
    }
    let text = format!("No reachable VM found. {}", reasons.join("; "));
    Error::new(ErrorKind::NoReachableVm, text).with_retryable(true).with_failures(failures)
}

/// The inventory's address of `vm`, where it has one besides the name.
fn known_address(vm: &Vm) -> Option<String> {
    (vm.ip_address != vm.name || vm.name.parse::<IpAddr>().is_ok()).then(|| vm.ip_address.clone())
}
