//! Lists the data files of a snapshot and reads them, by predicates: for the kernel, which skips files by them, and on rows.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{BooleanArray, RecordBatch, Scalar as ArrowScalar, StringArray, TimestampMicrosecondArray};
use arrow::compute::kernels::cmp;
use arrow::compute::{and, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt as _};
use delta_kernel::expressions::{Expression, Predicate as KernelPredicate, Scalar};
use delta_kernel::scan::state::{ScanFile, transform_to_logical};
use delta_kernel::scan::{Scan, ScanMetadata};
use delta_kernel::{Engine as _, EngineData, FileMeta, KernelError, KernelResult, SnapshotRef};

use crate::delta::errors::{from_arrow, from_kernel};
use crate::delta::schema;
use crate::delta::state::{FileBatch, Listing, RowCache, TableState};
use crate::delta::types::Predicate;
use crate::error::{Error, Result};
use crate::runtime::{environment, lock};
use crate::storage::KernelEngine;

/// Data files read concurrently: small files cost the object store's latency, not its bandwidth.
const READERS: usize = 8;

/// A scan of one snapshot.
pub(in crate::delta) struct Scanner<'a> {
    table: &'a TableState,
    engine: &'a Arc<KernelEngine>,
    scan: Scan,
    /// The schema of the rows read.
    pub(in crate::delta) schema: SchemaRef,
    pub(in crate::delta) caches: Vec<&'a RowCache>,
    /// What the scan skips files by; `None` if it reads only some columns.
    listed_by: Option<Predicate>,
}

impl<'a> Scanner<'a> {
    /// A scan of `snapshot` that skips files by `predicate`. It reads small files through the table's cache.
    pub(in crate::delta) fn new(table: &'a TableState, snapshot: &SnapshotRef, predicate: &Predicate) -> Result<Self> {
        Ok(Self { caches: vec![&table.row_cache], ..Self::uncached(table, snapshot, predicate, None)? })
    }

    /// As [`Scanner::new`], without a cache, and of some columns (`None`: all), which must include those of the predicate.
    pub(in crate::delta) fn uncached(
        table: &'a TableState,
        snapshot: &SnapshotRef,
        predicate: &Predicate,
        columns: Option<&[&str]>,
    ) -> Result<Self> {
        let mut schema = table.schema(snapshot)?;
        let pruning = to_kernel(predicate, &schema)?;
        let failed = |e| from_kernel(format!("planning the read of '{}'", snapshot.table_root()), e);
        let mut scan = Arc::clone(snapshot).scan_builder().with_predicate(pruning.map(Arc::new));
        if let Some(columns) = columns {
            let places = columns.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>();
            let projected = places.and_then(|places| schema.project(&places));
            schema = Arc::new(projected.map_err(|e| from_arrow("selecting columns", e))?);
            scan = scan.with_schema(snapshot.schema().project(columns).map_err(failed)?);
        }
        let (scan, engine) = (scan.build().map_err(failed)?, table.storage.engine()?);
        let listed_by = columns.is_none().then(|| predicate.clone());
        Ok(Self { table, engine, scan, schema, caches: Vec::new(), listed_by })
    }

    /// Whether data files hold all columns of the table, under the same names.
    pub(super) fn stores_logical_columns(&self) -> bool {
        let (physical, logical) = (self.scan.physical_schema(), self.scan.logical_schema());
        physical.fields().map(|field| field.name()).eq(logical.fields().map(|field| field.name()))
    }

    /// The files that may hold matching rows.
    pub(in crate::delta) fn files(&self) -> Result<Arc<Listing>> {
        let version = self.scan.snapshot().version();
        let known = lock(&self.table.listing).clone();
        let known = known.filter(|known| known.version <= version && self.listed_by.as_ref() == Some(&known.predicate));
        if let Some(known) = known.as_ref().filter(|known| known.version == version) {
            return Ok(Arc::clone(known));
        }
        let listing = Arc::new(self.list(known.as_deref())?);
        // An old version says nothing about the newest one.
        if version >= self.table.known().version() {
            self.table.fragments.store(listing.fragments, Ordering::Relaxed);
            if self.listed_by.is_some() && listing.may_be_kept() {
                *lock(&self.table.listing) = Some(Arc::clone(&listing));
            }
        }
        Ok(listing)
    }

    /// As [`Scanner::files`], but anew: on top of `known`, an earlier listing, or from the whole log.
    pub(in crate::delta) fn list(&self, known: Option<&Listing>) -> Result<Listing> {
        self.read_log(known).map_err(|e| from_kernel(format!("reading the log of '{}'", self.scan.table_root()), e))
    }

    /// Lists the files of `known`, an earlier listing, and of the commits since, or of the whole log.
    fn read_log(&self, known: Option<&Listing>) -> KernelResult<Listing> {
        let engine = self.engine.as_ref();
        let version = self.scan.snapshot().version();
        // The log entries before a checkpoint may be gone, so the kernel reads the whole log then.
        let checkpoint = self.scan.snapshot().log_segment().checkpoint_version;
        let known = known.filter(|known| checkpoint <= Some(known.version));
        let known = known.and_then(|known| Some((known, known.metadata().ok()?)));
        let reads_known = Arc::new(AtomicBool::new(false));
        let found: Box<dyn Iterator<Item = KernelResult<ScanMetadata>>> = match &known {
            Some((known, metadata)) => {
                let reads_known = Arc::clone(&reads_known);
                let files = metadata.clone().into_iter().map(move |files| {
                    reads_known.store(true, Ordering::Relaxed);
                    Box::new(ArrowEngineData::new(files)) as Box<dyn EngineData>
                });
                self.scan.scan_metadata_from(engine, known.version, files, None)?
            }
            None => Box::new(self.scan.scan_metadata(engine)?),
        };
        let (mut batches, mut fragments) = (Vec::new(), known.map_or(0, |(known, _)| known.fragments));
        for found in found {
            let batch = file_batch(found?)?;
            // The kernel reads the new commits first.
            if !reads_known.load(Ordering::Relaxed) {
                fragments += batch.fragments();
            }
            batches.push(batch);
        }
        Ok(Listing { version, predicate: self.listed_by.clone().unwrap_or_default(), batches, fragments })
    }

    /// Reads the live rows of `file` (without those that a deletion vector hides) and caches them.
    fn read(&self, file: &ScanFile) -> Result<RecordBatch> {
        let root = self.scan.table_root();
        let batches =
            self.read_batches(file).map_err(|e| from_kernel(format!("reading '{}' of '{root}'", file.path), e))?;
        let convert = |batch: &RecordBatch| {
            let fields = self.schema.fields().iter();
            let columns = fields.map(|field| schema::convert(schema::column(batch, field.name())?, field));
            RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<Vec<_>>>()?)
                .map_err(|e| from_arrow(format!("reading '{}'", file.path), e))
        };
        let batches = batches.iter().map(convert).collect::<Result<Vec<_>>>()?;
        let rows = schema::concat(&self.schema, &batches)?;
        let hidden = file
            .dv_info
            .get_selection_vector(self.engine.as_ref(), root)
            .map_err(|e| from_kernel(format!("reading the deletion vector of '{}'", file.path), e))?;
        let rows = match hidden {
            None => rows,
            Some(mut live) => {
                // A vector may be shorter than the file: the rest is live.
                live.resize(rows.num_rows(), true);
                filter_record_batch(&rows, &live.into()).map_err(|e| from_arrow("hiding deleted rows", e))?
            }
        };
        for cache in &self.caches {
            cache.put(&self.schema, file, &rows);
        }
        Ok(rows)
    }

    fn read_batches(&self, file: &ScanFile) -> KernelResult<Vec<RecordBatch>> {
        let negative = |_| KernelError::generic(format!("'{}' has a negative size", file.path));
        let meta = FileMeta {
            location: self.scan.table_root().join(&file.path)?,
            last_modified: file.modification_time,
            size: file.size.try_into().map_err(negative)?,
        };
        let (physical, logical) = (self.scan.physical_schema(), self.scan.logical_schema());
        let engine = self.engine.as_ref();
        // Without a predicate: row groups that a reader skips would shift the deletion vector.
        let read = engine.parquet_handler().read_parquet_files(&[meta], Arc::clone(physical), None)?;
        read.map(|batch| {
            transform_to_logical(engine, batch?, physical, logical, file.transform.clone()).try_into_record_batch()
        })
        .collect()
    }

    /// What `each` makes of the rows of every file, in the order of `files`. Reads files concurrently.
    pub(in crate::delta) fn read_all<'f, T: Send>(
        &self,
        files: impl IntoIterator<Item = &'f ScanFile>,
        each: impl Fn(RecordBatch) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let (mut done, mut unread) = (Vec::new(), Vec::new());
        for (at, file) in files.into_iter().enumerate() {
            match self.caches.iter().find_map(|cache| cache.get(&self.schema, file)) {
                Some(rows) => done.push((at, each(rows))),
                None => unread.push((at, file)),
            }
        }
        let read = |file: &ScanFile| self.read(file).and_then(&each);
        if let [(at, file)] = unread.as_slice() {
            done.push((*at, read(file)));
        } else if !unread.is_empty() {
            let next = AtomicUsize::new(0);
            let shared = Mutex::new(&mut done);
            let work = || {
                while let Some((at, file)) = unread.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let made = read(file);
                    lock(&shared).push((*at, made));
                }
            };
            environment().run_threads(unread.len().min(READERS), &work);
        }
        done.sort_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, made)| made).collect()
    }
}

/// The files in one batch of scan metadata.
fn file_batch(found: ScanMetadata) -> KernelResult<FileBatch> {
    let files = found.visit_scan_files(Vec::new(), |files: &mut Vec<ScanFile>, file| files.push(file))?;
    let (data, selected) = found.scan_files.into_parts();
    // Rows beyond the selection vector count as selected.
    let rows: Vec<usize> = (0..data.len()).filter(|&row| selected.get(row).copied().unwrap_or(true)).collect();
    if rows.len() != files.len() {
        let text = format!("{} files are selected, but {} were listed", rows.len(), files.len());
        return Err(KernelError::generic(text));
    }
    Ok(FileBatch { metadata: data.try_into_record_batch()?, files: rows.into_iter().zip(files).collect() })
}

/// The files in the order in which they were written, each with the index of its batch and its row there. The log is
/// replayed newest commit first, which determines the order of files that other clients wrote within one millisecond.
pub(in crate::delta) fn oldest_first(batches: &[FileBatch]) -> Vec<(usize, usize, &ScanFile)> {
    let mut files: Vec<_> = batches
        .iter()
        .enumerate()
        .rev()
        .flat_map(|(at, batch)| batch.files.iter().map(move |(row, file)| (at, *row, file)))
        .collect();
    files.sort_by_key(|(_, _, file)| file.modification_time);
    files
}

/// The rows that match.
pub(super) fn filter(rows: &RecordBatch, predicate: &Predicate) -> Result<RecordBatch> {
    let failed = |e| from_arrow("filtering rows", e);
    let mut conditions: Vec<BooleanArray> = Vec::new();
    for (name, text) in &predicate.equals {
        let wanted = StringArray::new_scalar(text);
        conditions.push(cmp::eq(schema::column(rows, name)?, &wanted).map_err(failed)?);
    }
    if let Some((name, since, until)) = &predicate.time {
        let column = schema::column(rows, name)?;
        let zone = match column.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let bound =
            |at: &i64| ArrowScalar::new(TimestampMicrosecondArray::from(vec![*at]).with_timezone_opt(zone.clone()));
        let since = since.iter().map(|since| cmp::gt_eq(column, &bound(since)));
        let until = until.iter().map(|until| cmp::lt(column, &bound(until)));
        for condition in since.chain(until) {
            conditions.push(condition.map_err(failed)?);
        }
    }
    let Some((first, others)) = conditions.split_first() else { return Ok(rows.clone()) };
    let all = others.iter().try_fold(first.clone(), |all, condition| and(&all, condition)).map_err(failed)?;
    filter_record_batch(rows, &all).map_err(failed)
}

/// Converts `predicate` for the kernel, which skips files by it. Checks that the columns exist and have the right type.
fn to_kernel(predicate: &Predicate, schema: &SchemaRef) -> Result<Option<KernelPredicate>> {
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
