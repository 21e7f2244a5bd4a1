//! The sending part of one delivery cycle: rows are marked as `sending`, sent, recorded with their outcomes and
//! acknowledged, all at the same time for different rows.
//!
//! One commit to the attempts table has the outcomes of the rows that were answered and the marks of those that are sent
//! next, so that the next row of a job is never sent before the outcome of the one before is durable. The rows that are
//! marked but have no durable outcome are the window: what a crash leaves in doubt. Flags are flipped less often, as
//! each commit of that kind writes all pending rows of a file anew; a delivered row that a crash left unflipped is known
//! from the attempts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::history::NOT_TRIED;
use super::pace::Pace;
use super::plan::{Item, Queues};
use super::report::{DeliveryReport, RowFailure};
use super::send::Way;
use super::transport::{Gate, Outcome, Sent};
use super::updater::UpdaterOptions;
use crate::error::{Error, Result};
use crate::ledger::{Attempt, JobLedger, LedgerRow, LedgerTable};
use crate::runtime::blocking;
use crate::stop::Stop;

/// Rows in the window at least, if there are so many.
const LEAST_WINDOW: usize = 64;
/// The window in terms of what is sent at a time: enough to go on sending while a commit is made.
const WINDOWS: usize = 8;
/// How long outcomes wait for company before they are recorded while there is enough to send.
const LINGER: Duration = Duration::from_millis(20);
/// After flags were flipped, this many times as long passes before it is done again: it writes what is still pending anew.
const REST: u32 = 4;
/// The longest detail that is recorded, in characters.
const MAX_DETAIL: usize = 2000;

/// What was written in a cycle, for those who write down where the rows stand.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The attempts at rows that are not done with; those at a row that is flipped say nothing any more, unless there
    /// are identical ones.
    pub(super) attempts: Vec<Attempt>,
    /// The latest timestamp of a row that was tried, in microseconds since 1970 UTC.
    pub(super) latest: Option<i64>,
    /// Versions of the attempts table that are this cycle's own.
    pub(super) versions: Vec<u64>,
    /// Rows whose flags were flipped.
    pub(super) flipped: Vec<LedgerRow>,
    /// How many of them there really were, and in how many commits it was done.
    pub(super) flips: Flips,
}

/// What was flipped.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Flips {
    pub(super) rows: u64,
    pub(super) commits: u64,
    /// Executions that were settled with them.
    pub(super) settled: u64,
}

impl Flips {
    pub(super) fn add(&mut self, more: Self) {
        self.rows += more.rows;
        self.commits += more.commits;
        self.settled += more.settled;
    }
}

/// A row on its way, and the rows of its job that come after it.
struct Row {
    item: Item,
    rest: VecDeque<Item>,
}

/// A row that was answered.
struct Answered {
    row: Row,
    sent: Sent,
    at: DateTime<Utc>,
}

type Answers = (u64, Vec<Sent>, DateTime<Utc>);
type Working<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a cycle needs beside the rows.
pub(super) struct Cycle<'a> {
    pub(super) ledger: &'a JobLedger,
    pub(super) way: &'a Way,
    pub(super) options: &'a UpdaterOptions,
    pub(super) delivered_by: &'a str,
    /// A request to stop.
    pub(super) stop: &'a Stop,
    /// Made when somebody else may deliver.
    pub(super) lost: Stop,
    pub(super) gate: Gate,
    /// Pending rows of which there are several.
    pub(super) twins: &'a HashSet<LedgerRow>,
    pub(super) report: &'a mut DeliveryReport,
    pub(super) written: &'a mut Written,
}

/// Where the rows of a run of [`Cycle::send`] are.
#[derive(Default)]
struct Stations {
    /// The first row of each may be marked.
    ready: Queues,
    /// Marked durably, and to be sent.
    marked: VecDeque<Row>,
    /// Under way, by the number of their batch.
    under_way: HashMap<u64, Vec<Row>>,
    rows_under_way: usize,
    /// Answered, and to be recorded.
    answered: Vec<Answered>,
    oldest_answer: Option<Instant>,
    /// Delivered and recorded, and to be flipped.
    delivered: Vec<LedgerRow>,
}

/// What a commit to the attempts table records.
struct Recording {
    answered: Vec<Answered>,
    marking: Vec<Row>,
}

impl Cycle<'_> {
    /// Sends the rows of `queues` until none is left that may be sent, or it is to stop.
    ///
    /// # Errors
    /// Those of the ledger's store. What was answered until then was tried to be recorded.
    pub(super) async fn send(&mut self, queues: Queues) -> Result<()> {
        let mut at = Stations { ready: queues, ..Stations::default() };
        let mut sends: FuturesUnordered<Working<Answers>> = FuturesUnordered::new();
        let mut recording: Option<(Recording, Working<Result<u64>>)> = None;
        let mut flipping: Option<(Vec<LedgerRow>, Instant, Working<Result<Flips>>)> = None;
        let mut flip_after = Instant::now();
        let mut pace = Pace::new(self.options.rate);
        let (mut deadline, mut failed): (Option<Instant>, Option<Error>) = (None, None);
        for number in 0.. {
            let stopping = self.stopping() || failed.is_some();
            if stopping {
                self.report.stopped |= !at.ready.is_empty();
                at.ready.clear();
                deadline.get_or_insert_with(|| Instant::now() + self.options.stop_grace);
            }
            // Each branch does one step and looks again.
            if !stopping
                && sends.len() < self.slots()
                && !at.marked.is_empty()
                && pace.may_go(std::time::Instant::now())
            {
                let batch: Vec<Row> = at.marked.drain(..self.way.batch().min(at.marked.len())).collect();
                pace.gone(std::time::Instant::now(), batch.len());
                let (way, gate) = (self.way.clone(), self.gate.clone());
                let items: Vec<Item> = batch.iter().map(|row| row.item.clone()).collect();
                at.rows_under_way += batch.len();
                at.under_way.insert(number, batch);
                sends.push(Box::pin(async move { (number, way.send(&items, &gate).await, Utc::now()) }));
                continue;
            }
            if stopping && !at.marked.is_empty() {
                // They were not tried: recorded so that their mark counts for nothing.
                self.report.stopped = true;
                let not_tried = |row| Answered { row, sent: Outcome::not_tried(NOT_TRIED).into(), at: Utc::now() };
                at.answered.extend(at.marked.drain(..).map(not_tried));
            }
            if recording.is_none() && failed.is_none() && self.is_time_to_record(&at, stopping) {
                let (ours, attempts) = self.recording(&mut at);
                let ledger = self.ledger.clone();
                recording = Some((ours, Box::pin(blocking(move || ledger.append_attempts(&attempts)))));
                continue;
            }
            let idle = at.marked.is_empty() && sends.is_empty() && recording.is_none() && at.answered.is_empty();
            let nothing_to_send = idle && (at.ready.is_empty() || stopping);
            let now = Instant::now();
            if flipping.is_none() && !at.delivered.is_empty() && (nothing_to_send || now >= flip_after) {
                let rows = std::mem::take(&mut at.delivered);
                let (ledger, source, given) = (self.ledger.clone(), self.options.source, rows.clone());
                flipping = Some((rows, now, Box::pin(blocking(move || flip(&ledger, source, &given)))));
                continue;
            }
            if nothing_to_send && flipping.is_none() {
                break;
            }
            let linger = at.oldest_answer.filter(|_| recording.is_none()).map(|at| at + LINGER);
            let rested = (!at.delivered.is_empty() && flipping.is_none()).then_some(flip_after);
            let next_go =
                (!stopping && !at.marked.is_empty() && sends.len() < self.slots()).then(|| pace.next()).flatten();
            let wake = [linger, rested, next_go.map(Instant::from_std)].into_iter().flatten().min();
            tokio::select! {
                Some((number, answers, when)) = sends.next() => at.answer(number, answers, when),
                ended = until_done(recording.as_mut().map(|(_, working)| working)) => {
                    let Some((ours, _)) = recording.take() else { continue };
                    match ended {
                        Ok(version) => self.recorded(&mut at, ours, version),
                        Err(error) => {
                            // Nothing more is sent; what is under way is waited for, and recorded once more below.
                            at.answered.extend(ours.answered);
                            failed = Some(error);
                        }
                    }
                }
                ended = until_done(flipping.as_mut().map(|(_, _, working)| working)) => {
                    let Some((rows, begun, _)) = flipping.take() else { continue };
                    flip_after = Instant::now() + begun.elapsed() * REST;
                    match ended {
                        Ok(flips) => {
                            self.report.settled += flips.settled;
                            self.written.flips.add(flips);
                            self.written.flipped.extend(rows);
                        }
                        Err(error) => failed = Some(failed.unwrap_or(error)),
                    }
                }
                () = until(wake), if wake.is_some() => {}
                () = self.stop.stopped(), if !stopping => {}
                () = self.lost.stopped(), if !stopping => {}
                () = until(deadline), if deadline.is_some() && !sends.is_empty() => {
                    // Given up: dropping a send ends it where the transport can.
                    sends.clear();
                    let unanswered = || Outcome::unknown("the delivery was stopped while the answer was waited for");
                    let rows = at.under_way.drain().flat_map(|(_, rows)| rows);
                    at.answered.extend(rows.map(|row| Answered { row, sent: unanswered().into(), at: Utc::now() }));
                    at.rows_under_way = 0;
                }
            }
            if failed.is_some() && sends.is_empty() && recording.is_none() && flipping.is_none() {
                break;
            }
        }
        match failed {
            None => Ok(()),
            Some(error) => {
                self.save(&mut at).await;
                Err(error)
            }
        }
    }

    fn stopping(&self) -> bool {
        self.stop.is_stopped() || self.lost.is_stopped()
    }

    /// How many batches may be under way at a time.
    fn slots(&self) -> usize {
        self.options.concurrency.min(self.way.at_once()).max(1)
    }

    /// How many rows may be under way at a time.
    fn rows_at_once(&self) -> usize {
        self.slots().saturating_mul(self.way.batch())
    }

    fn window(&self) -> usize {
        LEAST_WINDOW.max(self.rows_at_once().saturating_mul(WINDOWS)).max(self.options.concurrency)
    }

    /// How many more rows may be marked, once those that are answered are recorded.
    fn room(&self, at: &Stations) -> usize {
        self.window().saturating_sub(at.marked.len() + at.rows_under_way).min(at.ready.len())
    }

    fn is_time_to_record(&self, at: &Stations, stopping: bool) -> bool {
        let room = if stopping { 0 } else { self.room(at) };
        if at.answered.is_empty() && room == 0 {
            return false;
        }
        // What is marked lasts for the time of a commit, or not.
        let scarce = at.marked.len() < self.rows_at_once();
        let lingered = at.oldest_answer.is_some_and(|at| at.elapsed() >= LINGER);
        let many = at.answered.len() >= self.window() / 2;
        let idle = at.marked.is_empty() && at.rows_under_way == 0;
        (scarce && room > 0) || idle || many || lingered || self.someone_waits(at)
    }

    /// Whether rows wait for nothing but that those before them are recorded, and could be sent at once.
    fn someone_waits(&self, at: &Stations) -> bool {
        at.marked.len() + at.rows_under_way < self.rows_at_once()
            && at.answered.iter().any(|row| !row.row.rest.is_empty())
    }

    /// What is to be recorded now, and the attempts that say so.
    fn recording(&mut self, at: &mut Stations) -> (Recording, Vec<Attempt>) {
        let answered = std::mem::take(&mut at.answered);
        at.oldest_answer = None;
        let mut attempts: Vec<Attempt> = answered.iter().map(|answered| self.outcome(answered)).collect();
        let room = if self.stopping() { 0 } else { self.room(at) };
        let now = Utc::now();
        let mut marking = Vec::with_capacity(room);
        for mut rest in at.ready.drain(..room) {
            let Some(item) = rest.pop_front() else { continue };
            attempts.push(self.attempt(&item, "sending", self.way.mark(&item), None, now));
            marking.push(Row { item, rest });
        }
        (Recording { answered, marking }, attempts)
    }

    /// Goes on after a commit to the attempts table.
    fn recorded(&mut self, at: &mut Stations, ours: Recording, version: u64) {
        self.written.versions.push(version);
        at.marked.extend(ours.marking);
        for answered in ours.answered {
            self.remember(&answered);
            let Answered { row: Row { item, rest }, sent, .. } = answered;
            let (outcome, detail) = self.judge(&item, &sent.outcome);
            match outcome {
                "delivered" => self.report.delivered += 1,
                "parked" => self.report.parked += 1,
                "unknown" => self.report.unknown += 1,
                _ if matches!(sent.outcome, Outcome::NotTried { .. }) => self.report.not_tried += 1,
                _ => self.report.failed += 1,
            }
            if outcome == "delivered" {
                at.delivered.push(item.row);
            } else if !matches!(sent.outcome, Outcome::NotTried { .. }) || !self.stopping() {
                let detail = detail.unwrap_or_default();
                tracing::info!(
                    job_id = item.delivery.job_id,
                    status = item.delivery.status,
                    attempt = item.attempt,
                    outcome,
                    vm = sent.vm,
                    detail,
                    "not delivered"
                );
                self.report.failures.push(RowFailure { row: item.row, attempt: item.attempt, outcome, detail });
            }
            if (outcome == "delivered" || outcome == "parked") && !rest.is_empty() {
                at.ready.push_back(rest);
            }
        }
    }

    /// Keeps what those need who write down where the rows stand.
    fn remember(&mut self, answered: &Answered) {
        let Answered { row: Row { item, .. }, sent, at } = answered;
        self.written.latest = self.written.latest.max(item.row.timestamp);
        if !matches!(sent.outcome, Outcome::Delivered { .. }) || self.twins.contains(&item.row) {
            let mark = self.attempt(item, "sending", None, None, *at);
            let outcome = self.outcome(answered);
            self.written.attempts.extend([mark, outcome]);
        }
    }

    /// Tries once more to record what was answered, after the store failed.
    async fn save(&mut self, at: &mut Stations) {
        let attempts: Vec<Attempt> = at.answered.iter().map(|answered| self.outcome(answered)).collect();
        if attempts.is_empty() {
            return;
        }
        let ledger = self.ledger.clone();
        if let Err(error) = blocking(move || ledger.append_attempts(&attempts)).await {
            tracing::warn!(
                error = error.full_message(),
                "outcomes could not be recorded: the rows are in doubt, and are sent again or read back"
            );
        }
    }

    fn outcome(&self, answered: &Answered) -> Attempt {
        let (outcome, detail) = self.judge(&answered.row.item, &answered.sent.outcome);
        self.attempt(&answered.row.item, outcome, detail, answered.sent.vm.clone(), answered.at)
    }

    /// The word for the attempts table, and the detail.
    fn judge(&self, item: &Item, outcome: &Outcome) -> (&'static str, Option<String>) {
        let tries = item.failures + 1;
        let last_try = self.options.max_attempts.is_some_and(|most| tries >= most.unsigned_abs());
        let (word, detail) = match outcome {
            Outcome::Delivered { detail } => ("delivered", detail.clone()),
            Outcome::Failed { detail, permanent: true } => ("parked", Some(detail.clone())),
            Outcome::Failed { detail, .. } if last_try => {
                ("parked", Some(format!("attempt {tries} was the last: {detail}")))
            }
            Outcome::Failed { detail, .. } => ("failed", Some(detail.clone())),
            // Never parked right away: it may have arrived. The next cycle parks it unsent if no attempt is left.
            Outcome::Unknown { detail } => ("unknown", Some(detail.clone())),
            Outcome::NotTried { .. } => ("failed", Some(NOT_TRIED.to_owned())),
        };
        (word, detail.map(|text| shortened(&text)))
    }

    fn attempt(
        &self,
        item: &Item,
        outcome: &str,
        detail: Option<String>,
        vm: Option<String>,
        attempted_at: DateTime<Utc>,
    ) -> Attempt {
        Attempt {
            table: self.options.source,
            row: item.row.clone(),
            attempt: item.attempt,
            outcome: outcome.to_owned(),
            detail,
            transport: self.way.name().to_owned(),
            vm,
            delivered_by: self.delivered_by.to_owned(),
            attempted_at,
        }
    }
}

impl Stations {
    /// Takes in the answers to a batch.
    fn answer(&mut self, number: u64, answers: Vec<Sent>, at: DateTime<Utc>) {
        let rows = self.under_way.remove(&number).unwrap_or_default();
        self.rows_under_way -= rows.len();
        self.oldest_answer.get_or_insert_with(Instant::now);
        let silence = || Outcome::unknown("the transport gave no answer for this row").into();
        let answers = answers.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let answered = rows.into_iter().zip(answers);
        self.answered.extend(answered.map(|(row, sent)| Answered { row, sent: sent.unwrap_or_else(silence), at }));
    }
}

/// Flips exactly these rows, and before that the executions that belong to them: after a crash between the two, the
/// next cycle finds the row still `NO` and does both again, whereas the other way round it would find nothing to do.
pub(super) fn flip(ledger: &JobLedger, source: LedgerTable, rows: &[LedgerRow]) -> Result<Flips> {
    let settled = match source {
        LedgerTable::Notifications => ledger.settle_executions(rows)?,
        LedgerTable::Executions => 0,
    };
    let rows = ledger.acknowledge(source, rows)?;
    Ok(Flips { rows, commits: u64::from(rows > 0), settled })
}

async fn until_done<T>(working: Option<&mut Working<T>>) -> T {
    match working {
        Some(working) => working.await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_DETAIL) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text.to_owned(),
    }
}
