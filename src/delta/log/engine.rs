//! An engine that passes the log actions which the kernel reads through a function.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use arrow::array::RecordBatch;
use bytes::Bytes;
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt as _};
use delta_kernel::schema::SchemaRef;
use delta_kernel::{
    Engine, EngineData, EvaluationHandler, FileDataReadResultIterator, FileMeta, FileSize, FileSlice,
    FilteredEngineData, JsonHandler, KernelResult, KernelResultIterator, KernelResultIteratorStatic, ParquetFooter,
    ParquetHandler, PredicateRef, StorageHandler,
};
use object_store::ObjectMeta;
use url::Url;

use crate::runtime::lock;
use crate::storage::KernelEngine;
use crate::storage::file_names::entry_version;

/// What tells the file of a log entry from another file of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delta) struct EntryFile {
    /// When it was written, in milliseconds since 1970. On a local disk: when it was created, in nanoseconds, where the file system
    /// says so, because programs can set the other time.
    written: i128,
    /// Its size in bytes.
    size: u64,
    /// Its number on a local disk; 0 for objects of a remote store.
    pub(in crate::delta) inode: u64,
}

impl EntryFile {
    /// The file on a local disk.
    pub(in crate::delta) fn of(file: &Metadata) -> Option<Self> {
        let since = file.created().or_else(|_| file.modified()).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let written = i128::try_from(since.as_nanos()).ok()?;
        Some(Self { written, size: file.len(), inode: file.ino() })
    }

    /// Whether both are the same object of a remote store. Listings and single answers can differ in parts of a second.
    pub(in crate::delta) fn is_same_object(&self, other: &Self) -> bool {
        self.written.div_euclid(1000) == other.written.div_euclid(1000) && self.size == other.size
    }
}

impl From<&ObjectMeta> for EntryFile {
    fn from(meta: &ObjectMeta) -> Self {
        Self { written: meta.last_modified.timestamp_millis().into(), size: meta.size, inode: 0 }
    }
}

/// What is made of the log while the kernel reads it.
struct LogObserver {
    /// Returns the actions for the kernel to see instead of the given ones.
    on_read: Box<dyn Fn(RecordBatch) -> KernelResult<RecordBatch> + Send + Sync>,
    /// An entry that is listed also where a listing would begin after it.
    version: Option<u64>,
    /// Which log entries the listings showed: this one,
    seen: Mutex<Option<EntryFile>>,
    /// and the newest one with its version.
    newest: Mutex<Option<(u64, EntryFile)>>,
}

impl LogObserver {
    fn note(&self, version: u64, file: &FileMeta) {
        let entry = EntryFile { written: file.last_modified.into(), size: file.size, inode: 0 };
        if self.version == Some(version) {
            *lock(&self.seen) = Some(entry.clone());
        }
        let mut newest = lock(&self.newest);
        if newest.as_ref().is_none_or(|(newest, _)| version >= *newest) {
            *newest = Some((version, entry));
        }
    }
}

/// Reads logs like the engine below it, but calls a function with each batch of actions read. Does not list checksum
/// files, which repeat the protocol and the transaction ids, and need not exist.
pub(in crate::delta) struct LogEngine {
    engine: Arc<KernelEngine>,
    watch: Arc<LogObserver>,
}

impl LogEngine {
    /// An engine whose listings also show the log entry of version `watched`: see [`LogEngine::watched`].
    pub(in crate::delta) fn new(
        engine: &Arc<KernelEngine>,
        watched: Option<u64>,
        on_read: impl Fn(RecordBatch) -> KernelResult<RecordBatch> + Send + Sync + 'static,
    ) -> Self {
        let (seen, newest) = (Mutex::default(), Mutex::default());
        let watch = LogObserver { on_read: Box::new(on_read), version: watched, seen, newest };
        Self { engine: Arc::clone(engine), watch: Arc::new(watch) }
    }

    /// The entry that is watched, if a listing showed it.
    pub(in crate::delta) fn watched(&self) -> Option<EntryFile> {
        lock(&self.watch.seen).clone()
    }

    /// The newest log entry that a listing showed, and its version.
    pub(in crate::delta) fn newest_entry(&self) -> Option<(u64, EntryFile)> {
        lock(&self.watch.newest).clone()
    }

    fn handler<T: ?Sized>(&self, inner: Arc<T>) -> Arc<Handler<T>> {
        Arc::new(Handler { inner, watch: Arc::clone(&self.watch) })
    }
}

impl Engine for LogEngine {
    fn evaluation_handler(&self) -> Arc<dyn EvaluationHandler> {
        self.engine.evaluation_handler()
    }

    fn storage_handler(&self) -> Arc<dyn StorageHandler> {
        self.handler(self.engine.storage_handler())
    }

    fn json_handler(&self) -> Arc<dyn JsonHandler> {
        self.handler(self.engine.json_handler())
    }

    fn parquet_handler(&self) -> Arc<dyn ParquetHandler> {
        self.handler(self.engine.parquet_handler())
    }
}

/// The name of a file.
fn name(url: &Url) -> &str {
    url.path().rsplit('/').next().unwrap_or_default()
}

struct Handler<T: ?Sized> {
    inner: Arc<T>,
    watch: Arc<LogObserver>,
}

impl<T: ?Sized> Handler<T> {
    fn read(&self, read: FileDataReadResultIterator) -> FileDataReadResultIterator {
        let watch = Arc::clone(&self.watch);
        Box::new(read.map(move |batch| {
            let batch = (watch.on_read)(batch?.try_into_record_batch()?)?;
            Ok(Box::new(ArrowEngineData::new(batch)) as Box<dyn EngineData>)
        }))
    }
}

impl StorageHandler for Handler<dyn StorageHandler> {
    fn list_from(&self, path: &Url) -> KernelResult<KernelResultIteratorStatic<FileMeta>> {
        let first = name(path).to_owned();
        // The entry that is watched is right before those that are asked for.
        let earlier = self.watch.version.map(|version| format!("{version:020}")).filter(|earlier| *earlier < first);
        let from = earlier.and_then(|earlier| path.join(&earlier).ok());
        let listed = self.inner.list_from(from.as_ref().unwrap_or(path))?;
        let watch = Arc::clone(&self.watch);
        Ok(Box::new(listed.filter(move |file| {
            let Ok(file) = file else { return true };
            let name = name(&file.location);
            if let Some(version) = entry_version(name) {
                watch.note(version, file);
            }
            name > first.as_str() && !name.ends_with(".crc")
        })))
    }

    fn read_files(&self, files: Vec<FileSlice>) -> KernelResult<KernelResultIteratorStatic<Bytes>> {
        self.inner.read_files(files)
    }

    fn copy_atomic(&self, from: &Url, to: &Url) -> KernelResult<()> {
        self.inner.copy_atomic(from, to)
    }

    fn put(&self, path: &Url, data: Bytes, overwrite: bool) -> KernelResult<()> {
        self.inner.put(path, data, overwrite)
    }

    fn head(&self, path: &Url) -> KernelResult<FileMeta> {
        self.inner.head(path)
    }

    fn delete(&self, path: &Url) -> KernelResult<()> {
        self.inner.delete(path)
    }
}

impl JsonHandler for Handler<dyn JsonHandler> {
    fn parse_json(&self, strings: Box<dyn EngineData>, schema: SchemaRef) -> KernelResult<Box<dyn EngineData>> {
        self.inner.parse_json(strings, schema)
    }

    fn read_json_files(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        Ok(self.read(self.inner.read_json_files(files, schema, predicate)?))
    }

    fn write_json_file(
        &self,
        path: &Url,
        data: KernelResultIterator<'_, FilteredEngineData>,
        overwrite: bool,
    ) -> KernelResult<FileSize> {
        self.inner.write_json_file(path, data, overwrite)
    }
}

impl ParquetHandler for Handler<dyn ParquetHandler> {
    fn read_parquet_files(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        Ok(self.read(self.inner.read_parquet_files(files, schema, predicate)?))
    }

    fn write_parquet_file(
        &self,
        location: Url,
        data: KernelResultIteratorStatic<Box<dyn EngineData>>,
    ) -> KernelResult<FileSize> {
        self.inner.write_parquet_file(location, data)
    }

    fn read_parquet_footer(&self, file: &FileMeta) -> KernelResult<ParquetFooter> {
        self.inner.read_parquet_footer(file)
    }
}
