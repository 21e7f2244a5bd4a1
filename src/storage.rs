//! Where tables live: a path or URI becomes an object store and a kernel engine.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZero;
use std::sync::Arc;

use delta_kernel_default_engine::executor::TaskExecutor as _;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use object_store::DynObjectStore;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

mod clear;
mod cloud;
mod delayed;
mod encoded;
mod executor;
#[cfg(test)]
pub(crate) mod faulty;
mod hint;
mod layers;
mod listing;
mod local;
mod log_memory;
mod metered;
mod options;
mod root;
mod synced;
mod whole;
mod written;

pub(crate) use synced::is_unfinished;
#[cfg(test)]
pub(crate) use synced::{Disk, Synced};

use executor::Executor;
pub use layers::Durability;
use layers::{Layers, Settings};
use metered::Meter;
pub use metered::Requests;
use root::Root;
pub use root::StoreKind;

/// The kernel engine that every table of a [`Storage`] works with.
pub(crate) type KernelEngine = DefaultEngine<Executor>;

/// Rows per batch when data files are read. The kernel's own default of 1,000 costs many small copies.
const READ_BATCH_ROWS: NonZero<usize> = NonZero::<usize>::MIN.saturating_add(65_535);

/// A root directory or URI with the object store behind it. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    root: Url,
    store: Arc<DynObjectStore>,
    engine: Arc<KernelEngine>,
    executor: Arc<Executor>,
    meter: Meter,
    /// As they were given; never shown, as there may be credentials in them.
    options: Arc<HashMap<String, String>>,
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
    /// One option is for every kind of root: `request_delay`, the seconds (0 to 60) that each request waits before it is
    /// sent, to try out on a local disk how a remote store feels.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty root, one that is a file or below a file, a URI that holds credentials, an
    /// option that does not exist, contradicts another or cannot have its value. [`ErrorKind::Unsupported`] for Databricks
    /// mounts (`/dbfs`, `dbfs:/`, `/Volumes`, `/Workspace`), where files cannot be created atomically, and for unknown URI
    /// schemes. Retrying does not help. No error repeats a credential or a URI that was refused.
    pub fn open(root: &str, options: &HashMap<String, String>) -> Result<Self> {
        Self::open_with(root, options, Durability::Store)
    }

    /// As [`Storage::open`], with rows that survive what `durability` says.
    ///
    /// # Errors
    /// Those of [`Storage::open`].
    pub fn open_with(root: &str, options: &HashMap<String, String>, durability: Durability) -> Result<Self> {
        let (settings, rest) = Settings::take(options, durability)?;
        let mut opened = match root::parse(root)? {
            Root::Local(directory) => {
                options::check_unused(&rest)?;
                let root = Url::from_directory_path(&directory).map_err(|()| {
                    let directory = directory.display();
                    Error::invalid(format!("'{directory}' cannot be written as a file URI; give another directory"))
                })?;
                Self::on(layers::around(layers::local(&settings), &settings, true), root)?
            }
            Root::Cloud(bucket) => {
                let environment = std::env::vars_os()
                    .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
                let store = cloud::connect(&bucket, &rest, environment)?;
                Self::on(layers::around(store, &settings, false), bucket.url)?
            }
        };
        opened.options = Arc::new(options.clone());
        Ok(opened)
    }

    /// A storage whose files are in `store`, below `root`.
    #[cfg(test)]
    pub(crate) fn over(store: Arc<DynObjectStore>, root: Url) -> Result<Self> {
        Self::on(layers::around(store, &Settings::default(), false), root)
    }

    fn on(layers: Layers, root: Url) -> Result<Self> {
        let executor = Arc::new(Executor::new(runtime::handle()?, layers.at_once));
        let engine = DefaultEngineBuilder::new(layers.for_kernel)
            .with_task_executor(Arc::clone(&executor))
            .with_batch_size(READ_BATCH_ROWS)
            .build();
        let pid = std::process::id();
        let options = Arc::default();
        Ok(Self { root, store: layers.store, engine: Arc::new(engine), executor, meter: layers.meter, options, pid })
    }

    /// How many requests went to the store since it was opened. Cheap: nothing is asked of the store.
    pub fn requests(&self) -> Requests {
        self.meter.read()
    }

    /// What kind of store it is.
    pub fn kind(&self) -> StoreKind {
        StoreKind::of(self.root.scheme()).unwrap_or(StoreKind::Local)
    }

    /// The options that it was opened with, so that something else can be opened beside it. They may hold credentials:
    /// not to be shown.
    pub fn options(&self) -> &HashMap<String, String> {
        &self.options
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
