//! What an inventory asks Resource Manager for: VMs with their power states, and NICs. A few resources are asked for one by one,
//! many by a listing.
//!
//! Of VMs, NICs and backend pools only the parts are read that an inventory needs. Field names: Microsoft's REST reference of
//! `Microsoft.Compute/virtualMachines` (2024-07-01) and `Microsoft.Network` (2024-05-01).

use std::collections::{HashMap, HashSet};

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::AzureQuery;
use crate::azure::{ArmClient, ArmRequest, Deadline, ResourceId};
use crate::error::{Error, ErrorKind, Result};

/// Version of the compute interface. It is generally available, also in the sovereign clouds.
pub(super) const COMPUTE_VERSION: &str = "2024-07-01";
/// Version of the network interface.
pub(super) const NETWORK_VERSION: &str = "2024-05-01";
pub(super) const COMPUTE: &str = "Microsoft.Compute";
pub(super) const NETWORK: &str = "Microsoft.Network";
pub(super) const READ_VMS: &str = "Microsoft.Compute/virtualMachines/read";
pub(super) const READ_NICS: &str = "Microsoft.Network/networkInterfaces/read";
pub(super) const READ_POOLS: &str = "Microsoft.Network/loadBalancers/backendAddressPools/read";

/// Up to so many resources are asked for one by one; for more, all are listed.
pub(super) const FEW: usize = 8;
/// Requests under way at the same time.
pub(super) const AT_ONCE: usize = 8;

/// NICs by the keys of their ids.
pub(super) type Nics = HashMap<String, NicResource>;

/// The power state of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Power {
    /// `running`, `deallocated` and so on.
    State(String),
    /// It has none, as while it is being created.
    Unknown,
    /// The VM was deleted in the meantime.
    Deleted,
}

impl Power {
    /// Why a VM in this state cannot be used; `None` when it can.
    pub(super) fn unusable(&self) -> Option<String> {
        match self {
            Self::State(state) if state == "running" => None,
            Self::State(state) => Some(format!("is {state}")),
            Self::Unknown => Some("has no power state".to_owned()),
            Self::Deleted => Some("does not exist any more".to_owned()),
        }
    }
}

/// A VM that exists.
#[derive(Debug)]
pub(super) struct FoundVm {
    pub id: ResourceId,
    pub name: String,
    pub nic: Option<ResourceId>,
    /// `None`: not asked for yet.
    pub power: Option<Power>,
}

impl FoundVm {
    fn read(value: Value) -> Result<Self> {
        let vm: VmResource = read("a VM", value)?;
        let Some(id) = vm.resource_id() else {
            let text = format!("Resource Manager gave a VM the id {:?}, which is not a resource id", vm.id);
            return Err(Error::new(ErrorKind::Server, text));
        };
        let nic = vm.primary_nic();
        let power = vm.properties.instance_view.as_ref().map(InstanceView::power);
        let name = if vm.name.is_empty() { id.name().to_owned() } else { vm.name };
        Ok(Self { id, name, nic, power })
    }
}

/// Reads the resources of one query.
#[derive(Debug)]
pub(super) struct ResourceReader<'a> {
    pub arm: &'a ArmClient,
    pub query: &'a AzureQuery,
    pub deadline: Deadline,
}

impl ResourceReader<'_> {
    /// All VMs of the query's resource group or subscription, by name: Azure's order may differ from call to call.
    pub(super) async fn all_vms(&self) -> Result<Vec<FoundVm>> {
        let group = self.query.resource_group.as_deref();
        let path = ArmRequest::listing_path(&self.query.subscription_id, group, COMPUTE, "virtualMachines");
        let call = ArmRequest::get(path, COMPUTE_VERSION).needing(READ_VMS);
        let items = self.arm.list(&call, self.deadline).await?;
        let mut found = items.into_iter().map(FoundVm::read).collect::<Result<Vec<_>>>()?;
        found.sort_by_cached_key(|vm| (vm.name.to_lowercase(), vm.id.key()));
        Ok(found)
    }

    /// One VM with its power state; `None` when there is none of this id.
    pub(super) async fn vm(&self, id: &ResourceId) -> Result<Option<FoundVm>> {
        let call = ArmRequest::get(id.path(), COMPUTE_VERSION).query("$expand", "instanceView").needing(READ_VMS);
        match self.arm.value(&call, self.deadline).await {
            Ok(value) => FoundVm::read(value).map(Some),
            // A resource group or subscription that does not exist is a different error.
            Err(error) if error.kind() == ErrorKind::NotFound && !is_about_scope(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The power states of these VMs by the keys of their ids, without VMs that were deleted.
    pub(super) async fn power_states(&self, vms: &[ResourceId]) -> Result<HashMap<String, Power>> {
        if vms.len() > FEW {
            match self.listed_power_states(vms).await {
                // There is no such listing for one resource group, and the credential may have rights in that alone.
                Err(error) if error.kind() == ErrorKind::Authentication => {}
                outcome => return outcome,
            }
        }
        // Owned ids: a future that borrows through a closure cannot be sent to another thread.
        let state = |id: ResourceId| async move { Ok::<_, Error>((id.key(), self.vm(&id).await?)) };
        let states: Vec<_> = stream::iter(vms.to_vec()).map(state).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(states.into_iter().filter_map(|(key, vm)| Some((key, vm?.power.unwrap_or(Power::Unknown)))).collect())
    }

    async fn listed_power_states(&self, vms: &[ResourceId]) -> Result<HashMap<String, Power>> {
        let subscriptions: HashSet<String> = vms.iter().map(|id| id.subscription.to_lowercase()).collect();
        let mut states = HashMap::new();
        for subscription in subscriptions {
            let path = ArmRequest::listing_path(&subscription, None, COMPUTE, "virtualMachines");
            let call = ArmRequest::get(path, COMPUTE_VERSION).query("statusOnly", "true").needing(READ_VMS);
            for item in self.arm.list(&call, self.deadline).await? {
                let vm: VmResource = read("a VM's status", item)?;
                if let Some(id) = vm.resource_id() {
                    states.insert(id.key(), vm.properties.instance_view.unwrap_or_default().power());
                }
            }
        }
        Ok(states)
    }

    /// These NICs, of any resource group, without those that do not exist.
    pub(super) async fn nics(&self, ids: &[ResourceId]) -> Result<Nics> {
        let mut groups: HashMap<(String, String), Vec<&ResourceId>> = HashMap::new();
        for id in ids {
            groups.entry((id.subscription.to_lowercase(), id.resource_group.to_lowercase())).or_default().push(id);
        }
        let mut found = Nics::new();
        let mut single = Vec::new();
        for members in groups.into_values() {
            let Some(first) = members.first().filter(|_| members.len() > FEW) else {
                single.extend(members);
                continue;
            };
            match self.nics_in(&first.subscription, Some(&first.resource_group)).await {
                Ok(listed) => {
                    // A NIC that was created while the pages were read is asked for by itself.
                    single.extend(members.iter().filter(|id| !listed.contains_key(&id.key())));
                    found.extend(listed);
                }
                Err(error) if error.kind() == ErrorKind::Authentication => single.extend(members),
                Err(error) => return Err(error),
            }
        }
        let nic = |id: ResourceId| async move { self.nic(&id).await };
        let single = single.into_iter().cloned().collect::<Vec<_>>();
        let nics: Vec<_> = stream::iter(single).map(nic).buffer_unordered(AT_ONCE).try_collect().await?;
        found.extend(nics.into_iter().flatten());
        Ok(found)
    }

    /// All NICs of a resource group, or of a subscription.
    pub(super) async fn nics_in(&self, subscription: &str, group: Option<&str>) -> Result<Nics> {
        let path = ArmRequest::listing_path(subscription, group, NETWORK, "networkInterfaces");
        let call = ArmRequest::get(path, NETWORK_VERSION).needing(READ_NICS);
        let items = self.arm.list(&call, self.deadline).await?;
        let nics = items.into_iter().map(read_nic).collect::<Result<Vec<_>>>()?;
        Ok(nics.into_iter().filter_map(|nic| Some((nic.resource_id()?.key(), nic))).collect())
    }

    async fn nic(&self, id: &ResourceId) -> Result<Option<(String, NicResource)>> {
        let call = ArmRequest::get(id.path(), NETWORK_VERSION).needing(READ_NICS);
        match self.arm.value(&call, self.deadline).await {
            Ok(value) => Ok(Some((id.key(), read_nic(value)?))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_about_scope(error: &Error) -> bool {
    let text = error.to_string();
    [": ResourceGroupNotFound", ": SubscriptionNotFound", ": InvalidSubscriptionId"]
        .iter()
        .any(|code| text.contains(code))
}

fn read_nic(value: Value) -> Result<NicResource> {
    let mut nic: NicResource = read("a network interface", value)?;
    if nic.name.is_empty() {
        nic.name = nic.resource_id().map(|id| id.name().to_owned()).unwrap_or_default();
    }
    Ok(nic)
}

/// The parts that all resources have. `P` is what matters of the properties.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Resource<P> {
    pub id: String,
    pub name: String,
    pub properties: P,
}

/// `{"id": …}`, as ARM refers to other resources.
pub(super) type Reference = Resource<IgnoredAny>;
pub(super) type VmResource = Resource<VmProperties>;
pub(super) type NicResource = Resource<NicProperties>;
pub(super) type IpConfiguration = Resource<IpProperties>;
pub(super) type PoolResource = Resource<PoolProperties>;

impl<P> Resource<P> {
    pub(super) fn resource_id(&self) -> Option<ResourceId> {
        ResourceId::parse(&self.id)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct VmProperties {
    network_profile: NetworkProfile,
    pub instance_view: Option<InstanceView>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NetworkProfile {
    network_interfaces: Vec<Resource<Option<PrimaryFlag>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PrimaryFlag {
    primary: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InstanceView {
    statuses: Vec<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    code: String,
}

impl InstanceView {
    fn power(&self) -> Power {
        let mut codes = self.statuses.iter().map(|status| status.code.to_ascii_lowercase());
        let state = codes.find_map(|code| code.strip_prefix("powerstate/").map(str::to_owned));
        state.map_or(Power::Unknown, Power::State)
    }
}

impl VmResource {
    /// The id of the primary NIC: the one that is marked, else the first.
    pub(super) fn primary_nic(&self) -> Option<ResourceId> {
        let nics = &self.properties.network_profile.network_interfaces;
        let marked = nics.iter().find(|nic| nic.properties.as_ref().is_some_and(|flag| flag.primary == Some(true)));
        marked.or(nics.first())?.resource_id()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NicProperties {
    pub ip_configurations: Vec<IpConfiguration>,
    pub virtual_machine: Option<Reference>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct IpProperties {
    #[serde(rename = "privateIPAddress")]
    private_ip_address: Option<String>,
    pub primary: Option<bool>,
    pub subnet: Option<Reference>,
}

impl IpConfiguration {
    pub(super) fn address(&self) -> Option<&str> {
        self.properties.private_ip_address.as_deref().map(str::trim).filter(|address| !address.is_empty())
    }
}

impl NicResource {
    /// The address of the VM: IPv4 before IPv6, of these the primary configuration, else the first.
    pub(super) fn address(&self) -> Option<&str> {
        let configurations = self.properties.ip_configurations.iter();
        let addresses = configurations.filter_map(|own| Some((own.address()?, own.properties.primary)));
        addresses.min_by_key(|(address, primary)| (address.contains(':'), *primary != Some(true))).map(|(own, _)| own)
    }

    /// The VM that it belongs to.
    pub(super) fn vm(&self) -> Option<ResourceId> {
        self.properties.virtual_machine.as_ref()?.resource_id()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PoolProperties {
    #[serde(rename = "backendIPConfigurations")]
    pub backend_ip_configurations: Vec<Reference>,
    #[serde(rename = "loadBalancerBackendAddresses")]
    pub addresses: Vec<Resource<PoolAddressProperties>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PoolAddressProperties {
    pub ip_address: Option<String>,
    pub virtual_network: Option<Reference>,
    #[serde(rename = "networkInterfaceIPConfiguration")]
    pub nic_configuration: Option<Reference>,
}

/// Reads a resource.
pub(super) fn read<T: DeserializeOwned>(what: &str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| {
        let text = format!("Resource Manager described {what} in a form that this version of jobrota does not support");
        Error::new(ErrorKind::Server, text).with_source(e)
    })
}
