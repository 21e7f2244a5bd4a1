//! The ICMP probe: echo request and reply.
//!
//! Linux permits echo to unprivileged processes on datagram sockets where `net.ipv4.ping_group_range` has their group
//! (a new network namespace, as in a container, starts with nobody in it), and to those with CAP_NET_RAW on raw
//! sockets. Both are tried, in this order, and the outcome says which it was.
//!
//! A reply counts when it comes from the address that was asked and holds the random bytes of the request. Errors that
//! the network reports ("host unreachable", "administratively prohibited") end a probe at once.

mod errors;
mod message;
mod reason;
mod socket;
mod sockets;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use self::reason::not_permitted;
use self::socket::{Event, Seat};
pub use self::sockets::{IcmpSocket, IpFamily, icmp_sockets};
use super::attempt::{Attempt, in_words, with_descriptor};
use super::deadline::Deadline;

/// Requests per probe, spread over the time there is: networks drop the first packet to a host whose hardware address
/// they have yet to learn.
const REQUESTS: u16 = 3;

/// Sends echo requests to `address` until one is answered.
pub(super) async fn echo(address: SocketAddr, deadline: Deadline) -> Attempt {
    // The raw socket's error comes last, and is the one that a lack of descriptors shows in.
    let seat = with_descriptor(
        deadline,
        |deadline| async move { Ok((Seat::take(address)?, deadline)) },
        |[_, raw]: &[io::Error; 2]| Some(raw),
    );
    match seat.await {
        Ok((seat, deadline)) => {
            Attempt { kind: seat.kind().name().to_owned(), result: echo_from(seat, address, deadline).await }
        }
        Err([datagram, raw]) => Attempt { kind: "icmp".to_owned(), result: Err(not_permitted(&datagram, &raw)) },
    }
}

/// Sends echo requests from `seat`, whose address is `address`. Gives how long the answer took.
async fn echo_from(mut seat: Seat, address: SocketAddr, deadline: Deadline) -> Result<Duration, String> {
    let ip = address.ip();
    let failed = |e: &io::Error| format!("no ICMP echo to {ip}: {}", in_words(e));
    let requests = async {
        let interval = deadline.remaining() / u32::from(REQUESTS);
        let mut not_sent_yet = None;
        for number in 0..REQUESTS {
            match seat.send(number).await {
                Ok(()) => not_sent_yet = None,
                // Full queues are a matter of the moment, and the next request may get through.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => not_sent_yet = Some(failed(&e)),
                Err(e) => return Err(failed(&e)),
            }
            match tokio::time::timeout(interval, seat.answer()).await {
                Ok(Some(Event::Reply(rtt))) => return Ok(rtt),
                Ok(Some(Event::ReplyFrom(other))) => {
                    return Err(format!("{other} answered the ICMP echo to {ip} in its place"));
                }
                Ok(Some(Event::Unreachable(error))) => return Err(error.reason(ip, ip.is_ipv4())),
                Ok(None) => return Err(format!("the ICMP socket for {ip} broke off")),
                Err(_) => {}
            }
        }
        match not_sent_yet {
            Some(reason) => Err(reason),
            // What is left of the time is a matter of rounding.
            None => std::future::pending().await,
        }
    };
    deadline.limit(requests).await.unwrap_or_else(|| Err(format!("no ICMP echo from {ip} within {deadline}")))
}
