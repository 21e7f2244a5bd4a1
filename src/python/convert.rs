//! Python values to core values and back: timestamps, Arrow, options, JSON.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use chrono::{DateTime, Utc};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3_arrow::PyTable;
use pyo3_arrow::input::AnyRecordBatch;

use super::errors::PyOutcome;
use crate::error::Error;

/// Options for a store, by name.
pub(super) type Options = HashMap<String, String>;

/// An aware `datetime` as UTC; a naive one is refused, because nobody can know what it meant.
pub(super) fn utc(argument: &str, value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Option<DateTime<Utc>>> {
    let Some(value) = value else { return Ok(None) };
    let py = value.py();
    let datetime = py.import("datetime")?;
    if !value.is_instance(&datetime.getattr("datetime")?)? {
        return Err(Error::invalid(format!(
            "{argument} must be a datetime.datetime with a timezone, not {}",
            value.get_type().name()?
        ))
        .into());
    }
    if value.call_method0("utcoffset")?.is_none() {
        return Err(Error::invalid(format!(
            "{argument} {} has no timezone, so it could mean any hour; give one with a timezone, such as \
             datetime.now(timezone.utc)",
            value.str()?
        ))
        .into());
    }
    let utc = value.call_method1("astimezone", (datetime.getattr("timezone")?.getattr("utc")?,))?;
    Ok(Some(utc.extract()?))
}

/// A batch as an `arro3.core.Table`.
pub(super) fn table(py: Python<'_>, batch: RecordBatch) -> PyOutcome<Py<PyAny>> {
    let schema = batch.schema();
    Ok(PyTable::try_new(vec![batch], schema)?.into_arro3(py)?.unbind())
}

/// Anything that offers Arrow data (a table, a batch, a stream) as one batch.
pub(super) fn batch(argument: &str, value: &Bound<'_, PyAny>) -> PyOutcome<RecordBatch> {
    let data: AnyRecordBatch = value.extract().map_err(|_| {
        Error::invalid(format!(
            "{argument} must be Arrow data (a pyarrow, polars, pandas>=3, duckdb or arro3 table), not {}",
            value.get_type()
        ))
    })?;
    let (batches, schema) = data.into_table().map_err(PyErr::from)?.into_inner();
    concat_batches(&schema, &batches).map_err(|e| {
        Error::invalid(format!("{argument}: the batches of the table do not fit together")).with_source(e).into()
    })
}

/// JSON as Python dicts, lists and scalars.
pub(super) fn json(py: Python<'_>, value: &serde_json::Value) -> PyOutcome<Py<PyAny>> {
    use serde_json::Value;
    Ok(match value {
        Value::Null => py.None(),
        Value::Bool(flag) => flag.into_py_any(py)?,
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into_py_any(py)?,
            None => number.as_f64().into_py_any(py)?,
        },
        Value::String(text) => text.into_py_any(py)?,
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(json(py, item)?)?;
            }
            list.into_any().unbind()
        }
        Value::Object(members) => {
            let dict = PyDict::new(py);
            for (key, item) in members {
                dict.set_item(key, json(py, item)?)?;
            }
            dict.into_any().unbind()
        }
    })
}

/// Dicts, lists and scalars as JSON; the route is Python's own `json`, which knows what is JSON and what is not.
pub(super) fn json_value(argument: &str, value: &Bound<'_, PyAny>) -> PyOutcome<serde_json::Value> {
    let text: String = value
        .py()
        .import("json")?
        .call_method1("dumps", (value,))
        .map_err(|e| Error::invalid(format!("{argument} must be made of names, numbers, lists and dicts: {e}")))?
        .extract()?;
    serde_json::from_str(&text)
        .map_err(|e| Error::invalid(format!("{argument} cannot be represented as JSON")).with_source(e).into())
}

/// The HTML of an object for a notebook, made by `jobrota.display`, which escapes every value.
pub(super) fn repr_html<'py>(py: Python<'py>, kind: &str, data: impl IntoPyObjectExt<'py>) -> PyResult<String> {
    let data = data.into_py_any(py)?;
    py.import("jobrota.display")?.call_method1("repr_html", (kind, data))?.extract()
}

/// A text argument that may also be a path-like object.
pub(super) fn path_text(value: &Bound<'_, PyAny>) -> PyResult<String> {
    value.py().import("os")?.call_method1("fspath", (value,))?.extract()
}

/// Storage options, none when not given.
pub(super) fn options(value: Option<Options>) -> Options {
    value.unwrap_or_default()
}

/// Seconds as a duration; refused when negative, not finite or beyond a year.
pub(super) fn seconds(argument: &str, value: f64) -> PyOutcome<std::time::Duration> {
    const YEAR: f64 = 365.0 * 86_400.0;
    if value.is_finite() && (0.0..=YEAR).contains(&value) {
        return Ok(std::time::Duration::from_secs_f64(value));
    }
    Err(Error::invalid(format!("{argument} must be seconds between 0 and {YEAR}, not {value}")).into())
}
