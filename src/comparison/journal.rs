//! The journal of a run. Each event is on disk before its consequences, so that an interrupted run continues where it
//! ended and no job runs twice: each has a unique name, in a form that the Workload Orchestrator does not change.
//!
//! An event is one line of JSON. Where files can be appended to, the journal is one file. Where they cannot (volumes and
//! workspace files of Databricks), it is a folder of files that are each written once. Events that arrive together are
//! written together.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::arms::{Arm, SubmissionMode};
use crate::error::{Error, ErrorKind, Result};
use crate::http::address::{is_loopback, without_userinfo};
use crate::runtime::lock;
use crate::viya::server;

mod replay;
mod store;

pub use replay::{PriorState, Replay};
use store::JournalStore;

/// The first line of the journal: everything that must be the same when the run continues.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JournalHeader {
    /// Identifies the run.
    pub run_id: String,
    /// When the run began.
    pub began: DateTime<Utc>,
    /// The end of every unique name.
    pub tag: String,
    /// The server.
    pub base_url: String,
    /// The arms in the order of the first round.
    pub arms: Vec<Arm>,
    /// The entries of the job configs, in the order of submission.
    pub jobs: Vec<Value>,
    /// The number of rounds.
    pub repeat: u32,
    /// Seconds between one arm and the next.
    pub pause: f64,
    /// The mode of the asynchronous arms.
    pub mode: SubmissionMode,
}

/// Identifies a job of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobKey {
    /// The number of the arm in the header, from 0.
    pub arm: usize,
    /// The round, from 1.
    pub round: u32,
    /// The position of the job in the list of the header, from 1.
    pub sequence: usize,
}

/// The end of all names of one run: its beginning in Unix seconds and three random letters, because two runs can begin in
/// the same second. Nine letters and digits.
pub fn run_tag(unix: i64) -> String {
    let letters: String = (0..3).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
    format!("{}{letters}", base36(unix.unsigned_abs()))
}

/// A name of `[a-z0-9]` that no other job of the run has: job, arm with its number (from 0), round, sequence number and the
/// tag of the run, such as `cmpooledseqa0r1x12t5k2f9qzk`. Read from the right it is unambiguous for all names of arms.
///
/// SAS: the orchestrator converts names to lower case, removes `_` and appends `-<uuid>`. Names of 71 characters in all
/// passed uncut, so names of usual length stay below that.
pub fn unique_name(job: &str, arm_short: &str, key: JobKey, tag: &str) -> String {
    let letters = job.chars().filter(char::is_ascii_alphanumeric);
    let mut short: String = letters.take(20).collect::<String>().to_ascii_lowercase();
    if !short.starts_with(|c: char| c.is_ascii_lowercase()) {
        short.insert_str(0, "job");
    }
    let JobKey { arm, round, sequence } = key;
    format!("{short}{arm_short}a{arm}r{round}x{sequence}{tag}")
}

fn base36(number: u64) -> String {
    let rests = std::iter::successors(Some(number), |rest| (*rest >= 36).then_some(rest / 36));
    let digits: Vec<char> = rests.filter_map(|rest| char::from_digit((rest % 36) as u32, 36)).collect();
    digits.into_iter().rev().collect()
}

/// One line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JournalEvent {
    /// The run began.
    Run(Box<JournalHeader>),
    /// The run continues after an interruption.
    Resumed {
        /// When it continues.
        at: DateTime<Utc>,
    },
    /// A job is about to be submitted under this name.
    Submitting {
        /// The job.
        #[serde(flatten)]
        key: JobKey,
        /// The unique name.
        name: String,
    },
    /// The server accepted the job.
    Submitted {
        /// The job.
        #[serde(flatten)]
        key: JobKey,
        /// The id of the job on the server.
        id: String,
        /// Seconds until the server accepted the job.
        latency: Option<f64>,
    },
    /// The job ended.
    Ended {
        /// The job.
        #[serde(flatten)]
        key: JobKey,
        /// How it ended.
        #[serde(flatten)]
        end: JobEnd,
    },
    /// The job was canceled because the run was stopped.
    Dropped {
        /// The job.
        #[serde(flatten)]
        key: JobKey,
    },
    /// The result was written.
    Result {
        /// The result file.
        path: PathBuf,
    },
}

/// How a job ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobEnd {
    /// `completed`, `failed`, `canceled`, `timedOut` or `unknown`.
    pub status: String,
    /// Why it did not complete.
    pub error: Option<String>,
    /// The last description of the job by the server.
    pub job: Option<Value>,
    /// Seconds from the submission until its end was seen.
    pub observed: Option<f64>,
}

/// An open journal. Concurrent writers queue their lines, and one of them writes all.
#[derive(Debug)]
pub struct Journal {
    /// The file or folder.
    pub path: PathBuf,
    queue: Mutex<LineQueue>,
    store: tokio::sync::Mutex<JournalStore>,
}

#[derive(Debug, Default)]
struct LineQueue {
    lines: String,
    queued: u64,
    written: u64,
}

impl Journal {
    fn new(path: PathBuf, store: JournalStore) -> Self {
        Self { path, queue: Mutex::default(), store: tokio::sync::Mutex::new(store) }
    }

    /// Creates a journal beside the results: the file `<stem>.journal.jsonl`, or the folder `<stem>.journal` if `segments` is
    /// set or files there cannot be appended to.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when it cannot be written.
    pub fn create(folder: &Path, stem: &str, segments: bool) -> Result<Self> {
        let (path, store) = JournalStore::create(folder, stem, segments).map_err(|e| write_error(folder, e))?;
        Ok(Self::new(path, store))
    }

    /// Opens the journal of an interrupted run to continue it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::InvalidInput`] when it is not a journal, [`ErrorKind::Conflict`] when another
    /// process has it open.
    pub fn reopen(path: &Path) -> Result<(Self, Replay)> {
        let (text, store) = JournalStore::reopen(path)?;
        let replay = Replay::read(&text, path)?;
        Ok((Self::new(path.to_owned(), store), replay))
    }

    /// Writes an event. The event survives the end of this process when the call returns.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when it cannot be written.
    pub async fn write(&self, event: &JournalEvent) -> Result<()> {
        let line = serde_json::to_string(event)
            .map_err(|e| Error::new(ErrorKind::Internal, "a journal event cannot be written as JSON").with_source(e))?;
        let queue = || lock(&self.queue);
        let mine = {
            let mut queue = queue();
            queue.lines.push_str(&line);
            queue.lines.push('\n');
            queue.queued += 1;
            queue.queued
        };
        let mut store = self.store.lock().await;
        let (lines, upto) = {
            let mut queue = queue();
            if queue.written >= mine {
                return Ok(());
            }
            (std::mem::take(&mut queue.lines), queue.queued)
        };
        if let Err(e) = store.write(&lines).await {
            // A part of the lines can be there: the next attempt starts on a new line.
            queue().lines.insert_str(0, &format!("\n{lines}"));
            return Err(write_error(&self.path, e));
        }
        queue().written = upto;
        Ok(())
    }
}

/// The server on which the run that wrote the journal `path` continues: `given`, else the one that is configured, else that of
/// the journal if it is on this machine. Tokens are sent to the server, and the journal is a file that others may have
/// written. Only the header is read.
///
/// # Errors
/// [`ErrorKind::NotFound`]; [`ErrorKind::InvalidInput`] when it is not a journal, or names a remote server that nothing else
/// names. Not retryable.
pub fn base_url(path: &Path, given: Option<&str>) -> Result<String> {
    let journal = Replay::read(&store::first_line(path)?, path)?.header.base_url;
    if let Some(configured) = server::base_url(given)? {
        return Ok(configured);
    }
    if Url::parse(&journal).is_ok_and(|url| is_loopback(&url)) {
        return Ok(journal);
    }
    let shown = without_userinfo(&journal);
    Err(Error::invalid(format!(
        "the run of {} was on {shown}, and no server is configured: give --base-url {shown} if your tokens may be sent there",
        path.display()
    )))
}

fn write_error(path: &Path, e: std::io::Error) -> Error {
    let path = path.display();
    let (kind, text) = if e.kind() == std::io::ErrorKind::AlreadyExists {
        let text = format!("another process continues the run of {path}: wait for it, or end it first");
        (ErrorKind::Conflict, text)
    } else {
        let text = format!(
            "the journal {path} cannot be written: free some space or name another folder (results_dir), and resume the run"
        );
        (ErrorKind::Storage, text)
    };
    Error::new(kind, text).with_source(e)
}

#[cfg(test)]
mod tests;
