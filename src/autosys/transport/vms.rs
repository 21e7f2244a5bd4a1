//! What SSH and Run Command have in common: they run `sendevent` on a VM that a selector picks, and go to the next VM when
//! one cannot run it.

use std::time::Duration;
use std::{fmt, iter};

use async_trait::async_trait;

use super::{Delivery, Gate, SendOutcome, SendResult, Transport, command};
use crate::autosys::event::Mapping;
use crate::error::{Error, Result};
use crate::selection::{RoundRobinSelector, Selection};

/// The arguments of one `sendevent` call.
pub type Arguments = Vec<String>;

/// What happened to one event on one VM.
#[derive(Debug, Clone)]
pub enum EventAttempt {
    /// The event has this outcome.
    Done(SendOutcome),
    /// Nothing was sent, for this reason of the VM.
    TryNextVm(String),
}

/// What happened to a batch on one VM.
#[derive(Debug)]
pub struct BatchAttempt {
    /// One for each event of the batch.
    pub events: Vec<EventAttempt>,
    /// Whether the VM works; `None` when the attempt does not tell.
    pub vm_works: Option<bool>,
}

/// What is run on a VM, and how deliveries become events.
#[derive(Debug, Clone)]
pub struct VmCommand {
    /// The program on the VM: a path, or a name that is looked up in `PATH` there.
    pub program: String,
    /// The program on the VM that prints a job's status, such as `autostatus`; `None`: the status is not read.
    pub autostatus: Option<String>,
    /// A shell file on the VM that is sourced before, such as `/opt/autouser.ACE/autosys.sh.host`.
    pub env_file: Option<String>,
    /// The user on the VM who runs the program, through `sudo`; `None`: the user who logs in, root with Run Command.
    pub run_as: Option<String>,
    /// The event of each status.
    pub mapping: Mapping,
    /// Text for `-C`, which starts with a letter or digit; `{file_name}` becomes the row's file name. Cut at 255
    /// characters, control characters become spaces.
    pub comment: Option<String>,
    /// How many events are sent on one VM before the selector picks the next one.
    pub batch: usize,
}

impl VmCommand {
    /// `sendevent`, with `batch` events at a time.
    pub(super) fn new(autostatus: Option<&str>, batch: usize) -> Self {
        let (program, autostatus) = ("sendevent".to_owned(), autostatus.map(str::to_owned));
        Self {
            program,
            autostatus,
            env_file: None,
            run_as: None,
            mapping: Mapping::change_status(),
            comment: None,
            batch,
        }
    }

    /// Refuses a command that can never work.
    pub(super) fn check(&self) -> Result<()> {
        let texts = [
            ("program", Some(&self.program)),
            ("autostatus", self.autostatus.as_ref()),
            ("env_file", self.env_file.as_ref()),
            ("run_as", self.run_as.as_ref()),
        ];
        for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            check_text(name, text)?;
        }
        if self.run_as.as_ref().is_some_and(|user| user.starts_with('-')) {
            return Err(Error::invalid(
                "run_as starts with '-', which sudo could take for an option; give a user name",
            ));
        }
        if self.batch == 0 {
            return Err(Error::invalid("batch must be at least 1"));
        }
        command::check_comment(self.comment.as_deref())
    }
}

/// Refuses a text that no program, file and user name can be.
pub(super) fn check_text(name: &str, text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::invalid(format!("{name} is empty; give a value, or leave it out")));
    }
    if text.contains(char::is_control) {
        return Err(Error::invalid(format!("{name} has a control character, which no file name and no user name has")));
    }
    Ok(())
}

/// Runs commands on VMs.
#[async_trait]
pub trait VmRunner: fmt::Debug + Send + Sync {
    /// The name of the transport.
    const NAME: &'static str;

    /// One line that says how `command` is run with `arguments`.
    fn describe(&self, command: &VmCommand, arguments: &[String]) -> String;

    /// How long `command` can run for a batch of events, once it was started.
    fn time_limit(&self, command: &VmCommand) -> Duration;

    /// How many of the first events may be sent together.
    fn split(&self, _command: &VmCommand, events: &[(usize, Arguments)]) -> usize {
        events.len()
    }

    /// Runs `command` on `vm` with the arguments of each event.
    async fn run(
        &self,
        vm: &Selection,
        command: &VmCommand,
        events: &[(usize, Arguments)],
        gate: &Gate,
    ) -> BatchAttempt;

    /// The status that `command` prints with `arguments`.
    ///
    /// # Errors
    /// Why it cannot be read; never a secret.
    async fn status(
        &self,
        selector: &RoundRobinSelector,
        command: &VmCommand,
        arguments: Arguments,
    ) -> Result<String, String>;
}

/// Sends events with the `sendevent` program on VMs that a selector picks in turn, one for each batch.
///
/// Every value is quoted for the shell on the VM, so that no character of it is interpreted. When a VM certainly did not run
/// the program, the events that were not sent go to the next one.
#[derive(Debug)]
pub struct VmTransport<R> {
    selector: RoundRobinSelector,
    command: VmCommand,
    runner: R,
}

impl<R: VmRunner> VmTransport<R> {
    pub(super) fn with_runner(selector: RoundRobinSelector, command: VmCommand, runner: R) -> Self {
        Self { selector, command, runner }
    }

    fn arguments(&self, delivery: &Delivery) -> Result<Arguments, String> {
        command::arguments(&self.command.mapping, self.command.comment.as_deref(), delivery)
    }
}

/// Runs `command` with the arguments of each event, on the next VM that can. Returns the result of each event with its index.
pub(super) async fn run_on_vms<R: VmRunner>(
    selector: &RoundRobinSelector,
    runner: &R,
    command: &VmCommand,
    mut events: Vec<(usize, Arguments)>,
    gate: &Gate,
) -> Vec<(usize, SendResult)> {
    let mut results = Vec::new();
    let mut failed: Vec<(String, String)> = Vec::new();
    while !events.is_empty() {
        let selection = match next_vm(selector, &failed).await {
            Ok(selection) => selection,
            Err(sent) => {
                results.extend(events.into_iter().map(|(at, _)| (at, sent.clone())));
                break;
            }
        };
        let vm = selection.vm.clone();
        let attempt = runner.run(&selection, command, &events, gate).await;
        if let Some(works) = attempt.vm_works
            && let Err(error) = selector.report(&vm, works).await
        {
            tracing::warn!(vm, %error, "the result of the VM could not be reported to the selector");
        }
        let (mut unsent, mut reason) = (Vec::new(), None);
        // An event without a result may have been sent.
        let missing =
            iter::repeat_with(|| EventAttempt::Done(SendOutcome::unknown("the VM gave no result for this event")));
        for ((at, arguments), event) in events.into_iter().zip(attempt.events.into_iter().chain(missing)) {
            match event {
                EventAttempt::Done(outcome) => results.push((at, SendResult { outcome, vm: Some(vm.clone()) })),
                EventAttempt::TryNextVm(why) => {
                    reason = Some(why);
                    unsent.push((at, arguments));
                }
            }
        }
        events = unsent;
        if let Some(reason) = reason {
            tracing::warn!(vm, reason, "the VM did not run the command; the next one is tried");
            failed.push((vm, reason));
        }
    }
    results
}

/// The next VM that did not fail, or the result when there is none.
async fn next_vm(selector: &RoundRobinSelector, failed: &[(String, String)]) -> Result<Selection, SendResult> {
    let list = |failures: &[(String, String)]| {
        failures.iter().map(|(vm, why)| format!("{vm}: {why}")).collect::<Vec<_>>().join("; ")
    };
    let (tried, reasons) = (failed.iter().map(|(vm, _)| vm.clone()).collect::<Vec<_>>(), list(failed));
    if tried.len() >= selector.inventory().vms().len() {
        let outcome = SendOutcome::transient(format!("no VM could run the command: {reasons}"));
        return Err(SendResult { outcome, vm: tried.last().cloned() });
    }
    selector.select(&tried).await.map_err(|error| {
        let before = if reasons.is_empty() { String::new() } else { format!("{reasons}; ") };
        let more = match list(error.failures()) {
            more if more.is_empty() => more,
            more => format!(" ({more})"),
        };
        SendOutcome::transient(format!("{before}{error}{more}")).into()
    })
}

#[async_trait]
impl<R: VmRunner> Transport for VmTransport<R> {
    fn name(&self) -> &str {
        R::NAME
    }

    fn time_limit(&self) -> Option<Duration> {
        Some(self.runner.time_limit(&self.command))
    }

    fn describe(&self, delivery: &Delivery) -> Result<String, String> {
        Ok(self.runner.describe(&self.command, &self.arguments(delivery)?))
    }

    fn max_batches(&self) -> usize {
        self.selector.inventory().vms().len()
    }

    fn batch_size(&self) -> usize {
        self.command.batch
    }

    async fn send(&self, delivery: &Delivery, gate: &Gate) -> SendResult {
        let sent = self.send_batch(std::slice::from_ref(delivery), gate).await.pop();
        sent.unwrap_or_else(|| SendOutcome::NotTried.into())
    }

    async fn send_batch(&self, deliveries: &[Delivery], gate: &Gate) -> Vec<SendResult> {
        let mut results = vec![SendResult::from(SendOutcome::NotTried); deliveries.len()];
        let mut ready = Vec::new();
        for (at, delivery) in deliveries.iter().enumerate() {
            match self.arguments(delivery) {
                Ok(arguments) => ready.push((at, arguments)),
                Err(reason) => results[at] = SendOutcome::permanent(reason).into(),
            }
        }
        while !ready.is_empty() && gate.is_open() {
            let rest = ready.split_off(self.runner.split(&self.command, &ready).clamp(1, ready.len()));
            let batch = std::mem::replace(&mut ready, rest);
            for (at, sent) in run_on_vms(&self.selector, &self.runner, &self.command, batch, gate).await {
                results[at] = sent;
            }
        }
        results
    }

    fn reads_status(&self) -> bool {
        self.command.autostatus.is_some()
    }

    async fn status(&self, job_id: &str) -> Result<String, String> {
        let program = self.command.autostatus.clone().ok_or("no autostatus program is set")?;
        let command = VmCommand { program, ..self.command.clone() };
        self.runner.status(&self.selector, &command, command::status_arguments(job_id)?).await
    }

    fn confirms(&self, delivery: &Delivery, status: &str) -> bool {
        self.command.mapping.confirms(&delivery.status, status)
    }
}
