//! What all probes of a process share: threads for names, and limits on what they may take.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};
use tokio::sync::Semaphore;

use super::names::Names;

/// Probe callables at the same time. They run on threads that other work needs as well, and one that hangs keeps its
/// thread.
const CALLABLES: usize = 256;
/// Connections at the same time, whatever the system permits.
const MOST_CONNECTIONS: u32 = 4096;

pub(super) struct Shared {
    pub names: Arc<Names>,
    /// Connections that may be opened at the same time.
    pub connections: Semaphore,
    most_connections: u32,
    pub callables: Arc<Semaphore>,
}

impl Shared {
    /// With limits that go by what the system permits the process.
    pub(super) fn new(names: Arc<Names>, callables: usize) -> Self {
        // Half of the limit: the rest of the process needs descriptors, too.
        let half = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
        let most_connections = half.clamp(8, u64::from(MOST_CONNECTIONS)) as u32;
        Self {
            names,
            connections: Semaphore::new(most_connections as usize),
            most_connections,
            callables: Arc::new(Semaphore::new(callables)),
        }
    }

    /// All that [`Self::connections`] has.
    pub(super) fn most_connections(&self) -> u32 {
        self.most_connections
    }

    /// A process's own: in a forked child, whoever holds something of its parent never gives it back.
    pub(super) fn of_this_process() -> Arc<Self> {
        static SHARED: Mutex<Option<(u32, Arc<Shared>)>> = Mutex::new(None);
        let pid = std::process::id();
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shared {
            Some((owner, shared)) if *owner == pid => shared.clone(),
            _ => shared.insert((pid, Arc::new(Self::new(Names::of_the_system(), CALLABLES)))).1.clone(),
        }
    }
}
