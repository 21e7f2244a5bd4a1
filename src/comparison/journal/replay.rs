//! What a journal tells about an interrupted run.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{End, Event, Header, Place};
use crate::error::{Error, Result};

/// How far a job had come.
#[derive(Debug, Clone)]
pub enum Prior {
    /// It may have been submitted under this name.
    Submitting(String),
    /// The server took it: its name, its id and the seconds that took.
    Submitted(String, String, Option<f64>),
    /// It was canceled when the run was stopped; this many times by now.
    Again(u32),
    /// It ended.
    Ended(String, Option<f64>, End),
}

/// An interrupted run.
#[derive(Debug)]
pub struct Replay {
    /// What was to run.
    pub header: Header,
    /// How far each job had come that had begun.
    pub jobs: HashMap<Place, Prior>,
    /// How often the run was resumed before.
    pub resumed: u32,
    /// The arms' rounds, by arm and round, that were done in two parts or more: their makespans say nothing.
    pub torn: HashSet<(usize, u32)>,
    /// The result, where all jobs had ended when it was written.
    pub result: Option<PathBuf>,
}

impl Replay {
    /// Of a run that begins.
    pub fn new(header: Header) -> Self {
        Self { header, jobs: HashMap::new(), resumed: 0, torn: HashSet::new(), result: None }
    }

    /// Notes that the run goes on from here: what has begun and not ended by now is done in parts.
    pub fn resume(&mut self) {
        self.resumed += 1;
        self.result = None;
        let mut begun: HashMap<(usize, u32), usize> = HashMap::new();
        for (place, prior) in &self.jobs {
            *begun.entry((place.arm, place.round)).or_insert(0) += usize::from(matches!(prior, Prior::Ended(..)));
        }
        let all = self.header.jobs.len();
        self.torn.extend(begun.into_iter().filter(|(_, ended)| *ended < all).map(|(place, _)| place));
    }

    /// Whether every job of every arm and round has ended.
    fn is_done(&self) -> bool {
        let ended = self.jobs.values().filter(|prior| matches!(prior, Prior::Ended(..))).count();
        ended == self.header.jobs.len() * self.header.arms.len() * self.header.repeat as usize
    }

    /// Reads the lines; a last line that was cut off is left out.
    pub(super) fn read(text: &str, path: &Path) -> Result<Self> {
        let refused = |why: &str| Error::invalid(format!("{} is no journal of a comparison: {why}", path.display()));
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let header = match lines.next().map(serde_json::from_str) {
            Some(Ok(Event::Run(header))) => *header,
            Some(Err(e)) => return Err(refused("its first line is not the beginning of a run").with_source(e)),
            _ => return Err(refused("its first line is not the beginning of a run")),
        };
        let mut replay = Self::new(header);
        let mut dropped: HashMap<Place, u32> = HashMap::new();
        for line in lines {
            // Half a line is what a kill leaves; the event had not happened then.
            let Ok(event) = serde_json::from_str::<Event>(line) else { continue };
            let jobs = &mut replay.jobs;
            match event {
                Event::Submitting { place, name } => {
                    jobs.insert(place, Prior::Submitting(name));
                }
                Event::Submitted { place, id, latency } => {
                    if let Some(Prior::Submitting(name) | Prior::Submitted(name, ..)) = jobs.get(&place).cloned() {
                        jobs.insert(place, Prior::Submitted(name, id, latency));
                    }
                }
                Event::Ended { place, end } => {
                    let known = match jobs.get(&place) {
                        Some(Prior::Submitting(name)) => Some((name.clone(), None)),
                        Some(Prior::Submitted(name, _, latency) | Prior::Ended(name, latency, _)) => {
                            Some((name.clone(), *latency))
                        }
                        Some(Prior::Again(_)) | None => None,
                    };
                    if let Some((name, latency)) = known {
                        jobs.insert(place, Prior::Ended(name, latency, end));
                    }
                }
                Event::Dropped { place } => {
                    let times = dropped.entry(place).or_insert(0);
                    *times += 1;
                    jobs.insert(place, Prior::Again(*times));
                }
                Event::Resumed { .. } => replay.resume(),
                Event::Result { path } => replay.result = replay.is_done().then_some(path),
                Event::Run(_) => {}
            }
        }
        Ok(replay)
    }
}
