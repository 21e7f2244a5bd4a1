//! Rows of small data files that this process has read before. Data files never change, and what is pending lies in files
//! of a row or a few: whoever looks for new rows again and again reads only what is new, and whoever acknowledges what was
//! just fetched need not read it a second time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use delta_kernel::scan::state::{DvInfo, ScanFile};

/// Larger files are read anew: for them the reading costs, and not the asking.
const SMALL_FILE: i64 = 64 << 10;

/// What is kept at most, in bytes of memory. Beyond it everything is forgotten, as what was read longest ago is most
/// likely acknowledged by now.
const KEPT: usize = 32 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct ReadFiles(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    schema: Option<SchemaRef>,
    files: HashMap<String, (DvInfo, RecordBatch)>,
    bytes: usize,
}

impl ReadFiles {
    /// The live rows of `file` in this `schema`, if they were read before with the same deletion vector.
    pub(super) fn get(&self, schema: &SchemaRef, file: &ScanFile) -> Option<RecordBatch> {
        let kept = self.lock();
        if file.size > SMALL_FILE || kept.schema.as_ref() != Some(schema) {
            return None;
        }
        kept.files.get(&file.path).filter(|(hidden, _)| *hidden == file.dv_info).map(|(_, rows)| rows.clone())
    }

    pub(super) fn put(&self, schema: &SchemaRef, file: &ScanFile, rows: &RecordBatch) {
        if file.size > SMALL_FILE {
            return;
        }
        // Copied to fit: what was read into has room for a whole batch.
        let every = UInt64Array::from_iter_values(0..rows.num_rows() as u64);
        let Ok(rows) = take_record_batch(rows, &every) else { return };
        let mut kept = self.lock();
        let bytes = rows.get_array_memory_size() + file.path.len();
        if kept.schema.as_ref() != Some(schema) || kept.bytes + bytes > KEPT {
            *kept = Kept { schema: Some(SchemaRef::clone(schema)), ..Kept::default() };
        }
        kept.bytes += bytes;
        if let Some((_, before)) = kept.files.insert(file.path.clone(), (file.dv_info.clone(), rows)) {
            kept.bytes = kept.bytes.saturating_sub(before.get_array_memory_size() + file.path.len());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
