//! A run that was recorded elsewhere, from a table with the columns of [`Observation`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, Float64Array, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;

use super::moments::peak;
use super::observation::{ArmPlan, Observation, Run};
use crate::error::{Error, Result};
use crate::viya::jobs::State;

/// Columns that a table has to have: without them there is nothing to compare.
const NEEDED: [&str; 4] = ["arm", "job", "jes_created_s", "jes_end_s"];

/// Reads a run. Columns that are missing are not known; columns of other names are left alone. Arms are in the order of
/// their first submission, and a table does not say how many jobs they were to have in flight: that is counted.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for a table without the needed columns or without rows, for values of another kind,
/// for a job that ended before it was created, and for one that is there twice; no retry helps.
pub fn read(batches: &[RecordBatch]) -> Result<Run> {
    let mut observations = Vec::new();
    for batch in batches {
        rows(batch, &mut observations)?;
    }
    if observations.is_empty() {
        return Err(Error::invalid("the table has no rows: a run has one for each job"));
    }
    check_twice(&observations)?;
    number(&mut observations);
    let arms = arms(&observations);
    Ok(Run { arms, observations, ..Run::default() })
}

fn rows(batch: &RecordBatch, observations: &mut Vec<Observation>) -> Result<()> {
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| batch.column_by_name(name).is_none()).collect();
    if !missing.is_empty() {
        return Err(Error::invalid(format!(
            "the table has no column {}: a run needs {} at least",
            missing.join(", "),
            NEEDED.join(", ")
        )));
    }
    let first = observations.len();
    let texts = |name: &str| texts(batch, name);
    let reals = |name: &str| numbers(batch, name);
    let wholes = |name: &str| {
        let column = numbers(batch, name)?;
        check_whole(column.as_ref(), name, first)?;
        Ok::<_, Error>(column)
    };
    observations.resize_with(first + batch.num_rows(), Observation::default);
    let rows = &mut observations[first..];
    macro_rules! fill {
        ($($name:ident: $read:ident $get:ident),* $(,)?) => {
            $(if let Some(column) = $read(stringify!($name))? {
                for (at, row) in rows.iter_mut().enumerate() {
                    row.$name = $get(&column, at);
                }
            })*
        };
    }
    fill! {
        context: texts text, queue: texts text, host: texts text, correlation: texts text, error: texts text,
        unique_name: texts text, job_id: texts text,
        jes_created_s: reals real, jes_end_s: reals real, client_duration_s: reals real, wlo_submit_s: reals real,
        wlo_start_s: reals real, wlo_end_s: reals real, pending_s: reals real, starting_s: reals real,
        running_s: reals real, reserved_cores: reals real, reserved_memory: reals real, max_cpu_s: reals real,
        max_clock_s: reals real, max_memory: reals real, max_io_total: reals real, max_io_rate: reals real,
        max_page_rate: reals real, submit_latency_s: reals real, observe_lag_s: reals real, suspended_s: reals real,
        jes_elapsed_ms: wholes whole, wlo_id: wholes whole, requeue_count: wholes whole,
    }
    let (arm, job, state) = (texts("arm")?, texts("job")?, texts("state")?);
    let (sequence, round) = (wholes("sequence")?, wholes("round")?);
    for (at, row) in rows.iter_mut().enumerate() {
        let place = first + at + 1;
        let needed = |column: &Option<ArrayRef>, name: &str| {
            let found = column.as_ref().and_then(|column| text(column, at));
            found.ok_or_else(|| Error::invalid(format!("row {place} of the table has no {name}")))
        };
        row.arm = needed(&arm, "arm")?;
        row.job = needed(&job, "job")?;
        // Whoever recorded only what ended well has no column for it.
        let state = state.as_ref().map_or(Some("completed".to_owned()), |state| text(state, at));
        row.state = state.map_or_else(|| "unknown".to_owned(), |state| spelled(&state));
        row.sequence = sequence.as_ref().and_then(|column| whole(column, at)).unwrap_or(0);
        row.round = round.as_ref().and_then(|column| whole(column, at)).unwrap_or(1);
        sound(row, place)?;
        let elapsed = row.jes_created_s.zip(row.jes_end_s).map(|(start, end)| ((end - start) * 1e3).round() as i64);
        row.jes_elapsed_ms = row.jes_elapsed_ms.or(elapsed);
        *row = std::mem::take(row).rounded();
    }
    Ok(())
}

/// A state as it is spelled today, whatever its case and age.
fn spelled(state: &str) -> String {
    State::parse(state).map_or_else(|| state.to_owned(), |known| known.as_str().to_owned())
}

/// Whether the figures of a job can be true.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] with the row, counted from 1, and what is wrong.
pub fn sound(row: &Observation, place: usize) -> Result<()> {
    if row.jes_created_s.zip(row.jes_end_s).is_some_and(|(start, end)| end < start) {
        return Err(Error::invalid(format!("row {place} of the table ({}): it ended before it was created", row.job)));
    }
    if row.wlo_start_s.zip(row.wlo_end_s).is_some_and(|(start, end)| end < start) {
        return Err(Error::invalid(format!(
            "row {place} of the table ({}): it left its host before it started",
            row.job
        )));
    }
    for (name, value) in [
        ("pending_s", row.pending_s),
        ("starting_s", row.starting_s),
        ("running_s", row.running_s),
        ("max_cpu_s", row.max_cpu_s),
    ] {
        if value.is_some_and(|value| value < 0.0) {
            return Err(Error::invalid(format!("row {place} of the table ({}): {name} is negative", row.job)));
        }
    }
    if row.round < 1 {
        return Err(Error::invalid(format!("row {place} of the table ({}): rounds are counted from 1", row.job)));
    }
    Ok(())
}

/// The column as text; none when the table does not have it.
fn texts(batch: &RecordBatch, name: &str) -> Result<Option<ArrayRef>> {
    let Some(column) = batch.column_by_name(name) else { return Ok(None) };
    let kind = value_kind(column.data_type());
    let taken = kind.is_string() || kind.is_numeric() || kind.is_null() || matches!(kind, DataType::Boolean);
    if taken { cast(column, name, &DataType::Utf8).map(Some) } else { Err(unfit(column, name, "text")) }
}

/// The column as numbers; none when the table does not have it. Numbers that are written as text are taken, and an empty
/// text is not known. Moments and spans of time are refused: a number of seconds could not be told from one of microseconds.
fn numbers(batch: &RecordBatch, name: &str) -> Result<Option<ArrayRef>> {
    let Some(column) = batch.column_by_name(name) else { return Ok(None) };
    let kind = value_kind(column.data_type());
    if kind.is_string() {
        let texts = cast(column, name, &DataType::Utf8)?;
        let texts: &StringArray = texts.as_string();
        let known: StringArray = texts.iter().map(|text| text.map(str::trim).filter(|text| !text.is_empty())).collect();
        return cast(&(Arc::new(known) as ArrayRef), name, &DataType::Float64).map(Some);
    }
    if kind.is_numeric() || kind.is_null() {
        return cast(column, name, &DataType::Float64).map(Some);
    }
    Err(unfit(column, name, if name.ends_with("_s") { "a number of seconds" } else { "a number" }))
}

/// The kind of what a column holds, also where it is kept as a dictionary.
fn value_kind(kind: &DataType) -> &DataType {
    match kind {
        DataType::Dictionary(_, values) => values,
        kind => kind,
    }
}

fn cast(column: &ArrayRef, name: &str, kind: &DataType) -> Result<ArrayRef> {
    // Text where a number is expected is an error and not a missing value.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, kind, &options).map_err(|e| {
        let expected = if *kind == DataType::Utf8 { "text" } else { "a number" };
        unfit(column, name, expected).with_source(e)
    })
}

fn unfit(column: &ArrayRef, name: &str, expected: &str) -> Error {
    Error::invalid(format!("column {name} of the table is {}, where {expected} is expected", column.data_type()))
}

fn text(column: &ArrayRef, at: usize) -> Option<String> {
    let column: &StringArray = column.as_string();
    (!column.is_null(at)).then(|| column.value(at)).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn real(column: &ArrayRef, at: usize) -> Option<f64> {
    let column: &Float64Array = column.as_primitive();
    // NaN is what pandas has for a value that is not known.
    (!column.is_null(at)).then(|| column.value(at)).filter(|value| value.is_finite())
}

/// A count or a number: what is no whole number is refused in [`sound`].
fn whole(column: &ArrayRef, at: usize) -> Option<i64> {
    real(column, at).filter(|value| value.fract() == 0.0 && value.abs() < 9e15).map(|value| value as i64)
}

/// Whether every number of a column that counts is whole.
fn check_whole(column: Option<&ArrayRef>, name: &str, first: usize) -> Result<()> {
    let Some(column) = column else { return Ok(()) };
    match (0..column.len()).find(|at| real(column, *at).is_some() && whole(column, *at).is_none()) {
        Some(at) => Err(Error::invalid(format!("row {} of the table: {name} is no whole number", first + at + 1))),
        None => Ok(()),
    }
}

/// Refuses a row that is there twice: it would be counted as a job of its own.
fn check_twice(observations: &[Observation]) -> Result<()> {
    let mut seen: HashMap<(&str, i64, i64, &str, Option<u64>), usize> = HashMap::new();
    for (at, job) in observations.iter().enumerate().filter(|(_, job)| job.sequence > 0) {
        let created = job.jes_created_s.map(f64::to_bits);
        if let Some(before) = seen.insert((&job.arm, job.round, job.sequence, &job.job, created), at) {
            return Err(Error::invalid(format!(
                "row {} of the table is row {} again ({}, round {}, {}): give each job once, and each round its number",
                at + 1,
                before + 1,
                job.arm,
                job.round,
                job.job
            )));
        }
    }
    Ok(())
}

/// Puts the jobs of each arm's round in the order of their creation, and numbers those that have no number.
fn number(observations: &mut [Observation]) {
    let mut next: BTreeMap<(String, i64), i64> = BTreeMap::new();
    let numbered = observations.iter().all(|job| job.sequence > 0);
    if numbered {
        return;
    }
    let mut order: Vec<usize> = (0..observations.len()).collect();
    order.sort_by(|one, other| {
        let at = |index: &usize| observations[*index].jes_created_s.unwrap_or(f64::INFINITY);
        at(one).total_cmp(&at(other))
    });
    for index in order {
        let job = &mut observations[index];
        let number = next.entry((job.arm.clone(), job.round)).or_insert(0);
        *number += 1;
        job.sequence = *number;
    }
}

fn arms(observations: &[Observation]) -> Vec<ArmPlan> {
    let mut names: Vec<(&str, f64)> = Vec::new();
    for job in observations {
        let at = job.jes_created_s.unwrap_or(f64::INFINITY);
        match names.iter_mut().find(|(name, _)| *name == job.arm) {
            Some((_, first)) => *first = first.min(at),
            None => names.push((&job.arm, at)),
        }
    }
    names.sort_by(|one, other| one.1.total_cmp(&other.1));
    let plan = |(name, _): &(&str, f64)| {
        let jobs: Vec<&Observation> = observations.iter().filter(|job| job.arm == *name).collect();
        // By rounds, as each may have been recorded with a clock of its own.
        let mut spans: BTreeMap<i64, Vec<(f64, f64)>> = BTreeMap::new();
        for job in &jobs {
            spans.entry(job.round).or_default().extend(job.jes_created_s.zip(job.jes_end_s));
        }
        let in_flight = spans.values().map(|spans| peak(spans)).max();
        ArmPlan {
            name: (*name).to_owned(),
            context: most(jobs.iter().filter_map(|job| job.context.as_deref())),
            queue: most(jobs.iter().filter_map(|job| job.queue.as_deref())),
            mode: None,
            concurrent: in_flight.filter(|peak| *peak > 0),
            interrupted: Vec::new(),
        }
    };
    names.iter().map(plan).collect()
}

/// The value that occurs most.
fn most<'a>(values: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_insert(0) += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value.to_owned())
}
