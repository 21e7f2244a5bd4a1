//! What a response of the web services means.
//!
//! The vendor documents only 201. Every other status has its meaning in HTTP (RFC 9110, RFC 6585, RFC 8470), and a status that
//! leaves open whether the event was stored is unknown.
//!
//! The field names of `job-run-info`, the status of a job, are not published. The names that clients in use look for are read, at any depth.

use serde_json::Value;

use super::super::SendOutcome;
use super::super::output::{find_error_code, says_invalid_job, says_not_authorized};
use crate::http::secret::one_line;

/// Longest text of the server that is repeated, in characters.
const LONGEST_TEXT: usize = 600;

/// The text of a body on one line, cut.
pub(super) fn text(body: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(body), LONGEST_TEXT)
}

/// A colon and `text`, or nothing without a text.
pub(super) fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// All of a body on one line, to be searched. JSON may have written characters of AutoSys's text as `\u…`.
fn searched(body: &[u8]) -> String {
    let json = serde_json::from_slice::<Value>(body).map(|value| value.to_string()).unwrap_or_default();
    one_line(&format!("{} {json}", String::from_utf8_lossy(body)), usize::MAX)
}

/// The outcome of an event for `job` with the response `status` and `body`.
pub(super) fn outcome(status: u16, accepted: &[u16], job: &str, body: &[u8], retry_after: Option<&str>) -> SendOutcome {
    let (said, all) = (text(body), searched(body));
    let later = retry_after.map(|value| format!(" (Retry-After: {value})")).unwrap_or_default();
    let answered = format!("the web services answered {status}{later}{}", after_colon(&said));
    let code = find_error_code(all.as_bytes());
    let failed = |permanent| SendOutcome::Failed { detail: answered.clone(), permanent };
    // A refusal by AutoSys itself, with its code.
    if let (200..=299 | 500, Some(code)) = (status, &code) {
        let permanent = says_invalid_job(all.as_bytes()) || says_not_authorized(all.as_bytes());
        return SendOutcome::Failed { detail: format!("AutoSys said {code}: {answered}"), permanent };
    }
    match status {
        _ if accepted.contains(&status) => {
            SendOutcome::Delivered { detail: Some(said).filter(|said| !said.is_empty()) }
        }
        200..=299 => SendOutcome::unknown(format!(
            "{answered}; that is no proof that the event was stored (if this server answers so, add the status to accepted)"
        )),
        300..=399 => {
            SendOutcome::transient(format!("{answered}; redirects are not followed: check base_url and prefix"))
        }
        // Wrong for all rows, and fixed in the settings: parking the rows would lose them.
        401 => SendOutcome::transient(format!(
            "{answered}; the credentials were refused: check user and password, or token"
        )),
        403 => failed(true),
        404 if is_about_job(&all, job, code.is_some()) => failed(true),
        404 | 405 | 406 | 415 | 501 => {
            SendOutcome::transient(format!("{answered}; there is no such service: check base_url, prefix and events"))
        }
        400 | 409 | 422 => failed(true),
        // These say that nothing was done.
        408 | 425 | 429 | 503 => failed(false),
        500..=599 => SendOutcome::unknown(format!("{answered}; whether the event was stored is unknown")),
        _ => failed(false),
    }
}

/// Whether a 404 is about the job, and not about an address that does not exist, which would refuse every row. An HTML page
/// comes from the server itself.
fn is_about_job(said: &str, job: &str, has_code: bool) -> bool {
    let page = said.get(..200).unwrap_or(said).to_ascii_lowercase();
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || "._#-".contains(c);
    let mentions = said.match_indices(job).any(|(at, _)| {
        let (before, after) = (&said[..at], &said[at + job.len()..]);
        // A full stop after the name ends the sentence.
        let rest = after.strip_prefix('.').unwrap_or(after);
        !before.ends_with(of_a_name) && !rest.starts_with(of_a_name)
    });
    has_code || (mentions && !page.contains("<html") && !page.contains("<!doctype"))
}

/// Status numbers (vendor: AAI 12.3 REST reference, appendix B).
const NUMBERS: [(i64, &str); 13] = [
    (1, "RUNNING"),
    (3, "STARTING"),
    (4, "SUCCESS"),
    (5, "FAILURE"),
    (6, "TERMINATED"),
    (7, "ON_ICE"),
    (8, "INACTIVE"),
    (9, "ACTIVATED"),
    (10, "RESTART"),
    (11, "ON_HOLD"),
    (12, "QUE_WAIT"),
    (13, "WAIT_REPLY"),
    (16, "ON_NOEXEC"),
];
const STATUS_FIELDS: [&str; 2] = ["status", "jobStatus"];
const NAME_FIELDS: [&str; 2] = ["name", "jobName"];

/// The status of `job` as a word, from a response of `job-run-info`.
///
/// # Errors
/// Why `body` has none.
pub(super) fn job_status(body: &[u8], job: &str) -> Result<String, String> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|_| "the response is not JSON: check status_path, and whether a proxy answered".to_owned())?;
    find(&value, job).unwrap_or_else(|| {
        Err(format!("the response has no {} for this job: check status_path", STATUS_FIELDS.join(" or ")))
    })
}

fn find(value: &Value, job: &str) -> Option<Result<String, String>> {
    match value {
        Value::Object(fields) => {
            let field = |names: &[&str]| names.iter().find_map(|name| fields.get(*name));
            let other = field(&NAME_FIELDS).and_then(Value::as_str).is_some_and(|name| name != job);
            if other {
                // The fields below belong to another job.
                return None;
            }
            let own = field(&STATUS_FIELDS).filter(|status| !status.is_object() && !status.is_array());
            own.map(word).or_else(|| fields.values().find_map(|value| find(value, job)))
        }
        Value::Array(items) => items.iter().find_map(|item| find(item, job)),
        _ => None,
    }
}

fn word(status: &Value) -> Result<String, String> {
    let number = status.as_i64().or_else(|| status.as_str()?.trim().parse().ok());
    if let Some(number) = number {
        let known = NUMBERS.iter().find(|(known, _)| *known == number);
        return known
            .map(|(_, word)| (*word).to_owned())
            .ok_or_else(|| format!("the status number {number} is not one of AutoSys's"));
    }
    let text = status.as_str().map(|text| text.trim().to_ascii_uppercase().replace(' ', "_")).unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || "_/".contains(c);
    match text.is_empty() || text.len() > 40 || !text.chars().all(fits) {
        true => Err("the status in the response is not a word".to_owned()),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_found_under_any_of_their_names() {
        for (body, expected) in [
            (r#"{"name": "A", "status": "SUCCESS"}"#, "SUCCESS"),
            (r#"{"jobName": "A", "jobStatus": 5}"#, "FAILURE"),
            (r#"{"status": "4"}"#, "SUCCESS"),
            (r#"[{"name": "AB", "status": 1}, {"name": "A", "status": "on ice"}]"#, "ON_ICE"),
            (
                r#"{"status": {"x": 1}, "job": [{"name": "A", "runs": 1, "status": "SUCCESS/ON_NOEXEC"}]}"#,
                "SUCCESS/ON_NOEXEC",
            ),
        ] {
            assert_eq!(job_status(body.as_bytes(), "A").as_deref(), Ok(expected), "{body}");
        }
    }

    #[test]
    fn what_is_no_status_of_the_job_is_none() {
        for body in [
            "",
            "<html>",
            "{}",
            r#"{"name": "B", "status": "SUCCESS"}"#,
            r#"{"name": "B", "job": {"status": "SUCCESS"}}"#,
            r#"{"status": 2}"#,
            r#"{"status": null}"#,
            r#"{"status": "not a; word"}"#,
        ] {
            assert!(job_status(body.as_bytes(), "A").is_err(), "{body}");
        }
    }
}
