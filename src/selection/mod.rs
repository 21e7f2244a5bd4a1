//! Selects the next VM: round robin over the VMs of an inventory that answer, fair across all processes that share a cursor.
//!
//! | module | contents |
//! | --- | --- |
//! | [`selector`] | probes VMs, decides, and keeps selections in use alive |
//! | `schedule` | whose turn it is |
//! | `state` | per VM: last turn, health, drained, in use |
//! | [`cursor`] | stores the state, in the process or in a Delta table |
//! | [`probe`] | checks that a VM answers: ICMP, TCP, HTTP, a callback |

pub mod cursor;
pub mod probe;
mod schedule;
pub mod selector;
mod state;

pub use cursor::{DefaultDir, default_dir};
pub use probe::{IcmpSocket, IpFamily, Probe, ProbeCallback, ProbeOutcome, icmp_sockets};
pub use selector::{CheckRow, CursorKind, DistributionRow, Hold, RoundRobinSelector, SelectorOptions, StateRow};

/// One turn: the selected VM, and what its probe found.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Default))]
pub struct Selection {
    /// Name of the VM.
    pub vm: String,
    /// The IP address that answered.
    pub ip_address: String,
    /// The Azure network interface, where the inventory or the probe names it.
    pub nic_name: Option<String>,
    /// The kind of probe that was answered, as in [`ProbeOutcome::kind`].
    pub probe: String,
    /// How long the answer took, in milliseconds.
    pub rtt_ms: f64,
    /// VMs that were due before and could not be selected: (name, reason). They keep their turn.
    pub skipped: Vec<(String, String)>,
    /// With `max_in_flight`: the VM is in use until this is released or dropped.
    pub hold: Option<Hold>,
}
