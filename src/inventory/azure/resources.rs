//! The parts of ARM's VMs, NICs and backend pools that matter here. Field names: Microsoft's REST reference of
//! `Microsoft.Compute/virtualMachines` (2024-07-01) and `Microsoft.Network` (2024-05-01).

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::azure::ResourceId;
use crate::error::{Error, ErrorKind, Result};

/// Version of the compute interface. Generally available, and understood by the sovereign clouds too.
pub(super) const COMPUTE_VERSION: &str = "2024-07-01";
/// Version of the network interface.
pub(super) const NETWORK_VERSION: &str = "2024-05-01";
pub(super) const COMPUTE: &str = "Microsoft.Compute";
pub(super) const NETWORK: &str = "Microsoft.Network";
pub(super) const READ_VMS: &str = "Microsoft.Compute/virtualMachines/read";
pub(super) const READ_NICS: &str = "Microsoft.Network/networkInterfaces/read";
pub(super) const READ_POOLS: &str = "Microsoft.Network/loadBalancers/backendAddressPools/read";

/// `{"id": …}`, as ARM refers to other resources.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reference {
    pub id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct VmResource {
    pub id: String,
    pub name: String,
    pub properties: VmProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct VmProperties {
    pub network_profile: NetworkProfile,
    pub instance_view: Option<InstanceView>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NetworkProfile {
    pub network_interfaces: Vec<NicReference>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NicReference {
    pub id: String,
    pub properties: Option<NicReferenceProperties>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NicReferenceProperties {
    pub primary: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InstanceView {
    pub statuses: Vec<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub code: String,
}

impl InstanceView {
    /// `running`, `deallocated` and so on; `None` while there is no power state.
    pub(super) fn power(&self) -> Option<String> {
        const PREFIX: &str = "powerstate/";
        let code = |status: &Status| {
            let code = status.code.to_ascii_lowercase();
            code.strip_prefix(PREFIX).map(str::to_owned)
        };
        self.statuses.iter().find_map(code)
    }
}

impl VmResource {
    /// The id of the primary NIC: the one that says so, else the first.
    pub(super) fn primary_nic(&self) -> Option<ResourceId> {
        let nics = &self.properties.network_profile.network_interfaces;
        let is_primary = |nic: &&NicReference| nic.properties.as_ref().is_some_and(|p| p.primary == Some(true));
        ResourceId::parse(&nics.iter().find(is_primary).or(nics.first())?.id)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NicResource {
    pub id: String,
    pub name: String,
    pub properties: NicProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NicProperties {
    pub ip_configurations: Vec<IpConfiguration>,
    pub virtual_machine: Option<Reference>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct IpConfiguration {
    pub name: String,
    pub properties: IpProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct IpProperties {
    #[serde(rename = "privateIPAddress")]
    pub private_ip_address: Option<String>,
    pub primary: Option<bool>,
    pub subnet: Option<Reference>,
}

impl IpConfiguration {
    pub(super) fn address(&self) -> Option<&str> {
        self.properties.private_ip_address.as_deref().map(str::trim).filter(|address| !address.is_empty())
    }
}

impl NicResource {
    /// The address to reach the VM at: IPv4 before IPv6, of these the primary configuration, else the first.
    pub(super) fn address(&self) -> Option<&str> {
        let of = |config: &'_ IpConfiguration| config.address().map(|address| address.contains(':'));
        let with_address = self.properties.ip_configurations.iter().filter(|config| config.address().is_some());
        with_address.min_by_key(|config| (of(config), config.properties.primary != Some(true)))?.address()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PoolResource {
    pub properties: PoolProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PoolProperties {
    #[serde(rename = "backendIPConfigurations")]
    pub backend_ip_configurations: Vec<Reference>,
    #[serde(rename = "loadBalancerBackendAddresses")]
    pub addresses: Vec<PoolAddress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PoolAddress {
    pub properties: PoolAddressProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PoolAddressProperties {
    pub ip_address: Option<String>,
    pub virtual_network: Option<Reference>,
    #[serde(rename = "networkInterfaceIPConfiguration")]
    pub nic_configuration: Option<Reference>,
}

/// A resource in the shape that is expected.
pub(super) fn read<T: DeserializeOwned>(what: &str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| {
        let text = format!("Resource Manager described {what} in a way that this version of jobrota does not know");
        Error::new(ErrorKind::Server, text).with_source(e)
    })
}
