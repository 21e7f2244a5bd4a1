//! The Delta table with the jobs of every run, and the figures of each run and arm from it, so that months can be compared.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray as _, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::analysis::{ArmComparison, ArmFigures, ArmPlan, Difference, JobRow, RunData, analyse, from_table};
use super::arms::SubmissionMode;
use super::result::ComparisonResult;
use super::statistics::SummaryStats;
use super::table;
use crate::columns::{self, count, flag, integer, number, text, time};
use crate::delta::{ConditionalWrite, Predicate, SnapshotView, Table, TableSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Storage, StorageOptions};

/// The directory of the table below the root.
pub const TABLE: &str = "viya_comparison_jobs";

static SPEC: LazyLock<TableSpec> = LazyLock::new(|| {
    let mut fields = vec![
        Field::new("run_id", DataType::Utf8, true),
        Field::new("run_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("base_url", DataType::Utf8, true),
    ];
    let empty = RunData::default();
    for part in [plans(&empty), table::jobs(&empty)] {
        fields.extend(part.iter().flat_map(|part| part.schema().fields().to_vec()).map(|field| field.as_ref().clone()));
    }
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
pub fn append(result: &ComparisonResult, root: &str, options: impl Into<StorageOptions>) -> Result<usize> {
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
    columns.extend(plans(&result.run)?.columns().iter().cloned());
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
pub fn read(root: &str, options: impl Into<StorageOptions>, since: Option<DateTime<Utc>>) -> Result<RecordBatch> {
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
        let run = read_run(&jobs)?;
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
        ("differs_in", text(rows, |row| Some(<&str>::from(row.comparison.as_ref()?.kind)))),
        ("ratio", number(rows, |row| Some(row.comparison.as_ref()?.ratio?.ratio))),
        ("ratio_low", number(rows, |row| row.comparison.as_ref()?.ratio?.low)),
        ("ratio_high", number(rows, |row| row.comparison.as_ref()?.ratio?.high)),
        ("warnings", count(rows, |row| row.warnings)),
    ])
}

/// Columns of the table beside those of jobs: the facts of the run and the plan of each arm, so that the analysis can be
/// repeated. Each job of `run`, in their order, has the values of its run, arm and round.
fn plans(run: &RunData) -> Result<RecordBatch> {
    let plan_of = |name: &str| run.arms.iter().enumerate().find(|(_, plan)| plan.name == name);
    let rows = run.job_rows.iter().map(|job| Some((plan_of(&job.arm)?, job)));
    let rows: Option<Vec<((usize, &ArmPlan), &JobRow)>> = rows.collect();
    let rows = &rows.ok_or_else(|| Error::new(ErrorKind::Internal, "a job of the run has no arm"))?[..];
    columns::table([
        ("host_price", number(rows, |_| run.host_price)),
        ("resumed", integer(rows, |_| Some(run.resumed.into()))),
        ("broke_off", text(rows, |_| run.broke_off.as_deref())),
        ("orchestrator_problem", text(rows, |_| run.orchestrator_problem.as_deref())),
        ("arm_number", integer(rows, |((number, _), _)| Some(*number as i64))),
        ("planned_context", text(rows, |((_, plan), _)| plan.context.as_deref())),
        ("planned_queue", text(rows, |((_, plan), _)| plan.queue.as_deref())),
        ("mode", text(rows, |((_, plan), _)| plan.mode.map(<&str>::from))),
        ("concurrent", integer(rows, |((_, plan), _)| plan.concurrent.map(|count| count as i64))),
        ("interrupted", flag(rows, |((_, plan), job)| plan.interrupted.contains(&job.round))),
        ("submitted_twice", flag(rows, |(_, job)| run.is_submitted_twice(job))),
    ])
}

/// Reads the run that the rows belong to.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when they are not rows of this table.
fn read_run(rows: &RecordBatch) -> Result<RunData> {
    for field in plans(&RunData::default())?.schema().fields() {
        let (name, kind) = (field.name(), field.data_type());
        let found = rows.column_by_name(name).is_some_and(|column| column.data_type() == kind);
        found.then_some(()).ok_or_else(|| Error::invalid(format!("the rows have no column {name} of {kind}")))?;
    }
    let mut run = from_table::read_run(rows)?;
    let texts = |name: &str| from_table::texts(rows, name);
    let integers = |name: &str| from_table::integers(rows, name);
    let flags = |name: &str| rows.column_by_name(name).and_then(|column| column.as_boolean_opt());
    run.host_price = from_table::numbers(rows, "host_price")?[0];
    run.resumed = integers("resumed")?[0].unwrap_or(0) as u32;
    run.broke_off = texts("broke_off")?.swap_remove(0);
    run.orchestrator_problem = texts("orchestrator_problem")?.swap_remove(0);
    let (numbers, concurrent) = (integers("arm_number")?, integers("concurrent")?);
    let (contexts, queues) = (texts("planned_context")?, texts("planned_queue")?);
    let mode = |mode: Option<String>| mode.map(|mode| mode.parse()).transpose();
    let modes = texts("mode")?.into_iter().map(mode).collect::<Result<Vec<Option<SubmissionMode>>>>()?;
    let (interrupted, twice) = (flags("interrupted"), flags("submitted_twice"));
    let mut arms: BTreeMap<(i64, &str), ArmPlan> = BTreeMap::new();
    for (row, job) in run.job_rows.iter().enumerate() {
        let plan = arms.entry((numbers[row].unwrap_or(i64::MAX), &job.arm)).or_insert_with(|| ArmPlan {
            name: job.arm.clone(),
            context: contexts[row].clone(),
            queue: queues[row].clone(),
            mode: modes[row],
            concurrent: concurrent[row].map(|count| count as usize),
            interrupted: Vec::new(),
        });
        if interrupted.is_some_and(|flags| flags.value(row)) && !plan.interrupted.contains(&job.round) {
            plan.interrupted.push(job.round);
        }
        if twice.is_some_and(|flags| flags.value(row)) {
            run.submitted_twice.extend(job.unique_name.clone());
        }
    }
    run.arms = arms.into_values().collect();
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_run_has_the_same_analysis() {
        let arms =
            [("one", Some(SubmissionMode::Sequential), Some("SAS Job Execution compute context")), ("two", None, None)];
        let plan = |(name, mode, context): (&str, Option<SubmissionMode>, Option<&str>)| ArmPlan {
            name: name.into(),
            context: context.map(str::to_owned),
            mode,
            concurrent: mode.map(|_| 1),
            // Its second round was interrupted.
            interrupted: if name == "one" { vec![2] } else { Vec::new() },
            ..ArmPlan::default()
        };
        let mut run = RunData {
            arms: arms.map(plan).into(),
            broke_off: Some("it was stopped".into()),
            orchestrator_problem: Some("403".into()),
            host_price: Some(2.5),
            resumed: 2,
            submitted_twice: [String::from("one2")].into(),
            ..RunData::default()
        };
        for (arm, length) in [("two", 3.0), ("one", 5.0)] {
            for round in 1..=3 {
                run.job_rows.push(JobRow {
                    arm: arm.into(),
                    sequence: 1,
                    job: "job".into(),
                    state: "completed".into(),
                    context: Some("elsewhere".into()),
                    jes_created_s: Some(round as f64 * 10.0),
                    jes_end_s: Some(round as f64 * 10.0 + length),
                    jes_elapsed_ms: Some((length * 1e3) as i64),
                    round,
                    unique_name: Some(format!("{arm}{round}")),
                    ..JobRow::default()
                });
            }
        }
        let jobs = table::jobs(&run).unwrap();
        let plans = plans(&run).unwrap();
        let all = Schema::try_merge([plans.schema().as_ref().clone(), jobs.schema().as_ref().clone()]).unwrap();
        let values = [plans.columns(), jobs.columns()].concat();
        let again = read_run(&RecordBatch::try_new(Arc::new(all), values).unwrap()).unwrap();
        assert_eq!((&again.arms, &again.job_rows), (&run.arms, &run.job_rows));
        assert_eq!(analyse(&again), analyse(&run));
        assert_eq!(analyse(&again).0.arms[0].rounds, 2);
    }
}
