//! Maintenance as its callers see it: rows stay, and files and log entries go, next to readers and writers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arrow::array::AsArray as _;

use super::*;
use crate::ErrorKind;
use crate::delta::tests::{all, batch, equals, flip, plain_spec, row, rows, spec, storage};
use crate::delta::{SnapshotView, Table};

const HOUR: i64 = 3_600_000;

pub(super) fn hours(hours: f64) -> Retention {
    Retention::hours(hours).expect("retention")
}

/// Maintains with a clock that is so many hours ahead.
pub(super) fn maintain_later(table: &Table, retain: f64, ahead: i64) -> MaintenanceOutcome {
    let clock = || Ok(chrono::Utc::now().timestamp_millis() + ahead * HOUR);
    maintain_by(&table.state, hours(retain), &clock)
}

/// Files below `directory` with their names relative to it.
pub(super) fn files_in(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).expect("directory") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(directory).expect("below").to_str().expect("text").to_owned());
            }
        }
    }
    found
}

pub(super) fn data_in(directory: &Path) -> BTreeSet<String> {
    files_in(directory).into_iter().filter(|name| !name.starts_with("_delta_log")).collect()
}

pub(super) fn age(path: &Path, hours: u64) {
    let at = SystemTime::now() - Duration::from_secs(hours * 3600);
    let file = std::fs::File::options().write(true).open(path).expect("file");
    file.set_times(std::fs::FileTimes::new().set_modified(at).set_accessed(at)).expect("times");
}

fn events(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("events")
}

/// Names and flags in the order in which a scan gives them.
pub(super) fn in_order(table: &Table) -> Vec<(String, String)> {
    let found = table.scan(&Predicate::default()).expect("scan");
    let texts = |at: usize| found.column(at).as_string::<i32>().iter().map(|v| v.unwrap_or("-").to_owned());
    texts(0).zip(texts(2)).collect()
}

#[test]
fn small_files_become_one_with_the_same_rows_in_the_same_order() {
    for spec in [spec(), plain_spec()] {
        let dir = tempfile::tempdir().expect("directory");
        let table = Table::open_or_create(&storage(&dir), &spec).expect("created");
        // All of one time: only the order in which they were logged tells them apart.
        for number in 0..30 {
            let flag = if number % 3 == 0 { "YES" } else { "NO" };
            table.append(&batch(&[row(format!("{number:02}"), 1, flag)])).expect("appended");
        }
        let before = in_order(&table);
        let report = table.maintain(hours(168.0));
        assert_eq!(report.problems, Vec::<String>::new());
        let partitions = if spec.partition_by.is_empty() { 1 } else { 2 };
        assert_eq!((report.files_before, report.files_after), (30, partitions));
        assert_eq!((report.files_compacted, report.files_written, report.rows_compacted), (30, partitions, 30));
        assert_eq!(report.version, 31);
        assert_eq!(report.checkpoint, Some(31));
        let after = in_order(&table);
        for flag in ["YES", "NO"] {
            let of = |rows: &[(String, String)]| rows.iter().filter(|r| r.1 == flag).cloned().collect::<Vec<_>>();
            assert_eq!(of(&after), of(&before));
        }
        let log = std::fs::read_to_string(events(&dir).join("_delta_log/00000000000000000031.json")).expect("log");
        assert!(log.contains("OPTIMIZE") && !log.contains("\"dataChange\":true"), "{log}");
        // Nothing is left to do, so nothing is committed.
        let again = table.maintain(hours(168.0));
        assert_eq!((again.version, again.files_compacted, again.checkpoint), (31, 0, Some(31)));
        // Rows logged afterwards come after the compacted ones.
        table.append(&batch(&[row("new", 1, "NO")])).expect("appended");
        assert_eq!(in_order(&table).last().expect("row").0, "new");
        assert_eq!(flip(&table, &|name| name == "01").expect("flipped"), 1);
        assert_eq!(all(&table).len(), 31);
    }
}

#[test]
fn a_year_of_single_rows_leaves_a_fetch_as_it_was_on_the_first_day() {
    const COMMITS: usize = 2500;
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    let long_lived = Table::open(&storage(&dir), "events").expect("opened");
    let fetched = |table: &Table| {
        let snapshot = table.state.refresh().expect("snapshot");
        let scanner = Scanner::new(&table.state, &snapshot, &equals("flag", "NO"));
        scanner.expect("scanner").files().expect("files").batches.iter().map(|batch| batch.files.len()).sum::<usize>()
    };
    table.append(&batch(&[row("first", 0, "NO")])).expect("appended");
    let day_one = fetched(&table);
    let writer = std::thread::scope(|threads| {
        let spawned = threads.spawn(|| {
            for number in 1..COMMITS {
                let flag = if number % 25 == 0 { "NO" } else { "YES" };
                table.append(&batch(&[row(format!("{number:05}"), number as i64, flag)])).expect("appended");
                if number % 100 == 99 {
                    let upto = format!("{:05}", number);
                    flip(&table, &|name| *name < *upto).expect("flipped");
                }
            }
        });
        spawned.join()
    });
    writer.expect("written");
    crate::runtime::drain(Duration::from_secs(60));
    let before = all(&table);
    assert_eq!(before.len(), COMMITS);
    assert!(table.overdue().is_some(), "a year without maintenance is told");
    // The year goes by: 2,500 commits, 3.5 hours apart.
    let log = events(&dir).join("_delta_log");
    let newest = table.version();
    let version_of = |name: &str| name.get(..20).and_then(|digits| digits.parse().ok()).unwrap_or(newest);
    let hours_ago = |name: &str| 1 + (newest - version_of(name)) * 7 / 2;
    for name in files_in(&log) {
        age(&log.join(&name), hours_ago(&name));
    }
    for name in data_in(&events(&dir)) {
        age(&events(&dir).join(name), 24 * 30);
    }
    // Everything goes below the newest checkpoint that is older than a week. Which one that is depends on the machine: a
    // fast writer gets fewer checkpoints.
    let entries = files_in(&log);
    let old_checkpoints = entries.iter().filter(|name| name.contains(".checkpoint") && hours_ago(name) > 168);
    let start = old_checkpoints.map(|name| version_of(name)).max().expect("a checkpoint that is old enough");
    let expired = entries.iter().filter(|name| version_of(name) < start).count();
    let report = table.maintain(hours(168.0));
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(report.files_after <= 4, "{report:?}");
    assert_eq!(report.log_entries_removed as usize, expired, "of {}", entries.len());
    assert_eq!(fetched(&table), day_one);
    assert_eq!(table.overdue(), None);
    assert_eq!(all(&table), before);
    // Opened before the log was cleaned, at a version that is gone.
    assert_eq!(all(&long_lived), before);
    assert_eq!(Table::open(&storage(&dir), "events").expect("opened").version(), report.version);
    // What was removed a year ago goes at once, what was compacted just now after the retention.
    let later = maintain_later(&table, 168.0, 24 * 8);
    assert_eq!(later.problems, Vec::<String>::new());
    assert_eq!(data_in(&events(&dir)).len() as u64, later.files_after);
    assert!(report.files_vacuumed + later.files_vacuumed >= COMMITS as u64);
    assert!(later.bytes_freed > 0);
    let left = files_in(&log);
    assert!(left.len() <= 8, "{left:?}");
    assert_eq!(all(&long_lived), before);
    assert_eq!(all(&Table::open(&storage(&dir), "events").expect("opened")), before);
    assert_eq!(fetched(&long_lived), day_one);
}

#[test]
fn writers_readers_and_two_maintainers_at_once_lose_and_double_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    let open = || Table::open(&storage(&dir), "events").expect("opened");
    let (writing, acknowledging) = (AtomicBool::new(true), AtomicBool::new(true));
    let (mut written, mut flipped, mut compacted, mut vacuumed) = (0, 0, 0, 0);
    std::thread::scope(|threads| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let table = open();
                threads.spawn(move || {
                    for number in 0..120 {
                        table.append(&batch(&[row(format!("{writer}-{number}"), number, "NO")])).expect("appended");
                    }
                    120
                })
            })
            .collect();
        let acknowledger = threads.spawn(|| {
            let table = open();
            let mut count = 0;
            while writing.load(Ordering::Acquire) {
                count += flip(&table, &|name| name.ends_with(['1', '4', '7'])).expect("flipped");
            }
            count + flip(&table, &|name| name.ends_with(['1', '4', '7'])).expect("flipped")
        });
        let reader = threads.spawn(|| {
            let table = open();
            let mut last = 0;
            while acknowledging.load(Ordering::Acquire) {
                let now = all(&table).len();
                assert!(now >= last, "rows vanished: {last}, then {now}");
                last = now;
            }
        });
        let maintainers: Vec<_> = (0..2)
            .map(|_| {
                threads.spawn(|| {
                    let table = open();
                    let (mut compacted, mut vacuumed) = (0, 0);
                    while acknowledging.load(Ordering::Acquire) {
                        let report = table.maintain(hours(0.0));
                        assert_eq!(report.problems, Vec::<String>::new());
                        compacted += report.files_compacted;
                        vacuumed += report.files_vacuumed;
                    }
                    (compacted, vacuumed)
                })
            })
            .collect();
        written = writers.into_iter().map(|writer| writer.join().expect("writer")).sum();
        writing.store(false, Ordering::Release);
        flipped = acknowledger.join().expect("acknowledger");
        acknowledging.store(false, Ordering::Release);
        reader.join().expect("reader");
        for maintainer in maintainers {
            let (some, more) = maintainer.join().expect("maintainer");
            compacted += some;
            vacuumed += more;
        }
    });
    assert!(compacted > 0 && vacuumed > 0, "maintenance got nothing done beside the others");
    let names: Vec<_> = all(&table).into_iter().map(|row| row.0.expect("name")).collect();
    assert_eq!(names.len(), written);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), written);
    assert_eq!(flipped, 3 * 36);
    assert_eq!(rows(&table.scan(&equals("flag", "YES")).expect("scan")).len() as u64, flipped);
}

#[test]
fn a_reader_whose_files_vanish_looks_again() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    for name in ["a", "b", "c"] {
        table.append(&batch(&[row(name, 1, "NO")])).expect("appended");
    }
    let stale = table.state.refresh().expect("snapshot");
    let report = Table::open(&storage(&dir), "events").expect("opened").maintain(hours(0.0));
    assert_eq!((report.files_compacted, report.files_vacuumed), (3, 3));
    let error = SnapshotView::new(&table.state, &stale).scan(&Predicate::default()).expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(table.state.is_outdated(&stale, &error), "{}", error.full_message());
    assert_eq!(all(&table).len(), 3);
    // A file that is lost and not only replaced is an error, and not an endless loop.
    let live = data_in(&events(&dir));
    std::fs::remove_file(events(&dir).join(live.first().expect("a file"))).expect("removed");
    let fresh = Table::open(&storage(&dir), "events").expect("opened");
    assert_eq!(fresh.scan(&Predicate::default()).expect_err("lost").kind(), ErrorKind::Storage);
}

#[test]
fn what_cannot_be_done_is_said_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    for name in ["a", "b", "c"] {
        table.append(&batch(&[row(name, 1, "NO")])).expect("appended");
    }
    // Row tracking: the kernel cannot remove files there.
    let log = events(&dir).join("_delta_log");
    let first = std::fs::read_to_string(log.join("00000000000000000000.json")).expect("log");
    let changed: Vec<String> = first
        .lines()
        .filter_map(|line| {
            if line.contains("\"metaData\"") {
                let on = "\"delta.enableRowTracking\":\"true\",\"delta.rowTracking.materializedRowIdColumnName\":\"_i\",\
                          \"delta.rowTracking.materializedRowCommitVersionColumnName\":\"_v\",\"delta.checkpointInterval\"";
                Some(line.replace("\"delta.checkpointInterval\"", on))
            } else if line.contains("\"protocol\"") {
                let features = r#"["rowTracking","domainMetadata","appendOnly","invariants"]"#;
                Some(format!(r#"{{"protocol":{{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":{features}}}}}"#))
            } else {
                None
            }
        })
        .collect();
    std::fs::write(log.join("00000000000000000004.json"), changed.join("\n")).expect("written");
    let table = Table::open(&storage(&dir), "events").expect("opened");
    let report = table.maintain(hours(168.0));
    assert_eq!(report.files_after, 3);
    assert!(report.problems.iter().any(|problem| problem.starts_with("compacting")), "{:?}", report.problems);
    assert_eq!(all(&table).len(), 3);
}

#[test]
fn a_look_at_an_old_version_does_not_change_what_is_known_of_the_newest() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    let old = table.state.known();
    table.append(&batch(&[row("a", 1, "NO")])).expect("appended");
    all(&table);
    Scanner::new(&table.state, &old, &Predicate::default()).expect("scanner").files().expect("files");
    assert_eq!(table.state.fragments.load(Ordering::Relaxed), 1);
}

#[test]
fn retentions_are_checked() {
    for refused in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
        assert_eq!(Retention::hours(refused).expect_err("refused").kind(), ErrorKind::InvalidInput, "{refused}");
    }
    let kept = |of: f64, property| hours(of).at_least(property, "files", "p", &mut MaintenanceOutcome::default());
    assert_eq!(kept(0.5, None), HOUR / 2);
    assert_eq!(kept(0.0, Some(Duration::from_secs(3600))), HOUR);
    assert_eq!(kept(2.0, Some(Duration::from_secs(3600))), 2 * HOUR);
}

mod clean;
mod model;
mod vacuum;
