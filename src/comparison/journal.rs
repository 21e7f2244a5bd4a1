//! The journal of a run: every event on disk before what follows from it, so that a run that was killed goes on where it
//! was, and no job runs twice.
//!
//! One line of JSON for each event. Where files can be appended to, the journal is one file; where they cannot (volumes and
//! workspace files of Databricks), a folder of whole files, each written once. Events that come together are written
//! together.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::arms::{Arm, Mode};
use crate::error::{Error, ErrorKind, Result};

mod replay;
mod store;

pub use replay::{Prior, Replay};
pub use store::Kind;

/// What the journal begins with: all that has to be the same when the run goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header {
    /// Identifies the run.
    pub run_id: String,
    /// When it began.
    pub began: chrono::DateTime<chrono::Utc>,
    /// The end of every unique name.
    pub tag: String,
    /// The server.
    pub base_url: String,
    /// The arms in the order of the first round.
    pub arms: Vec<ArmEntry>,
    /// The entries of the job configs, in the order in which jobs are let in.
    pub jobs: Vec<Value>,
    /// Rounds.
    pub repeat: u32,
    /// Seconds between one arm and the next.
    pub pause: f64,
    /// The asynchronous arms' mode, as it was asked for.
    pub mode: String,
}

/// An arm as the journal has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArmEntry {
    name: String,
    context: String,
    mode: String,
    concurrent: usize,
}

impl From<&Arm> for ArmEntry {
    fn from(arm: &Arm) -> Self {
        let (name, context) = (arm.name.clone(), arm.context.clone());
        Self { name, context, mode: arm.mode.as_str().to_owned(), concurrent: arm.concurrent }
    }
}

impl ArmEntry {
    /// The arm.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the journal was written by something else.
    pub fn arm(&self) -> Result<Arm> {
        Arm::new(&self.name, &self.context, self.mode.parse::<Mode>()?, self.concurrent)
    }
}

/// A job's place in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The arm's number in the header, from 0.
    pub arm: usize,
    /// The round, from 1.
    pub round: u32,
    /// The job's place in the header's list, from 1.
    pub sequence: usize,
}

/// One line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run began.
    Run(Box<Header>),
    /// It goes on after it was interrupted.
    Resumed { at: chrono::DateTime<chrono::Utc> },
    /// A job is about to be submitted under this name.
    Submitting {
        #[serde(flatten)]
        place: Place,
        name: String,
    },
    /// The server took it.
    Submitted {
        #[serde(flatten)]
        place: Place,
        id: String,
        latency: Option<f64>,
    },
    /// Nothing follows for this job.
    Ended {
        #[serde(flatten)]
        place: Place,
        #[serde(flatten)]
        end: End,
    },
    /// It was canceled because the run was stopped.
    Dropped {
        #[serde(flatten)]
        place: Place,
    },
    /// The result was written.
    Result { path: PathBuf },
}

/// How a job ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct End {
    /// `completed`, `failed`, `canceled`, `timedOut` or `unknown`.
    pub status: String,
    /// Why it did not end well.
    pub error: Option<String>,
    /// The job as the server described it last.
    pub job: Option<Value>,
    /// Seconds from submitting to seeing the end.
    pub observed: Option<f64>,
}

/// An open journal. Clones of the events queue up and are written together by whoever comes first.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    queue: Mutex<Queue>,
    store: tokio::sync::Mutex<store::Store>,
}

#[derive(Debug, Default)]
struct Queue {
    lines: String,
    queued: u64,
    written: u64,
}

impl Journal {
    /// A new journal beside the results: `<stem>.journal.jsonl` or, of whole files, the folder `<stem>.journal`.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the folder takes none.
    pub fn create(folder: &Path, stem: &str, kind: Kind) -> Result<Self> {
        let (path, store) = store::Store::create(folder, stem, kind).map_err(|e| refused(folder, e))?;
        Ok(Self { path, queue: Mutex::default(), store: tokio::sync::Mutex::new(store) })
    }

    /// Opens the journal of an interrupted run, to go on with it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::InvalidInput`] when it is no journal, [`ErrorKind::Conflict`] when another
    /// process works with it.
    pub fn reopen(path: &Path) -> Result<(Self, Replay)> {
        let (text, store) = store::Store::reopen(path)?;
        let replay = Replay::read(&text, path)?;
        Ok((Self { path: path.to_owned(), queue: Mutex::default(), store: tokio::sync::Mutex::new(store) }, replay))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an event; it survives the end of this process when the call returns.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the folder does not take it any more.
    pub async fn write(&self, event: &Event) -> Result<()> {
        let line = serde_json::to_string(event)
            .map_err(|e| Error::new(ErrorKind::Internal, "an event is no JSON").with_source(e))?;
        let mine = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.lines.push_str(&line);
            queue.lines.push('\n');
            queue.queued += 1;
            queue.queued
        };
        let mut store = self.store.lock().await;
        let (lines, upto) = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.written >= mine {
                return Ok(());
            }
            (std::mem::take(&mut queue.lines), queue.queued)
        };
        if let Err(e) = store.write(&lines).await {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            // Part of them may be there: what is written next begins on a line of its own.
            queue.lines.insert_str(0, &format!("\n{lines}"));
            return Err(refused(&self.path, e));
        }
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).written = upto;
        Ok(())
    }
}

/// The server of the run that `path` is the journal of; what the run did is not read.
///
/// # Errors
/// [`ErrorKind::NotFound`] or [`ErrorKind::InvalidInput`] when it is no journal; no retry helps.
pub fn base_url(path: &Path) -> Result<String> {
    Ok(Replay::read(&store::Store::first_line(path)?, path)?.header.base_url)
}

fn refused(path: &Path, e: std::io::Error) -> Error {
    if e.kind() == std::io::ErrorKind::AlreadyExists {
        let text = format!("another process goes on with the run of {}: wait for it, or end it first", path.display());
        return Error::new(ErrorKind::Conflict, text).with_source(e);
    }
    let text = format!(
        "the journal {} cannot be written: make room or name another folder (results_dir), and resume the run",
        path.display()
    );
    Error::new(ErrorKind::Storage, text).with_source(e)
}

#[cfg(test)]
mod tests;
