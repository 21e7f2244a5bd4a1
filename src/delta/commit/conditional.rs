//! Commits that depend on what is in the table: conditional appends, replacing the content of a small table, and replacing
//! rows by copy on write: the files that hold them are removed and written anew, all in one commit.

use arrow::array::{Array as _, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not, prep_null_mask_filter};
use delta_kernel::scan::state::ScanFile;
use std::collections::HashSet;

use super::attempt::{CommitAttempt, CommitKind, FileRows};
use super::{Proposal, commit};
use crate::delta::errors::from_arrow;
use crate::delta::scan::{CommitCheck, Scanner, SnapshotView, oldest_first};
use crate::delta::schema;
use crate::delta::state::{RowCache, select};
use crate::delta::table::Table;
use crate::delta::types::{ConditionalWrite, Predicate, Rewrite};
use crate::delta::writable::check_rows_replaceable;
use crate::error::{Error, Result};
use crate::runtime::environment;

/// Files are read this many at a time, small ones and large ones, so that a rewrite of a huge table does not hold all of it
/// in memory.
const SMALL_FILES: usize = 256;
const LARGE_FILES: usize = 16;

type Decide<'a> = &'a mut dyn FnMut(&RecordBatch) -> Result<Option<Rewrite>>;

impl Table {
    /// Appends what `decide` makes of the newest snapshot. If another commit comes first, nothing is written and `decide`
    /// is called again. `Ok(None)` from `decide` ends the call without a commit. `decide` must not write to this table.
    ///
    /// # Errors
    /// Those of `decide`, and as [`Table::append`].
    pub fn append_conditionally(
        &self,
        decide: &mut dyn FnMut(&SnapshotView<'_>) -> Result<Option<ConditionalWrite>>,
    ) -> Result<Option<u64>> {
        let table = &self.state;
        commit(table, &CommitKind::append(false), environment().instant(), None, &mut |attempt| {
            let Some(ConditionalWrite { batch, transactions }) = decide(&SnapshotView::new(table, attempt.snapshot))?
            else {
                return Ok(None);
            };
            Ok(Some(Proposal { rows: attempt.rows(&batch)?, transactions, ..Proposal::default() }))
        })
    }

    /// Replaces all rows by what `decide` makes of those of the newest version, in one commit. Meant for tables of a few
    /// rows. Otherwise as [`Table::append_conditionally`].
    ///
    /// # Errors
    /// As [`Table::append_conditionally`].
    pub fn replace(
        &self,
        decide: &mut dyn FnMut(&RecordBatch) -> Result<Option<ConditionalWrite>>,
    ) -> Result<Option<u64>> {
        let table = &self.state;
        commit(table, &CommitKind::write("Overwrite"), environment().instant(), None, &mut |attempt| {
            let scanner = Scanner::new(table, attempt.snapshot, &Predicate::default())?;
            let listing = scanner.files()?;
            let files = oldest_first(&listing.batches);
            let read = scanner.read_all(files.iter().map(|(.., file)| *file), Ok)?;
            let rows = schema::concat(&scanner.schema, &read)?;
            let Some(ConditionalWrite { batch, transactions }) = decide(&rows)? else { return Ok(None) };
            let removes = select(&listing.batches, files.iter().map(|(at, row, _)| (*at, *row)))?;
            Ok(Some(Proposal { rows: attempt.rows(&batch)?, removes, transactions, ..Proposal::default() }))
        })
    }

    /// Reads the files that may hold rows matching `predicate`, passes the live rows of one or more files (all of them,
    /// with the table's schema) to `decide` and replaces, in one commit, the files from which it removed rows. After a lost race
    /// that concerns these files, calls `restart` and decides again. Returns the number of rows removed. `check` is called before
    /// each attempt to commit. Neither may write to this table.
    ///
    /// # Errors
    /// Those of `decide` and `check`, and as [`Table::append`]; [`crate::ErrorKind::Unsupported`] for append-only tables and those
    /// with a change data feed or row tracking, where the kernel cannot replace rows.
    pub fn rewrite(
        &self,
        predicate: &Predicate,
        check: CommitCheck<'_>,
        decide: Decide<'_>,
        restart: &mut dyn FnMut(),
    ) -> Result<u64> {
        let table = &self.state;
        let cache = RowCache::of_large_files();
        let mut decided: Option<(u64, Decisions)> = None;
        let committed = commit(table, &CommitKind::update(predicate), environment().instant(), None, &mut |attempt| {
            let now = attempt.snapshot.version();
            // If the commits of others meanwhile have nothing to do with these files, the decisions stand, as if this
            // commit had come first. Otherwise writers of single rows would starve callers that acknowledge.
            if let Some((version, decisions)) = &mut decided
                && table.removed_since(*version, now)?.is_some_and(|removed| removed.is_disjoint(&decisions.files))
            {
                *version = now;
                return decisions.proposal(attempt, check).map(Some);
            }
            if attempt.number > 0 {
                restart();
            }
            check_rows_replaceable(table, attempt.snapshot)?;
            let (_, decisions) = decided.insert((now, Decisions::make(attempt, predicate, &cache, decide)?));
            let nothing = decisions.removes.is_empty() && decisions.added.is_empty();
            (!nothing).then(|| decisions.proposal(attempt, check)).transpose()
        });
        Ok(committed?.and(decided).map_or(0, |(_, decisions)| decisions.removed))
    }
}

/// What was decided about one snapshot.
#[derive(Default)]
struct Decisions {
    /// Scan metadata of the files to remove.
    removes: Vec<RecordBatch>,
    /// Paths of these files, as the log spells them.
    files: HashSet<String>,
    /// Rows written instead of removed ones.
    added: Vec<FileRows>,
    /// The other rows of each removed file.
    kept: Vec<FileRows>,
    /// How many rows are removed.
    removed: u64,
}

impl Decisions {
    fn make(attempt: &CommitAttempt<'_>, predicate: &Predicate, cache: &RowCache, decide: Decide<'_>) -> Result<Self> {
        let mut scanner = Scanner::new(attempt.table, attempt.snapshot, predicate)?;
        scanner.caches.push(cache);
        let mut decisions = Self::default();
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        let listing = scanner.files()?;
        let batches = listing.batches.iter().enumerate();
        let files = batches.flat_map(|(at, batch)| batch.files.iter().map(move |(row, file)| (at, *row, file)));
        let files: Vec<(usize, usize, &ScanFile)> = files.collect();
        let is_small = |(.., file): &(usize, usize, &ScanFile)| RowCache::is_small(file);
        for run in files.chunk_by(|one, next| is_small(one) == is_small(next)) {
            let all_small = run.first().is_some_and(is_small);
            for window in run.chunks(if all_small { SMALL_FILES } else { LARGE_FILES }) {
                let read = scanner.read_all(window.iter().map(|(.., file)| *file), Ok)?;
                // Large files are not copied into one batch.
                let size = if all_small { window.len() } else { 1 };
                for (files, read) in window.chunks(size).zip(read.chunks(size)) {
                    let rows = schema::concat(&scanner.schema, read)?;
                    let Some(Rewrite { remove, add }) =
                        (rows.num_rows() > 0).then(|| decide(&rows)).transpose()?.flatten()
                    else {
                        continue;
                    };
                    if remove.len() != rows.num_rows() {
                        let (given, decided) = (rows.num_rows(), remove.len());
                        let text = format!("{given} rows were handed in, but {decided} were decided about");
                        return Err(Error::invalid(text));
                    }
                    if add.num_rows() > 0 {
                        added.push(schema::align(&add, &scanner.schema)?);
                    }
                    let mut first = 0;
                    for ((at, row, file), rows) in files.iter().zip(read) {
                        if decisions.remove(file, rows, remove.slice(first, rows.num_rows()))? {
                            removed.push((*at, *row));
                        }
                        first += rows.num_rows();
                    }
                }
            }
        }
        decisions.removes = select(&listing.batches, removed)?;
        if !added.is_empty() {
            decisions.added.push(FileRows::new(schema::concat(&scanner.schema, &added)?));
        }
        Ok(decisions)
    }

    /// Removes some of `rows`, the rows of `file`. Returns whether the file is removed.
    fn remove(&mut self, file: &ScanFile, rows: &RecordBatch, remove: BooleanArray) -> Result<bool> {
        let remove = if remove.null_count() > 0 { prep_null_mask_filter(&remove) } else { remove };
        let count = remove.true_count();
        if count == 0 {
            return Ok(false);
        }
        self.removed += count as u64;
        if count < rows.num_rows() {
            let kept = not(&remove).and_then(|kept| filter_record_batch(rows, &kept));
            let rows = kept.map_err(|e| from_arrow("keeping the other rows of a file", e))?;
            self.kept.push(FileRows { rows, written_at: Some(file.modification_time) });
        }
        self.files.insert(file.path.clone());
        Ok(true)
    }

    fn proposal(&self, attempt: &CommitAttempt<'_>, check: CommitCheck<'_>) -> Result<Proposal> {
        let transactions = check(&SnapshotView::new(attempt.table, attempt.snapshot))?;
        let rows = self.added.iter().chain(&self.kept).cloned().collect();
        Ok(Proposal { rows, removes: self.removes.clone(), transactions, ..Proposal::default() })
    }
}
