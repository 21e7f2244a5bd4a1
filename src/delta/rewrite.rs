//! Replacing rows: the files that hold them are removed and written anew (copy on write), all in one commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array as _, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use delta_kernel::scan::state::{DvInfo, ScanFile};
use delta_kernel::transaction::UpdateTableOperation;

use super::commit::{self, Attempt, Kind, Plan, Queue};
use super::failure::from_arrow;
use super::log_entry;
use super::scan::{Listing, Scanner, as_sql, no_such_row};
use super::schema;
use super::shared::Inner;
use super::stage::{Part, Staged};
use super::table::{Predicate, Rewrite};
use crate::error::{Error, Result};

/// Files are read this many at a time, so that a rewrite of a huge table does not hold all of it.
const WINDOW: usize = 16;

/// Rows kept from one attempt to the next, in bytes: data files never change, so that a lost race needs to read only
/// what is new.
const CACHED_BYTES: usize = 256 << 20;

/// What has been decided, on which version.
struct Planned {
    version: u64,
    /// Paths of the files to remove, as the log spells them.
    files: HashSet<String>,
    removes: Vec<(RecordBatch, Vec<bool>)>,
}

/// See [`super::Table::rewrite`].
pub(super) fn rewrite(
    table: &Arc<Inner>,
    predicate: &Predicate,
    decide: &mut dyn FnMut(&RecordBatch) -> Result<Option<Rewrite>>,
    restart: &mut dyn FnMut(),
) -> Result<u64> {
    let kind = Kind {
        operation: UpdateTableOperation::Update,
        blind: false,
        data_change: true,
        parameters: vec![("predicate", as_sql(predicate))],
    };
    let mut cache = Cache::default();
    let mut staged: Option<Staged> = None;
    let mut planned: Option<Planned> = None;
    let mut removed = 0;
    let committed = commit::commit(table, &kind, Queue::AfterLosing, Instant::now(), &mut |attempt| {
        // What others committed meanwhile may have nothing to do with the files in question: then the decisions stand, as
        // if this commit had come first. Otherwise writers of single rows would starve everyone who acknowledges.
        if let (Some(plan), Some(files)) = (&mut planned, &staged) {
            let now = attempt.snapshot.version();
            if !files.stale() && log_entry::untouched(table, plan.version, now, &plan.files)? {
                plan.version = now;
                let (adds, removes) = (files.adds.clone(), plan.removes.clone());
                return Ok(Some(Plan { adds, removes, transactions: Vec::new() }));
            }
        }
        if attempt.number > 0 {
            restart();
        }
        let decided = decide_all(table, attempt, predicate, &mut cache, decide)?;
        removed = decided.removed;
        if decided.listings.is_empty() && decided.parts.is_empty() && decided.added.is_empty() {
            return Ok(None);
        }
        let mut parts = vec![Part::new(schema::concat(&decided.schema, &decided.added)?)];
        parts.extend(decided.parts);
        // The decisions are new, the bytes may be the same: then the files written for the lost attempt serve again.
        let files = Staged::reuse_or_write(&table.storage, attempt, staged.take(), parts)?;
        let adds = files.adds.clone();
        staged = Some(files);
        let removes = decided.listings;
        let version = attempt.snapshot.version();
        planned = Some(Planned { version, files: decided.files, removes: removes.clone() });
        Ok(Some(Plan { adds, removes, transactions: Vec::new() }))
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
    /// Paths of these files.
    files: HashSet<String>,
    /// Rows that stay as they are, of one removed file each.
    parts: Vec<Part>,
    /// Rows written instead of removed ones.
    added: Vec<RecordBatch>,
    removed: u64,
}

fn decide_all(
    table: &Inner,
    attempt: &Attempt<'_>,
    predicate: &Predicate,
    cache: &mut Cache,
    decide: &mut dyn FnMut(&RecordBatch) -> Result<Option<Rewrite>>,
) -> Result<Decided> {
    let scanner = Scanner::new(table.storage.engine()?, attempt.snapshot, predicate)?.knowing(&table.read_files);
    let mut decided = Decided {
        schema: scanner.schema().clone(),
        listings: Vec::new(),
        files: HashSet::new(),
        parts: Vec::new(),
        added: Vec::new(),
        removed: 0,
    };
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
                if rows.num_rows() > 0 && decided.take(file, &rows, decide(&rows)?)? {
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
    fn take(&mut self, file: &ScanFile, rows: &RecordBatch, rewrite: Option<Rewrite>) -> Result<bool> {
        let Some(Rewrite { remove, add }) = rewrite else { return Ok(false) };
        if remove.len() != rows.num_rows() {
            return Err(Error::invalid(format!(
                "{} rows were handed in, but {} were decided about",
                rows.num_rows(),
                remove.len()
            )));
        }
        if add.num_rows() > 0 {
            self.added.push(schema::align(&add, &self.schema)?);
        }
        let remove: BooleanArray = if remove.null_count() > 0 { prep_null_mask_filter(&remove) } else { remove };
        let count = remove.true_count();
        if count == 0 {
            return Ok(false);
        }
        self.removed += count as u64;
        if count < rows.num_rows() {
            let kept = not(&remove).and_then(|kept| filter_record_batch(rows, &kept));
            let rows = kept.map_err(|e| from_arrow("keeping the other rows of a file", e))?;
            self.parts.push(Part { rows, written_at: Some(file.modification_time) });
        }
        self.files.insert(file.path.clone());
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
