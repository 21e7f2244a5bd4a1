//! Lists the VMs of a resource group or subscription that can be used, with their addresses.

use std::collections::HashMap;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::arm::{AT_ONCE, FEW, FoundVm, Power, ResourceReader};
use super::{Members, PowerFilter, vm_id};
use crate::azure::ResourceId;
use crate::error::{Error, ErrorKind, Result};
use crate::inventory::Vm;

/// The VMs of an inventory, and those that are left out.
#[derive(Debug, Default)]
pub(super) struct UsableVms {
    pub vms: Vec<Vm>,
    /// VMs that are left out, each with the reason.
    pub left_out: Vec<(String, String)>,
}

impl UsableVms {
    pub(super) fn leave_out(&mut self, name: &str, reason: impl Into<String>) {
        self.left_out.push((name.to_owned(), reason.into()));
    }
}

/// Lists the VMs of the resource group or subscription, or those with the given names.
pub(super) async fn list(reader: &ResourceReader<'_>) -> Result<UsableVms> {
    let found = match &reader.query.members {
        Members::Names(names) => named(reader, names).await?,
        _ => reader.all_vms().await?,
    };
    refuse_namesakes(&found)?;
    let mut listed = UsableVms::default();
    let usable = without_stopped(reader, found, &mut listed).await?;
    let wanted: Vec<ResourceId> = usable.iter().filter_map(|vm| vm.nic.clone()).collect();
    let nics = reader.nics(&wanted).await?;
    for vm in usable {
        let Some(id) = &vm.nic else {
            listed.leave_out(&vm.name, "has no network interface");
            continue;
        };
        let Some(nic) = nics.get(&id.key()) else {
            listed.leave_out(&vm.name, format!("has a network interface, {}, that does not exist", id.name()));
            continue;
        };
        match nic.address() {
            None => {
                let reason = format!("has no private IP address at its network interface {}", nic.name);
                listed.leave_out(&vm.name, reason);
            }
            Some(address) => {
                let (ip_address, nic_name) = (address.to_owned(), Some(nic.name.clone()));
                listed.vms.push(Vm { name: vm.name, ip_address, nic_name, weight: 1 });
            }
        }
    }
    Ok(listed)
}

/// Leaves out the VMs that are not running, unless all power states are wanted.
pub(super) async fn without_stopped(
    reader: &ResourceReader<'_>,
    vms: Vec<FoundVm>,
    listed: &mut UsableVms,
) -> Result<Vec<FoundVm>> {
    if reader.query.power == PowerFilter::Any {
        return Ok(vms);
    }
    let unknown: Vec<ResourceId> = vms.iter().filter(|vm| vm.power.is_none()).map(|vm| vm.id.clone()).collect();
    let states = reader.power_states(&unknown).await?;
    let mut usable = Vec::new();
    for vm in vms {
        match vm.power.as_ref().or_else(|| states.get(&vm.id.key())).unwrap_or(&Power::Deleted).unusable() {
            None => usable.push(vm),
            Some(reason) => listed.leave_out(&vm.name, reason),
        }
    }
    Ok(usable)
}

async fn named(reader: &ResourceReader<'_>, names: &[String]) -> Result<Vec<FoundVm>> {
    let query = reader.query;
    let found = match &query.resource_group {
        Some(group) if names.len() <= FEW => {
            let one = |name: &String| {
                let id = vm_id(&query.subscription_id, group, name);
                async move { reader.vm(&id).await }
            };
            let found: Vec<Option<FoundVm>> = stream::iter(names).map(one).buffered(AT_ONCE).try_collect().await?;
            found.into_iter().flatten().collect()
        }
        _ => reader.all_vms().await?,
    };
    let mut by_name: HashMap<String, Vec<FoundVm>> = HashMap::new();
    for vm in found {
        by_name.entry(vm.name.to_lowercase()).or_default().push(vm);
    }
    let (mut wanted, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match by_name.remove(&name.to_lowercase()) {
            Some(vms) => wanted.extend(vms),
            None => missing.push(name.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(wanted);
    }
    let mut scope = format!("subscription {}", query.subscription_id);
    if let Some(group) = &query.resource_group {
        scope = format!("resource group {group} of {scope}");
    }
    let text = format!(
        "there is no VM {} in the {scope}: check that vm_names are right, and that the credential may see the VMs",
        missing.join(", ")
    );
    Err(Error::new(ErrorKind::NotFound, text))
}

/// Names are unique within a resource group only, and the selection state is kept by name.
fn refuse_namesakes(vms: &[FoundVm]) -> Result<()> {
    let mut seen: HashMap<String, &FoundVm> = HashMap::new();
    for vm in vms {
        if let Some(other) = seen.insert(vm.name.to_lowercase(), vm) {
            return Err(Error::invalid(format!(
                "there is a VM {} in resource group {} and in {}, and turns are kept by name: give resource_group",
                vm.name, other.id.resource_group, vm.id.resource_group
            )));
        }
    }
    Ok(())
}
