//! `Arm`, and what `arms` may be.

use std::path::Path;

use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use super::convert::arguments::{self, Location, Text};
use super::errors::{PyOutcome, refuse};
use crate::comparison::{Arm, Arms, arms};

/// One side of a comparison: a compute context, an execution mode, a concurrency.
///
/// Args:
///     name: Its name in results; letters, digits, `_` and `-`.
///     context: The compute context.
///     mode: `"sequential"`: one job at a time; `"batch"`: batches of `concurrent`, each waited for; `"window"`: a constant
///         number of jobs in flight; `"all"`: all jobs at once.
///     concurrent: Jobs of a batch, or in flight.
///
/// Raises:
///     InvalidInputError: A part can never work.
///
/// Example:
///     >>> from jobrota import Arm
///     >>> Arm("autoscaling", "Autoscaling POC Context", "window", 8)
///     Arm('autoscaling', 'Autoscaling POC Context', 'window', 8)
#[pyclass(module = "jobrota", name = "Arm", frozen, eq, get_all)]
#[derive(PartialEq, Eq)]
pub(super) struct PyArm {
    /// Its name in results.
    name: String,
    /// The compute context.
    context: String,
    /// How its jobs are started.
    mode: &'static str,
    /// Jobs of a batch, or in flight.
    concurrent: usize,
}

#[pymethods]
impl PyArm {
    #[new]
    #[pyo3(signature = (name, context, mode = "batch", concurrent = 5))]
    fn new(
        name: Text,
        context: Text,
        #[pyo3(from_py_with = arguments::text)] mode: &str,
        #[pyo3(from_py_with = arguments::whole)] concurrent: usize,
    ) -> PyOutcome<Self> {
        let Arm { name, context, mode, concurrent } = Arm::new(&name.0, &context.0, mode.parse()?, concurrent)?;
        Ok(Self { name, context, mode: mode.into(), concurrent })
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (&self.name, &self.context, self.mode, self.concurrent).into_pyobject(py)?.hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let shown = |text: &str| PyString::new(py, text).repr().map(|text| text.to_string());
        let (name, context) = (shown(&self.name)?, shown(&self.context)?);
        Ok(format!("Arm({name}, {context}, '{}', {})", self.mode, self.concurrent))
    }
}

/// Converts arms: None for the sequential and the asynchronous arm, `"three_way"`, a file, or a list of `Arm`, of dicts
/// with its arguments or of tuples.
pub(super) fn arms(value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Arms> {
    let Some(value) = value else { return Ok(Arms::Pair) };
    if value.is_instance_of::<PyString>() || value.hasattr("__fspath__")? {
        let Location(text) = value.extract()?;
        return Ok(match text.as_str() {
            "three_way" => Arms::ThreeWay,
            _ => Arms::Given(arms::load(Path::new(&text))?),
        });
    }
    const EXPECTED: &str = "arms is neither \"three_way\", a file, nor a list of Arm: give e.g. [Arm(\"fixed\", \"context A\", \
                            \"window\", 8), Arm(\"autoscaling\", \"context B\", \"window\", 8)]";
    let Ok(items) = value.try_iter() else { return refuse(EXPECTED) };
    let mut given = Vec::new();
    for item in items {
        let item = item?;
        let class = item.py().get_type::<PyArm>();
        let arm = if item.is_instance_of::<PyArm>() {
            item
        } else if let Some(named) = arguments::mapping(&item)? {
            class.call((), Some(&named))?
        } else if let Ok(tuple) = item.cast::<PyTuple>() {
            class.call1(tuple.clone())?
        } else {
            return refuse(EXPECTED);
        };
        let PyArm { name, context, mode, concurrent } = arm.cast::<PyArm>().map_err(PyErr::from)?.get();
        given.push(Arm::new(name, context, mode.parse()?, *concurrent)?);
    }
    arms::check(&given)?;
    Ok(Arms::Given(given))
}
