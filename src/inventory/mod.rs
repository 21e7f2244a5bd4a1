//! What VMs there are: names, addresses and NICs, from a list, a value or a file.

pub mod azure;
mod file;
mod origin;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

pub use self::origin::Origin;
use crate::error::{Error, Result};

/// Longest VM name that is taken, in bytes. Azure allows 64 characters and DNS 253; this leaves room for other clouds.
pub const MAX_NAME_BYTES: usize = 1_024;

/// One VM that may be selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// What the VM is called; unique in its inventory. The round-robin position is kept under this name.
    pub name: String,
    /// IP address or host name that probes go to.
    pub ip_address: String,
    /// The Azure network interface resource behind the address, where known.
    pub nic_name: Option<String>,
    /// Turns per round, at least 1.
    pub weight: u32,
}

impl Vm {
    /// A VM of which only the name is known: it is the address to probe as well, a host name or an IP address.
    pub fn named(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { ip_address: name.clone(), name, nic_name: None, weight: 1 }
    }
}

/// The VMs that may be selected, in the order given. Never empty, and every name is unique.
#[derive(Debug, Clone)]
pub struct Inventory {
    vms: Vec<Vm>,
    origin: Option<Arc<Origin>>,
}

/// The same VMs in the same order, wherever they came from.
impl PartialEq for Inventory {
    fn eq(&self, other: &Self) -> bool {
        self.vms == other.vms
    }
}

impl Eq for Inventory {}

impl Inventory {
    /// An inventory of `vms`, in this order. Blanks around names and addresses are taken off; an empty `nic_name`
    /// counts as none.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] when there is no VM at all, a name or address is empty, over-long or has
    /// control characters, a name occurs twice, or a weight is 0. A retry does not help.
    pub fn new(vms: Vec<Vm>) -> Result<Self> {
        if vms.is_empty() {
            return Err(Error::invalid("the inventory is empty: name at least one VM"));
        }
        let mut seen = HashSet::new();
        let mut checked = Vec::with_capacity(vms.len());
        for (index, vm) in vms.into_iter().enumerate() {
            let vm = checked_vm(index, vm)?;
            if !seen.insert(vm.name.clone()) {
                return Err(Error::invalid(format!(
                    "the inventory names VM \"{}\" twice: give every VM once, under a name of its own",
                    vm.name
                )));
            }
            checked.push(vm);
        }
        Ok(Self { vms: checked, origin: None })
    }

    /// An inventory of names alone: each is the address to probe as well, a host name or an IP address.
    ///
    /// # Errors
    /// Those of [`Inventory::new`].
    pub fn from_names(names: &[impl AsRef<str>]) -> Result<Self> {
        Self::new(names.iter().map(|name| Vm::named(name.as_ref())).collect())
    }

    /// An inventory from a value of any accepted shape: a list of names, a list of `{name, ip_address, nic_name,
    /// weight}`, a mapping of name to `{ip_address, nic_name, weight}`, or `{"vms": …}` around any of these. Without
    /// an `ip_address`, the name is the address.
    ///
    /// # Errors
    /// Those of [`Inventory::new`], and [`crate::ErrorKind::InvalidInput`] for any other shape, an unknown key
    /// (named), or a value of the wrong type.
    pub fn from_value(value: Value) -> Result<Self> {
        Self::new(shape::vms(value)?)
    }

    /// Reads an inventory file: `.json` and `.yaml`/`.yml` with the shapes of [`Inventory::from_value`], or `.csv`
    /// with a header row that has `name` and any of `ip_address`, `nic_name`, `weight`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] when there is no such file; [`crate::ErrorKind::InvalidInput`], naming the
    /// file, for an unknown extension, text that does not parse, a key given twice, and for what
    /// [`Inventory::from_value`] refuses; [`crate::ErrorKind::Storage`] when the file cannot be read.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        file::read(path.as_ref())
    }

    /// This inventory, with where it came from.
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = Some(Arc::new(origin));
        self
    }

    /// Where it came from, when it was listed somewhere.
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
    #[allow(clippy::len_without_is_empty)] // an inventory is never empty
    pub fn len(&self) -> usize {
        self.vms.len()
    }
}

fn checked_vm(index: usize, vm: Vm) -> Result<Vm> {
    let name = checked_text(&vm.name).map_err(|what| {
        Error::invalid(format!(
            "the name of VM number {} of the inventory {what}: give a host name or an IP address",
            index + 1
        ))
    })?;
    let ip_address = checked_text(&vm.ip_address).map_err(|what| {
        Error::invalid(format!(
            "the ip_address of VM \"{name}\" {what}: give one, or leave it out to use the name as the address"
        ))
    })?;
    let nic_name = match vm.nic_name.as_deref().map(str::trim) {
        None | Some("") => None,
        Some(nic) => {
            Some(checked_text(nic).map_err(|what| Error::invalid(format!("the nic_name of VM \"{name}\" {what}")))?)
        }
    };
    if vm.weight == 0 {
        return Err(Error::invalid(format!(
            "VM \"{name}\" has weight 0: weights count from 1; take the VM out of the inventory if it is not to be selected"
        )));
    }
    Ok(Vm { name, ip_address, nic_name, weight: vm.weight })
}

fn checked_text(text: &str) -> std::result::Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(format!("has {} bytes, and at most {MAX_NAME_BYTES} are taken", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("has a control character in it".to_owned());
    }
    Ok(text.to_owned())
}
