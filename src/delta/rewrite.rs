//! Replacing rows: the files that hold them are removed and written anew (copy on write), all in one commit.

use std::collections::HashMap;

use arrow::array::{Array as _, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use delta_kernel::scan::state::{DvInfo, ScanFile};
use delta_kernel::transaction::UpdateTableOperation;

use super::commit::{self, Attempt, Kind, Plan, Queue};
use super::failure::from_arrow;
use super::scan::{Listing, Scanner, as_sql, no_such_row};
use super::schema;
use super::stage::Staged;
use super::table::{Inner, Predicate, Rewrite};
use crate::error::{Error, Result};

/// Files are read this many at a time, so that a rewrite of a huge table does not hold all of it.
const WINDOW: usize = 16;

/// Rows kept from one attempt to the next, in bytes: data files never change, so that a lost race needs to read only
/// what is new.
const CACHED_BYTES: usize = 256 << 20;

/// See [`super::Table::rewrite`].
pub(super) fn rewrite(
    table: &Inner,
    predicate: &Predicate,
    decide: &mut dyn FnMut(&RecordBatch) -> Result<Option<Rewrite>>,
    restart: &mut dyn FnMut(),
) -> Result<u64> {
    let kind = Kind {
        operation: UpdateTableOperation::Update,
        blind: false,
        parameters: vec![("predicate", as_sql(predicate))],
    };
    let mut cache = Cache::default();
    let mut staged: Option<Staged> = None;
    let mut removed = 0;
    let committed = commit::commit(table, &kind, Queue::AfterLosing, &mut |attempt| {
        if attempt.number > 0 {
            restart();
        }
        let mut decided = decide_all(table, attempt, predicate, &mut cache, decide)?;
        removed = decided.removed;
        if decided.listings.is_empty() && decided.written.is_empty() {
            return Ok(None);
        }
        let rows = schema::concat(&decided.schema, &decided.written)?;
        // The decisions are new, the bytes may be the same: then the files written for the lost attempt serve again.
        let files = Staged::reuse_or_write(&table.storage, attempt, staged.take(), rows)?;
        let adds = files.adds.clone();
        staged = Some(files);
        Ok(Some(Plan { adds, removes: std::mem::take(&mut decided.listings), transactions: Vec::new() }))
    });
    match committed {
        Ok(Some(_)) => Ok(removed),
        ended => {
            if let Some(orphans) = staged.filter(|_| super::table::nothing_written(&ended)) {
                orphans.discard(&table.storage);
            }
            ended.map(|_| 0)
        }
    }
}

/// What one attempt decided.
struct Decided {
    schema: SchemaRef,
    /// Scan metadata with the files to remove selected.
    listings: Vec<(RecordBatch, Vec<bool>)>,
    /// Rows to write: those kept from removed files, and those added.
    written: Vec<RecordBatch>,
    removed: u64,
}

fn decide_all(
    table: &Inner,
    attempt: &Attempt<'_>,
    predicate: &Predicate,
    cache: &mut Cache,
    decide: &mut dyn FnMut(&RecordBatch) -> Result<Option<Rewrite>>,
) -> Result<Decided> {
    let scanner = Scanner::new(table.storage.engine()?, attempt.snapshot, predicate)?;
    let mut decided =
        Decided { schema: scanner.schema().clone(), listings: Vec::new(), written: Vec::new(), removed: 0 };
    cache.use_for(scanner.schema());
    for Listing { metadata, rows } in scanner.files()? {
        let mut selected = vec![false; metadata.num_rows()];
        for window in rows.chunks(WINDOW) {
            let unread: Vec<&ScanFile> =
                window.iter().map(|(_, file)| file).filter(|file| cache.get(file).is_none()).collect();
            let mut read = scanner.read_all(unread, |_, rows| Ok(rows))?.into_iter();
            for (row, file) in window {
                let rows = match cache.get(file) {
                    Some(rows) => rows.clone(),
                    None => {
                        let rows = read.next().ok_or_else(no_such_row)?;
                        cache.put(file, &rows);
                        rows
                    }
                };
                if rows.num_rows() > 0 && decided.take(&rows, decide(&rows)?)? {
                    *selected.get_mut(*row).ok_or_else(no_such_row)? = true;
                }
            }
        }
        if selected.contains(&true) {
            decided.listings.push((metadata, selected));
        }
    }
    Ok(decided)
}

impl Decided {
    /// Takes in what was decided about `rows`, the rows of one file. Whether the file is to be removed.
    fn take(&mut self, rows: &RecordBatch, rewrite: Option<Rewrite>) -> Result<bool> {
        let Some(Rewrite { remove, add }) = rewrite else { return Ok(false) };
        if remove.len() != rows.num_rows() {
            return Err(Error::invalid(format!(
                "{} rows were handed in, but {} were decided about",
                rows.num_rows(),
                remove.len()
            )));
        }
        if add.num_rows() > 0 {
            self.written.push(schema::align(&add, &self.schema)?);
        }
        let remove: BooleanArray = if remove.null_count() > 0 { prep_null_mask_filter(&remove) } else { remove };
        let count = remove.true_count();
        if count == 0 {
            return Ok(false);
        }
        self.removed += count as u64;
        if count < rows.num_rows() {
            let kept = not(&remove).and_then(|kept| filter_record_batch(rows, &kept));
            self.written.push(kept.map_err(|e| from_arrow("keeping the other rows of a file", e))?);
        }
        Ok(true)
    }
}

/// Rows of files read in earlier attempts.
#[derive(Default)]
struct Cache {
    schema: Option<SchemaRef>,
    files: HashMap<String, (DvInfo, RecordBatch)>,
    bytes: usize,
}

impl Cache {
    /// Forgets everything if it was read with another schema.
    fn use_for(&mut self, schema: &SchemaRef) {
        if self.schema.as_ref() != Some(schema) {
            *self = Self { schema: Some(schema.clone()), ..Self::default() };
        }
    }

    fn get(&self, file: &ScanFile) -> Option<&RecordBatch> {
        self.files.get(&file.path).filter(|(hidden, _)| *hidden == file.dv_info).map(|(_, rows)| rows)
    }

    fn put(&mut self, file: &ScanFile, rows: &RecordBatch) {
        let bytes = rows.get_array_memory_size();
        if self.bytes + bytes <= CACHED_BYTES {
            self.bytes += bytes;
            self.files.insert(file.path.clone(), (file.dv_info.clone(), rows.clone()));
        }
    }
}
