//! Python values to core values and back: timestamps, Arrow, options, JSON.

use std::collections::HashMap;
use std::ffi::CStr;

use arrow::array::{RecordBatch, RecordBatchIterator, RecordBatchReader as _};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use chrono::{DateTime, Utc};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyCapsule, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString};

use super::errors::{PyOutcome, Raised};
use crate::error::Error;

/// What Python said, as an error of ours: every error of this package is a `JobrotaError`.
fn refused(argument: &str, what: &str, error: PyErr) -> Raised {
    Error::invalid(format!("{argument} {what}")).with_source(error).into()
}

/// The Python name of a value's type.
fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "something without a type".to_owned(), |name| name.to_string())
}

/// A text argument. What is no text, or text that no file can hold, is refused by its name.
pub(super) fn text_argument<'a>(argument: &str, value: &'a Bound<'_, PyAny>) -> PyOutcome<&'a str> {
    let text = value
        .cast::<PyString>()
        .map_err(|_| Error::invalid(format!("{argument} must be text (str), not {}", type_name(value))))?;
    text.to_str().map_err(|e| refused(argument, "has half of a surrogate pair in it, which is no character", e))
}

/// A text argument that may be left out.
pub(super) fn optional_text(argument: &str, value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Option<String>> {
    value.map(|value| text_argument(argument, value).map(str::to_owned)).transpose()
}

/// One of a few texts.
pub(super) fn choice(argument: &str, value: &Bound<'_, PyAny>, known: &[&'static str]) -> PyOutcome<&'static str> {
    let text = value.cast::<PyString>().ok().and_then(|text| text.to_str().ok());
    let listed = || known.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ");
    Ok(known
        .iter()
        .find(|name| Some(**name) == text)
        .ok_or_else(|| Error::invalid(format!("{argument} must be {}, not {}", listed(), shown(value))))?)
}

/// How many at most: a whole number from 1.
pub(super) fn limit(argument: &str, value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Option<usize>> {
    let Some(value) = value else { return Ok(None) };
    let number = if value.is_instance_of::<PyBool>() { None } else { value.extract::<usize>().ok() };
    match number {
        Some(number) if number > 0 => Ok(Some(number)),
        _ => Err(Error::invalid(format!("{argument} must be a whole number from 1, not {}", shown(value))).into()),
    }
}

/// A number of seconds, see [`seconds`].
pub(super) fn seconds_argument(
    argument: &str,
    value: Option<&Bound<'_, PyAny>>,
) -> PyOutcome<Option<std::time::Duration>> {
    let Some(value) = value else { return Ok(None) };
    let number: f64 = value
        .extract()
        .map_err(|_| Error::invalid(format!("{argument} must be a number of seconds, not {}", shown(value))))?;
    seconds(argument, number).map(Some)
}

/// A length of time: a number of seconds, or text such as `"90s"`, `"15m"`, `"1h"` or `"2d"`.
pub(super) fn duration(argument: &str, value: &Bound<'_, PyAny>) -> PyOutcome<std::time::Duration> {
    const UNITS: [(char, f64); 4] = [('s', 1.0), ('m', 60.0), ('h', 3_600.0), ('d', 86_400.0)];
    let refused = || {
        let given = shown(value);
        Error::invalid(format!(
            "{argument} must be seconds, or text such as \"90s\", \"15m\", \"1h\" or \"2d\", not {given}"
        ))
    };
    let Ok(text) = value.cast::<PyString>() else {
        let number = if value.is_instance_of::<PyBool>() { None } else { value.extract().ok() };
        return seconds(argument, number.ok_or_else(refused)?);
    };
    let text = text_argument(argument, text)?.trim();
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(*unit)).ok_or_else(refused)?;
    let digits = text[..text.len() - 1].trim_end();
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(refused().into());
    }
    let number: f64 = digits.parse().map_err(|_| refused())?;
    seconds(argument, number * unit.1)
}

/// A mapping from text to text, in its order; empty when not given.
pub(super) fn text_pairs(argument: &str, value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Vec<(String, String)>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let mapping = value
        .cast::<PyMapping>()
        .map_err(|_| Error::invalid(format!("{argument} must be a dict of texts, not {}", type_name(value))))?;
    let mut pairs = Vec::new();
    for item in mapping.items()?.iter() {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
        let key = text_argument(&format!("a key of {argument}"), &key)?.to_owned();
        let value = text_argument(&format!("{argument}[{key:?}]"), &value)?.to_owned();
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// A value as an error shows it, cut.
fn shown(value: &Bound<'_, PyAny>) -> String {
    let text = value.repr().map_or_else(|_| type_name(value), |text| text.to_string_lossy().into_owned());
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

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
    let broken = |e| refused(argument, "has a timezone that does not work", e);
    if value.call_method0("utcoffset").map_err(broken)?.is_none() {
        return Err(Error::invalid(format!(
            "{argument} {} has no timezone, so it could mean any hour; give one with a timezone, such as \
             datetime.now(timezone.utc)",
            value.str()?
        ))
        .into());
    }
    let utc = value
        .call_method1("astimezone", (datetime.getattr("timezone")?.getattr("utc")?,))
        .and_then(|utc| utc.extract::<DateTime<Utc>>());
    Ok(Some(utc.map_err(|e| refused(argument, "is out of the range of times that UTC has", e))?))
}

/// The name that the Arrow PyCapsule interface gives a stream
/// (<https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html>).
const ARROW_STREAM: &CStr = c"arrow_array_stream";

/// A batch as an `arro3.core.Table`.
pub(super) fn table(py: Python<'_>, batch: RecordBatch) -> PyOutcome<Py<PyAny>> {
    let schema = batch.schema();
    let reader = RecordBatchIterator::new([Ok(batch)], schema);
    let capsule = PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), ARROW_STREAM)?;
    Ok(arro3_table(py)?.call_method1("from_arrow_pycapsule", (capsule,))?.unbind())
}

/// Anything that offers Arrow data (a table, a batch, a stream) as one batch.
#[expect(unsafe_code, reason = "a PyCapsule holds a raw pointer, which has no safe way out")]
pub(super) fn batch(argument: &str, value: &Bound<'_, PyAny>) -> PyOutcome<RecordBatch> {
    let not_arrow = |e: PyErr| {
        Error::invalid(format!(
            "{argument} must be Arrow data (a pyarrow, polars, pandas>=3, duckdb or arro3 table), not {}",
            value.get_type()
        ))
        .with_source(e)
    };
    let unreadable = |e: ArrowError| {
        Error::invalid(format!("{argument} cannot be read as Arrow data; check that its columns are valid"))
            .with_source(e)
    };
    let table = arro3_table(value.py())?.call_method1("from_arrow", (value,)).map_err(not_arrow)?;
    let capsule = table.call_method0("__arrow_c_stream__")?.cast_into::<PyCapsule>().map_err(PyErr::from)?;
    let pointer = capsule.pointer_checked(Some(ARROW_STREAM))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: a capsule of this name holds an `FFI_ArrowArrayStream` (checked above). `from_raw` takes the stream out of it
    // and leaves an empty one, so that the capsule's destructor releases nothing twice.
    let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.as_ptr()) };
    let reader = RecordBatchStreamReader::try_new(stream).map_err(unreadable)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    concat_batches(&schema, &batches).map_err(|e| {
        Error::invalid(format!("{argument}: the batches of the table do not fit together")).with_source(e).into()
    })
}

fn arro3_table(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("arro3.core")?.getattr("Table")
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
    let path = fspath(value)?;
    Ok(text_argument("a path", &path)?.to_owned())
}

/// A path-like argument, of any bytes that the operating system takes.
pub(super) fn local_path(argument: &str, value: &Bound<'_, PyAny>) -> PyOutcome<std::path::PathBuf> {
    let path = fspath(value)?;
    path.extract().map_err(|e| refused(argument, "is not a path that this system can have", e))
}

fn fspath<'py>(value: &Bound<'py, PyAny>) -> PyOutcome<Bound<'py, PyAny>> {
    Ok(value.py().import("os")?.call_method1("fspath", (value,)).map_err(|e| {
        Error::invalid(format!("a path must be text or a path-like object, not {}", type_name(value))).with_source(e)
    })?)
}

/// Options for a store by name. A value is text, or what stands for it: a flag or a number.
pub(super) fn storage_options(value: Option<&Bound<'_, PyAny>>) -> PyOutcome<Option<HashMap<String, String>>> {
    let Some(value) = value else { return Ok(None) };
    let mapping = value
        .cast::<PyMapping>()
        .map_err(|_| Error::invalid(format!("storage_options must be a dict of texts, not {}", type_name(value))))?;
    let mut options = HashMap::new();
    for item in mapping.items()?.iter() {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
        let key = text_argument("a key of storage_options", &key)?.to_owned();
        let value = match value.extract::<bool>() {
            Ok(flag) => flag.to_string(),
            Err(_) if value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>() => {
                value.str()?.to_string_lossy().into_owned()
            }
            Err(_) => text_argument(&format!("storage_options[{key:?}]"), &value)?.to_owned(),
        };
        options.insert(key, value);
    }
    Ok(Some(options))
}

/// Seconds as a duration; refused when negative, not finite or beyond a year.
pub(super) fn seconds(argument: &str, value: f64) -> PyOutcome<std::time::Duration> {
    const YEAR: f64 = 365.0 * 86_400.0;
    if value.is_finite() && (0.0..=YEAR).contains(&value) {
        return Ok(std::time::Duration::from_secs_f64(value));
    }
    Err(Error::invalid(format!("{argument} must be seconds between 0 and {YEAR}, not {value}")).into())
}
