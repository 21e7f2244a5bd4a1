//! The TCP probe: whoever accepts a connection is up.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::deadline::Deadline;

/// Connects to `port` at `address` and closes the connection again. Gives the kind of probe and how long it took.
pub(super) async fn connect(address: IpAddr, port: u16, deadline: Deadline) -> Result<(String, Duration), String> {
    let start = Instant::now();
    match deadline.limit(TcpStream::connect(SocketAddr::new(address, port))).await {
        Some(Ok(_)) => Ok((format!("tcp:{port}"), start.elapsed())),
        Some(Err(e)) if e.kind() == ErrorKind::ConnectionRefused => {
            Err(format!("{address} refused a connection to TCP port {port}"))
        }
        Some(Err(e)) => Err(format!("no connection to TCP port {port} of {address}: {e}")),
        None => Err(format!("TCP port {port} of {address} did not answer within {deadline}")),
    }
}
