use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::ledger::LedgerTable;

/// An AutoSys that accepts every event, and shows the given statuses.
#[derive(Default)]
struct StatusTransport {
    statuses: Mutex<Vec<Result<String, String>>>,
    sent: Mutex<Vec<String>>,
    silent: bool,
}

impl StatusTransport {
    /// Shows these statuses one after the other, and repeats the last one.
    fn one_after_the_other(statuses: &[&str]) -> Self {
        let statuses = statuses.iter().rev().map(|status| Ok((*status).to_owned())).collect();
        Self { statuses: Mutex::new(statuses), ..Self::default() }
    }
}

#[async_trait]
impl Transport for StatusTransport {
    fn name(&self) -> &str {
        "shown"
    }

    fn batch_size(&self) -> usize {
        10
    }

    async fn send(&self, delivery: &Delivery, _gate: &Gate) -> SendResult {
        self.sent.lock().unwrap().push(delivery.job_id.clone());
        SendResult { outcome: SendOutcome::Delivered { detail: Some("stored".to_owned()) }, vm: Some("vm1".to_owned()) }
    }

    async fn send_batch(&self, deliveries: &[Delivery], gate: &Gate) -> Vec<SendResult> {
        let mut sent = Vec::new();
        for delivery in deliveries.iter().skip(usize::from(self.silent)) {
            sent.push(self.send(delivery, gate).await);
        }
        sent
    }

    fn reads_status(&self) -> bool {
        true
    }

    async fn status(&self, _job_id: &str) -> Result<String, String> {
        let mut statuses = self.statuses.lock().unwrap();
        if statuses.len() > 1 { statuses.pop().unwrap() } else { statuses[0].clone() }
    }
}

/// `before` has the statuses before attempts, by job and number.
fn sender(transport: &Arc<StatusTransport>, confirm: Option<Duration>, before: &[(&str, i64, &str)]) -> Sender {
    let before = before.iter().map(|(job, number, shown)| {
        let before = StatusBefore { shown: (*shown).to_owned(), others: HashSet::new() };
        ((queued(job, None).row, *number), before)
    });
    let before = before.collect();
    Sender { transport: Arc::clone(transport) as Arc<dyn Transport>, confirm, before: Arc::new(before), machine: None }
}

fn queued(job: &str, in_doubt: Option<i64>) -> QueuedRow {
    let (job_id, status) = (job.to_owned(), "SUCCESS".to_owned());
    let row =
        LedgerRow { file_name: None, job_id: Some(job_id.clone()), status: Some(status.clone()), timestamp: Some(1) };
    let delivery = Delivery { file_name: String::new(), job_id, status };
    QueuedRow { row, delivery, attempt: in_doubt.unwrap_or_default() + 1, failures: 0, in_doubt }
}

fn detail(sent: &SendResult) -> (&'static str, &str) {
    match &sent.outcome {
        SendOutcome::Delivered { detail } => ("delivered", detail.as_deref().unwrap_or_default()),
        SendOutcome::Unknown { detail } => ("unknown", detail),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_status_that_lags_is_waited_for() {
    let transport = Arc::new(StatusTransport::one_after_the_other(&["RUNNING", "RUNNING", "SUCCESS"]));
    let sent = sender(&transport, Some(Duration::from_secs(30)), &[]).send(&[queued("a", None)], &Gate::open()).await;
    assert_eq!(detail(&sent[0]), ("delivered", "stored; confirmed: AutoSys shows SUCCESS"));
    assert_eq!(sent[0].vm.as_deref(), Some("vm1"));
}

#[tokio::test]
async fn a_status_that_never_shows_is_unknown_and_not_a_guess() {
    for (shown, text) in [(Ok("RUNNING".to_owned()), "RUNNING"), (Err("no route".to_owned()), "no route")] {
        let transport = Arc::new(StatusTransport { statuses: Mutex::new(vec![shown]), ..StatusTransport::default() });
        let sent =
            sender(&transport, Some(Duration::from_millis(150)), &[]).send(&[queued("a", None)], &Gate::open()).await;
        let (outcome, detail) = detail(&sent[0]);
        assert!(outcome == "unknown" && detail.contains(text), "{detail}");
    }
}

#[tokio::test]
async fn a_row_in_doubt_is_read_back_and_only_sent_again_without_proof() {
    // (what AutoSys shows, what it showed before, sent again)
    for (shown, before, again) in [
        ("SUCCESS", None, true),
        ("SUCCESS", Some("RUNNING"), false),
        ("SUCCESS", Some("SUCCESS"), true),
        ("RUNNING", Some("RUNNING"), true),
    ] {
        let transport = Arc::new(StatusTransport::one_after_the_other(&[shown]));
        let before: Vec<_> = before.map(|status| ("a", 3, status)).into_iter().collect();
        let sent = sender(&transport, None, &before).send(&[queued("a", Some(3))], &Gate::open()).await;
        assert_eq!(transport.sent.lock().unwrap().len(), usize::from(again), "{shown} after {before:?}");
        let (outcome, detail) = detail(&sent[0]);
        assert_eq!((outcome, detail.contains("attempt 3 arrived")), ("delivered", !again), "{detail}");
    }
}

#[tokio::test]
async fn answers_belong_to_their_rows_whoever_is_read_back() {
    let transport = Arc::new(StatusTransport::one_after_the_other(&["SUCCESS"]));
    let items = [queued("a", None), queued("b", Some(1)), queued("c", None)];
    let sent = sender(&transport, None, &[("b", 1, "INACTIVE")]).send(&items, &Gate::open()).await;
    assert_eq!(*transport.sent.lock().unwrap(), ["a", "c"]);
    assert_eq!(sent.iter().map(|sent| detail(sent).1 == "stored").collect::<Vec<_>>(), [true, false, true]);
}

#[tokio::test]
async fn a_status_that_autosys_sets_by_itself_is_no_proof() {
    for shown in ["RUNNING", "STARTING", "INACTIVE/ON_NOEXEC"] {
        let transport = Arc::new(StatusTransport::one_after_the_other(&[shown]));
        let mut row = queued("a", Some(1));
        row.delivery.status = shown.to_owned();
        let sent = sender(&transport, None, &[("a", 1, "SUCCESS")]).send(&[row], &Gate::open()).await;
        assert_eq!(detail(&sent[0]), ("delivered", "stored"), "{shown}");
    }
}

fn mark(row: &QueuedRow, number: i64, detail: Option<&str>) -> Attempt {
    let detail = detail.map(str::to_owned);
    Attempt::new(LedgerTable::Notifications, &row.row, number, AttemptOutcome::Sending, detail, "test")
}

/// A row of `job` with another time and status.
fn at(job: &str, timestamp: i64, status: &str, in_doubt: Option<i64>) -> QueuedRow {
    let mut row = queued(job, in_doubt);
    (row.row.timestamp, row.row.status) = (Some(timestamp), Some(status.to_owned()));
    row.delivery.status = status.to_owned();
    row
}

#[test]
fn identical_rows_prove_nothing() {
    let showed = Some("x; AutoSys showed RUNNING");
    let (row, other) = (queued("a", Some(1)), queued("b", Some(2)));
    let known = |queued: &[&QueuedRow], marks: &[Attempt]| {
        let known = statuses_before(queued, marks, &[]);
        let mut jobs: Vec<_> =
            known.into_iter().map(|((row, _), before)| (row.job_id.unwrap(), before.shown)).collect();
        jobs.sort();
        jobs
    };
    let running = |job: &str| (job.to_owned(), "RUNNING".to_owned());
    let marks = [mark(&row, 1, showed), mark(&other, 1, None), mark(&other, 2, showed)];
    assert_eq!(known(&[&row, &other], &marks), [running("a"), running("b")]);
    assert_eq!(known(&[&row, &row, &other], &marks), [running("b")], "two of them are pending");
    let twice = [marks.as_slice(), &[mark(&row, 1, showed)]].concat();
    assert_eq!(known(&[&row, &other], &twice), [running("b")], "two of them were marked");
    assert_eq!(known(&[&row], &[mark(&row, 1, Some("sent again"))]), []);
}

#[tokio::test]
async fn an_event_of_another_row_of_the_job_is_no_proof() {
    let row = at("a", 2, "SUCCESS", Some(1));
    let marks = [mark(&row, 1, Some("AutoSys showed INACTIVE"))];
    for (pending, recent, sent) in [
        (None, None, 0),
        (None, Some(at("a", 1, "SUCCESS", None)), 1),
        (Some(at("a", 3, "SUCCESS", None)), None, 1),
        (None, Some(at("a", 1, "FAILURE", None)), 0),
        (None, Some(at("b", 1, "SUCCESS", None)), 0),
    ] {
        let transport = Arc::new(StatusTransport::one_after_the_other(&["SUCCESS"]));
        let queued: Vec<&QueuedRow> = [&row].into_iter().chain(&pending).collect();
        let recent: Vec<Attempt> = recent.iter().map(|other| mark(other, 1, None)).collect();
        let before = Arc::new(statuses_before(&queued, &marks, &recent));
        let sender = Sender { before, ..sender(&transport, None, &[]) };
        sender.send(std::slice::from_ref(&row), &Gate::open()).await;
        assert_eq!(transport.sent.lock().unwrap().len(), sent, "{pending:?} {recent:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_missing_is_unknown() {
    let transport = Arc::new(StatusTransport { silent: true, ..StatusTransport::one_after_the_other(&["SUCCESS"]) });
    let sent = sender(&transport, None, &[]).send(&[queued("a", None), queued("b", None)], &Gate::open()).await;
    assert_eq!(sent.iter().map(|sent| detail(sent).0).collect::<Vec<_>>(), ["unknown", "unknown"]);
}

#[tokio::test]
async fn nothing_is_sent_through_a_closed_gate() {
    let transport = Arc::new(StatusTransport::one_after_the_other(&["SUCCESS"]));
    let sent = sender(&transport, None, &[]).send(&[queued("a", None)], &Gate::new(|| false)).await;
    assert!(matches!(sent[0].outcome, SendOutcome::NotTried) && transport.sent.lock().unwrap().is_empty());
}
