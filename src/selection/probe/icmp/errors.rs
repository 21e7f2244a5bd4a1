//! A socket's error queue (Linux, `ip(7)`: IP_RECVERR): "unreachable" messages and the like, with who sent them. An
//! unprivileged ICMP socket is told of them in no other way.

#![expect(unsafe_code, reason = "no safe wrapper reads the error queue of a socket (IP_RECVERR)")]

use std::fmt::Display;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

/// SO_EE_ORIGIN_ICMP and SO_EE_ORIGIN_ICMP6 of `linux/errqueue.h`.
const FROM_ICMP: [u8; 2] = [2, 3];

/// An ICMP error about a message that this process sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NetworkError {
    /// ICMP type and code: RFC 792, RFC 1812; RFC 4443 for version 6.
    pub kind: u8,
    pub code: u8,
    /// Where our message was sent.
    pub destination: Option<IpAddr>,
    /// The sender of the error: a router, the host itself, or this machine.
    pub sender: Option<IpAddr>,
}

impl NetworkError {
    /// Whether the message cannot arrive. Errors such as "too big" do not show whether the host is up.
    pub(super) fn is_final(&self, v4: bool) -> bool {
        if v4 {
            matches!((self.kind, self.code), (3, 0..=3 | 5..) | (11 | 12, _))
        } else {
            matches!(self.kind, 1 | 3 | 4)
        }
    }

    /// As in `10.0.0.5 is unreachable: 10.0.0.1 says "communication administratively prohibited" (ICMP type 3, code 13)`.
    pub(super) fn reason(&self, address: impl Display, v4: bool) -> String {
        let sender = self.sender.map_or_else(|| "the network".to_owned(), |sender| sender.to_string());
        let Self { kind, code, .. } = *self;
        let words = words(v4, kind, code);
        format!("{address} is unreachable: {sender} says \"{words}\" (ICMP type {kind}, code {code})")
    }
}

/// RFC 792, and RFC 1812 section 5.2.7.1 for the codes from 6 on. RFC 4443 for version 6.
fn words(v4: bool, kind: u8, code: u8) -> &'static str {
    match (v4, kind, code) {
        (true, 3, 0) => "network unreachable",
        (true, 3, 1) => "host unreachable",
        (true, 3, 2) => "protocol unreachable",
        (true, 3, 3) => "port unreachable",
        (true, 3, 5) => "source route failed",
        (true, 3, 6) => "destination network unknown",
        (true, 3, 7) => "destination host unknown",
        (true, 3, 8) => "source host isolated",
        (true, 3, 9) => "network administratively prohibited",
        (true, 3, 10) => "host administratively prohibited",
        (true, 3, 11) => "network unreachable for this type of service",
        (true, 3, 12) => "host unreachable for this type of service",
        (true, 3, 13) => "communication administratively prohibited",
        (true, 3, 14) => "host precedence violation",
        (true, 3, 15) => "precedence cutoff in effect",
        (true, 11, 0) => "time to live exceeded in transit",
        (true, 11, _) => "fragment reassembly time exceeded",
        (true, 12, _) => "parameter problem",
        (false, 1, 0) => "no route to destination",
        (false, 1, 1) => "communication administratively prohibited",
        (false, 1, 2) => "beyond scope of source address",
        (false, 1, 3) => "address unreachable",
        (false, 1, 4) => "port unreachable",
        (false, 1, 5) => "source address failed ingress or egress policy",
        (false, 1, 6) => "reject route to destination",
        (false, 1, 7) => "error in source routing header",
        (false, 3, 0) => "hop limit exceeded in transit",
        (false, 3, _) => "fragment reassembly time exceeded",
        (false, 4, _) => "parameter problem",
        _ => "destination unreachable",
    }
}

/// Makes the system queue errors for [`next`].
pub(super) fn keep(socket: &impl AsFd, v4: bool) -> io::Result<()> {
    let (level, option) =
        if v4 { (libc::IPPROTO_IP, libc::IP_RECVERR) } else { (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) };
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed for the call, and pointer and length describe one live integer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the next error from the queue: our message, as far as it was quoted, is put into `quoted` (its length is
/// returned). The error itself is None for one that is not of the network.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when there is none.
pub(super) fn next(socket: &impl AsFd, quoted: &mut [u8]) -> io::Result<(usize, Option<NetworkError>)> {
    let mut destination = [0_u8; size_of::<libc::sockaddr_in6>()];
    // Aligned as control messages have to be.
    let mut control = [0_u64; 32];
    let mut data = libc::iovec { iov_base: quoted.as_mut_ptr().cast(), iov_len: quoted.len() };
    // SAFETY: all zeros is a valid msghdr (null pointers and lengths of zero).
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_name = destination.as_mut_ptr().cast();
    header.msg_namelen = destination.len() as libc::socklen_t;
    header.msg_iov = &raw mut data;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: every pointer in the header leads to a live buffer of the length beside it, for the time of the call, and
    // the descriptor is borrowed for it.
    let length =
        unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let control: Vec<u8> =
        control.iter().flat_map(|word| word.to_ne_bytes()).take(header.msg_controllen as _).collect();
    let error = network_error(&control).map(|error| NetworkError { destination: address(&destination), ..error });
    Ok((length.min(quoted.len()), error))
}

/// Finds the error among control messages: `struct cmsghdr`, each followed by its data and padded to the size of a word.
/// For errors the data is a `struct sock_extended_err` (16 bytes) and the address of who sent it.
fn network_error(mut control: &[u8]) -> Option<NetworkError> {
    const WORD: usize = size_of::<usize>();
    const HEADER: usize = size_of::<libc::cmsghdr>();
    loop {
        let length = usize::from_ne_bytes(control.get(..WORD)?.try_into().ok()?);
        let number = |at: usize| Some(libc::c_int::from_ne_bytes(control.get(at..at + 4)?.try_into().ok()?));
        let is_error = matches!(
            (number(HEADER - 8)?, number(HEADER - 4)?),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        );
        let data = control.get(HEADER..length)?;
        if is_error {
            let [origin, kind, code] = data.get(4..7)?.try_into().ok()?;
            let sender = data.get(16..).and_then(address);
            return FROM_ICMP.contains(&origin).then_some(NetworkError { kind, code, destination: None, sender });
        }
        control = control.get(length.next_multiple_of(WORD)..)?;
    }
}

/// The address in a `struct sockaddr_in` or `sockaddr_in6`.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let family = libc::c_int::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).into()),
        _ => None,
    }
}
