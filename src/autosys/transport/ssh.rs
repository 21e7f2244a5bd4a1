//! SSH as a transport: `sendevent` on a VM that a selector picks.

use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use russh::keys::{PrivateKey, load_secret_key};
use tokio::sync::Mutex;

use super::output::ProgramResult;
use super::vms::{Arguments, BatchAttempt, EventAttempt, VmCommand, VmRunner, VmTransport, check_text};
use super::{Gate, SendOutcome};
use crate::error::{Error, Result};
use crate::http::Secret;
use crate::selection::{RoundRobinSelector, Selection};

mod command_line;
mod connection;
mod known_hosts;

use command_line::{command_line, start_line, why_nothing_ran};
use connection::{CommandResult, Connection, SshLogin};

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
    /// Time limit to connect and log in.
    pub connect_timeout: Duration,
    /// Time limit of one command.
    pub timeout: Duration,
    /// How many commands may run at a time on one VM. The default of sshd is 10 (`MaxSessions`).
    pub sessions: usize,
    /// What is run on the VM.
    pub command: VmCommand,
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
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            sessions: 8,
            command: VmCommand::new(Some("autostatus"), 32),
        }
    }

    fn check(&self) -> Result<()> {
        check_text("user", &self.user)?;
        if self.user.starts_with('-') {
            return Err(Error::invalid("user starts with '-', which ssh could take for an option; give a user name"));
        }
        if self.sessions == 0 {
            return Err(Error::invalid("sessions must be at least 1"));
        }
        if self.timeout.is_zero() || self.connect_timeout.is_zero() {
            return Err(Error::invalid("timeout and connect_timeout must be more than 0"));
        }
        if self.key_passphrase.is_some() && self.key_file.is_none() {
            return Err(Error::invalid("key_passphrase is for key_file, which is not given"));
        }
        self.command.check()
    }
}

/// Sends events with the `sendevent` program on VMs, through SSH.
pub type Ssh = VmTransport<SshRunner>;

/// Runs programs through SSH.
///
/// There is one connection to each VM, which is kept open. Each event is a command of its own on it, with its own exit code
/// and output. The batch goes to the next VM when a VM refuses the login, its key is not known, or it has no `sendevent`.
pub struct SshRunner {
    options: SshOptions,
    known_hosts: PathBuf,
    login: SshLogin,
    connections: Mutex<HashMap<String, Arc<ConnectionSlot>>>,
}

/// The connection to one VM, once there is one.
type ConnectionSlot = Mutex<Option<Arc<Connection>>>;

impl fmt::Debug for SshRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshRunner").field("options", &self.options).finish_non_exhaustive()
    }
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
            None => crate::runtime::home_directory()
                .map(|home| home.join(".ssh/known_hosts"))
                .ok_or_else(|| Error::invalid("this user has no home directory with known hosts; give known_hosts"))?,
        };
        let login = login(&options)?;
        let command = options.command.clone();
        Ok(Self::with_runner(
            selector,
            command,
            SshRunner { options, known_hosts, login, connections: Mutex::default() },
        ))
    }
}

impl SshRunner {
    /// The connection to a VM, opened when there is none.
    async fn connection(&self, selection: &Selection) -> Result<Arc<Connection>, String> {
        let slot = Arc::clone(self.connections.lock().await.entry(selection.vm.clone()).or_default());
        // Locked while connecting, so that other calls for this VM wait for the same connection.
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.handle.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        *slot = None;
        let opened = Arc::new(Connection::open(self, selection).await?);
        *slot = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// An open connection to any VM.
    async fn open_connection(&self) -> Option<Arc<Connection>> {
        let connections = self.connections.lock().await;
        // A connection that is being opened is not waited for.
        let mut opened = connections.values().filter_map(|slot| slot.try_lock().ok()?.clone());
        opened.find(|connection| !connection.handle.is_closed())
    }

    /// Runs `command` with `arguments` on `connection`. It was not started if the script says so.
    async fn execute(
        &self,
        connection: &Connection,
        command: &VmCommand,
        arguments: &[String],
        gate: &Gate,
    ) -> CommandResult {
        let word = format!("jobrota-{}", uuid::Uuid::new_v4().simple());
        let mut result = connection.run(&command_line(command, arguments, &word), gate, self.options.timeout).await;
        if let CommandResult::Ran(ProgramResult { end: Ok(code), err, .. }) = &result
            && let Some(why) = why_nothing_ran(&err.raw(), &word)
        {
            let program = &command.program;
            return CommandResult::NotStarted(format!("{program} cannot be run there (exit code {code}): {why}"));
        }
        if let CommandResult::Ran(ProgramResult { end, err, .. }) = &mut result
            && !err.remove(&start_line(&word))
            && *end == Ok(0)
        {
            *end = Err("was not seen to start, although the script for it succeeded: look at env_file".to_owned());
        }
        result
    }
}

impl From<CommandResult> for EventAttempt {
    fn from(result: CommandResult) -> Self {
        match result {
            CommandResult::Ran(mut result) => {
                result.end = result.end.map_err(|why| format!("may have run: {why}"));
                Self::Done(result.outcome())
            }
            CommandResult::NotStarted(why) => Self::TryNextVm(why),
            CommandResult::GateClosed => Self::Done(SendOutcome::NotTried),
        }
    }
}

#[async_trait]
impl VmRunner for SshRunner {
    const NAME: &'static str = "ssh";

    fn time_limit(&self, _command: &VmCommand) -> Duration {
        self.options.timeout
    }

    fn describe(&self, _command: &VmCommand, arguments: &[String]) -> String {
        format!("ssh {}@… sendevent {}", self.options.user, arguments.join(" "))
    }

    async fn run(
        &self,
        vm: &Selection,
        command: &VmCommand,
        events: &[(usize, Arguments)],
        gate: &Gate,
    ) -> BatchAttempt {
        let events = match self.connection(vm).await {
            Ok(connection) => {
                let run = |arguments| self.execute(&connection, command, arguments, gate);
                let ran = join_all(events.iter().map(|(_, arguments)| run(arguments))).await;
                ran.into_iter().map(EventAttempt::from).collect()
            }
            Err(why) => vec![EventAttempt::TryNextVm(why); events.len()],
        };
        let failed = events.iter().any(|event| matches!(event, EventAttempt::TryNextVm(_)));
        let ran = |event: &EventAttempt| !matches!(event, EventAttempt::Done(SendOutcome::NotTried));
        let vm_works = (failed || events.iter().any(ran)).then_some(!failed);
        BatchAttempt { events, vm_works }
    }

    async fn status(
        &self,
        selector: &RoundRobinSelector,
        command: &VmCommand,
        arguments: Arguments,
    ) -> std::result::Result<String, String> {
        // Any open connection will do, so that reading a status does not use up a turn of a VM.
        let connection = match self.open_connection().await {
            Some(connection) => connection,
            None => self.connection(&selector.select(&[]).await.map_err(|e| e.full_message())?).await?,
        };
        match self.execute(&connection, command, &arguments, &Gate::open()).await {
            CommandResult::Ran(result) => result.status(),
            CommandResult::NotStarted(why) => Err(why),
            CommandResult::GateClosed => Err("the command was not started".to_owned()),
        }
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
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::invalid(format!(
            "key_file {shown} can be read by others (mode {mode:o}), so it is not used, as in ssh; chmod 600 it"
        )));
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
