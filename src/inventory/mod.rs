//! Inventories: the VMs that may be selected, with addresses and NICs, from a list, a value, a file or Azure.
//!
//! | file | what it does |
//! | --- | --- |
//! | `mod.rs` | [`Inventory`] and [`Vm`]: names, weights, tags, and what an inventory refuses |
//! | `read.rs` | reads values of the accepted shapes, and files of JSON, YAML and CSV |
//! | `azure.rs`, `azure/` | lists the VMs of an Azure subscription, resource group or load balancer |

pub mod azure;
mod read;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// The longest VM name, in bytes. Azure allows 64 characters, and DNS 253.
pub const MAX_NAME_BYTES: usize = 1_024;

/// One VM that may be selected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vm {
    /// The name, unique in its inventory. The selection state has this name as its key.
    pub name: String,
    /// IP address or host name that probes go to.
    pub ip_address: String,
    /// The Azure network interface resource behind the address, where known.
    pub nic_name: Option<String>,
    /// Turns per round, at least 1. A listing of Azure, which is what is stored, has none.
    #[serde(skip, default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

impl Vm {
    /// A VM with a name only, which is also the address to probe: a host name or an IP address.
    pub fn named(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { ip_address: name.clone(), name, nic_name: None, weight: 1 }
    }
}

/// The source of an inventory that was listed, and its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What was listed, such as `Azure subscription …, resource group …`.
    pub source: String,
    /// When it was listed.
    pub listed_at: DateTime<Utc>,
    /// Whether it comes from the cache.
    pub remembered: bool,
    /// VMs that were left out, each with the reason, by name.
    pub left_out: Vec<(String, String)>,
    /// A warning for the user, for example that the listing is old because a new one failed.
    pub warning: Option<String>,
}

impl Origin {
    /// How long ago it was listed.
    pub fn age(&self) -> Duration {
        (Utc::now() - self.listed_at).to_std().unwrap_or_default()
    }

    /// The age as text.
    pub fn age_in_words(&self) -> String {
        duration_text(self.age())
    }
}

/// A duration as text.
fn duration_text(span: Duration) -> String {
    match span.as_secs() {
        1 => "1 second".to_owned(),
        seconds @ 0..=119 => format!("{seconds} seconds"),
        seconds @ 120..=7_199 => format!("{} minutes", seconds / 60),
        seconds => format!("{:.1} hours", seconds as f64 / 3_600.0),
    }
}

/// The VMs that may be selected, in the order given. Never empty, and every name is unique.
#[derive(Debug, Clone)]
pub struct Inventory {
    vms: Vec<Vm>,
    origin: Option<Arc<Origin>>,
}

/// Inventories are equal when they have the same VMs in the same order, whatever their origin.
impl PartialEq for Inventory {
    fn eq(&self, other: &Self) -> bool {
        self.vms == other.vms
    }
}

impl Eq for Inventory {}

impl Hash for Inventory {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.vms.hash(state);
    }
}

impl Inventory {
    /// An inventory of `vms`, in this order. Spaces around names and addresses are removed; an empty `nic_name` counts as none.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] when there is no VM, a name or address is empty, over-long or has
    /// control characters, a name occurs twice, or a weight is 0. A retry does not help.
    pub fn new(vms: Vec<Vm>) -> Result<Self> {
        if vms.is_empty() {
            return Err(Error::invalid("the inventory is empty: name at least one VM"));
        }
        let mut seen = HashSet::new();
        let check = |(index, vm)| {
            let vm = checked_vm(index, vm)?;
            let name = &vm.name;
            if !seen.insert(name.clone()) {
                let text =
                    format!("the inventory names VM \"{name}\" twice: give every VM once, under a name of its own");
                return Err(Error::invalid(text));
            }
            Ok(vm)
        };
        Ok(Self { vms: vms.into_iter().enumerate().map(check).collect::<Result<_>>()?, origin: None })
    }

    /// An inventory from a value of any accepted shape: a list of names, a list of `{name, ip_address, nic_name,
    /// weight}`, a mapping of name to `{ip_address, nic_name, weight}`, or `{"vms": …}` around any of these. Without
    /// an `ip_address`, the name is the address.
    ///
    /// # Errors
    /// Those of [`Inventory::new`], and [`crate::ErrorKind::InvalidInput`] for any other shape, an unknown key
    /// (named), or a value of the wrong type.
    pub fn from_value(value: Value) -> Result<Self> {
        Self::new(read::vms(value)?)
    }

    /// Reads an inventory file: `.json` and `.yaml`/`.yml` with the shapes of [`Inventory::from_value`], or `.csv`
    /// with a header row that has `name` and any of `ip_address`, `nic_name`, `weight`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] when there is no such file; [`crate::ErrorKind::InvalidInput`], naming the
    /// file, for an unknown extension, text that does not parse, a key given twice, and for what
    /// [`Inventory::from_value`] refuses; [`crate::ErrorKind::Storage`] when the file cannot be read.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        read::file(path.as_ref())
    }

    /// Its origin, where it was listed.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }

    /// The VMs in the order given.
    pub fn vms(&self) -> &[Vm] {
        &self.vms
    }

    /// The VM of this name.
    pub fn get(&self, name: &str) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.name == name)
    }

    /// How many VMs there are; at least 1.
    #[allow(clippy::len_without_is_empty, reason = "an inventory is never empty")]
    pub fn len(&self) -> usize {
        self.vms.len()
    }
}

fn checked_vm(index: usize, vm: Vm) -> Result<Vm> {
    let number = index + 1;
    let name = checked_text(
        &vm.name,
        format_args!("the name of VM number {number} of the inventory"),
        ": give a host name or an IP address",
    )?;
    let ip_address = checked_text(
        &vm.ip_address,
        format_args!("the ip_address of VM \"{name}\""),
        ": give one, or leave it out to use the name as the address",
    )?;
    let nic_name = vm.nic_name.as_deref().filter(|nic| !nic.trim().is_empty());
    let nic_name =
        nic_name.map(|nic| checked_text(nic, format_args!("the nic_name of VM \"{name}\""), "")).transpose()?;
    if vm.weight == 0 {
        return Err(Error::invalid(format!(
            "VM \"{name}\" has weight 0: weights count from 1; take the VM out of the inventory if it is not to be selected"
        )));
    }
    Ok(Vm { name, ip_address, nic_name, weight: vm.weight })
}

/// `text` without the spaces around it. An error calls it `what`.
fn checked_text(text: &str, what: fmt::Arguments<'_>, advice: &str) -> Result<String> {
    let text = text.trim();
    let refused = |why: &str| Err(Error::invalid(format!("{what} {why}{advice}")));
    if text.is_empty() {
        return refused("is empty");
    }
    if text.len() > MAX_NAME_BYTES {
        return refused(&format!("has {} bytes, and at most {MAX_NAME_BYTES} are taken", text.len()));
    }
    if text.chars().any(char::is_control) {
        return refused("has a control character in it");
    }
    Ok(text.to_owned())
}
