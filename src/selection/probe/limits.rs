//! What all probes of a process share: the resolver, and limits on connections and threads.

use std::sync::{Arc, Mutex};

use rustix::process::{Resource, getrlimit};
use tokio::sync::Semaphore;

use super::names::NameResolver;
use crate::runtime::lock;

/// Probe callables at the same time. They run on threads that other work uses too, and one that hangs keeps its thread.
const CALLABLES: usize = 256;
/// Connections at the same time, whatever the system permits.
const MOST_CONNECTIONS: u32 = 4096;

/// The limits of a process.
pub(super) struct ProcessLimits {
    pub names: Arc<NameResolver>,
    /// Connections that may be opened at the same time.
    pub connections: Semaphore,
    most_connections: u32,
    pub callables: Arc<Semaphore>,
}

impl ProcessLimits {
    /// The limits depend on the number of file descriptors that the process may have.
    pub(super) fn new(names: Arc<NameResolver>, callables: usize) -> Self {
        // Half of them: the rest of the process needs descriptors, too.
        let half = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
        let most_connections = half.clamp(8, u64::from(MOST_CONNECTIONS)) as u32;
        Self {
            names,
            connections: Semaphore::new(most_connections as usize),
            most_connections,
            callables: Arc::new(Semaphore::new(callables)),
        }
    }

    /// The capacity of [`Self::connections`].
    pub(super) fn most_connections(&self) -> u32 {
        self.most_connections
    }

    /// Those of this process. A forked child has limits of its own: what its parent holds is never released in the child.
    pub(super) fn of_this_process() -> Arc<Self> {
        static SHARED: Mutex<Option<(u32, Arc<ProcessLimits>)>> = Mutex::new(None);
        let pid = std::process::id();
        let mut shared = lock(&SHARED);
        match &*shared {
            Some((owner, shared)) if *owner == pid => shared.clone(),
            _ => shared.insert((pid, Arc::new(Self::new(NameResolver::of_the_system(), CALLABLES)))).1.clone(),
        }
    }
}
