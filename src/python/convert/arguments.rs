//! Converts the arguments of Python calls to values of the core.
//!
//! A value of the wrong type or out of range raises `InvalidInputError`, which says what is expected. Plain conversion would
//! raise TypeError, OverflowError or UnicodeEncodeError.
//!
//! The types and functions here do not know the name of the argument. PyO3 adds it as a note to the exception, and
//! `InvalidInputError.add_note` puts it in front of the text. Code that converts a value in the body of a method calls
//! [`named`] for the same effect.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyMapping, PyString};

use crate::duration;
use crate::error::Error;
use crate::ledger::LedgerTable;
use crate::python::errors::Raised;

const YEAR: f64 = 365.0 * 86_400.0;

/// An error of the core as the exception that a conversion raises.
pub(crate) fn invalid(text: impl Into<String>) -> PyErr {
    Raised::from(Error::invalid(text)).into()
}

/// As [`invalid`], with the error that caused it.
pub(crate) fn caused(text: impl Into<String>, cause: impl std::error::Error + Send + Sync + 'static) -> PyErr {
    Raised::from(Error::invalid(text).with_source(cause)).into()
}

/// The name of the type of a value.
pub(crate) fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "unknown".to_owned(), |name| name.to_string())
}

/// Says what is expected, and shows the beginning of the value and its type.
fn expected(what: &str, value: &Bound<'_, PyAny>) -> PyErr {
    const LONGEST: usize = 100;
    let shown = value.repr().and_then(|text| text.extract::<String>()).unwrap_or_default();
    let kind = type_name(value);
    let shown = match shown.char_indices().nth(LONGEST) {
        _ if shown.is_empty() => format!("a value of type {kind}"),
        Some((end, _)) => format!("{}… ({kind})", &shown[..end]),
        None => format!("{shown} ({kind})"),
    };
    invalid(format!("must be {what}, not {shown}"))
}

/// Adds the name of the argument to an error, as PyO3 does for the parameters of a method.
pub(crate) fn named<T>(py: Python<'_>, argument: &str, converted: PyResult<T>) -> PyResult<T> {
    converted.inspect_err(|error| {
        // If this fails, the text still says what is expected.
        let _ = error.value(py).call_method1("add_note", (format!("while processing '{argument}'"),));
    })
}

/// A key of a dict.
pub(crate) fn key(key: &Bound<'_, PyAny>) -> PyResult<String> {
    let wrong = |_| invalid(format!("has a key of type {}: keys are text", type_name(key)));
    text(key).map(str::to_owned).map_err(wrong)
}

/// The value of `key` in the dict that is the argument `argument`, converted.
pub(crate) fn item<T>(
    argument: &str,
    key: &str,
    value: &Bound<'_, PyAny>,
    convert: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>,
) -> PyResult<T> {
    named(value.py(), &format!("{argument}[{key:?}]"), convert(value))
}

/// The value, unless it is None.
pub(crate) fn given<'a, 'py>(value: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, PyAny>> {
    (!value.is_none()).then_some(value)
}

/// A whole number type that an argument can have.
pub(crate) trait WholeNumber: for<'a, 'py> FromPyObject<'a, 'py> + Display {
    /// The description for an error.
    const DESCRIPTION: &str = "a whole number from 0";
    const MAX: Self;
}

impl WholeNumber for usize {
    const MAX: Self = Self::MAX;
}

impl WholeNumber for u32 {
    const MAX: Self = Self::MAX;
}

impl WholeNumber for i64 {
    const DESCRIPTION: &str = "a whole number";
    const MAX: Self = Self::MAX;
}

/// A whole number that fits the type.
pub(crate) fn whole<T: WholeNumber>(value: &Bound<'_, PyAny>) -> PyResult<T> {
    if value.is_instance_of::<PyBool>() {
        return Err(expected(T::DESCRIPTION, value));
    }
    value.extract().map_err(|_| match value.is_instance_of::<PyInt>() && value.gt(0).unwrap_or(false) {
        true => expected(&format!("at most {}", T::MAX), value),
        false => expected(T::DESCRIPTION, value),
    })
}

/// A whole number, or None.
pub(crate) fn optional_whole<T: WholeNumber>(value: &Bound<'_, PyAny>) -> PyResult<Option<T>> {
    given(value).map(whole).transpose()
}

/// Any number.
pub(crate) fn number(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    if value.is_instance_of::<PyBool>() {
        return Err(expected("a number", value));
    }
    value.extract().map_err(|_| expected("a number", value))
}

/// A number, or None.
pub(crate) fn optional_number(value: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    given(value).map(number).transpose()
}

/// A duration in seconds without a limit: a number of any size, text such as `15m`, or a timedelta.
pub(crate) fn unlimited_seconds(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let wrong =
        || expected(&format!("a number of seconds, text such as {}, or a timedelta", duration::EXAMPLES), value);
    if let Ok(text) = value.cast::<PyString>() {
        let duration = text.to_str().ok().and_then(|text| duration::parse(text).ok());
        return duration.map(|duration| duration.as_secs_f64()).ok_or_else(wrong);
    }
    match value.call_method0("total_seconds") {
        Ok(seconds) => seconds.extract(),
        Err(_) if value.is_instance_of::<PyBool>() => return Err(wrong()),
        Err(error) if !error.is_instance_of::<PyException>(value.py()) => return Err(error),
        Err(_) => value.extract(),
    }
    .map_err(|_| wrong())
}

/// A duration from 0 to a year, in seconds.
pub(crate) fn seconds(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let seconds = unlimited_seconds(value)?;
    let fits = (0.0..=YEAR).contains(&seconds);
    if fits { Ok(seconds) } else { Err(expected("a duration from 0 to a year", value)) }
}

/// A duration from 0 to a year, in seconds, or None.
pub(crate) fn optional_seconds(value: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    given(value).map(seconds).transpose()
}

/// A duration from 0 to a hundred years.
pub(crate) fn duration(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds = unlimited_seconds(value)?;
    match (0.0..=100.0 * YEAR).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(expected("a duration from 0 to a hundred years", value)),
    }
}

/// A duration from 0 to a hundred years, or None.
pub(crate) fn optional_duration(value: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    given(value).map(duration).transpose()
}

/// A duration from a millisecond to a hundred years: work that is repeated at shorter intervals would never pause.
pub(crate) fn interval(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let interval = duration(value)?;
    let fits = interval >= Duration::from_millis(1);
    if fits { Ok(interval) } else { Err(expected("a duration from 1 ms to a hundred years", value)) }
}

/// A number of hours, or a duration as text with units or as a timedelta.
pub(crate) fn hours(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let wrong = || expected("a number of hours, text with a unit such as \"7d\", or a timedelta", value);
    let hours = match text(value) {
        // The unit of a bare number differs between durations (seconds) and hours.
        Ok(text) if text.trim().parse::<f64>().is_ok() => return Err(wrong()),
        Err(_) if !value.hasattr("total_seconds")? => number(value),
        _ => unlimited_seconds(value).map(|seconds| seconds / 3_600.0),
    };
    // KeyboardInterrupt and the like are not answers.
    hours.map_err(|error| if error.is_instance_of::<PyException>(value.py()) { wrong() } else { error })
}

/// True or False. Other values that Python takes for true or false are refused, such as the text "false".
pub(crate) fn flag(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.extract().map_err(|_| expected("True or False", value))
}

/// Text that UTF-8 can hold.
pub(crate) fn text<'a>(value: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let text = value.cast::<PyString>().map_err(|_| expected("text", value))?;
    text.to_str().map_err(|_| {
        expected("text without lone surrogates (halves of characters, as undecodable bytes leave them)", value)
    })
}

/// Text that no error shows.
pub(crate) fn secret<'a>(value: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let text = value.cast::<PyString>().ok().and_then(|text| text.to_str().ok());
    text.ok_or_else(|| invalid(format!("must be text, not a value of type {}", type_name(value))))
}

/// A file, directory or URI: text or a path-like object.
pub(crate) fn location(value: &Bound<'_, PyAny>) -> PyResult<String> {
    const TEXT: &str = "text or a path without lone surrogates (they stand for bytes that the locale cannot decode: set PYTHONUTF8=1 or \
                        LC_ALL=C.UTF-8, or use another name)";
    let path = value.py().import("os")?.call_method1("fspath", (value,));
    path.map_err(|_| expected("text or a path", value))?.extract().map_err(|_| expected(TEXT, value))
}

/// [`text`] as the type of a parameter.
pub(crate) struct Text(pub(crate) String);

impl FromPyObject<'_, '_> for Text {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        text(&value).map(|text| Self(text.to_owned()))
    }
}

/// [`secret`] as the type of a parameter.
pub(crate) struct Secret(pub(crate) String);

impl FromPyObject<'_, '_> for Secret {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        secret(&value).map(|text| Self(text.to_owned()))
    }
}

/// [`location`] as the type of a parameter.
pub(crate) struct Location(pub(crate) String);

impl FromPyObject<'_, '_> for Location {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        location(&value).map(Self)
    }
}

/// Several texts. A single text is refused: it would be read as a list of its characters.
pub(crate) struct Names(pub(crate) Vec<String>);

impl FromPyObject<'_, '_> for Names {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let wrong = || expected("a list of texts, such as [\"NAME\"]", &value);
        if value.is_instance_of::<PyString>() {
            return Err(wrong());
        }
        let names = value.try_iter().map_err(|_| wrong())?.map(|item| item?.extract().map_err(|_| wrong()));
        names.collect::<PyResult<_>>().map(Self)
    }
}

/// A path on this system. Its bytes need not be UTF-8.
pub(crate) struct LocalPath(pub(crate) PathBuf);

impl FromPyObject<'_, '_> for LocalPath {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let path = value.py().import("os")?.call_method1("fspath", (&*value,));
        let path = path.map_err(|_| expected("text or a path", &value))?;
        path.extract().map(Self).map_err(|error| caused("is not a path that this system can have", error))
    }
}

/// An aware `datetime` as UTC. A naive one is refused, because its timezone is not known.
pub(crate) struct Moment(pub(crate) DateTime<Utc>);

impl FromPyObject<'_, '_> for Moment {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let datetime = value.py().import("datetime")?;
        if !value.is_instance(&datetime.getattr("datetime")?)? {
            return Err(expected("a datetime.datetime with a timezone", &value));
        }
        let offset = value.call_method0("utcoffset");
        if offset.map_err(|error| caused("has a timezone that does not work", error))?.is_none() {
            return Err(invalid(format!(
                "{} has no timezone, so its hour is not known: give a datetime with a timezone, such as \
                 datetime.now(timezone.utc)",
                value.str()?
            )));
        }
        let utc = value.call_method1("astimezone", (datetime.getattr("timezone")?.getattr("utc")?,));
        let utc = utc.and_then(|utc| utc.extract::<DateTime<Utc>>());
        utc.map(Self).map_err(|error| caused("is out of the range of times that UTC has", error))
    }
}

/// A maximum count: a whole number from 1.
pub(crate) struct Limit(pub(crate) usize);

impl FromPyObject<'_, '_> for Limit {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let number = if value.is_instance_of::<PyBool>() { None } else { value.extract::<usize>().ok() };
        number.filter(|number| *number > 0).map(Self).ok_or_else(|| expected("a whole number from 1", &value))
    }
}

impl FromPyObject<'_, '_> for LedgerTable {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let table = text(&value).ok().and_then(LedgerTable::named);
        table.ok_or_else(|| expected("\"job_notifications\" or \"autosys_job_log\"", &value))
    }
}

/// One of a few values, by its name.
pub(crate) fn choice<T: Copy>(value: &Bound<'_, PyAny>, known: &[(&str, T)]) -> PyResult<T> {
    let text = text(value).ok();
    let names = || known.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ");
    let found = known.iter().find(|(name, _)| Some(*name) == text);
    found.map(|(_, value)| *value).ok_or_else(|| expected(&names(), value))
}

/// A dict, or another mapping as a dict. No error shows a value, which can be a credential.
pub(crate) fn dict<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    mapping(value)?.ok_or_else(|| invalid(format!("must be a dict, not a value of type {}", type_name(value))))
}

/// A dict or another mapping as a dict; None if the value is neither. What a mapping raises is not an answer to this.
pub(crate) fn mapping<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Ok(mapping) = value.cast::<PyMapping>() else { return Ok(None) };
    let dict = PyDict::new(value.py());
    dict.update(mapping)?;
    Ok(Some(dict))
}

/// A dict or another mapping, or None.
pub(crate) fn optional_dict<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
    given(value).map(dict).transpose()
}

/// Pairs of text in the order of a mapping. No error shows a value, which can be a credential.
pub(crate) struct TextPairs(pub(crate) Vec<(String, String)>);

impl FromPyObject<'_, '_> for TextPairs {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let wrong = |what: &str, value: &Bound<'_, PyAny>| {
            let kind = type_name(value);
            invalid(format!(
                "must be a dict of names and values, both text: {what} is of type {kind}, or is not valid text"
            ))
        };
        let pairs = mapping(&value)?.ok_or_else(|| wrong("it", &value))?.iter().map(|(key, value)| {
            let key: String = key.extract().map_err(|_| wrong("a key", &key))?;
            let value = value.extract().map_err(|_| wrong(&format!("the value of {key:?}"), &value))?;
            Ok((key, value))
        });
        pairs.collect::<PyResult<_>>().map(Self)
    }
}
