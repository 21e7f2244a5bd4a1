//! The kernel's engine for one store, that store in the form that the kernel reads, and what runs its futures.

use std::num::NonZero;
use std::sync::Arc;

use delta_kernel::{Engine, EvaluationHandler, JsonHandler, KernelError, KernelResult, ParquetHandler, StorageHandler};
use delta_kernel_default_engine::executor::TaskExecutor;
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::json::DefaultJsonHandler;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{DynObjectStore, ObjectMeta, ObjectStore, Result};
use tokio::runtime::{EnterGuard, Handle};

use super::forward::forward;
use crate::runtime::environment::wait_for;

/// Rows per batch when data files are read. The kernel's default of 1,000 makes many small copies.
const DATA_BATCH_ROWS: NonZero<usize> = NonZero::<usize>::MIN.saturating_add(65_535);

/// Rows per batch when log entries are read. The JSON reader allocates room for a whole batch per entry, and most entries
/// have two rows.
const LOG_BATCH_ROWS: NonZero<usize> = NonZero::<usize>::MIN.saturating_add(255);

/// The kernel's default engine with one batch size for data files and another one for log entries.
#[derive(Debug)]
pub(crate) struct KernelEngine {
    inner: DefaultEngine<Executor>,
    json: Arc<DefaultJsonHandler<Executor>>,
}

impl KernelEngine {
    /// An engine for `store`. If the store answers immediately, the engine reads one log entry after the other.
    pub(super) fn new(store: Arc<DynObjectStore>, executor: &Arc<Executor>) -> Self {
        let json = DefaultJsonHandler::new(Arc::clone(&store), Arc::clone(executor)).with_batch_size(LOG_BATCH_ROWS);
        let json = if executor.in_place { json.with_buffer_size(NonZero::<usize>::MIN) } else { json };
        let inner = DefaultEngineBuilder::new(store)
            .with_task_executor(Arc::clone(executor))
            .with_batch_size(DATA_BATCH_ROWS)
            .build();
        Self { inner, json: Arc::new(json) }
    }
}

impl Engine for KernelEngine {
    fn evaluation_handler(&self) -> Arc<dyn EvaluationHandler> {
        self.inner.evaluation_handler()
    }

    fn storage_handler(&self) -> Arc<dyn StorageHandler> {
        self.inner.storage_handler()
    }

    fn json_handler(&self) -> Arc<dyn JsonHandler> {
        Arc::clone(&self.json) as _
    }

    fn parquet_handler(&self) -> Arc<dyn ParquetHandler> {
        self.inner.parquet_handler()
    }
}

/// Lists `%` as `%25`. The kernel's default engine (0.30) makes a URL of each listed location without encoding it, and
/// decodes the URL before it reads the file: without this layer it would look for `a%20b` as `a b`.
#[derive(Debug)]
pub(super) struct EncodedListing {
    pub(super) inner: Arc<DynObjectStore>,
}

forward!(Display for EncodedListing);

fn encode(listed: Result<ObjectMeta>) -> Result<ObjectMeta> {
    let mut meta = listed?;
    if meta.location.as_ref().contains('%') {
        meta.location = Path::parse(meta.location.as_ref().replace('%', "%25"))?;
    }
    Ok(meta)
}

impl ObjectStore for EncodedListing {
    forward!(inner: put_opts, put_multipart_opts, get_opts, delete_stream, list_with_delimiter, copy_opts);

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix).map(encode).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset).map(encode).boxed()
    }
}

/// Runs futures on the runtime of the process, or on the thread that waits for them.
///
/// A local disk answers immediately. To hand each request to another thread costs several times more than the request.
#[derive(Debug)]
pub(crate) struct Executor {
    runtime: TokioMultiThreadExecutor,
    handle: Handle,
    /// Whether the thread that waits for a request also runs it.
    pub(super) in_place: bool,
}

impl Executor {
    pub(super) fn new(handle: Handle, in_place: bool) -> Self {
        Self { runtime: TokioMultiThreadExecutor::new(handle.clone()), handle, in_place }
    }
}

impl TaskExecutor for Executor {
    type Guard<'a> = EnterGuard<'a>;

    fn block_on<T>(&self, task: T) -> T::Output
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        if self.in_place { wait_for(task) } else { self.runtime.block_on(task) }
    }

    fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.spawn(task);
    }

    fn spawn_blocking<T, R>(&self, task: T) -> BoxFuture<'_, KernelResult<R>>
    where
        T: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let task = self.handle.spawn_blocking(task);
        Box::pin(async move { task.await.map_err(KernelError::join_failure) })
    }

    fn enter(&self) -> Self::Guard<'_> {
        self.handle.enter()
    }
}

/// Runs blocking `work` of a store: on a thread for blocking work if the current thread belongs to a runtime, else on the
/// current thread.
///
/// # Errors
/// The errors of `work`, and an error if it panics.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await?,
        Err(_) => work(),
    }
}
