//! A log entry, as far as someone who lost a race to it has to know it.

use std::collections::HashSet;
use std::sync::Arc;

use delta_kernel::KernelError;
use object_store::ObjectStoreExt as _;
use serde_json::Value;

use super::create::log_path;
use super::failure::from_kernel;
use super::foreign;
use super::shared::Inner;
use crate::error::Result;

/// The key of a commit's own id in `commitInfo.operationParameters`.
pub(super) const COMMIT_ID: &str = "commitId";

/// What one version of the log says.
#[derive(Debug, Default)]
pub(super) struct LogEntry {
    /// The id that this crate gives its commits.
    pub(super) id: Option<String>,
    /// Such as `OPTIMIZE by Apache-Spark/4.0.0 Delta-Lake/4.0.0`.
    pub(super) described: String,
    /// Paths of the files that it removes or whose deletion vectors it changes, as the log spells them.
    removed: Vec<String>,
    /// The data files that it adds.
    pub(super) added: Vec<AddedFile>,
    /// It takes rows away, or writes them elsewhere.
    removes_rows: bool,
    /// Its transaction ids.
    pub(super) transactions: Vec<(String, i64)>,
    /// It changes the table's columns, properties or protocol.
    redefines: bool,
}

/// A data file that a log entry adds.
#[derive(Debug)]
pub(super) struct AddedFile {
    /// As the log spells it.
    pub(super) path: String,
    /// In bytes.
    pub(super) size: i64,
    /// Milliseconds since 1970 UTC.
    pub(super) modified: i64,
    /// It is of no partition, and hides none of its rows.
    pub(super) plain: bool,
}

impl AddedFile {
    fn of(add: &Value) -> Option<Self> {
        let number = |name: &str| add.get(name).and_then(Value::as_i64);
        let partitioned =
            add.get("partitionValues").and_then(Value::as_object).is_some_and(|values| !values.is_empty());
        Some(Self {
            path: add.get("path")?.as_str()?.to_owned(),
            size: number("size")?,
            modified: number("modificationTime")?,
            plain: !partitioned && add.get("deletionVector").is_none_or(Value::is_null),
        })
    }
}

impl LogEntry {
    /// Whether all that it does to the rows is to add some.
    pub(super) fn only_appends(&self) -> bool {
        !self.redefines && !self.removes_rows
    }

    /// Version `version` of the table, `None` when nobody has written it yet (or it was cleaned away).
    ///
    /// # Errors
    /// Those of the store, and [`crate::ErrorKind::Unsupported`] as in [`foreign`].
    pub(super) fn read(table: &Inner, version: u64) -> Result<Option<Self>> {
        let path = log_path(&table.url, &format!("{version:020}.json"))?;
        let store = Arc::clone(table.storage.store());
        let read = table.storage.block_on(async move { store.get(&path).await?.bytes().await })?;
        match read {
            Ok(text) => {
                foreign::refuse_spark_commit_on_s3(&table.storage, &table.url, version, &text)?;
                Ok(Some(Self::parse(&text)))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(from_kernel(format!("reading version {version} of '{}'", table.url), KernelError::from(e))),
        }
    }

    fn parse(text: &[u8]) -> Self {
        let mut entry = Self::default();
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        for action in lines.map(serde_json::from_slice::<Value>) {
            // What we cannot read may be anything.
            let Ok(Value::Object(action)) = action else {
                entry.redefines = true;
                continue;
            };
            for (kind, content) in &action {
                let text = |pointer: &str| content.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
                match kind.as_str() {
                    "commitInfo" => {
                        entry.id = text(&format!("/operationParameters/{COMMIT_ID}"));
                        entry.described = format!(
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
                    // Otherwise the rows of other files are only stored anew.
                    "add" if changes_data(content) => match AddedFile::of(content) {
                        Some(file) => entry.added.push(file),
                        None => entry.redefines = true,
                    },
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

/// Whether a file's rows are new or gone, as is the rule, and not only stored otherwise.
fn changes_data(action: &Value) -> bool {
    action.get("dataChange").and_then(Value::as_bool).unwrap_or(true)
}

/// Whether what was planned on version `planned` holds at version `now` as well: all commits between are known, none of
/// them redefines the table, and none removes one of `files`.
pub(super) fn untouched(table: &Inner, planned: u64, now: u64, files: &HashSet<String>) -> Result<bool> {
    Ok(removed_since(table, planned, now)?.is_some_and(|removed| removed.is_disjoint(files)))
}

/// What the commits after version `planned` up to `now` removed, as the log spells it. `None` when one of them redefines
/// the table, or is not known.
pub(super) fn removed_since(table: &Inner, planned: u64, now: u64) -> Result<Option<HashSet<String>>> {
    let mut removed = HashSet::new();
    for version in planned + 1..=now {
        match LogEntry::read(table, version)? {
            Some(entry) if !entry.redefines => removed.extend(entry.removed),
            _ => return Ok(None),
        }
    }
    Ok(Some(removed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_whose_it_is_and_what_it_removes() {
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
        assert_eq!(entry.described, "OPTIMIZE by Apache-Spark/4.0.0");
        assert_eq!(entry.removed, ["flag=NO/a.parquet"]);
        assert!(!entry.redefines && entry.only_appends() && entry.added.is_empty());
    }

    #[test]
    fn an_entry_says_what_it_appends() {
        let entry =
            LogEntry::parse(br#"{"add":{"path":"a.parquet","size":7,"modificationTime":9,"partitionValues":{}}}"#);
        let [file] = entry.added.as_slice() else { panic!("{entry:?}") };
        assert_eq!((file.path.as_str(), file.size, file.modified, file.plain), ("a.parquet", 7, 9, true));
        assert!(entry.only_appends());
        assert!(!LogEntry::parse(br#"{"remove":{"path":"a.parquet"}}"#).only_appends());
        let hidden = LogEntry::parse(
            br#"{"add":{"path":"a","size":7,"modificationTime":9,"deletionVector":{"storageType":"u"},"dataChange":true}}"#,
        );
        assert!(!hidden.added[0].plain);
    }

    #[test]
    fn what_cannot_be_understood_redefines_the_table() {
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
