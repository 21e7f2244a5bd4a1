//! Where tables live: a path or URI becomes an object store and a kernel engine.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZero;
use std::sync::Arc;

use delta_kernel_default_engine::executor::TaskExecutor as _;
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use object_store::DynObjectStore;
use object_store::local::LocalFileSystem;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

mod clear;
mod cloud;
mod listing;
mod local;
mod options;
mod root;

use listing::EncodedListing;
use root::Root;
pub use root::StoreKind;

/// The kernel engine that every table of a [`Storage`] works with.
pub(crate) type KernelEngine = DefaultEngine<TokioMultiThreadExecutor>;

/// Rows per batch when data files are read. The kernel's own default of 1,000 costs many small copies.
const READ_BATCH_ROWS: NonZero<usize> = NonZero::<usize>::MIN.saturating_add(65_535);

/// A root directory or URI with the object store behind it. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    kind: StoreKind,
    root: Url,
    store: Arc<DynObjectStore>,
    engine: Arc<KernelEngine>,
    executor: Arc<TokioMultiThreadExecutor>,
    pid: u32,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("root", &self.root.as_str()).finish_non_exhaustive()
    }
}

impl Storage {
    /// Checks `root` and connects to the store behind it. Creates nothing, and sends no request.
    ///
    /// `root` is one of
    /// - a local directory (absolute, relative to the working directory, or in the home directory with `~/`; it need not
    ///   exist yet) or its `file://` URI,
    /// - `abfss://container@account.dfs.core.windows.net/path` (or `abfs`, `az`, `azure`), or `az://container/path` with the
    ///   account in the options,
    /// - `s3://bucket/path` (or `s3a`), `gs://bucket/path`.
    ///
    /// Percent signs in URIs are written `%25`, as in all URIs. `options` are credentials and settings by the names that
    /// object_store and delta-rs have for them, in any case of letters; what they leave open comes from the environment
    /// (`AZURE_…`, `AWS_…`, `GOOGLE_…`). Credentials that expire are fetched anew before they do (see docs/storage.md).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty root, one that is a file or below a file, a URI that holds credentials, an
    /// option that does not exist or contradicts another. [`ErrorKind::Unsupported`] for Databricks mounts (`/dbfs`,
    /// `dbfs:/`, `/Volumes`, `/Workspace`), where files cannot be created atomically, and for unknown URI schemes.
    /// Retrying does not help. No error repeats an option's value or a URI that was refused.
    pub fn open(root: &str, options: &HashMap<String, String>) -> Result<Self> {
        match root::parse(root)? {
            Root::Local(directory) => {
                options::check_unused(options)?;
                let root = Url::from_directory_path(&directory).map_err(|()| {
                    let directory = directory.display();
                    Error::invalid(format!("'{directory}' cannot be written as a file URI; give another directory"))
                })?;
                Self::over(StoreKind::Local, root, Arc::new(LocalFileSystem::new()))
            }
            Root::Cloud(bucket) => {
                let environment = std::env::vars_os()
                    .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
                let store = cloud::connect(&bucket, options, environment)?;
                Self::over(bucket.kind, bucket.url, store)
            }
        }
    }

    /// What is in `store` at `root`, which ends in `/`.
    fn over(kind: StoreKind, root: Url, store: Arc<DynObjectStore>) -> Result<Self> {
        let executor = Arc::new(TokioMultiThreadExecutor::new(runtime::handle()?));
        let engine = DefaultEngineBuilder::new(Arc::new(EncodedListing(Arc::clone(&store))))
            .with_task_executor(Arc::clone(&executor))
            .with_batch_size(READ_BATCH_ROWS)
            .build();
        Ok(Self { kind, root, store, engine: Arc::new(engine), executor, pid: std::process::id() })
    }

    /// What kind of store it is.
    pub fn kind(&self) -> StoreKind {
        self.kind
    }

    /// The root, ending in `/`.
    pub fn root(&self) -> &Url {
        &self.root
    }

    /// The store; its paths count from the root of the file system, container or bucket.
    pub fn store(&self) -> &Arc<DynObjectStore> {
        &self.store
    }

    /// The kernel engine, which shares this store.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] in a forked child: the threads that the engine works with exist in its parent only, so
    /// that waiting for them would hang.
    pub(crate) fn engine(&self) -> Result<&Arc<KernelEngine>> {
        self.check_process()?;
        Ok(&self.engine)
    }

    /// Runs `future` on the process's runtime and waits for it, from any thread but an async task's.
    pub(crate) fn block_on<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Result<T> {
        self.check_process()?;
        Ok(self.executor.block_on(future))
    }

    fn check_process(&self) -> Result<()> {
        if std::process::id() == self.pid {
            return runtime::own_randomness();
        }
        Err(Error::new(
            ErrorKind::Internal,
            format!("the storage '{}' was opened before fork(); open it again in the child", self.root),
        ))
    }
}

#[cfg(test)]
mod tests;
