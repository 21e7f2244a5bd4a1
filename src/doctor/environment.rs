//! The environment: its variables, and checks that describe system, container, user, Databricks, clock.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use chrono::{Datelike as _, Local, Utc};

use super::report::{Area, Check};

/// The bit of CAP_NET_RAW in a capability set (Linux, capability.h).
const CAP_NET_RAW: u32 = 13;

/// With fewer file descriptors, a check of many VMs waits for free ones.
const FEW_FILES: u64 = 1024;

pub(super) fn examine(variables: &EnvironmentVariables, runtime: Option<&str>) -> Vec<Check> {
    let own = env!("CARGO_PKG_VERSION");
    let version = runtime.map_or_else(|| own.to_owned(), |runtime| format!("{own}, {runtime}"));
    vec![
        Area::ENVIRONMENT.ok("jobrota", version),
        Area::ENVIRONMENT.ok("system", system()),
        container(variables),
        user(),
        databricks(variables),
        clock(variables),
        file_limit(),
    ]
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
        Some(kind) => Area::ENVIRONMENT.ok("container", kind),
        None => Area::ENVIRONMENT.note("container", "no sign of one"),
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
    Area::ENVIRONMENT.ok("user", format!("{user}{capability}"))
}

/// Whether CAP_NET_RAW is in a set from /proc/self/status.
fn may_open_raw_sockets(set: &str) -> Option<bool> {
    Some(u64::from_str_radix(set, 16).ok()? >> CAP_NET_RAW & 1 == 1)
}

/// Databricks sets DATABRICKS_RUNTIME_VERSION on clusters. On serverless compute, it begins with "client.", or
/// IS_SERVERLESS is set.
fn databricks(variables: &EnvironmentVariables) -> Check {
    let Some(version) = variables.get("DATABRICKS_RUNTIME_VERSION") else {
        return Area::ENVIRONMENT.note("Databricks", "no (DATABRICKS_RUNTIME_VERSION is not set)");
    };
    let serverless = version.starts_with("client.")
        || variables.get("IS_SERVERLESS").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if serverless {
        let advice = "from there, VMs with private addresses need a network connectivity configuration: probe and deliver \
                      from a cluster in your own network";
        return Area::ENVIRONMENT.warning("Databricks", format!("runtime {version}, serverless compute"), advice);
    }
    let is_root = read("/proc/self/status").is_some_and(|status| status.contains("\nUid:\t0\t"));
    let mode = if is_root {
        "the code runs as root, as with dedicated access"
    } else {
        "the code does not run as root, because standard (shared) access isolates users; raw sockets and parts of the \
         network may be closed"
    };
    Area::ENVIRONMENT.ok("Databricks", format!("runtime {version}; {mode}"))
}

fn clock(variables: &EnvironmentVariables) -> Check {
    let (utc, local) = (Utc::now(), Local::now());
    let zone = variables.get("TZ").map(|zone| format!("TZ={zone}")).or_else(|| {
        let link = std::fs::canonicalize("/etc/localtime").ok()?;
        let text = link.to_str()?;
        Some(text.rsplit_once("zoneinfo/").map_or(text, |(_, zone)| zone).to_owned())
    });
    let zone = zone.map_or_else(String::new, |zone| format!(" ({zone})"));
    let text = format!("{}, local offset {}{zone}", utc.format("%Y-%m-%dT%H:%M:%SZ"), local.offset());
    if utc.year() < 2025 {
        let advice = "set the clock (chronyd or systemd-timesyncd): certificates and tokens are refused until then";
        return Area::ENVIRONMENT.warning("clock", format!("{text}, which is in the past"), advice);
    }
    Area::ENVIRONMENT.ok("clock", text)
}

fn file_limit() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let detail = format!("{} (at most {})", text(limit.current), text(limit.maximum));
    let check = Area::ENVIRONMENT.ok("open files", detail);
    if limit.current.is_none_or(|current| current >= FEW_FILES) {
        return check;
    }
    let advice = format!(
        "raise it with `ulimit -n {FEW_FILES}` or more: each VM that is probed takes one, and jobs wait for it"
    );
    check.warn(&advice)
}

/// A copy of the environment. Empty variables count as not set.
#[derive(Clone, Default)]
pub(super) struct EnvironmentVariables(BTreeMap<String, String>);

impl fmt::Debug for EnvironmentVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Parts of the names of variables that hold secrets, and the ends of names that do not in spite of such a part.
const SECRET: [&str; 8] = ["KEY", "SECRET", "TOKEN", "PASSWORD", "PASSWD", "SAS", "CREDENTIAL", "SIGNATURE"];
const NO_SECRET: [&str; 9] =
    ["_FILE", "_PATH", "_URI", "_URL", "_URL_S3", "_URL_STS", "_ID", "_NAME", "GOOGLE_APPLICATION_CREDENTIALS"];

impl EnvironmentVariables {
    pub(super) fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::new(std::env::vars_os().filter_map(text))
    }

    pub(super) fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The first of `names` that is set.
    pub(super) fn first<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        names.iter().copied().find(|name| self.has(name))
    }

    /// The values that must not be shown, and passwords in URLs. A word such as "true" is not a secret.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, value) in &self.0 {
            let upper = name.to_ascii_uppercase();
            let named = SECRET.iter().any(|part| upper.contains(part));
            let harmless = NO_SECRET.iter().any(|end| upper.ends_with(end) && upper != "AWS_ACCESS_KEY_ID");
            let is_path = value.starts_with('/') && Path::new(value).exists();
            if named && !harmless && !is_path && !matches!(value.as_str(), "true" | "false") {
                found.push(value.clone());
            }
            if let Ok(url) = url::Url::parse(value)
                && let Some(password) = url.password()
            {
                found.push(password.to_owned());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    impl EnvironmentVariables {
        pub(in crate::doctor) fn of(pairs: &[(&str, &str)]) -> Self {
            Self::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
        }
    }

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

    #[test]
    fn the_name_says_whether_a_value_is_a_secret() {
        let variables = EnvironmentVariables::of(&[
            ("AZURE_CLIENT_SECRET", "secret-1"),
            ("AWS_ACCESS_KEY_ID", "secret-2"),
            ("DATABASE_URL", "postgres://user:secret-3@host/x"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/a/file"),
            ("AZURE_CLIENT_ID", "a-client"),
            ("HOME", "/home/me"),
            ("EMPTY_SECRET", ""),
        ]);
        let mut secrets = variables.secrets();
        secrets.sort();
        assert_eq!(secrets, ["secret-1", "secret-2", "secret-3"]);
        assert!(!variables.has("EMPTY_SECRET"));
        assert!(!format!("{variables:?}").contains("secret-1"));
    }
}
