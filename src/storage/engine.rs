//! The kernel's engine for one store.

use std::num::NonZero;
use std::sync::Arc;

use delta_kernel::{Engine, EvaluationHandler, JsonHandler, ParquetHandler, StorageHandler};
use delta_kernel_default_engine::json::DefaultJsonHandler;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use object_store::DynObjectStore;

use super::executor::Executor;

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
    pub(super) fn new(store: Arc<DynObjectStore>, executor: &Arc<Executor>, is_immediate: bool) -> Self {
        let json = DefaultJsonHandler::new(Arc::clone(&store), Arc::clone(executor)).with_batch_size(LOG_BATCH_ROWS);
        let json = if is_immediate { json.with_buffer_size(NonZero::<usize>::MIN) } else { json };
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
