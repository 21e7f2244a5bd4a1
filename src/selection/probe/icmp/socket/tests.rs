//! Replies and errors as the network brings them: sent over raw sockets where this user may open them, else handed to
//! the code that reads sockets.

use std::net::Ipv4Addr;

use super::*;

const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 88);
/// Long enough for a loaded machine.
const PLENTY: Duration = Duration::from_secs(20);

/// A probe of HOST that has not sent anything, so that nothing but what the test makes arrives.
struct Waits {
    seat: PendingEcho,
    echo: Echo,
}

/// One for each kind of socket that is permitted.
fn waiting() -> Vec<Waits> {
    let sockets = [Kind::Datagram, Kind::Raw].into_iter().filter_map(|kind| match EchoSocket::open(kind, true) {
        Ok(socket) => Some(socket),
        Err(e) => {
            assert!(matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM)), "{kind:?}: {e}");
            None
        }
    });
    let waits = sockets.map(|socket| {
        let seat = PendingEcho::on(&socket, SocketAddr::new(HOST.into(), 0)).unwrap();
        let inner = &socket.inner;
        lock(&inner.waiting).probes.get_mut(&seat.sequence).unwrap().sent[1] = Some(Instant::now());
        let echo = Echo { identifier: inner.identifier, sequence: seat.sequence + 1, token: Some(seat.token) };
        Waits { seat, echo }
    });
    waits.collect()
}

impl Waits {
    /// What came of it, for as long as a stray message takes to be read where none is expected.
    async fn event(mut self) -> Option<EchoResult> {
        tokio::time::timeout(PLENTY, self.seat.answer()).await.unwrap()
    }

    async fn nothing_yet(&mut self) -> bool {
        // What arrived has been read when a later message has: of another probe on the same socket.
        let mut later = PendingEcho::on(&self.seat.socket, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).unwrap();
        later.send(0).await.unwrap();
        assert!(matches!(tokio::time::timeout(PLENTY, later.answer()).await.unwrap(), Some(EchoResult::Reply(_))));
        tokio::time::timeout(Duration::ZERO, self.seat.answer()).await.is_err()
    }

    fn message(&self, kind: u8, echo: Echo) -> Vec<u8> {
        let token = echo.token.unwrap_or_default();
        let mut message = message::request(HOST.into(), echo.identifier, echo.sequence, &token).to_vec();
        message[0] = kind;
        with_checksum(message)
    }

    fn reply_from(&self, sender: Ipv4Addr, echo: Echo) {
        let reply = self.message(0, echo);
        if !sent_raw(sender, &reply) {
            self.seat.socket.inner.arrived(&reply, sender.into());
        }
    }

    /// An error about our request, of which the first `quoted` bytes are in it.
    fn error_from(&self, sender: Ipv4Addr, kind: u8, code: u8, destination: Ipv4Addr, echo: Echo, quoted: usize) {
        let request = &self.message(8, echo)[..quoted];
        let mut error = vec![kind, code, 0, 0, 0, 0, 0, 0];
        // The IP header of the request.
        error.extend([0x45, 0, 0, (20 + message::LENGTH) as u8, 0, 0, 0, 0, 64, libc::IPPROTO_ICMP as u8, 0, 0]);
        error.extend(Ipv4Addr::LOCALHOST.octets());
        error.extend(destination.octets());
        error.extend(request);
        if !sent_raw(sender, &with_checksum(error)) {
            let (destination, sender) = (Some(destination.into()), Some(sender.into()));
            self.seat.socket.inner.failed(request, NetworkError { kind, code, destination, sender });
        }
    }
}

fn with_checksum(mut message: Vec<u8>) -> Vec<u8> {
    message[2..4].fill(0);
    let sum = message::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Sends an ICMP message to this machine. False where this user may not.
fn sent_raw(from: Ipv4Addr, message: &[u8]) -> bool {
    let Ok(socket) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)) else { return false };
    socket.bind(&SocketAddr::new(from.into(), 0).into()).unwrap();
    socket.send_to(message, &SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0).into()).unwrap();
    true
}

#[tokio::test]
async fn the_reply_of_the_host_itself_counts() {
    for waits in waiting() {
        waits.reply_from(HOST, waits.echo);
        assert!(matches!(waits.event().await, Some(EchoResult::Reply(_))));
    }
}

#[tokio::test]
async fn a_reply_from_another_address_is_told_from_one_of_the_host() {
    for waits in waiting() {
        waits.reply_from(ELSEWHERE, waits.echo);
        assert_eq!(waits.event().await, Some(EchoResult::ReplyFrom(ELSEWHERE.into())));
    }
}

#[tokio::test]
async fn stray_and_forged_messages_do_not_count() {
    for mut waits in waiting() {
        let echo = waits.echo;
        let mut other_token = seat_token(&waits);
        other_token[15] ^= 1;
        // An old reply to a probe that had the same number, with a token of its own.
        waits.reply_from(HOST, Echo { token: Some(other_token), ..echo });
        // A request that was never sent, and a probe that does not exist.
        waits.reply_from(HOST, Echo { sequence: echo.sequence + 1, ..echo });
        waits.reply_from(HOST, Echo { sequence: echo.sequence.wrapping_add(400), ..echo });
        waits.reply_from(HOST, Echo { identifier: echo.identifier ^ 1, ..echo });
        // Errors about another request, about another host, and ones that are no news about the host: a path
        // that takes smaller packets only, and a redirect.
        waits.error_from(ELSEWHERE, 3, 1, HOST, Echo { identifier: echo.identifier ^ 1, ..echo }, message::LENGTH);
        waits.error_from(ELSEWHERE, 3, 1, HOST, Echo { token: Some(other_token), ..echo }, message::LENGTH);
        waits.error_from(ELSEWHERE, 3, 1, ELSEWHERE, echo, message::LENGTH);
        waits.error_from(ELSEWHERE, 3, 4, HOST, echo, message::LENGTH);
        assert!(waits.nothing_yet().await, "{:?}", waits.seat.kind());
        waits.reply_from(HOST, echo);
        assert!(matches!(waits.event().await, Some(EchoResult::Reply(_))));
    }
}

fn seat_token(waits: &Waits) -> Token {
    waits.seat.token
}

#[tokio::test]
async fn what_a_router_says_is_known_at_once_with_its_words_and_address() {
    for (kind, code, words) in [
        (3, 0, "network unreachable"),
        (3, 1, "host unreachable"),
        (3, 3, "port unreachable"),
        (3, 10, "host administratively prohibited"),
        (3, 13, "communication administratively prohibited"),
        (11, 0, "time to live exceeded in transit"),
        (12, 0, "parameter problem"),
    ] {
        // Routers need not quote more than the header of our message (RFC 792).
        for quoted in [8, message::LENGTH] {
            for waits in waiting() {
                let socket = waits.seat.kind();
                waits.error_from(ELSEWHERE, kind, code, HOST, waits.echo, quoted);
                let Some(EchoResult::Unreachable(error)) = waits.event().await else { panic!("{socket:?} {words}") };
                assert_eq!(
                    error.reason(HOST, true),
                    format!("127.0.0.77 is unreachable: 127.0.0.88 says \"{words}\" (ICMP type {kind}, code {code})")
                );
            }
        }
    }
}

#[tokio::test]
async fn an_error_about_one_host_does_not_keep_the_others_of_the_socket_from_sending() {
    for waits in waiting() {
        let here = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        for _ in 0..50 {
            // The system reports the error to the next sender.
            waits.error_from(ELSEWHERE, 3, 1, HOST, waits.echo, 8);
            let mut other = PendingEcho::on(&waits.seat.socket, here).unwrap();
            other.send(0).await.unwrap();
            let event = tokio::time::timeout(PLENTY, other.answer()).await.unwrap();
            assert!(matches!(event, Some(EchoResult::Reply(_))), "{event:?}");
        }
    }
}

#[tokio::test]
async fn sockets_are_shared_and_closed_when_no_probe_uses_them() {
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let open = || OPEN.with_borrow(|open| open.iter().filter(|socket| socket.strong_count() > 0).count());
    let mut seats = Vec::new();
    for _ in 0..PROBES * 2 + 1 {
        match PendingEcho::open(to) {
            Ok(seat) => seats.push(seat),
            Err(errors) => {
                let refused = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM));
                return assert!(errors.iter().all(refused), "{errors:?}");
            }
        }
    }
    assert_eq!(open(), 3);
    let sequences: std::collections::HashSet<_> = seats[..PROBES].iter().map(|seat| seat.sequence).collect();
    assert_eq!(sequences.len(), PROBES);
    drop(seats.split_off(PROBES));
    assert_eq!(open(), 1);
    seats.pop();
    let seat = PendingEcho::open(to).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(open(), 1, "the free place is taken");
    drop((seats, seat));
    assert_eq!(open(), 0);
}

#[tokio::test]
async fn a_forked_child_does_not_use_its_parents_sockets() {
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let Ok(own) = PendingEcho::open(to) else { return }; // the test above has looked at the reason
    // What a child sees: a socket of another process.
    let mut parents = EchoSocket::open(own.kind(), true).unwrap();
    Arc::get_mut(&mut parents).unwrap().pid ^= 1;
    OPEN.with_borrow_mut(|open| *open = vec![Arc::downgrade(&parents)]);
    let mut childs = PendingEcho::open(to).unwrap_or_else(|e| panic!("{e:?}"));
    assert!(!Arc::ptr_eq(&parents, &childs.socket));
    childs.send(0).await.unwrap();
    assert!(matches!(tokio::time::timeout(PLENTY, childs.answer()).await.unwrap(), Some(EchoResult::Reply(_))));
}
