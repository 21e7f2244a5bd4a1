//! What Python callers give, as what the core takes. A value of the wrong type or beyond its range is an
//! `InvalidInputError` that says what is expected, like every other bad input, and not one of the errors that plain
//! conversion has (TypeError, OverflowError, UnicodeEncodeError).
//!
//! These functions are used as `#[pyo3(from_py_with = …)]`. They do not know the argument's name: PyO3 adds it as a note to
//! the exception, and `InvalidInputError.add_note` puts it in front of the text.

use std::fmt::Display;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyMapping, PyString};

use super::errors::Raised;
use crate::error::Error;
use crate::timespan;

/// A whole number that an argument may be.
pub(super) trait Whole: for<'a, 'py> FromPyObject<'a, 'py> + Display {
    /// What it is in words.
    const WORDS: &str;
    const MOST: Self;
}

impl Whole for usize {
    const WORDS: &str = "a whole number from 0";
    const MOST: Self = Self::MAX;
}

impl Whole for u32 {
    const WORDS: &str = "a whole number from 0";
    const MOST: Self = Self::MAX;
}

impl Whole for i64 {
    const WORDS: &str = "a whole number";
    const MOST: Self = Self::MAX;
}

fn expected(what: &str, value: &Bound<'_, PyAny>) -> PyErr {
    const LONGEST: usize = 100;
    let shown = value.repr().and_then(|text| text.extract::<String>()).unwrap_or_default();
    let kind = value.get_type();
    let kind = kind.name().map(|name| name.to_string()).unwrap_or_default();
    let shown = match shown.char_indices().nth(LONGEST) {
        _ if shown.is_empty() => format!("a value of type {kind}"),
        Some((end, _)) => format!("{}… ({kind})", &shown[..end]),
        None => format!("{shown} ({kind})"),
    };
    Raised::from(Error::invalid(format!("must be {what}, not {shown}"))).into()
}

fn given<'a, 'py>(value: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, PyAny>> {
    (!value.is_none()).then_some(value)
}

/// A whole number that fits the type.
pub(super) fn whole<T: Whole>(value: &Bound<'_, PyAny>) -> PyResult<T> {
    if value.is_instance_of::<PyBool>() {
        return Err(expected(T::WORDS, value));
    }
    value.extract().map_err(|_| match value.is_instance_of::<PyInt>() && value.gt(0).unwrap_or(false) {
        true => expected(&format!("at most {}", T::MOST), value),
        false => expected(T::WORDS, value),
    })
}

/// A whole number, or None.
pub(super) fn optional_whole<T: Whole>(value: &Bound<'_, PyAny>) -> PyResult<Option<T>> {
    given(value).map(whole).transpose()
}

/// Any number.
pub(super) fn number(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    if value.is_instance_of::<PyBool>() {
        return Err(expected("a number", value));
    }
    value.extract().map_err(|_| expected("a number", value))
}

/// A span of time: a number of seconds, a text such as `15m`, or a timedelta.
pub(super) fn span(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    const WORDS: &str = "a number of seconds, a text such as \"15m\", or a timedelta";
    const LONGEST: f64 = 100.0 * 365.0 * 86_400.0;
    if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_str().map_err(|_| expected(WORDS, value))?;
        return Ok(timespan::parse(text).map_err(Raised::from)?);
    }
    let seconds: f64 = match value.call_method0("total_seconds") {
        Ok(seconds) => seconds.extract(),
        Err(_) if value.is_instance_of::<PyBool>() => return Err(expected(WORDS, value)),
        Err(_) => value.extract(),
    }
    .map_err(|_| expected(WORDS, value))?;
    match (0.0..=LONGEST).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(expected("a span of time from 0 to a hundred years", value)),
    }
}

/// A span of time, or None.
pub(super) fn optional_span(value: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    given(value).map(span).transpose()
}

/// A number, or None.
pub(super) fn optional_number(value: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    given(value).map(number).transpose()
}

/// True or False: what Python takes for true, such as a text that says "false", is not good enough.
pub(super) fn flag(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.extract().map_err(|_| expected("True or False", value))
}

/// Text that UTF-8 can hold.
pub(super) fn text<'a>(value: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let text = value.cast::<PyString>().map_err(|_| expected("text", value))?;
    text.to_str().map_err(|_| {
        expected("text without lone surrogates (halves of characters, as undecodable bytes leave them)", value)
    })
}

/// Text, or None.
pub(super) fn optional_text(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    given(value).map(|value| text(value).map(str::to_owned)).transpose()
}

/// Text that no error shows.
pub(super) fn secret<'a>(value: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let wrong = || {
        let kind = value.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        PyErr::from(Raised::from(Error::invalid(format!("must be text, not a value of type {kind}"))))
    };
    value.cast::<PyString>().map_err(|_| wrong())?.to_str().map_err(|_| wrong())
}

/// [`secret`], or None.
pub(super) fn optional_secret(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    given(value).map(|value| secret(value).map(str::to_owned)).transpose()
}

/// A file, directory or URI: text or a path-like object.
pub(super) fn location(value: &Bound<'_, PyAny>) -> PyResult<String> {
    let wrong = || expected("text or a path, without lone surrogates", value);
    let path = value.py().import("os")?.call_method1("fspath", (value,)).map_err(|_| wrong())?;
    path.extract().map_err(|_| wrong())
}

/// [`location`] for what is converted in a function's body, where PyO3 adds no name.
pub(super) fn named_location(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    location(value).inspect_err(|error| {
        // As PyO3 does it. Without the name the text still says what is expected.
        let _ = error.value(value.py()).call_method1("add_note", (format!("while processing '{argument}'"),));
    })
}

/// A location, or None.
pub(super) fn optional_location(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    given(value).map(location).transpose()
}

/// Several texts. One text alone is refused: its characters are hardly what is meant.
pub(super) fn names(value: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let wrong = || expected("a list of texts, such as [\"vm1\"]", value);
    if value.is_instance_of::<PyString>() {
        return Err(wrong());
    }
    value.try_iter().map_err(|_| wrong())?.map(|item| item?.extract().map_err(|_| wrong())).collect()
}

/// Several texts, or None.
pub(super) fn optional_names(value: &Bound<'_, PyAny>) -> PyResult<Option<Vec<String>>> {
    given(value).map(names).transpose()
}

fn pairs(value: &Bound<'_, PyAny>) -> PyResult<Vec<(String, String)>> {
    // The value is not shown: it may hold credentials.
    let wrong = || {
        let kind = value.get_type();
        let kind = kind.name().map(|name| name.to_string()).unwrap_or_default();
        let text = format!("must be a dict of names and values, both text, and the {kind} given is not");
        PyErr::from(Raised::from(Error::invalid(text)))
    };
    let mapping = value.cast::<PyMapping>().map_err(|_| wrong())?;
    mapping.items()?.iter().map(|item| item.extract().map_err(|_| wrong())).collect()
}

/// Options or variables by name, or None.
pub(super) fn optional_text_map<M: FromIterator<(String, String)>>(value: &Bound<'_, PyAny>) -> PyResult<Option<M>> {
    Ok(given(value).map(pairs).transpose()?.map(M::from_iter))
}
