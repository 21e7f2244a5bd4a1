//! Staging: rows become data files that no commit names yet. A data file is written once and used by every attempt to
//! commit it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType as ArrowType, TimestampMicrosecondType};
use delta_kernel::engine::arrow_conversion::TryFromArrow as _;
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt as _};
use delta_kernel::expressions::Scalar;
use delta_kernel::schema::{DataType, PrimitiveType, StructType};
use delta_kernel::transaction::BoundWriteContext;
use delta_kernel::{Engine as _, FileMeta, KernelResult, SnapshotRef};
use delta_kernel_default_engine::build_add_file_metadata;
use delta_kernel_default_engine::parquet::DataFileMetadata;
use delta_kernel_default_engine::stats::collect_stats;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{DynObjectStore, ObjectStoreExt as _};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::Proposal;
use super::attempt::{CommitAttempt, FileRows};
use crate::delta::errors::{from_arrow, from_kernel};
use crate::delta::log::store_path;
use crate::delta::schema;
use crate::delta::state::{self, BothClocks};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::environment;
use crate::storage::{KernelEngine, Storage};

/// Data files written concurrently.
const WRITERS: usize = 8;

/// Data files of up to this many rows are encoded for few rows.
const FEW_ROWS: usize = 256;

/// Staged files that are older are written anew before they are committed, for example after a long pause of the process:
/// a vacuum deletes files that no commit names, but never before they are an hour old.
const STALE: Duration = Duration::from_secs(20 * 60);

/// Data files that were written, and their `add` actions.
#[derive(Debug, Clone)]
pub(in crate::delta) struct StagedFiles {
    rows: Vec<FileRows>,
    /// `add` actions, one row per file.
    pub(in crate::delta) adds: Vec<RecordBatch>,
    /// The snapshot whose schema and properties the files follow.
    snapshot: SnapshotRef,
    partitions: Arc<[String]>,
    /// When they were written.
    written: BothClocks,
    /// The table's incarnation: files of a table that was deleted are gone with it.
    incarnation: u64,
}

impl StagedFiles {
    /// Writes the files for `rows`.
    pub(in crate::delta) fn write(attempt: &CommitAttempt<'_>, mut rows: Vec<FileRows>) -> Result<Self> {
        let (storage, snapshot, layout) = (&attempt.table.storage, attempt.snapshot, attempt.write_layout()?);
        let failed = |e| from_kernel(format!("writing rows to '{}'", snapshot.table_root()), e);
        rows.retain(|part| part.rows.num_rows() > 0);
        let (written, incarnation) = (state::now(), attempt.table.incarnation());
        let mut writes = Vec::new();
        for part in &rows {
            for (values, data) in split(&part.rows, &layout.partitions)? {
                let mut context = layout.state.write_context_builder();
                if !layout.partitions.is_empty() {
                    context = context.with_partition_values(values);
                }
                writes.push((context.build().map_err(failed)?, data, part.written_at.unwrap_or_else(now)));
            }
        }
        let (engine, store) = (Arc::clone(storage.engine()?), Arc::clone(storage.store()));
        let adds = storage.block_on(async move {
            let write = |(context, data, written_at)| write_file(&engine, &store, context, data, written_at);
            futures::stream::iter(writes.into_iter().map(write))
                .buffered(WRITERS)
                .try_collect::<Vec<RecordBatch>>()
                .await
        })?;
        let (adds, partitions) = (adds.map_err(failed)?, layout.partitions);
        Ok(Self { rows, adds, snapshot: Arc::clone(snapshot), partitions, written, incarnation })
    }

    /// Whether the files can be committed in this attempt: they are recent, and the table has the same columns, partitions
    /// and properties as when they were written.
    pub(in crate::delta) fn fits(&self, attempt: &CommitAttempt<'_>) -> Result<bool> {
        let snapshot = attempt.snapshot;
        if state::elapsed(self.written) > STALE || self.incarnation != attempt.table.incarnation() {
            return Ok(false);
        }
        let (then, now) = (self.snapshot.schema(), snapshot.schema());
        // Snapshots share the columns until a commit changes the table's columns, properties or protocol.
        if Arc::ptr_eq(&then, &now) {
            return Ok(true);
        }
        Ok(then == now
            && self.snapshot.table_properties() == snapshot.table_properties()
            && self.partitions == attempt.write_layout()?.partitions)
    }

    /// Deletes the files, which no commit names. Ignores errors: an orphan only takes space, until the next vacuum.
    pub(in crate::delta) fn discard(self, storage: &Storage) {
        for path in self.paths() {
            let Ok(url) = self.snapshot.table_root().join(&path) else { continue };
            let Ok(location) = store_path(&url) else { continue };
            let store = Arc::clone(storage.store());
            let deleted = storage.block_on(async move { store.delete(&location).await });
            tracing::debug!(%path, ?deleted, "a staged file that no commit names");
        }
    }

    /// The files' paths below the table, as the log spells them.
    pub(in crate::delta) fn paths(&self) -> Vec<String> {
        let columns = self.adds.iter().filter_map(|add| add.column_by_name("path")?.as_string_opt::<i32>());
        columns.flat_map(|paths| paths.iter().flatten().map(str::to_owned)).collect()
    }
}

/// `proposal` with its rows in data files: those that are `staged` if they hold the same rows and still fit, else new ones.
pub(super) fn stage(
    attempt: &CommitAttempt<'_>,
    staged: &mut Option<StagedFiles>,
    mut proposal: Proposal,
) -> Result<Proposal> {
    let rows = std::mem::take(&mut proposal.rows);
    if !rows.is_empty() {
        let files = match staged.take() {
            Some(before) if before.rows == rows && before.fits(attempt)? => before,
            before => {
                before.into_iter().for_each(|before| before.discard(&attempt.table.storage));
                StagedFiles::write(attempt, rows)?
            }
        };
        proposal.adds.extend_from_slice(&files.adds);
        *staged = Some(files);
    }
    Ok(proposal)
}

/// Now, in milliseconds since 1970. Never returns the same time twice in this process: files are read in this order, and
/// several may be written within a millisecond.
fn now() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = environment().utc().timestamp_millis();
    let next = |last: i64| now.max(last + 1);
    LAST.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last))).map_or(now, next)
}

/// Writes `data`, the rows of one partition without its columns, to a new data file. Returns the file's `add` action. The
/// kernel's own function for this asks the store for the size and the time of each file, and wastes memory on few rows.
async fn write_file(
    engine: &KernelEngine,
    store: &DynObjectStore,
    context: BoundWriteContext,
    data: RecordBatch,
    written_at: i64,
) -> KernelResult<RecordBatch> {
    let logical = StructType::try_from_arrow(data.schema())?;
    let physical = context.physical_data_schema();
    let converter = engine.evaluation_handler().new_expression_evaluator(
        logical.into(),
        context.logical_to_physical(),
        DataType::from(Arc::clone(physical)),
    )?;
    let data = converter.evaluate(&ArrowEngineData::new(data))?.try_into_record_batch()?;
    let stats = collect_stats(&data, context.stats_columns(), physical)?;
    let mut bytes = Vec::new();
    let options = ArrowWriterOptions::new().with_skip_arrow_metadata(true).with_properties(properties(data.num_rows()));
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, data.schema(), options)?;
    writer.write(&data)?;
    writer.close()?;
    let url = context.write_dir().join(&format!("{}.parquet", environment().uuid()))?;
    let file = DataFileMetadata::new(FileMeta::new(url.clone(), written_at, bytes.len() as u64), stats);
    store.put(&Path::from_url_path(url.path())?, bytes.into()).await?;
    build_add_file_metadata(file, &context)?.try_into_record_batch()
}

/// How a data file with so many rows is encoded. For few rows, a dictionary per column and an index of pages take more time
/// and room than they save.
fn properties(rows: usize) -> WriterProperties {
    let properties = WriterProperties::builder();
    if rows > FEW_ROWS {
        return properties.build();
    }
    properties
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .build()
}

/// Divides rows by partition value and takes the partition columns out. As a partition value, an empty string is NULL:
/// Delta writes both alike.
fn split(rows: &RecordBatch, partitions: &[String]) -> Result<Vec<(HashMap<String, Scalar>, RecordBatch)>> {
    if partitions.is_empty() {
        return Ok(vec![(HashMap::new(), rows.clone())]);
    }
    let failed = |e| from_arrow("dividing rows by partition", e);
    let columns = partitions.iter().map(|name| Ok((name, schema::column(rows, name)?))).collect::<Result<Vec<_>>>()?;
    let texts = columns.iter().map(|(_, column)| cast(column, &ArrowType::Utf8).map_err(failed));
    let texts = texts.collect::<Result<Vec<_>>>()?;
    let texts: Vec<_> = texts.iter().map(|column| column.as_string::<i32>()).collect();
    let mut order: Vec<Vec<u32>> = Vec::new();
    let mut groups: HashMap<Vec<Option<&str>>, usize> = HashMap::new();
    for row in 0..rows.num_rows() {
        let group = *groups.entry(texts.iter().map(|column| text(column, row)).collect()).or_insert_with(|| {
            order.push(Vec::new());
            order.len() - 1
        });
        order[group].push(u32::try_from(row).map_err(|e| {
            Error::invalid("more than 4,294,967,295 rows at once; append them in parts").with_source(e)
        })?);
    }
    let is_data = |at: &usize| !partitions.iter().any(|name| name == rows.schema_ref().field(*at).name());
    let data: Vec<usize> = (0..rows.num_columns()).filter(is_data).collect();
    let data = rows.project(&data).map_err(failed)?;
    let part = |members: Vec<u32>| -> Result<_> {
        let first = members.first().map_or(0, |&row| row as usize);
        let values = columns.iter().zip(&texts).map(|((name, column), texts)| {
            Ok(((*name).clone(), scalar(column, first, text(texts, first).unwrap_or_default())?))
        });
        let values = values.collect::<Result<HashMap<_, _>>>()?;
        let rows = match members.len() == rows.num_rows() {
            true => data.clone(),
            false => take_record_batch(&data, &UInt32Array::from(members)).map_err(failed)?,
        };
        Ok((values, rows))
    };
    order.into_iter().map(part).collect()
}

fn text(column: &StringArray, row: usize) -> Option<&str> {
    Some(column.value(row)).filter(|text| column.is_valid(row) && !text.is_empty())
}

/// The value of `column` at `row`, which `text` spells, as a partition value. An empty text is NULL.
fn scalar(column: &ArrayRef, row: usize, text: &str) -> Result<Scalar> {
    use PrimitiveType as P;
    let kind = match DataType::try_from_arrow(column.data_type()) {
        Ok(DataType::Primitive(kind))
            if !matches!(kind, P::Binary | P::Void | P::Decimal(_) | P::IntervalYearMonth | P::IntervalDayTime) =>
        {
            kind
        }
        _ => {
            let of = column.data_type();
            let text = format!("tables partitioned by a column of type {of} can be read, but not written");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
    };
    let moment: Option<fn(i64) -> Scalar> = match kind {
        P::Timestamp => Some(Scalar::Timestamp),
        P::TimestampNtz => Some(Scalar::TimestampNtz),
        _ => None,
    };
    if let Some(moment) = moment.filter(|_| column.is_valid(row)) {
        return Ok(moment(column.as_primitive::<TimestampMicrosecondType>().value(row)));
    }
    kind.parse_scalar(text).map_err(|e| from_kernel("reading a partition value", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_same_millisecond_have_times_in_the_order_in_which_they_were_written() {
        let begun = environment().utc().timestamp_millis();
        let times: Vec<i64> = (0..10_000).map(|_| now()).collect();
        assert!(times[0] >= begun && times.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn files_of_few_rows_have_no_dictionary_and_no_index_of_pages() {
        for (rows, are_few) in [(0, true), (FEW_ROWS, true), (FEW_ROWS + 1, false), (2 * FEW_ROWS, false)] {
            let properties = properties(rows);
            assert_eq!(properties.dictionary_enabled(&"name".into()), !are_few, "{rows}");
            assert_eq!(properties.offset_index_disabled(), are_few, "{rows}");
        }
    }
}
