//! A handle on one Delta table: opening and creating it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use delta_kernel::Snapshot;
use delta_kernel::committer::FileSystemCommitter;
use url::Url;

use super::errors::from_kernel;
use super::log::{create_table, log_reader, refuse_spark_on_s3, table_exists};
use super::state::{SharedCommitter, TableState, TimeLimits};
use super::types::TableSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// How long a commit is tried while the store answers with errors.
const ERROR_TIME_LIMIT: Duration = Duration::from_secs(60);

/// With this many small files, reading the log and the files takes many times longer than in a new table.
const OVERDUE: u64 = 1000;

/// A handle on one Delta table. Thread-safe; clones share the snapshot and the caches.
#[derive(Clone)]
pub struct Table {
    pub(super) state: Arc<TableState>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("url", &self.state.url.as_str()).field("version", &self.version()).finish()
    }
}

impl Table {
    /// Opens an existing table.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::Unsupported`] when it needs a reader feature that the
    /// kernel does not have, [`ErrorKind::Storage`] when its log cannot be read.
    pub fn open(storage: &Storage, name: &str) -> Result<Self> {
        Self::open_within(storage, name, None)
    }

    /// Like [`Table::open`], with a time limit for writes: a write that has lost races for `races`, counted from the call,
    /// fails with a retryable [`ErrorKind::Conflict`]. Without a limit it continues until it wins.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub fn open_within(storage: &Storage, name: &str, races: Option<Duration>) -> Result<Self> {
        Self::open_with(
            storage,
            name,
            Arc::new(FileSystemCommitter::new()),
            TimeLimits { on_errors: ERROR_TIME_LIMIT, on_races: races },
        )
    }

    /// Opens a table whose commits go through `committer`.
    pub(super) fn open_with(
        storage: &Storage,
        name: &str,
        committer: SharedCommitter,
        limits: TimeLimits,
    ) -> Result<Self> {
        let url = table_url(storage, name)?;
        let reader = log_reader(storage.engine()?, None);
        let build = || Snapshot::builder_for(url.as_str()).build(&reader);
        let snapshot = match build() {
            Ok(snapshot) => snapshot,
            Err(_) if !table_exists(storage, &url)? => {
                let text = format!("there is no Delta table '{name}' in '{}'", storage.root());
                return Err(Error::new(ErrorKind::NotFound, text));
            }
            // It may have been created between the two calls.
            Err(_) => build().map_err(|e| from_kernel(format!("opening the Delta table '{url}'"), e))?,
        };
        refuse_spark_on_s3(storage, &url, snapshot.version())?;
        let state = TableState::new(storage, url, committer, limits, snapshot);
        state.note_listed(reader.newest_entry())?;
        Ok(Self { state: Arc::new(state) })
    }

    /// Opens the table, and creates it first if there is none. Many processes can do so at the same time.
    ///
    /// # Errors
    /// As [`Table::open`]; [`ErrorKind::Storage`] when it cannot be created.
    pub fn open_or_create(storage: &Storage, spec: &TableSpec) -> Result<Self> {
        Self::open_or_create_within(storage, spec, None)
    }

    /// Like [`Table::open_or_create`], with the time limit of [`Table::open_within`].
    ///
    /// # Errors
    /// As [`Table::open_or_create`].
    pub fn open_or_create_within(storage: &Storage, spec: &TableSpec, races: Option<Duration>) -> Result<Self> {
        match Self::open_within(storage, spec.name, races) {
            Err(missing) if missing.kind() == ErrorKind::NotFound => {
                let created = create_table(storage, &table_url(storage, spec.name)?, spec)?;
                tracing::debug!(table = spec.name, created, "there was no such table");
                Self::open_within(storage, spec.name, races)
            }
            opened => opened,
        }
    }

    /// The table's Arrow schema, with the partition columns in their places.
    pub fn schema(&self) -> SchemaRef {
        // Opening the table has checked the schema, so the fallback is never used.
        self.state.schema(&self.state.known()).unwrap_or_else(|_| Arc::new(Schema::empty()))
    }

    /// The newest version that this handle has seen.
    pub fn version(&self) -> u64 {
        self.state.known().version()
    }

    /// The newest version.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the log cannot be read.
    pub fn newest_version(&self) -> Result<u64> {
        Ok(self.state.refresh()?.version())
    }

    /// Whether the table was deleted since it was opened, as far as this handle has seen. Then open it again.
    pub fn is_gone(&self) -> bool {
        self.state.is_gone()
    }

    /// The number of small files that the last scan found, if there are so many that maintenance is overdue.
    pub fn overdue(&self) -> Option<u64> {
        Some(self.state.fragments.load(Ordering::Relaxed)).filter(|small| *small >= OVERDUE)
    }
}

/// The URL of the table `name`. A name is one directory: it cannot lead out of the root.
fn table_url(storage: &Storage, name: &str) -> Result<Url> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
        return Err(Error::invalid(format!("'{name}' is not a table name; give the name of a directory")));
    }
    let mut url = storage.root().clone();
    url.path_segments_mut()
        .map_err(|()| Error::new(ErrorKind::Internal, format!("'{}' has no directories", storage.root())))?
        .pop_if_empty()
        .push(name)
        .push("");
    Ok(url)
}
