//! Runs of months beside each other: a Delta table with every job of every run, and what it says of each arm.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher as _;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, AsArray as _, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::analysis::{Kind, Run, analyse};
use super::result::ComparisonResult;
use super::table;
use crate::delta::{Guard, Predicate, Table, TableSpec, View};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

mod kept;

/// The table's directory below the root.
pub const TABLE: &str = "viya_comparison_jobs";
/// What is known of the run, before the columns of its jobs.
const RUN: [&str; 3] = ["run_id", "run_at", "base_url"];

static SPEC: LazyLock<TableSpec> = LazyLock::new(|| {
    let mut fields = vec![
        Field::new("run_id", DataType::Utf8, true),
        Field::new("run_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("base_url", DataType::Utf8, true),
    ];
    fields.extend(kept::fields());
    let empty = table::jobs(&Run::default());
    fields.extend(
        empty
            .iter()
            .flat_map(|batch| batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect::<Vec<_>>()),
    );
    TableSpec {
        name: TABLE,
        schema: Arc::new(Schema::new(fields)),
        partition_by: &[],
        log_retention: "interval 30 days",
    }
});

/// Appends the jobs of a run, once: a run that is there already adds nothing. Returns how many rows were added.
///
/// # Errors
/// [`ErrorKind::Storage`] and [`ErrorKind::Conflict`] as with every table; [`ErrorKind::Unsupported`] for a table that is
/// there and has other columns.
pub fn append(result: &ComparisonResult, root: &str, options: &HashMap<String, String>) -> Result<usize> {
    let storage = Storage::open(root, options)?;
    let opened = Table::open_or_create(&storage, &SPEC)?;
    opened.check_columns(&SPEC)?;
    let origin = result.origin.as_ref();
    let run_id = match origin {
        Some(origin) => origin.run_id.clone(),
        None => digest(&result.run)?,
    };
    let run_at = origin.map_or_else(Utc::now, |origin| origin.began);
    let jobs = result.jobs_batch()?;
    let rows = jobs.num_rows();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![run_id.as_str(); rows])),
        Arc::new(TimestampMicrosecondArray::from(vec![run_at.timestamp_micros(); rows]).with_timezone("UTC")),
        Arc::new(StringArray::from(vec![origin.map(|origin| origin.base_url.as_str()); rows])),
    ];
    columns.extend(kept::columns(&result.run)?);
    columns.extend(jobs.columns().iter().cloned());
    let batch = RecordBatch::try_new(SPEC.schema.clone(), columns)
        .map_err(|e| Error::new(ErrorKind::Internal, "the rows of the run do not fit together").with_source(e))?;
    // Of two who append the same run at once, one sees the other's mark.
    let mark = format!("viya_comparison:{run_id}");
    let done = opened.append_guarded(&mut |view: &View<'_>| {
        if view.transaction(&mark)?.is_some() {
            return Ok(None);
        }
        Ok(Some(Guard { batch: batch.clone(), transactions: vec![(mark.clone(), 1)] }))
    })?;
    Ok(if done.is_some() { rows } else { 0 })
}

/// A name for a run that has none: the same for the same jobs, in whatever order they came.
fn digest(run: &Run) -> Result<String> {
    let mut rows = run
        .observations
        .iter()
        .map(serde_json::to_string)
        .collect::<serde_json::Result<Vec<String>>>()
        .map_err(|e| Error::new(ErrorKind::Internal, "a job of the run is no JSON").with_source(e))?;
    rows.sort_unstable();
    let mut hasher = SipHasher13::new();
    rows.iter().for_each(|row| hasher.write(row.as_bytes()));
    Ok(format!("{:032x}", hasher.finish128().as_u128()))
}

/// One row per run and arm, oldest first: what was compared, how long it took, how long jobs waited, started and ran, and the
/// ratio to the arm that differs in the context alone, else to the run's first arm, with its interval.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such table; those of every table.
pub fn read(root: &str, options: &HashMap<String, String>, since: Option<DateTime<Utc>>) -> Result<RecordBatch> {
    let storage = Storage::open(root, options)?;
    let all = Table::open(&storage, TABLE)?.scan(&Predicate::default())?;
    let column = |name: &str| {
        let missing =
            || Error::new(ErrorKind::Unsupported, format!("the table {TABLE} below {root} has no column {name}"));
        all.column_by_name(name).cloned().ok_or_else(missing)
    };
    let (ids, moments) = (column("run_id")?, column("run_at")?);
    let (ids, moments) = (ids.as_string::<i32>(), moments.as_primitive::<TimestampMicrosecondType>());
    let mut runs: BTreeMap<(i64, &str), Vec<u64>> = BTreeMap::new();
    for row in 0..all.num_rows() {
        let at = moments.value(row);
        if since.is_none_or(|since| at >= since.timestamp_micros()) {
            runs.entry((at, ids.value(row))).or_default().push(row as u64);
        }
    }
    let mut rows = Vec::new();
    for ((at, id), places) in runs {
        let jobs = take_record_batch(&all, &UInt64Array::from(places))
            .map_err(|e| Error::new(ErrorKind::Internal, "the rows of a run cannot be read").with_source(e))?;
        let run = kept::run(&jobs)?;
        let (analysis, warnings) = analyse(&run);
        for (plan, arm) in run.arms.iter().zip(analysis.arms) {
            // What the context gave is what the months are compared for, where the arms can tell.
            let mut of_arm = analysis.comparisons.iter().filter(|gain| gain.treatment == arm.arm);
            let gain = of_arm.clone().find(|gain| gain.kind == Kind::Context).or_else(|| of_arm.next()).cloned();
            rows.push((at, id.to_owned(), plan.clone(), arm, gain, warnings.len()));
        }
    }
    let real =
        |of: &dyn Fn(usize) -> Option<f64>| -> ArrayRef { Arc::new((0..rows.len()).map(of).collect::<Float64Array>()) };
    let whole = |of: &dyn Fn(usize) -> usize| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..rows.len()).map(|row| of(row) as i64)))
    };
    let text = |of: &dyn Fn(usize) -> Option<String>| -> ArrayRef {
        Arc::new((0..rows.len()).map(of).collect::<StringArray>())
    };
    let ratio = |row: usize| rows[row].4.as_ref().and_then(|gain| gain.ratio);
    let columns: Vec<(&str, ArrayRef)> = vec![
        (RUN[0], text(&|row| Some(rows[row].1.clone()))),
        (
            RUN[1],
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0)).with_timezone("UTC")),
        ),
        ("arm", text(&|row| Some(rows[row].2.name.clone()))),
        ("context", text(&|row| rows[row].2.context.clone())),
        ("rounds", whole(&|row| rows[row].3.rounds)),
        ("jobs", whole(&|row| rows[row].3.jobs)),
        ("failed", whole(&|row| rows[row].3.failed)),
        ("hosts", whole(&|row| rows[row].3.hosts.len())),
        ("makespan_s", real(&|row| rows[row].3.makespan_s.map(|spread| spread.mean))),
        ("pending_p50_s", real(&|row| rows[row].3.pending_s.map(|spread| spread.p50))),
        ("pending_p95_s", real(&|row| rows[row].3.pending_s.map(|spread| spread.p95))),
        ("starting_p50_s", real(&|row| rows[row].3.starting_s.map(|spread| spread.p50))),
        ("running_p50_s", real(&|row| rows[row].3.running_s.map(|spread| spread.p50))),
        ("host_seconds_per_job", real(&|row| rows[row].3.host_seconds_per_job)),
        ("compared_with", text(&|row| rows[row].4.as_ref().map(|gain| gain.baseline.clone()))),
        ("differs_in", text(&|row| rows[row].4.as_ref().map(|gain| gain.kind.as_str().to_owned()))),
        ("ratio", real(&|row| ratio(row).map(|ratio| ratio.ratio))),
        ("ratio_low", real(&|row| ratio(row)?.low)),
        ("ratio_high", real(&|row| ratio(row)?.high)),
        ("warnings", whole(&|row| rows[row].5)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(|e| Error::new(ErrorKind::Internal, "the runs do not fit into a table").with_source(e))
}
