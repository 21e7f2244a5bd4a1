//! Reading: which data files of a snapshot may hold matching rows, and the rows themselves.

mod read;
mod scanner;

pub use self::read::{CommitCheck, NO_CHECK, SnapshotView};
pub(super) use self::scanner::{Scanner, oldest_first};
