//! Checks which kinds of probe work, by a probe of this machine itself, and every VM with each, to say which probe to set.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::report::{Area, Check, Status};
use crate::inventory::{Inventory, Vm};
use crate::selection::{IcmpSocket, IpFamily, Probe, icmp_sockets};

/// This machine answers immediately, unless something blocks it.
const LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn examine() -> Vec<Check> {
    let (sockets, tcp, http, names) = tokio::join!(icmp_sockets(), tcp(), http(), names());
    let mut checks = icmp(&sockets);
    checks.extend([tcp, http, names]);
    checks.push(any(&checks));
    checks.extend(resolvers(std::fs::read_to_string("/etc/resolv.conf").ok().as_deref()));
    checks
}

/// Whether any kind of probe works.
fn any(checks: &[Check]) -> Check {
    let works = |check: &&Check| check.status == Status::Ok && check.name != "names";
    let working: Vec<&str> = checks.iter().filter(works).map(|check| check.name.as_str()).collect();
    if working.is_empty() {
        let advice = "let this process open sockets (seccomp, firewall), or give a callable";
        return Area::PROBES.failed("any probe", "no kind of probe works here", advice).needed();
    }
    Area::PROBES.ok("any probe", working.join(", "))
}

/// A check for each socket. One working socket per family is enough.
fn icmp(sockets: &[IcmpSocket]) -> Vec<Check> {
    let works = |family| sockets.iter().any(|socket| socket.family == family && socket.works);
    let check = |socket: &IcmpSocket| {
        let (version, advice) = match socket.family {
            IpFamily::V4 => (
                "IPv4",
                "sysctl -w net.ipv4.ping_group_range='0 2147483647', or give CAP_NET_RAW, or use probe=\"tcp:22\"",
            ),
            IpFamily::V6 => {
                ("IPv6", "needed for VMs that have only IPv6 addresses: enable IPv6, or use IPv4 addresses")
            }
        };
        let (name, why) = (format!("{} {version}", socket.kind), socket.why.clone());
        match socket.family {
            _ if socket.works => Area::PROBES.ok(name, why),
            family if works(family) => Area::PROBES.note(name, format!("{why} (not needed: the other socket works)")),
            IpFamily::V4 => Area::PROBES.failed(name, why, advice),
            IpFamily::V6 => Area::PROBES.warning(name, why, advice),
        }
    };
    sockets.iter().map(check).collect()
}

async fn tcp() -> Check {
    let result = async {
        let (_listener, port) = listen().await?;
        Probe::Tcp(port).check(&Vm::named("127.0.0.1"), LIMIT).await
    };
    check_result("tcp", result.await.map(|outcome| outcome.rtt))
}

async fn http() -> Check {
    let result = async {
        let (listener, port) = listen().await?;
        let probe: Probe = format!("http://{{ip}}:{port}/").parse().map_err(|e: crate::Error| e.full_message())?;
        let vm = Vm::named("127.0.0.1");
        let probing = probe.check(&vm, LIMIT);
        tokio::select! {
            result = probing => result,
            // The probe has the result, so the server waits after its answer.
            never = async { _ = answer_one(&listener).await; std::future::pending().await } => never,
        }
    };
    check_result("http", result.await.map(|outcome| outcome.rtt))
}

/// Listens on a free port of this machine.
async fn listen() -> Result<(TcpListener, u16), String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    Ok((listener, port))
}

/// Answers any one HTTP request.
async fn answer_one(listener: &TcpListener) -> std::io::Result<()> {
    let (mut connection, _) = listener.accept().await?;
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if connection.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    connection.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await?;
    connection.shutdown().await
}

fn check_result(name: &str, result: Result<Duration, String>) -> Check {
    let advice = "allow connections to 127.0.0.1 (firewall, seccomp): this machine cannot connect to itself";
    match result {
        Ok(rtt) => Area::PROBES.ok(name, format!("127.0.0.1 answered within {:.1} ms", rtt.as_secs_f64() * 1000.0)),
        Err(why) => Area::PROBES.failed(name, why, advice),
    }
}

async fn names() -> Check {
    let started = Instant::now();
    let warning = |detail: String| {
        let advice = "put \"127.0.0.1 localhost\" into /etc/hosts; until then, give the addresses of VMs";
        Area::PROBES.warning("names", detail, advice)
    };
    match tokio::time::timeout(LIMIT, tokio::net::lookup_host(("localhost", 0))).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<String> = found.map(|address| address.ip().to_string()).collect();
            addresses.sort();
            addresses.dedup();
            let ms = started.elapsed().as_secs_f64() * 1000.0;
            Area::PROBES.ok("names", format!("localhost is {} ({ms:.1} ms)", addresses.join(" and ")))
        }
        Ok(Err(e)) => warning(format!("localhost has no address: {e}")),
        Err(_) => warning(format!("localhost was not found within {} s", LIMIT.as_secs())),
    }
}

/// The name servers of this machine (resolv.conf(5)). They get no request.
fn resolvers(file: Option<&str>) -> Option<Check> {
    let servers: Vec<&str> = file?
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .collect();
    Some(match servers.is_empty() {
        true => Area::PROBES.note("resolvers", "/etc/resolv.conf names none: only /etc/hosts is used"),
        false => Area::PROBES.ok("resolvers", format!("{} (not asked)", servers.join(", "))),
    })
}

/// VMs that are probed at the same time.
pub(super) const CONCURRENT_VMS: usize = 64;

/// The name of a probe, and its milliseconds or the reason why it failed.
type ProbeResult = (String, Result<f64, String>);

pub(super) async fn examine_vms(
    inventory: Option<Inventory>,
    mut probes: Vec<(String, Probe)>,
    timeout: Duration,
) -> Vec<Check> {
    let Some(inventory) = inventory else { return Vec::new() };
    let mut names = HashSet::new();
    probes.retain(|(name, _)| names.insert(name.clone()));
    let probes = &probes;
    let results: Vec<(String, Vec<ProbeResult>)> = stream::iter(inventory.vms().iter().cloned())
        .map(|vm| async move { (vm.name.clone(), try_probes(&vm, probes, timeout).await) })
        .buffered(CONCURRENT_VMS)
        .collect()
        .await;
    checks_of(&results)
}

async fn try_probes(vm: &Vm, probes: &[(String, Probe)], timeout: Duration) -> Vec<ProbeResult> {
    join_all(probes.iter().map(|(name, probe)| async move {
        let result = probe.check(vm, timeout).await;
        (name.clone(), result.map(|outcome| outcome.rtt.as_secs_f64() * 1000.0))
    }))
    .await
}

/// A check per VM, and one about the probe to set.
fn checks_of(results: &[(String, Vec<ProbeResult>)]) -> Vec<Check> {
    results.iter().map(|(vm, results)| check_vm(vm, results)).chain([advise_probe(results)]).collect()
}

fn check_vm(vm: &str, results: &[ProbeResult]) -> Check {
    let texts: Vec<String> = results
        .iter()
        .map(|(name, result)| match result {
            Ok(ms) => format!("{name} answers ({ms:.1} ms)"),
            Err(why) => format!("{name}: {why}"),
        })
        .collect();
    let detail = texts.join("; ");
    if results.iter().any(|(_, result)| result.is_ok()) {
        return Area::VMS.ok(vm, detail);
    }
    let advice = "start the VM, or allow ICMP or a TCP port from here (network security group, firewall, route)";
    Area::VMS.failed(vm, detail, advice)
}

/// Advises the probe that most VMs answer, or the first one of several, because ICMP needs no server on the VM.
fn advise_probe(results: &[(String, Vec<ProbeResult>)]) -> Check {
    let answers =
        |results: &[ProbeResult], probe: &str| results.iter().any(|(name, result)| name == probe && result.is_ok());
    let mut remaining: Vec<&[ProbeResult]> = results.iter().map(|(_, results)| results.as_slice()).collect();
    let counts: Vec<(&str, usize)> = remaining
        .first()
        .into_iter()
        .flat_map(|results| results.iter())
        .map(|(probe, _)| (probe.as_str(), remaining.iter().filter(|results| answers(results, probe)).count()))
        .collect();
    let texts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} {count} of {}", results.len())).collect();
    let detail = format!("answered: {}", texts.join(", "));
    remaining.retain(|results| results.iter().any(|(_, result)| result.is_ok()));
    if remaining.is_empty() {
        let detail = format!("no VM answered any probe ({detail})");
        let advice = "check the route and the firewalls from here to the VMs";
        return Area::VMS.failed("probe to set", detail, advice).needed();
    }
    if let Some((best, _)) = counts.iter().find(|(_, count)| *count == remaining.len()) {
        let advice = format!("probe=\"{best}\" finds every VM that answers at all");
        return Area::VMS.ok("probe to set", detail).advise(&advice);
    }
    // No single probe finds all VMs: chooses the probe that finds most of the remaining ones until none remains.
    let mut chosen: Vec<String> = Vec::new();
    while !remaining.is_empty() {
        let gain = |probe: &str| remaining.iter().filter(|results| answers(results, probe)).count();
        // The last maximum of the reversed list is the first probe of equal ones.
        let Some(&(next, _)) = counts.iter().rev().max_by_key(|(probe, _)| gain(probe)) else { break };
        remaining.retain(|results| !answers(results, next));
        chosen.push(format!("\"{next}\""));
    }
    let advice = format!("probe=[{}] finds every VM that answers at all", chosen.join(", "));
    Area::VMS.warning("probe to set", format!("{detail}; none finds every VM that answers"), &advice)
}

#[cfg(test)]
mod tests {
    use super::super::report::Report;
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
        let broken = Area::PROBES.failed("tcp", "closed", "open it");
        let found = any(std::slice::from_ref(&broken));
        assert!(found.status == Status::Failed && found.needed);
        assert_eq!(any(&[broken, Area::PROBES.ok("http", "")]).detail, "http");
        // Names are no probe.
        assert_eq!(any(&[Area::PROBES.ok("names", "")]).status, Status::Failed);
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

    fn answers(of: &[(&str, bool)]) -> Vec<ProbeResult> {
        let answer = |works| if works { Ok(1.0) } else { Err("silent".to_owned()) };
        of.iter().map(|(name, works)| ((*name).to_owned(), answer(*works))).collect()
    }

    #[test]
    fn an_open_port_is_advised_if_icmp_is_silent() {
        let found = [("a".to_owned(), answers(&[("icmp", false), ("tcp:22", true)]))];
        let checks = checks_of(&found);
        assert_eq!(checks[0].detail, "icmp: silent; tcp:22 answers (1.0 ms)");
        assert_eq!(checks[0].status, Status::Ok);
        assert!(checks[1].advice.as_ref().unwrap().starts_with("probe=\"tcp:22\""));
    }

    #[test]
    fn of_equal_probes_the_first_is_advised() {
        let found = [("a".to_owned(), answers(&[("icmp", true), ("tcp:22", true)]))];
        assert!(checks_of(&found)[1].advice.as_ref().unwrap().starts_with("probe=\"icmp\""));
    }

    #[test]
    fn a_list_is_advised_if_no_probe_finds_all() {
        let found = [
            ("a".to_owned(), answers(&[("icmp", false), ("tcp:22", true), ("tcp:80", false)])),
            ("b".to_owned(), answers(&[("icmp", true), ("tcp:22", false), ("tcp:80", false)])),
            ("c".to_owned(), answers(&[("icmp", false), ("tcp:22", false), ("tcp:80", false)])),
        ];
        let checks = checks_of(&found);
        assert_eq!(checks[2].status, Status::Failed);
        assert!(!checks[2].needed, "one dead VM is what the selector is for");
        let advice = checks[3].advice.as_ref().unwrap();
        assert!(advice.starts_with("probe=[\"icmp\", \"tcp:22\"]"), "{advice}");
        assert!(Report { checks }.ok());
    }

    #[test]
    fn when_no_vm_answers_it_is_a_failure() {
        let found = [("a".to_owned(), answers(&[("icmp", false)]))];
        assert!(!Report { checks: checks_of(&found) }.ok());
    }

    #[tokio::test]
    async fn vms_are_probed_in_their_order() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let closed = {
            let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            other.local_addr().unwrap().port()
        };
        let inventory = Inventory::from_value(serde_json::json!(["127.0.0.1", "localhost"])).unwrap();
        let probes = vec![
            (format!("tcp:{closed}"), Probe::Tcp(closed)),
            (format!("tcp:{port}"), Probe::Tcp(port)),
            (format!("tcp:{port}"), Probe::Tcp(port)),
        ];
        let checks = examine_vms(Some(inventory), probes, Duration::from_secs(5)).await;
        let names: Vec<_> = checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["127.0.0.1", "localhost", "probe to set"]);
        assert!(checks[0].detail.matches("answers").count() == 1, "{}", checks[0].detail);
        assert!(checks[2].advice.as_ref().unwrap().starts_with(&format!("probe=\"tcp:{port}\"")));
    }
}
