//! VMs of which some do not answer: TCP ports, each VM on a loopback address of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use crate::error::{Error, ErrorKind, Result};

/// vm1 is 127.0.0.11, vm2 is 127.0.0.12 and so on. Linux answers for all of 127/8.
const FIRST_ADDRESS: usize = 11;
/// The most VMs: the last octet of an address is limited.
pub const MOST: usize = 200;
/// How many ports are tried when one is in use at some of the addresses.
const TRIES: usize = 20;
const BACKLOG: u32 = 256;
/// The pause after the system refused to accept a connection (no file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The VMs of the sandbox. Live VMs accept TCP connections on one port and close them. For the others the port is reserved
/// without a listener, so that connections are refused and no other process can answer.
#[derive(Debug)]
pub struct Vms {
    /// Name and address of every VM, live or not, in order.
    pub all: Vec<(String, IpAddr)>,
    /// Names of the VMs that do not answer.
    pub down: Vec<String>,
    port: u16,
    /// Dropping it ends them.
    listening: JoinSet<()>,
    _reserved: Vec<TcpSocket>,
}

impl Vms {
    /// `count` VMs, vm1, vm2 and so on, of which `down` do not answer: the last but one and those before it (vm3 of 4),
    /// so that a round meets a VM that is down between live ones.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for more than [`MOST`] VMs or more down than there are; [`ErrorKind::Network`],
    /// retryable, when the system gives no port.
    pub fn start(count: usize, down: usize) -> Result<Self> {
        if count > MOST || down > count {
            let text = format!(
                "the sandbox has 0 to {MOST} VMs and no more down than there are, not {count} with {down} down"
            );
            return Err(Error::invalid(text));
        }
        let runtime = crate::runtime::handle()?;
        let _inside = runtime.enter();
        let addresses: Vec<Ipv4Addr> =
            (0..count).map(|index| Ipv4Addr::new(127, 0, 0, (FIRST_ADDRESS + index) as u8)).collect();
        let bound = (1..TRIES).find_map(|_| bind_all(&addresses).ok());
        let (port, sockets) = bound.map_or_else(|| bind_all(&addresses), Ok)?;
        let last_down = count.saturating_sub(if down == count { 0 } else { 1 });
        let is_down = |index: usize| (last_down - down..last_down).contains(&index);
        let mut vms =
            Self { all: Vec::new(), down: Vec::new(), port, listening: JoinSet::new(), _reserved: Vec::new() };
        for (index, (address, socket)) in addresses.into_iter().zip(sockets).enumerate() {
            let name = format!("vm{}", index + 1);
            if is_down(index) {
                vms.down.push(name.clone());
                vms._reserved.push(socket);
            } else {
                let listener = socket.listen(BACKLOG).map_err(|e| unavailable(address, e))?;
                vms.listening.spawn(answer(listener));
            }
            vms.all.push((name, address.into()));
        }
        Ok(vms)
    }

    /// The probe that distinguishes them: `tcp:PORT`. The system answers pings for all of 127.0.0.0/8, so that ICMP would find
    /// every VM up.
    pub fn probe(&self) -> String {
        format!("tcp:{}", self.port)
    }
}

async fn answer(listener: TcpListener) {
    loop {
        if listener.accept().await.is_err() {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// One port, free at every address, chosen by the system.
fn bind_all(addresses: &[Ipv4Addr]) -> Result<(u16, Vec<TcpSocket>)> {
    let mut port = 0;
    let mut sockets = Vec::with_capacity(addresses.len());
    for address in addresses {
        let bound = TcpSocket::new_v4().and_then(|socket| {
            socket.bind(SocketAddr::from((*address, port)))?;
            Ok((socket.local_addr()?.port(), socket))
        });
        let (chosen, socket) = bound.map_err(|e| unavailable(*address, e))?;
        port = chosen;
        sockets.push(socket);
    }
    Ok((port, sockets))
}

fn unavailable(address: Ipv4Addr, cause: std::io::Error) -> Error {
    let text = format!(
        "no TCP port could be opened at {address} for a VM of the sandbox; all of 127.0.0.0/8 must be local, as on Linux"
    );
    Error::new(ErrorKind::Network, text).with_retryable(true).with_source(cause)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn live_vms_answer_and_the_others_refuse() {
        let vms = Vms::start(4, 1).unwrap();
        assert_eq!(vms.down, ["vm3"]);
        let port: u16 = vms.probe().strip_prefix("tcp:").unwrap().parse().unwrap();
        for (name, address) in &vms.all {
            assert_eq!(TcpStream::connect((*address, port)).is_ok(), name != "vm3", "{name}");
        }
    }

    #[test]
    fn any_number_may_be_down() {
        assert_eq!(Vms::start(1, 1).unwrap().down, ["vm1"]);
        assert_eq!(Vms::start(4, 4).unwrap().down.len(), 4);
        assert_eq!(Vms::start(4, 2).unwrap().down, ["vm2", "vm3"]);
        assert!(Vms::start(0, 0).unwrap().all.is_empty());
        for (count, down) in [(1, 2), (MOST + 1, 0)] {
            assert_eq!(Vms::start(count, down).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}
