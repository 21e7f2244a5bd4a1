//! The parts of ARM's VMs, NICs and backend pools that an inventory needs. Field names: Microsoft's REST reference of
//! `Microsoft.Compute/virtualMachines` (2024-07-01) and `Microsoft.Network` (2024-05-01).

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::azure::ResourceId;
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
    /// The power state, such as `running` or `deallocated`; `None` while there is none.
    pub(super) fn power(&self) -> Option<String> {
        let codes = self.statuses.iter().map(|status| status.code.to_ascii_lowercase());
        codes.into_iter().find_map(|code| code.strip_prefix("powerstate/").map(str::to_owned))
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
