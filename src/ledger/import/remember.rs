//! What was imported, remembered exactly as long and exactly as surely as the rows themselves.
//!
//! The rows are in `job_notifications`, what is known of the files in `autosys_imports`, and no commit spans two tables.
//! So a batch is first written down in `autosys_imports`, under a number that no other batch has and with the number of
//! the batch before it; that alone means nothing yet. Then one commit to `job_notifications` brings its rows and moves
//! one transaction id there, the head, from the batch before to this one, guarded: it fails if another import has moved
//! the head. What was imported is the chain of batches from the head backwards. A batch off the chain (its import was
//! killed in between, or lost the race and planned again) has no rows either, and counts for nothing.
//!
//! So rows and memory change at once, whoever is killed and however many import; nobody waits for anybody, as each lost
//! race was won by another; and there is one transaction id for all files and all time, which is all that checkpoints of
//! `job_notifications` have to carry. If that table is made anew, the memory of its rows goes with it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Int64Array, PrimitiveArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chrono::Utc;

use super::record::Digest;
use crate::delta::{Guard, Predicate, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::rows::as_stored;
use crate::ledger::tables::{IMPORTS, IMPORTS_SPEC, LedgerTable};

/// The application id of the head in `job_notifications`, and of the numbering in `autosys_imports`.
const HEAD: &str = "jobrota.import";

/// What is known of one file.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Its stamp when it was read last, if that can be trusted and nothing was wrong in it.
    pub(super) stamp: Option<String>,
    /// Its records that were imported, one as often as it was.
    records: Vec<Digest>,
}

/// All that was imported, as of one head.
#[derive(Debug, Default)]
pub(super) struct Memory {
    head: Option<i64>,
    files: HashMap<String, Known>,
}

/// What one batch adds to the memory of a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) stamp: Option<String>,
    /// The records whose rows the batch brings.
    pub(super) records: Vec<Digest>,
}

impl Memory {
    /// Reads what the ledger remembers. Either table may be missing; that of the batches is opened by `imports`.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store failed, [`ErrorKind::NotFound`] when a part of the memory is missing:
    /// importing without it would bring rows twice.
    pub(super) fn read(notifications: Option<&Table>, imports: impl FnOnce() -> Result<Option<Table>>) -> Result<Self> {
        // The head first: the batches that it leads to, and their table, were written before it.
        let head = notifications.map(head).transpose()?.flatten();
        let Some(head) = head else { return Ok(Self::default()) };
        let batches = match imports()? {
            Some(imports) => Batches::read(&imports)?,
            None => Batches::default(),
        };
        Ok(Self { head: Some(head), files: batches.chain(head)? })
    }

    /// What is known of the file with this key.
    pub(super) fn of(&self, path: &str) -> Option<&Known> {
        self.files.get(path)
    }

    /// Writes `rows` and what they mean for the memory, or nothing. False: another import was quicker; the memory must be
    /// read again.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] (retryable) when other writers won until the time limit ran out, [`ErrorKind::Storage`]
    /// when the store failed. The next import goes on from whatever was written.
    pub(super) fn commit(
        &mut self,
        notifications: &Table,
        imports: &Table,
        entries: Vec<Entry>,
        rows: &RecordBatch,
    ) -> Result<bool> {
        let rows = as_stored(rows.clone(), &notifications.schema())?;
        let batch = announce(imports, self.head, &entries)?;
        let expected = self.head;
        let moved = notifications.append_guarded(&mut |view| {
            if view.transaction(HEAD)? != expected {
                return Ok(None);
            }
            Ok(Some(Guard { batch: rows.clone(), transactions: vec![(HEAD.to_owned(), batch)] }))
        })?;
        if moved.is_none() {
            return Ok(false);
        }
        self.head = Some(batch);
        for entry in entries {
            learn(&mut self.files, entry);
        }
        Ok(true)
    }
}

impl Known {
    /// Which of a file's records are new: of n records that are the same, those that are more than were imported before.
    /// By content rather than by place, so that a file that grows, is reordered, or loses its beginning to a rotation
    /// brings what is new in it and nothing twice.
    pub(super) fn news(known: Option<&Self>, records: &[Digest]) -> Vec<bool> {
        let mut seen: HashMap<&Digest, usize> = HashMap::new();
        for record in known.iter().flat_map(|known| &known.records) {
            *seen.entry(record).or_default() += 1;
        }
        records
            .iter()
            .map(|record| match seen.get_mut(record) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    false
                }
                _ => true,
            })
            .collect()
    }
}

fn learn(files: &mut HashMap<String, Known>, entry: Entry) {
    let known = files.entry(entry.path).or_default();
    known.stamp = entry.stamp;
    known.records.extend(entry.records);
}

/// The batch that was imported last.
fn head(notifications: &Table) -> Result<Option<i64>> {
    let mut head = None;
    notifications.append_guarded(&mut |view| {
        head = view.transaction(HEAD)?;
        Ok(None)
    })?;
    Ok(head)
}

/// Writes a batch down under a number of its own.
fn announce(imports: &Table, previous: Option<i64>, entries: &[Entry]) -> Result<i64> {
    let mut number = 0;
    imports.append_guarded(&mut |view| {
        // Above the head as well, should the table of batches ever have been made anew.
        number = view.transaction(HEAD)?.max(previous).unwrap_or(0) + 1;
        Ok(Some(Guard { batch: to_batch(number, previous, entries)?, transactions: vec![(HEAD.to_owned(), number)] }))
    })?;
    Ok(number)
}

fn to_batch(number: i64, previous: Option<i64>, entries: &[Entry]) -> Result<RecordBatch> {
    let count = entries.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![number; count])),
        Arc::new(Int64Array::from(vec![previous; count])),
        Arc::new(entries.iter().map(|entry| Some(&entry.path)).collect::<StringArray>()),
        Arc::new(entries.iter().map(|entry| entry.stamp.as_ref()).collect::<StringArray>()),
        Arc::new(
            entries
                .iter()
                .map(|entry| Some(STANDARD_NO_PAD.encode(entry.records.as_flattened())))
                .collect::<StringArray>(),
        ),
        Arc::new(entries.iter().map(|entry| Some(entry.records.len() as i64)).collect::<Int64Array>()),
        Arc::new(TimestampMicrosecondArray::from(vec![Utc::now().timestamp_micros(); count]).with_timezone("UTC")),
    ];
    RecordBatch::try_new(Arc::clone(&IMPORTS_SPEC.schema), columns)
        .map_err(|e| Error::new(ErrorKind::Internal, "the memory of an import could not be built").with_source(e))
}

/// All batches that were ever written down, by number.
#[derive(Default)]
struct Batches {
    by_number: HashMap<i64, (Option<i64>, Vec<Entry>)>,
}

impl Batches {
    fn read(imports: &Table) -> Result<Self> {
        let data = imports.scan(&Predicate::default())?;
        let whole = |name| -> Result<&PrimitiveArray<Int64Type>> {
            data.column_by_name(name).and_then(|column| column.as_primitive_opt()).ok_or_else(|| strange(name))
        };
        let text = |name| -> Result<&StringArray> {
            data.column_by_name(name).and_then(|column| column.as_string_opt()).ok_or_else(|| strange(name))
        };
        let (numbers, previous) = (whole("batch")?, whole("previous")?);
        let (paths, stamps, records) = (text("path")?, text("stamp")?, text("records")?);
        let mut batches = Self::default();
        for row in 0..data.num_rows() {
            let bytes = STANDARD_NO_PAD.decode(records.value(row)).map_err(|e| strange("records").with_source(e))?;
            let (digests, rest) = bytes.as_chunks();
            if !rest.is_empty() {
                return Err(strange("records"));
            }
            let entry = Entry {
                path: paths.value(row).to_owned(),
                stamp: stamps.is_valid(row).then(|| stamps.value(row).to_owned()),
                records: digests.to_vec(),
            };
            let before = previous.is_valid(row).then(|| previous.value(row));
            batches.by_number.entry(numbers.value(row)).or_insert_with(|| (before, Vec::new())).1.push(entry);
        }
        Ok(batches)
    }

    /// What the batches from `head` backwards say of the files.
    fn chain(mut self, head: i64) -> Result<HashMap<String, Known>> {
        let mut chain = Vec::new();
        let mut at = Some(head);
        while let Some(number) = at {
            let Some((previous, entries)) = self.by_number.remove(&number) else {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "the table '{IMPORTS}' has lost batch {number}, so it is not known which files were imported to '{}'; \
                         restore the table (importing without it would bring the same rows again)",
                        LedgerTable::Notifications.name()
                    ),
                ));
            };
            chain.push(entries);
            at = previous;
        }
        let mut files = HashMap::new();
        for entry in chain.into_iter().rev().flatten() {
            learn(&mut files, entry);
        }
        Ok(files)
    }
}

fn strange(column: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("the column '{column}' of the table '{IMPORTS}' is not what an import wrote there; restore the table"),
    )
}

/// Writes a batch down and goes no further, as an import does that is killed there.
#[cfg(test)]
pub(super) fn announce_for_test(imports: &Table, memory: &Memory, entries: Vec<Entry>) {
    announce(imports, memory.head, &entries).expect("announced");
}

/// A file of which these records were imported.
#[cfg(test)]
pub(super) fn known_for_test(records: &[Digest]) -> Known {
    Known { stamp: None, records: records.to_vec() }
}
