//! The delivery of a ledger's pending rows to AutoSys: one cycle, or one after the other.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::cycle::{Cycle, Written, flip};
use super::history::History;
use super::lease::{Held, Taken};
use super::open_rows::OpenRows;
use super::plan::{Order, Plan, Rules, Unsent, plan};
use super::report::{DeliveryReport, PlannedDelivery, RowFailure};
use super::send::Way;
use super::snooze::Snooze;
use super::transport::{Gate, Transport};
use crate::error::{Error, Result};
use crate::ledger::{Attempt, JobLedger, Lease, LedgerRow, LedgerTable, Standing, StandingState, Standings};
use crate::runtime::blocking;
use crate::stop::Stop;

/// How an [`AutosysUpdater`] delivers. More options will come: start from the default.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct UpdaterOptions {
    /// The table whose rows are sent.
    pub source: LedgerTable,
    /// After so many failed attempts a row is parked; never, if none. At least 1.
    pub max_attempts: Option<i64>,
    /// In which order rows are sent.
    pub order: Order,
    /// Jobs that must be delivered, and confirmed where the transport can, before anything else is sent.
    pub first: HashSet<String>,
    /// Jobs that are sent before others.
    pub priority: HashSet<String>,
    /// How many calls of the transport are under way at a time. At least 1.
    pub concurrency: usize,
    /// How long rows that failed wait for the next cycle that tries them; not at all, if none.
    pub backoff: Option<Backoff>,
    /// At most so many events a second, if any.
    pub rate: Option<f64>,
    /// Rows that are older are acknowledged without being sent, with outcome `expired`.
    pub stale_after: Option<Duration>,
    /// Times at which nothing is sent.
    pub snooze: Vec<Snooze>,
    /// How long the lease of a cycle is good that does not renew it any more. At least a second.
    pub lease_ttl: Duration,
    /// How long after an event AutoSys is asked whether it shows it; not at all, if none.
    pub confirm: Option<Duration>,
    /// Sends nothing and writes nothing; the report says what would be sent.
    pub dry_run: bool,
    /// How long a cycle that is to stop waits for the answers to what is under way; without an answer it is unknown
    /// whether a row arrived.
    pub stop_grace: Duration,
}

/// How long the status of a job that goes first is waited for, where nothing else is said.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(30);

impl Default for UpdaterOptions {
    fn default() -> Self {
        Self {
            source: LedgerTable::Notifications,
            max_attempts: None,
            order: Order::PerJob,
            first: HashSet::new(),
            priority: HashSet::new(),
            concurrency: 8,
            backoff: None,
            rate: None,
            stale_after: None,
            snooze: Vec::new(),
            lease_ttl: Duration::from_secs(30),
            confirm: None,
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

/// The shortest time of a lease: it is renewed three times in it, by a commit each.
const SHORTEST_LEASE: Duration = Duration::from_millis(500);

impl UpdaterOptions {
    fn check(&self, transport: &dyn Transport) -> Result<()> {
        if self.concurrency == 0 {
            return Err(Error::invalid("concurrency is 0, so that nothing would be sent; give at least 1"));
        }
        if let Some(most @ ..1) = self.max_attempts {
            return Err(Error::invalid(format!("max_attempts is {most}; give at least 1, or none for no limit")));
        }
        if let Some(rate) = self.rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
            return Err(Error::invalid(format!(
                "rate is {rate} events a second; give more than 0, or none for no limit"
            )));
        }
        if self.stale_after.is_some_and(|age| age.is_zero()) {
            return Err(Error::invalid(
                "stale_after is 0, so that every row would be too late; give at least a second",
            ));
        }
        if self.lease_ttl < SHORTEST_LEASE {
            let seconds = self.lease_ttl.as_secs_f64();
            return Err(Error::invalid(format!("lease_ttl is {seconds} s; give at least half a second")));
        }
        if self.confirm.is_some() && !transport.reads_status() {
            return Err(Error::invalid(format!(
                "confirm needs a transport that can read a job's status, which {} cannot; leave it out",
                transport.name()
            )));
        }
        Ok(())
    }
}

impl AutosysUpdater {
    /// An updater; reads and sends nothing yet.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for an option that can never work, such as a `max_attempts` or `concurrency`
    /// below 1, or a `confirm` where the transport cannot read a status.
    pub fn new(ledger: JobLedger, transport: Arc<dyn Transport>, options: UpdaterOptions) -> Result<Self> {
        options.check(transport.as_ref())?;
        let host = gethostname::gethostname();
        let delivered_by = format!("{}:{}", host.to_string_lossy(), std::process::id());
        Ok(Self { ledger, transport, options, delivered_by })
    }

    /// The ledger.
    pub fn ledger(&self) -> &JobLedger {
        &self.ledger
    }

    /// How it delivers.
    pub fn options(&self) -> &UpdaterOptions {
        &self.options
    }

    /// Runs one cycle: each pending row is tried at most once; what fails stays `NO` for the next cycle.
    ///
    /// Only one cycle at a time delivers from a table: another one reports who does, and sends nothing. Each row is
    /// recorded as `sending`, sent, recorded with its outcome and then acknowledged together with the matching
    /// executions. A crash in between loses nothing: delivered rows are only flipped in the next cycle, and rows without
    /// an outcome are read back where the transport can, else sent again and marked so.
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
        report.snoozed_until = self.options.snooze.iter().filter_map(|window| window.until(Utc::now())).max();
        let open = self.read().await?;
        report.pending = open.pending.len() as u64;
        if self.options.dry_run {
            let plan = self.plan(&open)?;
            self.show(plan, &mut report);
            return Ok(report);
        }
        if report.snoozed_until.is_some() || open.pending.is_empty() {
            report.lease_held_by = self.holder().await?.map(|lease| lease.owner);
            return Ok(report);
        }
        let owner = format!("{}/{}", self.delivered_by, &uuid::Uuid::new_v4().simple().to_string()[..8]);
        match Held::take(&self.ledger, self.options.source.name(), owner, self.options.lease_ttl).await? {
            Taken::Theirs(holder) => report.lease_held_by = Some(holder.owner),
            Taken::Ours(lease) => {
                let ended = self.deliver(open, stop, &lease, &mut report).await;
                if lease.lost().is_stopped() {
                    report.stopped = true;
                    report.lease_held_by = self.holder().await?.map(|lease| lease.owner);
                }
                lease.give_back().await;
                ended?;
            }
        }
        self.tell(&report);
        Ok(report)
    }

    /// One record for the whole cycle; a warning where rows need somebody's attention or another try.
    fn tell(&self, report: &DeliveryReport) {
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(
                    delivered = report.delivered,
                    failed = report.failed,
                    parked = report.parked,
                    unknown = report.unknown,
                    superseded = report.superseded,
                    expired = report.expired,
                    recovered = report.recovered,
                    waiting = report.waiting,
                    pending = report.pending,
                    stopped = report.stopped,
                    lease_held_by = report.lease_held_by,
                    "delivery cycle ended"
                )
            };
        }
        if report.failures.is_empty() && report.held_back == 0 { tell!(info) } else { tell!(warn) }
    }

    /// One cycle after the other until it is to stop: one begins `every` so long, or at once where the one before took
    /// longer. `each` gets the outcome of each cycle, and says whether to go on.
    pub async fn run_forever(
        &self,
        every: Duration,
        stop: &Stop,
        mut each: impl FnMut(Result<DeliveryReport>) -> bool,
    ) {
        loop {
            let begun = Instant::now();
            let outcome = self.run_until(stop).await;
            // Held by a process that may have died: its lease lapses before the next cycle would be due.
            let held = matches!(&outcome, Ok(report) if report.lease_held_by.is_some());
            if !each(outcome) || stop.is_stopped() {
                return;
            }
            let pause = if held { every.min(self.options.lease_ttl) } else { every };
            if stop.unless(tokio::time::sleep_until(begun + pause)).await.is_none() {
                return;
            }
        }
    }

    /// Who holds the lease now, if anybody.
    async fn holder(&self) -> Result<Option<Lease>> {
        let (ledger, name) = (self.ledger.clone(), self.options.source.name());
        blocking(move || Ok(ledger.lease(name)?.filter(Lease::is_held))).await
    }

    async fn read(&self) -> Result<OpenRows> {
        let (ledger, source) = (self.ledger.clone(), self.options.source);
        blocking(move || OpenRows::read(&ledger, source)).await
    }

    fn plan(&self, open: &OpenRows) -> Result<Plan> {
        let options = &self.options;
        let now = Utc::now();
        let stale = options.stale_after.map(chrono::TimeDelta::from_std).transpose();
        let stale = stale.map_err(|e| Error::invalid("stale_after is endless; leave it out").with_source(e))?;
        let check = |delivery: &_| self.transport.check(delivery);
        let due = |row: &_, failures, at| options.backoff.map(|backoff| backoff.next_try(row, failures, at));
        let rules = Rules {
            order: options.order,
            max_attempts: options.max_attempts.map(i64::unsigned_abs),
            first: &options.first,
            priority: &options.priority,
            stale_before: stale.and_then(|age| now.checked_sub_signed(age)),
            due: &due,
            now,
            check: &check,
        };
        Ok(plan(open.pending.clone(), &open.histories, &open.acknowledged, &rules))
    }

    fn show(&self, plan: Plan, report: &mut DeliveryReport) {
        report.recovered = plan.recovered.len() as u64;
        report.superseded = plan.superseded.len() as u64;
        report.expired = plan.expired.len() as u64;
        report.parked = plan.parked_before + plan.park.len() as u64;
        report.waiting = plan.waiting;
        report.next_try = plan.next_try;
        report.failures = plan.park.into_iter().map(|unsent| parked(&unsent)).collect();
        let held_back = if plan.first_is_stuck { plan.queues.iter().map(|queue| queue.len() as u64).sum() } else { 0 };
        report.held_back = held_back;
        let rest = plan.queues.into_iter().filter(|_| held_back == 0);
        report.planned = plan
            .first
            .into_iter()
            .chain(rest)
            .flatten()
            .map(|item| PlannedDelivery { action: self.transport.describe(&item.delivery), row: item.row })
            .collect();
    }

    /// The cycle itself, with the right to deliver.
    async fn deliver(&self, open: OpenRows, stop: &Stop, lease: &Held, report: &mut DeliveryReport) -> Result<()> {
        let (ledger, source) = (self.ledger.clone(), self.options.source);
        let open = blocking(move || open.or_newer(&ledger, source)).await?;
        let plan = self.plan(&open)?;
        report.parked = plan.parked_before;
        report.waiting = plan.waiting;
        report.next_try = plan.next_try;
        let mut written = Written::default();
        let twins = open.twins();
        let ended = self.send_all(plan, &twins, stop, lease, report, &mut written).await;
        let (ledger, flips, backoff) = (self.ledger.clone(), written.flips, self.options.backoff);
        let keep = ended.is_ok() && !lease.lost().is_stopped();
        let left = blocking(move || {
            let left = open.left(&ledger, source, flips.rows, flips.commits);
            if keep {
                // Where that fails, the next cycle reads more.
                write_standings(&ledger, source, backoff, open, written).unwrap_or_else(|error| {
                    tracing::warn!(
                        error = error.full_message(),
                        "where the rows stand was not written down; the next cycle reads it from the attempts"
                    );
                });
            }
            left
        });
        let left = left.await;
        ended?;
        report.pending = left?;
        Ok(())
    }

    async fn send_all(
        &self,
        plan: Plan,
        twins: &HashSet<LedgerRow>,
        stop: &Stop,
        lease: &Held,
        report: &mut DeliveryReport,
        written: &mut Written,
    ) -> Result<()> {
        self.settle_without_sending(&plan, report, written).await?;
        let in_doubt = plan.first.iter().chain(&plan.queues).flatten().filter(|item| item.in_doubt.is_some());
        let before = self.before(in_doubt.map(|item| item.delivery.job_id.clone()).collect()).await?;
        let mut way = Way { transport: Arc::clone(&self.transport), confirm: self.options.confirm, before };
        let (is_good, asked) = (lease.is_good(), stop.clone());
        let gate = Gate::new(move || !asked.is_stopped() && is_good());
        let rest: u64 = plan.queues.iter().map(|queue| queue.len() as u64).sum();
        for (queues, first) in [(plan.first, true), (plan.queues, false)] {
            let planned: u64 = queues.iter().map(|queue| queue.len() as u64).sum();
            let delivered_before = report.delivered;
            if first && self.transport.reads_status() {
                way.confirm = way.confirm.or(Some(CONFIRM_WITHIN));
            }
            let mut cycle = Cycle {
                ledger: &self.ledger,
                way: &way,
                options: &self.options,
                delivered_by: &self.delivered_by,
                stop,
                lost: lease.lost(),
                gate: gate.clone(),
                twins,
                report,
                written,
            };
            cycle.send(queues).await?;
            way.confirm = self.options.confirm;
            if first && (plan.first_is_stuck || report.delivered - delivered_before < planned) {
                if rest > 0 {
                    tracing::warn!(rows = rest, "rows are held back, as jobs that go first are not delivered");
                }
                report.held_back = rest;
                break;
            }
        }
        Ok(())
    }

    /// The last status that was delivered before for each of `jobs`, which have rows in doubt, where that can be of use.
    async fn before(&self, jobs: HashSet<String>) -> Result<Arc<HashMap<String, String>>> {
        if jobs.is_empty() || !self.transport.reads_status() {
            return Ok(Arc::default());
        }
        let (ledger, source) = (self.ledger.clone(), self.options.source);
        Ok(Arc::new(blocking(move || ledger.last_delivered(source, &jobs)).await?))
    }

    /// Parks, supersedes, expires and flips the rows that need no sending.
    async fn settle_without_sending(
        &self,
        plan: &Plan,
        report: &mut DeliveryReport,
        written: &mut Written,
    ) -> Result<()> {
        let now = Utc::now();
        let attempt = |unsent: &Unsent, outcome: &str| Attempt {
            table: self.options.source,
            row: unsent.row.clone(),
            attempt: unsent.attempt,
            outcome: outcome.to_owned(),
            detail: Some(unsent.reason.clone()),
            transport: self.transport.name().to_owned(),
            vm: None,
            delivered_by: self.delivered_by.clone(),
            attempted_at: now,
        };
        let parts = [(&plan.park, "parked"), (&plan.superseded, "superseded"), (&plan.expired, "expired")];
        let attempts: Vec<Attempt> =
            parts.iter().flat_map(|(rows, word)| rows.iter().map(|unsent| attempt(unsent, word))).collect();
        if !attempts.is_empty() {
            let (ledger, given) = (self.ledger.clone(), attempts.clone());
            written.versions.push(blocking(move || ledger.append_attempts(&given)).await?);
            written.attempts.extend(attempts);
        }
        let settled = plan.superseded.iter().chain(&plan.expired).map(|unsent| &unsent.row);
        let rows: Vec<LedgerRow> = plan.recovered.iter().chain(settled).cloned().collect();
        if !rows.is_empty() {
            let (ledger, source, given) = (self.ledger.clone(), self.options.source, rows.clone());
            let flips = blocking(move || flip(&ledger, source, &given)).await?;
            report.settled += flips.settled;
            written.flips.add(flips);
            written.flipped.extend(rows);
        }
        report.recovered = plan.recovered.len() as u64;
        report.superseded = plan.superseded.len() as u64;
        report.expired = plan.expired.len() as u64;
        report.parked += plan.park.len() as u64;
        for unsent in &plan.park {
            let Unsent { row, reason, .. } = unsent;
            tracing::info!(job_id = row.job_id, status = row.status, reason, "row parked");
            report.failures.push(parked(unsent));
        }
        Ok(())
    }
}

fn write_standings(
    ledger: &JobLedger,
    source: LedgerTable,
    backoff: Option<Backoff>,
    open: OpenRows,
    written: Written,
) -> Result<()> {
    if open.as_written && written.versions.is_empty() && written.flipped.is_empty() {
        return Ok(());
    }
    let OpenRows { pending, mut histories, version, mut latest, .. } = open;
    let ours: HashSet<u64> = written.versions.into_iter().collect();
    // Others may have recorded something meanwhile, such as that a row was redriven.
    let (version, others) = match ledger.attempts_since(source, version, &|version| ours.contains(&version))? {
        Some((others, version)) => (version, others),
        // There is no table of attempts yet, or it was cleaned up.
        None if ours.is_empty() => (version, Vec::new()),
        None => return Ok(()),
    };
    let mut counts: HashMap<&LedgerRow, u64> = HashMap::new();
    pending.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    for row in &written.flipped {
        if let Some(count) = counts.get_mut(row) {
            *count = count.saturating_sub(1);
        }
    }
    latest = latest.max(written.latest);
    for attempt in written.attempts.iter().chain(&others) {
        latest = latest.max(attempt.row.timestamp);
        if let Some(history) = histories.get_mut(&attempt.row) {
            history.note(attempt);
        } else if counts.get(&attempt.row).is_some_and(|count| *count > 0) {
            histories.insert(attempt.row.clone(), History::of_one(attempt));
        }
    }
    let none = History::default();
    let left = counts.into_iter().filter(|(_, count)| *count > 0);
    let mut rows: Vec<Standing> =
        left.flat_map(|(row, count)| histories.get(row).unwrap_or(&none).standings(row, count)).collect();
    for standing in rows.iter_mut().filter(|row| row.state == StandingState::Open && row.failures > 0) {
        let due = backoff.zip(standing.last_try);
        standing.next_try = due.map(|(backoff, at)| backoff.next_try(&standing.row, standing.failures, at));
    }
    ledger.write_standings(source, &Standings { rows, version, latest })
}

fn parked(unsent: &Unsent) -> RowFailure {
    let Unsent { row, attempt, reason } = unsent.clone();
    RowFailure { row, attempt, outcome: "parked", detail: reason }
}

#[cfg(test)]
mod tests;
