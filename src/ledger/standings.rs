//! Where the pending rows stand, written down after each delivery cycle as the table `autosys_retries`: a cycle then
//! reads what is pending and what is new, however long the history of attempts is. All of it can be had from the
//! attempts again.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{concat_batches, filter_record_batch, kernels::cmp, not};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use chrono::{DateTime, Utc};

use super::rows::{LedgerRow, strings};
use super::tables::{LedgerTable, columns, timestamp};
use super::{JobLedger, attempts, upkeep};
use crate::delta::{Guard, Predicate, TableSpec, View};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Attempt;

/// Name of the table.
pub(super) const RETRIES: &str = "autosys_retries";

pub(super) static RETRIES_SPEC: LazyLock<TableSpec> = LazyLock::new(|| TableSpec {
    name: RETRIES,
    schema: columns(&[
        ("table_name", DataType::Utf8),
        ("file_name", DataType::Utf8),
        ("job_id", DataType::Utf8),
        ("status", DataType::Utf8),
        ("row_timestamp", timestamp()),
        ("state", DataType::Utf8),
        ("next_attempt", DataType::Int64),
        ("failures", DataType::Int64),
        ("in_doubt", DataType::Int64),
        ("last_attempted_at", timestamp()),
        ("next_attempt_at", timestamp()),
    ]),
    partition_by: &[],
    log_retention: upkeep::LOG_RETENTION,
});

/// The column of the attempts by which those of a row are found.
const ROW_TIMESTAMP: &str = "row_timestamp";

/// Where one pending row stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The row.
    pub row: LedgerRow,
    /// What is to become of it.
    pub state: StandingState,
    /// The number of its next attempt.
    pub next_attempt: i64,
    /// How many attempts failed, or may have.
    pub failures: u64,
    /// The number of the last attempt if it may have arrived.
    pub in_doubt: Option<i64>,
    /// When it was last tried.
    pub last_try: Option<DateTime<Utc>>,
    /// Before when it is not tried again; None: the next cycle tries it.
    pub next_try: Option<DateTime<Utc>>,
}

/// What is to become of a pending row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandingState {
    /// It is to be sent.
    Open,
    /// It was given up.
    Parked,
    /// An identical row was dealt with.
    Finished,
}

impl StandingState {
    const ALL: [Self; 3] = [Self::Open, Self::Parked, Self::Finished];

    fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Parked => "parked",
            Self::Finished => "finished",
        }
    }
}

/// What was written down of one table's rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Standings {
    /// All rows that were pending.
    pub rows: Vec<Standing>,
    /// The version of the attempts table up to which attempts are taken into account.
    pub version: u64,
    /// The latest timestamp of a row that any of these attempts is about, in microseconds since 1970 UTC: no later row
    /// was tried before.
    pub latest: Option<i64>,
}

/// The transaction ids that say what the rows of the table are good for.
fn version_key(table: LedgerTable) -> String {
    format!("jobrota.attempts/{}", table.name())
}

fn latest_key(table: LedgerTable) -> String {
    format!("jobrota.latest/{}", table.name())
}

impl JobLedger {
    /// Where the pending rows of `table` stood after the last delivery cycle; None when that was never written down.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store failed; a retry can help if it says so.
    pub fn standings(&self, table: LedgerTable) -> Result<Option<Standings>> {
        let Some(retries) = self.opened(&RETRIES_SPEC)? else { return Ok(None) };
        retries.look(|view| read(view, table))
    }

    /// Writes down where the pending rows of `table` stand, in one commit.
    ///
    /// # Errors
    /// As [`JobLedger::standings`]; [`ErrorKind::Conflict`] (retryable) when other writers won until the time limit ran
    /// out. Nothing is lost then: the attempts have it all.
    pub fn write_standings(&self, table: LedgerTable, standings: &Standings) -> Result<()> {
        let retries = self.created(&RETRIES_SPEC)?;
        let fresh = to_batch(table, &standings.rows)?;
        let version = i64::try_from(standings.version).unwrap_or(i64::MAX);
        let committed = retries.replace(&mut |rows| {
            let others = others(rows, table)?;
            let schema = others.schema();
            let batch = concat_batches(&schema, [&others, &fresh.clone().with_schema(schema.clone()).map_err(broken)?]);
            let mut transactions = vec![(version_key(table), version)];
            transactions.extend(standings.latest.map(|latest| (latest_key(table), latest)));
            Ok(Some(Guard { batch: batch.map_err(broken)?, transactions }))
        })?;
        upkeep::when_due(&retries, committed);
        Ok(())
    }

    /// The newest version of the attempts table; 0 while there is none.
    ///
    /// # Errors
    /// As [`JobLedger::standings`].
    pub fn attempts_version(&self) -> Result<u64> {
        self.opened(&super::tables::DELIVERIES_SPEC)?.map_or(Ok(0), |deliveries| deliveries.newest_version())
    }

    /// The attempts to deliver rows of `table` that were recorded after version `known` of the attempts table, and its
    /// newest version, but for those recorded in a version that `except` knows. None when nobody knows.
    ///
    /// # Errors
    /// As [`JobLedger::standings`].
    pub fn attempts_since(
        &self,
        table: LedgerTable,
        known: u64,
        except: &dyn Fn(u64) -> bool,
    ) -> Result<Option<(Vec<Attempt>, u64)>> {
        let Some(deliveries) = self.opened(&super::tables::DELIVERIES_SPEC)? else { return Ok(None) };
        let Some((rows, version)) = deliveries.appended_since(known, except)? else { return Ok(None) };
        let mut attempts = attempts::from_batch(&rows)?;
        attempts.retain(|attempt| attempt.table == table);
        Ok(Some((attempts, version)))
    }

    /// The attempts to deliver rows of `table` whose timestamps are in one of `spans`, both ends included (all attempts, if
    /// None), and the version of the attempts table that has them; 0 while there is none.
    ///
    /// # Errors
    /// As [`JobLedger::standings`].
    pub fn attempts_about(&self, table: LedgerTable, spans: &Option<Vec<(i64, i64)>>) -> Result<(Vec<Attempt>, u64)> {
        let Some(deliveries) = self.opened(&super::tables::DELIVERIES_SPEC)? else { return Ok((Vec::new(), 0)) };
        deliveries.look(|view| {
            let mut attempts = Vec::new();
            let all = vec![None];
            let spans = spans.as_ref().map_or(all, |spans| spans.iter().copied().map(Some).collect());
            for span in spans {
                let equals = vec![("table_name".to_owned(), table.name().to_owned())];
                let time =
                    span.map(|(since, until)| (ROW_TIMESTAMP.to_owned(), Some(since), Some(until.saturating_add(1))));
                attempts.extend(attempts::from_batch(&view.scan(&Predicate { equals, time })?)?);
            }
            Ok((attempts, view.version()))
        })
    }

    /// The latest timestamp of a row of `table` that was ever tried, in microseconds since 1970 UTC. Reads the newest
    /// files only, as far as their statistics allow.
    ///
    /// # Errors
    /// As [`JobLedger::standings`].
    pub fn latest_attempted(&self, table: LedgerTable) -> Result<Option<i64>> {
        let Some(deliveries) = self.opened(&super::tables::DELIVERIES_SPEC)? else { return Ok(None) };
        let equals = vec![("table_name".to_owned(), table.name().to_owned())];
        // Looked for farther and farther back: rows are tried soon after they were logged.
        let now = Utc::now().timestamp_micros();
        for hours in [1, 24, 24 * 31] {
            let since = now - hours * 3_600_000_000;
            let time = Some((ROW_TIMESTAMP.to_owned(), Some(since), None));
            let found = latest(&deliveries.scan(&Predicate { equals: equals.clone(), time })?);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(latest(&deliveries.scan(&Predicate { equals, time: None })?))
    }
}

fn latest(attempts: &RecordBatch) -> Option<i64> {
    let times = attempts.column_by_name(ROW_TIMESTAMP)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    arrow::compute::max(times)
}

fn read(view: &View<'_>, table: LedgerTable) -> Result<Option<Standings>> {
    let Some(version) = view.transaction(&version_key(table))? else { return Ok(None) };
    let equals = vec![("table_name".to_owned(), table.name().to_owned())];
    let rows = from_batch(&view.scan(&Predicate { equals, time: None })?)?;
    let latest = view.transaction(&latest_key(table))?;
    Ok(Some(Standings { rows, version: u64::try_from(version).unwrap_or_default(), latest }))
}

fn broken(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, format!("rows of {RETRIES} could not be built")).with_source(error)
}

/// The rows of `batch` that are not about `table`.
fn others(batch: &RecordBatch, table: LedgerTable) -> Result<RecordBatch> {
    let ours = StringArray::new_scalar(table.name());
    let others = cmp::eq(strings(batch, "table_name")?, &ours).and_then(|ours| not(&ours)).map_err(broken)?;
    filter_record_batch(batch, &others).map_err(broken)
}

fn to_batch(table: LedgerTable, rows: &[Standing]) -> Result<RecordBatch> {
    let text =
        |value: fn(&Standing) -> Option<&str>| Arc::new(rows.iter().map(value).collect::<StringArray>()) as ArrayRef;
    let whole =
        |value: fn(&Standing) -> Option<i64>| Arc::new(rows.iter().map(value).collect::<Int64Array>()) as ArrayRef;
    let times = |value: fn(&Standing) -> Option<i64>| {
        let column: TimestampMicrosecondArray = rows.iter().map(value).collect();
        Arc::new(column.with_timezone("UTC")) as ArrayRef
    };
    let columns = vec![
        Arc::new(StringArray::from(vec![table.name(); rows.len()])) as ArrayRef,
        text(|standing| standing.row.file_name.as_deref()),
        text(|standing| standing.row.job_id.as_deref()),
        text(|standing| standing.row.status.as_deref()),
        times(|standing| standing.row.timestamp),
        text(|standing| Some(standing.state.word())),
        whole(|standing| Some(standing.next_attempt)),
        whole(|standing| i64::try_from(standing.failures).ok()),
        whole(|standing| standing.in_doubt),
        times(|standing| standing.last_try.map(|at| at.timestamp_micros())),
        times(|standing| standing.next_try.map(|at| at.timestamp_micros())),
    ];
    RecordBatch::try_new(Arc::clone(&RETRIES_SPEC.schema), columns).map_err(broken)
}

fn from_batch(batch: &RecordBatch) -> Result<Vec<Standing>> {
    let unlike = |name: &str| {
        Error::new(ErrorKind::Unsupported, format!("column \"{name}\" of {RETRIES} is not of the type it should be"))
    };
    let text = |name| strings(batch, name);
    let times = |name: &'static str| {
        let column = batch.column_by_name(name);
        column.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>()).ok_or_else(|| unlike(name))
    };
    let whole = |name: &'static str| {
        let column = batch.column_by_name(name);
        column.and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(|| unlike(name))
    };
    let (files, jobs, statuses, states) = (text("file_name")?, text("job_id")?, text("status")?, text("state")?);
    let (row_times, tries, next_tries) =
        (times("row_timestamp")?, times("last_attempted_at")?, times("next_attempt_at")?);
    let (next, failures, in_doubt) = (whole("next_attempt")?, whole("failures")?, whole("in_doubt")?);
    let optional = |column: &StringArray, row: usize| column.is_valid(row).then(|| column.value(row).to_owned());
    let instant = |column: &TimestampMicrosecondArray, row: usize| {
        column.is_valid(row).then(|| DateTime::from_timestamp_micros(column.value(row))).flatten()
    };
    let number = |column: &Int64Array, row: usize| column.is_valid(row).then(|| column.value(row));
    (0..batch.num_rows())
        .map(|row| {
            let state = StandingState::ALL.into_iter().find(|state| state.word() == states.value(row));
            Ok(Standing {
                row: LedgerRow {
                    file_name: optional(files, row),
                    job_id: optional(jobs, row),
                    status: optional(statuses, row),
                    timestamp: row_times.is_valid(row).then(|| row_times.value(row)),
                },
                state: state.ok_or_else(|| unlike("state"))?,
                next_attempt: number(next, row).unwrap_or(1),
                failures: number(failures, row).and_then(|count| u64::try_from(count).ok()).unwrap_or_default(),
                in_doubt: number(in_doubt, row),
                last_try: instant(tries, row),
                next_try: instant(next_tries, row),
            })
        })
        .collect()
}
