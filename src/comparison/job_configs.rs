//! The jobs to compare, from the job configuration file.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::files;
use crate::duration;
use crate::error::{Error, Result};

/// A job to compare.
#[derive(Debug, Clone)]
pub struct JobConfig {
    /// Its name.
    pub name: String,
    /// Id or URI of its job definition.
    pub definition_id: String,
    /// Arguments as text, because SAS takes a map of string to string. Arguments that choose a context are left out.
    pub arguments: Map<String, Value>,
    /// Seconds after which it is canceled and counts as failed, if its entry has a `job_timeout`.
    pub job_timeout: Option<f64>,
    /// The entry of the file, for the result.
    pub entry: Value,
}

/// Reads `{"jobs": [{"name", "definition_id", "arguments", "enabled", …}]}` and returns the enabled jobs in order, at
/// most `limit`. The `context_name` of a job is not used, because the arm sets the context. Unknown keys are ignored.
///
/// # Errors
/// [`crate::ErrorKind::NotFound`] or [`crate::ErrorKind::InvalidInput`] with the file and the position. Not retryable.
pub fn load(path: &Path, limit: Option<usize>) -> Result<Vec<Arc<JobConfig>>> {
    let file = path.display();
    let text =
        files::read_text(path, format!("the job configs {file} cannot be read: name a file that exists (jobs)"))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|e| Error::invalid(format!("the job configs {file} are not JSON")).with_source(e))?;
    let entries = value.get("jobs").unwrap_or(&value).as_array();
    let entries = entries.ok_or_else(|| Error::invalid(format!("the job configs {file} have no list \"jobs\"")))?;
    let mut jobs = parse(entries, &file.to_string())?;
    if jobs.is_empty() {
        return Err(Error::invalid(format!(
            "the job configs {file} have no enabled job: set \"enabled\" to true for at least one"
        )));
    }
    jobs.truncate(limit.unwrap_or(usize::MAX));
    Ok(jobs)
}

/// The enabled jobs of `entries`, in order. Errors name the source by `origin`.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] with the position.
pub(super) fn parse(entries: &[Value], origin: &str) -> Result<Vec<Arc<JobConfig>>> {
    let mut jobs = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let position = format!("job {} of {origin}", index + 1);
        if enabled(entry, &position)? {
            jobs.push(Arc::new(job(entry, &position)?));
        }
    }
    Ok(jobs)
}

fn enabled(entry: &Value, position: &str) -> Result<bool> {
    match entry.get("enabled") {
        None | Some(Value::Null) => Ok(true),
        Some(Value::Bool(enabled)) => Ok(*enabled),
        Some(other) => Err(Error::invalid(format!("{position}: \"enabled\" is {other}: give true or false"))),
    }
}

fn job(entry: &Value, position: &str) -> Result<JobConfig> {
    let text = |key: &str| {
        let found = entry.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
        found.map(str::to_owned).ok_or_else(|| Error::invalid(format!("{position} has no {key:?}: give text")))
    };
    let mut arguments = Map::new();
    match entry.get("arguments") {
        None | Some(Value::Null) => {}
        Some(Value::Object(given)) => {
            for (name, value) in given {
                // The context is what the arms compare: an argument must not replace it.
                if !["_contextname", "_contextid", "_sessionid"].contains(&name.to_ascii_lowercase().as_str()) {
                    arguments.insert(name.clone(), as_text(value).into());
                }
            }
        }
        Some(_) => {
            return Err(Error::invalid(format!("{position}: \"arguments\" is not an object: give names and values")));
        }
    }
    let definition_id = text("definition_id")?;
    if definition_id.contains(['?', '#', ' '])
        || definition_id.starts_with('/') && !definition_id.starts_with("/jobDefinitions/")
    {
        return Err(Error::invalid(format!(
            "{position}: \"definition_id\" {definition_id:?} is invalid: give an id or /jobDefinitions/definitions/<id>"
        )));
    }
    let job_timeout = match entry.get("job_timeout") {
        None | Some(Value::Null) => None,
        Some(given) => {
            let text = || duration::parse(given.as_str()?).map(|timeout| timeout.as_secs_f64()).ok();
            let seconds = given.as_f64().or_else(text).filter(|seconds| *seconds > 0.0);
            Some(seconds.ok_or_else(|| {
                Error::invalid(format!(
                    "{position}: \"job_timeout\" is {given}: give a positive number of seconds, or text such as {}",
                    duration::EXAMPLES
                ))
            })?)
        }
    };
    Ok(JobConfig { name: text("name")?, definition_id, arguments, job_timeout, entry: entry.clone() })
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::error::ErrorKind;

    fn load_text(text: &str, limit: Option<usize>) -> Result<Vec<Arc<JobConfig>>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        super::load(file.path(), limit)
    }

    #[test]
    fn enabled_jobs_in_order_with_text_arguments() {
        let jobs = load_text(
            r#"{"jobs":[{"name":"cm_pooled","definition_id":"d1","arguments":{"AGE":14,"flag":true,"_contextName":"x","none":null,"t":"a"},
                "context_name":"ignored","future":1},{"name":"off","definition_id":"d2","enabled":false},
                {"name":"ae","definition_id":"/jobDefinitions/definitions/d3","enabled":true}],"settings":{"max_concurrent_jobs":3}}"#,
            None,
        )
        .unwrap();
        assert_eq!(jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["cm_pooled", "ae"]);
        assert_eq!(
            Value::from(jobs[0].arguments.clone()),
            serde_json::json!({"AGE":"14","flag":"true","none":"","t":"a"})
        );
    }

    #[test]
    fn bad_files_say_what_and_where() {
        for (text, expected) in [
            ("{\"jobs\":[\n{]}", "line 2"),
            ("{\"jobs\":3}", "no list \"jobs\""),
            ("{\"jobs\":[]}", "no enabled job"),
            (r#"{"jobs":[{"name":"a","definition_id":"d","enabled":false}]}"#, "no enabled job"),
            (r#"{"jobs":[{"name":"a"}]}"#, "job 1 of"),
            (r#"{"jobs":[{"definition_id":"d"}]}"#, "no \"name\""),
            (r#"{"jobs":[{"name":"a","definition_id":"d","enabled":"yes"}]}"#, "give true or false"),
            (r#"{"jobs":[{"name":"a","definition_id":"../x?y"}]}"#, "definition_id"),
            (r#"{"jobs":[{"name":"a","definition_id":"d","arguments":[1]}]}"#, "arguments"),
            (r#"{"jobs":[{"name":"a","definition_id":"d","job_timeout":-1}]}"#, "job_timeout"),
        ] {
            let error = load_text(text, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.full_message().contains(expected), "{}", error.full_message());
        }
        let error = load(Path::new("/nowhere/jobs.json"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("/nowhere/jobs.json"));
    }
}
