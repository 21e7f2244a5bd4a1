//! Run Command against the sandbox's Azure, whose VMs are this machine's `/bin/sh`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::autosys::transport::{Delivery, SendResult, Transport};
use crate::azure::{Credential, CredentialVariables};
use crate::inventory::Inventory;
use crate::runtime::block_on;
use crate::sandbox::azure::{
    AzureOptions, CLIENT_ID, RESOURCE_GROUP, RunCommandMode, SUBSCRIPTION_ID, SimulatedRunCommand, TENANT_ID,
};
use crate::sandbox::{Sandbox, SandboxOptions};
use crate::selection::{CursorKind, SelectorOptions};
use std::time::Duration;

mod scripts;

fn sandbox(vms: usize, stand: SimulatedRunCommand) -> Sandbox {
    let azure_options = AzureOptions { run_command: stand, ..AzureOptions::default() };
    Sandbox::start(SandboxOptions { viya: None, azure: Some(azure_options), vms, vms_down: 0, ..Default::default() })
        .unwrap()
}

fn options(sandbox: &Sandbox) -> RunCommandOptions {
    let azure = sandbox.azure.as_ref().unwrap();
    RunCommandOptions {
        credential: Credential::service_principal(TENANT_ID, CLIENT_ID, azure.client_secret()),
        endpoint: Some(azure.url()),
        authority_host: Some(azure.url()),
        variables: CredentialVariables::default(),
        busy_timeout: Duration::from_secs(60),
        timeout: Duration::from_secs(60),
        ..RunCommandOptions::new(SUBSCRIPTION_ID, Some(RESOURCE_GROUP.to_owned()))
    }
}

fn with(mut options: RunCommandOptions, change: impl FnOnce(&mut VmCommand)) -> RunCommandOptions {
    change(&mut options.command);
    options
}

fn selector(sandbox: &Sandbox) -> RoundRobinSelector {
    let options = SelectorOptions {
        cursor: CursorKind::Process,
        probe: sandbox.vms.probe().parse().unwrap(),
        ..SelectorOptions::default()
    };
    RoundRobinSelector::new(sandbox.inventory.clone().unwrap(), options).unwrap()
}

fn transport(sandbox: &Sandbox) -> RunCommand {
    RunCommand::new(selector(sandbox), options(sandbox)).unwrap()
}

fn delivery(job: &str) -> Delivery {
    Delivery { file_name: format!("{job}.sas"), job_id: job.to_owned(), status: "SUCCESS".to_owned() }
}

fn deliveries(jobs: &[&str]) -> Vec<Delivery> {
    jobs.iter().map(|job| delivery(job)).collect()
}

fn send(way: &RunCommand, jobs: &[&str]) -> Vec<SendResult> {
    let deliveries = deliveries(jobs);
    block_on(async { Ok(way.send_batch(&deliveries, &Gate::open()).await) }).unwrap()
}

fn word(sent: &SendResult) -> &'static str {
    match &sent.outcome {
        SendOutcome::Delivered { .. } => "delivered",
        SendOutcome::Failed { permanent: true, .. } => "permanent",
        SendOutcome::Failed { .. } => "transient",
        SendOutcome::Unknown { .. } => "unknown",
        SendOutcome::NotTried => "not tried",
    }
}

fn detail(sent: &SendResult) -> String {
    match &sent.outcome {
        SendOutcome::Delivered { detail } => detail.clone().unwrap_or_default(),
        SendOutcome::Failed { detail, .. } | SendOutcome::Unknown { detail } => detail.clone(),
        SendOutcome::NotTried => String::new(),
    }
}

fn events(sandbox: &Sandbox) -> Vec<String> {
    sandbox.autosys.as_ref().unwrap().events().unwrap().into_iter().map(|event| event.job).collect()
}

#[test]
fn each_event_of_a_batch_has_its_own_outcome() {
    let sandbox = sandbox(2, SimulatedRunCommand::default());
    sandbox.autosys.as_ref().unwrap().refuse_once(&["B".to_owned()]).unwrap();
    let way = transport(&sandbox);
    let mut batch = deliveries(&["A", "B", "C", "two words"]);
    batch.push(Delivery { status: "success".to_owned(), ..delivery("E") });
    let sent = block_on(async { Ok(way.send_batch(&batch, &Gate::open()).await) }).unwrap();
    assert_eq!(
        sent.iter().map(word).collect::<Vec<_>>(),
        ["delivered", "transient", "delivered", "permanent", "permanent"]
    );
    assert!(detail(&sent[1]).contains("CAUAJM_E_10029"), "{sent:?}");
    assert_eq!(
        sent.iter().map(|sent| sent.vm.as_deref()).collect::<Vec<_>>(),
        [Some("vm1"), Some("vm1"), Some("vm1"), None, None]
    );
    assert_eq!(events(&sandbox), ["A", "C"]);
    assert_eq!(sandbox.azure.as_ref().unwrap().scripts().len(), 1, "one script for all of them");
    assert_eq!(send(&way, &["D"])[0].vm.as_deref(), Some("vm2"), "the next batch is for the next VM");
}

#[test]
fn a_program_that_did_not_end_by_itself_is_unknown_whatever_it_said() {
    let said = "CAUAJM_W_10496 no answer, trying the next one";
    for (code, text, expected) in [
        (0, "", "delivered"),
        (0, said, "transient"),
        (1, "CAUAJM_E_50029 Invalid job name", "permanent"),
        (127, said, "transient"),
        (124, said, "unknown"),
        (124, "CAUAJM_E_50029 Invalid job name", "unknown"),
        (137, said, "unknown"),
        (129, said, "unknown"),
        (192, said, "unknown"),
        (137, "", "unknown"),
        // exit(-1), which is no signal.
        (255, said, "transient"),
        (255, "", "unknown"),
    ] {
        let sent = SendResult::from(script::outcome(code, text, Duration::from_secs(2)));
        assert_eq!(word(&sent), expected, "{code} {text}: {sent:?}");
        assert!(detail(&sent).contains(text), "{sent:?}");
    }
}

#[test]
fn the_result_is_found_where_only_its_location_is_told() {
    let sandbox = sandbox(1, SimulatedRunCommand { location_only: true, polls: 2, ..SimulatedRunCommand::default() });
    assert_eq!(word(&send(&transport(&sandbox), &["A"])[0]), "delivered");
}

#[test]
fn a_vm_that_ran_nothing_hands_over_to_the_next() {
    let sandbox = sandbox(2, SimulatedRunCommand::default());
    let azure = sandbox.azure.as_ref().unwrap();
    for (number, mode) in [RunCommandMode::Forbidden, RunCommandMode::AgentDown].into_iter().enumerate() {
        azure.set_run_command("vm1", mode);
        let sent = send(&transport(&sandbox), &[&format!("J{number}")]);
        assert_eq!((word(&sent[0]), sent[0].vm.as_deref()), ("delivered", Some("vm2")), "{mode:?}: {sent:?}");
    }
    azure.set_run_command("vm1", RunCommandMode::Normal);
    azure.set_power("vm1", "deallocated").unwrap();
    assert_eq!(send(&transport(&sandbox), &["J2"])[0].vm.as_deref(), Some("vm2"));
    azure.set_run_command("vm2", RunCommandMode::AgentDown);
    let sent = send(&transport(&sandbox), &["J3"]);
    assert_eq!(word(&sent[0]), "transient", "{sent:?}");
    let text = detail(&sent[0]);
    assert!(text.contains("vm1: ") && text.contains("vm2: ") && text.contains("VMAgentStatus"), "{text}");
    assert_eq!(events(&sandbox), ["J0", "J1", "J2"]);
}

#[test]
fn vms_are_found_in_whatever_resource_group_they_are() {
    let sandbox = sandbox(2, SimulatedRunCommand::default());
    let found = RunCommandOptions { resource_group: None, ..options(&sandbox) };
    let way = RunCommand::new(selector(&sandbox), found).unwrap();
    assert_eq!(word(&send(&way, &["A"])[0]), "delivered");
    let elsewhere = RunCommandOptions { resource_group: Some("other".to_owned()), ..options(&sandbox) };
    let sent = send(&RunCommand::new(selector(&sandbox), elsewhere).unwrap(), &["B"]);
    assert!(word(&sent[0]) == "transient" && detail(&sent[0]).contains("404"), "{sent:?}");
}

#[test]
fn what_may_have_run_is_unknown_and_not_run_again() {
    for (mode, ran) in [
        (RunCommandMode::FailsAfterwards, 1),
        (RunCommandMode::OutputLost, 1),
        (RunCommandMode::Forgotten, 1),
        (RunCommandMode::OperationFails, 0),
    ] {
        let sandbox = sandbox(2, SimulatedRunCommand::default());
        sandbox.azure.as_ref().unwrap().set_run_command("vm1", mode);
        let sent = send(&transport(&sandbox), &["A", "B"]);
        assert_eq!(sent.iter().map(word).collect::<Vec<_>>(), ["unknown", "unknown"], "{mode:?}: {sent:?}");
        assert_eq!(sent[0].vm.as_deref(), Some("vm1"));
        assert_eq!(sandbox.azure.as_ref().unwrap().scripts().len(), ran, "{mode:?}");
    }
}

#[test]
fn output_that_was_cut_off_leaves_those_events_unknown() {
    let sandbox = sandbox(1, SimulatedRunCommand { output_limit: 150, ..SimulatedRunCommand::default() });
    let sent = send(&transport(&sandbox), &["A", "B", "C", "D"]);
    let words: Vec<&str> = sent.iter().map(word).collect();
    assert_eq!(words, ["unknown", "unknown", "delivered", "delivered"], "{sent:?}");
    assert!(detail(&sent[0]).contains("4,096"), "{sent:?}");
    assert_eq!(events(&sandbox), ["A", "B", "C", "D"]);
}

#[test]
fn too_many_requests_are_waited_out_and_not_for_ever() {
    let sandbox = sandbox(1, SimulatedRunCommand::default());
    let azure = sandbox.azure.as_ref().unwrap();
    azure.set_run_command("vm1", RunCommandMode::Throttled);
    let hurried = RunCommandOptions { busy_timeout: Duration::ZERO, ..options(&sandbox) };
    let sent = send(&RunCommand::new(selector(&sandbox), hurried.clone()).unwrap(), &["A"]);
    assert!(word(&sent[0]) == "transient" && detail(&sent[0]).contains("429"), "{sent:?}");
    azure.set_run_command("vm1", RunCommandMode::Busy);
    let sent = send(&RunCommand::new(selector(&sandbox), hurried).unwrap(), &["A"]);
    assert!(word(&sent[0]) == "transient" && detail(&sent[0]).contains("in progress"), "{sent:?}");
}

/// How often a command was asked for.
fn posts(sandbox: &Sandbox) -> usize {
    sandbox
        .azure
        .as_ref()
        .unwrap()
        .requests()
        .iter()
        .filter(|line| line.starts_with("POST") && line.contains("/runCommand"))
        .count()
}

#[test]
fn a_busy_vm_is_waited_for_and_the_gate_asked_before_each_try() {
    let sandbox = sandbox(1, SimulatedRunCommand::default());
    let way = transport(&sandbox);
    let sandbox = Arc::new(Mutex::new(sandbox));
    let set = |mode| sandbox.lock().unwrap().azure.as_ref().unwrap().set_run_command("vm1", mode);
    set(RunCommandMode::Busy);
    let asked = Arc::new(AtomicUsize::new(0));
    // The question before the third try finds the VM free.
    let gate = Gate::new({
        let (asked, sandbox) = (Arc::clone(&asked), Arc::clone(&sandbox));
        move || {
            if asked.fetch_add(1, Ordering::Relaxed) == 3 {
                sandbox.lock().unwrap().azure.as_ref().unwrap().set_run_command("vm1", RunCommandMode::Normal);
            }
            true
        }
    });
    let sent = block_on(async { Ok(way.send(&delivery("A"), &gate).await) }).unwrap();
    assert_eq!(word(&sent), "delivered", "{sent:?}");
    // Once for the batch, and once per try.
    assert_eq!((asked.load(Ordering::Relaxed), posts(&sandbox.lock().unwrap())), (4, 3));

    set(RunCommandMode::Busy);
    let left = AtomicUsize::new(3);
    let gate = Gate::new(move || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok());
    let sent = block_on(async { Ok(way.send(&delivery("B"), &gate).await) }).unwrap();
    assert_eq!(word(&sent), "not tried", "{sent:?}");
    assert_eq!(posts(&sandbox.lock().unwrap()), 5, "no try behind a closed gate");
    assert_eq!(events(&sandbox.lock().unwrap()), ["A"]);
}

#[test]
fn batches_of_this_process_queue_up_for_a_vm() {
    let sandbox = sandbox(1, SimulatedRunCommand::default());
    let (one, other) = (transport(&sandbox), transport(&sandbox));
    let jobs: Vec<Delivery> = (0..6).map(|number| delivery(&format!("J{number}"))).collect();
    let gate = Gate::open();
    let sends = jobs
        .iter()
        .enumerate()
        .map(|(at, job)| if at % 2 == 0 { one.send(job, &gate) } else { other.send(job, &gate) });
    let sent = block_on(async { Ok(futures::future::join_all(sends).await) }).unwrap();
    assert!(sent.iter().all(|sent| word(sent) == "delivered"), "{sent:?}");
    assert_eq!(posts(&sandbox), 6, "none was refused because another one was running");
}

/// Passes requests on to `to`, and breaks off when the answer to the first POST for a command comes.
async fn cutting(to: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.unwrap();
                let (mut sent, mut answer) = (Vec::new(), Vec::new());
                loop {
                    tokio::select! {
                        read = client.read_buf(&mut sent) => {
                            let count = read.unwrap_or(0);
                            if count == 0 { return }
                            let from = sent.len() - count;
                            server.write_all(&sent[from..]).await.unwrap();
                        }
                        read = server.read_buf(&mut answer) => {
                            let command = String::from_utf8_lossy(&sent).contains("/runCommand?");
                            if read.unwrap_or(0) == 0 || command { return }
                            client.write_all(&answer).await.unwrap();
                            answer.clear();
                        }
                    }
                }
            });
        }
    });
    own
}

#[test]
fn an_answer_that_was_lost_leaves_it_unknown_and_what_was_never_sent_is_tried_again() {
    let sandbox = sandbox(2, SimulatedRunCommand::default());
    let server = sandbox.azure.as_ref().unwrap().url().trim_start_matches("http://").parse().unwrap();
    let proxy = block_on(async { Ok(cutting(server).await) }).unwrap();
    let through = RunCommandOptions { endpoint: Some(format!("http://{proxy}")), ..options(&sandbox) };
    let sent = send(&RunCommand::new(selector(&sandbox), through).unwrap(), &["A", "B"]);
    assert_eq!(sent.iter().map(word).collect::<Vec<_>>(), ["unknown", "unknown"], "{sent:?}");
    assert_eq!(sandbox.azure.as_ref().unwrap().scripts().len(), 1, "it was run, and not run again");

    let unused = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let away = RunCommandOptions { endpoint: Some(format!("http://{unused}")), ..options(&sandbox) };
    let sent = send(&RunCommand::new(selector(&sandbox), away).unwrap(), &["A"]);
    assert!(word(&sent[0]) == "transient" && detail(&sent[0]).contains("could not be reached"), "{sent:?}");
}

#[test]
fn statuses_are_read_when_asked_for() {
    let sandbox = sandbox(1, SimulatedRunCommand::default());
    assert!(!transport(&sandbox).reads_status());
    let reading = with(options(&sandbox), |command| command.autostatus = Some("autostatus".to_owned()));
    let way = RunCommand::new(selector(&sandbox), reading).unwrap();
    assert!(way.reads_status());
    send(&way, &["A"]);
    let status = |job: &'static str| block_on(async { Ok(way.status(job).await) }).unwrap();
    assert_eq!(status("A").as_deref(), Ok("SUCCESS"));
    assert_eq!(status("B").as_deref(), Ok("INACTIVE"));
    assert!(status("no such").unwrap_err().contains("AutoSys refuses"));
}

#[test]
fn options_that_can_never_work_are_refused_and_secrets_not_shown() {
    let sandbox = sandbox(1, SimulatedRunCommand::default());
    let refused = |options: RunCommandOptions| {
        let error = RunCommand::new(selector(&sandbox), options).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{error}");
        assert!(!error.full_message().contains(&sandbox.azure.as_ref().unwrap().client_secret()));
    };
    let usual = || options(&sandbox);
    refused(RunCommandOptions { subscription_id: "a/b".to_owned(), ..usual() });
    refused(RunCommandOptions { resource_group: Some("a b".to_owned()), ..usual() });
    refused(with(usual(), |command| command.program = "a\nb".to_owned()));
    refused(with(usual(), |command| command.program = "-x".to_owned()));
    refused(with(usual(), |command| command.env_file = Some("relative".to_owned())));
    refused(with(usual(), |command| command.run_as = Some("a;b".to_owned())));
    refused(with(usual(), |command| command.batch = 61));
    refused(with(usual(), |command| command.comment = Some("-x".to_owned())));
    refused(RunCommandOptions { endpoint: Some("http://10.0.0.4".to_owned()), ..usual() });
    let odd = Inventory::new(vec![crate::inventory::Vm::named("a b")]).unwrap();
    let selector = RoundRobinSelector::new(odd, SelectorOptions { cursor: CursorKind::Process, ..Default::default() });
    assert!(RunCommand::new(selector.unwrap(), usual()).is_err());
    let shown = format!("{:?} {:?}", transport(&sandbox), usual());
    assert!(shown.contains(CLIENT_ID) && !shown.contains(&sandbox.azure.as_ref().unwrap().client_secret()), "{shown}");
}
