//! What a vacuum deletes and, above all, what it does not.

use proptest::prelude::*;

use super::super::paths::reduce;
use super::*;

const PIECES: [&str; 24] = [
    "a", "B", "7", "%", "%2", "%20", "%252F", " ", "+", "#", "#1", "?", ":", "=", "&", "é", "漢", "\\", "..", "~", "'",
    "\"", "|", "_",
];

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&PIECES[..]), 1..5).prop_map(|pieces| pieces.concat())
}

/// A path as the file system has it.
fn path() -> impl Strategy<Value = String> {
    (prop::collection::vec(name(), 0..3), name()).prop_map(|(mut parts, file)| {
        parts.retain(|part| !matches!(part.as_str(), "." | ".."));
        parts.push(format!("{file}.parquet"));
        parts.join("/")
    })
}

fn encode(text: &str, all: bool) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c) || !all && !"%?# ".contains(c);
    let escaped = |c: char| c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    text.chars().map(|c| if plain(c) { c.to_string() } else { escaped(c) }).collect()
}

/// How a client may spell the path in its log.
fn spelled(root: &url::Url, path: &str, how: u8) -> String {
    match how {
        0 => encode(path, true),
        // Only what has to be.
        1 => encode(path, false),
        // Not encoded at all, as careless clients do.
        2 => path.to_owned(),
        3 => format!("./{}", encode(path, true)),
        4 => format!("x/../{}", encode(path, true)),
        5 => format!("{root}{}", encode(path, true)),
        6 => format!("{}{}", root.path(), encode(path, true)),
        // The same place by another name.
        _ => format!("dbfs:/mnt/elsewhere/{}", encode(path, true)),
    }
}

fn commit(log: &Path, version: u64, actions: &[serde_json::Value]) {
    let text: Vec<String> = actions.iter().map(ToString::to_string).collect();
    std::fs::write(log.join(format!("{version:020}.json")), text.join("\n")).expect("commit");
}

fn add(path: &str) -> serde_json::Value {
    serde_json::json!({"add": {"path": path, "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": true}})
}

fn put(path: &Path) {
    std::fs::create_dir_all(path.parent().expect("parent")).expect("directories");
    std::fs::write(path, "x").expect("file");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_live_file_stays_however_its_path_is_spelled(
        live in prop::collection::vec((path(), 0u8..8), 1..6),
        dead in prop::collection::vec((path(), 0u8..8, any::<bool>()), 1..6),
    ) {
        let dir = tempfile::tempdir().expect("directory");
        let table = Table::open_or_create(&storage(&dir), &plain_spec()).expect("created");
        let root = table.state.url.clone();
        // Two names that differ only in spelling may mean one file: not what this is about.
        let keys: Vec<_> = live.iter().map(|(path, _)| path).chain(dead.iter().map(|d| &d.0)).map(|p| reduce(p)).collect();
        prop_assume!(keys.iter().collect::<BTreeSet<_>>().len() == keys.len());
        for (path, ..) in &live {
            put(&events(&dir).join(path));
        }
        for (path, ..) in &dead {
            put(&events(&dir).join(path));
        }
        let log = events(&dir).join("_delta_log");
        let mut actions: Vec<_> = live.iter().map(|(path, how)| add(&spelled(&root, path, *how))).collect();
        let removed = dead.iter().filter(|dead| dead.2);
        actions.extend(removed.map(|(path, how, _)| {
            let path = spelled(&root, path, *how);
            serde_json::json!({"remove": {"path": path, "deletionTimestamp": 1, "dataChange": true}})
        }));
        commit(&log, 1, &actions);
        let mut report = MaintenanceOutcome::default();
        let now = chrono::Utc::now().timestamp_millis() + 100 * HOUR;
        crate::delta::maintenance::vacuum::vacuum(&table.state, hours(0.0), now, &mut report).expect("vacuumed");
        for (path, how) in &live {
            prop_assert!(events(&dir).join(path).exists(), "{path:?} was deleted, live as {:?}", spelled(&root, path, *how));
        }
        // Who uses names of another place for live files protects all files of these names. A name with `..\` in it is one
        // of another place as well.
        let file = |path: &str| reduce(path).map(|key| key.rsplit(|b| *b == b'/').next().map(<[u8]>::to_vec));
        let deep = "x/".repeat(32);
        let names: Vec<_> = live.iter().map(|(path, _)| file(&format!("{deep}{path}"))).collect();
        let visible = |path: &str| !path.split('/').any(|part| part.starts_with(['_', '.']));
        for (path, ..) in &dead {
            if visible(path) && reduce(path).is_some() && !names.contains(&file(path)) {
                prop_assert!(!events(&dir).join(path).exists(), "{path:?} was left behind");
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_with_awkward_partition_values_stay(values in prop::collection::vec(name(), 1..5)) {
        let dir = tempfile::tempdir().expect("directory");
        let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
        let mut expected = Vec::new();
        for (number, value) in values.iter().enumerate() {
            for copy in 0..3 {
                let new = row(format!("{number}-{copy}"), 1, value);
                table.append(&batch(std::slice::from_ref(&new))).expect("appended");
                expected.push(new);
            }
        }
        expected.sort();
        for _ in 0..2 {
            let report = maintain_later(&table, 0.0, 100);
            prop_assert_eq!(&report.problems, &Vec::<String>::new());
            prop_assert_eq!(&all(&table), &expected);
            crate::runtime::drain(Duration::from_secs(60));
        }
        let distinct = values.iter().collect::<BTreeSet<_>>().len();
        prop_assert_eq!(data_in(&events(&dir)).len(), distinct, "{:?}", data_in(&events(&dir)));
    }
}

#[test]
fn only_files_that_nobody_needs_are_deleted() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    table.append(&batch(&[row("a", 1, "NO")])).expect("appended");
    let live = data_in(&events(&dir));
    let outside = dir.path().join("outside");
    put(&outside.join("precious.parquet"));
    std::os::unix::fs::symlink(&outside, events(&dir).join("link")).expect("link");
    std::os::unix::fs::symlink(outside.join("precious.parquet"), events(&dir).join("link.parquet")).expect("link");
    let stay = [
        "_hidden/a.parquet",
        ".hidden/a.parquet",
        "flag=NO/_a.parquet",
        "flag=NO/.a.parquet",
        "flag=NO/readme.txt",
        "inner/_delta_log/00000000000000000000.json",
        "inner/a.parquet",
        "inner/b/c.parquet",
        "_delta_log/a.parquet",
        "young.parquet",
        "flag=NO/deletion_vector_young.bin",
    ];
    let go = [
        "a.parquet",
        "flag=NO/b.parquet",
        "flag=NO/b.parquet#1",
        "flag=%2520/c.parquet",
        "xY/deletion_vector_8e5f4a3c-6b3a-4a8f-9d3e-000000000000.bin",
    ];
    for file in stay.iter().chain(&go) {
        put(&events(&dir).join(file));
        if !file.contains("young") {
            age(&events(&dir).join(file), 2);
        }
    }
    // A day is not over yet.
    let report = table.maintain(hours(24.0));
    assert_eq!((report.files_vacuumed, report.problems.len()), (0, 0), "{report:?}");
    let report = table.maintain(hours(0.0));
    assert_eq!((report.files_vacuumed, report.bytes_freed), (go.len() as u64, go.len() as u64), "{report:?}");
    for file in stay.iter().map(|file| (*file).to_owned()).chain(live) {
        assert!(events(&dir).join(&file).exists(), "{file}");
    }
    assert!(outside.join("precious.parquet").exists());
    assert!(events(&dir).join("link.parquet").exists());
    assert_eq!(all(&table).len(), 1);
}

#[test]
fn directories_of_a_partition_column_that_begins_with_an_underscore_are_not_hidden() {
    let dir = tempfile::tempdir().expect("directory");
    let (table, log) = partitioned_by(&dir, "_p");
    commit(&log, 1, &[add("_p=1/live.parquet")]);
    for file in ["_p=1/live.parquet", "_p=1/dead.parquet", "_q=1/hidden.parquet"] {
        put(&events(&dir).join(file));
    }
    let report = maintain_later(&table, 0.0, 100);
    assert_eq!(report.files_vacuumed, 1, "{report:?}");
    assert_eq!(data_in(&events(&dir)), BTreeSet::from(["_p=1/live.parquet", "_q=1/hidden.parquet"].map(str::to_owned)));
}

/// An empty table of another client's.
fn partitioned_by(dir: &tempfile::TempDir, column: &str) -> (Table, PathBuf) {
    let log = events(dir).join("_delta_log");
    std::fs::create_dir_all(&log).expect("log");
    let fields = ["name", column]
        .map(|name| serde_json::json!({"name": name, "type": "string", "nullable": true, "metadata": {}}));
    let schema = serde_json::json!({"type": "struct", "fields": fields}).to_string();
    commit(
        &log,
        0,
        &[
            serde_json::json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
            serde_json::json!({"metaData": {"id": "1", "format": {"provider": "parquet", "options": {}},
                "schemaString": schema, "partitionColumns": [column], "configuration": {}}}),
        ],
    );
    (Table::open(&storage(dir), "events").expect("opened"), log)
}

#[test]
fn what_was_removed_within_the_retention_stays_and_a_longer_one_of_the_table_wins() {
    let dir = tempfile::tempdir().expect("directory");
    let table = Table::open_or_create(&storage(&dir), &spec()).expect("created");
    for name in ["a", "b"] {
        table.append(&batch(&[row(name, 1, "NO")])).expect("appended");
    }
    for file in data_in(&events(&dir)) {
        age(&events(&dir).join(file), 1000);
    }
    assert_eq!(table.maintain(hours(1.0)).files_vacuumed, 0, "compacted a moment ago");
    assert_eq!(maintain_later(&table, 48.0, 47).files_vacuumed, 0);
    let log = events(&dir).join("_delta_log");
    let text = std::fs::read_to_string(log.join("00000000000000000000.json")).expect("log");
    let meta = text.lines().find(|line| line.contains("metaData")).expect("metadata");
    let longer = "\"delta.deletedFileRetentionDuration\":\"interval 30 days\",\"delta.checkpointInterval\"";
    let version = table.version() + 1;
    std::fs::write(log.join(format!("{version:020}.json")), meta.replace("\"delta.checkpointInterval\"", longer))
        .expect("written");
    let report = maintain_later(&table, 48.0, 49);
    assert_eq!(report.files_vacuumed, 0);
    assert!(report.notes.iter().any(|note| note.contains("720 hours")), "{:?}", report.notes);
    assert_eq!(maintain_later(&table, 48.0, 721).files_vacuumed, 2);
    assert_eq!(all(&table).len(), 2);
}
