//! Folders as they are on a cluster.

use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn a_folder_is_imported_once() {
    let fixture = Fixture::new();
    fixture.write("a.json", record("A", 1));
    fixture.write("b.JSONL", format!("{}\n{}\n", record("B", 2), record("C", 3)));
    fixture.write("c.ndjson", format!("[{}]", record("D", 4)));
    let report = fixture.import();
    assert_eq!((report.files, report.imported, report.known, report.bad, report.rows), (3, 3, 0, 0, 4));
    assert_eq!(report.folder, fixture.folder().canonicalize().unwrap());
    assert_eq!(fixture.jobs(), ["A", "B", "C", "D"]);
    for ledger in [fixture.ledger.clone(), fixture.reopened()] {
        let report = import(&ledger, &fixture.folder());
        assert_eq!((report.files, report.imported, report.known, report.rows), (3, 0, 3, 0));
    }
    assert_eq!(fixture.jobs().len(), 4);
}

#[test]
fn many_files_share_commits() {
    let fixture = Fixture::new();
    let files = BATCH_FILES + 5;
    for number in 0..files {
        fixture.write(&format!("{number:04}.json"), record(&format!("J{number:04}"), 1));
    }
    let report = fixture.import();
    assert_eq!((report.rows, report.imported), (files as u64, files as u64));
    let log = |table: &str| fixture.directory.path().join("ledger").join(table).join("_delta_log");
    let commits = |table: &str| {
        let entries = fs::read_dir(log(table)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| name.ends_with(".json")).count()
    };
    assert_eq!((commits("job_notifications"), commits("autosys_imports")), (3, 3), "version 0 and two batches");
    assert_eq!(fixture.jobs(), (0..files).map(|number| format!("J{number:04}")).collect::<Vec<_>>(), "in their order");
    assert_eq!(fixture.import().known, files as u64);
}

#[test]
fn the_flag_is_kept_and_the_rest_is_pending() {
    let fixture = Fixture::new();
    fixture.write("a.json", record("A", 1).replace('}', r#", "autosys_update_flag": "YES"}"#));
    fixture.write("b.json", record("B", 2));
    fixture.import();
    let pending = fixture.ledger.pending(LedgerTable::Notifications).unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].job_id.as_deref(), Some("B"));
    assert_eq!(fixture.jobs(), ["A", "B"]);
}

#[test]
fn identical_content_is_as_many_events_as_there_are_places() {
    let fixture = Fixture::new();
    fixture.write("a.json", record("A", 1));
    fixture.write("b.json", record("A", 1));
    fixture.write("c.jsonl", format!("{0}\n{0}\n{0}\n", record("A", 1)));
    assert_eq!(fixture.import().rows, 5);
    assert_eq!(fixture.import().rows, 0);
}

#[test]
fn a_file_that_grows_brings_what_is_new() {
    let fixture = Fixture::new();
    let (a, b, c) = (record("A", 1), record("B", 2), record("C", 3));
    fixture.write("log.jsonl", format!("{a}\n{}", &b[..30]));
    let report = fixture.import();
    assert_eq!((report.rows, report.imported, report.bad, report.bad_records), (1, 1, 1, 1));
    assert_eq!((report.failures[0].line, report.failures[0].record), (Some(2), Some(2)));
    assert!(report.failures[0].reason.contains("still being written"));
    assert_eq!(fixture.import().rows, 0);
    fixture.write("log.jsonl", format!("{a}\n{b}\n{a}\n"));
    assert_eq!(fixture.import().rows, 2, "the second A is another event");
    fixture.write("log.jsonl", format!("{b}\n{c}\n"));
    assert_eq!(fixture.import().rows, 1, "rotated: only C is new");
    fixture.write("log.jsonl", format!("[{a}, {a}, {b}, {c}]"));
    assert_eq!(fixture.import().rows, 0, "and now a list of the same");
    assert_eq!(fixture.jobs(), ["A", "A", "B", "C"]);
}

#[test]
fn a_half_written_file_is_reported_and_imported_when_it_is_whole() {
    let fixture = Fixture::new();
    fixture.write("good.json", record("A", 1));
    fixture.write("half.json", &record("B", 2)[..40]);
    fixture.write("empty.json", "");
    fixture.write("blank.json", " \r\n");
    let report = fixture.import();
    assert_eq!((report.files, report.imported, report.bad, report.rows), (2, 1, 1, 1));
    assert_eq!(report.ignored, [("empty", 2)].into());
    assert_eq!(report.failures[0].file, "half.json");
    fixture.write("half.json", record("B", 2));
    fixture.write("empty.json", record("C", 3));
    let report = fixture.import();
    assert_eq!((report.bad, report.rows), (0, 2));
    assert_eq!(fixture.jobs(), ["A", "B", "C"]);
}

#[test]
fn what_is_no_candidate_is_counted_and_left_alone() {
    let fixture = Fixture::new();
    fixture.write("a.json", record("A", 1));
    fixture.write("notes.txt", record("B", 2));
    fixture.write(".a.json.swp.json", record("C", 3));
    fs::create_dir(fixture.folder().join("processed.json")).unwrap();
    fs::write(fixture.folder().join("processed.json/d.json"), record("D", 4)).unwrap();
    let outside = fixture.directory.path().join("outside.json");
    fs::write(&outside, record("E", 5)).unwrap();
    symlink(&outside, fixture.folder().join("link.json")).unwrap();
    symlink("a.json", fixture.folder().join("again.json")).unwrap();
    symlink("loop.json", fixture.folder().join("loop.json")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(fixture.folder().join("socket.json")).unwrap();
    let report = fixture.import();
    drop(socket);
    assert_eq!((report.files, report.rows, report.bad), (1, 1, 0));
    let expected = [
        ("folder", 1),
        ("hidden", 1),
        ("not .json, .jsonl or .ndjson", 1),
        ("not a regular file", 1),
        ("symbolic link", 3),
    ];
    assert_eq!(report.ignored, expected.into());
}

#[test]
fn bad_files_are_reported_one_by_one_and_stop_nothing() {
    let fixture = Fixture::new();
    fixture.write("1.json", "{");
    fixture.write("2.json", record("A", 1));
    fixture.write("3.json", "not json");
    fixture.write("4.json", record("B", 2).replace("status", "state"));
    fixture.write("5.jsonl", format!("{}{}\n", "{}\n".repeat(1_000), record("C", 3)));
    let large = fs::File::create(fixture.folder().join("6.json")).unwrap();
    large.set_len(folder::MAX_FILE_BYTES + 1).unwrap();
    for again in [false, true] {
        let report = fixture.import();
        assert_eq!((report.files, report.bad, report.rows), (6, 5, if again { 0 } else { 2 }));
        assert_eq!((report.bad_records, report.known), (1 + 1 + 1 + 1_000, u64::from(again)));
        let of = |name: &str| report.failures.iter().filter(|failure| failure.file == name).collect::<Vec<_>>();
        assert_eq!((of("1.json").len(), of("3.json").len(), of("4.json").len()), (1, 1, 1));
        assert_eq!(of("5.jsonl").len(), 21);
        assert!(of("5.jsonl")[20].reason.contains("980 more"), "{:?}", of("5.jsonl")[20]);
        assert!(of("6.json")[0].reason.contains("split it"));
    }
    assert_eq!(fixture.jobs(), ["A", "C"]);
    fixture.write("4.json", record("B", 2));
    assert_eq!(fixture.import().rows, 1);
}

#[test]
fn files_that_go_before_they_are_read_are_counted() {
    let fixture = Fixture::new();
    let mut import = Import::new(&fixture.ledger, reader(), ImportReport::default()).unwrap();
    for name in ["a.json", "b.json"] {
        import.file(&fixture.folder().join(name)).unwrap();
    }
    assert_eq!((import.report.files, import.report.ignored), (0, [("gone before it was read", 2)].into()));
}

#[test]
fn any_name_is_a_name() {
    let fixture = Fixture::new();
    let odd: [&[u8]; 5] =
        [b"\xFF\xFE.json", b"\xFF\xFD.json", "日本 %41?#.json".as_bytes(), b"a\nb.json", b"%FF%FE.json"];
    for (second, name) in (1..).zip(odd) {
        let path = fixture.folder().join(std::ffi::OsString::from_vec(name.to_vec()));
        fs::write(path, record(&format!("J{second}"), second)).unwrap();
    }
    assert_eq!(fixture.import().rows, 5);
    assert_eq!(fixture.import().known, 5);
    let bad = fixture.folder().join(std::ffi::OsString::from_vec(b"\xFF.json".to_vec()));
    fs::write(bad, "{").unwrap();
    assert_eq!(fixture.import().failures[0].file, "\u{FFFD}.json");
}

#[test]
fn a_file_is_known_however_its_folder_is_named() {
    let fixture = Fixture::new();
    fixture.write("a.json", record("A", 1));
    fixture.import();
    let link = fixture.directory.path().join("link");
    symlink(fixture.folder(), &link).unwrap();
    for folder in [link, fixture.folder().join("../in"), fixture.folder().join(".")] {
        assert_eq!(import(&fixture.ledger, &folder).rows, 0);
    }
}

#[test]
fn what_can_never_work_is_refused_before_anything_is_written() {
    let fixture = Fixture::new();
    fixture.write("a.json", record("A", 1));
    let refused = |folder: &Path, options: &ImportOptions| {
        let error = fixture.ledger.import_json(folder, options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(!error.is_retryable());
    };
    for folder in
        [Path::new(""), Path::new("s3://bucket/in"), &fixture.folder().join("none"), &fixture.folder().join("a.json")]
    {
        refused(folder, &berlin());
    }
    refused(&fixture.folder(), &ImportOptions { fields: vec![("job".into(), "x".into())], ..berlin() });
    refused(&fixture.folder(), &ImportOptions { timezone: Some("Mars".into()), ..berlin() });
    assert!(!fixture.directory.path().join("ledger").exists());
}

#[test]
fn an_empty_folder_makes_no_ledger() {
    let fixture = Fixture::new();
    let report = fixture.import();
    assert_eq!((report.files, report.rows), (0, 0));
    assert!(!fixture.directory.path().join("ledger").exists());
}

#[test]
fn an_import_that_is_told_to_stop_imports_nothing_more() {
    let fixture = Fixture::new();
    fixture.write("a.json", record("A", 1));
    let options = berlin();
    options.stop.stop();
    assert_eq!(fixture.ledger.import_json(&fixture.folder(), &options).unwrap().files, 0);
    assert_eq!(fixture.import().rows, 1);
}

#[test]
fn naive_times_wait_for_a_timezone() {
    let fixture = Fixture::new();
    fixture.write("a.json", record("A", 1));
    let report = fixture.ledger.import_json(&fixture.folder(), &ImportOptions::default()).unwrap();
    assert_eq!((report.rows, report.bad), (0, 1));
    assert!(report.failures[0].reason.contains("timezone="));
    assert_eq!(fixture.import().rows, 1);
    let report = fixture.ledger.import_json(&fixture.folder(), &ImportOptions::default()).unwrap();
    assert_eq!(report.rows, 0);
}

#[test]
fn a_time_that_came_twice_is_taken_and_counted() {
    let fixture = Fixture::new();
    fixture.write("a.json", record("A", 1).replace("2025-04-16T09", "2025-10-26T02"));
    let report = fixture.import();
    assert_eq!((report.rows, report.ambiguous_times, report.bad), (1, 1, 0));
    assert_eq!(fixture.import().ambiguous_times, 0);
}
