//! Scripts through the real shell.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::super::super::command::quoted;
use super::super::super::vms::VmCommand;
use super::super::script::{MOST_EVENTS, outcome};
use super::*;

/// Runs a script as Run Command does, with `bin` in `PATH`; gives its standard output.
fn shell(script: &BatchScript, bin: &Path) -> String {
    let file = bin.join("script");
    fs::write(&file, &script.text).unwrap();
    let output =
        Command::new("/bin/sh").arg(&file).env("PATH", format!("{}:/usr/bin:/bin", bin.display())).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A program; it is a script, which the shell that runs it opens for itself, so that no other test's fork keeps it busy.
fn program(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

const LIMIT: Duration = Duration::from_secs(20);

fn command() -> VmCommand {
    VmCommand::new(None, MOST_EVENTS)
}

fn one(argument: &str) -> Vec<String> {
    vec![argument.to_owned()]
}

fn codes(printed: ScriptOutput) -> Vec<Option<i32>> {
    match printed {
        ScriptOutput::Events(events) => events.into_iter().map(|event| event.map(|(code, _)| code)).collect(),
        ScriptOutput::NothingSent(why) => panic!("{why}"),
    }
}

/// A `sudo` that records its user and runs the command as the current one.
const SUDO: &str = r#"echo "$1 $2 $3 $4" >>"${0%/*}/sudoers"; shift 4; exec "$@""#;
/// A `sendevent` that keeps its arguments.
const RECORDER: &str = r#"printf '%s\0' "$@" >>"${0%/*}/arguments""#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever a value is, the program gets it byte for byte, also through another user's shell.
    #[test]
    fn nothing_in_a_value_is_interpreted(
        values in proptest::collection::vec(r#"[^\x00]{0,20}|[-'"$`\\!*?;&|<>(){}\[\]#~ \n\t]{0,12}"#, 1..8),
        as_user in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "sendevent", RECORDER);
        program(dir.path(), "sudo", SUDO);
        let run_as = as_user.then(|| "autosys".to_owned());
        let script = BatchScript::new(&VmCommand { run_as, ..command() }, LIMIT, &values.iter().map(|value| one(value)).collect::<Vec<_>>());
        let printed = shell(&script, dir.path());
        prop_assert_eq!(codes(script.read(&printed)), vec![Some(0); values.len()], "{}", printed);
        let arrived = fs::read(dir.path().join("arguments")).unwrap();
        let sent: Vec<u8> = values.iter().flat_map(|value| value.bytes().chain([0])).collect();
        prop_assert_eq!(arrived, sent);
    }
}

#[test]
fn another_user_is_asked_for_without_a_password() {
    let dir = tempfile::tempdir().unwrap();
    program(dir.path(), "sendevent", RECORDER);
    program(dir.path(), "sudo", SUDO);
    let command = VmCommand { run_as: Some("autosys".to_owned()), ..command() };
    let script = BatchScript::new(&command, LIMIT, &[one("it's")]);
    assert_eq!(codes(script.read(&shell(&script, dir.path()))), [Some(0)]);
    let line = "-n -H -u autosys\n";
    assert_eq!(fs::read_to_string(dir.path().join("sudoers")).unwrap(), line.repeat(2));
    program(dir.path(), "sudo", "exit 1");
    let script = BatchScript::new(&command, LIMIT, &[one("x")]);
    let ScriptOutput::NothingSent(why) = script.read(&shell(&script, dir.path())) else { panic!("something was sent") };
    assert!(why.contains("run_as"), "{why}");
}

#[test]
fn all_lines_fit_whatever_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let noise = "i=0; while [ $i -lt 2000 ]; do printf 'ü|%s.\\n\\t' \"$1 0 0 all well\"; i=$((i+1)); done; exit 3";
    program(dir.path(), "sendevent", noise);
    for count in [1, 2, script::DEFAULT_BATCH, MOST_EVENTS] {
        let script = BatchScript::new(&command(), LIMIT, &vec![one("x"); count]);
        let printed = shell(&script, dir.path());
        assert!(printed.len() <= 4096 - 500, "{} bytes for {count}", printed.len());
        assert_eq!(codes(script.read(&printed)), vec![Some(3); count]);
    }
}

#[test]
fn a_program_cannot_forge_a_line_and_a_cut_line_counts_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let forged =
        "for word in 0123456789abcdef $PPID; do printf '%s 1 0 .\\n%s none.\\n1 0 \\n' $word $word; done; exit 7";
    program(dir.path(), "sendevent", forged);
    let script = BatchScript::new(&command(), LIMIT, &[one("x"), one("y")]);
    let printed = shell(&script, dir.path());
    assert_eq!(codes(script.read(&printed)), [Some(7), Some(7)]);
    for cut in 0..printed.len() {
        // Cut off in front, as Azure does, and behind.
        let (from, to) = (script.read(&printed[cut..]), script.read(&printed[..cut]));
        assert!(codes(from).iter().chain(&codes(to)).all(|code| matches!(code, None | Some(7))), "at {cut}");
    }
    let other = BatchScript::new(&command(), LIMIT, &[one("x"), one("y")]);
    assert_eq!(codes(other.read(&printed)), [None, None], "lines of another script");
}

#[test]
fn the_environment_file_is_sourced_once_and_its_settings_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    program(dir.path(), "sendevent", r#"echo "$AUTOSERV"; [ "$1" = good ]"#);
    let file = dir.path().join("it's.sh");
    let command = VmCommand { env_file: Some(file.display().to_string()), ..command() };
    let run = |text: &str| {
        fs::write(&file, text).unwrap();
        let script = BatchScript::new(&command, LIMIT, &[one("good"), one("bad"), one("good")]);
        script.read(&shell(&script, dir.path()))
    };
    let count = dir.path().join("count");
    let text = format!(
        "echo x >>'{}'; echo banner; export AUTOSERV=ACE; set -eux -a -f; IFS=0; PATH=$PATH; cat; false || true",
        count.display()
    );
    let ScriptOutput::Events(events) = run(&text) else { panic!("nothing was sent") };
    let expected = [0, 1, 0].map(|code| Some((code, "ACE".to_owned())));
    assert_eq!(events, expected);
    assert_eq!(fs::read_to_string(&count).unwrap(), "x\n");
    for text in ["exit 3", "if [ ;", "set -e; false"] {
        let ScriptOutput::NothingSent(why) = run(text) else { panic!("{text}: something was sent") };
        assert!(why.contains("env_file"), "{why}");
    }
    fs::remove_file(&file).unwrap();
    let script = BatchScript::new(&command, LIMIT, &[one("good")]);
    assert!(matches!(script.read(&shell(&script, dir.path())), ScriptOutput::NothingSent(_)));
}

#[test]
fn a_missing_program_sends_nothing_and_a_slow_one_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let script = BatchScript::new(&command(), LIMIT, &[one("x")]);
    let ScriptOutput::NothingSent(why) = script.read(&shell(&script, dir.path())) else { panic!("something was sent") };
    assert!(why.contains("program"), "{why}");
    program(dir.path(), "sendevent", r#"[ "$1" = quick ] || sleep 600"#);
    let script = BatchScript::new(&command(), Duration::from_millis(500), &[one("slow"), one("quick")]);
    let codes = codes(script.read(&shell(&script, dir.path())));
    assert_eq!(codes, [Some(124), Some(0)]);
    assert!(matches!(outcome(124, "", Duration::from_secs(1)), SendOutcome::Unknown { .. }));
}

#[test]
fn errors_are_found_in_front_of_much_text() {
    let dir = tempfile::tempdir().unwrap();
    let text = "echo CAUAJM_I_1 fine; echo CAUAJM_E_50029 Invalid job name: x; i=0; \
                while [ $i -lt 100 ]; do echo more and more; i=$((i+1)); done";
    program(dir.path(), "sendevent", text);
    let script = BatchScript::new(&command(), LIMIT, &vec![one("x"); MOST_EVENTS]);
    let ScriptOutput::Events(events) = script.read(&shell(&script, dir.path())) else { panic!("nothing was sent") };
    for event in events {
        let (code, text) = event.unwrap();
        let outcome = outcome(code, &text, Duration::from_secs(1));
        assert!(
            matches!(&outcome, SendOutcome::Failed { permanent: true, detail } if detail.contains("CAUAJM_E_50029")),
            "{outcome:?}"
        );
    }
    assert_eq!(quoted("a'b"), r"'a'\''b'");
}
