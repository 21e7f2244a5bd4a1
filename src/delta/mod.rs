//! Concurrent-safe Delta tables on `delta_kernel`. Knows nothing of jobs.
//!
//! Every write, whatever it is, goes through the one loop in `commit.rs`. What the others do: `schema.rs` brings
//! batches into a table's shape, `stage.rs` writes data files, `scan.rs` reads them, `rewrite.rs` replaces rows,
//! `create.rs` makes version 0, `checkpoint.rs` keeps the log short, `turn.rs` lets the threads of one process queue
//! up instead of racing each other, `failure.rs` says what went wrong.
mod checkpoint;
mod commit;
mod create;
mod failure;
mod rewrite;
mod scan;
mod schema;
mod stage;
pub mod table;
mod turn;

pub use table::{Guard, Predicate, Rewrite, Table, TableSpec, View};

#[cfg(test)]
mod tests;
