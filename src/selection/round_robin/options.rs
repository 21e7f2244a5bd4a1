//! How a selector works, and which wishes it refuses.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::inventory::Inventory;
use crate::selection::probe::Probe;

/// No VM is worth waiting for longer; it also keeps the arithmetic of deadlines in bounds.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Where the position in the rotation is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CursorKind {
    /// In this selector alone: a new selector begins with the first VM.
    Process,
    /// In the Delta table `vm_selections` below this directory or URI, for everyone who names it.
    Shared(String),
}

/// How a selector works. The last probe alone decides whether a VM is up.
#[derive(Clone)]
pub struct SelectorOptions {
    /// Where the position is kept.
    pub cursor: CursorKind,
    /// How to find out whether a VM answers.
    pub probe: Probe,
    /// The time each VM has to answer, name resolution included.
    pub timeout: Duration,
    /// How long the result of a probe is good for; 0: every selection probes anew. That no VM answers is never said
    /// from memory alone.
    pub health_ttl: Duration,
    /// Begin with a VM picked at random, where no VM was selected before.
    pub random_start: bool,
    /// Options of the object store behind a shared cursor.
    pub storage_options: HashMap<String, String>,
}

impl Default for SelectorOptions {
    fn default() -> Self {
        Self {
            cursor: CursorKind::Process,
            probe: Probe::Auto,
            timeout: Duration::from_secs(1),
            health_ttl: Duration::ZERO,
            random_start: false,
            storage_options: HashMap::new(),
        }
    }
}

impl SelectorOptions {
    /// Refuses what cannot work, and what this version does not have rather than ignoring it.
    pub(super) fn check(&self, inventory: &Inventory) -> Result<()> {
        check_timeout(self.timeout)?;
        if let Some(vm) = inventory.vms().iter().find(|vm| vm.weight != 1) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "VM \"{}\" has weight {}, and this version of jobrota has no weighted selection: take the weights out of the inventory",
                    vm.name, vm.weight
                ),
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for SelectorOptions {
    /// Without the storage options: they may hold keys and tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelectorOptions")
            .field("cursor", &self.cursor)
            .field("probe", &self.probe)
            .field("timeout", &self.timeout)
            .field("health_ttl", &self.health_ttl)
            .field("random_start", &self.random_start)
            .finish_non_exhaustive()
    }
}

/// Refuses a time limit within which nothing can answer, or that nobody means.
pub(super) fn check_timeout(timeout: Duration) -> Result<()> {
    if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
        return Err(Error::invalid(format!(
            "a probe timeout of {timeout:?} is not possible: give more than 0 and at most {} s",
            LONGEST_TIMEOUT.as_secs()
        )));
    }
    Ok(())
}
