//! Python objects that the core calls, such as a caller's function. The Python object that took them shows them to the garbage
//! collector, so that an object and a method of itself as its callable are collected together.

use std::sync::{Arc, Mutex, TryLockError};

use pyo3::PyTraverseError;
use pyo3::exceptions::PyReferenceError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::runtime::lock;

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

fn unlocked<T>(mutex: &Mutex<T>) -> Option<std::sync::MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
