use std::collections::HashMap;
use std::time::Instant;

use super::*;

fn report(options: DoctorOptions) -> Report {
    runtime::block_on(examine(options)).unwrap()
}

#[test]
fn every_area_is_checked_within_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let options = DoctorOptions {
        ledger: Some(directory.path().join("ledger").to_str().unwrap().to_owned()),
        inventory: Some(Inventory::from_value(serde_json::json!(["127.0.0.1"])).unwrap()),
        storage_options: StorageOptions::default(),
        ..DoctorOptions::default()
    };
    let report = report(options);
    assert!(begun.elapsed() < AREA_LIMIT);
    for area in ["environment", "probes", "vms", "ledger", "credentials", "settings"] {
        assert!(report.checks.iter().any(|check| check.area == area), "{area}");
    }
    assert!(!report.checks.iter().any(|check| check.area == "ledger" && check.status == Status::Failed), "{report:?}");
    for check in &report.checks {
        let trouble = matches!(check.status, Status::Warning | Status::Failed);
        assert!(!trouble || check.advice.is_some(), "{check:?}");
    }
}

#[test]
fn an_impossible_root_is_a_failure() {
    let options = DoctorOptions { ledger: Some("/Volumes/a/b/c".to_owned()), ..DoctorOptions::default() };
    assert!(!report(options).ok());
}

#[test]
fn secrets_in_options_and_roots_are_not_shown() {
    let options = DoctorOptions {
        ledger: Some("s3://user:hidden-1@bucket/x?sig=hidden-2".to_owned()),
        storage_options: (&HashMap::from([("aws_secret_access_key".to_owned(), "hidden-3".to_owned())])).into(),
        probes: vec!["http://u:hidden-4@{ip}:1/".to_owned()],
        configured: vec![("base_url".to_owned(), "https://u:hidden-5@viya/?t=hidden-6".to_owned())],
        ..DoctorOptions::default()
    };
    let report = report(options);
    assert!(!report.ok());
    assert!(!format!("{report:?}").contains("hidden"), "{report:?}");
}

#[test]
fn a_probe_that_is_not_known_is_refused() {
    let options = DoctorOptions { probes: vec!["nonsense".to_owned()], ..DoctorOptions::default() };
    assert_eq!(runtime::block_on(examine(options)).unwrap_err().kind(), crate::ErrorKind::InvalidInput);
}

#[test]
fn an_area_that_hangs_or_panics_is_a_failure_and_the_others_are_reported() {
    let found = runtime::block_on(async {
        let hanging = with_limit(Area::LEDGER, Duration::from_millis(10), std::future::pending())?;
        let broken = with_limit(Area::PROBES, AREA_LIMIT, async { panic!("as a test wants it") })?;
        Ok((hanging.await, broken.await))
    })
    .unwrap();
    assert!(found.0[0].status == Status::Failed && found.0[0].needed);
    assert!(found.1[0].status == Status::Failed && found.1[0].detail.contains("ended early"));
}
