//! What an operator does by hand: looks at the rows that were given up, returns them, or settles a row.
//!
//! All of it is recorded as attempts first, in one commit, and only then the flags are set: who is interrupted in between
//! does the same again, or leaves the rest to the next delivery, which knows from the attempts what was decided. It does
//! not run beside a delivery, which may be sending the very row: both take the lease of the table.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::JobLedger;
use super::attempts::Attempt;
use super::rows::LedgerRow;
use super::tables::LedgerTable;
use super::tried::PendingRow;
use crate::error::{Error, ErrorKind, Result};

/// Transport of attempts that nobody sent.
const TRANSPORT: &str = "by hand";
/// The number of a `by_hand` attempt: it is no try, and the numbers of identical rows go on without it.
const NO_TRY: i64 = 0;
/// The longest reason, in characters.
const MAX_REASON: usize = 1_000;

/// How long the lease is good. Nobody delivers for so long if this process dies meanwhile.
const LEASE: Duration = Duration::from_secs(30);

/// A pending row that was given up.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedRow {
    /// The row.
    pub row: LedgerRow,
    /// How often it was tried.
    pub attempts: u64,
    /// Why it was given up.
    pub reason: Option<String>,
    /// When.
    pub parked_at: DateTime<Utc>,
    /// The transport that it could not be delivered by.
    pub transport: String,
}

/// What is known of a row that is settled by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// AutoSys has the event.
    Arrived,
    /// AutoSys is not to get the event.
    NotToBeSent,
}

impl Settlement {
    fn word(self) -> &'static str {
        match self {
            Self::Arrived => "acknowledged",
            Self::NotToBeSent => "skipped",
        }
    }
}

/// Who does something by hand, and why.
#[derive(Debug, Clone, Copy)]
pub struct ByHand<'a> {
    /// Who, as in `alice@host`.
    pub by: &'a str,
    /// Why; it goes into the attempts as it is.
    pub reason: Option<&'a str>,
}

impl ByHand<'_> {
    fn check(&self) -> Result<()> {
        if self.by.trim().is_empty() {
            return Err(Error::invalid("nobody is named who does this by hand; say who"));
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

/// The right to change what a delivery would do: the lease of the table, given back at the end.
struct Right<'a> {
    ledger: &'a JobLedger,
    table: LedgerTable,
    owner: String,
}

impl<'a> Right<'a> {
    fn take(ledger: &'a JobLedger, table: LedgerTable, by: &str) -> Result<Self> {
        let right = Self { ledger, table, owner: format!("{by} by hand ({})", delivered_by()) };
        right.extend().map(|()| right)
    }

    /// To be done right before each commit.
    fn extend(&self) -> Result<()> {
        let lease = self.ledger.take_lease(self.table.name(), &self.owner, LEASE)?;
        if lease.owner == self.owner {
            return Ok(());
        }
        let text = format!(
            "{} is delivering rows of {} (its lease ends at {} unless it is renewed); try again when it is done",
            lease.owner,
            self.table.name(),
            lease.expires_at.format("%Y-%m-%d %H:%M:%S UTC")
        );
        Err(Error::new(ErrorKind::LeaseHeld, text).with_retryable(true))
    }
}

impl Drop for Right<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.ledger.give_lease_back(self.table.name(), &self.owner) {
            tracing::warn!(error = error.full_message(), "the lease was not given back; it lapses by itself");
        }
    }
}

impl JobLedger {
    /// The pending rows of `table` that were given up, oldest first; identical rows are separate.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn parked(&self, table: LedgerTable) -> Result<Vec<ParkedRow>> {
        let mut parked = Vec::new();
        for open in self.pending_rows(table, None)? {
            let count = usize::try_from(open.parked).unwrap_or(usize::MAX);
            let newest = open.tried.given_up().rev().take(count);
            parked.extend(newest.map(|attempt| ParkedRow {
                row: open.row.clone(),
                attempts: open.tried.failures(),
                reason: attempt.detail.clone(),
                parked_at: attempt.attempted_at,
                transport: attempt.transport.clone(),
            }));
        }
        Ok(parked)
    }

    /// Returns rows that were given up, so that the next delivery sends them again and their attempts count from the
    /// beginning: exactly `rows` (all parked ones if None), and of these only those of `job_id`, if given. Of n identical
    /// rows, k given returns at most k. Returns how many; rows that are not parked are left as they are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty or over-long reason; [`ErrorKind::LeaseHeld`] (retryable) while rows of the
    /// table are being delivered; otherwise as [`JobLedger::acknowledge`]. Nothing was redriven then.
    pub fn redrive(
        &self,
        table: LedgerTable,
        rows: Option<&[LedgerRow]>,
        job_id: Option<&str>,
        hand: &ByHand<'_>,
    ) -> Result<u64> {
        hand.check()?;
        self.require_ledger()?;
        let right = Right::take(self, table, hand.by)?;
        let wanted = rows.map(counted);
        let among = wanted.as_ref().map(|wanted| wanted.keys().copied().collect::<HashSet<_>>());
        let (mut attempts, mut redriven) = (Vec::new(), 0);
        for open in self.pending_rows(table, among.as_ref())? {
            if job_id.is_some_and(|job| open.row.job_id.as_deref() != Some(job)) {
                continue;
            }
            let asked = wanted.as_ref().map_or(u64::MAX, |wanted| wanted.get(&open.row).copied().unwrap_or_default());
            let count = asked.min(open.parked);
            redriven += count;
            attempts.extend(unpark(table, &open, count, &hand.detail("redriven")));
        }
        if !attempts.is_empty() {
            right.extend()?;
            self.append_attempts(&attempts)?;
        }
        Ok(redriven)
    }

    /// Settles pending rows by hand: sets exactly `rows` to `YES`, parked or not, together with the executions that they
    /// speak of, and records who decided so and why as attempts `by_hand`. Of n identical rows, k given settles at most k,
    /// parked ones first. Returns how many; rows that are not pending are left as they are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] without a reason, or with one that is empty or too long, [`ErrorKind::LeaseHeld`]
    /// (retryable) while rows of the table are being delivered: nothing was settled. Otherwise as
    /// [`JobLedger::acknowledge`]: then the same call again settles the rest.
    pub fn settle_by_hand(
        &self,
        table: LedgerTable,
        rows: &[LedgerRow],
        settlement: Settlement,
        hand: &ByHand<'_>,
    ) -> Result<u64> {
        hand.check()?;
        if hand.reason.is_none() {
            return Err(Error::invalid("a row is settled by hand without a reason; say why"));
        }
        self.require_ledger()?;
        let right = Right::take(self, table, hand.by)?;
        self.settle(table, rows, settlement, hand, &|| right.extend())
    }

    /// As [`JobLedger::settle_by_hand`], with `permitted` asked right before each commit.
    pub(super) fn settle(
        &self,
        table: LedgerTable,
        rows: &[LedgerRow],
        settlement: Settlement,
        hand: &ByHand<'_>,
        permitted: &dyn Fn() -> Result<()>,
    ) -> Result<u64> {
        let wanted = counted(rows);
        let among = wanted.keys().copied().collect::<HashSet<_>>();
        let (mut attempts, mut settled) = (Vec::new(), Vec::new());
        for open in self.pending_rows(table, Some(&among))? {
            let count = wanted.get(&open.row).copied().unwrap_or_default().min(open.pending);
            settled.extend((0..count).map(|_| open.row.clone()));
            // Those whose outcome is recorded and whose flag is not set come first: this very call may have been
            // interrupted between the two.
            let fresh = count.saturating_sub(open.recovered);
            attempts.extend(unpark(table, &open, fresh.min(open.parked), &hand.detail("settled")));
            let detail = hand.detail(settlement.word());
            attempts.extend((0..fresh).map(|_| attempt(table, &open.row, NO_TRY, "by_hand", Some(detail.clone()))));
        }
        if settled.is_empty() {
            return Ok(0);
        }
        permitted()?;
        if !attempts.is_empty() {
            self.append_attempts(&attempts)?;
        }
        permitted()?;
        // The executions first, as after a delivery: a row that is still pending is found again.
        if table == LedgerTable::Notifications {
            self.settle_executions(&settled)?;
        }
        self.acknowledge(table, &settled)
    }
}

/// How often each row is given.
fn counted(rows: &[LedgerRow]) -> HashMap<&LedgerRow, u64> {
    let mut counts = HashMap::new();
    rows.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    counts
}

/// The attempts by which `count` of identical rows are parked no more. To redrive one redrives all: the others are parked
/// again.
fn unpark(table: LedgerTable, open: &PendingRow, count: u64, detail: &str) -> Vec<Attempt> {
    if count == 0 {
        return Vec::new();
    }
    let last = open.tried.last.max(1);
    let stay = usize::try_from(open.parked - count).unwrap_or(usize::MAX);
    let again = open.tried.given_up().rev().take(stay).map(|before| Attempt {
        attempt: last.saturating_add(1),
        attempted_at: Utc::now(),
        delivered_by: delivered_by(),
        ..before.clone()
    });
    let redriven = attempt(table, &open.row, last, "redriven", Some(detail.to_owned()));
    std::iter::once(redriven).chain(again).collect()
}

fn attempt(table: LedgerTable, row: &LedgerRow, number: i64, outcome: &str, detail: Option<String>) -> Attempt {
    Attempt {
        table,
        row: row.clone(),
        attempt: number,
        outcome: outcome.to_owned(),
        detail,
        transport: TRANSPORT.to_owned(),
        vm: None,
        delivered_by: delivered_by(),
        attempted_at: Utc::now(),
    }
}

fn delivered_by() -> String {
    format!("{}:{}", gethostname::gethostname().to_string_lossy(), std::process::id())
}
