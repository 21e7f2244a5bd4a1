//! Rows in doubt: how long the send of a mark can take, and until when the row waits if its process is gone.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::attempts::{AttemptOutcome, spans};
use super::lease::Lease;
use super::process::has_ended;
use crate::error::Result;
use crate::ledger::{JobLedger, LedgerRow, LedgerTable};

/// Until when rows in doubt wait, by row and number of the attempt.
pub(super) type Waits = HashMap<(LedgerRow, i64), DateTime<Utc>>;

/// How the detail of a mark says how long the send can take, in seconds. Another process waits for so long after a crash.
const ENDS_WITHIN: &str = "a send ends within ";
/// How it says that the send ends with the process, too, and on which machine that runs.
const WITH_PROCESS: &str = ", or with its process on machine ";

/// What a mark says about a send that takes at most `limit`, and that ends with the process if `machine` is given.
pub(super) fn describe_limit(limit: Duration, machine: Option<&str>) -> String {
    let process = machine.map(|machine| format!("{WITH_PROCESS}{machine}")).unwrap_or_default();
    format!("{ENDS_WITHIN}{} s{process}", limit.as_secs_f64())
}

/// How long the send of a mark with this `detail` can take, and the machine of its process if it ends with that, too.
fn limit(detail: &str) -> Option<(Duration, Option<&str>)> {
    let (seconds, process) = detail.split("; ").find_map(|part| part.strip_prefix(ENDS_WITHIN))?.split_once(" s")?;
    Some((Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?, process.strip_prefix(WITH_PROCESS)))
}

impl JobLedger {
    /// Until when these rows of `table` wait, given with the numbers of their attempts in doubt: as long as what another process
    /// has begun to send can still arrive. That is the end of its lease, and the time limit of a send after it. If none of `leases`
    /// is that of the process, it is the last one. Rows that can be sent again at `now` are left out.
    ///
    /// # Errors
    /// As [`JobLedger::attempts`].
    pub(super) fn waits(
        &self,
        table: LedgerTable,
        in_doubt: &HashSet<(LedgerRow, i64)>,
        leases: &[Lease],
        now: DateTime<Utc>,
    ) -> Result<Waits> {
        let rows: Vec<LedgerRow> = in_doubt.iter().map(|(row, _)| row.clone()).collect();
        let (attempts, _) = self.attempts_about(table, &spans(&rows))?;
        let waits = attempts.into_iter().filter_map(|mark| {
            let (limit, machine) = limit(mark.detail.as_deref()?)?;
            let limit = TimeDelta::from_std(limit).ok()?;
            let is_its =
                |lease: &&Lease| lease.owner.rsplit_once('/').is_some_and(|(owner, _)| owner == mark.delivered_by);
            let lease = leases.iter().find(is_its).or(leases.last())?;
            let until = lease.expires_at.checked_add_signed(limit).filter(|until| *until > now)?;
            let is_over = machine.is_some_and(|machine| has_ended(&mark.delivered_by, machine));
            let waits = mark.outcome == AttemptOutcome::Sending && !is_over;
            let key = (mark.row, mark.attempt);
            (waits && in_doubt.contains(&key)).then_some((key, until))
        });
        Ok(waits.collect())
    }
}
