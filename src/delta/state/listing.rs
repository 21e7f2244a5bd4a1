//! The data files that the last scan of a table listed.

use std::collections::BTreeMap;

use arrow::array::{Array as _, AsArray as _, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use delta_kernel::scan::state::ScanFile;

use crate::delta::errors::from_arrow;
use crate::delta::types::Predicate;
use crate::error::{Error, ErrorKind, Result};

/// Files below this size, in bytes, are fragments, which compaction is for.
const FRAGMENT_SIZE: i64 = 4 << 20;

/// A listing with more files is not kept, because of the memory.
const MAX_FILES: usize = 10_000;

/// The columns of scan metadata that describe a file. The others hold the values of the predicate's columns.
const COLUMNS: [&str; 6] = ["path", "size", "modificationTime", "stats", "deletionVector", "fileConstantValues"];

/// The data files of one version that may hold rows matching a predicate.
pub(in crate::delta) struct Listing {
    pub(in crate::delta) version: u64,
    pub(in crate::delta) predicate: Predicate,
    pub(in crate::delta) batches: Vec<FileBatch>,
    /// The number of fragments. Those that the predicate skips count too: replaying the log takes as long for them.
    pub(in crate::delta) fragments: u64,
}

/// Data files from one batch of the log.
pub(in crate::delta) struct FileBatch {
    /// Scan metadata, which the kernel takes back to remove files.
    pub(in crate::delta) metadata: RecordBatch,
    /// The files that may hold matching rows, each with its row in `metadata`.
    pub(in crate::delta) files: Vec<(usize, ScanFile)>,
}

impl Listing {
    /// Whether the listing is small enough to be kept.
    pub(in crate::delta) fn may_be_kept(&self) -> bool {
        self.batches.iter().map(|batch| batch.files.len()).sum::<usize>() <= MAX_FILES
    }

    /// The scan metadata of all files in one batch, oldest first.
    pub(in crate::delta) fn metadata(&self) -> Result<Option<RecordBatch>, ArrowError> {
        let batches = self.batches.iter().rev().filter(|batch| !batch.files.is_empty());
        let batches = batches.map(|batch| described(&batch.of(batch.files.iter().map(|(row, _)| *row))?));
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        batches.first().map(|first| concat_batches(first.schema_ref(), &batches)).transpose()
    }
}

impl FileBatch {
    /// The number of fragments. Rows without a size belong to no file.
    pub(in crate::delta) fn fragments(&self) -> u64 {
        let sizes = self.metadata.column_by_name("size").and_then(|sizes| sizes.as_primitive_opt::<Int64Type>());
        let count =
            |sizes: &arrow::array::Int64Array| sizes.iter().flatten().filter(|size| *size < FRAGMENT_SIZE).count();
        sizes.map_or(self.files.len(), count) as u64
    }

    /// The metadata of the files in these rows.
    fn of(&self, rows: impl IntoIterator<Item = usize>) -> Result<RecordBatch, ArrowError> {
        let mut selected = vec![false; self.metadata.num_rows()];
        for row in rows {
            let absent = || ArrowError::InvalidArgumentError(format!("the scan metadata has no file {row}"));
            *selected.get_mut(row).ok_or_else(absent)? = true;
        }
        filter_record_batch(&self.metadata, &BooleanArray::from(selected))
    }
}

/// The columns of scan metadata that describe files.
fn described(metadata: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = COLUMNS.iter().map(|name| metadata.schema_ref().index_of(name));
    metadata.project(&columns.collect::<Result<Vec<_>, _>>()?)
}

/// The scan metadata of these files, each given by the index of its batch and its row there, to remove them.
///
/// The kernel converts each batch for itself, and statistics in columns back to JSON. A log entry of one row is one batch, so
/// that the batches are joined, and columns that repeat the statistics are left out.
pub(in crate::delta) fn select(
    batches: &[FileBatch],
    files: impl IntoIterator<Item = (usize, usize)>,
) -> Result<Vec<RecordBatch>> {
    let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, row) in files {
        rows.entry(at).or_default().push(row);
    }
    let failed = |e| from_arrow("selecting the files to remove", e);
    let mut selected = Vec::with_capacity(rows.len());
    for (at, rows) in rows {
        let metadata = batches.get(at).map(|batch| batch.of(rows)).transpose().map_err(failed)?;
        let metadata = metadata.ok_or_else(|| Error::new(ErrorKind::Internal, "a file to remove is not listed"))?;
        let has_statistics = metadata.column_by_name("stats").is_some_and(|stats| stats.null_count() == 0);
        selected.push(if has_statistics { described(&metadata).map_err(failed)? } else { metadata });
    }
    let alike = selected.chunk_by(|one, next| one.schema_ref() == next.schema_ref());
    alike.map(|alike| concat_batches(alike[0].schema_ref(), alike).map_err(failed)).collect()
}
