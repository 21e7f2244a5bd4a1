//! Converts errors of the kernel and of Arrow.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io;

use arrow::error::ArrowError;
use delta_kernel::KernelError;

use crate::error::{Error, ErrorKind, chain};

/// Converts a kernel error. `doing` says what was tried, on which table.
pub(super) fn from_kernel(doing: impl Display, error: KernelError) -> Error {
    if let Some(known) = known_cause(&error) {
        return Error::new(known.kind(), format!("{doing} failed: {known}")).with_retryable(known.is_retryable());
    }
    let (kind, retryable) = classify(&error);
    let advice = match kind {
        ErrorKind::Unsupported => "; the table has a feature that this version cannot work with",
        ErrorKind::Storage if is_disk_full(&error) => "; free space on the disk, or raise the limit, and try again",
        ErrorKind::Storage if retryable => "; try again once the store is available",
        ErrorKind::Storage => "; check the store, its permissions and the table's log",
        _ => "",
    };
    Error::new(kind, format!("{doing} failed{advice}")).with_retryable(retryable).with_source(plain(error))
}

/// The error without the backtrace that the kernel adds if RUST_BACKTRACE is set, which does not belong in a message.
fn plain(error: KernelError) -> KernelError {
    match error {
        KernelError::Backtraced { source, .. } => plain(*source),
        error => error,
    }
}

/// Converts an Arrow error. Batches that passed the checks of this crate do not fail, so it is a defect.
pub(super) fn from_arrow(doing: impl Display, error: ArrowError) -> Error {
    Error::new(ErrorKind::Internal, format!("{doing} failed")).with_source(error)
}

/// Whether the same call can succeed later, because the store was only unavailable.
pub(super) fn is_transient(error: &KernelError) -> bool {
    classify(error).1
}

/// Whether a local disk is full, or a file would be larger than this process may write. A retry helps only after someone has changed
/// that.
pub(super) fn is_disk_full(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let is_full = |error: &io::Error| matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge);
    // The kernel does not report an error of the store as its source.
    chain(error).any(|part| match part.downcast_ref() {
        Some(KernelError::ObjectStore(error)) => cause(error).is_some_and(is_full),
        _ => part.downcast_ref().is_some_and(is_full),
    })
}

/// Whether the request of a cloud store was not sent, because there are no credentials for it.
pub(super) fn is_unsent(error: &KernelError) -> bool {
    match error {
        KernelError::Backtraced { source, .. } => is_unsent(source),
        error => matches!(error, KernelError::ObjectStore(object_store::Error::Unauthenticated { .. })),
    }
}

/// Whether the store sent the request several times, so that an earlier one can have taken effect.
pub(super) fn is_repeated(error: &KernelError) -> bool {
    known_cause(error).is_some_and(Error::is_outcome_unknown)
}

/// Whether a file does not exist.
pub(super) fn is_not_found(error: &KernelError) -> bool {
    match error {
        KernelError::Backtraced { source, .. } => is_not_found(source),
        KernelError::FileNotFound(_) => true,
        KernelError::IOError(error) => error.kind() == io::ErrorKind::NotFound,
        error => matches!(cause(error), Some(object_store::Error::NotFound { .. })),
    }
}

fn classify(error: &KernelError) -> (ErrorKind, bool) {
    if let Some(known) = known_cause(error) {
        return (known.kind(), known.is_retryable());
    }
    let failed_io = match error {
        KernelError::IOError(error) => Some(error),
        KernelError::Arrow(error) => cause(error),
        KernelError::GenericError { source } => cause(source.as_ref()),
        _ => None,
    };
    if let Some(error) = failed_io {
        return (ErrorKind::Storage, transient(error));
    }
    match error {
        KernelError::Backtraced { source, .. } => classify(source),
        KernelError::Unsupported(_)
        | KernelError::InvalidTransactionState(_)
        | KernelError::InvalidProtocol(_)
        | KernelError::MaxCatalogVersion(_)
        | KernelError::InvalidColumnMappingMode(_) => (ErrorKind::Unsupported, false),
        KernelError::ObjectStore(error) => (ErrorKind::Storage, may_pass(error)),
        // Without an error of the store, the file is damaged.
        KernelError::Parquet(error) => (ErrorKind::Storage, cause(error).is_some_and(may_pass)),
        KernelError::Reqwest(_) => (ErrorKind::Storage, true),
        // A damaged log entry or checkpoint.
        KernelError::Arrow(ArrowError::JsonError(_) | ArrowError::ParquetError(_))
        | KernelError::FileNotFound(_)
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
        | KernelError::DeletionVector(_) => (ErrorKind::Storage, false),
        _ => (ErrorKind::Internal, false),
    }
}

fn may_pass(error: &object_store::Error) -> bool {
    use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
    // A local file that was cut off. The type of this error is private.
    let is_cut_off = error.to_string().contains("Requested range was invalid");
    !(is_cut_off || matches!(error, PermissionDenied { .. } | Unauthenticated { .. } | NotFound { .. }))
        && cause::<io::Error>(error).is_none_or(transient)
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

/// The error of this crate's cloud stores in `error`. The kernel shows it, but does not report it as its error's source.
fn known_cause(error: &KernelError) -> Option<&Error> {
    match error {
        KernelError::Backtraced { source, .. } => known_cause(source),
        KernelError::ObjectStore(error) => cause(error),
        KernelError::Parquet(error) => cause(error),
        _ => None,
    }
}

/// The first error of type `T` in the chain of causes.
fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    chain(error).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_in_the_chain_of_causes_are_errors_of_the_store() {
        let broken = || io::Error::other("input/output error");
        for error in [
            KernelError::Arrow(ArrowError::IoError("reading".to_owned(), broken())),
            KernelError::Arrow(ArrowError::ExternalError(Box::new(broken()))),
            KernelError::GenericError { source: Box::new(broken()) },
        ] {
            let error = from_kernel("reading", error);
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, true), "{}", error.full_message());
        }
        // As reading a file of rows reports what the store says.
        let external = |error| KernelError::Parquet(parquet::errors::ParquetError::External(Box::new(error)));
        let away = object_store::Error::Generic { store: "S3", source: "connection refused".into() };
        let error = from_kernel("reading", external(away));
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, true));
        let missing = object_store::Error::NotFound { path: "x".to_owned(), source: "404".into() };
        assert!(!from_kernel("reading", external(missing)).is_retryable());
        let damaged = KernelError::Parquet(parquet::errors::ParquetError::EOF("no footer".to_owned()));
        assert!(!from_kernel("reading", damaged).is_retryable());
        let error = from_kernel("reading", KernelError::Arrow(ArrowError::JsonError("no JSON".to_owned())));
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, false));
    }
}
