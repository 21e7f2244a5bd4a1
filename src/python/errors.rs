//! Converts errors of the crate to the exceptions of `jobrota.errors`, and refuses arguments, and objects in a forked child.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};

use crate::error::{Error, ErrorKind, Result};

/// The result of a call from Python.
pub(super) type PyOutcome<T = Py<PyAny>> = Result<T, Raised>;

/// Refuses an argument of a call.
pub(super) fn refuse<T>(why: impl Into<String>) -> PyOutcome<T> {
    Err(Error::invalid(why).into())
}

/// An [`Error`] or a Python exception on its way to the caller, so that `?` takes both.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) enum Raised {
    Core(#[from] Error),
    Python(#[from] PyErr),
}

impl From<Raised> for PyErr {
    fn from(raised: Raised) -> Self {
        match raised {
            Raised::Core(error) => Python::attach(|py| to_py(py, &error)),
            Raised::Python(error) => error,
        }
    }
}

/// The Python exception for `error`, with `.retryable` and, for unreachable VMs, `.failures`.
pub(super) fn to_py(py: Python<'_>, error: &Error) -> PyErr {
    build(py, error).unwrap_or_else(|import| {
        let fallback = PyRuntimeError::new_err(error.full_message());
        fallback.set_cause(py, Some(import));
        fallback
    })
}

fn build(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    // The class has the name of the kind. `Forbidden` has none of its own.
    let kind = if error.kind() == ErrorKind::Forbidden { ErrorKind::Authentication } else { error.kind() };
    let class = py.import("jobrota.errors")?.getattr(format!("{kind:?}Error"))?;
    let keywords = PyDict::new(py);
    keywords.set_item("retryable", error.is_retryable())?;
    if error.kind() == ErrorKind::NoReachableVm {
        keywords.set_item("failures", error.failures().iter().cloned().into_py_dict(py)?)?;
    }
    Ok(PyErr::from_value(class.call((error.full_message(),), Some(&keywords))?))
}

/// The process that made an object. The threads and locks of the object do not survive a fork.
#[derive(Debug, Clone, Copy)]
pub(super) struct ForkGuard(u32);

impl ForkGuard {
    /// A guard for an object that this process makes.
    pub(super) fn new() -> Self {
        Self(std::process::id())
    }

    /// Fails in a forked child, where the background threads of the object do not exist.
    pub(super) fn check(self, object: &str) -> Result<()> {
        if self.0 == std::process::id() {
            return Ok(());
        }
        let text = format!(
            "this {object} was made before the process forked, and its background threads do not exist in the child; make a \
             new one in the child process, or start processes with the 'spawn' method"
        );
        Err(Error::new(ErrorKind::Internal, text))
    }
}
