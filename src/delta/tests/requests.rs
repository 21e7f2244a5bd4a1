//! What an operation costs on a remote store: requests, one after the other.

use std::time::{Duration, Instant};

use super::*;
use crate::storage::Requests;

/// The requests of `work`.
fn cost<T>(storage: &Storage, work: impl FnOnce() -> T) -> (Requests, T) {
    let before = storage.requests();
    let made = work();
    (storage.requests().since(&before), made)
}

fn table(storage: &Storage) -> Table {
    Table::open_or_create(storage, &spec()).expect("created")
}

#[test]
fn a_warm_append_is_one_put_of_the_rows_and_one_of_the_entry() {
    let dir = tempfile::tempdir().expect("directory");
    let storage = storage(&dir);
    let table = table(&storage);
    table.append(&batch(&[row("first", 0, "NO")])).expect("appended");
    // The checkpoint that falls due later is not the caller's: it is written in the background.
    for at in 2..=19 {
        let (requests, version) = cost(&storage, || table.append(&batch(&[row("x", at, "NO")])).expect("appended"));
        assert_eq!((requests, version), (Requests { put: 2, ..Requests::default() }, at as u64));
    }
}

#[test]
fn a_row_that_lost_no_race_costs_the_same_however_many_threads_there_are() {
    let dir = tempfile::tempdir().expect("directory");
    let storage = storage(&dir);
    let table = table(&storage);
    // Fewer appends than there are between checkpoints.
    let (requests, ()) = cost(&storage, || {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let table = &table;
                scope.spawn(move || table.append(&batch(&[row("x", thread, "NO")])).expect("appended"));
            }
        });
    });
    assert_eq!(all(&table).len(), 8);
    assert!(requests.put <= 16, "{requests:?}");
    assert_eq!(requests.total(), requests.put, "{requests:?}");
}

/// A table with `commits` acknowledged commits behind it and 100 pending rows, and what it costs another process to
/// fetch these.
fn fetch(commits: usize) -> Requests {
    let dir = tempfile::tempdir().expect("directory");
    let writer = storage(&dir);
    let table = table(&writer);
    let mut at = 0;
    let mut append = |rows: usize, flag: &str| {
        let rows: Vec<_> = (0..rows)
            .map(|_| {
                at += 1;
                row(format!("{at}"), at, flag)
            })
            .collect();
        table.append(&batch(&rows)).expect("appended");
    };
    for _ in 0..commits {
        append(1, "YES");
    }
    append(100, "NO");
    // The same number of entries above the last checkpoint for every length of history.
    while table.version() % 20 != 10 {
        append(1, "YES");
    }
    let due = table.version() / 20 * 20;
    let checkpointed = || {
        let hint = std::fs::read_to_string(dir.path().join("events/_delta_log/_last_checkpoint")).unwrap_or_default();
        hint.contains(&format!("\"version\":{due},"))
    };
    let begun = Instant::now();
    while !checkpointed() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no checkpoint of version {due}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let reader = storage(&dir);
    let opened = Table::open(&reader, "events").expect("opened");
    let (requests, found) = cost(&reader, || opened.scan(&equals("flag", "NO")).expect("scan"));
    assert_eq!(found.num_rows(), 100);
    requests
}

#[test]
fn fetching_what_is_pending_costs_the_same_requests_after_any_history() {
    let (short, long) = (fetch(50), fetch(500));
    assert_eq!(short, long);
    println!("fetching 100 pending rows: {long:?}");
}

#[test]
fn a_delay_is_waited_for_each_request_and_taken_out_of_the_options() {
    let dir = tempfile::tempdir().expect("directory");
    let options = HashMap::from([("request_delay".to_owned(), "0.03".to_owned())]);
    let storage = Storage::open(dir.path().to_str().expect("utf-8"), &options).expect("storage");
    let table = table(&storage);
    let begun = Instant::now();
    let (requests, _) = cost(&storage, || table.append(&batch(&[row("x", 1, "NO")])).expect("appended"));
    let took = begun.elapsed();
    assert_eq!(requests.total(), 2);
    assert!(took.as_millis() >= 60, "two requests, one after the other, took {took:?} only");
    let bad = HashMap::from([("request_delay".to_owned(), "slow".to_owned())]);
    let refused = Storage::open(dir.path().to_str().expect("utf-8"), &bad).expect_err("no number");
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

/// Prints the number of requests of the warm paths.
#[test]
fn acknowledging_and_refreshing_cost_by_what_is_pending() {
    let dir = tempfile::tempdir().expect("directory");
    let storage = storage(&dir);
    let table = table(&storage);
    for at in 0..5 {
        table.append(&batch(&[row(format!("{at}"), at, "NO")])).expect("appended");
    }
    let (one, found) = cost(&storage, || table.scan(&equals("name", "0")).expect("scan"));
    println!("scanning one of 5 files of a row each: {one:?}");
    assert_eq!(found.num_rows(), 1);
    let (flipped, count) = cost(&storage, || flip(&table, &|name| name == "2").expect("flipped"));
    println!("acknowledging one row of 5 pending files: {flipped:?}");
    assert_eq!((count, flipped.put), (1, 2), "{flipped:?}");
    let (unchanged, found) = cost(&storage, || table.scan(&equals("flag", "ABSENT")).expect("scan"));
    println!("refreshing, nothing new and nothing found: {unchanged:?}");
    assert_eq!(
        (found.num_rows(), unchanged.total(), unchanged.list),
        (0, unchanged.list + unchanged.get, 1),
        "{unchanged:?}"
    );
}

/// Far away, files of pending rows are small and come in one request each.
#[test]
fn a_remote_file_of_pending_rows_is_one_request() {
    let root = url::Url::parse("memory:///ledger/").expect("url");
    let memory = Arc::new(object_store::memory::InMemory::new());
    let writer = table(&Storage::over(Arc::clone(&memory) as _, root.clone()).expect("storage"));
    for at in 0..5 {
        writer.append(&batch(&[row(format!("{at}"), at, "NO")])).expect("appended");
    }
    // The writer looks at its log entries in the background.
    let storage = Storage::over(memory, root).expect("storage");
    let table = table(&storage);
    let (none, _) = cost(&storage, || table.scan(&equals("flag", "ABSENT")).expect("scan"));
    let (five, found) = cost(&storage, || table.scan(&equals("flag", "NO")).expect("scan"));
    assert_eq!((found.num_rows(), five.get - none.get), (5, 5), "{five:?}, {none:?} of it for the log");
    println!("fetching 5 pending files from a remote store: {five:?}");
}

#[test]
fn a_scan_reads_only_the_commits_since_the_one_before() {
    let dir = tempfile::tempdir().expect("directory");
    let (reader, writer) = (storage(&dir), storage(&dir));
    let (table, other) = (table(&reader), table(&writer));
    // Fewer commits than there are between checkpoints.
    for at in 0..15 {
        other.append(&batch(&[row(format!("{at:02}"), at, "NO")])).expect("appended");
    }
    let (first, found) = cost(&reader, || table.scan(&equals("flag", "NO")).expect("scan"));
    assert_eq!(found.num_rows(), 15);
    flip(&other, &|name| name < "05").expect("flipped");
    other.append(&batch(&[row("15", 15, "NO")])).expect("appended");
    let (second, found) = cost(&reader, || table.scan(&equals("flag", "NO")).expect("scan"));
    assert_eq!(found.num_rows(), 11);
    assert!(second.get < 10 && first.get > 30, "{second:?} after {first:?}");
    // The same version needs no entry at all.
    let (third, found) = cost(&reader, || table.scan(&equals("flag", "NO")).expect("scan"));
    assert_eq!((found.num_rows(), third.get), (11, 0), "{third:?}");
}

#[test]
fn what_was_read_once_is_not_read_again() {
    let dir = tempfile::tempdir().expect("directory");
    let storage = storage(&dir);
    let table = Table::open_or_create(&storage, &spec()).expect("created");
    for at in 0..30 {
        table.append(&batch(&[row(format!("{at:02}"), at, "NO")])).expect("appended");
    }
    crate::runtime::drain(Duration::from_secs(30));
    let gets = |work: &dyn Fn()| cost(&storage, work).0.get;
    let fetch = || assert_eq!(table.scan(&equals("flag", "NO")).expect("scan").num_rows(), 30);
    let (first, second) = (gets(&fetch), gets(&fetch));
    assert!(first >= second + 30, "{first} requests, then {second}");
    table.append(&batch(&[row("30", 30, "NO")])).expect("appended");
    let acknowledge = || assert_eq!(flip(&table, &|name| name < "30").expect("flipped"), 30);
    // Log entries only: each of the 30 files would be two requests and more.
    let acknowledging = gets(&acknowledge);
    assert!(acknowledging < 60, "{acknowledging} requests");
    let left = rows(&table.scan(&equals("flag", "NO")).expect("scan"));
    assert_eq!(left, vec![row("30", 30, "NO")]);
    assert_eq!(all(&table), all(&Table::open(&storage, "events").expect("opened")));
}
