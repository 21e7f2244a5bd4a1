//! Executions without a notification: their driver was canceled between the two calls, so that AutoSys never gets their
//! status unless an operator acts.

use std::collections::HashMap;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use chrono::{DateTime, TimeDelta, Utc};

use crate::delta::Predicate;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::columns::{texts, times, value};
use crate::ledger::rows::as_utc;
use crate::ledger::tables::{FLAG, NO};
use crate::ledger::{JobLedger, LedgerTable, RowFilter, time_range};

impl JobLedger {
    /// The executions that are pending for longer than `older_than` without a notification of the same file and job at or
    /// after them: rows of `autosys_job_log`, oldest first. The status and flag of the notification do not matter. A NULL
    /// timestamp is earlier than any other. Reads the notifications since the oldest of these executions.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn executions_without_notification(&self, older_than: Duration) -> Result<RecordBatch> {
        let pending = self.rows(LedgerTable::Executions, &RowFilter::pending())?;
        self.without_notification(&pending, before(Utc::now(), older_than))
    }

    /// The rows of `pending` executions that are from before `limit` and have no notification.
    pub(super) fn without_notification(
        &self,
        pending: &RecordBatch,
        limit: Option<DateTime<Utc>>,
    ) -> Result<RecordBatch> {
        let Some(limit) = limit.map(|limit| limit.timestamp_micros()) else { return Ok(pending.slice(0, 0)) };
        let (files, jobs) = (texts(pending, "file_name")?, texts(pending, "job_id")?);
        let executed = times(pending, LedgerTable::Executions.timestamp_column())?;
        // The numbers of the rows without a notification, by file and job.
        let mut open: HashMap<_, Vec<usize>> = HashMap::new();
        for row in (0..pending.num_rows()).filter(|row| value(executed, *row).is_none_or(|at| at < limit)) {
            open.entry((value(files, row), value(jobs, row))).or_default().push(row);
        }
        // Pending notifications cost little to read, and often are enough.
        for flag in [Some(NO), None] {
            let Some(oldest) = open.values().flatten().map(|row| value(executed, *row)).min() else { break };
            let Some(table) = self.existing(LedgerTable::Notifications)? else { break };
            let equals = flag.map(|flag| (FLAG.to_owned(), flag.to_owned())).into_iter().collect();
            let column = LedgerTable::Notifications.timestamp_column();
            let time = time_range(column, oldest.and_then(DateTime::from_timestamp_micros), None);
            let found = as_utc(table.scan(&Predicate { equals, time })?)?;
            let (files, jobs) = (texts(&found, "file_name")?, texts(&found, "job_id")?);
            let notified = times(&found, column)?;
            let mut latest: HashMap<_, Option<i64>> = HashMap::new();
            for row in 0..found.num_rows() {
                let at = latest.entry((value(files, row), value(jobs, row))).or_default();
                *at = (*at).max(value(notified, row));
            }
            for (names, rows) in &mut open {
                if let Some(latest) = latest.get(names) {
                    rows.retain(|row| value(executed, *row) > *latest);
                }
            }
        }
        let mut keep = vec![false; pending.num_rows()];
        open.values().flatten().for_each(|row| keep[*row] = true);
        filter_record_batch(pending, &BooleanArray::from(keep))
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot select executions").with_source(e))
    }
}

/// The time `duration` before `now`; None if the calendar does not have it.
pub(super) fn before(now: DateTime<Utc>, duration: Duration) -> Option<DateTime<Utc>> {
    now.checked_sub_signed(TimeDelta::from_std(duration).ok()?)
}
