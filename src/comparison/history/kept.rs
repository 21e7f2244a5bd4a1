//! What the table keeps of a run beside its jobs, so that the same analysis can be made again: the run's own facts, and
//! what each arm was meant to be.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};

use crate::comparison::analysis::{ArmPlan, Run, recorded};
use crate::comparison::arms::Mode;
use crate::error::{Error, ErrorKind, Result};

/// The columns; each row has those of its run, its arm and its round.
pub(super) fn fields() -> Vec<Field> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let whole = |name: &str| Field::new(name, DataType::Int64, true);
    vec![
        Field::new("host_price", DataType::Float64, true),
        whole("resumed"),
        text("broke_off"),
        text("orchestrator_problem"),
        whole("arm_number"),
        text("planned_context"),
        text("planned_queue"),
        text("mode"),
        whole("concurrent"),
        Field::new("interrupted", DataType::Boolean, true),
        Field::new("submitted_twice", DataType::Boolean, true),
    ]
}

/// Their values for every job of `run`, in its order.
pub(super) fn columns(run: &Run) -> Result<Vec<ArrayRef>> {
    let rows = run.observations.len();
    let plan_of = |name: &str| run.arms.iter().position(|plan| plan.name == name);
    let plans: Vec<(usize, &ArmPlan)> = run
        .observations
        .iter()
        .map(|job| plan_of(&job.arm).and_then(|at| Some((at, run.arms.get(at)?))))
        .collect::<Option<_>>()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a job of the run has no arm"))?;
    let same = |value: &Option<String>| -> ArrayRef { Arc::new(StringArray::from(vec![value.as_deref(); rows])) };
    let text = |of: fn(&ArmPlan) -> Option<&str>| -> ArrayRef {
        Arc::new(plans.iter().map(|(_, plan)| of(plan)).collect::<StringArray>())
    };
    let concurrent = |plan: &ArmPlan| plan.concurrent.map(|count| count as i64);
    let interrupted = plans.iter().zip(&run.observations).map(|((_, plan), job)| plan.interrupted.contains(&job.round));
    let twice = run.observations.iter().map(|job| run.is_submitted_twice(job));
    Ok(vec![
        Arc::new(Float64Array::from(vec![run.host_price; rows])),
        Arc::new(Int64Array::from(vec![i64::from(run.resumed); rows])),
        same(&run.broke_off),
        same(&run.orchestrator_problem),
        Arc::new(Int64Array::from_iter_values(plans.iter().map(|(at, _)| *at as i64))),
        text(|plan| plan.context.as_deref()),
        text(|plan| plan.queue.as_deref()),
        text(|plan| plan.mode.map(Mode::as_str)),
        Arc::new(plans.iter().map(|(_, plan)| concurrent(plan)).collect::<Int64Array>()),
        Arc::new(interrupted.map(Some).collect::<BooleanArray>()),
        Arc::new(twice.map(Some).collect::<BooleanArray>()),
    ])
}

/// The run whose rows these are.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when they are no rows of this table.
pub(super) fn run(rows: &RecordBatch) -> Result<Run> {
    let mut run = recorded::read(std::slice::from_ref(rows))?;
    let column = |name: &str, kind: DataType| {
        let found = rows.column_by_name(name).filter(|column| *column.data_type() == kind);
        found.ok_or_else(|| Error::invalid(format!("the rows have no column {name} of {kind}")))
    };
    let texts = |name: &str| Ok::<_, Error>(column(name, DataType::Utf8)?.as_string::<i32>());
    let wholes = |name: &str| Ok::<_, Error>(column(name, DataType::Int64)?.as_primitive::<Int64Type>());
    let text = |of: &StringArray, row: usize| (!of.is_null(row)).then(|| of.value(row).to_owned());
    let whole = |of: &Int64Array, row: usize| (!of.is_null(row)).then(|| of.value(row));
    let price = column("host_price", DataType::Float64)?.as_primitive::<Float64Type>();
    run.host_price = (!price.is_null(0)).then(|| price.value(0));
    run.resumed = whole(wholes("resumed")?, 0).unwrap_or(0) as u32;
    run.broke_off = text(texts("broke_off")?, 0);
    run.orchestrator_problem = text(texts("orchestrator_problem")?, 0);
    let (names, numbers, concurrent) = (texts("arm")?, wholes("arm_number")?, wholes("concurrent")?);
    let (contexts, queues, modes) = (texts("planned_context")?, texts("planned_queue")?, texts("mode")?);
    let interrupted = column("interrupted", DataType::Boolean)?.as_boolean();
    let twice = column("submitted_twice", DataType::Boolean)?.as_boolean();
    let mut arms: Vec<(i64, ArmPlan)> = Vec::new();
    for (row, job) in run.observations.iter().enumerate() {
        let at = match arms.iter().position(|(_, plan)| plan.name == job.arm) {
            Some(at) => at,
            None => {
                let plan = ArmPlan {
                    name: names.value(row).to_owned(),
                    context: text(contexts, row),
                    queue: text(queues, row),
                    mode: text(modes, row).map(|mode| mode.parse()).transpose()?,
                    concurrent: whole(concurrent, row).map(|count| count as usize),
                    interrupted: Vec::new(),
                };
                arms.push((whole(numbers, row).unwrap_or(i64::MAX), plan));
                arms.len() - 1
            }
        };
        let plan = &mut arms[at].1;
        if interrupted.value(row) && !plan.interrupted.contains(&job.round) {
            plan.interrupted.push(job.round);
        }
        if twice.value(row) {
            run.submitted_twice.extend(job.unique_name.clone());
        }
    }
    arms.sort_by_key(|(number, _)| *number);
    run.arms = arms.into_iter().map(|(_, plan)| plan).collect();
    Ok(run)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;
    use crate::comparison::analysis::{Observation, analyse};
    use crate::comparison::table;

    #[test]
    fn a_run_that_was_kept_is_analysed_as_it_was() {
        let arms = [("one", Some(Mode::Sequential), Some("SAS Job Execution compute context")), ("two", None, None)];
        let plan = |(name, mode, context): (&str, Option<Mode>, Option<&str>)| ArmPlan {
            name: name.into(),
            context: context.map(str::to_owned),
            mode,
            concurrent: mode.map(|_| 1),
            // Its second round was done in two parts.
            interrupted: if name == "one" { vec![2] } else { Vec::new() },
            ..ArmPlan::default()
        };
        let mut run = Run {
            arms: arms.map(plan).into(),
            broke_off: Some("it was stopped".into()),
            orchestrator_problem: Some("403".into()),
            host_price: Some(2.5),
            resumed: 2,
            submitted_twice: [String::from("one2")].into(),
            ..Run::default()
        };
        for (arm, length) in [("two", 3.0), ("one", 5.0)] {
            for round in 1..=3 {
                run.observations.push(Observation {
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
                    ..Observation::default()
                });
            }
        }
        let jobs = table::jobs(&run).unwrap();
        let mut all = fields();
        all.extend(jobs.schema().fields().iter().map(|field| field.as_ref().clone()));
        let mut values = columns(&run).unwrap();
        values.extend(jobs.columns().iter().cloned());
        let again = super::run(&RecordBatch::try_new(Arc::new(Schema::new(all)), values).unwrap()).unwrap();
        assert_eq!((&again.arms, &again.observations), (&run.arms, &run.observations));
        assert_eq!(analyse(&again), analyse(&run));
        assert_eq!(analyse(&again).0.arms[0].rounds, 2);
    }
}
