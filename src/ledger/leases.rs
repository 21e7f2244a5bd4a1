//! Leases: of several processes that could do something, only the one that holds it does. A lease lapses by itself, so
//! that a process that died is in nobody's way.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use chrono::{DateTime, TimeDelta, Utc};

use super::JobLedger;
use super::rows::strings;
use super::tables::{columns, timestamp};
use super::upkeep;
use crate::delta::{Guard, Predicate, TableSpec};
use crate::error::{Error, ErrorKind, Result};

/// Name of the table.
pub(super) const LEASES: &str = "autosys_leases";

pub(super) static LEASES_SPEC: LazyLock<TableSpec> = LazyLock::new(|| TableSpec {
    name: LEASES,
    schema: columns(&[("name", DataType::Utf8), ("owner", DataType::Utf8), ("expires_at", timestamp())]),
    partition_by: &[],
    log_retention: upkeep::LOG_RETENTION,
});

/// Who may do what, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: String,
    /// Who holds it.
    pub owner: String,
    /// When it lapses, by the owner's clock.
    pub expires_at: DateTime<Utc>,
}

impl Lease {
    /// Whether it has not lapsed yet.
    pub fn is_held(&self) -> bool {
        self.expires_at > Utc::now()
    }
}

impl JobLedger {
    /// Gives `owner` the lease `name` for `ttl` from now, unless somebody else holds it; extends it where `owner` holds it
    /// already. Returns who has it now. One commit, after which nobody can have taken it as well.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] (retryable) when other writers won until the time limit ran out, [`ErrorKind::Storage`] when
    /// the store failed.
    pub fn take_lease(&self, name: &str, owner: &str, ttl: Duration) -> Result<Lease> {
        let ttl = TimeDelta::from_std(ttl).map_err(|e| Error::invalid("the lease's time is endless").with_source(e))?;
        let mut holder = None;
        let table = self.created(&LEASES_SPEC)?;
        let committed = table.replace(&mut |rows| {
            let mut leases = from_batch(rows)?;
            let held = leases.iter().find(|lease| lease.name == name && lease.owner != owner && lease.is_held());
            if let Some(other) = held {
                holder = Some(other.clone());
                return Ok(None);
            }
            let ours = Lease { name: name.to_owned(), owner: owner.to_owned(), expires_at: Utc::now() + ttl };
            leases.retain(|lease| lease.name != name);
            leases.push(ours.clone());
            holder = Some(ours);
            Ok(Some(Guard { batch: to_batch(&leases)?, transactions: Vec::new() }))
        })?;
        upkeep::when_due(&table, committed);
        holder.ok_or_else(|| Error::new(ErrorKind::Internal, "a lease was asked for, but nobody has it"))
    }

    /// Lets the lease lapse now, if `owner` holds it. The row stays and says who had it last.
    ///
    /// # Errors
    /// As [`JobLedger::take_lease`]; the lease then lapses by itself.
    pub fn give_lease_back(&self, name: &str, owner: &str) -> Result<()> {
        self.created(&LEASES_SPEC)?.replace(&mut |rows| {
            let mut leases = from_batch(rows)?;
            let ours = leases.iter_mut().find(|lease| lease.name == name && lease.owner == owner && lease.is_held());
            let Some(ours) = ours else { return Ok(None) };
            ours.expires_at = Utc::now();
            Ok(Some(Guard { batch: to_batch(&leases)?, transactions: Vec::new() }))
        })?;
        Ok(())
    }

    /// The lease `name`, whoever had it last.
    ///
    /// # Errors
    /// As [`JobLedger::take_lease`].
    pub fn lease(&self, name: &str) -> Result<Option<Lease>> {
        let Some(table) = self.opened(&LEASES_SPEC)? else { return Ok(None) };
        Ok(from_batch(&table.scan(&Predicate::default())?)?.into_iter().find(|lease| lease.name == name))
    }
}

fn to_batch(leases: &[Lease]) -> Result<RecordBatch> {
    let text =
        |value: fn(&Lease) -> &str| Arc::new(leases.iter().map(value).map(Some).collect::<StringArray>()) as ArrayRef;
    let expiry: TimestampMicrosecondArray =
        leases.iter().map(|lease| Some(lease.expires_at.timestamp_micros())).collect();
    let columns = vec![text(|lease| &lease.name), text(|lease| &lease.owner), Arc::new(expiry.with_timezone("UTC"))];
    RecordBatch::try_new(Arc::clone(&LEASES_SPEC.schema), columns)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("rows of {LEASES} could not be built")).with_source(e))
}

/// Leases without an owner or an expiry, which only somebody else can have written, are nobody's.
fn from_batch(batch: &RecordBatch) -> Result<Vec<Lease>> {
    let (names, owners) = (strings(batch, "name")?, strings(batch, "owner")?);
    let expiry = batch.column_by_name("expires_at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    let expiry = expiry.ok_or_else(|| {
        let text = format!("column \"expires_at\" of {LEASES} is not of the type it should be");
        Error::new(ErrorKind::Unsupported, text)
    })?;
    let full = |row: &usize| names.is_valid(*row) && owners.is_valid(*row) && expiry.is_valid(*row);
    let leases = (0..batch.num_rows()).filter(full).filter_map(|row| {
        let expires_at = DateTime::from_timestamp_micros(expiry.value(row))?;
        Some(Lease { name: names.value(row).to_owned(), owner: owners.value(row).to_owned(), expires_at })
    });
    Ok(leases.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn ledger(dir: &tempfile::TempDir) -> JobLedger {
        JobLedger::open(dir.path().join("ledger").to_str().unwrap(), &HashMap::new(), None).unwrap()
    }

    #[test]
    fn of_two_only_one_has_it_until_it_lapses_or_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        assert_eq!(ledger.lease("n").unwrap(), None);
        assert_eq!(ledger.take_lease("n", "a", TTL).unwrap().owner, "a");
        assert_eq!(ledger.take_lease("n", "b", TTL).unwrap().owner, "a");
        assert_eq!(ledger.take_lease("other", "b", TTL).unwrap().owner, "b");
        let before = ledger.lease("n").unwrap().unwrap().expires_at;
        assert!(ledger.take_lease("n", "a", TTL).unwrap().expires_at > before, "extended");
        ledger.give_lease_back("n", "b").unwrap();
        assert_eq!(ledger.take_lease("n", "b", TTL).unwrap().owner, "a", "only its owner gives it back");
        ledger.give_lease_back("n", "a").unwrap();
        assert_eq!(ledger.lease("n").unwrap().unwrap().owner, "a", "who had it last");
        assert_eq!(ledger.take_lease("n", "b", Duration::ZERO).unwrap().owner, "b");
        assert_eq!(ledger.take_lease("n", "a", TTL).unwrap().owner, "a", "b's has lapsed");
        assert_eq!(ledger.lease("other").unwrap().unwrap().owner, "b");
    }

    #[test]
    fn of_many_at_once_exactly_one_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("ledger");
        let holders: Vec<String> = std::thread::scope(|threads| {
            let start = |owner: usize| {
                let root = root.to_str().unwrap().to_owned();
                threads.spawn(move || {
                    // A handle of its own, as another process would have.
                    let ledger = JobLedger::open(&root, &HashMap::new(), None).unwrap();
                    ledger.take_lease("n", &owner.to_string(), TTL).unwrap().owner
                })
            };
            let running: Vec<_> = (0..8).map(start).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(holders.iter().all(|holder| *holder == holders[0]), "{holders:?}");
    }
}
