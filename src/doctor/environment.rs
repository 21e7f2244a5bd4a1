//! Describes the environment: system, container, user, Databricks, clock.

use std::path::Path;

use chrono::{Datelike as _, Local, Utc};

use super::report::{Area, Check};
use super::variables::EnvironmentVariables;

/// The bit of CAP_NET_RAW in a capability set (Linux, capability.h).
const CAP_NET_RAW: u32 = 13;

/// With fewer file descriptors, a check of many VMs waits for free ones.
const FEW_FILES: u64 = 1024;

pub(super) fn examine(variables: &EnvironmentVariables, runtime: Option<&str>) -> Vec<Check> {
    vec![
        Area::Environment.ok("jobrota", version(runtime)),
        Area::Environment.ok("system", system()),
        container(variables),
        user(),
        databricks(variables),
        clock(variables),
        file_limit(),
    ]
}

fn version(runtime: Option<&str>) -> String {
    let own = env!("CARGO_PKG_VERSION");
    runtime.map_or_else(|| own.to_owned(), |runtime| format!("{own}, {runtime}"))
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn system() -> String {
    let kernel = match (read("/proc/sys/kernel/ostype"), read("/proc/sys/kernel/osrelease")) {
        (Some(name), Some(release)) => format!("{name} {release}"),
        _ => std::env::consts::OS.to_owned(),
    };
    let release = read("/etc/os-release").or_else(|| read("/usr/lib/os-release"));
    let distribution = release.as_deref().and_then(pretty_name);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let distribution = distribution.map_or_else(String::new, |name| format!(", {name}"));
    format!("{kernel} {}{distribution}, {cpus} CPUs", std::env::consts::ARCH)
}

/// The name of the system in an os-release file (freedesktop.org, os-release).
fn pretty_name(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches(['"', '\'']))
}

fn container(variables: &EnvironmentVariables) -> Check {
    let groups = read("/proc/1/cgroup").unwrap_or_default();
    let found = if variables.has("KUBERNETES_SERVICE_HOST") {
        Some("Kubernetes (KUBERNETES_SERVICE_HOST is set)".to_owned())
    } else if Path::new("/.dockerenv").exists() {
        Some("Docker (/.dockerenv exists)".to_owned())
    } else if Path::new("/run/.containerenv").exists() {
        Some("Podman (/run/.containerenv exists)".to_owned())
    } else if let Some(kind) = ["docker", "kubepods", "containerd", "lxc"].iter().find(|kind| groups.contains(**kind)) {
        Some(format!("a container ({kind} in /proc/1/cgroup)"))
    } else {
        variables.get("container").map(|kind| format!("a container ({kind})"))
    };
    match found {
        Some(kind) => Area::Environment.ok("container", kind),
        None => Area::Environment.note("container", "no sign of one"),
    }
}

fn user() -> Check {
    let status = read("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let ids = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1));
    let raw = field("CapEff:").and_then(may_open_raw_sockets);
    let user = ids.map_or_else(|| "unknown".to_owned(), |id| format!("user id {id}"));
    let capability = match raw {
        Some(true) => ", with CAP_NET_RAW",
        Some(false) => ", without CAP_NET_RAW",
        None => "",
    };
    Area::Environment.ok("user", format!("{user}{capability}"))
}

/// Whether CAP_NET_RAW is in a set from /proc/self/status.
fn may_open_raw_sockets(set: &str) -> Option<bool> {
    Some(u64::from_str_radix(set, 16).ok()? >> CAP_NET_RAW & 1 == 1)
}

/// Databricks sets DATABRICKS_RUNTIME_VERSION on clusters. On serverless compute, it begins with "client.", or
/// IS_SERVERLESS is set.
fn databricks(variables: &EnvironmentVariables) -> Check {
    let Some(version) = variables.get("DATABRICKS_RUNTIME_VERSION") else {
        return Area::Environment.note("Databricks", "no (DATABRICKS_RUNTIME_VERSION is not set)");
    };
    let serverless = version.starts_with("client.")
        || variables.get("IS_SERVERLESS").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if serverless {
        let advice = "from there, VMs with private addresses need a network connectivity configuration: probe and deliver \
                      from a cluster in your own network";
        return Area::Environment.warning("Databricks", format!("runtime {version}, serverless compute"), advice);
    }
    let is_root = read("/proc/self/status").is_some_and(|status| status.contains("\nUid:\t0\t"));
    let mode = if is_root {
        "the code runs as root, as with dedicated access"
    } else {
        "the code does not run as root, because standard (shared) access isolates users; raw sockets and parts of the \
         network may be closed"
    };
    Area::Environment.ok("Databricks", format!("runtime {version}; {mode}"))
}

fn clock(variables: &EnvironmentVariables) -> Check {
    let (utc, local) = (Utc::now(), Local::now());
    let zone = variables.get("TZ").map(|zone| format!("TZ={zone}")).or_else(|| {
        let link = std::fs::canonicalize("/etc/localtime").ok()?;
        let text = link.to_str()?;
        Some(text.rsplit_once("zoneinfo/").map_or(text, |(_, zone)| zone).to_owned())
    });
    let zone = zone.map_or_else(String::new, |zone| format!(" ({zone})"));
    let text = format!("{} UTC, local offset {}{zone}", utc.format("%Y-%m-%d %H:%M:%S"), local.offset());
    if utc.year() < 2025 {
        let advice = "set the clock (chronyd or systemd-timesyncd): certificates and tokens are refused until then";
        return Area::Environment.warning("clock", format!("{text}, which is in the past"), advice);
    }
    Area::Environment.ok("clock", text)
}

fn file_limit() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let detail = format!("{} (at most {})", text(limit.current), text(limit.maximum));
    let check = Area::Environment.ok("open files", detail);
    if limit.current.is_none_or(|current| current >= FEW_FILES) {
        return check;
    }
    let advice = format!(
        "raise it with `ulimit -n {FEW_FILES}` or more: each VM that is probed takes one, and jobs wait for it"
    );
    check.warn(&advice)
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn a_capability_is_read_from_the_set() {
        assert_eq!(may_open_raw_sockets("0000000000002000"), Some(true));
        assert_eq!(may_open_raw_sockets("ffffffffffffdfff"), Some(false));
        assert_eq!(may_open_raw_sockets("nonsense"), None);
    }

    #[test]
    fn the_distribution_has_its_own_name() {
        assert_eq!(pretty_name("ID=x\nPRETTY_NAME=\"X Linux 1\"\n"), Some("X Linux 1"));
        assert_eq!(pretty_name("ID=x\n"), None);
    }

    #[test]
    fn serverless_compute_is_distinguished_from_a_cluster() {
        let of = |pairs: &[(&str, &str)]| databricks(&EnvironmentVariables::of(pairs));
        assert_eq!(of(&[]).status, Status::Note);
        assert_eq!(of(&[("DATABRICKS_RUNTIME_VERSION", "16.4")]).status, Status::Ok);
        for serverless in [
            of(&[("DATABRICKS_RUNTIME_VERSION", "client.3.2")]),
            of(&[("DATABRICKS_RUNTIME_VERSION", "16.4"), ("IS_SERVERLESS", "TRUE")]),
        ] {
            assert_eq!(serverless.status, Status::Warning);
            assert!(serverless.detail.contains("serverless") && serverless.advice.is_some());
        }
    }

    #[test]
    fn this_machine_is_described() {
        let checks = examine(&EnvironmentVariables::default(), Some("Python 3.12"));
        let detail = |name: &str| checks.iter().find(|check| check.name == name).unwrap().detail.clone();
        assert!(detail("jobrota").ends_with("Python 3.12"));
        assert!(detail("system").contains("CPU") && detail("clock").contains("UTC"));
        assert!(detail("user").contains("user id") && detail("user").contains("CAP_NET_RAW"));
        assert!(!detail("open files").is_empty());
    }
}
