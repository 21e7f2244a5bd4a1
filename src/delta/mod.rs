//! Concurrent-safe Delta tables on `delta_kernel`. Knows nothing of jobs.
pub mod table;
pub use table::{Guard, Predicate, Rewrite, Table, TableSpec, View};
