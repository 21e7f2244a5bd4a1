//! Whose turn it is on a VM: Azure runs one command at a time there, and those of this process queue up for it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

use crate::azure::ResourceId;

type Queue = tokio::sync::Mutex<()>;
type Queues = HashMap<(u32, String), Weak<Queue>>;

/// By process as well: a child of a fork must not wait for its parent's threads, which it does not have.
static QUEUES: LazyLock<Mutex<Queues>> = LazyLock::new(Mutex::default);

/// Waits for the turn on `vm`, in the order of the calls; it is over when the guard is dropped.
pub(super) async fn of(vm: &ResourceId) -> OwnedMutexGuard<()> {
    queue(vm).lock_owned().await
}

fn queue(vm: &ResourceId) -> Arc<Queue> {
    let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
    queues.retain(|_, queue| queue.strong_count() > 0);
    let key = (std::process::id(), vm.key());
    if let Some(queue) = queues.get(&key).and_then(Weak::upgrade) {
        return queue;
    }
    let queue = Arc::new(Queue::default());
    queues.insert(key, Arc::downgrade(&queue));
    queue
}
