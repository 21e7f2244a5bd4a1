//! What the store holds at the end: the log entries and the data files, read without the code that is simulated. That is also
//! several times as fast as to open the tables once more.

use std::collections::{BTreeMap, HashMap};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::{FutureExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::delivery::attempts::{Attempt, from_batch};
use crate::ledger::tables::FLAG;
use crate::ledger::{JobLedger, LedgerRow, LedgerTable};
use crate::storage::file_names::entry_version;

/// The tables with the actions of each version of their logs.
pub(super) struct Contents<'a> {
    memory: &'a InMemory,
    deleted: &'a HashMap<Path, Bytes>,
    pub(super) logs: BTreeMap<String, BTreeMap<u64, Vec<Value>>>,
}

/// What the objects in memory answer is there at once.
fn bytes(memory: &InMemory, path: &Path) -> Bytes {
    let read = async { memory.get(path).await.expect("read").bytes().await.expect("read") };
    read.now_or_never().expect("at once")
}

impl<'a> Contents<'a> {
    pub(super) fn new(memory: &'a InMemory, deleted: &'a HashMap<Path, Bytes>) -> Self {
        let files = memory.list(None).try_collect::<Vec<_>>().now_or_never().expect("at once").expect("listed");
        let mut logs: BTreeMap<String, BTreeMap<u64, Vec<Value>>> = BTreeMap::new();
        for file in files {
            let path = file.location;
            let Some(version) = path.filename().and_then(entry_version) else { continue };
            let table = path.parts().nth(1).expect("a table").as_ref().to_owned();
            let bytes = bytes(memory, &path);
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let actions = lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect();
            logs.entry(table).or_default().insert(version, actions);
        }
        Self { memory, deleted, logs }
    }

    fn actions(&self, table: &str) -> impl Iterator<Item = (u64, &Value)> {
        let versions = self.logs.get(table).into_iter().flatten();
        versions.flat_map(|(version, actions)| actions.iter().map(|action| (*version, action)))
    }

    /// The rows of the file that `action` adds. The log spells its path as a part of a URL.
    fn rows(&self, table: &str, action: &Value) -> Vec<RecordBatch> {
        let path = format!("ledger/{table}/{}", action["path"].as_str().expect("a path"));
        let path = Path::from_url_path(path).expect("a path");
        let bytes = self.deleted.get(&path).cloned().unwrap_or_else(|| bytes(self.memory, &path));
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a Parquet file").build();
        reader.expect("a Parquet file").map(|batch| batch.expect("rows")).collect()
    }

    /// The attempts of `source` with the versions that have them, in their order. Compaction adds none.
    pub(super) fn attempts(&self, table: &str, source: LedgerTable) -> Vec<(u64, Attempt)> {
        let added = self.actions(table).filter_map(|(version, action)| Some((version, action.get("add")?)));
        let mut attempts = Vec::new();
        for (version, add) in added.filter(|(_, add)| add["dataChange"] == true) {
            for batch in self.rows(table, add) {
                attempts.extend(from_batch(&batch).expect("attempts").into_iter().map(|attempt| (version, attempt)));
            }
        }
        attempts.retain(|(_, attempt)| attempt.table == source);
        attempts
    }

    /// The rows that are in `table`, each with the flags of its occurrences.
    pub(super) fn flags(&self, table: LedgerTable) -> HashMap<LedgerRow, Vec<String>> {
        let mut live: BTreeMap<&str, &Value> = BTreeMap::new();
        for (_, action) in self.actions(table.name()) {
            if let Some(add) = action.get("add") {
                live.insert(add["path"].as_str().expect("a path"), add);
            } else if let Some(remove) = action.get("remove") {
                live.remove(remove["path"].as_str().expect("a path"));
            }
        }
        let mut flags: HashMap<LedgerRow, Vec<String>> = HashMap::new();
        for add in live.into_values() {
            let flag = add["partitionValues"][FLAG].as_str().expect("a flag");
            for batch in self.rows(table.name(), add) {
                for row in JobLedger::rows_from_batch(table, &batch).expect("rows") {
                    flags.entry(row).or_default().push(flag.to_owned());
                }
            }
        }
        flags
    }
}
