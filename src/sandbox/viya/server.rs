//! The state that all requests share, and the requests that fail.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::job::Jobs;
use super::model::HostModel;
use super::options::ViyaOptions;
use super::reply::{self, Reply};
use super::tokens::IssuedTokens;
use super::virtual_clock::VirtualClock;
use super::workload::JobDefinition;
use crate::runtime::lock;

/// How an unreliable server treats a request.
pub enum Failure {
    /// It does not process the request.
    Refused(Reply),
    /// It processes the request, and the answer says that it did not.
    Misreported(Reply),
    /// It closes the connection before it processes the request.
    ClosedBefore,
    /// It closes the connection after it has processed the request.
    ClosedAfter,
}

/// The state that all requests share.
#[derive(Debug)]
pub struct ViyaState {
    pub clock: VirtualClock,
    pub definitions: Vec<JobDefinition>,
    pub options: ViyaOptions,
    pub tokens: Mutex<IssuedTokens>,
    jobs: Mutex<Jobs>,
    /// How many requests each fault of the options has seen.
    fault_counts: Mutex<Vec<u64>>,
    random: Mutex<StdRng>,
    /// How many requests came to each route, such as `GET /jobExecution/jobs/{id}/state`.
    pub requests: Mutex<BTreeMap<String, u64>>,
}

impl ViyaState {
    pub fn new(definitions: Vec<JobDefinition>, options: ViyaOptions) -> Self {
        let clock = VirtualClock::new(options.speed);
        Self {
            clock,
            definitions,
            tokens: Mutex::new(IssuedTokens::new(options.token_lifetime)),
            jobs: Mutex::new(Jobs { model: HostModel::new(options.hosts.clone()), clock, all: Vec::new() }),
            fault_counts: Mutex::new(vec![0; options.faults.len()]),
            random: Mutex::new(StdRng::seed_from_u64(options.seed)),
            requests: Mutex::default(),
            options,
        }
    }

    /// The jobs, with the host model advanced to the present moment.
    pub fn jobs(&self) -> MutexGuard<'_, Jobs> {
        let mut jobs = lock(&self.jobs);
        jobs.model.advance(self.clock.now());
        jobs
    }

    /// Counts a request.
    pub fn count(&self, request: &Request) {
        let shown = |part: &str| if uuid::Uuid::try_parse(part).is_ok() { "{id}".to_owned() } else { part.to_owned() };
        let path: Vec<String> = request.uri().path().split('/').map(shown).collect();
        let route = format!("{} {}", request.method(), path.join("/"));
        *lock(&self.requests).entry(route).or_insert(0) += 1;
    }

    /// Draws whether the next request fails at random.
    pub fn random_failure(&self) -> Option<Failure> {
        let ViyaOptions { fault_rate, reset_rate, .. } = self.options;
        if fault_rate + reset_rate <= 0.0 {
            return None;
        }
        let mut random = lock(&self.random);
        let (at, kind) = (random.random_range(0.0..1.0), random.random_range(0..4));
        let text = "The sandbox fails some requests, as it was asked to.";
        if at < fault_rate {
            return Some(match kind {
                0 => Failure::Refused(failed(StatusCode::TOO_MANY_REQUESTS, text, Some(1))),
                1 => Failure::Refused(failed(StatusCode::TOO_MANY_REQUESTS, text, None)),
                2 => Failure::Refused(failed(StatusCode::SERVICE_UNAVAILABLE, text, Some(1))),
                _ => Failure::Misreported(failed(StatusCode::SERVICE_UNAVAILABLE, text, None)),
            });
        }
        (at < fault_rate + reset_rate).then_some(if kind < 2 { Failure::ClosedBefore } else { Failure::ClosedAfter })
    }

    /// The fault of the options that is due for a request to `path`.
    pub fn fault(&self, path: &str) -> Option<Reply> {
        let mut counts = lock(&self.fault_counts);
        let mut due = None;
        let faults = self.options.faults.iter().zip(counts.iter_mut());
        for (fault, seen) in faults.filter(|(fault, _)| path.starts_with(&fault.path)) {
            *seen += 1;
            if *seen == fault.nth {
                due = Some(fault);
            }
        }
        let fault = due?;
        let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        Some(failed(status, "The sandbox was asked to fail this request.", fault.retry_after))
    }
}

fn failed(status: StatusCode, text: &str, retry_after: Option<u64>) -> Reply {
    let mut reply = reply::error(status, text, None);
    if let Some(seconds) = retry_after {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}
