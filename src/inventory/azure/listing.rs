//! The VMs of a resource group or subscription: which there are, which are running, and their NICs.

use std::collections::HashMap;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::network;
use super::power::{self, Power};
use super::resources::{COMPUTE, COMPUTE_VERSION, READ_VMS, VmResource, read};
use super::{AzureQuery, Members, PowerFilter, vm_id};
use crate::azure::{ArmClient, ArmRequest, Deadline, ResourceId};
use crate::error::{Error, ErrorKind, Result};
use crate::inventory::Vm;

/// Up to so many resources are asked for one by one; for more, all are listed.
pub(super) const FEW: usize = 8;
/// Requests under way at the same time.
pub(super) const AT_ONCE: usize = 8;

/// What a listing found.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub vms: Vec<Vm>,
    /// VMs that are not among these, each with the reason.
    pub left_out: Vec<(String, String)>,
}

impl Listed {
    pub(super) fn leave_out(&mut self, name: &str, reason: impl Into<String>) {
        self.left_out.push((name.to_owned(), reason.into()));
    }
}

/// A VM of which it is known that it is there.
#[derive(Debug)]
pub(super) struct Candidate {
    pub id: ResourceId,
    pub name: String,
    pub nic: Option<ResourceId>,
    /// `None`: not asked for yet.
    pub power: Option<Power>,
}

impl Candidate {
    fn read(value: serde_json::Value) -> Result<Self> {
        let vm: VmResource = read("a VM", value)?;
        let Some(id) = ResourceId::parse(&vm.id) else {
            let text = format!("Resource Manager gave a VM the id {:?}, which is none", vm.id);
            return Err(Error::new(ErrorKind::Server, text));
        };
        let nic = vm.primary_nic();
        let power = vm.properties.instance_view.as_ref().map(|view| Power::of(view.power()));
        let name = if vm.name.is_empty() { id.name().to_owned() } else { vm.name };
        Ok(Self { id, name, nic, power })
    }
}

/// One listing.
#[derive(Debug)]
pub(super) struct Lister<'a> {
    pub arm: &'a ArmClient,
    pub query: &'a AzureQuery,
    pub deadline: Deadline,
}

impl Lister<'_> {
    /// Lists the VMs of the resource group or subscription, those of the names given where there are some.
    pub(super) async fn list(&self) -> Result<Listed> {
        let candidates = match &self.query.members {
            Members::Names(names) => self.named(names).await?,
            _ => self.all().await?,
        };
        refuse_namesakes(&candidates)?;
        let mut listed = Listed::default();
        let usable = self.powered(candidates, &mut listed).await?;
        let wanted: Vec<ResourceId> = usable.iter().filter_map(|vm| vm.nic.clone()).collect();
        let nics = network::nics(self, &wanted).await?;
        for vm in usable {
            let nic = vm.nic.as_ref().map(|id| (id, nics.get(&id.key())));
            match nic {
                None => listed.leave_out(&vm.name, "has no network interface"),
                Some((id, None)) => {
                    listed.leave_out(&vm.name, format!("has a network interface, {}, that does not exist", id.name()))
                }
                Some((_, Some(nic))) => match nic.address() {
                    None => listed.leave_out(
                        &vm.name,
                        format!("has no private IP address at its network interface {}", nic.name),
                    ),
                    Some(address) => listed.vms.push(Vm {
                        name: vm.name,
                        ip_address: address.to_owned(),
                        nic_name: Some(nic.name.clone()),
                        weight: 1,
                    }),
                },
            }
        }
        Ok(listed)
    }

    /// Takes those that are not running out of `candidates`, unless they are wanted too.
    pub(super) async fn powered(&self, mut candidates: Vec<Candidate>, listed: &mut Listed) -> Result<Vec<Candidate>> {
        if self.query.power == PowerFilter::Any {
            return Ok(candidates);
        }
        let unknown: Vec<ResourceId> =
            candidates.iter().filter(|vm| vm.power.is_none()).map(|vm| vm.id.clone()).collect();
        let states = power::states(self, &unknown).await?;
        let mut usable = Vec::new();
        for vm in candidates.drain(..) {
            let power = vm.power.clone().or_else(|| states.get(&vm.id.key()).cloned()).unwrap_or(Power::Gone);
            match power.unusable() {
                None => usable.push(vm),
                Some(reason) => listed.leave_out(&vm.name, reason),
            }
        }
        Ok(usable)
    }

    /// All VMs of the scope, in order of their names: Azure's order may differ from call to call.
    async fn all(&self) -> Result<Vec<Candidate>> {
        let path = ArmRequest::listing_path(
            &self.query.subscription_id,
            self.query.resource_group.as_deref(),
            COMPUTE,
            "virtualMachines",
        );
        let call = ArmRequest::get(path, COMPUTE_VERSION).needing(READ_VMS);
        let items = self.arm.list(&call, self.deadline).await?;
        let mut found = items.into_iter().map(Candidate::read).collect::<Result<Vec<_>>>()?;
        found.sort_by_cached_key(|vm| (vm.name.to_lowercase(), vm.id.key()));
        Ok(found)
    }

    async fn named(&self, names: &[String]) -> Result<Vec<Candidate>> {
        let found = match &self.query.resource_group {
            Some(group) if names.len() <= FEW => {
                let one = |name: &String| {
                    let id = vm_id(&self.query.subscription_id, group, name);
                    async move { self.one(&id).await }
                };
                let found: Vec<Option<Candidate>> =
                    stream::iter(names).map(one).buffered(AT_ONCE).try_collect().await?;
                found.into_iter().flatten().collect()
            }
            _ => self.all().await?,
        };
        let mut by_name: HashMap<String, Vec<Candidate>> = HashMap::new();
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
        let mut scope = format!("subscription {}", self.query.subscription_id);
        if let Some(group) = &self.query.resource_group {
            scope = format!("resource group {group} of {scope}");
        }
        let text = format!(
            "there is no VM {} in the {scope}: see that vm_names are right, and that the credential may see the VMs",
            missing.join(", ")
        );
        Err(Error::new(ErrorKind::NotFound, text))
    }

    /// One VM with its power state; `None` when there is none of this id.
    pub(super) async fn one(&self, id: &ResourceId) -> Result<Option<Candidate>> {
        let call = ArmRequest::get(id.path(), COMPUTE_VERSION).query("$expand", "instanceView").needing(READ_VMS);
        match self.arm.value(&call, self.deadline).await {
            Ok(value) => Candidate::read(value).map(Some),
            // A resource group or subscription that is not there is not about this VM.
            Err(error) if error.kind() == ErrorKind::NotFound && !is_about_scope(&error) => Ok(None),
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

/// Names are unique in a resource group only, and turns are kept by name.
fn refuse_namesakes(candidates: &[Candidate]) -> Result<()> {
    let mut seen: HashMap<String, &Candidate> = HashMap::new();
    for vm in candidates {
        if let Some(other) = seen.insert(vm.name.to_lowercase(), vm) {
            return Err(Error::invalid(format!(
                "there is a VM {} in resource group {} and in {}, and turns are kept by name: give resource_group",
                vm.name, other.id.resource_group, vm.id.resource_group
            )));
        }
    }
    Ok(())
}
