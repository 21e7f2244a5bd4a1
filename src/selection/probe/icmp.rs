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
mod sockets;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use self::socket::{EchoResult, PendingEcho};
use self::sockets::not_permitted;
pub use self::sockets::{IcmpSocket, IpFamily, icmp_sockets};
use super::attempt::{Attempt, ProbeDeadline, describe, with_descriptor};

/// Requests per probe, spread over the time limit: networks drop the first packet to a host whose hardware address they do
/// not know yet.
const REQUESTS: u16 = 3;

/// Sends echo requests to `address` until one is answered.
pub(super) async fn echo(address: SocketAddr, deadline: ProbeDeadline) -> Attempt {
    // The raw socket's error comes last, and is the one that a lack of descriptors shows in.
    let probe = with_descriptor(
        deadline,
        |deadline| async move { Ok((PendingEcho::open(address)?, deadline)) },
        |[_, raw]: &[io::Error; 2]| Some(raw),
    );
    match probe.await {
        Ok((probe, deadline)) => {
            Attempt { kind: probe.kind().name().to_owned(), result: echo_from(probe, address, deadline).await }
        }
        Err([datagram, raw]) => Attempt { kind: "icmp".to_owned(), result: Err(not_permitted(&datagram, &raw)) },
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
