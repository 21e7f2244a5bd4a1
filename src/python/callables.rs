//! Python objects that the core calls, such as a caller's function as a probe or as an Azure credential, and their exceptions.
//!
//! The Python object that took them shows them to the garbage collector, so that an object and a method of itself as its
//! callable are collected together.
//!
//! Exceptions that concern more than one call, such as KeyboardInterrupt and SystemExit, stop the calls of the object that are
//! running, and reach the callers of these. Every other exception of a callable is a failure of that one call.

use std::sync::{Arc, Mutex, MutexGuard, TryLockError, Weak};

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyException, PyReferenceError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::attach::attached;
use super::convert::arguments;
use super::errors::{PyOutcome, refuse};
use crate::azure::{AccessToken, Credential, TokenSource};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::lock;
use crate::selection::{Probe, ProbeCallback};
use crate::stop::Stop;

/// A Python object that the core calls. Clones are the same reference.
#[derive(Debug, Clone)]
pub(super) struct HeldObject(Arc<Mutex<Option<Py<PyAny>>>>);

/// The objects that one Python object holds for the core.
#[derive(Debug, Default)]
pub(super) struct HeldObjects(Mutex<Vec<HeldObject>>);

impl HeldObject {
    /// The object.
    ///
    /// # Errors
    /// ReferenceError when the garbage collector took it, together with the object that held it.
    pub(super) fn bind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let object = lock(&self.0).as_ref().map(|object| object.bind(py).clone());
        object.ok_or_else(|| PyReferenceError::new_err("the object that held this callable no longer exists"))
    }
}

impl HeldObjects {
    /// Holds `object`.
    pub(super) fn hold(&self, object: &Bound<'_, PyAny>) -> HeldObject {
        let held = HeldObject(Arc::new(Mutex::new(Some(object.clone().unbind()))));
        lock(&self.0).push(held.clone());
        held
    }

    /// Holds what `others` hold.
    pub(super) fn extend(&self, others: Self) {
        lock(&self.0).append(&mut lock(&others.0));
    }

    /// For `__traverse__`. While a call `is_running`, the core needs the objects, and nothing else may keep the owner alive: then
    /// they are not shown, and the collector takes them for referenced from outside.
    ///
    /// # Errors
    /// Those of `visit`.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>, is_running: bool) -> Result<(), PyTraverseError> {
        if is_running {
            return Ok(());
        }
        // Another thread can hold a lock, but not wait for the collector with it: an object that is locked is not shown.
        let Some(objects) = unlocked(&self.0) else { return Ok(()) };
        for object in objects.iter() {
            if let Some(object) = unlocked(&object.0).as_deref().and_then(Option::as_ref) {
                visit.call(object)?;
            }
        }
        Ok(())
    }

    /// For `__clear__`.
    pub(super) fn clear(&self) {
        let objects = std::mem::take(&mut *lock(&self.0));
        // Not under a lock: dropping an object can call Python.
        let taken: Vec<_> = objects.iter().filter_map(|object| lock(&object.0).take()).collect();
        drop(taken);
    }
}

fn unlocked<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// The callables of one object, which run in other threads than those that wait, and its running calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) held: HeldObjects,
    running: Mutex<Vec<Weak<Call>>>,
}

/// One call that can be interrupted.
#[derive(Debug, Default)]
pub(super) struct Call {
    stop: Stop,
    raised: Mutex<Option<PyErr>>,
    /// The event loop that awaits the call.
    event_loop: Mutex<Option<Py<PyAny>>>,
}

/// Whether `error` is `asyncio.CancelledError`: what the callable awaited was canceled, or the callable itself.
pub(super) fn is_canceled(py: Python<'_>, error: &PyErr) -> bool {
    let canceled = || py.import("asyncio")?.getattr("CancelledError");
    canceled().is_ok_and(|class| error.is_instance(py, &class))
}

/// Whether `error` concerns more than the call that raised it. `asyncio.CancelledError` is not an `Exception` either.
fn is_interrupt(py: Python<'_>, error: &PyErr) -> bool {
    !error.is_instance_of::<PyException>(py) && !is_canceled(py, error)
}

impl Calls {
    /// A call that begins now.
    pub(super) fn begin(&self) -> Arc<Call> {
        let call = Arc::new(Call::default());
        let mut calls = lock(&self.running);
        calls.retain(|call| call.strong_count() > 0);
        calls.push(Arc::downgrade(&call));
        call
    }

    fn running(&self) -> Vec<Arc<Call>> {
        lock(&self.running).iter().filter_map(Weak::upgrade).collect()
    }

    /// Interrupts all running calls if `error` concerns more than the call that raised it. Returns whether it does.
    pub(super) fn interrupted_by(&self, py: Python<'_>, error: &PyErr) -> bool {
        let interrupt = is_interrupt(py, error);
        if interrupt {
            self.running().iter().for_each(|call| call.fail(error.clone_ref(py)));
        }
        interrupt
    }

    /// Ends all running calls with an error that `error` makes.
    pub(super) fn fail(&self, error: &dyn Fn() -> PyErr) {
        self.running().iter().for_each(|call| call.fail(error()));
    }

    /// The event loop of the first of the running calls, if a coroutine awaits that call. Later ones wait for its lease.
    pub(super) fn event_loop(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let first = self.running().into_iter().next()?;
        lock(&first.event_loop).as_ref().map(|event_loop| event_loop.clone_ref(py))
    }
}

impl Call {
    /// Ends the call with `error`.
    pub(super) fn fail(&self, error: PyErr) {
        lock(&self.raised).get_or_insert(error);
        self.stop.stop();
    }

    /// Interrupts the call if `error` concerns more than the call that raised it.
    pub(super) fn interrupted_by(&self, py: Python<'_>, error: &PyErr) {
        if is_interrupt(py, error) {
            self.fail(error.clone_ref(py));
        }
    }

    pub(super) fn set_event_loop(&self, event_loop: &Bound<'_, PyAny>) {
        *lock(&self.event_loop) = Some(event_loop.clone().unbind());
    }

    /// The request to end the call.
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// The exception that interrupted the call, else `outcome`.
    pub(super) fn outcome<T>(&self, outcome: PyOutcome<T>) -> PyOutcome<T> {
        self.take_exception().map_or(outcome, |error| Err(error.into()))
    }

    /// Takes the exception that interrupted the call.
    pub(super) fn take_exception(&self) -> Option<PyErr> {
        lock(&self.raised).take()
    }
}

/// A Python function `(vm) -> (ip_address, nic_name)` as a probe.
fn probe_callback(function: &Bound<'_, PyAny>, calls: &Arc<Calls>) -> Arc<ProbeCallback> {
    let (function, calls) = (calls.held.hold(function), Arc::clone(calls));
    Arc::new(move |vm| {
        attached(|py| {
            let answer = function.bind(py).and_then(|function| function.call1((&vm.name,))).map_err(|error| {
                calls.interrupted_by(py, &error);
                error.to_string()
            })?;
            let (ip_address, nic_name): (Option<String>, Option<String>) = answer.extract().map_err(|_| {
                format!("the probe callable must return (ip_address, nic_name) or (None, None), not {answer}")
            })?;
            Ok(ip_address.map(|ip_address| (ip_address, nic_name)))
        })
    })
}

/// Converts a probe; None is "auto".
pub(super) fn probe(value: Option<&Bound<'_, PyAny>>, calls: &Arc<Calls>) -> PyOutcome<Probe> {
    let Some(value) = value else { return Ok(Probe::Auto) };
    if let Ok(text) = value.extract::<String>() {
        return Ok(text.parse()?);
    }
    if value.is_callable() {
        return Ok(Probe::Callback(probe_callback(value, calls)));
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

/// Converts Azure credentials that a caller gives: a dict, a callable, or an object of `azure.identity`. Returns the
/// credential, and the login service if `value` names one. No error shows a value.
pub(super) fn azure_credential(
    value: Option<&Bound<'_, PyAny>>,
    calls: &Arc<Calls>,
) -> PyOutcome<(Credential, Option<String>)> {
    let Some(value) = value else { return Ok((Credential::Environment, None)) };
    if let Some(dict) = arguments::mapping(value)? {
        return from_dict(&dict);
    }
    let has_get_token = value.hasattr("get_token")?;
    if !has_get_token && !value.is_callable() {
        return refuse(format!(
            "credential must be None, a dict of tenant_id, client_id and client_secret, a callable that returns a token, or an \
             object with get_token(scope), not a value of type {}",
            arguments::type_name(value)
        ));
    }
    let source = PythonSource { object: calls.held.hold(value), has_get_token, calls: Arc::clone(calls) };
    Ok((Credential::Source(Arc::new(source)), None))
}

fn from_dict(dict: &Bound<'_, PyDict>) -> PyOutcome<(Credential, Option<String>)> {
    let parts = dict.py().import("jobrota.azure_credentials")?.call_method1("parts", (dict,))?.extract()?;
    let (tenant, client, secret, authority_host): (Option<String>, String, Option<String>, _) = parts;
    let credential = match tenant.zip(secret) {
        Some((tenant, secret)) => Credential::service_principal(&tenant, &client, secret),
        None => Credential::ManagedIdentity { client_id: Some(client) },
    };
    Ok((credential, authority_host))
}

struct PythonSource {
    object: HeldObject,
    /// Calls `object.get_token(scope)` instead of `object()`.
    has_get_token: bool,
    calls: Arc<Calls>,
}

impl TokenSource for PythonSource {
    fn token(&self, scope: &str) -> Result<AccessToken> {
        attached(|py| {
            let object = self.object.bind(py);
            let answer = match self.has_get_token {
                true => object.and_then(|object| object.call_method1("get_token", (scope,))),
                false => object.and_then(|object| object.call0()),
            };
            let answer = answer.map_err(|error| {
                self.calls.interrupted_by(py, &error);
                Error::new(ErrorKind::Authentication, format!("the credential gave no token: {error}"))
            })?;
            let token = py
                .import("jobrota.azure_credentials")
                .and_then(|module| module.call_method1("token", (answer,))?.extract());
            let (text, expires): (String, _) =
                token.map_err(|error: PyErr| Error::invalid(error.value(py).to_string()))?;
            Ok(AccessToken::new(text, expires))
        })
    }
}
