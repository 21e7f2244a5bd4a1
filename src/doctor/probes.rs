//! Which kinds of probe work here, tried on this machine itself.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::report::{Area, Check, Status, note, ok};
use crate::inventory::Vm;
use crate::selection::{IcmpSocket, IpFamily, Probe, icmp_sockets};

/// This machine answers at once, or something holds its answers back.
const LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn examine() -> Vec<Check> {
    let (sockets, tcp, http, names) = tokio::join!(icmp_sockets(), tcp(), http(), names());
    let mut checks = icmp(&sockets);
    checks.extend([tcp, http, names]);
    checks.push(any(&checks));
    checks.extend(resolvers(std::fs::read_to_string("/etc/resolv.conf").ok().as_deref()));
    checks
}

/// Whether there is any way to find out if a VM answers.
fn any(checks: &[Check]) -> Check {
    let working: Vec<&str> = checks
        .iter()
        .filter(|check| check.status == Status::Ok && check.name != "names")
        .map(|check| check.name.as_str())
        .collect();
    let check = ok(Area::Probes, "any probe", working.join(", "));
    if working.is_empty() {
        return check
            .failed(
                "no kind of probe works here",
                "let this process open sockets (seccomp, firewall), or give a callable",
            )
            .needed();
    }
    check
}

/// A check for each socket. One kind per family is enough.
fn icmp(sockets: &[IcmpSocket]) -> Vec<Check> {
    let works = |family| sockets.iter().any(|socket| socket.family == family && socket.works);
    sockets
        .iter()
        .map(|socket| {
            let version = match socket.family {
                IpFamily::V4 => "IPv4",
                IpFamily::V6 => "IPv6",
            };
            let name = format!("{} {version}", socket.kind);
            let check = ok(Area::Probes, name.clone(), socket.why.clone());
            if socket.works {
                return check;
            }
            if works(socket.family) {
                return note(Area::Probes, name, format!("{} (not needed: the other socket works)", socket.why));
            }
            match socket.family {
                IpFamily::V4 => check.failed(
                    socket.why.clone(),
                    "sysctl -w net.ipv4.ping_group_range='0 2147483647', or give CAP_NET_RAW, or use probe=\"tcp:22\"",
                ),
                IpFamily::V6 => check.warning(
                    socket.why.clone(),
                    "needed for VMs with IPv6 addresses alone: switch IPv6 on, or use their IPv4 addresses",
                ),
            }
        })
        .collect()
}

async fn tcp() -> Check {
    let tried = async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|e| e.to_string())?;
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        Probe::Tcp(port).check(&Vm::named("127.0.0.1"), LIMIT).await
    };
    answered("tcp", tried.await.map(|outcome| outcome.rtt))
}

async fn http() -> Check {
    let tried = async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|e| e.to_string())?;
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        let probe: Probe = format!("http://{{ip}}:{port}/").parse().map_err(|e: crate::Error| e.full_message())?;
        let vm = Vm::named("127.0.0.1");
        let serving = answer_one(&listener);
        let probing = probe.check(&vm, LIMIT);
        tokio::select! {
            answer = probing => answer,
            // Only the probe knows how it ended.
            never = async { let _ = serving.await; std::future::pending().await } => never,
        }
    };
    answered("http", tried.await.map(|outcome| outcome.rtt))
}

/// Answers one HTTP request, whatever it asks for.
async fn answer_one(listener: &TcpListener) -> std::io::Result<()> {
    let (mut connection, _) = listener.accept().await?;
    let mut asked = Vec::new();
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        if connection.read_buf(&mut asked).await? == 0 {
            return Ok(());
        }
    }
    connection.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await?;
    connection.shutdown().await
}

fn answered(name: &str, outcome: Result<Duration, String>) -> Check {
    match outcome {
        Ok(rtt) => ok(Area::Probes, name, format!("127.0.0.1 answered within {:.1} ms", rtt.as_secs_f64() * 1000.0)),
        Err(why) => ok(Area::Probes, name, "")
            .failed(why, "allow connections to 127.0.0.1 (firewall, seccomp): not even this machine could be reached"),
    }
}

async fn names() -> Check {
    let begun = Instant::now();
    let check = ok(Area::Probes, "names", "");
    let advice = "put \"127.0.0.1 localhost\" into /etc/hosts; VMs can be given by address meanwhile";
    match tokio::time::timeout(LIMIT, tokio::net::lookup_host(("localhost", 0))).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<String> = found.map(|address| address.ip().to_string()).collect();
            addresses.sort();
            addresses.dedup();
            let ms = begun.elapsed().as_secs_f64() * 1000.0;
            ok(Area::Probes, "names", format!("localhost is {} ({ms:.1} ms)", addresses.join(" and ")))
        }
        Ok(Err(e)) => check.warning(format!("localhost has no address: {e}"), advice),
        Err(_) => check.warning(format!("localhost was not found within {} s", LIMIT.as_secs()), advice),
    }
}

/// The servers that are asked for names (resolv.conf(5)). None of them is asked.
fn resolvers(file: Option<&str>) -> Option<Check> {
    let servers: Vec<&str> = file?
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .collect();
    Some(match servers.is_empty() {
        true => note(Area::Probes, "resolvers", "/etc/resolv.conf names none: only /etc/hosts is asked"),
        false => ok(Area::Probes, "resolvers", format!("{} (not asked)", servers.join(", "))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(family: IpFamily, kind: &'static str, works: bool) -> IcmpSocket {
        IcmpSocket { family, kind, works, why: format!("{kind} was tried") }
    }

    #[test]
    fn one_working_socket_of_a_family_is_enough() {
        let checks = icmp(&[
            socket(IpFamily::V4, "icmp-dgram", false),
            socket(IpFamily::V4, "icmp-raw", true),
            socket(IpFamily::V6, "icmp-dgram", false),
            socket(IpFamily::V6, "icmp-raw", false),
        ]);
        let statuses: Vec<_> = checks.iter().map(|check| check.status).collect();
        assert_eq!(statuses, [Status::Note, Status::Ok, Status::Warning, Status::Warning]);
        let none = icmp(&[socket(IpFamily::V4, "icmp-dgram", false), socket(IpFamily::V4, "icmp-raw", false)]);
        assert!(none.iter().all(|check| check.status == Status::Failed));
        assert!(none[0].advice.as_ref().unwrap().contains("ping_group_range"));
        assert_eq!(none[0].detail, "icmp-dgram was tried");
    }

    #[test]
    fn without_any_probe_nothing_works() {
        let broken = ok(Area::Probes, "tcp", "").failed("closed", "open it");
        let found = any(std::slice::from_ref(&broken));
        assert!(found.status == Status::Failed && found.needed);
        assert_eq!(any(&[broken, ok(Area::Probes, "http", "")]).detail, "http");
        // Names are no probe.
        assert_eq!(any(&[ok(Area::Probes, "names", "")]).status, Status::Failed);
    }

    #[test]
    fn resolvers_are_read_as_the_system_reads_them() {
        let found = resolvers(Some("# x\nnameserver 10.0.0.2\nsearch a\n nameserver fe80::1%eth0\n")).unwrap();
        assert_eq!(found.detail, "10.0.0.2, fe80::1%eth0 (not asked)");
        assert_eq!(resolvers(Some("search a\n")).unwrap().status, Status::Note);
        assert_eq!(resolvers(None), None);
    }

    #[tokio::test]
    async fn this_machine_answers_tcp_and_http() {
        for check in [tcp().await, http().await, names().await] {
            assert_eq!(check.status, Status::Ok, "{check:?}");
        }
    }
}
