//! The command line that a login shell on a VM runs.

use crate::autosys::transport::command::quoted;
use crate::autosys::transport::vms::VmCommand;

/// Defines `none REASON CODE`, which ends a script that did not start the program. `$0` is the random word of this call. A file that
/// ends the shell leaves its output redirected, so that there is a copy of it.
const NONE: &str = r#"exec 3>&2; none() { printf '%s none %s\n' "$0" "$1" >&3; exit "$2"; }; "#;

/// Becomes another user. sudo must not ask for a password.
const AS_USER: &str = r#"sudo -n -H -u "$1" -- /bin/sh -c : </dev/null >/dev/null 2>&1 || none "run_as is not possible (sudo -n -u)" 126; u=$1; shift; exec sudo -n -H -u "$u" -- "$@""#;

/// Sources a file without its output. The file may end the shell, for example with a syntax error: then the trap reports it. Functions
/// of the file do not replace what starts the program. In a function, `set --` of the file does not change the arguments.
const SOURCE: &str = r#"[ -r "$1" ] || none "env_file cannot be read: $1" 126; trap 'none "env_file ended the shell" 126' 0; load() { . "$1" >/dev/null 2>&1; }; load "$1"; unset -f exec command printf trap; shift; "#;

/// Says that the program is about to be started, and starts it in place of the shell. Where that fails, some shells run the trap, and
/// others only end.
const START: &str = r#"command -v "$1" >/dev/null 2>&1 || { trap - 0; none "program cannot be found on this VM" 127; }; trap 'printf "%s none %s\n" "$0" "program cannot be started" >&2' 0; printf '%s start\n' "$0" >&2; exec "$@" 3>&-"#;

/// A line that runs `command` with `arguments`, whatever the login shell is: it starts `/bin/sh` with a fixed script that gets
/// the values as arguments. `word` is random, so that only the script knows it.
pub(super) fn command_line(command: &VmCommand, arguments: &[String], word: &str) -> String {
    let script = |parts: &[&str]| [NONE].iter().chain(parts).copied().collect::<String>();
    let mut words: Vec<String> = Vec::new();
    let mut add = |texts: &[&str]| words.extend(texts.iter().map(|text| quoted(text)));
    if let Some(user) = &command.run_as {
        add(&["/bin/sh", "-c", &script(&[AS_USER]), word, user]);
    }
    match &command.env_file {
        Some(file) => add(&["/bin/sh", "-c", &script(&[SOURCE, START]), word, file]),
        None => add(&["/bin/sh", "-c", &script(&[START]), word]),
    }
    add(&[&command.program]);
    add(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    words.join(" ")
}

/// Why nothing ran, if the script of the call with this `word` says so in `output`. An exit code proves nothing, because the
/// program can have the same one.
pub(super) fn why_nothing_ran<'a>(output: &'a str, word: &str) -> Option<&'a str> {
    output.split_once(&format!("{word} none ")).and_then(|(_, why)| why.lines().next())
}

/// The line in which the script of the call with this `word` says that it starts the program. Without it, success proves nothing: an
/// `env_file` with `set -n` ends the script with exit code 0.
pub(super) fn start_line(word: &str) -> String {
    format!("{word} start\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn line(env_file: Option<&str>, program: &str, arguments: &[String]) -> String {
        let (program, env_file) = (program.to_owned(), env_file.map(str::to_owned));
        command_line(&VmCommand { program, env_file, ..VmCommand::new(None, 1) }, arguments, "w0rd")
    }

    /// The arguments that a program gets that `shell` starts through `line`.
    fn through(shell: &str, env_file: Option<&str>, arguments: &[String]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("print");
        std::fs::write(&program, "#!/bin/sh\nprintf '%s\\0' \"$@\"\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let line = line(env_file, program.to_str().unwrap(), arguments);
        let done = Command::new(shell).arg("-c").arg(line).current_dir(dir.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made");
        let printed = String::from_utf8(done.stdout).unwrap();
        printed.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn no_character_is_interpreted() {
        let nasty =
            ["$(touch x)", "`touch x`", "a'b\"c", "'; touch x; '", "\\", "!!", "*", "~", "ä€", "", "a\tb", "-n", "%s"];
        let nasty = nasty.map(str::to_owned);
        for shell in ["sh", "bash"] {
            assert_eq!(through(shell, None, &nasty), nasty, "{shell}");
        }
    }

    #[test]
    fn a_file_is_sourced_first_and_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it's env.sh");
        std::fs::write(&file, "echo noise; AUTOSERV=ACE; export AUTOSERV\n").unwrap();
        let command = ["-c".to_owned(), "printf %s \"$AUTOSERV\"".to_owned()];
        let line = line(Some(file.to_str().unwrap()), "/bin/sh", &command);
        let done = Command::new("sh").arg("-c").arg(line).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout), "ACE");
        let line = self::line(Some("/nonexistent/env"), "/bin/echo", &["x".to_owned()]);
        let done = Command::new("sh").arg("-c").arg(line).output().unwrap();
        assert_eq!((done.status.code(), done.stdout.len()), (Some(126), 0));
    }

    #[test]
    fn only_the_script_says_that_nothing_ran() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let wrapper = file("wrapper", "#!/bin/sh\necho sent >&2\nexit $1\n", 0o755);
        let no_program = file("no_program", "", 0o644);
        let syntax_error = file("syntax_error", "if then\n", 0o644);
        let ending = file("ending", "exit 3\n", 0o644);
        let started = std::cell::Cell::new(false);
        let run = |shell: &str, env_file: Option<&str>, program: &str, code: &str| {
            // The login shell of the VM, and its /bin/sh: dash and bash differ.
            let line = line(env_file, program, &[code.to_owned()]).replace("/bin/sh", shell);
            let done = Command::new(shell).arg("-c").arg(line).output().unwrap();
            let said = String::from_utf8(done.stderr).unwrap();
            started.set(said.contains(&start_line("w0rd")));
            (done.status.code(), why_nothing_ran(&said, "w0rd").map(str::to_owned))
        };
        let functions = file("functions", "exec() { :; }; command() { :; }; printf() { :; }; trap() { :; }\n", 0o644);
        let arguments = file("arguments", "set -- $(echo a true b); shift\n", 0o644);
        let no_execution = file("no_execution", "set -n\n", 0o644);
        for shell in ["/bin/dash", "/bin/bash"] {
            for code in [0, 1, 126, 127] {
                assert_eq!(run(shell, None, &wrapper, &code.to_string()), (Some(code), None), "{shell}");
            }
            // dash refuses functions with the names of special built-ins.
            let ran = if shell.ends_with("bash") {
                (Some(5), None)
            } else {
                (Some(126), Some("env_file ended the shell".to_owned()))
            };
            assert_eq!(run(shell, Some(&functions), &wrapper, "5"), ran, "{shell}");
            assert_eq!(started.get(), ran.1.is_none(), "{shell}");
            assert_eq!(run(shell, Some(&arguments), &wrapper, "5"), (Some(5), None), "{shell}");
            assert_eq!(run(shell, Some(&no_execution), &wrapper, "0").1, None, "{shell}");
            assert!(!started.get(), "{shell}: success proves nothing then");
            for program in ["/nonexistent/sendevent", "no-such-program", &no_program] {
                assert!(run(shell, None, program, "0").1.is_some(), "{shell} {program}");
            }
            assert!(run(shell, Some("/nonexistent"), &wrapper, "0").1.unwrap().contains("env_file cannot be read"));
            assert_eq!(run(shell, Some(&ending), &wrapper, "0").1.as_deref(), Some("env_file ended the shell"));
        }
        assert_eq!(run("/bin/dash", Some(&syntax_error), &wrapper, "0").1.as_deref(), Some("env_file ended the shell"));
        let bad_interpreter = file("bad", "#!/nonexistent/interpreter\n", 0o755);
        assert_eq!(run("/bin/dash", None, &bad_interpreter, "0").1.as_deref(), Some("program cannot be started"));
        assert_eq!(run("/bin/bash", None, &bad_interpreter, "0").1, None, "bash runs no trap then");
        assert_eq!(why_nothing_ran("anything w0rd none", "w0rd"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn words_arrive_as_they_are(words in proptest::collection::vec("[^\\x00]{0,20}", 1..6)) {
            prop_assert_eq!(through("sh", None, &words), words);
        }
    }
}
