//! What the processes share: time, requests that wait for their answers, and the seed that decides about both.

mod clocks;
mod faults;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use object_store::path::Path;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::oneshot;

use super::threads::{Actor, Threads};
use super::{Bug, truth::Truth};
use crate::stop::Stop;

/// Reads and writes without faults, and without its requests being decided about: the simulation itself.
pub(super) const OBSERVER: Actor = 0;
/// How long an event can be on its way to AutoSys, as the transport says it.
pub(super) const SEND_LIMIT: Duration = Duration::from_secs(20);
/// Each seed has days of its own: the process remembers the last time that it gave to a row or a file.
const TIME_OF_A_SEED: i64 = 12 * 3600;
/// How much faster the clocks of a process are than that of the store: mostly as fast.
const DRIFTS: [f64; 8] = [0.0, 0.0, 0.0, 0.0, 1e-4, -1e-3, 1e-2, -1e-2];

/// What a request is. Later ones fail more often, as there are fewer of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Write,
    /// A write that fails if there is an object.
    Create,
    /// An event for AutoSys.
    Send,
}

/// How a request is answered.
pub(super) enum Reply<T> {
    Done(T),
    /// An error that does not say whether it took effect.
    Lost,
    /// It took effect, but a client that repeated it got the answer to the second one.
    Exists,
}

type Effect = Box<dyn FnOnce() + Send>;
type Beginning = Box<dyn FnOnce(&Arc<World>) + Send>;

struct Request {
    actor: Actor,
    label: String,
    kind: Kind,
    effect: Effect,
    answer: oneshot::Sender<Reply<()>>,
    begun: Duration,
    /// It is slow: nothing becomes of it before.
    ready: Duration,
}

enum Event {
    Land(String, Effect),
    Answer(oneshot::Sender<Reply<()>>),
    Resume(Actor),
    Begin(Beginning),
    /// The time limit of an event on its way to AutoSys.
    Overdue,
}

pub(super) struct Process {
    pub(super) name: String,
    pub(super) stop: Stop,
    is_updater: bool,
    is_killed: bool,
    /// It is ended for good: nothing waits any more.
    is_buried: bool,
    is_paused: bool,
    skew: TimeDelta,
    boot: Duration,
    /// How much its clocks show for each second.
    rate: f64,
}

pub(super) struct State {
    now: Duration,
    random: StdRng,
    numbers: u64,
    timers: BTreeMap<(Duration, u64), Waker>,
    events: BTreeMap<(Duration, u64), Event>,
    requests: BTreeMap<u64, Request>,
    pub(super) processes: Vec<Process>,
    pub(super) modified: HashMap<Path, Duration>,
    /// How many more faults there can be.
    faults: u32,
    percent: u32,
    /// Kills and pauses up to now.
    pub(super) process_faults: u32,
    steps: u64,
    pub(super) is_calm: bool,
    pub(super) is_idle: bool,
    hash: DefaultHasher,
    /// Whether each decision is printed.
    is_shown: bool,
    pub(super) truth: Truth,
}

pub(super) struct World {
    pub(super) threads: Arc<Threads>,
    pub(super) bug: Option<Bug>,
    state: Mutex<State>,
    base: Instant,
    epoch: DateTime<Utc>,
}

impl World {
    pub(super) fn new(threads: &Arc<Threads>, seed: u64, bug: Option<Bug>, is_shown: bool) -> Arc<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let faults = [0, 1, 2, 3, 4, 6, 9][random.random_range(0..7)];
        let percent = [1, 2, 4, 8][random.random_range(0..4)];
        let state = State {
            now: Duration::ZERO,
            random,
            numbers: 0,
            timers: BTreeMap::new(),
            events: BTreeMap::new(),
            requests: BTreeMap::new(),
            processes: Vec::new(),
            modified: HashMap::new(),
            faults,
            percent,
            process_faults: 0,
            steps: 0,
            is_calm: false,
            is_idle: false,
            hash: DefaultHasher::new(),
            is_shown,
            truth: Truth::default(),
        };
        let days = i64::try_from(seed).expect("a small seed") * TIME_OF_A_SEED;
        let epoch = DateTime::from_timestamp(1_900_000_000 + days, 0).expect("a time");
        let base = Instant::now();
        let world = Self { threads: Arc::clone(threads), bug, state: Mutex::new(state), base, epoch };
        let world = Arc::new(world);
        world.add_process("observer", false);
        world
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the state")
    }

    pub(super) fn add_process(&self, name: &str, is_updater: bool) -> Actor {
        let mut state = self.state();
        let number = state.processes.len();
        let skew = if number == OBSERVER { 0 } else { state.random.random_range(-3600..3600) };
        let boot = Duration::from_secs(state.random.random_range(0..100_000));
        let rate = 1.0 + if number == OBSERVER { 0.0 } else { DRIFTS[state.random.random_range(0..DRIFTS.len())] };
        state.processes.push(Process {
            name: format!("{name} {number}"),
            stop: Stop::default(),
            is_updater,
            is_killed: false,
            is_buried: false,
            is_paused: false,
            skew: TimeDelta::seconds(skew),
            boot,
            rate,
        });
        number
    }

    /// Makes a request, which waits until the seed decides about it.
    pub(super) async fn request<T: Send + 'static>(
        self: &Arc<Self>,
        actor: Actor,
        kind: Kind,
        label: String,
        effect: impl FnOnce() -> T + Send + 'static,
    ) -> Reply<T> {
        let answered = {
            let mut state = self.state();
            if state.processes[actor].is_buried && actor != OBSERVER {
                return Reply::Lost;
            }
            if actor == OBSERVER || state.passes() {
                if actor != OBSERVER {
                    state.now += Duration::from_millis(5);
                    state.note(actor, &label, "at once");
                }
                drop(state);
                return Reply::Done(effect());
            }
            let done = Arc::new(Mutex::new(None));
            let slot = Arc::clone(&done);
            let effect = Box::new(move || *slot.lock().expect("not poisoned") = Some(effect()));
            let (answer, answered) = oneshot::channel();
            let (number, begun) = (state.next(), state.now);
            state.requests.insert(number, Request { actor, label, kind, effect, answer, begun, ready: begun });
            if kind == Kind::Send {
                let overdue = state.next();
                state.events.insert((begun + SEND_LIMIT, overdue), Event::Overdue);
            }
            (answered, done)
        };
        match answered.0.await {
            Ok(Reply::Done(())) => match answered.1.lock().expect("not poisoned").take() {
                Some(output) => Reply::Done(output),
                None => Reply::Lost,
            },
            Ok(Reply::Exists) => Reply::Exists,
            Ok(Reply::Lost) | Err(_) => Reply::Lost,
        }
    }

    /// Begins something after `delay`.
    pub(super) fn after(&self, delay: Duration, begin: impl FnOnce(&Arc<World>) + Send + 'static) {
        let mut state = self.state();
        let at = (state.now + delay, state.next());
        state.events.insert(at, Event::Begin(Box::new(begin)));
    }

    /// Runs all threads until each of them waits.
    pub(super) fn settle(&self) {
        let may_run = |actor: Actor| {
            let process = &self.state().processes[actor];
            process.is_buried || !process.is_killed && !process.is_paused
        };
        self.threads.run(&may_run, &mut |count| if count == 1 { 0 } else { self.below(count as u64) as usize });
    }

    /// Decides one thing. Returns false if nothing is left to decide.
    pub(super) fn step(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        state.steps += 1;
        let now = state.now;
        let ready: Vec<u64> =
            state.requests.iter().filter(|(_, request)| request.ready <= now).map(|(number, _)| *number).collect();
        let next = state.next_time();
        let Some(next) = next.or(Some(now).filter(|_| !ready.is_empty())) else { return false };
        if ready.is_empty() || next > now && state.random.random_range(0..100) < 2 {
            state.now = next.max(now);
            drop(state);
            self.fire();
            return true;
        }
        // What matters is what a process leaves behind that is sending.
        let weight = if state.requests.values().any(|request| request.kind == Kind::Send) { 40 } else { 1 };
        if state.faults > 0 && !state.is_calm && state.random.random_range(0..4000) < state.percent * weight {
            let updaters: Vec<Actor> = (0..state.processes.len()).filter(|actor| state.is_alive(*actor)).collect();
            if !updaters.is_empty() {
                state.faults -= 1;
                state.process_faults += 1;
                let chosen = updaters[state.random.random_range(0..updaters.len())];
                if state.random.random_range(0..2) == 0 {
                    state.kill(chosen);
                    state.truth.to_replace += 1;
                } else {
                    state.pause(chosen);
                }
                return true;
            }
        }
        let number = ready[state.random.random_range(0..ready.len())];
        let passed = Duration::from_micros(state.random.random_range(500..20_000));
        state.now += passed;
        let request = state.requests.remove(&number).expect("it is ready");
        let weight = [1, 4, 20, 200][request.kind as usize];
        let fails = state.faults > 0 && !state.is_calm && state.random.random_range(0..2000) < state.percent * weight;
        let then =
            if fails { state.fault(request) } else { state.decide(request, "done", true, Some(Reply::Done(()))) };
        drop(state);
        then.finish();
        self.fire();
        true
    }

    /// Lets happen what is due.
    fn fire(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let now = state.now;
            let wakes = state.timers.first_key_value().map(|(at, _)| *at).filter(|(at, _)| *at <= now);
            let happens = state.events.first_key_value().map(|(at, _)| *at).filter(|(at, _)| *at <= now);
            if let Some(at) = wakes {
                let waker = state.timers.remove(&at);
                drop(state);
                waker.into_iter().for_each(Waker::wake);
            } else if let Some(at) = happens {
                let event = state.events.remove(&at).expect("it is the first");
                match event {
                    Event::Resume(actor) => {
                        state.processes[actor].is_paused = false;
                        state.note(actor, "goes on", "");
                    }
                    Event::Land(label, effect) => {
                        state.note(OBSERVER, &label, "lands late");
                        drop(state);
                        effect();
                    }
                    Event::Answer(answer) => {
                        drop(state);
                        let _ = answer.send(Reply::Lost);
                    }
                    Event::Begin(begin) => {
                        drop(state);
                        begin(self);
                    }
                    Event::Overdue => {
                        let late = |request: &Request| request.kind == Kind::Send && request.begun + SEND_LIMIT <= now;
                        let late: Vec<u64> =
                            state.requests.iter().filter(|(_, r)| late(r)).map(|(number, _)| *number).collect();
                        for number in late {
                            let request = state.requests.remove(&number).expect("it is there");
                            let then = state.decide(request, "too late", false, Some(Reply::Lost));
                            drop(state);
                            then.finish();
                            state = self.state();
                        }
                    }
                }
            } else {
                return;
            }
        }
    }

    /// Ends all faults: whatever is decided from now on is answered.
    pub(super) fn calm(&self, kills: bool) {
        let mut state = self.state();
        state.is_calm = true;
        for actor in 1..state.processes.len() {
            state.processes[actor].is_paused = false;
            if kills && state.processes[actor].is_updater && state.is_alive(actor) {
                state.kill(actor);
            }
            state.processes[actor].stop.stop();
        }
        let now = state.now;
        state.requests.values_mut().for_each(|request| request.ready = now);
    }

    /// Lets the threads of killed processes end.
    pub(super) fn bury(&self) {
        let (wakers, left) = {
            let mut state = self.state();
            for process in &mut state.processes {
                process.is_buried = true;
                process.stop.stop();
            }
            let left = (std::mem::take(&mut state.requests), std::mem::take(&mut state.events));
            (std::mem::take(&mut state.timers), left)
        };
        wakers.into_values().for_each(Waker::wake);
        drop(left);
        self.settle();
    }

    /// The processes that are not killed and have threads.
    pub(super) fn alive(&self) -> Vec<Actor> {
        let mut alive = self.threads.alive();
        alive.retain(|actor| !self.state().processes[*actor].is_killed);
        alive
    }

    pub(super) fn is_updater(&self, actor: Actor) -> bool {
        self.state().processes[actor].is_updater
    }

    pub(super) fn note(&self, actor: Actor, what: &str, how: &str) {
        self.state().note(actor, what, how);
    }

    /// What tells one run from another, and the number of decisions.
    pub(super) fn fingerprint(&self) -> (u64, u64) {
        let state = self.state();
        (state.hash.finish(), state.steps)
    }
}

/// What is done without the lock of the state, because it wakes threads.
struct Then(Option<Effect>, Option<(oneshot::Sender<Reply<()>>, Reply<()>)>);

impl Then {
    fn finish(self) {
        if let Some(effect) = self.0 {
            effect();
        }
        if let Some((answer, reply)) = self.1 {
            let _ = answer.send(reply);
        }
    }
}

impl State {
    /// Keeps in mind whether an updater found nothing to deliver while no effect was still to come.
    pub(super) fn note_idle(&mut self, is_idle: bool) {
        let lands = |event: &Event| matches!(event, Event::Land(..) | Event::Resume(_));
        self.is_idle = is_idle && !self.events.values().any(lands);
    }

    fn next(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn next_time(&self) -> Option<Duration> {
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        let event = self.events.keys().next().map(|(at, _)| *at);
        let slow = self.requests.values().map(|request| request.ready).filter(|ready| *ready > self.now).min();
        [timer, event, slow].into_iter().flatten().min()
    }

    /// Whether a request is answered at once, because nothing else can happen before.
    fn passes(&self) -> bool {
        self.is_calm
            && self.requests.is_empty()
            && self.next_time().is_none_or(|next| next > self.now + Duration::from_millis(10))
    }

    fn is_alive(&self, actor: Actor) -> bool {
        let process = &self.processes[actor];
        process.is_updater && !process.is_killed && !process.is_paused
    }

    fn millis(&mut self, limit: u64) -> Duration {
        Duration::from_millis(self.random.random_range(0..limit.max(1)))
    }

    fn note(&mut self, actor: Actor, what: &str, how: &str) {
        let own = std::process::id().to_string();
        let how = how.replace(&own, "PID");
        (self.now, actor, what, &how).hash(&mut self.hash);
        if self.is_shown {
            println!("SHOW {:9.3} {:14} {what} {how}", self.now.as_secs_f64(), self.processes[actor].name);
        }
    }

    fn decide(&mut self, request: Request, how: &str, takes_effect: bool, reply: Option<Reply<()>>) -> Then {
        self.note(request.actor, &request.label, how);
        Then(takes_effect.then_some(request.effect), reply.map(|reply| (request.answer, reply)))
    }
}
