//! The command line that a login shell on a VM runs.

use crate::autosys::transport::command::quoted;
use crate::autosys::transport::vms::VmCommand;

/// A line that runs `command` with `arguments`, whatever the login shell is: it starts `/bin/sh` with a fixed script that gets
/// the values as arguments. The shell file is sourced before, without its output. sudo must not ask for a password.
pub(super) fn command_line(command: &VmCommand, arguments: &[String]) -> String {
    /// The exit code 126 is that of shells for a file that cannot be run or read.
    const SOURCE: &str = r#"[ -r "$1" ] || { echo "jobrota: env_file cannot be read: $1" >&2; exit 126; }; . "$1" >/dev/null 2>&1; shift; exec "$@""#;
    let mut words: Vec<&str> = Vec::new();
    if let Some(user) = &command.run_as {
        words.extend(["sudo", "-n", "-H", "-u", user, "--"]);
    }
    words.extend(["/bin/sh", "-c"]);
    match &command.env_file {
        Some(file) => words.extend([SOURCE, "jobrota", file]),
        None => words.extend([r#"exec "$@""#, "jobrota"]),
    }
    words.push(&command.program);
    words.extend(arguments.iter().map(String::as_str));
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn line(env_file: Option<&str>, program: &str, arguments: &[String]) -> String {
        let (program, env_file) = (program.to_owned(), env_file.map(str::to_owned));
        command_line(&VmCommand { program, env_file, ..VmCommand::new(None, 1) }, arguments)
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn words_arrive_as_they_are(words in proptest::collection::vec("[^\\x00]{0,20}", 1..6)) {
            prop_assert_eq!(through("sh", None, &words), words);
        }
    }
}
