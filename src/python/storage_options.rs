//! The argument `storage_options`: options by name, what provides them, or both. `jobrota.providers` reads it.

use std::sync::Arc;

use pyo3::prelude::*;

use super::attach::attached;
use super::callables::{HeldObject, HeldObjects};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::storage::{self, OptionsProvider, Provided};

#[derive(Default)]
pub(super) struct StorageOptions {
    pub(super) options: storage::StorageOptions,
    /// The provider.
    pub(super) held: HeldObjects,
}

impl FromPyObject<'_, '_> for StorageOptions {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let read = value.py().import("jobrota.providers")?.call_method1("read", (&*value,))?;
        let (fixed, provider): (_, Option<(String, Bound<'_, PyAny>)>) = read.extract()?;
        let held = HeldObjects::default();
        let provider = provider.map(|(name, object)| {
            let object = held.hold(&object);
            // In a thread of its own: all those for blocking work can be waiting for this answer.
            let provide = move || {
                let object = object.clone();
                Box::pin(runtime::in_thread(Some("jobrota-provider"), move || ask(&object))) as _
            };
            Arc::new(OptionsProvider { name, provide: Box::new(provide) })
        });
        Ok(Self { options: storage::StorageOptions { fixed, provider }, held })
    }
}

/// Calls the object of `jobrota.providers`.
fn ask(object: &HeldObject) -> Result<Provided> {
    attached(|py| {
        object.bind(py).and_then(|object| object.call0()?.extract()).map_err(|error| {
            let retryable = error.value(py).getattr("retryable").and_then(|flag| flag.extract());
            Error::new(ErrorKind::Authentication, error.value(py).to_string()).with_retryable(retryable.unwrap_or(true))
        })
    })
}
