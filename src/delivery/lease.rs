//! Leases: of several processes, only the holder of the lease delivers. A lease expires, so that a process that died does
//! not block the others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt as _;
use futures::future::{AbortHandle, abortable};

use super::epoch::Epoch;
use super::process::new_owner;
use crate::columns::{text, time};
use crate::delta::{ConditionalWrite, Predicate};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::columns::{new_batch, texts, times, value};
use crate::ledger::tables::LEASES;
use crate::ledger::{JobLedger, LedgerTable};
use crate::runtime::{blocking, environment, lock};
use crate::stop::Stop;

/// How often a lease is renewed in its time: two renewals can fail.
const RENEWALS: u32 = 3;
/// Nothing new is started in the last part of a lease's time; this is the divisor.
const MARGIN: u32 = 10;

/// The right to do something until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What it is for: the name of a table.
    pub name: String,
    /// Who holds it.
    pub owner: String,
    /// When it expires, by the clock of the store; [`RELEASED`] when the owner has ended it.
    pub expires_at: DateTime<Utc>,
}

/// The answer to a request for a lease.
#[derive(Debug)]
pub(super) struct LeaseAnswer {
    /// The lease as it is now, of the owner or of another one.
    pub(super) lease: Lease,
    /// The lease that was not released last, before it expired.
    pub(super) lapsed: Option<Lease>,
    /// Whether that was the one before this lease, so that its owner can still be running.
    pub(super) follows_lapsed: bool,
}

/// When a lease expires that its owner has ended.
const RELEASED: DateTime<Utc> = DateTime::UNIX_EPOCH;

impl JobLedger {
    /// Whether `lease` has not expired yet. The store tells the time: wall clocks of machines differ, and can be set.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`], retryable, when the store failed.
    pub fn is_held(&self, lease: &Lease) -> Result<bool> {
        Ok(lease.expires_at != RELEASED && lease.expires_at > self.storage().time()?.earliest)
    }

    /// Gives `owner` the lease `name` for `ttl` from now, unless another owner holds it. Extends it if `owner` holds it. With `renews`,
    /// it is only extended: `owner` does not get it back if another owner has had it meanwhile. The commit fails if another owner
    /// takes the lease at the same time.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] (retryable) when other writers won until the timeout, [`ErrorKind::Storage`] when the store
    /// failed.
    pub(super) fn request_lease(&self, name: &str, owner: &str, ttl: Duration, renews: bool) -> Result<LeaseAnswer> {
        let ttl =
            TimeDelta::from_std(ttl).map_err(|e| Error::invalid("the time of the lease is too long").with_source(e))?;
        let lapsed_name = lapsed_name(name);
        let mut answer = None;
        let table = self.created(&LEASES)?;
        let committed = table.replace(&mut |rows| {
            let mut leases = from_batch(rows)?;
            let other = leases.iter().find(|lease| lease.name == name && lease.owner != owner).cloned();
            let mut lapsed = leases.iter().find(|lease| lease.name == lapsed_name).cloned();
            let mut follows_lapsed = false;
            if let Some(other) = other {
                if renews || self.is_held(&other)? {
                    answer = Some(LeaseAnswer { lease: other, lapsed, follows_lapsed });
                    return Ok(None);
                }
                follows_lapsed = other.expires_at != RELEASED;
                if follows_lapsed {
                    lapsed = Some(Lease { name: lapsed_name.clone(), ..other });
                }
            }
            // Not earlier than the owner believes, who counts from before this.
            let expires_at = self.storage().time()?.latest + ttl;
            let lease = Lease { name: name.to_owned(), owner: owner.to_owned(), expires_at };
            leases.retain(|lease| lease.name != name && lease.name != lapsed_name);
            leases.extend([lease.clone()].into_iter().chain(lapsed.clone()));
            answer = Some(LeaseAnswer { lease, lapsed, follows_lapsed });
            Ok(Some(ConditionalWrite { batch: to_batch(&leases)?, transactions: Vec::new() }))
        })?;
        table.maintain_in_background(committed, |_| {});
        answer.ok_or_else(|| Error::new(ErrorKind::Internal, "a lease was requested, but has no holder"))
    }

    /// Ends the lease now, if `owner` holds it. The row stays, with the last owner.
    ///
    /// # Errors
    /// As [`JobLedger::request_lease`]; then the lease expires by itself.
    pub fn release_lease(&self, name: &str, owner: &str) -> Result<()> {
        self.created(&LEASES)?.replace(&mut |rows| {
            let mut leases = from_batch(rows)?;
            let ours = leases.iter_mut().find(|lease| lease.name == name && lease.owner == owner);
            let Some(ours) = ours.filter(|lease| lease.expires_at != RELEASED) else { return Ok(None) };
            ours.expires_at = RELEASED;
            Ok(Some(ConditionalWrite { batch: to_batch(&leases)?, transactions: Vec::new() }))
        })?;
        Ok(())
    }

    /// The lease `name` of its last owner, also if it has expired.
    ///
    /// # Errors
    /// As [`JobLedger::request_lease`].
    pub fn lease(&self, name: &str) -> Result<Option<Lease>> {
        let Some(table) = self.opened(&LEASES)? else { return Ok(None) };
        Ok(from_batch(&table.scan(&Predicate::default())?)?.into_iter().find(|lease| lease.name == name))
    }

    /// The leases whose owners can have left sends on their way: the lease `name` unless it was released, then the one that was not
    /// released last before it.
    ///
    /// # Errors
    /// As [`JobLedger::request_lease`].
    pub(super) fn unreleased_leases(&self, name: &str) -> Result<Vec<Lease>> {
        let Some(table) = self.opened(&LEASES)? else { return Ok(Vec::new()) };
        let (lapsed_name, mut leases) = (lapsed_name(name), from_batch(&table.scan(&Predicate::default())?)?);
        leases.retain(|lease| lease.name == name && lease.expires_at != RELEASED || lease.name == lapsed_name);
        leases.sort_by_key(|lease| lease.name == lapsed_name);
        Ok(leases)
    }
}

/// The name of the lease `name` that was not released last.
fn lapsed_name(name: &str) -> String {
    format!("{name}/lapsed")
}

fn to_batch(leases: &[Lease]) -> Result<RecordBatch> {
    let names = text(leases, |lease| Some(&lease.name));
    let owners = text(leases, |lease| Some(&lease.owner));
    let expiry = time(leases, |lease| Some(lease.expires_at.timestamp_micros()));
    new_batch(&LEASES, vec![names, owners, expiry])
}

/// The leases in a batch. Rows without an owner or an expiry, which other programs can write, are no leases.
fn from_batch(batch: &RecordBatch) -> Result<Vec<Lease>> {
    let (names, owners, expiry) = (texts(batch, "name")?, texts(batch, "owner")?, times(batch, "expires_at")?);
    let lease = |row| {
        let expires_at = DateTime::from_timestamp_micros(value(expiry, row)?)?;
        Some(Lease { name: value(names, row)?.to_owned(), owner: value(owners, row)?.to_owned(), expires_at })
    };
    Ok((0..batch.num_rows()).filter_map(lease).collect())
}

/// A lease that this process holds. It is renewed until it is released or dropped.
#[derive(Debug)]
pub(super) struct LeaseGuard {
    shared: Arc<SharedLease>,
    renewal: AbortHandle,
    /// The lease that was not released last, before this one.
    pub(super) lapsed: Option<Lease>,
    /// What permits its holder's commits.
    pub(super) epoch: Arc<Epoch>,
}

#[derive(Debug)]
struct SharedLease {
    ledger: JobLedger,
    name: &'static str,
    owner: String,
    ttl: Duration,
    /// By the time since the machine started, counted from before the request: never later than what others read. A machine that
    /// slept has lost its lease.
    valid_until: Mutex<Duration>,
    lost: Stop,
}

impl LeaseGuard {
    /// Takes the lease to deliver from `source`, or returns the lease of the owner that holds it.
    pub(super) async fn take(
        ledger: &JobLedger,
        source: LedgerTable,
        ttl: Duration,
    ) -> Result<std::result::Result<Self, Lease>> {
        let (name, owner) = (source.name(), new_owner());
        let (ledger, valid_until) = (ledger.clone(), Mutex::new(environment().since_boot()));
        let shared = Arc::new(SharedLease { ledger, name, owner, ttl, valid_until, lost: Stop::default() });
        let LeaseAnswer { lease, lapsed, follows_lapsed } = shared.extend(false).await?;
        if lease.owner != shared.owner {
            return Ok(Err(lease));
        }
        let epoch = Arc::new(Epoch::new(&shared.ledger, source, follows_lapsed));
        let (renewing, renewal) = abortable(Arc::clone(&shared).renew());
        environment().start_task(renewing.map(drop).boxed())?;
        Ok(Ok(Self { shared, renewal, lapsed, epoch }))
    }

    /// A check of whether something new can be started: the lease stays valid for a while.
    pub(super) fn validity(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || environment().since_boot() + shared.ttl / MARGIN < *lock(&shared.valid_until)
    }

    /// Stopped when the lease has expired or another owner has taken it.
    pub(super) fn lost(&self) -> Stop {
        self.shared.lost.clone()
    }

    /// Ends the lease now: see [`Epoch::release_lease`].
    pub(super) async fn release(self) {
        self.renewal.abort();
        let (shared, epoch) = (Arc::clone(&self.shared), Arc::clone(&self.epoch));
        // Without a thread, it expires by itself, too.
        let _ = blocking(move || epoch.release_lease(&shared.owner)).await;
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl SharedLease {
    /// Takes or renews the lease.
    async fn extend(self: &Arc<Self>, renews: bool) -> Result<LeaseAnswer> {
        let requested = environment().since_boot();
        let shared = Arc::clone(self);
        let request = move || shared.ledger.request_lease(shared.name, &shared.owner, shared.ttl, renews);
        let answer = blocking(request).await?;
        if answer.lease.owner == self.owner {
            *lock(&self.valid_until) = requested + self.ttl;
        }
        Ok(answer)
    }

    async fn renew(self: Arc<Self>) {
        let mut wait = self.ttl / RENEWALS;
        loop {
            environment().sleep(wait).await;
            match self.extend(true).await {
                Ok(answer) if answer.lease.owner == self.owner => wait = self.ttl / RENEWALS,
                Ok(LeaseAnswer { lease: holder, .. }) => {
                    tracing::warn!(name = self.name, holder = holder.owner, "the lease expired; another owner took it");
                    break;
                }
                Err(error) if environment().since_boot() < *lock(&self.valid_until) => {
                    tracing::warn!(name = self.name, error = error.full_message(), "the lease was not renewed yet");
                    wait = self.ttl / MARGIN;
                }
                Err(error) => {
                    tracing::warn!(name = self.name, error = error.full_message(), "the lease could not be renewed");
                    break;
                }
            }
        }
        self.lost.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use object_store::memory::InMemory;
    use url::Url;

    use super::*;
    use crate::runtime::block_on;
    use crate::runtime::environment::timeout;
    use crate::storage::Storage;
    use crate::storage::tests::fault_injecting::{Fault, FaultInjectingStore, FaultPlan};

    const TTL: Duration = Duration::from_secs(60);
    const SOURCE: LedgerTable = LedgerTable::Executions;

    impl JobLedger {
        /// The lease as it is after `owner` asked for it.
        pub(crate) fn take_lease(&self, name: &str, owner: &str, ttl: Duration) -> Result<Lease> {
            Ok(self.request_lease(name, owner, ttl, false)?.lease)
        }
    }

    fn ledger(dir: &tempfile::TempDir) -> JobLedger {
        JobLedger::open(dir.path().join("ledger").to_str().unwrap(), &HashMap::new(), None).unwrap()
    }

    #[test]
    fn of_two_only_one_has_it_until_it_expires_or_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        assert_eq!(ledger.lease("n").unwrap(), None);
        assert_eq!(ledger.take_lease("n", "a", TTL).unwrap().owner, "a");
        assert_eq!(ledger.take_lease("n", "b", TTL).unwrap().owner, "a");
        assert_eq!(ledger.take_lease("other", "b", TTL).unwrap().owner, "b");
        let before = ledger.lease("n").unwrap().unwrap().expires_at;
        assert!(ledger.take_lease("n", "a", TTL).unwrap().expires_at > before, "extended");
        ledger.release_lease("n", "b").unwrap();
        assert_eq!(ledger.take_lease("n", "b", TTL).unwrap().owner, "a", "only its owner releases it");
        ledger.release_lease("n", "a").unwrap();
        assert_eq!(ledger.lease("n").unwrap().unwrap().owner, "a", "who had it last");
        assert_eq!(ledger.take_lease("n", "b", Duration::ZERO).unwrap().owner, "b");
        let taken = || ledger.take_lease("n", "a", TTL).unwrap().owner == "a";
        assert!(
            (0..1000).any(|_| {
                std::thread::sleep(Duration::from_millis(5));
                taken()
            }),
            "b's has expired"
        );
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

    #[test]
    fn the_leases_of_other_tables_and_released_ones_leave_no_sends() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        let unreleased = |name: &str| -> Vec<String> {
            ledger.unreleased_leases(name).unwrap().into_iter().map(|lease| lease.owner).collect()
        };
        ledger.take_lease("other", "c", TTL).unwrap();
        ledger.take_lease("n", "a", Duration::ZERO).unwrap();
        while ledger.take_lease("n", "b", TTL).unwrap().owner != "b" {
            std::thread::yield_now();
        }
        assert_eq!(unreleased("n"), ["b", "a"]);
        ledger.release_lease("n", "b").unwrap();
        assert_eq!(unreleased("n"), ["a"], "it lapsed");
        ledger.release_lease("other", "c").unwrap();
        assert_eq!(unreleased("other"), [""; 0]);
    }

    fn held(ledger: &JobLedger, ttl: Duration) -> LeaseGuard {
        block_on(LeaseGuard::take(ledger, SOURCE, ttl)).unwrap().unwrap()
    }

    /// Waits until the lease was renewed `times` times, or is lost. Returns whether it was renewed.
    fn is_renewed(ledger: &JobLedger, guard: &LeaseGuard, times: usize) -> bool {
        let lost = guard.lost();
        let mut before = ledger.lease(SOURCE.name()).unwrap().unwrap().expires_at;
        for _ in 0..times {
            while ledger.lease(SOURCE.name()).unwrap().unwrap().expires_at == before {
                if lost.is_stopped() {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            before = ledger.lease(SOURCE.name()).unwrap().unwrap().expires_at;
        }
        true
    }

    fn is_lost_at_last(guard: &LeaseGuard) -> bool {
        let lost = guard.lost();
        block_on(async move { Ok(timeout(TTL, lost.stopped()).await.is_some()) }).unwrap()
    }

    #[test]
    fn a_lease_is_renewed_until_another_owner_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(&dir);
        let guard = held(&ledger, Duration::from_millis(60));
        assert!(is_renewed(&ledger, &guard, 3));
        // A renewal can come between the two.
        let take = || {
            ledger.release_lease(SOURCE.name(), &guard.shared.owner).unwrap();
            ledger.take_lease(SOURCE.name(), "other", TTL).unwrap().owner
        };
        while take() != "other" {}
        assert!(is_lost_at_last(&guard));
        assert_eq!(ledger.lease(SOURCE.name()).unwrap().unwrap().owner, "other");
    }

    #[test]
    fn a_renewal_that_failed_is_repeated_while_the_lease_is_valid() {
        let plan = FaultPlan::none();
        let store = FaultInjectingStore::new(Arc::new(InMemory::new()), plan.clone());
        let storage = Storage::in_place(Arc::new(store), Url::parse("az://container/ledger/").unwrap()).unwrap();
        let ledger = JobLedger::over(storage).unwrap();
        let guard = held(&ledger, Duration::from_secs(6));
        plan.next_commits(&[Fault::DiskFull; 2]);
        assert!(is_renewed(&ledger, &guard, 1));
        block_on(async move {
            guard.release().await;
            Ok(())
        })
        .unwrap();

        let guard = held(&ledger, Duration::from_millis(60));
        plan.next_commits(&[Fault::DiskFull; 1000]);
        assert!(is_lost_at_last(&guard));
    }
}
