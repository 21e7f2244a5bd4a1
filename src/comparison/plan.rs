//! What is going to run: the job configs, the arms, and names that the orchestrator keeps as they are.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// How the asynchronous arm runs its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Batches of `concurrent` jobs; the next batch starts when the whole batch has ended.
    #[default]
    Batch,
    /// All jobs at once.
    All,
}

impl Mode {
    /// `batch` or `all`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::All => "all",
        }
    }
}

impl std::str::FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "batch" => Ok(Self::Batch),
            "all" => Ok(Self::All),
            _ => Err(Error::invalid(format!("mode {text:?} is unknown: it is batch or all"))),
        }
    }
}

/// How one arm runs its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// One job at a time.
    Sequential,
    /// Batches of this many.
    Batch(usize),
    /// All at once.
    All,
}

impl Flow {
    /// `sequential`, `batch` or `all`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Batch(_) => "batch",
            Self::All => "all",
        }
    }

    /// How many of `jobs` are in flight at most.
    pub fn concurrent(self, jobs: usize) -> usize {
        match self {
            Self::Sequential => 1,
            Self::Batch(size) => size.min(jobs.max(1)),
            Self::All => jobs,
        }
    }
}

/// One side of a comparison.
#[derive(Debug, Clone)]
pub struct Arm {
    /// `sequential` or `async`.
    pub name: String,
    /// The part of job names that tells the arm: letters and digits only.
    pub short: String,
    /// The compute context.
    pub context: String,
    /// How its jobs run.
    pub flow: Flow,
}

/// A job to compare.
#[derive(Debug, Clone)]
pub struct JobConfig {
    /// What people call it.
    pub name: String,
    /// Id or URI of its job definition.
    pub definition_id: String,
    /// Arguments, each as text: SAS takes a map of string to string. Without those that choose a context.
    pub arguments: Map<String, Value>,
    /// The entry of the file, for the result.
    pub entry: Value,
}

/// Reads `{"jobs": [{"name", "definition_id", "arguments", "enabled", …}]}` and returns the enabled jobs in order, at
/// most `limit`. A job's `context_name` is not used: the arm decides. Unknown keys are ignored.
///
/// # Errors
/// [`ErrorKind::NotFound`] or [`ErrorKind::InvalidInput`] with the file and the place; no retry helps.
pub fn load_jobs(path: &Path, limit: Option<usize>) -> Result<Vec<JobConfig>> {
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Storage };
        Error::new(kind, format!("the job configs {file} cannot be read: name a file that exists (jobs)"))
            .with_source(e)
    })?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|e| Error::invalid(format!("the job configs {file} are not JSON")).with_source(e))?;
    let entries = value.get("jobs").unwrap_or(&value).as_array();
    let entries = entries.ok_or_else(|| Error::invalid(format!("the job configs {file} have no list \"jobs\"")))?;
    let mut jobs = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let place = format!("job {} of {file}", index + 1);
        if enabled(entry, &place)? {
            jobs.push(job(entry, &place)?);
        }
    }
    if jobs.is_empty() {
        return Err(Error::invalid(format!(
            "the job configs {file} have no enabled job: set \"enabled\" to true for one at least"
        )));
    }
    jobs.truncate(limit.unwrap_or(usize::MAX));
    Ok(jobs)
}

fn enabled(entry: &Value, place: &str) -> Result<bool> {
    match entry.get("enabled") {
        None | Some(Value::Null) => Ok(true),
        Some(Value::Bool(enabled)) => Ok(*enabled),
        Some(other) => Err(Error::invalid(format!("{place}: \"enabled\" is {other}, neither true nor false"))),
    }
}

fn job(entry: &Value, place: &str) -> Result<JobConfig> {
    let text = |key: &str| {
        let found = entry.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
        found.map(str::to_owned).ok_or_else(|| Error::invalid(format!("{place} has no {key:?}: it must be a text")))
    };
    let mut arguments = Map::new();
    match entry.get("arguments") {
        None | Some(Value::Null) => {}
        Some(Value::Object(given)) => {
            for (name, value) in given {
                // The arm's context is the treatment under test: a second one in the arguments would undo it.
                if !["_contextname", "_contextid", "_sessionid"].contains(&name.to_ascii_lowercase().as_str()) {
                    arguments.insert(name.clone(), as_text(value).into());
                }
            }
        }
        Some(_) => return Err(Error::invalid(format!("{place}: \"arguments\" is not an object of names and values"))),
    }
    let definition_id = text("definition_id")?;
    if definition_id.contains(['?', '#', ' '])
        || definition_id.starts_with('/') && !definition_id.starts_with("/jobDefinitions/")
    {
        return Err(Error::invalid(format!(
            "{place}: \"definition_id\" {definition_id:?} is neither an id nor /jobDefinitions/definitions/<id>"
        )));
    }
    Ok(JobConfig { name: text("name")?, definition_id, arguments, entry: entry.clone() })
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A name of `[a-z0-9]` only, which the orchestrator keeps unchanged as the prefix of its own: job, arm, sequence number,
/// Unix seconds and three letters of this run (two runs may start in one second), e.g. `cmpooledseq11757479582qzk`.
/// SAS: the orchestrator lower-cases names and drops `_`; 71 characters with its own suffix were seen to pass uncut.
pub fn unique_name(job: &str, arm_short: &str, sequence: usize, unix: i64, run: &str) -> String {
    let mut kept: String =
        job.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).take(40).collect();
    if !kept.starts_with(|c: char| c.is_ascii_lowercase()) {
        kept.insert_str(0, "job");
    }
    format!("{kept}{arm_short}{sequence}{unix}{run}")
}

/// Three random letters for [`unique_name`].
pub fn run_letters() -> String {
    (0..3).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn load(text: &str, limit: Option<usize>) -> Result<Vec<JobConfig>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        load_jobs(file.path(), limit)
    }

    #[test]
    fn enabled_jobs_in_order_with_text_arguments() {
        let jobs = load(
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
            (r#"{"jobs":[{"name":"a","definition_id":"d","enabled":"yes"}]}"#, "neither true nor false"),
            (r#"{"jobs":[{"name":"a","definition_id":"../x?y"}]}"#, "definition_id"),
            (r#"{"jobs":[{"name":"a","definition_id":"d","arguments":[1]}]}"#, "arguments"),
        ] {
            let error = load(text, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.full_message().contains(expected), "{}", error.full_message());
        }
        let error = load_jobs(Path::new("/nowhere/jobs.json"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("/nowhere/jobs.json"));
    }

    #[test]
    fn names_are_kept_by_the_orchestrator() {
        assert_eq!(unique_name("cm_pooled", "seq", 1, 1_757_479_582, "qzk"), "cmpooledseq11757479582qzk");
        assert_eq!(unique_name("3D-Übersicht", "async", 11, 1, "abc"), "job3dbersichtasync111abc");
        assert_eq!(unique_name("___", "seq", 1, 1, "abc"), "jobseq11abc");
        assert!(unique_name(&"x".repeat(500), "async", 99_999, i64::MAX, "abc").len() < 80);
        assert_eq!(run_letters().len(), 3);
    }
}
