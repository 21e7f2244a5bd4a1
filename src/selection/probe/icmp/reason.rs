//! Why ICMP failed, in words.

use std::fmt::Display;
use std::io;

use super::super::attempt::in_words;
use super::errors::NetworkError;
use super::socket::Kind;

impl NetworkError {
    /// Whether the message cannot arrive. "Too big" and the like are no news about the host.
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
        format!(
            "{address} is unreachable: {sender} says \"{}\" (ICMP type {}, code {})",
            if v4 { words_v4(self.kind, self.code) } else { words_v6(self.kind, self.code) },
            self.kind,
            self.code
        )
    }
}

/// RFC 792, and RFC 1812 section 5.2.7.1 for the codes from 6 on.
fn words_v4(kind: u8, code: u8) -> &'static str {
    match (kind, code) {
        (3, 0) => "network unreachable",
        (3, 1) => "host unreachable",
        (3, 2) => "protocol unreachable",
        (3, 3) => "port unreachable",
        (3, 5) => "source route failed",
        (3, 6) => "destination network unknown",
        (3, 7) => "destination host unknown",
        (3, 8) => "source host isolated",
        (3, 9) => "network administratively prohibited",
        (3, 10) => "host administratively prohibited",
        (3, 11) => "network unreachable for this type of service",
        (3, 12) => "host unreachable for this type of service",
        (3, 13) => "communication administratively prohibited",
        (3, 14) => "host precedence violation",
        (3, 15) => "precedence cutoff in effect",
        (11, 0) => "time to live exceeded in transit",
        (11, _) => "fragment reassembly time exceeded",
        (12, _) => "parameter problem",
        _ => "destination unreachable",
    }
}

/// RFC 4443.
fn words_v6(kind: u8, code: u8) -> &'static str {
    match (kind, code) {
        (1, 0) => "no route to destination",
        (1, 1) => "communication administratively prohibited",
        (1, 2) => "beyond scope of source address",
        (1, 3) => "address unreachable",
        (1, 4) => "port unreachable",
        (1, 5) => "source address failed ingress or egress policy",
        (1, 6) => "reject route to destination",
        (1, 7) => "error in source routing header",
        (3, 0) => "hop limit exceeded in transit",
        (3, _) => "fragment reassembly time exceeded",
        (4, _) => "parameter problem",
        _ => "destination unreachable",
    }
}

/// Why there is no socket of either kind.
pub(super) fn not_permitted(datagram: &io::Error, raw: &io::Error) -> String {
    if let Some(libc::EAFNOSUPPORT | libc::EMFILE | libc::ENFILE) = raw.raw_os_error() {
        return format!("no ICMP socket: {}", no_socket(Kind::Raw, raw));
    }
    format!("ICMP is not permitted here: {}, and {}", no_socket(Kind::Datagram, datagram), no_socket(Kind::Raw, raw))
}

/// Why there is no socket of this kind.
pub(super) fn no_socket(kind: Kind, error: &io::Error) -> String {
    match (kind, error.raw_os_error()) {
        (_, Some(libc::EAFNOSUPPORT)) => "this machine has no IPv6".to_owned(),
        (_, Some(libc::EMFILE | libc::ENFILE)) => in_words(error),
        (Kind::Datagram, Some(libc::EACCES | libc::EPERM)) => groups(),
        (Kind::Raw, Some(libc::EACCES | libc::EPERM)) => "a raw socket needs CAP_NET_RAW".to_owned(),
        _ => format!("the system gives no {} socket ({error})", kind.name()),
    }
}

/// Who may open datagram sockets; the setting is for both versions of IP.
fn groups() -> String {
    let setting = "net.ipv4.ping_group_range";
    let group = rustix::process::getgid().as_raw();
    match std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range") {
        Ok(range) => {
            let range = range.split_whitespace().collect::<Vec<_>>().join(" ");
            let whom = if range == "1 0" { "admits nobody".to_owned() } else { format!("leaves group {group} out") };
            format!("{setting} is \"{range}\" and {whom}")
        }
        Err(_) => format!("{setting} leaves group {group} out, or a sandbox forbids it"),
    }
}
