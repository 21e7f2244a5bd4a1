//! Whatever the store does to single requests: rows whose call returned are there once, rows of calls that wrote nothing
//! are not, and nothing is there twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use delta_kernel::committer::FileSystemCommitter;
use object_store::memory::InMemory;
use proptest::prelude::*;
use url::Url;

use super::*;
use crate::delta::state::TimeLimits;
use crate::error::Error;
use crate::storage::tests::fault_injecting::{Fault, FaultInjectingStore, FaultPlan};

const ALL: [Fault; 6] = [Fault::Before, Fault::After, Fault::Late, Fault::OwnConflict, Fault::NotFound, Fault::Slow];

/// What may have become of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Promise {
    There,
    NotThere,
    Unknown,
}

fn promise<T>(ended: &Result<T>) -> Promise {
    match ended {
        Ok(_) => Promise::There,
        Err(error) if error.is_retryable() || error.to_string().contains("nothing was written") => Promise::NotThere,
        Err(_) => Promise::Unknown,
    }
}

struct World {
    memory: Arc<InMemory>,
    faulty: Arc<FaultInjectingStore>,
    plan: FaultPlan,
    patience: Duration,
}

fn root() -> Url {
    Url::parse("memory:///ledger/").expect("url")
}

impl World {
    fn new(plan: FaultPlan, patience: Duration) -> Self {
        let memory = Arc::new(InMemory::new());
        let faulty = Arc::new(FaultInjectingStore::new(Arc::clone(&memory) as _, plan.clone()));
        let world = Self { memory, faulty, plan, patience };
        Table::open_or_create(&world.calm(), &spec()).expect("created");
        world
    }

    /// The store without its faults.
    fn calm(&self) -> Storage {
        Storage::over(Arc::clone(&self.memory) as _, root()).expect("storage")
    }

    /// A handle on the table, over the faulty store; opening is tried until it succeeds.
    fn table(&self) -> Table {
        let storage = Storage::over(Arc::clone(&self.faulty) as _, root()).expect("storage");
        let limits = TimeLimits { on_errors: self.patience, on_races: None };
        loop {
            match Table::open_with(&storage, "events", Arc::new(FileSystemCommitter::new()), limits) {
                Ok(table) => return table,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Storage, "{}", error.full_message()),
            }
        }
    }

    /// Every row, after all writes have arrived.
    fn rows(&self) -> Vec<Row> {
        let calm = self.calm();
        let faulty = Arc::clone(&self.faulty);
        calm.block_on(async move { faulty.send_late_writes().await }).expect("arrived");
        let table = Table::open(&calm, "events").expect("the table opens");
        let found = all(&table);
        table.append(&batch(&[row("last", 0, "YES")])).expect("the table can be written on");
        found
    }
}

fn check(promises: &[(String, Promise, String)], found: &[Row]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in found {
        *counts.entry(row.0.as_deref().unwrap_or_default()).or_default() += 1;
    }
    for (name, promise, said) in promises {
        let count = counts.remove(name.as_str()).unwrap_or(0);
        let kept = match promise {
            Promise::There => count == 1,
            Promise::NotThere => count == 0,
            Promise::Unknown => count <= 1,
        };
        assert!(kept, "{name} is there {count} times, promised was {promise:?}: {said}");
    }
    assert!(counts.is_empty(), "rows that no caller wrote: {counts:?}");
}

fn said<T>(ended: &Result<T>) -> String {
    ended.as_ref().err().map_or_else(|| "Ok".to_owned(), Error::full_message)
}

fn guarded(table: &Table, name: &str) -> Result<Option<u64>> {
    table.append_conditionally(&mut |view| {
        let turn = view.transaction("cursor")?.unwrap_or(0) + 1;
        Ok(Some(ConditionalWrite {
            batch: batch(&[row(name, turn, "NO")]),
            transactions: vec![("cursor".into(), turn)],
        }))
    })
}

/// Appends, guarded appends and acknowledgements over a store of which `percent` requests fail.
fn some_work(seed: u64, percent: u32, kinds: &[Fault], patience: Duration) {
    let world = World::new(FaultPlan::random(seed, percent, kinds), patience);
    let table = world.table();
    let mut promises = Vec::new();
    let mut flags: BTreeMap<String, Promise> = BTreeMap::new();
    for at in 0..12 {
        let name = format!("row-{at:02}");
        let ended = match at % 3 {
            0 => table.append(&batch(&[row(&name, at, "NO")])).map(drop),
            1 => guarded(&table, &name).map(drop),
            _ => {
                let acknowledged = format!("row-{:02}", at - 1);
                let ended = flip(&table, &|name| name == acknowledged);
                // A row whose append is in doubt may arrive after the acknowledgement, which then found nothing.
                let is_there = promises.last().is_some_and(|(_, promise, _)| *promise == Promise::There);
                assert!(!is_there || !matches!(ended, Ok(0)), "{acknowledged} was not found");
                let flag = if matches!(ended, Ok(0)) { Promise::NotThere } else { promise(&ended) };
                flags.insert(acknowledged, flag);
                continue;
            }
        };
        promises.push((name, promise(&ended), said(&ended)));
    }
    world.plan.set_percent(0);
    let found = world.rows();
    check(&promises, &found);
    for (name, promise) in flags {
        let Some(row) = found.iter().find(|row| row.0.as_deref() == Some(&name)) else { continue };
        match promise {
            Promise::There => assert_eq!(row.2.as_deref(), Some("YES"), "{name}"),
            Promise::NotThere => assert_eq!(row.2.as_deref(), Some("NO"), "{name}"),
            Promise::Unknown => {}
        }
    }
    let mut turns: Vec<_> = found.iter().filter_map(|row| row.0.as_deref()).filter(|name| name.len() == 6).collect();
    turns.dedup();
    assert_eq!(turns.len(), found.len(), "seed {seed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// With time to try again, and hardly any time.
    #[test]
    fn whatever_the_store_does_to_requests_no_row_is_lost_or_doubled(
        seed in any::<u64>(),
        percent in 1..40_u32,
        kinds in proptest::sample::subsequence(ALL.to_vec(), 1..=ALL.len()),
        patience in prop_oneof![Just(Duration::from_millis(5)), Just(Duration::from_secs(60))],
    ) {
        some_work(seed, percent, &kinds, patience);
    }

    #[test]
    fn the_entry_itself_may_fail_in_any_way(
        faults in proptest::collection::vec(proptest::sample::select(ALL.to_vec()), 1..6),
        patience in prop_oneof![Just(Duration::from_millis(5)), Just(Duration::from_secs(60))],
    ) {
        let world = World::new(FaultPlan::none(), patience);
        let table = world.table();
        let mut promises = Vec::new();
        for name in ["a", "b", "c"] {
            world.plan.next_commits(&faults);
            let ended = if name == "b" { guarded(&table, name).map(drop) } else { table.append(&batch(&[row(name, 1, "NO")])).map(drop) };
            promises.push((name.to_owned(), promise(&ended), said(&ended)));
        }
        world.plan.next_commits(&faults);
        _ = flip(&table, &|_| true);
        world.plan.next_commits(&[]);
        check(&promises, &world.rows());
    }
}

/// The answer is lost, and then the entry cannot be read.
#[test]
fn a_commit_whose_entry_cannot_be_read_is_in_doubt() {
    let world = World::new(FaultPlan::random(0, 0, &[Fault::Before]), Duration::from_millis(20));
    let table = world.table();
    let ended = table.append_conditionally(&mut |_| {
        world.plan.next_commits(&[Fault::After]);
        world.plan.set_percent(100);
        // Without rows, the entry is all that is written.
        Ok(Some(ConditionalWrite { batch: batch(&[]), transactions: vec![("cursor".into(), 1)] }))
    });
    let error = ended.expect_err("in doubt");
    assert!(error.is_outcome_unknown() && !error.is_retryable(), "{}", error.full_message());
    world.plan.set_percent(0);
    assert_eq!(table.read_snapshot(|view| view.transaction("cursor")).expect("read"), Some(1));
}

/// Of several threads, each with rows of its own, some share a handle and some have their own.
#[test]
fn threads_over_a_failing_store_lose_and_double_nothing() {
    for seed in 0..6 {
        println!("seed {seed}");
        let world = World::new(FaultPlan::random(seed, 8, &ALL), Duration::from_secs(60));
        let shared = world.table();
        let promises: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|thread| {
                    let table = if thread % 2 == 0 { shared.clone() } else { world.table() };
                    scope.spawn(move || {
                        let mut promises = Vec::new();
                        for at in 0..6 {
                            let name = format!("t{thread}-{at}");
                            let ended = match thread {
                                5 => {
                                    _ = flip(&table, &|name| name.starts_with("t0"));
                                    continue;
                                }
                                4 => guarded(&table, &name).map(drop),
                                _ => table.append(&batch(&[row(&name, at, "NO")])).map(drop),
                            };
                            promises.push((name, promise(&ended), said(&ended)));
                        }
                        promises
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        world.plan.set_percent(0);
        check(&promises, &world.rows());
    }
}

/// A write whose answer is lost, and which arrives only after the caller was told: it may not have been called off.
#[test]
fn a_write_that_may_still_arrive_is_not_said_to_be_unwritten() {
    let world = World::new(FaultPlan::none(), Duration::from_millis(5));
    let table = world.table();
    world.plan.next_commits(&[Fault::Late; 1000]);
    let ended = table.append(&batch(&[row("late", 1, "NO")]));
    assert!(ended.is_err(), "nothing ever arrived while the call was waiting");
    world.plan.next_commits(&[]);
    check(&[("late".to_owned(), promise(&ended), said(&ended))], &world.rows());
}

/// A store can miss an object for a moment.
#[test]
fn a_single_look_that_misses_the_entry_before_stops_no_commit() {
    let world = World::new(FaultPlan::random(0, 0, &[Fault::NotFound]), Duration::from_secs(60));
    let table = world.table();
    table.append(&batch(&[row("a", 1, "NO")])).expect("appended");
    world.plan.set_percent(100);
    table.append(&batch(&[row("b", 1, "NO")])).expect("the log lists the entry");
    world.plan.set_percent(0);
    assert_eq!(world.rows(), [row("a", 1, "NO"), row("b", 1, "NO")]);
}
