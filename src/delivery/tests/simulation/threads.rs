//! Threads of which one runs at a time, and the clocks and random numbers of their machines. A thread runs until it waits: for a
//! request, for a time, for another thread. Only then the simulation decides who goes on.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use uuid::Uuid;

use super::world::World;
use crate::error::Result;
use crate::runtime::environment::{Environment, wait_for};

/// The number of a simulated process.
pub(super) type Actor = usize;
type Work = Box<dyn FnOnce() + Send>;

/// A thread that runs longer than this without a pause waits for something that the simulation does not know. Other programs can keep
/// the machine busy.
const HANGS: Duration = Duration::from_secs(600);

thread_local! {
    /// The simulation that this thread belongs to, and its process there.
    static HERE: RefCell<Option<(Arc<World>, Actor)>> = const { RefCell::new(None) };
}

/// Runs `work` as a part of a simulated process.
pub(super) fn within<T>(world: &Arc<World>, actor: Actor, work: impl FnOnce() -> T) -> T {
    let before = HERE.replace(Some((Arc::clone(world), actor)));
    let done = work();
    HERE.set(before);
    done
}

fn here<T>(look: impl FnOnce(&Arc<World>, Actor) -> T) -> Option<T> {
    let here = HERE.try_with(|here| here.borrow().clone()).ok()??;
    Some(look(&here.0, here.1))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Activity {
    /// It can go on.
    Ready,
    /// It waits until it is woken.
    Parked,
    /// It waits until something else has gone on.
    Looking,
    /// It has ended, and can run other work.
    Free,
}

struct SimulatedThread {
    actor: Actor,
    system: Thread,
    activity: Activity,
    /// It was woken before it parked.
    is_woken: bool,
    work: Option<Work>,
}

#[derive(Default)]
struct Table {
    threads: Vec<SimulatedThread>,
    by_id: std::collections::HashMap<ThreadId, usize>,
    panics: Vec<String>,
}

/// The threads of all processes. They are used again for the next seed.
#[derive(Default)]
pub(super) struct Threads {
    table: Mutex<Table>,
    /// The thread that runs, from 1; 0 while the simulation decides.
    running: AtomicUsize,
    decides: Mutex<()>,
    stopped: Condvar,
}

impl Threads {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().expect("no thread panics with the table")
    }

    /// Adds a thread that runs `work` when its turn comes.
    pub(super) fn start(self: &Arc<Self>, world: &Arc<World>, actor: Actor, work: Work) {
        let (inner, process) = (Arc::clone(world), actor);
        let work: Work = Box::new(move || within(&inner, process, work));
        let mut table = self.table();
        if let Some(free) = table.threads.iter_mut().find(|thread| thread.activity == Activity::Free) {
            (free.actor, free.activity, free.is_woken, free.work) = (actor, Activity::Ready, false, Some(work));
            return;
        }
        let number = table.threads.len();
        let threads = Arc::clone(self);
        let started = thread::Builder::new().name("simulated".to_owned()).spawn(move || threads.serve(number));
        let system = started.expect("a thread").thread().clone();
        table.by_id.insert(system.id(), number);
        let (activity, is_woken) = (Activity::Ready, false);
        table.threads.push(SimulatedThread { actor, system, activity, is_woken, work: Some(work) });
    }

    fn serve(&self, number: usize) {
        loop {
            self.wait_for_turn(number);
            let work = self.table().threads[number].work.take().expect("a thread has work in its turn");
            let ended = catch_unwind(AssertUnwindSafe(work));
            let mut table = self.table();
            if let Err(panic) = ended {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                table.panics.push(text.unwrap_or_default());
            }
            table.threads[number].activity = Activity::Free;
            drop(table);
            self.hand_over();
        }
    }

    fn wait_for_turn(&self, number: usize) {
        while self.running.load(Ordering::Acquire) != number + 1 {
            thread::park();
        }
    }

    fn hand_over(&self) {
        let decides = self.decides.lock().expect("not poisoned");
        self.running.store(0, Ordering::Release);
        drop(decides);
        self.stopped.notify_one();
    }

    /// The number of this thread.
    fn own(&self) -> usize {
        self.table().by_id[&thread::current().id()]
    }

    /// Waits as `activity` says.
    fn stop(&self, activity: Activity) {
        let number = self.own();
        {
            let thread = &mut self.table().threads[number];
            if activity == Activity::Parked && std::mem::take(&mut thread.is_woken) {
                return;
            }
            thread.activity = activity;
        }
        self.hand_over();
        self.wait_for_turn(number);
    }

    /// Wakes `thread`. Returns false if it is not one of these.
    fn wake(&self, thread: &Thread) -> bool {
        let mut table = self.table();
        let Some(number) = table.by_id.get(&thread.id()).copied() else { return false };
        let woken = &mut table.threads[number];
        match woken.activity {
            Activity::Parked => woken.activity = Activity::Ready,
            Activity::Free => {}
            Activity::Ready | Activity::Looking => woken.is_woken = true,
        }
        true
    }

    /// Runs threads, one after the other as `choose` says, until none of those that `may_run` can go on.
    pub(super) fn run(&self, may_run: &dyn Fn(Actor) -> bool, choose: &mut dyn FnMut(usize) -> usize) {
        let mut has_moved = true;
        loop {
            let numbers = |wanted: Activity| -> Vec<usize> {
                let table = self.table();
                let all = table.threads.iter().enumerate();
                all.filter(|(_, thread)| thread.activity == wanted && may_run(thread.actor)).map(|(at, _)| at).collect()
            };
            let ready = numbers(Activity::Ready);
            if !ready.is_empty() {
                self.turn(ready[choose(ready.len())]);
                has_moved = true;
            } else if std::mem::take(&mut has_moved) {
                for number in numbers(Activity::Looking) {
                    self.turn(number);
                    has_moved |= self.table().threads[number].activity != Activity::Looking;
                }
            } else {
                return;
            }
        }
    }

    fn turn(&self, number: usize) {
        let system = self.table().threads[number].system.clone();
        let decides = self.decides.lock().expect("not poisoned");
        self.running.store(number + 1, Ordering::Release);
        system.unpark();
        let is_running = |_: &mut ()| self.running.load(Ordering::Acquire) != 0;
        let (_guard, waited) = self.stopped.wait_timeout_while(decides, HANGS, is_running).expect("not poisoned");
        if waited.timed_out() {
            let actor = self.table().threads[number].actor;
            eprintln!("a thread of process {actor} waits for something that the simulation does not know");
            std::process::abort();
        }
    }

    /// The processes of the threads that have not ended.
    pub(super) fn alive(&self) -> Vec<Actor> {
        let table = self.table();
        table.threads.iter().filter(|thread| thread.activity != Activity::Free).map(|thread| thread.actor).collect()
    }

    /// What threads panicked with.
    pub(super) fn panics(&self) -> Vec<String> {
        std::mem::take(&mut self.table().panics)
    }
}

/// The environment of simulated threads; other threads of this process have the machine's.
pub(super) struct Simulated;

struct Real;

impl Environment for Real {}

/// Ends at a time of the simulation.
struct Sleep {
    world: Arc<World>,
    actor: Actor,
    at: Duration,
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(number) = self.number.take() {
            self.world.remove_timer(self.at, number);
        }
        if self.world.has_come(self.actor, self.at) {
            return Poll::Ready(());
        }
        let waker: Waker = context.waker().clone();
        self.number = Some(self.world.add_timer(self.at, waker));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.world.remove_timer(self.at, number);
        }
    }
}

impl Environment for Simulated {
    fn utc(&self) -> DateTime<Utc> {
        here(|world, actor| world.utc(actor)).unwrap_or_else(|| Real.utc())
    }

    fn instant(&self) -> Instant {
        here(|world, actor| world.instant(actor)).unwrap_or_else(|| Real.instant())
    }

    fn since_boot(&self) -> Duration {
        here(|world, actor| world.since_boot(actor)).unwrap_or_else(|| Real.since_boot())
    }

    fn uuid(&self) -> Uuid {
        here(|world, _| uuid::Builder::from_random_bytes(world.random().to_be_bytes()).into_uuid())
            .unwrap_or_else(|| Real.uuid())
    }

    fn fraction(&self) -> f64 {
        here(|world, _| (world.random() >> 75) as f64 / (1u64 << 53) as f64).unwrap_or_else(|| Real.fraction())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let simulated = |world: &Arc<World>, actor| -> BoxFuture<'static, ()> {
            Box::pin(Sleep { world: Arc::clone(world), actor, at: world.after_by(actor, duration), number: None })
        };
        here(simulated).unwrap_or_else(|| Real.sleep(duration))
    }

    fn block(&self, duration: Duration) {
        match here(|_, _| ()) {
            Some(()) => wait_for(self.sleep(duration)),
            None => Real.block(duration),
        }
    }

    fn start(&self, name: Option<&str>, work: Work) -> Result<()> {
        match here(|world, actor| (Arc::clone(world), actor)) {
            Some((world, actor)) => world.threads.start(&world, actor, work),
            None => return Real.start(name, work),
        }
        Ok(())
    }

    fn start_task(&self, task: BoxFuture<'static, ()>) -> Result<()> {
        self.start(None, Box::new(move || wait_for(task)))
    }

    fn run_threads(&self, count: usize, work: &(dyn Fn() + Sync)) {
        match here(|_, _| ()) {
            Some(()) => work(),
            None => Real.run_threads(count, work),
        }
    }

    fn park(&self) {
        match here(|world, _| Arc::clone(&world.threads)) {
            Some(threads) => threads.stop(Activity::Parked),
            None => Real.park(),
        }
    }

    fn unpark(&self, thread: &Thread) {
        if here(|world, _| world.threads.wake(thread)) != Some(true) {
            Real.unpark(thread);
        }
    }

    fn wait_until(&self, is_ready: &dyn Fn() -> bool) {
        if let Some(threads) = here(|world, _| Arc::clone(&world.threads)) {
            while !is_ready() {
                threads.stop(Activity::Looking);
            }
        }
    }
}
