//! The status of a job in a response of `job-run-info`.
//!
//! Its field names are not published. The names that clients in use look for are read, at any depth.

use serde_json::Value;

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

/// The status of `job` as a word.
///
/// # Errors
/// Why `body` has none.
pub(super) fn read(body: &[u8], job: &str) -> Result<String, String> {
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
            assert_eq!(read(body.as_bytes(), "A").as_deref(), Ok(expected), "{body}");
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
            assert!(read(body.as_bytes(), "A").is_err(), "{body}");
        }
    }
}
