//! The local `sendevent` program of the AutoSys client as a transport.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{FusedFuture as _, FutureExt as _};
use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::output::{CapturedOutput, ProgramResult};
use super::{Delivery, Gate, SendOutcome, SendResult, Transport, command};
use crate::autosys::event::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::http::Secret;

#[cfg(test)]
mod tests;

/// How often a program file that is being replaced (`ETXTBSY`) is tried again, and the pause between the tries.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Variables of AutoSys whose values its messages name, and which are no secrets.
const NO_SECRETS: [&str; 3] = ["AUTOSERV", "AUTOSYS", "AUTOUSER"];

/// Shortest value of a variable that is removed from outputs, in bytes. A shorter one is part of too many other words.
const SHORTEST_SECRET: usize = 4;

/// How long the rest of the output is waited for after the program has ended. Only background processes that it left can
/// keep its pipes open then.
const REST_OF_OUTPUT: Duration = Duration::from_secs(1);

/// How [`SendEvent`] calls the program.
#[derive(Debug, Clone)]
pub struct SendEventOptions {
    /// A path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Variables for the program, such as `AUTOSERV`, `AUTOSYS` and `AUTOUSER`, beside those of this process.
    pub environment: BTreeMap<String, Secret>,
    /// A shell file that sets AutoSys's variables, such as `autosys.sh.host`. It is sourced once, and every call gets the
    /// variables that it exports; `environment` has precedence.
    pub env_file: Option<PathBuf>,
    /// The program that prints a job's status; None: the `autostatus` beside `program`, if there is one.
    pub autostatus: Option<PathBuf>,
    /// The event of each status.
    pub mapping: Mapping,
    /// Time limit of one call. Then the program and its child processes are killed, and the outcome is unknown.
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
            mapping: Mapping::change_status(),
            timeout: Duration::from_secs(60),
            comment: None,
        }
    }
}

/// Sends events with the local `sendevent` program.
///
/// The program gets an argument vector and never a shell line, so that no character of a value is interpreted. Its standard
/// input is closed, so that a client that asks for a password fails instead of waiting. Exit code 0 means that the event
/// was stored, not that it was applied. An error message of AutoSys (`CAUAJM_E_…`, `_F_`, `_W_`) in the output is a failure
/// with any exit code. Without an exit code, the outcome is unknown.
pub struct SendEvent {
    options: SendEventOptions,
    autostatus: Option<PathBuf>,
    sourced: OnceCell<SourcedVariables>,
    /// The values of `environment` that no detail shows.
    secrets: Arc<[Secret]>,
}

impl fmt::Debug for SendEvent {
    /// Shows no variables of `env_file`, because they may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendEvent").field("options", &self.options).finish_non_exhaustive()
    }
}

impl SendEvent {
    /// Checks the options; runs nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for an empty program, a zero time limit, a comment that does not start with a
    /// letter or digit (it could be read as an option) or a variable name that no environment can hold.
    pub fn new(options: SendEventOptions) -> Result<Self> {
        if options.program.as_os_str().is_empty() {
            return Err(Error::invalid("the program for sendevent is empty; give its path, or omit it to search PATH"));
        }
        if options.timeout.is_zero() {
            return Err(Error::invalid("the time limit of sendevent is zero; give at least some milliseconds"));
        }
        command::check_comment(options.comment.as_deref())?;
        for (name, value) in &options.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.expose().contains('\0') {
                return Err(Error::invalid(format!(
                    "the environment variable {name:?} for sendevent has a name or value that no environment can hold"
                )));
            }
        }
        if options.env_file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            return Err(Error::invalid("the env_file for sendevent is empty; give its path, or leave it out"));
        }
        // Beside a bare name, it is looked up in `PATH` too.
        let beside = options.program.with_file_name("autostatus");
        let found = || command::find_program(&beside, std::env::var_os("PATH").as_deref()).ok();
        let autostatus = options.autostatus.clone().or_else(found);
        let hidden = options
            .environment
            .iter()
            .filter(|(name, value)| !NO_SECRETS.contains(&name.as_str()) && value.expose().len() >= SHORTEST_SECRET);
        let secrets = hidden.map(|(_, value)| value.clone()).collect();
        Ok(Self { options, autostatus, sourced: OnceCell::new(), secrets })
    }

    /// The arguments of the program, or why the delivery cannot be sent.
    fn arguments(&self, delivery: &Delivery) -> Result<Vec<String>, String> {
        command::arguments(&self.options.mapping, self.options.comment.as_deref(), delivery)
    }

    /// The variables of `env_file`, if there is one. The file is sourced once.
    ///
    /// # Errors
    /// Why it cannot be sourced. Sourcing is tried again next time.
    async fn variables(&self) -> std::result::Result<Option<SourcedVariables>, String> {
        let SendEventOptions { env_file: Some(file), environment, timeout, .. } = &self.options else {
            return Ok(None);
        };
        self.sourced.get_or_try_init(|| source(file, environment, *timeout)).await.cloned().map(Some)
    }

    /// Starts `program`, if `gate` is open at that moment: sourcing the variables can take long. On an error nothing was sent.
    async fn start(&self, program: &Path, arguments: &[String], gate: &Gate) -> Result<Child, SendOutcome> {
        let variables = self.variables().await.map_err(SendOutcome::transient)?;
        let mut tries = 0;
        loop {
            let mut command = Command::new(program);
            if let Some(variables) = &variables {
                command.env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
            }
            command
                .args(arguments)
                .envs(exposed(&self.options.environment))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .process_group(0);
            if !gate.is_open() {
                return Err(SendOutcome::NotTried);
            }
            match command.spawn() {
                Ok(child) => return Ok(child),
                Err(e) if e.kind() == IoErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                    tries += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(e) => return Err(SendOutcome::transient(command::not_started(program, &e))),
            }
        }
    }

    /// Waits for the end of the program, at most until the time limit. Background processes that it leaves are not waited
    /// for, even if they keep its output open.
    async fn finish(&self, mut child: Child) -> ProgramResult {
        let group = ProcessGroup::of(&child);
        let (mut out, mut err) = (CapturedOutput::without(&self.secrets), CapturedOutput::without(&self.secrets));
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
            group.release();
            if !reading.is_terminated() {
                let _ = tokio::time::timeout(REST_OF_OUTPUT, &mut reading).await;
            }
        } else {
            drop(group);
            // Waiting avoids a zombie process. An error means that the program has ended.
            let _ = child.kill().await;
        }
        drop(reading);
        let end = match ended {
            Ok(Ok(status)) => status.code().ok_or_else(|| format!("was ended by a signal ({status})")),
            Ok(Err(e)) => Err(format!("could not be waited for: {e}")),
            Err(_) => Err(format!("was killed at its limit of {} s", self.options.timeout.as_secs_f64())),
        };
        ProgramResult { end, out, err }
    }
}

/// A process group for the program and its child processes, so that a time limit ends all of them. Ctrl-C in a terminal does
/// not reach the group, so that a started program ends by itself. It is killed on drop, which must happen before the program was
/// waited for.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// The group of `child`, which was started as a leader.
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// Leaves the group alone, because the program has ended: another program may have the number of the group by now.
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // An error means that no process is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The file is an argument and not part of the script. `env -0` ends each variable with a NUL, because values have newlines.
const SOURCE: &str = r#"[ -r "$1" ] || exit 126; . "$1" >/dev/null 2>&1; exec env -0"#;

type SourcedVariables = Arc<Vec<(OsString, OsString)>>;

/// All variables after `file` was sourced on top of those of this process and of `given`.
///
/// # Errors
/// Why there are no variables.
async fn source(file: &Path, given: &BTreeMap<String, Secret>, limit: Duration) -> Result<SourcedVariables, String> {
    let failed = |why: String| format!("env_file {} {why}", file.display());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SOURCE, "jobrota"]).arg(file).envs(exposed(given)).stdin(Stdio::null()).kill_on_drop(true);
    let done = tokio::time::timeout(limit, command.output()).await;
    let done = done.map_err(|_| failed(format!("did not end within {} s", limit.as_secs_f64())))?;
    let done = done.map_err(|e| failed(format!("could not be sourced: {e}")))?;
    match done.status.code() {
        Some(0) => {}
        Some(126) => {
            return Err(failed("cannot be read: check that it exists and that this user may read it".to_owned()));
        }
        _ => return Err(failed(format!("ended the shell that sourced it ({})", done.status))),
    }
    let variables = done.stdout.split(|byte| *byte == 0).filter_map(|variable| {
        let at = variable.iter().position(|byte| *byte == b'=')?;
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Some((text(&variable[..at]), text(&variable[at + 1..])))
    });
    Ok(Arc::new(variables.collect()))
}

/// The variables with their values, for a child process.
fn exposed(environment: &BTreeMap<String, Secret>) -> impl Iterator<Item = (&String, &str)> {
    environment.iter().map(|(name, value)| (name, value.expose()))
}

#[async_trait]
impl Transport for SendEvent {
    fn name(&self) -> &str {
        "sendevent"
    }

    fn time_limit(&self) -> Option<Duration> {
        Some(self.options.timeout)
    }

    async fn check(&self) -> Result<()> {
        let cannot = |why: String| Error::new(ErrorKind::Delivery, format!("no event can be sent: {why}"));
        // A file that can be read is sourced again by the next cycle. A missing one is like a missing program.
        let may_pass = || self.options.env_file.as_ref().is_some_and(|file| access(file, Access::READ_OK).is_ok());
        let variables = self.variables().await.map_err(|why| cannot(why).with_retryable(may_pass()))?;
        let given = self.options.environment.get("PATH").map(|path| OsString::from(path.expose()));
        let sourced = || variables?.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
        let path = given.or_else(sourced).or_else(|| std::env::var_os("PATH"));
        let program = &self.options.program;
        let found = command::find_program(program, path.as_deref());
        found.map(drop).map_err(|file| {
            let kind = if file.is_some() { IoErrorKind::PermissionDenied } else { IoErrorKind::NotFound };
            cannot(command::not_started(program, &kind.into()))
        })
    }

    fn confirms(&self, delivery: &Delivery, status: &str) -> bool {
        self.options.mapping.confirms(&delivery.status, status)
    }

    fn describe(&self, delivery: &Delivery) -> Result<String, String> {
        Ok(format!("sendevent {}", self.arguments(delivery)?.join(" ")))
    }

    async fn send(&self, delivery: &Delivery, gate: &Gate) -> SendResult {
        let arguments = match self.arguments(delivery) {
            Ok(arguments) => arguments,
            Err(reason) => return SendOutcome::permanent(reason).into(),
        };
        match self.start(&self.options.program, &arguments, gate).await {
            Ok(child) => self.finish(child).await.outcome().into(),
            Err(outcome) => outcome.into(),
        }
    }

    fn reads_status(&self) -> bool {
        self.autostatus.is_some()
    }

    async fn status(&self, job_id: &str) -> Result<String, String> {
        let program = self.autostatus.as_deref().ok_or("there is no autostatus program")?;
        let arguments = command::status_arguments(job_id)?;
        let child = self.start(program, &arguments, &Gate::open()).await.map_err(|outcome| match outcome {
            SendOutcome::Failed { detail, .. } => detail,
            _ => "autostatus could not be started".to_owned(),
        })?;
        self.finish(child).await.status()
    }
}
