//! The right to deliver: of several cycles over one ledger at the same time, only the one that holds the lease sends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::error::Result;
use crate::ledger::{JobLedger, Lease};
use crate::runtime::{self, blocking};
use crate::stop::Stop;

/// A lease is renewed so often in its time: two renewals may fail.
const RENEWALS: u32 = 3;
/// Nothing more is begun in this part of a lease's time before it lapses.
const MARGIN: u32 = 10;

/// A lease that is held, and renewed until it is given back or dropped.
#[derive(Debug)]
pub(super) struct Held {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    ledger: JobLedger,
    name: &'static str,
    owner: String,
    ttl: Duration,
    /// By this process's own clock, counted from before it was asked for: never later than what others read.
    valid_until: Mutex<Instant>,
    lost: Stop,
}

/// Whether somebody else holds it.
pub(super) enum Taken {
    Ours(Held),
    Theirs(Lease),
}

impl Held {
    /// Takes the lease `name`, if nobody else holds it.
    pub(super) async fn take(ledger: &JobLedger, name: &'static str, owner: String, ttl: Duration) -> Result<Taken> {
        let shared = Arc::new(Shared {
            ledger: ledger.clone(),
            name,
            owner,
            ttl,
            valid_until: Mutex::new(Instant::now()),
            lost: Stop::default(),
        });
        if let Some(holder) = shared.extend().await? {
            return Ok(Taken::Theirs(holder));
        }
        let keeper = runtime::handle()?.spawn(Arc::clone(&shared).keep()).abort_handle();
        Ok(Taken::Ours(Self { shared, keeper }))
    }

    /// Whether something may be begun now: the lease is good for a while yet.
    pub(super) fn is_good(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || Instant::now() + shared.ttl / MARGIN < shared.valid_until()
    }

    /// Is made when the lease has lapsed or gone to somebody else.
    pub(super) fn lost(&self) -> Stop {
        self.shared.lost.clone()
    }

    /// Lets it lapse now. Where that fails it lapses by itself, and the others wait for so long.
    pub(super) async fn give_back(self) {
        self.keeper.abort();
        let shared = Arc::clone(&self.shared);
        if let Err(error) = blocking(move || shared.ledger.give_lease_back(shared.name, &shared.owner)).await {
            tracing::warn!(error = error.full_message(), "the lease was not given back; it lapses by itself");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Shared {
    fn valid_until(&self) -> Instant {
        *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes or renews it; Some is who has it instead.
    async fn extend(self: &Arc<Self>) -> Result<Option<Lease>> {
        let asked = Instant::now();
        let shared = Arc::clone(self);
        let lease = blocking(move || shared.ledger.take_lease(shared.name, &shared.owner, shared.ttl)).await?;
        if lease.owner != self.owner {
            return Ok(Some(lease));
        }
        *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner) = asked + self.ttl;
        Ok(None)
    }

    async fn keep(self: Arc<Self>) {
        let mut wait = self.ttl / RENEWALS;
        loop {
            sleep(wait).await;
            match self.extend().await {
                Ok(None) => wait = self.ttl / RENEWALS,
                Ok(Some(holder)) => {
                    tracing::warn!(name = self.name, holder = holder.owner, "the lease lapsed and was taken over");
                    break;
                }
                Err(error) if Instant::now() < self.valid_until() => {
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
