//! Errors at the worst moment, and a real kill.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use delta_kernel::committer::{CommitMetadata, CommitResponse, Committer, FileSystemCommitter, PublishMetadata};
use delta_kernel::{Engine, FilteredEngineData, KernelError, KernelResult, KernelResultIterator};
use proptest::prelude::*;

use super::super::state::TimeLimits;
use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// The entry is not written, and an error comes back.
    Before,
    /// The disk has no room for the entry.
    DiskFull,
    /// The entry is written, and an error comes back.
    After,
    /// The entry is written, and a conflict comes back, as when a store retries by itself.
    ConflictAfter,
    /// Another writer takes the version first, and an error comes back.
    StolenThenError,
}

/// Does to each commit what the next fault of the list says.
struct Faulty {
    faults: Mutex<Vec<Fault>>,
    thief: Table,
}

impl Committer for Faulty {
    fn commit(
        &self,
        engine: &dyn Engine,
        actions: KernelResultIterator<'_, FilteredEngineData>,
        metadata: CommitMetadata,
    ) -> KernelResult<CommitResponse> {
        let fault = self.faults.lock().expect("faults").pop().unwrap_or(Fault::None);
        let version = metadata.version();
        if fault == Fault::StolenThenError {
            self.thief.append(&batch(&[row("thief", version as i64, "NO")])).expect("stolen");
        }
        let broken = || Err(KernelError::from(std::io::Error::other("the connection broke")));
        let full = || Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull));
        match fault {
            Fault::DiskFull => Err(object_store::Error::Generic { store: "LocalFileSystem", source: full() }.into()),
            Fault::None => FileSystemCommitter::new().commit(engine, actions, metadata),
            Fault::Before | Fault::StolenThenError => broken(),
            Fault::After => FileSystemCommitter::new().commit(engine, actions, metadata).and_then(|_| broken()),
            Fault::ConflictAfter => FileSystemCommitter::new()
                .commit(engine, actions, metadata)
                .map(|_| CommitResponse::Conflict { version }),
        }
    }

    fn is_catalog_committer(&self) -> bool {
        false
    }

    fn publish(&self, engine: &dyn Engine, metadata: PublishMetadata) -> KernelResult<()> {
        FileSystemCommitter::new().publish(engine, metadata)
    }
}

fn faulty(dir: &tempfile::TempDir, mut faults: Vec<Fault>, patience: Duration) -> Table {
    let limits = TimeLimits { on_errors: patience, on_races: Some(patience) };
    faults.reverse();
    let thief = Table::open_or_create(&storage(dir), &spec()).expect("created");
    Table::open_with(&storage(dir), "events", Arc::new(Faulty { faults: Mutex::new(faults), thief }), limits)
        .expect("opened")
}

fn own(table: &Table) -> Vec<String> {
    all(table).into_iter().filter_map(|row| row.0).filter(|name| name != "thief").collect()
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::None),
        Just(Fault::Before),
        Just(Fault::After),
        Just(Fault::ConflictAfter),
        Just(Fault::StolenThenError)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_fails_each_row_is_there_exactly_once(faults in prop::collection::vec(fault(), 0..8)) {
        let dir = tempfile::tempdir().expect("directory");
        let table = faulty(&dir, faults, Duration::from_secs(60));
        table.append(&batch(&[row("a", 1, "NO")])).expect("appended");
        let mut decisions = 0;
        table.append_conditionally(&mut |view| {
            decisions += 1;
            let turn = view.transaction("cursor")?.unwrap_or(0) + 1;
            Ok(Some(ConditionalWrite { batch: batch(&[row(format!("b{decisions}"), turn, "NO")]), transactions: vec![("cursor".into(), turn)] }))
        }).expect("guarded");
        // What was decided last is what was committed: a caller may act on it.
        prop_assert_eq!(own(&table), vec!["a".to_owned(), format!("b{decisions}")]);
        prop_assert_eq!(flip(&table, &|name| name == "a").expect("flipped"), 1);
        prop_assert_eq!(own(&table), vec!["a".to_owned(), format!("b{decisions}")]);
        let yes = rows(&table.scan(&equals("flag", "YES")).expect("scan"));
        prop_assert_eq!(yes, vec![row("a", 1, "YES")]);
        let mut all_of = |rows: &RecordBatch| {
            Ok(Some(Rewrite { remove: BooleanArray::from(vec![true; rows.num_rows()]), add: rows.slice(0, 0) }))
        };
        let gone = table.rewrite(&equals("flag", "YES"), NO_CHECK, &mut all_of, &mut || {});
        prop_assert_eq!(gone.expect("removed"), 1, "removing alone leaves no file to know it by");
        prop_assert_eq!(own(&table), vec![format!("b{decisions}")]);
    }
}

#[test]
fn lost_races_end_with_a_retryable_conflict_that_names_the_winner() {
    let dir = tempfile::tempdir().expect("directory");
    let table = faulty(&dir, vec![Fault::StolenThenError; 1000], Duration::from_millis(50));
    let error = table.append(&batch(&[row("a", 1, "NO")])).expect_err("every race is lost");
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Conflict, true));
    let version = Table::open(&storage(&dir), "events").expect("opened").version();
    assert!(error.to_string().contains(&format!("version {version}")), "{error}");
    assert_eq!(own(&table), Vec::<String>::new());
}

#[test]
fn a_store_that_stays_broken_is_a_retryable_storage_error() {
    let dir = tempfile::tempdir().expect("directory");
    let table = faulty(&dir, vec![Fault::Before; 1000], Duration::from_millis(50));
    let error = table.append(&batch(&[row("a", 1, "NO")])).expect_err("the store is broken");
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, true));
    assert!(error.to_string().contains("nothing was written"), "{error}");
}

/// Waiting for space would block the caller, who can free some.
#[test]
fn a_full_disk_is_reported_at_once() {
    let dir = tempfile::tempdir().expect("directory");
    let table = faulty(&dir, vec![Fault::DiskFull], Duration::from_secs(3600));
    let error = table.append(&batch(&[row("a", 1, "NO")])).expect_err("the disk is full");
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, true));
    assert!(error.full_message().contains("nothing was written"), "{}", error.full_message());
    let files = || std::fs::read_dir(dir.path().join("events/flag=NO")).into_iter().flatten().count();
    assert_eq!(files(), 0, "the data file takes no room");
    table.append(&batch(&[row("a", 1, "NO")])).expect("there is room again");
    assert_eq!(files(), 1);
    assert_eq!(own(&table), ["a"]);
}

#[test]
fn a_failing_checkpoint_does_not_fail_the_append() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    // A directory where the checkpoint's file should be.
    std::fs::create_dir_all(dir.path().join("events/_delta_log/00000000000000000020.checkpoint.parquet/in the way"))
        .expect("obstacle");
    for at in 0..25 {
        table.append(&batch(&[row(format!("{at:02}"), at, "NO")])).expect("appended");
    }
    assert_eq!(all(&table).len(), 25);
}

/// Lets much time pass between a commit and its answer. Meanwhile, others clean the log up, if they `clean`.
struct Pausing {
    table: OnceLock<Table>,
    log: PathBuf,
    cleans: bool,
}

impl Committer for Pausing {
    fn commit(
        &self,
        engine: &dyn Engine,
        actions: KernelResultIterator<'_, FilteredEngineData>,
        metadata: CommitMetadata,
    ) -> KernelResult<CommitResponse> {
        let before = self.log.join(format!("{:020}.json", metadata.version() - 1));
        let response = FileSystemCommitter::new().commit(engine, actions, metadata);
        if self.cleans {
            std::fs::remove_file(before).expect("removed");
        }
        self.table.get().expect("opened").state.set_since_log_access(Duration::from_secs(2 * 3600));
        response
    }

    fn is_catalog_committer(&self) -> bool {
        false
    }

    fn publish(&self, engine: &dyn Engine, metadata: PublishMetadata) -> KernelResult<()> {
        FileSystemCommitter::new().publish(engine, metadata)
    }
}

/// The entry that a slow commit created can have taken the place of one that was cleaned away meanwhile.
#[test]
fn after_a_long_pause_a_commit_counts_only_if_the_entry_before_it_is_still_there() {
    for cleans in [false, true] {
        let dir = tempfile::tempdir().expect("directory");
        Table::open_or_create(&storage(&dir), &spec()).expect("created");
        let log = dir.path().join("events/_delta_log");
        let pausing = Arc::new(Pausing { table: OnceLock::new(), log, cleans });
        let limits = TimeLimits { on_errors: Duration::from_secs(60), on_races: None };
        let table = Table::open_with(&storage(&dir), "events", Arc::clone(&pausing) as _, limits).expect("opened");
        assert!(pausing.table.set(table.clone()).is_ok());
        match table.append(&batch(&[row("a", 1, "NO")])) {
            Ok(version) => assert_eq!((version, cleans), (1, false)),
            Err(error) => {
                assert!(cleans && error.is_outcome_unknown() && !error.is_retryable(), "{error}");
                assert!(error.to_string().contains("stopped for so long"), "{error}");
            }
        }
    }
}

const CHILD_ROOT: &str = "JOBROTA_TEST_APPENDING_CHILD";

/// Not a test of its own: what the child process of the next one does.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Ok(root) = std::env::var(CHILD_ROOT) else { return };
    let storage = Storage::open(&root, &std::collections::HashMap::new()).expect("storage");
    let table = Table::open_or_create(&storage, &spec()).expect("created");
    for at in 0.. {
        table.append(&batch(&[row(format!("{at:05}"), at, "NO")])).expect("appended");
        println!("acknowledged {at:05}");
    }
}

#[test]
fn every_acknowledged_row_survives_a_kill() {
    let dir = tempfile::tempdir().expect("directory");
    for round in 0..3 {
        let root = dir.path().join(round.to_string());
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "delta::tests::faults::child_that_appends_until_it_is_killed", "--nocapture"])
            .env(CHILD_ROOT, &root)
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let mut lines = BufReader::new(child.stdout.take().expect("output")).lines().map_while(std::result::Result::ok);
        let number = |line: String| line.split_once("acknowledged ").map(|(_, number)| number.to_owned());
        let mut acknowledged: Vec<String> = lines.by_ref().filter_map(number).take(15 + 7 * round).collect();
        child.kill().expect("killed");
        acknowledged.extend(lines.filter_map(number).filter(|number| number.len() == 5));
        child.wait().expect("ended");
        let storage = Storage::open(root.to_str().expect("utf-8"), &std::collections::HashMap::new()).expect("storage");
        let table = Table::open(&storage, "events").expect("opened");
        let there: Vec<String> = all(&table).into_iter().filter_map(|row| row.0).collect();
        assert!(there.len() - acknowledged.len() <= 1, "at most the append that was under way");
        assert_eq!(&there[..acknowledged.len()], &acknowledged[..]);
        table.append(&batch(&[row("after", 1, "NO")])).expect("the table can be written on");
    }
}
