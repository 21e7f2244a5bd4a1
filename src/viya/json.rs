//! What JSON bodies of SAS services have in common: texts, time stamps, and errors as one line.

use chrono::{DateTime, Utc};
use serde_json::Value;

/// Longest text of an error, in characters.
const LONGEST_ERROR: usize = 2000;

/// The text of a field; `None` where it is missing, empty or not a text.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str().filter(|text| !text.is_empty())
}

/// Whether `id` is one that SAS gives. It becomes a part of paths.
pub(super) fn is_id(id: &str) -> bool {
    !id.is_empty()
        && !id.starts_with('.')
        && id.chars().all(|character| character.is_ascii_alphanumeric() || "-_.:~".contains(character))
}

/// A SAS time stamp: ISO 8601 with a zone, which some services write without a colon.
pub(crate) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let at = DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"));
    at.ok().map(|at| at.to_utc())
}

/// The last moment of a page that is sorted newest first; `None` for a page in another order, or with a moment missing.
pub(super) fn oldest_of_newest_first(moments: impl Iterator<Item = Option<DateTime<Utc>>>) -> Option<DateTime<Utc>> {
    let moments = moments.collect::<Option<Vec<_>>>()?;
    moments.is_sorted_by(|earlier, later| earlier >= later).then(|| moments.last().copied()).flatten()
}

/// Everything that a `vnd.sas.error` (or an OAuth error) says, each sentence once: `message`, `details` (a list, or one
/// string from some services), `remediation`, and the same of the nested `errors`, where SAS often puts the useful part.
pub fn error_text(value: &Value) -> String {
    let mut parts = Vec::new();
    collect_error(value, &mut parts, 0);
    crate::http::secret::one_line(&parts.join("; "), LONGEST_ERROR)
}

fn collect_error(value: &Value, parts: &mut Vec<String>, depth: usize) {
    // An error that is nested deeper repeats itself.
    if depth > 8 {
        return;
    }
    let mut add = |text: &Value| {
        let text = text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.is_empty() && !parts.contains(&text) {
            parts.push(text);
        }
    };
    for key in ["message", "error", "error_description", "remediation"] {
        value.get(key).map(&mut add);
    }
    match value.get("details") {
        Some(Value::Array(details)) => details.iter().for_each(add),
        Some(details) => add(details),
        None => {}
    }
    if let Some(Value::Array(errors)) = value.get("errors") {
        errors.iter().for_each(|error| collect_error(error, parts, depth + 1));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_is_one_part_of_a_path() {
        for id in ["2b3c-4d", "1234-ses0000", "a.b", "a:b~c_d"] {
            assert!(is_id(id), "{id}");
        }
        for other in ["", ".", "..", ".a", "a/b", "%2e%2e", "a?b", "a#b", "a b", "ä", "\u{1b}[31m"] {
            assert!(!is_id(other), "{other}");
        }
    }

    #[test]
    fn nested_messages_are_folded_into_one_line() {
        let value = json!({"version": 2, "httpStatusCode": 400, "errorCode": 5113, "message": "The request failed.",
            "details": ["path: /jobs", "path: /jobs"], "remediation": "",
            "errors": [{"message": "The job\n was aborted.", "details": "traceId: 1",
                        "errors": [{"message": "Out of space in WORK.", "remediation": "Free some."}]}]});
        assert_eq!(
            error_text(&value),
            "The request failed.; path: /jobs; The job was aborted.; traceId: 1; Out of space in WORK.; Free some."
        );
        assert_eq!(
            error_text(&json!({"error": "unauthorized", "error_description": "Bad credentials"})),
            "unauthorized; Bad credentials"
        );
        assert_eq!(error_text(&json!([1, 2])), "");
    }
}
