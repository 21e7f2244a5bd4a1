//! Maintenance of all tables of a ledger.

use std::sync::PoisonError;

use super::JobLedger;
use super::leases::LEASES_SPEC;
use super::standings::RETRIES_SPEC;
use super::tables::{DELIVERIES_SPEC, IMPORTS_SPEC, LedgerTable};
use crate::delta::{Maintained, Retention, Table};
use crate::error::{Error, ErrorKind, Result};

/// The table of the shared round-robin cursor, which may lie in the same root.
const SELECTIONS: &str = "vm_selections";

/// What maintenance did to a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintenanceReport {
    /// The root as it was given.
    pub root: String,
    /// One per table that is there.
    pub tables: Vec<TableMaintenance>,
}

/// What maintenance did to one table of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMaintenance {
    /// The table's name.
    pub table: &'static str,
    /// What was done.
    pub done: Maintained,
}

impl MaintenanceReport {
    /// The sum over all tables.
    pub fn total(&self, of: impl Fn(&Maintained) -> u64) -> u64 {
        self.tables.iter().map(|table| of(&table.done)).sum()
    }

    /// What could not be done, each with its table.
    pub fn problems(&self) -> Vec<String> {
        let of = |table: &TableMaintenance| {
            let name = table.table;
            table.done.problems.iter().map(move |problem| format!("{name}: {problem}")).collect::<Vec<_>>()
        };
        self.tables.iter().flat_map(of).collect()
    }
}

impl JobLedger {
    /// Keeps the ledger as quick as it was on its first day: compacts small files, writes checkpoints, and deletes what no
    /// version of the last `retain_hours` needs. Safe next to everyone who logs, reads or acknowledges, and next to
    /// itself. A table that cannot be maintained is said so in the report and does not stop the others.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a negative or endless retention, [`ErrorKind::NotFound`] when there is no ledger at
    /// the root.
    pub fn maintain(&self, retain_hours: f64) -> Result<MaintenanceReport> {
        let retention = Retention::hours(retain_hours)?;
        let mut tables = Vec::new();
        let (executions, notifications) = (LedgerTable::Executions.spec(), LedgerTable::Notifications.spec());
        let known = [executions, notifications, &*DELIVERIES_SPEC, &*IMPORTS_SPEC, &*RETRIES_SPEC, &*LEASES_SPEC];
        for spec in known {
            tables.extend(maintained(spec.name, self.opened(spec), retention));
        }
        if tables.is_empty() {
            self.require_ledger()?;
        }
        let selections = Table::open_within(&self.inner.storage, SELECTIONS, self.inner.commit_timeout);
        let selections = match selections {
            Err(missing) if missing.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        };
        tables.extend(maintained(SELECTIONS, selections, retention));
        Ok(MaintenanceReport { root: self.inner.root.clone(), tables })
    }

    /// The tables of which a read has found so many small files that maintenance is overdue, with their number: each
    /// table once in the life of this ledger.
    pub fn overdue(&self) -> Vec<(&'static str, u64)> {
        let tables: Vec<(&'static str, Table)> =
            self.inner.lock().iter().map(|(name, table)| (*name, table.clone())).collect();
        let found = tables.into_iter().filter_map(|(name, table)| Some((name, table.overdue()?)));
        let mut warned = self.inner.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<_> = found.filter(|(name, _)| warned.insert(name)).collect();
        for (table, files) in &new {
            tracing::warn!(root = %self.inner.root, table, files, "maintenance is overdue");
        }
        new
    }
}

fn maintained(name: &'static str, opened: Result<Option<Table>>, retention: Retention) -> Option<TableMaintenance> {
    let done = match opened {
        Ok(None) => return None,
        Ok(Some(table)) => table.maintain(retention),
        Err(error) => unopened(&error),
    };
    Some(TableMaintenance { table: name, done })
}

fn unopened(error: &Error) -> Maintained {
    Maintained { problems: vec![format!("opening the table: {}", error.full_message())], ..Maintained::default() }
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
