//! SSH as the way to AutoSys: `sendevent` on a VM that a selector picks.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use russh::keys::{PrivateKey, load_secret_key};
use tokio::sync::Mutex;

use super::sendevent::{told, verdict};
use super::{Delivery, Gate, Outcome, Sent, Transport, command, shell};
use crate::autosys::event::Mapping;
use crate::error::{Error, Result};
use crate::selection::{RoundRobinSelector, Selection};

mod connection;
mod known_hosts;

use connection::{Connection, Login, Ran};
use known_hosts::Host;

/// Exit codes of shells for a program that may not be run, or is not there.
const NOT_RUN: [u32; 2] = [126, 127];

/// How [`Ssh`] gets to a VM, and what it runs there. More options will come: start from [`SshOptions::new`].
#[derive(Clone)]
#[non_exhaustive]
pub struct SshOptions {
    /// Who logs in.
    pub user: String,
    /// Where sshd listens.
    pub port: u16,
    /// A private key in OpenSSH's, PKCS#8 or PEM format; None: the keys of the agent at `agent`.
    pub key_file: Option<PathBuf>,
    /// What `key_file` is encrypted with.
    pub key_passphrase: Option<String>,
    /// The agent's socket; None: that of `SSH_AUTH_SOCK`.
    pub agent: Option<PathBuf>,
    /// The keys of hosts, as OpenSSH keeps them; None: `.ssh/known_hosts` in the home directory.
    pub known_hosts: Option<PathBuf>,
    /// The program there.
    pub program: String,
    /// The program there that tells a job's status; None: it is not asked for.
    pub autostatus: Option<String>,
    /// A shell file there that is sourced before each call.
    pub env_file: Option<String>,
    /// The user there who runs the program, through sudo; None: who logs in.
    pub run_as: Option<String>,
    /// Which event each status stands for.
    pub mapping: Mapping,
    /// Text for `-C`, as in [`super::sendevent::SendEventOptions`].
    pub comment: Option<String>,
    /// How long connecting and logging in may take.
    pub connect_timeout: Duration,
    /// How long one command may take.
    pub timeout: Duration,
    /// How many commands may run at a time on one VM. sshd allows 10 (`MaxSessions`) unless told otherwise.
    pub sessions: usize,
    /// How many rows go to one VM before the selector picks the next one.
    pub batch: usize,
}

impl SshOptions {
    /// The usual ones, for `user`.
    pub fn new(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            port: 22,
            key_file: None,
            key_passphrase: None,
            agent: None,
            known_hosts: None,
            program: "sendevent".to_owned(),
            autostatus: Some("autostatus".to_owned()),
            env_file: None,
            run_as: None,
            mapping: Mapping::default(),
            comment: None,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            sessions: 8,
            batch: 32,
        }
    }

    fn check(&self) -> Result<()> {
        let empty = [
            ("user", Some(&self.user)),
            ("program", Some(&self.program)),
            ("autostatus", self.autostatus.as_ref()),
            ("env_file", self.env_file.as_ref()),
            ("run_as", self.run_as.as_ref()),
        ];
        if let Some((name, _)) = empty.iter().find(|(_, value)| value.is_some_and(|value| value.is_empty())) {
            return Err(Error::invalid(format!("{name} is empty; give a value, or leave it out")));
        }
        if let Some((name, _)) =
            empty.iter().find(|(_, value)| value.is_some_and(|value| value.contains(char::is_control)))
        {
            return Err(Error::invalid(format!("{name} has a control character, which no file and no user has")));
        }
        if self.run_as.as_ref().is_some_and(|user| user.starts_with('-')) || self.user.starts_with('-') {
            return Err(Error::invalid("a user name that starts with '-' could be taken for an option"));
        }
        if self.sessions == 0 || self.batch == 0 {
            return Err(Error::invalid("sessions and batch must be at least 1"));
        }
        if self.timeout.is_zero() || self.connect_timeout.is_zero() {
            return Err(Error::invalid("timeout and connect_timeout must be more than 0"));
        }
        if self.key_passphrase.is_some() && self.key_file.is_none() {
            return Err(Error::invalid("key_passphrase is for key_file, which is not given"));
        }
        command::check_comment(self.comment.as_deref())
    }
}

impl fmt::Debug for SshOptions {
    /// Without the passphrase.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshOptions")
            .field("user", &self.user)
            .field("port", &self.port)
            .field("key_file", &self.key_file)
            .field("known_hosts", &self.known_hosts)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// Sends events with the `sendevent` program on VMs that a selector picks in turn, one for each batch.
///
/// There is one connection to each VM, which is kept and used again; each event is a command of its own on it, with an
/// exit code and an output of its own. Every value is quoted for the shell on the other side, so that no character of it is
/// interpreted. A VM that cannot be used (it does not let us in, its key is not known, it has no `sendevent`) hands what was
/// not sent to the next one.
pub struct Ssh {
    selector: RoundRobinSelector,
    options: SshOptions,
    known_hosts: PathBuf,
    login: Login,
    connections: Mutex<HashMap<String, Arc<Slot>>>,
}

/// The connection to one VM, once there is one.
type Slot = Mutex<Option<Arc<Connection>>>;

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What became of one event on one VM.
enum Went {
    Over(Outcome),
    /// Surely nothing was sent, for this reason of the VM's.
    NextVm(String),
}

impl Ssh {
    /// Checks the options and reads the key; connects to nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for options that can never work, a key file that cannot be read or that others may
    /// read, a wrong passphrase, or neither a key nor an agent.
    pub fn new(selector: RoundRobinSelector, options: SshOptions) -> Result<Self> {
        options.check()?;
        let known_hosts = match &options.known_hosts {
            Some(file) => file.clone(),
            None => std::env::home_dir()
                .map(|home| home.join(".ssh/known_hosts"))
                .ok_or_else(|| Error::invalid("there is no home directory with known hosts; give known_hosts"))?,
        };
        let login = login(&options)?;
        Ok(Self { selector, options, known_hosts, login, connections: Mutex::default() })
    }

    /// The connection to a VM: that from before, or a new one.
    async fn connection(&self, selection: &Selection) -> Result<Arc<Connection>, String> {
        let slot = Arc::clone(self.connections.lock().await.entry(selection.vm.clone()).or_default());
        // Held while connecting: whoever else wants this VM waits for the same connection.
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        *slot = None;
        let names = vec![selection.vm.clone(), selection.ip_address.clone()];
        let host = Host { names, port: self.options.port, file: self.known_hosts.clone() };
        let SshOptions { user, sessions, connect_timeout, .. } = &self.options;
        let opened =
            Connection::open(&selection.ip_address, host, user, &self.login, *sessions, *connect_timeout).await?;
        let opened = Arc::new(opened);
        *slot = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// A connection that is open already, to whichever VM.
    async fn open_connection(&self) -> Option<Arc<Connection>> {
        let connections = self.connections.lock().await;
        // One that is just being opened is not waited for.
        let open = connections.values().filter_map(|slot| slot.try_lock().ok()?.clone());
        let mut open = open.filter(|connection| !connection.is_closed());
        open.next()
    }

    fn arguments(&self, delivery: &Delivery) -> Result<Vec<String>, String> {
        command::arguments(&self.options.mapping, self.options.comment.as_deref(), delivery)
    }

    fn line(&self, program: &str, arguments: &[String]) -> String {
        shell::line(self.options.env_file.as_deref(), self.options.run_as.as_deref(), program, arguments)
    }

    /// Runs `sendevent` with `arguments` on `connection`.
    async fn run(&self, connection: &Connection, arguments: &[String], gate: &Gate) -> Went {
        let line = self.line(&self.options.program, arguments);
        match connection.run(&line, gate, self.options.timeout).await {
            Ran::Ended { code, err, .. } if NOT_RUN.contains(&code) && err.error_code().is_none() => {
                let program = &self.options.program;
                Went::NextVm(format!("{program} cannot be run there (exit code {code}): {}", err.text()))
            }
            Ran::Ended { code, out, err } => {
                let code = i32::try_from(code).unwrap_or(i32::MAX);
                Went::Over(verdict("sendevent", Ok(code), &out, &err))
            }
            Ran::NotStarted(why) => Went::NextVm(why),
            Ran::Closed => Went::Over(Outcome::not_tried("the delivery was stopped before its turn")),
            Ran::Unknown { why, out, err } => {
                Went::Over(verdict("sendevent", Err(format!("may have run: {why}")), &out, &err))
            }
        }
    }

    /// The next VM that is not in `failed`, or why there is none.
    async fn next(&self, failed: &[(String, String)]) -> Result<Selection, Outcome> {
        let reasons = failed.iter().map(|(vm, why)| format!("{vm}: {why}")).collect::<Vec<_>>().join("; ");
        if failed.len() >= self.selector.inventory().vms().len() {
            return Err(Outcome::transient(format!("no VM could run the command: {reasons}")));
        }
        let tried: Vec<String> = failed.iter().map(|(vm, _)| vm.clone()).collect();
        self.selector.select(&tried).await.map_err(|error| {
            let before = if reasons.is_empty() { String::new() } else { format!("{reasons}; ") };
            let more: Vec<String> = error.failures().iter().map(|(vm, why)| format!("{vm}: {why}")).collect();
            let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join("; ")) };
            Outcome::transient(format!("{before}{error}{more}"))
        })
    }

    async fn report(&self, vm: &str, ok: bool) {
        if let Err(error) = self.selector.report(vm, ok).await {
            tracing::warn!(vm, %error, "what happened on the VM could not be reported to the selector");
        }
    }
}

#[async_trait]
impl Transport for Ssh {
    fn name(&self) -> &str {
        "ssh"
    }

    fn check(&self, delivery: &Delivery) -> std::result::Result<(), String> {
        self.arguments(delivery).map(|_| ())
    }

    fn describe(&self, delivery: &Delivery) -> String {
        match self.arguments(delivery) {
            Ok(arguments) => format!("ssh {}@… sendevent {}", self.options.user, arguments.join(" ")),
            Err(reason) => reason,
        }
    }

    fn at_once(&self) -> usize {
        self.selector.inventory().vms().len()
    }

    fn batch(&self) -> usize {
        self.options.batch
    }

    async fn send(&self, delivery: &Delivery, gate: &Gate) -> Sent {
        let sent = self.send_batch(std::slice::from_ref(delivery), gate).await.pop();
        sent.unwrap_or_else(|| Outcome::unknown("no answer").into())
    }

    async fn send_batch(&self, deliveries: &[Delivery], gate: &Gate) -> Vec<Sent> {
        let mut answers: Vec<Option<Sent>> = vec![None; deliveries.len()];
        let mut left: Vec<(usize, Vec<String>)> = Vec::new();
        for (at, delivery) in deliveries.iter().enumerate() {
            match self.arguments(delivery) {
                Ok(arguments) => left.push((at, arguments)),
                Err(reason) => answers[at] = Some(Outcome::permanent(reason).into()),
            }
        }
        let mut failed: Vec<(String, String)> = Vec::new();
        while !left.is_empty() {
            let selection = match self.next(&failed).await {
                Ok(selection) => selection,
                Err(outcome) => {
                    left.drain(..).for_each(|(at, _)| answers[at] = Some(outcome.clone().into()));
                    break;
                }
            };
            let vm = selection.vm.clone();
            let went = match self.connection(&selection).await {
                Ok(connection) => {
                    join_all(left.iter().map(|(_, arguments)| self.run(&connection, arguments, gate))).await
                }
                Err(why) => left.iter().map(|_| Went::NextVm(why.clone())).collect(),
            };
            let mut reason = None;
            let (mut open, mut ran) = (Vec::new(), false);
            for ((at, arguments), went) in left.drain(..).zip(went) {
                match went {
                    Went::Over(outcome) => {
                        ran |= !matches!(outcome, Outcome::NotTried { .. });
                        answers[at] = Some(Sent { outcome, vm: Some(vm.clone()) });
                    }
                    Went::NextVm(why) => {
                        reason = Some(why);
                        open.push((at, arguments));
                    }
                }
            }
            left = open;
            if ran || reason.is_some() {
                self.report(&vm, reason.is_none()).await;
            }
            if let Some(reason) = reason {
                tracing::warn!(vm, reason, "the VM did not run the command; the next one is tried");
                failed.push((vm, reason));
            }
        }
        answers.into_iter().map(|sent| sent.unwrap_or_else(|| Outcome::unknown("no answer").into())).collect()
    }

    fn reads_status(&self) -> bool {
        self.options.autostatus.is_some()
    }

    async fn status(&self, job_id: &str) -> std::result::Result<String, String> {
        let program = self.options.autostatus.as_deref().ok_or("there is no autostatus program")?;
        let line = self.line(program, &command::status_arguments(job_id)?);
        // Looking is no turn of anybody's: a connection that is there already will do.
        let connection = match self.open_connection().await {
            Some(connection) => connection,
            None => {
                let selection = self.selector.select(&[]).await.map_err(|e| e.full_message())?;
                self.connection(&selection).await?
            }
        };
        match connection.run(&line, &Gate::open(), self.options.timeout).await {
            Ran::Ended { code, out, err } => told(Ok(i32::try_from(code).unwrap_or(i32::MAX)), &out, &err),
            Ran::Unknown { why, out, err } => told(Err(why), &out, &err),
            Ran::NotStarted(why) => Err(why),
            Ran::Closed => Err("it was not asked".to_owned()),
        }
    }

    fn shows(&self, delivery: &Delivery, status: &str) -> bool {
        self.options.mapping.shows(&delivery.status, status)
    }
}

/// The key, or the agent that has one.
fn login(options: &SshOptions) -> Result<Login> {
    if let Some(file) = &options.key_file {
        return key(file, options.key_passphrase.as_deref()).map(|key| Login::Key(Arc::new(key)));
    }
    let socket = options.agent.clone().or_else(|| std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from));
    socket.filter(|socket| !socket.as_os_str().is_empty()).map(Login::Agent).ok_or_else(|| {
        Error::invalid("there is neither a key_file nor an SSH agent (SSH_AUTH_SOCK) to log in with; give one of them")
    })
}

fn key(file: &Path, passphrase: Option<&str>) -> Result<PrivateKey> {
    let shown = file.display();
    let about = std::fs::metadata(file)
        .map_err(|e| Error::invalid(format!("key_file {shown} cannot be read")).with_source(e))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = about.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::invalid(format!(
                "key_file {shown} can be read by others (mode {mode:o}), so it is not used, as ssh does not either; chmod 600 it"
            )));
        }
    }
    load_secret_key(file, passphrase).map_err(|e| {
        let what = match (&e, passphrase) {
            (russh::keys::Error::KeyIsEncrypted, _) => "is encrypted; give key_passphrase",
            (_, Some(_)) => "cannot be opened with this key_passphrase, or is no private key",
            (_, None) => "is no private key, or is encrypted; give key_passphrase then",
        };
        Error::invalid(format!("key_file {shown} {what}"))
    })
}
