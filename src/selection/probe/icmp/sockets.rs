//! Which ICMP sockets work on this machine, and why others do not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::super::attempt::{ProbeDeadline, describe};
use super::echo_from;
use super::socket::{EchoSocket, Kind, PendingEcho};

/// Loopback answers at once where it answers at all.
const LOOPBACK_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

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
    /// "icmp-dgram" (unprivileged) or "icmp-raw", as in [`super::super::ProbeOutcome::kind`].
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
pub(super) fn not_permitted(datagram: &io::Error, raw: &io::Error) -> String {
    if let Some(libc::EAFNOSUPPORT | libc::EMFILE | libc::ENFILE) = raw.raw_os_error() {
        return format!("no ICMP socket: {}", no_socket(Kind::Raw, raw));
    }
    format!("ICMP is not permitted here: {}, and {}", no_socket(Kind::Datagram, datagram), no_socket(Kind::Raw, raw))
}

/// Why no socket of this kind can be opened.
pub(super) fn no_socket(kind: Kind, error: &io::Error) -> String {
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
