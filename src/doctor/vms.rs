//! Every VM with every kind of probe side by side, and which probe to set.

use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;

use super::report::{Area, Check, ok};
use crate::inventory::{Inventory, Vm};
use crate::selection::Probe;

/// VMs that are probed at the same time.
pub(super) const AT_ONCE: usize = 64;

/// What is tried on each VM whatever is set: name and probe.
pub(super) fn usual_probes() -> Vec<(String, Probe)> {
    vec![("icmp".to_owned(), Probe::Icmp), ("tcp:22".to_owned(), Probe::Tcp(22))]
}

/// The answer of one probe: milliseconds, or the reason.
type Answer = (String, Result<f64, String>);

pub(super) async fn examine(
    inventory: Option<Inventory>,
    mut probes: Vec<(String, Probe)>,
    timeout: Duration,
) -> Vec<Check> {
    let Some(inventory) = inventory else { return Vec::new() };
    let mut names = std::collections::HashSet::new();
    probes.retain(|(name, _)| names.insert(name.clone()));
    let found: Vec<(String, Vec<Answer>)> = stream::iter(inventory.vms().iter().cloned())
        .map(|vm| {
            let probes = &probes;
            async move { (vm.name.clone(), side_by_side(&vm, probes, timeout).await) }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    judged(&found)
}

async fn side_by_side(vm: &Vm, probes: &[(String, Probe)], timeout: Duration) -> Vec<Answer> {
    join_all(probes.iter().map(|(name, probe)| async move {
        let answer = probe.check(vm, timeout).await;
        (name.clone(), answer.map(|outcome| outcome.rtt.as_secs_f64() * 1000.0))
    }))
    .await
}

/// A check per VM, and one about the probe to set.
fn judged(found: &[(String, Vec<Answer>)]) -> Vec<Check> {
    let mut checks: Vec<Check> = found.iter().map(|(vm, answers)| of_vm(vm, answers)).collect();
    checks.push(advice(found));
    checks
}

fn of_vm(vm: &str, answers: &[Answer]) -> Check {
    let told: Vec<String> = answers
        .iter()
        .map(|(name, answer)| match answer {
            Ok(ms) => format!("{name} answers ({ms:.1} ms)"),
            Err(why) => format!("{name}: {why}"),
        })
        .collect();
    let check = ok(Area::Vms, vm, told.join("; "));
    let answering = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
    if answering == 0 {
        let detail = check.detail.clone();
        return check.failed(
            detail,
            "start the VM, or allow ICMP or a TCP port from here (network security group, firewall, route)",
        );
    }
    check
}

/// The probe that most VMs answer; of several the first, as ICMP needs nothing to listen.
fn advice(found: &[(String, Vec<Answer>)]) -> Check {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for (name, answer) in found.iter().flat_map(|(_, answers)| answers) {
        let at = counts.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            counts.push((name, 0));
            counts.len() - 1
        });
        counts[at].1 += usize::from(answer.is_ok());
    }
    let any = found.iter().filter(|(_, answers)| answers.iter().any(|(_, answer)| answer.is_ok())).count();
    let told: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count} of {}", found.len())).collect();
    let told = format!("answered: {}", told.join(", "));
    let check = ok(Area::Vms, "probe to set", told.clone());
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let Some((best, _)) = counts.iter().find(|(_, count)| *count == most && most > 0) else {
        return check
            .failed(
                format!("no VM answered any probe ({told})"),
                "check the route and the firewalls from here to the VMs",
            )
            .needed();
    };
    if most == any {
        return check.hint(format!("probe=\"{best}\" finds every VM that answers at all"));
    }
    // No single probe will do: the fewest that together find all, taken greedily.
    let mut chosen: Vec<&str> = Vec::new();
    let mut left: Vec<&Vec<Answer>> = found.iter().map(|(_, answers)| answers).collect();
    loop {
        let finds = |name: &str, answers: &[Answer]| answers.iter().any(|(n, answer)| n == name && answer.is_ok());
        let gain = |name: &str| left.iter().filter(|answers| finds(name, answers)).count();
        // The first of equals.
        let Some(&(next, _)) = counts.iter().rev().max_by_key(|(name, _)| gain(name)) else { break };
        if gain(next) == 0 {
            break;
        }
        left.retain(|answers| !finds(next, answers));
        chosen.push(next);
    }
    let list: Vec<String> = chosen.iter().map(|name| format!("\"{name}\"")).collect();
    check.warning(
        format!("{told}; none finds every VM that answers"),
        format!("probe=[{}] finds every VM that answers at all", list.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::{Report, Status};
    use super::*;

    fn answers(of: &[(&str, bool)]) -> Vec<Answer> {
        let answer = |works| if works { Ok(1.0) } else { Err("silent".to_owned()) };
        of.iter().map(|(name, works)| ((*name).to_owned(), answer(*works))).collect()
    }

    #[test]
    fn silent_icmp_beside_an_open_port_leads_to_the_port() {
        let found = [("a".to_owned(), answers(&[("icmp", false), ("tcp:22", true)]))];
        let checks = judged(&found);
        assert_eq!(checks[0].detail, "icmp: silent; tcp:22 answers (1.0 ms)");
        assert_eq!(checks[0].status, Status::Ok);
        assert!(checks[1].advice.as_ref().unwrap().starts_with("probe=\"tcp:22\""));
    }

    #[test]
    fn of_equal_probes_the_first_is_advised() {
        let found = [("a".to_owned(), answers(&[("icmp", true), ("tcp:22", true)]))];
        assert!(judged(&found)[1].advice.as_ref().unwrap().starts_with("probe=\"icmp\""));
    }

    #[test]
    fn where_no_probe_finds_all_a_list_is_advised() {
        let found = [
            ("a".to_owned(), answers(&[("icmp", false), ("tcp:22", true), ("tcp:80", false)])),
            ("b".to_owned(), answers(&[("icmp", true), ("tcp:22", false), ("tcp:80", false)])),
            ("c".to_owned(), answers(&[("icmp", false), ("tcp:22", false), ("tcp:80", false)])),
        ];
        let checks = judged(&found);
        assert_eq!(checks[2].status, Status::Failed);
        assert!(!checks[2].needed, "one dead VM is what the selector is for");
        let advice = checks[3].advice.as_ref().unwrap();
        assert!(advice.starts_with("probe=[\"icmp\", \"tcp:22\"]"), "{advice}");
        assert!(Report::new(checks).ok());
    }

    #[test]
    fn when_no_vm_answers_it_is_a_failure() {
        let found = [("a".to_owned(), answers(&[("icmp", false)]))];
        assert!(!Report::new(judged(&found)).ok());
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
