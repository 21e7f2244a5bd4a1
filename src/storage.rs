//! Opens the storage of tables: makes an object store and a kernel engine of a path or URI.
//!
//! | file | what it does |
//! | --- | --- |
//! | `root.rs` | parses a root: a local directory, or a path in a container or bucket |
//! | `options.rs`, `options/keys.rs` | reads and checks the options of object stores |
//! | `cloud.rs` | connects to containers and buckets |
//! | `local.rs`, `local/listing.rs` | the file system of this machine, which lists a long log quickly |
//! | `fsync.rs`, `fsync/` | a local disk on which files survive a power cut |
//! | `layers.rs` | the layers around a store, and their order |
//! | `provider.rs` | options that stay, and those that a provider gives for a time |
//! | `counting.rs`, `data_file_cache.rs`, `renewing.rs`, `error_mapping.rs` | layers: count and delay requests, read small files at once, renew what expires, explain errors |
//! | `forward.rs` | the methods that a layer does not change |
//! | `engine.rs` | the kernel's engine for a store, and what runs its futures |
//! | `clock.rs` | the clock of the store |
//! | `file_names.rs` | names of the files in a log, and of files that are not complete yet |

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use delta_kernel_default_engine::executor::TaskExecutor as _;
use futures::StreamExt as _;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{DynObjectStore, ObjectStore as _};
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

mod clock;
mod cloud;
mod counting;
mod data_file_cache;
mod engine;
mod error_mapping;
pub(crate) mod file_names;
mod forward;
mod fsync;
mod layers;
mod local;
mod options;
mod provider;
mod renewing;
mod root;

pub use counting::Requests;
pub use layers::Durability;
pub use provider::{OptionsProvider, Provided, StorageOptions};
pub use root::StoreKind;

use clock::StoreClock;
pub(crate) use engine::KernelEngine;

use counting::RequestCounter;
use engine::Executor;
use file_names::LOG_DIRECTORY;
use layers::Layers;
use renewing::RenewingStore;
use root::Root;

/// A root directory or URI with the object store behind it. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    root: Url,
    store: Arc<DynObjectStore>,
    engine: Arc<KernelEngine>,
    executor: Arc<Executor>,
    counter: RequestCounter,
    /// As the caller gave them. They can hold credentials, so they are never shown.
    options: Arc<StorageOptions>,
    clock: Arc<StoreClock>,
    pid: u32,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("root", &self.root.as_str()).finish_non_exhaustive()
    }
}

impl Storage {
    /// Checks `root` and opens its store. Creates nothing and sends no request.
    ///
    /// `root` is one of
    /// - a local directory or its `file://` URI. The directory can be absolute, relative to the working directory, or in
    ///   the home directory with `~/`. It need not exist yet,
    /// - `abfss://container@account.dfs.core.windows.net/path` (or `abfs`, `az`, `azure`), or `az://container/path` with the
    ///   account in the options,
    /// - `s3://bucket/path` (or `s3a`), `gs://bucket/path`.
    ///
    /// Write a percent sign in a URI as `%25`. `options` are credentials and settings by the names that object_store and
    /// delta-rs use for them, in upper or lower case. The environment (`AZURE_…`, `AWS_…`, `GOOGLE_…`) gives those that
    /// `options` does not. Credentials that expire are renewed before they do (see docs/storage.md). A provider is asked with the
    /// first request, and not on a local disk. One option applies
    /// to every kind of root: `request_delay`, the seconds (0 to 60) that each request waits before it is sent, to
    /// simulate a remote store on a local disk.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty root, a root that is a file or below a file, a URI that holds credentials,
    /// and an option that does not exist, contradicts another or has an invalid value. [`ErrorKind::Unsupported`] for
    /// Databricks mounts (`/dbfs`, `dbfs:/`, `/Volumes`, `/Workspace`), where files cannot be created atomically, and for
    /// unknown URI schemes. A retry does not help. No error repeats a credential or a refused URI.
    pub fn open(root: &str, options: impl Into<StorageOptions>) -> Result<Self> {
        Self::open_with(root, options, Durability::Store)
    }

    /// Opens a storage like [`Storage::open`], with rows that survive what `durability` says.
    ///
    /// # Errors
    /// The errors of [`Storage::open`].
    pub fn open_with(root: &str, options: impl Into<StorageOptions>, durability: Durability) -> Result<Self> {
        let options = options.into();
        let (delay, rest) = counting::take_delay(&options.fixed)?;
        let mut opened = match root::parse(root)? {
            Root::Local(directory) => {
                options::check_unused(&rest)?;
                let root = Url::from_directory_path(&directory).map_err(|()| {
                    let directory = directory.display();
                    Error::invalid(format!("'{directory}' cannot be written as a file URI; give another directory"))
                })?;
                Self::on(layers::around(layers::local(durability), delay, true), root)?
            }
            Root::Cloud(bucket) => {
                let environment: Vec<(String, String)> = std::env::vars_os()
                    .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                    .collect();
                let root = bucket.url.clone();
                let connect = move |given| cloud::connect(&bucket, &given, environment.iter().cloned());
                let store = match &options.provider {
                    None => connect(rest)?,
                    Some(provider) => {
                        let connect = move |provided| connect(rest.clone().into_iter().chain(provided).collect());
                        Arc::new(RenewingStore::new(Arc::clone(provider), Box::new(connect)))
                    }
                };
                Self::on(layers::around(store, delay, false), root)?
            }
        };
        opened.options = Arc::new(options);
        Ok(opened)
    }

    fn on(layers: Layers, root: Url) -> Result<Self> {
        let Layers { store, for_kernel, counter, is_immediate } = layers;
        let executor = Arc::new(Executor::new(runtime::handle()?, is_immediate));
        let engine = Arc::new(KernelEngine::new(for_kernel, &executor));
        let (options, clock, pid) = (Arc::default(), Arc::default(), std::process::id());
        Ok(Self { root, store, engine, executor, counter, options, clock, pid })
    }

    /// The requests that were sent to the store since it was opened. This call sends none.
    pub fn requests(&self) -> Requests {
        self.counter.read()
    }

    /// The kind of store.
    pub fn kind(&self) -> StoreKind {
        StoreKind::of(self.root.scheme()).unwrap_or(StoreKind::Local)
    }

    /// Whether requests are answered at once, as on a local disk, so that none can hang.
    pub fn is_immediate(&self) -> bool {
        self.executor.in_place
    }

    /// The options that the storage was opened with, to open another storage beside it. They can hold credentials: never
    /// show them.
    pub fn options(&self) -> &StorageOptions {
        &self.options
    }

    /// The root, ending in `/`.
    pub fn root(&self) -> &Url {
        &self.root
    }

    /// The Delta table that the root lies in, if any: at the root itself, or above it. Directories that cannot be read count as
    /// none. A remote store is asked once for each directory.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] in a forked child.
    pub(crate) fn enclosing_table(&self) -> Result<Option<String>> {
        let is_file = self.root.scheme() == "file";
        if let Some(directory) = self.root.to_file_path().ok().filter(|_| is_file) {
            let mut above = directory.ancestors();
            let table = above.find(|directory| directory.join(LOG_DIRECTORY).is_dir());
            // The root ends in a slash.
            return Ok(table.map(|table| table.components().collect::<PathBuf>().display().to_string()));
        }
        let path = Path::from_url_path(self.root.path()).unwrap_or_default();
        let parts: Vec<String> = path.parts().map(|part| part.as_ref().to_owned()).collect();
        let store = Arc::clone(&self.store);
        let found = self.block_on(async move {
            let asked = (0..=parts.len()).rev().map(|length| {
                let (store, above) = (&store, &parts[..length]);
                async move {
                    let log = Path::from_iter(above.iter().map(String::as_str).chain([LOG_DIRECTORY]));
                    let is_table = matches!(store.list(Some(&log)).next().await, Some(Ok(_)));
                    is_table.then(|| above.join("/"))
                }
            });
            join_all(asked).await.into_iter().flatten().next()
        })?;
        let mut table = self.root.clone();
        Ok(found.map(|path| {
            table.set_path(&path);
            table.to_string()
        }))
    }

    /// The store. Its paths begin at the root of the file system, container or bucket.
    pub fn store(&self) -> &Arc<DynObjectStore> {
        &self.store
    }

    /// The kernel engine, which uses this store.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] in a forked child. The threads of the engine exist only in the parent, so that a call
    /// would never return.
    pub(crate) fn engine(&self) -> Result<&Arc<KernelEngine>> {
        self.check_process()?;
        Ok(&self.engine)
    }

    /// Runs `future` on the runtime of the process and waits for it. Do not call this from an async task.
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
pub(crate) mod tests;
