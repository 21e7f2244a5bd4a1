//! The log of a job that has ended, and the errors in it.

use serde_json::Value;

use super::client::{Call, ViyaClient};
use super::jobs::Job;
use crate::error::{Error, ErrorKind, Result};

/// Most lines of errors that are quoted.
const QUOTED: usize = 12;

/// A log as text, and what it says went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// All of it, a line each.
    pub text: String,
    /// Its `ERROR` lines with those that continue them, the first few.
    pub errors: Vec<String>,
}

/// The log of `job`; `None` when the server keeps none.
///
/// SAS: at the end the log is a file of the Files service whose content is a collection of `{"type", "line"}`; while a job
/// runs it is read from its session, which is gone with it.
///
/// # Errors
/// [`ErrorKind::Server`] for a log somewhere else than in a file or a session; those of any call.
pub async fn fetch(client: &ViyaClient, job: &Job) -> Result<Option<Log>> {
    let Some(location) = job.text("logLocation") else { return Ok(None) };
    let inside = location.starts_with("/files/files/") || location.starts_with("/compute/sessions/");
    if !inside || location.split('/').any(|part| part == "..") {
        let text = format!("the log of job {} is at {location:?}, which is neither a file nor a session", job.id());
        return Err(Error::new(ErrorKind::Server, text));
    }
    let path = format!("{}/content", location.trim_end_matches('/'));
    let answer = client.send(&Call::get(&path, "application/json, text/plain;q=0.9, */*;q=0.5")).await?;
    let body = String::from_utf8_lossy(&answer.body);
    Ok(Some(match serde_json::from_str::<Value>(&body) {
        Ok(value) => of_lines(value.get("items").unwrap_or(&value).as_array().map_or(&[], Vec::as_slice)),
        Err(_) => of_text(&body),
    }))
}

fn of_lines(items: &[Value]) -> Log {
    let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    collect(items.iter().map(|item| {
        let (kind, line) = (text(item, "type"), text(item, "line"));
        let wrong = kind == "error" || begins_error(&line);
        (line, wrong)
    }))
}

fn of_text(body: &str) -> Log {
    let mut within = false;
    collect(body.lines().map(|line| {
        // SAS indents the lines that continue an error by the width of "ERROR: ".
        within = begins_error(line) || within && line.starts_with("       ") && !line.trim().is_empty();
        (line.to_owned(), within)
    }))
}

fn begins_error(line: &str) -> bool {
    line.strip_prefix("ERROR").is_some_and(|rest| rest.starts_with([':', ' ']))
}

fn collect(lines: impl Iterator<Item = (String, bool)>) -> Log {
    let mut log = Log::default();
    for (line, wrong) in lines {
        if wrong && log.errors.len() < QUOTED && !line.trim().is_empty() {
            log.errors.push(line.trim_end().to_owned());
        }
        log.text.push_str(line.trim_end_matches(['\r', '\n']));
        log.text.push('\n');
    }
    log
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_are_found_in_both_shapes_of_a_log() {
        let items = json!([
            {"version": 1, "type": "source", "line": "1  data a; set b; run;"},
            {"version": 1, "type": "error", "line": "ERROR: File WORK.B.DATA does not exist."},
            {"version": 1, "type": "error", "line": "       It never did."},
            {"version": 1, "type": "note", "line": "NOTE: ERRORs are not what this is."},
        ]);
        let log = of_lines(items.as_array().unwrap());
        assert_eq!(log.errors, ["ERROR: File WORK.B.DATA does not exist.", "       It never did."]);
        assert_eq!(log.text.lines().count(), 4);
        assert_eq!(of_text(&log.text), log);
        assert_eq!(of_text("ERRORS were 0\nfine\n").errors, Vec::<String>::new());
        assert_eq!(of_text("ERROR 180-322: Statement is not valid.").errors.len(), 1);
    }
}
