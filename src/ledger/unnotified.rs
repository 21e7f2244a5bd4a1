//! Executions that never got a notification: their driver was cancelled between the two, so AutoSys will never hear of
//! them unless somebody looks.

use std::collections::HashMap;
use std::time::Duration;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, TimeDelta, Utc};

use super::rows::{as_utc, strings};
use super::tables::{FLAG, LedgerTable, NO};
use super::{JobLedger, RowFilter, span};
use crate::delta::Predicate;
use crate::error::{Error, ErrorKind, Result};

/// Executions of which no notification was found yet.
#[derive(Default)]
struct Candidates<'a> {
    /// By file and job, which of the lists of `places` is meant.
    named: HashMap<(Option<&'a str>, Option<&'a str>), usize>,
    /// Places in the batch.
    places: Vec<Vec<usize>>,
}

impl<'a> Candidates<'a> {
    fn add(&mut self, file: Option<&'a str>, job: Option<&'a str>, row: usize) {
        let at = *self.named.entry((file, job)).or_insert(self.places.len());
        if at == self.places.len() {
            self.places.push(Vec::new());
        }
        self.places[at].push(row);
    }

    fn rows(&self) -> impl Iterator<Item = usize> {
        self.places.iter().flatten().copied()
    }
}

impl JobLedger {
    /// The executions that are pending for longer than `older_than` without any notification of the same file and job at or
    /// after them, whatever its status or flag: rows of `autosys_job_log`, oldest first. A NULL timestamp counts as
    /// earlier than any other. Reads the notifications since the oldest of them.
    ///
    /// # Errors
    /// As [`JobLedger::rows`].
    pub fn executions_without_notification(&self, older_than: Duration) -> Result<RecordBatch> {
        let filter = RowFilter { flag: Some(NO.to_owned()), ..RowFilter::default() };
        let pending = self.rows(LedgerTable::Executions, &filter)?;
        self.without_notification(&pending, before(Utc::now(), older_than))
    }

    /// Those of `pending` executions that are of before `limit` and have no notification.
    pub(super) fn without_notification(
        &self,
        pending: &RecordBatch,
        limit: Option<DateTime<Utc>>,
    ) -> Result<RecordBatch> {
        let Some(limit) = limit.map(|limit| limit.timestamp_micros()) else { return Ok(pending.slice(0, 0)) };
        let (files, jobs) = (strings(pending, "file_name")?, strings(pending, "job_id")?);
        let times = times(pending, LedgerTable::Executions)?;
        let time = |row: usize| times.is_valid(row).then(|| times.value(row));
        let mut open = Candidates::default();
        for row in (0..pending.num_rows()).filter(|row| time(*row).is_none_or(|at| at < limit)) {
            open.add(text(files, row), text(jobs, row), row);
        }
        // What is pending there is read at little cost, and often enough settles it.
        for flag in [Some(NO), None] {
            let Some(oldest) = open.rows().map(&time).min() else { break };
            self.strike_notified(&mut open, &time, oldest, flag)?;
        }
        let mut keep = vec![false; pending.num_rows()];
        open.rows().for_each(|row| keep[row] = true);
        filter_record_batch(pending, &BooleanArray::from(keep))
            .map_err(|e| Error::new(ErrorKind::Internal, "executions could not be picked").with_source(e))
    }

    /// Takes those out of `open` of which a notification is found, of any time from `oldest` on.
    fn strike_notified(
        &self,
        open: &mut Candidates<'_>,
        time: &dyn Fn(usize) -> Option<i64>,
        oldest: Option<i64>,
        flag: Option<&str>,
    ) -> Result<()> {
        let Some(table) = self.existing(LedgerTable::Notifications)? else { return Ok(()) };
        let equals = flag.map(|flag| (FLAG.to_owned(), flag.to_owned())).into_iter().collect();
        let since = oldest.and_then(DateTime::from_timestamp_micros);
        let time_span = span(LedgerTable::Notifications.timestamp_column(), since, None);
        let found = as_utc(table.scan(&Predicate { equals, time: time_span })?)?;
        let (files, jobs) = (strings(&found, "file_name")?, strings(&found, "job_id")?);
        let times = times(&found, LedgerTable::Notifications)?;
        for row in 0..found.num_rows() {
            let Some(at) = open.named.get(&(text(files, row), text(jobs, row))) else { continue };
            let notified = times.is_valid(row).then(|| times.value(row));
            open.places[*at].retain(|place| time(*place) > notified);
        }
        Ok(())
    }
}

/// So long before `now`; None where the calendar does not reach.
pub(super) fn before(now: DateTime<Utc>, duration: Duration) -> Option<DateTime<Utc>> {
    now.checked_sub_signed(TimeDelta::from_std(duration).ok()?)
}

fn text(column: &arrow::array::StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

fn times(batch: &RecordBatch, table: LedgerTable) -> Result<&arrow::array::PrimitiveArray<TimestampMicrosecondType>> {
    let name = table.timestamp_column();
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    column.ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("column \"{name}\" of {} holds no timestamps", table.name()))
    })
}
