//! A queue for each VM: Azure runs one command at a time on a VM, and the commands of this process wait here.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use tokio::sync::OwnedMutexGuard;

use crate::azure::ResourceId;
use crate::runtime::lock;

type VmQueue = tokio::sync::Mutex<()>;
type VmQueues = HashMap<(u32, String), Weak<VmQueue>>;

/// The key has the process id, because a forked child must not wait for threads of its parent.
static QUEUES: LazyLock<Mutex<VmQueues>> = LazyLock::new(Mutex::default);

/// Waits for the turn on `vm`, in the order of the calls. The turn ends when the guard is dropped.
pub(super) async fn wait_for_turn(vm: &ResourceId) -> OwnedMutexGuard<()> {
    queue(vm).lock_owned().await
}

fn queue(vm: &ResourceId) -> Arc<VmQueue> {
    let mut queues = lock(&QUEUES);
    queues.retain(|_, queue| queue.strong_count() > 0);
    let key = (std::process::id(), vm.key());
    if let Some(queue) = queues.get(&key).and_then(Weak::upgrade) {
        return queue;
    }
    let queue = Arc::new(VmQueue::default());
    queues.insert(key, Arc::downgrade(&queue));
    queue
}
