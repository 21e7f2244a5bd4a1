//! Staging: rows become data files that no commit names yet. A file is written once and offered to as many commits
//! as it takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arrow::array::{Array as _, AsArray as _, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt as _};
use delta_kernel::expressions::Scalar;
use delta_kernel::{KernelResult, SnapshotRef};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;

use super::commit::Attempt;
use super::create::store_path;
use super::failure::{from_arrow, from_kernel};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// Data files written side by side.
const WRITERS: usize = 8;

/// Rows that share data files: one per partition value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    /// With the table's schema.
    pub(super) rows: RecordBatch,
    /// The time that the log is to give for the files, in milliseconds since 1970. Rows that are only moved keep the time
    /// at which they were written: it is their place in the order in which rows are read. None: now.
    pub(super) written_at: Option<i64>,
}

impl Part {
    pub(super) fn new(rows: RecordBatch) -> Self {
        Self { rows, written_at: None }
    }
}

/// Data files written for `parts`, with what the log has to say about them.
#[derive(Debug, Clone)]
pub(super) struct Staged {
    /// What the files hold.
    parts: Vec<Part>,
    /// `add` actions, one row per file.
    pub(super) adds: Vec<RecordBatch>,
    /// The snapshot whose schema and properties they were written by.
    snapshot: SnapshotRef,
    partitions: Vec<String>,
    /// By both clocks, as either may stand still.
    written: (Instant, SystemTime),
}

/// Staged files that are older are written anew before they are committed, as after a long pause of the process: a vacuum
/// takes files that no commit names, though never before they are an hour old.
const STALE: Duration = Duration::from_secs(20 * 60);

impl Staged {
    /// The files for `parts` in this attempt: those of an earlier attempt if they hold the same and still fit, else new
    /// ones.
    pub(super) fn reuse_or_write(
        storage: &Storage,
        attempt: &Attempt<'_>,
        before: Option<Self>,
        parts: Vec<Part>,
    ) -> Result<Self> {
        match before {
            Some(before) if before.parts == parts && before.fits(attempt)? => Ok(before),
            before => {
                if let Some(before) = before {
                    before.discard(storage);
                }
                Self::write(storage, attempt, parts)
            }
        }
    }

    pub(super) fn write(storage: &Storage, attempt: &Attempt<'_>, mut parts: Vec<Part>) -> Result<Self> {
        let (snapshot, transaction) = (attempt.snapshot, attempt.transaction()?);
        let partitions = transaction.logical_partition_columns().to_vec();
        parts.retain(|part| part.rows.num_rows() > 0);
        if parts.is_empty() {
            let written = (Instant::now(), SystemTime::now());
            return Ok(Self { parts, adds: Vec::new(), snapshot: Arc::clone(snapshot), partitions, written });
        }
        let failed = |e| from_kernel(format!("writing rows to '{}'", snapshot.table_root()), e);
        let state = transaction.write_state().map_err(failed)?;
        let mut writes = Vec::new();
        for part in &parts {
            for (values, rows) in split(&part.rows, &partitions)? {
                let mut context = state.write_context_builder();
                if !partitions.is_empty() {
                    context = context.with_partition_values(values);
                }
                writes.push((context.build().map_err(failed)?, rows, part.written_at.unwrap_or_else(now)));
            }
        }
        let engine = Arc::clone(storage.engine()?);
        let since = (Instant::now(), SystemTime::now());
        let written = storage.block_on(async move {
            futures::stream::iter(writes.into_iter().map(|(context, rows, written_at)| {
                let engine = Arc::clone(&engine);
                async move {
                    let add = engine.write_parquet(&ArrowEngineData::new(rows), &context).await;
                    add.try_into_record_batch().and_then(|add| dated(add, written_at))
                }
            }))
            .buffered(WRITERS)
            .try_collect::<Vec<RecordBatch>>()
            .await
        })?;
        let adds = written.map_err(failed)?;
        Ok(Self { parts, adds, snapshot: Arc::clone(snapshot), partitions, written: since })
    }

    /// Whether the files can be committed in this attempt: same columns, partitions and properties of the table as when
    /// they were written.
    pub(super) fn fits(&self, attempt: &Attempt<'_>) -> Result<bool> {
        let snapshot = attempt.snapshot;
        if self.stale() {
            return Ok(false);
        }
        if Arc::ptr_eq(snapshot, &self.snapshot) {
            return Ok(true);
        }
        if self.snapshot.schema() != snapshot.schema()
            || self.snapshot.table_properties() != snapshot.table_properties()
        {
            return Ok(false);
        }
        Ok(self.partitions == attempt.transaction()?.logical_partition_columns())
    }

    /// Whether the files are so old that a vacuum could soon take them for leftovers.
    pub(super) fn stale(&self) -> bool {
        self.written.0.elapsed().max(self.written.1.elapsed().unwrap_or_default()) > STALE
    }

    /// Deletes the files, which no commit names: best effort, as an orphan costs nothing but space.
    pub(super) fn discard(self, storage: &Storage) {
        for path in self.paths() {
            let Ok(location) =
                self.snapshot.table_root().join(&path).map_err(drop).and_then(|url| store_path(&url).map_err(drop))
            else {
                continue;
            };
            let store = Arc::clone(storage.store());
            let deleted = storage.block_on(async move { store.delete(&location).await });
            tracing::debug!(%path, ?deleted, "a staged file that no commit names");
        }
    }

    /// Where the files are, relative to the table, as the log names them.
    pub(super) fn paths(&self) -> Vec<String> {
        let of = |add: &RecordBatch| {
            Some(
                add.column_by_name("path")?
                    .as_string_opt::<i32>()?
                    .iter()
                    .flatten()
                    .map(str::to_owned)
                    .collect::<Vec<_>>(),
            )
        };
        self.adds.iter().filter_map(of).flatten().collect()
    }
}

/// Now, in milliseconds since 1970, but never the same twice in this process: files are read in this order, and more than
/// one may be written within a millisecond.
fn now() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = chrono::Utc::now().timestamp_millis();
    let next = |last: i64| now.max(last + 1);
    LAST.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last))).map_or(now, next)
}

/// `add` actions with this modification time.
fn dated(add: RecordBatch, written_at: i64) -> KernelResult<RecordBatch> {
    let at = add.schema_ref().index_of("modificationTime")?;
    let mut columns = add.columns().to_vec();
    columns[at] = Arc::new(Int64Array::from(vec![written_at; add.num_rows()]));
    Ok(RecordBatch::try_new(add.schema(), columns)?)
}

/// Rows by partition value, each without the partition columns. An empty text is NULL as a partition value: Delta
/// writes both alike.
fn split(rows: &RecordBatch, partitions: &[String]) -> Result<Vec<(HashMap<String, Scalar>, RecordBatch)>> {
    if partitions.is_empty() {
        return Ok(vec![(HashMap::new(), rows.clone())]);
    }
    let columns =
        partitions.iter().map(|name| Ok((name, super::schema::column(rows, name)?))).collect::<Result<Vec<_>>>()?;
    let texts = columns
        .iter()
        .map(|(_, column)| cast(column, &DataType::Utf8).map_err(|e| from_arrow("dividing rows by partition", e)))
        .collect::<Result<Vec<_>>>()?;
    let texts: Vec<_> = texts.iter().map(|column| column.as_string::<i32>()).collect();
    let mut order: Vec<Vec<u32>> = Vec::new();
    let mut groups: HashMap<Vec<Option<&str>>, usize> = HashMap::new();
    for row in 0..rows.num_rows() {
        let key: Vec<Option<&str>> = texts
            .iter()
            .map(|column| column.is_valid(row).then(|| column.value(row)).filter(|text| !text.is_empty()))
            .collect();
        let group = *groups.entry(key).or_insert_with(|| {
            order.push(Vec::new());
            order.len() - 1
        });
        order[group].push(u32::try_from(row).map_err(|e| {
            Error::invalid("more than 4,294,967,295 rows at once; append them in parts").with_source(e)
        })?);
    }
    let data: Vec<usize> = (0..rows.num_columns())
        .filter(|&at| !partitions.iter().any(|name| name == rows.schema_ref().field(at).name()))
        .collect();
    let data = rows.project(&data).map_err(|e| from_arrow("dividing rows by partition", e))?;
    order
        .into_iter()
        .map(|members| {
            let first = members.first().map_or(0, |&row| row as usize);
            let values = columns
                .iter()
                .map(|(name, column)| Ok(((*name).clone(), scalar(column, first)?)))
                .collect::<Result<HashMap<_, _>>>()?;
            let part = if members.len() == rows.num_rows() {
                data.clone()
            } else {
                take_record_batch(&data, &UInt32Array::from(members))
                    .map_err(|e| from_arrow("dividing rows by partition", e))?
            };
            Ok((values, part))
        })
        .collect()
}

/// The value of `column` at `row`, as the kernel takes it for a partition.
fn scalar(column: &arrow::array::ArrayRef, row: usize) -> Result<Scalar> {
    use delta_kernel::schema::DataType as K;
    let null = column.is_null(row);
    let made = match column.data_type() {
        DataType::Utf8 if null => Scalar::Null(K::STRING),
        DataType::Utf8 => Scalar::String(column.as_string::<i32>().value(row).to_owned()),
        DataType::Int8 if null => Scalar::Null(K::BYTE),
        DataType::Int8 => Scalar::Byte(column.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 if null => Scalar::Null(K::SHORT),
        DataType::Int16 => Scalar::Short(column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 if null => Scalar::Null(K::INTEGER),
        DataType::Int32 => Scalar::Integer(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 if null => Scalar::Null(K::LONG),
        DataType::Int64 => Scalar::Long(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 if null => Scalar::Null(K::FLOAT),
        DataType::Float32 => Scalar::Float(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 if null => Scalar::Null(K::DOUBLE),
        DataType::Float64 => Scalar::Double(column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean if null => Scalar::Null(K::BOOLEAN),
        DataType::Boolean => Scalar::Boolean(column.as_boolean().value(row)),
        DataType::Date32 if null => Scalar::Null(K::DATE),
        DataType::Date32 => Scalar::Date(column.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) if null => Scalar::Null(K::TIMESTAMP),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            Scalar::Timestamp(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) if null => Scalar::Null(K::TIMESTAMP_NTZ),
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            Scalar::TimestampNtz(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        other => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("tables partitioned by a column of type {other} can be read, but not written"),
            ));
        }
    };
    Ok(made)
}
