//! One check that a VM answers: ICMP, TCP, HTTP or a callback, alone or several at once, within one deadline.

mod callback;
mod deadline;
mod http;
mod icmp;
mod tcp;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Either, FutureExt, Shared};
use futures::stream::{FuturesUnordered, StreamExt};

pub use self::callback::ProbeCallback;
use self::deadline::Deadline;
pub use self::http::HttpProbe;
pub use self::icmp::{IcmpSocket, IpFamily, icmp_sockets};
use crate::error::{Error, Result};
use crate::inventory::Vm;

/// The port that "auto" tries besides ICMP: SSH is what a job needs of a VM anyway.
const SSH_PORT: u16 = 22;
/// A host name seldom has more addresses that matter (one per family and interface).
const MAX_ADDRESSES: usize = 4;

/// How to find out whether a VM answers.
#[derive(Clone)]
pub enum Probe {
    /// ICMP echo: on an unprivileged socket, else on a raw one. Where the system permits neither, the VM counts as
    /// unreachable and the reason says so.
    Icmp,
    /// A TCP connection to this port. A refused connection counts as unreachable.
    Tcp(u16),
    /// A GET of a health address; 2xx and 3xx count as up.
    Http(HttpProbe),
    /// ICMP, and TCP port 22 as well as soon as ICMP has failed (it may be forbidden here, or by a firewall) or was
    /// silent for half the time.
    Auto,
    /// The caller's own check.
    Callback(Arc<dyn ProbeCallback>),
    /// All of these at once; the first success wins.
    AnyOf(Vec<Probe>),
}

/// A probe that was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeOutcome {
    /// "icmp-dgram" (unprivileged socket), "icmp-raw", "tcp:PORT", "http" or "callable".
    pub kind: String,
    /// From the start of this probe to its answer; name resolution is not part of it.
    pub rtt: Duration,
    /// The address that answered.
    pub ip_address: String,
    /// The network interface: what the callback says, else what the inventory says.
    pub nic_name: Option<String>,
}

/// The outcome, or the reason why the VM counts as unreachable, for people to read.
pub type Answer = std::result::Result<ProbeOutcome, String>;

/// What is probed: the VM, its addresses (resolved once, for all probes that need them) and the time there is.
struct Target<'a> {
    vm: &'a Vm,
    addresses: Shared<BoxFuture<'static, std::result::Result<Vec<IpAddr>, String>>>,
    deadline: Deadline,
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

    /// Probes `vm`. `timeout` covers everything, name resolution included.
    ///
    /// # Errors
    /// The reason why the VM counts as unreachable.
    pub async fn check(&self, vm: &Vm, timeout: Duration) -> Answer {
        let deadline = Deadline::after(timeout);
        let target = Target { vm, addresses: resolve(vm.ip_address.clone(), deadline).boxed().shared(), deadline };
        self.run(&target).await
    }

    fn run<'a>(&'a self, target: &'a Target<'a>) -> BoxFuture<'a, Answer> {
        match self {
            Self::Icmp => {
                each_address(target, |address| icmp::echo(SocketAddr::new(address, 0), target.deadline).boxed()).boxed()
            }
            Self::Tcp(port) => {
                each_address(target, move |address| tcp::connect(address, *port, target.deadline).boxed()).boxed()
            }
            Self::Http(http) => {
                each_address(target, move |address| http.get(&target.vm.name, address, target.deadline).boxed()).boxed()
            }
            Self::Auto => auto(target).boxed(),
            Self::Callback(callback) => callback::call(callback.clone(), target.vm, target.deadline).boxed(),
            Self::AnyOf(probes) => first_success(probes.iter().map(|probe| probe.run(target)).collect()).boxed(),
        }
    }
}

impl FromStr for Probe {
    type Err = Error;

    /// Reads "auto", "icmp", "tcp:PORT" or an `http://` or `https://` address, see [`HttpProbe`].
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        match text {
            "auto" => return Ok(Self::Auto),
            "icmp" => return Ok(Self::Icmp),
            _ => {}
        }
        if let Some(port) = text.strip_prefix("tcp:") {
            return port.parse::<u16>().ok().filter(|port| *port > 0).map(Self::Tcp).ok_or_else(|| {
                Error::invalid(format!(
                    "the probe \"{text}\" names no TCP port: give one from 1 to 65535, as in \"tcp:22\""
                ))
            });
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return HttpProbe::new(text).map(Self::Http);
        }
        Err(Error::invalid(format!(
            "the probe \"{text}\" is not known: give \"auto\", \"icmp\", \"tcp:22\", \"http://{{ip}}:8080/health\", a callable, or a list of these"
        )))
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

async fn auto(target: &Target<'_>) -> Answer {
    let icmp = each_address(target, |address| icmp::echo(SocketAddr::new(address, 0), target.deadline).boxed()).boxed();
    let tcp = each_address(target, |address| tcp::connect(address, SSH_PORT, target.deadline).boxed()).boxed();
    match futures::future::select(icmp, tokio::time::sleep_until(target.deadline.half()).boxed()).await {
        Either::Left((Ok(outcome), _)) => Ok(outcome),
        Either::Left((Err(reason), _)) => tcp.await.map_err(|tcp_reason| joined([reason, tcp_reason])),
        Either::Right((_, icmp)) => first_success(vec![icmp, tcp]).await,
    }
}

/// Probes all addresses of the VM at once.
async fn each_address<'a>(
    target: &'a Target<'a>,
    probe: impl Fn(IpAddr) -> BoxFuture<'a, std::result::Result<(String, Duration), String>>,
) -> Answer {
    let addresses = target.addresses.clone().await?;
    let attempts = addresses.into_iter().map(|address| {
        let attempt = probe(address);
        async move {
            let (kind, rtt) = attempt.await?;
            Ok(ProbeOutcome { kind, rtt, ip_address: address.to_string(), nic_name: target.vm.nic_name.clone() })
        }
        .boxed()
    });
    first_success(attempts.collect()).await
}

/// The first success, or every reason, in the order of `attempts`.
async fn first_success(attempts: Vec<BoxFuture<'_, Answer>>) -> Answer {
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

/// The addresses behind a host name or an IP address, each once.
async fn resolve(host: String, deadline: Deadline) -> std::result::Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![address]);
    }
    let found = deadline
        .limit(tokio::net::lookup_host((host.as_str(), 0)))
        .await
        .ok_or_else(|| format!("the name \"{host}\" could not be resolved within {deadline}"))?
        .map_err(|e| format!("the name \"{host}\" could not be resolved: {e}"))?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|socket| socket.ip()) {
        if !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(format!("the name \"{host}\" has no address"));
    }
    Ok(addresses)
}
