//! The options of the SAS Viya of a `Sandbox`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments;
use super::errors::{PyOutcome, refuse};
use crate::sandbox::viya::{HostParameters, JobDefinition, Orchestrator};

/// Shares of requests are between 0 and 1.
pub(super) fn share(name: &str, value: f64) -> PyOutcome<f64> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    refuse(format!("{name} is {value}: give a share of the requests, from 0 to 1"))
}

/// Converts the parameters of hosts. Their names are those of `HostParameters`; `fixed` and `pool` are prefixes, as in
/// `fixed_slots` and `pool_cores`.
pub(super) fn hosts(given: Option<Bound<'_, PyDict>>) -> PyOutcome<HostParameters> {
    let mut hosts = HostParameters::default();
    for (name, value) in given.iter().flatten() {
        let name = arguments::named(name.py(), "hosts", arguments::key(&name))?;
        let value = arguments::item("hosts", &name, &value, arguments::number)?;
        if !(value.is_finite() && value >= 0.0) {
            return refuse(format!("hosts[{name:?}] is {value}: give a number from 0"));
        }
        let count = value as usize;
        match name.as_str() {
            "fixed_slots" => hosts.fixed.slots = count,
            "fixed_cores" => hosts.fixed.cores = value,
            "fixed_speed" => hosts.fixed.speed = value,
            "fixed_contention" => hosts.fixed.contention = value,
            "fixed_hosts" => hosts.fixed_hosts = count,
            "pool_slots" => hosts.pool.slots = count,
            "pool_cores" => hosts.pool.cores = value,
            "pool_speed" => hosts.pool.speed = value,
            "pool_contention" => hosts.pool.contention = value,
            "pool_max" => hosts.pool_max = count,
            "pool_min" => hosts.pool_min = count,
            "scale_up_delay" => hosts.scale_up_delay = value,
            "scale_up_cooldown" => hosts.scale_up_cooldown = value,
            "scale_down_after" => hosts.scale_down_after = value,
            "pod_start" => hosts.pod_start = value,
            "cold_start" => hosts.cold_start = value,
            "starting_weight" => hosts.starting_weight = value,
            "handover" => hosts.handover = value,
            name => return refuse(format!("hosts has no {name:?}: docs/sandbox.md lists what it has")),
        }
    }
    Ok(hosts)
}

/// Converts definitions from names and durations. None is the example's.
pub(super) fn definitions(given: Option<Bound<'_, PyDict>>) -> PyOutcome<Option<Vec<JobDefinition>>> {
    let Some(given) = given else { return Ok(None) };
    let mut definitions = Vec::new();
    for (name, seconds) in given.iter() {
        let name = arguments::named(name.py(), "definitions", arguments::key(&name))?;
        let work = arguments::item("definitions", &name, &seconds, arguments::unlimited_seconds)?;
        if name.is_empty() || !(work.is_finite() && work > 0.0) {
            return refuse(format!("definitions[{name:?}] is {work} s: give names and seconds above 0"));
        }
        definitions.push(JobDefinition {
            id: uuid::Uuid::new_v4().to_string(),
            description: format!("{name}, {work} s alone on a host"),
            name,
            work,
            cpu_share: 0.8,
            io_mb: 100.0,
        });
    }
    Ok(Some(definitions))
}

/// Converts how the Workload Orchestrator behaves.
pub(super) fn orchestrator(name: &str) -> PyOutcome<Orchestrator> {
    let unknown = |_| refuse(format!("orchestrator {name:?} is unknown: it is normal, missing, forbidden or unnamed"));
    name.parse().or_else(unknown)
}
