//! One connection to one VM: logging in, and running commands.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::ChannelMsg;
use russh::client::{self, AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::known_hosts::HostKeyCheck;
use super::{SshOptions, SshRunner};
use crate::autosys::transport::Gate;
use crate::autosys::transport::output::{CapturedOutput, ProgramResult};
use crate::runtime::lock;
use crate::selection::Selection;

/// After so long without data the server is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How many such requests may get no response.
const KEEPALIVES: usize = 3;

/// How long the rest of a command's output is waited for after it has ended.
const REST_OF_OUTPUT: Duration = Duration::from_secs(1);

/// How to log in.
pub(super) enum SshLogin {
    /// A private key.
    Key(Arc<PrivateKey>),
    /// The keys of the agent at this socket.
    Agent(PathBuf),
}

/// A connection that is logged in.
pub(super) struct Connection {
    pub(super) handle: Handle<KnownHost>,
    /// How many commands may run at a time.
    sessions: Semaphore,
}

/// What happened to a command.
pub(super) enum CommandResult {
    /// It was started. Without an exit code it may have run.
    Ran(ProgramResult),
    /// It was never started, for this reason of the connection.
    NotStarted(String),
    /// The gate was closed.
    GateClosed,
}

/// Checks the host's key.
pub(super) struct KnownHost {
    host: HostKeyCheck,
    refused: Arc<Mutex<Option<String>>>,
}

impl client::Handler for KnownHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let checked = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.host.check(key).await,
            PublicKeyOrCertificate::Certificate(_) => {
                Err("the host has a certificate for a key, which is not supported".to_owned())
            }
        };
        let trusted = checked.is_ok();
        *lock(&self.refused) = checked.err();
        Ok(trusted)
    }
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Why that is not possible; never a secret.
    pub(super) async fn open(runner: &SshRunner, vm: &Selection) -> Result<Self, String> {
        let SshRunner { login, known_hosts, .. } = runner;
        let SshOptions { user, port, sessions, connect_timeout: limit, .. } = &runner.options;
        let address = vm.ip_address.as_str();
        let host =
            HostKeyCheck { names: vec![vm.vm.clone(), address.to_owned()], port: *port, file: known_hosts.clone() };
        let opening = async {
            let stream = TcpStream::connect((address, *port)).await;
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
                let refused = lock(&refused).take();
                refused.unwrap_or_else(|| format!("{address} port {port} did not establish an SSH connection: {e}"))
            })?;
            match login {
                SshLogin::Key(key) => with_key(&mut handle, user, key).await?,
                SshLogin::Agent(socket) => with_agent(&mut handle, user, socket).await?,
            }
            Ok(Self { handle, sessions: Semaphore::new(*sessions) })
        };
        let late = || format!("{address} port {port} did not complete the login within {} s", limit.as_secs_f64());
        timeout(*limit, opening).await.unwrap_or_else(|_| Err(late()))
    }

    /// Runs `line` with the user's login shell and waits for its end, at most for `limit` after it was started.
    pub(super) async fn run(&self, line: &str, gate: &Gate, limit: Duration) -> CommandResult {
        let not_started = |e: String| CommandResult::NotStarted(format!("the connection broke: {e}"));
        let Ok(_session) = self.sessions.acquire().await else { return not_started("it is closed".to_owned()) };
        let mut channel = match timeout(limit, self.handle.channel_open_session()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(e)) => return CommandResult::NotStarted(format!("no session could be opened: {e}")),
            Err(_) => return not_started("the server did not answer".to_owned()),
        };
        // Asked as late as possible, because waiting for a session may take long.
        if !gate.is_open() {
            return CommandResult::GateClosed;
        }
        if let Err(e) = channel.exec(true, line).await {
            return not_started(e.to_string());
        }
        let (mut out, mut err) = (CapturedOutput::default(), CapturedOutput::default());
        let (mut end, mut deadline) = (None, Instant::now() + limit);
        let timed_out = loop {
            let ended = match timeout_at(deadline, channel.wait()).await {
                Err(_) => break true,
                Ok(None) => break false,
                // The rest of the output may come after the exit code. A background process of the command may keep the
                // channel open, and is not waited for.
                Ok(Some(ChannelMsg::Close)) if end.is_some() => break false,
                Ok(Some(ChannelMsg::Data { data })) => {
                    out.add(&data);
                    continue;
                }
                Ok(Some(ChannelMsg::ExtendedData { data, .. })) => {
                    err.add(&data);
                    continue;
                }
                // After output, something may have run.
                Ok(Some(ChannelMsg::Failure)) if end.is_none() && out.raw().is_empty() && err.raw().is_empty() => {
                    return CommandResult::NotStarted("the server runs no commands for this user".to_owned());
                }
                Ok(Some(ChannelMsg::ExitStatus { exit_status })) => Ok(i32::try_from(exit_status).unwrap_or(i32::MAX)),
                Ok(Some(ChannelMsg::ExitSignal { signal_name, .. })) => {
                    Err(format!("the command was ended by signal {signal_name:?}"))
                }
                Ok(Some(_)) => continue,
            };
            // A server can repeat the exit code.
            end.get_or_insert(ended);
            deadline = deadline.min(Instant::now() + REST_OF_OUTPUT);
        };
        let end = match end {
            Some(end) => end,
            None => {
                let _ = channel.close().await;
                Err(match timed_out {
                    true => format!("the command did not end within {} s", limit.as_secs_f64()),
                    false => "the connection broke before the command's exit code came".to_owned(),
                })
            }
        };
        CommandResult::Ran(ProgramResult { end, out, err })
    }
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
    let failed = |e: &dyn std::fmt::Display| format!("the SSH agent at {} cannot be asked: {e}", socket.display());
    let mut agent = AgentClient::connect_uds(socket).await.map_err(|e| failed(&e))?;
    let identities = agent.request_identities().await.map_err(|e| failed(&e))?;
    let count = identities.len();
    for identity in identities {
        let AgentIdentity::PublicKey { key, .. } = identity else { continue };
        let hash = rsa_hash(handle, key.algorithm().is_rsa()).await?;
        // A key that the agent does not sign with is skipped, as in ssh.
        if let Ok(AuthResult::Success) = handle.authenticate_publickey_with(user, key, hash, &mut agent).await {
            return Ok(());
        }
    }
    Err(format!("none of the {count} keys of the SSH agent was accepted for user {user}"))
}

/// SHA-1 is never used, because current servers refuse it.
async fn rsa_hash(handle: &Handle<KnownHost>, rsa: bool) -> Result<Option<russh::keys::HashAlg>, String> {
    if !rsa {
        return Ok(None);
    }
    let best = handle.best_supported_rsa_hash().await.map_err(|e| format!("the connection broke: {e}"))?;
    Ok(best.flatten().or(Some(russh::keys::HashAlg::Sha512)))
}

#[cfg(test)]
mod tests {
    use russh::keys::{Algorithm, PrivateKey};
    use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
    use russh::{Channel, ChannelId};

    use super::*;

    /// A server that answers each command as the command says.
    struct AnswersAsTold;

    impl server::Handler for AnswersAsTold {
        type Error = russh::Error;

        async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
            Ok(Auth::Accept)
        }

        async fn channel_open_session(
            &mut self,
            _: Channel<Msg>,
            reply: ChannelOpenHandle,
            _: &mut Session,
        ) -> Result<(), Self::Error> {
            reply.accept().await;
            Ok(())
        }

        async fn exec_request(&mut self, id: ChannelId, line: &[u8], session: &mut Session) -> Result<(), Self::Error> {
            match line {
                b"refuse" => session.channel_failure(id),
                b"start and refuse" => {
                    session.extended_data(id, 1, &b"word start\n"[..])?;
                    session.channel_failure(id)?;
                    session.close(id)
                }
                _ => {
                    session.channel_success(id)?;
                    let handle = session.handle();
                    tokio::spawn(async move {
                        let mut code = 7;
                        while handle.exit_status_request(id, code).await.is_ok() {
                            code += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    });
                    Ok(())
                }
            }
        }
    }

    async fn run(line: &str, limit: Duration) -> CommandResult {
        let directory = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let file = directory.path().join("known_hosts");
        let known = format!("[127.0.0.1]:{port} {}\n", key.public_key().to_openssh().unwrap());
        std::fs::write(&file, known).unwrap();
        let login = SshLogin::Key(Arc::new(key.clone()));
        let config = server::Config { keys: vec![key], ..server::Config::default() };
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            server::run_stream(Arc::new(config), stream, AnswersAsTold).await.unwrap().await
        });
        let options =
            SshOptions { port, sessions: 1, connect_timeout: Duration::from_secs(20), ..SshOptions::new("u") };
        let runner = SshRunner { options, known_hosts: file, login, connections: tokio::sync::Mutex::default() };
        let vm = Selection {
            vm: "127.0.0.1".to_owned(),
            ip_address: "127.0.0.1".to_owned(),
            nic_name: None,
            probe: "tcp".to_owned(),
            rtt_ms: 0.0,
            skipped: Vec::new(),
            hold: None,
        };
        let connection = Connection::open(&runner, &vm).await.unwrap_or_else(|why| panic!("{why}"));
        let gate = Gate::open();
        timeout(Duration::from_secs(20), connection.run(line, &gate, limit)).await.expect("the limit should end it")
    }

    #[tokio::test]
    async fn the_first_exit_code_counts_and_later_ones_do_not_move_the_limit() {
        match run("repeat the exit code", Duration::from_millis(300)).await {
            CommandResult::Ran(ProgramResult { end, .. }) => assert_eq!(end, Ok(7)),
            _ => panic!("it ran"),
        }
    }

    #[tokio::test]
    async fn a_refusal_after_output_does_not_prove_that_nothing_ran() {
        let plenty = Duration::from_secs(10);
        match run("start and refuse", plenty).await {
            CommandResult::Ran(ProgramResult { end, err, .. }) => {
                assert!(end.unwrap_err().contains("the connection broke"));
                assert_eq!(err.text(), "word start");
            }
            _ => panic!("it may have run"),
        }
        assert!(matches!(run("refuse", plenty).await, CommandResult::NotStarted(_)));
    }
}
