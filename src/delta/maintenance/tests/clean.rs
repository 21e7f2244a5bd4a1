//! Which log entries go, and that readers and writers can continue without them.

use super::*;

/// A table with so many commits and checkpoints at multiples of 20, all so many hours old.
fn old(dir: &tempfile::TempDir, commits: u64, hours_old: u64) -> Table {
    let table = Table::open_or_create(&storage(dir), &spec()).expect("created");
    for number in 0..commits {
        table.append(&batch(&[row(format!("{number:03}"), 1, "NO")])).expect("appended");
        crate::runtime::drain(Duration::from_secs(60));
    }
    for name in files_in(&log(dir)) {
        age(&log(dir).join(name), hours_old);
    }
    table
}

fn log(dir: &tempfile::TempDir) -> PathBuf {
    events(dir).join("_delta_log")
}

fn cleaned(table: &Table, retain: f64) -> MaintenanceOutcome {
    let mut report = MaintenanceOutcome::default();
    crate::delta::maintenance::clean::clean(
        &table.state,
        hours(retain),
        chrono::Utc::now().timestamp_millis(),
        &mut report,
    )
    .expect("cleaned");
    report
}

#[test]
fn entries_below_the_newest_old_checkpoint_go() {
    let dir = tempfile::tempdir().expect("directory");
    let table = old(&dir, 65, 24 * 10);
    let known = Table::open(&storage(&dir), "events").expect("opened");
    // The table's own property says 7 days, which is longer than a day.
    let report = cleaned(&table, 24.0);
    assert!(report.notes.iter().any(|note| note.contains("168 hours")), "{:?}", report.notes);
    let left = files_in(&log(&dir));
    assert!(!left.contains("00000000000000000059.json") && !left.contains("00000000000000000040.checkpoint.parquet"));
    assert!(left.contains("00000000000000000060.json") && left.contains("00000000000000000060.checkpoint.parquet"));
    assert_eq!(report.log_entries_removed, 60 + 2);
    assert_eq!(cleaned(&table, 24.0).log_entries_removed, 0);
    // A handle from before, one from after, and writing with both.
    for handle in [&known, &table, &Table::open(&storage(&dir), "events").expect("opened")] {
        assert_eq!(handle.append(&batch(&[row("new", 1, "NO")])).expect("appended"), handle.version());
    }
    assert_eq!(all(&known).len(), 68);
}

/// Records how many log entries there are when the file system is synced.
#[derive(Debug)]
struct Synced(PathBuf, std::sync::Mutex<Vec<usize>>);

impl crate::storage::tests::Disk for Synced {
    fn sync_file_system(&self, _path: &Path) -> std::io::Result<()> {
        self.1.lock().expect("recorded").push(files_in(&self.0).len());
        Ok(())
    }
}

#[test]
fn the_checkpoint_is_synced_before_the_entries_below_it_go() {
    let dir = tempfile::tempdir().expect("directory");
    old(&dir, 45, 24 * 10);
    let disk = Arc::new(Synced(log(&dir), Default::default()));
    let files = Arc::new(object_store::local::LocalFileSystem::new());
    let store = crate::storage::tests::FsyncStore::with_disk(Arc::clone(&files) as _, files, Arc::clone(&disk) as _);
    let root = url::Url::from_directory_path(std::fs::canonicalize(dir.path()).expect("root")).expect("url");
    let storage = crate::storage::Storage::over(Arc::new(store), root).expect("storage");
    let before = files_in(&log(&dir)).len();
    assert!(cleaned(&Table::open(&storage, "events").expect("opened"), 0.0).log_entries_removed > 40);
    assert_eq!(*disk.1.lock().expect("recorded"), [before]);
}

#[test]
fn a_handle_of_a_version_that_is_gone_reads_and_writes_on() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    let (reader, writer, acknowledger) = {
        let open = || Table::open(&storage(&dir), "events").expect("opened");
        (open(), open(), open())
    };
    assert_eq!(writer.append(&batch(&[row("early", 1, "NO")])).expect("appended"), 1);
    drop(table);
    let table = old(&dir, 50, 24 * 10);
    assert!(cleaned(&table, 0.0).log_entries_removed > 40);
    assert_eq!(all(&reader).len(), 51);
    // Entries are cleaned away after an hour at the earliest, so that is how long these handles have been idle.
    for idle in [&writer, &acknowledger] {
        idle.state.set_since_log_access(Duration::from_secs(2 * 3600));
    }
    writer.append(&batch(&[row("late", 1, "NO")])).expect("appended");
    assert_eq!(flip(&acknowledger, &|name| name == "early" || name == "late").expect("flipped"), 2);
    assert_eq!(all(&Table::open(&storage(&dir), "events").expect("opened")).len(), 52);
    // Version 1 was cleaned away: no writer may have taken its place.
    assert!(!log(&dir).join("00000000000000000001.json").exists());
}

#[test]
fn nothing_goes_that_is_young_or_that_readers_start_from() {
    // Younger than an hour.
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    for number in 0..45 {
        table.append(&batch(&[row(format!("{number}"), 1, "NO")])).expect("appended");
    }
    crate::runtime::drain(Duration::from_secs(60));
    let before = files_in(&log(&dir));
    assert_eq!(cleaned(&table, 0.0).log_entries_removed, 0);
    assert_eq!(files_in(&log(&dir)), before);
    // Old, but one commit at the beginning is young: its version must stay readable, and so all from there on.
    let dir = tempfile::tempdir().expect("directory");
    let table = old(&dir, 45, 24 * 10);
    age(&log(&dir).join("00000000000000000010.json"), 0);
    assert_eq!(cleaned(&table, 0.0).log_entries_removed, 0);
    // Old, but the newest checkpoint is young: the one before it is the one to start from.
    age(&log(&dir).join("00000000000000000010.json"), 24 * 10);
    age(&log(&dir).join("00000000000000000040.checkpoint.parquet"), 2);
    cleaned(&table, 0.0);
    assert!(log(&dir).join("00000000000000000020.checkpoint.parquet").exists());
    assert!(log(&dir).join("00000000000000000020.json").exists());
    assert!(!log(&dir).join("00000000000000000019.json").exists());
    // Readers are sent to an older checkpoint than the newest.
    let dir = tempfile::tempdir().expect("directory");
    let table = old(&dir, 45, 24 * 10);
    std::fs::write(log(&dir).join("_last_checkpoint"), r#"{"version":20,"size":22}"#).expect("hint");
    cleaned(&table, 0.0);
    assert!(log(&dir).join("00000000000000000020.checkpoint.parquet").exists());
    assert_eq!(all(&Table::open(&storage(&dir), "events").expect("opened")).len(), 45);
}

#[test]
fn a_broken_checkpoint_or_a_gap_stops_the_clean_up() {
    let dir = tempfile::tempdir().expect("directory");
    let table = old(&dir, 45, 24 * 10);
    let checkpoint = log(&dir).join("00000000000000000040.checkpoint.parquet");
    let whole = std::fs::read(&checkpoint).expect("checkpoint");
    std::fs::write(&checkpoint, &whole[..whole.len() / 2]).expect("broken");
    age(&checkpoint, 24 * 10);
    let before = files_in(&log(&dir));
    let clean = |table: &Table| {
        let now = chrono::Utc::now().timestamp_millis();
        crate::delta::maintenance::clean::clean(&table.state, hours(0.0), now, &mut MaintenanceOutcome::default())
    };
    assert_eq!(clean(&table).expect_err("broken").kind(), ErrorKind::Storage);
    assert_eq!(files_in(&log(&dir)), before);
    std::fs::write(&checkpoint, &whole).expect("mended");
    age(&checkpoint, 24 * 10);
    // Sizes of files, which never change otherwise, are remembered by a storage.
    let table = Table::open(&storage(&dir), "events").expect("opened");
    let commit = log(&dir).join("00000000000000000042.json");
    let content = std::fs::read(&commit).expect("commit");
    std::fs::remove_file(&commit).expect("removed");
    assert_eq!(clean(&table).expect_err("a gap").kind(), ErrorKind::Storage);
    assert!(log(&dir).join("00000000000000000001.json").exists());
    std::fs::write(&commit, content).expect("mended");
    clean(&table).expect("cleaned");
    assert_eq!(all(&Table::open(&storage(&dir), "events").expect("opened")).len(), 45);
}

#[test]
fn all_kinds_of_entries_go_and_what_is_not_of_the_log_stays() {
    let dir = tempfile::tempdir().expect("directory");
    let table = old(&dir, 45, 24 * 10);
    let id = "8e5f4a3c-6b3a-4a8f-9d3e-000000000000";
    let sidecar = |name: &str| format!(r#"{{"sidecar":{{"path":"{name}","sizeInBytes":1,"modificationTime":1}}}}"#);
    let go = [
        ("00000000000000000010.crc".to_owned(), String::new()),
        ("00000000000000000003.00000000000000000009.compacted.json".to_owned(), String::new()),
        ("00000000000000000010.checkpoint.0000000001.0000000002.parquet".to_owned(), String::new()),
        (format!("00000000000000000010.checkpoint.{id}.json"), sidecar("old.parquet")),
        ("_sidecars/old.parquet".to_owned(), String::new()),
        ("00000000000000000044.json#1".to_owned(), String::new()),
        ("_last_checkpoint#12".to_owned(), String::new()),
        (".00000000000000000044.json.4711-0.tmp".to_owned(), String::new()),
    ];
    let stay = [
        (format!("00000000000000000042.checkpoint.{id}.json"), sidecar("needed.parquet")),
        ("_sidecars/needed.parquet".to_owned(), String::new()),
        ("_sidecars/readme.txt".to_owned(), String::new()),
        ("_commits/00000000000000000001.x.json".to_owned(), String::new()),
        ("00000000000000000030.00000000000000000044.compacted.json".to_owned(), String::new()),
        ("notes.json".to_owned(), String::new()),
        (".notes.json.tmp".to_owned(), String::new()),
        ("00000000000000000010.backup".to_owned(), String::new()),
    ];
    std::fs::create_dir_all(log(&dir).join("_sidecars")).expect("directory");
    std::fs::create_dir_all(log(&dir).join("_commits")).expect("directory");
    for (name, content) in go.iter().chain(&stay) {
        std::fs::write(log(&dir).join(name), content).expect("written");
        age(&log(&dir).join(name), if name.contains("42.checkpoint") { 0 } else { 24 * 10 });
    }
    // The handle was opened before, so it does not read what stops a new reader here.
    cleaned(&table, 0.0);
    let left = files_in(&log(&dir));
    for (name, _) in &go {
        assert!(!left.contains(name), "{name}");
    }
    for (name, _) in &stay {
        assert!(left.contains(name), "{name}");
    }
}

#[test]
fn a_table_that_forbids_the_clean_up_is_left_alone() {
    let dir = tempfile::tempdir().expect("directory");
    let table = old(&dir, 45, 24 * 10);
    let text = std::fs::read_to_string(log(&dir).join("00000000000000000000.json")).expect("log");
    let meta = text.lines().find(|line| line.contains("metaData")).expect("metadata");
    let off = "\"delta.enableExpiredLogCleanup\":\"false\",\"delta.checkpointInterval\"";
    let changed = meta.replace("\"delta.checkpointInterval\"", off);
    std::fs::write(log(&dir).join("00000000000000000046.json"), changed).expect("written");
    let report = cleaned(&table, 0.0);
    assert_eq!(report.log_entries_removed, 0);
    assert!(report.notes.iter().any(|note| note.contains("enableExpiredLogCleanup")), "{:?}", report.notes);
}
