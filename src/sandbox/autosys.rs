//! A local AutoSys: the programs `sendevent` and `autostatus`, and the web services (AEWS), over one event log. It checks events as
//! the real AutoSys does, and starts no job. Its speed says nothing about the real AutoSys.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::local_server::LocalServer;
use crate::error::{Error, ErrorKind, Result};
use crate::http::Secret;

mod spool;
#[cfg(test)]
mod tests;
mod web;

use spool::Spool;

const SENDEVENT: &str = include_str!("autosys/sendevent.sh");
const AUTOSTATUS: &str = include_str!("autosys/autostatus.sh");

/// The user of the web services.
const USER: &str = "sandbox";

/// What the simulated AutoSys is like.
#[derive(Debug, Clone, Default)]
pub struct AutosysOptions {
    /// The jobs it knows; none: it knows any job with a valid name.
    pub jobs: Option<Vec<String>>,
    /// Jobs whose first event is refused. The same event succeeds when it is sent again.
    pub refuse_first: Vec<String>,
}

/// An event that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordedEvent {
    /// When it was accepted. The programs' stamps have a resolution of 1 s, those of the web services 1 µs.
    pub at: DateTime<Utc>,
    /// `sendevent` or `web`.
    pub via: String,
    /// `CHANGE_STATUS`, `STARTJOB` or `FORCE_STARTJOB`.
    pub event: String,
    /// The job.
    pub job: String,
    /// The job's status from then on; `RUNNING` after a start event.
    pub status: String,
    /// The comment, byte for byte as it was sent as far as it is UTF-8.
    pub comment: Option<String>,
}

/// A running AutoSys. Dropping it stops the web services and makes the programs fail; the directory stays.
#[derive(Debug)]
pub struct AutosysSandbox {
    /// The directory of the two programs, for `PATH`.
    pub bin: PathBuf,
    spool: Spool,
    url: String,
    /// The password of the web services.
    password: Secret,
    _server: LocalServer,
}

impl AutosysSandbox {
    /// Writes the programs to `bin/` and the event log to `spool/` below `dir`, and serves the web services on a free
    /// port of 127.0.0.1, with a password that is generated. An existing log is continued.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a job name that AutoSys would refuse; [`ErrorKind::Storage`] when `dir` cannot be
    /// written; [`ErrorKind::Network`] when no port can be had.
    pub fn start(dir: &Path, options: AutosysOptions) -> Result<Self> {
        let AutosysOptions { jobs, refuse_first } = options;
        check_names(jobs.iter().flatten().chain(&refuse_first))?;
        let spool = Spool::create(&dir.join("spool"), jobs.as_deref(), &refuse_first)?;
        let bin = dir.join("bin");
        std::fs::create_dir_all(&bin).map_err(|e| storage(&bin, e))?;
        write_program(&bin.join("sendevent"), SENDEVENT)?;
        write_program(&bin.join("autostatus"), AUTOSTATUS)?;

        let password = Secret::from(uuid::Uuid::new_v4().simple().to_string());
        let server = LocalServer::start("AutoSys", web::router(spool.clone(), USER, &password))?;
        let url = format!("{}/AEWS", server.url());
        Ok(Self { bin, spool, url, password, _server: server })
    }

    /// The path of the `sendevent` program.
    pub fn sendevent(&self) -> PathBuf {
        self.bin.join("sendevent")
    }

    /// The path of the `autostatus` program.
    pub fn autostatus(&self) -> PathBuf {
        self.bin.join("autostatus")
    }

    /// Where the web services are, such as `http://127.0.0.1:41231/AEWS`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// User and password of the web services.
    pub fn credentials(&self) -> (&str, &str) {
        (USER, self.password.expose())
    }

    /// The accepted events, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the log cannot be read.
    pub fn events(&self) -> Result<Vec<RecordedEvent>> {
        self.spool.events()
    }

    /// The status of a job: that of its last event, `INACTIVE` before the first.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown job, [`ErrorKind::Storage`] when the log cannot be read.
    pub fn status(&self, job: &str) -> Result<String> {
        if !self.spool.knows(job) {
            return Err(Error::new(ErrorKind::NotFound, format!("the sandbox's AutoSys has no job {job:?}")));
        }
        Ok(self.spool.status(job)?.0)
    }

    /// Refuses the next event of each of these jobs. The same event succeeds when it is sent again.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a name that AutoSys would never take; [`ErrorKind::Storage`] when the directory
    /// cannot be written.
    pub fn refuse_once(&self, jobs: &[String]) -> Result<()> {
        check_names(jobs.iter())?;
        jobs.iter().try_for_each(|job| self.spool.refuse_next(job))
    }

    /// Stops or starts the event server. While it is stopped, every event is refused.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the directory cannot be written.
    pub fn set_available(&self, available: bool) -> Result<()> {
        self.spool.set_up(available)
    }
}

impl Drop for AutosysSandbox {
    fn drop(&mut self) {
        // If the directory was removed, the programs were too.
        let _ = self.spool.set_up(false);
    }
}

fn check_names<'a>(mut jobs: impl Iterator<Item = &'a String>) -> Result<()> {
    jobs.find(|job| !spool::valid_name(job)).map_or(Ok(()), |job| {
        Err(Error::invalid(format!("the sandbox's AutoSys cannot have a job {job:?}: AutoSys does not allow the name")))
    })
}

/// Writes an executable. It is moved into place, because a running program cannot be written to.
fn write_program(path: &Path, text: &str) -> Result<()> {
    let staged = path.with_extension("new");
    std::fs::write(&staged, text).map_err(|e| storage(&staged, e))?;
    std::fs::set_permissions(&staged, Permissions::from_mode(0o755)).map_err(|e| storage(&staged, e))?;
    std::fs::rename(&staged, path).map_err(|e| storage(path, e))
}

fn storage(path: &Path, error: std::io::Error) -> Error {
    let text = format!(
        "the sandbox's AutoSys could not use {}: is there room, and may this user write there?",
        path.display()
    );
    Error::new(ErrorKind::Storage, text).with_source(error)
}
