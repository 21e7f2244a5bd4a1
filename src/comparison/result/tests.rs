//! Whole runs against the sandbox's SAS Viya over real HTTP.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value, json};

use super::{prepare_folder, write_result};
use crate::comparison::{
    Arms, ComparisonResult, JobOrder, ProgressListener, RunnerOptions, SubmissionMode, ViyaComparisonRunner, table,
};
use crate::error::{ErrorKind, Result};
use crate::sandbox::viya::{Fault, ViyaOptions, ViyaSandbox, workload};
use crate::stop::Stop;
use crate::viya::Credentials;

struct Fixture {
    folder: tempfile::TempDir,
    sandbox: ViyaSandbox,
}

impl Fixture {
    fn new(jobs: usize, options: ViyaOptions) -> Self {
        let sandbox = ViyaSandbox::start(ViyaOptions { speed: 400.0, ..options }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let definitions = workload::example_definitions().unwrap();
        let configs: Vec<Value> = definitions
            .iter()
            .take(jobs)
            .map(|definition| json!({"name": definition.name, "definition_id": definition.id, "arguments": {"N": 1}, "enabled": true}))
            .collect();
        std::fs::write(folder.path().join("jobs.json"), json!({"jobs": configs}).to_string()).unwrap();
        std::fs::write(folder.path().join("tokens.json"), sandbox.issue_tokens().to_string()).unwrap();
        Self { folder, sandbox }
    }

    fn options(&self) -> RunnerOptions {
        RunnerOptions {
            base_url: self.sandbox.url(),
            tokens: Credentials::File(self.folder.path().join("tokens.json")),
            jobs: self.folder.path().join("jobs.json"),
            results_dir: self.results(),
            ..RunnerOptions::default()
        }
    }

    fn results(&self) -> PathBuf {
        self.folder.path().join("results")
    }
}

fn run(options: RunnerOptions, progress: Option<ProgressListener>) -> Result<ComparisonResult> {
    crate::runtime::block_on(ViyaComparisonRunner::new(options)?.run(progress, &Stop::default()))
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn codes(result: &ComparisonResult) -> Vec<&str> {
    result.warnings.iter().map(|warning| warning.code.as_str()).collect()
}

#[test]
fn two_arms_with_every_key_that_users_know() {
    let fixture = Fixture::new(6, ViyaOptions::default());
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let listener: ProgressListener = Arc::new(move |event| log.lock().unwrap().push(event));
    let result = run(RunnerOptions { concurrent: 3, ..fixture.options() }, Some(listener)).unwrap();
    let json = read(result.path.as_deref().unwrap());
    assert!(json == result.to_value().unwrap(), "the file differs from what was returned");
    assert_eq!(json["metadata"]["speed"], 400.0);
    assert_eq!(json["metadata"]["base_url"], fixture.sandbox.url());
    assert_eq!(json["metadata"]["max_concurrent"], 3);
    assert_eq!(json["async_execution"]["max_concurrent"], 3);
    for arm in ["sequential_execution", "async_execution"] {
        let arm = &json[arm];
        assert_eq!((&arm["successful_jobs"], &arm["failed_jobs"]), (&json!(6), &json!(0)));
        let jobs = arm["jobs"].as_array().unwrap();
        let total = arm["total_duration"].as_f64().unwrap();
        for job in jobs {
            let data = &job["metrics"]["orchestrator_data"];
            assert_eq!((&job["status"], &data["correlation"]), (&json!("completed"), &json!("exact")));
            assert_eq!((data["cpu_cores"].as_f64(), data["memory_mb"].as_f64()), (Some(0.15), Some(250.0)));
            let duration = job["duration"].as_f64().unwrap();
            let phases: f64 =
                ["pending_s", "starting_s", "running_s"].iter().map(|key| job["phases"][key].as_f64().unwrap()).sum();
            assert!(duration <= total && (duration - phases).abs() <= 6.0, "{job}");
            let metrics = &job["job_metrics"];
            assert!(metrics["elapsed_time_ms"].is_i64() && data["requeue_count"].is_i64(), "{job}");
            assert!((metrics["elapsed_time_ms"].as_f64().unwrap() - duration * 1e3).abs() < 0.5);
            assert_eq!(&metrics["orchestrator_data"], data);
            assert_eq!((&metrics["resource_samples"], &metrics["avg_resource_usage"]), (&json!([]), &json!({})));
            assert_eq!(job.get("session_metrics"), Some(&json!({})), "nothing measures it");
            assert!(job["client"]["observed_duration"].as_f64().unwrap() >= duration - 0.001, "{job}");
            assert!(data["execution_host"].is_string() && data["execution_seconds"].as_f64().unwrap() > 0.0);
            assert_eq!(job["job_metrics"]["compute_context"], arm["context_name"]);
        }
    }
    let comparison = &json["comparison"];
    let (before, saved) = (
        comparison["execution_time"]["sequential_total"].as_f64().unwrap(),
        comparison["time_saved"].as_f64().unwrap(),
    );
    assert!((comparison["efficiency_gain"].as_f64().unwrap() - 100.0 * saved / before).abs() < 1e-5);
    assert!(codes(&result).contains(&"parallelism_confounded"), "{:?}", result.warnings);
    assert!(
        !codes(&result).iter().any(|code| code.starts_with("wrong") || code.starts_with("missing")),
        "{:?}",
        result.warnings
    );

    let events = events.lock().unwrap();
    let last = events.last().unwrap();
    assert_eq!((last.arm.as_str(), last.done, last.failed, last.in_flight, last.total), ("async", 6, 0, 0, 6));
    assert_eq!(events.len(), 24);
    assert!(events.iter().all(|event| event.in_flight <= if event.arm == "async" { 3 } else { 1 }));

    let jobs = table::jobs(&result.run).unwrap();
    assert_eq!(jobs.num_rows(), 12);
    let column = |name: &str| jobs.column_by_name(name).unwrap().clone();
    assert_eq!(column("jes_created_s").as_primitive::<Float64Type>().value(0), 0.0);
    assert_eq!(column("wlo_id").as_primitive::<Int64Type>().value(0), 0);
    for recorded in workload::RECORDED_RUN.lines().next().unwrap().split(',') {
        assert_eq!(column(recorded).null_count(), 0, "{recorded}");
    }
    assert_eq!(table::arms(&result.run, &result.analysis).unwrap().num_rows(), 2);
    assert!(table::hosts(&result.analysis).unwrap().num_rows() >= 2);
}

#[test]
fn one_arm_leaves_the_other_null() {
    let fixture = Fixture::new(3, ViyaOptions::default());
    let result = run(
        RunnerOptions { async_only: true, mode: SubmissionMode::All, limit_jobs: Some(2), ..fixture.options() },
        None,
    )
    .unwrap();
    let json = &result.to_value().unwrap();
    assert_eq!((&json["sequential_execution"], &json["comparison"]), (&Value::Null, &Value::Null));
    assert_eq!(json["async_execution"]["execution_mode"], "all");
    assert_eq!(
        (&json["metadata"]["max_concurrent"], &json["async_execution"]["max_concurrent"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(json["async_execution"]["jobs"].as_array().unwrap().len(), 2);
    assert!(!codes(&result).contains(&"parallelism_confounded"));
}

#[test]
fn failed_jobs_are_rows_and_a_bad_day_of_the_server_is_survived() {
    let name = workload::example_definitions().unwrap()[1].name.clone();
    let fault = |path: &str, nth, status| Fault { path: path.into(), nth, status, retry_after: None };
    let faults = vec![
        fault("/compute/contexts", 1, 503),
        fault("/jobExecution/jobs", 1, 502),
        fault("/jobExecution/jobs", 4, 503),
        fault("/jobExecution/jobs", 9, 429),
        fault("/workloadOrchestrator/jobs", 1, 504),
    ];
    let fixture = Fixture::new(4, ViyaOptions { fail_jobs: vec![name.clone()], faults, ..ViyaOptions::default() });
    let result = run(RunnerOptions { sequential_only: true, ..fixture.options() }, None).unwrap();
    let arm = &result.to_value().unwrap()["sequential_execution"];
    assert_eq!((&arm["successful_jobs"], &arm["failed_jobs"]), (&json!(3), &json!(1)));
    let failed = &arm["jobs"][1];
    assert_eq!((&failed["name"], &failed["status"]), (&json!(name), &json!("failed")));
    assert!(!failed["error"].as_str().unwrap().is_empty());
    assert_eq!(result.failed_jobs(), 1);
}

#[test]
fn a_context_that_does_not_exist_stops_before_any_job() {
    let fixture = Fixture::new(2, ViyaOptions::default());
    let error = run(RunnerOptions { async_context: "No such".into(), ..fixture.options() }, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("\"No such\"") && error.to_string().contains("Autoscaling POC Context"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(fixture.results()).unwrap().count(), 0);
}

#[test]
fn a_job_beyond_its_limit_is_canceled_and_the_run_goes_on() {
    let fixture = Fixture::new(2, ViyaOptions::default());
    let result = run(RunnerOptions { sequential_only: true, job_timeout: 4.0, ..fixture.options() }, None).unwrap();
    let arm = &result.to_value().unwrap()["sequential_execution"];
    assert_eq!(arm["failed_jobs"], 2);
    for job in arm["jobs"].as_array().unwrap() {
        assert_eq!((&job["status"], &job["job_metrics"]["state"]), (&json!("timedOut"), &json!("canceled")));
        assert!(job["error"].as_str().unwrap().contains("canceled by jobrota"));
    }
}

#[test]
fn a_stopped_run_cancels_its_jobs_and_writes_what_is_done() {
    let fixture = Fixture::new(3, ViyaOptions::default());
    let runner = ViyaComparisonRunner::new(RunnerOptions { sequential_only: true, ..fixture.options() }).unwrap();
    let stop = Stop::default();
    let asked = stop.clone();
    let listener: ProgressListener = Arc::new(move |event| {
        if event.done == 1 && event.state == "submitted" {
            asked.stop();
        }
    });
    let error = crate::runtime::block_on(runner.run(Some(listener), &stop)).unwrap_err();
    let written = |extension: &str| {
        let files = std::fs::read_dir(fixture.results()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
        files.sort();
        files
    };
    let (path, journal) = (written("json").remove(0), written("jsonl").remove(0));
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(error.to_string().contains(&journal.display().to_string()), "{error}");
    let json = read(&path);
    let jobs = json["sequential_execution"]["jobs"].as_array().unwrap();
    let states: Vec<&str> = jobs.iter().map(|job| job["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["completed", "canceled"]);
    assert!(json["metadata"]["broke_off"].is_string());
    let error = crate::runtime::block_on(runner.run(None, &stop)).unwrap_err();
    assert!(error.to_string().contains("before a job was submitted"), "{error}");

    // Resumed, it runs what was canceled and what had not begun, and the first job not again.
    let result = crate::runtime::block_on(runner.resume(&journal, None, &Stop::default())).unwrap();
    let after = result.to_value().unwrap();
    let jobs = after["sequential_execution"]["jobs"].as_array().unwrap();
    let states: Vec<&str> = jobs.iter().map(|job| job["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["completed", "completed", "completed"]);
    assert_eq!(jobs[0]["job_instance_id"], json["sequential_execution"]["jobs"][0]["job_instance_id"]);
    assert_ne!(jobs[1]["unique_job_name"], json["sequential_execution"]["jobs"][1]["unique_job_name"]);
    assert_eq!(result.to_value().unwrap()["metadata"]["resumed"], 1);
    // Once more: nothing is left to run, and the same comes out.
    let again = crate::runtime::block_on(runner.resume(&journal, None, &Stop::default())).unwrap();
    let ids = |json: &Value| -> Vec<Value> {
        json["sequential_execution"]["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["job_instance_id"].clone())
            .collect()
    };
    assert_eq!(ids(&again.to_value().unwrap()), ids(&result.to_value().unwrap()));

    let elsewhere = Fixture::new(3, ViyaOptions::default());
    let stranger = ViyaComparisonRunner::new(elsewhere.options()).unwrap();
    let error = crate::runtime::block_on(stranger.resume(&journal, None, &Stop::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn three_arms_run_forth_and_back_in_rounds() {
    let fixture = Fixture::new(3, ViyaOptions::default());
    let options = RunnerOptions {
        arms: Arms::ThreeWay,
        mode: SubmissionMode::Window,
        concurrent: 2,
        repeat: 2,
        order: JobOrder::LongestFirst(Some([("cm_pooled".to_owned(), 1.0), ("ae_pooled".to_owned(), 3.0)].into())),
        cleanup: true,
        ..fixture.options()
    };
    let order = Arc::new(Mutex::new(Vec::new()));
    let log = order.clone();
    let listener: ProgressListener = Arc::new(move |event| {
        let mut log = log.lock().unwrap();
        if log.last() != Some(&(event.round, event.arm.clone())) {
            log.push((event.round, event.arm));
        }
    });
    let result = run(options, Some(listener)).unwrap();
    let seen: Vec<(u32, String)> = order.lock().unwrap().clone();
    let seen: Vec<(u32, &str)> = seen.iter().map(|(round, arm)| (*round, arm.as_str())).collect();
    let (one, two, three) = ("sequential", "async_regular", "async_autoscaling");
    assert_eq!(seen, [(1, one), (1, two), (1, three), (2, three), (2, two), (2, one)]);
    assert_eq!(result.failed_jobs(), 0);
    let jobs = table::jobs(&result.run).unwrap();
    assert_eq!(jobs.num_rows(), 18);
    // A job that is not known goes first, then the longest.
    let names = jobs.column_by_name("job").unwrap().as_string::<i32>();
    let first: Vec<&str> = (0..3).map(|at| names.value(at)).collect();
    assert_eq!(first, ["co_pooled", "ae_pooled", "cm_pooled"]);
}

#[test]
fn options_that_cannot_work_are_refused_and_nothing_runs_with_none() {
    let fixture = Fixture::new(2, ViyaOptions::default());
    for bad in [
        RunnerOptions { base_url: "viya".into(), ..fixture.options() },
        RunnerOptions { sequential_only: true, async_only: true, ..fixture.options() },
        RunnerOptions { concurrent: 0, ..fixture.options() },
        RunnerOptions { job_timeout: f64::NAN, ..fixture.options() },
        RunnerOptions { async_context: " ".into(), ..fixture.options() },
        RunnerOptions { limit_jobs: Some(0), ..fixture.options() },
    ] {
        assert_eq!(run(bad, None).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    fn is_send(_: impl Send) {}
    let runner = ViyaComparisonRunner::new(fixture.options()).unwrap();
    is_send(runner.run(None, &Stop::default()));
    let text = ViyaComparisonRunner::new(RunnerOptions { limit_jobs: Some(0), ..fixture.options() })
        .unwrap()
        .describe()
        .unwrap();
    for part in [env!("CARGO_PKG_VERSION"), "2 enabled, 0 to run", "batches of 5", "Autoscaling POC Context"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!fixture.results().exists());
}

#[test]
fn a_result_never_replaces_another() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("a/b");
    prepare_folder(&results).unwrap();
    let began = "2025-09-10T04:46:22Z".parse().unwrap();
    let names: Vec<String> = (0..3)
        .map(|run| {
            let (path, moved) = write_result(&results, began, &|sink| write!(sink, "{{\"run\": {run}}}")).unwrap();
            assert_eq!(moved, None);
            assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap()).unwrap()["run"], run);
            path.file_name().unwrap().to_string_lossy().into_owned()
        })
        .collect();
    let stem = "pooled_jobs_comparison_20250910_044622";
    assert_eq!(names, [format!("{stem}.json"), format!("{stem}_2.json"), format!("{stem}_3.json")]);
    assert_eq!(std::fs::read_dir(results).unwrap().count(), 3);
}

#[test]
fn a_file_in_place_of_the_folder_is_refused_first() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = prepare_folder(file.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.to_string().contains(&file.path().display().to_string()));
}
