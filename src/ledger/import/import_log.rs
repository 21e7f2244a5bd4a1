//! The import log: which records were imported, as durable and as exact as the rows themselves.
//!
//! The rows are in `job_notifications`, the import log is in `autosys_imports`, and no commit spans two tables. So an import
//! first writes a batch to `autosys_imports`, with a number that no other batch has and the number of the batch before it.
//! That alone has no effect. Then one commit to `job_notifications` adds the rows of the batch, and moves a transaction id
//! there, the head, from the batch before to this batch. The commit fails if another import has moved the head. The import
//! log is the chain of batches from the head backwards. A batch off the chain has no rows, and does not count: its import
//! was killed between the two commits, or another import won.
//!
//! So the rows and the log change together, also when imports are killed or run at the same time. No import waits for
//! another, because an import that loses repeats its work. Checkpoints of `job_notifications` carry only one transaction
//! id. If that table is created again, its import log starts again, too.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::record::RecordDigest;
use crate::columns::{integer, text, time};
use crate::delta::{ConditionalWrite, Predicate, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::columns::{integers, new_batch, texts, value};
use crate::ledger::rows::{as_stored, counted, take_one};
use crate::ledger::tables::{IMPORTS, LedgerTable};
use crate::runtime::environment;

/// The id of the transactions that hold the head in `job_notifications`, and the last number in `autosys_imports`.
const HEAD: &str = "jobrota.import";

/// What was imported from one file.
#[derive(Debug, Clone, Default)]
pub(super) struct ImportedFile {
    /// Its stamp when it was read last, if the stamp is reliable and the file had no faults.
    pub(super) stamp: Option<String>,
    /// Its imported records, each as often as it was imported.
    pub(super) records: Vec<RecordDigest>,
}

/// What was imported, as of one head.
#[derive(Debug, Default)]
pub(super) struct ImportLog {
    pub(super) head: Option<i64>,
    files: HashMap<String, ImportedFile>,
}

/// What one batch adds for a file: the path of the file, its stamp, and the records whose rows the batch adds.
pub(super) type ImportLogEntry = (String, ImportedFile);

impl ImportLog {
    /// Reads the import log. Either table can be missing; `imports` opens the table of the batches.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store failed, [`ErrorKind::NotFound`] when a part of the log is missing: importing
    /// without it would add rows twice.
    pub(super) fn read(notifications: Option<&Table>, imports: impl FnOnce() -> Result<Option<Table>>) -> Result<Self> {
        // The head first: its batches and their table were written before it.
        let read_head = |table: &Table| table.read_snapshot(|view| view.transaction(HEAD));
        let head = notifications.map(read_head).transpose()?.flatten();
        let Some(head) = head else { return Ok(Self::default()) };
        let batches = imports()?.map_or_else(|| Ok(HashMap::new()), |imports| read_batches(&imports))?;
        let mut log = Self { head: Some(head), files: HashMap::new() };
        chain(batches, head)?.into_iter().for_each(|entry| log.add(entry));
        Ok(log)
    }

    /// What was imported from the file with this key.
    pub(super) fn file(&self, path: &str) -> Option<&ImportedFile> {
        self.files.get(path)
    }

    /// Writes `rows` and their log entries, or nothing. Returns false if another import was faster: then read the log again.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] (retryable) when other writers won until the timeout, [`ErrorKind::Storage`] when the store
    /// failed. The next import continues with what was not written.
    pub(super) fn commit(
        &mut self,
        notifications: &Table,
        imports: &Table,
        entries: Vec<ImportLogEntry>,
        rows: &RecordBatch,
    ) -> Result<bool> {
        let rows = as_stored(rows.clone(), &notifications.schema())?;
        let batch = write_batch(imports, self.head, &entries)?;
        let expected = self.head;
        let moved = notifications.append_conditionally(&mut |view| {
            if view.transaction(HEAD)? != expected {
                return Ok(None);
            }
            Ok(Some(ConditionalWrite { batch: rows.clone(), transactions: vec![(HEAD.to_owned(), batch)] }))
        })?;
        if moved.is_none() {
            return Ok(false);
        }
        self.head = Some(batch);
        entries.into_iter().for_each(|entry| self.add(entry));
        Ok(true)
    }

    fn add(&mut self, (path, added): ImportLogEntry) {
        let file = self.files.entry(path).or_default();
        file.stamp = added.stamp;
        file.records.extend(added.records);
    }
}

impl ImportedFile {
    /// Which of a file's records are new: of n equal records, those beyond the number that was imported before. Compares
    /// contents and not positions, so that a file that grows, is reordered, or loses its beginning adds only new records.
    pub(super) fn new_records(imported: Option<&Self>, records: &[RecordDigest]) -> Vec<bool> {
        let mut seen = counted(imported.iter().flat_map(|imported| &imported.records));
        records.iter().map(|record| !take_one(&mut seen, record)).collect()
    }
}

/// Writes a batch under a new number.
pub(super) fn write_batch(imports: &Table, previous: Option<i64>, entries: &[ImportLogEntry]) -> Result<i64> {
    let mut number = 0;
    imports.append_conditionally(&mut |view| {
        // Also above the head, in case the table of the batches was created again.
        number = view.transaction(HEAD)?.max(previous).unwrap_or(0) + 1;
        Ok(Some(ConditionalWrite {
            batch: to_batch(number, previous, entries)?,
            transactions: vec![(HEAD.to_owned(), number)],
        }))
    })?;
    Ok(number)
}

fn to_batch(number: i64, previous: Option<i64>, entries: &[ImportLogEntry]) -> Result<RecordBatch> {
    let now = environment().utc().timestamp_micros();
    let columns = vec![
        integer(entries, |_| Some(number)),
        integer(entries, |_| previous),
        text(entries, |(path, _)| Some(path)),
        text(entries, |(_, added)| added.stamp.as_ref()),
        text(entries, |(_, added)| Some(STANDARD_NO_PAD.encode(added.records.as_flattened()))),
        integer(entries, |(_, added)| i64::try_from(added.records.len()).ok()),
        time(entries, |_| Some(now)),
    ];
    new_batch(&IMPORTS, columns)
}

/// A batch: the number of the batch before it, and its entries.
type ImportBatch = (Option<i64>, Vec<ImportLogEntry>);

/// All batches by number, also those off the chain.
fn read_batches(imports: &Table) -> Result<HashMap<i64, ImportBatch>> {
    let data = imports.scan(&Predicate::default())?;
    let (numbers, previous) = (integers(&data, "batch")?, integers(&data, "previous")?);
    let (paths, stamps, records) = (texts(&data, "path")?, texts(&data, "stamp")?, texts(&data, "records")?);
    let broken = || {
        let text = format!("the column 'records' of the table '{}' was changed; restore the table", IMPORTS.name);
        Error::new(ErrorKind::Unsupported, text)
    };
    let mut batches: HashMap<i64, ImportBatch> = HashMap::new();
    for row in 0..data.num_rows() {
        let bytes = STANDARD_NO_PAD.decode(records.value(row)).map_err(|e| broken().with_source(e))?;
        let (digests, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(broken());
        }
        let (path, stamp) = (paths.value(row).to_owned(), value(stamps, row).map(str::to_owned));
        let entry = (path, ImportedFile { stamp, records: digests.to_vec() });
        batches.entry(numbers.value(row)).or_insert_with(|| (value(previous, row), Vec::new())).1.push(entry);
    }
    Ok(batches)
}

/// The entries of the batches from the first one to `head`.
fn chain(mut batches: HashMap<i64, ImportBatch>, head: i64) -> Result<Vec<ImportLogEntry>> {
    let mut chain = Vec::new();
    let mut next = Some(head);
    while let Some(number) = next {
        let (previous, entries) = batches.remove(&number).ok_or_else(|| {
            let text = format!(
                "the table '{}' has lost batch {number}, so that it is not known which files were imported to '{}'; \
                 restore the table (an import without it would add the same rows again)",
                IMPORTS.name,
                LedgerTable::Notifications.name()
            );
            Error::new(ErrorKind::NotFound, text)
        })?;
        chain.push(entries);
        next = previous;
    }
    Ok(chain.into_iter().rev().flatten().collect())
}
