//! Probes that check whether a VM answers: ICMP, TCP, HTTP or a callback, one or several at once, within one time limit.

mod attempt;
mod callback;
mod http;
mod icmp;
mod names;
mod tcp;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, Either, FutureExt, Shared};
use futures::stream::{FuturesUnordered, StreamExt};
use rustix::process::{Resource, getrlimit};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::attempt::{ProbeAttempt, ProbeDeadline};
pub use self::callback::ProbeCallback;
pub use self::http::HttpProbe;
pub use self::icmp::{IcmpSocket, IpFamily, icmp_sockets};
use self::names::NameResolver;
use crate::error::{Error, Result};
use crate::inventory::Vm;
use crate::runtime::lock;

/// The port that "auto" tries besides ICMP: jobs need SSH anyway.
const SSH_PORT: u16 = 22;

/// Probe callables at the same time. They run on threads that other work uses too, and one that hangs keeps its thread.
const CALLABLES: usize = 256;
/// Connections at the same time, whatever the system permits.
const MOST_CONNECTIONS: u32 = 4096;

/// How to check whether a VM answers.
#[derive(Clone)]
pub enum Probe {
    /// ICMP echo, on an unprivileged socket, else on a raw one. Where the system permits neither, the VM counts as
    /// unreachable, with that reason.
    Icmp,
    /// A TCP connection to this port. A refused connection counts as unreachable.
    Tcp(u16),
    /// A GET of a health address; 2xx and 3xx count as up.
    Http(HttpProbe),
    /// ICMP, and also TCP port 22 once ICMP has failed (this machine or a firewall may forbid it) or has had no answer for
    /// half of the time.
    Auto,
    /// A callback of the caller.
    Callback(Arc<ProbeCallback>),
    /// All of these at once; the first success wins.
    AnyOf(Vec<Probe>),
}

/// A probe that was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeOutcome {
    /// "icmp-dgram" (unprivileged socket), "icmp-raw", "tcp:PORT", "http", "https" or "callable".
    pub kind: String,
    /// From the start of this probe to its answer, without name resolution.
    pub rtt: Duration,
    /// The address that answered; a link-local one of IPv6 with its interface, as in "fe80::1%eth0".
    pub ip_address: String,
    /// The network interface: from the callback, else from the inventory.
    pub nic_name: Option<String>,
}

/// The outcome, or the reason why the VM counts as unreachable, as text for users.
pub type ProbeResult = std::result::Result<ProbeOutcome, String>;

/// What a probe needs: the VM, its addresses (resolved once, for all probes that need them) and the deadline.
struct Target<'a> {
    vm: &'a Vm,
    addresses: Shared<BoxFuture<'static, std::result::Result<Vec<SocketAddr>, String>>>,
    deadline: ProbeDeadline,
    limits: &'a ProcessLimits,
}

impl Probe {
    /// A probe that tries all of `probes` at once.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] when the list is empty.
    pub fn any_of(probes: Vec<Probe>) -> Result<Self> {
        if probes.is_empty() {
            return Err(Error::invalid("the list of probes is empty: give at least one, or \"auto\""));
        }
        Ok(Self::AnyOf(probes))
    }

    /// Probes `vm`. `timeout` includes name resolution (at most half of it). It does not include the wait for a file descriptor or
    /// thread while this process has none free.
    ///
    /// Every attempt is logged at level "debug", with the kind of probe, the VM, its address, the outcome and the time.
    ///
    /// # Errors
    /// The reason why the VM counts as unreachable.
    pub async fn check(&self, vm: &Vm, timeout: Duration) -> ProbeResult {
        let limits = ProcessLimits::of_this_process();
        let connections = u32::try_from(self.connections()).unwrap_or(u32::MAX);
        // The semaphore is never closed, so this is no error.
        let _permits = limits.connections.acquire_many(connections.min(limits.most_connections)).await.ok();
        self.check_with(&limits, vm, timeout).await
    }

    async fn check_with(&self, limits: &ProcessLimits, vm: &Vm, timeout: Duration) -> ProbeResult {
        let deadline = ProbeDeadline::after(timeout);
        let (names, host) = (limits.names.clone(), vm.ip_address.clone());
        let addresses = async move { names.resolve(&host, deadline).await };
        self.run(&Target { vm, addresses: addresses.boxed().shared(), deadline, limits }).await
    }

    /// How many connections it opens for an address at the same time.
    fn connections(&self) -> usize {
        match self {
            Self::Icmp | Self::Callback(_) => 0,
            Self::Tcp(_) | Self::Http(_) | Self::Auto => 1,
            Self::AnyOf(probes) => probes.iter().map(Self::connections).sum(),
        }
    }

    fn run<'a>(&'a self, target: &'a Target<'a>) -> BoxFuture<'a, ProbeResult> {
        match self {
            Self::Icmp => each_address(target, |address| icmp::echo(address, target.deadline).boxed()).boxed(),
            Self::Tcp(port) => {
                each_address(target, move |address| tcp::connect(address, *port, target.deadline).boxed()).boxed()
            }
            Self::Http(http) => {
                each_address(target, move |address| http.get(&target.vm.name, address, target.deadline).boxed()).boxed()
            }
            Self::Auto => auto(target).boxed(),
            Self::Callback(callback) => callback::call(callback.clone(), target).boxed(),
            Self::AnyOf(probes) => first_success(flat(probes).map(|probe| probe.run(target)).collect()).boxed(),
        }
    }
}

/// What all probes of a process share: the resolver, and limits on connections and threads.
struct ProcessLimits {
    names: Arc<NameResolver>,
    /// Connections that may be opened at the same time.
    connections: Semaphore,
    /// The capacity of `connections`.
    most_connections: u32,
    callables: Arc<Semaphore>,
}

impl ProcessLimits {
    /// The limits depend on the number of file descriptors that the process may have.
    fn new(names: Arc<NameResolver>, callables: usize) -> Self {
        // Half of them: the rest of the process needs descriptors, too.
        let half = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
        let most_connections = half.clamp(8, u64::from(MOST_CONNECTIONS)) as u32;
        let (connections, callables) = (Semaphore::new(most_connections as usize), Arc::new(Semaphore::new(callables)));
        Self { names, connections, most_connections, callables }
    }

    /// Those of this process. A forked child has limits of its own: what its parent holds is never released in the child.
    fn of_this_process() -> Arc<Self> {
        static SHARED: Mutex<Option<(u32, Arc<ProcessLimits>)>> = Mutex::new(None);
        let pid = std::process::id();
        let mut shared = lock(&SHARED);
        match &*shared {
            Some((owner, shared)) if *owner == pid => shared.clone(),
            _ => shared.insert((pid, Arc::new(Self::new(NameResolver::of_the_system(), CALLABLES)))).1.clone(),
        }
    }
}

impl FromStr for Probe {
    type Err = Error;

    /// Reads "auto", "icmp", "tcp:PORT" or an `http://` or `https://` address, see [`HttpProbe`].
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        match text.strip_prefix("tcp:") {
            Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0).map(Self::Tcp).ok_or_else(|| {
                Error::invalid(format!(
                    "the probe \"{text}\" names no TCP port: give one from 1 to 65535, as in \"tcp:22\""
                ))
            }),
            None if text == "auto" => Ok(Self::Auto),
            None if text == "icmp" => Ok(Self::Icmp),
            None if text.starts_with("http://") || text.starts_with("https://") => HttpProbe::new(text).map(Self::Http),
            None => Err(Error::invalid(format!(
                "the probe \"{text}\" is not known: give \"auto\", \"icmp\", \"tcp:22\", \"http://{{ip}}:8080/health\", a callable, or a list of these"
            ))),
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Icmp => f.write_str("icmp"),
            Self::Tcp(port) => write!(f, "tcp:{port}"),
            Self::Http(http) => http.fmt(f),
            Self::Auto => f.write_str("auto"),
            Self::Callback(_) => f.write_str("callable"),
            Self::AnyOf(probes) => f.debug_list().entries(probes).finish(),
        }
    }
}

/// The probes of a list and of the lists in it.
fn flat(probes: &[Probe]) -> Box<dyn Iterator<Item = &Probe> + '_> {
    Box::new(probes.iter().flat_map(|probe| match probe {
        Probe::AnyOf(inner) => flat(inner),
        one => Box::new(std::iter::once(one)),
    }))
}

async fn auto(target: &Target<'_>) -> ProbeResult {
    let icmp = each_address(target, |address| icmp::echo(address, target.deadline).boxed()).boxed();
    let tcp = each_address(target, |address| tcp::connect(address, SSH_PORT, target.deadline).boxed()).boxed();
    match futures::future::select(icmp, target.deadline.first_half().over().boxed()).await {
        Either::Left((Ok(outcome), _)) => Ok(outcome),
        Either::Left((Err(reason), _)) => tcp.await.map_err(|tcp_reason| joined([reason, tcp_reason])),
        Either::Right((_, icmp)) => first_success(vec![icmp, tcp]).await,
    }
}

/// Probes all addresses of the VM at once.
async fn each_address<'a>(
    target: &'a Target<'a>,
    probe: impl Fn(SocketAddr) -> BoxFuture<'a, ProbeAttempt>,
) -> ProbeResult {
    let addresses = target.addresses.clone().await?;
    let attempts = addresses.into_iter().map(|address| {
        let attempt = probe(address);
        async move {
            let start = Instant::now();
            let ProbeAttempt { kind, result } = attempt.await;
            let ip_address = address_text(address, target.vm);
            log(target.vm, &kind, &ip_address, result.as_ref().map_or_else(|_| start.elapsed(), |rtt| *rtt), &result);
            Ok(ProbeOutcome { kind, rtt: result?, ip_address, nic_name: target.vm.nic_name.clone() })
        }
        .boxed()
    });
    first_success(attempts.collect()).await
}

/// The text of an IP address, with the interface as the inventory names it.
fn address_text(address: SocketAddr, vm: &Vm) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => match vm.ip_address.split_once('%') {
            Some((_, interface)) => format!("{}%{interface}", v6.ip()),
            None => format!("{}%{}", v6.ip(), v6.scope_id()),
        },
        _ => address.ip().to_string(),
    }
}

/// Logs which probe was used, and what it found.
fn log<T>(vm: &Vm, kind: &str, address: &str, time: Duration, result: &std::result::Result<T, String>) {
    let reason = result.as_ref().err();
    let outcome = if reason.is_some() { "down" } else { "up" };
    tracing::debug!(vm = vm.name, kind, address, ms = time.as_secs_f64() * 1000.0, outcome, reason, "probed");
}

/// The first success, or every reason, in the order of `attempts`.
async fn first_success(attempts: Vec<BoxFuture<'_, ProbeResult>>) -> ProbeResult {
    let mut reasons = vec![String::new(); attempts.len()];
    let mut running: FuturesUnordered<_> =
        attempts.into_iter().enumerate().map(|(index, attempt)| async move { (index, attempt.await) }).collect();
    while let Some((index, answer)) = running.next().await {
        match answer {
            Ok(outcome) => return Ok(outcome),
            Err(reason) => reasons[index] = reason,
        }
    }
    Err(joined(reasons))
}

/// Each reason once.
fn joined(reasons: impl IntoIterator<Item = String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for reason in reasons {
        if !distinct.contains(&reason) {
            distinct.push(reason);
        }
    }
    distinct.join("; ")
}
