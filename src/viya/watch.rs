//! Notices that jobs end, with few requests: by asking a server that waits with its response, else by listing jobs that have
//! ended, else job by job. Which of these the server supports is found out by using it.
//!
//! No SAS document says whether the Job Execution Service supports `wait` or these filters. So a response that came too soon,
//! a list that was refused, and a job that ended without being listed each end the use of that method.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, oneshot};

use super::ViyaClient;
use super::jobs::{self, EndedFilter, EndedJobs, IDS_PER_FILTER, Job, JobState};
use crate::error::{ErrorKind, Result};
use crate::runtime::lock;

/// Connections that may wait for a response at a time. Each uses a thread or more of some proxies.
const WAITING_CONNECTIONS: usize = 64;
/// Seconds that a server is asked to wait. Source: its Compute service accepts at most 60.
const WAIT: u32 = 30;
/// Up to so many jobs are asked for one by one, when the server does not wait.
const FEW: usize = 8;
/// Requests per second of the server that polling may use.
const POLLS_PER_SECOND: f64 = 25.0;
/// After so many seconds a listed job is asked for itself, in case the list is wrong.
const LONGEST_UNLISTED: f64 = 45.0;
/// Shortest real time between two lists, however fast the server's clock is.
const LEAST_PAUSE: Duration = Duration::from_millis(10);
/// After so many early responses, a server that waited before is treated as one that does not wait.
const MOST_EARLY_RESPONSES: u32 = 5;

/// News of a job.
#[derive(Debug)]
pub enum JobUpdate {
    /// Its state.
    State(JobState),
    /// The job itself, ended.
    Ended(Box<Job>),
}

/// Watches the jobs of one client. [`Watch::run_lists`] has to run beside the callers of [`Watch::next_update`].
#[derive(Debug)]
pub struct Watch<'a> {
    client: &'a ViyaClient,
    interval: f64,
    connections: Semaphore,
    server: Mutex<ServerBehavior>,
    listeners: Mutex<HashMap<String, oneshot::Sender<Box<Job>>>>,
    listener_added: Notify,
    /// Each job in flight has a clone.
    in_flight: Arc<()>,
}

/// What is known about the server.
#[derive(Debug, Default)]
struct ServerBehavior {
    /// Whether it waits with a response until a state changes; `None` until that is known.
    waits: Option<bool>,
    /// Responses that came too soon.
    early_responses: u32,
    /// The index of the filter in use; after the last one, jobs are not listed.
    filter: usize,
}

/// The filters, best first.
const FILTERS: [EndedFilter; 3] = [EndedFilter::NotRunningIds, EndedFilter::Ids, EndedFilter::Newest];

impl<'a> Watch<'a> {
    /// A watch that asks for each job at least every `interval` seconds of the server, while few are in flight.
    pub fn new(client: &'a ViyaClient, interval: f64) -> Self {
        Self {
            client,
            interval,
            connections: Semaphore::new(WAITING_CONNECTIONS),
            server: Mutex::default(),
            listeners: Mutex::default(),
            listener_added: Notify::new(),
            in_flight: Arc::default(),
        }
    }

    /// Counts a job as in flight until the returned guard is dropped.
    #[must_use]
    pub fn count_in_flight(&self) -> Arc<()> {
        Arc::clone(&self.in_flight)
    }

    /// Waits until there may be news of the job `id`, whose last known state is `known`.
    ///
    /// # Errors
    /// Those of [`jobs::state`]. The future can be dropped at any moment.
    pub async fn next_update(&self, id: &str, known: JobState) -> Result<JobUpdate> {
        let may_wait = lock(&self.server).waits != Some(false);
        if may_wait && let Ok(_connection) = self.connections.try_acquire() {
            let began = Instant::now();
            let waited = jobs::wait_for_state_change(self.client, id, WAIT).await;
            let mut server = lock(&self.server);
            return match waited {
                Ok(state) => {
                    if state == known {
                        server.observe_long_poll(self.client.clock.since(began));
                    }
                    Ok(JobUpdate::State(state))
                }
                Err(e) => {
                    // A proxy that cuts off long requests looks like a server that fails.
                    if e.kind() != ErrorKind::NotFound && server.waits.is_none() {
                        server.waits = Some(false);
                    }
                    Err(e)
                }
            };
        }
        let in_flight = (Arc::strong_count(&self.in_flight) - 1) as f64;
        if in_flight > FEW as f64 && self.filter().is_some() {
            return self.update_from_list(id, in_flight).await;
        }
        self.client.clock.sleep(self.interval.max(in_flight / POLLS_PER_SECOND)).await;
        jobs::state(self.client, id).await.map(JobUpdate::State)
    }

    async fn update_from_list(&self, id: &str, in_flight: f64) -> Result<JobUpdate> {
        let index = lock(&self.server).filter;
        // It listens until it is dropped.
        let (sender, mut listener) = oneshot::channel();
        lock(&self.listeners).insert(id.to_owned(), sender);
        self.listener_added.notify_one();
        let patience = LONGEST_UNLISTED.max(in_flight / POLLS_PER_SECOND * 4.0);
        tokio::select! {
            update = &mut listener => if let Ok(job) = update { return Ok(JobUpdate::Ended(job)) },
            () = self.client.clock.sleep(patience) => {}
        }
        let state = jobs::state(self.client, id).await?;
        // The job may have ended this moment: the next list still has to show it.
        if state.is_final() {
            self.client.clock.sleep(self.interval * 2.0).await;
            if lock(&self.listeners).contains_key(id) && FILTERS.get(index) != Some(&EndedFilter::Newest) {
                self.abandon_filter(index, "it did not show a job that had ended");
            }
        }
        Ok(JobUpdate::State(state))
    }

    fn filter(&self) -> Option<EndedFilter> {
        FILTERS.get(lock(&self.server).filter).copied()
    }

    fn abandon_filter(&self, index: usize, why: &str) {
        let mut server = lock(&self.server);
        if server.filter == index {
            server.filter += 1;
            tracing::debug!("jobs are not listed with {:?} any more: {why}", FILTERS.get(index));
        }
    }

    /// Lists ended jobs for the callers of [`Watch::next_update`], as long as it is polled.
    pub async fn run_lists(&self) -> std::convert::Infallible {
        loop {
            let ids: Vec<String> = {
                let mut listeners = lock(&self.listeners);
                listeners.retain(|_, sender| !sender.is_closed());
                listeners.keys().cloned().collect()
            };
            if ids.is_empty() {
                self.listener_added.notified().await;
                continue;
            }
            let began = Instant::now();
            let requests = self.list_once(&ids).await;
            let pause = (self.interval / 2.0).max(requests as f64 / POLLS_PER_SECOND);
            // A slow server gets time between two lists.
            let real = self.client.clock.real(pause).max(began.elapsed() / 2).max(LEAST_PAUSE);
            tokio::time::sleep(real).await;
        }
    }

    async fn list_once(&self, ids: &[String]) -> usize {
        let index = lock(&self.server).filter;
        let Some(filter) = FILTERS.get(index).copied() else {
            // Dropping the senders makes the callers ask for their jobs themselves.
            lock(&self.listeners).clear();
            return 0;
        };
        let mut requests = 0;
        for chunk in ids.chunks(if filter == EndedFilter::Newest { ids.len() } else { IDS_PER_FILTER }) {
            requests += 1;
            match jobs::list_ended(self.client, filter, chunk).await {
                Ok(EndedJobs { jobs, matches_filter }) => {
                    for job in jobs {
                        let sender = lock(&self.listeners).remove(job.id());
                        // An error means that the caller stopped waiting.
                        let _ = sender.map(|sender| sender.send(Box::new(job)));
                    }
                    if !matches_filter {
                        self.abandon_filter(index, "the list does not match the filter");
                        break;
                    }
                }
                // The server does not support the request.
                Err(e) if !e.is_retryable() && !matches!(e.kind(), ErrorKind::Network | ErrorKind::Authentication) => {
                    self.abandon_filter(index, &e.full_message());
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

impl ServerBehavior {
    /// Learns from a response with an unchanged state that came after `took` seconds.
    fn observe_long_poll(&mut self, took: f64) {
        if took >= f64::from(WAIT) * 0.7 {
            (self.waits, self.early_responses) = (Some(true), 0);
        } else if took < f64::from(WAIT) * 0.3 && self.waits != Some(false) {
            self.early_responses += u32::from(self.waits.is_some());
            if self.waits.is_none() || self.early_responses >= MOST_EARLY_RESPONSES {
                self.waits = Some(false);
                tracing::debug!("this SAS Viya does not wait with the state of a job, so it is polled");
            }
        }
    }
}

#[cfg(test)]
mod tests;
