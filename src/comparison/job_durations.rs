//! How long jobs took in an earlier run, to submit the longest first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files;
use super::statistics::quantile;
use crate::error::{Error, ErrorKind, Result};

/// Seconds by job name.
pub type JobDurations = HashMap<String, f64>;

/// Reads durations from a result file. The duration of a job is the median, over all arms and rounds, of the seconds that
/// it occupied a host (starting and running); without orchestrator data, of the seconds from its creation to its end.
///
/// # Errors
/// [`ErrorKind::NotFound`], or [`ErrorKind::InvalidInput`] when it is not the result of a comparison. Not retryable.
pub fn read(path: &Path) -> Result<JobDurations> {
    let file = path.display();
    let failed = format!("durations cannot be read from {file}: name the result file of an earlier run");
    let value: Value = serde_json::from_str(&files::read_text(path, failed)?)
        .map_err(|e| Error::invalid(format!("{file} is not the JSON of a comparison's result")).with_source(e))?;
    let found = of_result(&value);
    if found.is_empty() {
        return Err(Error::invalid(format!(
            "{file} has no durations of jobs: name the result file of an earlier run (durations_from)"
        )));
    }
    Ok(found)
}

/// The newest result file of a folder.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is none.
pub fn newest(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let results = entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(files::PREFIX) && name.ends_with(".json")
    });
    // The names contain the time.
    results.max().ok_or_else(|| {
        let text = format!(
            "the longest jobs cannot go first: {} has no result of an earlier run; run once in the order of submission, or \
             name a source of durations (durations_from)",
            folder.display()
        );
        Error::new(ErrorKind::NotFound, text)
    })
}

/// Like [`read`], from the JSON itself. Empty if there are no durations.
pub fn of_result(result: &Value) -> JobDurations {
    let mut seen: HashMap<String, Vec<f64>> = HashMap::new();
    let mut add = |job: &Value, name: &str, seconds: Option<f64>| {
        if let (Some(name), Some(seconds)) = (job.get(name).and_then(Value::as_str), seconds) {
            seen.entry(name.to_owned()).or_default().push(seconds);
        }
    };
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let number = |job: &Value, pointer: &str| job.pointer(pointer).and_then(Value::as_f64);
    for arm in list(result, "arms") {
        for job in list(&arm, "jobs") {
            let busy = number(&job, "/starting_s").zip(number(&job, "/running_s")).map(|(one, two)| one + two);
            add(&job, "job", busy.or_else(|| Some(number(&job, "/jes_elapsed_ms")? / 1e3)));
        }
    }
    // Results of the first job execution client have no arms.
    for key in ["sequential_execution", "async_execution", "async_regular_execution", "async_autoscaling_execution"] {
        let Some(arm) = result.get(key).filter(|_| result.get("arms").is_none()) else { continue };
        for job in list(arm, "jobs") {
            let busy = number(&job, "/metrics/orchestrator_timing/execution_seconds");
            add(&job, "name", busy.or_else(|| number(&job, "/duration")));
        }
    }
    seen.into_iter().filter_map(|(name, seconds)| Some((name, quantile(&seconds, 0.5)?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn medians_over_arms_and_results_of_old() {
        let row =
            |job: &str, starting: f64, running: f64| json!({"job": job, "starting_s": starting, "running_s": running});
        let result = json!({"arms": [{"jobs": [row("a", 1.0, 9.0), row("b", 0.0, 5.0)]}, {"jobs": [row("a", 1.0, 19.0),
            {"job": "c", "starting_s": null, "running_s": null, "jes_elapsed_ms": 7000}]}],
            "sequential_execution": {"jobs": [{"name": "a", "duration": 1.0}]}});
        assert_eq!(of_result(&result), HashMap::from([("a".into(), 15.0), ("b".into(), 5.0), ("c".into(), 7.0)]));
        let old = json!({"sequential_execution": {"jobs": [{"name": "a", "duration": 66.2}]},
            "async_execution": {"jobs": [{"name": "a", "duration": 99.0, "metrics": {"orchestrator_timing": {"execution_seconds": 53}}}]}});
        assert_eq!(of_result(&old), HashMap::from([("a".into(), 59.6)]));
        assert!(of_result(&json!([1])).is_empty());
        assert_eq!(newest(Path::new("/nowhere")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
