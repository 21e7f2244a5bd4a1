//! Delivers a ledger's pending rows to AutoSys: one cycle, or one cycle after the other.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

use super::attempts::{Attempt, AttemptOutcome, spans};
use super::backoff::Backoff;
use super::cycle::{Cycle, CycleRecord};
use super::epoch::{Epoch, changed_tables};
use super::history::AttemptHistory;
use super::in_doubt::Waits;
use super::lease::{Lease, LeaseGuard};
use super::options::{CONFIRM_WITHIN, UpdaterOptions};
use super::pending::{Histories, PendingRows};
use super::plan::{Plan, PlanRules, QueuedRow, UnsentRow, plan};
use super::process::this_machine;
use super::report::{DeliveryReport, PlannedDelivery};
use super::retry_state::{RowState, SavedRetryState};
use super::sender::{Sender, StatusesBefore, statuses_before};
use crate::autosys::transport::{Gate, Transport};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::rows::{counted, take_one};
use crate::ledger::{JobLedger, LedgerRow, LedgerTable};
use crate::runtime::blocking;
use crate::runtime::environment::{environment, sleep_until};
use crate::stop::Stop;

/// A request to stop. What a cycle does before its first send, and after its last, may take until `deadline`.
struct StopRequest {
    stop: Stop,
    deadline: Shared<BoxFuture<'static, ()>>,
}

impl StopRequest {
    fn new(stop: &Stop, grace: Duration) -> Self {
        let requested = stop.clone();
        let deadline = async move {
            requested.stopped().await;
            environment().sleep(grace).await;
        };
        Self { stop: stop.clone(), deadline: deadline.boxed().shared() }
    }

    /// The output of `work`. None if it is not there in time; its requests to the store go on.
    async fn until_deadline<T>(&self, work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        tokio::select! {
            biased;
            output = work => output.map(Some),
            () = self.deadline.clone() => Ok(None),
        }
    }
}

/// How late after its mark an event can show in AutoSys, if another event of the job is in question.
const LATE_EVENT: TimeDelta = TimeDelta::days(1);
/// How often a cycle plans anew because attempts were recorded meanwhile.
const MAX_PLANS: usize = 5;
/// The pause after the first cycle that failed, in [`AutosysUpdater::run_forever`].
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// After this many failures in a row, the pause does not grow any more.
const LONGEST_BACKOFF: u32 = 20;

/// Delivers the pending rows of a ledger to AutoSys. Clones share the ledger and the transport.
#[derive(Clone)]
pub struct AutosysUpdater {
    ledger: JobLedger,
    transport: Arc<dyn Transport>,
    options: UpdaterOptions,
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
    /// An updater. It reads and sends nothing yet.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for an option that can never work, such as a `max_attempts` or `concurrency`
    /// below 1, or a `confirm` where the transport cannot read a status.
    pub fn new(ledger: JobLedger, transport: Arc<dyn Transport>, options: UpdaterOptions) -> Result<Self> {
        options.check(transport.as_ref())?;
        Ok(Self { ledger, transport, options })
    }

    /// The ledger.
    pub fn ledger(&self) -> &JobLedger {
        &self.ledger
    }

    /// The options.
    pub fn options(&self) -> &UpdaterOptions {
        &self.options
    }

    /// Runs one cycle. It tries each pending row at most once; a row that fails stays `NO` for the next cycle.
    ///
    /// Only one cycle at a time delivers from a table. Another cycle reports who delivers, and sends nothing. Each row is
    /// recorded as `sending`, sent, recorded with its outcome, and then acknowledged together with the matching
    /// executions. A crash in between loses nothing: the next cycle acknowledges delivered rows without sending them, and
    /// reads rows without an outcome back where the transport can; otherwise it sends them again and marks them so.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] for a ledger that does not exist, and those of the ledger's store, which end the
    /// cycle; the next cycle continues. [`crate::ErrorKind::Delivery`] when the transport cannot send at all. What AutoSys or
    /// the transport refuses is in the report instead.
    pub async fn run(&self) -> Result<DeliveryReport> {
        self.run_until(&Stop::default()).await
    }

    /// [`AutosysUpdater::run`] that can be stopped. After `stop` it sends no further row, waits for the answers to what is
    /// being sent, and records and acknowledges them, so that these rows are not sent again. Dropping the future loses
    /// these answers.
    ///
    /// # Errors
    /// Those of [`AutosysUpdater::run`].
    pub async fn run_until(&self, stop: &Stop) -> Result<DeliveryReport> {
        let mut report = DeliveryReport { dry_run: self.options.dry_run, ..DeliveryReport::default() };
        report.snoozed_until = self.options.snooze.iter().filter_map(|window| window.until(environment().utc())).max();
        let source = self.options.source;
        let request = StopRequest::new(stop, self.options.stop_grace);
        let reading = self.with_ledger(move |ledger| PendingRows::read(ledger, source));
        let Some(pending) = request.until_deadline(reading).await? else {
            report.stopped = true;
            return Ok(report);
        };
        report.pending = pending.rows.len() as u64;
        if self.options.dry_run {
            let plan = self.plan(&pending, &Waits::new())?;
            self.describe(plan, &mut report);
            return Ok(report);
        }
        if report.snoozed_until.is_some() || pending.rows.is_empty() {
            report.lease_held_by = request.until_deadline(self.lease_owner()).await?.flatten();
            return Ok(report);
        }
        // A lease that is taken too late is not renewed, and expires.
        match request.until_deadline(LeaseGuard::take(&self.ledger, source, self.options.lease_ttl)).await? {
            None => report.stopped = true,
            Some(Err(holder)) => report.lease_held_by = Some(holder.owner),
            Some(Ok(lease)) => {
                let ended = match self.deliver(pending, &request, &lease, &mut report).await {
                    // A later holder was met at a commit, before this one looked at its lease.
                    Err(error) if error.kind() == ErrorKind::LeaseHeld => {
                        lease.lost().stop();
                        Ok(())
                    }
                    ended => ended,
                };
                let is_lost = lease.lost().is_stopped();
                request.until_deadline(lease.release().map(Ok)).await?;
                ended?;
                if is_lost {
                    report.stopped = true;
                    report.lease_held_by = request.until_deadline(self.lease_owner()).await?.flatten();
                }
            }
        }
        report.log();
        Ok(report)
    }

    /// Runs one cycle after the other until `stop`. `every` is the time between the starts of two cycles. A cycle that takes
    /// longer delays the next one. After a cycle that failed, the next one starts sooner: after a second, then twice as long
    /// each time, up to `every`. `each` gets the result of each cycle, and returns whether to continue.
    pub async fn run_forever(
        &self,
        every: Duration,
        stop: &Stop,
        mut each: impl FnMut(Result<DeliveryReport>) -> bool,
    ) {
        let mut failures = 0u32;
        loop {
            let begun = environment().instant();
            let report = self.run_until(stop).await;
            // If the holder of the lease has died, the lease expires before the next cycle is due.
            let is_held = matches!(&report, Ok(report) if report.lease_held_by.is_some());
            failures = if report.is_err() { failures.saturating_add(1).min(LONGEST_BACKOFF) } else { 0 };
            if !each(report) || stop.is_stopped() {
                return;
            }
            let pause = match (is_held, failures) {
                (true, _) => every.min(self.options.lease_ttl),
                (false, 0) => every,
                (false, failures) => every.min(AFTER_FAILURE * 2u32.saturating_pow(failures - 1)),
            };
            if stop.unless(sleep_until(begun + pause)).await.is_none() {
                return;
            }
        }
    }

    /// Runs blocking `work` on the ledger.
    async fn with_ledger<T: Send + 'static>(
        &self,
        work: impl FnOnce(&JobLedger) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let ledger = self.ledger.clone();
        blocking(move || work(&ledger)).await
    }

    /// The owner of the lease, if it is held.
    async fn lease_owner(&self) -> Result<Option<String>> {
        let name = self.options.source.name();
        let held = |ledger: &JobLedger| match ledger.lease(name)? {
            Some(lease) if ledger.is_held(&lease)? => Ok(Some(lease.owner)),
            _ => Ok(None),
        };
        self.with_ledger(held).await
    }

    fn plan(&self, pending: &PendingRows, waits: &Waits) -> Result<Plan> {
        let options = &self.options;
        let now = environment().utc();
        let stale = options.stale_after.map(chrono::TimeDelta::from_std).transpose();
        let stale = stale.map_err(|e| Error::invalid("stale_after is too long; leave it out").with_source(e))?;
        let check = |delivery: &_| self.transport.describe(delivery).map(drop);
        let next_try = |row: &_, failures, at| options.backoff.map(|backoff| backoff.next_try(row, failures, at));
        let rules = PlanRules {
            order: options.order,
            max_attempts: options.max_attempts.map(i64::unsigned_abs),
            first: &options.first,
            priority: &options.priority,
            stale_before: stale.and_then(|age| now.checked_sub_signed(age)),
            next_try: &next_try,
            waits,
            now,
            check: &check,
        };
        Ok(plan(pending, &rules))
    }

    /// Adds to the report of a dry run what a cycle would do.
    fn describe(&self, plan: Plan, report: &mut DeliveryReport) {
        report.add_plan(&plan);
        let (held_back, rest) = match plan.first_is_blocked {
            true => (plan.queues.iter().map(|queue| queue.len() as u64).sum(), Default::default()),
            false => (0, plan.queues),
        };
        report.held_back = held_back;
        let planned = plan.first.into_iter().chain(rest).flatten();
        report.planned = planned
            .map(|queued| PlannedDelivery {
                action: self.transport.describe(&queued.delivery).unwrap_or_else(|reason| reason),
                row: queued.row,
            })
            .collect();
    }

    /// Delivers under the lease.
    async fn deliver(
        &self,
        mut pending: PendingRows,
        request: &StopRequest,
        lease: &LeaseGuard,
        report: &mut DeliveryReport,
    ) -> Result<()> {
        let (source, backoff) = (self.options.source, self.options.backoff);
        if !lease.validity()() {
            lease.lost().stop();
            return Ok(());
        }
        let (epoch, before) = (Arc::clone(&lease.epoch), report.clone());
        let claiming = self.with_ledger(move |ledger| {
            epoch.claim()?;
            // Before anything is sent: events whose rows cannot be acknowledged would be sent again.
            changed_tables(source).try_for_each(|table| ledger.check_acknowledging(table))
        });
        request.until_deadline(claiming).await?;
        let mut plans = 0;
        let (pending, record, ended) = loop {
            let reading = self.with_ledger(move |ledger| pending.refreshed(ledger, source));
            let Some(refreshed) = request.until_deadline(reading).await?.filter(|_| !request.stop.is_stopped()) else {
                report.stopped = true;
                return Ok(());
            };
            pending = refreshed;
            lease.epoch.plans_on(pending.histories.version);
            // Then no other process has claimed an epoch before the version that was read.
            if !lease.validity()() {
                lease.lost().stop();
                return Ok(());
            }
            if pending.histories.is_state_stale {
                // It would count again once the attempts table that took the place of another one has as many versions.
                let save = self.with_ledger(move |ledger| ledger.save_retry_state(source, &SavedRetryState::default()));
                request.until_deadline(save).await?;
            }
            let mut plan = self.plan(&pending, &Waits::new())?;
            let in_doubt = std::mem::take(&mut plan.in_doubt);
            let Some(waits) = request.until_deadline(self.waits(in_doubt, lease.lapsed.clone())).await? else {
                report.stopped = true;
                return Ok(());
            };
            if !waits.is_empty() {
                plan = self.plan(&pending, &waits)?;
            }
            report.add_plan(&plan);
            let mut record = CycleRecord::default();
            let ended = self.send_all(plan, &pending.duplicates(), request, lease, report, &mut record).await;
            plans += 1;
            match ended {
                // Nothing was sent or written yet.
                Err(error)
                    if error.kind() == ErrorKind::Conflict && lease.epoch.is_unclaimed() && plans < MAX_PLANS =>
                {
                    *report = before.clone();
                }
                ended => break (pending, record, ended),
            }
        };
        let is_complete = ended.is_ok() && !lease.lost().is_stopped();
        let left = self.with_ledger(move |ledger| {
            let left = pending.count_left(ledger, source, record.acknowledged_count, record.acknowledge_commits);
            if is_complete && let Err(error) = save_retry_state(ledger, source, backoff, pending, record) {
                let error = error.full_message();
                tracing::warn!(error, "the retry state was not saved; the next cycle reads the attempts instead");
            }
            left
        });
        let left = request.until_deadline(left).await;
        ended?;
        report.pending = left?.unwrap_or(report.pending);
        Ok(())
    }

    /// Until when rows in doubt wait, if the lease `lapsed` was not released.
    async fn waits(&self, in_doubt: HashSet<(LedgerRow, i64)>, lapsed: Option<Lease>) -> Result<Waits> {
        let (source, Some(lapsed)) = (self.options.source, lapsed) else { return Ok(Waits::new()) };
        if in_doubt.is_empty() {
            return Ok(Waits::new());
        }
        self.with_ledger(move |ledger| ledger.waits(source, &in_doubt, &[lapsed], ledger.storage().time()?.earliest))
            .await
    }

    async fn send_all(
        &self,
        plan: Plan,
        duplicates: &HashSet<LedgerRow>,
        request: &StopRequest,
        lease: &LeaseGuard,
        report: &mut DeliveryReport,
        record: &mut CycleRecord,
    ) -> Result<()> {
        let settled = request.until_deadline(self.settle_without_sending(&plan, &lease.epoch, report, record)).await?;
        let queued: Vec<_> = plan.first.iter().chain(&plan.queues).flatten().collect();
        let before = request.until_deadline(self.statuses_before(&queued)).await?;
        let (Some(()), Some(before)) = (settled, before) else {
            report.stopped = true;
            return Ok(());
        };
        let (transport, confirm) = (Arc::clone(&self.transport), self.options.confirm);
        let mut sender = Sender { transport, confirm, before, machine: this_machine().map(Arc::from) };
        let (is_valid, stopped) = (lease.validity(), request.stop.clone());
        let gate = Gate::new(move || !stopped.is_stopped() && is_valid());
        let rest: u64 = plan.queues.iter().map(|queue| queue.len() as u64).sum();
        for (queues, goes_first) in [(plan.first, true), (plan.queues, false)] {
            let planned: u64 = queues.iter().map(|queue| queue.len() as u64).sum();
            if planned > 0 && request.until_deadline(self.transport.check()).await?.is_none() {
                report.stopped = true;
                return Ok(());
            }
            let delivered_before = report.delivered;
            if goes_first && self.transport.reads_status() {
                sender.confirm = sender.confirm.or(Some(CONFIRM_WITHIN));
            }
            let mut cycle = Cycle {
                epoch: &lease.epoch,
                sender: &sender,
                options: &self.options,
                stop: &request.stop,
                lost: lease.lost(),
                gate: gate.clone(),
                duplicates,
                report,
                record,
            };
            cycle.send(queues).await?;
            sender.confirm = self.options.confirm;
            if goes_first && (plan.first_is_blocked || report.delivered - delivered_before < planned) {
                if rest > 0 {
                    tracing::warn!(rows = rest, "rows are held back, because jobs that go first are not delivered");
                }
                report.held_back = rest;
                break;
            }
        }
        Ok(())
    }

    /// What is known of the time before the attempts in doubt of `queued`, if the transport can read a status to compare.
    async fn statuses_before(&self, queued: &[&QueuedRow]) -> Result<Arc<StatusesBefore>> {
        let in_doubt = queued.iter().filter(|queued| queued.in_doubt.is_some());
        let rows: Vec<LedgerRow> = in_doubt.map(|queued| queued.row.clone()).collect();
        if rows.is_empty() || !self.transport.reads_status() {
            return Ok(Arc::default());
        }
        let source = self.options.source;
        let read = move |ledger: &JobLedger| {
            let (marks, _) = ledger.attempts_about(source, &spans(&rows))?;
            let rows: HashSet<LedgerRow> = rows.into_iter().collect();
            let first = marks.iter().filter(|mark| rows.contains(&mark.row)).map(|mark| mark.attempted_at).min();
            let since = first.and_then(|first| first.checked_sub_signed(LATE_EVENT)).unwrap_or(DateTime::UNIX_EPOCH);
            let recent = ledger.attempts_made_since(source, since)?;
            Ok((marks, recent))
        };
        let (marks, recent) = self.with_ledger(read).await?;
        Ok(Arc::new(statuses_before(queued, &marks, &recent)))
    }

    /// Parks, supersedes, expires and acknowledges the rows that need no sending.
    async fn settle_without_sending(
        &self,
        plan: &Plan,
        epoch: &Arc<Epoch>,
        report: &mut DeliveryReport,
        record: &mut CycleRecord,
    ) -> Result<()> {
        let source = self.options.source;
        let attempt = |unsent: &UnsentRow, outcome| {
            let detail = Some(unsent.reason.clone());
            Attempt::new(source, &unsent.row, unsent.attempt, outcome, detail, self.transport.name())
        };
        let parked = plan.park.iter().map(|unsent| attempt(unsent, AttemptOutcome::Parked));
        let superseded = plan.superseded.iter().map(|unsent| attempt(unsent, AttemptOutcome::Superseded));
        let expired = plan.expired.iter().map(|unsent| attempt(unsent, AttemptOutcome::Expired));
        let attempts: Vec<Attempt> = parked.chain(superseded).chain(expired).collect();
        if !attempts.is_empty() {
            let (epoch, given) = (Arc::clone(epoch), attempts.clone());
            record.versions.push(blocking(move || epoch.append(&given)).await?);
            record.attempts.extend(attempts);
        }
        let settled = plan.superseded.iter().chain(&plan.expired).map(|unsent| &unsent.row);
        let rows: Vec<LedgerRow> = plan.recovered.iter().chain(settled).cloned().collect();
        if !rows.is_empty() {
            let (epoch, given) = (Arc::clone(epoch), rows.clone());
            let (count, executions) = blocking(move || epoch.acknowledge(&given)).await?;
            report.settled += executions;
            record.add(rows, count);
        }
        for UnsentRow { row, reason, .. } in &plan.park {
            tracing::info!(job_id = row.job_id, status = row.status, reason, "row parked");
        }
        Ok(())
    }
}

/// Saves the retry state of the rows that are pending after the cycle.
fn save_retry_state(
    ledger: &JobLedger,
    source: LedgerTable,
    backoff: Option<Backoff>,
    pending: PendingRows,
    record: CycleRecord,
) -> Result<()> {
    let Histories { mut by_row, version, latest, is_up_to_date, .. } = pending.histories;
    if is_up_to_date && record.versions.is_empty() && record.acknowledged.is_empty() {
        return Ok(());
    }
    let ours: HashSet<u64> = record.versions.into_iter().collect();
    // Other processes can have recorded attempts meanwhile, such as that a row was redriven.
    let (version, others) = match ledger.attempts_since(source, version, &|version| ours.contains(&version))? {
        Some((others, version)) => (version, others),
        // The attempts table does not exist yet, or its log was cleaned.
        None if ours.is_empty() => (version, Vec::new()),
        None => return Ok(()),
    };
    let mut counts = counted(&pending.rows);
    for row in &record.acknowledged {
        take_one(&mut counts, row);
    }
    counts.retain(|_, count| *count > 0);
    let known = latest.map_or_else(|| ledger.latest_attempted(source), Ok)?;
    let mut latest = known.max(record.latest);
    for attempt in record.attempts.iter().chain(&others) {
        latest = latest.max(attempt.row.timestamp);
        if let Some(history) = by_row.get_mut(&attempt.row) {
            history.add(attempt);
        } else if counts.contains_key(&attempt.row) {
            by_row.entry(attempt.row.clone()).or_default().add(attempt);
        }
    }
    let none = AttemptHistory::default();
    let mut rows: Vec<_> =
        counts.into_iter().flat_map(|(row, count)| by_row.get(row).unwrap_or(&none).retry_state(row, count)).collect();
    for state in rows.iter_mut().filter(|state| state.progress.state == RowState::Open && state.progress.failures > 0) {
        let due = backoff.zip(state.last_try);
        state.next_try = due.map(|(backoff, at)| backoff.next_try(&state.row, state.progress.failures, at));
    }
    ledger.save_retry_state(source, &SavedRetryState { rows, version, latest })
}

#[cfg(test)]
mod tests;
