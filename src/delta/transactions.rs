//! All transaction ids of a table, from one look at its log. The kernel gives one id at a time and replays the log for
//! each; asked for an id that nobody has, it replays all of it, and what it reads can be noted on the way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt as _};
use delta_kernel::schema::SchemaRef;
use delta_kernel::{
    Engine, EngineData, EvaluationHandler, FileDataReadResultIterator, FileMeta, FileSize, FilteredEngineData,
    JsonHandler, KernelResult, KernelResultIterator, KernelResultIteratorStatic, ParquetFooter, ParquetHandler,
    PredicateRef, Snapshot, SnapshotRef, StorageHandler,
};
use url::Url;

use super::failure::from_kernel;
use super::legacy_protocol::LogReader;
use super::log_entry::LogEntry;
use super::shared::Inner;
use crate::error::Result;
use crate::storage::KernelEngine;

/// Over more commits than this, reading the log from its checkpoint is as quick as reading them one by one.
const MOST_COMMITS: u64 = 16;

/// The ids that the commits after version `known` up to that of `snapshot` wrote, later ones last. `None` when that is not
/// known: too many commits, or one that is not there any more.
pub(super) fn since(table: &Inner, known: u64, snapshot: &SnapshotRef) -> Result<Option<Vec<(String, i64)>>> {
    let now = snapshot.version();
    if now < known || now - known > MOST_COMMITS {
        return Ok(None);
    }
    let mut transactions = Vec::new();
    for version in known + 1..=now {
        let Some(entry) = LogEntry::read(table, version)? else { return Ok(None) };
        transactions.extend(entry.transactions);
    }
    Ok(Some(transactions))
}

/// The last version of every application id at `snapshot`.
pub(super) fn all(table: &Inner, snapshot: &SnapshotRef) -> Result<HashMap<String, i64>> {
    let failed = |e| from_kernel(format!("reading the transactions of '{}'", table.url), e);
    let engine = table.storage.engine()?;
    let noting = Noting::new(engine);
    // An id that nobody has: nothing ends the replay early.
    let nobody = uuid::Uuid::new_v4().to_string();
    snapshot.get_app_id_version(&nobody, &noting).map_err(failed)?;
    if !noting.noted().read {
        // The kernel knew the answer from a checksum file, so nothing was read: a snapshot that is built without them
        // has to read.
        let snapshot = Snapshot::builder_for(table.url.as_str())
            .at_version(snapshot.version())
            .build(&LogReader::new(engine))
            .map_err(failed)?;
        snapshot.get_app_id_version(&nobody, &noting).map_err(failed)?;
    }
    let transactions = std::mem::take(&mut noting.noted().transactions);
    Ok(transactions)
}

/// An engine that notes the transaction ids in whatever it reads, newest first.
struct Noting {
    engine: Arc<KernelEngine>,
    json: Arc<Noted<dyn JsonHandler>>,
    parquet: Arc<Noted<dyn ParquetHandler>>,
    note: Arc<Mutex<Note>>,
}

#[derive(Default)]
struct Note {
    transactions: HashMap<String, i64>,
    read: bool,
}

struct Noted<T: ?Sized> {
    handler: Arc<T>,
    note: Arc<Mutex<Note>>,
}

impl Noting {
    fn new(engine: &Arc<KernelEngine>) -> Self {
        let note = Arc::<Mutex<Note>>::default();
        Self {
            engine: Arc::clone(engine),
            json: Arc::new(Noted { handler: engine.json_handler(), note: Arc::clone(&note) }),
            parquet: Arc::new(Noted { handler: engine.parquet_handler(), note: Arc::clone(&note) }),
            note,
        }
    }

    fn noted(&self) -> MutexGuard<'_, Note> {
        lock(&self.note)
    }
}

fn lock(note: &Mutex<Note>) -> MutexGuard<'_, Note> {
    note.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine for Noting {
    fn evaluation_handler(&self) -> Arc<dyn EvaluationHandler> {
        self.engine.evaluation_handler()
    }

    fn storage_handler(&self) -> Arc<dyn StorageHandler> {
        self.engine.storage_handler()
    }

    fn json_handler(&self) -> Arc<dyn JsonHandler> {
        self.json.clone()
    }

    fn parquet_handler(&self) -> Arc<dyn ParquetHandler> {
        self.parquet.clone()
    }
}

impl<T: ?Sized> Noted<T> {
    fn through(&self, read: FileDataReadResultIterator) -> FileDataReadResultIterator {
        let note = Arc::clone(&self.note);
        lock(&note).read = true;
        Box::new(read.map(move |data| noted(&note, data?)))
    }
}

impl JsonHandler for Noted<dyn JsonHandler> {
    fn parse_json(&self, strings: Box<dyn EngineData>, schema: SchemaRef) -> KernelResult<Box<dyn EngineData>> {
        self.handler.parse_json(strings, schema)
    }

    fn read_json_files(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        Ok(self.through(self.handler.read_json_files(files, schema, predicate)?))
    }

    fn write_json_file(
        &self,
        path: &Url,
        data: KernelResultIterator<'_, FilteredEngineData>,
        overwrite: bool,
    ) -> KernelResult<FileSize> {
        self.handler.write_json_file(path, data, overwrite)
    }
}

impl ParquetHandler for Noted<dyn ParquetHandler> {
    fn read_parquet_files(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        Ok(self.through(self.handler.read_parquet_files(files, schema, predicate)?))
    }

    fn write_parquet_file(
        &self,
        location: Url,
        data: KernelResultIteratorStatic<Box<dyn EngineData>>,
    ) -> KernelResult<FileSize> {
        self.handler.write_parquet_file(location, data)
    }

    fn read_parquet_footer(&self, file: &FileMeta) -> KernelResult<ParquetFooter> {
        self.handler.read_parquet_footer(file)
    }
}

/// Takes note of the ids in `data` that no newer commit wrote.
fn noted(note: &Mutex<Note>, data: Box<dyn EngineData>) -> KernelResult<Box<dyn EngineData>> {
    let batch = data.try_into_record_batch()?;
    let mut note = lock(note);
    for (app, version) in transactions(&batch) {
        note.transactions.entry(app).or_insert(version);
    }
    Ok(Box::new(ArrowEngineData::new(batch)))
}

fn transactions(batch: &RecordBatch) -> Vec<(String, i64)> {
    let read = || {
        let actions = batch.column_by_name("txn")?.as_struct_opt()?;
        let apps = actions.column_by_name("appId")?.as_string_opt::<i32>()?;
        let versions = actions.column_by_name("version")?.as_primitive_opt::<Int64Type>()?;
        let rows = (0..actions.len()).filter(|&row| actions.is_valid(row) && apps.is_valid(row));
        Some(rows.map(|row| (apps.value(row).to_owned(), versions.value(row))).collect())
    };
    read().unwrap_or_default()
}
