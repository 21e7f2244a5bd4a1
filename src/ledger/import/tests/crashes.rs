//! The import log after crashes, with simultaneous imports, and without reading files again.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn tables(ledger: &JobLedger) -> (crate::delta::Table, crate::delta::Table) {
    (ledger.created(LedgerTable::Notifications.spec()).unwrap(), ledger.created(&IMPORTS).unwrap())
}

fn entry(found: &LegacyRecord) -> (String, ImportedFile) {
    ("file:///a.json".into(), ImportedFile { stamp: None, records: vec![found.digest] })
}

fn found(job: &str) -> LegacyRecord {
    parse::items(record(job, 1).as_bytes(), &reader(), u64::MAX).0.remove(0).record.unwrap()
}

#[test]
fn a_batch_without_its_rows_means_nothing() {
    let fixture = Fixture::new();
    let (notifications, imports) = tables(&fixture.ledger);
    let (a, b) = (found("A"), found("B"));
    // Killed after the batch was written down and before its rows were: as the first one, and after another.
    for (job, expected) in [(&a, 0), (&b, 1)] {
        let log = read_log(&fixture.ledger).unwrap();
        assert_eq!(
            log.file("file:///a.json").map_or(0, |known| ImportedFile::new_records(Some(known), &[a.digest])
                .iter()
                .filter(|new| !**new)
                .count()),
            expected
        );
        import_log::write_batch(&imports, log.head, &[entry(job)]).unwrap();
        let mut log = read_log(&fixture.reopened()).unwrap();
        assert_eq!(ImportedFile::new_records(log.file("file:///a.json"), &[job.digest]), [true]);
        assert!(log.commit(&notifications, &imports, vec![entry(job)], &to_rows(&[job]).unwrap()).unwrap());
        let log = read_log(&fixture.reopened()).unwrap();
        assert_eq!(ImportedFile::new_records(log.file("file:///a.json"), &[job.digest, job.digest]), [false, true]);
    }
    assert_eq!(fixture.jobs(), ["A", "B"]);
}

#[test]
fn of_two_imports_that_know_the_same_one_wins() {
    let fixture = Fixture::new();
    let (notifications, imports) = tables(&fixture.ledger);
    let (mut first, mut second) = (read_log(&fixture.ledger).unwrap(), read_log(&fixture.reopened()).unwrap());
    let (a, rows) = (found("A"), to_rows(&[&found("A")]).unwrap());
    assert!(first.commit(&notifications, &imports, vec![entry(&a)], &rows).unwrap());
    assert!(!second.commit(&notifications, &imports, vec![entry(&a)], &rows).unwrap());
    assert_eq!(fixture.jobs(), ["A"]);
    let second = read_log(&fixture.ledger).unwrap();
    assert_eq!(ImportedFile::new_records(second.file("file:///a.json"), &[a.digest]), [false]);
}

#[test]
fn many_imports_at_once_import_each_record_once() {
    let fixture = Fixture::new();
    for number in 0..40 {
        fixture.write(&format!("{number:02}.json"), record(&format!("J{number:02}"), number));
    }
    let barrier = Barrier::new(6);
    let reports: Vec<ImportReport> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|number| {
                let (fixture, barrier) = (&fixture, &barrier);
                scope.spawn(move || {
                    let ledger = if number % 2 == 0 { fixture.ledger.clone() } else { fixture.reopened() };
                    barrier.wait();
                    import(&ledger, &fixture.folder())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(fixture.jobs(), (0..40).map(|number| format!("J{number:02}")).collect::<Vec<_>>());
    assert_eq!(reports.iter().map(|report| report.rows).sum::<u64>(), 40, "and each was reported once");
    assert!(reports.iter().all(|report| report.imported + report.known == 40));
}

/// Imports among other writers of the same table.
#[test]
fn imports_among_loggers_and_acknowledgements() {
    let fixture = Fixture::new();
    for number in 0..30 {
        fixture.write(&format!("{number:02}.json"), record(&format!("J{number:02}"), number));
    }
    thread::scope(|scope| {
        for writer in 0..2 {
            let ledger = fixture.reopened();
            scope.spawn(move || {
                for number in 0..15 {
                    ledger.log_job_completion("x", &format!("L{writer}-{number:02}"), "SUCCESS", None).unwrap();
                    let pending = ledger.pending(LedgerTable::Notifications).unwrap();
                    ledger.acknowledge(LedgerTable::Notifications, &pending[..1]).unwrap();
                }
            });
        }
        for _ in 0..2 {
            let (ledger, folder) = (fixture.reopened(), fixture.folder());
            scope.spawn(move || import(&ledger, &folder));
        }
    });
    let mut jobs = fixture.jobs();
    jobs.sort();
    let mut expected: Vec<String> = (0..30).map(|number| format!("J{number:02}")).collect();
    expected.extend((0..2).flat_map(|writer| (0..15).map(move |number| format!("L{writer}-{number:02}"))));
    assert_eq!(jobs, expected);
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    let fixture = Fixture::new();
    for number in 0..70 {
        fixture.write(&format!("{number}.json"), record("A", 1));
        let old = fs::File::options().write(true).open(fixture.folder().join(format!("{number}.json"))).unwrap();
        old.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
    }
    // Freshly changed by one of its two times: nothing is trusted yet.
    fixture.import();
    let log = read_log(&fixture.ledger).unwrap();
    let key = |name: &str| folder::key(&fixture.folder().canonicalize().unwrap().join(name)).unwrap();
    assert_eq!(log.file(&key("1.json")).unwrap().stamp, None);
    let stamp = folder::stamp(&fixture.folder().join("1.json")).unwrap().unwrap();
    let now = SystemTime::now();
    assert!(!stamp.is_reliable(now));
    assert!(stamp.is_reliable(now + Duration::from_secs(12)));
    assert!(!stamp.is_reliable(UNIX_EPOCH), "a clock that is far behind");
    let before = stamp.text;
    fixture.write("1.json", record("B", 1));
    assert_ne!(folder::stamp(&fixture.folder().join("1.json")).unwrap().unwrap().text, before);
}

/// Stamps that have become worth it are kept in one commit, and then nothing is read and nothing written.
#[test]
fn stamps_are_kept_once_they_can_be_trusted() {
    let fixture = Fixture::new();
    for number in 0..70 {
        fixture.write(&format!("{number}.json"), record("A", 1));
    }
    fixture.import();
    let mut report = ImportReport::default();
    let files = folder::list(&fixture.folder(), &mut report).unwrap();
    let later = |ledger: &JobLedger| {
        let mut import = Import::new(ledger, reader(), report.clone()).unwrap();
        for path in &files {
            let (bytes, stamp) = folder::read(path).unwrap().unwrap();
            let later = SystemTime::now() + Duration::from_secs(60);
            import.parse("x".into(), folder::key(path).unwrap(), &bytes, &stamp, later);
        }
        import.commit(true).unwrap();
        import.report
    };
    assert_eq!((later(&fixture.ledger).rows, later(&fixture.ledger).known), (0, 70));
    let (notifications, imports) = tables(&fixture.ledger);
    let versions = (notifications.version(), imports.version());
    assert_eq!(versions, (2, 2), "the rows, and then the stamps");
    // Were one read, it would be reported: it is broken, but looks as it did.
    let log = read_log(&fixture.ledger).unwrap();
    assert!(files.iter().all(|path| log.file(&folder::key(path).unwrap()).unwrap().stamp.is_some()));
    let report = fixture.import();
    assert_eq!((report.known, report.rows), (70, 0));
    assert_eq!((notifications.version(), imports.version()), versions);
}

#[test]
fn a_lost_memory_is_an_error_and_not_a_second_import() {
    let fixture = Fixture::new();
    fixture.write("a.json", record("A", 1));
    fixture.import();
    let ledger = fixture.directory.path().join("ledger");
    fs::remove_dir_all(ledger.join("autosys_imports")).unwrap();
    let error = fixture.reopened().import_json(&fixture.folder(), &berlin()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("autosys_imports"), "{error}");
    assert_eq!(fixture.jobs(), ["A"]);
    // Without the rows there is nothing to remember: both are made anew.
    fs::remove_dir_all(ledger.join("job_notifications")).unwrap();
    assert_eq!(import(&fixture.reopened(), &fixture.folder()).rows, 1);
    fs::remove_dir_all(ledger.join("job_notifications")).unwrap();
    assert_eq!(import(&fixture.reopened(), &fixture.folder()).rows, 1, "the batches of the old table mean nothing");
    assert_eq!(import(&fixture.reopened(), &fixture.folder()).rows, 0);
    assert_eq!(fixture.jobs(), ["A"]);
}

/// Log entries that a checkpoint covers are cleaned away in time: the memory must not be in them alone.
#[test]
fn the_memory_survives_checkpoints() {
    let fixture = Fixture::new();
    for number in 0..45 {
        fixture.write(&format!("{number:02}.json"), record(&format!("J{number:02}"), number));
        assert_eq!(import(&fixture.reopened(), &fixture.folder()).rows, 1);
    }
    let _ = crate::runtime::drain(Duration::from_secs(30));
    for table in ["job_notifications", "autosys_imports"] {
        let log = fixture.directory.path().join("ledger").join(table).join("_delta_log");
        let pointer = fs::read(log.join("_last_checkpoint")).unwrap();
        let pointer: serde_json::Value = serde_json::from_slice(&pointer).unwrap();
        let covered = pointer["version"].as_u64().unwrap();
        assert!(covered >= 20);
        for version in 0..=covered {
            fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
        }
    }
    assert_eq!(import(&fixture.reopened(), &fixture.folder()).known, 45);
    assert_eq!(fixture.jobs().len(), 45);
}

#[test]
fn the_memory_survives_maintenance() {
    let fixture = Fixture::new();
    for number in 0..25 {
        fixture.write(&format!("{number:02}.json"), record(&format!("J{number:02}"), number));
        fixture.import();
    }
    let files = |ledger: &JobLedger| {
        let report = ledger.maintain(0.0).unwrap();
        assert!(report.problems().is_empty(), "{:?}", report.problems());
        report.tables.iter().map(|table| (table.table, table.done.files_compacted)).collect::<Vec<_>>()
    };
    assert_eq!(files(&fixture.reopened()), [("job_notifications", 25), ("autosys_imports", 25)]);
    assert_eq!(import(&fixture.reopened(), &fixture.folder()).known, 25);
    fixture.write("25.json", record("J25", 25));
    assert_eq!(import(&fixture.ledger, &fixture.folder()).rows, 1, "nor does a handle from before mind");
    assert_eq!(fixture.jobs().len(), 26);
}
