//! Azure Run Command on a selected VM as a transport: one script per batch, which runs `sendevent` once per event.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::shell::quoted;
use super::vms::VmAttempts;
use super::{Delivery, Gate, Outcome, Sent, Transport, command};
use crate::autosys::event::JobName;
use crate::azure::{
    ArmClient, ArmRequest, Cloud, Deadline, Operation, OperationResult, PostOutcome, Response, check_segment, refusal,
};
use crate::error::Result;
use crate::http::retry::backoff;
use crate::selection::RoundRobinSelector;

mod options;
mod script;
#[cfg(test)]
mod tests;
mod vm_ids;
mod vm_queue;

pub use options::RunCommandOptions;
use script::{Script, ScriptOutput, ScriptSettings};
use vm_ids::VmIds;

/// Version of Microsoft.Compute's interface.
const API_VERSION: &str = "2024-07-01";
const PERMISSION: &str = "Microsoft.Compute/virtualMachines/runCommand/action";
/// Most bytes of the values of one script: Resource Manager and `sh -c` have limits. That of the shell is 128 KiB.
const LONGEST_SCRIPT: usize = 64 << 10;

/// Sends events with Run Command, on VMs that a selector picks in turn.
///
/// Every value is quoted for the shell, so that no character of it is interpreted. Each event's exit code comes back on a
/// line of its own, because the success of the script says nothing about one event. When a VM certainly ran nothing (it
/// does not exist, is not running, is not allowed, has no `sendevent`), the batch goes to the next one.
pub struct RunCommand {
    selector: RoundRobinSelector,
    arm: ArmClient,
    vm_ids: VmIds,
    settings: ScriptSettings,
    options: RunCommandOptions,
}

impl fmt::Debug for RunCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunCommand").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What happened to a batch on one VM.
enum BatchAttempt {
    /// The outcome of each event.
    Done(Vec<Outcome>),
    /// One outcome for all events. The next VM would not help or must not be tried.
    SameForAll(Outcome),
    /// Nothing was sent, for this reason of the VM.
    TryNextVm(String),
    /// Nothing was sent, because the VM runs another command.
    VmBusy(String),
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
        let settings = ScriptSettings {
            program: options.program.clone(),
            env_file: options.env_file.clone(),
            run_as: options.run_as.clone(),
            limit: options.event_timeout,
        };
        Ok(Self { selector, arm, vm_ids, settings, options })
    }

    fn arguments(&self, delivery: &Delivery) -> Result<Vec<String>, String> {
        command::arguments(&self.options.mapping, self.options.comment.as_deref(), delivery)
    }

    /// Runs the program of `settings` with each of `arguments`, on the next VM that can.
    async fn run(&self, settings: &ScriptSettings, arguments: &[Vec<String>], gate: &Gate) -> Vec<Sent> {
        let same = |outcome: Outcome, vm: Option<String>| vec![Sent { outcome, vm }; arguments.len()];
        let mut attempts = VmAttempts::new(&self.selector);
        loop {
            let vm = match attempts.next().await {
                Ok(selection) => selection.vm.clone(),
                Err((outcome, vm)) => return same(outcome, vm),
            };
            match self.run_on_vm(&vm, settings, arguments, gate).await {
                BatchAttempt::Done(outcomes) => {
                    attempts.report(&vm, true).await;
                    return outcomes.into_iter().map(|outcome| Sent { outcome, vm: Some(vm.clone()) }).collect();
                }
                // The next two say nothing about the VM.
                BatchAttempt::SameForAll(outcome) => return same(outcome, Some(vm)),
                BatchAttempt::VmBusy(reason) => attempts.add_failure(vm, reason),
                BatchAttempt::TryNextVm(reason) => {
                    attempts.report(&vm, false).await;
                    attempts.add_failure(vm, reason);
                }
            }
        }
    }

    async fn run_on_vm(
        &self,
        vm: &str,
        settings: &ScriptSettings,
        arguments: &[Vec<String>],
        gate: &Gate,
    ) -> BatchAttempt {
        let transient = |text: String| BatchAttempt::SameForAll(Outcome::transient(text));
        let id = match self.vm_ids.find(vm, &self.arm, Deadline::after(self.options.timeout)).await {
            Ok(Some(id)) => id,
            Ok(None) => {
                let text = "the subscription has no VM of this name, or several: set resource_group";
                return BatchAttempt::TryNextVm(text.to_owned());
            }
            Err(error) => return transient(error.full_message()),
        };
        let _turn = vm_queue::wait_for_turn(&id).await;
        let script = Script::new(settings, arguments);
        let body = json!({ "commandId": "RunShellScript", "script": script.text.lines().collect::<Vec<_>>() });
        let request = ArmRequest::post(format!("{}/runCommand", id.path()), API_VERSION, body).needing(PERMISSION);
        let response = match self.start(&request, gate).await {
            Ok(response) => response,
            Err(attempt) => return attempt,
        };
        match self.result(response).await {
            Ok(result) => read(&script, &result, settings),
            // The script was accepted, and its result is not known.
            Err(error) => {
                let text = format!("the script was started: {}", error.full_message());
                BatchAttempt::SameForAll(Outcome::unknown(text))
            }
        }
    }

    /// Starts the script when the VM runs no other command. Returns the response that accepts it, or what happened instead.
    async fn start(&self, request: &ArmRequest, gate: &Gate) -> Result<Response, BatchAttempt> {
        let transient = |text: String| BatchAttempt::SameForAll(Outcome::transient(text));
        let unknown = |text: String| BatchAttempt::SameForAll(Outcome::unknown(text));
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
                PostOutcome::Answered(response) => response,
                PostOutcome::NotSent(_) if closed.load(Ordering::Relaxed) => {
                    let outcome = Outcome::not_tried("the delivery was stopped before its turn");
                    return Err(BatchAttempt::SameForAll(outcome));
                }
                PostOutcome::NotSent(error) => return Err(transient(error.full_message())),
                PostOutcome::Unknown(error) => return Err(unknown(error.full_message())),
            };
            if response.status.is_success() {
                return Ok(response);
            }
            let status = response.status;
            let text = refusal(request, &response, "").to_string();
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
                return Err(if busy { BatchAttempt::VmBusy(text) } else { transient(text) });
            }
            return Err(match status.as_u16() {
                403 | 404 | 409 | 410 | 412 => BatchAttempt::TryNextVm(text),
                // A 503 says that nothing was done. The other server errors do not.
                503 => transient(text),
                500..=599 => unknown(format!("{text}; whether the script was run is unknown")),
                _ => transient(text),
            });
        }
    }

    /// Waits for the end of a script that was accepted.
    async fn result(&self, response: Response) -> Result<OperationResult> {
        match Operation::started_by(&self.arm, &response)? {
            Some(operation) => self.arm.follow(operation, Deadline::after(self.options.timeout)).await,
            None => {
                let output = response.json("the Run Command", "endpoint is Resource Manager itself")?;
                Ok(OperationResult { succeeded: true, output, error: None })
            }
        }
    }

    /// Splits the events into batches that fit into one script.
    fn batches(&self, ready: Vec<(usize, Vec<String>)>) -> Vec<Vec<(usize, Vec<String>)>> {
        // The shell of another user needs quotes within quotes.
        let growth = if self.options.run_as.is_some() { 4 } else { 1 };
        let mut batches: Vec<Vec<_>> = Vec::new();
        let mut length = 0;
        for (at, arguments) in ready {
            let own = growth * arguments.iter().map(|argument| quoted(argument).len() + 1).sum::<usize>();
            match batches.last_mut() {
                Some(batch) if batch.len() < self.options.batch && length + own <= LONGEST_SCRIPT => {
                    length += own;
                    batch.push((at, arguments));
                }
                _ => {
                    length = own;
                    batches.push(vec![(at, arguments)]);
                }
            }
        }
        batches
    }
}

/// The outcome of each event in the output of a script.
fn read(script: &Script, result: &OperationResult, settings: &ScriptSettings) -> BatchAttempt {
    let messages: Vec<&str> = match result.output.get("value").and_then(Value::as_array) {
        Some(parts) => parts.iter().filter_map(|part| part.get("message")?.as_str()).collect(),
        None => Vec::new(),
    };
    let why = result.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    match script.read(&messages.join("\n")) {
        ScriptOutput::NothingSent(reason) => BatchAttempt::TryNextVm(reason),
        ScriptOutput::Events(events) => BatchAttempt::Done(
            events
                .into_iter()
                .map(|event| match event {
                    Some((code, text)) => script::outcome(code, &text, settings.limit),
                    None => Outcome::unknown(format!(
                        "the output of the script says nothing about this event; Run Command keeps the last 4,096 bytes{why}"
                    )),
                })
                .collect(),
        ),
    }
}

#[async_trait]
impl Transport for RunCommand {
    fn name(&self) -> &str {
        "run_command"
    }

    fn check(&self, delivery: &Delivery) -> Result<(), String> {
        self.arguments(delivery).map(|_| ())
    }

    fn describe(&self, delivery: &Delivery) -> String {
        match self.arguments(delivery) {
            Ok(arguments) => {
                let arguments: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
                format!("Run Command: {} {}", quoted(&self.options.program), arguments.join(" "))
            }
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
        let mut results = self.send_batch(std::slice::from_ref(delivery), gate).await;
        results.pop().unwrap_or_else(|| Outcome::not_tried("there was nothing to send").into())
    }

    async fn send_batch(&self, deliveries: &[Delivery], gate: &Gate) -> Vec<Sent> {
        let not_tried = Sent::from(Outcome::not_tried("the delivery was stopped before its turn"));
        let mut results = vec![not_tried; deliveries.len()];
        let mut ready = Vec::new();
        for (at, delivery) in deliveries.iter().enumerate() {
            match self.arguments(delivery) {
                Ok(arguments) => ready.push((at, arguments)),
                Err(reason) => results[at] = Outcome::permanent(reason).into(),
            }
        }
        for batch in self.batches(ready) {
            if !gate.is_open() {
                break;
            }
            let (indices, arguments): (Vec<usize>, Vec<Vec<String>>) = batch.into_iter().unzip();
            for (at, sent) in indices.into_iter().zip(self.run(&self.settings, &arguments, gate).await) {
                results[at] = sent;
            }
        }
        results
    }

    fn reads_status(&self) -> bool {
        self.options.autostatus.is_some()
    }

    async fn status(&self, job_id: &str) -> Result<String, String> {
        let Some(program) = &self.options.autostatus else {
            return Err("autostatus is not set, so that Run Command cannot read a status".to_owned());
        };
        let job = JobName::parse(job_id).map_err(|e| e.to_string())?;
        let settings = ScriptSettings { program: program.clone(), ..self.settings.clone() };
        let arguments = [vec!["-J".to_owned(), job.as_str().to_owned()]];
        let sent = self.run(&settings, &arguments, &Gate::open()).await.pop();
        match sent.map(|sent| sent.outcome) {
            Some(Outcome::Delivered { detail: Some(text) }) => {
                // The profile of a site may print other lines before the status.
                Ok(text.split_whitespace().last().unwrap_or_default().to_owned())
            }
            Some(Outcome::Delivered { detail: None }) => Err("autostatus printed nothing".to_owned()),
            Some(Outcome::Failed { detail, .. } | Outcome::Unknown { detail } | Outcome::NotTried { detail }) => {
                Err(detail.replace("sendevent", "autostatus"))
            }
            None => Err("autostatus gave no answer".to_owned()),
        }
    }

    fn shows(&self, delivery: &Delivery, status: &str) -> bool {
        self.options.mapping.shows(&delivery.status, status)
    }
}
