//! The ledger's tables: whether each can be written, and whether maintenance is overdue.

use std::time::Duration;

use super::report::{Area, Check, note, ok};
use crate::error::{ErrorKind, Result};
use crate::ledger::{TableState, inspect};
use crate::runtime;
use crate::storage::Storage;

/// Reading the logs of tables that were never maintained can take long.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn examine(storage: &Storage, root: &str) -> Vec<Check> {
    let storage = storage.clone();
    let looking = runtime::blocking(move || Ok(inspect(&storage)));
    let tables = ok(Area::Ledger, "tables", "");
    let found = match tokio::time::timeout(LIMIT, looking).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            return vec![tables.failed(error.full_message(), "report this as a defect of jobrota").needed()];
        }
        Err(_) => {
            return vec![tables.warning(
                format!("their logs could not be read within {} s", LIMIT.as_secs()),
                "run `jobrota ledger maintain`, and regularly",
            )];
        }
    };
    judged(found, root)
}

fn judged(found: Vec<(&'static str, Result<Option<TableState>>)>, root: &str) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, state) in found {
        let check = ok(Area::Ledger, name, "");
        checks.push(match state {
            Ok(None) => continue,
            Ok(Some(TableState { version, overdue: Some(files) })) => check.warning(
                format!("can be written, at version {version}; maintenance is overdue: {files} small files"),
                "run `jobrota ledger maintain`, and regularly",
            ),
            Ok(Some(TableState { version, overdue: None })) => {
                ok(Area::Ledger, name, format!("can be written, at version {version}"))
            }
            Err(error) => {
                let advice = match error.kind() {
                    ErrorKind::Unsupported => "do what it says about the table, or use another root",
                    _ => "see whether files of the table were removed or cannot be read, then try again",
                };
                check.failed(error.full_message(), advice).needed()
            }
        });
    }
    if checks.is_empty() {
        let shown = super::settings::shown(root);
        checks.push(note(Area::Ledger, "tables", format!("none at {shown} yet: the first log call creates them")));
    }
    checks
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::report::Status;
    use super::*;
    use crate::error::Error;
    use crate::ledger::JobLedger;

    #[test]
    fn each_table_has_a_check_of_its_own() {
        let found = vec![
            ("a", Ok(None)),
            ("b", Ok(Some(TableState { version: 3, overdue: None }))),
            ("c", Ok(Some(TableState { version: 4, overdue: Some(2000) }))),
            ("d", Err(Error::new(ErrorKind::Unsupported, "it has a feature"))),
        ];
        let checks = judged(found, "/x");
        let statuses: Vec<_> = checks.iter().map(|check| (check.name.as_str(), check.status)).collect();
        assert_eq!(statuses, [("b", Status::Ok), ("c", Status::Warning), ("d", Status::Failed)]);
        assert!(checks[1].detail.contains("2000") && checks[2].needed);
        assert_eq!(judged(vec![("a", Ok(None))], "/x")[0].status, Status::Note);
    }

    #[test]
    fn tables_that_are_there_are_read_and_broken_ones_named() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap().to_owned();
        let ledger = JobLedger::open(&root, &HashMap::new(), None).unwrap();
        ledger.log_job_execution("a.sas", "A", "SUCCESS", None).unwrap();
        let look = || {
            let (storage, root) = (Storage::open(&root, &HashMap::new()).unwrap(), root.clone());
            runtime::block_on(async move { Ok(examine(&storage, &root).await) }).unwrap()
        };
        let checks = look();
        assert_eq!(checks.len(), 1);
        assert_eq!((checks[0].name.as_str(), checks[0].status), ("autosys_job_log", Status::Ok));
        ledger.log_job_completion("a.sas", "A", "SUCCESS", None).unwrap();
        let log = directory.path().join("job_notifications/_delta_log/00000000000000000000.json");
        std::fs::write(log, "{\"broken\"").unwrap();
        let checks = look();
        assert_eq!(checks[0].status, Status::Ok);
        assert_eq!((checks[1].name.as_str(), checks[1].status), ("job_notifications", Status::Failed));
        assert!(checks[1].needed && checks[1].advice.is_some());
    }
}
