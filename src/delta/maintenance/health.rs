//! Whether maintenance is overdue: told from what a scan has just listed anyway.

use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;

use crate::delta::scan::Listing;

/// A file below this size, in bytes, costs a reader its latency and not its bandwidth.
const SMALL: i64 = 4 << 20;

/// With so many small files in a table, reading its log and them takes many times longer than it did on the first day.
const OVERDUE: u64 = 1000;

/// How fragmented the table is.
#[derive(Debug, Default)]
pub(in crate::delta) struct Health {
    small_files: AtomicU64,
}

impl Health {
    /// Takes note of what a scan listed. The files that it could skip are counted too, as replaying the log costs by them.
    pub(in crate::delta) fn listed(&self, listings: &[Listing]) {
        let small = listings.iter().map(|listing| small_files(listing).unwrap_or(listing.rows.len() as u64)).sum();
        self.small_files.store(small, Ordering::Relaxed);
    }

    /// The number of small files, if they are too many.
    pub(in crate::delta) fn overdue(&self) -> Option<u64> {
        let small = self.small_files.load(Ordering::Relaxed);
        (small >= OVERDUE).then_some(small)
    }
}

/// Rows without a size speak of no file.
fn small_files(listing: &Listing) -> Option<u64> {
    let sizes = listing.metadata.column_by_name("size")?.as_primitive_opt::<Int64Type>()?;
    Some(sizes.iter().flatten().filter(|size| *size < SMALL).count() as u64)
}
