//! An engine that passes the log actions which the kernel reads through a function.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt as _};
use delta_kernel::schema::SchemaRef;
use delta_kernel::{
    Engine, EngineData, EvaluationHandler, FileDataReadResultIterator, FileMeta, FileSize, FileSlice,
    FilteredEngineData, JsonHandler, KernelResult, KernelResultIterator, KernelResultIteratorStatic, ParquetFooter,
    ParquetHandler, PredicateRef, StorageHandler,
};
use url::Url;

use crate::storage::KernelEngine;

/// Returns the actions for the kernel to see instead of the given ones.
type OnRead = Arc<dyn Fn(RecordBatch) -> KernelResult<RecordBatch> + Send + Sync>;

/// Reads logs like the engine below it, but calls a function with each batch of actions read. Does not list checksum
/// files, which repeat the protocol and the transaction ids, and need not exist.
pub(in crate::delta) struct LogEngine {
    engine: Arc<KernelEngine>,
    on_read: OnRead,
}

impl LogEngine {
    pub(in crate::delta) fn new(
        engine: &Arc<KernelEngine>,
        on_read: impl Fn(RecordBatch) -> KernelResult<RecordBatch> + Send + Sync + 'static,
    ) -> Self {
        Self { engine: Arc::clone(engine), on_read: Arc::new(on_read) }
    }

    fn handler<T: ?Sized>(&self, inner: Arc<T>) -> Arc<Handler<T>> {
        Arc::new(Handler { inner, on_read: Arc::clone(&self.on_read) })
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

struct Handler<T: ?Sized> {
    inner: Arc<T>,
    on_read: OnRead,
}

impl<T: ?Sized> Handler<T> {
    fn read(&self, read: FileDataReadResultIterator) -> FileDataReadResultIterator {
        let on_read = Arc::clone(&self.on_read);
        Box::new(read.map(move |batch| {
            let batch = on_read(batch?.try_into_record_batch()?)?;
            Ok(Box::new(ArrowEngineData::new(batch)) as Box<dyn EngineData>)
        }))
    }
}

impl StorageHandler for Handler<dyn StorageHandler> {
    fn list_from(&self, path: &Url) -> KernelResult<KernelResultIteratorStatic<FileMeta>> {
        let listed = self.inner.list_from(path)?;
        Ok(Box::new(listed.filter(|file| !file.as_ref().is_ok_and(|file| file.location.path().ends_with(".crc")))))
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
