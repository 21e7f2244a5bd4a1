//! Commits that depend on what is in the table: conditional appends, and replacing the content of a small table.

use std::time::Instant;

use arrow::array::RecordBatch;

use super::attempt::{CommitKind, FileRows};
use super::{Proposal, commit};
use crate::delta::scan::{Scanner, SnapshotView, oldest_first};
use crate::delta::schema;
use crate::delta::state::select;
use crate::delta::table::Table;
use crate::delta::types::{ConditionalWrite, Predicate};
use crate::error::Result;

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
        commit(table, &CommitKind::append(false), Instant::now(), None, &mut |attempt| {
            let Some(ConditionalWrite { batch, transactions }) = decide(&SnapshotView::new(table, attempt.snapshot))?
            else {
                return Ok(None);
            };
            let rows = vec![FileRows::new(schema::align(&batch, &attempt.schema()?)?)];
            Ok(Some(Proposal { rows, transactions, ..Proposal::default() }))
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
        commit(table, &CommitKind::overwrite(), Instant::now(), None, &mut |attempt| {
            let scanner = Scanner::new(table, attempt.snapshot, &Predicate::default())?;
            let listing = scanner.files()?;
            let files = oldest_first(&listing.batches);
            let read = scanner.read_all(files.iter().map(|(.., file)| *file), |_, rows| Ok(rows))?;
            let rows = schema::concat(scanner.schema(), &read)?;
            let Some(ConditionalWrite { batch, transactions }) = decide(&rows)? else { return Ok(None) };
            let removes = select(&listing.batches, files.iter().map(|(at, row, _)| (*at, *row)))?;
            let rows = match batch.num_rows() {
                0 => Vec::new(),
                _ => vec![FileRows::new(schema::align(&batch, &attempt.schema()?)?)],
            };
            Ok(Some(Proposal { rows, removes, transactions, ..Proposal::default() }))
        })
    }
}
