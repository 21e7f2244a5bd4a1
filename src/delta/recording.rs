//! Takes notes of what the real committer answers: whatever the kernel makes of it afterwards, we know what became of the
//! log entry.

use std::sync::{Arc, Mutex, PoisonError};

use delta_kernel::committer::{CommitMetadata, CommitResponse, Committer, PublishMetadata};
use delta_kernel::{Engine, FilteredEngineData, KernelResult, KernelResultIterator};

use super::commit::SharedCommitter;

/// What became of the attempt to create the log entry, whatever the kernel makes of it afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Committed,
    Conflict,
    Failed,
}

#[derive(Clone)]
pub(super) struct Notes(Arc<Mutex<Seen>>);

impl Notes {
    pub(super) fn get(&self) -> Seen {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, seen: Seen) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

/// Takes notes of what the real committer answers.
pub(super) struct Recording {
    inner: SharedCommitter,
    notes: Notes,
}

impl Recording {
    pub(super) fn new(inner: &SharedCommitter) -> (Self, Notes) {
        let notes = Notes(Arc::new(Mutex::new(Seen::Nothing)));
        (Self { inner: Arc::clone(inner), notes: notes.clone() }, notes)
    }
}

impl Committer for Recording {
    fn commit(
        &self,
        engine: &dyn Engine,
        actions: KernelResultIterator<'_, FilteredEngineData>,
        metadata: CommitMetadata,
    ) -> KernelResult<CommitResponse> {
        let response = self.inner.commit(engine, actions, metadata);
        self.notes.set(match &response {
            Ok(CommitResponse::Committed { .. }) => Seen::Committed,
            Ok(CommitResponse::Conflict { .. }) => Seen::Conflict,
            Err(_) => Seen::Failed,
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
