//! The processes that log rows: one by one or in batches, and some rows twice.

use std::time::Duration;

use super::actors::{Scenario, pause};
use super::threads::Actor;
use super::truth::Promise;
use crate::error::Result;
use crate::ledger::LedgerTable::{Executions, Notifications};
use crate::ledger::rows::to_batch;
use crate::ledger::tables::NO;
use crate::ledger::{JobLedger, LedgerRow, LedgerTable};

fn call(ledger: &JobLedger, table: LedgerTable, rows: &[LedgerRow]) -> Result<()> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    if let [row] = rows {
        let at = row.timestamp.and_then(chrono::DateTime::from_timestamp_micros);
        return ledger.log(table, &text(&row.file_name), &text(&row.job_id), &text(&row.status), at);
    }
    ledger.log_batch(table, &to_batch(table, rows.iter(), rows.iter().map(|_| NO))?).map(drop)
}

impl Scenario {
    /// Starts a process that logs the rows of some jobs, each job in a thread of its own.
    pub(super) fn start_logger(&self, jobs: &[usize]) -> Actor {
        let actor = self.world.add_process("logger", false);
        let (scenario, jobs) = (self.clone(), jobs.to_vec());
        self.start(actor, move |_| {
            let Some(ledger) = scenario.ledger(actor) else { return };
            for job in jobs {
                let ledger = ledger.clone();
                scenario.start(actor, move |scenario| scenario.log_job(&ledger, actor, job));
            }
        });
        actor
    }

    fn log_job(&self, ledger: &JobLedger, actor: Actor, job: usize) {
        let count = 1 + self.world.below(if self.is_small { 2 } else { 3 });
        let mut rows = Vec::new();
        for number in 0..count {
            let status = ["SUCCESS", "FAILURE"][self.world.below(2) as usize];
            let row = LedgerRow {
                file_name: Some(format!("job{job}-{number}")),
                job_id: Some(format!("job{job}")),
                status: Some(status.to_owned()),
                timestamp: Some(self.world.time(Duration::from_secs(number)).timestamp_micros()),
            };
            // Identical rows are separate events.
            let copies = if self.has_twins && self.world.below(2) == 0 { 2 } else { 1 };
            rows.extend(std::iter::repeat_n(row, copies));
        }
        let together = if self.world.below(4) == 0 { rows.len() } else { 1 };
        for rows in rows.chunks(together) {
            pause(&self.world, 4000);
            if self.world.below(2) == 0 {
                self.log(ledger, actor, Executions, rows);
            }
            self.log(ledger, actor, Notifications, rows);
        }
    }

    fn log(&self, ledger: &JobLedger, actor: Actor, table: LedgerTable, rows: &[LedgerRow]) {
        loop {
            let is_there = match call(ledger, table, rows) {
                Ok(()) => Some(true),
                Err(error) if error.is_outcome_unknown() => None,
                // Nothing was written.
                Err(error) if error.is_retryable() && !self.is_over(actor) => {
                    pause(&self.world, 2000);
                    continue;
                }
                Err(error) if error.is_retryable() => Some(false),
                Err(error) => {
                    self.world.note(actor, "did not log:", &error.full_message());
                    None
                }
            };
            let promise = |row: &LedgerRow| Promise { table, row: row.clone(), is_there };
            self.world.state().truth.promises.extend(rows.iter().map(promise));
            // Of the callers that do not know whether the rows are there, some log them again.
            if is_there.is_some() || self.is_over(actor) || self.world.below(2) == 0 {
                return;
            }
        }
    }
}
