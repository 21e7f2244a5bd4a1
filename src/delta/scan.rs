//! Reading: which files of a snapshot may hold matching rows, and the rows themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use arrow::array::{
    Array as _, BooleanArray, RecordBatch, Scalar as ArrowScalar, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::kernels::cmp;
use arrow::compute::{and, filter_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use delta_kernel::engine::arrow_data::EngineDataArrowExt as _;
use delta_kernel::expressions::{Expression, Predicate as KernelPredicate, Scalar};
use delta_kernel::scan::Scan;
use delta_kernel::scan::state::{ScanFile, transform_to_logical};
use delta_kernel::{Engine, FileMeta, KernelError, KernelResult, SnapshotRef};

use super::failure::{from_arrow, from_kernel};
use super::maintenance::Health;
use super::read_files::ReadFiles;
use super::schema;
use super::shared::Inner;
use super::table::Predicate;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::KernelEngine;

/// Data files read side by side: an object store's latency, not its bandwidth, is what small files cost.
const READERS: usize = 8;

/// A scan of one snapshot.
pub(super) struct Scanner<'a> {
    scan: Scan,
    engine: Arc<KernelEngine>,
    schema: SchemaRef,
    known: Option<&'a ReadFiles>,
}

/// One batch of log replay: `rows` are the data files in it that may hold matching rows.
pub(super) struct Listing {
    /// As the kernel takes it back to remove files.
    pub(super) metadata: RecordBatch,
    /// Row of `metadata`, and the file it speaks of.
    pub(super) rows: Vec<(usize, ScanFile)>,
}

impl<'a> Scanner<'a> {
    /// A scan of `snapshot` that skips what `predicate` rules out by partition values and statistics.
    pub(super) fn new(engine: &Arc<KernelEngine>, snapshot: &SnapshotRef, predicate: &Predicate) -> Result<Self> {
        Self::of_columns(engine, snapshot, predicate, None)
    }

    /// As [`Scanner::new`], of some columns (all if None), among which are those of the predicate.
    pub(super) fn of_columns(
        engine: &Arc<KernelEngine>,
        snapshot: &SnapshotRef,
        predicate: &Predicate,
        columns: Option<&[&str]>,
    ) -> Result<Self> {
        let mut schema = schema::of(snapshot)?;
        let pruning = pruning(predicate, &schema)?;
        let failed = |e| from_kernel(format!("planning the read of '{}'", snapshot.table_root()), e);
        let mut scan = Arc::clone(snapshot).scan_builder().with_predicate(pruning.map(Arc::new));
        if let Some(columns) = columns {
            let fields = columns.iter().map(|name| schema.field_with_name(name).cloned());
            let fields =
                fields.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| from_arrow("picking columns", e))?;
            schema = Arc::new(Schema::new(fields));
            scan = scan.with_schema(snapshot.schema().project(columns).map_err(failed)?);
        }
        let scan = scan.build().map_err(failed)?;
        Ok(Self { scan, engine: Arc::clone(engine), schema, known: None })
    }

    /// Takes the rows of small files from what was read before, and adds to it.
    pub(super) fn knowing(self, known: &'a ReadFiles) -> Self {
        Self { known: Some(known), ..self }
    }

    /// The table's schema at this snapshot.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether data files hold the table's columns under their own names and nothing has to be added to them.
    pub(super) fn reads_as_stored(&self) -> bool {
        let (physical, logical) = (self.scan.physical_schema(), self.scan.logical_schema());
        physical.fields().map(|field| field.name()).eq(logical.fields().map(|field| field.name()))
    }

    /// The files that may hold matching rows.
    pub(super) fn files(&self) -> Result<Vec<Listing>> {
        self.list().map_err(|e| from_kernel(format!("reading the log of '{}'", self.scan.table_root()), e))
    }

    fn list(&self) -> KernelResult<Vec<Listing>> {
        let mut listings = Vec::new();
        for found in self.scan.scan_metadata(self.engine.as_ref())? {
            let found = found?;
            let files = found.visit_scan_files(Vec::new(), |files: &mut Vec<ScanFile>, file| files.push(file))?;
            let (data, selected) = found.scan_files.into_parts();
            // Rows beyond the selection vector count as selected.
            let rows: Vec<usize> = (0..data.len()).filter(|&row| selected.get(row).copied().unwrap_or(true)).collect();
            if rows.len() != files.len() {
                return Err(KernelError::generic(format!(
                    "{} files are selected, but {} were listed",
                    rows.len(),
                    files.len()
                )));
            }
            let rows = rows.into_iter().zip(files).collect();
            listings.push(Listing { metadata: data.try_into_record_batch()?, rows });
        }
        Ok(listings)
    }

    /// The live rows of `file` (without those that a deletion vector hides), in the table's schema.
    pub(super) fn read(&self, file: &ScanFile) -> Result<RecordBatch> {
        if let Some(rows) = self.known.and_then(|known| known.get(&self.schema, file)) {
            return Ok(rows);
        }
        let rows = self.read_anew(file)?;
        if let Some(known) = self.known {
            known.put(&self.schema, file, &rows);
        }
        Ok(rows)
    }

    fn read_anew(&self, file: &ScanFile) -> Result<RecordBatch> {
        let batches = self
            .read_batches(file)
            .map_err(|e| from_kernel(format!("reading '{}' of '{}'", file.path, self.scan.table_root()), e))?;
        let batches = batches
            .iter()
            .map(|batch| {
                let columns = self
                    .schema
                    .fields()
                    .iter()
                    .map(|field| schema::convert(schema::column(batch, field.name())?, field))
                    .collect::<Result<Vec<_>>>()?;
                RecordBatch::try_new(Arc::clone(&self.schema), columns)
                    .map_err(|e| from_arrow(format!("reading '{}'", file.path), e))
            })
            .collect::<Result<Vec<_>>>()?;
        let rows = schema::concat(&self.schema, &batches)?;
        let hidden = file
            .dv_info
            .get_selection_vector(self.engine.as_ref(), self.scan.table_root())
            .map_err(|e| from_kernel(format!("reading the deletion vector of '{}'", file.path), e))?;
        match hidden {
            None => Ok(rows),
            Some(mut live) => {
                // A vector may be shorter than the file: the rest is live.
                live.resize(rows.num_rows(), true);
                filter_record_batch(&rows, &BooleanArray::from(live)).map_err(|e| from_arrow("hiding deleted rows", e))
            }
        }
    }

    fn read_batches(&self, file: &ScanFile) -> KernelResult<Vec<RecordBatch>> {
        let meta = FileMeta {
            location: self.scan.table_root().join(&file.path)?,
            last_modified: file.modification_time,
            size: file
                .size
                .try_into()
                .map_err(|_| KernelError::generic(format!("'{}' has a negative size", file.path)))?,
        };
        let physical = self.scan.physical_schema();
        // No predicate here: row groups that a reader leaves out would shift the deletion vector.
        self.engine
            .parquet_handler()
            .read_parquet_files(&[meta], Arc::clone(physical), None)?
            .map(|batch| {
                transform_to_logical(
                    self.engine.as_ref(),
                    batch?,
                    physical,
                    self.scan.logical_schema(),
                    file.transform.clone(),
                )
                .try_into_record_batch()
            })
            .collect()
    }

    /// What `each` makes of the rows of every file, side by side, in the order of `files`.
    pub(super) fn read_all<'f, T: Send>(
        &self,
        files: impl IntoIterator<Item = &'f ScanFile>,
        each: impl Fn(&ScanFile, RecordBatch) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let files: Vec<&ScanFile> = files.into_iter().collect();
        if files.len() < 2 {
            return files.into_iter().map(|file| each(file, self.read(file)?)).collect();
        }
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Result<T>)>> = Mutex::new(Vec::with_capacity(files.len()));
        std::thread::scope(|threads| {
            for _ in 0..files.len().min(READERS) {
                threads.spawn(|| {
                    while let Some((at, file)) =
                        Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, *files.get(at)?)))
                    {
                        let made = self.read(file).and_then(|rows| each(file, rows));
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((at, made));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, made)| made).collect()
    }
}

/// Files in the order in which they were written, each with its listing and its place in there. The log is replayed newest
/// commit first, which settles the order of files that other clients wrote within one millisecond.
pub(super) fn oldest_first(listings: &[Listing]) -> Vec<(usize, usize, &ScanFile)> {
    let mut files: Vec<_> = listings
        .iter()
        .enumerate()
        .rev()
        .flat_map(|(at, listing)| listing.rows.iter().map(move |(row, file)| (at, *row, file)))
        .collect();
    files.sort_by_key(|(_, _, file)| file.modification_time);
    files
}

/// The rows of `snapshot` that match `predicate`, in the order in which they were written: callers break ties by it.
pub(super) fn rows(
    engine: &Arc<KernelEngine>,
    snapshot: &SnapshotRef,
    predicate: &Predicate,
    health: &Health,
    known: &ReadFiles,
) -> Result<RecordBatch> {
    let scanner = Scanner::new(engine, snapshot, predicate)?.knowing(known);
    let listings = scanner.files()?;
    health.listed(&listings);
    let batches = scanner
        .read_all(oldest_first(&listings).into_iter().map(|(.., file)| file), |_, rows| keep(&rows, predicate))?;
    schema::concat(scanner.schema(), &batches)
}

/// As [`rows`], with only these columns, among which are those of the predicate.
pub(super) fn columns(
    table: &Inner,
    snapshot: &SnapshotRef,
    predicate: &Predicate,
    names: &[&str],
) -> Result<RecordBatch> {
    let scanner = Scanner::of_columns(table.storage.engine()?, snapshot, predicate, Some(names))?;
    let listings = scanner.files()?;
    table.health.listed(&listings);
    let files = oldest_first(&listings).into_iter().map(|(.., file)| file);
    let batches = scanner.read_all(files, |_, rows| keep(&rows, predicate))?;
    schema::concat(scanner.schema(), &batches)
}

/// Exactly the rows that match. NULL matches nothing.
fn keep(rows: &RecordBatch, predicate: &Predicate) -> Result<RecordBatch> {
    let Some(matching) = matching(rows, predicate)? else { return Ok(rows.clone()) };
    filter_record_batch(rows, &matching).map_err(|e| from_arrow("filtering rows", e))
}

fn matching(rows: &RecordBatch, predicate: &Predicate) -> Result<Option<BooleanArray>> {
    let mut all: Option<BooleanArray> = None;
    let mut also = |one: BooleanArray| -> Result<()> {
        all = Some(match all.take() {
            None => one,
            Some(before) => and(&before, &one).map_err(|e| from_arrow("filtering rows", e))?,
        });
        Ok(())
    };
    for (name, text) in &predicate.equals {
        let wanted = ArrowScalar::new(StringArray::from(vec![text.as_str()]));
        also(cmp::eq(schema::column(rows, name)?, &wanted).map_err(|e| from_arrow("filtering rows", e))?)?;
    }
    if let Some((name, since, until)) = &predicate.time {
        let column = schema::column(rows, name)?;
        let zone = match column.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let bound =
            |at: i64| ArrowScalar::new(TimestampMicrosecondArray::from(vec![at]).with_timezone_opt(zone.clone()));
        if let Some(since) = since {
            also(cmp::gt_eq(column, &bound(*since)).map_err(|e| from_arrow("filtering rows", e))?)?;
        }
        if let Some(until) = until {
            also(cmp::lt(column, &bound(*until)).map_err(|e| from_arrow("filtering rows", e))?)?;
        }
    }
    Ok(all)
}

/// The kernel's form of `predicate`, which skips files. Checks that the columns exist and have the type asked for.
fn pruning(predicate: &Predicate, schema: &SchemaRef) -> Result<Option<KernelPredicate>> {
    let mut parts = Vec::new();
    let field = |name: &str| {
        schema
            .field_with_name(name)
            .map_err(|e| Error::invalid(format!("the table has no column '{name}' to filter by")).with_source(e))
    };
    for (name, text) in &predicate.equals {
        if *field(name)?.data_type() != DataType::Utf8 {
            return Err(Error::invalid(format!("the column '{name}' holds no text, so it cannot equal '{text}'")));
        }
        parts.push(Expression::column([name.as_str()]).eq(Expression::literal(text.as_str())));
    }
    if let Some((name, since, until)) = &predicate.time {
        let scalar = match field(name)?.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Scalar::Timestamp,
            DataType::Timestamp(TimeUnit::Microsecond, None) => Scalar::TimestampNtz,
            other => {
                return Err(Error::invalid(format!("the column '{name}' is {other} and holds no times to filter by")));
            }
        };
        let column = || Expression::column([name.as_str()]);
        parts.extend(since.map(|at| column().ge(Expression::literal(scalar(at)))));
        parts.extend(until.map(|at| column().lt(Expression::literal(scalar(at)))));
    }
    Ok((!parts.is_empty()).then(|| KernelPredicate::and_from(parts)))
}

/// `predicate` as SQL text, for the table's history.
pub(super) fn as_sql(predicate: &Predicate) -> String {
    let mut parts: Vec<String> =
        predicate.equals.iter().map(|(name, text)| format!("`{name}` = '{}'", text.replace('\'', "''"))).collect();
    if let Some((name, since, until)) = &predicate.time {
        parts.extend(since.map(|at| format!("`{name}` >= timestamp_micros({at})")));
        parts.extend(until.map(|at| format!("`{name}` < timestamp_micros({at})")));
    }
    if parts.is_empty() { "true".to_owned() } else { parts.join(" AND ") }
}

/// An error for a listing that names a row it does not have.
pub(super) fn no_such_row() -> Error {
    Error::new(ErrorKind::Internal, "the table's log lists a file twice")
}
