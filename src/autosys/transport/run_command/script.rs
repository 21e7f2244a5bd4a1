//! The shell script of a batch, and reading its output.
//!
//! Run Command returns only the last 4,096 bytes of the output. So each event has one short line in it, which the program
//! can neither forge nor push out: the line begins and ends with a random word of this script, and its length is limited so
//! that all lines fit.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::SendOutcome;
use super::super::command::quoted;
use super::super::output::{find_error_code, says_invalid_job, says_not_authorized};

use super::super::vms::VmCommand;

/// How much of the output Run Command returns, in bytes.
const OUTPUT_LIMIT: usize = 4096;
/// How much of it is left for Run Command's own headings and for messages of the shell.
const RESERVE: usize = 576;
/// A line without its text: the first word (16), number (2), exit code (3), three blanks, a full stop, the last word (4)
/// and the line's end.
const LINE: usize = 16 + 2 + 3 + 3 + 1 + 4 + 1;
/// Longest text of a line.
const LONGEST_TEXT: usize = 400;
/// Default number of events of a script: leaves 146 bytes of text for each.
pub(super) const DEFAULT_BATCH: usize = 20;
/// Most events of a script: leaves 28 bytes of text for each, enough for an error's code and its first words.
pub(super) const MOST_EVENTS: usize = 60;
/// How many bytes at the end of a program's output are searched for errors.
const SEARCHED: usize = 8192;

/// A script and how to read its output.
#[derive(Debug)]
pub(super) struct BatchScript {
    pub(super) text: String,
    events: usize,
    first: String,
    last: String,
}

/// The output of a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScriptOutput {
    /// Nothing was sent, for this reason.
    NothingSent(String),
    /// Exit code and text of each event, or `None` when its line is missing or cut off.
    Events(Vec<Option<(i32, String)>>),
}

impl BatchScript {
    /// A script that runs the program once with each of `arguments`, of which there are at most [`MOST_EVENTS`].
    pub(super) fn new(command: &VmCommand, limit: Duration, arguments: &[Vec<String>]) -> Self {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let (first, last) = (random[..16].to_owned(), random[28..].to_owned());
        let mut script = Self { text: String::new(), events: arguments.len(), first, last };
        let inner = script.inner(command, limit, arguments);
        script.text = match &command.run_as {
            Some(user) => script.as_user(user, &inner),
            None => inner,
        };
        script
    }

    /// The command that prints that nothing was sent.
    fn nothing_sent(&self, why: &str, to: &str) -> String {
        format!("printf '%s\\n' {}{to}", quoted(&format!("{} none {why}.{}", self.first, self.last)))
    }

    fn inner(&self, command: &VmCommand, limit: Duration, arguments: &[Vec<String>]) -> String {
        let (first, last) = (&self.first, &self.last);
        let text = ((OUTPUT_LIMIT - RESERVE) / arguments.len().max(1)).saturating_sub(LINE).min(LONGEST_TEXT);
        let program = quoted(&command.program);
        let seconds = limit.as_secs_f64();
        let mut script = String::from("exec 3>&1\n");
        if let Some(file) = &command.env_file {
            let (file, none) = (quoted(file), |why: &str| self.nothing_sent(why, " >&3"));
            let (unreadable, ended) = (none("env_file cannot be read"), none("env_file ended the script"));
            // A file may end the shell, for example with a syntax error. The trap reports that nothing was sent.
            let _ = write!(
                script,
                "[ -r {file} ] || {{ {unreadable}; exit 0; }}\n\
                 jobrota_begun=\n\
                 trap '[ -n \"$jobrota_begun\" ] || '{} 0\n\
                 . {file} </dev/null >/dev/null 2>&1\n\
                 set +aefuvx\n\
                 jobrota_begun=1\n\
                 trap - 0\n",
                quoted(&ended),
            );
        }
        let missing = self.nothing_sent("program cannot be found on this VM", " >&3");
        let _ = write!(
            script,
            "PATH=$PATH:/usr/bin:/bin\n\
             command -v {program} >/dev/null 2>&1 || {{ {missing}; exit 0; }}\n\
             if command -v timeout >/dev/null 2>&1; then\n\
             jobrota_run() {{ timeout -k 5 {seconds} \"$@\"; }}\n\
             else\n\
             jobrota_run() {{ \"$@\"; }}\n\
             fi\n\
             jobrota_send() {{\n\
             jobrota_n=$1\n\
             shift\n\
             jobrota_out=$({{ jobrota_run \"$@\" </dev/null 2>&1 3>&-; printf '\\n%d' \"$?\"; }} | \
             LC_ALL=C tail -c {SEARCHED} | LC_ALL=C tr -c ' -~' ' ')\n\
             jobrota_code=${{jobrota_out##* }}\n\
             jobrota_out=${{jobrota_out% *}}\n\
             case $jobrota_out in\n\
             *CAUAJM_[EFW]_[0-9]*)\n\
             jobrota_rest=${{jobrota_out#*CAUAJM_[EFW]_[0-9]}}\n\
             jobrota_head=${{jobrota_out%\"$jobrota_rest\"}}\n\
             jobrota_out=CAUAJM_${{jobrota_head##*CAUAJM_}}$jobrota_rest\n\
             ;;\n\
             *) jobrota_out=$(printf '%s' \"$jobrota_out\" | LC_ALL=C tail -c {text}) ;;\n\
             esac\n\
             printf '%s %s %s %.{text}s.%s\\n' {first} \"$jobrota_n\" \"$jobrota_code\" \"$jobrota_out\" {last} >&3\n\
             }}\n",
        );
        for (number, arguments) in arguments.iter().enumerate() {
            let arguments: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
            let _ = writeln!(script, "jobrota_send {number} {program} {}", arguments.join(" "));
        }
        script.push_str("exit 0\n");
        script
    }

    fn as_user(&self, user: &str, inner: &str) -> String {
        let (user, none) = (quoted(user), self.nothing_sent("run_as is not possible on this VM (sudo -n -u)", ""));
        format!(
            "sudo -n -H -u {user} true </dev/null >/dev/null 2>&1 || {{ {none}; exit 0; }}\n\
             exec sudo -n -H -u {user} /bin/sh -c {}\n",
            quoted(inner)
        )
    }

    /// Reads its output.
    pub(super) fn read(&self, output: &str) -> ScriptOutput {
        let mut events = vec![None; self.events];
        let last = format!(".{}", self.last);
        for line in output.lines() {
            let framed = line.strip_prefix(self.first.as_str()).and_then(|rest| rest.strip_prefix(' '));
            let Some(line) = framed.and_then(|rest| rest.strip_suffix(last.as_str())) else { continue };
            if let Some(why) = line.strip_prefix("none ") {
                return ScriptOutput::NothingSent(why.to_owned());
            }
            let mut parts = line.splitn(3, ' ');
            let number = parts.next().and_then(|number| number.parse::<usize>().ok());
            let code = parts.next().and_then(|code| code.parse::<i32>().ok());
            if let (Some(number), Some(code)) = (number, code)
                && let Some(event) = events.get_mut(number)
            {
                *event =
                    Some((code, parts.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")));
            }
        }
        ScriptOutput::Events(events)
    }
}

/// The outcome of an event whose program ended with `code` and printed `text`.
pub(super) fn outcome(code: i32, text: &str, limit: Duration) -> SendOutcome {
    let with_text = |what: String| if text.is_empty() { what } else { format!("{what}: {text}") };
    let error = find_error_code(text.as_bytes());
    let permanent = says_invalid_job(text.as_bytes()) || (error.is_some() && says_not_authorized(text.as_bytes()));
    let failed = |what: String| SendOutcome::Failed { detail: with_text(what), permanent };
    match (code, error) {
        // The exit codes of timeout(1).
        (124 | 137, _) => {
            SendOutcome::unknown(with_text(format!("sendevent was ended at its limit of {} s", limit.as_secs_f64())))
        }
        // The shell adds 128 to the number of a signal, at most 64. A program can end with 255 by itself.
        (129..=192, _) | (193.., None) => {
            SendOutcome::unknown(with_text(format!("sendevent was ended by a signal (exit code {code})")))
        }
        (_, Some(error)) => failed(format!("AutoSys said {error}")),
        (0, None) => SendOutcome::Delivered { detail: Some(text.to_owned()).filter(|text| !text.is_empty()) },
        (126 | 127, None) => {
            SendOutcome::transient(with_text(format!("sendevent could not be started (exit code {code})")))
        }
        (_, None) => failed(format!("sendevent ended with exit code {code}")),
    }
}
