//! Predicates: for the kernel, which skips files by them, and on rows.

use arrow::array::{BooleanArray, RecordBatch, Scalar as ArrowScalar, StringArray, TimestampMicrosecondArray};
use arrow::compute::kernels::cmp;
use arrow::compute::{and, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use delta_kernel::expressions::{Expression, Predicate as KernelPredicate, Scalar};

use crate::delta::errors::from_arrow;
use crate::delta::schema;
use crate::delta::types::Predicate;
use crate::error::{Error, Result};

/// The rows that match.
pub(super) fn filter(rows: &RecordBatch, predicate: &Predicate) -> Result<RecordBatch> {
    let failed = |e| from_arrow("filtering rows", e);
    let mut conditions: Vec<BooleanArray> = Vec::new();
    for (name, text) in &predicate.equals {
        let wanted = StringArray::new_scalar(text);
        conditions.push(cmp::eq(schema::column(rows, name)?, &wanted).map_err(failed)?);
    }
    if let Some((name, since, until)) = &predicate.time {
        let column = schema::column(rows, name)?;
        let zone = match column.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let bound =
            |at: &i64| ArrowScalar::new(TimestampMicrosecondArray::from(vec![*at]).with_timezone_opt(zone.clone()));
        let since = since.iter().map(|since| cmp::gt_eq(column, &bound(since)));
        let until = until.iter().map(|until| cmp::lt(column, &bound(until)));
        for condition in since.chain(until) {
            conditions.push(condition.map_err(failed)?);
        }
    }
    let Some((first, others)) = conditions.split_first() else { return Ok(rows.clone()) };
    let all = others.iter().try_fold(first.clone(), |all, condition| and(&all, condition)).map_err(failed)?;
    filter_record_batch(rows, &all).map_err(failed)
}

/// Converts `predicate` for the kernel, which skips files by it. Checks that the columns exist and have the right type.
pub(super) fn to_kernel(predicate: &Predicate, schema: &SchemaRef) -> Result<Option<KernelPredicate>> {
    let mut parts = Vec::new();
    let field = |name: &str| {
        schema
            .field_with_name(name)
            .map_err(|e| Error::invalid(format!("the table has no column '{name}' to filter by")).with_source(e))
    };
    for (name, text) in &predicate.equals {
        if *field(name)?.data_type() != DataType::Utf8 {
            return Err(Error::invalid(format!("the column '{name}' holds no text, so it cannot equal '{text}'")));
        }
        parts.push(Expression::column([name.as_str()]).eq(Expression::literal(text.as_str())));
    }
    if let Some((name, since, until)) = &predicate.time {
        let scalar = match field(name)?.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Scalar::Timestamp,
            DataType::Timestamp(TimeUnit::Microsecond, None) => Scalar::TimestampNtz,
            other => {
                return Err(Error::invalid(format!("the column '{name}' is {other} and holds no times to filter by")));
            }
        };
        let column = || Expression::column([name.as_str()]);
        parts.extend(since.map(|at| column().ge(Expression::literal(scalar(at)))));
        parts.extend(until.map(|at| column().lt(Expression::literal(scalar(at)))));
    }
    Ok((!parts.is_empty()).then(|| KernelPredicate::and_from(parts)))
}
