//! Concurrent-safe Delta tables on `delta_kernel`. Knows nothing of jobs.
//!
//! Every write, whatever it is, goes through the one loop in `commit.rs`. What the others do: `schema.rs` brings
//! batches into a table's shape, `stage.rs` writes data files, `tally.rs` counts rows, `scan.rs` reads them, `read_files.rs` remembers small ones, `rewrite.rs` replaces rows,
//! `shared.rs` is what the handles on one table share, `create.rs` makes version 0, `checkpoint.rs` keeps the log
//! short, `group_commit.rs` lets everyone who appends at the same moment share one commit, `transactions.rs` reads transaction ids, `turn.rs` lets the threads
//! of one process queue up instead of racing each other, `maintenance/` keeps a table as quick as it was when it was
//! new, `log_entry.rs` reads what the winner of a race did, `recording.rs` what became of our own attempt, `failure.rs`
//! says what went wrong, `appended.rs` reads what is new, `replace.rs` replaces a small table's content, `foreign.rs` who must not write beside us, `legacy_protocol.rs` what a legacy version stands
//! for.
mod appended;
mod checkpoint;
mod commit;
mod create;
mod failure;
mod foreign;
mod group_commit;
mod legacy_protocol;
mod log_entry;
mod maintenance;
mod read_files;
mod recording;
mod replace;
mod rewrite;
mod scan;
mod schema;
mod shared;
mod stage;
pub mod table;
mod tally;
mod transactions;
mod turn;
mod writable;

pub use group_commit::{UnderWay, drain};
pub use maintenance::{Maintained, Retention};
pub use table::{Guard, Predicate, Rewrite, Table, TableSpec, View};
pub use tally::Tally;

#[cfg(test)]
mod tests;
