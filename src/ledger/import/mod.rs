//! Legacy JSON files, folder by folder, into `job_notifications`: each record once, whatever happens in between.
//!
//! `folder.rs` lists and reads files, `parse.rs` finds the records in one, `record.rs` makes a row of one and `time.rs`
//! its timestamp, `remember.rs` knows what was imported before.

mod folder;
mod parse;
mod record;
mod remember;
mod report;
#[cfg(test)]
mod tests;
mod time;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};

pub use report::{ImportFailure, ImportReport};

use super::JobLedger;
use super::rows::as_stored;
use super::tables::{IMPORTS_SPEC, LedgerTable, NO, YES};
use crate::error::{Error, ErrorKind, Result};
use folder::Stamp;
use parse::Item;
use record::{Digest, Found, Reader};
use remember::{Entry, Known, Memory};

/// Files, bytes and records that share a commit; a file is never divided.
const BATCH_FILES: usize = 2_000;
const BATCH_BYTES: usize = 64 << 20;
const BATCH_RECORDS: usize = 20_000;

/// So many files may be read again each time for want of a stamp to be trusted, before a commit is made for their stamps
/// alone.
const STAMPS_WORTH_A_COMMIT: usize = 64;

/// How legacy files are read.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Our names (`file_name`, `job_id`, `status`, `timestamp`, `autosys_update_flag`) and what the files call them.
    /// Names that are not given are the same in the files.
    pub fields: Vec<(String, String)>,
    /// IANA name of the zone of times without an offset; without it they are refused.
    pub timezone: Option<String>,
    /// Set to end the import early, between two files: what was read is imported, the rest is for the next import.
    pub stop: Arc<AtomicBool>,
}

impl JobLedger {
    /// Imports the JSON files of a local folder (not of the folders in it) into `job_notifications`: each record once,
    /// however often, from however many processes at once, and whenever an import was killed. What is wrong in a file is
    /// reported and stops nothing else.
    ///
    /// A file is known by its absolute path, a record by the file and its content; of n records of a file that are the
    /// same, all n are events. Files are read whole, up to 64 MiB each.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a folder that cannot be listed, an unknown field or an unknown timezone: nothing was
    /// written. [`ErrorKind::Conflict`] (retryable) and [`ErrorKind::Storage`] as for logging: what was written before is
    /// remembered, and the next import goes on from there.
    pub fn import_json(&self, folder: &Path, options: &ImportOptions) -> Result<ImportReport> {
        let reader = Reader::new(&options.fields, options.timezone.as_deref())?;
        let listing = folder::list(folder)?;
        let mut import = Import::new(self, reader, &listing)?;
        for path in &listing.files {
            if options.stop.load(Ordering::Relaxed) {
                break;
            }
            import.file(path)?;
        }
        import.flush(true)?;
        Ok(import.report)
    }
}

/// An import under way.
struct Import<'a> {
    ledger: &'a JobLedger,
    reader: Reader,
    memory: Memory,
    report: ImportReport,
    /// Files that were read and are not committed yet.
    waiting: Vec<Waiting>,
    bytes: usize,
    records: usize,
}

/// A file that was read.
struct Waiting {
    path: String,
    /// None: it cannot be trusted, or something is wrong in the file.
    stamp: Option<String>,
    found: Vec<Found>,
    bad: bool,
}

impl<'a> Import<'a> {
    fn new(ledger: &'a JobLedger, reader: Reader, listing: &folder::Listing) -> Result<Self> {
        let report = ImportReport {
            folder: listing.folder.clone(),
            ignored: listing.ignored.clone(),
            ..ImportReport::default()
        };
        let memory = remembered(ledger)?;
        Ok(Self { ledger, reader, memory, report, waiting: Vec::new(), bytes: 0, records: 0 })
    }

    /// Reads one file, unless it is as it was when it was imported.
    fn file(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let read = folder::key(path).and_then(|key| {
            let Some(stamp) = folder::stamp(path)? else { return Ok(None) };
            if self.memory.of(&key).and_then(|known| known.stamp.as_ref()) == Some(&stamp.text) {
                return Ok(Some((key, None)));
            }
            let now = SystemTime::now();
            Ok(folder::read(path)?.map(|(bytes, stamp)| (key, Some((bytes, stamp, now)))))
        });
        match read {
            // It was there when the folder was listed.
            Ok(None) => *self.report.ignored.entry("gone before it was read").or_default() += 1,
            Ok(Some((_, None))) => {
                self.report.files += 1;
                self.report.known += 1;
            }
            Ok(Some((_, Some((bytes, ..))))) if bytes.trim_ascii().is_empty() => {
                *self.report.ignored.entry("empty").or_default() += 1;
            }
            Ok(Some((key, Some((bytes, stamp, now))))) => {
                self.report.files += 1;
                self.take(name, key, &bytes, &stamp, now);
            }
            Err(reason) => {
                self.report.files += 1;
                self.report.bad += 1;
                self.report.failures.push(ImportFailure { file: name, line: None, record: None, reason });
            }
        }
        if self.waiting.len() >= BATCH_FILES || self.bytes >= BATCH_BYTES || self.records >= BATCH_RECORDS {
            self.flush(false)?;
        }
        Ok(())
    }

    fn take(&mut self, name: String, path: String, bytes: &[u8], stamp: &Stamp, read_at: SystemTime) {
        let mut found = Vec::new();
        let mut faults = 0;
        for (number, item) in (1..).zip(parse::items(bytes, &self.reader)) {
            let Item { line, found: content } = item;
            match content {
                Ok(record) => found.push(record),
                Err(reason) => {
                    faults += 1;
                    if faults <= report::LISTED_PER_FILE {
                        let (line, record) = (Some(line), Some(number));
                        self.report.failures.push(ImportFailure { file: name.clone(), line, record, reason });
                    }
                }
            }
        }
        if faults > report::LISTED_PER_FILE {
            let reason = format!("has {} more records that were not imported", faults - report::LISTED_PER_FILE);
            self.report.failures.push(ImportFailure { file: name, line: None, record: None, reason });
        }
        self.report.bad_records += faults;
        self.report.bad += u64::from(faults > 0);
        self.bytes += bytes.len();
        self.records += found.len();
        let stamp = (faults == 0 && stamp.is_trusted(read_at)).then(|| stamp.text.clone());
        self.waiting.push(Waiting { path, stamp, found, bad: faults > 0 });
    }

    /// Commits what waits, if there is anything new in it. At the end also stamps that are worth a commit.
    fn flush(&mut self, end: bool) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        (self.bytes, self.records) = (0, 0);
        loop {
            let plan = Plan::of(&waiting, &self.memory);
            if !plan.new.is_empty() || end && plan.entries.len() >= STAMPS_WORTH_A_COMMIT {
                let notifications = self.ledger.created(LedgerTable::Notifications.spec())?;
                let imports = self.ledger.created(&IMPORTS_SPEC)?;
                let rows = as_stored(rows(&plan.new)?, &notifications.schema())?;
                if !self.memory.commit(&notifications, &imports, plan.entries, &rows)? {
                    self.memory = remembered(self.ledger)?;
                    continue;
                }
            }
            self.report.rows += plan.new.len() as u64;
            self.report.ambiguous_times += plan.new.iter().filter(|found| found.ambiguous).count() as u64;
            self.report.imported += plan.files;
            self.report.known += plan.known;
            return Ok(());
        }
    }
}

/// What a batch would bring, given what is known.
struct Plan<'a> {
    entries: Vec<Entry>,
    new: Vec<&'a Found>,
    /// Files that something is taken from.
    files: u64,
    /// Files with nothing new and nothing wrong.
    known: u64,
}

impl<'a> Plan<'a> {
    fn of(waiting: &'a [Waiting], memory: &Memory) -> Self {
        let mut plan = Self { entries: Vec::new(), new: Vec::new(), files: 0, known: 0 };
        for file in waiting {
            let known = memory.of(&file.path);
            let digests: Vec<Digest> = file.found.iter().map(|found| found.digest).collect();
            let news = Known::news(known, &digests);
            let new: Vec<&Found> =
                file.found.iter().zip(news).filter_map(|(found, new)| new.then_some(found)).collect();
            plan.files += u64::from(!new.is_empty());
            plan.known += u64::from(new.is_empty() && !file.bad);
            if !new.is_empty()
                || file.stamp.is_some() && known.and_then(|known| known.stamp.as_ref()) != file.stamp.as_ref()
            {
                plan.entries.push(Entry {
                    path: file.path.clone(),
                    stamp: file.stamp.clone(),
                    records: new.iter().map(|found| found.digest).collect(),
                });
            }
            plan.new.extend(new);
        }
        plan
    }
}

fn remembered(ledger: &JobLedger) -> Result<Memory> {
    let notifications = ledger.opened(LedgerTable::Notifications.spec())?;
    Memory::read(notifications.as_ref(), || ledger.opened(&IMPORTS_SPEC))
}

fn rows(found: &[&Found]) -> Result<RecordBatch> {
    let text = |value: fn(&Found) -> Option<&str>| -> ArrayRef {
        Arc::new(found.iter().map(|found| value(found)).collect::<StringArray>())
    };
    let times: TimestampMicrosecondArray = found.iter().map(|found| found.row.timestamp).collect();
    let columns = vec![
        text(|found| found.row.file_name.as_deref()),
        text(|found| found.row.job_id.as_deref()),
        text(|found| found.row.status.as_deref()),
        text(|found| Some(if found.acknowledged { YES } else { NO })),
        Arc::new(times.with_timezone("UTC")),
    ];
    RecordBatch::try_new(LedgerTable::Notifications.schema(), columns)
        .map_err(|e| Error::new(ErrorKind::Internal, "imported rows could not be built").with_source(e))
}
