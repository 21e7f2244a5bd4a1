//! Power states: one VM at a time, or all of the subscription in one listing.

use std::collections::{HashMap, HashSet};

use futures::stream::{self, StreamExt, TryStreamExt};

use super::listing::{AT_ONCE, FEW, Lister};
use super::resources::{COMPUTE, COMPUTE_VERSION, READ_VMS, VmResource, read};
use crate::azure::{ArmRequest, ResourceId};
use crate::error::{ErrorKind, Result};

/// What is known of a VM's power state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Power {
    /// `running`, `deallocated` and so on.
    State(String),
    /// It has none, as while it is being made.
    Unknown,
    /// The VM was deleted in the meantime.
    Gone,
}

impl Power {
    pub(super) fn of(state: Option<String>) -> Self {
        state.map_or(Self::Unknown, Self::State)
    }

    /// Why a VM in this state cannot be used; `None` when it can.
    pub(super) fn unusable(&self) -> Option<String> {
        match self {
            Self::State(state) if state == "running" => None,
            Self::State(state) => Some(format!("is {state}")),
            Self::Unknown => Some("has no power state".to_owned()),
            Self::Gone => Some("does not exist any more".to_owned()),
        }
    }
}

/// The power states of these VMs by the keys of their ids; VMs that are gone are not among them.
pub(super) async fn states(lister: &Lister<'_>, vms: &[ResourceId]) -> Result<HashMap<String, Power>> {
    if vms.len() > FEW {
        match of_all(lister, vms).await {
            // There is no such listing for one resource group, and the credential may have rights in that alone.
            Err(error) if error.kind() == ErrorKind::Authentication => {}
            outcome => return outcome,
        }
    }
    one_by_one(lister, vms).await
}

async fn of_all(lister: &Lister<'_>, vms: &[ResourceId]) -> Result<HashMap<String, Power>> {
    let subscriptions: HashSet<String> = vms.iter().map(|id| id.subscription.to_lowercase()).collect();
    let mut states = HashMap::new();
    for subscription in subscriptions {
        let path = ArmRequest::listing_path(&subscription, None, COMPUTE, "virtualMachines");
        let call = ArmRequest::get(path, COMPUTE_VERSION).query("statusOnly", "true").needing(READ_VMS);
        for item in lister.arm.list(&call, lister.deadline).await? {
            let vm: VmResource = read("a VM's status", item)?;
            if let Some(id) = ResourceId::parse(&vm.id) {
                let view = vm.properties.instance_view.unwrap_or_default();
                states.insert(id.key(), Power::of(view.power()));
            }
        }
    }
    Ok(states)
}

async fn one_by_one(lister: &Lister<'_>, vms: &[ResourceId]) -> Result<HashMap<String, Power>> {
    let one = |id: &ResourceId| {
        let id = id.clone();
        async move { Ok::<_, crate::Error>((id.key(), lister.one(&id).await?)) }
    };
    let asked: Vec<_> = stream::iter(vms).map(one).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(asked.into_iter().filter_map(|(key, vm)| Some((key, vm?.power.unwrap_or(Power::Unknown)))).collect())
}
