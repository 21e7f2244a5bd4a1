//! The sending part of one delivery cycle. Rows are marked as `sending`, sent, recorded with their outcomes, and
//! acknowledged. All of this happens at the same time for different rows.
//!
//! One commit to the attempts table has the outcomes of the answered rows and the marks of the rows that are sent next,
//! so that the next row of a job is never sent before the outcome of the one before is durable. The rows that are marked
//! and have no durable outcome are the window: what a crash leaves in doubt. Flags are set less often, because each such
//! commit rewrites all pending rows of a file; the attempts tell which delivered rows a crash left with the flag `NO`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use futures::future::OptionFuture;
use futures::stream::FuturesUnordered;

use super::attempts::{Attempt, AttemptOutcome, NOT_SENT};
use super::epoch::{Epoch, Recorded};
use super::options::UpdaterOptions;
use super::plan::{QueuedRow, Queues, describe_doubt};
use super::rate_limit::RateLimiter;
use super::report::{DeliveryReport, RowFailure};
use super::sender::Sender;
use crate::autosys::transport::{Gate, SendOutcome, SendResult};
use crate::error::{Error, Result};
use crate::ledger::LedgerRow;
use crate::runtime::blocking;
use crate::runtime::environment::{environment, sleep_until};
use crate::stop::Stop;

/// The minimum number of rows in the window.
const MIN_WINDOW: usize = 64;
/// The window, in multiples of the rows that are sent at a time. Large enough to continue sending during a commit.
const WINDOW_FACTOR: usize = 8;
/// How long outcomes wait for more outcomes before they are recorded, while there are enough rows to send.
const LINGER: Duration = Duration::from_millis(20);
/// The pause between two calls that acknowledge rows, in multiples of the duration of the first call.
const ACKNOWLEDGE_PAUSE: u32 = 4;
/// The maximum length of a recorded detail, in characters.
const MAX_DETAIL: usize = 2000;
/// Pauses between two tries to record outcomes after the store failed: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a cycle has written. The retry state is computed from it.
#[derive(Debug, Default)]
pub(super) struct CycleRecord {
    /// The attempts of rows that stay pending, and of rows with identical ones.
    pub(super) attempts: Vec<Attempt>,
    /// The latest timestamp of a row that was tried, in microseconds since 1970 UTC.
    pub(super) latest: Option<i64>,
    /// The versions of the attempts table that this cycle committed.
    pub(super) versions: Vec<u64>,
    /// The rows that were to be acknowledged.
    pub(super) acknowledged: Vec<LedgerRow>,
    /// How many rows were really acknowledged, and in how many commits.
    pub(super) acknowledged_count: u64,
    pub(super) acknowledge_commits: u64,
}

impl CycleRecord {
    /// Adds the result of one call that acknowledged `count` of `rows`.
    pub(super) fn add(&mut self, rows: Vec<LedgerRow>, count: u64) {
        self.acknowledged.extend(rows);
        self.acknowledged_count += count;
        self.acknowledge_commits += u64::from(count > 0);
    }
}

/// A row that is marked or sent, and the rows of its job that come after it.
struct ActiveRow {
    queued: QueuedRow,
    rest: VecDeque<QueuedRow>,
}

/// A row with its answer.
struct AnsweredRow {
    row: ActiveRow,
    sent: SendResult,
    at: DateTime<Utc>,
}

impl AnsweredRow {
    fn now(row: ActiveRow, outcome: SendOutcome) -> Self {
        Self { row, sent: outcome.into(), at: environment().utc() }
    }
}

type BatchAnswers = (u64, Vec<SendResult>, DateTime<Utc>);
type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// An acknowledgement that is under way. It gives the numbers of notifications and executions that it flips.
type Acknowledging = Task<Result<(u64, u64)>>;

/// What a cycle needs beside the rows.
pub(super) struct Cycle<'a> {
    pub(super) epoch: &'a Arc<Epoch>,
    pub(super) sender: &'a Sender,
    pub(super) options: &'a UpdaterOptions,
    /// A request to stop.
    pub(super) stop: &'a Stop,
    /// Stopped when the lease is lost.
    pub(super) lost: Stop,
    pub(super) gate: Gate,
    /// Pending rows that occur more than once.
    pub(super) duplicates: &'a HashSet<LedgerRow>,
    pub(super) report: &'a mut DeliveryReport,
    pub(super) record: &'a mut CycleRecord,
}

/// The rows of [`Cycle::send`], by the step that is next.
#[derive(Default)]
struct Pipeline {
    /// The first row of each queue can be marked.
    ready: Queues,
    /// Marked durably, and to be sent.
    marked: VecDeque<ActiveRow>,
    /// Being sent, by the number of their batch.
    in_flight: HashMap<u64, Vec<ActiveRow>>,
    rows_in_flight: usize,
    /// Answered, and to be recorded.
    answered: Vec<AnsweredRow>,
    oldest_answer: Option<Instant>,
    /// Delivered and recorded, and to be acknowledged.
    delivered: Vec<LedgerRow>,
}

/// The rows of one commit to the attempts table.
struct AttemptsCommit {
    answered: Vec<AnsweredRow>,
    marked: Vec<ActiveRow>,
}

impl Cycle<'_> {
    /// Sends the rows of `queues` until no row is left that can be sent, or the cycle is to stop.
    ///
    /// # Errors
    /// Those of the ledger's store. Then the answers until then were recorded if the store allowed it.
    pub(super) async fn send(&mut self, queues: Queues) -> Result<()> {
        let mut rows = Pipeline { ready: queues, ..Pipeline::default() };
        let mut sends: FuturesUnordered<Task<BatchAnswers>> = FuturesUnordered::new();
        let mut recording: Option<(AttemptsCommit, Task<Result<Recorded>>)> = None;
        let mut acknowledging: Option<(Vec<LedgerRow>, Instant, Acknowledging)> = None;
        let mut acknowledge_after = environment().instant();
        let mut limiter = RateLimiter::new(self.options.rate);
        let (mut deadline, mut failed): (Option<Instant>, Option<Error>) = (None, None);
        for number in 0.. {
            let stopping = self.is_stopping() || failed.is_some();
            if stopping {
                self.report.stopped |= !rows.ready.is_empty();
                rows.ready.clear();
                deadline.get_or_insert_with(|| environment().instant() + self.options.stop_grace);
            }
            let can_send = !stopping && sends.len() < self.slots() && !rows.marked.is_empty();
            // Each branch does one step, and the loop decides anew.
            if can_send && limiter.allows(environment().instant()) {
                let batch: Vec<ActiveRow> =
                    rows.marked.drain(..self.sender.batch_size().min(rows.marked.len())).collect();
                limiter.record(environment().instant(), batch.len());
                let (sender, gate) = (self.sender.clone(), self.gate.clone());
                let queued: Vec<QueuedRow> = batch.iter().map(|row| row.queued.clone()).collect();
                rows.rows_in_flight += batch.len();
                rows.in_flight.insert(number, batch);
                sends.push(Box::pin(async move { (number, sender.send(&queued, &gate).await, environment().utc()) }));
                continue;
            }
            if stopping && !rows.marked.is_empty() {
                // Not sent: recorded, so that their mark does not count.
                self.report.stopped = true;
                let not_sent = |row| AnsweredRow::now(row, SendOutcome::NotTried);
                rows.answered.extend(rows.marked.drain(..).map(not_sent));
            }
            if recording.is_none() && failed.is_none() && self.is_time_to_record(&rows, stopping) {
                let (commit, mut attempts) = self.next_commit(&mut rows);
                let (epoch, sender, slots) = (Arc::clone(self.epoch), self.sender.clone(), self.slots());
                let record = async move {
                    sender.note_statuses(&mut attempts, slots).await;
                    blocking(move || epoch.record(&attempts)).await
                };
                recording = Some((commit, Box::pin(record)));
                continue;
            }
            let is_idle = rows.marked.is_empty() && sends.is_empty() && recording.is_none() && rows.answered.is_empty();
            let all_sent = is_idle && (rows.ready.is_empty() || stopping);
            let now = environment().instant();
            if acknowledging.is_none() && !rows.delivered.is_empty() && (all_sent || now >= acknowledge_after) {
                let delivered = std::mem::take(&mut rows.delivered);
                let (epoch, given) = (Arc::clone(self.epoch), delivered.clone());
                acknowledging = Some((delivered, now, Box::pin(blocking(move || epoch.acknowledge(&given)))));
                continue;
            }
            if all_sent && acknowledging.is_none() {
                break;
            }
            let can_record = recording.is_none() && failed.is_none();
            let record_at = rows.oldest_answer.filter(|_| can_record).map(|at| at + LINGER);
            let acknowledge_at = (!rows.delivered.is_empty() && acknowledging.is_none()).then_some(acknowledge_after);
            let send_at = limiter.next.filter(|_| can_send);
            let wake_at = [record_at, acknowledge_at, send_at].into_iter().flatten().min();
            tokio::select! {
                // A random order would be of no seed. A commit that has ended lets rows follow, so it goes first.
                biased;
                Some(ended) = OptionFuture::from(recording.as_mut().map(|(_, task)| task)) => {
                    let Some((mut commit, _)) = recording.take() else { continue };
                    match ended {
                        Ok((version, is_passed_over)) => {
                            if is_passed_over {
                                // Another process delivers by now. The rows were not marked, and are not sent.
                                commit.marked.clear();
                                self.lost.stop();
                            }
                            self.committed(&mut rows, commit, version);
                        }
                        Err(error) => {
                            // No further row is sent. The rows in flight are waited for, and recorded below. Outcomes that can be
                            // recorded already are not: two would count for two of identical rows.
                            if !error.is_outcome_unknown() {
                                rows.answered.extend(commit.answered);
                            }
                            failed = Some(error);
                        }
                    }
                }
                Some(ended) = OptionFuture::from(acknowledging.as_mut().map(|(_, _, task)| task)) => {
                    let Some((delivered, begun, _)) = acknowledging.take() else { continue };
                    acknowledge_after = environment().instant() + (environment().instant() - begun) * ACKNOWLEDGE_PAUSE;
                    match ended {
                        Ok((count, executions)) => {
                            self.report.settled += executions;
                            self.record.add(delivered, count);
                        }
                        Err(error) => failed = Some(failed.unwrap_or(error)),
                    }
                }
                Some((number, answers, when)) = sends.next() => rows.add_answers(number, answers, when),
                Some(()) = OptionFuture::from(wake_at.map(sleep_until)) => {}
                () = self.stop.stopped(), if !stopping => {}
                () = self.lost.stopped(), if !stopping => {}
                Some(()) = OptionFuture::from(deadline.map(sleep_until)), if !sends.is_empty() => {
                    // Dropping a send ends it where the transport can.
                    sends.clear();
                    self.report.stopped = true;
                    self.epoch.leaves_send();
                    let unanswered = || SendOutcome::unknown("the delivery was stopped while the answer was waited for");
                    let in_flight = rows.in_flight.drain().flat_map(|(_, rows)| rows);
                    rows.answered.extend(in_flight.map(|row| AnsweredRow::now(row, unanswered())));
                    rows.rows_in_flight = 0;
                }
            }
            if failed.is_some() && sends.is_empty() && recording.is_none() && acknowledging.is_none() {
                break;
            }
        }
        match failed {
            None => Ok(()),
            Some(error) => {
                self.record_after_failure(&rows).await;
                Err(error)
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stop.is_stopped() || self.lost.is_stopped()
    }

    /// How many batches can be in flight at a time.
    fn slots(&self) -> usize {
        self.options.concurrency.min(self.sender.transport.max_batches()).max(1)
    }

    /// How many rows can be in flight at a time.
    fn rows_at_once(&self) -> usize {
        self.slots().saturating_mul(self.sender.batch_size())
    }

    fn window(&self) -> usize {
        MIN_WINDOW.max(self.rows_at_once().saturating_mul(WINDOW_FACTOR)).max(self.options.concurrency)
    }

    /// How many more rows can be marked, once the answered rows are recorded.
    fn room(&self, rows: &Pipeline) -> usize {
        self.window().saturating_sub(rows.marked.len() + rows.rows_in_flight).min(rows.ready.len())
    }

    fn is_time_to_record(&self, rows: &Pipeline, stopping: bool) -> bool {
        let room = if stopping { 0 } else { self.room(rows) };
        if rows.answered.is_empty() && room == 0 {
            return false;
        }
        // There can be too few marked rows for the duration of a commit.
        let is_scarce = rows.marked.len() < self.rows_at_once();
        let has_lingered = rows.oldest_answer.is_some_and(|at| environment().instant() - at >= LINGER);
        let are_many = rows.answered.len() >= self.window() / 2;
        let is_idle = rows.marked.is_empty() && rows.rows_in_flight == 0;
        // Rows could be sent at once, if the answers of the rows before them were recorded.
        let blocks_rows = rows.marked.len() + rows.rows_in_flight < self.rows_at_once()
            && rows.answered.iter().any(|answered| !answered.row.rest.is_empty());
        (is_scarce && room > 0) || is_idle || are_many || has_lingered || blocks_rows
    }

    /// The next commit, and its attempts.
    fn next_commit(&mut self, rows: &mut Pipeline) -> (AttemptsCommit, Vec<Attempt>) {
        let answered = std::mem::take(&mut rows.answered);
        rows.oldest_answer = None;
        let mut attempts: Vec<Attempt> = answered.iter().map(|answered| self.answered_attempt(answered)).collect();
        let room = if self.is_stopping() { 0 } else { self.room(rows) };
        let now = environment().utc();
        let mut marked = Vec::with_capacity(room);
        for mut rest in rows.ready.drain(..room) {
            let Some(queued) = rest.pop_front() else { continue };
            attempts.push(self.attempt(&queued, AttemptOutcome::Sending, self.sender.mark(&queued), None, now));
            marked.push(ActiveRow { queued, rest });
        }
        (AttemptsCommit { answered, marked }, attempts)
    }

    /// Continues with the rows of a commit that is durable.
    fn committed(&mut self, rows: &mut Pipeline, commit: AttemptsCommit, version: u64) {
        self.record.versions.push(version);
        rows.marked.extend(commit.marked);
        for answered in commit.answered {
            let attempt = self.answered_attempt(&answered);
            let AnsweredRow { row: ActiveRow { queued, rest }, sent, at } = answered;
            self.record.latest = self.record.latest.max(queued.row.timestamp);
            let is_not_sent = matches!(sent.outcome, SendOutcome::NotTried);
            let outcome = attempt.outcome.clone();
            match outcome {
                AttemptOutcome::Delivered => self.report.delivered += 1,
                AttemptOutcome::Parked => self.report.parked += 1,
                AttemptOutcome::Unknown => self.report.unknown += 1,
                _ if is_not_sent => self.report.not_tried += 1,
                _ => self.report.failed += 1,
            }
            let is_delivered = outcome == AttemptOutcome::Delivered;
            if !is_delivered && (!is_not_sent || !self.is_stopping()) {
                let detail = attempt.detail.clone().unwrap_or_default();
                tracing::info!(
                    job_id = queued.delivery.job_id,
                    status = queued.delivery.status,
                    attempt = queued.attempt,
                    outcome = outcome.as_str(),
                    vm = sent.vm,
                    detail,
                    "not delivered"
                );
                let (row, attempt) = (queued.row.clone(), queued.attempt);
                self.report.failures.push(RowFailure { row, attempt, outcome: outcome.clone(), detail });
            }
            if !is_delivered || self.duplicates.contains(&queued.row) {
                let mark = self.attempt(&queued, AttemptOutcome::Sending, None, None, at);
                self.record.attempts.extend([mark, attempt]);
            }
            if is_delivered {
                rows.delivered.push(queued.row);
            }
            if (is_delivered || outcome == AttemptOutcome::Parked) && !rest.is_empty() {
                rows.ready.push_back(rest);
            }
        }
    }

    /// Records the answered rows after the store failed. What only this process knows is tried for as long as a lease, unless it may be
    /// written already: two outcomes would count for two of identical rows.
    async fn record_after_failure(&self, rows: &Pipeline) {
        let attempts: Vec<Attempt> = rows.answered.iter().map(|answered| self.answered_attempt(answered)).collect();
        if attempts.is_empty() {
            return;
        }
        let (until, mut pause) = (environment().instant() + self.options.lease_ttl, FIRST_PAUSE);
        loop {
            let (epoch, given) = (Arc::clone(self.epoch), attempts.clone());
            let Err(error) = blocking(move || epoch.record(&given)).await else { return };
            let may_help = error.is_retryable() && !error.is_outcome_unknown();
            if !may_help || environment().instant() + pause > until {
                tracing::warn!(
                    error = error.full_message(),
                    "outcomes were not recorded: these rows are in doubt, and are read back or sent again"
                );
                return;
            }
            environment().sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The attempt that records the answer of a row.
    fn answered_attempt(&self, answered: &AnsweredRow) -> Attempt {
        let queued = &answered.row.queued;
        let is_last_try = self.options.max_attempts.is_some_and(|most| queued.failures + 1 >= most.unsigned_abs());
        let (outcome, detail) = match &answered.sent.outcome {
            SendOutcome::Delivered { detail } => (AttemptOutcome::Delivered, detail.clone()),
            SendOutcome::Failed { detail, permanent: true } => (AttemptOutcome::Parked, Some(detail.clone())),
            SendOutcome::Failed { detail, .. } if is_last_try => {
                (AttemptOutcome::Parked, Some(format!("attempt {} was the last: {detail}", queued.attempt)))
            }
            SendOutcome::Failed { detail, .. } => (AttemptOutcome::Failed, Some(detail.clone())),
            // Not parked at once, because it can have arrived. If no attempt is left, the next cycle parks it unsent.
            SendOutcome::Unknown { detail } => (AttemptOutcome::Unknown, Some(detail.clone())),
            SendOutcome::NotTried => (AttemptOutcome::Failed, Some(NOT_SENT.to_owned())),
        };
        let doubt = queued.in_doubt.filter(|_| outcome == AttemptOutcome::Parked);
        let detail = detail.map(|text| shortened(&text) + &describe_doubt(doubt));
        self.attempt(queued, outcome, detail, answered.sent.vm.clone(), answered.at)
    }

    fn attempt(
        &self,
        queued: &QueuedRow,
        outcome: AttemptOutcome,
        detail: Option<String>,
        vm: Option<String>,
        attempted_at: DateTime<Utc>,
    ) -> Attempt {
        let (source, transport) = (self.options.source, self.sender.transport.name());
        let attempt = Attempt::new(source, &queued.row, queued.attempt, outcome, detail, transport);
        Attempt { vm, attempted_at, ..attempt }
    }
}

impl Pipeline {
    /// Adds the answers to a batch.
    fn add_answers(&mut self, number: u64, answers: Vec<SendResult>, at: DateTime<Utc>) {
        let rows = self.in_flight.remove(&number).unwrap_or_default();
        self.rows_in_flight -= rows.len();
        self.oldest_answer.get_or_insert_with(|| environment().instant());
        let missing = || SendOutcome::unknown("the transport gave no answer for this row").into();
        let answers = answers.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let answered = rows.into_iter().zip(answers);
        self.answered.extend(answered.map(|(row, sent)| AnsweredRow { row, sent: sent.unwrap_or_else(missing), at }));
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_DETAIL) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text.to_owned(),
    }
}
