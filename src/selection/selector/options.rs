//! The options of a selector, and their limits.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::selection::probe::Probe;
use crate::selection::state::SelectionRules;
use crate::storage::StorageOptions;

/// The longest time limit of a probe, which keeps the arithmetic of deadlines in bounds.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3_600);
/// The largest `rise` and `fall`.
const MOST_IN_A_ROW: u32 = 1_000;
/// The largest `max_in_flight`: each slot is a value in the shared cursor.
const MOST_IN_FLIGHT: u32 = 1_000;
/// Holders renew their slots three times in this time. A shorter time would keep a remote store busy.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);
const LONGEST_HOLD: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Where the selection state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CursorKind {
    /// In this selector alone: a new selector begins with the first VM.
    Process,
    /// In the Delta table `vm_selections` below this directory or URI, for all who name it.
    Shared(String),
}

/// The options of a selector.
#[derive(Clone)]
pub struct SelectorOptions {
    /// Where the selection state is kept.
    pub cursor: CursorKind,
    /// How to find out whether a VM answers.
    pub probe: Probe,
    /// The time each VM has to answer, name resolution included.
    pub timeout: Duration,
    /// How long the result of a probe is cached; 0: every selection probes anew. A selection does not fail on cached results
    /// alone.
    pub health_ttl: Duration,
    /// Answers in a row after which a VM that counts as down can be selected again; at least 1.
    pub rise: u32,
    /// Failures in a row after which a VM counts as down; at least 1. A VM that does not answer is not selected, even if it
    /// counts as up.
    pub fall: u32,
    /// How long failures and answers count for `rise` and `fall`.
    pub health_max_age: Duration,
    /// How many selections of one VM may be in use at the same time, by all who share the cursor; None: any number.
    pub max_in_flight: Option<u32>,
    /// How long a selection counts as in use after its process has renewed it last.
    pub hold_ttl: Duration,
    /// Start with a random VM, where no VM was selected before.
    pub random_start: bool,
    /// Options of the object store behind a shared cursor.
    pub storage_options: StorageOptions,
}

impl Default for SelectorOptions {
    fn default() -> Self {
        Self {
            cursor: CursorKind::Process,
            probe: Probe::Auto,
            timeout: Duration::from_secs(1),
            health_ttl: Duration::ZERO,
            rise: 1,
            fall: 1,
            health_max_age: Duration::from_secs(3_600),
            max_in_flight: None,
            hold_ttl: Duration::from_secs(60),
            random_start: false,
            storage_options: StorageOptions::default(),
        }
    }
}

impl SelectorOptions {
    /// The rules in these options.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for options that cannot work.
    pub(super) fn rules(&self) -> Result<SelectionRules> {
        let timeout = self.timeout;
        if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
            return Err(Error::invalid(format!(
                "a probe timeout of {} s is not possible: give more than 0 and at most {} s",
                timeout.as_secs_f64(),
                LONGEST_TIMEOUT.as_secs()
            )));
        }
        for (name, value, most) in [("rise", self.rise, MOST_IN_A_ROW), ("fall", self.fall, MOST_IN_A_ROW)] {
            if value == 0 || value > most {
                return Err(Error::invalid(format!("{name} is {value}, and can be 1 to {most}")));
            }
        }
        if let Some(most) = self.max_in_flight.filter(|most| *most == 0 || *most > MOST_IN_FLIGHT) {
            return Err(Error::invalid(format!(
                "max_in_flight is {most}, and can be 1 to {MOST_IN_FLIGHT}, or none; to have a VM not selected at all, drain it"
            )));
        }
        if !(SHORTEST_HOLD..=LONGEST_HOLD).contains(&self.hold_ttl) {
            return Err(Error::invalid(format!(
                "a hold_ttl of {:?} is not possible: give {} s to {} s",
                self.hold_ttl,
                SHORTEST_HOLD.as_secs(),
                LONGEST_HOLD.as_secs()
            )));
        }
        Ok(SelectionRules {
            rise: self.rise,
            fall: self.fall,
            health_max_age: self.health_max_age,
            max_in_flight: self.max_in_flight,
            hold_ttl: self.hold_ttl,
        })
    }
}
