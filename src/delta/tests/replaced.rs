//! Tables that are deleted, created again or restored under a live handle.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use delta_kernel::committer::{CommitMetadata, CommitResponse, Committer, FileSystemCommitter, PublishMetadata};
use delta_kernel::{Engine, FilteredEngineData, KernelResult, KernelResultIterator};
use futures::TryStreamExt as _;
use object_store::memory::InMemory;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use url::Url;

use super::super::state::TimeLimits;
use super::*;
use crate::runtime::environment::wait_for;
use crate::storage::tests::fault_injecting::{Fault, FaultInjectingStore, FaultPlan};

fn open(dir: &tempfile::TempDir) -> Table {
    Table::open_or_create(&storage(dir), &spec()).expect("opened")
}

fn append(table: &Table, name: &str) -> Result<u64> {
    table.append(&batch(&[row(name, 1, "NO")]))
}

/// The names in the log, sorted.
fn entries(dir: &tempfile::TempDir) -> Vec<String> {
    let log = dir.path().join("events/_delta_log");
    let Ok(files) = fs::read_dir(log) else { return Vec::new() };
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".json") && !name.starts_with('.'));
    names.sort();
    names
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A commit to a table that was replaced writes nothing, and the next one is right.
fn check_that_a_commit_is_refused_once(dir: &tempfile::TempDir, table: &Table, expected: &[&str]) {
    let before = entries(dir);
    let refused = append(table, "refused").unwrap_err();
    assert_eq!((refused.kind(), refused.is_retryable()), (ErrorKind::Conflict, true), "{refused}");
    assert!(refused.to_string().contains("Nothing was written"), "{refused}");
    assert_eq!(entries(dir), before);
    append(table, "later").unwrap();
    let names = |rows: Vec<Row>| rows.into_iter().map(|row| row.0.unwrap()).collect::<Vec<_>>();
    assert_eq!(names(all(table)), names(all(&open(dir))));
    assert_eq!(names(all(table)), expected);
}

#[test]
fn a_table_that_was_deleted_gets_no_entry_alone() {
    let dir = tempfile::tempdir().unwrap();
    let table = open(&dir);
    for _ in 0..5 {
        append(&table, "old").unwrap();
    }
    fs::remove_dir_all(dir.path().join("events")).unwrap();
    let refused = append(&table, "refused").unwrap_err();
    assert_eq!((refused.kind(), refused.is_retryable()), (ErrorKind::Conflict, true), "{refused}");
    assert!(table.is_gone() && entries(&dir).is_empty());
    assert_eq!(table.scan(&Predicate::default()).unwrap_err().kind(), ErrorKind::NotFound);
    append(&open(&dir), "new").unwrap();
    assert_eq!(all(&open(&dir)), [row("new", 1, "NO")]);
}

#[test]
fn a_table_that_was_created_again_is_opened_anew() {
    for versions in [0, 2, 5, 9] {
        let dir = tempfile::tempdir().unwrap();
        let table = open(&dir);
        for _ in 0..5 {
            append(&table, "old").unwrap();
        }
        fs::remove_dir_all(dir.path().join("events")).unwrap();
        let other = open(&dir);
        for _ in 0..versions {
            append(&other, "other").unwrap();
        }
        let mut expected = vec!["later"];
        expected.resize(1 + versions, "other");
        check_that_a_commit_is_refused_once(&dir, &table, &expected);
    }
}

#[test]
fn a_table_that_was_restored_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (place, backup) = (dir.path().join("events"), dir.path().join("backup"));
    let table = open(&dir);
    append(&table, "before").unwrap();
    copy(&place, &backup);
    append(&table, "after").unwrap();
    append(&table, "after").unwrap();
    fs::remove_dir_all(&place).unwrap();
    copy(&backup, &place);
    check_that_a_commit_is_refused_once(&dir, &table, &["before", "later"]);
}

/// There, what the look after the commit finds is only logged.
#[test]
fn a_table_of_a_remote_store_is_looked_at_before_each_commit() {
    for is_created_again in [false, true] {
        let memory = Arc::new(InMemory::new());
        // Handles of different processes.
        let storage = || Storage::over(Arc::clone(&memory) as _, Url::parse("memory:///ledger/").unwrap()).unwrap();
        let open = || Table::open_or_create(&storage(), &spec()).unwrap();
        let paths = || -> Vec<_> {
            let listed = memory.list(None).map_ok(|object| object.location).try_collect();
            wait_for(listed).unwrap()
        };
        let writer = open();
        append(&writer, "old").unwrap();
        append(&writer, "old").unwrap();
        // It has made no commit, so that no look after one can find anything.
        let table = open();
        for path in paths() {
            wait_for(memory.delete(&path)).unwrap();
        }
        if is_created_again {
            let other = open();
            append(&other, "other").unwrap();
            append(&other, "other").unwrap();
        }
        let entries = || paths().into_iter().filter(|path| path.as_ref().ends_with(".json")).count();
        let before = entries();
        let refused = append(&table, "refused").unwrap_err();
        assert_eq!((refused.kind(), refused.is_retryable()), (ErrorKind::Conflict, true), "{refused}");
        assert_eq!(entries(), before);
        if is_created_again {
            append(&table, "later").unwrap();
            assert_eq!(all(&open()), ["later", "other", "other"].map(|name| row(name, 1, "NO")));
        }
    }
}

/// Stores can answer so of an object that is there.
#[test]
fn an_answer_that_the_entry_before_is_missing_proves_nothing() {
    let plan = FaultPlan::random(0, 0, &[Fault::NotFound]);
    let store = FaultInjectingStore::new(Arc::new(InMemory::new()), plan.clone());
    let storage = Storage::over(Arc::new(store), Url::parse("memory:///ledger/").unwrap()).unwrap();
    let table = Table::open_or_create(&storage, &spec()).unwrap();
    append(&table, "a").unwrap();
    plan.set_percent(100);
    assert_eq!(append(&table, "b").unwrap(), 2);
    plan.set_percent(0);
    assert_eq!(all(&table), [row("a", 1, "NO"), row("b", 1, "NO")]);
}

/// The log is the same then, but data files that were written meanwhile are not in it.
#[test]
fn a_backup_of_the_newest_version_is_another_table() {
    let dir = tempfile::tempdir().unwrap();
    let (place, backup) = (dir.path().join("events"), dir.path().join("backup"));
    let table = open(&dir);
    append(&table, "before").unwrap();
    copy(&place, &backup);
    fs::remove_dir_all(&place).unwrap();
    fs::rename(&backup, &place).unwrap();
    check_that_a_commit_is_refused_once(&dir, &table, &["before", "later"]);
    // Between the look and the commit, also of a commit that is not blind.
    for acknowledges in [false, true] {
        let (place, replacement) = (dir.path().join("events"), dir.path().join("replacement"));
        let committer = Arc::new(Replacing { place: place.clone(), replacement, armed: Mutex::new(false) });
        let limits = TimeLimits { on_errors: std::time::Duration::from_secs(5), on_races: None };
        let table = Table::open_with(&storage(&dir), "events", Arc::clone(&committer) as _, limits).unwrap();
        append(&table, "kept").unwrap();
        copy(&place, &dir.path().join("replacement"));
        *committer.armed.lock().unwrap() = true;
        let ended = if acknowledges { flip(&table, &|_| true).map(drop) } else { append(&table, "at risk").map(drop) };
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Conflict);
        let rows = all(&open(&dir));
        assert!(
            rows.iter().all(|row| row.2.as_deref() == Some("NO")) && !rows.contains(&self::row("at risk", 1, "NO"))
        );
        fs::remove_dir_all(dir.path().join("replacement")).unwrap();
    }
}

#[test]
fn reading_and_conditional_commits_follow_the_table_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let table = open(&dir);
    for _ in 0..3 {
        append(&table, "old").unwrap();
    }
    assert_eq!(all(&table).len(), 3);
    fs::remove_dir_all(dir.path().join("events")).unwrap();
    let other = open(&dir);
    for _ in 0..3 {
        append(&other, "new").unwrap();
    }
    assert_eq!(all(&table), vec![row("new", 1, "NO"); 3]);
    let mut seen = Vec::new();
    table
        .append_conditionally(&mut |view| {
            seen.push((view.incarnation(), view.version()));
            Ok(Some(ConditionalWrite { batch: batch(&[row("mine", 2, "NO")]), transactions: Vec::new() }))
        })
        .unwrap();
    assert_eq!((seen, all(&other).len()), (vec![(1, 3)], 4));
}

/// Replaces the table right before the log entry is created.
struct Replacing {
    place: PathBuf,
    /// What is there then; nothing if it is empty.
    replacement: PathBuf,
    armed: Mutex<bool>,
}

impl Committer for Replacing {
    fn commit(
        &self,
        engine: &dyn Engine,
        actions: KernelResultIterator<'_, FilteredEngineData>,
        metadata: CommitMetadata,
    ) -> KernelResult<CommitResponse> {
        if std::mem::take(&mut *self.armed.lock().unwrap()) {
            fs::remove_dir_all(&self.place).unwrap();
            if self.replacement.exists() {
                copy(&self.replacement, &self.place);
            }
        }
        FileSystemCommitter::new().commit(engine, actions, metadata)
    }

    fn is_catalog_committer(&self) -> bool {
        false
    }

    fn publish(&self, _: &dyn Engine, _: PublishMetadata) -> KernelResult<()> {
        Ok(())
    }
}

#[test]
fn what_happens_between_the_look_and_the_commit_is_found_after_it() {
    for replaced_by in [None, Some(1), Some(3), Some(4)] {
        let dir = tempfile::tempdir().unwrap();
        let (place, replacement) = (dir.path().join("events"), dir.path().join("replacement"));
        if let Some(versions) = replaced_by {
            let other = open(&dir);
            for _ in 0..versions {
                append(&other, "other").unwrap();
            }
            fs::rename(&place, &replacement).unwrap();
        }
        open(&dir);
        let committer = Arc::new(Replacing { place, replacement, armed: Mutex::new(false) });
        let limits = TimeLimits { on_errors: std::time::Duration::from_secs(5), on_races: None };
        let table = Table::open_with(&storage(&dir), "events", Arc::clone(&committer) as _, limits).unwrap();
        for _ in 0..3 {
            append(&table, "old").unwrap();
        }
        *committer.armed.lock().unwrap() = true;
        let ended = append(&table, "at risk");
        match replaced_by {
            // No entry is left alone behind a gap, or without the files of its rows.
            None | Some(1 | 3) => {
                assert_eq!(ended.unwrap_err().kind(), ErrorKind::Conflict);
                let expected: Vec<String> =
                    (0..replaced_by.map_or(0, |versions| versions + 1)).map(|at| format!("{at:020}.json")).collect();
                assert_eq!(entries(&dir), expected);
            }
            // The version was taken, and the new table was read before the next attempt.
            Some(_) => assert!(all(&table).contains(&row("at risk", 1, "NO"))),
        }
        if replaced_by.is_some() {
            append(&table, "later").unwrap();
            assert!(all(&open(&dir)).contains(&row("later", 1, "NO")));
        }
    }
}
