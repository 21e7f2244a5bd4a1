//! Azure Run Command on a selected VM as a transport: one script per batch, which runs `sendevent` once per event.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::command::quoted;
use super::vms::{Arguments, BatchAttempt, EventAttempt, VmCommand, VmRunner, VmTransport, run_on_vms};
use super::{Gate, SendOutcome};
use crate::azure::{
    ArmClient, ArmOperation, ArmRequest, Cloud, Credential, CredentialVariables, Deadline, OperationResult, Response,
    check_segment, refusal,
};
use crate::error::{Error, Result};
use crate::http::retry::backoff;
use crate::http::{RequestFailure, SendState};
use crate::selection::{RoundRobinSelector, Selection};

mod script;
#[cfg(test)]
mod tests;
mod vm_ids;

use script::{BatchScript, ScriptOutput};
use vm_ids::VmIds;

/// Version of Microsoft.Compute's interface.
const API_VERSION: &str = "2024-07-01";
const PERMISSION: &str = "Microsoft.Compute/virtualMachines/runCommand/action";
/// Most bytes of the values of one script: Resource Manager and `sh -c` have limits. That of the shell is 128 KiB.
const LONGEST_SCRIPT: usize = 64 << 10;

/// How [`RunCommand`] sends.
#[derive(Debug, Clone)]
pub struct RunCommandOptions {
    /// The subscription's id.
    pub subscription_id: String,
    /// The VMs' resource group; `None`: Resource Manager is asked once for the group of each VM.
    pub resource_group: Option<String>,
    /// Whose rights are used.
    pub credential: Credential,
    /// `public`, `usgov`, `china`, or the address of a Resource Manager; `None`: public.
    pub endpoint: Option<String>,
    /// The login service, when it is not the cloud's own.
    pub authority_host: Option<String>,
    /// The environment variables.
    pub variables: CredentialVariables,
    /// Longest run of the program for one event, if the VM has `timeout`. Then its outcome is unknown.
    pub event_timeout: Duration,
    /// Longest wait while the VM runs another command.
    pub busy_timeout: Duration,
    /// Longest wait for the end of a script. Azure itself ends a script after 90 minutes.
    pub timeout: Duration,
    /// What is run on the VM: from 1 to 60 events per script, whose output has 4,096 bytes for all of them. Reading a status
    /// takes a script of its own, of about half a minute.
    pub command: VmCommand,
}

impl RunCommandOptions {
    /// The default options for the VMs of a subscription.
    pub fn new(subscription_id: impl Into<String>, resource_group: Option<String>) -> Self {
        Self {
            subscription_id: subscription_id.into(),
            resource_group,
            credential: Credential::Environment,
            endpoint: None,
            authority_host: None,
            variables: CredentialVariables::from_process(),
            event_timeout: Duration::from_secs(60),
            busy_timeout: Duration::from_secs(600),
            timeout: Duration::from_secs(5400),
            command: VmCommand::new(None, script::DEFAULT_BATCH),
        }
    }

    /// Refuses options that can never work.
    fn check(&self) -> Result<()> {
        check_segment("subscription_id", &self.subscription_id)?;
        if let Some(group) = &self.resource_group {
            check_segment("resource_group", group)?;
        }
        self.command.check()?;
        let VmCommand { program, autostatus, env_file, run_as, batch, .. } = &self.command;
        if program.starts_with('-') || autostatus.as_ref().is_some_and(|text| text.starts_with('-')) {
            return Err(Error::invalid(
                "program and autostatus must be paths on the VM, or names that are in PATH there",
            ));
        }
        if env_file.as_ref().is_some_and(|file| !file.starts_with('/')) {
            return Err(Error::invalid("env_file must be an absolute path on the VM"));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if run_as.as_ref().is_some_and(|user| !user.chars().all(fits)) {
            return Err(Error::invalid("run_as must be the name of a user: letters, digits and ._-"));
        }
        if *batch > script::MOST_EVENTS {
            return Err(Error::invalid(format!("batch is {batch}; give 1 to {}", script::MOST_EVENTS)));
        }
        if [self.event_timeout, self.timeout].iter().any(Duration::is_zero) {
            return Err(Error::invalid("event_timeout and timeout must be more than 0 seconds"));
        }
        Ok(())
    }
}

/// Sends events with the `sendevent` program on VMs, through Azure Run Command.
pub type RunCommand = VmTransport<ScriptRunner>;

/// Runs a program once per event in a script for Run Command.
///
/// Each event's exit code comes back on a line of its own, because the success of the script says nothing about one event.
/// The batch goes to the next VM when a VM does not exist, is not running, is not allowed, or has no `sendevent`.
#[derive(Debug)]
pub struct ScriptRunner {
    arm: ArmClient,
    vm_ids: VmIds,
    options: RunCommandOptions,
}

/// What happened to all events of a batch alike, and whether the VM works, as in [`BatchAttempt`].
type BatchFailure = (EventAttempt, Option<bool>);

fn same_for_all(outcome: SendOutcome) -> BatchFailure {
    (EventAttempt::Done(outcome), None)
}

/// Nothing was sent, for this reason of the VM.
fn vm_failed(reason: String) -> BatchFailure {
    (EventAttempt::TryNextVm(reason), Some(false))
}

impl RunCommand {
    /// Checks the options; sends nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for options that can never work, and for VMs of the selector with names that Azure does not
    /// allow.
    pub fn new(selector: RoundRobinSelector, options: RunCommandOptions) -> Result<Self> {
        options.check()?;
        for vm in selector.inventory().vms() {
            check_segment("the VM name", &vm.name)?;
        }
        let cloud = Cloud::new(options.endpoint.as_deref(), options.authority_host.as_deref(), &options.variables)?;
        let arm = ArmClient::new(&cloud, options.credential.clone(), options.variables.clone())?;
        let vm_ids = VmIds::new(&options.subscription_id, options.resource_group.as_deref());
        Ok(Self::with_runner(selector, options.command.clone(), ScriptRunner { arm, vm_ids, options }))
    }
}

impl ScriptRunner {
    /// Runs the script of `events` on `vm`, and returns the outcome of each event.
    async fn run_script(
        &self,
        vm: &str,
        command: &VmCommand,
        events: &[(usize, Arguments)],
        gate: &Gate,
    ) -> Result<Vec<SendOutcome>, BatchFailure> {
        let id = match self.vm_ids.find(vm, &self.arm, Deadline::after(self.options.timeout)).await {
            Ok(Some(id)) => id,
            Ok(None) => {
                let text = "the subscription has no VM of this name, or several: set resource_group";
                return Err(vm_failed(text.to_owned()));
            }
            Err(error) => return Err(same_for_all(SendOutcome::transient(error.full_message()))),
        };
        let _turn = vm_ids::wait_for_turn(&id).await;
        let limit = self.options.event_timeout;
        let arguments: Vec<Arguments> = events.iter().map(|(_, arguments)| arguments.clone()).collect();
        let script = BatchScript::new(command, limit, &arguments);
        let body = json!({ "commandId": "RunShellScript", "script": script.text.lines().collect::<Vec<_>>() });
        let request = ArmRequest::post(format!("{}/runCommand", id.path()), API_VERSION, body).needing(PERMISSION);
        let response = self.start(&request, gate).await?;
        match self.result(response).await {
            Ok(result) => read(&script, &result, limit),
            // The script was accepted, and its result is not known.
            Err(error) => {
                let text = format!("the script was started: {}", error.full_message());
                Err(same_for_all(SendOutcome::unknown(text)))
            }
        }
    }

    /// Starts the script when the VM runs no other command. Returns the response that accepts it, or what happened instead.
    async fn start(&self, request: &ArmRequest, gate: &Gate) -> Result<Response, BatchFailure> {
        let transient = |text: String| same_for_all(SendOutcome::transient(text));
        let unknown = |text: String| same_for_all(SendOutcome::unknown(text));
        let latest = Instant::now() + self.options.busy_timeout;
        let mut tried = 0;
        loop {
            tried += 1;
            let closed = AtomicBool::new(false);
            let may_send = || {
                let open = gate.is_open();
                closed.store(!open, Ordering::Relaxed);
                open
            };
            let response = match self.arm.post_once(request, Deadline::after(self.options.timeout), &may_send).await {
                Ok(response) => response,
                Err(_) if closed.load(Ordering::Relaxed) => {
                    return Err(same_for_all(SendOutcome::NotTried));
                }
                Err(RequestFailure { error, state: SendState::NotSent, .. }) => {
                    return Err(transient(error.full_message()));
                }
                Err(RequestFailure { error, .. }) => return Err(unknown(error.full_message())),
            };
            if response.status.is_success() {
                return Ok(response);
            }
            let status = response.status;
            let text = refusal(request, &response).to_string();
            let busy = status == StatusCode::CONFLICT && text.to_lowercase().contains("in progress");
            if busy || status == StatusCode::TOO_MANY_REQUESTS {
                let wait = backoff(tried, response.retry_after());
                if Instant::now() + wait < latest {
                    tracing::debug!(?wait, reason = text, "waiting until the VM can run the script");
                    tokio::time::sleep(wait).await;
                    continue;
                }
                let text =
                    format!("{text}; it was tried {tried} times within {} s", self.options.busy_timeout.as_secs_f64());
                // A busy VM works for another caller.
                return Err(if busy { (EventAttempt::TryNextVm(text), None) } else { transient(text) });
            }
            return Err(match status.as_u16() {
                403 | 404 | 409 | 410 | 412 => vm_failed(text),
                // A 503 says that nothing was done. The other server errors do not.
                503 => transient(text),
                500..=599 => unknown(format!("{text}; whether the script was run is unknown")),
                _ => transient(text),
            });
        }
    }

    /// Waits for the end of a script that was accepted.
    async fn result(&self, response: Response) -> Result<OperationResult> {
        match ArmOperation::started_by(&self.arm, &response)? {
            Some(operation) => self.arm.follow(operation, Deadline::after(self.options.timeout)).await,
            None => {
                let output = response.json("the Run Command", "endpoint is Resource Manager itself")?;
                Ok(OperationResult { output, error: None })
            }
        }
    }
}

/// The outcome of each event in the output of a script.
fn read(script: &BatchScript, result: &OperationResult, limit: Duration) -> Result<Vec<SendOutcome>, BatchFailure> {
    let parts = result.output.get("value").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let messages: Vec<&str> = parts.iter().filter_map(|part| part.get("message")?.as_str()).collect();
    let why = result.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    let outcome = |event: Option<(i32, String)>| match event {
        Some((code, text)) => script::outcome(code, &text, limit),
        None => SendOutcome::unknown(format!(
            "the output of the script says nothing about this event; Run Command keeps the last 4,096 bytes{why}"
        )),
    };
    match script.read(&messages.join("\n")) {
        ScriptOutput::NothingSent(reason) => Err(vm_failed(reason)),
        ScriptOutput::Events(events) => Ok(events.into_iter().map(outcome).collect()),
    }
}

#[async_trait]
impl VmRunner for ScriptRunner {
    const NAME: &'static str = "run_command";

    fn time_limit(&self, command: &VmCommand) -> Duration {
        self.options.timeout
            + self.options.event_timeout.saturating_mul(u32::try_from(command.batch).unwrap_or(u32::MAX))
    }

    fn describe(&self, command: &VmCommand, arguments: &[String]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
        format!("Run Command: {} {}", quoted(&command.program), arguments.join(" "))
    }

    /// Counts the events that fit into one script.
    fn split(&self, command: &VmCommand, events: &[(usize, Arguments)]) -> usize {
        // The shell of another user needs quotes within quotes.
        let growth = if command.run_as.is_some() { 4 } else { 1 };
        let length = |arguments: &Arguments| arguments.iter().map(|text| quoted(text).len() + 1).sum::<usize>();
        let lengths = events.iter().take(command.batch).scan(0, |sum, (_, arguments)| {
            *sum += growth * length(arguments);
            Some(*sum)
        });
        lengths.take_while(|sum| *sum <= LONGEST_SCRIPT).count()
    }

    async fn run(
        &self,
        vm: &Selection,
        command: &VmCommand,
        events: &[(usize, Arguments)],
        gate: &Gate,
    ) -> BatchAttempt {
        let (same, vm_works) = match self.run_script(&vm.vm, command, events, gate).await {
            Ok(outcomes) => {
                let events = outcomes.into_iter().map(EventAttempt::Done).collect();
                return BatchAttempt { events, vm_works: Some(true) };
            }
            Err(failure) => failure,
        };
        BatchAttempt { events: vec![same; events.len()], vm_works }
    }

    async fn status(
        &self,
        selector: &RoundRobinSelector,
        command: &VmCommand,
        arguments: Arguments,
    ) -> Result<String, String> {
        let sent = run_on_vms(selector, self, command, vec![(0, arguments)], &Gate::open()).await.pop();
        match sent.map(|(_, sent)| sent.outcome) {
            // The profile of a site may print other lines before the status.
            Some(SendOutcome::Delivered { detail: Some(text) }) => {
                Ok(text.split_whitespace().last().unwrap_or_default().to_owned())
            }
            Some(SendOutcome::Failed { detail, .. } | SendOutcome::Unknown { detail }) => {
                Err(detail.replace("sendevent", "autostatus"))
            }
            Some(SendOutcome::Delivered { detail: None } | SendOutcome::NotTried) | None => {
                Err("autostatus printed nothing".to_owned())
            }
        }
    }
}
