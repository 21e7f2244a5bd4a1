//! Lists the VMs that can be used, with their addresses: those of a resource group or subscription, or the members of a load
//! balancer's backend pool, which are given by NIC or by IP address.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::arm::{
    AT_ONCE, COMPUTE, FEW, FoundVm, IpConfiguration, NETWORK, NETWORK_VERSION, NicResource, Nics,
    PoolAddressProperties, PoolResource, Power, READ_POOLS, Resource, ResourceReader, read,
};
use super::{Members, PowerFilter};
use crate::azure::{ArmRequest, ResourceId, check_segment};
use crate::error::{Error, ErrorKind, Result};
use crate::inventory::Vm;

const POOL_KIND: &str = "backendAddressPools";

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
        Members::BackendPool(pool) => return list_pool(reader, pool).await,
        Members::Names(names) => named(reader, names).await?,
        Members::All => reader.all_vms().await?,
    };
    // Names are unique within a resource group only, and the selection state is kept by name.
    if let Some((one, other)) = namesakes(&found, |vm| &vm.name) {
        return Err(Error::invalid(format!(
            "there is a VM {} in resource group {} and in {}, and turns are kept by name: give resource_group",
            other.name, one.id.resource_group, other.id.resource_group
        )));
    }
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
async fn without_stopped(
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
                let id = ResourceId::new(&query.subscription_id, group, COMPUTE, "virtualMachines", name);
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

/// The first two VMs of the same name, whose case does not matter.
fn namesakes<T>(vms: &[T], name: impl Fn(&T) -> &str) -> Option<(&T, &T)> {
    let mut seen: HashMap<String, &T> = HashMap::new();
    vms.iter().find_map(|vm| Some((seen.insert(name(vm).to_lowercase(), vm)?, vm)))
}

/// The id of `pool`: a full resource id, or `load balancer/pool` in the resource group.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for any other text.
pub(super) fn pool_id(pool: &str, subscription: &str, group: Option<&str>) -> Result<ResourceId> {
    let refuse = || {
        Error::invalid(format!(
            "backend_pool {pool:?} is not a pool: give \"load balancer/pool\" with resource_group, or the pool's resource id, which ends in \
             /loadBalancers/NAME/{POOL_KIND}/NAME"
        ))
    };
    if pool.starts_with('/') {
        let id = ResourceId::parse(pool).filter(|id| id.is(NETWORK, "loadBalancers") && id.parts.len() == 2);
        return id.filter(|id| id.part(POOL_KIND).is_some()).ok_or_else(refuse);
    }
    let (balancer, name) = pool.split_once('/').ok_or_else(refuse)?;
    let group = group.ok_or_else(refuse)?;
    check_segment("the load balancer", balancer)?;
    check_segment("the backend pool", name)?;
    let mut id = ResourceId::new(subscription, group, NETWORK, "loadBalancers", balancer);
    id.parts.push((POOL_KIND.to_owned(), name.to_owned()));
    Ok(id)
}

/// One member of the pool: a VM with the address that the load balancer sends to.
#[derive(Debug)]
struct Member {
    name: String,
    /// The VM, if it is one of Azure.
    vm: Option<ResourceId>,
    nic: Option<String>,
    address: String,
}

/// Lists the VMs of `pool`.
async fn list_pool(reader: &ResourceReader<'_>, pool: &str) -> Result<UsableVms> {
    let id = pool_id(pool, &reader.query.subscription_id, reader.query.resource_group.as_deref())?;
    let call = ArmRequest::get(id.path(), NETWORK_VERSION).needing(READ_POOLS);
    let pool: PoolResource = read("a backend pool", reader.arm.value(&call, reader.deadline).await?)?;
    let mut listed = UsableVms::default();
    let mut members = by_nic(reader, &pool, &mut listed).await?;
    members.extend(by_address(reader, &pool, &id, &members).await?);
    members.sort_by_cached_key(|member| (member.name.to_lowercase(), member.address.clone()));
    // A VM may be in the pool with several addresses; it has one turn.
    members.dedup_by_key(|member| member.vm.as_ref().map_or_else(|| member.address.clone(), ResourceId::key));
    if let Some((one, other)) = namesakes(&members, |member| &member.name) {
        return Err(Error::invalid(format!(
            "the backend pool has two VMs {}, at {} and at {}, and turns are kept by name: list them with vm_names and resource_group",
            other.name, one.address, other.address
        )));
    }
    let found = members.iter().filter_map(|member| {
        let id = member.vm.clone()?;
        Some(FoundVm { id, name: member.name.clone(), nic: None, power: None })
    });
    let usable = without_stopped(reader, found.collect(), &mut listed).await?;
    let usable: HashSet<String> = usable.into_iter().map(|vm| vm.id.key()).collect();
    for member in members {
        // An address without a VM of this subscription has no power state.
        if member.vm.as_ref().is_none_or(|id| usable.contains(&id.key())) {
            listed.vms.push(Vm { name: member.name, ip_address: member.address, nic_name: member.nic, weight: 1 });
        }
    }
    Ok(listed)
}

/// The members given by NIC and IP configuration.
async fn by_nic(reader: &ResourceReader<'_>, pool: &PoolResource, listed: &mut UsableVms) -> Result<Vec<Member>> {
    let referred = pool.properties.addresses.iter().filter_map(|address| address.properties.nic_configuration.as_ref());
    let mut seen = HashSet::new();
    let mut configurations = Vec::new();
    for reference in pool.properties.backend_ip_configurations.iter().chain(referred) {
        let Some(id) = reference.resource_id() else { continue };
        if !seen.insert(id.key()) {
            continue;
        }
        if id.is(NETWORK, "networkInterfaces") {
            configurations.push(id);
        } else {
            let instance = id.parts.iter().take(2).map(|(_, name)| name.as_str()).collect::<Vec<_>>().join("/");
            listed.leave_out(&instance, "belongs to a uniform scale set, whose instances are no VMs of their own");
        }
    }
    let mut nics: Vec<ResourceId> = configurations.iter().map(ResourceId::outermost).collect();
    nics.sort_by_cached_key(ResourceId::key);
    nics.dedup();
    let nics = reader.nics(&nics).await?;
    let mut members = Vec::new();
    // Of several configurations of one VM the first counts: IPv4 before IPv6, and the primary one first.
    let mut found: Vec<(&NicResource, &IpConfiguration, &str)> = Vec::new();
    for id in &configurations {
        let Some(nic) = nics.get(&id.outermost().key()) else {
            listed.leave_out(id.outermost().name(), "is a network interface of the pool that does not exist");
            continue;
        };
        let name = id.part("ipConfigurations").unwrap_or_default();
        let configuration = nic.properties.ip_configurations.iter().find(|own| own.name.eq_ignore_ascii_case(name));
        match configuration.and_then(|own| Some((own, own.address()?))) {
            Some((own, address)) => found.push((nic, own, address)),
            None => listed.leave_out(&nic.name, format!("has no private IP address in its configuration {name}")),
        }
    }
    found.sort_by_key(|(_, own, address)| (address.contains(':'), own.properties.primary != Some(true)));
    for (nic, _, address) in found {
        match nic.vm() {
            None => listed.leave_out(&nic.name, "is a network interface without a VM"),
            Some(vm) if members.iter().any(|member: &Member| member.vm.as_ref() == Some(&vm)) => {}
            Some(vm) => members.push(Member {
                name: vm.name().to_owned(),
                vm: Some(vm),
                nic: Some(nic.name.clone()),
                address: address.to_owned(),
            }),
        }
    }
    Ok(members)
}

/// The members given by address alone: their VMs are those whose NICs have these addresses.
async fn by_address(
    reader: &ResourceReader<'_>,
    pool: &PoolResource,
    id: &ResourceId,
    known: &[Member],
) -> Result<Vec<Member>> {
    let wanted: Vec<(&str, &PoolAddressProperties)> = pool
        .properties
        .addresses
        .iter()
        .map(|address| &address.properties)
        .filter(|address| address.nic_configuration.is_none())
        .filter_map(|address| Some((address.ip_address.as_deref().map(str::trim)?, address)))
        .filter(|(ip, _)| !ip.is_empty() && !known.iter().any(|member| same_address(&member.address, ip)))
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let nics = match reader.nics_in(&id.subscription, None).await {
        // The credential may have rights in the load balancer's resource group alone.
        Err(error) if error.kind() == ErrorKind::Authentication => {
            reader.nics_in(&id.subscription, Some(&id.resource_group)).await?
        }
        outcome => outcome?,
    };
    Ok(wanted.into_iter().map(|(ip, address)| at_address(&nics, ip, address)).collect())
}

fn at_address(nics: &Nics, ip: &str, address: &PoolAddressProperties) -> Member {
    let network = address.virtual_network.as_ref().and_then(Resource::resource_id);
    // The same private addresses are used in many networks.
    let in_network = |own: &IpConfiguration| {
        let subnet = own.properties.subnet.as_ref().and_then(Resource::resource_id);
        match (&network, subnet) {
            (Some(network), Some(subnet)) => subnet.outermost() == *network,
            _ => true,
        }
    };
    let has = |nic: &&NicResource| {
        let own = nic.properties.ip_configurations.iter();
        own.filter(|own| in_network(own)).filter_map(IpConfiguration::address).any(|own| same_address(own, ip))
    };
    let mut owners: Vec<&NicResource> = nics.values().filter(|nic| nic.vm().is_some()).filter(has).collect();
    owners.sort_by_key(|nic| nic.id.to_lowercase());
    // With two owners it is not known which VM has the address, and the address alone is right in both cases.
    match owners.as_slice() {
        [nic] => {
            let vm = nic.vm();
            let name = vm.as_ref().map_or_else(|| ip.to_owned(), |vm| vm.name().to_owned());
            Member { name, vm, nic: Some(nic.name.clone()), address: ip.to_owned() }
        }
        _ => Member { name: ip.to_owned(), vm: None, nic: None, address: ip.to_owned() },
    }
}

fn same_address(one: &str, other: &str) -> bool {
    match (one.trim().parse::<IpAddr>(), other.trim().parse::<IpAddr>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one.trim().eq_ignore_ascii_case(other.trim()),
    }
}
