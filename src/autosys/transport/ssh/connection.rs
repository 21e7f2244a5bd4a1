//! One connection to one VM: who may log in, and commands over it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::ChannelMsg;
use russh::client::{self, AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::known_hosts::Host;
use crate::autosys::transport::Gate;
use crate::autosys::transport::sendevent::Captured;

/// A connection over which nothing came for so long is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How often it may fail to give one.
const KEEPALIVES: usize = 3;

/// How long the rest of a command's output is waited for once it has ended.
const REST_OF_OUTPUT: Duration = Duration::from_secs(1);

/// With what one logs in.
#[derive(Clone)]
pub(super) enum Login {
    /// A private key.
    Key(Arc<PrivateKey>),
    /// The keys of the agent behind this socket.
    Agent(PathBuf),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key",
            Self::Agent(_) => "Agent",
        })
    }
}

/// A connection that is logged in.
pub(super) struct Connection {
    handle: Handle<KnownHost>,
    /// How many commands may run at a time.
    sessions: Semaphore,
}

/// What became of a command.
pub(super) enum Ran {
    /// It ended with this exit code.
    Ended { code: u32, out: Captured, err: Captured },
    /// It was never started, for this reason of the connection's.
    NotStarted(String),
    /// Nothing may be sent any more.
    Closed,
    /// It was started, and what became of it is not known.
    Unknown { why: String, out: Captured, err: Captured },
}

/// Checks the host's key.
pub(super) struct KnownHost {
    host: Host,
    refused: Arc<Mutex<Option<String>>>,
}

impl client::Handler for KnownHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let judged = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.host.check(key).await,
            PublicKeyOrCertificate::Certificate(_) => {
                Err("the host has a certificate for a key, which is not supported".to_owned())
            }
        };
        let trusted = judged.is_ok();
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = judged.err();
        Ok(trusted)
    }
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Why that cannot be done; never a secret.
    pub(super) async fn open(
        address: &str,
        host: Host,
        user: &str,
        login: &Login,
        sessions: usize,
        limit: Duration,
    ) -> Result<Self, String> {
        let port = host.port;
        let opening = async {
            let stream = TcpStream::connect((address, port)).await;
            let stream = stream.map_err(|e| format!("{address} port {port} cannot be connected to: {e}"))?;
            let refused = Arc::new(Mutex::new(None));
            let handler = KnownHost { host, refused: Arc::clone(&refused) };
            let config = client::Config {
                keepalive_interval: Some(KEEPALIVE),
                keepalive_max: KEEPALIVES,
                nodelay: true,
                ..client::Config::default()
            };
            let connected = client::connect_stream(Arc::new(config), stream, handler).await;
            let mut handle = connected.map_err(|e| {
                let refused = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
                refused.unwrap_or_else(|| format!("{address} port {port} does not speak SSH with us: {e}"))
            })?;
            match login {
                Login::Key(key) => with_key(&mut handle, user, key).await?,
                Login::Agent(socket) => with_agent(&mut handle, user, socket).await?,
            }
            Ok(Self { handle, sessions: Semaphore::new(sessions) })
        };
        let late = || format!("{address} port {port} did not let us in within {} s", limit.as_secs_f64());
        timeout(limit, opening).await.unwrap_or_else(|_| Err(late()))
    }

    /// Whether it is of no use any more.
    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Runs `line` with the user's login shell and waits for its end, at most for `limit` once it was started.
    pub(super) async fn run(&self, line: &str, gate: &Gate, limit: Duration) -> Ran {
        let not_started = |e: String| Ran::NotStarted(format!("the connection broke: {e}"));
        let Ok(_session) = self.sessions.acquire().await else { return not_started("it is closed".to_owned()) };
        let mut channel = match timeout(limit, self.handle.channel_open_session()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(e)) => return Ran::NotStarted(format!("no session could be opened: {e}")),
            Err(_) => return not_started("it does not answer".to_owned()),
        };
        // As late as can be: whoever waits for a session may wait for long.
        if !gate.is_open() {
            return Ran::Closed;
        }
        if let Err(e) = channel.exec(true, line).await {
            return not_started(e.to_string());
        }
        let (mut out, mut err) = (Captured::default(), Captured::default());
        let mut end = End::None;
        let waited = timeout(limit, async {
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } => out.take(&data),
                    ChannelMsg::ExtendedData { data, .. } => err.take(&data),
                    ChannelMsg::ExitStatus { exit_status } => end = End::Code(exit_status),
                    ChannelMsg::ExitSignal { signal_name, .. } => end = End::Signal(format!("{signal_name:?}")),
                    ChannelMsg::Failure => end = End::Refused,
                    _ => {}
                }
                if matches!(end, End::Refused) {
                    return;
                }
                if !matches!(end, End::None) {
                    // The rest of the output is on its way, if there is any. What the command left behind in the
                    // background may hold the channel open: that is not waited for.
                    let rest = async {
                        while let Some(message) = channel.wait().await {
                            match message {
                                ChannelMsg::Data { data } => out.take(&data),
                                ChannelMsg::ExtendedData { data, .. } => err.take(&data),
                                ChannelMsg::Close => break,
                                _ => {}
                            }
                        }
                    };
                    let _ = timeout(REST_OF_OUTPUT, rest).await;
                    return;
                }
            }
        })
        .await;
        match end {
            End::Code(code) => Ran::Ended { code, out, err },
            End::Refused => Ran::NotStarted("the server runs no commands for this user".to_owned()),
            End::Signal(signal) => Ran::Unknown { why: format!("the command was ended by signal {signal}"), out, err },
            End::None => {
                let why = match waited {
                    Ok(()) => "the connection broke before the command's exit code came".to_owned(),
                    Err(_) => format!("the command did not end within {} s", limit.as_secs_f64()),
                };
                let _ = channel.close().await;
                Ran::Unknown { why, out, err }
            }
        }
    }
}

/// How a command ended.
enum End {
    /// Not yet, or nobody knows.
    None,
    Code(u32),
    Signal(String),
    /// It was not started.
    Refused,
}

async fn with_key(handle: &mut Handle<KnownHost>, user: &str, key: &Arc<PrivateKey>) -> Result<(), String> {
    let hash = rsa_hash(handle, key.algorithm().is_rsa()).await?;
    let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
    let answer = handle.authenticate_publickey(user, key).await;
    match answer.map_err(|e| format!("logging in as {user} failed: {e}"))? {
        AuthResult::Success => Ok(()),
        AuthResult::Failure { .. } => {
            Err(format!("the key was not accepted for user {user}: is its public part in the VM's authorized_keys?"))
        }
    }
}

async fn with_agent(handle: &mut Handle<KnownHost>, user: &str, socket: &std::path::Path) -> Result<(), String> {
    let failed = |e: &dyn fmt::Display| format!("the SSH agent at {} cannot be asked: {e}", socket.display());
    let mut agent = AgentClient::connect_uds(socket).await.map_err(|e| failed(&e))?;
    let identities = agent.request_identities().await.map_err(|e| failed(&e))?;
    let count = identities.len();
    for identity in identities {
        let AgentIdentity::PublicKey { key, .. } = identity else { continue };
        let hash = rsa_hash(handle, key.algorithm().is_rsa()).await?;
        // A key that the agent does not sign with is passed over, as ssh does.
        if let Ok(AuthResult::Success) = handle.authenticate_publickey_with(user, key, hash, &mut agent).await {
            return Ok(());
        }
    }
    Err(format!("none of the {count} keys of the SSH agent was accepted for user {user}"))
}

/// SHA-1 is never used: servers of today refuse it.
async fn rsa_hash(handle: &Handle<KnownHost>, rsa: bool) -> Result<Option<russh::keys::HashAlg>, String> {
    if !rsa {
        return Ok(None);
    }
    let best = handle.best_supported_rsa_hash().await.map_err(|e| format!("the connection broke: {e}"))?;
    Ok(best.flatten().or(Some(russh::keys::HashAlg::Sha512)))
}
