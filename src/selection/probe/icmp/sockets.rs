//! Which ICMP sockets work here, for those who set a machine up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::super::deadline::Deadline;
use super::echo_from;
use super::reason::no_socket;
use super::socket::{EchoSocket, Kind, Seat};

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
    /// What was found, for people to read: who answered, or why it does not work.
    pub why: String,
}

/// Opens a socket of every kind and family and asks this machine itself (127.0.0.1, ::1) for an echo. Takes a second at
/// most. Is to be called on a tokio runtime.
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
    let seat = Seat::on(&socket, address).ok_or("the socket has no place left")?;
    let rtt = echo_from(seat, address, Deadline::after(LOOPBACK_ANSWERS_WITHIN)).await.map_err(|why| match family {
        IpFamily::V6 if switched_off() => "IPv6 is switched off here (net.ipv6.conf.lo.disable_ipv6 is 1)".to_owned(),
        _ => why,
    })?;
    Ok(format!("{loopback} answered within {:.1} ms", rtt.as_secs_f64() * 1000.0))
}

/// Whether this machine has IPv6, but does not use it. In a container this is the container's own setting.
fn switched_off() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6").is_ok_and(|value| value.trim() == "1")
}
