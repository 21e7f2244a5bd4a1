//! The log of a job that has ended, and the errors in it.

use serde_json::Value;

use super::client::{ViyaClient, ViyaRequest};
use super::jobs::Job;
use super::json;
use crate::error::{Error, ErrorKind, Result};

/// Most lines of errors that are quoted.
const QUOTED: usize = 12;

/// A log as text, and its errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobLog {
    /// The whole log.
    pub text: String,
    /// Its first `ERROR` lines, with the lines that continue them.
    pub errors: Vec<String>,
}

/// The log of `job`; `None` when the server has none.
///
/// SAS: after a job ends, its log is a file of the Files service whose content is a collection of `{"type", "line"}`. While
/// it runs, the log is read from its session.
///
/// # Errors
/// [`ErrorKind::Server`] for a log that is neither in a file nor in a session; those of any call.
pub async fn fetch(client: &ViyaClient, job: &Job) -> Result<Option<JobLog>> {
    let Some(location) = job.text("logLocation") else { return Ok(None) };
    let is_known = location.starts_with("/files/files/") || location.starts_with("/compute/sessions/");
    if !is_known || !location.trim_matches('/').split('/').all(json::is_id) {
        let text = format!("the log of job {} is at {location:?}, which is neither a file nor a session", job.id());
        return Err(Error::new(ErrorKind::Server, text));
    }
    let path = format!("{}/content", location.trim_end_matches('/'));
    let response = client.send(&ViyaRequest::get(&path, "application/json, text/plain;q=0.9, */*;q=0.5")).await?;
    let body = String::from_utf8_lossy(&response.body);
    Ok(Some(match serde_json::from_str::<Value>(&body) {
        Ok(value) => from_items(value.get("items").unwrap_or(&value).as_array().map_or(&[], Vec::as_slice)),
        Err(_) => from_text(&body),
    }))
}

fn from_items(items: &[Value]) -> JobLog {
    collect(items.iter().map(|item| {
        let line = json::text(item, "line").unwrap_or_default();
        (line, json::text(item, "type") == Some("error") || starts_error(line))
    }))
}

fn from_text(body: &str) -> JobLog {
    let mut in_error = false;
    collect(body.lines().map(|line| {
        // SAS indents the lines that continue an error by the width of "ERROR: ".
        in_error = starts_error(line) || in_error && line.starts_with("       ") && !line.trim().is_empty();
        (line, in_error)
    }))
}

fn starts_error(line: &str) -> bool {
    line.strip_prefix("ERROR").is_some_and(|rest| rest.starts_with([':', ' ']))
}

fn collect<'a>(lines: impl Iterator<Item = (&'a str, bool)>) -> JobLog {
    let mut log = JobLog::default();
    for (line, is_error) in lines {
        if is_error && log.errors.len() < QUOTED && !line.trim().is_empty() {
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
        let log = from_items(items.as_array().unwrap());
        assert_eq!(log.errors, ["ERROR: File WORK.B.DATA does not exist.", "       It never did."]);
        assert_eq!(log.text.lines().count(), 4);
        assert_eq!(from_text(&log.text), log);
        assert_eq!(from_text("ERRORS were 0\nfine\n").errors, Vec::<String>::new());
        assert_eq!(from_text("ERROR 180-322: Statement is not valid.").errors.len(), 1);
    }
}
