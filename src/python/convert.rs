//! Converts values between Python and the core: arguments, Arrow data, JSON, dicts.

use std::ffi::CStr;

use arrow::array::{RecordBatch, RecordBatchIterator, RecordBatchReader as _};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyBool, PyCapsule, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde::Serialize;

use super::errors::PyOutcome;
use crate::columns::{self, count, flag, known_flag, number, text, time};
use crate::delivery::ParkedRow;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::LedgerTable;
use crate::selection::{CheckRow, DistributionRow, StateRow};
use arguments::caused;

pub(crate) mod arguments;

/// The name that the Arrow PyCapsule interface gives a stream
/// (<https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html>).
const ARROW_STREAM: &CStr = c"arrow_array_stream";

/// A batch as a `jobrota.Table`.
pub(crate) fn table(py: Python<'_>, batch: RecordBatch) -> PyOutcome {
    let schema = batch.schema();
    let reader = RecordBatchIterator::new([Ok(batch)], schema);
    let capsule = PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), ARROW_STREAM)?;
    let class = py.import("jobrota.table")?.getattr("Table")?;
    Ok(class.call_method1("from_arrow_pycapsule", (capsule,))?.unbind())
}

/// vm, ip_address, nic_name, reachable, probe, rtt_ms, reason.
pub(crate) fn check_table(rows: &[CheckRow]) -> Result<RecordBatch> {
    columns::table([
        ("vm", text(rows, |row| Some(&row.vm))),
        ("ip_address", text(rows, |row| row.ip_address.as_deref())),
        ("nic_name", text(rows, |row| row.nic_name.as_deref())),
        ("reachable", flag(rows, |row| row.reachable)),
        ("probe", text(rows, |row| row.probe.as_deref())),
        ("rtt_ms", number(rows, |row| row.rtt_ms)),
        ("reason", text(rows, |row| row.reason.as_deref())),
    ])
}

/// vm, selections, share, last_selected.
pub(crate) fn distribution_table(rows: &[DistributionRow]) -> Result<RecordBatch> {
    columns::table([
        ("vm", text(rows, |row| Some(&row.vm))),
        ("selections", count(rows, |row| row.selections)),
        ("share", number(rows, |row| Some(row.share))),
        ("last_selected", time(rows, |row| Some(row.last_selected?.timestamp_micros()))),
    ])
}

/// vm, weight, drained, healthy, in_flight.
pub(crate) fn state_table(rows: &[StateRow]) -> Result<RecordBatch> {
    columns::table([
        ("vm", text(rows, |row| Some(&row.vm))),
        ("weight", count(rows, |row| row.weight)),
        ("drained", flag(rows, |row| row.drained)),
        ("healthy", known_flag(rows, |row| row.healthy)),
        ("in_flight", count(rows, |row| row.in_flight)),
    ])
}

/// The columns that make a row of the table, and attempts, reason, parked_at, transport.
pub(crate) fn parked_table(of: LedgerTable, rows: &[ParkedRow]) -> Result<RecordBatch> {
    columns::table([
        ("file_name", text(rows, |parked| parked.row.file_name.as_deref())),
        ("job_id", text(rows, |parked| parked.row.job_id.as_deref())),
        ("status", text(rows, |parked| parked.row.status.as_deref())),
        (of.timestamp_column(), time(rows, |parked| parked.row.timestamp)),
        ("attempts", count(rows, |parked| parked.attempts)),
        ("reason", text(rows, |parked| parked.reason.as_deref())),
        ("parked_at", time(rows, |parked| Some(parked.parked_at.timestamp_micros()))),
        ("transport", text(rows, |parked| Some(&parked.transport))),
    ])
}

/// Anything that offers Arrow data (a table, a batch, a stream) as one batch.
pub(crate) struct Rows(pub(crate) RecordBatch);

impl FromPyObject<'_, '_> for Rows {
    type Error = PyErr;

    #[expect(unsafe_code, reason = "a PyCapsule holds a raw pointer, which has no safe way out")]
    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let not_arrow = |error: PyErr| {
            let kind = value.get_type();
            let text =
                format!("must be Arrow data (a pyarrow, polars, pandas>=2.2, duckdb or arro3 table), not {kind}");
            caused(text, error)
        };
        let unreadable =
            |error: ArrowError| caused("cannot be read as Arrow data; check that its columns are valid", error);
        let class = value.py().import("arro3.core")?.getattr("Table")?;
        let table = class.call_method1("from_arrow", (&*value,)).map_err(not_arrow)?;
        let capsule = table.call_method0("__arrow_c_stream__")?.cast_into::<PyCapsule>()?;
        let pointer = capsule.pointer_checked(Some(ARROW_STREAM))?.cast::<FFI_ArrowArrayStream>();
        // SAFETY: a capsule of this name holds an `FFI_ArrowArrayStream` (checked above). `from_raw` takes the stream out of
        // it and leaves an empty one, so that the capsule's destructor releases nothing twice.
        let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.as_ptr()) };
        let reader = RecordBatchStreamReader::try_new(stream).map_err(unreadable)?;
        let schema = reader.schema();
        let batches = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(unreadable)?;
        let batch = concat_batches(&schema, &batches);
        batch.map(Self).map_err(|error| caused("has batches that do not fit together", error))
    }
}

/// A value of the core, or JSON, as Python dicts, lists and scalars: dicts have the names of the fields.
pub(crate) fn record(py: Python<'_>, value: &impl Serialize) -> PyOutcome {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let failed = |e| Error::new(ErrorKind::Internal, "a result cannot be represented in Python").with_source(e);
    let text = serde_json::to_string(value).map_err(failed)?;
    Ok(LOADS.import(py, "json", "loads")?.call1((text,))?.unbind())
}

/// A value of the core that Python sees as [`record`] makes it.
pub(crate) struct Record<T>(pub(crate) T);

impl<'py, T: Serialize> IntoPyObject<'py> for &Record<T> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        Ok(record(py, &self.0)?.into_bound(py))
    }
}

/// The deepest nesting of dicts and lists that an argument can have. One that contains itself is deeper.
const DEEPEST: usize = 32;

/// Mappings, lists and scalars as JSON. Keys are text. No error shows a value, which can be a credential.
pub(crate) fn json_value(argument: &str, value: &Bound<'_, PyAny>) -> PyOutcome<serde_json::Value> {
    Ok(arguments::named(value.py(), argument, plain(value, DEEPEST))?)
}

fn plain(value: &Bound<'_, PyAny>, levels: usize) -> PyResult<serde_json::Value> {
    use serde_json::{Number, Value};
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    if value.is_instance_of::<PyString>() {
        return arguments::text(value).map(Value::from).map_err(|_| arguments::invalid("has text that is not valid"));
    }
    if let Ok(whole) = value.cast::<PyInt>().map_err(PyErr::from).and_then(|whole| whole.extract::<i64>()) {
        return Ok(Value::from(whole));
    }
    if value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>() {
        let number = value.extract().ok().and_then(Number::from_f64);
        return number.map(Value::Number).ok_or_else(|| arguments::invalid("has a number that is infinite or NaN"));
    }
    let below = || levels.checked_sub(1).ok_or_else(|| arguments::invalid("is nested too deeply"));
    if let Some(dict) = arguments::mapping(value)? {
        let members = dict.iter().map(|(key, value)| Ok((arguments::key(&key)?, plain(&value, below()?)?)));
        return members.collect::<PyResult<_>>().map(Value::Object);
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter()?.map(|item| plain(&item?, below()?));
        return items.collect::<PyResult<_>>().map(Value::Array);
    }
    let kind = arguments::type_name(value);
    Err(arguments::invalid(format!("must be made of text, numbers, lists and dicts, not of a value of type {kind}")))
}

/// The HTML of an object for a notebook, made by `jobrota.display`, which escapes every value.
pub(crate) fn repr_html<'py>(py: Python<'py>, kind: &str, data: impl IntoPyObjectExt<'py>) -> PyResult<String> {
    let data = data.into_py_any(py)?;
    py.import("jobrota.display")?.call_method1("repr_html", (kind, data))?.extract()
}

/// A dict of the properties `names` of an object.
pub(crate) fn properties<'py>(object: &Bound<'py, PyAny>, names: &[&str]) -> PyResult<Bound<'py, PyDict>> {
    let pairs = names.iter().map(|name| Ok((name, object.getattr(*name)?)));
    pairs.collect::<PyResult<Vec<_>>>()?.into_py_dict(object.py())
}
