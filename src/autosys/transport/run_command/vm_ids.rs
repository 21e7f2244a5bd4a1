//! The resource ids of VMs.

use std::collections::HashMap;

use serde_json::Value;
use tokio::sync::Mutex;

use super::API_VERSION;
use crate::azure::{ArmClient, ArmRequest, Deadline, ResourceId};
use crate::error::Result;

/// Finds the resource ids of VMs by name, ignoring case as Azure does.
#[derive(Debug)]
pub(super) struct VmIds {
    subscription: String,
    group: Option<String>,
    /// The VMs that Resource Manager listed, when no group was given.
    listed: Mutex<HashMap<String, ResourceId>>,
}

impl VmIds {
    pub(super) fn new(subscription: &str, group: Option<&str>) -> Self {
        Self { subscription: subscription.to_owned(), group: group.map(str::to_owned), listed: Mutex::default() }
    }

    /// The id of the VM `name`; `None` when the subscription has no such VM, or several. A VM that is not known yet is looked
    /// up each time.
    ///
    /// # Errors
    /// Those of [`ArmClient::list`].
    pub(super) async fn find(&self, name: &str, arm: &ArmClient, deadline: Deadline) -> Result<Option<ResourceId>> {
        if let Some(group) = &self.group {
            let id = ResourceId::new(&self.subscription, group, "Microsoft.Compute", "virtualMachines", name);
            return Ok(Some(id));
        }
        let mut listed = self.listed.lock().await;
        if let Some(id) = listed.get(&name.to_lowercase()) {
            return Ok(Some(id.clone()));
        }
        let path = ArmRequest::listing_path(&self.subscription, None, "Microsoft.Compute", "virtualMachines");
        let request = ArmRequest::get(path, API_VERSION).needing("Microsoft.Compute/virtualMachines/read");
        let vms = arm.list(&request, deadline).await?;
        let mut named: HashMap<String, Option<ResourceId>> = HashMap::new();
        for id in vms.iter().filter_map(|vm| ResourceId::parse(vm.get("id").and_then(Value::as_str)?)) {
            named.entry(id.name().to_lowercase()).and_modify(|known| *known = None).or_insert(Some(id));
        }
        *listed = named.into_iter().filter_map(|(name, id)| Some((name, id?))).collect();
        Ok(listed.get(&name.to_lowercase()).cloned())
    }
}
