//! Checks the tables of the ledger: whether each can be written, and whether maintenance is overdue.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::report::{Area, Check};
use super::settings;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{TableCheck, inspect};
use crate::runtime;
use crate::storage::Storage;

/// To read the logs of tables without maintenance can take long.
const LIMIT: Duration = Duration::from_secs(5);

const MAINTAIN: &str = "run `jobrota ledger maintain`, and regularly";

const SHARE: &str = "to share it, let its owner run `chgrp -R GROUP .`, `chmod -R g+rwX .` and `find . -type d -exec chmod g+s {} +` \
                     in the root, and let each user write with umask 002";

/// Reads the tables of `storage`, which is at `root`, and in the directory `local`, if it is a local one.
pub(super) async fn examine(storage: &Storage, root: &str, local: Option<PathBuf>) -> Vec<Check> {
    let storage = storage.clone();
    let permitted = move |name, state| match local.as_ref().and_then(|local| not_writable(&local.join(name))) {
        Some(directory) => {
            let text = format!("this user may not write into {}", directory.display());
            Err(Error::new(ErrorKind::Forbidden, text))
        }
        None => Ok(state),
    };
    let checked = move |(name, state): (_, Result<_>)| (name, state.and_then(|state| permitted(name, state)));
    let reading = runtime::blocking(move || Ok(inspect(&storage).into_iter().map(checked).collect()));
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

/// `directory` or the first one below it that this user may not write into. Files of a table are never changed.
fn not_writable(directory: &Path) -> Option<PathBuf> {
    // A file system can refuse by other rules, such as an attribute (EPERM).
    if let Err(Errno::ACCESS | Errno::ROFS | Errno::PERM) = access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        return Some(directory.to_owned());
    }
    // A link can lead to a directory above it.
    let is_link = std::fs::symlink_metadata(directory).is_ok_and(|found| found.is_symlink());
    let inner = std::fs::read_dir(directory).ok().filter(|_| !is_link)?.flatten();
    inner.map(|inner| inner.path()).filter(|inner| inner.is_dir()).find_map(|inner| not_writable(&inner))
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
                    ErrorKind::Forbidden => SHARE,
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
    fn a_table_whose_directories_this_user_may_not_write_has_failed() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap().to_owned();
        let ledger = JobLedger::open(&root, &HashMap::new(), None).unwrap();
        ledger.log_job_execution("a.sas", "A", "SUCCESS", None).unwrap();
        // Root may write everywhere.
        let is_root = rustix::process::geteuid().is_root();
        for inner in ["", "autosys_update_flag=NO", "_delta_log"] {
            let inner = directory.path().join("autosys_job_log").join(inner);
            let mode = |mode| std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(mode)).unwrap();
            mode(0o555);
            let (storage, root) = (Storage::open(&root, &HashMap::new()).unwrap(), root.clone());
            let local = directory.path().to_owned();
            let checks = runtime::block_on(async move { Ok(examine(&storage, &root, Some(local)).await) }).unwrap();
            mode(0o755);
            assert_eq!(checks[0].status, if is_root { Status::Ok } else { Status::Failed }, "{checks:?}");
            let names_it = checks[0].detail.contains(inner.to_str().unwrap().trim_end_matches('/'));
            assert!(is_root || checks[0].needed && names_it, "{checks:?}");
            assert!(is_root || checks[0].advice.as_ref().unwrap().contains("chmod"), "{checks:?}");
        }
    }

    #[test]
    fn a_directory_that_a_link_leads_to_must_be_writable_and_the_search_ends() {
        let directory = tempfile::tempdir().unwrap();
        let (table, elsewhere) = (directory.path().join("table"), directory.path().join("elsewhere"));
        std::fs::create_dir(&table).unwrap();
        std::os::unix::fs::symlink(directory.path(), table.join("up")).unwrap();
        assert_eq!(not_writable(&table), None);
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::set_permissions(&elsewhere, mode(0o555)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, table.join("flag=NO")).unwrap();
        // Root may write everywhere.
        let expected = Some(table.join("flag=NO")).filter(|_| !rustix::process::geteuid().is_root());
        assert_eq!(not_writable(&table), expected);
        std::fs::set_permissions(&elsewhere, mode(0o755)).unwrap();
    }

    #[test]
    fn existing_tables_are_read_and_damaged_ones_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap().to_owned();
        let ledger = JobLedger::open(&root, &HashMap::new(), None).unwrap();
        ledger.log_job_execution("a.sas", "A", "SUCCESS", None).unwrap();
        let look = || {
            let (storage, root) = (Storage::open(&root, &HashMap::new()).unwrap(), root.clone());
            let local = directory.path().to_owned();
            runtime::block_on(async move { Ok(examine(&storage, &root, Some(local)).await) }).unwrap()
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
