//! Many writers at once: nothing is lost, nothing is doubled.

use std::collections::BTreeSet;
use std::thread;

use super::*;

const THREADS: usize = 8;
const EACH: usize = 12;

fn together(work: impl Fn(usize) + Sync) {
    let barrier = std::sync::Barrier::new(THREADS);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (work, barrier) = (&work, &barrier);
            scope.spawn(move || {
                barrier.wait();
                work(number);
            });
        }
    });
}

fn names(table: &Table) -> Vec<String> {
    all(table).into_iter().filter_map(|row| row.0).collect()
}

fn expected() -> Vec<String> {
    let mut expected: Vec<String> =
        (0..THREADS).flat_map(|thread| (0..EACH).map(move |at| format!("t{thread}-{at}"))).collect();
    expected.sort();
    expected
}

#[test]
fn a_table_is_created_once_however_many_try() {
    let dir = tempfile::tempdir().expect("directory");
    together(|number| {
        let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
        table.append(&batch(&[row(format!("t{number}"), 1, "NO")])).expect("appended");
    });
    assert_eq!(all(&Table::open(&storage(&dir), "events").expect("opened")).len(), THREADS);
    let zero =
        std::fs::read_to_string(dir.path().join("events/_delta_log/00000000000000000000.json")).expect("version 0");
    assert_eq!(zero.matches("\"metaData\"").count(), 1);
}

#[test]
fn appends_through_one_handle_and_through_many_are_all_there_once() {
    for shared in [true, false] {
        let dir = tempfile::tempdir().expect("directory");
        let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
        together(|number| {
            let table = if shared { table.clone() } else { Table::open(&storage(&dir), "events").expect("opened") };
            for at in 0..EACH {
                table.append(&batch(&[row(format!("t{number}-{at}"), at as i64, "NO")])).expect("appended");
            }
        });
        assert_eq!(names(&table), expected());
        if shared {
            assert!(table.version() as usize <= THREADS * EACH, "rows logged at the same moment share a commit");
        } else {
            assert_eq!(table.version() as usize, THREADS * EACH);
        }
    }
}

#[test]
fn rewrites_among_appends_keep_every_row() {
    for spec in [spec(), plain_spec()] {
        let dir = tempfile::tempdir().expect("directory");
        Table::open_or_create(&storage(&dir), &spec).expect("created");
        together(|number| {
            let table = Table::open(&storage(&dir), "events").expect("opened");
            if number % 4 == 3 {
                for _ in 0..EACH {
                    flip(&table, &|_| true).expect("flipped");
                }
                return;
            }
            for at in 0..EACH {
                table.append(&batch(&[row(format!("t{number}-{at}"), at as i64, "NO")])).expect("appended");
            }
        });
        let table = Table::open(&storage(&dir), "events").expect("opened");
        flip(&table, &|_| true).expect("flipped");
        let expected: Vec<Row> = expected()
            .into_iter()
            .filter(|name| !name.starts_with("t3") && !name.starts_with("t7"))
            .map(|name| {
                let at = name.rsplit('-').next().and_then(|at| at.parse().ok()).expect("number");
                row(name, at, "YES")
            })
            .collect();
        assert_eq!(all(&table), expected);
    }
}

#[test]
fn a_turn_is_taken_once() {
    for shared in [true, false] {
        let dir = tempfile::tempdir().expect("directory");
        let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
        together(|_| {
            let table = if shared { table.clone() } else { Table::open(&storage(&dir), "events").expect("opened") };
            for _ in 0..EACH {
                table
                    .append_conditionally(&mut |view| {
                        let turn = view.transaction("cursor")?.unwrap_or(0) + 1;
                        Ok(Some(ConditionalWrite {
                            batch: batch(&[row(format!("{turn:04}"), turn, "NO")]),
                            transactions: vec![("cursor".into(), turn)],
                        }))
                    })
                    .expect("taken");
            }
        });
        let turns: Vec<i64> = all(&table).into_iter().filter_map(|row| row.1).collect();
        assert_eq!(turns, (1..=(THREADS * EACH) as i64).collect::<Vec<_>>());
    }
}

/// Another client compacts between our reading and our commit: the rows are then in a file that we have not seen.
#[test]
fn a_compaction_cannot_slip_under_a_rewrite() {
    let dir = tempfile::tempdir().expect("directory");
    let (ours, theirs) = (
        Table::open_or_create(&storage(&dir), &spec()).expect("created"),
        Table::open(&storage(&dir), "events").expect("opened"),
    );
    for name in ["a", "b", "c"] {
        ours.append(&batch(&[row(name, 1, "NO")])).expect("appended");
    }
    let (mut compacted, restarts) = (false, std::cell::Cell::new(0));
    let removed = ours.rewrite(
        &equals("flag", "NO"),
        NO_CHECK,
        &mut |rows| {
            if !std::mem::replace(&mut compacted, true) {
                let together = theirs.scan(&Predicate::default())?;
                let mut rest = Some(together);
                theirs.rewrite(
                    &Predicate::default(),
                    NO_CHECK,
                    &mut |rows| {
                        Ok(Some(Rewrite {
                            remove: BooleanArray::from(vec![true; rows.num_rows()]),
                            add: rest.take().unwrap_or(rows.slice(0, 0)),
                        }))
                    },
                    &mut || {},
                )?;
            }
            let yes: ArrayRef = Arc::new(StringArray::from(vec!["YES"; rows.num_rows()]));
            let add = RecordBatch::try_new(rows.schema(), vec![rows.column(0).clone(), rows.column(1).clone(), yes])
                .expect("batch");
            Ok(Some(Rewrite { remove: BooleanArray::from(vec![true; rows.num_rows()]), add }))
        },
        &mut || restarts.set(restarts.get() + 1),
    );
    assert_eq!(removed.expect("rewritten"), 3);
    assert_eq!(restarts.get(), 1);
    assert_eq!(all(&ours), vec![row("a", 1, "YES"), row("b", 1, "YES"), row("c", 1, "YES")]);
}

#[test]
fn writing_to_the_table_that_is_being_decided_about_is_an_error_and_no_deadlock() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    let error = table
        .append_conditionally(&mut |_| table.append(&batch(&[row("a", 1, "NO")])).map(|_| None))
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Internal);
    table.append(&batch(&[row("a", 1, "NO")])).expect("the handle still works");
}

/// Planning a rewrite can be slow, and must neither keep other writers waiting nor starve.
#[test]
fn a_rewrite_holds_the_lock_only_after_a_lost_race() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    table.append(&batch(&[row("a", 1, "NO"), row("b", 1, "NO")])).expect("appended");
    let (mut inner, restarts) = (Vec::new(), std::cell::Cell::new(0));
    let removed = table.rewrite(
        &equals("flag", "NO"),
        NO_CHECK,
        &mut |rows| {
            if inner.is_empty() {
                assert_eq!(flip(&table, &|name| name == "a")?, 1, "it wins the race");
            }
            // Under the lock, this is refused, as it would be a deadlock.
            let appended = table.append(&batch(&[row("c", 2, "YES")])).map(drop).map_err(|error| error.kind());
            inner.push((restarts.get(), appended));
            Ok(Some(Rewrite { remove: BooleanArray::from(vec![true; rows.num_rows()]), add: rows.slice(0, 0) }))
        },
        &mut || restarts.set(restarts.get() + 1),
    );
    assert_eq!(removed.expect("rewritten"), 1);
    assert_eq!((inner, restarts.get()), (vec![(0, Ok(())), (1, Err(ErrorKind::Internal))], 1));
    assert_eq!(all(&table), [row("a", 1, "YES"), row("c", 2, "YES")]);
}

/// A file that a decision reads can have been vacuumed meanwhile. It starts again a limited number of times.
#[test]
fn a_decision_about_files_that_vanish_again_and_again_ends_with_the_error() {
    let (memory, root) = (Arc::new(object_store::memory::InMemory::new()), "memory:///ledger/");
    let open = || {
        let storage = Storage::over(Arc::clone(&memory) as _, url::Url::parse(root).expect("url")).expect("storage");
        Table::open_or_create(&storage, &spec()).expect("created")
    };
    let (ours, theirs) = (open(), open());
    let mut decisions = 0;
    let ended = ours.append_conditionally(&mut |_| {
        decisions += 1;
        theirs.append(&batch(&[row("theirs", decisions, "NO")]))?;
        Err(crate::error::Error::new(ErrorKind::Storage, "the file is gone"))
    });
    assert_eq!(ended.expect_err("no decision").to_string(), "the file is gone");
    assert_eq!(decisions, 1 + i64::from(super::super::state::MAX_VANISHED));
    assert_eq!(all(&ours).len() as i64, decisions);
}

/// Properties of the table say how data files are written.
#[test]
fn the_files_of_a_lost_attempt_serve_the_next_one_unless_the_properties_have_changed() {
    for property in ["", "\"delta.dataSkippingNumIndexedCols\":\"1\","] {
        let dir = tempfile::tempdir().expect("directory");
        let table = Table::open_or_create(&storage(&dir), &plain_spec()).expect("created");
        let (place, log) = (dir.path().join("events"), dir.path().join("events/_delta_log"));
        let files = || {
            let names = std::fs::read_dir(&place).expect("listed").map(|entry| entry.expect("entry").file_name());
            names.filter(|name| name.to_string_lossy().ends_with(".parquet")).collect::<Vec<_>>()
        };
        let mut before = Vec::new();
        let decided = table.append_conditionally(&mut |view| {
            before.push(files());
            if view.version() == 0 {
                let zero = std::fs::read_to_string(log.join("00000000000000000000.json")).expect("version 0");
                let metadata = zero.lines().find(|line| line.contains("\"metaData\"")).expect("metadata");
                let interval = "\"delta.checkpointInterval\"";
                let changed = metadata.replace(interval, &format!("{property}{interval}"));
                std::fs::write(log.join("00000000000000000001.json"), changed).expect("written");
            }
            Ok(Some(ConditionalWrite { batch: batch(&[row("a", 1, "NO")]), transactions: Vec::new() }))
        });
        assert_eq!(decided.expect("appended"), Some(2));
        assert_eq!((before[0].len(), before[1].len(), files().len()), (0, 1, 1));
        assert_eq!(files() == before[1], property.is_empty(), "{property}");
        assert_eq!(all(&table), [row("a", 1, "NO")]);
    }
}

/// A listing that is extended by the commits since says the same as a new one.
#[test]
fn a_handle_that_scanned_before_sees_what_a_new_one_sees() {
    for spec in [spec(), plain_spec()] {
        let dir = tempfile::tempdir().expect("directory");
        let ours = Table::open_or_create(&storage(&dir), &spec).expect("created");
        let open = || Table::open(&storage(&dir), "events").expect("opened");
        // Each handle always scans by the same predicate.
        let (theirs, reader) = (open(), open());
        for at in 0..60_usize {
            let writer = if at % 4 == 0 { &ours } else { &theirs };
            match at % 13 {
                5 => _ = flip(writer, &|name| name.ends_with(['1', '4'])).expect("flipped"),
                9 => _ = flip(&ours, &|name| name.ends_with('7')).expect("flipped"),
                11 => assert_eq!(writer.maintain(Retention::hours(1.0).expect("hours")).problems, Vec::<String>::new()),
                _ => _ = writer.append(&batch(&[row(format!("{at:02}"), at as i64, "NO")])).expect("appended"),
            }
            for (table, predicate) in [(&ours, equals("flag", "NO")), (&reader, Predicate::default())] {
                let (seen, expected) = (table.scan(&predicate).expect("scan"), open().scan(&predicate).expect("scan"));
                assert_eq!(seen, expected, "step {at}, in the same order too");
            }
        }
    }
}

/// A reader among writers sees whole commits: the two rows of each commit together or not at all.
#[test]
fn readers_see_whole_commits() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    together(|number| {
        for at in 0..EACH {
            if number % 2 == 0 {
                table
                    .append(&batch(&[row(format!("{number}-{at}"), 1, "NO"), row(format!("{number}-{at}"), 2, "YES")]))
                    .expect("appended");
            } else {
                let seen = all(&table);
                assert_eq!(seen.len() % 2, 0);
                assert_eq!(seen.iter().map(|row| &row.0).collect::<BTreeSet<_>>().len() * 2, seen.len());
            }
        }
    });
}
