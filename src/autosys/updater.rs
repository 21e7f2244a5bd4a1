//! One delivery cycle: pending ledger rows become AutoSys events, and the rows that AutoSys took are acknowledged.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::plan::{History, Item, NOT_TRIED, Order, Plan, Rules, Unsent, plan};
use super::report::{DeliveryReport, PlannedDelivery, RowFailure};
use super::transport::{Gate, Outcome, Transport};
use crate::error::{Error, Result};
use crate::ledger::{Attempt, JobLedger, LedgerRow, LedgerTable, RowFilter};
use crate::runtime::blocking;
use crate::stop::Stop;

/// Rows that are marked, sent and acknowledged together, unless more are sent at a time. A crash leaves at most so many
/// sends in doubt; three commits are spent on each window.
const WINDOW: usize = 64;

/// The longest detail that is recorded, in characters.
const MAX_DETAIL: usize = 2000;

/// How an [`AutosysUpdater`] delivers. More options will come: start from the default.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpdaterOptions {
    /// The table whose rows are sent.
    pub source: LedgerTable,
    /// After so many failed attempts a row is parked; never, if none. At least 1.
    pub max_attempts: Option<i64>,
    /// In which order rows are sent.
    pub order: Order,
    /// How many events are under way at a time. At least 1.
    pub concurrency: usize,
    /// Sends nothing and writes nothing; the report says what would be sent.
    pub dry_run: bool,
    /// How long a cycle that is to stop waits for the answers to what is under way; without an answer it is unknown
    /// whether a row arrived.
    pub stop_grace: Duration,
}

impl Default for UpdaterOptions {
    fn default() -> Self {
        Self {
            source: LedgerTable::Notifications,
            max_attempts: None,
            order: Order::PerJob,
            concurrency: 8,
            dry_run: false,
            stop_grace: Duration::from_secs(30),
        }
    }
}

/// Delivers the pending rows of a ledger to AutoSys. Clones share the ledger and the transport.
#[derive(Clone)]
pub struct AutosysUpdater {
    ledger: JobLedger,
    transport: Arc<dyn Transport>,
    options: UpdaterOptions,
    delivered_by: String,
}

impl fmt::Debug for AutosysUpdater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutosysUpdater")
            .field("ledger", &self.ledger.root())
            .field("transport", &self.transport.name())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl AutosysUpdater {
    /// An updater; reads and sends nothing yet.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for a `max_attempts` or `concurrency` below 1.
    pub fn new(ledger: JobLedger, transport: Arc<dyn Transport>, options: UpdaterOptions) -> Result<Self> {
        if options.concurrency == 0 {
            return Err(Error::invalid("concurrency is 0, so that nothing would be sent; give at least 1"));
        }
        if let Some(most @ ..1) = options.max_attempts {
            return Err(Error::invalid(format!("max_attempts is {most}; give at least 1, or none for no limit")));
        }
        let host = gethostname::gethostname();
        let delivered_by = format!("{}:{}", host.to_string_lossy(), std::process::id());
        Ok(Self { ledger, transport, options, delivered_by })
    }

    /// Runs one cycle: each pending row is tried at most once; what fails stays `NO` for the next cycle.
    ///
    /// Each window of rows is recorded as `sending`, sent, recorded with its outcomes and then acknowledged together
    /// with the matching executions. A crash in between loses nothing: delivered rows are only flipped in the next
    /// cycle, and rows without an outcome are sent again and marked so.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] for a ledger that does not exist, and those of the ledger's store, which stop the
    /// cycle; the next cycle goes on where it stopped. What AutoSys or the transport refuses is in the report instead.
    pub async fn run(&self) -> Result<DeliveryReport> {
        self.run_until(&Stop::default()).await
    }

    /// [`AutosysUpdater::run`] that can be stopped: no further row is sent then, the answers to what is under way are waited
    /// for, and what is known by then is recorded and acknowledged, so that nothing is sent again without need. Dropping
    /// the future instead would lose that.
    ///
    /// # Errors
    /// Those of [`AutosysUpdater::run`].
    pub async fn run_until(&self, stop: &Stop) -> Result<DeliveryReport> {
        let mut report = DeliveryReport { dry_run: self.options.dry_run, ..DeliveryReport::default() };
        let plan = self.plan().await?;
        report.parked = plan.parked_before;
        if self.options.dry_run {
            report.pending = self.count_pending().await?;
            self.show(plan, &mut report);
            return Ok(report);
        }
        self.settle_without_sending(&plan, &mut report).await?;
        self.send_all(plan.queues, stop, &mut report).await?;
        report.pending = self.count_pending().await?;
        tracing::info!(
            delivered = report.delivered,
            failed = report.failed,
            parked = report.parked,
            unknown = report.unknown,
            superseded = report.superseded,
            pending = report.pending,
            stopped = report.stopped,
            "delivery cycle ended"
        );
        Ok(report)
    }

    async fn plan(&self) -> Result<Plan> {
        let (ledger, transport, options) = (self.ledger.clone(), Arc::clone(&self.transport), self.options.clone());
        blocking(move || {
            let pending = ledger.pending(options.source)?;
            let histories = History::of(ledger.attempts(options.source)?);
            let acknowledged = acknowledged(&ledger, options.source, &pending, &histories)?;
            let check = |delivery: &_| transport.check(delivery);
            let max_attempts = options.max_attempts.map(i64::unsigned_abs);
            let rules = Rules { order: options.order, max_attempts, check: &check };
            Ok(plan(pending, &histories, &acknowledged, &rules))
        })
        .await
    }

    async fn count_pending(&self) -> Result<u64> {
        let (ledger, source) = (self.ledger.clone(), self.options.source);
        blocking(move || Ok(ledger.pending(source)?.len() as u64)).await
    }

    fn show(&self, plan: Plan, report: &mut DeliveryReport) {
        report.recovered = plan.recovered.len() as u64;
        report.superseded = plan.superseded.len() as u64;
        report.parked += plan.park.len() as u64;
        report.failures =
            plan.park.into_iter().map(|unsent| failure(unsent.row, unsent.attempt, "parked", unsent.reason)).collect();
        report.planned = plan
            .queues
            .into_iter()
            .flatten()
            .map(|item| PlannedDelivery { action: self.transport.describe(&item.delivery), row: item.row })
            .collect();
    }

    /// Parks, supersedes and flips the rows that need no sending.
    async fn settle_without_sending(&self, plan: &Plan, report: &mut DeliveryReport) -> Result<()> {
        let now = Utc::now();
        let attempt = |unsent: &Unsent, outcome| {
            self.attempt(&unsent.row, unsent.attempt, outcome, Some(unsent.reason.clone()), now)
        };
        let parked = plan.park.iter().map(|unsent| attempt(unsent, "parked"));
        let superseded = plan.superseded.iter().map(|unsent| attempt(unsent, "superseded"));
        self.append(parked.chain(superseded).collect()).await?;
        let settled = plan.superseded.iter().map(|unsent| &unsent.row);
        report.settled += self.acknowledge(plan.recovered.iter().chain(settled).cloned().collect()).await?;
        report.recovered = plan.recovered.len() as u64;
        report.superseded = plan.superseded.len() as u64;
        report.parked += plan.park.len() as u64;
        for Unsent { row, attempt, reason } in &plan.park {
            tracing::warn!(job_id = row.job_id, status = row.status, reason, "row parked");
            report.failures.push(failure(row.clone(), *attempt, "parked", reason.clone()));
        }
        Ok(())
    }

    /// Sends window after window. A window has one row of a queue at most, so that only rows that really are sent are
    /// recorded as `sending`; a queue whose row is not dealt with is left for the next cycle.
    async fn send_all(
        &self,
        mut queues: VecDeque<VecDeque<Item>>,
        stop: &Stop,
        report: &mut DeliveryReport,
    ) -> Result<()> {
        let size = WINDOW.max(self.options.concurrency);
        while !queues.is_empty() {
            if stop.is_stopped() {
                report.stopped = true;
                break;
            }
            let mut window: VecDeque<(Item, VecDeque<Item>)> = VecDeque::new();
            while window.len() < size
                && let Some(mut queue) = queues.pop_front()
            {
                if let Some(item) = queue.pop_front() {
                    window.push_back((item, queue));
                }
            }
            for rest in self.send_window(window, stop, report).await? {
                if !rest.is_empty() {
                    queues.push_back(rest);
                }
            }
        }
        Ok(())
    }

    /// Sends one window; returns what is left of the queues that may go on.
    async fn send_window(
        &self,
        mut window: VecDeque<(Item, VecDeque<Item>)>,
        stop: &Stop,
        report: &mut DeliveryReport,
    ) -> Result<Vec<VecDeque<Item>>> {
        let now = Utc::now();
        let sending = window.iter().map(|(item, _)| {
            let repeated =
                item.in_doubt.map(|number| format!("sent again: whether attempt {number} arrived is unknown"));
            self.attempt(&item.row, item.attempt, "sending", repeated, now)
        });
        self.append(sending.collect()).await?;

        let answers = self.exchange(&mut window, stop).await;
        report.stopped |= !window.is_empty();
        let not_tried = |(item, _): &(Item, _)| {
            self.attempt(&item.row, item.attempt, "failed", Some(NOT_TRIED.to_owned()), Utc::now())
        };
        let not_tried: Vec<Attempt> = window.iter().map(not_tried).collect();
        let (mut attempts, mut delivered, mut going_on) = (Vec::new(), Vec::new(), Vec::new());
        for (item, rest, outcome, at) in answers {
            let (outcome, detail) = self.judge(&item, outcome);
            let detail = detail.map(|text| shortened(&text));
            attempts.push(self.attempt(&item.row, item.attempt, outcome, detail.clone(), at));
            match outcome {
                "delivered" => {
                    report.delivered += 1;
                    delivered.push(item.row.clone());
                }
                "parked" => report.parked += 1,
                "unknown" => report.unknown += 1,
                _ => report.failed += 1,
            }
            if outcome == "delivered" || outcome == "parked" {
                going_on.push(rest);
            }
            if outcome != "delivered" {
                let detail = detail.unwrap_or_default();
                tracing::warn!(
                    job_id = item.delivery.job_id,
                    status = item.delivery.status,
                    outcome,
                    detail,
                    "not delivered"
                );
                report.failures.push(failure(item.row, item.attempt, outcome, detail));
            }
        }
        attempts.extend(not_tried);
        self.append(attempts).await?;
        report.settled += self.acknowledge(delivered).await?;
        Ok(going_on)
    }

    /// Sends the rows of `window`, as many at a time as may be, and takes out those that were tried, each with its answer.
    /// Rows whose turn did not come before the stop are left in it.
    async fn exchange(&self, window: &mut VecDeque<(Item, VecDeque<Item>)>, stop: &Stop) -> Vec<Answered> {
        let at_once = self.options.concurrency.min(self.transport.at_once()).max(1);
        let (mut answers, mut under_way) = (Vec::new(), HashMap::new());
        let mut sends = FuturesUnordered::new();
        let mut deadline: Option<Instant> = None;
        for number in 0.. {
            if sends.len() < at_once
                && !stop.is_stopped()
                && let Some((item, rest)) = window.pop_front()
            {
                let (transport, delivery) = (Arc::clone(&self.transport), item.delivery.clone());
                under_way.insert(number, (item, rest));
                sends.push(async move { (number, transport.send(&delivery, &Gate::open()).await.outcome, Utc::now()) });
                continue;
            }
            tokio::select! {
                answer = sends.next() => match answer {
                    Some((number, outcome, at)) => {
                        let sent = under_way.remove(&number);
                        answers.extend(sent.map(|(item, rest)| (item, rest, outcome, at)));
                    }
                    None => break,
                },
                () = stop.stopped(), if deadline.is_none() => deadline = Some(Instant::now() + self.options.stop_grace),
                () = until(deadline), if deadline.is_some() => break,
            }
        }
        // Given up: dropping a send ends it where the transport can.
        let unanswered = || Outcome::unknown("the delivery was stopped while the answer was waited for");
        answers.extend(under_way.into_values().map(|(item, rest)| (item, rest, unanswered(), Utc::now())));
        answers
    }

    /// The word for the attempts table, and the detail.
    fn judge(&self, item: &Item, outcome: Outcome) -> (&'static str, Option<String>) {
        let tries = item.failures + 1;
        let last_try = self.options.max_attempts.is_some_and(|most| tries >= most.unsigned_abs());
        match outcome {
            Outcome::Delivered { detail } => ("delivered", detail),
            Outcome::Failed { detail, permanent: true } => ("parked", Some(detail)),
            Outcome::Failed { detail, .. } if last_try => {
                ("parked", Some(format!("attempt {tries} was the last: {detail}")))
            }
            Outcome::Failed { detail, .. } => ("failed", Some(detail)),
            // Never parked right away: it may have arrived. The next cycle parks it unsent if no attempt is left.
            Outcome::Unknown { detail } => ("unknown", Some(detail)),
            Outcome::NotTried { .. } => ("failed", Some(NOT_TRIED.to_owned())),
        }
    }

    fn attempt(
        &self,
        row: &LedgerRow,
        attempt: i64,
        outcome: &str,
        detail: Option<String>,
        attempted_at: DateTime<Utc>,
    ) -> Attempt {
        Attempt {
            table: self.options.source,
            row: row.clone(),
            attempt,
            outcome: outcome.to_owned(),
            detail,
            transport: self.transport.name().to_owned(),
            vm: None,
            delivered_by: self.delivered_by.clone(),
            attempted_at,
        }
    }

    async fn append(&self, attempts: Vec<Attempt>) -> Result<()> {
        if attempts.is_empty() {
            return Ok(());
        }
        let ledger = self.ledger.clone();
        blocking(move || ledger.append_attempts(&attempts)).await
    }

    /// Flips exactly these rows, and before that the executions that belong to them: after a crash between the two, the
    /// next cycle finds the row still `NO` and does both again, whereas the other way round it would find nothing to do.
    /// Returns the number of executions settled.
    async fn acknowledge(&self, rows: Vec<LedgerRow>) -> Result<u64> {
        if rows.is_empty() {
            return Ok(0);
        }
        let (ledger, source) = (self.ledger.clone(), self.options.source);
        blocking(move || {
            let settled = match source {
                LedgerTable::Notifications => ledger.settle_executions(&rows)?,
                LedgerTable::Executions => 0,
            };
            ledger.acknowledge(source, &rows)?;
            Ok(settled)
        })
        .await
    }
}

/// A row that was sent, what is left of its queue, the answer, and when it came.
type Answered = (Item, VecDeque<Item>, Outcome, DateTime<Utc>);

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// How many `YES` rows there are of each pending row that attempts have dealt with: rarely any, as these are only left
/// by a crash or by identical rows of which some were delivered.
fn acknowledged(
    ledger: &JobLedger,
    source: LedgerTable,
    pending: &[LedgerRow],
    histories: &HashMap<LedgerRow, History>,
) -> Result<HashMap<LedgerRow, u64>> {
    let mut counts: HashMap<LedgerRow, u64> = HashMap::new();
    for row in pending {
        if counts.contains_key(row) || histories.get(row).is_none_or(|history| history.finished() == 0) {
            continue;
        }
        let instant = row.timestamp.and_then(DateTime::from_timestamp_micros);
        let filter = RowFilter {
            flag: Some("YES".to_owned()),
            job_id: row.job_id.clone(),
            since: instant,
            // A microsecond wider than needed, so that it does not matter whether the bound is inclusive.
            until: instant.map(|at| at + chrono::TimeDelta::microseconds(1)),
            ..RowFilter::default()
        };
        let same = JobLedger::rows_from_batch(source, &ledger.rows(source, &filter)?)?;
        counts.insert(row.clone(), same.iter().filter(|other| *other == row).count() as u64);
    }
    Ok(counts)
}

fn failure(row: LedgerRow, attempt: i64, outcome: &'static str, detail: String) -> RowFailure {
    RowFailure { row, attempt, outcome, detail }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_DETAIL) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
