//! What a SAS service says went wrong, as one line.

use serde_json::Value;

/// Everything a `vnd.sas.error` (or an OAuth error) says, each sentence once: `message`, `details` (a list, or one
/// string from some services), `remediation`, and the same of the nested `errors`, where SAS often hides the useful part.
pub fn error_text(value: &Value) -> String {
    let mut parts = Vec::new();
    collect(value, &mut parts, 0);
    let mut text = parts.join("; ");
    if text.len() > 2000 {
        let cut = (0..=2000).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

fn collect(value: &Value, parts: &mut Vec<String>, depth: usize) {
    // An error nested deeper than this repeats itself.
    if depth > 8 {
        return;
    }
    let mut add = |text: &Value| {
        if let Some(text) = text.as_str().map(str::trim).filter(|text| !text.is_empty()) {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            if !parts.contains(&text) {
                parts.push(text);
            }
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
        errors.iter().for_each(|error| collect(error, parts, depth + 1));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
