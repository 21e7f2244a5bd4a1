//! The ICMP probe: echo request and reply.
//!
//! Linux permits echo to unprivileged processes on datagram sockets where `net.ipv4.ping_group_range` has their group
//! (a new network namespace, as in a container, starts with nobody in it), and to those with CAP_NET_RAW on raw
//! sockets. Both are tried, in this order, and the outcome says which it was.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence, SurgeError};

use super::deadline::Deadline;

/// Requests per probe, spread over the time there is: networks drop the first packet to a host whose hardware address
/// they have yet to learn.
const REQUESTS: u32 = 3;
/// ICMP type of an echo reply (RFC 792; RFC 4443 for version 6).
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REPLY_V6: u8 = 129;

/// Never the same number twice in a row: on a datagram socket the library knows replies by host and sequence alone.
static SEQUENCE: AtomicU16 = AtomicU16::new(0);

/// Sends echo requests to `address` until one is answered. Gives the kind of probe and how long the answer took.
pub(super) async fn echo(address: IpAddr, deadline: Deadline) -> Result<(String, Duration), String> {
    let kind = if address.is_ipv4() { ICMP::V4 } else { ICMP::V6 };
    let config = Config::builder().kind(kind).build();
    // A client per probe costs two system calls and shares nothing: neither identifiers with other probes, nor a socket
    // with a forked child.
    let client = Client::new(&config).map_err(|e| no_socket(&e))?;
    let probe = if client.get_socket().get_type() == config.sock_type_hint { "icmp-dgram" } else { "icmp-raw" };
    let identifier = PingIdentifier(rand::random());
    let interval = deadline.remaining() / REQUESTS;

    let mut requests: FuturesUnordered<_> = (0..REQUESTS)
        .map(|number| {
            let client = &client;
            async move {
                tokio::time::sleep(interval * number).await;
                let mut pinger = client.pinger(address, identifier).await;
                pinger.timeout(deadline.remaining());
                pinger.ping(PingSequence(SEQUENCE.fetch_add(1, Ordering::Relaxed)), b"jobrota").await
            }
        })
        .collect();
    while let Some(reply) = requests.next().await {
        match reply {
            // On raw sockets the library hands out "unreachable" messages as replies, too.
            Ok((packet, rtt)) if is_reply(&packet, address) => return Ok((probe.to_owned(), rtt)),
            Ok(_) => return Err(format!("the network says that {address} is unreachable (ICMP)")),
            Err(SurgeError::Timeout { .. }) => {}
            Err(SurgeError::IOError(e)) => return Err(format!("no ICMP echo to {address}: {e}")),
            Err(e) => return Err(format!("no ICMP echo from {address}: {e}")),
        }
    }
    Err(format!("no ICMP echo from {address} within {deadline}"))
}

fn is_reply(packet: &IcmpPacket, address: IpAddr) -> bool {
    match packet {
        IcmpPacket::V4(packet) => packet.get_icmp_type().0 == ECHO_REPLY_V4 && packet.get_source() == address,
        IcmpPacket::V6(packet) => packet.get_icmpv6_type().0 == ECHO_REPLY_V6 && packet.get_source() == address,
    }
}

fn no_socket(error: &std::io::Error) -> String {
    if error.kind() == ErrorKind::PermissionDenied {
        "ICMP is not permitted here (net.ipv4.ping_group_range leaves this user out, and CAP_NET_RAW is missing)"
            .to_owned()
    } else {
        format!("this machine gives no ICMP socket: {error}")
    }
}
