//! Tables as their users see them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};

use super::*;
use crate::error::{ErrorKind, Result};
use crate::storage::Storage;

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("flag", DataType::Utf8, true),
    ]))
}

pub(super) fn spec() -> TableSpec {
    TableSpec { name: "events", schema: schema(), partition_by: &["flag"], log_retention: "interval 7 days" }
}

pub(super) fn plain_spec() -> TableSpec {
    TableSpec { partition_by: &[], ..spec() }
}

type Row = (Option<String>, Option<i64>, Option<String>);

pub(super) fn row(name: impl Into<String>, at: i64, flag: &str) -> Row {
    (Some(name.into()), Some(at), Some(flag.to_owned()))
}

pub(super) fn batch(rows: &[Row]) -> RecordBatch {
    let names: StringArray = rows.iter().map(|r| r.0.clone()).collect();
    let times: TimestampMicrosecondArray = rows.iter().map(|r| r.1).collect();
    let flags: StringArray = rows.iter().map(|r| r.2.clone()).collect();
    RecordBatch::try_new(
        schema(),
        vec![Arc::new(names) as ArrayRef, Arc::new(times.with_timezone("UTC")), Arc::new(flags)],
    )
    .expect("batch")
}

/// All rows, sorted.
pub(super) fn rows(batch: &RecordBatch) -> Vec<Row> {
    assert_eq!(batch.schema(), schema());
    let (names, times, flags) = (
        batch.column(0).as_string::<i32>(),
        batch.column(1).as_primitive::<TimestampMicrosecondType>(),
        batch.column(2).as_string::<i32>(),
    );
    let text = |column: &StringArray, at: usize| column.is_valid(at).then(|| column.value(at).to_owned());
    let mut rows: Vec<Row> = (0..batch.num_rows())
        .map(|at| (text(names, at), times.is_valid(at).then(|| times.value(at)), text(flags, at)))
        .collect();
    rows.sort();
    rows
}

pub(super) fn storage(dir: &tempfile::TempDir) -> Storage {
    Storage::open(dir.path().to_str().expect("utf-8"), &HashMap::new()).expect("storage")
}

pub(super) fn all(table: &Table) -> Vec<Row> {
    rows(&table.scan(&Predicate::default()).expect("scan"))
}

pub(super) fn equals(column: &str, text: &str) -> Predicate {
    Predicate { equals: vec![(column.to_owned(), text.to_owned())], time: None }
}

/// Sets the flag of every row with this name from NO to YES, as acknowledging does.
pub(super) fn flip(table: &Table, wanted: &dyn Fn(&str) -> bool) -> Result<u64> {
    table.rewrite(
        &equals("flag", "NO"),
        NO_CHECK,
        &mut |rows| {
            let names = rows.column(0).as_string::<i32>();
            let flags = rows.column(2).as_string::<i32>();
            let remove: BooleanArray = names
                .iter()
                .zip(flags.iter())
                .map(|(name, flag)| Some(flag == Some("NO") && wanted(name.unwrap_or(""))))
                .collect();
            let taken = arrow::compute::filter_record_batch(rows, &remove).expect("filter");
            let yes: ArrayRef = Arc::new(StringArray::from(vec!["YES"; taken.num_rows()]));
            let add = RecordBatch::try_new(rows.schema(), vec![taken.column(0).clone(), taken.column(1).clone(), yes])
                .expect("batch");
            Ok(Some(Rewrite { remove, add }))
        },
        &mut || {},
    )
}

#[test]
fn what_is_appended_is_scanned_and_other_handles_see_it() {
    let dir = tempfile::tempdir().expect("directory");
    let storage = storage(&dir);
    assert_eq!(Table::open(&storage, "events").expect_err("none yet").kind(), ErrorKind::NotFound);
    let table = Table::open_or_create(&storage, &spec()).expect("created");
    let other = Table::open(&storage, "events").expect("opened");
    assert_eq!(table.schema(), schema());
    assert_eq!(all(&table), vec![]);
    let written = vec![row("a", 1, "NO"), row("b", 2, "YES"), (None, None, None)];
    assert_eq!(table.append(&batch(&written)).expect("appended"), 1);
    let mut expected = written.clone();
    expected.sort();
    assert_eq!(all(&table), expected);
    assert_eq!(all(&other), expected);
    assert_eq!(table.append(&batch(&[])).expect("nothing"), 1);
    assert_eq!(rows(&table.scan(&equals("flag", "NO")).expect("scan")), vec![row("a", 1, "NO")]);
    assert_eq!(rows(&table.scan(&equals("name", "b")).expect("scan")), vec![row("b", 2, "YES")]);
    let time = Predicate { time: Some(("at".to_owned(), Some(2), Some(3))), ..Predicate::default() };
    assert_eq!(rows(&table.scan(&time).expect("scan")), vec![row("b", 2, "YES")]);
}

#[test]
fn what_is_no_file_in_place_of_the_next_log_entry_is_named_at_once() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    table.append(&batch(&[row("a", 1, "NO")])).expect("appended");
    let entry = dir.path().join("events/_delta_log/00000000000000000002.json");
    let link = |target: &str| std::os::unix::fs::symlink(target, &entry).expect("link");
    let pipe = || assert!(std::process::Command::new("mkfifo").arg(&entry).status().expect("mkfifo").success());
    let plant: [&dyn Fn(); 4] =
        [&|| std::fs::create_dir(&entry).expect("directory"), &pipe, &|| link("missing"), &|| {
            link("00000000000000000002.json")
        }];
    for plant in plant {
        plant();
        let error = table.append(&batch(&[row("b", 2, "NO")])).expect_err("the name is taken");
        assert_eq!(
            (error.kind(), error.is_retryable(), error.is_outcome_unknown()),
            (ErrorKind::Storage, false, false)
        );
        assert!(
            error.to_string().contains("nothing was written, because ")
                && error.to_string().contains("2.json is not a file")
        );
        std::fs::remove_dir(&entry).or_else(|_| std::fs::remove_file(&entry)).expect("removed");
    }
    table.append(&batch(&[row("c", 3, "NO")])).expect("appended");
    assert_eq!(all(&table), [row("a", 1, "NO"), row("c", 3, "NO")]);
}

#[test]
fn a_rewrite_moves_exactly_the_rows_it_decided_about() {
    for spec in [spec(), plain_spec()] {
        let dir = tempfile::tempdir().expect("directory");
        let table = Table::open_or_create(&storage(&dir), &spec).expect("created");
        for name in ["a", "b", "c"] {
            table.append(&batch(&[row(name, 1, "NO"), row(format!("{name}2"), 2, "YES")])).expect("appended");
        }
        assert_eq!(flip(&table, &|name| name == "b").expect("flipped"), 1);
        assert_eq!(rows(&table.scan(&equals("flag", "NO")).expect("scan")), vec![row("a", 1, "NO"), row("c", 1, "NO")]);
        assert_eq!(all(&table).len(), 6);
        let version = table.version();
        assert_eq!(flip(&table, &|name| name == "b").expect("nothing to do"), 0);
        assert_eq!(table.version(), version, "a rewrite that removes nothing commits nothing");
    }
}

#[test]
fn a_conditional_append_decides_on_transactions() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    for expected in 1..=3 {
        let version = table.append_conditionally(&mut |view| {
            let turn = view.transaction("cursor")?.unwrap_or(0) + 1;
            assert_eq!(view.scan(&Predicate::default())?.num_rows() as i64, turn - 1);
            Ok(Some(ConditionalWrite {
                batch: batch(&[row("x", turn, "NO")]),
                transactions: vec![("cursor".to_owned(), turn)],
            }))
        });
        assert_eq!(version.expect("appended"), Some(expected));
    }
    assert_eq!(table.append_conditionally(&mut |_| Ok(None)).expect("ended"), None);
    let bare = table.append_conditionally(&mut |_| {
        Ok(Some(ConditionalWrite { batch: batch(&[]), transactions: vec![("cursor".to_owned(), 9)] }))
    });
    assert_eq!(bare.expect("a transaction without rows"), Some(4));
    table
        .append_conditionally(&mut |view| {
            assert_eq!(view.transaction("cursor")?, Some(9));
            Ok(None)
        })
        .expect("looked");
}

/// As other Delta clients show it in the table's history.
#[test]
fn the_log_says_what_each_commit_did() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &plain_spec()).expect("created");
    for name in ["a", "b"] {
        table.append(&batch(&[row(name, 1, "NO")])).expect("appended");
    }
    flip(&table, &|name| name == "a").expect("flipped");
    assert_eq!(table.maintain(Retention::hours(1.0).expect("hours")).files_compacted, 2);
    let all = |rows: &RecordBatch| Ok(Some(ConditionalWrite { batch: rows.clone(), transactions: Vec::new() }));
    table.replace(&mut |rows| all(rows)).expect("replaced");
    let log = dir.path().join("events/_delta_log");
    let said = (1..=table.version()).map(|version| {
        let entry = std::fs::read_to_string(log.join(format!("{version:020}.json"))).expect("entry");
        let actions = entry.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("action"));
        let info = actions.into_iter().find_map(|mut action| action.get_mut("commitInfo").map(|info| info.take()));
        let info = info.expect("commitInfo");
        let parameters = info["operationParameters"].as_object().expect("parameters").iter();
        let parameters = parameters.filter(|(key, _)| *key != "commitId").map(|(key, value)| format!(" {key}={value}"));
        let parameters = parameters.collect::<std::collections::BTreeSet<_>>();
        format!("{}{}", info["operation"], parameters.into_iter().collect::<String>()).replace('"', "")
    });
    let append = "WRITE mode=Append";
    assert_eq!(
        said.collect::<Vec<_>>(),
        [
            append.to_owned(),
            append.to_owned(),
            "UPDATE predicate=`flag` = 'NO'".to_owned(),
            format!("OPTIMIZE predicate=[] targetSize={}", 64 << 20),
            "WRITE mode=Overwrite".to_owned(),
        ]
    );
}

mod faults;
mod groups;
mod power_cut;
mod races;
mod replaced;
mod requests;
mod small_tables;
mod store_faults;
mod transactions;
mod values;
