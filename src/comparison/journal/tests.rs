use serde_json::json;

use super::*;

fn header() -> JournalEvent {
    JournalEvent::Run(Box::new(JournalHeader {
        run_id: "r".into(),
        began: "2026-01-02T03:04:05Z".parse().unwrap(),
        tag: "t2cvxaqzk".into(),
        base_url: "http://127.0.0.1:1".into(),
        arms: vec![Arm::new("fixed", "A", SubmissionMode::Window, 3).unwrap()],
        jobs: vec![json!({"name": "a", "definition_id": "d"})],
        repeat: 2,
        pause: 0.0,
        mode: SubmissionMode::Window,
    }))
}

fn key(sequence: usize) -> JobKey {
    JobKey { arm: 0, round: 1, sequence }
}

fn end() -> JobEnd {
    JobEnd { status: "completed".into(), error: None, job: Some(json!({"id": "i1"})), observed: Some(3.5) }
}

fn events() -> Vec<JournalEvent> {
    vec![
        header(),
        JournalEvent::Submitting { key: key(1), name: "n1".into() },
        JournalEvent::Submitted { key: key(1), id: "i1".into(), latency: Some(0.5) },
        JournalEvent::Submitting { key: key(2), name: "n2".into() },
        JournalEvent::Ended { key: key(1), end: end() },
        JournalEvent::Submitting { key: key(3), name: "n3".into() },
        JournalEvent::Submitted { key: key(3), id: "i3".into(), latency: None },
    ]
}

fn check(replay: &Replay) {
    assert_eq!(replay.header.arms[0], Arm::new("fixed", "A", SubmissionMode::Window, 3).unwrap());
    assert_eq!((replay.header.repeat, replay.jobs.len()), (2, 3));
    assert!(
        matches!(&replay.jobs[&key(1)], PriorState::Ended(name, Some(0.5), end) if name == "n1" && end.observed == Some(3.5))
    );
    assert!(matches!(&replay.jobs[&key(2)], PriorState::Submitting(name) if name == "n2"));
    assert!(matches!(&replay.jobs[&key(3)], PriorState::Submitted(name, id, None) if name == "n3" && id == "i3"));
}

#[tokio::test]
async fn what_was_written_is_read_from_both_kinds() {
    for segments in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::create(folder.path(), "run", segments).unwrap();
        for event in events() {
            journal.write(&event).await.unwrap();
        }
        let path = journal.path.clone();
        assert_eq!(path.is_dir(), segments);
        if !segments {
            let error = Journal::reopen(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        }
        drop(journal);
        let (journal, replay) = Journal::reopen(&path).unwrap();
        check(&replay);
        assert_eq!(replay.resumed, 0);
        journal.write(&JournalEvent::Resumed { at: chrono::Utc::now() }).await.unwrap();
        drop(journal);
        assert_eq!(Journal::reopen(&path).unwrap().1.resumed, 1);
    }
}

#[tokio::test]
async fn a_line_that_was_cut_off_is_left_out_wherever_it_was_cut() {
    let lines: Vec<String> = events().iter().map(|event| serde_json::to_string(event).unwrap()).collect();
    let whole = lines.join("\n") + "\n";
    let last = JournalEvent::Ended { key: key(3), end: end() };
    let last = serde_json::to_string(&last).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.journal.jsonl");
    for cut in 0..last.len() {
        std::fs::write(&path, format!("{whole}{}", &last[..cut])).unwrap();
        let (journal, replay) = Journal::reopen(&path).unwrap();
        check(&replay);
        journal.write(&JournalEvent::Submitted { key: key(2), id: "i2".into(), latency: None }).await.unwrap();
        drop(journal);
        let replay = Journal::reopen(&path).unwrap().1;
        assert!(matches!(&replay.jobs[&key(2)], PriorState::Submitted(_, id, _) if id == "i2"), "cut at {cut}");
    }
}

#[tokio::test]
async fn events_of_many_are_all_written() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::create(folder.path(), "run", true).unwrap();
    journal.write(&header()).await.unwrap();
    let names = (1..=200).map(|sequence| JournalEvent::Submitting { key: key(sequence), name: format!("n{sequence}") });
    let events: Vec<JournalEvent> = names.collect();
    let written = futures::future::join_all(events.iter().map(|event| journal.write(event))).await;
    assert!(written.iter().all(Result::is_ok));
    let path = journal.path.clone();
    assert!(std::fs::read_dir(&path).unwrap().count() < 50, "they were not written together");
    assert_eq!(Journal::reopen(&path).unwrap().1.jobs.len(), 200);
}

#[test]
fn what_is_no_journal_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for text in ["", "{}", "nonsense\n", "{\"event\":\"result\",\"path\":\"x\"}\n"] {
        std::fs::write(file.path(), text).unwrap();
        assert_eq!(Journal::reopen(file.path()).unwrap_err().kind(), ErrorKind::InvalidInput, "{text:?}");
    }
    assert_eq!(Journal::reopen(Path::new("/nowhere/x.journal.jsonl")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn names_pass_the_orchestrator_unchanged() {
    assert_eq!(base36(1_757_479_582), "t2cvxa");
    let key = |arm, round, sequence| JobKey { arm, round, sequence };
    assert_eq!(unique_name("cm_pooled", "seq", key(0, 1, 12), "t2cvxaqzk"), "cmpooledseqa0r1x12t2cvxaqzk");
    assert_eq!(unique_name("3D-Übersicht", "async", key(1, 2, 11), "t"), "job3dbersichtasynca1r2x11t");
    assert_eq!(unique_name("___", "seq", key(0, 1, 1), "t"), "jobseqa0r1x1t");
    let long = unique_name(&"x".repeat(500), "asyncautos", key(99, 999, 99_999), &run_tag(1_757_479_582));
    assert!(long.len() + 37 <= 100, "{long}");
    let usual = unique_name("cm_pooled", "asyncauto", key(2, 1, 54), &run_tag(1_757_479_582));
    assert!(usual.len() + 37 <= 71, "{usual}");
    assert_eq!(run_tag(1_757_479_582).len(), 9);
}

#[test]
fn no_two_jobs_of_a_run_have_one_name() {
    // A sweep of concurrencies, whose arms begin alike, and names that could run into the numbers after them.
    let arms = ["autoscaling_5", "autoscaling_10", "window", "window1", "a", "a1", "a1r1", "ar", "x", "1"];
    let mut names = std::collections::HashSet::new();
    for (arm, name) in arms.iter().enumerate() {
        let short = Arm::new(name, "context", SubmissionMode::All, 1).unwrap().short();
        for (round, sequence, job) in (1..=12).flat_map(|round| (1..=12).map(move |at| (round, at, ["a", "b"][at % 2])))
        {
            let name = unique_name(job, &short, JobKey { arm, round, sequence }, "t2cvxaqzk");
            assert!(names.insert(name.clone()), "{name}");
        }
    }
}
