//! Sees jobs end soon, with few requests: by asking a server that waits with its answer, else by listing what has ended of
//! many jobs at once, else job by job. What the server at hand honours is found out by using it.
//!
//! No SAS document says whether the Job Execution Service honours `wait` or takes these filters, so nothing is taken for
//! granted: an answer that came too soon, a listing that was refused, and a job that had ended without being listed each
//! end the use of that way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, oneshot};

use super::ViyaClient;
use super::jobs::{self, IDS_OF_A_LISTING, Job, Listed, Listing, State};
use crate::error::{Error, ErrorKind, Result};

/// Connections that may wait for an answer at a time: each occupies a thread or more of some proxies on the way.
const WAITING_CONNECTIONS: usize = 64;
/// Seconds that a server is asked to wait. Source: its Compute service takes at most 60.
const WAIT: u32 = 30;
/// So few jobs are asked for one by one, where the server does not wait.
const FEW: usize = 8;
/// Requests per second of the server that polling may cost.
const POLLS_PER_SECOND: f64 = 25.0;
/// Jobs that are listed are asked for themselves after so long, should the listing be wrong.
const DISTRUST: f64 = 45.0;
/// Least real time between two listings, however fast the server's clock is.
const LEAST_PAUSE: Duration = Duration::from_millis(10);
/// Answers that came too soon until a server that was seen to wait is taken for one that does not.
const STRIKES: u32 = 5;

/// What was seen of a job.
#[derive(Debug)]
pub enum Seen {
    /// Its state.
    State(State),
    /// The job itself, ended.
    Ended(Box<Job>),
}

/// Watches the jobs of one client. [`Watch::list`] has to run beside those who [`Watch::look`].
#[derive(Debug)]
pub struct Watch<'a> {
    client: &'a ViyaClient,
    interval: f64,
    connections: Semaphore,
    waits: AtomicU8,
    strikes: AtomicU32,
    listing: AtomicU8,
    listed: Mutex<HashMap<String, oneshot::Sender<Box<Job>>>>,
    somebody: Notify,
    in_flight: AtomicU32,
}

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

/// The ways to list, best first.
const LISTINGS: [Listing; 3] = [Listing::EndedOfIds, Listing::OfIds, Listing::Newest];

impl<'a> Watch<'a> {
    /// A watch that looks at a job at least every `interval` seconds of the server, where few are in flight.
    pub fn new(client: &'a ViyaClient, interval: f64) -> Self {
        Self {
            client,
            interval,
            connections: Semaphore::new(WAITING_CONNECTIONS),
            waits: AtomicU8::new(UNKNOWN),
            strikes: AtomicU32::new(0),
            listing: AtomicU8::new(0),
            listed: Mutex::default(),
            somebody: Notify::new(),
            in_flight: AtomicU32::new(0),
        }
    }

    /// Counts a job in while the answer lives.
    pub fn enter(&self) -> impl Drop + use<'_> {
        struct Inside<'b>(&'b AtomicU32);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Inside(&self.in_flight)
    }

    /// Waits until there may be news of the job `id`, last known to be `known`, and says what was seen.
    ///
    /// # Errors
    /// Those of [`jobs::state`]. Dropping the future is safe at any moment.
    pub async fn look(&self, id: &str, known: State) -> Result<Seen> {
        if self.waits.load(Ordering::Relaxed) != NO
            && let Ok(_connection) = self.connections.try_acquire()
        {
            let began = Instant::now();
            let state = match jobs::state_waiting(self.client, id, WAIT).await {
                Ok(state) => state,
                Err(e) => {
                    // A proxy that cuts off who waits looks like a server that fails, again and again.
                    if e.kind() != ErrorKind::NotFound && self.waits.load(Ordering::Relaxed) != YES {
                        self.waits.store(NO, Ordering::Relaxed);
                    }
                    return Err(e);
                }
            };
            self.learn(known, state, self.client.clock().since(began));
            return Ok(Seen::State(state));
        }
        let in_flight = f64::from(self.in_flight.load(Ordering::Relaxed));
        if in_flight > FEW as f64 && self.way().is_some() {
            return self.look_at_the_list(id, in_flight).await;
        }
        self.client.clock().sleep(self.interval.max(in_flight / POLLS_PER_SECOND)).await;
        jobs::state(self.client, id).await.map(Seen::State)
    }

    /// Notes whether the server waits, from an answer that came after `took` seconds.
    fn learn(&self, known: State, state: State, took: f64) {
        if state != known {
            return;
        }
        if took >= f64::from(WAIT) * 0.7 {
            self.strikes.store(0, Ordering::Relaxed);
            self.waits.store(YES, Ordering::Relaxed);
        } else if took < f64::from(WAIT) * 0.3
            && (self.waits.load(Ordering::Relaxed) == UNKNOWN
                || self.strikes.fetch_add(1, Ordering::Relaxed) + 1 >= STRIKES)
            && self.waits.swap(NO, Ordering::Relaxed) != NO
        {
            tracing::debug!("this SAS Viya does not wait with the state of a job, so it is polled");
        }
    }

    async fn look_at_the_list(&self, id: &str, in_flight: f64) -> Result<Seen> {
        let way = self.listing.load(Ordering::Relaxed);
        let (told, news) = oneshot::channel();
        let _place = self.place(id, told);
        let patience = DISTRUST.max(in_flight / POLLS_PER_SECOND * 4.0);
        tokio::select! {
            told = news => if let Ok(job) = told { return Ok(Seen::Ended(job)) },
            () = self.client.clock().sleep(patience) => {}
        }
        let state = jobs::state(self.client, id).await?;
        // It may have ended this very moment: only a listing that is silent once more is distrusted.
        if state.is_final() {
            self.client.clock().sleep(self.interval * 2.0).await;
            if self.listed().contains_key(id) && LISTINGS.get(usize::from(way)) != Some(&Listing::Newest) {
                self.give_up(way, "it did not show a job that had ended");
            }
        }
        Ok(Seen::State(state))
    }

    fn place(&self, id: &str, told: oneshot::Sender<Box<Job>>) -> impl Drop + use<'_> {
        struct Place<'b>(&'b Mutex<HashMap<String, oneshot::Sender<Box<Job>>>>, String);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
            }
        }
        self.listed().insert(id.to_owned(), told);
        self.somebody.notify_one();
        Place(&self.listed, id.to_owned())
    }

    fn listed(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Box<Job>>>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self) -> Option<Listing> {
        LISTINGS.get(usize::from(self.listing.load(Ordering::Relaxed))).copied()
    }

    fn give_up(&self, way: u8, why: &str) {
        if self.listing.compare_exchange(way, way + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::debug!("jobs are not listed this way any more ({:?}): {why}", LISTINGS.get(usize::from(way)));
        }
    }

    /// Lists ended jobs for those who look, as long as it is polled.
    pub async fn list(&self) -> std::convert::Infallible {
        loop {
            let ids: Vec<String> = self.listed().keys().cloned().collect();
            if ids.is_empty() {
                self.somebody.notified().await;
                continue;
            }
            let began = Instant::now();
            let requests = self.list_once(&ids).await;
            let pause = (self.interval / 2.0).max(requests as f64 / POLLS_PER_SECOND);
            // A server that takes long gets time in between.
            let real = self.client.clock().real(pause).max(began.elapsed() / 2).max(LEAST_PAUSE);
            tokio::time::sleep(real).await;
        }
    }

    async fn list_once(&self, ids: &[String]) -> usize {
        let way = self.listing.load(Ordering::Relaxed);
        let Some(listing) = LISTINGS.get(usize::from(way)).copied() else {
            // Nobody is listed any more: those who wait go on by themselves.
            self.listed().clear();
            return 0;
        };
        let mut requests = 0;
        for chunk in ids.chunks(if listing == Listing::Newest { ids.len() } else { IDS_OF_A_LISTING }) {
            requests += 1;
            match jobs::list_ended(self.client, listing, chunk).await {
                Ok(Listed { ended, honest }) => {
                    for job in ended {
                        let told = self.listed().remove(job.id());
                        // Who does not look any more needs no answer.
                        let _ = told.map(|told| told.send(Box::new(job)));
                    }
                    if !honest {
                        self.give_up(way, "it does not show what it was asked for");
                        break;
                    }
                }
                Err(e) if refused(&e) => {
                    self.give_up(way, &e.full_message());
                    break;
                }
                Err(e) => {
                    tracing::debug!("jobs could not be listed and are listed again: {}", e.full_message());
                    break;
                }
            }
        }
        requests
    }
}

/// Whether the server does not want to be asked this way, whatever the moment.
fn refused(e: &Error) -> bool {
    !e.is_retryable() && !matches!(e.kind(), ErrorKind::Network | ErrorKind::Authentication)
}

#[cfg(test)]
mod tests;
