//! Transaction ids, read all at once.

use std::collections::BTreeMap;

use super::*;

fn write(table: &Table, ids: &[(&str, i64)]) -> u64 {
    let transactions: Vec<(String, i64)> = ids.iter().map(|(app, version)| ((*app).to_owned(), *version)).collect();
    let mut guard = Some(ConditionalWrite { batch: batch(&[]), transactions });
    table
        .append_conditionally(&mut |_| Ok(guard.clone()))
        .map(|version| (guard.take(), version))
        .expect("commit")
        .1
        .expect("version")
}

/// All ids, and those that are new.
type VisibleIds = (BTreeMap<String, i64>, Option<Vec<(String, i64)>>);

/// What a handle sees: all ids, each by itself too, and what is new since `known`.
fn look(table: &Table, known: u64) -> VisibleIds {
    let mut seen = None;
    table
        .append_conditionally(&mut |view| {
            let all: BTreeMap<String, i64> = view.transactions()?.into_iter().collect();
            for (app, version) in &all {
                assert_eq!(view.transaction(app)?, Some(*version), "{app}");
            }
            seen = Some((all, view.transactions_since(known)?));
            Ok(None)
        })
        .expect("look");
    seen.expect("seen")
}

fn map(ids: &[(&str, i64)]) -> BTreeMap<String, i64> {
    ids.iter().map(|(app, version)| ((*app).to_owned(), *version)).collect()
}

#[test]
fn the_newest_of_each_id_counts_with_and_without_a_checkpoint() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &plain_spec()).expect("table");
    assert_eq!(look(&table, 0), (map(&[]), Some(Vec::new())));
    write(&table, &[("a", 1), ("b", -7)]);
    let known = write(&table, &[("a", 2)]);
    table.append(&batch(&[row("x", 1, "NO")])).expect("append");
    write(&table, &[("c", i64::MIN), ("a", 1)]); // ids need not grow
    let expected = map(&[("a", 1), ("b", -7), ("c", i64::MIN)]);
    let (all, news) = look(&table, known);
    assert_eq!(all, expected);
    assert_eq!(news.expect("news").into_iter().collect::<BTreeMap<_, _>>(), map(&[("a", 1), ("c", i64::MIN)]));
    let maintained = table.maintain(Retention::hours(168.0).expect("retention"));
    assert!(maintained.checkpoint.is_some(), "{maintained:?}");
    write(&table, &[("b", 8)]);
    let expected = map(&[("a", 1), ("b", 8), ("c", i64::MIN)]);
    for handle in [&table, &Table::open(&storage(&dir), "events").expect("open")] {
        assert_eq!(look(handle, 0).0, expected);
    }
}

#[test]
fn a_rewrite_writes_the_ids_that_permit_it() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &plain_spec()).expect("table");
    table.append(&batch(&[row("x", 1, "NO")])).expect("append");
    let mut remove = |rows: &RecordBatch| {
        Ok(Some(Rewrite { remove: BooleanArray::from(vec![true; rows.num_rows()]), add: rows.slice(0, 0) }))
    };
    let permit: CommitCheck<'_> = &|_| Ok(vec![("a".to_owned(), 7)]);
    assert_eq!(table.rewrite(&Predicate::default(), permit, &mut remove, &mut || {}).expect("rewritten"), 1);
    assert_eq!((look(&table, 0).0, all(&table)), (map(&[("a", 7)]), vec![]));
}

#[test]
fn what_is_new_is_not_known_over_many_commits_or_from_the_future() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &plain_spec()).expect("table");
    let mut last = 0;
    for version in 0..17 {
        last = write(&table, &[("a", version)]);
    }
    assert_eq!(look(&table, last - 16).1.expect("known").len(), 16);
    assert_eq!(look(&table, last - 17).1, None);
    assert_eq!(look(&table, last + 1).1, None);
}
