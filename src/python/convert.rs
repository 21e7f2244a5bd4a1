//! Converts values between Python and the core: arguments, Arrow data, JSON, dicts.

use std::ffi::CStr;

use arrow::array::{RecordBatch, RecordBatchIterator, RecordBatchReader as _};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use serde::Serialize;

use super::errors::{PyOutcome, Raised};
use crate::error::{Error, ErrorKind};
use arguments::caused;

pub(crate) mod arguments;

/// The name that the Arrow PyCapsule interface gives a stream
/// (<https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html>).
const ARROW_STREAM: &CStr = c"arrow_array_stream";

/// A batch as an `arro3.core.Table`.
pub(crate) fn table(py: Python<'_>, batch: RecordBatch) -> PyOutcome {
    let schema = batch.schema();
    let reader = RecordBatchIterator::new([Ok(batch)], schema);
    let capsule = PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), ARROW_STREAM)?;
    Ok(arro3_table(py)?.call_method1("from_arrow_pycapsule", (capsule,))?.unbind())
}

/// Anything that offers Arrow data (a table, a batch, a stream) as one batch.
pub(crate) struct Rows(pub(crate) RecordBatch);

impl FromPyObject<'_, '_> for Rows {
    type Error = PyErr;

    #[expect(unsafe_code, reason = "a PyCapsule holds a raw pointer, which has no safe way out")]
    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let not_arrow = |error: PyErr| {
            let kind = value.get_type();
            let text = format!("must be Arrow data (a pyarrow, polars, pandas>=3, duckdb or arro3 table), not {kind}");
            caused(text, error)
        };
        let unreadable =
            |error: ArrowError| caused("cannot be read as Arrow data; check that its columns are valid", error);
        let table = arro3_table(value.py())?.call_method1("from_arrow", (&*value,)).map_err(not_arrow)?;
        let capsule = table.call_method0("__arrow_c_stream__")?.cast_into::<PyCapsule>()?;
        let pointer = capsule.pointer_checked(Some(ARROW_STREAM))?.cast::<FFI_ArrowArrayStream>();
        // SAFETY: a capsule of this name holds an `FFI_ArrowArrayStream` (checked above). `from_raw` takes the stream out of
        // it and leaves an empty one, so that the capsule's destructor releases nothing twice.
        let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.as_ptr()) };
        let reader = RecordBatchStreamReader::try_new(stream).map_err(unreadable)?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        let batch = concat_batches(&schema, &batches);
        batch.map(Self).map_err(|error| caused("has batches that do not fit together", error))
    }
}

fn arro3_table(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("arro3.core")?.getattr("Table")
}

/// JSON as Python dicts, lists and scalars.
pub(crate) fn json(py: Python<'_>, value: &serde_json::Value) -> PyOutcome {
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
            items.iter().map(|item| json(py, item)).collect::<PyOutcome<Vec<_>>>()?.into_py_any(py)?
        }
        Value::Object(members) => {
            let pairs = members.iter().map(|(key, item)| Ok((key, json(py, item)?)));
            dict(py, pairs.collect::<PyOutcome<Vec<_>>>()?)?.into_any().unbind()
        }
    })
}

/// A value of the core as Python dicts, lists and scalars: dicts have the names of the fields.
pub(crate) fn record(py: Python<'_>, value: &impl Serialize) -> PyOutcome {
    let value = serde_json::to_value(value);
    let failed = |e| Error::new(ErrorKind::Internal, "a result cannot be represented in Python").with_source(e);
    json(py, &value.map_err(failed)?)
}

/// Mappings, lists and scalars as JSON, through Python's own `json`, which decides what JSON is.
pub(crate) fn json_value(argument: &str, value: &Bound<'_, PyAny>) -> PyOutcome<serde_json::Value> {
    // `json` knows dicts, and asks `default` for other values.
    let options = dict(value.py(), [("default", wrap_pyfunction!(arguments::dict, value.py())?)])?;
    let text: String = value
        .py()
        .import("json")?
        .call_method("dumps", (value,), Some(&options))
        .map_err(|e| match e.is_instance_of::<PyException>(value.py()) {
            true => Error::invalid(format!("{argument} must be made of names, numbers, lists and dicts: {e}")).into(),
            false => Raised::from(e),
        })?
        .extract()?;
    serde_json::from_str(&text)
        .map_err(|e| Error::invalid(format!("{argument} cannot be represented as JSON")).with_source(e).into())
}

/// The HTML of an object for a notebook, made by `jobrota.display`, which escapes every value.
pub(crate) fn repr_html<'py>(py: Python<'py>, kind: &str, data: impl IntoPyObjectExt<'py>) -> PyResult<String> {
    let data = data.into_py_any(py)?;
    py.import("jobrota.display")?.call_method1("repr_html", (kind, data))?.extract()
}

/// A dict of the properties `names` of an object.
pub(crate) fn properties<'py>(object: &Bound<'py, PyAny>, names: &[&str]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(object.py());
    for name in names {
        dict.set_item(name, object.getattr(*name)?)?;
    }
    Ok(dict)
}

/// A dict of pairs, in their order.
pub(crate) fn dict<'py, K, V>(py: Python<'py>, pairs: impl IntoIterator<Item = (K, V)>) -> PyResult<Bound<'py, PyDict>>
where
    K: IntoPyObject<'py>,
    V: IntoPyObject<'py>,
{
    let dict = PyDict::new(py);
    for (name, value) in pairs {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}
