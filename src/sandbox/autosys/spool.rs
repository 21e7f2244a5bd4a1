//! The event server: a directory that the programs and the web services share.
//!
//! `events` is the log: one line of six tab-separated fields per event. `up` exists while the server runs. `any_job` exists where
//! every job is known; else each known job has `jobs/j_<name>`. `refuse/j_<name>` makes the next event of a job fail: the process
//! that removes it refuses the event.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};

use super::{RecordedEvent, storage};
use crate::error::Result;

/// A handle on the directory.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    dir: PathBuf,
}

impl Spool {
    pub(super) fn create(dir: &Path, jobs: Option<&[String]>, refused: &[String]) -> Result<Self> {
        let spool = Self { dir: dir.to_owned() };
        for name in ["jobs", "refuse"] {
            // The jobs of an earlier run do not count.
            let path = dir.join(name);
            match fs::remove_dir_all(&path) {
                Err(e) if e.kind() != IoErrorKind::NotFound => return Err(storage(&path, e)),
                _ => fs::create_dir_all(&path).map_err(|e| storage(&path, e))?,
            }
        }
        spool.mark(Path::new("any_job"), jobs.is_none())?;
        for job in jobs.unwrap_or_default() {
            spool.mark(&job_file("jobs", job), true)?;
        }
        for job in refused {
            spool.refuse_next(job)?;
        }
        OpenOptions::new().create(true).append(true).open(spool.log()).map_err(|e| storage(&spool.log(), e))?;
        spool.set_up(true)?;
        Ok(spool)
    }

    pub(super) fn set_up(&self, up: bool) -> Result<()> {
        self.mark(Path::new("up"), up)
    }

    pub(super) fn is_up(&self) -> bool {
        self.dir.join("up").exists()
    }

    pub(super) fn knows(&self, job: &str) -> bool {
        valid_name(job) && (self.dir.join("any_job").exists() || self.dir.join(job_file("jobs", job)).exists())
    }

    /// Makes the next event of `job` fail.
    pub(super) fn refuse_next(&self, job: &str) -> Result<()> {
        self.mark(&job_file("refuse", job), true)
    }

    /// Whether this event is refused. Of several at the same time, exactly one is.
    pub(super) fn refuses(&self, job: &str) -> bool {
        fs::remove_file(self.dir.join(job_file("refuse", job))).is_ok()
    }

    /// Appends an event that was checked before.
    pub(super) fn append(&self, via: &str, event: &str, job: &str, status: &str, comment: Option<&str>) -> Result<()> {
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        let comment = comment.map_or_else(|| "-".to_owned(), |text| format!("x{}", hex(text.as_bytes())));
        let line = format!("{at}\t{via}\t{event}\t{job}\t{status}\t{comment}\n");
        // One write to a file that is open for appending, so that lines of several processes do not mix.
        OpenOptions::new()
            .append(true)
            .open(self.log())
            .and_then(|mut log| log.write_all(line.as_bytes()))
            .map_err(|e| storage(&self.log(), e))
    }

    pub(super) fn events(&self) -> Result<Vec<RecordedEvent>> {
        let text = fs::read_to_string(self.log()).map_err(|e| storage(&self.log(), e))?;
        // A last line without its end is still being written.
        Ok(text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).filter_map(parse).collect())
    }

    /// The status of a job, and when it got it: that of its last event, `INACTIVE` before the first.
    pub(super) fn status(&self, job: &str) -> Result<(String, Option<DateTime<Utc>>)> {
        let last = self.events()?.into_iter().rfind(|event| event.job == job);
        Ok(last.map_or_else(|| ("INACTIVE".to_owned(), None), |event| (event.status, Some(event.at))))
    }

    fn log(&self) -> PathBuf {
        self.dir.join("events")
    }

    fn mark(&self, name: &Path, there: bool) -> Result<()> {
        let path = self.dir.join(name);
        let done = if there { fs::write(&path, "") } else { fs::remove_file(&path) };
        match done {
            Err(e) if there || e.kind() != IoErrorKind::NotFound => Err(storage(&path, e)),
            _ => Ok(()),
        }
    }
}

/// The name rules of AutoSys. They are written a second time on purpose, because a check shared with the sender could not find
/// a defect in it.
pub(super) fn valid_name(job: &str) -> bool {
    (1..=64).contains(&job.len())
        && job.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'#' | b'-'))
}

/// The prefix keeps the names `.` and `..`, which AutoSys allows, from being directories.
fn job_file(kind: &str, job: &str) -> PathBuf {
    Path::new(kind).join(format!("j_{job}"))
}

fn parse(line: &str) -> Option<RecordedEvent> {
    let mut fields = line.split('\t');
    let at = DateTime::parse_from_rfc3339(fields.next()?).ok()?.with_timezone(&Utc);
    let mut next = || fields.next().map(str::to_owned);
    let (via, event, job, status) = (next()?, next()?, next()?, next()?);
    let comment = next()?.strip_prefix('x').map(|digits| String::from_utf8_lossy(&unhex(digits)).into_owned());
    Some(RecordedEvent { at, via, event, job, status, comment })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter_map(|b| char::from(b).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
