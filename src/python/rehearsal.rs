//! `Rehearsal`: a transport that sends nothing.

use std::time::Duration;

use pyo3::prelude::*;

use super::convert::arguments;
use crate::autosys::Rehearsal;

/// A transport that sends nothing and answers that AutoSys took everything.
///
/// It shows how a ledger, its store and the updater's settings perform. Rows are acknowledged as if AutoSys had taken them:
/// use it on a copy of a ledger.
///
/// Args:
///     answer_after: Time until each answer: seconds, text such as `"5ms"`, or a timedelta.
///
/// Example:
///     >>> from jobrota.autosys import Rehearsal
///     >>> Rehearsal(answer_after=0.005)
///     Rehearsal(answer_after=0.005)
#[pyclass(module = "jobrota", name = "Rehearsal", frozen)]
pub(super) struct PyRehearsal {
    pub(super) transport: Rehearsal,
    answer_after: Duration,
}

#[pymethods]
impl PyRehearsal {
    #[new]
    #[pyo3(signature = (*, answer_after = Duration::ZERO), text_signature = "(*, answer_after=0)")]
    fn new(#[pyo3(from_py_with = arguments::duration)] answer_after: Duration) -> Self {
        Self { transport: Rehearsal::new(answer_after), answer_after }
    }

    fn __repr__(&self) -> String {
        format!("Rehearsal(answer_after={})", self.answer_after.as_secs_f64())
    }
}
