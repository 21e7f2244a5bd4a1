//! Replacing the whole content of a small table, in one commit.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use delta_kernel::transaction::UpdateTableOperation;

use super::commit::{self, Kind, Plan, Queue};
use super::scan::{Scanner, oldest_first};
use super::schema;
use super::shared::Inner;
use super::stage::{Part, Staged};
use super::table::{Guard, Predicate, nothing_written};
use crate::error::Result;

/// See [`super::Table::replace`].
pub(super) fn replace(
    table: &Arc<Inner>,
    decide: &mut dyn FnMut(&RecordBatch) -> Result<Option<Guard>>,
) -> Result<Option<u64>> {
    let kind = Kind {
        operation: UpdateTableOperation::Write,
        blind: false,
        data_change: true,
        parameters: vec![("mode", "Overwrite".to_owned())],
    };
    let mut staged: Option<Staged> = None;
    let ended = commit::commit(table, &kind, Queue::Always, Instant::now(), &mut |attempt| {
        let scanner = Scanner::new(table.storage.engine()?, attempt.snapshot, &Predicate::default())?;
        let scanner = scanner.knowing(&table.read_files);
        let listings = scanner.files()?;
        let files = oldest_first(&listings).into_iter().map(|(.., file)| file);
        let rows = schema::concat(scanner.schema(), &scanner.read_all(files, |_, rows| Ok(rows))?)?;
        let Some(Guard { batch, transactions }) = decide(&rows)? else { return Ok(None) };
        let mut removes = Vec::new();
        for listing in listings.into_iter().filter(|listing| !listing.rows.is_empty()) {
            let mut selected = vec![false; listing.metadata.num_rows()];
            for (row, _) in &listing.rows {
                *selected.get_mut(*row).ok_or_else(super::scan::no_such_row)? = true;
            }
            removes.push((listing.metadata, selected));
        }
        let mut adds = Vec::new();
        if batch.num_rows() > 0 {
            let rows = schema::align(&batch, &schema::of(attempt.snapshot)?)?;
            let files = Staged::reuse_or_write(&table.storage, attempt, staged.take(), vec![Part::new(rows)])?;
            adds.clone_from(&files.adds);
            staged = Some(files);
        }
        Ok(Some(Plan { adds, removes, transactions }))
    });
    if let Some(orphans) = staged.filter(|_| nothing_written(&ended)) {
        orphans.discard(&table.storage);
    }
    ended
}
