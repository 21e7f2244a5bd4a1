//! The resource ids of VMs, and a queue for each: Azure runs one command at a time on a VM, and the commands of this process wait here.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::API_VERSION;
use crate::azure::{ArmClient, ArmRequest, Deadline, ResourceId};
use crate::error::Result;
use crate::runtime::lock;

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

type VmQueue = Mutex<()>;
type VmQueues = HashMap<(u32, String), Weak<VmQueue>>;

/// The key has the process id, because a forked child must not wait for threads of its parent.
static QUEUES: LazyLock<std::sync::Mutex<VmQueues>> = LazyLock::new(std::sync::Mutex::default);

/// Waits for the turn on `vm`, in the order of the calls. The turn ends when the guard is dropped.
pub(super) async fn wait_for_turn(vm: &ResourceId) -> OwnedMutexGuard<()> {
    queue(vm).lock_owned().await
}

fn queue(vm: &ResourceId) -> Arc<VmQueue> {
    let mut queues = lock(&QUEUES);
    queues.retain(|_, queue| queue.strong_count() > 0);
    let key = (std::process::id(), vm.key());
    let queue = queues.get(&key).and_then(Weak::upgrade).unwrap_or_default();
    queues.insert(key, Arc::downgrade(&queue));
    queue
}
