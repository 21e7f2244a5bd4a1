//! What goes in comes out: odd values, long logs, tables of others.

use std::collections::HashMap;

use arrow::array::Int64Array;
use proptest::prelude::*;

use std::time::Duration;

use super::*;

#[test]
fn metacharacters_are_stored_verbatim_in_values_and_in_partitions() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    let odd = [
        "a/b",
        "'; DROP TABLE x; --",
        "\"quoted\"",
        "50%",
        "a%20b",
        "a b",
        "ü日本",
        "=",
        "a=b/c=d",
        "..",
        "#?&",
        "\\",
        "{}^`",
        "line\nbreak",
        "$(id)",
        "*",
    ];
    for text in odd {
        table.append(&batch(&[row(text, 1, text)])).expect(text);
        assert_eq!(rows(&table.scan(&equals("flag", text)).expect(text)), vec![row(text, 1, text)]);
        assert_eq!(rows(&table.scan(&equals("name", text)).expect(text)), vec![row(text, 1, text)]);
    }
    assert_eq!(all(&table).len(), odd.len());
    // Files in oddly named partition directories can be rewritten, too.
    let moved = table.rewrite(
        &equals("flag", "a%20b"),
        NO_CHECK,
        &mut |rows| {
            Ok(Some(Rewrite { remove: BooleanArray::from(vec![true; rows.num_rows()]), add: rows.slice(0, 0) }))
        },
        &mut || {},
    );
    assert_eq!(moved.expect("removed"), 1);
    assert_eq!(all(&table).len(), odd.len() - 1);
}

#[test]
fn roots_with_odd_names_hold_tables_with_long_logs() {
    let dir = tempfile::tempdir().expect("directory");
    for name in ["with space", "a%20b", "100%", "ünï 日本", "q?x#y", "quote'\""] {
        let storage = Storage::open(dir.path().join(name).to_str().expect("utf-8"), &HashMap::new()).expect(name);
        let table = Table::open_or_create(&storage, &spec()).expect(name);
        for at in 0..22 {
            table.append(&batch(&[row("x", at, "NO")])).expect(name);
        }
        crate::runtime::drain(Duration::from_secs(30));
        assert!(dir.path().join(name).join("events/_delta_log/00000000000000000020.checkpoint.parquet").exists());
        assert_eq!(all(&Table::open(&storage, "events").expect(name)).len(), 22);
    }
}

#[test]
fn delta_knows_no_empty_partition_value() {
    let dir = tempfile::tempdir().expect("directory");
    let storage = storage(&dir);
    let table = Table::open_or_create(&storage, &spec()).expect("created");
    table.append(&batch(&[row("", 1, ""), (Some("b".into()), None, None)])).expect("appended");
    let entry = std::fs::read_to_string(dir.path().join("events/_delta_log/00000000000000000001.json")).expect("entry");
    assert_eq!(entry.matches("\"add\"").count(), 1, "the rows share a file");
    // The empty name is kept; the empty flag, a partition value, is NULL.
    assert_eq!(all(&table), vec![(Some(String::new()), Some(1), None), (Some("b".into()), None, None)]);
    assert_eq!(table.scan(&equals("flag", "")).expect("scan").num_rows(), 0);
    assert_eq!(table.scan(&equals("name", "")).expect("scan").num_rows(), 1);
}

#[test]
fn a_long_log_has_checkpoints_and_reads_the_same_through_them() {
    let dir = tempfile::tempdir().expect("directory");
    let storage = storage(&dir);
    let table = Table::open_or_create(&storage, &spec()).expect("created");
    for at in 0..105 {
        table.append(&batch(&[row(format!("r{at}"), at, if at % 2 == 0 { "NO" } else { "YES" })])).expect("appended");
    }
    table
        .append_conditionally(&mut |_| {
            Ok(Some(ConditionalWrite { batch: batch(&[]), transactions: vec![("app".into(), 7)] }))
        })
        .expect("guarded");
    assert_eq!(flip(&table, &|name| name == "r50").expect("flipped"), 1);
    for at in 105..125 {
        table.append(&batch(&[row(format!("r{at}"), at, "YES")])).expect("appended");
    }
    crate::runtime::drain(Duration::from_secs(30));
    let checkpoints = std::fs::read_dir(dir.path().join("events/_delta_log"))
        .expect("log")
        .filter(|e| e.as_ref().expect("entry").file_name().to_string_lossy().contains("checkpoint.parquet"))
        .count();
    // One every 20 commits, but when one falls due while another is written, only the newest is.
    assert!((1..=6).contains(&checkpoints), "{checkpoints}");
    let cold = Table::open(&storage, "events").expect("opened");
    assert_eq!(all(&cold), all(&table));
    assert_eq!(all(&cold).len(), 125);
    assert_eq!(cold.scan(&equals("flag", "NO")).expect("scan").num_rows(), 52);
    cold.append_conditionally(&mut |view| {
        assert_eq!(view.transaction("app")?, Some(7));
        assert_eq!(view.version(), 127);
        Ok(None)
    })
    .expect("looked");
}

#[test]
fn rows_that_do_not_fit_are_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    let alien =
        RecordBatch::try_from_iter([("alien", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]).expect("batch");
    let numbers =
        RecordBatch::try_from_iter([("name", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).expect("batch");
    let naive = RecordBatch::try_from_iter([("at", Arc::new(TimestampMicrosecondArray::from(vec![1])) as ArrayRef)])
        .expect("batch");
    for unfit in [alien, numbers, naive] {
        assert_eq!(table.append(&unfit).expect_err("unfit").kind(), ErrorKind::InvalidInput);
    }
    for unfit in [equals("alien", "x"), equals("at", "x")] {
        assert_eq!(table.scan(&unfit).expect_err("unfit").kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(std::fs::read_dir(dir.path().join("events")).expect("table").count(), 1, "nothing but the log");
    // Columns by name, absent ones NULL.
    let part = RecordBatch::try_from_iter([
        ("flag", Arc::new(StringArray::from(vec!["NO"])) as ArrayRef),
        ("name", Arc::new(StringArray::from(vec!["n"]))),
    ])
    .expect("batch");
    table.append(&part).expect("appended");
    assert_eq!(all(&table), vec![(Some("n".into()), None, Some("NO".into()))]);
    for name in ["", ".", "..", "a/b"] {
        assert_eq!(Table::open(&storage(&dir), name).expect_err(name).kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn tables_that_the_kernel_cannot_write_say_which_feature_it_is() {
    let dir = tempfile::tempdir().expect("directory");
    let storage = storage(&dir);
    Table::open_or_create(&storage, &spec()).expect("created");
    let log = dir.path().join("events/_delta_log/00000000000000000001.json");
    std::fs::write(
        log,
        "{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":7,\"writerFeatures\":[\"fromTheFuture\"]}}\n",
    )
    .expect("log");
    let table = Table::open(&storage, "events").expect("reading needs only the reader's features");
    let error = table.append(&batch(&[row("a", 1, "NO")])).expect_err("cannot be written");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.full_message().contains("fromTheFuture"), "{}", error.full_message());
}

#[test]
fn works_from_plain_threads_and_from_the_blocking_pool() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    let inside = table.clone();
    let done = crate::runtime::block_on(crate::runtime::blocking(move || {
        inside.append(&batch(&[row("a", 1, "NO")]))?;
        inside.scan(&Predicate::default())
    }));
    assert_eq!(done.expect("worked").num_rows(), 1);
}

/// Times from the year 68 to the year 8307.
fn any_row() -> impl Strategy<Value = Row> {
    let time = -60_000_000_000_000_000i64..200_000_000_000_000_000;
    (proptest::option::of("\\PC{0,12}"), proptest::option::of(time), proptest::option::of("[^\\x00]{0,6}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_rows_come_back_but_for_empty_partition_values(
        written in prop::collection::vec(any_row(), 1..20),
        partitioned in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().expect("directory");
        let table = Table::open_or_create(&storage(&dir), &if partitioned { spec() } else { plain_spec() }).expect("created");
        table.append(&batch(&written)).expect("appended");
        let mut expected: Vec<Row> = written.into_iter().map(|(name, at, flag)| (name, at, flag.filter(|flag| !partitioned || !flag.is_empty()))).collect();
        expected.sort();
        prop_assert_eq!(all(&table), expected.clone());
        for (name, _, flag) in &expected {
            let of = |column: &str, text: &Option<String>, at: fn(&Row) -> &Option<String>| {
                let Some(text) = text else { return };
                let wanted: Vec<Row> = expected.iter().filter(|row| at(row).as_ref() == Some(text)).cloned().collect();
                assert_eq!(rows(&table.scan(&equals(column, text)).expect("scan")), wanted);
            };
            of("name", name, |row| &row.0);
            of("flag", flag, |row| &row.2);
        }
    }
}

/// A table as clients made it before there were table features, with these columns and properties besides.
fn legacy(dir: &tempfile::TempDir, (reader, writer): (i32, i32), field: &str, configuration: &str) -> Storage {
    let log = dir.path().join("events/_delta_log");
    std::fs::create_dir_all(&log).expect("log");
    let physical = |id: u32, name: &str| {
        if reader == 2 {
            format!(r#"{{\"delta.columnMapping.id\":{id},\"delta.columnMapping.physicalName\":\"col-{name}\"}}"#)
        } else {
            "{}".to_owned()
        }
    };
    let column = |id: u32, name: &str, kind: &str| {
        let metadata = physical(id, name);
        format!(r#"{{\"name\":\"{name}\",\"type\":\"{kind}\",\"nullable\":true,\"metadata\":{metadata}}}"#)
    };
    let columns = [column(1, "name", "string"), column(2, "at", "timestamp"), column(3, "flag", "string")];
    let fields = format!("{}{field}", columns.join(","));
    let text = format!(
        concat!(
            r#"{{"protocol":{{"minReaderVersion":{},"minWriterVersion":{}}}}}"#,
            "\n",
            r#"{{"metaData":{{"id":"1","format":{{"provider":"parquet","options":{{}}}},"schemaString":"{{\"type\":\"struct\",\"#,
            r#""fields\":[{}]}}","partitionColumns":["flag"],"configuration":{{{}}},"createdTime":1}}}}"#,
            "\n"
        ),
        reader, writer, fields, configuration
    );
    // Spark writes a checksum beside each commit, with the protocol in it.
    let mut actions = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("action"));
    let (protocol, metadata) = (actions.next().expect("protocol"), actions.next().expect("metadata"));
    let checksum = serde_json::json!({
        "tableSizeBytes": 0, "numFiles": 0, "numMetadata": 1, "numProtocol": 1,
        "protocol": protocol["protocol"], "metadata": metadata["metaData"],
    });
    std::fs::write(log.join("00000000000000000000.crc"), checksum.to_string()).expect("checksum");
    std::fs::write(log.join("00000000000000000000.json"), text).expect("version 0");
    storage(dir)
}

#[test]
fn legacy_versions_are_no_obstacle_where_nothing_of_what_they_stand_for_is_used() {
    let mapping = r#""delta.columnMapping.mode":"name","delta.columnMapping.maxColumnId":"3""#;
    for (versions, configuration) in [((1, 3), ""), ((1, 4), ""), ((2, 5), mapping), ((2, 6), mapping)] {
        let dir = tempfile::tempdir().expect("directory");
        let storage = legacy(&dir, versions, "", configuration);
        let table = Table::open(&storage, "events").expect("opened");
        table.check_rewritable().expect("writable");
        for at in 0..25 {
            table.append(&batch(&[row(format!("{at:02}"), at, "NO")])).expect("appended");
        }
        assert_eq!(flip(&table, &|name| name < "10").expect("flipped"), 10);
        crate::runtime::drain(Duration::from_secs(30));
        table.maintain(Retention::hours(0.0).expect("hours"));
        table.append(&batch(&[row("25", 25, "NO")])).expect("appended after a checkpoint");
        let cold = Table::open(&storage, "events").expect("opened");
        cold.append(&batch(&[row("26", 26, "NO")])).expect("appended from a checkpoint");
        assert_eq!(all(&cold).len(), 27);
        assert_eq!(cold.scan(&equals("flag", "YES")).expect("scan").num_rows(), 10);
        // Whatever we wrote, nothing says that the table's protocol is another one.
        let log = dir.path().join("events/_delta_log");
        for entry in std::fs::read_dir(&log).expect("log").map(|entry| entry.expect("entry").path()) {
            if entry.to_string_lossy().ends_with("json") && !entry.ends_with("00000000000000000000.json") {
                let text = std::fs::read_to_string(&entry).expect("entry");
                assert!(!text.contains("\"protocol\""), "{}", entry.display());
            }
            if entry.to_string_lossy().ends_with(".parquet") {
                assert_eq!(protocol_in(&entry), versions, "{}", entry.display());
            }
        }
    }
}

/// The reader and writer version that a checkpoint gives.
fn protocol_in(checkpoint: &std::path::Path) -> (i32, i32) {
    use arrow::datatypes::Int32Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let file = std::fs::File::open(checkpoint).expect("checkpoint");
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).expect("checkpoint").build().expect("reader");
    for batch in batches {
        let batch = batch.expect("batch");
        let protocols = batch.column_by_name("protocol").expect("protocol").as_struct().clone();
        let version =
            |name: &str, row| protocols.column_by_name(name).expect(name).as_primitive::<Int32Type>().value(row);
        if let Some(row) = (0..batch.num_rows()).find(|row| protocols.is_valid(*row)) {
            return (version("minReaderVersion", row), version("minWriterVersion", row));
        }
    }
    panic!("no protocol in {}", checkpoint.display());
}

#[test]
fn legacy_tables_that_use_what_cannot_be_written_are_refused_by_name() {
    let generated = r#",{\"name\":\"day\",\"type\":\"date\",\"nullable\":true,\"metadata\":{\"delta.generationExpression\":\"x\"}}"#;
    let constraint = r#""delta.constraints.c":"at > 0""#;
    for (versions, field, configuration, name) in
        [((1, 4), generated, "", "generatedColumns"), ((1, 3), "", constraint, "checkConstraints")]
    {
        let dir = tempfile::tempdir().expect("directory");
        let table = Table::open(&legacy(&dir, versions, field, configuration), "events").expect("reading is possible");
        for error in [
            table.check_writable().expect_err(name),
            table
                .append(&batch(&[]))
                .err()
                .unwrap_or_else(|| table.append(&batch(&[row("a", 1, "NO")])).expect_err("cannot be written")),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error.full_message());
            assert!(error.full_message().contains(name), "{}", error.full_message());
        }
        assert_eq!(std::fs::read_dir(dir.path().join("events/_delta_log")).expect("log").count(), 2);
    }
}
