//! The state that selectors share besides the turns: drained, health, in use.

use super::*;

fn shared(dir: &tempfile::TempDir) -> CursorKind {
    CursorKind::Shared(dir.path().to_str().unwrap().to_owned())
}

fn with(fleet: &Arc<Fleet>, cursor: CursorKind, change: impl FnOnce(&mut SelectorOptions)) -> RoundRobinSelector {
    let mut options = options(fleet, cursor);
    change(&mut options);
    RoundRobinSelector::new(Inventory::from_value(serde_json::json!(["a", "b", "c"])).unwrap(), options).unwrap()
}

async fn skipped(selector: &RoundRobinSelector) -> (String, Vec<(String, String)>) {
    let selection = selector.select(&[]).await.unwrap();
    (selection.vm, selection.skipped)
}

#[tokio::test]
async fn a_drained_vm_is_out_for_everyone_until_it_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Arc::<Fleet>::default();
    let here = selector(&["a", "b", "c"], &fleet, shared(&dir));
    let there = selector(&["c", "b", "a"], &fleet, shared(&dir));
    assert_eq!(next(&there).await, "c");
    here.drain("b").await.unwrap();
    here.drain("b").await.unwrap();
    assert_eq!(several(&there, 3).await, "a c a");
    let state = there.state().await.unwrap();
    assert_eq!(state.iter().map(|row| row.drained).collect::<Vec<_>>(), [false, true, false]);
    let probes = fleet.probes.load(Ordering::SeqCst);
    assert_eq!(there.select_many(2).await.unwrap().len(), 2);
    assert_eq!(fleet.probes.load(Ordering::SeqCst) - probes, 2); // a drained VM is not even probed
    let only = selector(&["b"], &fleet, shared(&dir)).select(&[]).await.unwrap_err();
    assert_eq!((only.kind(), only.is_retryable()), (ErrorKind::NoReachableVm, true));
    assert!(only.failures()[0].1.starts_with("drained"), "{only}");
    there.restore("b").await.unwrap();
    assert_eq!(several(&here, 4).await, "b c a b"); // one turn for the one that was away, not three
    assert_eq!(here.drain("z").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(here.restore("z").await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn in_one_process_vms_are_drained_as_well() {
    let fleet = Arc::<Fleet>::default();
    let selector = selector(&["a", "b", "c"], &fleet, CursorKind::Process);
    selector.drain("a").await.unwrap();
    assert_eq!(several(&selector, 3).await, "b c b");
    selector.restore("a").await.unwrap();
    assert_eq!(several(&selector, 2).await, "a c");
}

#[tokio::test]
async fn looking_at_an_unused_shared_cursor_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Arc::<Fleet>::default();
    let rows = selector(&["a"], &fleet, shared(&dir)).state().await.unwrap();
    assert_eq!((rows[0].drained, rows[0].healthy, rows[0].in_flight, rows[0].weight), (false, None, 0, 1));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn weights_are_kept_across_handles() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Arc::<Fleet>::default();
    let weighted = || {
        let vm = |name: &str, weight| Vm { weight, ..Vm::named(name) };
        let inventory = Inventory::new(vec![vm("a", 5), vm("b", 1), vm("c", 1)]).unwrap();
        RoundRobinSelector::new(inventory, options(&fleet, shared(&dir))).unwrap()
    };
    let mut taken = Vec::new();
    for _ in 0..7 {
        taken.push(next(&weighted()).await);
    }
    assert_eq!(taken.join(""), "aabacaa");
    let many = weighted().select_many(14).await.unwrap();
    assert_eq!(many.iter().map(|turn| turn.vm.as_str()).collect::<String>(), "aabacaaaabacaa");
    // A list without weights that shares the cursor goes by who was selected longest ago, as ever.
    assert_eq!(several(&selector(&["a", "b", "c"], &fleet, shared(&dir)), 3).await, "b c a");
}

#[tokio::test]
async fn a_vm_that_failed_is_selected_again_after_rise_answers() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Arc::<Fleet>::default();
    // Each selection by a selector of its own: what counts is shared.
    let anew = || with(&fleet, shared(&dir), |options| (options.rise, options.fall) = (2, 2));
    fleet.set_down(&["a"]);
    assert_eq!(skipped(&anew()).await, ("b".into(), vec![("a".into(), "powered off".into())]));
    fleet.set_down(&[]);
    assert_eq!(next(&anew()).await, "a"); // one failure is not enough to count as down
    fleet.set_down(&["c"]);
    assert_eq!(next(&anew()).await, "b");
    assert_eq!(next(&anew()).await, "a");
    fleet.set_down(&[]);
    assert_eq!(anew().state().await.unwrap()[2].healthy, Some(false));
    let (vm, why) = skipped(&anew()).await;
    assert_eq!((vm.as_str(), why[0].0.as_str()), ("b", "c"));
    assert!(why[0].1.contains("1 more answer"), "{why:?}");
    assert_eq!(next(&anew()).await, "c");
    assert_eq!(anew().state().await.unwrap()[2].healthy, Some(true));
}

#[tokio::test]
async fn reports_and_checks_count_like_probes() {
    let fleet = Arc::<Fleet>::default();
    let selector = with(&fleet, CursorKind::Process, |options| {
        (options.rise, options.fall, options.health_ttl) = (2, 3, PLENTY);
    });
    assert_eq!(several(&selector, 3).await, "a b c");
    selector.report("a", false).await.unwrap();
    selector.report("a", false).await.unwrap();
    assert_eq!(next(&selector).await, "a"); // two of three, and remembered to have answered
    selector.report("b", false).await.unwrap();
    selector.report("b", false).await.unwrap();
    selector.report("b", false).await.unwrap();
    assert_eq!(several(&selector, 2).await, "c a");
    assert_eq!(selector.state().await.unwrap()[1].healthy, Some(false));
    selector.check().await.unwrap();
    assert_eq!(next(&selector).await, "c");
    selector.check().await.unwrap();
    assert_eq!(selector.state().await.unwrap()[1].healthy, Some(true));
    assert_eq!(next(&selector).await, "b");
}

#[tokio::test]
async fn when_no_vm_can_be_selected_what_was_seen_still_counts() {
    let fleet = Arc::<Fleet>::default();
    let selector = with(&fleet, CursorKind::Process, |options| options.rise = 2);
    fleet.set_down(&["a", "b", "c"]);
    assert_eq!(selector.select(&[]).await.unwrap_err().kind(), ErrorKind::NoReachableVm);
    fleet.set_down(&[]);
    let error = selector.select(&[]).await.unwrap_err();
    assert!(error.failures().iter().all(|(_, reason)| reason.contains("answers again")), "{error}");
    assert_eq!(next(&selector).await, "a");
}

#[tokio::test]
async fn a_vm_has_no_more_in_flight_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Arc::<Fleet>::default();
    let limited = || with(&fleet, shared(&dir), |options| options.max_in_flight = Some(1));
    let (here, there) = (limited(), limited());
    let first = here.select(&[]).await.unwrap();
    let second = there.select(&[]).await.unwrap();
    let third = here.select(&[]).await.unwrap();
    assert_eq!([first.vm.as_str(), second.vm.as_str(), third.vm.as_str()], ["a", "b", "c"]);
    let error = there.select(&[]).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::NoReachableVm, true));
    assert!(error.failures().iter().all(|(_, reason)| reason.contains("1 of 1")), "{error}");
    assert_eq!(here.state().await.unwrap().iter().map(|row| row.in_flight).sum::<u32>(), 3);
    let hold = second.hold.clone().unwrap();
    hold.release().await.unwrap();
    hold.release().await.unwrap();
    let again = here.select(&[]).await.unwrap();
    assert_eq!(again.vm, "b");
    assert_eq!(again.skipped, [("a".to_owned(), "1 of 1 selections in flight".to_owned())]);
    drop(second); // another selection has its slot by now
    assert_eq!(there.state().await.unwrap()[1].in_flight, 1);
    assert_eq!(there.select_many(1).await.unwrap_err().kind(), ErrorKind::NoReachableVm);
    // Without the limit, no VM is probed.
    let unlimited = selector(&["a", "b", "c"], &fleet, shared(&dir));
    assert!(unlimited.select(&[]).await.unwrap().hold.is_none());
}

#[tokio::test]
async fn many_turns_with_slots_are_all_or_none() {
    let fleet = Arc::<Fleet>::default();
    let selector = with(&fleet, CursorKind::Process, |options| options.max_in_flight = Some(2));
    assert_eq!(selector.select_many(7).await.unwrap_err().kind(), ErrorKind::NoReachableVm);
    assert!(selector.state().await.unwrap().iter().all(|row| row.in_flight == 0));
    let turns = selector.select_many(6).await.unwrap();
    assert_eq!(turns.iter().map(|turn| turn.vm.as_str()).collect::<String>(), "abcabc");
    assert!(selector.state().await.unwrap().iter().all(|row| row.in_flight == 2));
    for turn in &turns {
        turn.hold.as_ref().unwrap().release().await.unwrap();
    }
    assert!(selector.state().await.unwrap().iter().all(|row| row.in_flight == 0));
}

#[test]
fn a_dropped_selection_gives_its_vm_back() {
    let fleet = Arc::<Fleet>::default();
    let selector = with(&fleet, CursorKind::Process, |options| options.max_in_flight = Some(1));
    let runtime = crate::runtime::handle().unwrap();
    drop(runtime.block_on(selector.select_many(3)).unwrap());
    // The drain at exit waits for it, and so can we.
    assert!(crate::runtime::drain(PLENTY));
    assert!(runtime.block_on(selector.state()).unwrap().iter().all(|row| row.in_flight == 0));
}

#[test]
fn a_live_holder_keeps_its_vm_and_a_dead_one_loses_it() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Arc::<Fleet>::default();
    let anew = || {
        with(&fleet, shared(&dir), |options| {
            (options.max_in_flight, options.hold_ttl) = (Some(1), Duration::from_secs(1));
        })
    };
    let runtime = crate::runtime::handle().unwrap();
    let live = runtime.block_on(anew().select(&[])).unwrap();
    // Of a process that died, only the number in the table is left.
    let dead = Cursor::shared(dir.path().to_str().unwrap(), &StorageOptions::default()).unwrap();
    let died = runtime.block_on(dead.advance(|_: &SelectionState| {
        let until = now() + 1_000_000;
        let change = (crate::selection::state::StateKey::Hold("b".to_owned(), 0), until);
        (crate::selection::cursor::Step { turns: Vec::new(), changes: vec![change] }, until)
    }));
    let until = died.unwrap();
    let in_flight =
        || -> Vec<u32> { runtime.block_on(anew().state()).unwrap().iter().map(|row| row.in_flight).collect() };
    assert_eq!(in_flight(), [1, 1, 0]);
    while now() <= until + 500_000 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(in_flight(), [1, 0, 0]);
    runtime.block_on(live.hold.as_ref().unwrap().release()).unwrap();
    assert_eq!(in_flight(), [0, 0, 0]);
}
