//! Epochs: the number of a holder of the lease. Each commit of a delivery carries it, so that a holder that was paused and passed over
//! can neither mark rows nor set flags any more.
//!
//! The commits to the attempts table and to the tables of rows have a transaction id. It names the source table, and its version is
//! the epoch times 2^32 plus the number of the commit. Delta itself refuses no transaction id: each commit compares it, on the newest
//! snapshot, in each attempt to commit.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::RecordBatch;

use super::attempts::{Attempt, AttemptOutcome};
use crate::delta::{ConditionalWrite, SnapshotView};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::tables::DELIVERIES;
use crate::ledger::{JobLedger, LedgerRow, LedgerTable};
use crate::runtime::lock;

/// The bits of a transaction's version that count the commits of one epoch.
const COMMIT_BITS: u32 = 32;

/// The tables whose rows a delivery from `source` changes. The source is the last one.
pub(super) fn changed_tables(source: LedgerTable) -> impl Iterator<Item = LedgerTable> {
    let is_changed = move |table: &LedgerTable| source == LedgerTable::Notifications || *table == source;
    LedgerTable::ALL.into_iter().filter(is_changed)
}

/// What permits the commits of one holder of the lease. Its first commit claims the epoch.
#[derive(Debug)]
pub(super) struct Epoch {
    ledger: JobLedger,
    source: LedgerTable,
    /// Whether an earlier holder can still write: it can be running, or a commit of it can still arrive at the store.
    must_claim: AtomicBool,
    /// Whether what this holder began can still take effect: a commit of which that is not known, or a send that was not waited for.
    has_work_left: AtomicBool,
    /// The version of the attempts table that the plan is made of.
    planned: AtomicU64,
    state: Mutex<State>,
}

/// What [`Epoch::record`] did: the version of the attempts table, and whether a later holder has claimed its epoch, so that no marks
/// were recorded.
pub(super) type Recorded = (u64, bool);

#[derive(Debug, Default)]
struct State {
    /// The epoch, once a commit to the attempts table has claimed it. The commits to other tables come later.
    number: Option<i64>,
    /// The epoch of the last commit that was tried.
    tried: i64,
    commits: i64,
    /// For each table, the last transaction id that was read: the table's incarnation, its version, and that of the transaction.
    read: HashMap<&'static str, (u64, u64, i64)>,
}

impl Epoch {
    /// The epoch of a new holder of the lease of `source`. `follows_lapsed` says that the lease before was not released.
    pub(super) fn new(ledger: &JobLedger, source: LedgerTable, follows_lapsed: bool) -> Self {
        Self {
            ledger: ledger.clone(),
            source,
            must_claim: follows_lapsed.into(),
            has_work_left: AtomicBool::default(),
            planned: AtomicU64::new(u64::MAX),
            state: Mutex::default(),
        }
    }

    /// Whether the lease may be released. Otherwise it has to lapse, so that the next holder claims its epoch before it reads: what an
    /// earlier holder or this one has begun to write can still arrive.
    fn may_release(&self) -> bool {
        !self.must_claim.load(Ordering::SeqCst) && !self.has_work_left.load(Ordering::SeqCst)
    }

    /// Ends the lease of `owner` now, if it may be released. Otherwise, or if that fails, it expires by itself, and others have to wait
    /// until then.
    ///
    /// # Errors
    /// As [`JobLedger::release_lease`]. It is logged, and nothing else has to be done about it.
    pub(super) fn release_lease(&self, owner: &str) -> Result<()> {
        let warn = |error: &Error| {
            tracing::warn!(error = error.full_message(), "the lease was not released; it expires by itself");
        };
        if self.may_release() { self.ledger.release_lease(self.source.name(), owner).inspect_err(warn) } else { Ok(()) }
    }

    /// Says that a send was not waited for. Its row waits for its end, if the next holder finds that the lease has lapsed.
    pub(super) fn leaves_send(&self) {
        self.has_work_left.store(true, Ordering::SeqCst);
    }

    /// Whether nothing was committed yet.
    pub(super) fn is_unclaimed(&self) -> bool {
        lock(&self.state).number.is_none()
    }

    /// Says that the plan is made of `version` of the attempts table, which was read while the lease was held.
    pub(super) fn plans_on(&self, version: u64) {
        self.planned.store(version, Ordering::SeqCst);
    }

    /// Claims the epoch in commits of its own, if the holder before can still be running. Nothing may be read before that.
    ///
    /// # Errors
    /// Those of [`Epoch::permit`] and of the store.
    pub(super) fn claim(&self) -> Result<()> {
        if !self.must_claim.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.append(&[])?;
        for table in changed_tables(self.source) {
            let Some(found) = self.ledger.existing(table)? else { continue };
            let batch = RecordBatch::new_empty(table.schema());
            self.watch(found.append_conditionally(&mut |view| {
                let transactions = self.permit(table.name(), view)?;
                Ok(Some(ConditionalWrite { batch: batch.clone(), transactions }))
            }))?;
        }
        self.must_claim.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Keeps in mind whether it is known if a commit took effect.
    fn watch<T>(&self, committed: Result<T>) -> Result<T> {
        if committed.as_ref().is_err_and(Error::is_outcome_unknown) {
            self.has_work_left.store(true, Ordering::SeqCst);
        }
        committed
    }

    /// Records `attempts`: outcomes, and marks of the rows that are sent next. If a later holder has claimed its epoch, only the outcomes
    /// are recorded, outside of this epoch: they say what arrived.
    ///
    /// # Errors
    /// As [`JobLedger::append_attempts`]; [`ErrorKind::Conflict`], retryable, as [`Epoch::append`].
    pub(super) fn record(&self, attempts: &[Attempt]) -> Result<Recorded> {
        match self.append(attempts) {
            Err(error) if error.kind() == ErrorKind::LeaseHeld => {
                let is_outcome = |attempt: &&Attempt| attempt.outcome != AttemptOutcome::Sending;
                let outcomes: Vec<Attempt> = attempts.iter().filter(is_outcome).cloned().collect();
                Ok((self.watch(self.ledger.append_attempts(&outcomes))?, true))
            }
            version => Ok((version?, false)),
        }
    }

    /// Appends `attempts` in a commit of this epoch, and returns the version of the attempts table.
    ///
    /// # Errors
    /// Those of [`Epoch::permit`], and as [`JobLedger::append_attempts`]; [`ErrorKind::Conflict`], retryable, before the
    /// first commit, when others have recorded attempts of the source that the plan does not know. Nothing was written.
    pub(super) fn append(&self, attempts: &[Attempt]) -> Result<u64> {
        let permit = |view: &SnapshotView<'_>| {
            let transactions = self.permit(DELIVERIES.name, view)?;
            if self.is_unclaimed() {
                self.check_plan(view, &transactions)?;
            }
            Ok(transactions)
        };
        let version = self.watch(self.ledger.append_attempts_if(&permit, attempts))?;
        let mut state = lock(&self.state);
        state.number = Some(state.tried);
        Ok(version)
    }

    /// Acknowledges exactly these rows, and before that the executions that belong to them: after a crash between the two, the
    /// next cycle finds the rows pending and does both again. Returns the numbers of rows and of executions.
    ///
    /// # Errors
    /// Those of [`Epoch::permit`], and as [`JobLedger::acknowledge`].
    pub(super) fn acknowledge(&self, rows: &[LedgerRow]) -> Result<(u64, u64)> {
        if self.is_unclaimed() {
            self.append(&[])?;
        }
        let executions = match self.source {
            LedgerTable::Notifications => {
                let check = |view: &SnapshotView<'_>| self.permit(LedgerTable::Executions.name(), view);
                self.watch(self.ledger.settle_executions(&check, rows))?
            }
            LedgerTable::Executions => 0,
        };
        let check = |view: &SnapshotView<'_>| self.permit(self.source.name(), view);
        Ok((self.watch(self.ledger.acknowledge_if(&check, self.source, rows))?, executions))
    }

    /// The transaction ids of a commit to `table` on the snapshot `view`. The first one is a commit to the attempts table.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseHeld`], retryable, when a later holder has claimed its epoch. Those of the store.
    pub(super) fn permit(&self, table: &'static str, view: &SnapshotView<'_>) -> Result<Vec<(String, i64)>> {
        let app_id = format!("jobrota.delivery/{}", self.source.name());
        let (known, read) = {
            let state = lock(&self.state);
            (state.number, state.read.get(table).copied())
        };
        let last = match read.filter(|(incarnation, ..)| *incarnation == view.incarnation()) {
            Some((_, version, last)) => view.transactions_since(version)?.map(|newer| {
                newer.into_iter().rev().find(|(app, _)| *app == app_id).map_or(last, |(_, version)| version)
            }),
            None => None,
        };
        let last = last.map_or_else(|| Ok(view.transaction(&app_id)?.unwrap_or_default()), Ok::<i64, Error>)?;
        let last_epoch = last >> COMMIT_BITS;
        let number = match known {
            Some(number) if last_epoch <= number => number,
            Some(_) => {
                let text = format!(
                    "another process has taken the lease of {} meanwhile; this one marks no row and sets no flag any more",
                    self.source.name()
                );
                return Err(Error::new(ErrorKind::LeaseHeld, text).with_retryable(true));
            }
            None => {
                // The attempts table can have been deleted, or an older copy of it restored.
                let rows = self.ledger.opened(self.source.spec())?;
                let claimed = rows.map(|rows| rows.read_snapshot(|view| view.transaction(&app_id))).transpose()?;
                last_epoch.max(claimed.flatten().unwrap_or_default() >> COMMIT_BITS) + 1
            }
        };
        let broken = |e| Error::new(ErrorKind::Unsupported, format!("'{app_id}' has no epoch left")).with_source(e);
        let epoch = i64::from(i32::try_from(number).map_err(broken)?) << COMMIT_BITS;
        let mut state = lock(&self.state);
        state.tried = number;
        state.commits += 1;
        state.read.insert(table, (view.incarnation(), view.version(), last));
        Ok(vec![(app_id, epoch + state.commits)])
    }

    /// Checks that the plan knows the attempts of the source up to the version `view` of the attempts table, and that no other holder
    /// has claimed its epoch since.
    fn check_plan(&self, view: &SnapshotView<'_>, transactions: &[(String, i64)]) -> Result<()> {
        let planned = self.planned.load(Ordering::SeqCst);
        if view.version() <= planned {
            return Ok(());
        }
        let is_claimed = view
            .transactions_since(planned)?
            .is_none_or(|claims| claims.iter().any(|(app_id, _)| transactions.iter().any(|(ours, _)| ours == app_id)));
        let new = self.ledger.attempts_since(self.source, planned, &|_| false)?;
        if !is_claimed && new.is_some_and(|(new, _)| new.is_empty()) {
            return Ok(());
        }
        let text = format!("attempts to deliver rows of {} were recorded meanwhile; try again", self.source.name());
        Err(Error::new(ErrorKind::Conflict, text).with_retryable(true))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::ledger::LedgerTable::Notifications;

    fn ledger(dir: &tempfile::TempDir) -> JobLedger {
        let ledger = JobLedger::open(dir.path().join("ledger").to_str().unwrap(), &HashMap::new(), None).unwrap();
        // Two events that look the same.
        for _ in 0..2 {
            ledger.log_job_completion("f", "a", "SUCCESS", chrono::DateTime::from_timestamp(1, 0)).unwrap();
        }
        ledger
    }

    fn attempt(row: &LedgerRow, outcome: AttemptOutcome) -> Attempt {
        Attempt::new(Notifications, row, 1, outcome, Some("x".to_owned()), "test")
    }

    /// Outcome and detail of the recorded attempts, in the order in which they were recorded.
    fn outcomes(ledger: &JobLedger) -> Vec<String> {
        let (attempts, _) = ledger.attempts_since(Notifications, 0, &|_| false).unwrap().unwrap();
        attempts
            .into_iter()
            .map(|attempt| format!("{}: {}", attempt.outcome.as_str(), attempt.detail.unwrap()))
            .collect()
    }

    #[test]
    fn a_holder_that_was_passed_over_marks_nothing_and_sets_no_flag() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        let row = ledger.pending(Notifications).unwrap().remove(0);
        let (old, new) = (Epoch::new(&ledger, Notifications, false), Epoch::new(&ledger, Notifications, true));
        old.append(&[attempt(&row, AttemptOutcome::Sending)]).unwrap();
        new.claim().unwrap();
        assert!(new.may_release());

        let both = [attempt(&row, AttemptOutcome::Delivered), attempt(&row, AttemptOutcome::Sending)];
        assert!(old.record(&both).unwrap().1);
        assert_eq!(outcomes(&ledger), ["sending: x", "delivered: x"], "what it sent has arrived");
        let error = old.acknowledge(std::slice::from_ref(&row)).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::LeaseHeld, true), "{error}");
        assert_eq!(ledger.pending(Notifications).unwrap().len(), 2);
        assert_eq!(new.acknowledge(&[row]).unwrap().0, 1);
        assert_eq!(ledger.pending(Notifications).unwrap().len(), 1);
    }

    #[test]
    fn the_first_commit_is_refused_when_the_plan_is_out_of_date() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        let row = ledger.pending(Notifications).unwrap().remove(0);
        let mark = [attempt(&row, AttemptOutcome::Sending)];
        ledger.append_attempts(&mark).unwrap();
        let planned = ledger.attempts_version().unwrap();
        let holder = || {
            let epoch = Epoch::new(&ledger, Notifications, false);
            epoch.plans_on(planned);
            epoch
        };
        let refused = |epoch: &Epoch| {
            let error = epoch.append(&mark).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            assert!(epoch.is_unclaimed() && error.is_retryable() && epoch.may_release());
        };
        // Attempts of the other table are nothing to it.
        let other = Attempt { table: LedgerTable::Executions, ..mark[0].clone() };
        ledger.append_attempts(&[other]).unwrap();
        let late = holder();
        holder().append(&mark).unwrap();
        refused(&late);

        late.plans_on(ledger.attempts_version().unwrap());
        let claim = Epoch::new(&ledger, Notifications, true);
        claim.claim().unwrap();
        refused(&late);
        // A commit without rows in between is not planned anew again and again.
        late.plans_on(ledger.attempts_version().unwrap());
        late.append(&mark).unwrap();
        assert!(claim.record(&mark).unwrap().1, "the later claim counts");
    }

    #[test]
    fn epochs_rise_also_when_the_attempts_were_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        let row = ledger.pending(Notifications).unwrap().remove(0);
        for _ in 0..3 {
            let epoch = Epoch::new(&ledger, Notifications, true);
            epoch.claim().unwrap();
        }
        let old = Epoch::new(&ledger, Notifications, false);
        old.append(&[]).unwrap();
        std::fs::remove_dir_all(dir.path().join("ledger").join(DELIVERIES.name)).unwrap();
        // As another process would see it.
        let ledger = JobLedger::open(dir.path().join("ledger").to_str().unwrap(), &HashMap::new(), None).unwrap();
        let new = Epoch::new(&ledger, Notifications, false);
        assert_eq!(new.acknowledge(&[row]).unwrap().0, 1, "it is above the epoch in the table of rows");
    }

    #[test]
    fn a_delivery_of_notifications_settles_executions_and_not_the_other_way_round() {
        let changed = |source| changed_tables(source).collect::<Vec<_>>();
        assert_eq!(changed(Notifications), [LedgerTable::Executions, Notifications]);
        assert_eq!(changed(LedgerTable::Executions), [LedgerTable::Executions]);
    }

    #[test]
    fn a_send_that_was_not_waited_for_keeps_the_lease_from_being_released() {
        let dir = tempfile::tempdir().unwrap();
        let epoch = Epoch::new(&ledger(&dir), Notifications, false);
        assert!(epoch.may_release());
        epoch.leaves_send();
        assert!(!epoch.may_release());
    }

    #[test]
    fn a_lease_that_lapsed_is_known_to_later_holders() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        let minute = Duration::from_secs(60);
        let request = |owner: &str, ttl, renews| ledger.request_lease("n", owner, ttl, renews).unwrap();
        assert!(!request("a", Duration::ZERO, false).follows_lapsed);
        let b = loop {
            let answer = request("b", minute, false);
            if answer.lease.owner == "b" {
                break answer;
            }
            std::thread::yield_now();
        };
        assert!(b.follows_lapsed);
        let lapsed = b.lapsed.unwrap();
        assert_eq!(lapsed.owner, "a");
        assert_eq!(request("a", minute, true).lease.owner, "b", "a does not get it back by renewing it");
        ledger.release_lease("n", "b").unwrap();
        assert_eq!(request("a", minute, true).lease.owner, "b");
        let c = request("c", minute, false);
        assert!(!c.follows_lapsed);
        assert_eq!(c.lapsed.unwrap(), lapsed, "what a had begun to send can still arrive");
        assert_eq!(ledger.lease("n").unwrap().unwrap().owner, "c");
    }
}
