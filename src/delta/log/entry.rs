//! The parts of a log entry that this crate reads, and writers that must not share a table with it: on S3, Spark and Databricks.
//!
//! Delta needs log entries that are created only if they do not exist yet. This crate creates them by conditional writes,
//! which S3 arbitrates. Spark's own S3 writer checks first and then writes (the Delta Lake documentation, "Multi-cluster
//! setup", therefore asks for DynamoDB or a single cluster), and Databricks arbitrates on S3 in a service of its own. Both
//! overwrite an entry of this crate that was created in between, and its rows are lost without an error. On ADLS, Google
//! Cloud Storage and local disks, they create entries atomically too.

use std::collections::HashMap;

use delta_kernel::scan::state::{DvInfo, ScanFile};
use futures::StreamExt as _;
use object_store::ObjectStoreExt as _;
use serde_json::Value;
use url::Url;

use super::create::{if_found, log_path};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::file_names::entry_name;
use crate::storage::{Storage, StoreKind};

/// How many of the newest commits are checked when a table is opened, besides the first one.
const NEWEST: u64 = 32;

/// Commits read concurrently.
const READERS: usize = 8;

/// The key of a commit's own id in `commitInfo.operationParameters`.
pub(in crate::delta) const COMMIT_ID: &str = "commitId";

/// What one version of the log says.
#[derive(Debug, Default)]
pub(in crate::delta) struct LogEntry {
    /// The id that this crate gives its commits.
    pub(in crate::delta) id: Option<String>,
    /// For example `OPTIMIZE by Apache-Spark/4.0.0 Delta-Lake/4.0.0`.
    pub(in crate::delta) description: String,
    /// Paths of the files that it removes or whose deletion vectors it changes, as the log spells them.
    pub(in crate::delta) removed: Vec<String>,
    /// The data files that it adds.
    pub(in crate::delta) added: Vec<ScanFile>,
    /// One of these files belongs to a partition or has a deletion vector, which `added` lacks.
    pub(in crate::delta) incomplete: bool,
    /// It removes rows. Moving them to another file does not count.
    removes_rows: bool,
    /// Its transaction ids.
    pub(in crate::delta) transactions: Vec<(String, i64)>,
    /// It changes the table's columns, properties or protocol.
    pub(in crate::delta) redefines: bool,
}

/// The data file that an `add` action adds, without its statistics, partition values and deletion vector.
fn added_file(add: &Value) -> Option<ScanFile> {
    let number = |name: &str| add.get(name).and_then(Value::as_i64);
    Some(ScanFile {
        path: add.get("path")?.as_str()?.to_owned(),
        size: number("size")?,
        modification_time: number("modificationTime")?,
        stats: None,
        dv_info: DvInfo::default(),
        transform: None,
        partition_values: HashMap::new(),
    })
}

/// Whether a data file belongs to no partition and has no deletion vector.
fn is_plain(add: &Value) -> bool {
    let values = add.get("partitionValues").and_then(Value::as_object);
    values.is_none_or(|values| values.is_empty()) && add.get("deletionVector").is_none_or(Value::is_null)
}

impl LogEntry {
    /// Whether it only adds rows.
    pub(in crate::delta) fn only_appends(&self) -> bool {
        !self.redefines && !self.removes_rows
    }

    /// Version `version` of the table at `url`, or `None` if it was not written yet or was cleaned away.
    ///
    /// # Errors
    /// Those of the store, and [`ErrorKind::Unsupported`] as in [`refuse_spark_on_s3`].
    pub(in crate::delta) fn read(storage: &Storage, url: &Url, version: u64) -> Result<Option<Self>> {
        let path = log_path(url, &entry_name(version))?;
        let store = storage.store().clone();
        let read = storage.block_on(async move { store.get(&path).await?.bytes().await })?;
        let Some(text) = if_found(read, || reading(version, url))? else { return Ok(None) };
        refuse_spark_commit_on_s3(storage, url, version, &text)?;
        Ok(Some(Self::parse(&text)))
    }

    fn parse(text: &[u8]) -> Self {
        let mut entry = Self::default();
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        for action in lines.map(serde_json::from_slice::<Value>) {
            // An action that cannot be parsed may be anything.
            let Ok(Value::Object(action)) = action else {
                entry.redefines = true;
                continue;
            };
            for (kind, content) in &action {
                let text = |pointer: &str| content.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
                match kind.as_str() {
                    "commitInfo" => {
                        entry.id = text(&format!("/operationParameters/{COMMIT_ID}"));
                        entry.description = format!(
                            "{} by {}",
                            text("/operation").unwrap_or_else(|| "a commit".to_owned()),
                            text("/engineInfo").unwrap_or_else(|| "an unnamed client".to_owned())
                        );
                    }
                    "remove" => {
                        entry.removes_rows |= changes_data(content);
                        match text("/path") {
                            Some(path) => entry.removed.push(path),
                            None => entry.redefines = true,
                        }
                    }
                    // Otherwise it holds rows of other files.
                    "add" if changes_data(content) => {
                        entry.incomplete |= !is_plain(content);
                        match added_file(content) {
                            Some(file) => entry.added.push(file),
                            None => entry.redefines = true,
                        }
                    }
                    "txn" => {
                        let version = content.get("version").and_then(Value::as_i64);
                        entry.transactions.extend(text("/appId").zip(version));
                    }
                    "add" | "cdc" => {}
                    _ => entry.redefines = true,
                }
            }
        }
        entry
    }
}

fn reading(version: u64, url: &Url) -> String {
    format!("reading version {version} of '{url}'")
}

/// Whether the action adds or removes rows, which is the default, and does not only move them to another file.
fn changes_data(action: &Value) -> bool {
    action.get("dataChange").and_then(Value::as_bool).unwrap_or(true)
}

/// On S3, checks who wrote the table at `url`: its first commit and the newest ones up to version `newest`, as far as the
/// log still has them. Does nothing on other stores.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when Spark or Databricks wrote one of them; a retry does not help. Those of the store when
/// the log cannot be read.
pub(in crate::delta) fn refuse_spark_on_s3(storage: &Storage, url: &Url, newest: u64) -> Result<()> {
    if storage.kind() != StoreKind::S3 {
        return Ok(());
    }
    let first = newest.saturating_sub(NEWEST - 1);
    let versions = (first > 0).then_some(0).into_iter().chain(first..=newest);
    let paths =
        versions.map(|version| Ok((version, log_path(url, &entry_name(version))?))).collect::<Result<Vec<_>>>()?;
    let store = storage.store().clone();
    let commits = storage.block_on(async move {
        futures::stream::iter(paths)
            .map(|(version, path)| {
                let store = store.clone();
                async move { (version, async { store.get(&path).await?.bytes().await }.await) }
            })
            .buffered(READERS)
            .collect::<Vec<_>>()
            .await
    })?;
    for (version, commit) in commits {
        // Else it was cleaned away.
        if let Some(commit) = if_found(commit, || reading(version, url))? {
            refuse_spark_commit_on_s3(storage, url, version, &commit)?;
        }
    }
    Ok(())
}

/// As [`refuse_spark_on_s3`], for one commit that was read already because it won a race.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when Spark or Databricks wrote it; a retry does not help.
fn refuse_spark_commit_on_s3(storage: &Storage, url: &Url, version: u64, commit: &[u8]) -> Result<()> {
    if storage.kind() != StoreKind::S3 {
        return Ok(());
    }
    match spark(commit) {
        None => Ok(()),
        Some(engine) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{engine} wrote version {version} of '{url}'. On S3 it does not create log entries atomically, so that it and \
                 this writer would overwrite each other's rows without an error: use the Spark engine for this table, or \
                 keep the ledger on ADLS (abfss://…) or a local disk, where both can write at once"
            ),
        )),
    }
}

/// The engine that wrote `commit`, if it is Spark or Databricks.
fn spark(commit: &[u8]) -> Option<String> {
    let info = commit
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .find_map(|mut action| action.get_mut("commitInfo").map(Value::take))?;
    match info.get("engineInfo").and_then(Value::as_str) {
        Some(engine) => (engine.starts_with("Apache-Spark/") || engine.starts_with("Databricks-Runtime/"))
            .then(|| engine.chars().filter(|c| !c.is_control()).take(80).collect()),
        // Old releases have no engineInfo. No other engine has clusters and notebooks.
        None => (info.get("clusterId").is_some() || info.get("notebook").is_some()).then(|| "Databricks".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_writer_and_the_removed_files() {
        let text = concat!(
            r#"{"commitInfo":{"operation":"OPTIMIZE","engineInfo":"Apache-Spark/4.0.0","operationParameters":{"commitId":"7"}}}"#,
            "\n",
            r#"{"remove":{"path":"flag=NO/a.parquet","dataChange":false}}"#,
            "\n",
            r#"{"add":{"path":"flag=NO/b.parquet","dataChange":false}}"#,
            "\n",
        );
        let entry = LogEntry::parse(text.as_bytes());
        assert_eq!(entry.id.as_deref(), Some("7"));
        assert_eq!(entry.description, "OPTIMIZE by Apache-Spark/4.0.0");
        assert_eq!(entry.removed, ["flag=NO/a.parquet"]);
        assert!(!entry.redefines && entry.only_appends() && entry.added.is_empty());
    }

    #[test]
    fn parses_the_added_files() {
        let entry =
            LogEntry::parse(br#"{"add":{"path":"a.parquet","size":7,"modificationTime":9,"partitionValues":{}}}"#);
        let [file] = entry.added.as_slice() else { panic!("{entry:?}") };
        assert_eq!((file.path.as_str(), file.size, file.modification_time), ("a.parquet", 7, 9));
        assert!(!entry.incomplete);
        assert!(entry.only_appends());
        assert!(!LogEntry::parse(br#"{"remove":{"path":"a.parquet"}}"#).only_appends());
        let hidden = LogEntry::parse(
            br#"{"add":{"path":"a","size":7,"modificationTime":9,"deletionVector":{"storageType":"u"},"dataChange":true}}"#,
        );
        assert!(hidden.incomplete);
    }

    #[test]
    fn unknown_actions_count_as_redefining_the_table() {
        for text in [
            r#"{"metaData":{}}"#,
            r#"{"protocol":{}}"#,
            r#"{"fromTheFuture":{}}"#,
            "{\"add\":",
            r#"{"remove":{}}"#,
            r#"{"add":{"size":1}}"#,
        ] {
            assert!(LogEntry::parse(text.as_bytes()).redefines, "{text}");
        }
    }

    fn commit(info: &str) -> Vec<u8> {
        format!("{{\"protocol\":{{\"minReaderVersion\":1,\"minWriterVersion\":2}}}}\n{{\"commitInfo\":{info}}}\n")
            .into()
    }

    /// A log at `root` with the given versions, of which one is by Spark, and the result of checking it.
    fn verdict(root: &str, versions: std::ops::Range<u64>, by_spark: u64) -> Result<()> {
        let url = Url::parse(root).expect(root);
        let storage =
            Storage::over(std::sync::Arc::new(object_store::memory::InMemory::new()), url.clone()).expect("storage");
        for version in versions.clone() {
            let engine = if version == by_spark { "Apache-Spark/4.0.0 Delta-Lake/4.0.0" } else { "jobrota/0.1.0" };
            let path = log_path(&url, &entry_name(version)).expect("path");
            let store = storage.store().clone();
            let text = commit(&format!("{{\"engineInfo\":\"{engine}\"}}"));
            storage.block_on(async move { store.put(&path, text.into()).await }).expect("runs").expect("written");
        }
        refuse_spark_on_s3(&storage, &url, versions.end - 1)
    }

    #[test]
    fn the_first_and_the_newest_commits_are_checked_on_s3_only() {
        for (versions, by_spark, refused) in [
            (0..1, 0, true),
            (0..50, 0, true),
            (0..50, 49, true),
            (0..50, 18, true),
            (0..50, 17, false),
            (40..50, 45, true),
        ] {
            let found = verdict("s3://bucket/ledger/t/", versions.clone(), by_spark);
            assert_eq!(found.is_err(), refused, "{versions:?} {by_spark}");
            if let Err(error) = found {
                assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unsupported, false));
                assert!(
                    error.to_string().contains(&format!("version {by_spark} of 's3://bucket/ledger/t/'")),
                    "{error}"
                );
            }
            verdict("abfss://c@acct.dfs.core.windows.net/t/", versions, by_spark).expect("fine on Azure");
        }
    }

    #[test]
    fn spark_and_databricks_are_recognized_by_their_commits() {
        for (info, expected) in [
            (r#"{"engineInfo":"Apache-Spark/3.5.3 Delta-Lake/3.2.1"}"#, Some("Apache-Spark/3.5.3 Delta-Lake/3.2.1")),
            (r#"{"engineInfo":"Databricks-Runtime/16.4.x-scala2.12"}"#, Some("Databricks-Runtime/16.4.x-scala2.12")),
            (r#"{"operation":"WRITE","clusterId":"0421-1","notebook":{"notebookId":"1"}}"#, Some("Databricks")),
            (r#"{"engineInfo":"jobrota/0.1.0"}"#, None),
            (r#"{"engineInfo":"delta-rs:py-1.6.6"}"#, None),
            (r#"{"engineInfo":"Trino/Apache-Spark/"}"#, None),
            (r#"{"operation":"WRITE"}"#, None),
        ] {
            assert_eq!(spark(&commit(info)).as_deref(), expected, "{info}");
        }
        assert_eq!(spark(b"not json\n{}\n"), None);
    }
}
