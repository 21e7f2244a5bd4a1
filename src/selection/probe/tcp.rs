//! The TCP probe: a VM that accepts a connection is up.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::attempt::{ProbeAttempt, ProbeDeadline, describe, with_descriptor};

/// Connects to `port` at `address` and closes the connection again.
pub(super) async fn connect(address: SocketAddr, port: u16, deadline: ProbeDeadline) -> ProbeAttempt {
    let (ip, to) = (address.ip(), SocketAddr::new(address.ip(), port));
    let to = match (to, address) {
        (SocketAddr::V6(mut to), SocketAddr::V6(address)) => {
            to.set_scope_id(address.scope_id());
            SocketAddr::V6(to)
        }
        (to, _) => to,
    };
    let connected = with_descriptor(
        deadline,
        |deadline| async move {
            let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            let start = Instant::now();
            deadline.limit(socket.connect(to)).await.transpose().map(|stream| stream.map(|_| start.elapsed()))
        },
        |e: &io::Error| Some(e),
    );
    let result = match connected.await {
        Ok(Some(rtt)) => Ok(rtt),
        Ok(None) => Err(format!("TCP port {port} of {ip} did not answer within {deadline}")),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            Err(format!("{ip} refused a connection to TCP port {port}"))
        }
        Err(e) => Err(format!("no connection to TCP port {port} of {ip}: {}", describe(&e))),
    };
    ProbeAttempt { kind: format!("tcp:{port}"), result }
}
