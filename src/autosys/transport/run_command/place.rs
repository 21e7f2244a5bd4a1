//! In which resource group each VM is.

use std::collections::HashMap;

use serde_json::Value;
use tokio::sync::Mutex;

use super::{API_VERSION, vm_id};
use crate::azure::{ArmClient, Call, Deadline, ResourceId};
use crate::error::Result;

/// Knows the resource ids of VMs by name, without regard to case, as Azure does.
#[derive(Debug)]
pub(super) struct Places {
    subscription: String,
    group: Option<String>,
    /// What Resource Manager listed, where no group was given.
    listed: Mutex<HashMap<String, ResourceId>>,
}

impl Places {
    pub(super) fn new(subscription: &str, group: Option<&str>) -> Self {
        Self { subscription: subscription.to_owned(), group: group.map(str::to_owned), listed: Mutex::default() }
    }

    /// The id of the VM `name`; `None` where the subscription has no such VM, or several, of which none is guessed. A VM that is not known yet is looked for
    /// each time.
    ///
    /// # Errors
    /// Those of [`ArmClient::list`].
    pub(super) async fn of(&self, name: &str, arm: &ArmClient, deadline: Deadline) -> Result<Option<ResourceId>> {
        if let Some(group) = &self.group {
            return Ok(Some(vm_id(&self.subscription, group, name)));
        }
        let mut listed = self.listed.lock().await;
        if let Some(id) = listed.get(&name.to_lowercase()) {
            return Ok(Some(id.clone()));
        }
        let path = Call::listing_path(&self.subscription, None, "Microsoft.Compute", "virtualMachines");
        let call = Call::get(path, API_VERSION).needing("Microsoft.Compute/virtualMachines/read");
        let vms = arm.list(&call, deadline).await?;
        let mut named: HashMap<String, Option<ResourceId>> = HashMap::new();
        for id in vms.iter().filter_map(|vm| ResourceId::parse(vm.get("id").and_then(Value::as_str)?)) {
            named.entry(id.name().to_lowercase()).and_modify(|known| *known = None).or_insert(Some(id));
        }
        *listed = named.into_iter().filter_map(|(name, id)| Some((name, id?))).collect();
        Ok(listed.get(&name.to_lowercase()).cloned())
    }
}
