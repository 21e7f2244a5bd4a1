//! Reading: which data files of a snapshot may hold matching rows, and the rows themselves.

mod predicate;
mod read;
mod scanner;
mod view;

pub(super) use self::scanner::{Scanner, oldest_first};
pub use self::view::{CommitCheck, NO_CHECK, SnapshotView};
