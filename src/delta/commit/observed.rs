//! Observes the committer's response. Whatever the kernel makes of it, the response says what became of the log entry.

use std::sync::{Arc, OnceLock};

use delta_kernel::committer::{CommitMetadata, CommitResponse, Committer, PublishMetadata};
use delta_kernel::{Engine, FilteredEngineData, KernelResult, KernelResultIterator};

use crate::delta::state::SharedCommitter;

/// What became of the attempt to create the log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommitterResult {
    Committed,
    Conflict,
    Failed,
}

/// Passes commits to a committer and records its response.
pub(super) struct ObservedCommitter {
    inner: SharedCommitter,
    /// Empty if the committer was not called.
    pub(super) observed: Arc<OnceLock<CommitterResult>>,
}

impl ObservedCommitter {
    pub(super) fn new(inner: &SharedCommitter) -> Self {
        Self { inner: Arc::clone(inner), observed: Arc::default() }
    }
}

impl Committer for ObservedCommitter {
    fn commit(
        &self,
        engine: &dyn Engine,
        actions: KernelResultIterator<'_, FilteredEngineData>,
        metadata: CommitMetadata,
    ) -> KernelResult<CommitResponse> {
        let response = self.inner.commit(engine, actions, metadata);
        self.observed.get_or_init(|| match &response {
            Ok(CommitResponse::Committed { .. }) => CommitterResult::Committed,
            Ok(CommitResponse::Conflict { .. }) => CommitterResult::Conflict,
            Err(_) => CommitterResult::Failed,
        });
        response
    }

    fn is_catalog_committer(&self) -> bool {
        self.inner.is_catalog_committer()
    }

    fn publish(&self, engine: &dyn Engine, metadata: PublishMetadata) -> KernelResult<()> {
        self.inner.publish(engine, metadata)
    }
}
