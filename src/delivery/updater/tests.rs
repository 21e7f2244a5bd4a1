use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, Utc};
use object_store::memory::InMemory;
use url::Url;

use super::*;
use crate::ErrorKind;
use crate::autosys::{Callable, Delivery, SendEvent, SendEventOptions, SendOutcome, SendResult};
use crate::delivery::Order;
use crate::delivery::process::tests::ended_process;
use crate::runtime::this_process;
use crate::sandbox::autosys::{AutosysOptions, AutosysSandbox};
use crate::storage::Storage;
use crate::storage::tests::fault_injecting::{Fault, FaultInjectingStore, FaultPlan};

/// Ledger calls block, so that tests make them beside the runtime's threads.
async fn with<T: Send + 'static>(ledger: &JobLedger, work: impl FnOnce(&JobLedger) -> Result<T> + Send + 'static) -> T {
    let ledger = ledger.clone();
    blocking(move || work(&ledger)).await.unwrap()
}

async fn ledger(dir: &Path) -> JobLedger {
    let root = dir.join("ledger").to_str().unwrap().to_owned();
    blocking(move || JobLedger::open(&root, &HashMap::new(), None)).await.unwrap()
}

fn at(second: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(1_700_000_000 + second, 0)
}

/// Logs notifications of these jobs and statuses, one second apart.
async fn notify(ledger: &JobLedger, rows: &[(&str, &str)]) {
    let rows: Vec<_> = rows.iter().map(|(job, status)| ((*job).to_owned(), (*status).to_owned())).collect();
    with(ledger, move |ledger| {
        (0..).zip(rows).try_for_each(|(i, (job, status))| ledger.log_job_completion("f", &job, &status, at(i)))
    })
    .await;
}

async fn pending(ledger: &JobLedger, table: LedgerTable) -> Vec<(String, String)> {
    let rows = with(ledger, move |ledger| ledger.pending(table)).await;
    rows.into_iter().map(|row| (row.job_id.unwrap(), row.status.unwrap())).collect()
}

/// Job, attempt and outcome of the recorded attempts, sorted.
async fn attempts(ledger: &JobLedger) -> Vec<(String, i64, String)> {
    let attempts = with(ledger, |ledger| ledger.attempts(LedgerTable::Notifications)).await;
    let mut short: Vec<_> =
        attempts.into_iter().map(|a| (a.row.job_id.unwrap(), a.attempt, a.outcome.as_str().to_owned())).collect();
    short.sort();
    short
}

/// A transport that keeps what it was given and answers with `answer`.
#[derive(Clone)]
struct Recorder {
    sent: Arc<Mutex<Vec<(String, String)>>>,
    answer: Arc<dyn Fn(&Delivery) -> SendOutcome + Send + Sync>,
}

impl Recorder {
    fn new(answer: impl Fn(&Delivery) -> SendOutcome + Send + Sync + 'static) -> Self {
        Self { sent: Arc::default(), answer: Arc::new(answer) }
    }

    fn taking_all() -> Self {
        Self::new(|_| SendOutcome::Delivered { detail: None })
    }

    /// What was sent since the last call.
    fn sent(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }
}

#[async_trait::async_trait]
impl Transport for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }

    async fn send(&self, delivery: &Delivery, _gate: &Gate) -> SendResult {
        self.sent.lock().unwrap().push((delivery.job_id.clone(), delivery.status.clone()));
        (self.answer)(delivery).into()
    }
}

/// Attempts as another process would have left them.
async fn record(ledger: &JobLedger, row: &LedgerRow, attempt: i64, outcomes: &[&str]) {
    let attempt = |outcome: &&str| Attempt {
        table: LedgerTable::Notifications,
        row: row.clone(),
        attempt,
        outcome: AttemptOutcome::parse(outcome),
        detail: None,
        transport: "test".to_owned(),
        vm: None,
        delivered_by: "elsewhere:1".to_owned(),
        attempted_at: Utc::now(),
    };
    let attempts: Vec<Attempt> = outcomes.iter().map(attempt).collect();
    with(ledger, move |ledger| ledger.append_attempts(&attempts)).await;
}

fn updater(ledger: &JobLedger, transport: impl Transport + 'static, options: UpdaterOptions) -> AutosysUpdater {
    AutosysUpdater::new(ledger.clone(), Arc::new(transport), options).unwrap()
}

fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

/// A commit that comes after the deletion of the table leaves such a log, and a power cut such files. The attempts have all of it.
#[tokio::test]
async fn a_damaged_retry_state_is_not_needed() {
    let is_data = |path: &Path| path.extension().is_some_and(|extension| extension == "parquet");
    let cut_off = |table: &Path, left: fn(u64) -> u64| {
        for file in std::fs::read_dir(table).unwrap().map(|file| file.unwrap().path()).filter(|file| is_data(file)) {
            let file = std::fs::File::options().write(true).open(file).unwrap();
            file.set_len(left(file.metadata().unwrap().len())).unwrap();
        }
    };
    retry_state_after(|table| {
        std::fs::remove_file(table.join("_delta_log/00000000000000000000.json")).unwrap();
    })
    .await;
    retry_state_after(|table| cut_off(table, |_| 0)).await;
    retry_state_after(|table| cut_off(table, |length| length / 2)).await;
    retry_state_after(|table| cut_off(table, |length| length - 1)).await;
}

async fn retry_state_after(damage: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let first = ledger(dir.path()).await;
    notify(&first, &[("A", "SUCCESS"), ("B", "SUCCESS")]).await;
    let refuses_b = |delivery: &Delivery| match delivery.job_id.as_str() {
        "B" => SendOutcome::transient("refused"),
        _ => SendOutcome::Delivered { detail: None },
    };
    updater(&first, Recorder::new(refuses_b), UpdaterOptions::default()).run().await.unwrap();
    damage(&dir.path().join("ledger/autosys_retries"));
    let second = ledger(dir.path()).await;
    let all = Recorder::taking_all();
    let report = updater(&second, all.clone(), UpdaterOptions::default()).run().await.unwrap();
    assert_eq!((report.delivered, report.pending, all.sent()), (1, 0, pairs(&[("B", "SUCCESS")])));
    assert_eq!(
        attempts(&second).await.last().unwrap(),
        &("B".to_owned(), 2, "sending".to_owned()),
        "it was tried before"
    );
    let status = with(&second, |ledger| ledger.summary(None, None)).await;
    assert_eq!(status.delivered_table().acknowledged, 2);
}

/// A process was killed before it saved the retry state. Then the files of its attempts were compacted and deleted.
#[tokio::test]
async fn attempts_that_were_compacted_since_the_retry_state_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let first = ledger(dir.path()).await;
    notify(&first, &[("A", "SUCCESS")]).await;
    let refused = Recorder::new(|_| SendOutcome::transient("refused"));
    updater(&first, refused, UpdaterOptions::default()).run().await.unwrap();
    let row = with(&first, |ledger| ledger.pending(LedgerTable::Notifications)).await.remove(0);
    record(&first, &row, 2, &["sending", "failed"]).await;
    with(&first, |ledger| ledger.maintain(0.0)).await;
    let all = Recorder::taking_all();
    let report = updater(&ledger(dir.path()).await, all.clone(), UpdaterOptions::default()).run().await.unwrap();
    assert_eq!((report.delivered, all.sent().len()), (1, 1));
    assert_eq!(attempts(&first).await.last().unwrap(), &("A".to_owned(), 3, "sending".to_owned()));
}

/// Only the process knows them. Lost, the rows would be sent again, although it is alive and holds the lease.
#[tokio::test]
async fn outcomes_are_tried_again_until_the_disk_has_room() {
    for is_stopped in [false, true] {
        outcome_while_the_disk_is_full(is_stopped).await;
    }
}

async fn outcome_while_the_disk_is_full(is_stopped: bool) {
    let stop = Stop::default();
    let asked = stop.clone();
    let plan = FaultPlan::none();
    let store = FaultInjectingStore::new(Arc::new(InMemory::new()), plan.clone());
    let storage = Storage::in_place(Arc::new(store), Url::parse("az://container/ledger/").unwrap()).unwrap();
    let ledger = blocking(move || JobLedger::over(storage)).await.unwrap();
    notify(&ledger, &[("A", "SUCCESS")]).await;
    let recorder = Recorder::new(move |_| {
        plan.next_commits(&[Fault::DiskFull; 4]);
        if is_stopped {
            asked.stop();
        }
        SendOutcome::Delivered { detail: None }
    });
    let updater = updater(&ledger, recorder.clone(), UpdaterOptions::default());
    let error = updater.run_until(&stop).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, true));
    assert!(error.to_string().contains("free space on the disk"), "{error}");
    let report = updater.run().await.unwrap();
    assert_eq!((report.recovered, report.pending), (1, 0));
    assert_eq!(recorder.sent().len(), 1, "in both cycles");
}

#[tokio::test]
async fn a_second_cycle_delivers_exactly_what_the_first_could_not() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    let names: Vec<String> = (1..=6).map(|i| format!("JOB.{i}")).collect();
    let refuse_first = vec!["JOB.3".into(), "JOB.6".into()];
    let options = AutosysOptions { jobs: Some(names.clone()), refuse_first };
    let sandbox = AutosysSandbox::start(dir.path(), options).unwrap();
    with(&ledger, move |ledger| {
        names.iter().try_for_each(|job| {
            ledger.log_job_execution("f", job, "SUCCESS", at(0))?;
            ledger.log_job_completion("f", job, "SUCCESS", at(1))?;
            // Later than the notification: an event of its own, which nothing has reported yet.
            ledger.log_job_execution("f", job, "SUCCESS", at(2))
        })
    })
    .await;
    let program = SendEventOptions { program: sandbox.sendevent(), ..SendEventOptions::default() };
    let updater = updater(&ledger, SendEvent::new(program).unwrap(), UpdaterOptions::default());

    let first = updater.run().await.unwrap();
    assert_eq!((first.delivered, first.failed, first.settled, first.pending), (4, 2, 4, 2), "{first:?}");
    let refused: HashSet<_> = first.failures.iter().map(|f| f.row.job_id.clone().unwrap()).collect();
    assert_eq!(refused, HashSet::from(["JOB.3".to_owned(), "JOB.6".to_owned()]));
    assert!(first.failures.iter().all(|f| f.outcome.as_str() == "failed" && f.detail.contains("CAUAJM_E_10029")));

    let second = updater.run().await.unwrap();
    assert_eq!((second.delivered, second.failed, second.settled, second.pending), (2, 0, 2, 0), "{second:?}");
    let sent: Vec<_> = sandbox.events().unwrap().into_iter().map(|event| event.job).collect();
    assert_eq!((sent.len(), sent.iter().collect::<HashSet<_>>().len()), (6, 6));
    assert_eq!(sandbox.status("JOB.6").unwrap(), "SUCCESS");
    assert_eq!(pending(&ledger, LedgerTable::Executions).await.len(), 6);
    let attempts = attempts(&ledger).await;
    let of = |job: &str| attempts.iter().filter(|a| a.0 == job).map(|a| (a.1, a.2.as_str())).collect::<Vec<_>>();
    assert_eq!(of("JOB.1"), [(1, "delivered"), (1, "sending")]);
    assert_eq!(of("JOB.3"), [(1, "failed"), (1, "sending"), (2, "delivered"), (2, "sending")]);

    let third = updater.run().await.unwrap();
    assert_eq!(third, DeliveryReport::default());
}

#[tokio::test]
async fn a_row_logged_while_sending_stays_pending() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    notify(&ledger, &[("a", "SUCCESS")]).await;
    let logger = ledger.clone();
    let log_another = move |file: &str, job: &str, status: &str| {
        logger.log_job_completion(file, job, status, at(60)).map(|()| true).map_err(|e| e.to_string())
    };
    let report =
        updater(&ledger, Callable::answering(log_another, false), UpdaterOptions::default()).run().await.unwrap();
    assert_eq!((report.delivered, report.pending), (1, 1));
    let left = with(&ledger, |ledger| ledger.pending(LedgerTable::Notifications)).await;
    assert_eq!(left[0].timestamp, at(60).map(|at| at.timestamp_micros()));
}

#[tokio::test]
async fn later_rows_of_a_job_wait_behind_one_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    notify(&ledger, &[("a", "RUNNING"), ("b", "RUNNING"), ("a", "FAILURE"), ("b", "SUCCESS"), ("a", "SUCCESS")]).await;
    let down = Arc::new(AtomicUsize::new(1));
    let failing = Arc::clone(&down);
    let recorder = Recorder::new(move |delivery| match delivery.status.as_str() {
        "FAILURE" if failing.load(Ordering::SeqCst) > 0 => SendOutcome::transient("down"),
        _ => SendOutcome::Delivered { detail: None },
    });
    let updater = updater(&ledger, recorder.clone(), UpdaterOptions::default());

    let report = updater.run().await.unwrap();
    assert_eq!((report.delivered, report.failed, report.pending), (3, 1, 2));
    let sent = recorder.sent();
    let of = |job: &str| sent.iter().filter(|s| s.0 == job).map(|s| s.1.clone()).collect::<Vec<_>>();
    assert_eq!(
        (of("a"), of("b")),
        (vec!["RUNNING".into(), "FAILURE".into()], vec!["RUNNING".into(), "SUCCESS".into()])
    );
    assert!(!attempts(&ledger).await.iter().any(|a| a.1 == 2), "only rows that were sent have attempts");

    down.store(0, Ordering::SeqCst);
    let report = updater.run().await.unwrap();
    assert_eq!((report.delivered, report.pending), (2, 0));
    assert_eq!(recorder.sent(), pairs(&[("a", "FAILURE"), ("a", "SUCCESS")]));
}

#[tokio::test]
async fn a_row_delivered_before_a_crash_is_flipped_and_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    with(&ledger, |ledger| {
        ledger.log_job_execution("f", "a", "SUCCESS", at(0))?;
        // Two events that look the same; one of them was delivered.
        ledger.log_job_completion("f", "a", "SUCCESS", at(1))?;
        ledger.log_job_completion("f", "a", "SUCCESS", at(1))
    })
    .await;
    let recorder = Recorder::taking_all();
    let updater = updater(&ledger, recorder.clone(), UpdaterOptions::default());
    let row = with(&ledger, |ledger| ledger.pending(LedgerTable::Notifications)).await.remove(0);
    record(&ledger, &row, 1, &["sending", "delivered"]).await;

    let report = updater.run().await.unwrap();
    assert_eq!((report.recovered, report.delivered, report.settled, report.pending), (1, 1, 1, 0));
    assert_eq!(recorder.sent().len(), 1);
    let delivered = attempts(&ledger).await.into_iter().filter(|a| a.2 == "delivered").map(|a| a.1);
    assert_eq!(delivered.collect::<Vec<_>>(), [1, 1], "each of them at its own first attempt");
    assert_eq!(updater.run().await.unwrap(), DeliveryReport::default());
}

#[tokio::test]
async fn identical_rows_are_each_delivered_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    with(&ledger, |ledger| (0..3).try_for_each(|_| ledger.log_job_completion("f", "a", "SUCCESS", at(1)))).await;
    let calls = AtomicUsize::new(0);
    // The second call is refused.
    let recorder = Recorder::new(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        1 => SendOutcome::transient("down"),
        _ => SendOutcome::Delivered { detail: None },
    });
    let updater = updater(&ledger, recorder.clone(), UpdaterOptions::default());
    let first = updater.run().await.unwrap();
    assert_eq!((first.delivered, first.failed, first.pending), (1, 1, 2));
    let second = updater.run().await.unwrap();
    assert_eq!((second.delivered, second.recovered, second.pending), (2, 0, 0));
    assert_eq!(recorder.sent().len(), 4);
}

#[tokio::test]
async fn a_send_without_outcome_is_repeated_and_marked() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    notify(&ledger, &[("a", "SUCCESS"), ("b", "SUCCESS")]).await;
    let first = Recorder::new(|delivery| match delivery.job_id.as_str() {
        "a" => SendOutcome::unknown("cut off"),
        _ => SendOutcome::Delivered { detail: None },
    });
    let report = updater(&ledger, first, UpdaterOptions::default()).run().await.unwrap();
    assert_eq!((report.unknown, report.delivered, report.pending), (1, 1, 1));
    let second = updater(&ledger, Recorder::taking_all(), UpdaterOptions::default());
    assert_eq!(second.run().await.unwrap().delivered, 1);
    let attempts = with(&ledger, |ledger| ledger.attempts(LedgerTable::Notifications)).await;
    let repeated: Vec<_> = attempts.iter().filter(|a| a.attempt == 2 && a.outcome == AttemptOutcome::Sending).collect();
    assert_eq!(repeated.len(), 1);
    assert_eq!(repeated[0].detail.as_deref(), Some("sent again: whether attempt 1 arrived is unknown"));
    assert_eq!(repeated[0].transport, "recorder");
    assert!(repeated[0].delivered_by.ends_with(&format!(":{}", std::process::id())));
}

/// A crash between mark and send, while AutoSys shows `shown`, which the program `sendevent` of the same directory does
/// not change.
async fn after_a_crash(mark: Option<&str>, shown: &str) -> (DeliveryReport, usize) {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    notify(&ledger, &[("a", "SUCCESS")]).await;
    let row = with(&ledger, |ledger| ledger.pending(LedgerTable::Notifications)).await.remove(0);
    let source = LedgerTable::Notifications;
    let mark = Attempt::new(source, &row, 1, AttemptOutcome::Sending, mark.map(str::to_owned), "sendevent");
    with(&ledger, move |ledger| ledger.append_attempts(&[mark])).await;
    let sent = dir.path().join("sent");
    for (name, text) in
        [("sendevent", format!("echo sent >> '{}'", sent.display())), ("autostatus", format!("echo {shown}"))]
    {
        let program = dir.path().join(name);
        std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let options = SendEventOptions { program: dir.path().join("sendevent"), ..SendEventOptions::default() };
    let report = updater(&ledger, SendEvent::new(options).unwrap(), UpdaterOptions::default()).run().await.unwrap();
    (report, std::fs::read_to_string(sent).unwrap_or_default().lines().count())
}

#[tokio::test]
async fn a_status_that_autosys_showed_already_does_not_prove_that_an_event_arrived() {
    for mark in
        [None, Some("sent again: x"), Some("AutoSys showed SUCCESS"), Some("x; AutoSys showed SUCCESS/ON_NOEXEC")]
    {
        let (report, sent) = after_a_crash(mark, "SUCCESS").await;
        assert_eq!((report.delivered, sent), (1, 1), "{mark:?}");
    }
    let (report, sent) = after_a_crash(Some("AutoSys showed RUNNING"), "SUCCESS").await;
    assert_eq!((report.delivered, sent), (1, 0), "it shows the event, and did not before");
}

#[tokio::test]
async fn the_status_before_a_mark_is_recorded_where_statuses_are_read() {
    let thirty = Some(Duration::from_secs(30));
    for (confirm, goes_first, expected) in [
        (None, false, "a send ends within 60 s"),
        (thirty, false, "a send ends within 60 s; AutoSys showed INACTIVE"),
        (None, true, "a send ends within 60 s; AutoSys showed INACTIVE"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path()).await;
        let sandbox = AutosysSandbox::start(dir.path(), AutosysOptions::default()).unwrap();
        notify(&ledger, &[("a", "SUCCESS")]).await;
        let send = SendEventOptions { program: sandbox.sendevent(), ..SendEventOptions::default() };
        let first = goes_first.then(|| "a".to_owned()).into_iter().collect();
        let options = UpdaterOptions { confirm, first, ..UpdaterOptions::default() };
        assert_eq!(updater(&ledger, SendEvent::new(send).unwrap(), options).run().await.unwrap().delivered, 1);
        let attempts = with(&ledger, |ledger| ledger.attempts(LedgerTable::Notifications)).await;
        let mark = attempts.iter().find(|attempt| attempt.outcome == AttemptOutcome::Sending).unwrap();
        assert_eq!(mark.detail.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_run_ends_the_cycle_and_uses_no_attempt() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    notify(&ledger, &[("a", "SUCCESS")]).await;
    let program = dir.path().join("sendevent");
    let send = || async {
        let options = SendEventOptions { program: program.clone(), ..SendEventOptions::default() };
        let options_of_updater = UpdaterOptions { max_attempts: Some(1), ..UpdaterOptions::default() };
        updater(&ledger, SendEvent::new(options).unwrap(), options_of_updater).run().await
    };
    let error = send().await.unwrap_err();
    assert!(error.to_string().contains("was not found") && !error.is_retryable(), "{error}");
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    let error = send().await.unwrap_err();
    assert!(error.to_string().contains("execute permission"), "{error}");
    assert_eq!(attempts(&ledger).await, []);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let env_file = dir.path().join("env");
    let options = SendEventOptions { program, env_file: Some(env_file.clone()), ..Default::default() };
    let sourcing = updater(&ledger, SendEvent::new(options).unwrap(), UpdaterOptions::default());
    let error = sourcing.run().await.unwrap_err();
    assert!(error.to_string().contains("env cannot be read") && !error.is_retryable(), "{error}");
    std::fs::write(env_file, "").unwrap();
    assert_eq!(sourcing.run().await.unwrap().delivered, 1);
}

#[tokio::test]
async fn what_can_never_be_delivered_is_parked_and_blocks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    let rows = [("no name; rm", "SUCCESS"), ("a", "done"), ("gone", "SUCCESS"), ("gone", "FAILURE"), ("a", "SUCCESS")];
    notify(&ledger, &rows).await;
    let sandbox =
        AutosysSandbox::start(dir.path(), AutosysOptions { jobs: Some(vec!["a".into()]), ..Default::default() });
    let sandbox = sandbox.unwrap();
    let program = SendEventOptions { program: sandbox.sendevent(), ..SendEventOptions::default() };
    let updater = updater(&ledger, SendEvent::new(program).unwrap(), UpdaterOptions::default());
    let report = updater.run().await.unwrap();
    assert_eq!((report.delivered, report.parked, report.failed, report.pending), (1, 4, 0, 4), "{report:?}");
    assert_eq!(report.failures.iter().filter(|f| f.outcome.as_str() == "parked").count(), 4);
    assert_eq!(attempts(&ledger).await.iter().filter(|a| a.2 == "sending").count(), 3, "two were never sent");

    notify(&ledger, &[("a", "FAILURE")]).await;
    let report = updater.run().await.unwrap();
    assert_eq!((report.delivered, report.parked, report.pending, report.failures), (1, 4, 4, vec![]));
}

#[tokio::test]
async fn a_row_is_parked_after_max_attempts() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    notify(&ledger, &[("a", "SUCCESS")]).await;
    let refusing = Callable::answering(|_, _, _| Ok(false), false);
    let updater = updater(&ledger, refusing, UpdaterOptions { max_attempts: Some(2), ..Default::default() });
    let first = updater.run().await.unwrap();
    assert_eq!((first.failed, first.parked), (1, 0));
    let second = updater.run().await.unwrap();
    assert_eq!((second.failed, second.parked, second.pending), (0, 1, 1));
    assert!(second.failures[0].detail.starts_with("attempt 2 was the last: refused"), "{second:?}");
    let third = updater.run().await.unwrap();
    assert_eq!((third.failed, third.parked, third.failures.len()), (0, 1, 0));
}

#[tokio::test]
async fn latest_sends_only_the_newest_row_of_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    with(&ledger, |ledger| ledger.log_job_execution("f", "a", "RUNNING", at(0))).await;
    notify(&ledger, &[("a", "RUNNING"), ("b", "RUNNING"), ("a", "FAILURE"), ("a", "SUCCESS")]).await;
    let recorder = Recorder::taking_all();
    let options = UpdaterOptions { order: Order::Latest, ..Default::default() };
    let report = updater(&ledger, recorder.clone(), options).run().await.unwrap();
    assert_eq!((report.delivered, report.superseded, report.settled, report.pending), (2, 2, 1, 0));
    let mut sent = recorder.sent();
    sent.sort();
    assert_eq!(sent, pairs(&[("a", "SUCCESS"), ("b", "RUNNING")]));
    assert_eq!(attempts(&ledger).await.iter().filter(|a| a.2 == "superseded").count(), 2);
}

#[tokio::test]
async fn a_dry_run_sends_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    notify(&ledger, &[("a", "SUCCESS"), ("b c", "SUCCESS")]).await;
    let transport = SendEvent::new(SendEventOptions { program: "/nonexistent".into(), ..Default::default() }).unwrap();
    let options = UpdaterOptions { dry_run: true, ..Default::default() };
    let report = updater(&ledger, transport, options).run().await.unwrap();
    assert_eq!((report.delivered, report.parked, report.pending, report.dry_run), (0, 1, 2, true));
    assert_eq!(report.planned[0].action, "sendevent -E CHANGE_STATUS -s SUCCESS -J a");
    assert_eq!((attempts(&ledger).await.len(), pending(&ledger, LedgerTable::Notifications).await.len()), (0, 2));
}

#[tokio::test]
async fn many_windows_deliver_everything_within_the_concurrency() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    let rows: Vec<(String, &str)> = (0..150).map(|i| (format!("j{}", i % 100), "SUCCESS")).collect();
    notify(&ledger, &rows.iter().map(|(job, status)| (job.as_str(), *status)).collect::<Vec<_>>()).await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, peak) = (Arc::clone(&now), Arc::clone(&most));
    let counting = Callable::answering(
        move |_, _, _| {
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(true)
        },
        true,
    );
    let options = UpdaterOptions { concurrency: 3, ..Default::default() };
    let report = updater(&ledger, counting, options).run().await.unwrap();
    assert_eq!((report.delivered, report.pending), (150, 0));
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
}

/// Answers only once `go` is told, and tells the test of each row that is sent.
struct Slow {
    started: tokio::sync::mpsc::UnboundedSender<String>,
    go: Stop,
}

#[async_trait::async_trait]
impl Transport for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    async fn send(&self, delivery: &Delivery, _gate: &Gate) -> SendResult {
        self.started.send(delivery.job_id.clone()).unwrap();
        self.go.stopped().await;
        SendOutcome::Delivered { detail: None }.into()
    }
}

/// Starts a cycle over six jobs, three at a time, and stops it when three are under way.
async fn stopped_cycle(ledger: &JobLedger, go: Stop, stop_grace: Duration) -> (DeliveryReport, usize) {
    notify(ledger, &["a", "b", "c", "d", "e", "f"].map(|job| (job, "SUCCESS"))).await;
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
    let slow = Slow { started, go: go.clone() };
    let options = UpdaterOptions { concurrency: 3, stop_grace, ..Default::default() };
    let (cycle, stop) = (updater(ledger, slow, options), Stop::default());
    let asked = stop.clone();
    let running = tokio::spawn(async move { cycle.run_until(&asked).await });
    for _ in 0..3 {
        starts.recv().await.unwrap();
    }
    stop.stop();
    if stop_grace > Duration::from_secs(1) {
        go.stop();
    }
    let report = running.await.unwrap().unwrap();
    let mut more = 0;
    while starts.recv().await.is_some() {
        more += 1;
    }
    (report, more)
}

#[tokio::test]
async fn a_stopped_cycle_records_what_is_known_and_sends_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    let (report, more) = stopped_cycle(&ledger, Stop::default(), Duration::from_secs(60)).await;
    assert_eq!((report.delivered, report.failed, report.unknown, report.pending, more), (3, 0, 0, 3, 0), "{report:?}");
    assert!(report.stopped && report.failures.is_empty());
    let recorded = attempts(&ledger).await;
    assert_eq!(recorded.iter().filter(|attempt| attempt.2 == "delivered").count(), 3);

    // What was not tried has lost no attempt and is sent under the same number.
    let recorder = Recorder::taking_all();
    let next = updater(&ledger, recorder.clone(), UpdaterOptions { max_attempts: Some(1), ..Default::default() });
    let report = next.run().await.unwrap();
    assert_eq!((report.delivered, report.recovered, report.pending, report.stopped), (3, 0, 0, false), "{report:?}");
    assert_eq!(recorder.sent().len(), 3);
    assert!(attempts(&ledger).await.iter().all(|attempt| attempt.1 == 1));
}

#[tokio::test]
async fn a_stopped_cycle_gives_up_answers_that_do_not_come() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    let (report, _) = stopped_cycle(&ledger, Stop::default(), Duration::from_millis(20)).await;
    assert_eq!((report.delivered, report.unknown, report.pending, report.stopped), (0, 3, 6, true), "{report:?}");
    assert!(report.failures.iter().all(|failure| failure.detail.starts_with("the delivery was stopped")));
}

/// Cannot send at first, with these errors.
struct Recovering(Mutex<Vec<crate::Error>>);

#[async_trait::async_trait]
impl Transport for Recovering {
    fn name(&self) -> &str {
        "recovering"
    }

    async fn check(&self) -> Result<()> {
        self.0.lock().unwrap().pop().map_or(Ok(()), Err)
    }

    async fn send(&self, _delivery: &Delivery, _gate: &Gate) -> SendResult {
        SendOutcome::Delivered { detail: None }.into()
    }
}

#[tokio::test]
async fn after_a_failure_the_next_cycle_starts_sooner_and_continues() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    notify(&ledger, &[("a", "SUCCESS")]).await;
    let away = crate::Error::new(ErrorKind::Storage, "away").with_retryable(true);
    let unknown = crate::Error::new(ErrorKind::Storage, "it is not known").with_unknown_outcome();
    let updater = updater(&ledger, Recovering(Mutex::new(vec![unknown, away])), UpdaterOptions::default());
    let mut outcomes = Vec::new();
    // Every hour: without the back-off, the test would not end.
    let each = |outcome: Result<DeliveryReport>| {
        outcomes.push(outcome.as_ref().map(|report| report.delivered).map_err(crate::Error::next_cycle_can_run));
        outcome.is_err()
    };
    updater.run_forever(Duration::from_secs(3_600), &Stop::default(), each).await;
    assert_eq!(outcomes, [Err(true), Err(true), Ok(1)]);
    assert!(!crate::Error::new(ErrorKind::Delivery, "no program").next_cycle_can_run());
}

#[tokio::test]
async fn a_cycle_that_is_stopped_before_it_begins_sends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    notify(&ledger, &[("a", "SUCCESS")]).await;
    let (recorder, stop) = (Recorder::taking_all(), Stop::default());
    stop.stop();
    let report = updater(&ledger, recorder.clone(), UpdaterOptions::default()).run_until(&stop).await.unwrap();
    assert_eq!((report.delivered, report.pending, report.stopped, recorder.sent().len()), (0, 1, true, 0));
}

#[tokio::test]
async fn a_cycle_that_is_stopped_does_not_wait_long_for_a_slow_store() {
    let dir = tempfile::tempdir().unwrap();
    notify(&ledger(dir.path()).await, &[("a", "SUCCESS")]).await;
    let root = dir.path().join("ledger").to_str().unwrap().to_owned();
    let options = HashMap::from([("request_delay".to_owned(), "0.3".to_owned())]);
    let slow = blocking(move || JobLedger::open(&root, &options, None)).await.unwrap();
    let options = UpdaterOptions { stop_grace: Duration::from_millis(1), ..UpdaterOptions::default() };
    let (recorder, stop) = (Recorder::taking_all(), Stop::default());
    stop.stop();
    let report = updater(&slow, recorder.clone(), options).run_until(&stop).await.unwrap();
    assert_eq!((report.pending, report.stopped, recorder.sent().len()), (0, true, 0), "it did not read the rows");
}

#[tokio::test]
async fn executions_can_be_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    with(&ledger, |ledger| {
        ledger.log_job_execution("f", "a", "SUCCESS", at(0))?;
        ledger.log_job_completion("f", "a", "SUCCESS", at(1))
    })
    .await;
    let recorder = Recorder::taking_all();
    let options = UpdaterOptions { source: LedgerTable::Executions, ..Default::default() };
    let report = updater(&ledger, recorder.clone(), options).run().await.unwrap();
    assert_eq!((report.delivered, report.settled, report.pending), (1, 0, 0));
    assert_eq!(pending(&ledger, LedgerTable::Notifications).await.len(), 1);
    let attempts = with(&ledger, |ledger| ledger.attempts(LedgerTable::Executions)).await;
    assert!(attempts.iter().all(|attempt| attempt.table == LedgerTable::Executions) && attempts.len() == 2);
}

#[tokio::test]
async fn a_ledger_that_does_not_exist_is_an_error_and_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    let error = updater(&ledger, Recorder::taking_all(), UpdaterOptions::default()).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!dir.path().join("ledger").exists());
}

#[tokio::test]
async fn options_that_would_send_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    for options in [
        UpdaterOptions { concurrency: 0, ..Default::default() },
        UpdaterOptions { max_attempts: Some(0), ..Default::default() },
        UpdaterOptions { max_attempts: Some(-1), ..Default::default() },
    ] {
        let refused = AutosysUpdater::new(ledger.clone(), Arc::new(Recorder::taking_all()), options).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }
}

/// A cycle after `delivered_by` had marked a row of job a with `limit`, and the lease of another process lapsed. Job a has a later row,
/// and job b one.
async fn after_a_lapsed_lease(delivered_by: &str, limit: &str) -> (DeliveryReport, Vec<(String, String)>) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path()).await;
    notify(&ledger, &[("a", "RUNNING"), ("a", "SUCCESS"), ("b", "SUCCESS")]).await;
    let row = with(&ledger, |ledger| ledger.pending(LedgerTable::Notifications)).await.remove(0);
    let source = LedgerTable::Notifications;
    let mark = Attempt::new(source, &row, 1, AttemptOutcome::Sending, Some(limit.to_owned()), "test");
    let mark = Attempt { delivered_by: delivered_by.to_owned(), ..mark };
    with(&ledger, move |ledger| {
        ledger.take_lease(source.name(), "elsewhere:2/x", Duration::from_millis(1))?;
        ledger.append_attempts(&[mark])
    })
    .await;
    let recorder = Recorder::taking_all();
    let updater = updater(&ledger, recorder.clone(), UpdaterOptions::default());
    loop {
        let report = updater.run().await.unwrap();
        if report.lease_held_by.is_none() {
            // A second cycle finds a lease that was released, and the same.
            assert_eq!(updater.run().await.unwrap().waiting, report.waiting);
            return (report, recorder.sent());
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_row_in_doubt_waits_until_what_was_begun_to_send_has_ended() {
    let (dead, alive) = (ended_process(), this_process());
    let here = format!(", or with its process on machine {}", this_machine().unwrap());
    let hour = "sent again: x; a send ends within 3600 s";
    let process = &format!("{hour}{here}");
    for (by, limit, waits) in [
        ("elsewhere:1", hour, true),
        (&dead, hour, true),
        // What runs in a process ends with it, also if others had the lease since.
        (&dead, process, false),
        (&alive, process, true),
        (&dead, &format!("{process}0"), true),
        ("elsewhere:1", "a send ends within 0.001 s", false),
        // Of an earlier build.
        ("elsewhere:1", "x", false),
    ] {
        let (report, sent) = after_a_lapsed_lease(by, limit).await;
        let others = pairs(&[("b", "SUCCESS")]);
        if waits {
            assert_eq!((report.waiting, sent), (2, others), "{by} {limit}");
            let wait = report.next_try.unwrap() - Utc::now();
            assert!((55..=60).contains(&wait.num_minutes()), "{wait}");
        } else {
            assert_eq!((report.waiting, report.delivered), (0, 3), "{by} {limit}");
        }
    }
}
