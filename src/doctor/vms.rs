//! Checks every VM with every kind of probe, and which probe to set.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;

use super::report::{Area, Check};
use crate::inventory::{Inventory, Vm};
use crate::selection::Probe;

/// VMs that are probed at the same time.
pub(super) const CONCURRENT_VMS: usize = 64;

/// The name of a probe, and its milliseconds or the reason why it failed.
type ProbeResult = (String, Result<f64, String>);

pub(super) async fn examine(
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
        return Area::Vms.ok(vm, detail);
    }
    let advice = "start the VM, or allow ICMP or a TCP port from here (network security group, firewall, route)";
    Area::Vms.failed(vm, detail, advice)
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
        return Area::Vms.failed("probe to set", detail, advice).needed();
    }
    if let Some((best, _)) = counts.iter().find(|(_, count)| *count == remaining.len()) {
        let advice = format!("probe=\"{best}\" finds every VM that answers at all");
        return Area::Vms.ok("probe to set", detail).advise(&advice);
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
    Area::Vms.warning("probe to set", format!("{detail}; none finds every VM that answers"), &advice)
}

#[cfg(test)]
mod tests {
    use super::super::report::{Report, Status};
    use super::*;

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
        assert!(Report::new(checks).ok());
    }

    #[test]
    fn when_no_vm_answers_it_is_a_failure() {
        let found = [("a".to_owned(), answers(&[("icmp", false)]))];
        assert!(!Report::new(checks_of(&found)).ok());
    }

    #[tokio::test]
    async fn vms_are_probed_in_their_order() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let closed = {
            let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            other.local_addr().unwrap().port()
        };
        let inventory = Inventory::from_names(&["127.0.0.1", "localhost"]).unwrap();
        let probes = vec![
            (format!("tcp:{closed}"), Probe::Tcp(closed)),
            (format!("tcp:{port}"), Probe::Tcp(port)),
            (format!("tcp:{port}"), Probe::Tcp(port)),
        ];
        let checks = examine(Some(inventory), probes, Duration::from_secs(5)).await;
        let names: Vec<_> = checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["127.0.0.1", "localhost", "probe to set"]);
        assert!(checks[0].detail.matches("answers").count() == 1, "{}", checks[0].detail);
        assert!(checks[2].advice.as_ref().unwrap().starts_with(&format!("probe=\"tcp:{port}\"")));
    }
}
