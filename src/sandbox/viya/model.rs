//! The host model: a discrete-event simulation of queues, hosts and pods in virtual seconds.
//!
//! It does no I/O, reads no clock and draws no random number: the same submissions give the same run. Time moves only
//! in [`HostModel::advance`], from event to event, so that an idle model uses no CPU. Jobs on a host share its cores
//! (processor sharing); between two events all rates are constant, which makes every end exact.

use std::collections::VecDeque;

use super::options::{HostClass, HostParameters};

/// Seconds below which two moments are the same: f64 keeps microseconds for centuries of virtual time.
const EPSILON: f64 = 1e-6;

/// The queue whose jobs use the fixed hosts first, and spill over to the pool.
pub const DEFAULT_QUEUE: &str = "default";

/// The phase of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not yet handed over to the orchestrator.
    #[default]
    Accepted,
    /// Waiting for a slot.
    Pending,
    /// Dispatched to a host; its pod is starting.
    Starting,
    /// Its program runs.
    Running,
    /// It ended.
    Ended,
    /// It was canceled.
    Canceled,
}

/// A job as the model knows it. Moments are virtual seconds since the model's beginning.
#[derive(Debug, Clone, Default)]
pub struct ModelJob {
    /// The queue it waits in.
    pub queue: String,
    /// Its work: seconds that its program runs alone on a fixed host.
    pub work: f64,
    /// Its phase at the present moment.
    pub phase: Phase,
    /// When the orchestrator got it.
    pub submitted: f64,
    /// When it was dispatched to a host.
    pub started: Option<f64>,
    /// When its pod had started.
    pub running: Option<f64>,
    /// When it ended or was canceled.
    pub ended: Option<f64>,
    /// Index of the host it was dispatched to, see [`HostModel::hosts`].
    pub host: Option<usize>,
    /// CPU use so far in seconds of the sequential host's program run time: 1 per unit of work, more under contention.
    pub cpu: f64,
    /// Whether its pod had to wait for the image.
    pub cold: bool,
    left: f64,
}

/// A host, also one that was given back.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name, as orchestrator items show it.
    pub name: String,
    /// Whether it belongs to the autoscaling pool.
    pub pool: bool,
    /// When it came.
    pub arrived: f64,
    /// When it was given back.
    pub left: Option<f64>,
    /// Whether it has the image: a pod has started on it before.
    pub warm: bool,
    /// Jobs on it now, starting or running.
    pub jobs: Vec<usize>,
    /// The most jobs it ever had at a time.
    pub peak: usize,
    idle_since: f64,
}

/// The simulation. See the module's text.
#[derive(Debug, Clone, Default)]
pub struct HostModel {
    parameters: HostParameters,
    /// The present moment, in virtual seconds.
    pub now: f64,
    /// Every host there ever was, in order of arrival.
    pub hosts: Vec<Host>,
    /// Every job there ever was, in order of submission.
    jobs: Vec<ModelJob>,
    accepted: VecDeque<usize>,
    pending: Vec<usize>,
    arrival: Option<f64>,
    last_arrival: Option<f64>,
}

impl HostModel {
    /// A model at virtual second 0, with the fixed hosts and the pool's first hosts there.
    pub fn new(parameters: HostParameters) -> Self {
        let mut model = Self { parameters, ..Self::default() };
        for _ in 0..model.parameters.fixed_hosts {
            model.add_host(false, true);
        }
        for _ in 0..model.parameters.pool_min.min(model.parameters.pool_max) {
            model.add_host(true, true);
        }
        model
    }

    /// The job with that number.
    pub fn job(&self, job: usize) -> &ModelJob {
        &self.jobs[job]
    }

    /// Submits a job of `work` seconds to `queue` at the moment `at` (not before the present one); returns its number.
    /// The orchestrator gets it [`HostParameters::handover`] later.
    pub fn submit(&mut self, at: f64, queue: &str, work: f64) -> usize {
        self.advance(at);
        let id = self.jobs.len();
        self.jobs.push(ModelJob {
            queue: queue.to_owned(),
            work,
            submitted: self.now + self.parameters.handover,
            left: work,
            ..ModelJob::default()
        });
        self.accepted.push_back(id);
        self.settle();
        id
    }

    /// Cancels a job at the moment `at`: its slot is free at once. An ended job stays as it is.
    pub fn cancel(&mut self, at: f64, job: usize) {
        self.advance(at);
        if self.jobs[job].ended.is_some() {
            return;
        }
        self.accepted.retain(|other| *other != job);
        self.pending.retain(|other| *other != job);
        self.end(job, Phase::Canceled);
        self.settle();
    }

    /// Moves time forward to `to`, through every event on the way. A moment in the past changes nothing.
    pub fn advance(&mut self, to: f64) {
        while let Some(at) = self.next_event().filter(|at| *at <= to) {
            self.step(at);
        }
        if to > self.now {
            self.work_until(to);
        }
    }

    /// Advances until every submitted job has ended; returns the moment of the last end.
    pub fn finish(&mut self) -> f64 {
        while self.jobs.iter().any(|job| job.ended.is_none()) {
            // Without a next event nothing can change.
            let Some(at) = self.next_event() else { break };
            self.step(at);
        }
        self.now
    }

    /// The moment of the next event, if anything is going on.
    pub fn next_event(&self) -> Option<f64> {
        let accepted = self.accepted.front().map(|job| self.jobs[*job].submitted);
        let busy = self.hosts.iter().flat_map(|host| {
            let load = self.load(host);
            host.jobs.iter().map(move |job| self.now + self.jobs[*job].left / self.rate(host, load, *job))
        });
        let give_back = self.hosts.iter().filter_map(|host| self.give_back_at(host));
        accepted
            .into_iter()
            .chain(self.arrival)
            .chain(self.request_at().filter(|_| self.arrival.is_none()))
            .chain(busy)
            .chain(give_back)
            .min_by(f64::total_cmp)
            .map(|at| at.max(self.now))
    }

    fn class(&self, host: &Host) -> &HostClass {
        if host.pool { &self.parameters.pool } else { &self.parameters.fixed }
    }

    fn load(&self, host: &Host) -> f64 {
        let weight = |job: &usize| match self.jobs[*job].phase {
            Phase::Running => 1.0,
            _ => self.parameters.starting_weight,
        };
        host.jobs.iter().map(weight).sum()
    }

    fn rate(&self, host: &Host, load: f64, job: usize) -> f64 {
        let job = &self.jobs[job];
        match job.phase {
            Phase::Starting if job.cold => 1.0,
            _ => self.class(host).rate(load),
        }
    }

    fn step(&mut self, at: f64) {
        self.work_until(at);
        self.settle();
    }

    fn work_until(&mut self, at: f64) {
        let seconds = at - self.now;
        for index in 0..self.hosts.len() {
            let load = self.load(&self.hosts[index]);
            let inflation = self.class(&self.hosts[index]).inflation(load);
            for slot in 0..self.hosts[index].jobs.len() {
                let id = self.hosts[index].jobs[slot];
                let done = seconds * self.rate(&self.hosts[index], load, id);
                let job = &mut self.jobs[id];
                job.left -= done;
                if job.phase == Phase::Running {
                    job.cpu += done * inflation;
                }
            }
        }
        self.now = at;
    }

    /// Does everything that is due at the present moment.
    fn settle(&mut self) {
        let due: Vec<usize> = self.hosts.iter().flat_map(|host| host.jobs.iter().copied()).collect();
        for id in due {
            if self.jobs[id].left > EPSILON {
                continue;
            }
            match self.jobs[id].phase {
                Phase::Running => self.end(id, Phase::Ended),
                _ => {
                    let job = &mut self.jobs[id];
                    job.phase = Phase::Running;
                    job.running = Some(self.now);
                    job.left = job.work.max(2.0 * EPSILON);
                    if let Some(host) = job.host {
                        self.hosts[host].warm = true;
                    }
                }
            }
        }
        for index in 0..self.hosts.len() {
            if self.give_back_at(&self.hosts[index]).is_some_and(|at| at <= self.now + EPSILON) {
                self.hosts[index].left = Some(self.now);
            }
        }
        if self.arrival.is_some_and(|at| at <= self.now + EPSILON) {
            self.arrival = None;
            self.last_arrival = Some(self.now);
            self.add_host(true, false);
        }
        let until = self.now + EPSILON;
        while let Some(id) = self.accepted.front().copied().filter(|id| self.jobs[*id].submitted <= until) {
            self.accepted.pop_front();
            self.jobs[id].phase = Phase::Pending;
            self.pending.push(id);
        }
        self.dispatch();
        if self.arrival.is_none() && self.request_at().is_some_and(|at| at <= self.now + EPSILON) {
            self.arrival = Some(self.now + self.parameters.scale_up_delay);
        }
    }

    /// Gives free slots to waiting jobs, first come first served within each queue.
    fn dispatch(&mut self) {
        let mut waiting = Vec::new();
        let mut full: Vec<String> = Vec::new();
        for id in std::mem::take(&mut self.pending) {
            // Where one job of a queue finds no host, the others of the queue find none.
            let queue = &self.jobs[id].queue;
            let host = if full.contains(queue) { None } else { self.free_host(queue) };
            match host {
                Some(host) => self.start(id, host),
                None => {
                    if !full.contains(queue) {
                        full.push(queue.clone());
                    }
                    waiting.push(id);
                }
            }
        }
        self.pending = waiting;
    }

    /// The host for the next job of `queue`: fixed ones first, then warm ones, then those that came first.
    fn free_host(&self, queue: &str) -> Option<usize> {
        let usable = |host: &Host| {
            host.left.is_none() && host.jobs.len() < self.class(host).slots && (host.pool || queue == DEFAULT_QUEUE)
        };
        (0..self.hosts.len())
            .filter(|index| usable(&self.hosts[*index]))
            .min_by_key(|index| (self.hosts[*index].pool, !self.hosts[*index].warm, *index))
    }

    fn start(&mut self, id: usize, host: usize) {
        let cold = !self.hosts[host].warm;
        let job = &mut self.jobs[id];
        job.phase = Phase::Starting;
        job.started = Some(self.now);
        job.host = Some(host);
        job.cold = cold;
        job.left = if cold { self.parameters.cold_start } else { self.parameters.pod_start };
        let host = &mut self.hosts[host];
        host.jobs.push(id);
        host.peak = host.peak.max(host.jobs.len());
    }

    fn end(&mut self, id: usize, phase: Phase) {
        let job = &mut self.jobs[id];
        job.phase = phase;
        job.ended = Some(self.now);
        if let Some(host) = job.host {
            let host = &mut self.hosts[host];
            host.jobs.retain(|other| *other != id);
            host.idle_since = self.now;
        }
    }

    fn pool_size(&self) -> usize {
        self.hosts.iter().filter(|host| host.pool && host.left.is_none()).count()
    }

    /// When the next pool host is asked for: at once if a job waits and the pause since the last one's arrival is over.
    fn request_at(&self) -> Option<f64> {
        if self.pending.is_empty() || self.pool_size() >= self.parameters.pool_max {
            return None;
        }
        Some(self.last_arrival.map_or(self.now, |at| (at + self.parameters.scale_up_cooldown).max(self.now)))
    }

    fn give_back_at(&self, host: &Host) -> Option<f64> {
        let unneeded =
            host.pool && host.left.is_none() && host.jobs.is_empty() && self.pool_size() > self.parameters.pool_min;
        unneeded.then_some(host.idle_since + self.parameters.scale_down_after)
    }

    fn add_host(&mut self, pool: bool, warm: bool) {
        self.hosts.push(Host {
            name: format!("node-{}", self.hosts.len() + 1),
            pool,
            arrived: self.now,
            left: None,
            warm,
            jobs: Vec::new(),
            peak: 0,
            idle_since: self.now,
        });
    }
}

#[cfg(test)]
mod tests;
