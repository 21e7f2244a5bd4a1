//! VMs, network interfaces and backend pools, and their representations in Resource Manager.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{LOAD_BALANCER, NETWORK_GROUP, RESOURCE_GROUP};

/// A VM.
#[derive(Debug, Clone)]
pub struct AzureVm {
    /// Its name.
    pub name: String,
    /// Its resource group.
    pub resource_group: String,
    /// `running`, `deallocated` and so on; empty: it has no power state.
    pub power: String,
    /// Its network interfaces.
    pub nics: Vec<AzureNic>,
}

/// A network interface.
#[derive(Debug, Clone)]
pub struct AzureNic {
    /// Its name.
    pub name: String,
    /// Its resource group.
    pub resource_group: String,
    /// Whether it is the VM's primary one.
    pub primary: bool,
    /// Name, private address and whether it is the primary one, of each IP configuration.
    pub configurations: Vec<(String, Option<IpAddr>, bool)>,
    /// Whether it does not exist although the VM refers to it.
    pub missing: bool,
}

/// A backend pool of the load balancer.
#[derive(Debug, Clone)]
pub struct AzurePool {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub members: PoolMembers,
}

/// The members of a pool.
#[derive(Debug, Clone)]
pub enum PoolMembers {
    /// The primary IP configurations of the VMs of these names.
    Nics(Vec<String>),
    /// Addresses.
    Addresses(Vec<IpAddr>),
    /// Ids of IP configurations, as they are.
    Ids(Vec<String>),
}

impl AzureVm {
    /// A running VM with one network interface, `NAME-nic`.
    pub fn new(name: &str, address: IpAddr) -> Self {
        Self {
            name: name.to_owned(),
            resource_group: RESOURCE_GROUP.to_owned(),
            power: "running".to_owned(),
            nics: vec![AzureNic::new(&format!("{name}-nic"), Some(address))],
        }
    }

    pub(super) fn id(&self, subscription: &str) -> String {
        id(subscription, &self.resource_group, "Microsoft.Compute/virtualMachines", &self.name)
    }

    /// The VM, with its power state where `view` says so.
    pub(super) fn describe(&self, subscription: &str, view: bool) -> Value {
        let only = self.nics.len() == 1;
        let nics: Vec<Value> = self
            .nics
            .iter()
            .map(|nic| {
                // Azure marks the primary one only where there are several, and often spells ids in another case.
                let id = nic.id(subscription).replace("/resourceGroups/", "/resourcegroups/");
                if only { json!({"id": id}) } else { json!({"id": id, "properties": {"primary": nic.primary}}) }
            })
            .collect();
        let mut vm = json!({
            "id": self.id(subscription), "name": self.name, "type": "Microsoft.Compute/virtualMachines", "location": "westeurope",
            "properties": {"provisioningState": "Succeeded", "networkProfile": {"networkInterfaces": nics}},
        });
        if view {
            vm["properties"]["instanceView"] = self.instance_view();
        }
        vm
    }

    /// The VM in a listing with `statusOnly`: with the resource group in capitals, as in Azure.
    pub(super) fn status(&self, subscription: &str) -> Value {
        let id = self.id(subscription).replace(&self.resource_group, &self.resource_group.to_uppercase());
        json!({"id": id, "name": self.name, "type": "Microsoft.Compute/virtualMachines", "location": "westeurope",
               "properties": {"instanceView": self.instance_view()}})
    }

    pub(super) fn instance_view(&self) -> Value {
        let mut statuses = vec![json!({"code": "ProvisioningState/succeeded", "level": "Info"})];
        if !self.power.is_empty() {
            statuses.push(json!({"code": format!("PowerState/{}", self.power), "level": "Info"}));
        }
        json!({ "statuses": statuses })
    }

    /// The configuration that pools refer to.
    fn pool_configuration(&self, subscription: &str) -> Option<String> {
        let nic = self.nics.iter().find(|nic| nic.primary)?;
        let (name, ..) = nic.configurations.iter().find(|(.., primary)| *primary)?;
        Some(format!("{}/ipConfigurations/{name}", nic.id(subscription)))
    }
}

impl AzureNic {
    /// The primary network interface, with one configuration of this address.
    pub fn new(name: &str, address: Option<IpAddr>) -> Self {
        Self {
            name: name.to_owned(),
            resource_group: RESOURCE_GROUP.to_owned(),
            primary: true,
            configurations: vec![("primary".to_owned(), address, true)],
            missing: false,
        }
    }

    pub(super) fn id(&self, subscription: &str) -> String {
        id(subscription, &self.resource_group, "Microsoft.Network/networkInterfaces", &self.name)
    }

    pub(super) fn describe(&self, subscription: &str, vm: &AzureVm) -> Value {
        let network = id(subscription, NETWORK_GROUP, "Microsoft.Network/virtualNetworks", "sandbox-vnet");
        let configurations: Vec<Value> = self
            .configurations
            .iter()
            .map(|(name, address, primary)| {
                let version = if address.is_some_and(|address| address.is_ipv6()) { "IPv6" } else { "IPv4" };
                json!({
                    "name": name, "id": format!("{}/ipConfigurations/{name}", self.id(subscription)),
                    "properties": {
                        "privateIPAddress": address, "privateIPAddressVersion": version, "primary": primary,
                        "privateIPAllocationMethod": "Static", "subnet": {"id": format!("{network}/subnets/default")},
                    },
                })
            })
            .collect();
        json!({
            "id": self.id(subscription), "name": self.name, "type": "Microsoft.Network/networkInterfaces", "location": "westeurope",
            "properties": {
                "primary": self.primary, "ipConfigurations": configurations, "virtualMachine": {"id": vm.id(subscription)},
            },
        })
    }
}

impl AzurePool {
    pub(super) fn describe(&self, subscription: &str, vms: &[AzureVm]) -> Value {
        let network = id(subscription, NETWORK_GROUP, "Microsoft.Network/virtualNetworks", "sandbox-vnet");
        let reference = |id: String| json!({"id": id});
        let (configurations, addresses): (Vec<Value>, Vec<Value>) = match &self.members {
            PoolMembers::Nics(names) => {
                let of = |name: &String| vms.iter().find(|vm| vm.name == *name)?.pool_configuration(subscription);
                let ids: Vec<String> = names.iter().filter_map(of).collect();
                let referred =
                    |id: &String| json!({"name": "a", "properties": {"networkInterfaceIPConfiguration": {"id": id}}});
                (ids.iter().cloned().map(reference).collect(), ids.iter().map(referred).collect())
            }
            PoolMembers::Ids(ids) => (ids.iter().cloned().map(reference).collect(), Vec::new()),
            PoolMembers::Addresses(addresses) => {
                let of = |address: &IpAddr| {
                    json!({"name": format!("address-{address}"),
                           "properties": {"ipAddress": address, "virtualNetwork": {"id": network}}})
                };
                (Vec::new(), addresses.iter().map(of).collect())
            }
        };
        let balancer = id(subscription, RESOURCE_GROUP, "Microsoft.Network/loadBalancers", LOAD_BALANCER);
        let mut properties = json!({"provisioningState": "Succeeded", "loadBalancerBackendAddresses": addresses});
        if !configurations.is_empty() {
            properties["backendIPConfigurations"] = Value::Array(configurations);
        }
        json!({"name": self.name, "id": format!("{balancer}/backendAddressPools/{}", self.name), "properties": properties})
    }
}

fn id(subscription: &str, group: &str, kind: &str, name: &str) -> String {
    format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{kind}/{name}")
}
