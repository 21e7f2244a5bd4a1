//! ICMP sockets, each shared by a number of probes.
//!
//! One socket per probe would use up the process's file descriptors. One socket for all probes would drop packets: each of its
//! buffers holds a few hundred, and a request stays in the buffer until its host answers ARP. A socket is closed when no probe
//! uses it, so that a forked child inherits one only in the middle of a probe. Sockets are shared within a thread only, so that
//! no lock can be held at the moment of a fork.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::errors::{self, NetworkError};
use super::message::{self, Echo, Token};
use crate::runtime::lock;

/// Probes per socket. Three requests of each fit into the usual send buffer (212,992 bytes, of which the system charges
/// about 800 for a small packet), and so do the replies to all at once into the receive buffer.
const PROBES: usize = 64;
/// Requests per probe that can be told apart.
pub(super) const MOST_REQUESTS: u16 = 4;
/// The longest packet to read: one of this process, behind the longest IP header.
const PACKET: usize = 60 + message::LENGTH;

thread_local! {
    static OPEN: RefCell<Vec<Weak<EchoSocket>>> = const { RefCell::new(Vec::new()) };
}

/// The kind of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// For processes in the group range `net.ipv4.ping_group_range`.
    Datagram,
    /// For processes with the capability CAP_NET_RAW.
    Raw,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Datagram => "icmp-dgram",
            Self::Raw => "icmp-raw",
        }
    }
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum EchoResult {
    /// The host answered.
    Reply(Duration),
    /// Another address answered.
    ReplyFrom(IpAddr),
    /// The network cannot deliver it.
    Unreachable(NetworkError),
}

pub(super) struct EchoSocket {
    inner: Arc<SocketState>,
    reader: AbortHandle,
    pid: u32,
    runtime: runtime::Id,
}

struct SocketState {
    socket: UdpSocket,
    kind: Kind,
    v4: bool,
    identifier: u16,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// By sequence number, without the number of the request.
    probes: HashMap<u16, Waiter>,
    last: u16,
}

struct Waiter {
    address: IpAddr,
    token: Token,
    sent: [Option<Instant>; MOST_REQUESTS as usize],
    answer: Option<oneshot::Sender<EchoResult>>,
}

/// A probe that waits for a reply on a socket. Dropping it frees its sequence numbers.
pub(super) struct PendingEcho {
    socket: Arc<EchoSocket>,
    to: SocketAddr,
    sequence: u16,
    token: Token,
    answer: oneshot::Receiver<EchoResult>,
}

impl PendingEcho {
    /// A probe on a socket that can send to `to`: an unprivileged one, else a raw one.
    ///
    /// # Errors
    /// Those of both sockets, in this order.
    pub(super) fn open(to: SocketAddr) -> Result<Self, [io::Error; 2]> {
        // A forked child would choose the same numbers as its parent, and take its parent's replies for its own. Without
        // randomness of its own the probe can still work.
        let _ = crate::runtime::own_randomness();
        let here = (std::process::id(), Handle::current().id());
        OPEN.with_borrow_mut(|open| {
            // A forked child has copies of its parent's sockets, whose replies the parent reads as well.
            open.retain(|socket| socket.upgrade().is_some_and(|socket| (socket.pid, socket.runtime) == here));
            for socket in open.iter().filter_map(Weak::upgrade).filter(|socket| socket.inner.v4 == to.is_ipv4()) {
                if let Some(probe) = Self::on(&socket, to) {
                    return Ok(probe);
                }
            }
            let socket = EchoSocket::open(Kind::Datagram, to.is_ipv4())
                .or_else(|datagram| EchoSocket::open(Kind::Raw, to.is_ipv4()).map_err(|raw| [datagram, raw]))?;
            open.push(Arc::downgrade(&socket));
            Self::on(&socket, to)
                .ok_or_else(|| [io::ErrorKind::ResourceBusy.into(), io::ErrorKind::ResourceBusy.into()])
        })
    }

    /// A probe on this socket, or None when it has as many as it can have.
    pub(super) fn on(socket: &Arc<EchoSocket>, to: SocketAddr) -> Option<Self> {
        let (sender, answer) = oneshot::channel();
        let token = rand::random();
        let waiter = Waiter { address: to.ip(), token, sent: Default::default(), answer: Some(sender) };
        let mut waiting = lock(&socket.inner.waiting);
        if waiting.probes.len() >= PROBES {
            return None;
        }
        // There are more numbers than probes, so one is free. The token distinguishes a late reply from one to the next probe
        // with its number.
        let sequence = loop {
            waiting.last = waiting.last.wrapping_add(MOST_REQUESTS);
            if !waiting.probes.contains_key(&waiting.last) {
                break waiting.last;
            }
        };
        waiting.probes.insert(sequence, waiter);
        drop(waiting);
        Some(Self { socket: socket.clone(), to, sequence, token, answer })
    }

    pub(super) fn kind(&self) -> Kind {
        self.socket.inner.kind
    }

    /// Sends request `number` (less than [`MOST_REQUESTS`]); waits while the socket's buffer is full.
    ///
    /// # Errors
    /// Why the system does not send it.
    pub(super) async fn send(&self, number: u16) -> io::Result<()> {
        /// How often an error is taken for one about another request: the system reports an error that arrived from the
        /// network to the next sender. Only an error that repeats is about this request.
        const OTHERS: u32 = 8;
        let inner = &self.socket.inner;
        let message = message::request(self.to.ip(), inner.identifier, self.sequence + number, &self.token);
        let send = || {
            if let Some(waiter) = lock(&inner.waiting).probes.get_mut(&self.sequence) {
                waiter.sent[usize::from(number)] = Some(Instant::now());
            }
            SockRef::from(&inner.socket).send_to(&message, &self.to.into()).map(drop)
        };
        let mut failures = 0;
        let mut result = send();
        loop {
            match result {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    inner.socket.writable().await?;
                    result = inner.socket.try_io(Interest::WRITABLE, send);
                }
                Err(e) if failures < OTHERS && may_be_about_others(&e) => {
                    failures += 1;
                    inner.read_errors();
                    result = send();
                }
                result => return result,
            }
        }
    }

    /// The first event. None when the socket was closed.
    pub(super) async fn answer(&mut self) -> Option<EchoResult> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for PendingEcho {
    fn drop(&mut self) {
        lock(&self.socket.inner.waiting).probes.remove(&self.sequence);
    }
}

impl EchoSocket {
    /// Opens a socket of this kind. Call it on a tokio runtime.
    pub(super) fn open(kind: Kind, v4: bool) -> io::Result<Arc<Self>> {
        let (domain, protocol, any): (_, _, IpAddr) = if v4 {
            (Domain::IPV4, Protocol::ICMPV4, Ipv4Addr::UNSPECIFIED.into())
        } else {
            (Domain::IPV6, Protocol::ICMPV6, Ipv6Addr::UNSPECIFIED.into())
        };
        let of_type = match kind {
            Kind::Datagram => Type::DGRAM,
            Kind::Raw => Type::RAW,
        };
        let socket = Socket::new(domain, of_type, Some(protocol))?;
        socket.set_nonblocking(true)?;
        errors::keep(&socket, v4)?;
        // A datagram socket gets its identifier here.
        socket.bind(&SocketAddr::new(any, 0).into())?;
        // Sending and receiving with addresses is the same for all sockets that have no connection.
        let socket = std::net::UdpSocket::from(socket);
        let identifier = match kind {
            Kind::Datagram => socket.local_addr()?.port(),
            Kind::Raw => {
                let identifier = rand::random();
                // Without the filter, the socket receives the messages of other processes, which costs time.
                let _ = SockRef::from(&socket).attach_filter(&replies_to(identifier, v4));
                identifier
            }
        };
        let inner = Arc::new(SocketState {
            socket: UdpSocket::from_std(socket)?,
            kind,
            v4,
            identifier,
            waiting: Mutex::new(Waiting { last: rand::random::<u16>() & !(MOST_REQUESTS - 1), ..Waiting::default() }),
        });
        let reader = tokio::spawn(read(inner.clone())).abort_handle();
        Ok(Arc::new(Self { inner, reader, pid: std::process::id(), runtime: Handle::current().id() }))
    }
}

/// A filter for raw sockets that passes echo replies with this identifier, of all ICMP messages that the machine receives.
/// In the instructions of the classic packet filter (Linux: Documentation/networking/filter.rst).
fn replies_to(identifier: u16, v4: bool) -> [SockFilter; 7] {
    const LOAD_IP_HEADER_LENGTH: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH: the index becomes that of the byte at k
    const SET_INDEX: u16 = 0x01; // BPF_LDX | BPF_IMM
    const LOAD_BYTE: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND: from the index + k
    const LOAD_TWO_BYTES: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
    const SKIP_UNLESS_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K: how many bytes to keep
    let (start, echo_reply) = if v4 { (LOAD_IP_HEADER_LENGTH, 0) } else { (SET_INDEX, 129) };
    [
        // Messages of version 6 come without the IP header.
        SockFilter::new(start, 0, 0, 0),
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(SKIP_UNLESS_EQUAL, 0, 3, echo_reply),
        SockFilter::new(LOAD_TWO_BYTES, 0, 0, 4),
        SockFilter::new(SKIP_UNLESS_EQUAL, 0, 1, u32::from(identifier)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

impl Drop for EchoSocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The errors that an ICMP message can set (`icmp_err_convert` and `icmpv6_err_convert` of Linux).
fn may_be_about_others(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ECONNREFUSED
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EMSGSIZE
                | libc::EPROTO
                | libc::EACCES
        )
    )
}

/// Passes on replies and errors, until it is aborted.
async fn read(inner: Arc<SocketState>) {
    while let Ok(ready) = inner.socket.ready(Interest::READABLE | Interest::ERROR).await {
        if ready.is_error() {
            // "Would block" makes tokio wait for the next error.
            let _: io::Result<()> = inner.socket.try_io(Interest::ERROR, || {
                inner.read_errors();
                Err(io::ErrorKind::WouldBlock.into())
            });
        }
        inner.read_replies();
    }
}

impl SocketState {
    fn read_errors(&self) {
        let mut packet = [0; PACKET];
        while let Ok((length, error)) = errors::next(&self.socket, &mut packet) {
            if let Some(error) = error {
                self.failed(&packet[..length], error);
            }
        }
    }

    fn read_replies(&self) {
        /// A flood does not block a thread: the next turn reads the rest.
        const AT_ONCE: usize = 256;
        let mut packet = [0; PACKET];
        for _ in 0..AT_ONCE {
            match self.socket.try_recv_from(&mut packet) {
                Ok((length, sender)) => self.arrived(&packet[..length], sender.ip()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // The same as in the error queue.
                Err(_) => {}
            }
        }
    }

    fn arrived(&self, packet: &[u8], sender: IpAddr) {
        // The filter may be missing: then raw sockets receive every ICMP message of the machine.
        let message = match self.kind {
            Kind::Raw if self.v4 => message::without_ip_header(packet),
            _ => packet,
        };
        let Some(echo) = message::reply(message, self.v4) else { return };
        let received = Instant::now();
        self.settle(echo, |waiter, sent| {
            if echo.token != Some(waiter.token) {
                None
            } else if sender == waiter.address {
                Some(EchoResult::Reply(received.duration_since(sent)))
            } else {
                Some(EchoResult::ReplyFrom(sender))
            }
        });
    }

    fn failed(&self, quoted: &[u8], error: NetworkError) {
        let Some(echo) = message::quoted_request(quoted, self.v4).filter(|_| error.is_final(self.v4)) else { return };
        self.settle(echo, |waiter, _| {
            let ours =
                error.destination == Some(waiter.address) && echo.token.is_none_or(|token| token == waiter.token);
            ours.then_some(EchoResult::Unreachable(error))
        });
    }

    /// Ends the probe that `echo` belongs to with the event that `event` returns.
    fn settle(&self, echo: Echo, event: impl FnOnce(&Waiter, Instant) -> Option<EchoResult>) {
        if echo.identifier != self.identifier {
            return;
        }
        let number = echo.sequence % MOST_REQUESTS;
        let mut waiting = lock(&self.waiting);
        let Some(waiter) = waiting.probes.get_mut(&(echo.sequence - number)) else { return };
        let Some(event) = waiter.sent[usize::from(number)].and_then(|sent| event(waiter, sent)) else { return };
        if let Some(answer) = waiter.answer.take() {
            // The probe may have ended.
            let _ = answer.send(event);
        }
    }
}
