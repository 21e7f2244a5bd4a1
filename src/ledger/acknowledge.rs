//! Acknowledging: sets the flag of exactly the given rows from `NO` to `YES`, in one commit.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;

use super::columns::{texts, value};
use super::rows::{self, LedgerRow};
use super::tables::{FLAG, LedgerTable, NO, YES, equal};
use super::{JobLedger, check_names};
use crate::delta::{CommitCheck, NO_CHECK, Rewrite};
use crate::error::{Error, ErrorKind, Result};

/// Says of one pending row whether to acknowledge it. It can count rows: a new one is made whenever a lost race makes the
/// table be read again.
type Matcher<'a> = Box<dyn FnMut(&LedgerRow) -> bool + 'a>;

impl JobLedger {
    /// Sets exactly these pending rows to `YES`, in one commit. Of n identical pending rows, k given rows set at most k.
    /// A second call with the same rows changes nothing.
    ///
    /// # Errors
    /// As [`JobLedger::rows`]; [`ErrorKind::Conflict`] (retryable) when other writers won until the timeout.
    pub fn acknowledge(&self, table: LedgerTable, acknowledged: &[LedgerRow]) -> Result<u64> {
        self.acknowledge_if(NO_CHECK, table, acknowledged)
    }

    /// [`JobLedger::acknowledge`], if `check` permits the commit.
    ///
    /// # Errors
    /// Those of `check`, and as [`JobLedger::acknowledge`].
    pub(crate) fn acknowledge_if(
        &self,
        check: CommitCheck<'_>,
        table: LedgerTable,
        acknowledged: &[LedgerRow],
    ) -> Result<u64> {
        let counts = rows::counted(acknowledged);
        self.set_flags(check, table, counts.is_empty(), &|| {
            let mut left = counts.clone();
            Box::new(move |row| rows::take_one(&mut left, row))
        })
    }

    /// Checks that rows of `table` can be acknowledged as it is now. Another writer, such as Spark, can have switched on a feature
    /// since the ledger was opened.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], which says how to switch it off; as [`JobLedger::rows`].
    pub(crate) fn check_acknowledging(&self, table: LedgerTable) -> Result<()> {
        let Some(found) = self.opened(table.spec())? else { return Ok(()) };
        found.newest_version()?;
        found.check_rewritable()
    }

    /// Sets every pending execution of this file and job to `YES`, as the legacy `UPDATE` statement does.
    ///
    /// # Errors
    /// As [`JobLedger::acknowledge`]; [`ErrorKind::InvalidInput`] for an empty or too long name.
    pub fn update_autosys_flag(&self, file_name: &str, job_id: &str) -> Result<u64> {
        check_names(file_name, job_id)?;
        self.set_flags(NO_CHECK, LedgerTable::Executions, false, &|| {
            Box::new(move |row| row.file_name.as_deref() == Some(file_name) && row.job_id.as_deref() == Some(job_id))
        })
    }

    /// Sets the pending executions to `YES` that belong to `delivered` notifications: those with the same file, job and
    /// status that are not later. A NULL timestamp is earlier than any other. `check` permits the commit.
    ///
    /// # Errors
    /// Those of `check`, and as [`JobLedger::acknowledge`].
    pub fn settle_executions(&self, check: CommitCheck<'_>, delivered: &[LedgerRow]) -> Result<u64> {
        type Key<'a> = (&'a Option<String>, &'a Option<String>, &'a Option<String>);
        let mut latest: HashMap<Key<'_>, Option<i64>> = HashMap::new();
        for row in delivered {
            let at = latest.entry((&row.file_name, &row.job_id, &row.status)).or_default();
            *at = (*at).max(row.timestamp);
        }
        self.set_flags(check, LedgerTable::Executions, latest.is_empty(), &|| {
            Box::new(|row| {
                let notified = latest.get(&(&row.file_name, &row.job_id, &row.status));
                notified.is_some_and(|notified| row.timestamp <= *notified)
            })
        })
    }

    /// Acknowledges the pending rows that a matcher of `new_matcher` selects; none, if it `selects_nothing`.
    fn set_flags<'a>(
        &self,
        check: CommitCheck<'_>,
        table: LedgerTable,
        selects_nothing: bool,
        new_matcher: &dyn Fn() -> Matcher<'a>,
    ) -> Result<u64> {
        let Some(found) = self.existing(table)?.filter(|_| !selects_nothing) else { return Ok(0) };
        let matcher = RefCell::new(new_matcher());
        let rewrite = &mut |file: &RecordBatch| rewrite(table, file, &mut **matcher.borrow_mut());
        found.rewrite(&equal(FLAG, NO), check, rewrite, &mut || *matcher.borrow_mut() = new_matcher())
    }
}

fn rewrite(
    table: LedgerTable,
    file: &RecordBatch,
    matches: &mut dyn FnMut(&LedgerRow) -> bool,
) -> Result<Option<Rewrite>> {
    let flags = texts(file, FLAG)?;
    // In tables without partitions, the same file can also have acknowledged rows.
    let remove: BooleanArray = rows::from_batch(table, &rows::as_utc(file.clone())?)?
        .iter()
        .enumerate()
        .map(|(number, row)| Some(value(flags, number) == Some(NO) && matches(row)))
        .collect();
    if remove.true_count() == 0 {
        return Ok(None);
    }
    let broken = |e| Error::new(ErrorKind::Internal, "cannot build acknowledged rows").with_source(e);
    let taken = filter_record_batch(file, &remove).map_err(broken)?;
    let yes = Arc::new(StringArray::from(vec![YES; taken.num_rows()])) as ArrayRef;
    let schema = taken.schema();
    let columns = schema.fields().iter().zip(taken.columns());
    let columns = columns.map(|(field, column)| if field.name() == FLAG { &yes } else { column }.clone()).collect();
    let add = RecordBatch::try_new(taken.schema(), columns).map_err(broken)?;
    Ok(Some(Rewrite { remove, add }))
}
