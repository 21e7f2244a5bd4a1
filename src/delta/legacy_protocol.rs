//! Legacy protocol versions, as the kernel needs to see them.
//!
//! Before table features, a table's writer version stood for a whole set of features: version 5, which column mapping
//! needs, includes CHECK constraints and generated columns whether the table has any or not (Delta protocol, "Table
//! Features"). The kernel cannot write tables with these two, nor identity columns, and takes the version for their
//! presence. So it is shown the same protocol as a list of features without them, and a table that does use one is
//! refused by [`unwritable_column`] or by the kernel itself, which finds constraints among the properties. Only readers
//! of the log see it so: nothing is written.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Int32Array, ListArray, RecordBatch, StringArray, StringBuilder, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int32Type};
use bytes::Bytes;
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt as _};
use delta_kernel::schema::SchemaRef;
use delta_kernel::{
    Engine, EngineData, EvaluationHandler, FileDataReadResultIterator, FileMeta, FileSize, FileSlice,
    FilteredEngineData, JsonHandler, KernelResult, KernelResultIterator, KernelResultIteratorStatic, ParquetFooter,
    ParquetHandler, PredicateRef, Snapshot, StorageHandler,
};
use url::Url;

use crate::storage::KernelEngine;

/// Writer versions that stand for features which the kernel cannot write.
const LEGACY: std::ops::RangeInclusive<i32> = 3..=6;
/// The writer version of protocols that list their features.
const FEATURES: i32 = 7;

/// What those versions stand for besides the features that the kernel cannot write: the feature, and since when.
const FEATURES_SINCE: [(&str, i32); 4] =
    [("appendOnly", 2), ("invariants", 2), ("changeDataFeed", 4), ("columnMapping", 5)];

/// The column metadata by which a column is generated or an identity column.
const UNWRITABLE: [(&str, &str); 2] =
    [("delta.generationExpression", "generatedColumns"), ("delta.identity.start", "identityColumns")];

/// The column of the table, and its feature, that the kernel cannot write.
pub(super) fn unwritable_column(snapshot: &Snapshot) -> Option<(String, &'static str)> {
    let schema = snapshot.schema();
    schema.fields().find_map(|field| {
        let (_, feature) = UNWRITABLE.iter().find(|(key, _)| field.metadata.contains_key(*key))?;
        Some((field.name().clone(), *feature))
    })
}

/// The engine with which snapshots are built.
pub(super) struct LogReader {
    engine: Arc<KernelEngine>,
    storage: Arc<Shown<dyn StorageHandler>>,
    json: Arc<Shown<dyn JsonHandler>>,
    parquet: Arc<Shown<dyn ParquetHandler>>,
}

impl LogReader {
    pub(super) fn new(engine: &Arc<KernelEngine>) -> Self {
        Self {
            engine: Arc::clone(engine),
            storage: Arc::new(Shown(engine.storage_handler())),
            json: Arc::new(Shown(engine.json_handler())),
            parquet: Arc::new(Shown(engine.parquet_handler())),
        }
    }
}

impl Engine for LogReader {
    fn evaluation_handler(&self) -> Arc<dyn EvaluationHandler> {
        self.engine.evaluation_handler()
    }

    fn storage_handler(&self) -> Arc<dyn StorageHandler> {
        self.storage.clone()
    }

    fn json_handler(&self) -> Arc<dyn JsonHandler> {
        self.json.clone()
    }

    fn parquet_handler(&self) -> Arc<dyn ParquetHandler> {
        self.parquet.clone()
    }
}

/// A handler whose protocols are shown as lists of features.
struct Shown<T: ?Sized>(Arc<T>);

impl StorageHandler for Shown<dyn StorageHandler> {
    /// Without checksum files, which give the protocol as well and need not be there.
    fn list_from(&self, path: &Url) -> KernelResult<KernelResultIteratorStatic<FileMeta>> {
        let listed = self.0.list_from(path)?;
        Ok(Box::new(listed.filter(|file| !file.as_ref().is_ok_and(|file| file.location.path().ends_with(".crc")))))
    }

    fn read_files(&self, files: Vec<FileSlice>) -> KernelResult<KernelResultIteratorStatic<Bytes>> {
        self.0.read_files(files)
    }

    fn copy_atomic(&self, from: &Url, to: &Url) -> KernelResult<()> {
        self.0.copy_atomic(from, to)
    }

    fn put(&self, path: &Url, data: Bytes, overwrite: bool) -> KernelResult<()> {
        self.0.put(path, data, overwrite)
    }

    fn head(&self, path: &Url) -> KernelResult<FileMeta> {
        self.0.head(path)
    }

    fn delete(&self, path: &Url) -> KernelResult<()> {
        self.0.delete(path)
    }
}

impl JsonHandler for Shown<dyn JsonHandler> {
    fn parse_json(&self, strings: Box<dyn EngineData>, schema: SchemaRef) -> KernelResult<Box<dyn EngineData>> {
        self.0.parse_json(strings, schema)
    }

    fn read_json_files(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        let read = self.0.read_json_files(files, schema, predicate)?;
        Ok(Box::new(read.map(|batch| shown(batch?))))
    }

    fn write_json_file(
        &self,
        path: &Url,
        data: KernelResultIterator<'_, FilteredEngineData>,
        overwrite: bool,
    ) -> KernelResult<FileSize> {
        self.0.write_json_file(path, data, overwrite)
    }
}

impl ParquetHandler for Shown<dyn ParquetHandler> {
    fn read_parquet_files(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        let read = self.0.read_parquet_files(files, schema, predicate)?;
        Ok(Box::new(read.map(|batch| shown(batch?))))
    }

    fn write_parquet_file(
        &self,
        location: Url,
        data: KernelResultIteratorStatic<Box<dyn EngineData>>,
    ) -> KernelResult<FileSize> {
        self.0.write_parquet_file(location, data)
    }

    fn read_parquet_footer(&self, file: &FileMeta) -> KernelResult<ParquetFooter> {
        self.0.read_parquet_footer(file)
    }
}

/// `data` with its legacy protocols as lists of features.
fn shown(data: Box<dyn EngineData>) -> KernelResult<Box<dyn EngineData>> {
    let batch = data.try_into_record_batch()?;
    Ok(Box::new(ArrowEngineData::new(listed(&batch)?.unwrap_or(batch))))
}

/// `None` when there is no legacy protocol in `batch`.
fn listed(batch: &RecordBatch) -> KernelResult<Option<RecordBatch>> {
    let Some((at, _)) = batch.schema_ref().column_with_name("protocol") else { return Ok(None) };
    let Some(protocols) = batch.column(at).as_struct_opt() else { return Ok(None) };
    let column = |name: &str| protocols.column_by_name(name);
    let (Some(versions), Some(features)) = (column("minWriterVersion"), column("writerFeatures")) else {
        return Ok(None);
    };
    let (Some(versions), Some(features)) = (versions.as_primitive_opt::<Int32Type>(), features.as_list_opt::<i32>())
    else {
        return Ok(None);
    };
    let legacy =
        |row: usize| protocols.is_valid(row) && versions.is_valid(row) && LEGACY.contains(&versions.value(row));
    if !(0..batch.num_rows()).any(legacy) {
        return Ok(None);
    }
    let new_versions: Int32Array = (0..versions.len())
        .map(|row| if legacy(row) { Some(FEATURES) } else { versions.is_valid(row).then(|| versions.value(row)) })
        .collect();
    let named = |row: usize| -> Option<Vec<String>> {
        if legacy(row) {
            let version = versions.value(row);
            let known = FEATURES_SINCE.iter().filter(|(_, since)| *since <= version);
            return Some(known.map(|(name, _)| (*name).to_owned()).collect());
        }
        let list = features.is_valid(row).then(|| features.value(row))?;
        let list: &StringArray = list.as_string_opt()?;
        Some(list.iter().flatten().map(str::to_owned).collect())
    };
    let rows: Vec<Option<Vec<String>>> = (0..features.len()).map(named).collect();
    let new_features = lists(features.data_type(), &rows)?;
    let columns: Vec<ArrayRef> = protocols
        .column_names()
        .iter()
        .zip(protocols.columns())
        .map(|(name, column)| match *name {
            "minWriterVersion" => Arc::new(new_versions.clone()) as ArrayRef,
            "writerFeatures" => Arc::clone(&new_features),
            _ => Arc::clone(column),
        })
        .collect();
    let protocols = StructArray::try_new(protocols.fields().clone(), columns, protocols.nulls().cloned())?;
    let mut columns = batch.columns().to_vec();
    columns[at] = Arc::new(protocols);
    Ok(Some(RecordBatch::try_new(batch.schema(), columns)?))
}

/// Lists of text of this type.
fn lists(kind: &DataType, rows: &[Option<Vec<String>>]) -> KernelResult<ArrayRef> {
    let item = match kind {
        DataType::List(item) => Arc::clone(item),
        _ => Arc::new(Field::new("element", DataType::Utf8, true)),
    };
    let mut texts = StringBuilder::new();
    for text in rows.iter().flatten().flatten() {
        texts.append_value(text);
    }
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(|row| row.as_ref().map_or(0, Vec::len)));
    let nulls = rows.iter().map(Option::is_some).collect::<Vec<bool>>().into();
    Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(texts.finish()), Some(nulls))?))
}
