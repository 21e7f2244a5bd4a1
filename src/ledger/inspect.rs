//! Looks at a ledger's tables without needing all of them to be well.

use super::tables::{DELIVERIES_SPEC, IMPORTS_SPEC, LedgerTable};
use crate::delta::{Predicate, Table, TableSpec};
use crate::error::{ErrorKind, Result};
use crate::storage::Storage;

/// What was found out about one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// Its newest version.
    pub version: u64,
    /// The number of its small files, if they are so many that maintenance is overdue.
    pub overdue: Option<u64>,
}

/// Opens each table of the ledger below `storage` as [`super::JobLedger`] does, reads its log, and says what is wrong with
/// it; `None` for a table that does not exist. Writes nothing.
pub fn inspect(storage: &Storage) -> Vec<(&'static str, Result<Option<TableState>>)> {
    let rewritten = [LedgerTable::Executions, LedgerTable::Notifications].map(|table| (table.spec(), true));
    let appended = [(&*DELIVERIES_SPEC, false), (&*IMPORTS_SPEC, false)];
    rewritten.into_iter().chain(appended).map(|(spec, rewrites)| (spec.name, state(storage, spec, rewrites))).collect()
}

fn state(storage: &Storage, spec: &TableSpec, rewrites: bool) -> Result<Option<TableState>> {
    let table = match Table::open_within(storage, spec.name, None) {
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if rewrites {
        table.check_rewritable()?;
    } else {
        table.check_writable()?;
    }
    table.check_columns(spec)?;
    // A value that no row has: the log is replayed, and as few files as possible are read.
    let nothing = Predicate { equals: vec![(first_text(spec), "\u{0}".to_owned())], time: None };
    table.scan(&nothing)?;
    Ok(Some(TableState { version: table.version(), overdue: table.overdue() }))
}

/// The column by which a table is partitioned, else its first column of text.
fn first_text(spec: &TableSpec) -> String {
    let partition = spec.partition_by.first().copied();
    let text = || spec.schema.fields().iter().find(|field| field.data_type() == &arrow::datatypes::DataType::Utf8);
    partition.map(str::to_owned).or_else(|| text().map(|field| field.name().clone())).unwrap_or_default()
}
