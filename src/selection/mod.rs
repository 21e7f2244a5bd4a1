//! Which VM is next: round robin over the VMs of an inventory that answer, fair across every process that shares a
//! cursor.

pub mod cursor;
pub mod probe;
mod rotation;
pub mod round_robin;
mod standing;

pub use cursor::{DefaultDir, default_dir};
pub use probe::{IcmpSocket, IpFamily, Probe, ProbeCallback, ProbeOutcome, icmp_sockets};
pub use round_robin::{
    CheckRow, CursorKind, DistributionRow, Hold, RoundRobinSelector, SelectorOptions, StateRow, ping_test,
};

/// One turn: the VM that was selected, and what its probe found.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Name of the VM.
    pub vm: String,
    /// The IP address that answered.
    pub ip_address: String,
    /// The Azure network interface behind it, where the inventory or the probe names it.
    pub nic_name: Option<String>,
    /// What kind of probe was answered, as in [`ProbeOutcome::kind`].
    pub probe: String,
    /// How long the answer took, in milliseconds.
    pub rtt_ms: f64,
    /// VMs whose turn came before and that could not be selected: (name, reason). They keep their place in the order.
    pub skipped: Vec<(String, String)>,
    /// With `max_in_flight`: the VM is in use until this is released or dropped.
    pub hold: Option<Hold>,
}

#[cfg(test)]
impl Selection {
    /// A selection of `vm`, as if a test had selected it.
    pub(crate) fn example(vm: &str) -> Self {
        Self {
            vm: vm.to_owned(),
            ip_address: vm.to_owned(),
            nic_name: None,
            probe: "test".to_owned(),
            rtt_ms: 0.0,
            skipped: Vec::new(),
            hold: None,
        }
    }
}
