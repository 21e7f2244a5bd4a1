//! NO -> YES: exactly the rows meant, in one commit.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;

use super::rows::{self, LedgerRow};
use super::tables::{FLAG, LedgerTable, NO, YES};
use crate::delta::{Predicate, Rewrite, Table};
use crate::error::{Error, ErrorKind, Result};

/// Says of one pending row whether it is to be acknowledged. It may count: it is made anew whenever a lost race makes the
/// table be read again.
type Matcher<'a> = Box<dyn FnMut(&LedgerRow) -> bool + 'a>;

/// Acknowledges the pending rows that a matcher picks. Rows logged meanwhile by others are looked at too, as every lost
/// race reads the table again.
fn flip<'a>(table: &Table, kind: LedgerTable, fresh: &dyn Fn() -> Matcher<'a>) -> Result<u64> {
    let matcher = RefCell::new(fresh());
    let pending = Predicate { equals: vec![(FLAG.to_owned(), NO.to_owned())], time: None };
    table.rewrite(&pending, &mut |file| decide(kind, file, &mut **matcher.borrow_mut()), &mut || {
        *matcher.borrow_mut() = fresh()
    })
}

fn decide(
    kind: LedgerTable,
    file: &RecordBatch,
    matches: &mut dyn FnMut(&LedgerRow) -> bool,
) -> Result<Option<Rewrite>> {
    let flags = rows::strings(file, FLAG)?;
    // Unpartitioned tables of others have acknowledged rows in the same file.
    let is_pending = |row: usize| flags.is_valid(row) && flags.value(row) == NO;
    let remove: BooleanArray = rows::from_batch(kind, &rows::as_utc(file.clone())?)?
        .iter()
        .enumerate()
        .map(|(number, row)| Some(is_pending(number) && matches(row)))
        .collect();
    if remove.true_count() == 0 {
        return Ok(None);
    }
    let broken = |e| Error::new(ErrorKind::Internal, "acknowledged rows could not be built").with_source(e);
    let taken = filter_record_batch(file, &remove).map_err(broken)?;
    let yes = Arc::new(StringArray::from(vec![YES; taken.num_rows()])) as ArrayRef;
    let schema = taken.schema();
    let columns = schema.fields().iter().zip(taken.columns());
    let columns = columns.map(|(field, column)| if field.name() == FLAG { &yes } else { column }.clone()).collect();
    let add = RecordBatch::try_new(taken.schema(), columns).map_err(broken)?;
    Ok(Some(Rewrite { remove, add }))
}

/// Sets exactly `rows` to YES, by count: of n identical pending rows, k given flips at most k.
pub(super) fn rows_exactly(table: &Table, kind: LedgerTable, rows: &[LedgerRow]) -> Result<u64> {
    let mut wanted: HashMap<&LedgerRow, usize> = HashMap::new();
    for row in rows {
        *wanted.entry(row).or_default() += 1;
    }
    flip(table, kind, &|| {
        let mut left = wanted.clone();
        Box::new(move |row| match left.get_mut(row) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        })
    })
}

/// Sets every pending row of this file and job to YES, as today's `UPDATE` does.
pub(super) fn file_and_job(table: &Table, kind: LedgerTable, file_name: &str, job_id: &str) -> Result<u64> {
    flip(table, kind, &|| {
        Box::new(move |row| row.file_name.as_deref() == Some(file_name) && row.job_id.as_deref() == Some(job_id))
    })
}

/// Sets the pending executions to YES that `delivered` notifications speak of: same file, job and status, and not later
/// than the notification. A NULL timestamp counts as earlier than any other.
pub(super) fn executions_of(table: &Table, delivered: &[LedgerRow]) -> Result<u64> {
    type Key<'a> = (&'a Option<String>, &'a Option<String>, &'a Option<String>);
    let mut latest: HashMap<Key<'_>, Option<i64>> = HashMap::new();
    for row in delivered {
        let at = latest.entry((&row.file_name, &row.job_id, &row.status)).or_default();
        *at = (*at).max(row.timestamp);
    }
    flip(table, LedgerTable::Executions, &|| {
        Box::new(|row| {
            latest.get(&(&row.file_name, &row.job_id, &row.status)).is_some_and(|notified| row.timestamp <= *notified)
        })
    })
}
