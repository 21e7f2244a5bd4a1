//! SSH as a transport: `sendevent` on a VM that a selector picks.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use russh::keys::{PrivateKey, load_secret_key};
use tokio::sync::Mutex;

use super::output::ProgramResult;
use super::vms::VmAttempts;
use super::{Delivery, Gate, Outcome, Sent, Transport, command, shell};
use crate::autosys::event::Mapping;
use crate::error::{Error, Result};
use crate::http::Secret;
use crate::selection::{RoundRobinSelector, Selection};

mod connection;
mod known_hosts;

use connection::{CommandResult, Connection, SshLogin};
use known_hosts::HostKeyCheck;

/// Exit codes of shells for a program that cannot be run, or does not exist.
const NOT_RUN: [i32; 2] = [126, 127];

/// How [`Ssh`] connects to a VM, and what it runs there. Start from [`SshOptions::new`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SshOptions {
    /// The user who logs in.
    pub user: String,
    /// The port of sshd.
    pub port: u16,
    /// A private key in OpenSSH's, PKCS#8 or PEM format; None: the keys of the agent at `agent`.
    pub key_file: Option<PathBuf>,
    /// The passphrase of `key_file`.
    pub key_passphrase: Option<Secret>,
    /// The agent's socket; None: that of `SSH_AUTH_SOCK`.
    pub agent: Option<PathBuf>,
    /// The keys of hosts, in OpenSSH's format; None: `.ssh/known_hosts` in the home directory.
    pub known_hosts: Option<PathBuf>,
    /// The program on the VM.
    pub program: String,
    /// The program on the VM that prints a job's status; None: the status is not read.
    pub autostatus: Option<String>,
    /// A shell file on the VM that is sourced before each call.
    pub env_file: Option<String>,
    /// The user on the VM who runs the program, through sudo; None: `user`.
    pub run_as: Option<String>,
    /// The event of each status.
    pub mapping: Mapping,
    /// Text for `-C`, as in [`super::sendevent::SendEventOptions`].
    pub comment: Option<String>,
    /// Time limit to connect and log in.
    pub connect_timeout: Duration,
    /// Time limit of one command.
    pub timeout: Duration,
    /// How many commands may run at a time on one VM. The default of sshd is 10 (`MaxSessions`).
    pub sessions: usize,
    /// How many rows are sent on one VM before the selector picks the next one.
    pub batch: usize,
}

impl SshOptions {
    /// The default options for `user`.
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
            return Err(Error::invalid(format!(
                "{name} has a control character, which no file name and no user name has"
            )));
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

/// Sends events with the `sendevent` program on VMs that a selector picks in turn, one for each batch.
///
/// There is one connection to each VM, which is kept open. Each event is a command of its own on it, with its own exit code
/// and output. Every value is quoted for the shell on the VM, so that no character of it is interpreted. When a VM cannot
/// be used (it refuses the login, its key is not known, it has no `sendevent`), the events that were not sent go to the
/// next one.
pub struct Ssh {
    selector: RoundRobinSelector,
    options: SshOptions,
    known_hosts: PathBuf,
    login: SshLogin,
    connections: Mutex<HashMap<String, Arc<ConnectionSlot>>>,
}

/// The connection to one VM, once there is one.
type ConnectionSlot = Mutex<Option<Arc<Connection>>>;

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What happened to one event on one VM.
enum EventAttempt {
    Done(Outcome),
    /// Nothing was sent, for this reason of the VM.
    TryNextVm(String),
}

impl Ssh {
    /// Checks the options and reads the key; connects to nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for options that can never work, a key file that cannot be read or that others can
    /// read, a wrong passphrase, or neither a key nor an agent.
    pub fn new(selector: RoundRobinSelector, options: SshOptions) -> Result<Self> {
        options.check()?;
        let known_hosts = match &options.known_hosts {
            Some(file) => file.clone(),
            None => std::env::home_dir()
                .map(|home| home.join(".ssh/known_hosts"))
                .ok_or_else(|| Error::invalid("this user has no home directory with known hosts; give known_hosts"))?,
        };
        let login = login(&options)?;
        Ok(Self { selector, options, known_hosts, login, connections: Mutex::default() })
    }

    /// The connection to a VM, opened when there is none.
    async fn connection(&self, selection: &Selection) -> Result<Arc<Connection>, String> {
        let slot = Arc::clone(self.connections.lock().await.entry(selection.vm.clone()).or_default());
        // Locked while connecting, so that other calls for this VM wait for the same connection.
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        *slot = None;
        let names = vec![selection.vm.clone(), selection.ip_address.clone()];
        let host = HostKeyCheck { names, port: self.options.port, file: self.known_hosts.clone() };
        let SshOptions { user, sessions, connect_timeout, .. } = &self.options;
        let opened =
            Connection::open(&selection.ip_address, host, user, &self.login, *sessions, *connect_timeout).await?;
        let opened = Arc::new(opened);
        *slot = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// An open connection to any VM.
    async fn open_connection(&self) -> Option<Arc<Connection>> {
        let connections = self.connections.lock().await;
        // A connection that is being opened is not waited for.
        let mut opened = connections.values().filter_map(|slot| slot.try_lock().ok()?.clone());
        opened.find(|connection| !connection.is_closed())
    }

    fn arguments(&self, delivery: &Delivery) -> Result<Vec<String>, String> {
        command::arguments(&self.options.mapping, self.options.comment.as_deref(), delivery)
    }

    fn line(&self, program: &str, arguments: &[String]) -> String {
        shell::line(self.options.env_file.as_deref(), self.options.run_as.as_deref(), program, arguments)
    }

    /// Runs `sendevent` with `arguments` on `connection`.
    async fn run(&self, connection: &Connection, arguments: &[String], gate: &Gate) -> EventAttempt {
        let line = self.line(&self.options.program, arguments);
        match connection.run(&line, gate, self.options.timeout).await {
            CommandResult::Ran(ProgramResult { end: Ok(code), err, .. })
                if NOT_RUN.contains(&code) && err.error_code().is_none() =>
            {
                let program = &self.options.program;
                EventAttempt::TryNextVm(format!("{program} cannot be run there (exit code {code}): {}", err.text()))
            }
            CommandResult::Ran(mut result) => {
                result.end = result.end.map_err(|why| format!("may have run: {why}"));
                EventAttempt::Done(result.outcome())
            }
            CommandResult::NotStarted(why) => EventAttempt::TryNextVm(why),
            CommandResult::GateClosed => {
                EventAttempt::Done(Outcome::not_tried("the delivery was stopped before its turn"))
            }
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
        let mut results: Vec<Option<Sent>> = vec![None; deliveries.len()];
        let mut left: Vec<(usize, Vec<String>)> = Vec::new();
        for (at, delivery) in deliveries.iter().enumerate() {
            match self.arguments(delivery) {
                Ok(arguments) => left.push((at, arguments)),
                Err(reason) => results[at] = Some(Outcome::permanent(reason).into()),
            }
        }
        let mut attempts = VmAttempts::new(&self.selector);
        while !left.is_empty() {
            let selection = match attempts.next().await {
                Ok(selection) => selection,
                Err((outcome, _)) => {
                    left.drain(..).for_each(|(at, _)| results[at] = Some(outcome.clone().into()));
                    break;
                }
            };
            let vm = selection.vm.clone();
            let tried = match self.connection(&selection).await {
                Ok(connection) => {
                    join_all(left.iter().map(|(_, arguments)| self.run(&connection, arguments, gate))).await
                }
                Err(why) => left.iter().map(|_| EventAttempt::TryNextVm(why.clone())).collect(),
            };
            let mut reason = None;
            let (mut unsent, mut ran) = (Vec::new(), false);
            for ((at, arguments), attempt) in left.drain(..).zip(tried) {
                match attempt {
                    EventAttempt::Done(outcome) => {
                        ran |= !matches!(outcome, Outcome::NotTried { .. });
                        results[at] = Some(Sent { outcome, vm: Some(vm.clone()) });
                    }
                    EventAttempt::TryNextVm(why) => {
                        reason = Some(why);
                        unsent.push((at, arguments));
                    }
                }
            }
            left = unsent;
            if ran || reason.is_some() {
                attempts.report(&vm, reason.is_none()).await;
            }
            if let Some(reason) = reason {
                attempts.add_failure(vm, reason);
            }
        }
        results.into_iter().map(|sent| sent.unwrap_or_else(|| Outcome::unknown("no answer").into())).collect()
    }

    fn reads_status(&self) -> bool {
        self.options.autostatus.is_some()
    }

    async fn status(&self, job_id: &str) -> std::result::Result<String, String> {
        let program = self.options.autostatus.as_deref().ok_or("there is no autostatus program")?;
        let line = self.line(program, &command::status_arguments(job_id)?);
        // Any open connection will do, so that reading a status does not use up a turn of a VM.
        let connection = match self.open_connection().await {
            Some(connection) => connection,
            None => {
                let selection = self.selector.select(&[]).await.map_err(|e| e.full_message())?;
                self.connection(&selection).await?
            }
        };
        match connection.run(&line, &Gate::open(), self.options.timeout).await {
            CommandResult::Ran(result) => result.status(),
            CommandResult::NotStarted(why) => Err(why),
            CommandResult::GateClosed => Err("the command was not started".to_owned()),
        }
    }

    fn shows(&self, delivery: &Delivery, status: &str) -> bool {
        self.options.mapping.shows(&delivery.status, status)
    }
}

/// The key, or the agent that has one.
fn login(options: &SshOptions) -> Result<SshLogin> {
    if let Some(file) = &options.key_file {
        return key(file, options.key_passphrase.as_ref().map(Secret::expose)).map(|key| SshLogin::Key(Arc::new(key)));
    }
    let socket = options.agent.clone().or_else(|| std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from));
    socket.filter(|socket| !socket.as_os_str().is_empty()).map(SshLogin::Agent).ok_or_else(|| {
        Error::invalid("there is no key_file and no SSH agent (SSH_AUTH_SOCK) to log in with; give one of them")
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
                "key_file {shown} can be read by others (mode {mode:o}), so it is not used, as in ssh; chmod 600 it"
            )));
        }
    }
    load_secret_key(file, passphrase).map_err(|e| {
        let what = match (&e, passphrase) {
            (russh::keys::Error::KeyIsEncrypted, _) => "is encrypted; give key_passphrase",
            (_, Some(_)) => "cannot be opened with this key_passphrase, or is not a private key",
            (_, None) => "is not a private key, or is encrypted; give key_passphrase then",
        };
        Error::invalid(format!("key_file {shown} {what}"))
    })
}
