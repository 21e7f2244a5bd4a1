//! Replacing the content of small tables, and reading new rows.

use super::*;

fn replaced(table: &Table, with: &[Row]) -> Vec<Row> {
    let mut before = Vec::new();
    table
        .replace(&mut |found| {
            before = rows(found);
            Ok(Some(ConditionalWrite { batch: batch(with), transactions: vec![("app".to_owned(), with.len() as i64)] }))
        })
        .unwrap();
    before
}

#[test]
fn replacing_takes_everything_and_leaves_what_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::open_or_create(&storage(&dir), &plain_spec()).unwrap();
    assert_eq!(replaced(&table, &[row("a", 1, "NO")]), []);
    table.append(&batch(&[row("b", 2, "NO")])).unwrap();
    assert_eq!(replaced(&table, &[row("c", 3, "NO")]), [row("a", 1, "NO"), row("b", 2, "NO")]);
    assert_eq!(all(&table), [row("c", 3, "NO")]);
    assert_eq!(replaced(&table, &[]), [row("c", 3, "NO")]);
    assert_eq!(all(&table), []);
    assert_eq!(table.read_snapshot(|view| view.transaction("app")).unwrap(), Some(0));
    let version = table.version();
    assert_eq!(table.replace(&mut |_| Ok(None)).unwrap(), None);
    assert_eq!(table.newest_version().unwrap(), version, "nothing was written");
}

#[test]
fn of_replacements_at_the_same_time_each_sees_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    Table::open_or_create(&storage(&dir), &plain_spec()).unwrap();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                // A handle of its own, as another process would have.
                let table = Table::open(&storage(&dir), plain_spec().name).unwrap();
                for _ in 0..10 {
                    table
                        .replace(&mut |found| {
                            let count = rows(found).first().map_or(0, |row| row.1.unwrap()) + 1;
                            Ok(Some(ConditionalWrite {
                                batch: batch(&[row("count", count, "NO")]),
                                transactions: Vec::new(),
                            }))
                        })
                        .unwrap();
                }
            });
        }
    });
    let table = Table::open(&storage(&dir), plain_spec().name).unwrap();
    assert_eq!(all(&table), [row("count", 40, "NO")]);
}

fn news(table: &Table, known: u64, except: &[u64]) -> Option<(Vec<Row>, u64)> {
    let found = table.appended_since(known, &|version| except.contains(&version)).unwrap();
    found.map(|(batch, version)| (rows(&batch), version))
}

#[test]
fn what_is_new_is_what_was_appended_since() {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::open_or_create(&storage(&dir), &plain_spec()).unwrap();
    for number in 1..=4 {
        table.append(&batch(&[row(format!("r{number}"), number, "NO")])).unwrap();
    }
    assert_eq!(news(&table, 4, &[]), Some((vec![], 4)));
    assert_eq!(news(&table, 2, &[]), Some((vec![row("r3", 3, "NO"), row("r4", 4, "NO")], 4)));
    assert_eq!(news(&table, 1, &[3]), Some((vec![row("r2", 2, "NO"), row("r4", 4, "NO")], 4)));
    assert_eq!(news(&table, 9, &[]), None, "a version that there is not");
    // Compacted files hold rows that are not new, and what was appended is read from the files that it was written to.
    table.maintain(Retention::hours(168.0).unwrap());
    let (found, version) = news(&table, 2, &[]).unwrap();
    assert_eq!(found, [row("r3", 3, "NO"), row("r4", 4, "NO")]);
    assert_eq!(version, table.newest_version().unwrap());
}

#[test]
fn nobody_knows_what_is_new_once_rows_were_taken_away_or_entries_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::open_or_create(&storage(&dir), &plain_spec()).unwrap();
    table.append(&batch(&[row("a", 1, "NO")])).unwrap();
    flip(&table, &|_| true).unwrap();
    assert_eq!(news(&table, 0, &[]), None);
    assert_eq!(news(&table, 2, &[]), Some((vec![], 2)));
    table.append(&batch(&[row("b", 1, "NO")])).unwrap();
    let entry = dir.path().join("events/_delta_log").join(format!("{:020}.json", 3));
    let text = std::fs::read(&entry).unwrap();
    std::fs::write(&entry, [text, b"{\"fromTheFuture\":{}}\n".to_vec()].concat()).unwrap();
    assert_eq!(news(&table, 2, &[]), None);
}

#[test]
fn of_partitioned_tables_nobody_knows_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::open_or_create(&storage(&dir), &spec()).unwrap();
    table.append(&batch(&[row("a", 1, "NO")])).unwrap();
    assert_eq!(news(&table, 0, &[]), None);
    assert_eq!(news(&table, 1, &[]), Some((vec![], 1)));
}
