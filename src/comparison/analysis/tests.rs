//! The recorded run, and small runs whose figures are known.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::{Value, json};

use crate::comparison::{ComparisonResult, table};
use crate::error::ErrorKind;

/// The recorded run as a table of texts, only these arms.
fn recorded(arms: &[&str]) -> RecordBatch {
    let text = include_str!("../../../examples/data/viya_recorded_run.csv");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let rows: Vec<csv::StringRecord> =
        reader.records().map(Result::unwrap).filter(|row| arms.contains(&&row[0])).collect();
    let column = |at: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(&row[at]).filter(|text| !text.is_empty())).collect::<StringArray>())
    };
    RecordBatch::try_from_iter_with_nullable(names.iter().enumerate().map(|(at, name)| (name, column(at), true)))
        .unwrap()
}

const ALL: [&str; 3] = ["sequential", "async_regular", "async_autoscaling"];

fn codes(result: &ComparisonResult) -> Vec<&str> {
    result.warnings.iter().map(|warning| warning.code.as_str()).collect()
}

/// Figures that were counted separately from the same run, and their precision in seconds.
#[test]
fn the_recorded_run_has_its_figures() {
    let result = ComparisonResult::from_table(&recorded(&ALL), None).unwrap();
    let json = result.to_value().unwrap();
    let arms = json["analysis"]["arms"].as_array().unwrap();
    let near = |value: &Value, expected: f64, within: f64| {
        let found = value.as_f64().unwrap_or(f64::NAN);
        assert!((found - expected).abs() <= within, "{found} is not {expected}");
    };
    for (arm, name, makespan, hosts, pending, starting, running, cpu) in [
        (&arms[0], ALL[0], 2814.0, 1, [0.0, 0.0, 0.0], [6.2, 6.0, 7.0], [2093.0, 39.0], 1716.0),
        (&arms[1], ALL[1], 901.0, 2, [326.0, 387.0, 662.0], [33.0, 19.0, 180.0], [10844.0, 201.0], 2924.0),
        (&arms[2], ALL[2], 608.0, 2, [295.0, 335.0, 533.0], [15.0, 9.0, 98.0], [3688.0, 68.0], 2645.0),
    ] {
        assert_eq!((&arm["arm"], &arm["jobs"], &arm["failed"]), (&json!(name), &json!(54), &json!(0)));
        assert_eq!(arm["hosts"].as_array().unwrap().len(), hosts);
        near(&arm["makespan_s"]["mean"], makespan, 0.5);
        for (phase, expected) in [("pending_s", pending), ("starting_s", starting)] {
            near(&arm[phase]["mean"], expected[0], 0.5);
            near(&arm[phase]["p50"], expected[1], 0.5);
            near(&arm[phase]["max"], expected[2], 0.0);
        }
        near(&arm["running_s"]["sum"], running[0], 0.5);
        near(&arm["running_s"]["mean"], running[1], 0.5);
        near(&arm["cpu_s"], cpu, 0.5);
    }
    let host = |arm: usize, host: &str| {
        arms[arm]["hosts"].as_array().unwrap().iter().find(|found| found["host"] == host).cloned().unwrap()
    };
    for (arm, name, peak, ratio) in [
        (0, "node-1", 1, 1.24),
        (1, "node-1", 14, 4.83),
        (1, "node-2", 4, 1.48),
        (2, "node-2", 4, 1.38),
        (2, "node-3", 4, 1.46),
    ] {
        let figures = host(arm, name);
        assert_eq!(figures["peak_concurrency"], peak, "{name}");
        near(&figures["running_to_cpu"], ratio, 0.005);
    }
    // The new node of the run that was meant not to scale: 4 min 42 s after the first submission, and 76 s of starting.
    assert_eq!(arms[0]["scale_up_s"], Value::Null);
    near(&arms[1]["scale_up_s"], 282.0, 1.0);
    assert_eq!(arms[1]["new_hosts"], json!(["node-2"]));
    // The other new node was there, cold, when the autoscaling arm began.
    assert_eq!(arms[2]["new_hosts"], json!(["node-3"]));
    near(&arms[2]["scale_up_s"], 1.6, 0.1);
    assert_eq!((&host(1, "node-2")["came"], &host(2, "node-3")["came"]), (&json!(true), &json!(false)));
    assert_eq!(host(1, "node-2")["cold"], true);
    assert_eq!(arms[0]["cold_starts"], 0);
    near(&arms[1]["starting_cold_s"]["min"], 76.0, 1.0);
    assert!(arms[1]["cold_starts"].as_u64().unwrap() >= 1 && arms[2]["cold_starts"].as_u64().unwrap() >= 1);
}

#[test]
fn the_recorded_run_raises_its_warnings_by_itself() {
    let result = ComparisonResult::from_table(&recorded(&ALL), None).unwrap();
    let found = codes(&result);
    for code in ["single_repeat", "shared_host", "warm_host", "fixed_arm_scaled", "packed_host"] {
        assert!(found.contains(&code), "{code} is missing: {found:?}");
    }
    // Three arms tell parallelism and context apart, and every job has its entry, context and queue.
    for code in ["parallelism_confounded", "missing_correlation", "wrong_context", "wrong_queue", "broke_off"] {
        assert!(!found.contains(&code), "{code} is there: {found:?}");
    }
    let text = |code: &str| {
        let of_code = result.warnings.iter().filter(|warning| warning.code == code);
        of_code.map(|warning| warning.text.as_str()).collect::<Vec<_>>().join("\n")
    };
    assert!(text("fixed_arm_scaled").contains("node-2 came while it ran 4 min 4"), "{}", text("fixed_arm_scaled"));
    assert!(text("packed_host").contains("node-1 had 14 jobs at once"), "{}", text("packed_host"));
    assert!(text("warm_host").contains("async_autoscaling began on node-2"), "{}", text("warm_host"));
    let json = result.to_value().unwrap();
    let verdict = &json["analysis"]["verdict"];
    assert_eq!(verdict["code"], "too_few_rounds");
    let comparison = &json["analysis"]["comparisons"][verdict["comparison"].as_u64().unwrap() as usize];
    assert_eq!((&comparison["kind"], &comparison["claimed"]), (&json!("context"), &json!(false)));
    let kinds: Vec<&str> = json["analysis"]["comparisons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|comparison| comparison["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["parallelism", "total", "context"]);

    let two = ComparisonResult::from_table(&recorded(&["sequential", "async_autoscaling"]), None).unwrap();
    assert!(codes(&two).contains(&"parallelism_confounded"), "{:?}", codes(&two));
    assert!(!codes(&two).contains(&"fixed_arm_scaled"), "{:?}", codes(&two));
}

/// A table of the columns that are needed, and perhaps a round: two arms whose jobs take `seconds`.
fn rounds(seconds: &[(f64, f64)]) -> RecordBatch {
    let (mut arm, mut job, mut start, mut end, mut round) = (vec![], vec![], vec![], vec![], vec![]);
    let mut now = 0.0;
    for (number, (one, other)) in seconds.iter().enumerate() {
        for (name, length) in [("a", one), ("b", other)] {
            for part in 0..3 {
                arm.push(name);
                job.push(format!("j{part}"));
                start.push(now);
                end.push(now + length * f64::from(part + 1) / 3.0);
                round.push(number as i64 + 1);
            }
            now += length;
        }
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("arm", Arc::new(StringArray::from(arm))),
        ("job", Arc::new(StringArray::from_iter_values(job))),
        ("jes_created_s", Arc::new(Float64Array::from(start))),
        ("jes_end_s", Arc::new(Float64Array::from(end))),
        ("round", Arc::new(Int64Array::from(round))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[test]
fn rounds_make_an_interval_and_a_verdict() {
    let noisy = [(100.0, 80.0), (104.0, 82.0), (98.0, 80.0), (101.0, 79.0), (99.0, 81.0), (102.0, 80.5)];
    let verdict = |rounds_of: &[(f64, f64)]| {
        let json = ComparisonResult::from_table(&rounds(rounds_of), None).unwrap().to_value().unwrap();
        (json["analysis"]["verdict"].clone(), json["analysis"]["comparisons"][0].clone())
    };
    let (sentence, comparison) = verdict(&noisy);
    assert_eq!((&sentence["code"], &comparison["claimed"]), (&json!("faster"), &json!(true)), "{sentence}");
    assert_eq!(comparison["rounds"], 6);
    assert!(comparison["low"].as_f64().unwrap() < 0.8 && comparison["high"].as_f64().unwrap() < 0.85, "{comparison}");
    let text = sentence["text"].as_str().unwrap();
    assert!(text.starts_with(char::is_numeric) && text.contains("6 rounds"), "{text}");
    let (sentence, comparison) = verdict(&noisy[..4]);
    assert_eq!((&sentence["code"], &comparison["claimed"]), (&json!("too_few_rounds"), &json!(false)));
    let turned: Vec<(f64, f64)> = noisy.iter().map(|(one, other)| (*other, *one)).collect();
    assert_eq!(verdict(&turned).0["code"], "slower");
    let equal = [(100.0, 103.0), (104.0, 99.0), (98.0, 101.0), (101.0, 100.0), (99.0, 98.0)];
    assert_eq!(verdict(&equal).0["code"], "no_difference");
}

#[test]
fn what_is_not_known_stays_null_and_is_said() {
    let result = ComparisonResult::from_table(&rounds(&[(10.0, 9.0)]), None).unwrap();
    assert!(codes(&result).contains(&"missing_correlation"), "{:?}", codes(&result));
    let json = result.to_value().unwrap();
    let arm = &json["analysis"]["arms"][0];
    for key in ["pending_s", "starting_s", "running_s", "scale_up_s", "host_seconds", "peak_concurrency", "cost"] {
        assert_eq!(arm[key], Value::Null, "{key}");
    }
    assert_eq!(json["arms"][0]["jobs"][0]["jes_elapsed_ms"], 3333);
    assert_eq!(table::jobs(&result.run).unwrap().num_columns(), 35);
}

#[test]
fn tables_that_are_no_run_are_refused() {
    let good = rounds(&[(10.0, 9.0)]);
    let without = |name: &str| {
        let keep: Vec<usize> = (0..good.num_columns()).filter(|at| good.schema().field(*at).name() != name).collect();
        good.project(&keep).unwrap()
    };
    let with = |name: &str, column: ArrayRef| {
        let schema = good.schema();
        let columns = schema.fields().iter().zip(good.columns()).map(|(field, old)| {
            (field.name().clone(), if field.name() == name { column.clone() } else { old.clone() })
        });
        RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).unwrap()
    };
    for (batch, expected) in [
        (without("arm"), "no column arm"),
        (without("jes_end_s"), "no column jes_end_s"),
        (good.slice(0, 0), "no rows"),
        (with("jes_end_s", Arc::new(Float64Array::from(vec![-1.0; 6]))), "ended before it was created"),
        (with("jes_end_s", Arc::new(StringArray::from(vec!["soon"; 6]))), "column jes_end_s"),
        (with("round", Arc::new(Int64Array::from(vec![0; 6]))), "counted from 1"),
    ] {
        let error = ComparisonResult::from_table(&batch, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_result_that_is_read_back_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recorded.json");
    let result = ComparisonResult::from_table(&recorded(&ALL), None).unwrap();
    result.save(&path).unwrap();
    let again = ComparisonResult::load(&path).unwrap();
    assert!(again.analysis == result.analysis && again.warnings == result.warnings);
    assert_eq!(again.run.job_rows.len(), 162);

    // Of the first client: no arms, each execution under a key of its own.
    let job = |name: &str, start: &str, end: &str, host: &str| {
        json!({"name": name, "status": "completed", "duration": 66.2,
            "job_metrics": {"submission_time": start, "completion_time": end, "elapsed_time_ms": 54339},
            "metrics": {"actual_hostname": host, "orchestrator_timing": {"queue_wait_seconds": 3}}})
    };
    let old = json!({
        "sequential_execution": {"context_name": "A", "jobs": [job("a", "2025-09-10T04:46:22.000Z", "2025-09-10T04:47:22.000Z", "h1")]},
        "async_execution": {"context_name": "B", "max_concurrent": 5, "jobs": [job("a", "2025-09-10T04:48:00.000Z", "2025-09-10T04:48:30.500Z", "h1")]},
    });
    std::fs::write(&path, old.to_string()).unwrap();
    let old = ComparisonResult::load(&path).unwrap();
    let makespans: Vec<f64> = old.analysis.arms.iter().map(|arm| arm.makespans_s[0]).collect();
    assert_eq!(makespans, [60.0, 30.5]);
    assert!(codes(&old).contains(&"parallelism_confounded"), "{:?}", codes(&old));
    assert_eq!(old.run.job_rows[1].host.as_deref(), Some("h1"));
    for text in ["{}", "[]", "{\"arms\": [{}]}", "nonsense"] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(ComparisonResult::load(&path).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
    }
    assert_eq!(ComparisonResult::load(&folder.path().join("none.json")).unwrap_err().kind(), ErrorKind::NotFound);
}
