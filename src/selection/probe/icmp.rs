//! The ICMP probe: echo request and reply.
//!
//! Linux permits echo on datagram sockets to processes whose group is in `net.ipv4.ping_group_range` (empty in a new network
//! namespace, as in a container), and on raw sockets to processes with CAP_NET_RAW. The probe tries both in this order, and
//! its outcome names the kind.
//!
//! A reply counts when it comes from the probed address and contains the random bytes of the request. Errors that the network
//! reports ("host unreachable", "administratively prohibited") end a probe at once.

mod errors;
mod message;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use self::socket::{EchoResult, EchoSocket, Kind, PendingEcho};
use super::attempt::{ProbeAttempt, ProbeDeadline, describe, with_descriptor};

/// Requests per probe, spread over the time limit: networks drop the first packet to a host whose hardware address they do
/// not know yet.
const REQUESTS: u16 = 3;

/// Loopback answers at once where it answers at all.
const LOOPBACK_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Sends echo requests to `address` until one is answered.
pub(super) async fn echo(address: SocketAddr, deadline: ProbeDeadline) -> ProbeAttempt {
    // The raw socket's error comes last, and is the one that a lack of descriptors shows in.
    let probe = with_descriptor(
        deadline,
        |deadline| async move { Ok((PendingEcho::open(address)?, deadline)) },
        |[_, raw]: &[io::Error; 2]| Some(raw),
    );
    match probe.await {
        Ok((probe, deadline)) => {
            ProbeAttempt { kind: probe.kind().name().to_owned(), result: echo_from(probe, address, deadline).await }
        }
        Err([datagram, raw]) => ProbeAttempt { kind: "icmp".to_owned(), result: Err(not_permitted(&datagram, &raw)) },
    }
}

/// Sends echo requests to `address`. Returns how long the answer took.
async fn echo_from(mut probe: PendingEcho, address: SocketAddr, deadline: ProbeDeadline) -> Result<Duration, String> {
    let ip = address.ip();
    let failed = |e: &io::Error| format!("no ICMP echo to {ip}: {}", describe(e));
    let requests = async {
        let interval = deadline.remaining() / u32::from(REQUESTS);
        let mut not_sent_yet = None;
        for number in 0..REQUESTS {
            match probe.send(number).await {
                Ok(()) => not_sent_yet = None,
                // A queue is full for a moment only: the next request may be sent.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => not_sent_yet = Some(failed(&e)),
                Err(e) => return Err(failed(&e)),
            }
            match tokio::time::timeout(interval, probe.answer()).await {
                Ok(Some(EchoResult::Reply(rtt))) => return Ok(rtt),
                Ok(Some(EchoResult::ReplyFrom(other))) => {
                    return Err(format!("{other} answered the ICMP echo to {ip} in its place"));
                }
                Ok(Some(EchoResult::Unreachable(error))) => return Err(error.reason(ip, ip.is_ipv4())),
                Ok(None) => return Err(format!("the ICMP socket for {ip} was closed")),
                Err(_) => {}
            }
        }
        match not_sent_yet {
            Some(reason) => Err(reason),
            // The time that is left is a rounding error.
            None => std::future::pending().await,
        }
    };
    deadline.limit(requests).await.unwrap_or_else(|| Err(format!("no ICMP echo from {ip} within {deadline}")))
}

/// Version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// One way to send ICMP echo requests, and whether it works here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IcmpSocket {
    /// The version of IP it is for.
    pub family: IpFamily,
    /// "icmp-dgram" (unprivileged) or "icmp-raw", as in [`super::ProbeOutcome::kind`].
    pub kind: &'static str,
    /// Whether the machine's own address answered over it.
    pub works: bool,
    /// The address that answered, or why the socket does not work, as text for users.
    pub why: String,
}

/// Opens a socket of every kind and family, and sends an echo request to this machine (127.0.0.1, ::1). Takes at most a
/// second. Call it on a tokio runtime.
pub async fn icmp_sockets() -> Vec<IcmpSocket> {
    let kinds = [IpFamily::V4, IpFamily::V6].into_iter().flat_map(|family| {
        [Kind::Datagram, Kind::Raw].into_iter().map(move |kind| async move {
            let tried = try_loopback(family, kind).await;
            let (works, why) = tried.map_or_else(|why| (false, why), |why| (true, why));
            IcmpSocket { family, kind: kind.name(), works, why }
        })
    });
    futures::future::join_all(kinds).await
}

async fn try_loopback(family: IpFamily, kind: Kind) -> Result<String, String> {
    let loopback: IpAddr = match family {
        IpFamily::V4 => Ipv4Addr::LOCALHOST.into(),
        IpFamily::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let address = SocketAddr::new(loopback, 0);
    let socket = EchoSocket::open(kind, loopback.is_ipv4()).map_err(|e| no_socket(kind, &e))?;
    let probe = PendingEcho::on(&socket, address).ok_or("the socket has no sequence number left")?;
    let rtt =
        echo_from(probe, address, ProbeDeadline::after(LOOPBACK_ANSWERS_WITHIN)).await.map_err(|why| match family {
            IpFamily::V6 if switched_off() => {
                "IPv6 is switched off here (net.ipv6.conf.lo.disable_ipv6 is 1)".to_owned()
            }
            _ => why,
        })?;
    Ok(format!("{loopback} answered within {:.1} ms", rtt.as_secs_f64() * 1000.0))
}

/// Whether IPv6 is disabled. In a container this is the container's own setting.
fn switched_off() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6").is_ok_and(|value| value.trim() == "1")
}

/// Why no socket of either kind can be opened.
fn not_permitted(datagram: &io::Error, raw: &io::Error) -> String {
    if let Some(libc::EAFNOSUPPORT | libc::EMFILE | libc::ENFILE) = raw.raw_os_error() {
        return format!("no ICMP socket: {}", no_socket(Kind::Raw, raw));
    }
    format!("ICMP is not permitted here: {}, and {}", no_socket(Kind::Datagram, datagram), no_socket(Kind::Raw, raw))
}

/// Why no socket of this kind can be opened.
fn no_socket(kind: Kind, error: &io::Error) -> String {
    match (kind, error.raw_os_error()) {
        (_, Some(libc::EAFNOSUPPORT)) => "this machine has no IPv6".to_owned(),
        (_, Some(libc::EMFILE | libc::ENFILE)) => describe(error),
        (Kind::Datagram, Some(libc::EACCES | libc::EPERM)) => groups(),
        (Kind::Raw, Some(libc::EACCES | libc::EPERM)) => "a raw socket needs CAP_NET_RAW".to_owned(),
        _ => format!("the system opens no {} socket ({error})", kind.name()),
    }
}

/// Who may open datagram sockets; the setting is for both versions of IP.
fn groups() -> String {
    let setting = "net.ipv4.ping_group_range";
    let group = rustix::process::getgid().as_raw();
    match std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range") {
        Ok(range) => {
            let range = range.split_whitespace().collect::<Vec<_>>().join(" ");
            let whom = if range == "1 0" { "permits no group".to_owned() } else { format!("leaves group {group} out") };
            format!("{setting} is \"{range}\" and {whom}")
        }
        Err(_) => format!("{setting} leaves group {group} out, or a sandbox forbids it"),
    }
}
