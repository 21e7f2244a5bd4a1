//! Where tables live: a path or URI becomes an object store and a kernel engine.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZero;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use delta_kernel_default_engine::executor::TaskExecutor as _;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use object_store::DynObjectStore;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

mod delayed;
mod encoded;
mod executor;
#[cfg(test)]
pub(crate) mod faulty;
mod layers;
mod listing;
mod log_memory;
mod metered;
mod synced;
mod written;

#[cfg(test)]
pub(crate) use synced::{Disk, Synced};

use executor::Executor;
pub use layers::Durability;
use layers::{Layers, Settings};
use metered::Meter;
pub use metered::Requests;

/// The kernel engine that every table of a [`Storage`] works with.
pub(crate) type KernelEngine = DefaultEngine<Executor>;

/// Mounts that look like directories, but whose drivers create files non-atomically (no `link(2)`): two writers would
/// overwrite each other's commits there.
const MOUNTS_WITHOUT_ATOMIC_CREATE: [&str; 3] = ["dbfs", "Volumes", "Workspace"];

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
    pid: u32,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("root", &self.root.as_str()).finish_non_exhaustive()
    }
}

impl Storage {
    /// Checks `root` and connects to the store behind it. Creates nothing.
    ///
    /// `root` is a local directory (absolute, or relative to the working directory; `~` is not expanded; it need not
    /// exist yet) or its `file://` URI. `options` are credentials and settings of object stores, which a local directory
    /// has none of and ignores, and `request_delay`: the seconds (0 to 60) that each request waits before it is sent, to
    /// try out on a local disk how a remote store feels.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty root, or one that is a file or below a file, and for a `request_delay`
    /// that is none. [`ErrorKind::Unsupported`] for Databricks mounts (`/dbfs`, `dbfs:/`, `/Volumes`, `/Workspace`),
    /// where files cannot be created atomically, and for URI schemes that this version does not know. Retrying does not
    /// help.
    pub fn open(root: &str, options: &HashMap<String, String>) -> Result<Self> {
        Self::open_with(root, options, Durability::Store)
    }

    /// As [`Storage::open`], with rows that survive what `durability` says.
    ///
    /// # Errors
    /// Those of [`Storage::open`].
    pub fn open_with(root: &str, options: &HashMap<String, String>, durability: Durability) -> Result<Self> {
        let (settings, _) = Settings::take(options, durability)?;
        let directory = local_directory(root)?;
        let root = Url::from_directory_path(&directory).map_err(|()| {
            Error::invalid(format!("'{}' cannot be written as a file URI; give another directory", directory.display()))
        })?;
        Self::on(layers::around(layers::local(&settings), &settings, true), root)
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
        Ok(Self { root, store: layers.store, engine: Arc::new(engine), executor, meter: layers.meter, pid })
    }

    /// How many requests went to the store since it was opened. Cheap: nothing is asked of the store.
    pub fn requests(&self) -> Requests {
        self.meter.read()
    }

    /// The root, ending in `/`.
    pub fn root(&self) -> &Url {
        &self.root
    }

    /// The store; its paths count from the file system's root.
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

/// The absolute directory that `root` names, with symbolic links resolved as far as it exists.
fn local_directory(root: &str) -> Result<PathBuf> {
    if root.trim().is_empty() {
        return Err(Error::invalid("the storage root is empty; give a directory such as './ledger'"));
    }
    if root.contains('\0') {
        return Err(Error::invalid("the storage root contains a NUL character, which no file system takes"));
    }
    let path = match scheme(root) {
        None => PathBuf::from(root),
        Some("file") => Url::parse(root).ok().and_then(|url| url.to_file_path().ok()).ok_or_else(|| {
            Error::invalid(format!("'{root}' is not a URI of a local directory; write it as file:///path/to/directory"))
        })?,
        Some("dbfs") => return Err(no_atomic_create(root)),
        Some(scheme) => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "'{root}': this version only has local directories; the scheme '{scheme}' is not supported yet"
                ),
            ));
        }
    };
    let absolute = std::path::absolute(&path)
        .map_err(|e| Error::invalid(format!("the storage root '{root}' cannot be resolved")).with_source(e))?;
    refuse_mounts(root, &absolute)?;
    let resolved = resolve(root, &absolute)?;
    refuse_mounts(root, &resolved)?;
    Ok(resolved)
}

/// The URI scheme of `root`; `None` for a path. A colon alone does not make a scheme: `a:b` is a fine directory name.
fn scheme(root: &str) -> Option<&str> {
    let (scheme, rest) = root.split_once(':')?;
    let known = matches!(scheme, "file" | "dbfs") && rest.starts_with('/');
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    (known || named && rest.starts_with("//")).then_some(scheme)
}

fn refuse_mounts(root: &str, path: &Path) -> Result<()> {
    let first =
        path.components().find_map(|part| if let Component::Normal(name) = part { name.to_str() } else { None });
    if first.is_some_and(|name| MOUNTS_WITHOUT_ATOMIC_CREATE.contains(&name)) {
        return Err(no_atomic_create(root));
    }
    Ok(())
}

fn no_atomic_create(root: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "'{root}' is a Databricks mount, where files cannot be created atomically, so that concurrent writers would lose rows; \
             use a directory on a local disk (the storage account itself, abfss://…, is the place for it once a version supports it)"
        ),
    )
}

/// Resolves links of the part that exists; what follows (and is created later) is appended as it is.
fn resolve(root: &str, absolute: &Path) -> Result<PathBuf> {
    let cannot = |e: std::io::Error| {
        Error::new(ErrorKind::Storage, format!("the storage root '{root}' cannot be looked at")).with_source(e)
    };
    for ancestor in absolute.ancestors() {
        match std::fs::metadata(ancestor) {
            Ok(found) if found.is_dir() => {
                let mut resolved = std::fs::canonicalize(ancestor).map_err(cannot)?;
                for part in absolute.strip_prefix(ancestor).unwrap_or(Path::new("")).components() {
                    match part {
                        Component::ParentDir => _ = resolved.pop(),
                        part => resolved.push(part),
                    }
                }
                return Ok(resolved);
            }
            Ok(_) => {
                let file = ancestor.display();
                return Err(Error::invalid(format!(
                    "the storage root '{root}' needs '{file}' to be a directory, but it is a file; give a directory"
                )));
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(cannot(e)),
        }
    }
    Err(Error::invalid(format!("the storage root '{root}' cannot be resolved")))
}

#[cfg(test)]
mod tests;
