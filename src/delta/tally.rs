//! How many rows a table has with each value of a column: of the files of a partition from the log alone, so that counting
//! costs by the number of files and not by that of the rows in them.

use std::collections::BTreeMap;

use arrow::array::{AsArray as _, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp;
use delta_kernel::SnapshotRef;
use delta_kernel::scan::state::ScanFile;

use super::failure::from_arrow;
use super::scan::{Scanner, oldest_first};
use super::schema;
use super::shared::Inner;
use super::table::Predicate;
use crate::error::{Error, Result};

/// See [`super::Table::tally`].
#[derive(Debug, Clone)]
pub struct Tally {
    /// How many rows have each value; NULL is None.
    pub counts: BTreeMap<Option<String>, u64>,
    /// The rows that have the value asked for, in the order in which they were written.
    pub rows: RecordBatch,
}

/// The tally of the newest snapshot.
pub(super) fn tally(table: &Inner, column: &str, wanted: &str) -> Result<Tally> {
    table.of_newest(&|snapshot| of_snapshot(table, snapshot, column, wanted))
}

fn of_snapshot(table: &Inner, snapshot: &SnapshotRef, column: &str, wanted: &str) -> Result<Tally> {
    let engine = table.storage.engine()?;
    let scanner = Scanner::new(engine, snapshot, &Predicate::default())?.knowing(&table.read_files);
    let listings = scanner.files()?;
    table.health.listed(&listings);
    let mut counts: BTreeMap<Option<String>, u64> = BTreeMap::new();
    let mut unread = Vec::new();
    for (.., file) in oldest_first(&listings) {
        match known(file, column).filter(|(value, _)| *value != wanted) {
            Some((value, rows)) => *counts.entry(Some(value.to_owned())).or_default() += rows,
            None => unread.push(file),
        }
    }
    let mut batches = Vec::with_capacity(unread.len());
    for (rows, found) in scanner.read_all(unread, |_, rows| count(&rows, column, wanted))? {
        for (value, count) in found {
            *counts.entry(value).or_default() += count;
        }
        batches.push(rows);
    }
    Ok(Tally { counts, rows: schema::concat(scanner.schema(), &batches)? })
}

/// The one value that all rows of `file` have, and how many rows these are, if the log says both. It does not where the
/// column is no partition column or the value is NULL, and a file's statistics still count rows that were deleted from it
/// with a deletion vector.
fn known<'a>(file: &'a ScanFile, column: &str) -> Option<(&'a str, u64)> {
    let value = file.partition_values.get(column).filter(|value| !value.is_empty())?;
    let stats = file.stats.as_ref().filter(|_| !file.dv_info.has_vector())?;
    Some((value, stats.num_records))
}

/// What was found in one file: the rows that have the value asked for, and how many have each value.
type Found = (RecordBatch, BTreeMap<Option<String>, u64>);

fn count(rows: &RecordBatch, column: &str, wanted: &str) -> Result<Found> {
    let values = schema::column(rows, column)?
        .as_string_opt::<i32>()
        .ok_or_else(|| Error::invalid(format!("the column '{column}' holds no text, so its values are not counted")))?;
    let mut counts: BTreeMap<Option<&str>, u64> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let counts = counts.into_iter().map(|(value, count)| (value.map(str::to_owned), count)).collect();
    let failed = |e| from_arrow("filtering rows", e);
    let matching = cmp::eq(values, &StringArray::new_scalar(wanted)).map_err(failed)?;
    Ok((filter_record_batch(rows, &matching).map_err(failed)?, counts))
}
