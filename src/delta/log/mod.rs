//! A table's log: its entries, its first version, its protocol, and who else wrote to it.

mod create;
mod engine;
mod entry;
mod legacy_protocol;

pub(super) use self::create::{ENGINE_INFO, create_table, if_found, log_path, store_path, table_exists};
pub(super) use self::engine::{EntryFile, LogEngine};
pub(super) use self::entry::{COMMIT_ID, LogEntry, refuse_spark_on_s3};
pub(super) use self::legacy_protocol::{log_reader, unwritable_column};
