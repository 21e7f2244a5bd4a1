//! Concurrent-safe Delta tables on `delta_kernel`. This module knows nothing of jobs.
//!
//! Each file imports only files above it in this table, a parent its own children aside.
//!
//! | file | what it does |
//! | --- | --- |
//! | `types.rs` | what callers pass to a table and get back |
//! | `errors.rs` | converts errors of the kernel and of Arrow |
//! | `schema.rs` | converts batches to a table's columns |
//! | `log/` | version 0, log entries, legacy protocols, writers that must not share a table |
//! | `state/` | what the handles on one table share: snapshot, lock, row cache, queue of appends |
//! | `table.rs` | the handle: opens and creates tables |
//! | `scan/` | lists data files and reads them; views of a snapshot |
//! | `commit/` | the one retry loop, and what goes through it: group commit, conditional appends, rewrites; staging of data files; checkpoints |
//! | `writable.rs` | refuses tables that cannot be written |
//! | `maintenance/` | compaction, vacuum and clean-up of the log |

mod commit;
mod errors;
mod log;
mod maintenance;
mod scan;
mod schema;
mod state;
pub mod table;
mod types;
mod writable;

pub use maintenance::{MaintenanceOutcome, Retention};
pub use scan::{CommitCheck, NO_CHECK, SnapshotView};
pub use table::Table;
pub(crate) use types::timestamp;
pub use types::{ConditionalWrite, Predicate, Rewrite, TableSpec, ValueCounts};

#[cfg(test)]
mod tests;
