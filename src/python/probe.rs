//! Converts probes that a caller gives: texts, callables, and lists of these.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::attach::attached;
use super::callables::{Calls, HeldObject};
use super::errors::{PyOutcome, refuse};
use crate::inventory::Vm;
use crate::selection::{Probe, ProbeCallback};

/// A Python function `(vm) -> (ip_address, nic_name)` as a probe.
struct PythonProbe {
    function: HeldObject,
    calls: Arc<Calls>,
}

impl ProbeCallback for PythonProbe {
    fn probe(&self, vm: &Vm) -> Result<Option<(String, Option<String>)>, String> {
        attached(|py| {
            let answer = self.function.bind(py).and_then(|function| function.call1((&vm.name,))).map_err(|error| {
                self.calls.interrupted_by(py, &error);
                error.to_string()
            })?;
            let (ip_address, nic_name): (Option<String>, Option<String>) = answer.extract().map_err(|_| {
                format!("the probe callable must return (ip_address, nic_name) or (None, None), not {answer}")
            })?;
            Ok(ip_address.map(|ip_address| (ip_address, nic_name)))
        })
    }
}

/// Converts a probe; None is "auto".
pub(super) fn probe(value: Option<&Bound<'_, PyAny>>, calls: &Arc<Calls>) -> PyOutcome<Probe> {
    let Some(value) = value else { return Ok(Probe::Auto) };
    if let Ok(text) = value.extract::<String>() {
        return Ok(text.parse()?);
    }
    if value.is_callable() {
        let function = calls.held.hold(value);
        return Ok(Probe::Callback(Arc::new(PythonProbe { function, calls: Arc::clone(calls) })));
    }
    if let (false, Ok(items)) = (value.is_instance_of::<PyString>(), value.try_iter()) {
        let probes = items.map(|item| probe(Some(&item?), calls)).collect::<PyOutcome<Vec<_>>>()?;
        return Ok(Probe::any_of(probes)?);
    }
    refuse(format!(
        "probe must be \"auto\", \"icmp\", \"tcp:PORT\", an http:// address, a callable or a list of these, not {}",
        value.get_type()
    ))
}
