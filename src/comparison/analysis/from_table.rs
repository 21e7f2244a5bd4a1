//! A run that was recorded elsewhere, from an Arrow table with the columns of [`JobRow`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type};

use super::concurrency::peak;
use super::run::{ArmPlan, JobRow, RunData};
use crate::comparison::statistics::counts;
use crate::error::{Error, Result};
use crate::viya::jobs::JobState;

/// The required columns.
const REQUIRED: [&str; 4] = ["arm", "job", "jes_created_s", "jes_end_s"];

/// Reads a run. The values of missing columns are unknown, and other columns are ignored. Arms are in the order of their
/// first submission. Their concurrency is counted, because a table does not contain it.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for a table without the required columns or without rows, for values of another type,
/// for a job that ended before it was created, and for a duplicate row. Not retryable.
pub fn read_run(table: &RecordBatch) -> Result<RunData> {
    let mut job_rows = read_rows(table)?;
    if job_rows.is_empty() {
        return Err(Error::invalid("the table has no rows: give a row for each job"));
    }
    check_duplicates(&job_rows)?;
    number_jobs(&mut job_rows);
    let arms = plans(&job_rows);
    Ok(RunData { arms, job_rows, ..RunData::default() })
}

fn read_rows(batch: &RecordBatch) -> Result<Vec<JobRow>> {
    let missing: Vec<&str> = REQUIRED.into_iter().filter(|name| batch.column_by_name(name).is_none()).collect();
    if !missing.is_empty() {
        let (missing, required) = (missing.join(", "), REQUIRED.join(", "));
        return Err(Error::invalid(format!("the table has no column {missing}: a run needs at least {required}")));
    }
    let text = |name: &str| texts(batch, name);
    let number = |name: &str| numbers(batch, name);
    let integer = |name: &str| integers(batch, name);
    let mut rows = vec![JobRow::default(); batch.num_rows()];
    macro_rules! fill {
        ($($name:ident: $read:ident),* $(,)?) => {
            $(for (row, value) in rows.iter_mut().zip($read(stringify!($name))?) {
                row.$name = value;
            })*
        };
    }
    fill! {
        context: text, queue: text, host: text, correlation: text, error: text, unique_name: text, job_id: text,
        jes_created_s: number, jes_end_s: number, client_duration_s: number, wlo_submit_s: number, wlo_start_s: number,
        wlo_end_s: number, pending_s: number, starting_s: number, running_s: number, reserved_cores: number,
        reserved_memory: number, max_cpu_s: number, max_clock_s: number, max_memory: number, max_io_total: number,
        max_io_rate: number, max_page_rate: number, submit_latency_s: number, observe_lag_s: number,
        suspended_s: number, jes_elapsed_ms: integer, wlo_id: integer, requeue_count: integer,
    }
    let (arms, jobs, states) = (text("arm")?, text("job")?, text("state")?);
    let (sequences, rounds) = (integer("sequence")?, integer("round")?);
    for (at, row) in rows.iter_mut().enumerate() {
        let required = |column: &[Option<String>], name: &str| {
            let missing = || Error::invalid(format!("row {} of the table has no {name}", at + 1));
            column[at].clone().ok_or_else(missing)
        };
        row.arm = required(&arms, "arm")?;
        row.job = required(&jobs, "job")?;
        row.state = match states.get(at) {
            // In its present spelling.
            Some(Some(state)) => JobState::parse(state).map_or_else(|| state.clone(), |known| known.to_string()),
            Some(None) => "unknown".to_owned(),
            // A table without this column has only completed jobs.
            None => "completed".to_owned(),
        };
        row.sequence = sequences.get(at).copied().flatten().unwrap_or(0);
        row.round = rounds.get(at).copied().flatten().unwrap_or(1);
        validate(row, at + 1)?;
        let elapsed = row.jes_created_s.zip(row.jes_end_s).map(|(start, end)| ((end - start) * 1e3).round() as i64);
        row.jes_elapsed_ms = row.jes_elapsed_ms.or(elapsed);
        *row = std::mem::take(row).rounded();
    }
    Ok(rows)
}

/// Checks that the figures of a job are possible.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] with the row, counted from 1.
pub fn validate(row: &JobRow, position: usize) -> Result<()> {
    let before = |start: Option<f64>, end: Option<f64>| start.zip(end).is_some_and(|(start, end)| end < start);
    let spans = [
        ("pending_s", row.pending_s),
        ("starting_s", row.starting_s),
        ("running_s", row.running_s),
        ("max_cpu_s", row.max_cpu_s),
    ];
    let problem = if before(row.jes_created_s, row.jes_end_s) {
        "it ended before it was created".to_owned()
    } else if before(row.wlo_start_s, row.wlo_end_s) {
        "it left its host before it started".to_owned()
    } else if let Some((name, _)) = spans.iter().find(|(_, value)| value.is_some_and(|value| value < 0.0)) {
        format!("{name} is negative")
    } else if row.round < 1 {
        "rounds are counted from 1".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("row {position} of the table ({}): {problem}", row.job)))
}

/// The column as text. Empty text is an unknown value. Empty if the table does not have the column.
pub(in crate::comparison) fn texts(batch: &RecordBatch, name: &str) -> Result<Vec<Option<String>>> {
    let Some(column) = batch.column_by_name(name) else { return Ok(Vec::new()) };
    let kind = value_type(column.data_type());
    if !(kind.is_string() || kind.is_numeric() || kind.is_null() || matches!(kind, DataType::Boolean)) {
        return Err(type_error(column, name, "text"));
    }
    let column = cast(column, name, &DataType::Utf8)?;
    let known = column.as_string::<i32>().iter().map(|text| text.filter(|text| !text.is_empty()));
    Ok(known.map(|text| text.map(str::to_owned)).collect())
}

/// The column as numbers. Text with numbers is accepted, and empty text is an unknown value. Timestamps and durations are
/// refused, because their unit is not certain. Empty if the table does not have the column.
pub(in crate::comparison) fn numbers(batch: &RecordBatch, name: &str) -> Result<Vec<Option<f64>>> {
    let Some(column) = batch.column_by_name(name) else { return Ok(Vec::new()) };
    let kind = value_type(column.data_type());
    let numbers = if kind.is_string() {
        let texts = cast(column, name, &DataType::Utf8)?;
        let known = texts.as_string::<i32>().iter().map(|text| text.map(str::trim).filter(|text| !text.is_empty()));
        cast(&(Arc::new(known.collect::<StringArray>()) as ArrayRef), name, &DataType::Float64)?
    } else if kind.is_numeric() || kind.is_null() {
        cast(column, name, &DataType::Float64)?
    } else {
        return Err(type_error(column, name, if name.ends_with("_s") { "a number of seconds" } else { "a number" }));
    };
    // pandas stores an unknown value as NaN.
    let known = numbers.as_primitive::<Float64Type>().iter().map(|value| value.filter(|value| value.is_finite()));
    Ok(known.collect())
}

/// The column as whole numbers. Empty if the table does not have the column.
pub(in crate::comparison) fn integers(batch: &RecordBatch, name: &str) -> Result<Vec<Option<i64>>> {
    let integer = |(at, number): (usize, Option<f64>)| match number {
        Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => Ok(Some(number as i64)),
        Some(_) => Err(Error::invalid(format!("row {} of the table: {name} is not a whole number", at + 1))),
        None => Ok(None),
    };
    numbers(batch, name)?.into_iter().enumerate().map(integer).collect()
}

/// The type of the values, also of a dictionary.
fn value_type(kind: &DataType) -> &DataType {
    match kind {
        DataType::Dictionary(_, values) => values,
        kind => kind,
    }
}

fn cast(column: &ArrayRef, name: &str, kind: &DataType) -> Result<ArrayRef> {
    // Text in place of a number is an error, not a missing value.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, kind, &options).map_err(|e| {
        let expected = if *kind == DataType::Utf8 { "text" } else { "a number" };
        type_error(column, name, expected).with_source(e)
    })
}

fn type_error(column: &ArrayRef, name: &str, expected: &str) -> Error {
    Error::invalid(format!("column {name} of the table is {}, and must be {expected}", column.data_type()))
}

/// Refuses a duplicate row, which would count as another job.
fn check_duplicates(job_rows: &[JobRow]) -> Result<()> {
    let mut seen: HashMap<(&str, i64, i64, &str, Option<u64>), usize> = HashMap::new();
    for (at, job) in job_rows.iter().enumerate().filter(|(_, job)| job.sequence > 0) {
        let created = job.jes_created_s.map(f64::to_bits);
        if let Some(before) = seen.insert((&job.arm, job.round, job.sequence, &job.job, created), at) {
            return Err(Error::invalid(format!(
                "row {} of the table repeats row {} ({}, round {}, {}): give each job once, and each round its number",
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

/// Numbers the jobs of each arm's round in the order of their creation, unless every job has a number.
fn number_jobs(job_rows: &mut [JobRow]) {
    if job_rows.iter().all(|job| job.sequence > 0) {
        return;
    }
    let mut next: BTreeMap<(String, i64), i64> = BTreeMap::new();
    let mut order: Vec<usize> = (0..job_rows.len()).collect();
    let at = |index: &usize| job_rows[*index].jes_created_s.unwrap_or(f64::INFINITY);
    order.sort_by(|one, other| at(one).total_cmp(&at(other)));
    for index in order {
        let job = &mut job_rows[index];
        let number = next.entry((job.arm.clone(), job.round)).or_insert(0);
        *number += 1;
        job.sequence = *number;
    }
}

fn plans(job_rows: &[JobRow]) -> Vec<ArmPlan> {
    let mut names: Vec<(&str, f64)> = Vec::new();
    for job in job_rows {
        let at = job.jes_created_s.unwrap_or(f64::INFINITY);
        match names.iter_mut().find(|(name, _)| *name == job.arm) {
            Some((_, first)) => *first = first.min(at),
            None => names.push((&job.arm, at)),
        }
    }
    names.sort_by(|one, other| one.1.total_cmp(&other.1));
    let plan = |(name, _): &(&str, f64)| {
        let jobs: Vec<&JobRow> = job_rows.iter().filter(|job| job.arm == *name).collect();
        // By rounds, because each can be recorded with a different clock.
        let mut spans: BTreeMap<i64, Vec<(f64, f64)>> = BTreeMap::new();
        for job in &jobs {
            spans.entry(job.round).or_default().extend(job.jes_created_s.zip(job.jes_end_s));
        }
        let in_flight = spans.values().map(|spans| peak(spans)).max();
        ArmPlan {
            name: (*name).to_owned(),
            context: most_frequent(jobs.iter().filter_map(|job| job.context.as_deref())),
            queue: most_frequent(jobs.iter().filter_map(|job| job.queue.as_deref())),
            mode: None,
            concurrent: in_flight.filter(|peak| *peak > 0),
            interrupted: Vec::new(),
        }
    };
    names.iter().map(plan).collect()
}

/// The most frequent value.
fn most_frequent<'a>(values: impl Iterator<Item = &'a str>) -> Option<String> {
    counts(values).into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value.to_owned())
}
