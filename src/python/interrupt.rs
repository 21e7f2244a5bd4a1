//! Exceptions of a caller's callable that concern more than that one call, such as KeyboardInterrupt and SystemExit.
//!
//! They stop the calls of the object that are running, and reach the callers of these. Every other exception of a callable is
//! a failure of that one call.

use std::sync::{Arc, Mutex, Weak};

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::errors::PyOutcome;
use super::held::HeldObjects;
use crate::runtime::lock;
use crate::stop::Stop;

/// The callables of one object, which run in other threads than those that wait, and its running calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    held: HeldObjects,
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
    /// The callables.
    pub(super) fn held(&self) -> &HeldObjects {
        &self.held
    }

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
