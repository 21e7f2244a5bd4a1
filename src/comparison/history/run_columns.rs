//! Columns of the table beside those of jobs: the facts of the run and the plan of each arm, so that the analysis can be
//! repeated.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Field};

use crate::columns::{flag, integer, number, text};
use crate::comparison::analysis::{ArmPlan, JobRow, RunData, from_table};
use crate::comparison::arms::SubmissionMode;
use crate::error::{Error, ErrorKind, Result};

/// The columns. Each row has the values of its run, arm and round.
pub(super) fn fields() -> Vec<Field> {
    use DataType::{Boolean, Float64, Int64, Utf8};
    let columns = [
        ("host_price", Float64),
        ("resumed", Int64),
        ("broke_off", Utf8),
        ("orchestrator_problem", Utf8),
        ("arm_number", Int64),
        ("planned_context", Utf8),
        ("planned_queue", Utf8),
        ("mode", Utf8),
        ("concurrent", Int64),
        ("interrupted", Boolean),
        ("submitted_twice", Boolean),
    ];
    columns.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect()
}

/// The values of the columns for every job of `run`, in its order.
pub(super) fn columns(run: &RunData) -> Result<Vec<ArrayRef>> {
    let plan_of = |name: &str| run.arms.iter().enumerate().find(|(_, plan)| plan.name == name);
    let rows = run.job_rows.iter().map(|job| Some((plan_of(&job.arm)?, job)));
    let rows: Option<Vec<((usize, &ArmPlan), &JobRow)>> = rows.collect();
    let rows = rows.ok_or_else(|| Error::new(ErrorKind::Internal, "a job of the run has no arm"))?;
    Ok(vec![
        number(&rows, |_| run.host_price),
        integer(&rows, |_| Some(run.resumed.into())),
        text(&rows, |_| run.broke_off.as_deref()),
        text(&rows, |_| run.orchestrator_problem.as_deref()),
        integer(&rows, |((number, _), _)| Some(*number as i64)),
        text(&rows, |((_, plan), _)| plan.context.as_deref()),
        text(&rows, |((_, plan), _)| plan.queue.as_deref()),
        text(&rows, |((_, plan), _)| plan.mode.map(SubmissionMode::as_str)),
        integer(&rows, |((_, plan), _)| plan.concurrent.map(|count| count as i64)),
        flag(&rows, |((_, plan), job)| plan.interrupted.contains(&job.round)),
        flag(&rows, |(_, job)| run.is_submitted_twice(job)),
    ])
}

/// Reads the run that the rows belong to.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when they are not rows of this table.
pub(super) fn read_run(rows: &RecordBatch) -> Result<RunData> {
    for field in fields() {
        let (name, kind) = (field.name(), field.data_type());
        let found = rows.column_by_name(name).is_some_and(|column| column.data_type() == kind);
        found.then_some(()).ok_or_else(|| Error::invalid(format!("the rows have no column {name} of {kind}")))?;
    }
    let mut run = from_table::read_run(std::slice::from_ref(rows))?;
    let texts = |name: &str| from_table::texts(rows, name);
    let integers = |name: &str| from_table::integers(rows, name, 0);
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
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;
    use crate::comparison::analysis::analyse;
    use crate::comparison::table;

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
        let mut all = fields();
        all.extend(jobs.schema().fields().iter().map(|field| field.as_ref().clone()));
        let mut values = columns(&run).unwrap();
        values.extend(jobs.columns().iter().cloned());
        let again = read_run(&RecordBatch::try_new(Arc::new(Schema::new(all)), values).unwrap()).unwrap();
        assert_eq!((&again.arms, &again.job_rows), (&run.arms, &run.job_rows));
        assert_eq!(analyse(&again), analyse(&run));
        assert_eq!(analyse(&again).0.arms[0].rounds, 2);
    }
}
