//! The Delta table with the jobs of every run, and the figures of each run and arm from it, so that months can be compared.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher as _;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray as _, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::analysis::{ArmComparison, ArmFigures, ArmPlan, Difference, RunData, analyse};
use super::result::ComparisonResult;
use super::statistics::SummaryStats;
use super::table;
use crate::columns::{self, count, number, text, time};
use crate::delta::{ConditionalWrite, Predicate, SnapshotView, Table, TableSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

mod run_columns;

/// The directory of the table below the root.
pub const TABLE: &str = "viya_comparison_jobs";

static SPEC: LazyLock<TableSpec> = LazyLock::new(|| {
    let mut fields = vec![
        Field::new("run_id", DataType::Utf8, true),
        Field::new("run_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("base_url", DataType::Utf8, true),
    ];
    fields.extend(run_columns::fields());
    let empty = table::jobs(&RunData::default());
    fields.extend(empty.iter().flat_map(|jobs| jobs.schema().fields().to_vec()).map(|field| field.as_ref().clone()));
    TableSpec {
        name: TABLE,
        schema: Arc::new(Schema::new(fields)),
        partition_by: &[],
        log_retention: "interval 30 days",
    }
});

/// Appends the jobs of a run once: if the table has the run already, nothing is added. Returns the number of added rows.
///
/// # Errors
/// [`ErrorKind::Storage`] and [`ErrorKind::Conflict`], as for every table; [`ErrorKind::Unsupported`] for an existing table
/// with other columns.
pub fn append(result: &ComparisonResult, root: &str, options: &HashMap<String, String>) -> Result<usize> {
    let storage = Storage::open(root, options)?;
    let opened = Table::open_or_create(&storage, &SPEC)?;
    opened.check_columns(&SPEC)?;
    let identity = result.identity.as_ref();
    let run_id = match identity {
        Some(identity) => identity.run_id.clone(),
        None => digest(&result.run)?,
    };
    let run_at = identity.map_or_else(Utc::now, |identity| identity.began);
    let jobs = table::jobs(&result.run)?;
    let rows = jobs.num_rows();
    let mut columns = vec![
        text(&result.run.job_rows, |_| Some(&run_id)),
        time(&result.run.job_rows, |_| Some(run_at.timestamp_micros())),
        text(&result.run.job_rows, |_| Some(&identity?.base_url)),
    ];
    columns.extend(run_columns::columns(&result.run)?);
    columns.extend(jobs.columns().iter().cloned());
    let batch = RecordBatch::try_new(SPEC.schema.clone(), columns)
        .map_err(|e| Error::new(ErrorKind::Internal, "the rows of the run do not fit together").with_source(e))?;
    // If two processes append the same run, the transaction of one is visible to the other.
    let transaction = format!("viya_comparison:{run_id}");
    let done = opened.append_conditionally(&mut |view: &SnapshotView<'_>| {
        if view.transaction(&transaction)?.is_some() {
            return Ok(None);
        }
        Ok(Some(ConditionalWrite { batch: batch.clone(), transactions: vec![(transaction.clone(), 1)] }))
    })?;
    Ok(if done.is_some() { rows } else { 0 })
}

/// The id of a run that was recorded elsewhere: the same for the same jobs in any order.
fn digest(run: &RunData) -> Result<String> {
    let rows = run.job_rows.iter().map(serde_json::to_string).collect::<serde_json::Result<Vec<String>>>();
    let mut rows =
        rows.map_err(|e| Error::new(ErrorKind::Internal, "a job of the run cannot be written as JSON").with_source(e))?;
    rows.sort_unstable();
    let mut hasher = SipHasher13::new();
    rows.iter().for_each(|row| hasher.write(row.as_bytes()));
    Ok(format!("{:032x}", hasher.finish128().as_u128()))
}

/// One arm of one run.
struct HistoryRow {
    run_at: i64,
    run_id: String,
    plan: ArmPlan,
    arm: ArmFigures,
    comparison: Option<ArmComparison>,
    warnings: usize,
}

/// One row per run and arm, oldest first: what was compared, how long it took, how long jobs waited, started and ran. The
/// ratio is that to the arm that differs only in the context, or to the first arm of the run, with its interval.
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
    let (ids, times) = (column("run_id")?, column("run_at")?);
    let (ids, times) = (ids.as_string::<i32>(), times.as_primitive::<TimestampMicrosecondType>());
    let mut runs: BTreeMap<(i64, &str), Vec<u64>> = BTreeMap::new();
    for row in 0..all.num_rows() {
        let at = times.value(row);
        if since.is_none_or(|since| at >= since.timestamp_micros()) {
            runs.entry((at, ids.value(row))).or_default().push(row as u64);
        }
    }
    let mut rows = Vec::new();
    for ((run_at, id), indices) in runs {
        let jobs = take_record_batch(&all, &UInt64Array::from(indices))
            .map_err(|e| Error::new(ErrorKind::Internal, "the rows of a run cannot be read").with_source(e))?;
        let run = run_columns::read_run(&jobs)?;
        let (analysis, warnings) = analyse(&run);
        for (plan, arm) in run.arms.into_iter().zip(analysis.arms) {
            // The effect of the context is of most interest, if the arms can separate it.
            let of_arm = || analysis.comparisons.iter().filter(|comparison| comparison.treatment == arm.arm);
            let context = of_arm().find(|comparison| comparison.kind == Difference::Context);
            let comparison = context.or_else(|| of_arm().next()).cloned();
            rows.push(HistoryRow { run_at, run_id: id.to_owned(), plan, arm, comparison, warnings: warnings.len() });
        }
    }
    let rows = &rows[..];
    let median = |of: fn(&ArmFigures) -> Option<SummaryStats>| number(rows, |row| Some(of(&row.arm)?.p50));
    columns::table([
        ("run_id", text(rows, |row| Some(&row.run_id))),
        ("run_at", time(rows, |row| Some(row.run_at))),
        ("arm", text(rows, |row| Some(&row.plan.name))),
        ("context", text(rows, |row| row.plan.context.as_deref())),
        ("rounds", count(rows, |row| row.arm.rounds)),
        ("jobs", count(rows, |row| row.arm.jobs)),
        ("failed", count(rows, |row| row.arm.failed)),
        ("hosts", count(rows, |row| row.arm.hosts.len())),
        ("makespan_s", number(rows, |row| Some(row.arm.makespan_s?.mean))),
        ("pending_p50_s", median(|arm| arm.pending_s)),
        ("pending_p95_s", number(rows, |row| Some(row.arm.pending_s?.p95))),
        ("starting_p50_s", median(|arm| arm.starting_s)),
        ("running_p50_s", median(|arm| arm.running_s)),
        ("host_seconds_per_job", number(rows, |row| row.arm.host_seconds_per_job)),
        ("compared_with", text(rows, |row| Some(&row.comparison.as_ref()?.baseline))),
        ("differs_in", text(rows, |row| Some(row.comparison.as_ref()?.kind.as_str()))),
        ("ratio", number(rows, |row| Some(row.comparison.as_ref()?.ratio?.ratio))),
        ("ratio_low", number(rows, |row| row.comparison.as_ref()?.ratio?.low)),
        ("ratio_high", number(rows, |row| row.comparison.as_ref()?.ratio?.high)),
        ("warnings", count(rows, |row| row.warnings)),
    ])
}
