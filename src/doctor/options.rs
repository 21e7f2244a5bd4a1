//! The options of [`examine`](super::examine).

use std::collections::HashMap;
use std::time::Duration;

use crate::inventory::Inventory;

/// What to check. The default is this machine, with the settings from the environment and `jobrota.toml`.
#[derive(Debug, Clone, Default)]
pub struct DoctorOptions {
    /// The ledger's root, instead of the one in the settings.
    pub ledger: Option<String>,
    /// Options for the ledger's store. Never shown.
    pub storage_options: HashMap<String, String>,
    /// The VMs to probe, if any.
    pub inventory: Option<Inventory>,
    /// Probes to try on each VM beside ICMP and TCP port 22, as the user wrote them.
    pub probes: Vec<String>,
    /// The time limit of each probe of a VM.
    pub timeout: Option<Duration>,
    /// Whether to send requests to addresses outside this machine, such as the one of Azure's managed identities.
    pub network: bool,
    /// The file with the tokens of SAS Viya.
    pub tokens: Option<String>,
    /// Settings of the program itself, by name.
    pub configured: Vec<(String, String)>,
    /// The runtime of the program, such as "Python 3.12.3".
    pub runtime: Option<String>,
}
