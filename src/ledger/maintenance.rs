//! Maintenance of the ledger's tables: on request, in the background, and the check that it is not overdue.

use arrow::datatypes::DataType;
use serde::Serialize;

use super::JobLedger;
use super::tables::{DELIVERIES, IMPORTS, LEASES, LedgerTable, RETRIES, SELECTIONS, equal};
use crate::delta::{MaintenanceOutcome, Retention, Table, TableSpec};
use crate::error::{ErrorKind, Result};
use crate::runtime::lock;
use crate::storage::Storage;

/// What maintenance did to a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintenanceReport {
    /// The root as it was given.
    pub root: String,
    /// One entry per table that exists.
    pub tables: Vec<TableMaintenance>,
}

/// What maintenance did to one table of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableMaintenance {
    /// The table's name.
    pub table: &'static str,
    /// What was done.
    #[serde(flatten)]
    pub done: MaintenanceOutcome,
}

impl MaintenanceReport {
    /// The sum over all tables.
    pub fn total(&self, of: impl Fn(&MaintenanceOutcome) -> u64) -> u64 {
        self.tables.iter().map(|table| of(&table.done)).sum()
    }

    /// What failed, each entry with the name of its table.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.tables.iter().flat_map(|table| table.done.problems.iter().map(|text| (table.table, text)));
        problems.map(|(table, problem)| format!("{table}: {problem}")).collect()
    }
}

impl JobLedger {
    /// Compacts small files, writes checkpoints, and deletes the files that no version of the last `retain_hours` needs.
    /// Safe while other processes log, read, acknowledge or maintain. When one table fails, the report has its problem,
    /// and the other tables are still maintained.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a negative or infinite retention, [`ErrorKind::NotFound`] when there is no ledger
    /// at the root.
    pub fn maintain(&self, retain_hours: f64) -> Result<MaintenanceReport> {
        let retention = Retention::hours(retain_hours)?;
        let [executions, notifications] = LedgerTable::ALL.map(LedgerTable::spec);
        let specs = [executions, notifications, &*DELIVERIES, &*IMPORTS, &*RETRIES, &*LEASES];
        let mut opened = specs.map(|spec| (spec.name, self.opened(spec))).to_vec();
        if opened.iter().all(|(_, table)| matches!(table, Ok(None))) {
            self.require_ledger()?;
        }
        let selections = Table::open_within(&self.inner.storage, SELECTIONS, self.inner.commit_timeout);
        opened.push((SELECTIONS, if_exists(selections)));
        let maintained = opened.into_iter().filter_map(|(table, opened)| {
            let done = match opened.transpose()? {
                Ok(table) => table.maintain(retention),
                Err(error) => {
                    let problem = format!("opening the table: {}", error.full_message());
                    MaintenanceOutcome { problems: vec![problem], ..MaintenanceOutcome::default() }
                }
            };
            Some(TableMaintenance { table, done })
        });
        let tables = maintained.collect();
        Ok(MaintenanceReport { root: self.inner.root.clone(), tables })
    }

    /// The tables with so many small files that maintenance is overdue, with the number of these files. Each table is
    /// returned once during the lifetime of this ledger.
    pub fn overdue(&self) -> Vec<(&'static str, u64)> {
        let tables: Vec<(&'static str, Table)> =
            lock(&self.inner.tables).iter().map(|(name, table)| (*name, table.clone())).collect();
        let overdue = tables.into_iter().filter_map(|(name, table)| Some((name, table.overdue()?)));
        let mut warned = lock(&self.inner.warned);
        let new: Vec<_> = overdue.filter(|(name, _)| warned.insert(name)).collect();
        for (table, files) in &new {
            tracing::warn!(root = %self.inner.root, table, files, "maintenance is overdue");
        }
        new
    }
}

/// What was read of a table, or the opened table itself; None if the table does not exist.
pub(crate) fn if_exists<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Err(missing) if missing.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// The state of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableCheck {
    /// Its newest version.
    pub version: u64,
    /// The number of its small files, if maintenance is overdue.
    pub overdue: Option<u64>,
}

/// Checks each table of the ledger below `storage` as [`JobLedger::open`] does, and reads its log. None for a table that
/// does not exist. Writes nothing.
pub fn inspect(storage: &Storage) -> Vec<(&'static str, Result<Option<TableCheck>>)> {
    let [executions, notifications] = LedgerTable::ALL.map(LedgerTable::spec);
    let tables = [executions, notifications, &*DELIVERIES, &*RETRIES, &*IMPORTS, &*LEASES];
    tables.into_iter().map(|spec| (spec.name, state(storage, spec))).collect()
}

fn state(storage: &Storage, spec: &TableSpec) -> Result<Option<TableCheck>> {
    let Some(table) = if_exists(Table::open_within(storage, spec.name, None))? else { return Ok(None) };
    check(&table, spec)?;
    // No row has this value: the scan replays the log and reads as few files as possible.
    let first_text = spec.schema.fields().iter().find(|field| *field.data_type() == DataType::Utf8);
    let column = spec.partition_by.first().copied().or(first_text.map(|field| field.name().as_str()));
    table.scan(&equal(column.unwrap_or_default(), "\u{0}"))?;
    Ok(Some(TableCheck { version: table.version(), overdue: table.overdue() }))
}

/// Refuses a table that this version cannot write, or that lacks columns of `spec`.
pub(super) fn check(table: &Table, spec: &TableSpec) -> Result<()> {
    // Only rows of these tables are replaced.
    match LedgerTable::named(spec.name) {
        Some(_) => table.check_rewritable()?,
        None => table.check_writable()?,
    }
    table.check_columns(spec)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use crate::error::ErrorKind;
    use crate::ledger::{JobLedger, LedgerTable, RowFilter};

    fn ledger(dir: &tempfile::TempDir) -> JobLedger {
        JobLedger::open(dir.path().to_str().unwrap(), &HashMap::new(), None).unwrap()
    }

    #[test]
    fn all_tables_are_maintained_and_a_broken_one_does_not_stop_the_others() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ledger(&dir).maintain(168.0).unwrap_err().kind(), ErrorKind::NotFound);
        let ledger = ledger(&dir);
        for number in 0..5 {
            ledger.log_job_execution(&number.to_string(), "job", "SUCCESS", None).unwrap();
            ledger.log_job_completion(&number.to_string(), "job", "SUCCESS", None).unwrap();
        }
        // A cursor's table that is none: its log is not readable.
        let log = dir.path().join("vm_selections/_delta_log");
        std::fs::create_dir_all(&log).unwrap();
        std::fs::write(log.join("00000000000000000000.json"), "{\"add\":").unwrap();
        assert_eq!(ledger.maintain(-1.0).unwrap_err().kind(), ErrorKind::InvalidInput);
        let report = ledger.maintain(168.0).unwrap();
        let names: Vec<_> = report.tables.iter().map(|table| table.table).collect();
        assert_eq!(names, ["autosys_job_log", "job_notifications", "vm_selections"]);
        assert_eq!(report.total(|table| table.files_compacted), 10);
        assert_eq!(report.problems().len(), 1);
        assert!(report.problems()[0].starts_with("vm_selections: opening the table: "), "{:?}", report.problems());
        assert_eq!(ledger.rows(LedgerTable::Executions, &RowFilter::default()).unwrap().num_rows(), 5);
        assert_eq!(ledger.overdue(), []);
    }
}
