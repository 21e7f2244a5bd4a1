//! The parts of a log entry that this crate reads.

use std::collections::HashMap;

use delta_kernel::KernelError;
use delta_kernel::scan::state::{DvInfo, ScanFile};
use object_store::ObjectStoreExt as _;
use serde_json::Value;
use url::Url;

use super::create::log_path;
use super::foreign;
use crate::delta::errors::from_kernel;
use crate::error::Result;
use crate::storage::Storage;
use crate::storage::file_names::entry_name;

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
    /// Those of the store, and [`crate::ErrorKind::Unsupported`] as in [`foreign`].
    pub(in crate::delta) fn read(storage: &Storage, url: &Url, version: u64) -> Result<Option<Self>> {
        let path = log_path(url, &entry_name(version))?;
        let store = storage.store().clone();
        match storage.block_on(async move { store.get(&path).await?.bytes().await })? {
            Ok(text) => {
                foreign::refuse_spark_commit_on_s3(storage, url, version, &text)?;
                Ok(Some(Self::parse(&text)))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(from_kernel(format!("reading version {version} of '{url}'"), KernelError::from(e))),
        }
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

/// Whether the action adds or removes rows, which is the default, and does not only move them to another file.
fn changes_data(action: &Value) -> bool {
    action.get("dataChange").and_then(Value::as_bool).unwrap_or(true)
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
}
