//! The data files that the last scan of a table listed.

use arrow::array::{AsArray as _, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use delta_kernel::scan::state::ScanFile;

use crate::delta::types::Predicate;

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
        let batches = self.batches.iter().rev().filter(|batch| !batch.files.is_empty()).map(FileBatch::selected);
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

    /// The metadata of the files alone.
    fn selected(&self) -> Result<RecordBatch, ArrowError> {
        let columns = COLUMNS.iter().map(|name| self.metadata.schema_ref().index_of(name));
        let metadata = self.metadata.project(&columns.collect::<Result<Vec<_>, _>>()?)?;
        let mut selected = vec![false; metadata.num_rows()];
        for (row, _) in &self.files {
            if let Some(selected) = selected.get_mut(*row) {
                *selected = true;
            }
        }
        filter_record_batch(&metadata, &BooleanArray::from(selected))
    }
}
