//! Name resolution, with a time limit of its own and a limited number of threads: a resolver that hangs cannot be interrupted.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::attempt::ProbeDeadline;
use crate::runtime::lock;

/// Names that are looked up at the same time.
const THREADS: usize = 64;
/// Addresses of a host name that are used: a name seldom has more than one per family and interface.
const MAX_ADDRESSES: usize = 4;

/// The addresses behind a name, in the resolver's order.
pub(super) type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Addresses with a port of 0, or why there are none.
type ResolvedAddresses = Result<Vec<SocketAddr>, String>;

/// Looks up names. Each name is looked up once at a time.
pub(super) struct NameResolver {
    lookup: Box<Lookup>,
    threads: usize,
    work: Mutex<LookupQueue>,
}

#[derive(Default)]
struct LookupQueue {
    /// Names that no thread has taken up yet.
    queue: VecDeque<String>,
    /// The probes that wait for a name, queued or being looked up.
    waiting: HashMap<String, Vec<oneshot::Sender<ResolvedAddresses>>>,
    threads: usize,
}

impl NameResolver {
    /// Uses the system's resolver: /etc/hosts, DNS and its other sources.
    pub(super) fn of_the_system() -> Arc<Self> {
        Self::new(THREADS, Box::new(|host| Ok((host, 0).to_socket_addrs()?.collect())))
    }

    /// Calls `lookup` on up to `threads` threads, which end when the queue is empty.
    pub(super) fn new(threads: usize, lookup: Box<Lookup>) -> Arc<Self> {
        Arc::new(Self { lookup, threads, work: Mutex::default() })
    }

    /// The addresses behind a host name or an IP address (with or without an interface, as in `fe80::1%eth0`), each
    /// once. Takes at most half of the time limit: the other half is for the probe, and the reason distinguishes a slow
    /// resolver from a host that does not answer.
    pub(super) async fn resolve(self: &Arc<Self>, host: &str, deadline: ProbeDeadline) -> ResolvedAddresses {
        if let Ok(address) = host.parse::<IpAddr>() {
            return usable(host, vec![SocketAddr::new(address, 0)]);
        }
        let limit = deadline.first_half();
        match limit.limit(self.ask(host)).await {
            Some(Ok(Ok(found))) => usable(host, found),
            Some(Ok(Err(reason))) => Err(format!("the name \"{host}\" could not be resolved: {reason}")),
            Some(Err(_)) => Err(format!("the name \"{host}\" could not be resolved: the resolver stopped")),
            None => Err(format!(
                "the name \"{host}\" could not be resolved within {limit} (half of the time limit of {deadline})"
            )),
        }
    }

    /// Waits for the lookup of `host` that is under way, or starts one.
    fn ask(self: &Arc<Self>, host: &str) -> oneshot::Receiver<ResolvedAddresses> {
        let (sender, answer) = oneshot::channel();
        let mut work = lock(&self.work);
        if let Some(waiting) = work.waiting.get_mut(host) {
            // While a resolver hangs, probes that have ended must not accumulate.
            waiting.retain(|sender| !sender.is_closed());
            waiting.push(sender);
            return answer;
        }
        work.waiting.insert(host.to_owned(), vec![sender]);
        work.queue.push_back(host.to_owned());
        if work.threads < self.threads {
            work.threads += 1;
            drop(work);
            let names = self.clone();
            let started = std::thread::Builder::new().name("jobrota-names".to_owned()).spawn(move || names.run());
            if let Err(e) = started {
                let mut work = lock(&self.work);
                work.threads -= 1;
                // Another thread looks it up, if there is one.
                if work.threads == 0 {
                    work.queue.clear();
                    for sender in work.waiting.drain().flat_map(|(_, senders)| senders) {
                        // The probe may have ended.
                        let _ = sender.send(Err(format!("no thread could be started ({e})")));
                    }
                }
            }
        }
        answer
    }

    /// Looks up names until the queue is empty.
    fn run(&self) {
        loop {
            let mut work = lock(&self.work);
            let Some(host) = work.queue.pop_front() else {
                work.threads -= 1;
                return;
            };
            if work.waiting.get(&host).is_none_or(|waiting| waiting.iter().all(oneshot::Sender::is_closed)) {
                work.waiting.remove(&host);
                continue;
            }
            drop(work);
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.lookup)(&host)))
                .unwrap_or_else(|_| Err(io::Error::other("the resolver stopped")))
                .map_err(|e| e.to_string());
            for sender in lock(&self.work).waiting.remove(&host).into_iter().flatten() {
                // The probe may have ended.
                let _ = sender.send(found.clone());
            }
        }
    }
}

/// The addresses of `found` that packets can be sent to, each once.
fn usable(host: &str, found: Vec<SocketAddr>) -> ResolvedAddresses {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut without_interface = None;
    for address in found {
        let address = match (address.ip().to_canonical(), address) {
            (IpAddr::V6(ip), SocketAddr::V6(whole)) => SocketAddrV6::new(ip, 0, 0, whole.scope_id()).into(),
            (ip, _) => SocketAddr::new(ip, 0),
        };
        if let SocketAddr::V6(v6) = &address
            && v6.ip().is_unicast_link_local()
            && v6.scope_id() == 0
        {
            without_interface = Some(*v6.ip());
        } else if !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    match without_interface {
        _ if !addresses.is_empty() => Ok(addresses),
        Some(ip) => Err(format!(
            "{ip} is a link-local address, of which every network interface has its own: name the interface, as in {ip}%eth0"
        )),
        None => Err(format!("the name \"{host}\" has no address")),
    }
}
