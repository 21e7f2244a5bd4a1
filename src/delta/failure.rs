//! What the kernel's errors mean to a caller.

use std::error::Error as StdError;
use std::io;

use delta_kernel::KernelError;

use crate::error::{Error, ErrorKind};

/// Turns a kernel error into ours; `doing` says what was tried, on which table.
pub(super) fn from_kernel(doing: impl std::fmt::Display, error: KernelError) -> Error {
    let (kind, retryable) = classify(&error);
    let advice = match kind {
        _ if known_cause(&error).is_some() => "",
        ErrorKind::Unsupported => "; the table has a feature that this version cannot work with",
        ErrorKind::Storage if retryable => "; try again once the store is available",
        ErrorKind::Storage => "; check the store, its permissions and the table's log",
        _ => "",
    };
    Error::new(kind, format!("{doing} failed{advice}")).with_retryable(retryable).with_source(error)
}

/// An error of Arrow's while `doing` something: batches that passed our checks do not fail, so it is a defect.
pub(super) fn from_arrow(doing: impl std::fmt::Display, error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, format!("{doing} failed")).with_source(error)
}

/// Whether the same call can succeed later: the store was unavailable, not unwilling.
pub(super) fn may_pass(error: &KernelError) -> bool {
    classify(error).1
}

fn classify(error: &KernelError) -> (ErrorKind, bool) {
    // Cloud stores say themselves what kind of failure it was.
    if let Some(known) = known_cause(error) {
        return (known.kind(), known.is_retryable());
    }
    match error {
        KernelError::Backtraced { source, .. } => classify(source),
        KernelError::Unsupported(_)
        | KernelError::InvalidTransactionState(_)
        | KernelError::InvalidProtocol(_)
        | KernelError::MaxCatalogVersion(_)
        | KernelError::InvalidColumnMappingMode(_) => (ErrorKind::Unsupported, false),
        KernelError::IOError(error) => (ErrorKind::Storage, transient(error)),
        KernelError::ObjectStore(
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. }
            | object_store::Error::NotFound { .. },
        ) => (ErrorKind::Storage, false),
        KernelError::ObjectStore(error) => (ErrorKind::Storage, io_cause(error).is_none_or(transient)),
        KernelError::Reqwest(_) => (ErrorKind::Storage, true),
        KernelError::FileNotFound(_)
        | KernelError::InvalidTableLocation(_)
        | KernelError::EmptyLog
        | KernelError::MissingVersion(_)
        | KernelError::MissingMetadata
        | KernelError::MissingProtocol
        | KernelError::MissingMetadataAndProtocol
        | KernelError::InvalidLogSegment(_)
        | KernelError::InvalidLogPath(_)
        | KernelError::InvalidCheckpoint(_)
        | KernelError::MalformedJson(_)
        | KernelError::Parquet(_)
        | KernelError::DeletionVector(_) => (ErrorKind::Storage, false),
        _ => (ErrorKind::Internal, false),
    }
}

fn transient(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotFound
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
    )
}

fn known_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    std::iter::successors(Some(error), |error| (**error).source())
        .find_map(|error| error.downcast_ref())
}

fn io_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
