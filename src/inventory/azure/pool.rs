//! The members of a load balancer's backend pool, given by NIC or by IP address.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::arm::{FoundVm, Nics, ResourceReader};
use super::listing::{UsableVms, without_stopped};
use super::resources::{
    IpConfiguration, NETWORK, NETWORK_VERSION, NicResource, PoolAddressProperties, PoolResource, READ_POOLS, Resource,
    read,
};
use crate::azure::{ArmRequest, ResourceId, check_segment};
use crate::error::{Error, ErrorKind, Result};
use crate::inventory::Vm;

const POOL_KIND: &str = "backendAddressPools";

/// The id of `pool`: a full resource id, or `load balancer/pool` in the resource group.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for any other text.
pub(super) fn id(pool: &str, subscription: &str, group: Option<&str>) -> Result<ResourceId> {
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

/// Lists the pool's VMs.
pub(super) async fn list(reader: &ResourceReader<'_>) -> Result<UsableVms> {
    let super::Members::BackendPool(pool) = &reader.query.members else {
        return Err(Error::new(ErrorKind::Internal, "a backend pool was listed without its name"));
    };
    let id = id(pool, &reader.query.subscription_id, reader.query.resource_group.as_deref())?;
    let call = ArmRequest::get(id.path(), NETWORK_VERSION).needing(READ_POOLS);
    let pool: PoolResource = read("a backend pool", reader.arm.value(&call, reader.deadline).await?)?;
    let mut listed = UsableVms::default();
    let mut members = by_nic(reader, &pool, &mut listed).await?;
    members.extend(by_address(reader, &pool, &id, &members).await?);
    members.sort_by_cached_key(|member| (member.name.to_lowercase(), member.address.clone()));
    // A VM may be in the pool with several addresses; it has one turn.
    members.dedup_by_key(|member| member.vm.as_ref().map_or_else(|| member.address.clone(), ResourceId::key));
    refuse_namesakes(&members)?;
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
    let mut found: Vec<(&ResourceId, &NicResource, &IpConfiguration, &str)> = Vec::new();
    for id in &configurations {
        let Some(nic) = nics.get(&id.outermost().key()) else {
            listed.leave_out(id.outermost().name(), "is a network interface of the pool that does not exist");
            continue;
        };
        let name = id.part("ipConfigurations").unwrap_or_default();
        let configuration = nic.properties.ip_configurations.iter().find(|own| own.name.eq_ignore_ascii_case(name));
        match configuration.and_then(|own| Some((own, own.address()?))) {
            Some((own, address)) => found.push((id, nic, own, address)),
            None => listed.leave_out(&nic.name, format!("has no private IP address in its configuration {name}")),
        }
    }
    found.sort_by_key(|(_, _, own, address)| (address.contains(':'), own.properties.primary != Some(true)));
    for (_, nic, _, address) in found {
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
    let with_nic = |address: &PoolAddressProperties| address.nic_configuration.is_some();
    let wanted: Vec<(&str, &PoolAddressProperties)> = pool
        .properties
        .addresses
        .iter()
        .map(|address| &address.properties)
        .filter(|address| !with_nic(address))
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

fn refuse_namesakes(members: &[Member]) -> Result<()> {
    let mut seen: HashMap<String, &Member> = HashMap::new();
    for member in members {
        if let Some(other) = seen.insert(member.name.to_lowercase(), member) {
            return Err(Error::invalid(format!(
                "the backend pool has two VMs {}, at {} and at {}, and turns are kept by name: list them with vm_names and resource_group",
                member.name, other.address, member.address
            )));
        }
    }
    Ok(())
}
