use std::path::Path;

use super::*;
use crate::ErrorKind;
use crate::sandbox::autosys::{AutosysOptions, AutosysSandbox};

fn sandbox(options: AutosysOptions) -> (tempfile::TempDir, AutosysSandbox) {
    let dir = tempfile::tempdir().unwrap();
    let sandbox = AutosysSandbox::start(dir.path(), options).unwrap();
    (dir, sandbox)
}

fn transport(program: impl Into<PathBuf>, comment: Option<&str>) -> SendEvent {
    let comment = comment.map(str::to_owned);
    SendEvent::new(SendEventOptions { program: program.into(), comment, ..Default::default() }).unwrap()
}

fn delivery(job: &str, status: &str) -> Delivery {
    Delivery { file_name: "in put.csv".into(), job_id: job.into(), status: status.into() }
}

/// A program of the test's own.
fn script(dir: &Path, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("sendevent");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn failure(outcome: SendOutcome) -> (String, bool) {
    match outcome {
        SendOutcome::Failed { detail, permanent } => (detail, permanent),
        other => panic!("not a failure: {other:?}"),
    }
}

#[tokio::test]
async fn events_arrive_as_mapped() {
    let (_dir, sandbox) = sandbox(AutosysOptions::default());
    let mapping = Mapping::parse([("SUCCESS", "STARTJOB"), ("FAILURE", "CHANGE_STATUS"), ("again", "FORCE_STARTJOB")]);
    let options = SendEventOptions { program: sandbox.sendevent(), mapping: mapping.unwrap(), ..Default::default() };
    let transport = SendEvent::new(options).unwrap();
    for status in ["SUCCESS", "FAILURE", "again"] {
        let outcome = transport.send(&delivery("a", status), &Gate::open()).await.outcome;
        assert!(
            matches!(&outcome, SendOutcome::Delivered { detail: Some(text) } if text.contains("CAUAJM_I")),
            "{outcome:?}"
        );
    }
    let events: Vec<_> = sandbox.events().unwrap().into_iter().map(|e| (e.event, e.job, e.status)).collect();
    let expected = [("STARTJOB", "RUNNING"), ("CHANGE_STATUS", "FAILURE"), ("FORCE_STARTJOB", "RUNNING")];
    assert_eq!(events, expected.map(|(event, status)| (event.to_owned(), "a".to_owned(), status.to_owned())));
    assert!(failure(transport.send(&delivery("a", "RUNNING"), &Gate::open()).await.outcome).1);
}

#[tokio::test]
async fn a_refusal_is_transient_and_an_unknown_job_permanent() {
    let jobs = Some(vec!["a".to_owned()]);
    let (_dir, sandbox) = sandbox(AutosysOptions { jobs, refuse_first: vec!["a".into()] });
    let transport = transport(sandbox.sendevent(), None);
    let (detail, permanent) = failure(transport.send(&delivery("a", "SUCCESS"), &Gate::open()).await.outcome);
    assert!(!permanent && detail.contains("CAUAJM_E_10029"), "{detail}");
    assert!(matches!(
        transport.send(&delivery("a", "SUCCESS"), &Gate::open()).await.outcome,
        SendOutcome::Delivered { .. }
    ));
    let (detail, permanent) = failure(transport.send(&delivery("b", "SUCCESS"), &Gate::open()).await.outcome);
    assert!(permanent && detail.contains("Invalid job name: b"), "{detail}");
}

#[tokio::test]
async fn no_value_is_interpreted() {
    let (dir, sandbox) = sandbox(AutosysOptions::default());
    let witness = dir.path().join("witness");
    let transport = transport(sandbox.sendevent(), Some("file {file_name}"));
    let file_name = format!("$(touch {0})`touch {0}`; touch {0} #", witness.display());
    let mut nasty = Delivery { file_name: file_name.clone(), ..delivery("a", "SUCCESS") };
    assert!(matches!(transport.send(&nasty, &Gate::open()).await.outcome, SendOutcome::Delivered { .. }));
    assert_eq!(sandbox.events().unwrap()[0].comment, Some(format!("file {file_name}")));
    nasty.file_name = format!("\n\0{}", "é".repeat(4000));
    assert!(matches!(transport.send(&nasty, &Gate::open()).await.outcome, SendOutcome::Delivered { .. }));
    assert_eq!(sandbox.events().unwrap()[1].comment, Some(format!("file   {}", "é".repeat(248))));
    for name in [file_name.as_str(), "; rm -rf x", "-x", "", "%", "a b"] {
        let bad = delivery(name, "SUCCESS");
        assert!(failure(transport.send(&bad, &Gate::open()).await.outcome).1, "{name}");
        assert!(transport.describe(&bad).is_err(), "{name}");
    }
    assert!(!witness.exists() && sandbox.events().unwrap().len() == 2);
}

#[tokio::test]
async fn a_gate_that_closes_while_the_variables_are_sourced_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let (env_file, sourced, sent) = (dir.path().join("env"), dir.path().join("sourced"), dir.path().join("sent"));
    std::fs::write(&env_file, format!("touch '{}'\n", sourced.display())).unwrap();
    let program = script(dir.path(), &format!("touch '{}'", sent.display()));
    let options = SendEventOptions { program, env_file: Some(env_file), ..Default::default() };
    let gate = Gate::new({
        let sourced = sourced.clone();
        move || !sourced.exists()
    });
    assert!(gate.is_open());
    let outcome = SendEvent::new(options).unwrap().send(&delivery("a", "SUCCESS"), &gate).await.outcome;
    assert_eq!(outcome, SendOutcome::NotTried);
    assert!(sourced.exists() && !sent.exists());
}

#[tokio::test]
async fn an_error_message_with_exit_code_0_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "printf 'sent\\nCAUAJM_W_1 is new\\n'");
    let (detail, permanent) =
        failure(transport(program, None).send(&delivery("a", "SUCCESS"), &Gate::open()).await.outcome);
    assert!(!permanent && detail == "AutoSys said CAUAJM_W_1: sent CAUAJM_W_1 is new", "{detail}");
}

#[tokio::test]
async fn an_exit_code_is_a_failure_and_a_signal_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "echo no >&2; exit 3");
    let (detail, permanent) =
        failure(transport(program, None).send(&delivery("a", "SUCCESS"), &Gate::open()).await.outcome);
    assert!(!permanent && detail == "sendevent ended with exit code 3: no", "{detail}");
    let program = script(dir.path(), "kill -9 $$");
    assert!(matches!(
        transport(program, None).send(&delivery("a", "SUCCESS"), &Gate::open()).await.outcome,
        SendOutcome::Unknown { .. }
    ));
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_and_the_outcome_unknown() {
    let dir = tempfile::tempdir().unwrap();
    // Opening a pipe without a writer never returns, and needs no child process.
    let program = script(dir.path(), "echo started; read line < \"${0%/*}/pipe\"");
    let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap();
    assert!(made.success());
    let timeout = Duration::from_millis(300);
    let transport = SendEvent::new(SendEventOptions { program, timeout, ..Default::default() }).unwrap();
    match transport.send(&delivery("a", "SUCCESS"), &Gate::open()).await.outcome {
        SendOutcome::Unknown { detail } => {
            assert!(detail.starts_with("sendevent was killed at its limit of 0.3 s"), "{detail}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn at_its_limit_all_that_the_program_started_is_killed() {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    // The child in the background keeps the pipe open for as long as it lives.
    let program = script(dir.path(), "exec 3> \"${0%/*}/alive\"; sleep 600 & echo ready; wait");
    let pipe = dir.path().join("alive");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let not_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut alive = std::fs::OpenOptions::new().read(true).custom_flags(not_waiting).open(&pipe).unwrap();
    let timeout = Duration::from_secs(2);
    let transport = SendEvent::new(SendEventOptions { program, timeout, ..Default::default() }).unwrap();
    match transport.send(&delivery("a", "SUCCESS"), &Gate::open()).await.outcome {
        SendOutcome::Unknown { detail } => assert!(detail.ends_with("ready"), "{detail}"),
        other => panic!("{other:?}"),
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    // The end of the pipe, in place of "nothing to read yet", is seen once its last holder has died.
    while alive.read(&mut [0; 1]).is_err() {
        assert!(std::time::Instant::now() < deadline, "a child of the program outlived the limit");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_child_left_in_the_background_is_neither_waited_for_nor_killed() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "sleep 600 & echo $!");
    let timeout = Duration::from_secs(20);
    let transport = SendEvent::new(SendEventOptions { program, timeout, ..Default::default() }).unwrap();
    let pid = match transport.send(&delivery("a", "SUCCESS"), &Gate::open()).await.outcome {
        SendOutcome::Delivered { detail: Some(detail) } => detail.trim().parse::<i32>().unwrap(),
        other => panic!("{other:?}"),
    };
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it should be alive still");
}

#[tokio::test]
async fn standard_input_is_closed_and_the_environment_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "read line && exit 1; printf '%s|' \"$AUTOSERV\" \"$@\"");
    let environment = BTreeMap::from([("AUTOSERV".to_owned(), "A $(x) E".into())]);
    let options = SendEventOptions { program, environment, comment: Some("by $(me)".into()), ..Default::default() };
    let outcome = SendEvent::new(options).unwrap().send(&delivery("a", "SUCCESS"), &Gate::open()).await.outcome;
    let detail = "A $(x) E|-E|CHANGE_STATUS|-s|SUCCESS|-J|a|-C|by $(me)|".to_owned();
    assert_eq!(outcome, SendOutcome::Delivered { detail: Some(detail) });
}

#[tokio::test]
async fn a_missing_program_is_a_transient_failure_that_says_so() {
    let (detail, permanent) =
        failure(transport("/nonexistent/sendevent", None).send(&delivery("a", "SUCCESS"), &Gate::open()).await.outcome);
    assert!(!permanent && detail.contains("/nonexistent/sendevent was not found"), "{detail}");
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let (detail, permanent) =
        failure(transport(plain, None).send(&delivery("a", "SUCCESS"), &Gate::open()).await.outcome);
    assert!(!permanent && detail.contains("cannot be run"), "{detail}");
}

#[tokio::test]
async fn time_helps_a_file_that_can_be_read_but_not_a_missing_one() {
    let dir = tempfile::tempdir().unwrap();
    let env_file = dir.path().join("env");
    let options = SendEventOptions { env_file: Some(env_file.clone()), ..Default::default() };
    let error = SendEvent::new(options.clone()).unwrap().check().await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("check that it exists"), "{error}");
    std::fs::write(&env_file, "exit 1\n").unwrap();
    let error = SendEvent::new(options).unwrap().check().await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("ended the shell"), "{error}");
}

#[test]
fn bad_options_are_refused_and_values_of_variables_not_shown() {
    let comment = |text: &str| SendEventOptions { comment: Some(text.into()), ..Default::default() };
    let variable = |name: &str| SendEventOptions {
        environment: BTreeMap::from([(name.to_owned(), "geheim".into())]),
        ..Default::default()
    };
    for options in [
        comment("-x"),
        comment("{file_name}"),
        comment(""),
        variable("a=b"),
        variable(""),
        SendEventOptions { timeout: Duration::ZERO, ..Default::default() },
        SendEventOptions { program: PathBuf::new(), ..Default::default() },
    ] {
        assert_eq!(SendEvent::new(options).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let shown = format!("{:?}", SendEvent::new(variable("TOKEN")).unwrap());
    assert!(shown.contains("TOKEN") && !shown.contains("geheim"), "{shown}");
}
