//! Operator actions: listing parked rows, redriving them, and settling rows manually.
//!
//! An action first records its attempts, in one commit, and then sets the flags. An operator who is interrupted in between
//! repeats the action, or leaves the rest to the next delivery, which knows the decision from the attempts. An action takes
//! the lease of the table, so that it does not run beside a delivery, which could be sending the same row.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::attempts::{Attempt, AttemptOutcome};
use super::epoch::Epoch;
use super::lease::LeaseAnswer;
use super::pending::{IdenticalRows, PendingRows};
use super::process::new_owner;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::rows::counted;
use crate::ledger::{JobLedger, LedgerRow, LedgerTable};
use crate::runtime::{environment, this_process};

/// Transport of attempts that operators record.
const TRANSPORT: &str = "by hand";
/// The number of a `by_hand` attempt. It is no try, so that it does not count.
const NO_TRY: i64 = 0;
/// The maximum length of a reason, in characters.
const MAX_REASON: usize = 1_000;
/// How long the lease is valid. If this process dies meanwhile, deliveries wait until it expires.
const LEASE_TTL: Duration = Duration::from_secs(30);

/// A pending row that was given up.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedRow {
    /// The row.
    pub row: LedgerRow,
    /// How often it was tried.
    pub attempts: u64,
    /// Why it was given up.
    pub reason: Option<String>,
    /// When it was given up.
    pub parked_at: DateTime<Utc>,
    /// The transport that could not deliver it.
    pub transport: String,
}

/// Why an operator settles a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// AutoSys has the event.
    Arrived,
    /// The event is not to be sent.
    NotToBeSent,
}

/// Who acts, and why.
#[derive(Debug, Clone, Copy)]
pub struct AuditNote<'a> {
    /// Who, as in `alice@host`.
    pub by: &'a str,
    /// Why. It is recorded in the attempts as it is.
    pub reason: Option<&'a str>,
}

impl AuditNote<'_> {
    fn check(&self) -> Result<()> {
        if self.by.trim().is_empty() {
            return Err(Error::invalid("the name of the operator is empty; say who does this"));
        }
        match self.reason {
            Some(reason) if reason.trim().is_empty() => Err(Error::invalid("the reason is empty; say why")),
            Some(reason) if reason.chars().count() > MAX_REASON => Err(Error::invalid(format!(
                "the reason has {} characters, more than the {MAX_REASON} that are recorded; shorten it",
                reason.chars().count()
            ))),
            _ => Ok(()),
        }
    }

    /// `what` was done, by whom and why.
    fn detail(&self, what: &str) -> String {
        match self.reason {
            Some(reason) => format!("{what} by {}: {reason}", self.by),
            None => format!("{what} by {}", self.by),
        }
    }
}

/// Does `work` under the lease of the table, in an epoch of its own. `work` extends the lease right before each commit.
fn with_lease<T>(
    ledger: &JobLedger,
    table: LedgerTable,
    by: &str,
    work: impl FnOnce(&Epoch, &dyn Fn() -> Result<()>) -> Result<T>,
) -> Result<T> {
    // Threads of one process are different owners.
    let owner = format!("{by} by hand ({})", new_owner());
    let request = |renews| {
        let LeaseAnswer { lease, follows_lapsed, .. } =
            ledger.request_lease(table.name(), &owner, LEASE_TTL, renews)?;
        if lease.owner == owner {
            return Ok(follows_lapsed);
        }
        let text = format!(
            "{} is delivering rows of {} (its lease ends at {} unless it is renewed); try again when it is done",
            lease.owner,
            table.name(),
            lease.expires_at.format("%Y-%m-%dT%H:%M:%SZ")
        );
        Err(Error::new(ErrorKind::LeaseHeld, text).with_retryable(true))
    };
    let epoch = Epoch::new(ledger, table, request(false)?);
    let done = epoch.claim().and_then(|()| work(&epoch, &|| request(true).map(drop)));
    let _ = epoch.release_lease(&owner);
    done
}

impl JobLedger {
    /// The pending rows of `table` that were given up, oldest first; identical rows are separate.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn parked(&self, table: LedgerTable) -> Result<Vec<ParkedRow>> {
        let pending = PendingRows::read_with_all_attempts(self, table, None)?;
        let parked = pending.identical().into_iter().flat_map(|rows| {
            rows.history.parked_attempts(rows.parked).map(move |attempt| ParkedRow {
                row: rows.row.clone(),
                attempts: rows.history.tries(),
                reason: attempt.detail.clone(),
                parked_at: attempt.attempted_at,
                transport: attempt.transport.clone(),
            })
        });
        Ok(parked.collect())
    }

    /// Returns parked rows to delivery: the next delivery sends them again, and their attempts count from the beginning.
    /// Redrives exactly `rows` (all parked rows if None), and of these only those of `job_id`, if given. Of n identical
    /// rows, k given rows redrive at most k. Returns how many were redriven; rows that are not parked stay as they are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty or too long reason; [`ErrorKind::LeaseHeld`] (retryable) while rows of the
    /// table are being delivered; otherwise as [`JobLedger::acknowledge`]. Then nothing was redriven.
    pub fn redrive(
        &self,
        table: LedgerTable,
        rows: Option<&[LedgerRow]>,
        job_id: Option<&str>,
        note: &AuditNote<'_>,
    ) -> Result<u64> {
        note.check()?;
        self.require_ledger()?;
        let wanted = rows.map(counted);
        with_lease(self, table, note.by, |epoch, extend_lease| {
            let pending = PendingRows::read_with_all_attempts(self, table, wanted.as_ref())?;
            epoch.plans_on(pending.histories.version);
            let (mut attempts, mut redriven) = (Vec::new(), 0);
            let is_asked = |row: &LedgerRow| job_id.is_none_or(|job| row.job_id.as_deref() == Some(job));
            for rows in pending.identical().into_iter().filter(|rows| is_asked(rows.row)) {
                let asked =
                    wanted.as_ref().map_or(u64::MAX, |wanted| wanted.get(rows.row).copied().unwrap_or_default());
                let count = asked.min(rows.parked);
                redriven += count;
                attempts.extend(unpark(table, &rows, count, &note.detail("redriven")));
            }
            if !attempts.is_empty() {
                extend_lease()?;
                epoch.append(&attempts)?;
            }
            Ok(redriven)
        })
    }

    /// Settles pending rows manually: sets exactly `rows` to `YES`, parked or not, together with the executions that belong
    /// to them, and records who decided it and why as attempts `by_hand`. Of n identical rows, k given rows settle at most
    /// k, parked ones first. Returns how many were settled; rows that are not pending stay as they are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] without a reason, or for an empty or too long one, [`ErrorKind::LeaseHeld`] (retryable)
    /// while rows of the table are being delivered: nothing was settled. Otherwise as [`JobLedger::acknowledge`]: then the
    /// same call again settles the rest.
    pub fn settle_by_hand(
        &self,
        table: LedgerTable,
        rows: &[LedgerRow],
        settlement: Settlement,
        note: &AuditNote<'_>,
    ) -> Result<u64> {
        note.check()?;
        if note.reason.is_none() {
            return Err(Error::invalid("a row is to be settled without a reason; say why"));
        }
        self.require_ledger()?;
        with_lease(self, table, note.by, |epoch, extend_lease| {
            self.settle(table, rows, settlement, note, epoch, extend_lease)
        })
    }

    /// As [`JobLedger::settle_by_hand`], in `epoch`; calls `extend_lease` right before each commit.
    pub(super) fn settle(
        &self,
        table: LedgerTable,
        rows: &[LedgerRow],
        settlement: Settlement,
        note: &AuditNote<'_>,
        epoch: &Epoch,
        extend_lease: &dyn Fn() -> Result<()>,
    ) -> Result<u64> {
        let wanted = counted(rows);
        let pending = PendingRows::read_with_all_attempts(self, table, Some(&wanted))?;
        epoch.plans_on(pending.histories.version);
        let (mut attempts, mut settled) = (Vec::new(), Vec::new());
        let detail = note.detail(match settlement {
            Settlement::Arrived => "acknowledged",
            Settlement::NotToBeSent => "skipped",
        });
        for rows in pending.identical() {
            let count = wanted.get(rows.row).copied().unwrap_or_default().min(rows.count);
            settled.extend((0..count).map(|_| rows.row.clone()));
            // Rows with a recorded outcome and without a flag come first: this call can have been interrupted between the
            // two before.
            let new = count.saturating_sub(rows.recovered);
            attempts.extend(unpark(table, &rows, new.min(rows.parked), &note.detail("settled")));
            attempts.extend((0..new).map(|_| {
                Attempt::new(table, rows.row, NO_TRY, AttemptOutcome::ByHand, Some(detail.clone()), TRANSPORT)
            }));
        }
        if settled.is_empty() {
            return Ok(0);
        }
        extend_lease()?;
        if !attempts.is_empty() {
            epoch.append(&attempts)?;
        }
        extend_lease()?;
        Ok(epoch.acknowledge(&settled)?.0)
    }
}

/// The attempts that unpark `count` of identical rows. Redriving one redrives all, so that the others are parked again.
fn unpark(table: LedgerTable, rows: &IdenticalRows<'_>, count: u64, detail: &str) -> Vec<Attempt> {
    if count == 0 {
        return Vec::new();
    }
    let last = rows.history.last_attempt().max(1);
    let again = rows.history.parked_attempts(rows.parked - count).map(|before| Attempt {
        attempt: last.saturating_add(1),
        attempted_at: environment().utc(),
        delivered_by: this_process(),
        ..before.clone()
    });
    let detail = Some(detail.to_owned());
    let redriven = Attempt::new(table, rows.row, last, AttemptOutcome::Redriven, detail, TRANSPORT);
    std::iter::once(redriven).chain(again).collect()
}
