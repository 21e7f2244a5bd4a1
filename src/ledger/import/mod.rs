//! Imports legacy JSON files, folder by folder, into `job_notifications`. Each record is imported once, also after a crash
//! and when several processes import at the same time.
//!
//! | file | contents |
//! | --- | --- |
//! | `mod.rs` | one import: reads files, and commits their rows in batches |
//! | `folder.rs` | lists and reads the files of a folder |
//! | `parse.rs` | finds the records in a file |
//! | `record.rs` | makes a row of a record |
//! | `import_log.rs` | which records were imported before |

mod folder;
mod import_log;
mod parse;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::tables::{IMPORTS, LedgerTable, NO, YES};
use super::{JobLedger, rows};
use crate::error::Result;
use crate::runtime::environment;
use crate::stop::Stop;
use folder::FileStamp;
use import_log::{ImportLog, ImportedFile};
use record::{LegacyRecord, RecordDigest, RecordReader};

/// The maximum numbers of files, bytes and records of one commit. A file is never divided.
const BATCH_FILES: usize = 2_000;
const BATCH_BYTES: usize = 64 << 20;
const BATCH_RECORDS: usize = 20_000;

/// Files without a reliable stamp are read again by each import. From this number of new stamps on, an import makes a commit
/// for the stamps alone.
const MIN_STAMPS_PER_COMMIT: usize = 64;

/// The maximum number of failures that are listed per file; the others are counted.
const MAX_LISTED_FAILURES: u64 = 20;

/// How legacy files are read.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Our names (`file_name`, `job_id`, `status`, `timestamp`, `autosys_update_flag`) and the names in the files. The
    /// default is the same name.
    pub fields: Vec<(String, String)>,
    /// IANA name of the time zone of times without an offset. Without it, such times are refused.
    pub timezone: Option<String>,
    /// Ends the import early, between two files. The files that were read by then are imported, and the next import continues.
    pub stop: Stop,
}

/// What an import did.
#[derive(Debug, Clone, Default)]
pub struct ImportReport {
    /// The folder, with the links in its path resolved.
    pub folder: PathBuf,
    /// Files that were examined.
    pub files: u64,
    /// Files from which rows were imported.
    pub imported: u64,
    /// Files without new records and without faults.
    pub known: u64,
    /// Files with faults. Their valid records are imported, so that a file can be in `imported`, too.
    pub bad: u64,
    /// Rows that were written to `job_notifications`.
    pub rows: u64,
    /// Records that are invalid, including those that `failures` does not list.
    pub bad_records: u64,
    /// Rows with a local time that occurs twice, because clocks were put back. The first one was imported.
    pub ambiguous_times: u64,
    /// Entries of the folder that were not examined, by the reason.
    pub ignored: BTreeMap<&'static str, u64>,
    /// The faults, at most 20 per file.
    pub failures: Vec<ImportFailure>,
}

/// Something in a folder that could not be imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportFailure {
    /// The file's name in the folder. Bytes that are not UTF-8 are shown as replacement characters.
    pub file: String,
    /// The line on which the record begins, from 1. None for the file as a whole.
    pub line: Option<u64>,
    /// The number of the record in the file, from 1. None for the file as a whole.
    pub record: Option<u64>,
    /// The reason, and what to do.
    pub reason: String,
}

impl JobLedger {
    /// Imports the JSON files of a local folder, without its subfolders, into `job_notifications`. Each record is imported
    /// once, also by repeated, simultaneous and killed imports. Faults in a file are reported, and the import continues.
    ///
    /// A file is identified by its absolute path, a record by the file and its content. Of n equal records of a file, each
    /// is an event. Files are read as a whole, up to 64 MiB each.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for a folder that cannot be listed, an unknown field or an unknown time zone:
    /// nothing was written. [`crate::ErrorKind::Conflict`] (retryable) and [`crate::ErrorKind::Storage`] as for logging: the
    /// next import continues with what was not written.
    pub fn import_json(&self, folder: &Path, options: &ImportOptions) -> Result<ImportReport> {
        let reader = RecordReader::new(&options.fields, options.timezone.as_deref())?;
        let mut report = ImportReport::default();
        let files = folder::list(folder, &mut report)?;
        let mut import = Import::new(self, reader, report)?;
        for path in &files {
            if options.stop.is_stopped() {
                break;
            }
            import.file(path)?;
        }
        import.commit(true)?;
        Ok(import.report)
    }
}

/// A running import.
struct Import<'a> {
    ledger: &'a JobLedger,
    reader: RecordReader,
    log: ImportLog,
    report: ImportReport,
    /// Files that were read and are not committed yet.
    read: Vec<ReadFile>,
    bytes: usize,
    records: usize,
}

/// A file that was read.
struct ReadFile {
    path: String,
    /// None if the stamp is not reliable, or the file has faults.
    stamp: Option<String>,
    records: Vec<LegacyRecord>,
    is_bad: bool,
}

impl<'a> Import<'a> {
    fn new(ledger: &'a JobLedger, reader: RecordReader, report: ImportReport) -> Result<Self> {
        let log = read_log(ledger)?;
        Ok(Self { ledger, reader, log, report, read: Vec::new(), bytes: 0, records: 0 })
    }

    /// Reads one file, unless it is as it was when it was imported.
    fn file(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let read = folder::key(path).and_then(|key| {
            let Some(stamp) = folder::stamp(path)? else { return Ok(None) };
            if self.log.file(&key).and_then(|imported| imported.stamp.as_ref()) == Some(&stamp.text) {
                return Ok(Some((key, None)));
            }
            let now = SystemTime::from(environment().utc());
            Ok(folder::read(path)?.map(|(bytes, stamp)| (key, Some((bytes, stamp, now)))))
        });
        match read {
            // It was removed after the folder was listed.
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
                self.parse(name, key, &bytes, &stamp, now);
            }
            Err(reason) => {
                self.report.files += 1;
                self.report.bad += 1;
                self.report.failures.push(ImportFailure { file: name, line: None, record: None, reason });
            }
        }
        if self.read.len() >= BATCH_FILES || self.bytes >= BATCH_BYTES || self.records >= BATCH_RECORDS {
            self.commit(false)?;
        }
        Ok(())
    }

    /// Adds the records of a file to the next commit.
    fn parse(&mut self, name: String, path: String, bytes: &[u8], stamp: &FileStamp, read_at: SystemTime) {
        let mut records = Vec::new();
        let (items, unlisted) = parse::items(bytes, &self.reader, MAX_LISTED_FAILURES);
        let mut faults = unlisted;
        let mut fail = |line, record, reason| {
            self.report.failures.push(ImportFailure { file: name.clone(), line, record, reason });
        };
        for item in items {
            match item.record {
                Ok(record) => records.push(record),
                Err(reason) => {
                    faults += 1;
                    fail(Some(item.line), Some(item.number), reason);
                }
            }
        }
        if unlisted > 0 {
            fail(None, None, format!("has {unlisted} more records that were not imported"));
        }
        self.report.bad_records += faults;
        self.report.bad += u64::from(faults > 0);
        self.bytes += bytes.len();
        self.records += records.len();
        let stamp = (faults == 0 && stamp.is_reliable(read_at)).then(|| stamp.text.clone());
        self.read.push(ReadFile { path, stamp, records, is_bad: faults > 0 });
    }

    /// Commits the files that were read, if they have new records; at the end of the import also for enough new stamps.
    fn commit(&mut self, is_end: bool) -> Result<()> {
        let read = std::mem::take(&mut self.read);
        (self.bytes, self.records) = (0, 0);
        loop {
            let (mut entries, mut records, mut imported, mut known) = (Vec::new(), Vec::new(), 0, 0);
            for file in &read {
                let before = self.log.file(&file.path);
                let digests: Vec<RecordDigest> = file.records.iter().map(|record| record.digest).collect();
                let is_new = ImportedFile::new_records(before, &digests);
                let new: Vec<_> = file.records.iter().zip(is_new).filter(|(_, is_new)| *is_new).collect();
                imported += u64::from(!new.is_empty());
                known += u64::from(new.is_empty() && !file.is_bad);
                let has_new_stamp =
                    file.stamp.is_some() && before.and_then(|file| file.stamp.as_ref()) != file.stamp.as_ref();
                if !new.is_empty() || has_new_stamp {
                    let records = new.iter().map(|(record, _)| record.digest).collect();
                    entries.push((file.path.clone(), ImportedFile { stamp: file.stamp.clone(), records }));
                }
                records.extend(new.into_iter().map(|(record, _)| record));
            }
            if !records.is_empty() || is_end && entries.len() >= MIN_STAMPS_PER_COMMIT {
                let notifications = self.ledger.created(LedgerTable::Notifications.spec())?;
                let imports = self.ledger.created(&IMPORTS)?;
                if !self.log.commit(&notifications, &imports, entries, &to_rows(&records)?)? {
                    self.log = read_log(self.ledger)?;
                    continue;
                }
            }
            self.report.rows += records.len() as u64;
            self.report.ambiguous_times += records.iter().filter(|record| record.is_ambiguous).count() as u64;
            self.report.imported += imported;
            self.report.known += known;
            return Ok(());
        }
    }
}

fn read_log(ledger: &JobLedger) -> Result<ImportLog> {
    let notifications = ledger.opened(LedgerTable::Notifications.spec())?;
    ImportLog::read(notifications.as_ref(), || ledger.opened(&IMPORTS))
}

fn to_rows(records: &[&LegacyRecord]) -> Result<arrow::array::RecordBatch> {
    let flags = records.iter().map(|record| if record.is_acknowledged { YES } else { NO });
    rows::to_batch(LedgerTable::Notifications, records.iter().map(|record| &record.row), flags)
}
