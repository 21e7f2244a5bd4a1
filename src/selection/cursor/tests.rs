use super::ordered;
use super::process::ProcessCursor;
use crate::selection::Selection;

fn turn(vm: &str) -> Selection {
    Selection {
        vm: vm.to_owned(),
        ip_address: vm.to_owned(),
        nic_name: None,
        probe: "test".to_owned(),
        rtt_ms: 0.0,
        skipped: Vec::new(),
    }
}

#[test]
fn never_selected_comes_first_then_longest_ago_and_the_list_decides_among_equals() {
    let names = ["a", "b", "c", "d"].map(str::to_owned);
    let ticket = |name: &str| match name {
        "a" => Some(7),
        "c" => Some(3),
        _ => None,
    };
    assert_eq!(ordered(&names, ticket), ["b", "d", "c", "a"]);
}

#[test]
fn the_process_cursor_forgets_times_but_not_counts() {
    let cursor = ProcessCursor::default();
    let names = ["a".to_owned()];
    for _ in 0..100 {
        cursor.advance(&names, &mut |_: &[String]| Some(vec![turn("a"); 1_001])).unwrap();
    }
    assert_eq!(cursor.counts(None).unwrap()["a"].selections, 100_100);
    assert!(cursor.counts(Some(0)).unwrap_err().to_string().contains("100000"));
    assert!(cursor.counts(Some(i64::MAX)).unwrap().is_empty());
    assert!(cursor.advance(&names, &mut |_: &[String]| None).unwrap().is_none());
}
