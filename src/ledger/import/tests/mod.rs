//! Tests of the import: of one file's records, of folders and ledgers, and with malformed input.

mod crashes;
mod files;
mod folders;
mod fuzz;
mod model;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use tempfile::TempDir;

use super::parse::FileItem;
use super::*;
use crate::ErrorKind;
use crate::ledger::{LedgerRow, RowFilter};

/// A folder to import from and a ledger to import to.
struct Fixture {
    ledger: JobLedger,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("in")).unwrap();
        Self { ledger: open(&directory), directory }
    }

    /// A second handle, as another process would have.
    fn reopened(&self) -> JobLedger {
        open(&self.directory)
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("in")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder().join(name), content).unwrap();
    }

    fn import(&self) -> ImportReport {
        import(&self.ledger, &self.folder())
    }

    /// The jobs in the ledger, in the order of their times.
    fn jobs(&self) -> Vec<String> {
        let rows = rows(&self.reopened());
        rows.into_iter().map(|row| row.job_id.unwrap()).collect()
    }
}

fn open(directory: &TempDir) -> JobLedger {
    JobLedger::open(directory.path().join("ledger").to_str().unwrap(), &HashMap::new(), None).unwrap()
}

fn import(ledger: &JobLedger, folder: &Path) -> ImportReport {
    ledger.import_json(folder, &berlin()).unwrap()
}

fn berlin() -> ImportOptions {
    ImportOptions { timezone: Some("Europe/Berlin".into()), ..ImportOptions::default() }
}

fn rows(ledger: &JobLedger) -> Vec<LedgerRow> {
    let batch = ledger.rows(LedgerTable::Notifications, &RowFilter::default()).unwrap();
    JobLedger::rows_from_batch(LedgerTable::Notifications, &batch).unwrap()
}

fn reader() -> RecordReader {
    RecordReader::new(&[], Some("Europe/Berlin")).unwrap()
}

/// A record of the job, at `second` of a minute, as a line.
fn record(job: &str, second: u32) -> String {
    format!(
        r#"{{"file_name": "f.csv", "job_id": "{job}", "status": "SUCCESS", "timestamp": "2025-04-16T09:01:{second:02}"}}"#
    )
}

/// Each record as (job, nothing) and each fault as (nothing, reason).
fn outcome(text: impl AsRef<[u8]>) -> Vec<(Option<String>, String)> {
    let read = parse::items(text.as_ref(), &reader(), u64::MAX).0.into_iter().map(|item| match item.record {
        Ok(found) => (found.row.job_id, String::new()),
        Err(reason) => (None, reason),
    });
    read.collect()
}

/// The jobs of a file without faults.
fn jobs(text: impl AsRef<[u8]>) -> Vec<String> {
    let jobs = outcome(text).into_iter().map(|(job, reason)| job.unwrap_or_else(|| panic!("{reason}")));
    jobs.collect()
}

/// The one fault of a file without records.
fn fault(text: impl AsRef<[u8]>) -> String {
    match outcome(&text).as_slice() {
        [(None, reason)] => reason.clone(),
        other => panic!("{other:?} for {}", String::from_utf8_lossy(text.as_ref())),
    }
}

fn at(text: &str) -> Option<i64> {
    Some(text.parse::<DateTime<Utc>>().unwrap().timestamp_micros())
}

/// The digests of a file's records, in order.
fn digests(items: &[FileItem]) -> Vec<RecordDigest> {
    items.iter().filter_map(|item| item.record.as_ref().ok()).map(|record| record.digest).collect()
}
