//! The state of an interrupted run, from its journal.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{JobEnd, JobKey, JournalEvent, JournalHeader};
use crate::error::{Error, Result};

/// The state in which an interrupted run left a job.
#[derive(Debug, Clone)]
pub enum PriorState {
    /// It may have been submitted under this name.
    Submitting(String),
    /// The server accepted it: name, id and submit latency.
    Submitted(String, String, Option<f64>),
    /// It was canceled because the run was stopped, this many times so far.
    Canceled(u32),
    /// It ended: name, submit latency and end.
    Ended(String, Option<f64>, JobEnd),
}

/// A run as far as its journal goes.
#[derive(Debug)]
pub struct Replay {
    /// The plan of the run.
    pub header: JournalHeader,
    /// The jobs that had begun.
    pub jobs: HashMap<JobKey, PriorState>,
    /// How often the run was resumed before.
    pub resumed: u32,
    /// Rounds (arm and round) that were interrupted and resumed. Their makespans are not comparable.
    pub split_rounds: HashSet<(usize, u32)>,
    /// The result, if all jobs had ended when it was written.
    pub result: Option<PathBuf>,
}

impl Replay {
    /// A run that begins.
    pub fn new(header: JournalHeader) -> Self {
        Self { header, jobs: HashMap::new(), resumed: 0, split_rounds: HashSet::new(), result: None }
    }

    /// The run continues now: rounds that have begun and not ended become split rounds.
    pub fn resume(&mut self) {
        self.resumed += 1;
        self.result = None;
        let mut ended: HashMap<(usize, u32), usize> = HashMap::new();
        for (key, prior) in &self.jobs {
            *ended.entry((key.arm, key.round)).or_insert(0) += usize::from(matches!(prior, PriorState::Ended(..)));
        }
        let all = self.header.jobs.len();
        self.split_rounds.extend(ended.into_iter().filter(|(_, ended)| *ended < all).map(|(round, _)| round));
    }

    /// Whether every job of every arm and round has ended.
    fn is_done(&self) -> bool {
        let ended = self.jobs.values().filter(|prior| matches!(prior, PriorState::Ended(..))).count();
        ended == self.header.jobs.len() * self.header.arms.len() * self.header.repeat as usize
    }

    /// Reads the lines of the journal `path`.
    pub(super) fn read(text: &str, path: &Path) -> Result<Self> {
        let refused = || {
            let path = path.display();
            Error::invalid(format!("{path} is not the journal of a comparison: its first line is not a run header"))
        };
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let mut replay = match lines.next().map(serde_json::from_str) {
            Some(Ok(JournalEvent::Run(header))) => Self::new(*header),
            Some(Err(e)) => return Err(refused().with_source(e)),
            _ => return Err(refused()),
        };
        let mut dropped: HashMap<JobKey, u32> = HashMap::new();
        for line in lines {
            // A process that was killed can leave a partial line. Its event had no consequences yet.
            let Ok(event) = serde_json::from_str::<JournalEvent>(line) else { continue };
            let jobs = &mut replay.jobs;
            match event {
                JournalEvent::Submitting { key, name } => {
                    jobs.insert(key, PriorState::Submitting(name));
                }
                JournalEvent::Submitted { key, id, latency } => {
                    if let Some(PriorState::Submitting(name) | PriorState::Submitted(name, ..)) =
                        jobs.get(&key).cloned()
                    {
                        jobs.insert(key, PriorState::Submitted(name, id, latency));
                    }
                }
                JournalEvent::Ended { key, end } => match jobs.get(&key).cloned() {
                    Some(PriorState::Submitting(name)) => {
                        jobs.insert(key, PriorState::Ended(name, None, end));
                    }
                    Some(PriorState::Submitted(name, _, latency) | PriorState::Ended(name, latency, _)) => {
                        jobs.insert(key, PriorState::Ended(name, latency, end));
                    }
                    Some(PriorState::Canceled(_)) | None => {}
                },
                JournalEvent::Dropped { key } => {
                    let times = dropped.entry(key).or_insert(0);
                    *times += 1;
                    jobs.insert(key, PriorState::Canceled(*times));
                }
                JournalEvent::Resumed { .. } => replay.resume(),
                JournalEvent::Result { path } => replay.result = replay.is_done().then_some(path),
                JournalEvent::Run(_) => {}
            }
        }
        Ok(replay)
    }
}
