//! Run Command: runs a script on a VM, which is this machine's `/bin/sh`, one at a time per VM. Clients ask for its state until it
//! has ended.
//!
//! Source: Microsoft's reference of `Virtual Machines - Run Command` and "Run scripts in your Linux VM by using action Run
//! Commands" (one at a time per VM, the last 4,096 bytes of output).

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::model::AzureVm;
use super::{lock, no_resource, refused};

/// How many bytes of the output are kept.
const OUTPUT_LIMIT: usize = 4096;

/// How Run Command behaves.
#[derive(Debug, Clone)]
pub struct SimulatedRunCommand {
    /// Directories that are in the `PATH` of scripts before the system's.
    pub path: Vec<PathBuf>,
    /// How many bytes of the output are kept: the last ones.
    pub output_limit: usize,
    /// How often an operation that has ended is reported as running.
    pub polls: u32,
    /// Seconds in `Retry-After`.
    pub retry_after: u32,
    /// Whether only `Location` has the address for the state.
    pub location_only: bool,
}

impl Default for SimulatedRunCommand {
    fn default() -> Self {
        Self { path: Vec::new(), output_limit: OUTPUT_LIMIT, polls: 1, retry_after: 0, location_only: false }
    }
}

/// What Run Command does on one VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum RunCommandMode {
    /// It runs the script.
    #[default]
    Normal,
    /// Another command is running: 409.
    Busy,
    /// The caller may not: 403.
    Forbidden,
    /// The VM's agent does not answer: 409, and nothing runs.
    AgentDown,
    /// There are too many requests: 429, and nothing runs.
    Throttled,
    /// The service fails: 500, after the script ran.
    FailsAfterwards,
    /// The operation ends as failed, and nothing runs.
    OperationFails,
    /// The operation ends as failed after the script ran, and its output is lost.
    OutputLost,
    /// The operation is unknown afterwards: 404.
    Forgotten,
}

#[derive(Debug)]
struct RunningScript {
    /// Its result: output, or an error's code and message.
    ended: Option<Result<String, (&'static str, &'static str)>>,
    /// How often it is still reported as running.
    polls: u32,
    forgotten: bool,
}

/// What runs, and what has run.
#[derive(Debug, Default)]
pub struct CommandState {
    pub modes: HashMap<String, RunCommandMode>,
    running: HashSet<String>,
    operations: HashMap<String, RunningScript>,
    pub scripts: Vec<(String, String)>,
    tasks: Vec<AbortHandle>,
    pub output_limit: usize,
}

/// All commands of the simulated Azure.
#[derive(Debug)]
pub struct RunCommands {
    options: SimulatedRunCommand,
    pub state: Arc<Mutex<CommandState>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    command_id: String,
    script: Vec<String>,
}

impl RunCommands {
    pub fn new(options: SimulatedRunCommand) -> Self {
        let state = CommandState { output_limit: options.output_limit, ..CommandState::default() };
        Self { options, state: Arc::new(Mutex::new(state)) }
    }

    /// Ends everything that runs.
    pub fn stop(&self) {
        lock(&self.state).tasks.drain(..).for_each(|task| task.abort());
    }

    /// Starts a command. Links begin with `subscription`, the subscription's address.
    pub fn run(&self, vm: &AzureVm, body: &[u8], subscription: &str) -> Response {
        let body: Body = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(error) => return refused(StatusCode::BAD_REQUEST, "InvalidRequestContent", &error.to_string()),
        };
        if body.command_id != "RunShellScript" || body.script.is_empty() {
            let text = "The sandbox runs RunShellScript with a script alone.";
            return refused(StatusCode::BAD_REQUEST, "InvalidParameter", text);
        }
        let name = vm.name.to_lowercase();
        let mut state = lock(&self.state);
        let mode = state.modes.get(&name).copied().unwrap_or_default();
        match mode {
            RunCommandMode::Forbidden => {
                let text = "The client does not have authorization to perform action 'Microsoft.Compute/virtualMachines/runCommand/action'.";
                return refused(StatusCode::FORBIDDEN, "AuthorizationFailed", text);
            }
            RunCommandMode::Throttled => {
                let text = "The sandbox was asked to throttle requests.";
                let mut reply = refused(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", text);
                reply.headers_mut().insert("Retry-After", self.options.retry_after.into());
                return reply;
            }
            RunCommandMode::AgentDown => {
                let text = "The VM agent is not running, so that no extension can be run.";
                return refused(StatusCode::CONFLICT, "VMAgentStatusCommunicationError", text);
            }
            _ => {}
        }
        if vm.power != "running" {
            let text = "The operation requires the VM to be running (or set to run).";
            return refused(StatusCode::CONFLICT, "OperationNotAllowed", text);
        }
        if mode == RunCommandMode::Busy || state.running.contains(&name) {
            let text = "Run command extension execution is in progress. Please wait for completion before invoking a run command.";
            return refused(StatusCode::CONFLICT, "Conflict", text);
        }
        let id = uuid::Uuid::new_v4().to_string();
        let forgotten = mode == RunCommandMode::Forgotten;
        let mut operation = RunningScript { ended: None, polls: self.options.polls, forgotten };
        if mode == RunCommandMode::OperationFails {
            operation.ended = Some(Err(("VMExtensionProvisioningError", "The extension could not be started.")));
        } else {
            let script = body.script.join("\n");
            state.scripts.push((vm.name.clone(), script.clone()));
            state.running.insert(name.clone());
            let task = execute(script, self.options.path.clone(), Arc::clone(&self.state), name, id.clone(), mode);
            state.tasks.retain(|task| !task.is_finished());
            state.tasks.push(tokio::spawn(task).abort_handle());
        }
        state.operations.insert(id.clone(), operation);
        if mode == RunCommandMode::FailsAfterwards {
            let text = "The sandbox was asked to fail.";
            return refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalExecutionError", text);
        }
        let place = format!("{subscription}/providers/Microsoft.Compute/locations/westeurope");
        let link = format!("{place}/operations/{id}?p=1&api-version=2024-07-01");
        let mut reply = StatusCode::ACCEPTED.into_response();
        let mut header = |name: &'static str, text: &str| {
            if let Ok(value) = text.parse() {
                reply.headers_mut().insert(name, value);
            }
        };
        header("Retry-After", &self.options.retry_after.to_string());
        header("Location", &format!("{link}&monitor=true"));
        if !self.options.location_only {
            header("Azure-AsyncOperation", &link);
        }
        reply
    }

    /// The status of an operation, or its result.
    pub fn answer(&self, id: &str, result: bool) -> Response {
        let mut state = lock(&self.state);
        let known = state.operations.get_mut(id).filter(|operation| !operation.forgotten);
        let Some(operation) = known else { return no_resource(id) };
        let ended = operation.ended.clone().filter(|_| operation.polls == 0);
        if operation.ended.is_some() {
            operation.polls = operation.polls.saturating_sub(1);
        }
        let (status, body) = match (ended, result) {
            (None, true) => (StatusCode::ACCEPTED, Value::Null),
            (None, false) => (StatusCode::OK, json!({"name": id, "status": "InProgress"})),
            (Some(Ok(text)), true) => (StatusCode::OK, output(&text)),
            (Some(Ok(text)), false) => {
                (StatusCode::OK, json!({"name": id, "status": "Succeeded", "properties": {"output": output(&text)}}))
            }
            (Some(Err((code, text))), true) => return refused(StatusCode::CONFLICT, code, text),
            (Some(Err((code, text))), false) => {
                (StatusCode::OK, json!({"name": id, "status": "Failed", "error": {"code": code, "message": text}}))
            }
        };
        let mut reply = if body.is_null() { status.into_response() } else { (status, Json(body)).into_response() };
        reply.headers_mut().insert("Retry-After", self.options.retry_after.into());
        reply
    }
}

fn output(text: &str) -> Value {
    json!({"value": [{
        "code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded", "message": text,
    }]})
}

/// Runs a script to its end, and then permits the next one.
async fn execute(
    script: String,
    path: Vec<PathBuf>,
    state: Arc<Mutex<CommandState>>,
    vm: String,
    id: String,
    mode: RunCommandMode,
) {
    let printed = shell(&script, path).await;
    let mut state = lock(&state);
    let limit = state.output_limit;
    let ended = match (printed, mode) {
        (_, RunCommandMode::OutputLost) => Err(("VMExtensionProvisioningError", "The agent lost the output.")),
        (Ok((out, err)), _) => {
            let whole = format!("[stdout]\n{out}\n[stderr]\n{err}");
            let mut cut = whole.len().saturating_sub(limit);
            while !whole.is_char_boundary(cut) {
                cut += 1;
            }
            Ok(format!("Enable succeeded: \n{}", &whole[cut..]))
        }
        (Err(error), _) => {
            tracing::warn!(%error, "a script of the sandbox's Azure could not be run");
            Err(("VMExtensionProvisioningError", "The script could not be run."))
        }
    };
    state.running.remove(&vm);
    if let Some(operation) = state.operations.get_mut(&id) {
        operation.ended = Some(ended);
    }
}

async fn shell(script: &str, path: Vec<PathBuf>) -> std::io::Result<(String, String)> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(script.as_bytes())?;
    let own = path.into_iter().map(PathBuf::into_os_string).chain(["/usr/bin".into(), "/bin".into()]);
    let path: Vec<OsString> = own.collect();
    let output = tokio::process::Command::new("/bin/sh")
        .arg(file.path())
        .env("PATH", path.join(std::ffi::OsStr::new(":")))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((text(output.stdout), text(output.stderr)))
}
