//! Passes events of the core to Python's `logging`: the target `jobrota::selection::probe` is the logger
//! `jobrota.selection.probe`, and fields are attributes of the record.
//!
//! Events happen on threads that Python did not start, and under locks that a Python thread with the GIL may wait for. So they
//! are put into a queue, and the next call from Python delivers them when it begins, waits or ends. In a notebook, they appear
//! below the cell that caused them.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as SpanRecord};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

/// The most records that wait. Beyond it, the oldest are dropped.
const CAPACITY: usize = 10_000;
/// How often a thread tries to lock the queue. It is locked only while a record is put in or all are taken.
const LOCK_ATTEMPTS: u32 = 1_000;
/// Python's numbers for its levels.
const DEBUG: u8 = 10;
const INFO: u8 = 20;
const WARNING: u8 = 30;
const ERROR: u8 = 40;

/// The lowest level that the loggers accept, as of the last call from Python.
static LEVEL: AtomicU8 = AtomicU8::new(WARNING);
static WAITING: AtomicBool = AtomicBool::new(false);
static QUEUE: Mutex<Queue> = Mutex::new(Queue { pid: 0, records: VecDeque::new(), lost: 0 });

struct Queue {
    /// The process of the records. A forked child drops those of its parent.
    pid: u32,
    records: VecDeque<Record>,
    lost: u64,
}

impl Queue {
    fn drop_records_of_the_parent(&mut self) {
        let pid = std::process::id();
        if self.pid != pid {
            *self = Self { pid, records: VecDeque::new(), lost: 0 };
        }
    }
}

#[derive(Default)]
struct Record {
    target: &'static str,
    level: u8,
    at: f64,
    file: Option<&'static str>,
    line: Option<u32>,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

#[derive(IntoPyObjectRef)]
enum Value {
    Text(String),
    Number(f64),
    Whole(i64),
    Flag(bool),
}

/// Starts to put the core's events into the queue.
pub(super) fn install() {
    // A program that embeds Python can have its own subscriber, which then gets the events.
    let _ = tracing::subscriber::set_global_default(Bridge);
}

/// Delivers the waiting records, and reads which level the loggers accept. Every call runs this with the GIL.
///
/// # Errors
/// Exceptions that do not come from logging. A handler of a signal can run in any call to Python, so that Ctrl-C can arrive
/// here.
pub(super) fn deliver(py: Python<'_>) -> PyResult<()> {
    match accepted_level(py) {
        Ok(level) => LEVEL.store(level, Ordering::Relaxed),
        Err(error) => only_about_logging(py, error)?,
    }
    if !WAITING.load(Ordering::Acquire) {
        return Ok(());
    }
    let (records, lost) = {
        let Ok(mut queue) = QUEUE.try_lock() else { return Ok(()) };
        WAITING.store(false, Ordering::Release);
        queue.drop_records_of_the_parent();
        (std::mem::take(&mut queue.records), std::mem::take(&mut queue.lost))
    };
    let lost = (lost > 0).then(|| Record {
        target: "jobrota",
        level: WARNING,
        at: now(),
        message: format!("{lost} older log records were left out: {CAPACITY} can wait at a time"),
        ..Record::default()
    });
    let mut outcome = Ok(());
    for record in lost.into_iter().chain(records) {
        if let Err(error) = record.deliver(py).or_else(|error| only_about_logging(py, error)) {
            outcome = Err(error);
        }
    }
    outcome
}

/// A logging handler that fails must not make the call fail.
fn only_about_logging(py: Python<'_>, error: PyErr) -> PyResult<()> {
    if !error.is_instance_of::<PyException>(py) {
        return Err(error);
    }
    error.write_unraisable(py, None);
    Ok(())
}

fn accepted_level(py: Python<'_>) -> PyResult<u8> {
    static ENABLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let enabled = ENABLED.get_or_try_init(py, || {
        let logger = py.import("logging")?.call_method1("getLogger", ("jobrota",))?;
        PyResult::Ok(logger.getattr("isEnabledFor")?.unbind())
    })?;
    for level in [DEBUG, INFO] {
        if enabled.bind(py).call1((level,))?.is_truthy()? {
            return Ok(level);
        }
    }
    Ok(WARNING)
}

impl Record {
    fn record_text(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            name => self.fields.push((name, Value::Text(text))),
        }
    }

    fn deliver(self, py: Python<'_>) -> PyResult<()> {
        let logging = py.import("logging")?;
        let name = self.target.replace("::", ".");
        let logger = logging.call_method1("getLogger", (&name,))?;
        if !logger.call_method1("isEnabledFor", (self.level,))?.is_truthy()? {
            return Ok(());
        }
        let mut message = self.message;
        let attributes = PyDict::new(py);
        for (key, value) in &self.fields {
            let _ = write!(message, "{}{key}={value}", if message.is_empty() { "" } else { " " });
            // Python's records have attributes of these names.
            let key = match *key {
                "name" | "module" | "process" | "args" | "msg" => format!("{key}_"),
                key => key.to_owned(),
            };
            attributes.set_item(key, value)?;
        }
        attributes.set_item("name", &name)?;
        attributes.set_item("levelno", self.level)?;
        attributes.set_item("levelname", logging.call_method1("getLevelName", (self.level,))?)?;
        attributes.set_item("msg", message)?;
        attributes.set_item("created", self.at)?;
        attributes.set_item("msecs", (self.at.fract() * 1000.0).trunc())?;
        attributes.set_item("pathname", self.file.unwrap_or_default())?;
        attributes.set_item("filename", self.file.and_then(|file| file.rsplit('/').next()).unwrap_or_default())?;
        attributes.set_item("lineno", self.line.unwrap_or_default())?;
        logger.call_method1("handle", (logging.call_method1("makeLogRecord", (attributes,))?,))?;
        Ok(())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => write!(f, "{number:.3}"),
            Self::Whole(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
        }
    }
}

/// Accepts events of this crate, and no spans.
struct Bridge;

fn level_of(metadata: &Metadata<'_>) -> u8 {
    match *metadata.level() {
        Level::ERROR => ERROR,
        Level::WARN => WARNING,
        Level::INFO => INFO,
        _ => DEBUG,
    }
}

impl Subscriber for Bridge {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let ours = metadata.target() == "jobrota" || metadata.target().starts_with("jobrota::");
        if metadata.is_event() && ours && *metadata.level() != Level::TRACE {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && level_of(metadata) >= LEVEL.load(Ordering::Relaxed)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut record = Record {
            target: metadata.target(),
            level: level_of(metadata),
            at: now(),
            file: metadata.file(),
            line: metadata.line(),
            ..Record::default()
        };
        event.record(&mut record);
        // A forked child can inherit the lock from a thread that does not exist there. Then the record is dropped.
        let attempt = |_| QUEUE.try_lock().inspect_err(|_| std::thread::yield_now()).ok();
        let Some(mut queue) = (0..LOCK_ATTEMPTS).find_map(attempt) else { return };
        queue.drop_records_of_the_parent();
        if queue.records.len() >= CAPACITY {
            queue.records.pop_front();
            queue.lost += 1;
        }
        queue.records.push_back(record);
        WAITING.store(true, Ordering::Release);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &SpanRecord<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_text(field, value.to_owned());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), Value::Number(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Value::Whole(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), Value::Whole(i64::try_from(value).unwrap_or(i64::MAX))));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::Flag(value)));
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
