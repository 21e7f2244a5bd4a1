//! A cache of rows by data file. Data files never change, so cached rows stay valid.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Mutex;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use delta_kernel::scan::state::{DvInfo, ScanFile};

use crate::runtime::lock;

/// Files up to this size, in bytes, are small: the number of requests determines how long they take to read, not the size.
const MAX_CACHED_FILE: i64 = 64 << 10;

/// Rows of data files of one size class.
pub(in crate::delta) struct RowCache {
    /// File sizes that the cache accepts, in bytes.
    sizes: RangeInclusive<i64>,
    /// Limit on the rows' memory, in bytes.
    capacity: usize,
    /// A full cache forgets everything and starts again. Otherwise it takes nothing more.
    restarts: bool,
    content: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    schema: Option<SchemaRef>,
    files: HashMap<String, (DvInfo, RecordBatch)>,
    bytes: usize,
}

impl RowCache {
    /// Rows of small files, for as long as a table is open. Pending rows are in files of a few rows: a caller that reads
    /// them again and again only reads new files, and a caller that acknowledges what it has just fetched reads none. A
    /// full cache starts again, because the oldest rows are probably acknowledged.
    pub(in crate::delta) fn of_small_files() -> Self {
        Self { sizes: 0..=MAX_CACHED_FILE, capacity: 32 << 20, restarts: true, content: Mutex::default() }
    }

    /// Rows of large files, for the attempts of one rewrite: after a lost race only new files have to be read.
    pub(in crate::delta) fn of_large_files() -> Self {
        Self { sizes: MAX_CACHED_FILE + 1..=i64::MAX, capacity: 256 << 20, restarts: false, content: Mutex::default() }
    }

    /// Whether `file` is small.
    pub(in crate::delta) fn is_small(file: &ScanFile) -> bool {
        file.size <= MAX_CACHED_FILE
    }

    /// The live rows of `file` in this `schema`, if they are cached with the same deletion vector.
    pub(in crate::delta) fn get(&self, schema: &SchemaRef, file: &ScanFile) -> Option<RecordBatch> {
        let content = lock(&self.content);
        if content.schema.as_ref() != Some(schema) {
            return None;
        }
        content.files.get(&file.path).filter(|(vector, _)| *vector == file.dv_info).map(|(_, rows)| rows.clone())
    }

    /// Caches the live rows of `file`, if the cache accepts files of this size.
    pub(in crate::delta) fn put(&self, schema: &SchemaRef, file: &ScanFile, rows: &RecordBatch) {
        if !self.sizes.contains(&file.size) {
            return;
        }
        let rows = match self.restarts {
            // Copied, because the buffers that a file is read into have room for a whole batch.
            true => {
                let all = UInt64Array::from_iter_values(0..rows.num_rows() as u64);
                let Ok(rows) = take_record_batch(rows, &all) else { return };
                rows
            }
            false => rows.clone(),
        };
        let bytes = rows.get_array_memory_size() + file.path.len();
        let mut content = lock(&self.content);
        let full = content.bytes + bytes > self.capacity;
        if content.schema.as_ref() != Some(schema) || full && self.restarts {
            *content = Content { schema: Some(SchemaRef::clone(schema)), ..Content::default() };
        } else if full {
            return;
        }
        content.bytes += bytes;
        if let Some((_, before)) = content.files.insert(file.path.clone(), (file.dv_info.clone(), rows)) {
            content.bytes = content.bytes.saturating_sub(before.get_array_memory_size() + file.path.len());
        }
    }
}
