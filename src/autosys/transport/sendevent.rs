//! The local `sendevent` program of the AutoSys client as the way to AutoSys.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{FusedFuture as _, FutureExt as _};
use tokio::process::{Child, Command};

use super::{Delivery, Gate, Outcome, Sent, Transport, command};
use crate::autosys::event::Mapping;
use crate::error::{Error, Result};

mod env_file;
mod group;
pub(super) mod output;
#[cfg(test)]
mod tests;

use env_file::EnvFile;
use group::Group;
pub(super) use output::Captured;

/// How often a program file that is just being replaced (`ETXTBSY`) is tried again, and how long between.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// How long the rest of its output is waited for once the program has ended. What it wrote is in the pipes by then: only
/// processes that it left behind in the background can keep them open.
const REST_OF_OUTPUT: Duration = Duration::from_secs(1);

/// How [`SendEvent`] calls the program.
#[derive(Clone)]
pub struct SendEventOptions {
    /// A path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Variables for the program, such as `AUTOSERV`, `AUTOSYS` and `AUTOUSER`, beside those of this process.
    pub environment: BTreeMap<String, String>,
    /// A shell file that sets up AutoSys's variables, such as `autosys.sh.host`: sourced once, and what it exports is
    /// given to every call, below `environment`.
    pub env_file: Option<PathBuf>,
    /// The program that tells a job's status; None: the `autostatus` beside `program`, if there is one.
    pub autostatus: Option<PathBuf>,
    /// Which event each status stands for.
    pub mapping: Mapping,
    /// Time limit of one call; the program and all that it started are then killed, and the outcome is unknown.
    pub timeout: Duration,
    /// Text for `-C`, which starts with a letter or digit; `{file_name}` becomes the row's file name. Cut at 255
    /// characters, control characters become spaces.
    pub comment: Option<String>,
}

impl Default for SendEventOptions {
    fn default() -> Self {
        Self {
            program: PathBuf::from("sendevent"),
            environment: BTreeMap::new(),
            env_file: None,
            autostatus: None,
            mapping: Mapping::default(),
            timeout: Duration::from_secs(30),
            comment: None,
        }
    }
}

impl fmt::Debug for SendEventOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendEventOptions")
            .field("program", &self.program)
            // Values may be credentials.
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .field("env_file", &self.env_file)
            .field("autostatus", &self.autostatus)
            .field("mapping", &self.mapping)
            .field("timeout", &self.timeout)
            .field("comment", &self.comment)
            .finish()
    }
}

/// Sends events with the local `sendevent` program.
///
/// The program gets an argument vector and never a shell line, so no character of a value is interpreted; its standard
/// input is closed, so that a client that wants to ask for a password fails instead of waiting. Exit code 0 means that
/// the event was stored, not that it was applied; an error message of AutoSys (`CAUAJM_E_…`, `_F_`, `_W_`) in the output
/// is a failure whatever the exit code says.
#[derive(Debug)]
pub struct SendEvent {
    options: SendEventOptions,
    autostatus: Option<PathBuf>,
    sourced: EnvFile,
}

impl SendEvent {
    /// Checks the options; runs nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for an empty program, a zero time limit, a comment that does not start with a
    /// letter or digit (it could be read as an option) or a variable name that no environment can hold.
    pub fn new(options: SendEventOptions) -> Result<Self> {
        if options.program.as_os_str().is_empty() {
            return Err(Error::invalid("the program for sendevent is empty; give its path, or leave it out for PATH"));
        }
        if options.timeout.is_zero() {
            return Err(Error::invalid("the time limit of sendevent is zero; give at least some milliseconds"));
        }
        command::check_comment(options.comment.as_deref())?;
        for (name, value) in &options.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(Error::invalid(format!(
                    "the environment variable {name:?} for sendevent has a name or value that no environment can hold"
                )));
            }
        }
        if options.env_file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            return Err(Error::invalid("the env_file for sendevent is empty; give its path, or leave it out"));
        }
        let autostatus = options.autostatus.clone().or_else(|| beside(&options.program, "autostatus"));
        Ok(Self { options, autostatus, sourced: EnvFile::default() })
    }

    /// The argument vector after the program, or why there is none.
    fn arguments(&self, delivery: &Delivery) -> Result<Vec<String>, String> {
        command::arguments(&self.options.mapping, self.options.comment.as_deref(), delivery)
    }

    /// Starts `program`. Nothing was sent when this fails.
    async fn start(&self, program: &Path, arguments: &[String]) -> Result<Child, Outcome> {
        let variables = match &self.options.env_file {
            Some(file) => Some(self.sourced.variables(file, &self.options.environment, self.options.timeout).await?),
            None => None,
        };
        let mut tries = 0;
        loop {
            let mut command = Command::new(program);
            if let Some(variables) = &variables {
                command.env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
            }
            command
                .args(arguments)
                .envs(&self.options.environment)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true);
            Group::lead(&mut command);
            match command.spawn() {
                Ok(child) => return Ok(child),
                Err(e) if e.kind() == IoErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                    tries += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(e) => {
                    let program = program.display();
                    return Err(Outcome::transient(match e.kind() {
                        IoErrorKind::NotFound => format!(
                            "program {program} was not found: install the AutoSys client, put it in PATH or give its path"
                        ),
                        IoErrorKind::PermissionDenied => {
                            format!("program {program} may not be run: give this user execute permission")
                        }
                        _ => format!("program {program} could not be started: {e}"),
                    }));
                }
            }
        }
    }

    /// Waits for the end of the program, at most for the time limit. Processes that it leaves behind are not waited for,
    /// even if they hold its output open.
    async fn finish(&self, mut child: Child) -> Finished {
        let group = Group::of(&child);
        let (mut out, mut err) = (Captured::default(), Captured::default());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut reading = Box::pin(async { tokio::try_join!(out.read(stdout), err.read(stderr)).map(|_| ()) }.fuse());
        let ended = tokio::time::timeout(self.options.timeout, async {
            let mut read = Ok(());
            loop {
                tokio::select! {
                    status = child.wait() => return read.and(status),
                    result = &mut reading => read = result,
                }
            }
        })
        .await;
        if ended.is_ok() {
            group.spare();
            if !reading.is_terminated() {
                let _ = tokio::time::timeout(REST_OF_OUTPUT, &mut reading).await;
            }
        } else {
            group.kill();
            // Waited for, so that no zombie stays; an error means that it has ended by itself.
            let _ = child.kill().await;
        }
        drop(reading);
        let end = match ended {
            Ok(Ok(status)) => status.code().ok_or_else(|| format!("was ended by a signal ({status})")),
            Ok(Err(e)) => Err(format!("could not be watched: {e}")),
            Err(_) => Err(format!("was killed at its limit of {} s", self.options.timeout.as_secs_f64())),
        };
        Finished { end, out, err }
    }
}

/// A program that has ended.
struct Finished {
    /// Its exit code, or why there is none.
    end: Result<i32, String>,
    out: Captured,
    err: Captured,
}

/// The program `name` in the directory of `program`, or in `PATH` where `program` is a bare name; None where it is not.
fn beside(program: &Path, name: &str) -> Option<PathBuf> {
    let directory = program.parent()?;
    if !directory.as_os_str().is_empty() {
        return Some(directory.join(name)).filter(|path| path.is_file());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|path| path.join(name)).find(|path| path.is_file())
}

#[async_trait]
impl Transport for SendEvent {
    fn name(&self) -> &str {
        "sendevent"
    }

    fn check(&self, delivery: &Delivery) -> Result<(), String> {
        self.arguments(delivery).map(|_| ())
    }

    fn shows(&self, delivery: &Delivery, status: &str) -> bool {
        self.options.mapping.shows(&delivery.status, status)
    }

    fn describe(&self, delivery: &Delivery) -> String {
        match self.arguments(delivery) {
            Ok(arguments) => format!("sendevent {}", arguments.join(" ")),
            Err(reason) => reason,
        }
    }

    async fn send(&self, delivery: &Delivery, _gate: &Gate) -> Sent {
        let arguments = match self.arguments(delivery) {
            Ok(arguments) => arguments,
            Err(reason) => return Outcome::permanent(reason).into(),
        };
        match self.start(&self.options.program, &arguments).await {
            Ok(child) => {
                let Finished { end, out, err } = self.finish(child).await;
                verdict("sendevent", end, &out, &err).into()
            }
            Err(outcome) => outcome.into(),
        }
    }

    fn reads_status(&self) -> bool {
        self.autostatus.is_some()
    }

    async fn status(&self, job_id: &str) -> Result<String, String> {
        let program = self.autostatus.as_deref().ok_or("there is no autostatus program")?;
        let arguments = command::status_arguments(job_id)?;
        let child = self.start(program, &arguments).await.map_err(|outcome| match outcome {
            Outcome::Failed { detail, .. } => detail,
            _ => "autostatus could not be started".to_owned(),
        })?;
        let Finished { end, out, err } = self.finish(child).await;
        told(end, &out, &err)
    }
}

/// What the end of `sendevent` means: its exit code, or why there is none, and what it printed.
pub(super) fn verdict(name: &str, end: Result<i32, String>, out: &Captured, err: &Captured) -> Outcome {
    // An unknown job stays unknown, and a user without authority has none the next time either. The texts are from clients
    // in use, as the vendor's code list is not public.
    let permanent = out.invalid_job() || err.invalid_job() || out.no_authority() || err.no_authority();
    if let Some(code) = err.error_code().or_else(|| out.error_code()) {
        return Outcome::Failed { detail: with_output(&format!("AutoSys said {code}"), out, err), permanent };
    }
    match end {
        Ok(0) => Outcome::Delivered { detail: Some(with_output("", out, err)).filter(|text| !text.is_empty()) },
        Ok(code) => {
            Outcome::Failed { detail: with_output(&format!("{name} ended with exit code {code}"), out, err), permanent }
        }
        Err(why) => Outcome::unknown(with_output(&format!("{name} {why}"), out, err)),
    }
}

/// The status that `autostatus` printed: one word, such as `SUCCESS` or `SUCCESS/ON_NOEXEC`.
pub(super) fn told(end: Result<i32, String>, out: &Captured, err: &Captured) -> Result<String, String> {
    let text = out.text();
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b"_/".contains(&b));
    match end {
        Ok(0) if is_word(&text) => Ok(text),
        Ok(code) => Err(with_output(&format!("autostatus told no status (exit code {code})"), out, err)),
        Err(why) => Err(with_output(&format!("autostatus {why}"), out, err)),
    }
}

fn with_output(text: &str, out: &Captured, err: &Captured) -> String {
    [text, &err.text(), &out.text()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}
