//! Checks the tables of the ledger: whether each can be written, and whether maintenance is overdue.

use std::time::Duration;

use super::report::{Area, Check};
use super::settings;
use crate::error::{ErrorKind, Result};
use crate::ledger::{TableCheck, inspect};
use crate::runtime;
use crate::storage::Storage;

/// To read the logs of tables without maintenance can take long.
const LIMIT: Duration = Duration::from_secs(5);

const MAINTAIN: &str = "run `jobrota ledger maintain`, and regularly";

pub(super) async fn examine(storage: &Storage, root: &str) -> Vec<Check> {
    let storage = storage.clone();
    let reading = runtime::blocking(move || Ok(inspect(&storage)));
    match tokio::time::timeout(LIMIT, reading).await {
        Ok(Ok(found)) => checks_of(found, root),
        Ok(Err(error)) => {
            vec![Area::LEDGER.failed("tables", error.full_message(), "report this as a defect of jobrota").needed()]
        }
        Err(_) => {
            let detail = format!("their logs could not be read within {} s", LIMIT.as_secs());
            vec![Area::LEDGER.warning("tables", detail, MAINTAIN)]
        }
    }
}

fn checks_of(found: Vec<(&'static str, Result<Option<TableCheck>>)>, root: &str) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, state) in found {
        checks.push(match state {
            Ok(None) => continue,
            Ok(Some(TableCheck { version, overdue })) => {
                let detail = format!("can be written, at version {version}");
                match overdue {
                    None => Area::LEDGER.ok(name, detail),
                    Some(files) => {
                        let detail = format!("{detail}; maintenance is overdue: {files} small files");
                        Area::LEDGER.warning(name, detail, MAINTAIN)
                    }
                }
            }
            Err(error) => {
                let advice = match error.kind() {
                    ErrorKind::Unsupported => "change the table as the message says, or use another root",
                    _ => "check whether files of the table were removed or cannot be read, then try again",
                };
                Area::LEDGER.failed(name, error.full_message(), advice).needed()
            }
        });
    }
    if checks.is_empty() {
        let detail = format!("none at {} yet: the first log call creates them", settings::shown(root));
        checks.push(Area::LEDGER.note("tables", detail));
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
    fn each_table_has_its_own_check() {
        let found = vec![
            ("a", Ok(None)),
            ("b", Ok(Some(TableCheck { version: 3, overdue: None }))),
            ("c", Ok(Some(TableCheck { version: 4, overdue: Some(2000) }))),
            ("d", Err(Error::new(ErrorKind::Unsupported, "it has a feature"))),
        ];
        let checks = checks_of(found, "/x");
        let statuses: Vec<_> = checks.iter().map(|check| (check.name.as_str(), check.status)).collect();
        assert_eq!(statuses, [("b", Status::Ok), ("c", Status::Warning), ("d", Status::Failed)]);
        assert!(checks[1].detail.contains("2000") && checks[2].needed);
        assert_eq!(checks_of(vec![("a", Ok(None))], "/x")[0].status, Status::Note);
    }

    #[test]
    fn existing_tables_are_read_and_damaged_ones_are_named() {
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
