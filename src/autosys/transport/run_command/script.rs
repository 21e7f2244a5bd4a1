//! The shell script of a batch, and what its output says about each event.
//!
//! Run Command gives back the last 4,096 bytes of output and nothing else, so that each event has one short line there,
//! which what the program prints can neither forge nor push out: the line begins and ends with a word made up for this one
//! script, and has a length limit such that all lines fit.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::Outcome;
use super::super::sendevent::output::{find_error_code, names_invalid_job, names_no_authority};
use super::super::shell::quoted;

/// What Run Command keeps of the output, in bytes.
const OUTPUT_LIMIT: usize = 4096;
/// What of it is left for Run Command's own headings and for what the shell itself prints.
const RESERVE: usize = 576;
/// A line without its text: the first word (16), number (2), exit code (3), three blanks, a full stop, the last word (4)
/// and the line's end.
const LINE: usize = 16 + 2 + 3 + 3 + 1 + 4 + 1;
/// Longest text of a line.
const LONGEST_TEXT: usize = 400;
/// Events of a script by default: leaves 146 bytes of text for each.
pub(super) const USUAL_BATCH: usize = 20;
/// Most events of a script: leaves 28 bytes of text for each, enough for an error's code and its first words.
pub(super) const MOST: usize = 60;
/// How much of what a program prints is searched for errors, in bytes: the last ones.
const SEARCHED: usize = 8192;

/// What is the same for every script.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// The program that is run for each event.
    pub(super) program: String,
    /// A file that is sourced first.
    pub(super) env_file: Option<String>,
    /// The user who runs it all.
    pub(super) run_as: Option<String>,
    /// Longest run of the program.
    pub(super) limit: Duration,
}

/// A script and how to read its output.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) text: String,
    events: usize,
    first: String,
    last: String,
}

/// What the output of a script says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Printed {
    /// Nothing was sent, for this reason.
    Nothing(String),
    /// For each event: exit code and text, or `None` where its line is missing or cut off.
    Events(Vec<Option<(i32, String)>>),
}

impl Script {
    /// A script that runs the program once with each of `arguments`, of which there are at most [`MOST`].
    pub(super) fn new(frame: &Frame, arguments: &[Vec<String>]) -> Self {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let (first, last) = (random[..16].to_owned(), random[28..].to_owned());
        let mut script = Self { text: String::new(), events: arguments.len(), first, last };
        let inner = script.inner(frame, arguments);
        script.text = match &frame.run_as {
            Some(user) => script.as_user(user, &inner),
            None => inner,
        };
        script
    }

    /// The command that says that nothing was sent.
    fn nothing(&self, why: &str, to: &str) -> String {
        format!("printf '%s\\n' {}{to}", quoted(&format!("{} none {why}.{}", self.first, self.last)))
    }

    fn inner(&self, frame: &Frame, arguments: &[Vec<String>]) -> String {
        let (first, last) = (&self.first, &self.last);
        let text = ((OUTPUT_LIMIT - RESERVE) / arguments.len().max(1)).saturating_sub(LINE).min(LONGEST_TEXT);
        let program = quoted(&frame.program);
        let seconds = frame.limit.as_secs_f64();
        let mut script = String::from("exec 3>&1\n");
        if let Some(file) = &frame.env_file {
            let (file, none) = (quoted(file), |why: &str| self.nothing(why, " >&3"));
            let (unreadable, ended) = (none("env_file cannot be read"), none("env_file ended the script"));
            // A file that ends the shell, by a syntax error for one, has sent nothing; without this line it were unknown.
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
        let missing = self.nothing("program cannot be found on this VM", " >&3");
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
        let (user, none) = (quoted(user), self.nothing("run_as is not possible on this VM (sudo -n -u)", ""));
        format!(
            "sudo -n -H -u {user} true </dev/null >/dev/null 2>&1 || {{ {none}; exit 0; }}\n\
             exec sudo -n -H -u {user} /bin/sh -c {}\n",
            quoted(inner)
        )
    }

    /// What its output says.
    pub(super) fn read(&self, output: &str) -> Printed {
        let mut events = vec![None; self.events];
        let last = format!(".{}", self.last);
        for line in output.lines() {
            let whole = line.strip_prefix(self.first.as_str()).and_then(|rest| rest.strip_prefix(' '));
            let Some(line) = whole.and_then(|rest| rest.strip_suffix(last.as_str())) else { continue };
            if let Some(why) = line.strip_prefix("none ") {
                return Printed::Nothing(why.to_owned());
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
        Printed::Events(events)
    }
}

/// What became of an event whose program ended with `code` and printed `text`.
pub(super) fn verdict(code: i32, text: &str, limit: Duration) -> Outcome {
    let with_text = |what: String| if text.is_empty() { what } else { format!("{what}: {text}") };
    let permanent = names_invalid_job(text.as_bytes());
    if let Some(error) = find_error_code(text.as_bytes()) {
        let permanent = permanent || names_no_authority(text.as_bytes());
        return Outcome::Failed { detail: with_text(format!("AutoSys said {error}")), permanent };
    }
    match code {
        0 => Outcome::Delivered { detail: Some(text.to_owned()).filter(|text| !text.is_empty()) },
        // What timeout(1) gives.
        124 | 137 => {
            Outcome::unknown(with_text(format!("sendevent was ended at its limit of {} s", limit.as_secs_f64())))
        }
        126 | 127 => Outcome::transient(with_text(format!("sendevent could not be started (exit code {code})"))),
        129.. => Outcome::unknown(with_text(format!("sendevent was ended by a signal (exit code {code})"))),
        _ => Outcome::Failed { detail: with_text(format!("sendevent ended with exit code {code}")), permanent },
    }
}
