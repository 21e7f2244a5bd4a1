mod state;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::{CursorKind, RoundRobinSelector, SelectorOptions};
use crate::error::{ErrorKind, Result};
use crate::inventory::{Inventory, Vm};
use crate::selection::cursor::{Cursor, now};
use crate::selection::schedule::{self, Candidate, Decision};
use crate::selection::schedule::{KnownResult, KnownResults};
use crate::selection::state::SelectionState;
use crate::selection::{Probe, ProbeOutcome, Selection};
use crate::storage::StorageOptions;

impl Selection {
    /// A selection of `vm`, as if a test had selected it.
    pub(crate) fn example(vm: &str) -> Self {
        Self { vm: vm.to_owned(), ip_address: vm.to_owned(), probe: "test".to_owned(), ..Self::default() }
    }
}

/// Long enough for a loaded machine; nothing here waits for it.
const PLENTY: Duration = Duration::from_secs(60);

/// VMs that are up but for those named in `down`.
#[derive(Default)]
struct Fleet {
    down: Mutex<HashSet<String>>,
    probes: AtomicUsize,
}

impl Fleet {
    fn set_down(&self, names: &[&str]) {
        *self.down.lock().unwrap() = names.iter().map(|name| (*name).to_owned()).collect();
    }
}

fn probe(fleet: &Arc<Fleet>) -> Probe {
    let fleet = fleet.clone();
    Probe::Callback(Arc::new(move |vm| {
        fleet.probes.fetch_add(1, Ordering::SeqCst);
        let down = fleet.down.lock().unwrap().contains(&vm.name);
        if down { Err("powered off".to_owned()) } else { Ok(Some((format!("ip-{}", vm.name), None))) }
    }))
}

fn options(fleet: &Arc<Fleet>, cursor: CursorKind) -> SelectorOptions {
    SelectorOptions { cursor, probe: probe(fleet), timeout: PLENTY, ..SelectorOptions::default() }
}

fn selector(names: &[&str], fleet: &Arc<Fleet>, cursor: CursorKind) -> RoundRobinSelector {
    RoundRobinSelector::new(Inventory::from_value(serde_json::json!(names)).unwrap(), options(fleet, cursor)).unwrap()
}

async fn next(selector: &RoundRobinSelector) -> String {
    selector.select(&[]).await.unwrap().vm
}

async fn several(selector: &RoundRobinSelector, n: usize) -> String {
    let mut names = Vec::new();
    for _ in 0..n {
        names.push(next(selector).await);
    }
    names.join(" ")
}

#[tokio::test]
async fn turns_go_round_and_the_selection_says_what_was_found() {
    let fleet = Arc::<Fleet>::default();
    let selector = selector(&["a", "b", "c"], &fleet, CursorKind::Process);
    let first = selector.select(&[]).await.unwrap();
    assert_eq!((first.vm.as_str(), first.ip_address.as_str(), first.probe.as_str()), ("a", "ip-a", "callable"));
    assert!(first.rtt_ms >= 0.0 && first.skipped.is_empty() && first.nic_name.is_none());
    assert_eq!(several(&selector, 5).await, "b c a b c");
    assert_eq!(selector.select(&["a".to_owned()]).await.unwrap().vm, "b");
    assert_eq!(several(&selector, 3).await, "a c b");
}

#[tokio::test]
async fn a_dead_vm_is_skipped_and_has_one_turn_when_it_is_back() {
    let fleet = Arc::<Fleet>::default();
    let selector = selector(&["a", "b", "c"], &fleet, CursorKind::Process);
    assert_eq!(several(&selector, 1).await, "a");
    fleet.set_down(&["b"]);
    let skipping = selector.select(&[]).await.unwrap();
    assert_eq!((skipping.vm.as_str(), skipping.skipped), ("c", vec![("b".to_owned(), "powered off".to_owned())]));
    assert_eq!(several(&selector, 5).await, "a c a c a");
    fleet.set_down(&[]);
    assert_eq!(several(&selector, 6).await, "b c a b c a");
}

#[tokio::test]
async fn no_answer_at_all_is_an_error_with_every_reason() {
    let fleet = Arc::<Fleet>::default();
    let selector = selector(&["a", "b"], &fleet, CursorKind::Process);
    fleet.set_down(&["a", "b"]);
    let error = selector.select(&[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoReachableVm);
    assert!(error.is_retryable());
    assert_eq!(error.to_string(), "No reachable VM found. a: powered off; b: powered off");
    assert_eq!(error.failures().len(), 2);
    fleet.set_down(&["a"]);
    let error = selector.select(&["b".to_owned()]).await.unwrap_err();
    let reasons: Vec<&str> = error.failures().iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(reasons, ["powered off", "excluded by the caller"]);
    let everyone = ["a".to_owned(), "b".to_owned()];
    assert_eq!(selector.select(&everyone).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(selector.select(&["z".to_owned()]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    // No VM lost its turn.
    fleet.set_down(&[]);
    assert_eq!(several(&selector, 2).await, "a b");
}

#[tokio::test]
async fn many_turns_are_taken_in_one_step() {
    let fleet = Arc::<Fleet>::default();
    let selector = selector(&["a", "b", "c", "d"], &fleet, CursorKind::Process);
    fleet.set_down(&["b"]);
    let turns = selector.select_many(5).await.unwrap();
    let names: Vec<&str> = turns.iter().map(|turn| turn.vm.as_str()).collect();
    assert_eq!(names, ["a", "c", "d", "a", "c"]);
    assert!(turns[0].skipped.is_empty());
    assert!(turns[1..].iter().all(|turn| turn.skipped.len() == 1));
    assert_eq!(next(&selector).await, "d");
    assert!(selector.select_many(0).await.unwrap().is_empty());
    assert_eq!(selector.select_many(100_001).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn health_is_remembered_but_never_given_up_on_from_memory() {
    let fleet = Arc::<Fleet>::default();
    let inventory = Inventory::from_value(serde_json::json!(["a", "b"])).unwrap();
    let options = SelectorOptions { health_ttl: PLENTY, ..options(&fleet, CursorKind::Process) };
    let selector = RoundRobinSelector::new(inventory, options).unwrap();
    assert_eq!(several(&selector, 4).await, "a b a b");
    assert_eq!(fleet.probes.load(Ordering::SeqCst), 2);
    selector.report("a", false).await.unwrap();
    let skipping = selector.select(&[]).await.unwrap();
    assert_eq!((skipping.vm.as_str(), skipping.skipped[0].0.as_str()), ("b", "a"));
    selector.report("b", false).await.unwrap();
    assert_eq!(next(&selector).await, "a"); // both are remembered as down: probed again, and up
    selector.report("a", true).await.unwrap();
    assert_eq!(selector.report("z", true).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_check_probes_everyone_and_takes_no_turn() {
    let fleet = Arc::<Fleet>::default();
    let selector = selector(&["a", "b"], &fleet, CursorKind::Process);
    fleet.set_down(&["b"]);
    let rows = selector.check().await.unwrap();
    assert_eq!((rows[0].vm.as_str(), rows[0].reachable, rows[0].probe.as_deref()), ("a", true, Some("callable")));
    assert_eq!(rows[0].ip_address.as_deref(), Some("ip-a"));
    assert_eq!((rows[1].vm.as_str(), rows[1].reachable, rows[1].reason.as_deref()), ("b", false, Some("powered off")));
    assert_eq!((rows[1].ip_address.as_deref(), rows[1].rtt_ms), (None, None));
    assert!(selector.distribution(None).await.unwrap().iter().all(|row| row.selections == 0 && row.share == 0.0));
    assert_eq!(next(&selector).await, "a");
}

#[tokio::test]
async fn the_distribution_counts_turns() {
    let fleet = Arc::<Fleet>::default();
    let selector = selector(&["a", "b"], &fleet, CursorKind::Process);
    let before = chrono::Utc::now() - chrono::TimeDelta::milliseconds(1);
    several(&selector, 3).await;
    for since in [None, Some(before)] {
        let rows = selector.distribution(since).await.unwrap();
        assert_eq!((rows[0].selections, rows[1].selections), (2, 1));
        assert!((rows[0].share - 2.0 / 3.0).abs() < 1e-9 && rows[0].last_selected >= Some(before));
    }
    let rows = selector.distribution(Some(chrono::DateTime::<chrono::Utc>::MAX_UTC)).await.unwrap();
    assert_eq!((rows[0].selections, rows[0].last_selected), (0, None));
}

#[test]
fn options_that_cannot_work_are_refused() {
    let one = || Inventory::from_value(serde_json::json!(["a"])).unwrap();
    let default = SelectorOptions::default;
    let seconds = Duration::from_secs;
    let refused = [
        SelectorOptions { timeout: Duration::ZERO, ..default() },
        SelectorOptions { timeout: seconds(3_601), ..default() },
        SelectorOptions { rise: 0, ..default() },
        SelectorOptions { fall: 0, ..default() },
        SelectorOptions { fall: 1_001, ..default() },
        SelectorOptions { max_in_flight: Some(0), ..default() },
        SelectorOptions { max_in_flight: Some(1_001), ..default() },
        SelectorOptions { hold_ttl: Duration::from_millis(999), ..default() },
    ];
    for (number, options) in refused.into_iter().enumerate() {
        let error = RoundRobinSelector::new(one(), options).expect_err(&format!("number {number}"));
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "number {number}");
    }
}

#[tokio::test]
async fn a_random_start_goes_round_all_the_same() {
    let fleet = Arc::<Fleet>::default();
    let mut firsts = HashSet::new();
    for _ in 0..64 {
        let options = SelectorOptions { random_start: true, ..options(&fleet, CursorKind::Process) };
        let selector =
            RoundRobinSelector::new(Inventory::from_value(serde_json::json!(["a", "b", "c"])).unwrap(), options)
                .unwrap();
        let round = several(&selector, 4).await;
        assert!(["a b c a", "b c a b", "c a b c"].contains(&round.as_str()), "{round}");
        firsts.insert(round);
    }
    assert!(firsts.len() > 1); // misses with probability 3^-63
}

/// One selection in the property test: by list 0 or 1, of so many turns, while some are down.
#[derive(Debug, Clone)]
struct Step {
    lists: Vec<Vec<u8>>,
    list: usize,
    turns: usize,
    down: HashSet<u8>,
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let list = || {
        Just((0u8..6).collect::<Vec<u8>>())
            .prop_shuffle()
            .prop_flat_map(|all| (1..=all.len()).prop_map(move |n| all[..n].to_vec()))
    };
    let step = (prop::collection::vec(list(), 2), 0..2usize, 1..5usize, prop::collection::hash_set(0u8..6, 0..4))
        .prop_map(|(lists, list, turns, down)| Step { lists, list, turns, down });
    prop::collection::vec(step, 1..most)
}

/// What each step selects, by a model that knows no tickets: a line in which everyone who had a turn goes to the end.
fn model(steps: &[Step]) -> Vec<Vec<String>> {
    let mut line: Vec<u8> = Vec::new(); // who was ever selected, longest ago first
    let mut turn = |list: &[u8], down: &HashSet<u8>| {
        let never = list.iter().find(|vm| !line.contains(vm) && !down.contains(vm)).copied();
        let chosen = never.or_else(|| line.iter().find(|vm| list.contains(vm) && !down.contains(vm)).copied())?;
        line.retain(|vm| *vm != chosen);
        line.push(chosen);
        Some(chosen.to_string())
    };
    steps
        .iter()
        .map(|step| (0..step.turns).filter_map(|_| turn(&step.lists[step.list], &step.down)).collect())
        .collect()
}

async fn replay(cursor: &[Cursor], steps: &[Step]) -> Result<Vec<Vec<String>>> {
    let mut taken = Vec::new();
    for step in steps {
        let list: Vec<Candidate> = step.lists[step.list].iter().map(|vm| (vm.to_string(), 1)).collect();
        let known: KnownResults = list
            .iter()
            .map(|(name, _)| {
                let outcome = ProbeOutcome {
                    kind: "test".to_owned(),
                    rtt: Duration::ZERO,
                    ip_address: name.clone(),
                    nic_name: None,
                };
                let down = step.down.iter().any(|vm| vm.to_string() == *name);
                let result = if down { Err("down".to_owned()) } else { Ok(outcome) };
                (name.clone(), KnownResult { result, fresh: true })
            })
            .collect();
        let (n, rules) = (step.turns, SelectorOptions::default().rules()?);
        let decide = move |state: &SelectionState| schedule::take(&list, &rules, &known, n, state, now());
        let turns = match cursor[step.list % cursor.len()].advance(decide).await? {
            Decision::Taken(turns, _) => turns,
            _ => Vec::new(),
        };
        taken.push(turns.into_iter().map(|turn: Selection| turn.vm).collect());
    }
    Ok(taken)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #[test]
    fn the_order_rule_holds_in_one_process(steps in steps(30)) {
        let taken = runtime().block_on(replay(&[Cursor::Process(Arc::default())], &steps)).unwrap();
        prop_assert_eq!(taken, model(&steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_order_rule_holds_for_two_lists_that_share_a_cursor(steps in steps(16)) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        let handle = || Cursor::shared(root, &StorageOptions::default()).unwrap();
        let taken = runtime().block_on(replay(&[handle(), handle()], &steps)).unwrap();
        prop_assert_eq!(taken, model(&steps));
    }
}

#[tokio::test]
async fn a_selector_started_anew_goes_on_with_the_next_vm() {
    let dir = tempfile::tempdir().unwrap();
    let shared = || CursorKind::Shared(dir.path().to_str().unwrap().to_owned());
    let fleet = Arc::<Fleet>::default();
    let mut taken = Vec::new();
    for _ in 0..7 {
        taken.push(next(&selector(&["a", "b", "c"], &fleet, shared())).await);
    }
    assert_eq!(taken.join(" "), "a b c a b c a");
    // An edited list: who is new has never been selected.
    assert_eq!(several(&selector(&["c", "d", "b", "a"], &fleet, shared()), 5).await, "d b c a d");
    let turns = selector(&["c", "d", "b", "a"], &fleet, shared()).select_many(6).await.unwrap();
    assert_eq!(turns.iter().map(|turn| turn.vm.as_str()).collect::<Vec<_>>(), ["b", "c", "a", "d", "b", "c"]);
    let rows = selector(&["a", "b", "c", "d"], &fleet, shared()).distribution(None).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.selections).collect::<Vec<_>>(), [5, 5, 5, 3]);
    assert!(rows.iter().all(|row| row.last_selected.is_some()));
}

#[tokio::test]
async fn a_shared_cursor_that_nobody_used_is_empty_and_is_not_created_by_looking() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Arc::<Fleet>::default();
    let selector = selector(&["a"], &fleet, CursorKind::Shared(dir.path().to_str().unwrap().to_owned()));
    assert_eq!(selector.distribution(None).await.unwrap()[0].selections, 0);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn handles_that_race_for_a_shared_cursor_are_fair() {
    const HANDLES: usize = 4;
    const TURNS: usize = 15;
    let dir = tempfile::tempdir().unwrap();
    let fleet = Arc::<Fleet>::default();
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    fleet.set_down(&["c"]);
    std::thread::scope(|scope| {
        for _ in 0..HANDLES {
            let handle = selector(&names, &fleet, CursorKind::Shared(dir.path().to_str().unwrap().to_owned()));
            scope.spawn(move || runtime().block_on(several(&handle, TURNS)));
        }
    });
    let reader = selector(&names, &fleet, CursorKind::Shared(dir.path().to_str().unwrap().to_owned()));
    let rows = runtime().block_on(reader.distribution(None)).unwrap();
    let up: Vec<u64> = rows.iter().filter(|row| row.vm != "c").map(|row| row.selections).collect();
    assert_eq!(up.iter().sum::<u64>(), (HANDLES * TURNS) as u64);
    assert!(up.iter().max().unwrap() - up.iter().min().unwrap() <= 1, "{up:?}");
    assert_eq!(rows[2].selections, 0);
}
