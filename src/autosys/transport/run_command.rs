//! Azure Run Command on a selected VM as the way to AutoSys: one script per batch, which runs `sendevent` once per event.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::shell::quoted;
use super::{Delivery, Gate, Outcome, Sent, Transport, command};
use crate::autosys::event::JobName;
use crate::azure::{
    Answer, ArmClient, Call, Cloud, Deadline, Ended, Operation, Posted, ResourceId, check_segment, retry,
};
use crate::error::Result;
use crate::selection::RoundRobinSelector;

mod options;
mod place;
mod script;
#[cfg(test)]
mod tests;
mod turn;

pub use options::RunCommandOptions;
use place::Places;
use script::{Frame, Printed, Script};

/// Version of Microsoft.Compute's interface.
const API_VERSION: &str = "2024-07-01";
const PERMISSION: &str = "Microsoft.Compute/virtualMachines/runCommand/action";
/// Most bytes of the values of one script: Resource Manager and `sh -c` both have limits, the shell's being 128 KiB.
const LONGEST_SCRIPT: usize = 64 << 10;

/// Sends events by Run Command, on VMs that a selector picks in turn.
///
/// Every value is quoted for the shell, so that no character of it is interpreted. Each event's exit code comes back on a
/// line of its own: that the script as a whole succeeded says nothing about one. A VM that surely ran nothing (it is not
/// there, not running, not allowed, has no `sendevent`) hands the batch to the next one.
pub struct RunCommand {
    selector: RoundRobinSelector,
    arm: ArmClient,
    places: Places,
    frame: Frame,
    options: RunCommandOptions,
}

impl fmt::Debug for RunCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunCommand").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What became of a batch on one VM.
enum Went {
    /// For each event.
    Over(Vec<Outcome>),
    /// The same for all, and the next VM would do no better or must not be tried.
    Alike(Outcome),
    /// Surely nothing was sent, for this reason of the VM's.
    NextVm(String),
    /// The same, and the VM is well: it works for somebody else.
    Busy(String),
}

impl RunCommand {
    /// Checks the options; sends nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for options that can never work, and VMs of the selector whose names Azure cannot have.
    pub fn new(selector: RoundRobinSelector, options: RunCommandOptions) -> Result<Self> {
        options.check()?;
        for vm in selector.inventory().vms() {
            check_segment("the VM name", &vm.name)?;
        }
        let cloud = Cloud::new(options.endpoint.as_deref(), options.authority_host.as_deref(), &options.variables)?;
        let arm = ArmClient::new(&cloud, options.credential.clone(), options.variables.clone())?;
        let places = Places::new(&options.subscription_id, options.resource_group.as_deref());
        let frame = Frame {
            program: options.program.clone(),
            env_file: options.env_file.clone(),
            run_as: options.run_as.clone(),
            limit: options.event_timeout,
        };
        Ok(Self { selector, arm, places, frame, options })
    }

    fn arguments(&self, delivery: &Delivery) -> Result<Vec<String>, String> {
        command::arguments(&self.options.mapping, self.options.comment.as_deref(), delivery)
    }

    /// Runs the program of `frame` with each of `arguments` on the next VM that does it.
    async fn run(&self, frame: &Frame, arguments: &[Vec<String>], gate: &Gate) -> Vec<Sent> {
        let alike = |outcome: Outcome, vm: Option<String>| -> Vec<Sent> {
            arguments.iter().map(|_| Sent { outcome: outcome.clone(), vm: vm.clone() }).collect()
        };
        let mut failed: Vec<(String, String)> = Vec::new();
        loop {
            let tried: Vec<String> = failed.iter().map(|(vm, _)| vm.clone()).collect();
            let reasons = failed.iter().map(|(vm, why)| format!("{vm}: {why}")).collect::<Vec<_>>().join("; ");
            if tried.len() == self.selector.inventory().vms().len() {
                return alike(
                    Outcome::transient(format!("no VM could run the command: {reasons}")),
                    tried.last().cloned(),
                );
            }
            let selection = match self.selector.select(&tried).await {
                Ok(selection) => selection,
                Err(error) => {
                    let before = if reasons.is_empty() { String::new() } else { format!("{reasons}; ") };
                    let more: Vec<String> = error.failures().iter().map(|(vm, why)| format!("{vm}: {why}")).collect();
                    let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join("; ")) };
                    return alike(Outcome::transient(format!("{before}{error}{more}")), None);
                }
            };
            let vm = selection.vm.clone();
            let went = self.on_vm(&vm, frame, arguments, gate).await;
            // What is alike on every VM says nothing about this one.
            let well = match &went {
                Went::Over(_) => Some(true),
                Went::NextVm(_) => Some(false),
                Went::Alike(_) | Went::Busy(_) => None,
            };
            if let Some(well) = well
                && let Err(error) = self.selector.report(&vm, well).await
            {
                tracing::warn!(vm, %error, "what happened on the VM could not be reported to the selector");
            }
            match went {
                Went::Over(outcomes) => {
                    return outcomes.into_iter().map(|outcome| Sent { outcome, vm: Some(vm.clone()) }).collect();
                }
                Went::Alike(outcome) => return alike(outcome, Some(vm)),
                Went::NextVm(reason) | Went::Busy(reason) => {
                    tracing::warn!(vm, reason, "the VM did not run the command; the next one is tried");
                    failed.push((vm, reason));
                }
            }
        }
    }

    async fn on_vm(&self, vm: &str, frame: &Frame, arguments: &[Vec<String>], gate: &Gate) -> Went {
        let deadline = Deadline::after(self.options.timeout);
        let id = match self.places.of(vm, &self.arm, deadline).await {
            Ok(Some(id)) => id,
            Ok(None) => {
                return Went::NextVm(
                    "the subscription has no VM of this name, or several: see resource_group".to_owned(),
                );
            }
            Err(error) => return Went::Alike(Outcome::transient(error.full_message())),
        };
        let _turn = turn::of(&id).await;
        let script = Script::new(frame, arguments);
        let body = json!({ "commandId": "RunShellScript", "script": script.text.lines().collect::<Vec<_>>() });
        let call = Call::post(format!("{}/runCommand", id.path()), API_VERSION, body).needing(PERMISSION);
        let answer = match self.post(&call, gate).await {
            Ok(answer) => answer,
            Err(went) => return went,
        };
        match self.outcome(answer).await {
            Ok(ended) => read(&script, &ended, frame),
            // It was taken, and how it went is not known.
            Err(error) => Went::Alike(Outcome::unknown(format!("the script was started: {}", error.full_message()))),
        }
    }

    /// Starts the script, once it is the VM's turn: the answer that says that it was taken, or what became of it instead.
    async fn post(&self, call: &Call, gate: &Gate) -> Result<Answer, Went> {
        let patience = Instant::now() + self.options.busy_timeout;
        for tried in 1.. {
            let closed = AtomicBool::new(false);
            let may_send = || {
                let open = gate.is_open();
                closed.store(!open, Ordering::Relaxed);
                open
            };
            let answer = match self.arm.post_once(call, Deadline::after(self.options.timeout), &may_send).await {
                Posted::Answered(answer) => answer,
                Posted::NotSent(_) if closed.load(Ordering::Relaxed) => {
                    return Err(Went::Alike(Outcome::not_tried("the delivery was stopped before its turn")));
                }
                Posted::NotSent(error) => return Err(Went::Alike(Outcome::transient(error.full_message()))),
                Posted::Lost(error) => return Err(Went::Alike(Outcome::unknown(error.full_message()))),
            };
            if answer.status.is_success() {
                return Ok(answer);
            }
            let (status, asked) = (answer.status, answer.retry_after());
            let text = self.arm.refusal(call, answer).to_string();
            let busy = status == StatusCode::CONFLICT && text.to_lowercase().contains("in progress");
            if busy || status == StatusCode::TOO_MANY_REQUESTS {
                let wait = retry::wait(tried, asked);
                if Instant::now() + wait < patience {
                    tracing::debug!(?wait, reason = text, "waiting for the VM's turn");
                    tokio::time::sleep(wait).await;
                    continue;
                }
                let text =
                    format!("{text}; it was tried {tried} times within {} s", self.options.busy_timeout.as_secs_f64());
                return Err(if busy { Went::Busy(text) } else { Went::Alike(Outcome::transient(text)) });
            }
            return Err(match status.as_u16() {
                403 | 404 | 409 | 410 | 412 => Went::NextVm(text),
                // Of the server's failures the one that says that nothing was done.
                503 => Went::Alike(Outcome::transient(text)),
                500..=599 => Went::Alike(Outcome::unknown(format!("{text}; whether the script was run is unknown"))),
                _ => Went::Alike(Outcome::transient(text)),
            });
        }
        Err(Went::Alike(Outcome::not_tried("the VM's turn did not come")))
    }

    /// Waits for the end of a script that was taken.
    async fn outcome(&self, answer: Answer) -> Result<Ended> {
        match Operation::of(&self.arm, &answer)? {
            Some(operation) => self.arm.follow(operation, Deadline::after(self.options.timeout)).await,
            None => Ok(Ended { succeeded: true, output: answer.json("the Run Command")?, error: None }),
        }
    }

    /// Batches that are neither too many nor too long for one script.
    fn batches(&self, ready: Vec<(usize, Vec<String>)>) -> Vec<Vec<(usize, Vec<String>)>> {
        // Quotes within quotes, which another user's shell needs.
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

/// What the end of a script says about each event.
fn read(script: &Script, ended: &Ended, frame: &Frame) -> Went {
    let messages: Vec<&str> = match ended.output.get("value").and_then(Value::as_array) {
        Some(parts) => parts.iter().filter_map(|part| part.get("message")?.as_str()).collect(),
        None => Vec::new(),
    };
    let why = ended.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    match script.read(&messages.join("\n")) {
        Printed::Nothing(reason) => Went::NextVm(reason),
        Printed::Events(events) => Went::Over(
            events
                .into_iter()
                .map(|event| match event {
                    Some((code, text)) => script::verdict(code, &text, frame.limit),
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
        let mut answers = self.send_batch(std::slice::from_ref(delivery), gate).await;
        answers.pop().unwrap_or_else(|| Outcome::not_tried("there was nothing to send").into())
    }

    async fn send_batch(&self, deliveries: &[Delivery], gate: &Gate) -> Vec<Sent> {
        let mut answers: Vec<Sent> =
            deliveries.iter().map(|_| Outcome::not_tried("the delivery was stopped before its turn").into()).collect();
        let mut ready = Vec::new();
        for (at, delivery) in deliveries.iter().enumerate() {
            match self.arguments(delivery) {
                Ok(arguments) => ready.push((at, arguments)),
                Err(reason) => answers[at] = Outcome::permanent(reason).into(),
            }
        }
        for batch in self.batches(ready) {
            if !gate.is_open() {
                break;
            }
            let (places, arguments): (Vec<usize>, Vec<Vec<String>>) = batch.into_iter().unzip();
            for (at, sent) in places.into_iter().zip(self.run(&self.frame, &arguments, gate).await) {
                answers[at] = sent;
            }
        }
        answers
    }

    fn reads_status(&self) -> bool {
        self.options.autostatus.is_some()
    }

    async fn status(&self, job_id: &str) -> Result<String, String> {
        let Some(program) = &self.options.autostatus else {
            return Err("autostatus is not set, so that Run Command reads no status".to_owned());
        };
        let job = JobName::parse(job_id).map_err(|e| e.to_string())?;
        let frame = Frame { program: program.clone(), ..self.frame.clone() };
        let arguments = [vec!["-J".to_owned(), job.as_str().to_owned()]];
        let sent = self.run(&frame, &arguments, &Gate::open()).await.pop();
        match sent.map(|sent| sent.outcome) {
            Some(Outcome::Delivered { detail: Some(text) }) => {
                // Site profiles print lines of their own first.
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

/// The id of a VM in a known resource group.
fn vm_id(subscription: &str, group: &str, name: &str) -> ResourceId {
    ResourceId::new(subscription, group, "Microsoft.Compute", "virtualMachines", name)
}
