//! Group commit: callers that log at the same moment share a commit, and an error reaches only its caller.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use delta_kernel::committer::{CommitMetadata, CommitResponse, Committer, FileSystemCommitter, PublishMetadata};
use delta_kernel::{Engine, FilteredEngineData, KernelError, KernelResult, KernelResultIterator};

use super::super::state::TimeLimits;
use super::*;
use crate::runtime;

/// Counts commits, waits a moment in each so that others gather, and fails those that come while `broken` is set.
#[derive(Default)]
struct Slow {
    commits: AtomicUsize,
    broken: AtomicBool,
}

struct Shared(Arc<Slow>);

impl Committer for Shared {
    fn commit(
        &self,
        engine: &dyn Engine,
        actions: KernelResultIterator<'_, FilteredEngineData>,
        metadata: CommitMetadata,
    ) -> KernelResult<CommitResponse> {
        self.0.commits.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(5));
        if self.0.broken.load(Ordering::SeqCst) {
            return Err(KernelError::from(std::io::Error::other("the connection broke")));
        }
        FileSystemCommitter::new().commit(engine, actions, metadata)
    }

    fn is_catalog_committer(&self) -> bool {
        false
    }

    fn publish(&self, engine: &dyn Engine, metadata: PublishMetadata) -> KernelResult<()> {
        FileSystemCommitter::new().publish(engine, metadata)
    }
}

fn slow(dir: &tempfile::TempDir) -> (Table, Arc<Slow>) {
    let slow = Arc::new(Slow::default());
    Table::open_or_create(&storage(dir), &spec()).expect("created");
    let limits = TimeLimits { on_errors: Duration::from_millis(20), on_races: None };
    let table = Table::open_with(&storage(dir), "events", Arc::new(Shared(Arc::clone(&slow))), limits).expect("opened");
    (table, slow)
}

fn names(table: &Table) -> Vec<String> {
    all(table).into_iter().filter_map(|row| row.0).collect()
}

/// What each of `count` threads gets back when all append one row at once.
fn at_once(table: &Table, count: usize, prefix: &str) -> Vec<Result<u64>> {
    let barrier = Barrier::new(count);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    table.append(&batch(&[row(format!("{prefix}{number:03}"), number as i64, "NO")]))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("joined")).collect()
    })
}

#[test]
fn threads_that_append_at_once_share_commits() {
    let dir = tempfile::tempdir().expect("directory");
    let (table, slow) = slow(&dir);
    let versions: Vec<u64> = at_once(&table, 64, "t").into_iter().map(|version| version.expect("appended")).collect();
    let commits = slow.commits.load(Ordering::SeqCst);
    assert!(commits < 32, "{commits} commits for 64 rows");
    assert_eq!(*versions.iter().max().expect("versions") as usize, commits);
    assert_eq!(names(&table), (0..64).map(|number| format!("t{number:03}")).collect::<Vec<_>>());
}

#[test]
fn a_failed_commit_is_reported_to_exactly_its_callers() {
    let dir = tempfile::tempdir().expect("directory");
    let (table, slow) = slow(&dir);
    slow.broken.store(true, Ordering::SeqCst);
    for outcome in at_once(&table, 16, "lost") {
        let error = outcome.expect_err("the store is broken");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, true));
        assert!(error.to_string().contains("nothing was written"), "{error}");
    }
    assert_eq!(names(&table), Vec::<String>::new());
    slow.broken.store(false, Ordering::SeqCst);
    // While some fail, others do not: exactly the callers that got a version back have their row.
    let breaker = Arc::clone(&slow);
    let breaking = thread::spawn(move || {
        for _ in 0..6 {
            breaker.broken.fetch_xor(true, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(25));
        }
        breaker.broken.store(false, Ordering::SeqCst);
    });
    let mut expected = Vec::new();
    for round in 0..8 {
        let prefix = format!("r{round}-");
        for (number, outcome) in at_once(&table, 16, &prefix).into_iter().enumerate() {
            match outcome {
                Ok(_) => expected.push(format!("{prefix}{number:03}")),
                Err(error) => assert!(error.to_string().contains("nothing was written"), "{error}"),
            }
        }
    }
    breaking.join().expect("joined");
    assert_eq!(names(&table), expected);
}

#[test]
fn rows_that_do_not_fit_disturb_nobody_else() {
    let dir = tempfile::tempdir().expect("directory");
    let (table, _) = slow(&dir);
    let odd =
        RecordBatch::try_from_iter([("elsewhere", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]).expect("batch");
    let barrier = Barrier::new(16);
    thread::scope(|scope| {
        for number in 0..16 {
            let (table, odd, barrier) = (&table, &odd, &barrier);
            scope.spawn(move || {
                barrier.wait();
                if number % 4 == 0 {
                    assert_eq!(table.append(odd).expect_err("no such column").kind(), ErrorKind::InvalidInput);
                } else {
                    table.append(&batch(&[row(format!("{number:02}"), 1, "NO")])).expect("appended");
                }
            });
        }
    });
    assert_eq!(names(&table).len(), 12);
}

#[test]
fn tasks_share_commits_and_one_that_is_dropped_holds_nobody_up() {
    let dir = tempfile::tempdir().expect("directory");
    let (table, slow) = slow(&dir);
    let handle = runtime::handle().expect("runtime");
    let tasks: Vec<_> = (0..300)
        .map(|number| {
            let table = table.clone();
            handle.spawn(async move { table.append_async(&batch(&[row(format!("{number:03}"), 1, "NO")])).await })
        })
        .collect();
    for (number, task) in tasks.iter().enumerate() {
        if number % 10 == 0 {
            task.abort();
        }
    }
    let done = handle.block_on(futures::future::join_all(tasks));
    let kept: Vec<String> = done
        .iter()
        .enumerate()
        .filter_map(|(number, done)| done.as_ref().ok().map(|version| (number, version)))
        .map(|(number, version)| {
            assert!(version.is_ok());
            format!("{number:03}")
        })
        .collect();
    assert!(kept.len() >= 270);
    let there = names(&table);
    assert!(kept.iter().all(|name| there.contains(name)));
    assert_eq!(there.iter().collect::<std::collections::BTreeSet<_>>().len(), there.len(), "none twice");
    assert!(slow.commits.load(Ordering::SeqCst) < 150);
}

#[test]
fn more_than_the_queue_holds_goes_through_it_all_the_same() {
    let dir = tempfile::tempdir().expect("directory");
    let (table, _) = slow(&dir);
    let long = "x".repeat(1 << 20);
    thread::scope(|scope| {
        for number in 0..8 {
            let (table, long) = (&table, &long);
            scope.spawn(move || {
                let rows: Vec<Row> = (0..20).map(|at| row(format!("{number}-{at}-{long}"), at, "NO")).collect();
                table.append(&batch(&rows)).expect("appended");
            });
        }
    });
    assert_eq!(names(&table).len(), 160);
}
