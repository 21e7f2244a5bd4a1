//! Echo messages as they travel (RFC 792; RFC 4443 for version 6).

use std::net::IpAddr;

/// Random bytes that only the reply to this very request can hold.
pub(super) type Token = [u8; 16];

const HEADER: usize = 8;
/// Length of the messages made here.
pub(super) const LENGTH: usize = HEADER + size_of::<Token>();

/// What identifies an echo request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Echo {
    /// Tells the senders on one machine apart. The system puts its own number here on unprivileged sockets.
    pub identifier: u16,
    /// Tells one sender's requests apart.
    pub sequence: u16,
    /// None where a router quoted too little of the message.
    pub token: Option<Token>,
}

/// An echo request to an address of this family.
pub(super) fn request(to: IpAddr, identifier: u16, sequence: u16, token: &Token) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[0] = if to.is_ipv4() { 8 } else { 128 };
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    message[HEADER..].copy_from_slice(token);
    // The checksum of version 6 also covers the addresses: the system knows them, and fills it in.
    if to.is_ipv4() {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// Reads an echo reply; None for every other message.
pub(super) fn reply(message: &[u8], v4: bool) -> Option<Echo> {
    echo(if v4 { 0 } else { 129 }, message)
}

/// Reads an echo request as an error message quotes it, which may be no more than its header.
pub(super) fn quoted_request(message: &[u8], v4: bool) -> Option<Echo> {
    echo(if v4 { 8 } else { 128 }, message)
}

/// What follows the IP header (version 4) that raw sockets deliver in front of a message.
pub(super) fn without_ip_header(packet: &[u8]) -> &[u8] {
    match packet.first() {
        Some(first) if first >> 4 == 4 => packet.get(usize::from(first & 0x0f) * 4..).unwrap_or_default(),
        _ => packet,
    }
}

fn echo(kind: u8, message: &[u8]) -> Option<Echo> {
    message.first().filter(|first| **first == kind)?;
    let number = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let token = message.get(HEADER..LENGTH).and_then(|bytes| bytes.try_into().ok());
    Some(Echo { identifier: number(4)?, sequence: number(6)?, token })
}

/// RFC 1071.
pub(super) fn checksum(message: &[u8]) -> u16 {
    let sum: u32 = message
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()])))
        .sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    !((folded + (folded >> 16)) as u16)
}
